"""Search beside plain BM25: is the text that a question is about among the first five, and is what is not there refused?

    python bench/search_quality.py ../shared/data [--only en zh]

Questions of FairytaleQA (English; test part: valid) and CMRC 2018 (Chinese; trial). All contexts of the two parts are
searched at once, only the test part's questions count. Settings of ownlm were chosen on the other part's questions.

bm25s with its defaults and its own tokenizer ranks whole contexts; so does bm25s with character pairs where the
language is Chinese, which its tokenizer does not cut. ownlm ranks passages: "texts" counts the first five different
contexts, "passages" the contexts of the first five passages, "answer" whether one of these five passages, from the
right context, holds an answer word for word (of the questions whose context does).

Refusal: each question is asked twice, the second time with its story or article left out. Intervals: 95 %,
bootstrap over the stories or articles.
"""

from __future__ import annotations

import argparse
import json
import lzma
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ownlm.search import index as stored
from ownlm.search.index import Index, Source
from ownlm.search.passages import passages
from ownlm.search.ranking import best, passage_scores, share_of, threshold_of
from ownlm.search.reading import LINE, Cut, Read
from ownlm.search.terms import UNSPACED, question_terms, terms

SETS = {"en": ("fairytaleqa", "train", "valid", "story"), "zh": ("cmrc2018", "dev", "trial", "title")}
FIRST = 5
RESAMPLES = 2000
FITTED = 1500  # questions of the other part that thresholds are chosen on


@dataclass
class Question:
    """A question, the number of its context, and answers that are compared without punctuation."""

    text: str
    context: int
    answers: list[str]


@dataclass
class Data:
    """Contexts with the stories or articles they are of, and questions of the two parts."""

    contexts: list[str]
    groups: list[frozenset[str]]
    fit: list[Question]
    test: list[Question]


def load(folder: Path, language: str) -> Data:
    """Read a set."""
    name, fit, test, group = SETS[language]
    parts = []
    for part in (fit, test):
        with lzma.open(folder / name / f"{part}.jsonl.xz", "rt", encoding="utf-8") as file:
            parts.append([json.loads(line) for line in file])
    contexts = sorted({row["context"] for rows in parts for row in rows})
    numbers = {context: number for number, context in enumerate(contexts)}
    groups: list[set[str]] = [set() for _ in contexts]
    for row in (row for rows in parts for row in rows):
        groups[numbers[row["context"]]].add(row[group])
    made = [[_question(row, numbers) for row in rows] for rows in parts]
    return Data(contexts, [frozenset(group) for group in groups], *made)


def _question(row: dict[str, Any], numbers: dict[str, int]) -> Question:
    answers = [answer["text"] if isinstance(answer, dict) else answer for answer in row["answers"]]
    return Question(row["question"], numbers[row["context"]], [bare(a) for a in answers if bare(a)])


def bare(text: str) -> str:
    """Letters and digits alone."""
    return re.sub(r"[\W_]", "", text.casefold())


def ours(contexts: Sequence[str]) -> Index:
    """The contexts as the documents of an index."""
    ids: dict[str, int] = {}
    read = Read()
    for number, context in enumerate(contexts):
        cuts = (Cut(p.text, "", LINE, 1, p.heading, number, terms(p.text)) for p in passages(context))
        read.cuts += cuts
        read.documents += 1
    return stored.assemble([stored.segment(Source("", 0, 0, ""), read, ids)], list(ids))


def pairs(text: str) -> list[str]:
    """Words, and neighbouring characters of Chinese."""
    found: list[str] = []
    for run in re.findall(f"[{UNSPACED}]+|[^\\W_{UNSPACED}]+", text.casefold()):
        chinese = re.match(f"[{UNSPACED}]", run) and len(run) > 1
        found += [run[i : i + 2] for i in range(len(run) - 1)] if chinese else [run]
    return found


def plain(
    contexts: Sequence[str], tokenizer: Callable[[list[str]], list[list[str]]]
) -> Callable[[str], list[int]]:
    """bm25s with its defaults over whole contexts."""
    import bm25s

    retriever = bm25s.BM25()
    retriever.index(tokenizer(list(contexts)), show_progress=False)

    def ranked(question: str) -> list[int]:
        tokens = tokenizer([question])[0]
        return best(retriever.get_scores(tokens), FIRST).tolist() if tokens else []

    return ranked


def own_tokenizer(texts: list[str]) -> list[list[str]]:
    """bm25s's, with its defaults (English stop words)."""
    import bm25s

    return bm25s.tokenize(texts, return_ids=False, show_progress=False)  # type: ignore[return-value]


def interval(hits: Sequence[float], groups: Sequence[frozenset[str]]) -> str:
    """The mean with its interval, stories or articles drawn whole."""
    names = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    which = np.array([names[group] for group in groups])
    sums, counts = np.bincount(which, hits), np.bincount(which)
    draws = np.random.default_rng(0).integers(0, len(sums), (RESAMPLES, len(sums)))
    means = sums[draws].sum(1) / counts[draws].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{np.mean(hits):.3f} ({low:.3f} to {high:.3f})"


def recall(data: Data, index: Index) -> None:
    """Print how often the right context is among the first."""
    groups = [data.groups[question.context] for question in data.test]
    sides = {"bm25s, its defaults": plain(data.contexts, own_tokenizer)}
    if any(re.search(f"[{UNSPACED}]", question.text) for question in data.test[:10]):
        sides["bm25s, character pairs"] = plain(data.contexts, lambda texts: [pairs(text) for text in texts])
    others = {}
    for name, ranked in sides.items():
        found = [ranked(question.text) for question in data.test]
        for count in (1, FIRST):
            hits = [float(q.context in f[:count]) for q, f in zip(data.test, found)]
            print(f"  {name}: recall@{count} {interval(hits, groups)}")
            others[name] = hits
    texts, first, shown, answered, asked = [], [], [], [], []
    for question, group in zip(data.test, groups):
        scores = passage_scores(index, question_terms(question.text))
        numbers = best(scores, 20 * FIRST)
        of = index.document_of[numbers].tolist()
        first.append(float(question.context in of[:1]))
        texts.append(float(question.context in list(dict.fromkeys(of))[:FIRST]))
        shown.append(float(question.context in of[:FIRST]))
        if any(answer in bare(data.contexts[question.context]) for answer in question.answers):
            right = [
                bare(index.passage_text(n)) for n, d in zip(numbers[:FIRST], of) if d == question.context
            ]
            answered.append(float(any(answer in text for answer in question.answers for text in right)))
            asked.append(group)
    print(f"  ownlm, texts: recall@1 {interval(first, groups)}")
    print(f"  ownlm, texts: recall@{FIRST} {interval(texts, groups)}")
    print(f"  ownlm, passages: recall@{FIRST} {interval(shown, groups)}")
    for name, hits in others.items():
        more = [ours - theirs for ours, theirs in zip(texts, hits)]
        print(f"  recall@{FIRST} of texts above {name}: {interval(more, groups)}")
    print(f"  ownlm, answer word for word in {FIRST} passages {interval(answered, asked)} of {len(asked):,}")


def shares(data: Data, index: Index, questions: Sequence[Question]) -> tuple[list[float], list[float], float]:
    """(shares with the question's story, shares without it, threshold)."""
    there, gone, threshold = [], [], 0.0
    for question in questions:
        weights = question_terms(question.text)
        threshold = threshold_of(weights)
        left_out = {n for n, group in enumerate(data.groups) if group & data.groups[question.context]}
        scores = passage_scores(index, weights)
        there.append(_best_share(index, weights, scores))
        rest = np.where(np.isin(index.document_of, list(left_out)), 0, scores)
        gone.append(_best_share(index, weights, rest))
    return there, gone, threshold


def _best_share(index: Index, weights: dict[str, float], scores: Any) -> float:
    numbers = best(scores, 1)
    return share_of(index, weights, int(numbers[0])) if len(numbers) else 0.0


def refusal(data: Data, index: Index) -> None:
    """Print how well the threshold tells what is there from what is not, and where a tenth of the others lies."""
    chosen = np.random.default_rng(0).permutation(len(data.fit))[:FITTED]
    fitted, _, _ = shares(data, index, [data.fit[number] for number in chosen])
    print(
        f"  a tenth of the answerable questions of the fitting part lies below {np.percentile(fitted, 10):.3f}"
    )
    there, gone, threshold = shares(data, index, data.test)
    groups = [data.groups[question.context] for question in data.test]
    refused = [float(share < threshold) for share in gone]
    wrongly = [float(share < threshold) for share in there]
    precision = sum(refused) / max(sum(refused) + sum(wrongly), 1)
    print(f"  threshold {threshold}: refused of what is not there {interval(refused, groups)}")
    print(f"  refused of what is there {interval(wrongly, groups)}; precision of refusal {precision:.3f}")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder with fairytaleqa/ and cmrc2018/")
    parser.add_argument("--only", nargs="+", choices=list(SETS), default=list(SETS))
    options = parser.parse_args()
    for language in options.only:
        data = load(options.data, language)
        index = ours(data.contexts)
        print(
            f"{SETS[language][0]}: {len(data.contexts):,} contexts, {len(index.rows):,} passages, "
            f"{len(data.test):,} questions"
        )
        recall(data, index)
        refusal(data, index)


if __name__ == "__main__":
    main()
