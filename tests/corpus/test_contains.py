"""Whether a corpus holds a document, and how often a run was trained on its tokens."""

import json
from pathlib import Path

import numpy as np
import pytest

import ownlm
from ownlm.corpus.batches import Batches, permuted
from ownlm.corpus.contains import Exposure, Place, hashed_documents, lengths_of, tail_share, unpermuted
from ownlm.corpus.hashes import text_hash
from ownlm.corpus.shards import Corpus
from tests.conftest import tale


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 60 different rows."""
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    file.write_text("".join(json.dumps({"text": tale("river.txt", i)}) + "\n" for i in range(60)))
    return file


@pytest.fixture(scope="module")
def table(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """That table with about a fifth of the rows for validation."""
    folder = tmp_path_factory.mktemp("table") / "corpus"
    ownlm.prepare([str(rows)], output=folder, vocab_size=300, validation=["hash:0.2"], near_duplicates="off")
    return Corpus.open(folder)


@pytest.mark.parametrize("count", [1, 2, 3, 17, 64, 1000, 4097])
def test_the_order_is_inverted(count):
    for key in (0, 2**63 - 1):
        images = np.array([permuted(index, count, key) for index in range(count)])
        assert unpermuted(images, count, key).tolist() == list(range(count))


@pytest.mark.parametrize("steps", [0, 1, 5, 37, 120])
def test_counts_are_those_of_the_rows_that_the_steps_read(table, steps):
    split = table.split("train")
    batches = Batches(split, 16, 6, seed=5)
    left_out = {0, 3, 36, 500}
    expected = np.zeros(split.num_tokens, np.int64)
    for step in set(range(steps)) - left_out:
        for start in batches.starts(step, 0, 6):
            expected[start + 1 : start + 17] += 1
    exposure = Exposure(batches, steps, left_out)
    assert steps * 6 < batches.blocks or steps in (37, 120)  # less than one epoch, and several
    assert np.array_equal(exposure.counts(0, split.num_tokens), expected)
    for start, stop in ((0, 1), (100, 133), (split.num_tokens - 9, split.num_tokens), (7, 7)):
        assert np.array_equal(exposure.counts(start, stop), expected[start:stop])


def test_every_row_is_found_on_its_side(table):
    found = dict(hashed_documents(table))
    assert len(found) == 60
    for name in ("train", "validation"):
        split = table.split(name)
        for number in range(split.num_documents):
            place = found[text_hash(split.document_text(number).encode())]
            assert place == (Place(train=number) if name == "train" else Place(validation=number))


def test_only_documents_of_the_right_length_are_decoded(table, monkeypatch):
    text = tale("river.txt", 7).encode()
    decoded = []
    decode = type(table.tokenizer).decode_bytes
    monkeypatch.setattr(
        type(table.tokenizer), "decode_bytes", lambda self, ids: decoded.append(1) or decode(self, ids)
    )
    found = dict(hashed_documents(table, lengths_of(text, tail_share(table))))
    assert text_hash(text) in found
    assert len(decoded) < 30


@pytest.mark.parametrize("validation", ["tail:0.2", "auto"])
def test_a_document_whose_end_is_validation_is_found_whole_and_in_its_parts(
    text_folder, tmp_path, validation
):
    ownlm.prepare([str(text_folder)], output=tmp_path / "c", vocab_size=300, validation=[validation])
    corpus = Corpus.open(tmp_path / "c")
    share = tail_share(corpus)
    assert share == (0.2 if validation == "tail:0.2" else 0.1)
    for file in text_folder.iterdir():
        text = file.read_bytes()
        found = dict(hashed_documents(corpus, lengths_of(text, share)))
        place = found[text_hash(text)]
        beginning = corpus.split("train").document_text(place.train).encode()
        assert text == beginning + corpus.split("validation").document_text(place.validation).encode()
        assert found[text_hash(beginning)] == Place(train=place.train)


def test_a_corpus_without_cut_documents_has_no_tail(table):
    assert tail_share(table) == 0.0
