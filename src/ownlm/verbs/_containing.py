"""`ownlm runs --containing`: which runs were trained on a document, on how much of it, how often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ownlm.console import output as out
from ownlm.corpus.batches import Batches
from ownlm.corpus.contains import Exposure, Place
from ownlm.corpus.shards import Corpus
from ownlm.locate import Run, list_runs
from ownlm.verbs._corpora import Library
from ownlm.verbs._lineage import Training, lineage
from ownlm.verbs._sought import Hit, Sought

NAMED = 3  # documents that a line of the table names
TOKENS_AT_ONCE = 2**22  # whose visits are counted together: some tens of megabytes


@dataclass
class Seen:
    """How much of a document a training saw.

    Args:
        document, hash: which.
        side: "training", "validation", "training and validation" (its end was cut off), "dropped" or "absent".
        why: it was dropped.
        tokens: of all its copies, those that are validation text included, without <|endoftext|>.
        trained_tokens: how many of them were trained on at least once.
        times: how often each of those was, on average.
        corpus: where it was looked for.
        through: the runs that were trained on this corpus: this one, and those that it went on from.
    """

    document: str
    hash: str
    side: str
    why: str = ""
    tokens: int = 0
    trained_tokens: int = 0
    times: float = 0.0
    corpus: str = ""
    through: list[str] = field(default_factory=list)


@dataclass
class Verdict:
    """What can be told about one run. `unknown` says what cannot."""

    run: Run
    seen: list[Seen] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    @property
    def saw(self) -> bool | None:
        """Whether it was trained on any of it; None: cannot be told."""
        if any(seen.trained_tokens for seen in self.seen):
            return True
        return None if self.unknown else False

    def to_json(self) -> dict[str, Any]:
        """A row of `runs --containing --json`; of documents that its data lacks only the number is given."""
        found = [seen for seen in self.seen if seen.side != "absent"]
        data = self.run.facts.get("data") or {}
        return {
            "run": str(self.run.path),
            "data": data.get("corpus"),
            "data_hash": data.get("hash"),
            "finished": self.run.facts.get("finished"),
            "saw": self.saw,
            "documents": [vars(seen) for seen in found],
            "absent": len(self.seen) - len(found),
            "unknown": self.unknown,
        }


def containing(folder: Path, word: str, as_json: bool) -> list[dict[str, Any]]:
    """The runs below a folder, those that were trained on a document first; see `ownlm runs`."""
    sought = Sought(word)
    runs = list_runs(folder)
    judge = _Judge(sought, runs)
    verdicts = sorted(map(judge.verdict, runs), key=lambda v: (True, None, False).index(v.saw))
    sought.refuse_empty()
    rows = [verdict.to_json() for verdict in verdicts]
    if out.from_cli():
        if as_json:
            out.result_json(rows)
        else:
            _show(sought, verdicts)
    return rows


class _Judge:
    """Looks into each corpus once, however many runs were trained on it."""

    def __init__(self, sought: Sought, runs: Sequence[Run]) -> None:
        self.sought = sought
        chains = {run.path: lineage(run) for run in runs if not run.problem}
        self.chains = chains
        links = [training for chain, _ in chains.values() for training in chain]
        self.library = Library((link.run.path, link.data) for link in links)
        self.hits: dict[str, list[Hit]] = {}
        hashes = {str(link.data.get("hash")) for link in links}
        self.is_corpus = sought.kind == "hash" and any(h.startswith(sought.prefix) for h in hashes)

    def verdict(self, run: Run) -> Verdict:
        """What can be told about a run."""
        found = Verdict(run)
        if run.problem:
            found.unknown.append(run.problem)
            return found
        chain, missing = self.chains[run.path]
        by_corpus: dict[str, list[Training]] = {}
        for training in chain:
            if not training.data.get("hash") or not training.has_order:
                found.unknown.append(f"run.json of {training.run.path} does not say what it was trained on")
            else:
                by_corpus.setdefault(str(training.data["hash"]), []).append(training)
        for digest, trainings in by_corpus.items():
            if not self.is_corpus:
                self._documents(digest, trainings, found)
            elif digest.startswith(self.sought.prefix):
                found.seen.append(self._whole_corpus(digest, trainings))
        found.unknown += [missing] if missing else []
        return found

    def _documents(self, digest: str, trainings: Sequence[Training], found: Verdict) -> None:
        """Adds what the trainings on one corpus did with the sought documents."""
        name = trainings[0].data.get("corpus")
        corpus = self.library.find(trainings[0].run.path, trainings[0].data)
        if corpus is None:
            what = f"the corpus {name} is gone or was made anew; all that is left of it is its hash {digest[:16]}"
            found.unknown.append(what)
            return
        if digest not in self.hits:
            self.hits[digest] = self.sought.hits(corpus)
        hits = self.hits[digest]
        if not any(hit.places for hit in hits) and (why := self.sought.cannot_tell(corpus)):
            found.unknown.append(f"the corpus {name}: {why}")
        through = [str(training.run.path) for training in trainings]
        exposures = [_exposure(training, corpus) for training in trainings if training.steps]
        found.seen += [_seen(hit, corpus, exposures, through) for hit in hits]

    def _whole_corpus(self, digest: str, trainings: Sequence[Training]) -> Seen:
        """All training text of a corpus as one document."""
        data = trainings[0].data
        seen = Seen(f"all of {data.get('corpus')}", digest, "training", corpus=str(data.get("corpus")))
        seen.through = [str(training.run.path) for training in trainings]
        seen.tokens = int(data.get("train_tokens") or 0)
        corpus = self.library.find(trainings[0].run.path, data) if len(trainings) > 1 else None
        if corpus is not None:  # several runs may have seen the same tokens: they are counted one by one
            total, seen.trained_tokens = _totals(corpus, trainings)
        else:
            total = max(t.tokens_per_step * (t.steps - len(t.left_out)) for t in trainings)
            seen.trained_tokens = min(total, seen.tokens)
            seen.why = "at least: the corpus is gone" if len(trainings) > 1 else ""
        seen.times = total / max(seen.trained_tokens, 1)
        return seen


def _totals(corpus: Corpus, trainings: Sequence[Training]) -> tuple[int, int]:
    """(tokens trained on, how many different ones) of all training text."""
    split = corpus.split("train")
    exposures = [_exposure(training, corpus) for training in trainings if training.steps]
    total = different = 0
    for start in range(0, split.num_tokens, TOKENS_AT_ONCE):
        stop = min(start + TOKENS_AT_ONCE, split.num_tokens)
        counts = sum((e.counts(start, stop) for e in exposures), np.zeros(stop - start, np.int64))
        total += int(counts.sum())
        different += int(np.count_nonzero(counts))
    return total, different


def _exposure(training: Training, corpus: Corpus) -> Exposure:
    """How often a training was trained on each token of its corpus."""
    context, rows = training.context, training.tokens_per_step // training.context
    batches = Batches(corpus.split("train"), context, rows, training.seed)
    return Exposure(batches, training.steps, training.left_out)


def _seen(hit: Hit, corpus: Corpus, exposures: Sequence[Exposure], through: list[str]) -> Seen:
    """A sought document beside what the trainings on a corpus did with it."""
    train = {place.train for place in hit.places if place.train is not None}
    validation = {place.validation for place in hit.places if place.validation is not None}
    counts = [_counts(corpus, exposures, number) for number in sorted(train)]
    held_out = sum(int(corpus.split("validation").row(number)["tokens"]) - 1 for number in validation)
    all_counts = np.concatenate(counts) if counts else np.zeros(0, np.int64)
    trained = int(np.count_nonzero(all_counts))
    return Seen(
        document=hit.document,
        hash=hit.hash,
        side=_side(hit.places, bool(hit.dropped)),
        why=hit.dropped,
        tokens=len(all_counts) + held_out,
        trained_tokens=trained,
        times=float(all_counts.sum()) / max(trained, 1),
        corpus=str(corpus.path),
        through=through,
    )


def _counts(corpus: Corpus, exposures: Sequence[Exposure], document: int) -> npt.NDArray[np.int64]:
    """Times that each token of a training document was trained on, without its <|endoftext|>."""
    split = corpus.split("train")
    start, tokens = int(split.document_starts[document]), int(split.row(document)["tokens"])
    counts = np.zeros(tokens - 1, np.int64)
    for exposure in exposures:
        counts += exposure.counts(start + 1, start + tokens)
    return counts


def _side(places: Sequence[Place], dropped: bool) -> str:
    trains = any(place.train is not None for place in places)
    validates = any(place.validation is not None for place in places)
    if trains:
        return "training and validation" if validates else "training"
    return "validation" if validates else "dropped" if dropped else "absent"


# ---- in words


def _show(sought: Sought, verdicts: Sequence[Verdict]) -> None:
    rows = [cells for verdict in verdicts for cells in _lines(verdict)]
    if rows:
        headers = ["run", "saw it", "document", "of its tokens", "times each", "where it is"]
        out.result_table("", headers, rows, numeric=(3, 4))
    for verdict in verdicts:
        for why in verdict.unknown:
            out.say(f"{verdict.run.path}: {why}.")
    out.say(_closing(sought, verdicts))
    out.say("Looked for as a whole text: parts of it and near duplicates are not found.")


def _closing(sought: Sought, verdicts: Sequence[Verdict]) -> str:
    saw = sum(verdict.saw is True for verdict in verdicts)
    unknown = sum(verdict.saw is None for verdict in verdicts)
    if not verdicts:
        return "There are no runs to look at."
    words = f"{saw:,} of {len(verdicts):,}" if saw else f"None of {len(verdicts):,}"
    words += f" runs saw {sought.word} in training"
    return words + (f"; of {unknown:,} it cannot be told." if unknown else ".")


def _lines(verdict: Verdict) -> list[list[str]]:
    """The run's lines of the table, one for each corpus that has, or dropped, any of the documents."""
    answer = {True: "yes", None: "cannot be told", False: "no"}[verdict.saw]
    corpora = dict.fromkeys(seen.corpus for seen in verdict.seen if seen.side != "absent")
    lines = [_cells([seen for seen in verdict.seen if seen.corpus == corpus], verdict) for corpus in corpora]
    if not lines and verdict.saw is None:
        lines = [["", "", "", ""]]
    return [
        [*(("", "") if number else (str(verdict.run.path), answer)), *x] for number, x in enumerate(lines)
    ]


def _cells(every: Sequence[Seen], verdict: Verdict) -> list[str]:
    """Document, share of its tokens, times, where: of the documents that were looked for in one corpus."""
    seen = [s for s in every if s.side != "absent"]
    tokens, trained = sum(s.tokens for s in seen), sum(s.trained_tokens for s in seen)
    times = sum(s.trained_tokens * s.times for s in seen) / max(trained, 1)
    names = [s.document for s in seen]
    count = f"{len(names):,} of {len(every):,}: " if len(every) > 1 else ""
    sides = list(dict.fromkeys(s.side + (f" ({s.why})" if s.why else "") for s in seen))
    through = [name for name in seen[0].through if name != str(verdict.run.path)]
    return [
        count + _first(names),
        f"{trained / tokens:.1%}".replace("%", " %") if tokens else "",
        f"{times:.2f}" if trained else "",
        _first(sides) + (f", through {', '.join(through)}" if through else ""),
    ]


def _first(words: Sequence[str]) -> str:
    return ", ".join(words[:NAMED]) + (", …" if len(words) > NAMED else "")
