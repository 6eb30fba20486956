"""What so many rows can and cannot give, said before anything is trained."""

from __future__ import annotations

from ownlm.console import output as out

FEW, SOME, MANY = 100, 1_000, 10_000


def expectation(task: str, rows: int, held_out: int, parameters: int) -> list[str]:
    """Sentences about a data set of this size.

    Args:
        parameters: of the model.
    """
    if rows < FEW:
        gives = "a form of answer at best: so few rows are learnt by heart"
    elif rows < SOME:
        gives = (
            "form and tone, or a task whose answer stands in the input; not knowledge that the model lacks"
        )
    elif rows < MANY:
        gives = "one narrow task, about as well as its rows cover it; nothing beyond them"
    else:
        gives = "a task in its breadth, as far as a model of this size carries"
    said = [f"{rows:,} rows can give {gives}."]
    if task in ("chat", "completion", "qa") and parameters < 100_000_000:
        said.append(
            f"A model of {out.human_count(parameters)} parameters knows little: it will answer in the right form, and often "
            "wrongly."
        )
    if not held_out:
        said.append("Without held-out rows nothing can be said about its quality (--validation 0.1).")
    else:
        seen = 1.96 * (0.25 / held_out) ** 0.5
        said.append(
            f"With {held_out:,} held-out rows a share of right answers is known to about ±{100 * seen:.0f} points: smaller "
            "differences cannot be told from chance."
        )
    return said
