"""What the figures are called, how they are shown, and where their definition comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Name:
    """How a figure is shown.

    Attributes:
        words: what people call it.
        unit: share (0 to 1, shown in per cent) or points (0 to 100).
        better: which way is up.
        source: its definition.
    """

    words: str
    unit: Literal["share", "points"]
    better: Literal["higher", "lower"]
    source: str


SQUAD = "SQuAD rules (Rajpurkar et al. 2018, evaluation script 2.0)"

FIGURES = {
    "accuracy": Name("accuracy", "share", "higher", "rows with the right label"),
    "macro_f1": Name("macro-F1", "share", "higher", "mean over labels of 2PR/(P+R), 0 where undefined"),
    "calibration_error": Name(
        "calibration error", "share", "lower", "expected calibration error, 15 equal bins (Guo et al. 2017, eq. 3)"
    ),
    "entity_f1": Name("entity F1", "share", "higher", "whole entities, micro (CoNLL-2003, conlleval)"),
    "entity_precision": Name("entity precision", "share", "higher", "of the entities found, those that are right"),
    "entity_recall": Name("entity recall", "share", "higher", "of the entities there are, those found"),
    "exact_match": Name("exact match", "share", "higher", "the whole answer"),
    "f1": Name("F1", "share", "higher", "words, or characters, shared with the best answer"),
    "answerable_exact_match": Name("exact match, answerable", "share", "higher", "rows with an answer"),
    "answerable_f1": Name("F1, answerable", "share", "higher", "rows with an answer"),
    "unanswerable_accuracy": Name("unanswerable, seen", "share", "higher", "rows without an answer"),
    "bleu": Name("BLEU", "points", "higher", "sacrebleu (Papineni et al. 2002; Post 2018)"),
    "chrf": Name("chrF", "points", "higher", "chrF2, 6 characters, no words (Popović 2015; as sacrebleu)"),
    "rouge1": Name("ROUGE-1", "share", "higher", "F of single words (Lin 2004)"),
    "rouge2": Name("ROUGE-2", "share", "higher", "F of pairs of words (Lin 2004)"),
    "rougeL": Name("ROUGE-L", "share", "higher", "F of the longest common subsequence (Lin 2004)"),
    "stopped": Name("stopped by itself", "share", "higher", "answers that ended before they were cut"),
}  # fmt: skip


def shown(name: str, value: float, digits: int = 1) -> str:
    """A figure for a person: "83.2 %", or "27.4" for points."""
    if FIGURES[name].unit == "share":
        return f"{value * 100:.{digits}f} %"
    return f"{value:.{digits}f}"
