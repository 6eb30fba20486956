"""`prepare`, pass by pass: read and clean, find duplicates, split, tokenize, encode, compare, put in place.

Every pass leaves its result in the output's `.work` folder, under a name that holds a fingerprint of what
went into it. Going on after a kill is running again: what is there is not done again.
"""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ownlm.console.errors import Interrupted, OwnlmError, Refused, UsageError, is_disk_full
from ownlm.console.progress import Progress
from ownlm.corpus import manifest, outcome, overlap, pieces
from ownlm.corpus.catalogue import Catalogue, Decisions
from ownlm.corpus.decide import decide
from ownlm.corpus.discover import Found, SourceFile, discover
from ownlm.corpus.filters import known
from ownlm.corpus.outcome import Outcome
from ownlm.corpus.parts import Part, ending_of
from ownlm.corpus.readers import plan_tasks
from ownlm.corpus.sample import Vocabulary, load_given, make_vocabulary
from ownlm.corpus.settings import PrepareSettings, key
from ownlm.corpus.shards import INDEX_DTYPE, MANIFEST, SPLITS, Corpus, ShardWriter, token_dtype
from ownlm.corpus.staging import StageTask, fingerprint, stage
from ownlm.corpus.train_tokenizer import check_vocab_size
from ownlm.corpus.workers import ONE_PROCESS, Workers, ahead, cores, start_method

EXPANSION = 3  # of compressed text: Chinese in xz has 2.2, English 3 to 4
MIN_BYTES = 1000  # less text than this teaches nothing
AGAIN = "the same command: it goes on where it stopped"


def prepare_corpus(settings: PrepareSettings) -> Outcome:
    """Make the corpus, or go on making it, or recognise that it is there.

    Raises:
        UsageError: a source or an option that does not exist.
        Refused: no readable text, too little of it, an output folder with other content.
        Interrupted: Ctrl-C.
        OwnlmError: the disk is full, a worker died.
    """
    try:
        return _Preparation(settings).run()
    except KeyboardInterrupt:
        what = "interrupted; what was done so far is kept."
        raise Interrupted(what, where=settings.output, do=AGAIN) from None
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise OwnlmError(
            "the disk is full.",
            where=error.filename or settings.output,
            why="The sources are untouched, and what was complete is kept.",
            do=f"free some space, then {AGAIN}",
        ) from None


class _Preparation:
    """One run of `prepare`; each method is a pass."""

    def __init__(self, settings: PrepareSettings) -> None:
        self.settings = settings
        self.work = settings.output / manifest.WORK
        self.final = self.work / "final"
        self.seconds: dict[str, float] = {}
        self.rule, self.reading = settings.rule, settings.reading
        self.validation_tasks = 0

    def run(self) -> Outcome:
        """All passes."""
        self._check_settings()
        self.found, self.validation_files = self._discover()
        self.files = [*self.validation_files, *self.found.files]
        tasks = self._stage_tasks()
        alone = self._alone()
        first = list(itertools.islice(tasks, 1 if alone else 2))  # a missing column is found here
        inputs = manifest.inputs_hash(self.files)
        if manifest.claim(self.settings, inputs):
            return Outcome(Corpus.open(self.settings.output), already=True)
        self.workers = Workers(1 if alone or len(first) < 2 else self.settings.workers or cores())
        try:
            with self.workers:
                self._make(itertools.chain(first, tasks), inputs)
        except (Refused, UsageError):
            manifest.release(self.settings)  # this command cannot be finished; another one may take its place
            raise
        manifest.publish(self.final, self.settings.output)
        return Outcome(Corpus.open(self.settings.output), seconds=self.seconds)

    def _make(self, tasks: Iterator[StageTask], inputs: str | None) -> None:
        """Everything in `final`, ready to be put in place."""
        with self._timed("read and clean"):
            parts = self._read(tasks)
            self._refuse_too_little(parts)
            catalogue = Catalogue(parts, self.work, [file.name for file in self.files])
        decided = key(*(part.path.name for part in parts), self._deciding())
        with self._timed("compare documents"):
            decisions = self._decide(catalogue, decided)
        with self._timed("train the tokenizer"), Progress("tokenizer") as progress:
            progress.line("training the tokenizer …")
            vocabulary = make_vocabulary(self.settings, catalogue, decisions, self.work, decided)
        with self._timed("encode"):
            counts = self._encode(catalogue, decisions, vocabulary)
            corpus = self._shards(counts, vocabulary, decisions)
        with self._timed("overlap"):
            corpus.manifest["overlap"] = self._overlap(corpus)
        sources = outcome.describe_sources(self.found, self.files, parts)
        corpus.manifest["sources"] = sources
        corpus.manifest["steps"] = outcome.steps(self.settings, parts, sources["bytes"], catalogue, decisions)
        outcome.write_dropped(self.final / "dropped.jsonl", catalogue, decisions)
        outcome.write_sources(self.final / "sources.jsonl", self.files, parts)
        manifest.write_json(self.final / manifest.INPUTS, {"sha256": inputs})
        manifest.write_json(self.final / MANIFEST, corpus.manifest)

    def _check_settings(self) -> None:
        """What is typed wrongly must fail before the work."""
        if self.settings.workers is not None and self.settings.workers < 1:
            raise UsageError(
                f"{self.settings.workers} processes cannot work.", where="--workers", do="--workers 1"
            )
        check_vocab_size(self.settings.vocab_size)
        load_given(self.settings)
        for name in self.settings.filters:
            known(name)

    # ---- passes

    def _alone(self) -> bool:
        """Whether one process does all the work."""
        if self.settings.workers:
            return self.settings.workers == 1
        known_sizes = not any(file.stream for file in self.files)
        text = sum(file.size * (1 if file.compression is None else EXPANSION) for file in self.files)
        return known_sizes and text < ONE_PROCESS[start_method()]

    def _discover(self) -> tuple[Found, list[SourceFile]]:
        """The sources, and the validation files, which are not among them."""
        exclude = [*self.settings.exclude, *self._own_output()]
        found = discover(self.settings.sources, exclude=exclude)
        if self.rule.kind != "paths":
            return found, []
        validation = discover(self.rule.paths, exclude=exclude).files
        held_out = {os.path.realpath(file.path) for file in validation}
        found.files = [file for file in found.files if os.path.realpath(file.path) not in held_out]
        return found, validation

    def _own_output(self) -> Iterator[str]:
        """A pattern that leaves the output folder out of a source folder that contains it."""
        output = os.path.realpath(self.settings.output)
        for source in self.settings.sources:
            below = os.path.relpath(output, os.path.realpath(source)) if Path(source).is_dir() else ".."
            if not below.startswith("..") and below != ".":
                yield "/" + below.replace(os.sep, "/")

    def _stage_tasks(self) -> Iterator[StageTask]:
        """The reading tasks, validation files first, each with the place of its part."""
        ids = {file.name: number for number, file in enumerate(self.files)}
        staging = self.settings.staging_key()
        number = 0
        for files in (self.validation_files, self.found.files):
            for task in plan_tasks(files, self.reading):
                names = {file.name for file in task.files}
                path = self.work / "parts" / f"{number:06d}-{fingerprint(task, staging)}"
                yield StageTask(task, {name: ids[name] for name in names}, path, self.settings.cleaning)
                number += 1
            if files is self.validation_files:
                self.validation_tasks = number

    def _read(self, tasks: Iterator[StageTask]) -> list[Part]:
        paths: list[Path] = []

        def noted() -> Iterator[StageTask]:
            for task in tasks:
                paths.append(task.path)
                yield task

        coming: Iterator[StageTask] = noted()
        if self.workers.count == 1 and not any(file.stream for file in self.files):
            coming = ahead(coming)  # decompressing in step with the rest; a pipe may make it wait for ever
        total = sum(file.size for file in self.files)
        with Progress("reading", total) as progress:
            metas = list(self.workers.map(stage, coming, progress.update))
        return [Part(path, meta) for path, meta in zip(paths, metas)]

    def _refuse_too_little(self, parts: list[Part]) -> None:
        documents = sum(part.count for part in parts)
        size = sum(part.meta["bytes"] for part in parts)
        if size >= MIN_BYTES:
            return
        shutil.rmtree(self.work)
        if not any(self.settings.output.iterdir()):
            self.settings.output.rmdir()
        reasons = [
            f"{counts} × {reason}"
            for part in parts
            for step in part.meta["steps"].values()
            for reason, counts in step["dropped"].items()
        ]
        reasons += [f"{group.files} × {group.reason}" for group in self.found.not_read]
        why = f"Not used: {'; '.join(reasons[:6])}." if reasons else ""
        if not documents:
            raise Refused(
                "no readable text.", where=" ".join(self.settings.sources), why=why, do=self._advice(parts)
            )
        what = f"only {size} bytes of text in {documents} document{'s' if documents > 1 else ''}"
        raise Refused(
            f"{what}: too short to learn from (at least {MIN_BYTES:,} are needed).",
            where=" ".join(self.settings.sources),
            why=why,
            do=self._advice(parts),
        )

    def _advice(self, parts: list[Part]) -> str:
        """The command that would read the most of what was not read."""
        not_read = outcome.describe_sources(self.found, self.files, parts)["not_read"]
        helping = [group["do"] for group in not_read if group["do"]]
        return helping[0] if helping else "ownlm prepare --help (what can be read)"

    def _deciding(self) -> str:
        """The key of all settings that the decisions depend on, beside the documents."""
        s = self.settings
        return key(s.near, s.exact_duplicates, s.validation, s.group_by, s.seed, self.validation_tasks)

    def _decide(self, catalogue: Catalogue, decided: str) -> Decisions:
        first = int(catalogue.starts[self.validation_tasks])
        with Progress("comparing") as progress:
            progress.line(
                f"comparing {len(catalogue):,} {'document' if len(catalogue) == 1 else 'documents'} …"
            )
            return Decisions.made(
                self.work / f"decisions-{decided}",
                len(catalogue),
                lambda decisions: decide(decisions, catalogue, self.settings, first),
            )

    def _encode(
        self, catalogue: Catalogue, decisions: Decisions, vocabulary: Vocabulary
    ) -> list[tuple[Path, dict[str, Any]]]:
        folder = self.work / f"pieces-{key(decisions.folder.name, vocabulary.folder.name)}"
        tail = float(decisions.notes["split"]["share"])
        fates = decisions.folder / "fate"
        tasks = list(pieces.plan(catalogue, fates, folder, vocabulary.folder, tail))
        with Progress("encoding", sum(part.meta["bytes"] for part in catalogue.parts)) as progress:
            counts = list(self.workers.map(pieces.encode_piece, tasks, progress.update))
        return [(task.path, count) for task, count in zip(tasks, counts)]

    def _shards(
        self, encoded: list[tuple[Path, dict[str, Any]]], vocabulary: Vocabulary, decisions: Decisions
    ) -> Corpus:
        """The shards in `final`, and their manifest so far."""
        shutil.rmtree(self.final, ignore_errors=True)
        self.final.mkdir()
        corpus = Corpus(self.final, outcome.skeleton(self.settings))
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(vocabulary.folder / name, self.final / name)
        tokenizer = corpus.tokenizer
        dtype = token_dtype(tokenizer.vocab_size)
        shards = {}
        for name in SPLITS:
            writer = ShardWriter(self.final, name, dtype)
            for path, counts in encoded:
                if counts[name][0]:
                    ids = np.fromfile(ending_of(path, f".{name}.ids"), dtype)
                    writer.append(ids, np.fromfile(ending_of(path, f".{name}.index"), INDEX_DTYPE))
            shards[name] = writer.close()
        counted = [counts for _, counts in encoded]
        splits = outcome.describe_splits(counted, shards, str(decisions.notes["split"]["rule"]))
        corpus.manifest |= {
            "sources": {},
            "steps": [],
            "tokenizer": outcome.describe_tokenizer(vocabulary, tokenizer, splits["train"], counted),
            "dtype": dtype.name,
            "splits": splits,
        }
        corpus.manifest["hash"] = manifest.corpus_hash(tokenizer.sha256, splits)
        return corpus

    def _overlap(self, corpus: Corpus) -> dict[str, Any] | None:
        with Progress(
            "comparing train and validation", corpus.split("train").num_tokens, "tokens"
        ) as progress:
            return overlap.measure(corpus, self.work, self.workers, progress.update)

    # ---- around them

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - start
