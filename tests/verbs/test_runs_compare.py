"""`ownlm runs compare`."""

import json
import math
import shutil
from pathlib import Path

import pytest
from tests.conftest import TINY

import ownlm
from ownlm.cli import main
from ownlm.console.errors import Refused, UsageError
from ownlm.verbs import _paired
from ownlm.verbs._compare import short_names


@pytest.fixture(scope="module")
def slower(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run like the shared one, with a rate at which it learns next to nothing."""
    path = tmp_path_factory.mktemp("runs") / "slower"
    ownlm.pretrain(corpus, output=path, max_steps=12, learning_rate=1e-6, **TINY)
    return path


@pytest.fixture(scope="module")
def bytewise(text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the same text with another tokenizer."""
    folder = tmp_path_factory.mktemp("bytewise")
    ownlm.prepare([str(text_folder)], output=folder / "chars", tokenizer_type="char")
    ownlm.pretrain(folder / "chars", output=folder / "chars run", max_steps=2, **TINY)
    return folder / "chars run"


def test_settings_that_differ_and_only_they(run, slower, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert main(["runs", "compare", str(run), str(slower), "-o", str(page)]) == 0
    captured = capsys.readouterr()
    found = ownlm.runs("compare", [run, slower], output=page)
    assert found["settings"]["max_steps"] == [30, 12]
    assert found["settings"]["learning_rate"][1] == 1e-6
    assert not {"seed", "output", "set num_hidden_layers", "context"} & set(found["settings"])
    for words in ("run", "slower", "max_steps", "30", "12", "bits per byte", "worse"):
        assert words in captured.out
    text = page.read_text(encoding="utf-8")
    assert "The same corpus in all runs." in text
    for setting in found["settings"]:
        assert f'<th scope="row">{setting}</th>' in text
    assert "ownlm pretrain" in text and "--learning-rate 1e-06" in text


def test_the_paired_difference_is_that_of_the_figures_and_has_the_narrower_interval(run, slower, tmp_path):
    found = ownlm.runs("compare", [run, slower], output=tmp_path / "x.html", paired=True)
    [change] = found["differences"]
    first, second = (row["bits_per_byte"] for row in found["runs"])
    assert change["value"] == pytest.approx(second["value"] - first["value"], rel=1e-5)
    assert change["low"] > 0
    assert found["resampled"] == "blocks of 1,024 bytes"
    assert found["same"] == {"data": True, "held_out_text": True, "tokenizer": True, "machine": True}


def test_with_many_documents_they_are_what_is_resampled(run, slower, tmp_path, monkeypatch):
    monkeypatch.setattr("ownlm.evaluation.metrics.FEW", 2)
    found = ownlm.runs("compare", [run, slower], output=tmp_path / "x.html")
    assert found["resampled"] == "documents"
    first, second = (row["bits_per_byte"]["value"] for row in found["runs"])
    assert found["differences"][0]["value"] == pytest.approx(second - first, rel=1e-5)


def test_losses_a_token_are_not_compared_across_tokenizers(run, bytewise, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert main(["runs", "compare", str(run), str(bytewise), "-o", str(page), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["loss"] for row in found["runs"]] == [None, None]
    assert [row["perplexity"] for row in found["runs"]] == [None, None]
    assert found["same"]["held_out_text"] is True and not found["same"]["tokenizer"]
    assert any("tokenizers" in note for note in found["notes"])
    # The same bytes in blocks: the difference is still that of the figures.
    first, second = (row["bits_per_byte"]["value"] for row in found["runs"])
    assert found["differences"][0]["value"] == pytest.approx(second - first, rel=1e-5)
    text = page.read_text(encoding="utf-8")
    assert "bits per byte, over tokens" in text
    assert "nats a token" not in text and "perplexity" not in text


def test_no_paired_difference_is_said_with_its_reason(run, slower, tmp_path, monkeypatch, capsys):
    page = tmp_path / "x.html"
    found = ownlm.runs("compare", [run, slower], output=page, paired=False)
    assert found["differences"] == [] and "--no-paired" in found["not_paired"]
    monkeypatch.setattr(_paired, "QUICK_FLOPS", 1.0)
    found = ownlm.runs("compare", [run, slower], output=page)
    assert found["differences"] == [] and "--paired does it" in found["not_paired"]
    assert "--paired does it" in page.read_text(encoding="utf-8")
    assert ownlm.runs("compare", [run, slower], output=page, paired=True)["differences"]
    unfinished = tmp_path / "unfinished"
    shutil.copytree(slower, unfinished)
    (unfinished / "model.safetensors").unlink()
    content = json.loads((unfinished / "run.json").read_text()) | {"finished": False, "result": {}}
    (unfinished / "run.json").write_text(json.dumps(content))
    assert main(["runs", "compare", str(run), str(unfinished), "-o", str(page)]) == 0
    captured = capsys.readouterr()
    assert "has no finished model" in captured.err and "is not finished" in captured.err


def test_other_held_out_text_is_said(run, text_folder, tmp_path):
    ownlm.prepare([str(text_folder / "fox.txt")], output=tmp_path / "c", vocab_size=300)
    ownlm.pretrain(tmp_path / "c", output=tmp_path / "fox", max_steps=0, **TINY)
    found = ownlm.runs("compare", [run, tmp_path / "fox"], output=tmp_path / "x.html")
    assert found["same"]["held_out_text"] is False
    assert found["differences"] == [] and "different held-out text" in found["not_paired"]
    assert any("do not compare" in note for note in found["notes"])


def test_bits_of_blocks_are_bits_of_documents(run, corpus, monkeypatch):
    """Cutting the text into blocks of bytes loses nothing of it."""
    from ownlm.corpus.shards import Corpus
    from ownlm.evaluation.scoring import score_tokens

    monkeypatch.setattr(_paired, "BLOCK_BYTES", 100)
    split = Corpus.open(corpus).split("validation")
    units = _paired._units(split)
    assert units.bytes.sum() == split.num_bytes
    bits = _paired._bits(run, split, units)
    assert (
        len(bits) == len(units.bytes) == sum(math.ceil(size / 100) for size in split.document_bytes.tolist())
    )
    loaded, first = ownlm.load(run), 0
    for number, size in enumerate(split.document_bytes.tolist()):
        ids = split.document(number).astype("int64")
        logprobs = score_tokens(loaded.model, [ids], context=loaded.context)[0].logprobs
        at = 0
        expected = [0.0] * math.ceil(size / 100)
        for token, logprob in zip(ids[1:], logprobs):
            expected[at // 100] -= logprob / math.log(2)
            at += len(split.corpus.tokenizer.token_bytes(int(token)))
        assert bits[first : first + len(expected)] == pytest.approx(expected)
        first += len(expected)
    value = json.loads((run / "run.json").read_text())["result"]["bits_per_byte"]["value"]
    assert bits.sum() / split.num_bytes == pytest.approx(value, rel=1e-6)


def test_the_word_compare_and_a_folder_of_that_name(run, slower, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, tmp_path / "compare" / "a")
    assert main(["runs", "./compare", "--json"]) == 0
    assert [row["run"] for row in json.loads(capsys.readouterr().out)] == ["compare/a"]
    assert main(["runs", "compare"]) == 2
    assert main(["runs", "compare", str(run), str(slower)]) == 0
    assert (tmp_path / "compare.html").is_file()
    capsys.readouterr()
    assert main(["runs", str(run), str(slower)]) == 2
    assert "ownlm runs compare" in capsys.readouterr().err


def test_what_cannot_be_compared_is_refused(run, slower, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="not one run"):
        ownlm.runs("compare", [run])
    with pytest.raises(UsageError, match="not 9 runs"):
        ownlm.runs("compare", [run] * 9)
    with pytest.raises(UsageError, match="twice"):
        ownlm.runs("compare", [run, run])
    with pytest.raises(UsageError, match="no such run"):
        ownlm.runs("compare", [run, tmp_path / "nothing"])
    with pytest.raises(UsageError, match="no effect"):
        ownlm.runs(tmp_path, output=tmp_path / "x.html")
    with pytest.raises(UsageError, match="no effect"):
        ownlm.runs(tmp_path, paired=True)
    with pytest.raises(UsageError, match="does not go"):
        ownlm.runs("compare", [run, slower], containing="abcdef01")
    with pytest.raises(UsageError, match="is a folder"):
        ownlm.runs("compare", [run, slower], output=tmp_path)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(run, elsewhere)
    (elsewhere / "run.json").unlink()
    with pytest.raises(Refused, match="from elsewhere"):
        ownlm.runs("compare", [run, elsewhere])


def test_names_are_as_short_as_they_can_be(tmp_path):
    paths = [tmp_path / "x" / "run", tmp_path / "y" / "run"]
    assert short_names(paths) == [str(Path("x", "run")), str(Path("y", "run"))]
    assert short_names([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]
