"""Perplexity of the engine's dtypes beside llama.cpp's F16, Q8_0 and Q4_0: one trained run, the same tokens and windows.

    ownlm prepare books_en/train.jsonl.xz -o corpus --vocab-size 8192
    ownlm pretrain corpus -o run --size 10M --minutes 30
    python bench/engine_quality.py run wikitext2/valid.txt.xz --peer-python peer/bin/python

The text is one document. Windows of the run's context advance by half of it; a token counts in the first window that
holds it. Both sides get the windows as ids and give log-probabilities of the tokens back; the peer computes attention in
fp32, so that only its weights are rounded. Ratios of perplexities are paired, with an interval over the windows.

--quick: a random model and a line of text; no figures worth anything, but every program runs.
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from engine_models import PAIRS, TINY, gguf_of, write_folder
from engine_speed import alone
from ownlm.corpus.tokenizer import Tokenizer
from ownlm.evaluation.metrics import ratio_interval, shown
from ownlm.machine.cpu import cpu_name, num_physical_cores
from ownlm.model.checkpoint import load_config

Nats = npt.NDArray[np.float64]


def windows_of(ids: list[int], context: int) -> tuple[list[list[int]], list[slice]]:
    """(windows, which of the scores of each count): every token from the second on counts once."""
    step = context // 2
    windows = [ids[start : start + context] for start in range(0, max(len(ids) - step, 1), step)]
    # A window of n tokens has n - 1 scores; all but those of its last half stood in the window before.
    counted = [slice(0 if number == 0 else context - step - 1, None) for number in range(len(windows))]
    return windows, counted


def scored(options: argparse.Namespace, texts: Path, folder: Path) -> dict[str, Nats | str]:
    """Program -> nats of every token of every window, joined; or why there are none."""
    found: dict[str, Nats | str] = {}
    output = folder / "nats.npy"
    words = ("--texts", texts, "--output", output)
    programs: dict[str, tuple[Any, ...]] = {}
    for dtype, kind in PAIRS.items():
        file = gguf_of(options.run, kind, options.peer_python, folder) if dtype != "float32" else None
        programs[f"ours {dtype}"] = (
            sys.executable,
            "engine_sides.py",
            "score",
            options.run,
            "--dtype",
            dtype,
        )
        if file:
            programs[f"peer {kind}"] = (options.peer_python, "engine_peer.py", "score", file)
    for name, program in programs.items():
        failed = alone(*program, *words, threads=options.threads).get("failed")
        found[name] = failed or np.load(output)
        print(f"  {name}: {failed or 'done'}", file=sys.stderr)
    return found


def report(
    found: dict[str, Nats | str], windows: list[list[int]], counted: list[slice], options: argparse.Namespace
) -> None:
    """Perplexities, each beside ours in bf16 and float32; one line for RESULTS.md."""
    ends = np.cumsum([len(window) - 1 for window in windows])[:-1]
    per_window: dict[str, Nats] = {}
    for name, nats in found.items():
        if isinstance(nats, str):
            continue
        parts = [part[chosen] for part, chosen in zip(np.split(nats, ends), counted)]
        per_window[name] = np.array([part.sum() for part in parts])
        tokens = np.array([len(part) for part in parts], dtype=np.float64)
    print(f"\n{options.run}: {int(tokens.sum()):,} tokens of {options.text} in {len(windows):,} windows")
    print(f"{'program':14} {'perplexity':>10}  ratio to ours bfloat16 (95 %)")
    rows: dict[str, Any] = {}
    for name, nats in per_window.items():
        row = rows[name] = {"perplexity": math.exp(nats.sum() / tokens.sum())}
        beside = ""
        if "ours bfloat16" in per_window:
            ratio = ratio_interval(nats - per_window["ours bfloat16"], tokens, 0, math.exp)
            row["ratio"], beside = ratio, shown(ratio, 5)
        print(f"{name:14} {row['perplexity']:10.4f}  {beside}")
    for name, why in found.items():
        if isinstance(why, str):
            print(f"not measured: {name}: {why}")
    for name, bar, other in (
        ("ours int8", 1.001, "ours bfloat16"),
        ("ours int4", 1.0, "peer q4_0"),
    ):
        if name in rows and other in rows:
            ratio = rows[name]["perplexity"] / rows[other]["perplexity"]
            print(f"{name} / {other}: {ratio:.5f}; bar {bar}: {'reached' if ratio <= bar else 'NOT reached'}")
    line = {
        "bench": "engine_quality", "cpu": cpu_name(), "threads": options.threads, "torch": torch.__version__,
        "date": date.today().isoformat(), "run": str(options.run), "text": str(options.text),
        "tokens": int(tokens.sum()), "quick": options.quick, "rows": rows,
    }  # fmt: skip
    print("\n" + json.dumps(line))


def read(path: Path) -> str:
    """A text file, packed or not."""
    opened = lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else path.open(encoding="utf-8")
    with opened as stream:
        return stream.read()


def main() -> None:
    """Score one run on one text."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("text", type=Path, nargs="?", help=".txt or .txt.xz")
    parser.add_argument("--peer-python", type=Path, required=True, help="of the environment with llama.cpp")
    parser.add_argument("--threads", type=int, default=num_physical_cores())
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if options.quick:
            options.run, options.text = folder / "run", folder / "text.txt"
            write_folder(options.run, TINY["tiny qwen3"])
            options.text.write_text("The quick brown fox jumps over the lazy dog. " * 8)
        elif options.text is None:
            parser.error("RUN and TEXT are needed")
        tokenizer = Tokenizer.load(options.run)
        ids = [tokenizer.eos_id, *tokenizer.encode(read(options.text)).tolist()]
        windows, counted = windows_of(ids, load_config(options.run).max_position_embeddings)
        texts = folder / "windows.json"
        texts.write_text(json.dumps(windows))
        report(scored(options, texts, folder), windows, counted, options)


if __name__ == "__main__":
    main()
