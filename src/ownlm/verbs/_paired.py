"""Which of several models predicts the same held-out text better: the difference on the same pieces of it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ownlm.console import output as out
from ownlm.corpus.shards import Corpus, Split
from ownlm.locate import Run
from ownlm.verbs._lineage import adapter_base

if TYPE_CHECKING:
    from ownlm.loaded import LoadedModel

QUICK_FLOPS = 2e12  # without --paired; less than a minute for one slow core
BLOCK_BYTES = 1024  # what is resampled when there are few documents: the same bytes for every tokenizer
WINDOWS = 2  # times a token is computed: windows advance by half of themselves

Sums = npt.NDArray[np.float64]


class Units(NamedTuple):
    """The held-out text cut into what is resampled.

    Args:
        kind: "documents", or "blocks of 1,024 bytes" with fewer than 20 of them.
        bytes: of each, float64 [units].
    """

    kind: str
    bytes: Sums


def same_held_out_text(corpora: Sequence[Corpus]) -> bool:
    """Whether the validation splits hold the same documents in the same order, whatever their tokens."""
    if len({corpus.hash for corpus in corpora}) == 1:
        return True
    splits = [corpus.split("validation") for corpus in corpora]
    sizes = splits[0].document_bytes
    if not all(np.array_equal(sizes, split.document_bytes) for split in splits[1:]):
        return False
    return len({_text_digest(split) for split in splits}) == 1


def _text_digest(split: Split) -> bytes:
    digest = hashlib.sha256()
    for number in range(split.num_documents):
        digest.update(split.corpus.tokenizer.decode_bytes(split.document(number)[1:]))
    return digest.digest()


def why_not(runs: Sequence[Run], corpora: Sequence[Corpus | None], wanted: bool | None) -> str:
    """Why differences are not measured; "" when they are.

    Args:
        wanted: `--paired`; None: when it is quick.
    """
    if wanted is False:
        return "not asked for (--no-paired)"
    for run, corpus in zip(runs, corpora):
        if not any(run.path.glob("model*.safetensors")):
            return (
                f"{run.path} has no finished model"
                if adapter_base(run.path) is None
                else f"{run.path} is an adapter"
            )
        if corpus is None:
            return f"the corpus of {run.path} is gone or was made anew"
    found = [corpus for corpus in corpora if corpus is not None]
    if not all(corpus.split("validation").num_bytes for corpus in found):
        return "there is no held-out text"
    if not same_held_out_text(found):
        return "the runs have different held-out text"
    flops = sum(_flops(run, corpus) for run, corpus in zip(runs, found))
    if wanted is None and flops > QUICK_FLOPS:
        return f"it would take {flops:.1g} floating-point operations; --paired does it"
    return ""


def _flops(run: Run, corpus: Corpus) -> float:
    """Of one pass over the held-out text, forward only: two for each weight and token (Kaplan et al. 2020, §2.1)."""
    parameters = int((run.facts.get("model") or {}).get("parameters") or 0)
    return 2.0 * WINDOWS * parameters * corpus.split("validation").num_tokens


def differences(
    runs: Sequence[Run], corpora: Sequence[Corpus], seed: int = 0
) -> tuple[list[dict[str, float]], str]:
    """Bits per byte of each run less those of the first, as metrics, and what was resampled for the intervals.

    Every model reads the text in windows of its own context, as `ownlm evaluate` does.
    """
    from ownlm.evaluation.metrics import ratio_interval

    units = _units(corpora[0].split("validation"))
    bits = []
    for run, corpus in zip(runs, corpora):
        out.say(f"scoring the held-out text with {run.path} …")
        bits.append(_bits(run.path, corpus.split("validation"), units))
    return [ratio_interval(one - bits[0], units.bytes, seed) for one in bits[1:]], units.kind


def _units(split: Split) -> Units:
    from ownlm.evaluation.metrics import FEW

    sizes = split.document_bytes.astype(np.int64)
    if len(sizes) >= FEW:
        return Units("documents", sizes.astype(np.float64))
    blocks: list[int] = []
    for size in sizes.tolist():
        whole, rest = divmod(size, BLOCK_BYTES)
        blocks += [BLOCK_BYTES] * whole + [rest] * (rest > 0)
    return Units(f"blocks of {BLOCK_BYTES:,} bytes", np.array(blocks, np.float64))


def _bits(folder: Path, split: Split, units: Units) -> Sums:
    """Bits that a model needs for each unit, float64 [units]."""
    from ownlm.evaluation.scoring import score_documents
    from ownlm.loaded import load

    loaded = load(folder)
    if units.kind != "documents":
        return _block_bits(loaded, split, len(units.bytes))
    documents = (split.document(number) for number in range(split.num_documents))
    scores = score_documents(loaded.text_scorer, documents, split.document_bytes, context=loaded.context)
    bits: Sums = scores.nll / math.log(2)
    return bits


def _block_bits(loaded: LoadedModel, split: Split, blocks: int) -> Sums:
    """The same for blocks of bytes; a token belongs to the block that its first byte lies in."""
    from ownlm.evaluation.scoring import score_tokens

    bits, first = np.zeros(blocks), 0
    lengths: npt.NDArray[Any] = split.corpus.tokenizer.token_byte_lengths
    for number in range(split.num_documents):
        ids = np.asarray(split.document(number)).astype(np.int64)
        [scored] = score_tokens(loaded.text_scorer, [ids], context=loaded.context)
        starts = np.cumsum(lengths[ids[1:]]) - lengths[ids[1:]]
        count = -(-int(split.document_bytes[number]) // BLOCK_BYTES)
        # A tokenizer that does not give every byte back may count further than the text is long.
        np.add.at(bits, first + np.minimum(starts // BLOCK_BYTES, count - 1), -scored.logprobs / math.log(2))
        first += count
    return bits
