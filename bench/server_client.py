"""What server_speed asks: a client of a server, or the bare engine with the same requests; a line of JSON comes out.

python bench/server_client.py client --port 8000 --clients 1,16
python bench/server_client.py engine --folder MODEL --dtype int8 --clients 1,16
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np


def numbers(text: str) -> list[int]:
    """1,4,16."""
    return [int(word) for word in text.split(",")]


def parser_of(about: str | None) -> argparse.ArgumentParser:
    """The options that both programs have."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=3, help="of each client")
    parser.add_argument("--prompt", type=int, default=128, help="tokens")
    parser.add_argument("--new", type=int, default=64, help="tokens")
    parser.add_argument("--clients", type=numbers, default=[1, 4, 16, 64])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--dtype", default="int8", choices=("int8", "bfloat16", "int4"))
    parser.add_argument("--vocab", type=int, default=8192)
    return parser


def prompts_of(options: argparse.Namespace, clients: int) -> list[list[int]]:
    """A prompt for each request; no two begin alike."""
    draw = np.random.default_rng(clients)
    ids: list[list[int]] = draw.integers(
        300, options.vocab, size=(clients * options.requests, options.prompt)
    ).tolist()
    return ids


async def one_request(port: int, body: dict[str, Any]) -> tuple[float, int]:
    """(seconds to the first event, tokens of the answer)."""
    data = json.dumps(body).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    )
    begin = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
    writer.write(head.encode() + data)
    first, chunks, tokens = 0.0, 0, 0
    status = await reader.readline()
    if b" 200" not in status:
        raise RuntimeError((status + await reader.read(2000)).decode("utf-8", "replace"))
    async for line in reader:
        if not line.startswith(b"data: {"):
            continue
        first = first or time.perf_counter() - begin
        event = json.loads(line[6:])
        if "error" in event:
            raise RuntimeError(str(event)[:500])
        chunks += bool(event.get("choices"))
        tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
    writer.close()
    return first, tokens or chunks


async def load(options: argparse.Namespace, clients: int) -> dict[str, Any]:
    """All requests of so many clients."""
    prompts = prompts_of(options, clients)
    found: list[tuple[float, int]] = []

    async def client(mine: list[list[int]]) -> None:
        for ids in mine:
            prompt: Any = ids if options.form == "ids" else " ".join(map(str, ids[: options.prompt // 3]))
            body = {
                "prompt": prompt, "max_tokens": options.new, "temperature": 0, "stream": True,
                "stream_options": {"include_usage": True},
            }  # fmt: skip
            if options.model:
                body["model"] = options.model
            if options.form == "ids":
                body["ignore_eos"] = True
            found.append(await one_request(options.port, body))

    begin = time.perf_counter()
    await asyncio.gather(*(client(prompts[number::clients]) for number in range(clients)))
    seconds = time.perf_counter() - begin
    firsts = sorted(first for first, _ in found)
    tokens = sum(count for _, count in found)
    return {
        "rate": tokens / seconds, "tokens": tokens, "first": statistics.median(firsts),
        "first_95": firsts[int(0.95 * (len(firsts) - 1))],
    }  # fmt: skip


def engine(options: argparse.Namespace, clients: int, opened: Any) -> dict[str, Any]:
    """The same requests through submit and step, as many at once."""
    from ownlm.engine import Request, SamplingSettings

    settings = SamplingSettings(temperature=0, max_new_tokens=options.new)
    waiting = [Request(ids, settings) for ids in prompts_of(options, clients)]
    begins: dict[int, float] = {}
    firsts: list[float] = []
    tokens, running = 0, 0
    begin = time.perf_counter()
    while waiting or running:
        while waiting and running < clients:
            begins[opened.submit(waiting.pop())] = time.perf_counter()
            running += 1
        for event in opened.step():
            tokens += 1
            if event.request_id in begins:
                firsts.append(time.perf_counter() - begins.pop(event.request_id))
            running -= event.finish_reason is not None
    seconds = time.perf_counter() - begin
    firsts.sort()
    return {
        "rate": tokens / seconds, "tokens": tokens, "first": statistics.median(firsts),
        "first_95": firsts[int(0.95 * (len(firsts) - 1))],
    }  # fmt: skip


def main() -> None:
    """Ask with each number of clients, the first one twice: once to warm up."""
    parser = parser_of(__doc__)
    parser.add_argument("side", choices=("client", "engine"))
    parser.add_argument("--port", type=int)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--form", choices=("ids", "text"), default="ids")
    parser.add_argument("--model", default="")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    opened = None
    if options.side == "engine":
        import torch

        import ownlm

        torch.set_num_threads(options.threads)
        opened = ownlm.load(options.folder, device="cpu", dtype=options.dtype).engine
    for clients in [1, *options.clients]:
        if opened is not None:
            found[str(clients)] = engine(options, clients, opened)
        else:
            found[str(clients)] = asyncio.run(load(options, clients))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
