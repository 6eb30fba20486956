"""The whole of `prepare` beside `tokenizers`' `encode_batch` alone, on the same documents and cores.

    python bench/prepare_speed.py TEXTS.jsonl.xz [--vocab-size 4096] [--repeats 3]

The tokenizer is trained once before and given to both: training is not part of either time. The median
counts. `prepare` is the command as typed, start-up, reading, near duplicates, split, encoding and overlap included. MB are of
UTF-8 text.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "true"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("texts", type=Path)
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with lzma.open(arguments.texts, "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    size = sum(len(text.encode()) for text in texts)
    with tempfile.TemporaryDirectory() as folder:
        first = Path(folder) / "first"
        prepare(arguments.texts, first, "--vocab-size", str(arguments.vocab_size))
        whole, alone = [], []
        for number in range(arguments.repeats):  # in turn, so that a busy moment of the machine hits both
            start = time.monotonic()
            prepare(arguments.texts, Path(folder) / str(number), "--tokenizer", str(first))
            whole.append(time.monotonic() - start)
            alone.append(encode_batch(texts, first))
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; {len(texts):,} documents, {size / 1e6:.1f} MB"
    )
    for name, seconds in (("encode_batch alone  ", alone), ("the whole of prepare", whole)):
        median = statistics.median(seconds)
        each = [round(s, 1) for s in seconds]
        print(f"{name} {median:6.1f} s  {size / 1e6 / median:6.1f} MB/s   {each} s")
    print(f"ratio                {statistics.median(alone) / statistics.median(whole):6.1f}")


def prepare(texts: Path, output: Path, *options: str) -> None:
    """The command as typed."""
    command = [sys.executable, "-m", "ownlm", "prepare", str(texts), "-o", str(output), *options, "-q"]
    subprocess.run(command, check=True)


def encode_batch(texts: list[str], tokenizer: Path) -> float:
    """Seconds of `encode_batch`, 1,000 documents or 8 MB at a time; loading not counted."""
    from tokenizers import Tokenizer

    backend = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    start = time.monotonic()
    batch: list[str] = []
    held = 0
    for text in texts:
        batch.append(text)
        held += len(text)
        if held > 8e6 or len(batch) == 1000:
            backend.encode_batch(batch, add_special_tokens=False)
            batch, held = [], 0
    backend.encode_batch(batch, add_special_tokens=False)
    return time.monotonic() - start


if __name__ == "__main__":
    main()
