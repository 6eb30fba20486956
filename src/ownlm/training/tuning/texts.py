"""Rows of a data set as token ids with what is trained of them, none longer than the window."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ownlm.console.errors import Refused
from ownlm.corpus.batches import NOT_TRAINED
from ownlm.tasks.items import Item
from ownlm.tasks.lengths import bars, summary
from ownlm.tasks.measure import Reader, rendered
from ownlm.tasks.problems import BadRow, Problems

Overlong = Literal["error", "truncate", "drop"]


@dataclass(frozen=True)
class Text:
    """A row as the model reads it.

    Attributes:
        where: `file:line`.
        ids: int32 [n], what is read.
        targets: int32 [n], what is learnt at each of them: the token that follows, or a label; -100: nothing.
    """

    where: str
    ids: npt.NDArray[np.int32]
    targets: npt.NDArray[np.int32]

    @property
    def trained(self) -> npt.NDArray[np.int32]:
        """The targets that are learnt."""
        return self.targets[self.targets != NOT_TRAINED]


@dataclass
class Counted:
    """What happened to rows on their way to texts.

    Attributes:
        rows: that could be rendered.
        lengths: of them, in tokens.
        cut, dropped: rows longer than the window that were truncated, or left out.
        answers_cut: truncated rows that lost trained tokens.
        straddling: tokens that begin before an answer and end in it.
        endless: answers without a token that ends them.
    """

    rows: int = 0
    lengths: list[int] = dataclasses.field(default_factory=list)
    cut: int = 0
    dropped: int = 0
    answers_cut: int = 0
    straddling: int = 0
    endless: int = 0


def texts_of(
    items: Iterable[Item],
    task: str,
    reader: Reader,
    problems: Problems,
    *,
    max_length: int,
    overlong: Overlong,
    train_on: Literal["answers", "all"] = "answers",
) -> tuple[list[Text], list[Item], Counted]:
    """(texts, the items they came from, what was counted); rows that cannot be trained are added to the problems.

    Args:
        max_length: tokens of a row at most; longer ones as `overlong` says.
        train_on: the answers alone, or every token.

    Raises:
        Refused: rows longer than `max_length` with "error"; the message has their number and a histogram.
    """
    texts, kept, counted = [], [], Counted()
    for item in items:
        try:
            row = rendered(item, task, reader)
            if row is None:
                raise TypeError(f"{task} is learnt by a head, not as text")
            if not any(row.trained):
                raise BadRow("no trained token", "The template shows no answer of this row.")
        except BadRow as bad:
            problems.bad(item.where, bad)
            continue
        ids, trained = np.array(row.ids, np.int32), np.array(row.trained, np.bool_)
        counted.rows, counted.straddling = counted.rows + 1, counted.straddling + row.straddling
        counted.endless += row.endless
        counted.lengths.append(len(ids))
        if len(ids) > max_length:
            if overlong != "truncate":
                counted.dropped += 1
                continue
            counted.cut += 1
            counted.answers_cut += bool(trained[max_length:].any())
            ids, trained = ids[:max_length], trained[:max_length]
            if not trained[1:].any():
                problems.bad(
                    item.where,
                    BadRow("nothing of the answer is left after truncation", "A larger --max-length."),
                )
                continue
        if train_on == "all":
            trained = np.ones_like(trained)
        texts.append(Text(item.where, ids[:-1], np.where(trained[1:], ids[1:], np.int32(NOT_TRAINED))))
        kept.append(item)
    if counted.dropped and overlong == "error":
        raise too_long(counted, max_length)
    return texts, kept, counted


def too_long(counted: Counted, max_length: int) -> Refused:
    """The refusal of rows longer than the window, with a histogram of the lengths."""
    longest = max(counted.lengths)
    table = "\n".join(
        f"  {span:>15} tokens {number:>9}  {bar}"
        for span, number, bar in bars(summary(counted.lengths)["histogram"])
    )
    return Refused(
        f"{counted.dropped:,} of {counted.rows:,} rows are longer than {max_length:,} tokens; the longest has "
        f"{longest:,}.",
        where="--max-length",
        why=f"Lengths of all rows:\n{table}",
        do="--overlong truncate (their ends are cut off) or --overlong drop (they are left out)",
    )
