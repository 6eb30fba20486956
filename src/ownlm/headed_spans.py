"""The most probable spans of a context, from the logits of start and end in each window over it.

A window's start and end are each a choice between its tokens of the context and its first token, which stands for
"not here"; a span's score is the product of the two (Devlin et al. 2019, §4.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ownlm.headed_inputs import Encoded, Window
from ownlm.headed_logits import Logits, softmax


def answers(
    context: str,
    encoded: Encoded,
    windows: Sequence[Window],
    logits: Sequence[Logits],
    *,
    top_k: int,
    max_answer_len: int,
    no_answer: bool,
) -> list[dict[str, Any]]:
    """The best spans of a context, best first; of one that two windows hold, the surer one.

    Args:
        encoded: question and context, the second read through `windows`. logits: [T, 2] of each window.
        top_k: how many. max_answer_len: tokens of a span at most.
        no_answer: "" counts as an answer; its probability is the smallest that any window gives it.

    Returns:
        {"answer", "score", "start", "end"}: `start` and `end` are characters of the context; 0 and 0 of "".
    """
    best: dict[tuple[int, int], float] = {}
    nowhere = 1.0
    for window, values in zip(windows, logits):
        rows = np.array([0, *range(window.begin, window.begin + window.stop - window.start)])
        start, end = (softmax(values[rows, column]) for column in (0, 1))
        nowhere = min(nowhere, float(start[0] * end[0]))
        for score, first, last in _spans(start[1:], end[1:], top_k, max_answer_len):
            place = _characters(context, encoded, window.start + first, window.start + last)
            if place is not None:
                best[place] = max(best.get(place, 0.0), score)
    found: list[dict[str, Any]] = [
        {"answer": context[begin:stop], "score": score, "start": begin, "end": stop}
        for (begin, stop), score in best.items()
    ]
    if no_answer or not found:
        found.append({"answer": "", "score": nowhere, "start": 0, "end": 0})
    return sorted(found, key=lambda answer: (-answer["score"], answer["start"], answer["end"]))[:top_k]


def _spans(start: Logits, end: Logits, top_k: int, longest: int) -> list[tuple[float, int, int]]:
    """(score, first, last token) of the best spans of one window."""
    tokens = len(start)
    if not tokens:
        return []
    longest = min(longest, tokens)
    ends = np.concatenate([end, np.zeros(longest - 1)])
    scores: Logits = start[:, None] * np.lib.stride_tricks.sliding_window_view(ends, longest)
    others = max(scores.size - top_k, 0)
    order = np.argpartition(scores.ravel(), others)[others:]
    places = (divmod(int(place), longest) for place in order)
    return [
        (float(scores[first, more]), first, first + more) for first, more in places if first + more < tokens
    ]


def _characters(context: str, encoded: Encoded, first: int, last: int) -> tuple[int, int] | None:
    """A span of tokens as characters, without the spaces at its edges; None where nothing else is in it."""
    begin, stop = encoded.offsets[first][0], encoded.offsets[last][1]
    text = context[begin:stop]
    begin += len(text) - len(text.lstrip())
    stop -= len(text) - len(text.rstrip())
    return (begin, stop) if begin < stop else None
