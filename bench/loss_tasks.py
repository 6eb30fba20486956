"""The two tasks of time_to_loss.py: their text, the commands of both programs, the clock and the score."""

from __future__ import annotations

import argparse
import json
import lzma
import math
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

import nanogpt_side
import ownlm
from ownlm.corpus.shards import Corpus
from ownlm.evaluation.documents import normalised
from ownlm.evaluation.metrics import Metric, ratio_interval
from ownlm.evaluation.scoring import DocumentScores, score_documents
from ownlm.machine.cpu import num_cores
from ownlm.training.log import read_log

LETTERS_OF_CONTEXT = 64  # nanoGPT's model of A has no more
SCORED_CHARACTERS = 110_000  # of each book


@dataclass
class Figure:
    """One trained model.

    Args:
        budget: what the program was told. round: which repetition.
        seconds: from the command to the written model. steps: updates of that model.
        nats, sizes: of each scored unit (blocks of 256 letters in A, books in B); `sizes` in letters or bytes.
        measured: when, to the minute.
    """

    program: str
    budget: str
    round: int
    seconds: float
    steps: int
    nats: list[float]
    sizes: list[float]
    measured: str

    def score(self, unit: float) -> Metric:
        """Σ nats / Σ sizes / unit with its 95 % interval."""
        return ratio_interval(np.array(self.nats) / unit, np.array(self.sizes), 0)


class Task:
    """What A and B have in common: the work folder, the clock, the scored text."""

    name, unit, measure = "", 1.0, ""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.work: Path = options.work / self.name
        self.work.mkdir(parents=True, exist_ok=True)
        self.theirs = self.work / "nanogpt"
        self.threads: int = options.threads or num_cores()
        self.environment = os.environ | {"OMP_NUM_THREADS": str(self.threads)}
        self.corpus = self.work / "corpus"
        if options.only != "ours":
            nanogpt_side.stage(options.nanogpt, self.theirs)

    def prepare(self, *arguments: str) -> None:
        """The corpus, once for a work folder."""
        if not (self.corpus / "corpus.json").exists():
            command = [sys.executable, "-m", "ownlm", "prepare", *arguments, "-o", str(self.corpus), "-q"]
            subprocess.run(command, check=True)
        self.tokenizer = Corpus.open(self.corpus).tokenizer

    def train_ours(self, seconds: float, turn: int) -> Figure:
        """The command as typed."""
        run = self.work / f"ours-{seconds:g}s-{turn}"
        shutil.rmtree(run, ignore_errors=True)
        command = [sys.executable, "-m", "ownlm", "pretrain", str(self.corpus), "-o", str(run)]
        command += ["--minutes", f"{seconds / 60:.6f}", "--seed", str(turn)]
        command += ["--threads", str(self.options.threads)] if self.options.threads else []
        environment = {name: value for name, value in self.environment.items() if name != "OMP_NUM_THREADS"}
        started = time.time()
        subprocess.run(command, check=True, env=environment)
        taken = nanogpt_side.written_at(run / "model.safetensors") - started
        model = ownlm.load(run)
        steps = sum(line["kind"] == "step" for line in read_log(run / "log.jsonl"))
        return self.figure("ownlm", f"{seconds:g} s", turn, taken, steps, self.scored(model.model, ours=True))

    def train_theirs(self, budget: str, turn: int) -> Figure:
        """One run of train.py."""
        started = nanogpt_side.train(
            self.theirs, f"out-{budget}", self.their_options(budget), self.environment
        )
        taken = nanogpt_side.written_at(self.theirs / f"out-{budget}" / "ckpt.pt") - started
        model, steps = nanogpt_side.load(self.theirs, f"out-{budget}")
        return self.figure("nanoGPT", budget, turn, taken, steps, self.scored(model, ours=False))

    def figure(
        self, program: str, budget: str, turn: int, seconds: float, steps: int, scores: DocumentScores
    ) -> Figure:
        """A trained and scored model as a row."""
        nats, sizes = self.units(scores)
        now = datetime.now().isoformat(sep=" ", timespec="minutes")
        return Figure(program, budget, turn, seconds, steps, nats.tolist(), sizes.tolist(), now)

    def their_budgets(self) -> list[str]:
        raise NotImplementedError

    def their_options(self, budget: str) -> dict[str, Any]:
        raise NotImplementedError

    def scored(self, model: Any, *, ours: bool) -> DocumentScores:
        raise NotImplementedError

    def units(self, scores: DocumentScores) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError


class Letters(Task):
    """A."""

    name, unit, measure = "A", 1.0, "nats a letter"

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        text = options.train.read_text(encoding="utf-8")
        border = int(len(text) * 0.9)
        for name, part in (("train", text[:border]), ("validation", text[border:])):
            (self.work / f"{name}.txt").write_text(part, encoding="utf-8")
        held_out = ["--validation", str(self.work / "validation.txt")]
        self.prepare(str(self.work / "train.txt"), "--tokenizer-type", "char", *held_out)
        # One letter before the first one that is scored: both programs predict all of them from text.
        self.held_out = text[border - 1 :]
        letters = sorted(set(text))
        self.numbers = {letter: number for number, letter in enumerate(letters)}
        if options.only != "ours":
            ids = np.array([self.numbers[letter] for letter in text])
            nanogpt_side.write_data(self.theirs, ids[:border], ids[border:], len(letters))

    def their_budgets(self) -> list[str]:
        return [f"{self.options.iterations}-iterations"]

    def their_options(self, budget: str) -> dict[str, Any]:
        return nanogpt_side.shakespeare_options(self.options.iterations)

    def scored(self, model: Any, *, ours: bool) -> DocumentScores:
        if ours:
            ids = self.tokenizer.encode(self.held_out)
        else:
            ids = np.array([self.numbers[letter] for letter in self.held_out])
        assert len(ids) == len(self.held_out), "not one token a letter"
        window, step = LETTERS_OF_CONTEXT, LETTERS_OF_CONTEXT // 2
        return score_documents(model, [ids], [len(ids) - 1], context=window, stride=step)

    def units(self, scores: DocumentScores) -> tuple[np.ndarray, np.ndarray]:
        return scores.block_nll, scores.block_tokens


class Books(Task):
    """B."""

    name, unit, measure = "B", math.log(2), "bits a byte"

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        vocabulary = ["--vocab-size", str(options.vocab_size)]
        self.prepare(str(options.train), *vocabulary, "--validation", str(options.validation))
        opened = lzma.open if options.validation.suffix == ".xz" else open
        with opened(options.validation, "rt", encoding="utf-8") as lines:
            books = [normalised(json.loads(line)["text"])[:SCORED_CHARACTERS] for line in lines]
        start = self.tokenizer.eos_id
        self.documents = [np.array([start, *ids]) for ids in self.tokenizer.encode_batch(books)]
        self.bytes = [len(book.encode()) for book in books]
        if options.only != "ours":
            splits = [Corpus.open(self.corpus).split(name) for name in ("train", "validation")]
            train, held_out = (split.read(0, split.num_tokens) for split in splits)
            nanogpt_side.write_data(self.theirs, train, held_out, self.tokenizer.vocab_size)

    def their_budgets(self) -> list[str]:
        return [f"{size}-{self.options.seconds:g}s" for size in self.options.sizes]

    def their_options(self, budget: str) -> dict[str, Any]:
        layers, width = (int(number) for number in budget.split("-")[0].split("x"))
        found, one = nanogpt_side.iterations_in(
            self.options.seconds, layers, width, self.theirs, self.environment
        )
        print(
            f"nanoGPT {layers} × {width}: {one:.3f} s an iteration, so {found:,} iterations", file=sys.stderr
        )
        return nanogpt_side.book_options(layers, width, found)

    def scored(self, model: Any, *, ours: bool) -> DocumentScores:
        context = model.config.max_position_embeddings if ours else model.context
        return score_documents(model, self.documents, self.bytes, context=context)

    def units(self, scores: DocumentScores) -> tuple[np.ndarray, np.ndarray]:
        return scores.nll, scores.bytes
