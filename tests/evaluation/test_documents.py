"""What is read for an evaluation, with its place, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ownlm.console.errors import Refused
from ownlm.corpus.shards import Corpus
from ownlm.corpus.tokenizer import Tokenizer
from ownlm.evaluation.documents import encoded, held_out, read_texts, run_corpus


def test_files_are_read_with_their_place_and_normalised(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("one\r\ntwo e\u0301\r\n".encode())
    rows = [{"text": "first\nrow"}, {"text": "second"}]
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = sorted(read_texts([str(tmp_path)]))
    assert [(Path(t.name).name, t.line, t.text, t.is_row) for t in found] == [
        ("a.txt", 1, "one\ntwo é\n", False),
        ("b.jsonl", 1, "first\nrow", True),
        ("b.jsonl", 2, "second", True),
    ]


def test_what_is_not_read_is_counted_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "blank.txt").write_text("\n \n")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": "\x01 \x02"}))  # nothing is left of it
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00")
    assert [text.text for text in read_texts([str(tmp_path)])] == ["text"]
    said = capsys.readouterr().err
    assert "not read: 2 documents, empty text" in said
    assert "not read: 1 files" in said


def test_texts_are_encoded_in_order_with_the_start_token_first(tokenizer: Tokenizer) -> None:
    texts = [f"{number} rivers 春" for number in range(600)]  # more than are encoded together
    found = list(encoded(tokenizer, iter(texts)))
    assert [item.data.decode() for item in found] == texts
    assert all(item.ids[0] == tokenizer.start_id for item in found)
    assert [tokenizer.decode(item.ids[1:]) for item in found] == texts


def test_the_held_out_split_has_the_bytes_that_its_index_counts(corpus: Path) -> None:
    split = Corpus.open(corpus).split("validation")
    found = list(held_out(split))
    assert [len(item.data) for item in found] == split.document_bytes.tolist()
    for number, item in enumerate(found):
        np.testing.assert_array_equal(item.ids, split.document(number))
        assert item.data.decode() == split.document_text(number)


def test_the_corpus_of_a_run_is_found_only_as_it_was(corpus: Path, tmp_path: Path) -> None:
    data = {"corpus": str(corpus), "hash": Corpus.open(corpus).hash}
    assert run_corpus({"data": data}, tmp_path).path == corpus
    for run, words in (
        ({}, "names no corpus"),
        ({"data": {**data, "corpus": str(tmp_path / "gone")}}, "is not at .*gone any more"),
        ({"data": {**data, "hash": "another"}}, "was changed after this run"),
    ):
        with pytest.raises(Refused, match=words) as caught:
            run_corpus(run, tmp_path)
        assert f"ownlm evaluate {tmp_path} YOUR_TEXT.txt" in str(caught.value)
