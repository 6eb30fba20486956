"""The tokenizer of a corpus: trained on a sample of its training text, or given."""

from __future__ import annotations

import json
import mmap
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ownlm.console.errors import UsageError
from ownlm.corpus.catalogue import BOTH, TRAIN, Catalogue, Decisions
from ownlm.corpus.hashes import unit
from ownlm.corpus.settings import PrepareSettings, key
from ownlm.corpus.split import tail_cut
from ownlm.corpus.tokenizer import PREPARED, Tokenizer
from ownlm.corpus.train_tokenizer import SAMPLE_BYTES, train_tokenizer
from ownlm.hub import local_folder

ENOUGH = 1.25  # of the bytes that are needed: a share of the documents is not exactly that share of the bytes


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer in its folder and how it came about.

    Attributes:
        folder: holds `tokenizer.json`.
        type: "bpe", "char", "word" or "given".
        why: one sentence on the size of its vocabulary.
        sample_bytes: of text it was trained on here.
    """

    folder: Path
    type: str
    why: str
    sample_bytes: int


def make_vocabulary(
    settings: PrepareSettings, catalogue: Catalogue, decisions: Decisions, work: Path, decided: str
) -> Vocabulary:
    """Train or copy the tokenizer, unless an earlier start did.

    Args:
        settings: of the corpus.
        catalogue, decisions: the documents and which of them are for training.
        work: where to put it.
        decided: the key of the decisions.
    """
    given = load_given(settings)
    made_of = given.sha256 if given is not None else decided
    folder = work / f"tokenizer-{key(made_of, settings.vocab_size, settings.tokenizer_type, settings.seed)}"
    facts = folder / "facts.json"
    if not facts.exists():
        if given is not None:
            tokenizer, why, sample = given, f"as given by --tokenizer {settings.tokenizer}", 0
        else:
            size = train_bytes(catalogue, decisions)
            kind: Any = settings.tokenizer_type
            texts = sample_texts(catalogue, decisions, size, settings.seed)
            tokenizer = train_tokenizer(texts, vocab_size=settings.vocab_size, kind=kind, corpus_bytes=size)
            assert tokenizer.training is not None
            why, sample = tokenizer.training.why, tokenizer.training.sample_bytes
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        tokenizer.save(partial)
        made = Vocabulary(folder, "given" if given is not None else settings.tokenizer_type, why, sample)
        partial.joinpath(facts.name).write_text(json.dumps(asdict(made), default=str), encoding="utf-8")
        partial.replace(folder)
    found = json.loads(facts.read_text(encoding="utf-8"))
    return Vocabulary(**(found | {"folder": folder}))


def load_given(settings: PrepareSettings) -> Tokenizer | None:
    """The tokenizer of `--tokenizer`, or None.

    Raises:
        UsageError: it is not there, or a vocabulary size was asked for too.
    """
    if settings.tokenizer is None:
        return None
    if settings.vocab_size is not None:
        raise UsageError(
            "a given tokenizer has its own vocabulary.", where="--vocab-size", do="leave out one of the two"
        )
    tokenizer = Tokenizer.load(local_folder(settings.tokenizer, tokenizer_only=True))
    _ = tokenizer.eos_id  # without an end token it cannot separate documents: say so before the work
    if not tokenizer.ours:
        tokenizer.config[PREPARED] = True
    return tokenizer


def train_bytes(catalogue: Catalogue, decisions: Decisions) -> int:
    """UTF-8 bytes of the training documents (tails that are for validation included)."""
    return sum(
        int(catalogue.rows["bytes"][part][_for_training(decisions.fate[part])].sum())
        for part in catalogue.chunks()
    )


def _for_training(fate: np.ndarray) -> np.ndarray:
    return (fate == TRAIN) | (fate == BOTH)


def sample_texts(catalogue: Catalogue, decisions: Decisions, size: int, seed: int) -> Iterator[str]:
    """Training documents in an order that their hashes decide, somewhat more than a tokenizer reads."""
    share = ENOUGH * SAMPLE_BYTES / max(size, 1)
    tail = float(decisions.notes["split"]["share"])
    numbers, documents = [], []
    for part in catalogue.chunks():
        training = np.flatnonzero(_for_training(decisions.fate[part])) + part.start
        number = unit(catalogue.rows["low"][training], seed, "tokenizer sample")
        if number.size and share < 1:
            number, training = number[number < share], training[number < share]
        numbers.append(number)
        documents.append(training)
    order = np.concatenate(documents)[np.argsort(np.concatenate(numbers), kind="stable")]
    if not len(order):  # few and large documents: none fell into the share
        order = np.flatnonzero(_for_training(decisions.fate))
    with ExitStack() as stack:
        texts: dict[Path, mmap.mmap] = {}
        for document in order.tolist():
            path = catalogue.part_of(document)[0].text_path
            if path not in texts:
                file = stack.enter_context(path.open("rb"))
                texts[path] = stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            row = catalogue.rows[document]
            begin = int(row["offset"])
            text = texts[path][begin : begin + int(row["bytes"])]
            if decisions.fate[document] == BOTH:
                text = text[: tail_cut(text, tail)]
            yield text.decode("utf-8")
