"""`ownlm export`: the folder opens in transformers with the same answers; nothing of others is touched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import ownlm
from ownlm.cli import main
from ownlm.console.errors import OwnlmError, Refused, UsageError
from ownlm.verbs.export import parse_size

transformers = pytest.importorskip("transformers")


def logits(folder: Path, dtype: str = "auto") -> torch.Tensor:
    """transformers' logits of some tokens."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    with torch.no_grad():
        return model(torch.arange(20, 50)[None]).logits.float()


def test_a_run_as_it_is(run, tmp_path):
    done = ownlm.export(str(run), tmp_path / "out")
    assert done["tensors"] == len(load_file(run / "model.safetensors"))
    before, after = (load_file(folder / "model.safetensors") for folder in (run, tmp_path / "out"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(logits(run), logits(tmp_path / "out"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (
        tokenizer("The river runs").input_ids
        == transformers.AutoTokenizer.from_pretrained(run)("The river runs").input_ids
    )
    card = (tmp_path / "out" / "README.md").read_text()
    assert done["source_sha256"] in card and str(run) in card and "## Training" in card


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_another_dtype(run, tmp_path, dtype):
    done = ownlm.export(str(run), tmp_path / "out", dtype=dtype)
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {getattr(torch, dtype)}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == dtype
    largest = max(
        float((tensor.float() - stored[name].float()).abs().max())
        for name, tensor in load_file(run / "model.safetensors").items()
    )
    assert done["largest_change"] == pytest.approx(largest) and largest > 0
    torch.testing.assert_close(logits(tmp_path / "out", "float32"), logits(run), atol=0.1, rtol=0.05)
    loaded = ownlm.load(tmp_path / "out")
    assert loaded.generate("The river", max_new_tokens=5, seed=1).startswith("The river")


def test_shards_and_back(run, tmp_path):
    ownlm.export(str(run), tmp_path / "many", max_shard_size="40kB")
    assert len(list((tmp_path / "many").glob("model-*.safetensors"))) > 3
    assert torch.equal(logits(tmp_path / "many"), logits(run))
    ownlm.export(str(tmp_path / "many"), tmp_path / "one")
    one, before = (load_file(folder / "model.safetensors") for folder in (tmp_path / "one", run))
    assert all(torch.equal(one[name], before[name]) for name in before)


def test_a_weight_that_the_dtype_cannot_hold(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "big")
    tensors = load_file(tmp_path / "big" / "model.safetensors")
    tensors["model.norm.weight"][3] = 1e6
    save_file(tensors, tmp_path / "big" / "model.safetensors")
    assert main(["export", str(tmp_path / "big"), str(tmp_path / "out"), "--dtype", "float16"]) == 3
    assert "model.norm.weight" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_there_already(run, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    assert main(["export", str(run), str(tmp_path / "mine"), "--overwrite"]) == 2
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]
    assert main(["export", str(run), str(tmp_path / "out")]) == 0
    assert main(["export", str(run), str(tmp_path / "out")]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["export", str(run), str(tmp_path / "out"), "--overwrite", "--dtype", "bfloat16"]) == 0
    assert load_file(tmp_path / "out" / "model.safetensors")["model.norm.weight"].dtype == torch.bfloat16
    assert main(["export", str(run), str(run)]) == 2
    assert (run / "model.safetensors").exists()


def test_json_is_what_python_gets(run, tmp_path, capsys):
    assert main(["export", str(run), str(tmp_path / "a"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    found = ownlm.export(str(run), tmp_path / "b")
    assert printed["source_sha256"] == found["source_sha256"]
    assert printed.keys() == found.keys()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(["--to", "somewhere"], "--to"), (["--to", "hub:name"], "--to"), (["--max-shard-size", "big"], "max-shard"),
     (["--tokenizer", "x.model"], "--tokenizer"), (["--dtype", "int3"], "dtype")],
)  # fmt: skip
def test_wrong_arguments(run, tmp_path, capsys, arguments, word):
    assert main(["export", str(run), str(tmp_path / "out"), *arguments]) == 2
    assert word in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_sizes():
    assert parse_size("5GB") == 5_000_000_000
    assert parse_size("1.5 mb") == 1_500_000
    assert parse_size("7") == 7
    for text in ("", "GB", "-1GB", "1.2.3GB", "0", "5XB"):
        with pytest.raises(UsageError):
            parse_size(text)


def test_no_such_model(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "./nowhere", "out"]) == 2
    assert not Path("out").exists()


def test_last_is_a_run_and_not_its_export(run, tmp_path, monkeypatch):
    from ownlm.locate import find_run

    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, "b-run")
    ownlm.export("b-run", Path("a-export"))
    assert find_run("last") == Path("b-run")
    assert {row["run"]: row["exported"] for row in ownlm.runs(".")} == {"b-run": False, "a-export": True}
    assert ownlm.load("a-export").taught == ["continues text"]


# ---- what is there, and what is left behind


def test_config_is_written_last(run, tmp_path, monkeypatch):
    """Killed before the end, a folder is not taken for a model; the next export says what it is."""
    from ownlm.export import rewrite

    def killed(path: Path, content: object) -> None:
        if path.name == "config.json":
            seen.extend(sorted(file.name for file in path.parent.iterdir()))
            raise KeyboardInterrupt

    seen: list[str] = []
    monkeypatch.setattr(rewrite, "write_json", killed)
    monkeypatch.setattr("ownlm.verbs.export.discard", lambda target: None)  # a kill leaves everything
    with pytest.raises(KeyboardInterrupt):
        ownlm.export(str(run), tmp_path / "out")
    assert {"model.safetensors", "tokenizer.json"} <= set(seen)
    with pytest.raises(OwnlmError, match=r"config\.json"):
        ownlm.load(tmp_path / "out")
    monkeypatch.undo()
    with pytest.raises(UsageError, match="an unfinished export is there"):
        ownlm.export(str(run), tmp_path / "out")
    ownlm.export(str(run), tmp_path / "out", overwrite=True)
    assert torch.equal(logits(tmp_path / "out"), logits(run))
    with pytest.raises(UsageError, match="an earlier export is there"):
        ownlm.export(str(run), tmp_path / "out")


def test_files_of_others_survive_overwrite(run, tmp_path):
    ownlm.export(str(run), tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    before = (tmp_path / "out" / "model.safetensors").stat().st_ino
    with pytest.raises(UsageError, match=r"notes\.txt"):
        ownlm.export(str(run), tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    assert (tmp_path / "out" / "model.safetensors").stat().st_ino == before


def test_links_as_target(run, tmp_path, capsys):
    (tmp_path / "nothing").symlink_to(tmp_path / "gone")
    assert main(["export", str(run), str(tmp_path / "nothing")]) == 2
    assert "a link to nothing" in capsys.readouterr().err and not (tmp_path / "gone").exists()
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    bad = tmp_path / "bad"
    shutil.copytree(run, bad)
    (bad / "config.json").write_text("{")
    assert main(["export", str(bad), str(tmp_path / "link")]) == 3  # and no trouble with the link hides why
    assert "not valid JSON" in capsys.readouterr().err
    assert (tmp_path / "link").is_symlink() and not any((tmp_path / "real").iterdir())
    ownlm.export(str(run), tmp_path / "link")
    assert torch.equal(logits(tmp_path / "real"), logits(run))


def test_a_link_out_of_the_source_is_not_handed_on(run, tmp_path):
    (tmp_path / "secret").write_text("of somebody else")
    for name in ("LICENSE", "README.md"):
        source = tmp_path / f"source {name}"
        shutil.copytree(run, source)
        (source / name).unlink(missing_ok=True)
        (source / name).symlink_to(tmp_path / "secret")
        with pytest.raises(Refused, match="a link out of the folder"):
            ownlm.export(str(source), tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_whoever_may_read_the_folder_may_read_the_weights(run, tmp_path):
    ownlm.export(str(run), tmp_path / "out")
    modes = {file.stat().st_mode for file in (tmp_path / "out").iterdir()}
    assert len(modes) == 1


def test_gpt2_files_of_the_first_release_travel(run, tmp_path):
    from ownlm.export.rewrite import companions

    shutil.copytree(run, tmp_path / "source")
    for name in ("encoder.json", "vocab.bpe"):
        (tmp_path / "source" / name).write_text("{}")
    assert {"encoder.json", "vocab.bpe"} <= {file.name for file in companions(tmp_path / "source")}


def test_the_card_names_the_commit(run, tmp_path):
    commit = "5" * 40
    shutil.copytree(run, tmp_path / "snapshots" / commit)
    ownlm.export(str(tmp_path / "snapshots" / commit), tmp_path / "out")
    assert f"`{commit}`" in (tmp_path / "out" / "README.md").read_text()
