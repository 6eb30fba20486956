"""What a model says to a row of a task: one prediction a row, in the order of the rows."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict


class LabelPrediction(TypedDict):
    """Of classification and sentiment.

    Keys:
        label: the most probable one, as the rows write it.
        scores: probability of each label that the model knows; the calibration error needs them.
    """

    label: str
    scores: NotRequired[dict[str, float]]


class TextPrediction(TypedDict):
    """Of translation, summarization, completion and chat.

    Keys:
        text: what the model wrote. For a conversation: its answer in place of the last turn of the assistant, given
            all turns before it.
        finish_reason: "stop" when it ended its answer by itself, "length" when it was cut.
    """

    text: str
    finish_reason: NotRequired[str]


class AnswerPrediction(TypedDict):
    """Of qa.

    Keys:
        answer: "" says that the context does not hold it.
        score: its probability.
        start, end: characters of the context; None for an answer that is no part of it.
    """

    answer: str
    score: NotRequired[float]
    start: NotRequired[int | None]
    end: NotRequired[int | None]


class TagsPrediction(TypedDict):
    """Of ner: one tag a word of the row."""

    tags: list[str]


Prediction = LabelPrediction | TextPrediction | AnswerPrediction | TagsPrediction

TASKS = ("classification", "sentiment", "ner", "qa", "translation", "summarization", "completion", "chat")
Predictions = list[dict[str, Any]]  # what `predicting.predictions` gives: the keys of its task's prediction
