"""Classification by a model without a head: the likelihood of each label after the text.

Models prefer some labels whatever the text is. That is measured with texts that say nothing and divided out
(contextual calibration, Zhao et al. 2021, arXiv 2102.09690, §5: W = diag(p_cf)^-1, b = 0, p_cf the mean over "N/A",
"[MASK]" and the empty text). A model that was fine-tuned on labels in words needs no calibration.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ownlm.console import output as out
from ownlm.console.errors import Refused, UsageError
from ownlm.task_methods.asking import Asked, Asker
from ownlm.task_methods.likelihood import answer_logprobs
from ownlm.task_methods.windows import windows

if TYPE_CHECKING:
    from ownlm.loaded import LoadedModel

CONTENT_FREE = ("N/A", "[MASK]", "")
SEAM = 4  # tokens by which a prompt may be longer than its parts

Floats = npt.NDArray[np.float64]


def classify(
    loaded: LoadedModel, texts: Sequence[str], labels: Sequence[str], top_k: int | None = 1
) -> list[list[dict[str, Any]]]:
    """The most probable labels of each text, best first; the probabilities of all labels sum to one.

    A text longer than the window is read through windows that advance by half; the mean of their log-probabilities
    counts, which is said.

    Args:
        labels: two at least, all different. top_k: how many are given; None: all.

    Raises:
        UsageError: fewer than two labels, an empty one or one twice. Refused: an empty text.
    """
    check_labels(labels)
    asker = Asker(loaded)
    weigh = _Weighing(loaded, asker, labels, _named(loaded, labels))
    pieces: list[str] = []
    whose: list[int] = []
    for number, text in enumerate(texts):
        if not text.strip():
            raise Refused("an empty text.", where=f"text {number}")
        parts = windows(loaded.tokenizer, text, weigh.room)
        pieces += [text[start:end] for start, end in parts]
        whose += [number] * len(parts)
    long = int((np.bincount(whose, minlength=len(texts)) > 1).sum())
    if long:
        out.say(
            f"{long:,} of {len(texts):,} texts do not fit the window of {loaded.context:,} tokens: "
            "the mean over overlapping windows counts."
        )
    scores = weigh.log_probabilities(pieces)
    if not _was_taught(loaded, labels):
        scores = scores - np.log(weigh.content_free())
    return ranked(labels, _means(scores, whose, len(texts)), top_k)


def ranked(labels: Sequence[str], scores: Floats, top_k: int | None) -> list[list[dict[str, Any]]]:
    """Scores [texts, labels] in logarithms → labels with probabilities, best first."""
    if top_k is not None and top_k < 1:
        raise UsageError(f"{top_k} labels; it must be at least 1.", where="top_k")
    found = []
    for row in _softmax(scores):
        order = np.argsort(-row, kind="stable")[:top_k]
        found.append([{"label": labels[index], "score": float(row[index])} for index in order])
    return found


def check_labels(labels: Sequence[str]) -> None:
    """Refuse labels that are no choice."""
    where, do = "labels", '--labels "positive,negative"'
    if len(labels) < 2:
        raise UsageError(f"{len(labels)} labels; a choice needs two at least.", where=where, do=do)
    if any(not label.strip() for label in labels):
        raise UsageError("an empty label.", where=where, do=do)
    twice = next((label for label in labels if list(labels).count(label) > 1), None)
    if twice is not None:
        raise UsageError(f'"{twice}" is there twice.', where=where)


def _was_taught(loaded: LoadedModel, labels: Sequence[str]) -> bool:
    """Whether the model was fine-tuned on these labels in words."""
    known = loaded.run.get("labels") or []
    return bool({"classification", "sentiment"} & set(loaded.taught)) and set(labels) <= set(known)


def _named(loaded: LoadedModel, labels: Sequence[str]) -> Sequence[str]:
    """The labels that the prompt names: all those of training where the model was taught them."""
    return list(loaded.run["labels"]) if _was_taught(loaded, labels) else labels


class _Weighing:
    """Log-probabilities of labels after texts, relative to each other.

    Args:
        labels: to weigh. named: those that the prompt names.

    Attributes:
        room: tokens of a text that fit the window beside what is asked and the longest label.
    """

    def __init__(
        self, loaded: LoadedModel, asker: Asker, labels: Sequence[str], named: Sequence[str]
    ) -> None:
        self._loaded, self._asker, self._labels, self._named = loaded, asker, labels, named
        asked = asker.labels("", named)
        prompt, own = asker.split(asked, labels)
        # An answer of a decoder has a window of its own.
        around = len(prompt) + (0 if loaded.answers_alone else max(map(len, own)) + 1)
        self.room = loaded.context - around - SEAM
        if self.room < 1:
            raise Refused(
                f"the instruction and the labels take {around:,} tokens alone; the window holds {loaded.context:,}.",
                where="labels",
                do="fewer or shorter labels, or a model with a longer window",
            )

    def log_probabilities(self, texts: Sequence[str]) -> Floats:
        """[texts, labels], each row normalised."""
        prompts, answers = [], []
        for text in texts:
            asked = self._asker.labels(text, self._named)
            prompt, own = self._asker.split(asked, self._labels)
            prompts.append(prompt)
            answers.append([[*one, *self._ends(asked)] for one in own])
        found = np.array(answer_logprobs(self._loaded, prompts, answers))
        return np.log(np.maximum(_softmax(found), np.finfo(np.float64).tiny))

    def content_free(self) -> Floats:
        """[labels]: their probabilities after texts that say nothing."""
        probabilities: Floats = np.exp(self.log_probabilities(CONTENT_FREE)).mean(axis=0)
        return probabilities

    def _ends(self, asked: Asked) -> list[int]:
        """In a conversation the label is the whole turn, so that "good" does not stand for "good morning" too."""
        return list(self._asker.turn_ends[:1]) if asked.specials else []


def _means(scores: Floats, whose: Sequence[int], texts: int) -> Floats:
    """[pieces, labels] → [texts, labels]."""
    sums = np.zeros((texts, scores.shape[1]))
    np.add.at(sums, np.asarray(whose), scores)
    means: Floats = sums / np.bincount(whose, minlength=texts)[:, None]
    return means


def _softmax(scores: Floats) -> Floats:
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities: Floats = shifted / shifted.sum(axis=1, keepdims=True)
    return probabilities
