"""Candidates for the same thing (from speech recognition, translation, …) ordered by a language model."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ownlm.console.errors import Refused
from ownlm.evaluation.documents import normalised
from ownlm.evaluation.scoring import score_tokens

if TYPE_CHECKING:
    from ownlm.corpus.tokenizer import Tokenizer
    from ownlm.engine.scoring import Scorer


@dataclass(frozen=True)
class CandidateList:
    """Texts to choose from, and what stands before them."""

    candidates: list[str]
    prompt: str = ""


@dataclass(frozen=True)
class Ranked:
    """A candidate with its score.

    Args:
        candidate: as it was given.
        given: its place in the list that was given, from 1.
        logprob: natural logarithm of its probability after the prompt.
        bytes: UTF-8 bytes of the normalised text, which is what is scored.
        score: what it was ordered by: `logprob`, or logprob / bytes.
    """

    candidate: str
    given: int
    logprob: float
    bytes: int
    score: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def read_candidates(text: str, where: str) -> list[CandidateList]:
    """Candidate lists from a text.

    Either JSON lines `{"candidates": ["…", "…"], "prompt": "…"}` (prompt optional), or plain text: one
    candidate a line, a blank line between lists.

    Raises:
        Refused: a line of JSON lines that is not of that form (its number is named); no candidate at all.
    """
    if text.lstrip().startswith("{"):
        lists = list(_json_lines(text, where))
    else:
        lines = [line.removesuffix("\r") for line in text.split("\n")]
        groups = itertools.groupby(lines, lambda line: bool(line.strip()))
        lists = [CandidateList(list(group)) for filled, group in groups if filled]
    if not lists:
        raise Refused(
            "there are no candidates.", where=where, do="one candidate a line, a blank line between lists"
        )
    return lists


def _json_lines(text: str, where: str) -> Iterator[CandidateList]:
    # Not `splitlines`: a JSON text may hold U+2028, where it would split.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        place = f"{where}:{number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise Refused(
                f"not a JSON line: {error}.", where=place, do='{"candidates": ["…", "…"]}'
            ) from None
        candidates = row.get("candidates") if isinstance(row, dict) else None
        if (
            not isinstance(candidates, list)
            or not candidates
            or not all(isinstance(c, str) for c in candidates)
        ):
            raise Refused(
                'no list of texts under "candidates".', where=place, do='{"candidates": ["…", "…"]}'
            )
        unknown = sorted(set(row) - {"candidates", "prompt"})
        if unknown or not isinstance(row.get("prompt", ""), str):
            what = f'unknown key "{unknown[0]}".' if unknown else '"prompt" is not a text.'
            raise Refused(what, where=place, why='A line has "candidates" and, if wanted, "prompt".')
        yield CandidateList(candidates, row.get("prompt", ""))


def rank(
    model: Scorer,
    tokenizer: Tokenizer,
    lists: Sequence[CandidateList],
    *,
    context: int,
    stride: int | None = None,
    per_byte: bool = False,
) -> list[list[Ranked]]:
    """Each list ordered, best first; equal scores keep their order.

    Args:
        per_byte: order by log-probability a byte: otherwise shorter candidates have an advantage.
    """
    if hasattr(model, "score_answers"):  # an encoder reads the prompt, a decoder scores the candidate
        totals = _answer_scores(model, tokenizer, lists)
        return [_ranked(one, [next(totals) for _ in one.candidates], per_byte) for one in lists]
    ids: list[npt.NDArray[Any]] = []
    firsts: list[int] = []
    for one in lists:
        encoded = [_ids(tokenizer, one.prompt + candidate) for candidate in one.candidates]
        # Tokens may reach over the prompt's end: only what all share of the prompt is left out.
        shared = min(_common(_ids(tokenizer, one.prompt), found) for found in encoded)
        ids += encoded
        firsts += [shared] * len(encoded)
    # Each text once: equal ones must have equal scores to the last bit.
    keys = [one.tobytes() for one in ids]
    unique = dict(zip(keys, ids))
    scores = dict(zip(unique, score_tokens(model, list(unique.values()), context=context, stride=stride)))
    totals = iter([float(scores[key].logprobs[first - 1 :].sum()) for key, first in zip(keys, firsts)])
    return [_ranked(one, [next(totals) for _ in one.candidates], per_byte) for one in lists]


def _answer_scores(model: Any, tokenizer: Tokenizer, lists: Sequence[CandidateList]) -> Iterator[float]:
    """The log-probability of every candidate as the answer to its prompt, list after list."""
    for one in lists:
        prompt = np.array(tokenizer.encode_whole(normalised(one.prompt)).ids, np.int64)
        answers = [tokenizer.encode(normalised(candidate)) for candidate in one.candidates]
        yield from (float(s.sum()) for s in model.score_answers([prompt] * len(answers), answers))


def _ranked(one: CandidateList, totals: list[float], per_byte: bool) -> list[Ranked]:
    found = []
    for given, (candidate, total) in enumerate(zip(one.candidates, totals), 1):
        size = len(normalised(candidate).encode())
        found.append(Ranked(candidate, given, total, size, total / max(size, 1) if per_byte else total))
    return sorted(found, key=lambda ranked: -ranked.score)


def _ids(tokenizer: Tokenizer, text: str) -> npt.NDArray[Any]:
    return np.concatenate([[tokenizer.start_id], tokenizer.encode(normalised(text))])


def _common(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> int:
    """Length of the common beginning."""
    length = min(len(a), len(b))
    different = np.flatnonzero(a[:length] != b[:length])
    return int(different[0]) if len(different) else length
