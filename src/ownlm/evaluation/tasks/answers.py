"""Question answering: exact match and F1 by the rules of SQuAD; for text without blanks by those of CMRC 2018."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ownlm.evaluation.tasks.bootstrap import Figure, mean, mean_where
from ownlm.evaluation.tasks.measured import Measured
from ownlm.evaluation.tasks.names import SQUAD
from ownlm.evaluation.tasks.result import Row
from ownlm.evaluation.tasks.sentences import closest_sentence
from ownlm.evaluation.tasks.words import UNSPACED, without_blanks
from ownlm.tasks.items import Question, input_text

# What cmrc2018_evaluate.py (Cui et al. 2019) removes; its "……" never meets a single character.
_CMRC_PUNCTUATION = "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』"
_LETTERS = rf"[^\W{UNSPACED}]+"
_CMRC_PIECES = re.compile(rf"[{UNSPACED}]|{_LETTERS}(?:(?:\.|,(?=\d)){_LETTERS})*|[^\w\s]")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)

NONE = "(not in the context)"


def measure_answers(items: Sequence[Question], predictions: Sequence[Mapping[str, Any]]) -> Measured:
    """The figures of `AnswerPrediction`s; of several right answers the best counts."""
    rows, by_characters = [], 0
    for item, each in zip(items, predictions):
        characters = without_blanks(item.context)
        by_characters += characters
        rows.append(_row(item, str(each["answer"]), characters))
    values = [(row.values["exact_match"], row.values["f1"]) for row in rows]
    exact, f1 = np.array(values, np.float64).reshape(-1, 2).T
    how = {}
    if by_characters < len(items):
        how["words"] = f"{SQUAD}; {len(items) - by_characters:,} of {len(items):,} rows"
    if by_characters:
        how["characters"] = (
            f"longest common run of characters, as the script of CMRC 2018; {by_characters:,} of {len(items):,} rows"
        )
    return Measured(_figures(exact, f1, [bool(item.answers) for item in items]), rows, how=how)


def _figures(exact: Any, f1: Any, answerable: list[bool]) -> list[Figure]:
    figures = [mean("exact_match", exact), mean("f1", f1)]
    if all(answerable) or not any(answerable):
        return figures
    unanswerable = [not each for each in answerable]
    return [
        *figures,
        mean_where("answerable_exact_match", exact, answerable),
        mean_where("answerable_f1", f1, answerable),
        mean_where("unanswerable_accuracy", exact, unanswerable),
    ]


def _row(item: Question, got: str, characters: bool) -> Row:
    texts = [answer.text for answer in item.answers]
    exact, f1 = cmrc(texts, got) if characters else squad(texts, got)
    expected = tuple(dict.fromkeys(texts)) or (NONE,)
    return Row(
        item.where,
        input_text(item),
        expected,
        got if got.strip() else NONE,
        exact == 1,
        {"exact_match": exact, "f1": f1},
    )


def sentence_with_most_question_words(items: Sequence[Question]) -> tuple[str, list[dict[str, Any]]]:
    """The baseline: a whole sentence of the context as the answer."""
    found = [{"answer": closest_sentence(item.question, item.context)} for item in items]
    return "the sentence with the most question words", found


def squad(answers: Sequence[str], got: str) -> tuple[float, float]:
    """(exact match, F1) by the evaluation script 2.0 of SQuAD, the best over all answers.

    Lower case, without punctuation, articles and blanks; F1 over words, with repetitions. Without answers "" is right.
    """
    right = [text for text in map(_plain, answers) if text] or [""]
    plain = _plain(got)
    exact = max(float(text == plain) for text in right)
    return exact, max(_shared_words(text.split(), plain.split()) for text in right)


def _plain(text: str) -> str:
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def _shared_words(expected: list[str], got: list[str]) -> float:
    if not expected or not got:
        return float(expected == got)
    shared = sum((Counter(expected) & Counter(got)).values())
    return 2 * shared / (len(expected) + len(got))


def cmrc(answers: Sequence[str], got: str) -> tuple[float, float]:
    """(exact match, F1) by cmrc2018_evaluate.py, the best over all answers.

    Exact match without punctuation; F1 of the longest run that both share, in characters (words for Latin letters).
    """
    plain = _without(got.lower().strip())
    if not answers:
        return (1.0, 1.0) if not plain.strip() else (0.0, 0.0)
    exact = max(float(_without(text.lower().strip()) == plain) for text in answers)
    pieces = _pieces(got)
    return exact, max(_shared_run(_pieces(text), pieces) for text in answers)


def _without(text: str) -> str:
    return "".join(character for character in text if character not in _CMRC_PUNCTUATION)


def _pieces(text: str) -> list[str]:
    return _CMRC_PIECES.findall(_without(text.lower().strip()))


def _shared_run(expected: list[str], got: list[str]) -> float:
    run = longest_common_run(expected, got)
    return 2 * run / (len(expected) + len(got)) if run else 0.0


def longest_common_run(a: Sequence[str], b: Sequence[str]) -> int:
    """How many neighbouring pieces of `a` stand in `b` in the same order, at most."""
    best, ending = 0, [0] * (len(b) + 1)
    for piece in a:
        before = 0
        for place, other in enumerate(b, 1):
            before, ending[place] = ending[place], before + 1 if piece == other else 0
            best = max(best, ending[place])
    return best
