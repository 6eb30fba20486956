"""Shards and the corpus folder: what is written is read back, across shards and whatever the shard size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownlm.console.errors import Refused, UsageError
from ownlm.corpus.shards import FORMAT, INDEX_DTYPE, Corpus, ShardWriter, token_dtype


def make_corpus(folder: Path, documents: list[list[int]], shard_tokens: int, batch: int) -> Corpus:
    folder.mkdir(parents=True, exist_ok=True)
    writer = ShardWriter(folder, "train", np.dtype("<u2"), shard_bytes=2 * shard_tokens)
    for begin in range(0, len(documents), batch):
        group = documents[begin : begin + batch]
        rows = np.zeros(len(group), INDEX_DTYPE)
        rows["tokens"] = [len(ids) for ids in group]
        rows["start"] = np.cumsum([0] + [len(ids) for ids in group])[:-1]
        rows["bytes"] = [3 * len(ids) for ids in group]
        rows["line"] = np.arange(begin, begin + len(group)) + 1
        writer.append(np.concatenate([np.array(ids) for ids in group]), rows)
    shards = writer.close()
    train = {
        "documents": len(documents),
        "tokens": sum(map(len, documents)),
        "bytes": 3 * sum(map(len, documents)),
        "shards": shards,
    }
    empty = {"documents": 0, "tokens": 0, "bytes": 0, "shards": [], "rule": "none"}
    manifest = {
        "format": FORMAT,
        "hash": "",
        "dtype": "uint16",
        "splits": {"train": train, "validation": empty},
    }
    (folder / "corpus.json").write_text(json.dumps(manifest), encoding="utf-8")
    (folder / "sources.jsonl").write_text('{"id": 0, "path": "诗.txt"}\n', encoding="utf-8")
    return Corpus.open(folder)


@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=30),
    shard_tokens=st.integers(1, 40),
    batch=st.integers(1, 7),
)
def test_documents_come_back_whatever_the_shard_size(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], shard_tokens: int, batch: int
) -> None:
    ids = iter(range(10_000))
    documents = [[next(ids) for _ in range(n)] for n in lengths]
    split = make_corpus(tmp_path_factory.mktemp("c"), documents, shard_tokens, batch).split("train")
    assert split.num_documents == len(documents)
    for number, expected in enumerate(documents):
        assert split.document(number).tolist() == expected
        assert split.where(number) == f"诗.txt:{number + 1}"
    flat = [i for d in documents for i in d]
    assert split.read(0, split.num_tokens).tolist() == flat
    assert split.read(1, len(flat) // 2).tolist() == flat[1 : len(flat) // 2]
    assert split.document_starts.tolist() == np.cumsum([0, *lengths])[:-1].tolist()
    assert split.document_bytes.tolist() == [3 * n for n in lengths]
    for shard in split.corpus.manifest["splits"]["train"]["shards"]:
        assert shard["tokens"] <= shard_tokens or shard["documents"] == 1


def test_an_empty_split_reads_as_nothing(tmp_path: Path) -> None:
    split = make_corpus(tmp_path / "c", [[1, 2]], 10, 1).split("validation")
    assert split.num_documents == 0
    assert len(split.read(0, 10)) == 0
    assert len(split.document_starts) == 0


def test_a_cut_shard_is_refused(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "c", [[1, 2, 3]], 10, 1)
    (corpus.path / "train-00000.bin").write_bytes(b"\0\0")
    with pytest.raises(Refused, match="instead of 6"):
        corpus.split("train")


def test_a_manifest_cannot_point_outside_its_folder(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "c", [[1, 2, 3]], 10, 1)
    (tmp_path / "secret.bin").write_bytes(b"\0" * 6)
    corpus.manifest["splits"]["train"]["shards"][0]["file"] = "../secret.bin"
    with pytest.raises(Refused):
        corpus.split("train")


def test_what_is_not_a_corpus_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such corpus"):
        Corpus.open(tmp_path / "missing")
    with pytest.raises(UsageError, match="not a corpus folder"):
        Corpus.open(tmp_path)
    (tmp_path / ".work").mkdir()
    with pytest.raises(Refused, match="not finished"):
        Corpus.open(tmp_path)
    (tmp_path / "corpus.json").write_text("[1]")
    with pytest.raises(Refused, match="not the manifest"):
        Corpus.open(tmp_path)


def test_the_dtype_grows_with_the_vocabulary() -> None:
    assert token_dtype(65_536) == np.uint16
    assert token_dtype(65_537) == np.uint32
