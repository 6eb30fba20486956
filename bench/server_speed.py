"""Tokens a second of `ownlm serve` with 1 to 64 clients, beside other servers and beside the bare engine.

    cmake -S llama.cpp -B build -DGGML_NATIVE=ON -DLLAMA_BUILD_UI=OFF && cmake --build build --target llama-server
    python -m venv peer && peer/bin/pip install gguf "transformers[serving]" torch
    python bench/server_speed.py --gguf-python peer/bin/python --llama-server build/bin/llama-server \\
        --transformers-python peer/bin/python

A model of GPT-2's size in the Qwen3 layout with random weights and a vocabulary of 8,192 trained on Python's own
documentation; the same weights for all: int8 beside Q8_0, bf16 for transformers. Each client sends one request after the
other: a prompt of --prompt tokens that no other request has, --new tokens, greedy, end tokens ignored, as a stream.
The client is a program of its own (server_client.py), the same for all; each server is started anew for every
round, the order turns from round to round. Figures are medians of the rounds: tokens a second of all clients together
(from the first request to the end of the last one), and the time to the first event of a stream, median and 95 %.

"engine" is our engine in a program without HTTP and text, with the same prompts and as many sequences at once: what the
server adds is the difference. transformers counts its chunks where it tells no usage, and its answers may end early.

--quick: a few requests to a small model; no figures worth anything.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from server_client import parser_of

HERE = Path(__file__).parent
BAR, AT = 1.3, 16  # times llama-server's tokens a second, with so many clients
GGUF = {"int8": "q8_0", "int4": "q4_0", "bfloat16": "f16"}
OVERHEAD = 0.05  # of the server over the bare engine


# ---- servers


@contextmanager
def served(command: list[str], port: int, threads: int) -> Iterator[None]:
    """A server that answers, while it is needed."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env=environment)
        try:
            for _ in range(1200):
                if process.poll() is not None:
                    break
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                        if answer.status == 200:
                            break
                except OSError:
                    time.sleep(0.1)
            if process.poll() is not None:
                said.seek(0)
                raise RuntimeError(f"{shlex.join(command)} ended:\n{said.read().decode()[-2000:]}")
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def commands(options: argparse.Namespace, folder: Path, port: int) -> dict[str, tuple[list[str], str, str]]:
    """Server -> (command, the form of its prompts, the model's name)."""
    most, threads = max(options.clients), str(options.threads)
    tokens = most * (options.prompt + options.new + 64)
    ours = [
        sys.executable,
        "-m",
        "ownlm",
        "serve",
        str(folder),
        "--port",
        str(port),
        "--dtype",
        options.dtype,
        "-q",
    ]
    found = {"ownlm serve": (ours, "ids", "")}
    if options.llama_server:
        file = folder.parent / f"{GGUF[options.dtype]}.gguf"
        theirs = [
            str(options.llama_server),
            "-m",
            str(file),
            "--port",
            str(port),
            "-t",
            threads,
            "-tb",
            threads,
        ]
        theirs += ["-np", str(most), "-c", str(tokens), "--no-warmup", "--kv-unified"]
        found["llama-server"] = (theirs, "ids", "")
    if options.transformers_python:
        theirs = [
            str(options.transformers_python),
            "-m",
            "transformers.cli.transformers",
            "serve",
            "--port",
            str(port),
        ]
        theirs += ["--device", "cpu", "--dtype", "bfloat16", "--continuous-batching"]
        found["transformers serve"] = (theirs, "text", str(folder))
    return found


def one_round(options: argparse.Namespace, folder: Path, number: int) -> dict[str, dict[str, Any]]:
    """What every side gave, by the number of clients."""
    found: dict[str, dict[str, Any]] = {}
    names = [*commands(options, folder, 1), "engine"]
    for name in names[number % len(names) :] + names[: number % len(names)]:
        port = free_port()
        words = [sys.executable, str(HERE / "server_client.py"), "client", "--port", str(port)]
        words += ["--folder", str(folder)]
        words += [
            f"--{k}={getattr(options, k)}" for k in ("prompt", "new", "requests", "threads", "vocab", "dtype")
        ]
        words += ["--clients", ",".join(map(str, options.clients))]
        try:
            if name == "engine":
                words[2] = "engine"
                found[name] = answer(words, options.threads)
            else:
                command, form, model = commands(options, folder, port)[name]
                with served(command, port, options.threads):
                    found[name] = answer([*words, "--form", form, "--model", model], options.threads)
        except RuntimeError as error:
            print(f"  {name}: {error}", file=sys.stderr)
            continue
        print(f"  round {number + 1}: {name} done", file=sys.stderr)
    return found


def answer(words: list[str], threads: int) -> dict[str, Any]:
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-1500:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def report(options: argparse.Namespace, rounds: list[dict[str, dict[str, Any]]]) -> None:
    """The table, and whether what is aimed at was reached."""
    rate: dict[tuple[str, int], float] = {}
    print(
        f"\n{date.today()}: prompts of {options.prompt} tokens, {options.new} new ones, {options.threads} threads"
    )
    print("\n| side | clients | tokens/s | first token, median | 95 % |\n|---|---|---|---|---|")
    for name in dict.fromkeys(name for found in rounds for name in found):
        for clients in options.clients:
            rows = [found[name][str(clients)] for found in rounds if name in found]
            middle = {
                key: statistics.median(row[key] for row in rows) for key in ("rate", "first", "first_95")
            }
            rate[name, clients] = middle["rate"]
            print(
                f"| {name} | {clients} | {middle['rate']:,.1f} | {middle['first']:.3f} s | {middle['first_95']:.3f} s |"
            )
    for clients in options.clients:
        lost = 1 - rate["ownlm serve", clients] / rate["engine", clients]
        word = "reached" if lost <= OVERHEAD else "missed"
        print(
            f"\n{clients} clients: the server costs {lost:.1%} of the bare engine's rate (at most {OVERHEAD:.0%}: {word})"
        )
        for peer in ("llama-server", "transformers serve"):
            if (peer, clients) in rate:
                times = rate["ownlm serve", clients] / rate[peer, clients]
                aim = (
                    f" (at least {BAR}: {'reached' if times >= BAR else 'missed'})"
                    if (peer, clients) == ("llama-server", AT)
                    else ""
                )
                print(f"{clients} clients: {times:.2f} times {peer}{aim}")


def write_model(options: argparse.Namespace, folder: Path) -> None:
    """The model with a vocabulary of its own."""
    import pydoc_data.topics

    from engine_models import write_folder
    from ownlm.corpus.train_tokenizer import train_tokenizer
    from ownlm.model.config import ModelConfig
    from ownlm.model.families import FAMILIES

    texts = list(pydoc_data.topics.topics.values())
    size = 600 if options.quick else options.vocab
    tokenizer = train_tokenizer(texts, vocab_size=size, kind="bpe", corpus_bytes=sum(map(len, texts)))
    numbers = (64, 2, 2, 1, 32, 192) if options.quick else (768, 12, 12, 12, 64, 2048)
    options.vocab = tokenizer.vocab_size
    fixed = {**FAMILIES["qwen3"].fixed, "tie_word_embeddings": True, "rope_theta": 1e6}
    write_folder(folder, ModelConfig(options.vocab, *numbers, 2048, architecture="qwen3", **fixed))
    tokenizer.save(folder)
    if options.llama_server:
        kind = GGUF[options.dtype]
        program = [options.gguf_python, HERE / "gguf_file.py", folder, folder.parent / f"{kind}.gguf"]
        subprocess.run(
            [*map(str, program), "--type", kind, "--vocabulary"], check=True, stdout=subprocess.DEVNULL
        )


def main() -> None:
    """Run the rounds."""
    parser = parser_of(__doc__)
    parser.add_argument("--llama-server", type=Path)
    parser.add_argument("--gguf-python", type=Path, default=Path(sys.executable))
    parser.add_argument("--transformers-python", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.requests, options.clients, options.new = 1, 1, [1, 4, 16], 8
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "model"
        write_model(options, folder)
        report(options, [one_round(options, folder, number) for number in range(options.rounds)])


if __name__ == "__main__":
    main()
