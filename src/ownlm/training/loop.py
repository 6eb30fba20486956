"""The training loop: batches in, updates out; logs, validates, samples and saves on the way."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ownlm.console.errors import OwnlmError
from ownlm.corpus.batches import Batches
from ownlm.model.transformer import Transformer
from ownlm.training.checkpoint import prune, save_checkpoint
from ownlm.training.log import RunLog
from ownlm.training.loss import head_loss
from ownlm.training.optimizer import Optimizer
from ownlm.training.plan import TrainPlan
from ownlm.training.schedule import learning_rate_factor


@dataclass
class Trainer:
    """Everything a run needs, and its position.

    Args:
        byte_lengths: UTF-8 bytes of each token id (0 for specials), [V].
        validation: fixed validation blocks [rows, T + 1], or None.
        on_step: called with the values of each step (for the live line).
        on_sample: called when a sample is due; returns the text.
    """

    model: Transformer
    optimizer: Optimizer
    plan: TrainPlan
    batches: Batches
    byte_lengths: Tensor
    run: Path
    validation: np.ndarray | None = None
    on_step: Callable[[dict[str, Any]], None] = lambda _: None
    on_validation: Callable[[dict[str, Any]], None] = lambda _: None
    on_sample: Callable[[int, float], str] | None = None
    step: int = 0
    seconds_before: float = 0.0
    stop: threading.Event = field(default_factory=threading.Event)

    def train(self) -> bool:
        """Run to `plan.max_steps`; True when finished, False when interrupted (a checkpoint was then saved)."""
        started = time.monotonic() - self.seconds_before
        with RunLog(self.run / "log.jsonl") as log, stop_on_signal(self.stop):
            if self.step == 0:
                self._between_steps(log, started)
            while self.step < self.plan.max_steps and not self.stop.is_set():
                begin = time.monotonic()
                values = self.train_step()
                now = time.monotonic()
                tokens = self.step * self.plan.tokens_per_step
                rate = self.plan.tokens_per_step / (now - begin)
                values |= {"seconds": now - started, "tokens": tokens, "tokens_per_second": rate}
                values["mfu"] = rate * self.plan.flops_per_token / self.plan.peak_flops
                log.write("step", **values)
                self.on_step(values)
                self._check_loss(values)
                self._between_steps(log, started)
            finished = self.step >= self.plan.max_steps
            if not finished:
                self._save(log, time.monotonic() - started)
            self.seconds_before = time.monotonic() - started
        return finished

    def train_step(self) -> dict[str, Any]:
        """One optimizer step over all micro-batches; returns its loss and learning rate."""
        plan = self.plan
        self.model.train()
        total = torch.zeros((), dtype=torch.float64)
        targets_bytes = 0
        for micro in range(plan.gradient_accumulation_steps):
            rows = self.batches.step(
                self.step, micro * plan.per_device_train_batch_size, plan.per_device_train_batch_size
            )
            batch = torch.from_numpy(rows).to(plan.device)
            loss = self.loss_sum(batch)
            (loss / (plan.rows_per_step * plan.context)).backward()
            total += loss.detach().double().cpu()
            targets_bytes += int(self.byte_lengths[batch[:, 1:]].sum())
        if plan.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), plan.max_grad_norm)
        factor = learning_rate_factor(self.step, plan.max_steps, plan.warmup_steps, plan.decay_steps)
        self.optimizer.step(factor)
        self.optimizer.zero_grad()
        self.step += 1
        nll = float(total)
        return {
            "step": self.step,
            "loss": nll / plan.tokens_per_step,
            "bits_per_byte": nll / math.log(2) / max(targets_bytes, 1),
            "learning_rate": plan.learning_rate * factor,
        }

    def loss_sum(self, batch: Tensor) -> Tensor:
        """Summed cross-entropy in nats of rows [B, T + 1]: each token predicts the next one."""
        with self.autocast():
            hidden = self.model.hidden(batch[:, :-1])
        dtype = torch.bfloat16 if self.plan.dtype == "bfloat16" else torch.float32
        return head_loss(hidden.flatten(0, 1), self.model.head_weight, batch[:, 1:].flatten(), dtype)

    def autocast(self) -> Any:
        """bf16 products where the plan says so; weights, norms and the loss stay in fp32."""
        if self.plan.dtype == "bfloat16":
            return torch.autocast(torch.device(self.plan.device).type, torch.bfloat16)
        return nullcontext()

    @torch.no_grad()
    def validate(self) -> dict[str, Any]:
        """Mean loss and bits per byte over the fixed validation blocks."""
        assert self.validation is not None
        self.model.eval()
        nll, count, size = 0.0, 0, 0
        rows = self.plan.per_device_train_batch_size
        for first in range(0, len(self.validation), rows):
            batch = torch.from_numpy(self.validation[first : first + rows]).to(self.plan.device)
            nll += float(self.loss_sum(batch))
            count += batch[:, 1:].numel()
            size += int(self.byte_lengths[batch[:, 1:]].sum())
        return {"step": self.step, "loss": nll / count, "bits_per_byte": nll / math.log(2) / max(size, 1)}

    def _between_steps(self, log: RunLog, started: float) -> None:
        """What is due at this step: validation, a sample, a checkpoint."""
        plan, last = self.plan, self.step == self.plan.max_steps
        if self.validation is not None and (last or (plan.eval_steps and self.step % plan.eval_steps == 0)):
            values = self.validate() | {"seconds": time.monotonic() - started}
            log.write("validation", **values)
            self.on_validation(values)
        if self.on_sample is not None and (self.step in plan.sample_steps or last):
            seconds = time.monotonic() - started
            self.model.eval()
            text = self.on_sample(self.step, seconds)
            log.write("sample", step=self.step, seconds=seconds, prompt=plan.sample_prompt, text=text)
        if self.step and (last or (plan.save_steps and self.step % plan.save_steps == 0)):
            self._save(log, time.monotonic() - started)

    def _save(self, log: RunLog, seconds: float) -> None:
        save_checkpoint(self.run, self.step, self.model, self.optimizer, {"seconds": seconds})
        prune(self.run, self.plan.save_total_limit)
        log.write("checkpoint", step=self.step, seconds=seconds)

    def _check_loss(self, values: dict[str, Any]) -> None:
        if not math.isfinite(values["loss"]):
            raise OwnlmError(
                f"the loss is {values['loss']} at step {self.step}.",
                why="Training diverged; checkpoints before this step are kept.",
                do=f"the same command with --learning-rate {self.plan.learning_rate / 2:g}",
            )


@contextmanager
def stop_on_signal(event: threading.Event) -> Iterator[None]:
    """Ctrl-C and SIGTERM set the event, so that the step ends and is saved; a second Ctrl-C breaks off at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, _: Any) -> None:
        if event.is_set():
            signal.signal(number, before[signal.Signals(number)])
            raise KeyboardInterrupt
        event.set()

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
