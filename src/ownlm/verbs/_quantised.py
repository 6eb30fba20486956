"""What whole numbers cost: bits per byte and perplexity of the same text before and after weights are quantised."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ownlm.console import output as out
from ownlm.console.errors import OwnlmError, Refused, UsageError

if TYPE_CHECKING:
    from ownlm.corpus.shards import Split
    from ownlm.evaluation.documents import Encoded
    from ownlm.evaluation.scoring import DocumentScores
    from ownlm.model.config import ModelConfig

# Of held-out text that nobody asked for: half a minute of one core for both models together.
FLOPS = 2e12
LEAST_TOKENS = 2048
PASSES = 4  # two models, and windows advance by half of themselves


class Sample(NamedTuple):
    """The text that is measured: in words, and its documents; or why there is none."""

    what: str
    documents: list[Encoded]
    missing: str = ""


def quantise(source: Path, target: Path, dtype: str, shard_bytes: int, text: str | None) -> dict[str, Any]:
    """Write the folder, then measure both; what `quantize_folder` returns, with `quality`.

    Raises:
        Refused: a model that cannot be quantised, or a text that holds nothing. UsageError: no such text.
    """
    from ownlm.export.quantize import quantizable, quantize_folder

    sample = _sample(source, quantizable(source), text)
    done = quantize_folder(source, target, dtype, shard_bytes)
    return done | {"quality": _quality(source, target, sample)}


def _sample(source: Path, config: ModelConfig, text: str | None) -> Sample:
    """The text that was named, else held-out text of the run, else the reason why nothing is measured."""
    from ownlm.corpus.tokenizer import Tokenizer
    from ownlm.evaluation.documents import encoded, run_corpus
    from ownlm.loaded import read_run
    from ownlm.verbs._arguments import given_texts

    if text is not None:
        what, given = given_texts([text])
        documents = list(encoded(Tokenizer.load(source), given))
        if not any(len(one.ids) > 1 for one in documents):
            raise Refused("there is no text to measure on.", where="--text", do="a file that holds text")
        return Sample(what, documents)
    try:
        corpus = run_corpus(read_run(source), source)
    except OwnlmError as error:
        return Sample("", [], error.what)
    split = corpus.split("validation")
    most = max(LEAST_TOKENS, int(FLOPS / (2 * PASSES * config.num_parameters())))
    documents = list(_first_tokens(split, most))
    if not documents:
        return Sample("", [], f"{corpus.path} has no held-out text")
    whole = sum(len(one.ids) for one in documents) == split.num_tokens
    cut = "" if whole else "the beginning of "
    return Sample(f"{cut}the held-out split of {corpus.path}", documents)


def _first_tokens(split: Split, most: int) -> Iterator[Encoded]:
    """Documents from the first one on, until they hold so many tokens; the last one is cut."""
    from ownlm.evaluation.documents import Encoded

    left = most
    for number in range(split.num_documents):
        ids = split.document(number)[: left + 1]
        yield Encoded(ids, split.corpus.tokenizer.decode_bytes(ids[1:]))
        left -= len(ids) - 1
        if left <= 0:
            return


def _quality(source: Path, target: Path, sample: Sample) -> dict[str, Any]:
    """Figures of both folders on a sample, and how many times the perplexity became."""
    from ownlm.evaluation.metrics import ratio_interval
    from ownlm.evaluation.scoring import described

    if sample.missing:
        return {"not_measured": sample.missing}
    before, one = _scored(source, sample)
    after, other = _scored(target, sample)
    facts = described(one, seed=0, dtype="", seconds=0.0)
    (nats, tokens, _), (further, _, _) = one.parts(), other.parts()
    return {
        "text": sample.what,
        **{name: facts[name] for name in ("documents", "bytes", "tokens", "interval")},
        "before": before,
        "after": after,
        "perplexity_ratio": ratio_interval(further - nats, tokens, 0, lambda x: float(np.exp(x))),
    }


def _scored(folder: Path, sample: Sample) -> tuple[dict[str, Any], DocumentScores]:
    from ownlm.evaluation.scoring import bits_per_byte, perplexity, score_documents
    from ownlm.loaded import load

    loaded = load(folder, device="cpu")
    backend = loaded.engine.backend
    tokens = sum(len(one.ids) for one in sample.documents)
    out.say(f"measuring {folder} ({backend.dtype}) on {tokens:,} tokens …", style="dim")
    ids, sizes = [one.ids for one in sample.documents], [len(one.data) for one in sample.documents]
    scores = score_documents(loaded.text_scorer, ids, sizes, context=loaded.context)
    figures = {
        "dtype": backend.dtype,
        "backend": backend.name,
        "bits_per_byte": bits_per_byte(scores),
        "perplexity": perplexity(scores),
    }
    return figures, scores


def refuse_options(dtype: str | None, text: str | None, *, is_bin: bool, merges: bool) -> None:
    """Options that do not go together.

    Raises:
        UsageError: --text without whole numbers, or whole numbers of what is no model folder yet.
    """
    whole = dtype in ("int8", "int4")
    if text is not None and not whole:
        raise UsageError(
            "only with --dtype int8 or int4: what they cost is measured on it.",
            where="--text",
            do="leave it out",
        )
    if whole and (is_bin or merges):
        why = "A .bin file is converted" if is_bin else "An adapter is merged"
        raise UsageError(
            f"{dtype} is made from a model folder.",
            where="--dtype",
            why=f"{why} into one first.",
            do=f"the same command without --dtype, then ownlm export DST DST-{dtype} --dtype {dtype}",
        )
