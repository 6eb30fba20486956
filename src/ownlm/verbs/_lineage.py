"""What a run was trained on: its own corpus for so many steps, and that of every model it went on from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ownlm.locate import RUN_FILE, Run, read_run

ADAPTER_FILE = "adapter_config.json"
MOST_BASES = 50  # a longer row of them is a circle


@dataclass(frozen=True)
class Training:
    """Steps of a run on its corpus.

    Args:
        run: whose.
        steps: that were made.
        left_out: numbers, from 0, of those that made no update.
    """

    run: Run
    steps: int
    left_out: frozenset[int] = frozenset()

    @property
    def data(self) -> dict[str, Any]:
        """`data` of its run.json."""
        return dict(self.run.facts.get("data") or {})

    @property
    def has_order(self) -> bool:
        """Whether the data order follows from what its run.json says."""
        plan = self.run.facts.get("plan") or {}
        return all(isinstance(plan.get(name), int) for name in ("context", "tokens_per_step", "seed"))

    @property
    def context(self) -> int:
        """Tokens of a row."""
        return int(self.run.facts["plan"]["context"])

    @property
    def tokens_per_step(self) -> int:
        """Tokens of all rows of a step."""
        return int(self.run.facts["plan"]["tokens_per_step"])

    @property
    def seed(self) -> int:
        """Of the data order."""
        return int(self.run.facts["plan"]["seed"])


def base_name(run: Run) -> str | None:
    """What the run's training began with: a folder or a name on the hub; None: random weights."""
    given = (run.facts.get("settings") or {}).get("from_")
    return str(given) if given else adapter_base(run.path)


def adapter_base(folder: Path) -> str | None:
    """The model that the adapter in a folder belongs to; None when the folder holds none."""
    try:
        content = json.loads((folder / ADAPTER_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        content = None
    name = content.get("base_model_name_or_path") if isinstance(content, dict) else None
    return str(name or "a model it does not name")


def lineage(run: Run) -> tuple[list[Training], str]:
    """All training in the weights of a run, the newest first, and why that is not all ("" when it is)."""
    found = [made(run)]
    while (name := base_name(found[-1].run)) is not None:
        base = _base(found[-1].run, name)
        if base is None or len(found) == MOST_BASES:
            return found, f"it went on from {name}, and what that was trained on is not known here"
        if base.run.problem:
            return found, f"it went on from {name}: {base.run.problem}"
        if base.run.created > found[-1].run.created:
            return found, f"it went on from {name}, where another run has been put since"
        found.append(base)
    return found, ""


def _base(run: Run, name: str) -> Training | None:
    """The training in the model of this name; paths are tried from here and from the run."""
    for folder in (Path(name), run.path.parent / name, run.path / name):
        if (folder / RUN_FILE).is_file():
            return made(read_run(folder))
        of, number = folder.parent.parent, folder.name.removeprefix("step-")
        if folder.is_dir() and folder.parent.name == "checkpoints" and number.isdigit():
            whole = made(read_run(of))
            return Training(whole.run, min(int(number), whole.steps), whole.left_out)
    return None


def made(run: Run) -> Training:
    """The steps that a run made; of one that is not finished, those in its log."""
    plan, cost = run.facts.get("plan") or {}, run.facts.get("cost") or {}
    finished = run.facts.get("finished") is True
    if finished and not cost.get("skipped_steps"):
        return Training(run, int(plan.get("max_steps") or 0))
    lines = _log(run.path)
    logged = max((int(line["step"]) for line in lines), default=0)
    by_cost = int(cost.get("tokens") or 0) // max(int(plan.get("tokens_per_step") or 0), 1)
    steps = int(plan.get("max_steps") or 0) if finished else max(logged, by_cost)
    return Training(
        run, steps, frozenset(int(line["step"]) - 1 for line in lines if line["kind"] == "skipped")
    )


def _log(folder: Path) -> list[dict[str, Any]]:
    """The lines of log.jsonl that stand for a step, made or left out."""
    from ownlm.training.log import read_log

    lines = read_log(folder / "log.jsonl")
    return [x for x in lines if x.get("kind") in ("step", "skipped") and isinstance(x.get("step"), int)]
