"""What a person sees while a model trains: the live line, and the lines that stay."""

from __future__ import annotations

from typing import Any

from ownlm.console import output as out
from ownlm.console.progress import Progress
from ownlm.training.plan import TrainPlan
from ownlm.training.watchdog import Trouble


class LiveLine:
    """The line a person watches: loss, bits per byte, tokens a second, MFU, time left."""

    def __init__(self, plan: TrainPlan, logging_steps: int) -> None:
        self.plan, self.logging_steps = plan, logging_steps
        self.progress = Progress("training", plan.max_steps, "steps")
        self.loss = self.bits = self.rate = 0.0

    def step(self, values: dict[str, Any]) -> None:
        """Smooth (the last 50 steps or so) and show."""
        share = max(0.02, 1 / (self.progress.done + 1))
        for name, key in (("loss", "loss"), ("bits", "bits_per_byte"), ("rate", "tokens_per_second")):
            setattr(self, name, getattr(self, name) * (1 - share) + values.get(key, 0.0) * share)
        bits = f"{self.bits:.3f} bits/byte  " if "bits_per_byte" in values else ""
        text = (
            f"loss {self.loss:.3f}  {bits}{self.rate:,.0f} tokens/s  "
            f"MFU {self.rate * self.plan.flops_per_token / self.plan.peak_flops:.0%}"
        )
        self.progress.update(1, note=text)
        if self.logging_steps and values["step"] % self.logging_steps == 0:
            self.progress.clear()
            out.say(f"step {values['step']:,}  {text}")

    def skipped(self, trouble: Trouble) -> None:
        """Lines that stay: a step that was left out, why, and what was in its batch."""
        self.progress.update(1)
        self.progress.clear()
        out.warn(f"step {trouble.step:,} is skipped: {trouble.reason}.\n{trouble.words()}")

    def validation(self, values: dict[str, Any]) -> None:
        """A line that stays."""
        self.progress.clear()
        bits = f", {values['bits_per_byte']:.4f} bits/byte" if "bits_per_byte" in values else ""
        out.say(f"step {values['step']:,}: validation sample {values['loss']:.4f} loss{bits}")

    def sample(self, seconds: float, text: str, prompt: str) -> str:
        """The prompt continued, indented; returns the text for the log."""
        self.progress.clear()
        shown = (prompt + text).replace("\n", "\n  │ ")
        out.say(f"after {out.human_seconds(seconds)} the model writes:\n  │ {shown}")
        return text

    def clear(self) -> None:
        """Remove the live line."""
        self.progress.clear()
