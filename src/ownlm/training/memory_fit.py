"""Whether a plan fits into memory: the micro-batch by rule, the refusal, and the changes that would make it fit."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ownlm.console import output as out
from ownlm.console.errors import OwnlmError, Refused, UsageError
from ownlm.machine.device import choose_dtype
from ownlm.model.config import ModelConfig
from ownlm.model.sizes import SIZES
from ownlm.training.memory import path_of, step_memory, step_of
from ownlm.training.plan import TrainPlan
from ownlm.training.refusals import PIECES
from ownlm.training.setup import model_config

# Of free memory; the rest is for what other programs will want and for the formula's error.
CHOSEN_SHARE = 0.7  # for the rule's own choice
MOST_SHARE = 0.95  # for what was asked for
SHOWN_CHANGES = 3
CHECKPOINTING = "gradient_checkpointing"
LEAST_CONTEXT = 32  # tokens; no shorter window is proposed


@dataclass(frozen=True)
class Case:
    """A run whose memory is in question.

    Args:
        settings: of `pretrain`, by name.
        size: its name, or "given" with `--from`.
    """

    config: ModelConfig
    plan: TrainPlan
    settings: Mapping[str, Any]
    size: str

    @property
    def parts(self) -> dict[str, int]:
        """Predicted bytes of a step by part."""
        return step_memory(step_of(self.config, self.plan))

    @property
    def needed(self) -> int:
        """Predicted bytes of a step."""
        return sum(self.parts.values())

    def changed(self, **plan: Any) -> Case:
        """With other values in the plan."""
        return dataclasses.replace(self, plan=dataclasses.replace(self.plan, **plan))


@dataclass(frozen=True)
class Change:
    """A way to need less.

    Attributes:
        options: words to type. case: what they lead to.
        cost: what they cost, in words.
        goes_on: whether an unfinished run can go on with them.
    """

    options: str
    case: Case
    cost: str
    goes_on: bool = False


def split_to_fit(case: Case, free: int) -> TrainPlan:
    """The plan in the fewest equal micro-batches that fit; the rows of a step stay. A number that was given stays too.

    Args:
        free: bytes that can be allocated now.
    """
    plan = case.plan
    given = (case.settings["per_device_train_batch_size"], case.settings["gradient_accumulation_steps"])
    if given != (None, None) or case.needed <= CHOSEN_SHARE * free:
        return plan
    smaller = _pieces(case, CHOSEN_SHARE * free)
    if smaller is None or smaller.case.needed > MOST_SHARE * free:
        return plan  # that it cannot fit is said with what would help
    split = smaller.case.plan
    out.say(
        f"memory: {plan.per_device_train_batch_size:,} rows at once would need {out.human_bytes(case.needed)} of "
        f"{out.human_bytes(free)} free; each step takes them in {split.gradient_accumulation_steps:,} micro-batches "
        f"of {split.per_device_train_batch_size:,}."
    )
    return split


def check_memory(case: Case, free: int) -> None:
    """Refuse a plan that cannot fit.

    Raises:
        Refused: with the parts, the cheapest changes and a command that would fit.
    """
    if case.needed <= MOST_SHARE * free:
        return
    budget = CHOSEN_SHARE * free
    words = remedy(case, budget)
    corpus, output = shlex.quote(str(case.settings["corpus"])), shlex.quote(str(case.settings["output"]))
    raise Refused(
        f"training needs about {out.human_bytes(case.needed)}, {out.human_bytes(free)} are free "
        f"({listed(case.parts)}).",
        why=f"Predicted from the sizes, before anything was allocated.{proposals(case, budget)}",
        do=f"ownlm pretrain {corpus} -o {output} … {words}"
        if words
        else "a machine with more memory, or a smaller vocabulary (ownlm prepare … --vocab-size N)",
    )


def changed_with_resume(
    plan: TrainPlan, given: Collection[str], settings: Mapping[str, Any]
) -> tuple[TrainPlan, dict[str, Any]]:
    """The plan of a run that goes on in other micro-batches, and what was changed: less memory, the same rows a step.

    Args:
        given: names of the settings that were really given; settings: of `pretrain`, by name.

    Raises:
        UsageError: other rows a step.
    """
    checkpointing = settings[CHECKPOINTING] if CHECKPOINTING in given else plan.gradient_checkpointing
    size, count = plan.per_device_train_batch_size, plan.gradient_accumulation_steps
    rows = size * count
    asked = [settings[name] if name in given else None for name in PIECES]
    if asked != [None, None]:
        size = rows // max(1, asked[1] or 1) if asked[0] is None else asked[0]
        count = rows // max(1, size) if asked[1] is None else asked[1]
        if size * count != rows:
            raise UsageError(
                f"{size:,} × {count:,} are not the {rows:,} rows that a step of this run has.",
                where=" and ".join("--" + name.replace("_", "-") for name in PIECES),
                do=f"numbers whose product is {rows:,}",
            )
    new: dict[str, Any] = {PIECES[0]: size, PIECES[1]: count, CHECKPOINTING: checkpointing}
    if all(getattr(plan, name) == value for name, value in new.items()):
        return plan, {}
    out.say(
        f"From here on micro-batches of {size:,} rows, {count:,} a step, with{'' if checkpointing else 'out'} gradient "
        "checkpointing: the same results up to rounding."
    )
    return dataclasses.replace(plan, **new, fused=plan.fused and not checkpointing), new


def recorded_plan(content: Mapping[str, Any]) -> TrainPlan:
    """The plan in run.json, in the micro-batches that the run last went on with."""
    plan = TrainPlan.from_json(content["plan"])
    for change in content.get("resumed", []):
        new: dict[str, Any] = {
            name: change[name] for name in ("world_size", *PIECES, CHECKPOINTING) if name in change
        }
        if PIECES[0] in new:
            plan = dataclasses.replace(plan, **new, fused=plan.fused and not new[CHECKPOINTING])
    return plan


def listed(parts: Mapping[str, int]) -> str:
    """Parts with their sizes, the largest first."""
    ordered = sorted(parts.items(), key=lambda part: -part[1])
    return ", ".join(f"{name} {out.human_bytes(size)}" for name, size in ordered)


def changes(case: Case, budget: float) -> list[Change]:
    """What would save memory, the cheapest change first; each goes as far as it must to stay within the budget.

    Args:
        budget: bytes that a step may take.
    """
    ways = (_bfloat16, _pieces, _checkpointing, _shorter, _smaller_model)
    found = (way(case, budget) for way in ways)
    return [change for change in found if change is not None and change.case.needed < case.needed]


def proposals(case: Case, budget: float) -> str:
    """The three cheapest changes, a line each, with saving and cost; "" when there is none."""
    lines = ""
    for change in changes(case, budget)[:SHOWN_CHANGES]:
        saved = out.human_bytes(case.needed - change.case.needed)
        left = out.human_bytes(change.case.needed)
        enough = "" if change.case.needed <= budget else ", not enough alone"
        lines += f"\n  {change.options}: saves {saved}, {left} remain{enough}; {change.cost}"
    return f"\nThe cheapest changes:{lines}" if lines else ""


def remedy(case: Case, budget: float, *, going_on: bool = False) -> str:
    """Options that make it fit: the cheapest change that does so alone, else several together; "" when nothing does.

    Args:
        going_on: only what an unfinished run can go on with.
    """
    for change in changes(case, budget):
        if change.case.needed <= budget and (change.goes_on or not going_on):
            return change.options
    words: list[str] = []
    for way in (_bfloat16, _pieces, _checkpointing, _shorter, _smaller_model):
        found = None if case.needed <= budget else way(case, budget)
        if found is not None and found.case.needed < case.needed and (found.goes_on or not going_on):
            words.append(found.options)
            case = found.case
    return " ".join(words) if case.needed <= budget else ""


def _bfloat16(case: Case, budget: float) -> Change | None:
    if case.plan.dtype == "bfloat16" or choose_dtype("auto", case.plan.device) != "bfloat16":
        return None
    return Change("--dtype bfloat16", case.changed(dtype="bfloat16"), "products in bf16, which are faster")


def _pieces(case: Case, budget: float) -> Change | None:
    """The largest smaller micro-batch that fits, or a single row."""
    plan = case.plan
    rows = plan.per_device_train_batch_size * plan.gradient_accumulation_steps
    fewer = [n for n in range(plan.per_device_train_batch_size - 1, 0, -1) if rows % n == 0]
    if not fewer:
        return None
    smaller = (
        case.changed(per_device_train_batch_size=n, gradient_accumulation_steps=rows // n) for n in fewer
    )
    chosen = _first_within(smaller, budget)
    size, count = chosen.plan.per_device_train_batch_size, chosen.plan.gradient_accumulation_steps
    return Change(
        f"--per-device-train-batch-size {size} --gradient-accumulation-steps {count}",
        chosen,
        "the same steps in smaller pieces, hardly slower",
        goes_on=True,
    )


def _checkpointing(case: Case, budget: float) -> Change | None:
    if case.plan.gradient_checkpointing:
        return None
    slower = "about a third slower"
    if path_of(step_of(case.config, case.plan)) == "fused":
        slower += ", and without the fused kernels"
    return Change("--gradient-checkpointing", case.changed(gradient_checkpointing=True), slower, goes_on=True)


def _shorter(case: Case, budget: float) -> Change | None:
    lengths = [case.plan.context >> halvings for halvings in range(1, 24)]
    possible = [length for length in lengths if length >= LEAST_CONTEXT]
    if not possible:
        return None
    chosen = _first_within((case.changed(context=length) for length in possible), budget)
    return Change(
        f"--context {chosen.plan.context}", chosen, f"the model sees {chosen.plan.context:,} tokens back"
    )


def _smaller_model(case: Case, budget: float) -> Change | None:
    """The largest smaller size that fits, or the smallest."""
    smaller = list(_smaller_cases(case))
    if not smaller:
        return None
    chosen = _first_within(smaller, budget)
    return Change(f"--size {chosen.size}", chosen, "a weaker model")


def _smaller_cases(case: Case) -> Iterator[Case]:
    names = list(SIZES)
    place = names.index(case.size) if case.size in names else 0
    for name in reversed(names[:place]):
        with contextlib.suppress(OwnlmError):  # what --set says does not go with every size
            config = model_config(
                dict(case.settings), case.config.vocab_size, name, case.config.max_position_embeddings
            )
            yield dataclasses.replace(case, config=config, size=name)


def _first_within(cases: Iterator[Case] | list[Case], budget: float) -> Case:
    """The first that fits, else the last."""
    for case in cases:
        if case.needed <= budget:
            break
    return case
