"""ROUGE by rouge-score, with a tokenizer for every script."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ownlm.evaluation.tasks.bootstrap import Floats
from ownlm.evaluation.tasks.words import words

KINDS = ("rouge1", "rouge2", "rougeL")
TOKENIZER = "lower-case words, characters where a script has no blanks between words; no stemming"


class _Words:
    """The tokenizer as rouge-score wants it."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


def rouge(texts: Sequence[str], references: Sequence[Sequence[str]]) -> Floats:
    """F of each row [rows, 3]; of several references the one with the highest counts, for each kind."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(list(KINDS), tokenizer=_Words())
    table = np.zeros((len(texts), len(KINDS)))
    for number, (text, right) in enumerate(zip(texts, references)):
        found = scorer.score_multi(list(right), text)
        table[number] = [found[kind].fmeasure for kind in KINDS]
    return table
