"""The passages that answer a question best, and whether any of them does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ownlm.search.bm25 import K1, B, Floats
from ownlm.search.cache import Opened
from ownlm.search.index import Index, place
from ownlm.search.reading import LINE, PAGE, ROW, SLIDE
from ownlm.search.terms import is_unspaced, question_terms, words

# Measured on questions about stories and encyclopedia articles: docs/log.md.
DOCUMENT = 1.0  # weight of the whole document's score beside the passage's
NEAR = 1.0  # weight of words that stand near each other
WITHIN = 5  # terms between two words that are near each other
CANDIDATES = 60  # passages that are looked at for nearness
# The share of a question that its best passage must hold. Below it fell one in ten of the questions that have an
# answer, half of those for fitting; in pairs of characters more of a question is grammar, which no passage repeats.
FOUND_WORDS, FOUND_CHARACTERS = 0.52, 0.41
HARDLY = 0.02  # share of terms below which documents hardly have a script
PRIOR = 1000  # passages without the words, added to those that are there: in a few pages no word is rare


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that was found.

    Attributes:
        text: the passage.
        file: its file, as the context was typed.
        line, page: where it stands, from 1; None where it is not known. The page is the slide of a talk.
        flowing: its lines are those of the file, not of a row in it.
        place: how it is cited, `file:line`.
        heading: the headings above it.
        score: the passages are ordered by it.
    """

    text: str
    file: str
    line: int | None
    page: int | None
    flowing: bool
    place: str
    heading: str
    score: float

    def place_of(self, offset: int) -> str:
        """Where the character at this offset of the text is cited."""
        if self.line is None or not self.flowing:
            return self.place
        return f"{self.file}:{self.line + self.text.count(chr(10), 0, offset)}"


@dataclass(frozen=True, slots=True)
class Results:
    """What the search found.

    Attributes:
        hits: best first; none when no passage has a word of the question.
        terms: the terms of the question; none when it has only words of grammar.
        missing: its words that no document has.
        other_script: it is written in a script that the documents hardly have.
        share: how much of the question the best passage holds, from 0 to 1.
        threshold: the share from which something counts as found.
    """

    hits: list[Hit]
    terms: frozenset[str]
    missing: list[str]
    other_script: bool
    share: float
    threshold: float

    @property
    def found(self) -> bool:
        """Whether the best passage holds enough of the question."""
        return self.share >= self.threshold


def search(opened: Opened, question: str, top_k: int) -> Results:
    """The passages nearest to a question, at most `top_k`."""
    weights = question_terms(question)
    scores = passage_scores(opened.index, weights)
    numbers = best(scores, top_k).tolist()
    hits = [_hit(opened, number, float(scores[number])) for number in numbers]
    share = share_of(opened.index, weights, numbers[0]) if numbers else 0.0
    missing = dict.fromkeys(word for word, term in words(question) if term not in opened.index.term_ids)
    here = opened.index.unspaced if _in_characters(weights) else 1 - opened.index.unspaced
    other = bool(weights) and here < HARDLY
    return Results(hits, frozenset(weights), list(missing), other, share, threshold_of(weights))


def passage_scores(index: Index, weights: Mapping[str, float]) -> Floats:
    """The score of every passage for a question's terms, float32 [passages]; 0 without any of them.

    BM25 of the passage and of its document; for the best of them the nearness of the question's words too.
    """
    known = _known(index, weights)
    scores = index.passages.sums(known)
    scores += np.float32(DOCUMENT) * index.documents.sums(known)[index.document_of] * (scores > 0)
    spaced = _words(index, known)
    for number in best(scores, CANDIDATES).tolist():
        scores[number] += np.float32(NEAR * nearness(index, number, spaced))
    return scores


def share_of(index: Index, weights: Mapping[str, float], passage: int) -> float:
    """How much of a question a passage holds, from 0 to 1.

    The mean of two shares of the most that the terms could give: what of it the terms give that are there at all,
    and what BM25 and nearness give.
    """
    known = _known(index, weights)
    here = {number: index.passages.frequency_part(number, passage) for number in known}
    worth = {number: weight * index.passages.idf(number, PRIOR) for number, weight in known.items()}
    unknown = sum(weight for term, weight in weights.items() if term not in index.term_ids)
    most = sum(worth.values()) + unknown * index.passages.idf(None, PRIOR)
    if not most:
        return 0.0
    there = sum(worth[number] for number, part in here.items() if part)
    scored = sum(worth[number] * part for number, part in here.items())
    near = nearness(index, passage, _words(index, known), PRIOR)
    return min((there + scored + near) / (2 * most), 1.0)


def threshold_of(weights: Mapping[str, float]) -> float:
    """The share from which a question's best passage counts as found."""
    return FOUND_CHARACTERS if _in_characters(weights) else FOUND_WORDS


def _in_characters(weights: Mapping[str, float]) -> bool:
    """Whether most of a question is written in an unspaced script."""
    characters = sum(weight for term, weight in weights.items() if is_unspaced(term))
    return 2 * characters > sum(weights.values())


def _known(index: Index, weights: Mapping[str, float]) -> dict[int, float]:
    return {index.term_ids[term]: weight for term, weight in weights.items() if term in index.term_ids}


def _words(index: Index, known: Mapping[int, float]) -> list[int]:
    """The words of a question in its order; of unspaced scripts pairs of characters are terms already."""
    return [number for number in known if not is_unspaced(index.vocabulary[number])]


def best(scores: Floats, count: int) -> npt.NDArray[np.int64]:
    """Positions of the largest scores above 0, best first, the earlier of equal ones first."""
    above = np.flatnonzero(scores > 0)
    if len(above) > count:
        least = np.partition(scores[above], len(above) - count)[len(above) - count]
        above = above[scores[above] >= least]
    order: npt.NDArray[np.int64] = above[np.lexsort((above, -scores[above]))][:count]
    return order


def nearness(index: Index, passage: int, spaced: list[int], prior: int = 0) -> float:
    """How near words that follow each other in a question stand to each other in a passage, in units of BM25.

    A pair counts as a term that occurs 1 / distance² times at each place of the first word (Rasolofo and Savoy
    2003), with the smaller idf of the two.
    """
    ids = index.passage_ids(passage)
    places = {word: np.flatnonzero(ids == word) for word in spaced}
    mean = len(index.ids) / max(len(index.rows), 1)
    norm = K1 * (1 - B + B * len(ids) / mean)
    total = 0.0
    for first, second in {*pairwise(spaced), *zip(spaced, spaced[2:])}:
        if len(places[first]) and len(places[second]):
            distances = np.abs(places[first][:, None] - places[second]).min(axis=1)
            times = float((1.0 / distances[distances <= WITHIN] ** 2).sum())
            idf = min(index.passages.idf(first, prior), index.passages.idf(second, prior))
            total += idf * times / (times + norm)
    return total


def _hit(opened: Opened, passage: int, score: float) -> Hit:
    index = opened.index
    row: Any = index.rows[passage]
    source = index.source_of(passage)
    name = source.names[int(row["name"])]
    base = opened.context.path
    file = name if opened.context.is_corpus else (base / name).as_posix()
    unit, number = int(row["unit"]), int(row["number"])
    heading = source.headings[int(row["heading"])]
    line = number if unit in (LINE, ROW) else None
    page = number if unit in (PAGE, SLIDE) else None
    cited = place(unit, number, file)
    return Hit(index.passage_text(passage), file, line, page, unit == LINE, cited, heading, score)
