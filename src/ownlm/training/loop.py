"""The training loop: batches in, updates out; logs, validates, samples and saves on the way."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ownlm.console.errors import OwnlmError
from ownlm.corpus.batches import NOT_TRAINED, Source, TokenRows
from ownlm.model.lora import seed_dropout
from ownlm.model.transformer import Transformer
from ownlm.training.checkpoint import Weights, prune, save_checkpoint
from ownlm.training.diagnosis import Accepted, Diagnosis, diagnose
from ownlm.training.fused import FusedGradients
from ownlm.training.log import RunLog
from ownlm.training.loss import head_loss
from ownlm.training.optimizer import Optimizer
from ownlm.training.parallel import LostProcess, Processes
from ownlm.training.plan import TrainPlan
from ownlm.training.schedule import learning_rate_factor
from ownlm.training.trackers import Tracker
from ownlm.training.watchdog import Trouble, Watchdog, divergence_logged, gradient_norm


class Batch(NamedTuple):
    """`TokenRows` on the device of the model."""

    ids: Tensor
    targets: Tensor
    starts: Tensor | None = None

    @classmethod
    def of(cls, rows: TokenRows, device: str) -> Batch:
        """Some rows of a step."""
        starts = None if rows.starts is None else torch.from_numpy(rows.starts).to(device)
        return cls(torch.from_numpy(rows.ids).to(device), torch.from_numpy(rows.targets).to(device), starts)


@dataclass
class Trainer:
    """Everything a run needs, and its position.

    Of several processes each has one; the first one's writes, validates and calls what is to be called.

    Args:
        weights: how checkpoints hold what is trained.
        byte_lengths: UTF-8 bytes of each token id (0 for specials), [V]; [0] where labels are learnt, not tokens.
        batches: what is trained on.
        validation: fixed rows that are not trained on, or None.
        on_step: called with the values of each step (for the live line).
        on_skipped: called with what was wrong with a step that was left out.
        on_sample: called when a sample is due; returns the text.
        watchdog: looks at each step before its update; None: nothing does.
        tracker: called with each line of the log.
        gradients: the fused way to loss and gradients; None: autograd.
        processes: that share out the rows of each step.
    """

    model: Transformer
    optimizer: Optimizer
    plan: TrainPlan
    batches: Source
    byte_lengths: Tensor
    run: Path
    weights: Weights
    validation: TokenRows | None = None
    on_step: Callable[[dict[str, Any]], None] = lambda _: None
    on_validation: Callable[[dict[str, Any]], None] = lambda _: None
    on_skipped: Callable[[Trouble], None] = lambda _: None
    on_sample: Callable[[int, float], str] | None = None
    watchdog: Watchdog | None = None
    tracker: Tracker = lambda _: None
    gradients: FusedGradients | None = None
    processes: Processes = field(default_factory=Processes)
    step: int = 0
    seconds_before: float = 0.0
    stop: threading.Event = field(default_factory=threading.Event)

    def train(self) -> bool:
        """Run to `plan.max_steps`; True when finished, False when interrupted (a checkpoint was then saved)."""
        started = time.monotonic() - self.seconds_before
        log_file = RunLog(self.run / "log.jsonl" if self.processes.first else Path(os.devnull), self.tracker)
        with log_file as log, stop_on_signal(self.stop), divergence_logged(log):
            try:
                finished = self._to_the_end(log, started)
            except LostProcess:
                if self.processes.first and self.step:  # sums come before updates: these weights are whole
                    self._save(log, time.monotonic() - started)
                raise
            self.seconds_before = time.monotonic() - started
        return finished

    def _to_the_end(self, log: RunLog, started: float) -> bool:
        """Steps and what lies between them, to the last one or to a stop that was asked of one process."""
        if self.step == 0:
            self._between_steps(log, started)
        while self.step < self.plan.max_steps and not self.processes.any(self.stop.is_set()):
            begin = time.monotonic()
            values = self.train_step()
            now = time.monotonic()
            tokens = self.step * self.plan.tokens_per_step
            rate = self.plan.tokens_per_step / (now - begin)
            values |= {"seconds": now - started, "tokens": tokens, "tokens_per_second": rate}
            values["mfu"] = rate * self.plan.flops_per_token / self.plan.peak_flops
            if trouble := values.pop("trouble"):
                log.write("skipped", **trouble.line(), seconds=now - started, tokens=tokens)
                self.on_skipped(trouble)
            else:
                log.write("step", **values)
                self.on_step(values)
            self._between_steps(log, started)
        finished = self.step >= self.plan.max_steps
        if not finished:
            self.processes.alone(lambda: self._save(log, time.monotonic() - started))
        return finished

    def train_step(self) -> dict[str, Any]:
        """One optimizer step over all micro-batches; returns its loss and learning rate.

        A step that the watchdog leaves out counts as one, but makes no update; "trouble" says why, else it is None.
        """
        plan = self.plan
        self.model.train()
        batches = self._micro_batches()
        trained, size = self._trained_tokens(batches)
        total = torch.zeros((), dtype=torch.float64)
        first = self.processes.rank * plan.gradient_accumulation_steps
        for micro, batch in enumerate(batches, first):
            seed_dropout(plan.seed, self.step, micro)
            total += self.backward(batch, trained).double().cpu()
        self.processes.sum_gradients(self.model.parameters())
        [nll] = self.processes.sum(float(total))
        factor = learning_rate_factor(self.step, plan.max_steps, plan.warmup_steps, plan.decay_steps)
        norm = gradient_norm(self.model)
        trouble = self.watchdog and self.watchdog.look(self, nll / trained, float(norm))
        if not trouble:
            if plan.max_grad_norm:
                torch.nn.utils.clip_grads_with_norm_(self.model.parameters(), plan.max_grad_norm, norm)
            self.optimizer.step(factor)
        self.optimizer.zero_grad()
        self.step += 1
        return {
            "trouble": trouble,
            "step": self.step,
            **loss_of(nll, trained, size),
            "learning_rate": plan.learning_rate * factor,
        }

    def _micro_batches(self) -> list[Batch]:
        """This process's rows of the step, on its device."""
        plan, found = self.plan, []
        first = self.processes.rank * plan.gradient_accumulation_steps
        for micro in range(first, first + plan.gradient_accumulation_steps):
            rows = plan.per_device_train_batch_size
            found.append(Batch.of(self.batches.pairs(self.step, micro * rows, rows), plan.device))
        return found

    def _trained_tokens(self, batches: list[Batch]) -> tuple[int, int]:
        """(targets that are trained, at least 1, and their bytes) in all micro-batches of all processes."""
        tokens = size = 0
        for batch in batches:
            count, length = self._trained_in(batch)
            tokens, size = tokens + count, size + length
        all_tokens, all_bytes = self.processes.sum(tokens, size)
        return max(1, int(all_tokens)), int(all_bytes)

    @property
    def validates(self) -> bool:
        """Whether there is anything to validate on."""
        return self.validation is not None

    @property
    def choices(self) -> int:
        """Among how many the model chooses: a model that knows nothing has a loss of their logarithm."""
        return int(self.model.config.vocab_size)

    def diagnosed(self, step: int, loss: float, highest: float, last: Accepted | None) -> Diagnosis:
        """What is wrong with a step, see `diagnose`."""
        return diagnose(self.model, self.batches, self.plan, step, loss, highest, last)

    def _trained_in(self, batch: Batch) -> tuple[int, int]:
        """(targets that are trained, their bytes)."""
        trained = batch.targets[batch.targets != NOT_TRAINED]
        return trained.numel(), int(self.byte_lengths[trained].sum()) if len(self.byte_lengths) else 0

    def backward(self, batch: Batch, divisor: int) -> Tensor:
        """Add the gradients of a micro-batch's summed loss / divisor to each parameter's `.grad`.

        Args:
            divisor: trained tokens of the whole step, so that every one of them weighs the same in it, however they
                are spread over micro-batches and processes.

        Returns:
            The summed loss in nats, detached.
        """
        if self.gradients is not None:
            return self.gradients.loss_sum(batch.ids, batch.targets, divisor, batch.starts)
        loss = self.loss_sum(batch)
        (loss / divisor).backward()
        return loss.detach()

    def loss_sum(self, batch: Batch) -> Tensor:
        """Summed cross-entropy in nats of the targets."""
        ids, targets, starts = batch
        if self.gradients is not None:
            return self.gradients.loss_sum(ids, targets, None, starts)
        with self.autocast():
            hidden = self.model.hidden(ids, starts_BT=starts)
        dtype = torch.bfloat16 if self.plan.dtype == "bfloat16" else torch.float32
        return head_loss(hidden.flatten(0, 1), self.model.head_matrix, targets.flatten(), dtype)

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
        for first in range(0, len(self.validation.ids), rows):
            batch = Batch.of(self.validation.part(first, first + rows), self.plan.device)
            nll += float(self.loss_sum(batch))
            tokens, length = self._trained_in(batch)
            count, size = count + tokens, size + length
        return {"step": self.step, **loss_of(nll, count, size)}

    def _between_steps(self, log: RunLog, started: float) -> None:
        """What is due at this step, in the first process: validation, a sample, a checkpoint."""
        plan, last = self.plan, self.step == self.plan.max_steps
        validation = last or (plan.eval_steps and self.step % plan.eval_steps == 0)
        sample = last or self.step in plan.sample_steps
        checkpoint = self.step and (last or (plan.save_steps and self.step % plan.save_steps == 0))

        def work() -> None:
            if validation and self.validates:
                values = self.validate() | {"seconds": time.monotonic() - started}
                log.write("validation", **values)
                self.on_validation(values)
            if sample and self.on_sample is not None:
                seconds = time.monotonic() - started
                text = self._sample(self.on_sample, seconds)
                log.write("sample", step=self.step, seconds=seconds, prompt=plan.sample_prompt, text=text)
            if checkpoint:
                self._save(log, time.monotonic() - started)

        if validation or sample or checkpoint:
            self.processes.alone(work)

    def _sample(self, on_sample: Callable[[int, float], str], seconds: float) -> str:
        self.model.eval()
        try:
            return on_sample(self.step, seconds)
        except OwnlmError as error:  # the engine samples from no output that is not finite
            if self.watchdog is None:
                raise
            raise self.watchdog.spoiled(self, "no sample can be drawn after its update") from error

    def _save(self, log: RunLog, seconds: float) -> None:
        state: dict[str, object] = {"seconds": seconds}
        if self.watchdog:
            self.watchdog.before_saving(self)
            state["watchdog"] = self.watchdog.state()

        def logged() -> None:
            log.write("checkpoint", step=self.step, seconds=seconds)

        save_checkpoint(self.run, self.step, self.weights, self.optimizer, state, logged)
        if not (self.watchdog and self.watchdog.in_a_row):  # these weights may be bad: older ones must stay
            prune(self.run, self.plan.save_total_limit)


def loss_of(nll: float, trained: int, size: int) -> dict[str, float]:
    """Mean loss in nats, and in bits a byte where what is learnt has bytes.

    Args:
        nll: summed loss in nats of `trained` targets, which have `size` bytes.
    """
    found = {"loss": nll / max(1, trained)}
    return found | {"bits_per_byte": nll / math.log(2) / size} if size else found


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
