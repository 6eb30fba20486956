"""Peak memory of `ownlm prepare`, main process and workers together (Linux).

    python bench/prepare_memory.py                      # 1 million short documents, deduplication on
    python bench/prepare_memory.py --repeat FILE        # FILE once and five times over, deduplication off

Documents are made from a seed: half of them Chinese verses, one in ten a copy, one in ten nearly one.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT = 2e9  # bytes: what `prepare` may use for any corpus


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=Path, help="a text file, measured once and five times over")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.repeat is None:
            source = short_documents(Path(folder) / "documents.txt", arguments.documents)
            options = ["--documents", "line"]
            report(
                f"{arguments.documents:,} short documents", *measure(source, Path(folder) / "corpus", options)
            )
            return
        options = ["--near-duplicates", "off", "--exact-duplicates", "keep"]
        for times in (1, 5):
            copies = Path(folder) / f"copies{times}"
            copies.mkdir()
            for number in range(times):
                shutil.copyfile(arguments.repeat, copies / f"{number}-{arguments.repeat.name}")
            files = [str(file) for file in sorted(copies.iterdir())]
            report(f"{times} × {arguments.repeat.name}", *measure(files, Path(folder) / f"c{times}", options))


def short_documents(path: Path, count: int) -> list[str]:
    """A text file with one document a line, 40 to 200 bytes each."""
    source = random.Random(1)
    words = [f"{a}{b}{c}" for a in "bdklmnrst" for b in "aeiou" for c in ("nd", "st", "rk", "l")]
    han = [chr(code) for code in range(0x4E00, 0x4E00 + 3000)]
    kept: list[str] = []
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            kind = source.random()
            if kept and kind < 0.1:
                text = source.choice(kept)
            elif kept and kind < 0.2:
                text = source.choice(kept) + "."
            elif number % 2:
                text = " ".join(source.choices(words, k=source.randrange(8, 30)))
            else:
                text = "".join(source.choices(han, k=source.randrange(20, 60)))
            if number % 100 == 0:
                kept.append(text)
            file.write(text + "\n")
    return [str(path)]


def measure(sources: list[str], output: Path, options: list[str]) -> tuple[float, int, int]:
    """(seconds, peak bytes of resident memory, peak of the part of it that is not files)."""
    command = [
        sys.executable,
        "-m",
        "ownlm",
        "prepare",
        *sources,
        "-o",
        str(output),
        "--vocab-size",
        "4096",
        *options,
    ]
    start = time.monotonic()
    process = subprocess.Popen(command)
    peak = anonymous = 0
    while process.poll() is None:
        numbers = [memory(pid) for pid in tree(process.pid)]
        peak = max(peak, sum(total for total, _ in numbers))
        anonymous = max(anonymous, sum(own for _, own in numbers))
        time.sleep(0.05)
    if process.returncode:
        sys.exit(process.returncode)
    return time.monotonic() - start, peak, anonymous


def tree(root: int) -> list[int]:
    """A process and all below it."""
    found = [root]
    for pid in found:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                found += [int(child) for child in children.read_text().split()]
            except OSError:
                continue  # the thread has ended meanwhile
    return found


def memory(pid: int) -> tuple[int, int]:
    """(resident, anonymous) bytes of a process; zero when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0, 0
    values = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith("kB")}
    return values.get("VmRSS", 0), values.get("RssAnon", 0)


def report(what: str, seconds: float, peak: int, anonymous: int) -> None:
    verdict = "within" if peak <= LIMIT else "ABOVE"
    print(
        f"{what}: peak {peak / 1e6:,.0f} MB resident ({anonymous / 1e6:,.0f} MB without mapped files), "
        f"{verdict} {LIMIT / 1e9:.0f} GB; {seconds:.0f} s"
    )


if __name__ == "__main__":
    main()
