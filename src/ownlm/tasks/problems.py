"""What is wrong with rows: each with its place and what to do, all counted, the first of each kind kept."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

KEPT = 1000  # of each kind; a million broken rows must not fill the memory


class BadRow(ValueError):
    """A row cannot be used.

    Args:
        kind: a class of reasons, few of them, so that they can be counted.
        fix: what to change.
        detail: what is special in this row.
    """

    def __init__(self, kind: str, fix: str, detail: str = "") -> None:
        super().__init__(kind)
        self.kind, self.fix, self.detail = kind, fix, detail


@dataclass(frozen=True, slots=True)
class Problem:
    """One exception.

    Attributes:
        where: `file:line`, or the file.
        kind: a class of reasons, few of them, so that they can be counted.
        fix: what to change.
        detail: what is special in this row.
        left_out: the row is not trained on; else it is used, and this is only told.
    """

    where: str
    kind: str
    fix: str
    detail: str = ""
    left_out: bool = True

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.where}: {self.kind}{detail}. {self.fix}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"where": self.where, "reason": self.kind, "detail": self.detail, "fix": self.fix}


@dataclass
class Problems:
    """All exceptions of a data set: numbers by kind, and the first `KEPT` of each kind in the order of the rows."""

    kept: list[Problem] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    told: Counter[str] = field(default_factory=Counter)

    def add(self, problem: Problem) -> None:
        """Count one, and keep it if it is among the first of its kind."""
        counter = self.left_out if problem.left_out else self.told
        counter[problem.kind] += 1
        if counter[problem.kind] <= KEPT:
            self.kept.append(problem)

    def bad(self, where: str, bad: BadRow) -> None:
        """A row that is left out."""
        self.add(Problem(where, bad.kind, bad.fix, bad.detail))

    def tell(self, where: str, kind: str, fix: str, detail: str = "") -> None:
        """Something about a row that is used all the same."""
        self.add(Problem(where, kind, fix, detail, left_out=False))

    def first(self, number: int) -> list[Problem]:
        """The first of every kind, then the others, `number` of them at most; rows that are left out come first."""
        seen: Counter[tuple[str, bool]] = Counter()
        ranked = []
        for index, problem in enumerate(self.kept):
            key = problem.kind, problem.left_out
            ranked.append((not problem.left_out, seen[key], index, problem))
            seen[key] += 1
        chosen = sorted(ranked, key=lambda entry: (entry[1], entry[0], entry[2]))[:number]
        return [problem for *_, problem in sorted(chosen, key=lambda entry: (entry[0], entry[2]))]
