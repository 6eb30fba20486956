"""The encoding step of `prepare` beside the best variant of `tokenizers`' encode_batch: same documents,
rules, cores.

    python bench/encode_speed.py DOCUMENTS.jsonl[.xz] ... [--vocab-size 4096] [--rounds 3] [--workers 2]

One vocabulary is trained on the documents of each file; both sides encode them with it. Ours: worker
processes (as in `prepare`) that hold their share of the texts, from text to the arrays a shard is written
from. Theirs: the variants below, from text to `Encoding` objects (reading the ids out of them is not
counted). Rounds alternate, the median counts, ids are compared for every document.
"""

from __future__ import annotations

import argparse
import json
import lzma
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np


def read(path: Path) -> list[str]:
    """The documents of a .jsonl or .jsonl.xz file, column `text`."""
    data = path.read_bytes()
    text = (lzma.decompress(data) if path.suffix == ".xz" else data).decode("utf-8")
    return [json.loads(line)["text"] for line in text.split("\n") if line]


def shares(documents: list[str], workers: int) -> list[list[str]]:
    """The documents in as many consecutive parts, about equal in characters."""
    ends = np.cumsum([len(text) for text in documents])
    cuts = np.searchsorted(ends, [ends[-1] * part / workers for part in range(1, workers)]).tolist()
    return [documents[start:end] for start, end in zip([0, *cuts], [*cuts, len(documents)])]


def serve(folder: str, pipe: Connection) -> None:
    """A worker: receives its documents once, then encodes them each time it is told to."""
    from ownlm.corpus.encode import Encoder

    encoder = Encoder(folder)
    documents = pipe.recv()
    # As in `prepare`, a task is a few MB of documents, so that no array is larger than it is there.
    ends = np.cumsum([len(text) for text in documents])
    cuts = np.searchsorted(ends, np.arange(4_000_000, ends[-1], 4_000_000), side="right").tolist()
    tasks = [documents[start:end] for start, end in zip([0, *cuts], [*cuts, len(documents)]) if start < end]
    pipe.send("ready")
    while (order := pipe.recv()) != "stop":
        encoder.fallbacks.clear()
        found = [encoder.encode_stream(task)[0] for task in tasks]
        pipe.send(len(found))
        if order == "show":
            pipe.send((found, dict(encoder.fallbacks)))


def theirs(folder: str) -> dict[str, Callable[[list[str]], list[Any]]]:
    """The variants of encode_batch, name → function from documents to encodings."""
    from ownlm.corpus.tokenizer import Tokenizer

    backend = Tokenizer.load(folder).backend

    def batched(function: Callable[..., list[Any]], size: int) -> Callable[[list[str]], list[Any]]:
        def run(documents: list[str]) -> list[Any]:
            found = []
            for start in range(0, len(documents), size):
                found += function(documents[start : start + size], add_special_tokens=False)
            return found

        return run

    return {
        "encode_batch, all at once": batched(backend.encode_batch, 10**9),
        "encode_batch_fast, all at once": batched(backend.encode_batch_fast, 10**9),
        "encode_batch_fast, 1,000 documents": batched(backend.encode_batch_fast, 1000),
        "encode_batch_fast, 16 documents": batched(backend.encode_batch_fast, 16),
    }


def compare(path: Path, vocab_size: int, rounds: int, workers: int) -> float:
    """Measure one file; prints the table and returns ours ÷ the best of theirs."""
    from ownlm.corpus.train_tokenizer import train_tokenizer

    documents = read(path)
    size = sum(len(text.encode()) for text in documents)
    mb = size / 1e6
    with tempfile.TemporaryDirectory() as folder:
        train_tokenizer(documents, vocab_size=vocab_size, corpus_bytes=size).save(folder)
        context = multiprocessing.get_context("spawn")
        pipes, processes = [], []
        for share in shares(documents, workers):
            here, there = context.Pipe()
            process = context.Process(target=serve, args=(folder, there), daemon=True)
            process.start()
            here.send(share)
            pipes.append(here)
            processes.append(process)
        for pipe in pipes:
            assert pipe.recv() == "ready"

        def ours(order: str) -> float:
            start = time.perf_counter()
            for pipe in pipes:
                pipe.send(order)
            for pipe in pipes:
                pipe.recv()
            return time.perf_counter() - start

        variants = theirs(folder)
        seconds: dict[str, list[float]] = {name: [] for name in ["ours", *variants]}
        first = ours("show")
        shown = [pipe.recv() for pipe in pipes]
        for _ in range(rounds):
            seconds["ours"].append(ours("again"))
            for name, run in variants.items():
                start = time.perf_counter()
                encodings = run(documents)
                seconds[name].append(time.perf_counter() - start)
                expected = expected_stream(encodings)
        for pipe, process in zip(pipes, processes):
            pipe.send("stop")
            process.join()
    found = np.concatenate([ids for stream, _ in shown for ids in stream])
    assert np.array_equal(found, expected), "the ids differ"
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    print(f"{path.parent.name}/{path.name}: {len(documents):,} documents, {mb:.1f} MB, {len(found):,} tokens")
    for name, median in medians.items():
        print(f"  {name:40} {mb / median:7.1f} MB/s   {[round(s, 2) for s in seconds[name]]} s")
    print(
        f"  ours, first time in a process            {mb / first:7.1f} MB/s (sending the ids back included)"
    )
    ratio = min(median for name, median in medians.items() if name != "ours") / medians["ours"]
    fallbacks = sum(sum(counts.values()) for _, counts in shown)
    print(f"  ratio {ratio:.1f}; identical ids; {fallbacks} documents fell back to tokenizers")
    return ratio


def expected_stream(encodings: list[Any]) -> np.ndarray:
    """Ids of all encodings, each after the end token (id 0)."""
    return np.concatenate([np.array([0, *encoding.ids], np.uint32) for encoding in encodings])


def main() -> None:
    """Measure every file given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("documents", nargs="+", type=Path)
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    # Before tokenizers is imported: as many threads for theirs as processes for ours.
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    os.environ["RAYON_NUM_THREADS"] = str(options.workers)
    for path in options.documents:
        compare(path, options.vocab_size, options.rounds, options.workers)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
