"""The watchdog: a step whose loss or gradients are not what they should be never reaches the weights.

It looks after the gradients are there and before the optimizer's update, at two numbers: the loss of the step and one
norm of all gradients. What is wrong is looked for only when something is. Its decisions follow from the losses before,
which a checkpoint holds, so a run that goes on decides as one that never stopped; and from numbers that are the same
in every process of a run.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ownlm.console.errors import OwnlmError
from ownlm.model.transformer import Transformer
from ownlm.training.diagnosis import Accepted, Diagnosis
from ownlm.training.log import RunLog

if TYPE_CHECKING:
    from ownlm.training.loop import Trainer

HISTORY = (
    50  # steps: enough for a median that one odd batch does not move, few enough to follow a falling loss
)
LEAST_HISTORY = 20  # steps before a jump can be told from a start: the length of the default warm-up
START_RISE = 3.0  # nats: of a few labels, where twice an even guess is little, small batches differ that much
LEAST_RISE = 1.0  # nats: every token e times less likely than it was
SIGMAS = 10.0  # standard deviations: no batch of normal text in the life of any run
TO_SIGMA = (
    1.4826  # from the median absolute value of a normal distribution around zero (Rousseeuw & Croux 1993)
)
MOST_IN_A_ROW = 10  # steps left out one after the other; weights that are bad do not heal by waiting


def highest_normal_loss(losses: Sequence[float], even_guess: float) -> float:
    """The highest loss that is still normal after these, in nats a token.

    The median of the last steps and a rise that is large in itself, large beside their noise, and three times the third
    largest rise from one of them to the next: text of several kinds in batches of one row has a hard kind that comes
    again and again. The noise is that of the differences between neighbours, which a loss that falls does not widen,
    by their median, which odd batches do not move. Of fewer than 20 losses, which say little while the learning rate
    warms up, only one twice as high as that of even guesses is not normal, and 3 nats higher.

    Args:
        losses: of the last steps, oldest first.
        even_guess: loss of a model that finds every token equally likely.
    """
    if not losses:
        return math.inf
    if len(losses) < LEAST_HISTORY:
        start = max(even_guess, losses[0])
        return max(2 * start, start + START_RISE)
    rises = sorted(after - before for before, after in itertools.pairwise(losses))
    noise = TO_SIGMA * statistics.median(map(abs, rises)) / math.sqrt(2)  # a difference holds it twice
    return statistics.median(losses) + max(LEAST_RISE, SIGMAS * noise, 3 * rises[-3])


def gradient_norm(model: Transformer) -> Tensor:
    """The norm of all gradients together; not finite when one value of them is not."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return torch.nn.utils.get_total_norm(gradients)


@dataclass(frozen=True)
class Trouble:
    """A step that is not made: its number, counted from 1, its loss in nats a token, what is wrong and where."""

    step: int
    loss: float
    reason: str
    diagnosis: Diagnosis

    def line(self) -> dict[str, Any]:
        """The fields of its line in log.jsonl; a loss that is not finite is no number of JSON."""
        return {
            "step": self.step,
            "loss": self.loss if math.isfinite(self.loss) else None,
            "reason": self.reason,
            "tensor": self.diagnosis.tensor,
            "cause": self.diagnosis.cause,
            "documents": self.diagnosis.documents,
            "more_documents": self.diagnosis.more,
        }

    def words(self) -> str:
        """What was found, one line a question: the tensor, the cause, the documents."""
        found = self.diagnosis
        return f"{found.tensor[0].upper()}{found.tensor[1:]}.\n{found.cause}\nIn the batch: {found.batch()}"


class Diverged(OwnlmError):
    """Training was stopped before an update by its watchdog."""

    def __init__(self, trouble: Trouble) -> None:
        self.trouble = trouble
        super().__init__(
            f"training diverged at step {trouble.step:,}: {trouble.reason}.", why=trouble.words()
        )


@dataclass
class Watchdog:
    """Decides about each step before its update.

    Args:
        on_divergence: "stop": end the run; "skip": leave the update of the step out and go on.
        losses: of the last accepted steps, oldest first.
        last_step: the number of the newest of them, counted from 1.
        skipped: steps that were left out so far. in_a_row: those directly before the next step.
    """

    on_divergence: str
    losses: list[float] = field(default_factory=list)
    last_step: int = 0
    skipped: int = 0
    in_a_row: int = 0

    @property
    def last(self) -> Accepted | None:
        """The newest accepted step."""
        return Accepted(self.last_step, self.losses[-1]) if self.losses else None

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        kept = ("losses", "last_step", "skipped", "in_a_row")
        return {name: value for name, value in dataclasses.asdict(self).items() if name in kept}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what a checkpoint's state.json keeps of it."""
        for name, value in state.get("watchdog", {}).items():
            setattr(self, name, value)

    def look(self, trainer: Trainer, loss: float, norm: float) -> Trouble | None:
        """What is wrong with the step under way, or None: then its update is made.

        Args:
            trainer: its gradients are those of the step.
            loss: of the whole step, in nats a token. norm: of all its gradients.

        Raises:
            Diverged: the step must not be made, and the run does not go on.
        """
        step = trainer.step + 1
        highest = highest_normal_loss(self.losses, math.log(trainer.choices))
        reason = self._reason(loss, norm, highest)
        if not reason:
            self.losses = [*self.losses, loss][-HISTORY:]
            self.last_step, self.in_a_row = step, 0
            return None
        if self.in_a_row:
            reason += f", after {self.in_a_row} skipped {'step' if self.in_a_row == 1 else 'steps'} in a row"
        found = trainer.diagnosed(trainer.step, loss, highest, self.last)
        trouble = Trouble(step, loss, reason, found)
        # A weight that is not finite stays so, however many steps are left out.
        if self.on_divergence == "stop" or self.in_a_row == MOST_IN_A_ROW or found.beyond_repair:
            raise Diverged(trouble)
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        return trouble

    def _reason(self, loss: float, norm: float, highest: float) -> str:
        """What is wrong in words, or ""."""
        before = f"it was {self.losses[-1]:.5g} at step {self.last_step:,}" if self.losses else ""
        if not math.isfinite(loss):
            return f"the loss is {loss}" + (f"; {before}" if before else "")
        if loss > highest:
            usual = f"{statistics.median(self.losses):.5g} in the median of the last {len(self.losses)} good steps"
            return f"the loss is {loss:.5g}, more than {highest:.5g}; {before}, and {usual}"
        if not math.isfinite(norm):
            return f"the norm of the gradients is {norm}, the loss is {loss:.5g}" + (
                f"; {before}" if before else ""
            )
        return ""

    def before_saving(self, trainer: Trainer) -> None:
        """Look at the weights that are about to be saved.

        Raises:
            Diverged: some are not finite; nothing is saved then.
        """
        if not all(bool(torch.isfinite(weight).all()) for weight in trainer.model.parameters()):
            raise self.spoiled(trainer, "the weights are not finite after its update")

    def spoiled(self, trainer: Trainer, reason: str) -> Diverged:
        """What ends a run whose last update, already made, was a bad one."""
        step = max(0, trainer.step - 1)
        found = trainer.diagnosed(step, math.nan, math.inf, self.last)
        return Diverged(Trouble(trainer.step, math.nan, reason, found))


@contextmanager
def divergence_logged(log: RunLog) -> Iterator[None]:
    """Inside it, what stops the run is written to its log."""
    try:
        yield
    except Diverged as error:
        log.write("diverged", **error.trouble.line())
        raise
