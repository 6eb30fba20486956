"""Questions and their answers in the forms that SQuAD and others have."""

from __future__ import annotations

from typing import Any

from ownlm.tasks.cells import Tell, Values, as_list, text_of
from ownlm.tasks.items import Answer, Item, Question
from ownlm.tasks.problems import BadRow


def to_question(values: Values, where: str, tell: Tell) -> Item:
    """{"context", "question", "answers"}: SQuAD's {"text": […], "answer_start": […]}, a list of them, or of texts."""
    context, question = text_of(values, "context"), text_of(values, "question")
    given = values["answers"] if "answers" in values else values.get("answer")
    if "answers" not in values and "answer" not in values:
        raise BadRow('no column "answers"', "Give a list of answers; an empty one says that there is none.")
    answers: list[Answer] = []
    for text, start in _answers(given):
        answer = Answer(text, _start(context, text, start, tell))
        if answer not in answers:
            answers.append(answer)
    return Question(where, context, question, tuple(answers))


def _answers(given: Any) -> list[tuple[str, int | None]]:
    """(text, place) of each answer as they are given; an empty list where there is none."""
    if given is None:
        return []
    if isinstance(given, str) and given[:1] in "[{":
        given = as_list(given, "answers")
    if isinstance(given, str):
        given = [given] if given.strip() else []
    if isinstance(given, dict):
        texts, starts = given.get("text"), given.get("answer_start")
        if isinstance(texts, str):
            texts, starts = [texts], [starts]
        if not isinstance(texts, list):
            raise BadRow('"answers" has no text', 'Write {"text": ["…"], "answer_start": [0]}.')
        given = [{"text": t, "answer_start": s} for t, s in zip(texts, starts or [None] * len(texts))]
    found = []
    for answer in given if isinstance(given, list) else [given]:
        text = answer.get("text") if isinstance(answer, dict) else answer
        start = answer.get("answer_start") if isinstance(answer, dict) else None
        if start is not None and (isinstance(start, bool) or not isinstance(start, int)):
            raise BadRow("answer_start is not a number", "Count characters from 0.", str(start)[:40])
        found.append((text_of({"answer": text}, "answer"), start))
    return found


def _start(context: str, text: str, start: int | None, tell: Tell) -> int | None:
    """Where an answer stands in its context: as given, else the occurrence nearest to that."""
    if start is not None and context.startswith(text, start) and start >= 0:
        return start
    places = []
    place = context.find(text)
    while place >= 0:
        places.append(place)
        place = context.find(text, place + 1)
    if not places:
        tell(
            "an answer is not in its context",
            "It can be generated, but not marked in the context.",
            text[:40],
        )
        return None
    nearest = min(places, key=lambda p: abs(p - (start or 0)))
    if start is not None:
        tell(
            "answer_start does not fit",
            "The nearest place with the answer is taken.",
            f"{start}, not {nearest}",
        )
    return nearest
