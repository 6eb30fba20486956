"""Predicted against measured peak memory of real training steps, each shape in a process of its own.

    python bench/train_memory.py                    # CPU (Linux: peak resident memory)
    python bench/train_memory.py --device cuda      # GPU (peak of torch's allocator)

Three steps of the real `Trainer` on random tokens; the peak is that of the whole process, less what it held when
everything was imported and nothing built.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

# width, layers, vocabulary, context, micro-batch, accumulation
SHAPES = [
    (128, 2, 512, 128, 8, 1), (128, 4, 4096, 256, 32, 1), (128, 12, 512, 1024, 4, 1), (256, 4, 4096, 256, 8, 1),
    (256, 4, 32_768, 256, 4, 1), (256, 6, 8192, 512, 16, 1), (256, 12, 4096, 128, 1, 1), (384, 6, 4096, 256, 16, 1),
    (384, 6, 4096, 256, 4, 4), (384, 12, 16_384, 1024, 4, 1), (512, 10, 8192, 256, 32, 1), (512, 4, 512, 512, 1, 1),
    (768, 12, 8192, 1024, 1, 1), (768, 12, 32_768, 256, 8, 1), (768, 4, 4096, 1024, 8, 1), (768, 12, 32_768, 128, 1, 2),
]  # fmt: skip
LIMITS = 0.90, 1.15  # predicted / measured
STEPS = 5  # the memory that the C library keeps for itself has stopped growing by then


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], action="append")
    parser.add_argument("--architecture", default="qwen3")
    parser.add_argument("--shapes", type=int, default=len(SHAPES), help="only the first so many")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(json.loads(options.child))))
        return
    outside = 0
    ways = (
        [(False, False), (True, False), (False, True)]
        if options.device == "cpu"
        else [(False, False), (False, True)]
    )
    for dtype in options.dtype or ["float32", "bfloat16"]:
        for plain, checkpointing in ways:
            for shape in SHAPES[: options.shapes]:
                case = {"shape": shape, "dtype": dtype, "checkpointing": checkpointing, "plain": plain}
                outside += row(case | {"device": options.device, "architecture": options.architecture})
    print(f"{outside} outside of {LIMITS[0]:.2f} to {LIMITS[1]:.2f}")


def row(case: dict[str, Any]) -> bool:
    """Print one line; whether it is outside of the limits."""
    found = child(case)
    ratio = found["predicted"] / found["measured"]
    wrong = not LIMITS[0] <= ratio <= LIMITS[1]
    parts = ", ".join(f"{name} {size / 1e6:.0f}" for name, size in found["parts"].items())
    width, layers, vocabulary, context, rows, accumulation = case["shape"]
    print(
        f"{found['path']:6} {case['dtype']:9} {'ckpt' if case['checkpointing'] else '    '} {width:4} × {layers:2}, "
        f"V {vocabulary:6,}, {rows:2} × {context:5,} × {accumulation}: {found['predicted'] / 1e6:6,.0f} / "
        f"{found['measured'] / 1e6:6,.0f} MB = {ratio:.2f}{' OUTSIDE' if wrong else ''}  ({parts})",
        flush=True,
    )
    return wrong


def child(case: dict[str, Any]) -> dict[str, Any]:
    """The result of `measure` in a new process."""
    command = [sys.executable, __file__, "--child", json.dumps(case)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """Bytes predicted and measured for one shape."""
    import torch

    from ownlm.machine.cpu import process_memory
    from ownlm.training import session  # noqa: F401 - all that a real run imports
    from ownlm.training.memory import path_of, step_memory, step_of

    config, plan = described(case)
    base = process_memory().now
    trainer = built(config, plan)
    for _ in range(STEPS):
        trainer.train_step()
    measured = process_memory().peak - base if plan.device == "cpu" else torch.cuda.max_memory_allocated()
    step = step_of(config, plan)
    parts = step_memory(step)
    return {"predicted": sum(parts.values()), "measured": measured, "parts": parts, "path": path_of(step)}


def described(case: dict[str, Any]) -> tuple[Any, Any]:
    """(config, plan) of a shape."""
    from ownlm.machine.cpu import num_cores
    from ownlm.model.sizes import HEAD_DIM, Size, config_for
    from ownlm.training.fused import why_not
    from ownlm.training.plan import TrainPlan
    from ownlm.training.setup import in_architecture

    width, layers, vocabulary, context, rows, accumulation = case["shape"]
    config = dataclasses.replace(
        config_for("10M", vocabulary, context), hidden_size=width, num_hidden_layers=layers,
        num_attention_heads=width // HEAD_DIM, num_key_value_heads=width // HEAD_DIM,
        intermediate_size=Size(layers, width, 1).intermediate,
    )  # fmt: skip
    if case["architecture"] != config.architecture:
        config = in_architecture(config, case["architecture"])
    return config, TrainPlan(
        max_steps=3, context=context, per_device_train_batch_size=rows, gradient_accumulation_steps=accumulation,
        learning_rate=0.004, muon_learning_rate=0.02, weight_decay=0.01, max_grad_norm=0.0, warmup_steps=0, decay_steps=1,
        eval_steps=0, eval_rows=1, save_steps=0, save_total_limit=1, sample_steps=[], sample_prompt="", seed=0,
        dtype=case["dtype"], device=case["device"], threads=num_cores(), flops_per_token=1.0, peak_flops=1.0,
        gradient_checkpointing=case["checkpointing"],
        fused=not case["plain"] and why_not(config, case["device"], case["checkpointing"]) is None,
    )  # fmt: skip


def built(config: Any, plan: Any) -> Any:
    """A trainer on random tokens."""
    import numpy as np
    import torch

    from ownlm.corpus.batches import Batches
    from ownlm.training.checkpoint import WholeModel
    from ownlm.training.fused import FusedGradients
    from ownlm.training.loop import Trainer
    from ownlm.training.optimizer import Optimizer
    from ownlm.training.setup import build_model
    from ownlm.training.watchdog import Watchdog

    class RandomTokens:
        num_tokens = 8 * plan.tokens_per_step

        def read(self, start: int, end: int) -> np.ndarray:
            return np.random.default_rng(start).integers(0, config.vocab_size, end - start)

    model = build_model(config, plan, None)
    dtype = torch.bfloat16 if plan.dtype == "bfloat16" else torch.float32
    optimizer = Optimizer(model, plan.learning_rate, plan.muon_learning_rate, plan.weight_decay, dtype)
    lengths = torch.ones(config.vocab_size, dtype=torch.int64, device=plan.device)
    split: Any = RandomTokens()
    batches = Batches(split, plan.context, plan.rows_per_step, plan.seed)
    gradients = FusedGradients(model, dtype) if plan.fused else None
    return Trainer(
        model,
        optimizer,
        plan,
        batches,
        lengths,
        Path("unused"),
        WholeModel(model, {}),
        watchdog=Watchdog("stop"),
        gradients=gradients,
    )


if __name__ == "__main__":
    main()
