"""llama.cpp through its C interface, in a process and a Python of its own: what engine_speed and engine_quality ask.

    CMAKE_ARGS="-DGGML_NATIVE=ON" pip install --no-binary llama-cpp-python llama-cpp-python gguf
    python bench/engine_peer.py speed MODEL.gguf --threads 2

The last line of standard output is JSON. Tokens are drawn, not sampled: the peer's time is `llama_decode` with logits
of every sequence, and nothing of Python but filling a batch of at most 16 rows.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import llama_cpp as llama
import numpy as np
import numpy.typing as npt

from engine_options import answer, parser_of


class Row(NamedTuple):
    """One token of a batch."""

    token: int
    position: int
    sequence: int
    wanted: bool


@llama.llama_log_callback
def _silent(level: int, text: bytes, data: Any) -> None:
    """llama.cpp talks a lot; what goes wrong is seen from what it gives back."""


class Peer:
    """A model with a cache for `sequences` of `context` tokens.

    Args:
        exact: attention and its cache in fp32; else as llama.cpp chooses: f16, fused ("flash attention").
    """

    def __init__(
        self, path: Path, *, threads: int, sequences: int, context: int, exact: bool = False
    ) -> None:
        llama.llama_log_set(_silent, ctypes.c_void_p(0))
        llama.llama_backend_init()
        of_model = llama.llama_model_default_params()
        of_model.n_gpu_layers = 0
        self.model = llama.llama_model_load_from_file(str(path).encode(), of_model)
        if not self.model:
            sys.exit(f"{path}: llama.cpp does not open it")
        settings = llama.llama_context_default_params()
        settings.n_ctx = (context + 8) * sequences
        settings.n_batch = max(settings.n_batch, context)
        settings.n_seq_max = sequences
        settings.n_threads = settings.n_threads_batch = threads
        if exact:
            settings.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
            settings.type_k = settings.type_v = llama.GGML_TYPE_F32
        self.context = llama.llama_init_from_model(self.model, settings)
        if not self.context:
            sys.exit(f"{path}: no context of {settings.n_ctx} tokens")
        self.vocab_size = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self.model))
        self.batch = llama.llama_batch_init(settings.n_batch, 0, 1)

    def fill(self, rows: list[Row]) -> None:
        """Make these rows the next batch."""
        batch = self.batch
        batch.n_tokens = len(rows)
        for i, row in enumerate(rows):
            batch.token[i], batch.pos[i], batch.logits[i] = row.token, row.position, row.wanted
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, row.sequence

    def run(self) -> None:
        """Compute the batch, and wait for it."""
        code = llama.llama_decode(self.context, self.batch)
        if code:
            sys.exit(f"llama_decode gave {code}")
        llama.llama_synchronize(self.context)

    def forget(self) -> None:
        """Empty the cache."""
        llama.llama_memory_clear(llama.llama_get_memory(self.context), True)

    def logits(self, ids: list[int]) -> npt.NDArray[np.float32]:
        """[T, V] of a text."""
        self.forget()
        self.fill([Row(token, i, 0, True) for i, token in enumerate(ids)])
        self.run()
        found = llama.llama_get_logits(self.context)
        return np.ctypeslib.as_array(found, shape=(len(ids), self.vocab_size)).copy()


def speed(options: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second: one sequence, a prompt, many sequences; each repetition after one that does not count."""
    context = max(options.prompt, options.new) + 1
    peer = Peer(options.model, threads=options.threads, sequences=options.batch, context=context)
    draw = np.random.default_rng(0)

    def tokens(count: int) -> list[int]:
        return draw.integers(peer.vocab_size, size=count).tolist()

    def prefill() -> float:
        peer.forget()
        last = options.prompt - 1
        peer.fill([Row(token, i, 0, i == last) for i, token in enumerate(tokens(options.prompt))])
        begin = time.perf_counter()
        peer.run()
        return options.prompt / (time.perf_counter() - begin)

    def decode(sequences: int) -> float:
        peer.forget()
        steps = [tokens(sequences) for _ in range(options.new + 1)]
        for position, step in enumerate(steps):
            if position == 1:
                begin = time.perf_counter()
            peer.fill([Row(token, position, sequence, True) for sequence, token in enumerate(step)])
            peer.run()
        return options.new * sequences / (time.perf_counter() - begin)

    repeated = range(options.repetitions + 1)
    return {
        "decode": [decode(1) for _ in repeated][1:],
        "prefill": [prefill() for _ in repeated][1:],
        "batch": [decode(options.batch) for _ in repeated][1:],
        "backend": f"llama.cpp (llama-cpp-python {llama.__version__})",
        "system": llama.llama_print_system_info().decode().strip(),
    }


def logits(options: argparse.Namespace) -> dict[str, Any]:
    """Logits of the first window of --texts, all positions, to --output."""
    ids = json.loads(options.texts.read_text())[0]
    peer = Peer(options.model, threads=options.threads, sequences=1, context=len(ids), exact=True)
    np.save(options.output, peer.logits(ids))
    return {}


def score(options: argparse.Namespace) -> dict[str, Any]:
    """Nats of every token from the second on of each window of --texts, to --output: one array, windows joined."""
    windows = json.loads(options.texts.read_text())
    context = max(map(len, windows))
    peer = Peer(options.model, threads=options.threads, sequences=1, context=context, exact=True)
    found = []
    for ids in windows:
        rows = peer.logits(ids)[:-1].astype(np.float64)
        highest = rows.max(axis=1)
        normaliser = highest + np.log(np.exp(rows - highest[:, None]).sum(axis=1))
        found.append(normaliser - rows[np.arange(len(rows)), ids[1:]])
    np.save(options.output, np.concatenate(found))
    return {}


if __name__ == "__main__":
    TASKS = {"speed": speed, "logits": logits, "score": score}
    answer(TASKS, parser_of(__doc__, TASKS).parse_args())
