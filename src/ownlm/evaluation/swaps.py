"""Which line is the true one: held-out lines beside the same line with one word swapped.

A model that learnt the language gives the true line the higher probability. Chance is one half. The baseline is a
4-gram counter over the same training text.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ownlm.evaluation.metrics import Metric, share
from ownlm.evaluation.scoring import score_tokens
from ownlm.seeds import derive

if TYPE_CHECKING:
    from ownlm.corpus.tokenizer import Tokenizer
    from ownlm.engine.scoring import Scorer

# A word: letters and underscores without Han, at least three; or two Han characters, which are about a word.
WORD = re.compile(r"[一-鿿]{2}|[^\W\d一-鿿]{3,}")
PIECE = re.compile(r"[一-鿿]|[^\W一-鿿]+|[^\w\s]|\s+")
MIN_WORDS, MAX_CHARACTERS = 3, 200
BACKOFF = 0.4  # Brants et al. 2007, "Large language models in machine translation", eq. 5


class Pair(NamedTuple):
    """A true line, and the line with one word swapped."""

    true: str
    swapped: str


def swap_pairs(
    held_out: Iterable[str], vocabulary: Counter[str], tokenizer: Tokenizer, n: int = 500, seed: int = 0
) -> list[Pair]:
    """Lines of the held-out texts, each with one word replaced by another word of about the same frequency.

    Both lines of a pair have the same number of tokens: to a model that has learnt nothing a line with fewer
    tokens is the more probable one, and the true one has fewer of them more often.

    Args:
        held_out: texts; their lines with at least three words and at most 200 characters are drawn from.
        vocabulary: words of the training text with their counts.
        tokenizer: counts the tokens.
        n: pairs at most; every line is used once.
    """
    generator = np.random.default_rng(derive(seed, "swaps"))
    lines = sorted({line.strip() for text in held_out for line in text.splitlines()})
    usable = [x for x in lines if len(x) <= MAX_CHARACTERS and len(WORD.findall(x)) >= MIN_WORDS]
    ranked = [word for word, count in vocabulary.most_common(20_000) if count > 1]
    rank = {word: place for place, word in enumerate(ranked)}
    pairs: list[Pair] = []
    for index in generator.permutation(len(usable)):
        words = [match for match in WORD.finditer(usable[index]) if match[0] in rank]
        if not words or len(ranked) < 20:
            continue
        word = words[generator.integers(len(words))]
        # Within a factor of two in rank, evenly in its logarithm. Where frequency falls as 1 / rank (Zipf), each
        # of two words is then as often replaced by the other, and how common a word is decides nothing.
        place = rank[word[0]] + 1
        low, high = (place + 1) // 2, min(2 * place, len(ranked)) + 1
        other = ranked[int(low * (high / low) ** generator.random()) - 1]
        line = usable[index]
        swapped = line[: word.start()] + other + line[word.end() :]
        if swapped != line and len(tokenizer.encode(swapped)) == len(tokenizer.encode(line)):
            pairs.append(Pair(line, swapped))
        if len(pairs) == n:
            break
    return pairs


def word_counts(texts: Iterable[str]) -> Counter[str]:
    """Words of texts, counted."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(WORD.findall(text))
    return counts


def prefer_true(model: Scorer, tokenizer: Tokenizer, pairs: Sequence[Pair], context: int) -> Metric:
    """The share of pairs whose true line has the higher log-probability (a tie counts half)."""
    texts = [text for pair in pairs for text in pair]
    documents = [np.concatenate(([tokenizer.start_id], ids)) for ids in tokenizer.encode_batch(texts)]
    scores = [float(scored.logprobs.sum()) for scored in score_tokens(model, documents, context=context)]
    return _preferred(list(zip(scores[::2], scores[1::2])))


def _preferred(scores: list[tuple[float, float]]) -> Metric:
    wins = sum(1.0 if true > swapped else 0.5 if true == swapped else 0.0 for true, swapped in scores)
    return share(wins, len(scores))


class NgramCounter:
    """Counts of runs of up to four pieces (words, spaces, punctuation; single Han characters), with stupid backoff.

    Args:
        texts: the training texts.
        order: longest run.
    """

    def __init__(self, texts: Iterable[str], order: int = 4) -> None:
        self.order = order
        self.counts: list[Counter[tuple[str, ...]]] = [Counter() for _ in range(order + 1)]
        for text in texts:
            for line in text.splitlines():
                pieces = ["\n", *PIECE.findall(line.strip())]
                for size in range(1, order + 1):
                    self.counts[size].update(zip(*(pieces[i:] for i in range(size))))
        self.total = max(1, self.counts[1].total())

    def score(self, line: str) -> float:
        """Σ log score of each piece given up to three before it."""
        pieces = ["\n", *PIECE.findall(line.strip())]
        return sum(
            self._log_score(tuple(pieces[max(0, i - self.order + 1) : i + 1])) for i in range(1, len(pieces))
        )

    def _log_score(self, run: tuple[str, ...]) -> float:
        penalty = 0.0
        while len(run) > 1:
            count = self.counts[len(run)][run]
            if count:
                return penalty + math.log(count / self.counts[len(run) - 1][run[:-1]])
            run, penalty = run[1:], penalty + math.log(BACKOFF)
        return penalty + math.log((self.counts[1][run] + 0.5) / (self.total + 1))

    def prefer_true(self, pairs: Sequence[Pair]) -> Metric:
        """The share of pairs whose true line scores higher."""
        return _preferred([(self.score(pair.true), self.score(pair.swapped)) for pair in pairs])
