"""`ownlm runs --containing`."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import tale

import ownlm
from ownlm.cli import main
from ownlm.console.errors import Refused, UsageError
from ownlm.corpus.batches import Batches
from ownlm.corpus.shards import Corpus

CONTEXT, ROWS, SEED = 16, 6, 5


def texts() -> list[str]:
    return [tale("river.txt", number) for number in range(60)]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows.jsonl (60 texts, a copy, a near copy) and its corpus."""
    folder = tmp_path_factory.mktemp("desk")
    rows = [*texts(), texts()[3], texts()[4].replace("\n", "!\n")]
    lines = (json.dumps({"text": text}) + "\n" for text in rows)
    (folder / "rows.jsonl").write_text("".join(lines), encoding="utf-8")
    ownlm.prepare(
        [str(folder / "rows.jsonl")], output=folder / "corpus", vocab_size=300, validation=["hash:0.2"]
    )
    return folder


def add_run(
    folder: Path, corpus: Path, steps: int, created: str = "2026-01-01T00:00:00+00:00", **changes: Any
) -> Path:
    """A finished run as far as this verb looks at it."""
    folder.mkdir(parents=True)
    opened = Corpus.open(corpus)
    content = {
        "format": "ownlm run 1",
        "created": created,
        "settings": {"from_": None},
        "plan": {"max_steps": steps, "context": CONTEXT, "tokens_per_step": CONTEXT * ROWS, "seed": SEED},
        "data": {
            "corpus": str(corpus), "hash": opened.hash, "train_tokens": opened.split("train").num_tokens,
        },
        "cost": {"tokens": steps * CONTEXT * ROWS, "skipped_steps": 0},
        "finished": True,
        **changes,
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def numbered(corpus: Path, side: str) -> list[str]:
    split = Corpus.open(corpus).split(side)
    return [split.document_text(number) for number in range(split.num_documents)]


def text_file(folder: Path, text: str) -> str:
    (folder / "text.txt").write_text(text, encoding="utf-8")
    return str(folder / "text.txt")


def brute_force(corpus: Path, text: str, steps: set[int]) -> tuple[int, int, float]:
    """(tokens, trained tokens, times each) of a training document, from the rows that the steps read."""
    split = Corpus.open(corpus).split("train")
    number = numbered(corpus, "train").index(text)
    start, tokens = int(split.document_starts[number]), int(split.row(number)["tokens"])
    counts = np.zeros(split.num_tokens + CONTEXT, np.int64)
    batches = Batches(split, CONTEXT, ROWS, SEED)
    for step in steps:
        for row in batches.starts(step, 0, ROWS):
            counts[row + 1 : row + 1 + CONTEXT] += 1
    mine = counts[start + 1 : start + tokens]
    trained = int((mine > 0).sum())
    return tokens - 1, trained, float(mine.sum() / max(trained, 1))


@pytest.mark.parametrize("steps", [1, 4, 41])
def test_how_much_of_a_training_document_was_seen_and_how_often(desk, tmp_path, steps):
    add_run(tmp_path / "runs" / "a", desk / "corpus", steps)
    for text in numbered(desk / "corpus", "train")[:12]:
        [row] = ownlm.runs(tmp_path / "runs", containing=text_file(tmp_path, text))
        [seen] = row["documents"]
        figures = (seen["tokens"], seen["trained_tokens"], seen["times"])
        assert figures == brute_force(desk / "corpus", text, set(range(steps)))
        assert seen["side"] == "training"
        assert row["saw"] is (seen["trained_tokens"] > 0)
    if steps == 41:
        assert seen["times"] > 1


def test_validation_text_and_text_from_elsewhere_were_not_seen(desk, tmp_path, capsys):
    add_run(tmp_path / "runs" / "a", desk / "corpus", 40)
    held_out = numbered(desk / "corpus", "validation")[0]
    assert main(["runs", str(tmp_path / "runs"), "--containing", text_file(tmp_path, held_out)]) == 0
    captured = capsys.readouterr()
    assert "no" in captured.out.split()  # a long path may wrap the row
    assert "validation" in captured.out
    assert "None of 1 runs" in captured.err
    assert main(["runs", str(tmp_path / "runs"), "--containing", text_file(tmp_path, "Another text.")]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "None of 1 runs" in captured.err


def test_a_last_line_end_more_or_less_is_the_same_document(desk, tmp_path):
    add_run(tmp_path / "runs" / "a", desk / "corpus", 40)
    text = numbered(desk / "corpus", "train")[0]
    assert text.endswith("\n")
    for form in (text, text[:-1], text.replace("\n", "\r\n")):
        [row] = ownlm.runs(tmp_path / "runs", containing=text_file(tmp_path, form))
        assert row["documents"][0]["side"] == "training"
    [row] = ownlm.runs(tmp_path / "runs", containing=text_file(tmp_path, text + "\n\n"))
    assert row["documents"] == []


def test_a_table_says_which_of_its_documents_and_why_others_were_dropped(desk, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(desk)
    add_run(tmp_path / "runs" / "a", desk / "corpus", 60)
    word = "rows.jsonl"
    [row] = ownlm.runs(tmp_path / "runs", containing=word)
    by_name = {seen["document"]: seen for seen in row["documents"]}
    assert len(by_name) == 62 and row["absent"] == 0
    held_out = set(numbered(desk / "corpus", "validation"))
    for number, text in enumerate(texts(), 1):
        assert by_name[f"{word}:{number}"]["side"] == ("validation" if text in held_out else "training")
    assert by_name[f"{word}:61"]["side"] == by_name[f"{word}:4"]["side"]  # the copy is that text
    near = by_name[f"{word}:62"]
    assert (
        near["side"] == "dropped"
        and "near duplicate" in near["why"]
        and "rows.jsonl:5 was kept" in near["why"]
    )
    assert main(["runs", str(tmp_path / "runs"), "--containing", word]) == 0
    assert "62 of 62:" in capsys.readouterr().out


def test_a_hash_is_that_of_a_document_or_of_a_corpus(desk, tmp_path):
    add_run(tmp_path / "runs" / "a", desk / "corpus", 41)
    text = numbered(desk / "corpus", "train")[5]
    [by_file] = ownlm.runs(tmp_path / "runs", containing=text_file(tmp_path, text))
    digest = by_file["documents"][0]["hash"]
    for word in (digest, digest[:8].upper()):
        [row] = ownlm.runs(tmp_path / "runs", containing=word)
        [seen] = row["documents"]
        assert seen["document"].startswith(str(desk / "rows.jsonl"))
        assert seen["trained_tokens"] == by_file["documents"][0]["trained_tokens"]
    [row] = ownlm.runs(tmp_path / "runs", containing="0" * 12)
    assert row["saw"] is False and row["documents"] == []
    corpus = Corpus.open(desk / "corpus")
    [row] = ownlm.runs(tmp_path / "runs", containing=corpus.hash[:10])
    tokens = corpus.split("train").num_tokens
    assert row["documents"][0]["trained_tokens"] == tokens
    assert row["documents"][0]["times"] == pytest.approx(41 * CONTEXT * ROWS / tokens)


def test_a_corpus_that_is_gone_cannot_be_told(desk, tmp_path, capsys):
    text = numbered(desk / "corpus", "train")[0]
    shutil.copytree(desk / "corpus", tmp_path / "kept")
    add_run(tmp_path / "runs" / "a", tmp_path / "kept", 20)
    word = text_file(tmp_path, text)
    digest = Corpus.open(tmp_path / "kept").hash
    (tmp_path / "kept").rename(tmp_path / "away")
    assert main(["runs", str(tmp_path / "runs"), "--containing", word]) == 0
    captured = capsys.readouterr()
    assert "cannot be told" in captured.out
    assert digest[:16] in captured.err and "of 1 it cannot be told" in captured.err
    [row] = ownlm.runs(tmp_path / "runs", containing=word)
    assert row["saw"] is None and row["data_hash"] == digest
    # A corpus hash needs no corpus.
    [row] = ownlm.runs(tmp_path / "runs", containing=digest[:12])
    assert row["saw"] is True
    # Another corpus at its place is not it.
    shutil.copytree(desk / "corpus", tmp_path / "kept")
    manifest = json.loads((tmp_path / "kept" / "corpus.json").read_text(encoding="utf-8"))
    (tmp_path / "kept" / "corpus.json").write_text(json.dumps(manifest | {"hash": "0" * 64}))
    [row] = ownlm.runs(tmp_path / "runs", containing=word)
    assert row["saw"] is None
    # The same corpus at another run's place will do.
    add_run(tmp_path / "runs" / "b", tmp_path / "away", 20)
    assert [row["saw"] for row in ownlm.runs(tmp_path / "runs", containing=word)].count(None) == 0


def test_what_a_run_went_on_from_counts_too(desk, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    add_run(tmp_path / "runs" / "base", desk / "corpus", 41)
    later = "2026-02-01T00:00:00+00:00"
    add_run(tmp_path / "runs" / "on", desk / "corpus", 0, later, settings={"from_": "runs/base"})
    add_run(tmp_path / "runs" / "hub", desk / "corpus", 0, later, settings={"from_": "Qwen/Qwen3-0.6B"})
    (tmp_path / "runs" / "base" / "checkpoints" / "step-4").mkdir(parents=True)
    start = {"from_": "runs/base/checkpoints/step-4"}
    add_run(tmp_path / "runs" / "early", desk / "corpus", 0, later, settings=start)
    text = numbered(desk / "corpus", "train")[2]
    word = text_file(tmp_path, text)
    rows = {row["run"]: row for row in ownlm.runs("runs", containing=word)}
    assert rows["runs/on"]["documents"][0]["through"] == ["runs/on", "runs/base"]
    trained = [rows[f"runs/{name}"]["documents"][0]["trained_tokens"] for name in ("on", "early", "hub")]
    expected = [brute_force(desk / "corpus", text, set(range(steps)))[1] for steps in (41, 4)]
    assert trained == [*expected, 0]
    assert rows["runs/hub"]["saw"] is None and "Qwen/Qwen3-0.6B" in rows["runs/hub"]["unknown"][0]
    # Of a corpus as a whole the tokens that both saw count once.
    add_run(tmp_path / "runs" / "again", desk / "corpus", 4, later, settings={"from_": "runs/base"})
    corpus = Corpus.open(desk / "corpus")
    rows = {row["run"]: row["documents"][0] for row in ownlm.runs("runs", containing=corpus.hash[:12])}
    tokens = corpus.split("train").num_tokens
    assert rows["runs/early"]["trained_tokens"] == 4 * CONTEXT * ROWS
    assert tokens - 2 * CONTEXT < rows["runs/again"]["trained_tokens"] <= tokens
    assert rows["runs/again"]["times"] > rows["runs/on"]["times"]
    shutil.rmtree(tmp_path / "runs" / "again")
    # A base that was made anew is not what was gone on from.
    shutil.rmtree(tmp_path / "runs" / "base")
    add_run(tmp_path / "runs" / "base", desk / "corpus", 41, "2026-03-01T00:00:00+00:00")
    rows = {row["run"]: row for row in ownlm.runs("runs", containing=word)}
    assert rows["runs/on"]["saw"] is None and "another run" in rows["runs/on"]["unknown"][0]


def test_an_unfinished_run_saw_what_its_log_says_without_skipped_steps(desk, tmp_path):
    run = add_run(tmp_path / "runs" / "a", desk / "corpus", 1000, finished=False, cost={"tokens": 0})
    log = [{"kind": "skipped" if step == 3 else "step", "step": step, "loss": 2.0} for step in range(1, 31)]
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log) + '{"kind": "st')
    made = set(range(30)) - {2}
    for text in numbered(desk / "corpus", "train")[:6]:
        [row] = ownlm.runs(tmp_path / "runs", containing=text_file(tmp_path, text))
        [seen] = row["documents"]
        figures = (seen["tokens"], seen["trained_tokens"], seen["times"])
        assert figures == brute_force(desk / "corpus", text, made)


def test_texts_that_a_tokenizer_does_not_give_back_cannot_be_told(desk, tmp_path, monkeypatch):
    add_run(tmp_path / "runs" / "a", desk / "corpus", 5)
    monkeypatch.setattr(
        "ownlm.corpus.contains.Corpus.tokenizer", Lossy(Corpus.open(desk / "corpus").tokenizer)
    )
    for word in (text_file(tmp_path, numbered(desk / "corpus", "train")[0]), "0" * 12):
        [row] = ownlm.runs(tmp_path / "runs", containing=word)
        assert row["saw"] is None and "tokenizer" in row["unknown"][0]


class Lossy:
    """A tokenizer that leaves out spaces."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def decode_bytes(self, ids: Any) -> bytes:
        return self.tokenizer.decode_bytes(ids).replace(b" ", b"")

    def decode(self, ids: Any) -> str:
        return self.tokenizer.decode(ids)


def test_what_is_neither_a_file_nor_a_hash_is_refused(tmp_path):
    for word in ("no-such-file.txt", "abc", "abcdefgh"):
        with pytest.raises(UsageError, match="no such file"):
            ownlm.runs(tmp_path, containing=word)
    with pytest.raises(Refused, match="no text"):
        ownlm.runs(tmp_path, containing=text_file(tmp_path, " \n"))


def test_a_table_is_read_with_the_column_of_each_corpus(desk, tmp_path):
    lines = (json.dumps({"body": text}) + "\n" for text in texts())
    (tmp_path / "bodies.jsonl").write_text("".join(lines), encoding="utf-8")
    ownlm.prepare([str(tmp_path / "bodies.jsonl")], output=tmp_path / "bodies", vocab_size=300, column="body")
    add_run(tmp_path / "runs" / "body", tmp_path / "bodies", 41)
    add_run(tmp_path / "runs" / "text", desk / "corpus", 41)
    rows = {
        Path(row["run"]).name: row
        for row in ownlm.runs(tmp_path / "runs", containing=tmp_path / "bodies.jsonl")
    }
    assert rows["body"]["saw"] is True and len(rows["body"]["documents"]) == 60
    assert rows["text"]["saw"] is None and 'column "text"' in rows["text"]["unknown"][0]
    rows = {
        Path(row["run"]).name: row for row in ownlm.runs(tmp_path / "runs", containing=desk / "rows.jsonl")
    }
    assert rows["body"]["saw"] is True and rows["text"]["saw"] is True


def test_json_is_what_python_gives(desk, tmp_path, capsys):
    add_run(tmp_path / "runs" / "a", desk / "corpus", 5)
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "run.json").write_text("{")
    word = text_file(tmp_path, numbered(desk / "corpus", "train")[0])
    assert main(["runs", str(tmp_path / "runs"), "--containing", word, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == ownlm.runs(tmp_path / "runs", containing=word)
    assert {row["run"]: row["saw"] for row in printed}[str(tmp_path / "runs" / "broken")] is None
