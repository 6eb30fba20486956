"""Our engine and transformers, each in a process of its own: what engine_speed and engine_quality ask of them.

    python bench/engine_sides.py ours FOLDER --dtype int8 --threads 2

The last line of standard output is JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
import torch

import ownlm
from engine_options import answer, parser_of


def ours(options: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second through the public engine, greedy sampling in it; bytes that a step of one sequence reads."""
    from ownlm.verbs._speed import Case, measure, read_bytes

    engine = ownlm.load(options.model, device="cpu", dtype=options.dtype).engine
    cases = {
        "decode": Case("tg", options.new, 1, 0),
        "prefill": Case("pp", options.prompt, 1, 0),
        "batch": Case("tg", options.new, options.batch, 0),
    }
    found: dict[str, Any] = {
        name: measure(engine, case, options.repetitions).samples for name, case in cases.items()
    }
    read = read_bytes(engine.backend, 1, 1 + (options.new + 1) / 2)
    return found | {"backend": f"{engine.backend.name} {engine.backend.dtype}", "read_bytes": read}


def transformers(options: argparse.Namespace) -> dict[str, Any]:
    """`generate` as it is called by most: one sequence, greedy, bf16."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.bfloat16).eval()
    draw, samples = np.random.default_rng(0), []
    for _ in range(options.repetitions + 1):
        ids = torch.from_numpy(draw.integers(model.config.vocab_size, size=(1, 8)))
        begin = time.perf_counter()
        text = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=options.new,
            min_new_tokens=options.new, do_sample=False, pad_token_id=0,
        )  # fmt: skip
        samples.append((text.shape[1] - ids.shape[1]) / (time.perf_counter() - begin))
    return {"decode": samples[1:], "backend": "transformers bfloat16"}


def logits(options: argparse.Namespace) -> dict[str, Any]:
    """Logits of the first window of --texts by the plain fp32 model, all positions, to --output."""
    from ownlm.model.checkpoint import load_model

    ids = json.loads(options.texts.read_text())[0]
    model = load_model(options.model, dtype=torch.float32).eval()
    with torch.inference_mode():
        np.save(options.output, model(torch.tensor([ids]))[0].numpy())
    return {}


def score(options: argparse.Namespace) -> dict[str, Any]:
    """Nats of every token from the second on of each window of --texts, to --output: one array, windows joined."""
    windows = json.loads(options.texts.read_text())
    engine = ownlm.load(options.model, device="cpu", dtype=options.dtype).engine
    np.save(options.output, np.concatenate([-one.logprobs for one in engine.score(windows)]))
    return {"backend": f"{engine.backend.name} {engine.backend.dtype}"}


if __name__ == "__main__":
    TASKS = {"ours": ours, "transformers": transformers, "logits": logits, "score": score}
    parser = parser_of(__doc__, TASKS)
    parser.add_argument("--dtype", default="auto")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    answer(TASKS, chosen)
