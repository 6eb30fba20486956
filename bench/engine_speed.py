"""The engine's tokens a second beside llama.cpp and transformers, and as a share of what the memory gives.

    python -m venv peer && CMAKE_ARGS="-DGGML_NATIVE=ON" peer/bin/pip install --no-binary llama-cpp-python \\
        llama-cpp-python gguf
    python bench/engine_speed.py --peer-python peer/bin/python

With GCC 12 on a processor with AMX the build needs CXXFLAGS="-include $PWD/bench/amx_tile_fix.h" (reason there). Which
of llama.cpp's products is the quickest depends on the work; of several builds the best counts for each:
CXXFLAGS="-mno-amx-tile -mno-amx-int8 -mno-amx-bf16" gives one that packs weights for AVX-512 VNNI instead.

GPT-2's shape and larger ones with random weights, the same ones on both sides: bf16 beside F16, int8 beside Q8_0, int4
beside Q4_0, embeddings and tied head included. Three kinds of work: one sequence, 64 tokens from an empty cache; a
prompt of 256 tokens; 16 sequences at once, all tokens counted. Ours goes through submit and step, greedy sampling
included; the peer's figures are `llama_decode` alone, from its C interface, tokens drawn beforehand. Each program is a
process of its own, with the same number of threads; rounds alternate, and so does who goes first. Figures are medians of
a process's repetitions, then of the rounds.

GB/s counts what a step of one sequence has to read, for both sides alike (`ownlm.verbs._speed.read_bytes`). The two
bandwidths are those of read_bandwidth.cpp in the same round: over 2 GB, and over as many bytes as the step reads, which
a large cache may hold.

--quick: models of a few thousand weights and no figures worth anything, but every program runs, and the logits of the
peer's F32 and F16 files are held against our plain model's.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine_models import HERE, PAIRS, SHAPES, TINY, gguf_of, write_folder
from ownlm.machine.cpu import cpu_name, num_physical_cores

WORK = {"decode": "decode, 1", "prefill": "prefill", "batch": "decode, all"}
# (work, dtype) -> what ours must reach, as a multiple of the peer, and the share of the bandwidth that is aimed at.
BARS = {
    ("decode", "int8"): (1.2, 0.85), ("decode", "int4"): (1.4, 0.85), ("decode", "bfloat16"): (1.1, 0.90),
    **{("prefill", dtype): (1.3, None) for dtype in ("bfloat16", "int8", "int4")},
    **{("batch", dtype): (1.3, None) for dtype in ("bfloat16", "int8", "int4")},
}  # fmt: skip
LARGE = 2**31  # bytes: larger than the caches of processors
LARGEST_ERROR = {
    "gpt2": 5e-3,
    "llama": 1e-4,
    "qwen3": 1e-4,
}  # of logits, in standard deviations; their GELU is a table


def alone(python: Path | str, script: str, *words: object, threads: int) -> dict[str, Any]:
    """The JSON of a program in a process of its own; {"failed": why} when it ends with an error."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    command = [str(python), str(HERE / script), *map(str, words), "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        error = [
            i for i, line in enumerate(lines) if re.match(r"[\w.]+(Error|Exception|Refused|Measured)\b", line)
        ]
        said = " ".join(lines[error[-1] :] if error else lines[-1:])
        return {"failed": said or f"ended with {done.returncode}"}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def bandwidth_program(folder: Path) -> Path:
    """read_bandwidth.cpp, compiled."""
    program = folder / "read_bandwidth"
    flags = ["-O3", "-march=native", "-pthread"]
    subprocess.run(["c++", *flags, str(HERE / "read_bandwidth.cpp"), "-o", str(program)], check=True)
    return program


def read_rate(program: Path, size: float, options: argparse.Namespace) -> float:
    """Bytes/s at which a buffer of `size` bytes is read again and again."""
    command = [str(program), str(int(size)), str(options.threads), str(options.bandwidth_seconds)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def one_round(options: argparse.Namespace, folder: Path, number: int) -> dict[str, dict[str, Any]]:
    """What every program gave: "ours int8", "peer int8", ..., "transformers bfloat16"."""
    words = [f"--{name}={getattr(options, name)}" for name in ("prompt", "new", "batch", "repetitions")]
    found: dict[str, dict[str, Any]] = {}
    for dtype in options.dtype:
        sides = ["ours", "peer"] if number % 2 == 0 else ["peer", "ours"]
        for side in sides:
            if side == "ours":
                program = (sys.executable, "engine_sides.py", "ours", folder, "--dtype", dtype)
                found[f"ours {dtype}"] = alone(*program, *words, threads=options.threads)
            else:
                file = gguf_of(folder, PAIRS[dtype], options.peer_python[0])
                builds = [(python, "engine_peer.py", "speed", file) for python in options.peer_python]
                found[f"peer {dtype}"] = best([alone(*b, *words, threads=options.threads) for b in builds])
            print(f"  round {number + 1}: {side} {dtype} done", file=sys.stderr)
    found["transformers bfloat16"] = alone(
        sys.executable, "engine_sides.py", "transformers", folder, *words, threads=options.threads
    )
    return found


def best(builds: list[dict[str, Any]]) -> dict[str, Any]:
    """The quickest of several builds of the peer for each work; what failed only where all did."""
    working = [build for build in builds if "failed" not in build]
    for build in builds:
        if "failed" in build:
            print(f"  a build of the peer failed: {build['failed']}", file=sys.stderr)
    if not working:
        return builds[0]
    quickest = {work: max((b[work] for b in working), key=statistics.median) for work in WORK}
    systems = " / ".join(build["system"] for build in working)
    return {**quickest, "backend": working[0]["backend"], "system": systems}


def measure(options: argparse.Namespace, folder: Path) -> list[dict[str, dict[str, Any]]]:
    """All rounds of one model, each with the bandwidths of its own."""
    program, rounds = bandwidth_program(folder), []
    for number in range(options.rounds):
        found = one_round(options, folder, number)
        found["read"] = {"large": read_rate(program, LARGE if not options.quick else 2**24, options)}
        for dtype in options.dtype:
            size = found[f"ours {dtype}"].get("read_bytes")
            if size:
                found["read"][dtype] = read_rate(program, size, options)
        rounds.append(found)
    return rounds


def median(rounds: list[dict[str, dict[str, Any]]], program: str, work: str) -> float | None:
    """Tokens/s: of the repetitions, then of the rounds."""
    each = [statistics.median(found[program][work]) for found in rounds if work in found[program]]
    return statistics.median(each) if len(each) == len(rounds) else None


def rows_of(rounds: list[dict[str, dict[str, Any]]], options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each work and dtype: both speeds, their ratio round by round, the shares of the bandwidths."""
    rows = []
    for work in WORK:
        for dtype in options.dtype:
            mine, peer = (median(rounds, f"{side} {dtype}", work) for side in ("ours", "peer"))
            row: dict[str, Any] = {"work": work, "dtype": dtype, "ours": mine, "peer": peer}
            if mine is not None and peer is not None:
                ratios = [
                    statistics.median(found[f"ours {dtype}"][work])
                    / statistics.median(found[f"peer {dtype}"][work])
                    for found in rounds
                ]
                row |= {"ratio": statistics.median(ratios), "ratios": ratios}
            if work == "decode" and mine is not None:
                row |= shares(rounds, dtype)
            rows.append(row)
    return rows


def shares(rounds: list[dict[str, dict[str, Any]]], dtype: str) -> dict[str, float]:
    """Bytes/s of both sides' decoding, and ours as shares of the two bandwidths, each round with its own."""
    size = rounds[0][f"ours {dtype}"]["read_bytes"]
    rates = [size * statistics.median(found[f"ours {dtype}"]["decode"]) for found in rounds]
    of = {
        name: statistics.median(rate / found["read"][place] for rate, found in zip(rates, rounds))
        for name, place in (("share_of_large", "large"), ("share_of_same_size", dtype))
    }
    found = {"bytes_per_second": statistics.median(rates), "read_bytes": size, **of}
    peer = median(rounds, f"peer {dtype}", "decode")
    return found | ({"peer_bytes_per_second": size * peer} if peer is not None else {})


def report(name: str, rounds: list[dict[str, dict[str, Any]]], options: argparse.Namespace) -> dict[str, Any]:
    """The table of one model; gives what goes into the line for RESULTS.md."""
    rows, large = rows_of(rounds, options), statistics.median(found["read"]["large"] for found in rounds)
    print(f"\n{name}, random weights; memory read at {large / 1e9:.1f} GB/s over {LARGE / 1e9:.1f} GB")
    header = f"{'work':12} {'dtype':9} {'ours':>9} {'peer':>9} {'ratio':>6} {'rounds':>22} {'bar':>5}"
    print(f"{header} {'GB/s':>6} {'of large':>9} {'of same':>8} {'aim':>5}")
    for row in rows:
        bar, aim = BARS.get((row["work"], row["dtype"]), (None, None))
        cells = [f"{WORK[row['work']]:12} {row['dtype']:9}"]
        cells += [f"{row[side]:9,.1f}" if row[side] is not None else f"{'-':>9}" for side in ("ours", "peer")]
        cells.append(f"{row['ratio']:6.2f}" if "ratio" in row else f"{'-':>6}")
        cells.append(f"{' '.join(f'{ratio:.2f}' for ratio in row.get('ratios', [])):>22}")
        cells.append(f"{bar:5.1f}" if bar else " " * 5)
        if "bytes_per_second" in row:
            cells.append(f"{row['bytes_per_second'] / 1e9:6.1f}")
            cells += [f"{row['share_of_large']:9.0%}", f"{row['share_of_same_size']:8.0%}"]
            cells.append(f"{aim:5.0%}" if aim else "")
        print(" ".join(cells).rstrip())
    theirs = median(rounds, "transformers bfloat16", "decode")
    mine = median(rounds, "ours int8", "decode") if "int8" in options.dtype else None
    if theirs is not None:
        beside = f"; ours at int8 {mine / theirs:.1f} × (bar 5 ×)" if mine is not None else ""
        print(f"transformers.generate, bf16: {theirs:.1f} tokens/s{beside}")
    failed = {program: r["failed"] for found in rounds for program, r in found.items() if "failed" in r}
    for program, why in failed.items():
        print(f"not measured: {program}: {why}")
    known = {program: found for program, found in rounds[0].items() if "backend" in found}
    print("; ".join(f"{program}: {found['backend']}" for program, found in known.items()))
    system = next((found["system"] for found in known.values() if "system" in found), "")
    print(f"llama.cpp: {system}")
    return {
        "shape": name, "read_bandwidth": large, "rows": rows, "transformers": theirs, "failed": failed,
        "peer_system": system,
    }  # fmt: skip


def check_logits(name: str, folder: Path, options: argparse.Namespace) -> None:
    """The peer's logits of a short text beside our plain fp32 model's; ends the script where they differ."""
    ids = np.random.default_rng(0).integers(TINY[name].vocab_size, size=70).tolist()
    texts, ours, theirs = (folder / file for file in ("texts.json", "ours.npy", "theirs.npy"))
    texts.write_text(json.dumps([ids]))
    words = ["--texts", texts, "--output"]
    sides: list[tuple[str, tuple[Any, ...]]] = [
        ("", (sys.executable, "engine_sides.py", "logits", folder, *words, ours))
    ]
    for kind in ("f32", "f16"):
        file = gguf_of(folder, kind, options.peer_python[0])
        sides.append((kind, (options.peer_python[0], "engine_peer.py", "logits", file, *words, theirs)))
    for kind, program in sides:
        failed = alone(*program, threads=options.threads).get("failed")
        if failed:
            sys.exit(f"{name} {kind}: {failed}")
        if kind:
            mine, peer = np.load(ours), np.load(theirs)
            error = float(np.abs(mine - peer).max() / mine.std())
            print(f"{name}, {kind}: largest difference of logits {error:.2e} standard deviations")
            largest = LARGEST_ERROR[TINY[name].architecture]
            if not error < largest:
                sys.exit(f"more than {largest:.0e}: the file is not the same model")


def main() -> None:
    """Measure the shapes that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--peer-python", type=Path, nargs="+", required=True, help="of environments with builds of llama.cpp"
    )
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=["124M", "1.1B"])
    parser.add_argument("--dtype", nargs="+", choices=PAIRS, default=["bfloat16", "int8", "int4"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repetitions", type=int, default=3, help="of each work in each process")
    parser.add_argument("--prompt", type=int, default=256, help="tokens of prefill")
    parser.add_argument("--new", type=int, default=64, help="tokens of decoding")
    parser.add_argument("--batch", type=int, default=16, help="sequences at once")
    parser.add_argument("--threads", type=int, default=num_physical_cores())
    parser.add_argument("--work", type=Path, help="keeps models and GGUF files; default: a temporary folder")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    options.bandwidth_seconds = 1.0
    if options.quick:
        options.rounds, options.repetitions, options.new, options.prompt = 1, 1, 4, 20
        options.bandwidth_seconds = 0.1
    shapes = TINY if options.quick else {name: SHAPES[name] for name in options.shape}
    print(f"{cpu_name()}, {options.threads} threads, torch {torch.__version__}, {options.rounds} rounds")
    models = []
    with tempfile.TemporaryDirectory() as temporary:
        for name, config in shapes.items():
            folder = (options.work or Path(temporary)) / name.replace(" ", "-")
            if not (folder / "model.safetensors").exists():
                write_folder(folder, config)
            if options.quick:
                check_logits(name, folder, options)
            models.append(report(name, measure(options, folder), options))
    line = {
        "bench": "engine_speed", "cpu": cpu_name(), "threads": options.threads, "torch": torch.__version__,
        "date": date.today().isoformat(), "rounds": options.rounds, "quick": options.quick, "models": models,
    }  # fmt: skip
    print("\n" + json.dumps(line))


if __name__ == "__main__":
    main()
