"""What the verbs do with a masked model: fill masks, pseudo-log-likelihoods, figures that say that they are pseudo."""

from __future__ import annotations

import heapq
import inspect
import math
import shlex
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ownlm.console import output as out
from ownlm.console.command import option_name
from ownlm.console.errors import UsageError
from ownlm.evaluation.documents import Text, normalised, read_texts
from ownlm.evaluation.pseudo_figures import NOTE, evaluate_pseudo
from ownlm.evaluation.strangest import Place, quoted, shown
from ownlm.filling import Filled
from ownlm.machine.device import choose_dtype
from ownlm.masked import CANDIDATES, MaskedModel
from ownlm.verbs._figures import baselines, interval, text_line, window_line

if TYPE_CHECKING:
    from ownlm.evaluation.pseudo import TextScores
    from ownlm.evaluation.ranking import CandidateList


def refuse_options(verb: Callable[..., Any], **given: Any) -> None:
    """Refuse options that change nothing with a masked model when they were set.

    Raises:
        UsageError: one of them has another value than the verb's default.
    """
    parameters = inspect.signature(verb).parameters
    for name, value in given.items():
        if value != parameters[name].default:
            raise UsageError(
                "has no effect with a masked model.",
                where=option_name(name),
                why="Each mask gets its most probable token; nothing is drawn or written on.",
                do="leave it out",
            )


def fill(loaded: MaskedModel, prompts: list[str], top: int, *, json: bool) -> str | list[str]:
    """`ownlm generate` with a masked model."""
    begin = time.monotonic()
    filled = [loaded.fill(prompt, top=top or CANDIDATES) for prompt in prompts]
    seconds = time.monotonic() - begin
    if out.from_cli():
        if json:
            found = [one.as_dict() for one in filled]
            out.result_json({"model": str(loaded.path), "filled": found, "seconds": seconds})
        else:
            for one in filled:
                out.result(one.text, end="\n" if len(filled) == 1 else "\n\n")
            for one in filled:
                _show_candidates(one)
    return filled[0].text if len(filled) == 1 else [one.text for one in filled]


def _show_candidates(one: Filled) -> None:
    for number, mask in enumerate(one.masks, 1):
        best = ", ".join(f"{quoted(str(c))} {c.probability:.3g}" for c in mask.candidates)
        out.say(f"mask {number} of {len(one.masks)}: {best}")
    if len(one.masks) > 1:
        out.say("No mask saw what the others were filled with.", style="dim")


def score(
    loaded: MaskedModel, texts: list[str], paths: list[str], stride: int | None, top: int, *, json: bool
) -> dict[str, Any]:
    """`ownlm score TEXT…` with a masked model."""
    found: dict[str, Any] = {"model": str(loaded.path), "note": NOTE}
    if texts:
        found["texts"] = [_text(loaded, text, stride, show=not json) for text in texts]
    if paths:
        strangest = _strangest(loaded, paths, stride, top)
        found["places"] = [place.as_dict() for place in strangest]
        if out.from_cli() and not json:
            for place in strangest:
                out.result(str(place))
    if out.from_cli():
        if json:
            out.result_json(found)
        else:
            out.say(NOTE)
            out.next_commands(f"ownlm evaluate {shlex.quote(str(loaded.path))} FILE")
    return found


def _text(loaded: MaskedModel, text: str, stride: int | None, *, show: bool) -> dict[str, Any]:
    """One text, token by token, each given all the others."""
    source = Text("text", 1, normalised(text))
    scored = loaded.pseudo.score(source.text, stride=stride, top=1)
    places = [_place(loaded, source, scored, index) for index in range(len(scored.logprobs))]
    total = float(scored.logprobs.sum())
    if show and out.from_cli():
        out.result("probability      log p  token, given all others")
        for place in places:
            out.result(f"{place.probability:11.3g} {place.logprob:10.4f}  {quoted(place.token)}")
        out.result(f"{'pseudo':>11} {total:10.4f}  all {len(places):,} tokens together")
    return {
        "text": source.text,
        "tokens": [{"token": p.token, "probability": p.probability, "logprob": p.logprob} for p in places],
        "pseudo_logprob": total,
        "bytes": len(source.text.encode()),
    }


def _strangest(loaded: MaskedModel, paths: list[str], stride: int | None, top: int) -> list[Place]:
    """The least probable tokens of files, first the least; equal ones in reading order."""
    kept: list[tuple[float, int, Place]] = []
    number = 0
    for text in read_texts(paths):
        scored = loaded.pseudo.score(text.text, stride=stride, top=1)
        for index in np.argsort(scored.logprobs, kind="stable")[:top].tolist():
            number += 1
            place = _place(loaded, text, scored, index)
            kept.append((place.logprob, number, place))
        kept = heapq.nsmallest(top, kept, key=lambda entry: entry[:2])
    return [place for _, _, place in kept]


def _place(loaded: MaskedModel, source: Text, scored: TextScores, index: int) -> Place:
    start, end = scored.whole.offsets[index]
    before = scored.whole.text[:start]
    best = zip(scored.top_ids[index].tolist(), scored.top_logprobs[index].tolist())
    expected = [(shown(loaded.tokenizer.token_bytes(i)), math.exp(p)) for i, p in best]
    logprob = float(scored.logprobs[index])
    return Place(
        source.name,
        source.line + before.count("\n"),
        len(before) - before.rfind("\n"),
        scored.whole.text[start:end],
        math.exp(logprob),
        logprob,
        expected,
    )


def rank(
    loaded: MaskedModel, lists: list[CandidateList], stride: int | None, per_byte: bool, *, json: bool
) -> list[dict[str, Any]]:
    """`ownlm score --rank` with a masked model: by the pseudo-log-likelihood of prompt and candidate together."""
    found: list[dict[str, Any]] = []
    for one in lists:
        ranked: list[dict[str, Any]] = []
        for given, candidate in enumerate(one.candidates, 1):
            scored = loaded.pseudo.score(normalised(one.prompt + candidate), stride=stride)
            total, size = float(scored.logprobs.sum()), len(candidate.encode("utf-8", "replace"))
            by = total / max(size, 1) if per_byte else total
            ranked.append(
                {"candidate": candidate, "given": given, "pseudo_logprob": total, "bytes": size, "score": by}
            )
        ranked.sort(key=lambda entry: -entry["score"])  # stable: equal ones keep their order
        found.append({"prompt": one.prompt, "ranked": ranked})
    if out.from_cli():
        if json:
            out.result_json(found)
        else:
            out.say(f"pseudo-log-likelihood{' a byte' if per_byte else ''}, candidate")
            lines = ("\n".join(f"{r['score']:.4f}\t{r['candidate']}" for r in one["ranked"]) for one in found)
            out.result("\n\n".join(lines))
    return found


def evaluate(
    loaded: MaskedModel,
    texts: list[str],
    *,
    stride: int | None,
    batch_size: int | None,
    seed: int,
    dtype: str,
    json: bool,
) -> dict[str, Any]:
    """`ownlm evaluate` with a masked model."""
    import torch

    from ownlm.evaluation.documents import held_out, run_corpus
    from ownlm.verbs._arguments import given_texts

    choose_dtype(dtype, loaded.device)
    module: Any = getattr(loaded.scorer, "inner", loaded.scorer)
    halves = torch.bfloat16 in (next(module.parameters()).dtype, getattr(torch, dtype, None))
    if texts:
        what, documents = given_texts(texts)
    else:
        split = run_corpus(loaded.run, loaded.path).split("validation")
        documents = (item.data.decode() for item in held_out(split))
        what = f"held-out split of {split.corpus.path}"
    figures = evaluate_pseudo(
        loaded.pseudo,
        documents,
        stride=stride,
        batch_size=batch_size,
        seed=seed,
        autocast=halves,
    )
    found = {"model": str(loaded.path), "text": what, **figures}
    if out.from_cli():
        if json:
            out.result_json(found)
        else:
            _show(found)
            path = shlex.quote(str(loaded.path))
            gap = shlex.quote(f"The river runs to the {loaded.mask_token}.")
            out.next_commands(f"ownlm score {path} @FILE", f"ownlm generate {path} {gap}")
    return found


def _show(found: dict[str, Any]) -> None:
    out.say(text_line(found))
    out.result(f"pseudo bits per byte  {interval(found, 'pseudo_bits_per_byte')}   beside {baselines(found)}")
    out.result(f"pseudo loss           {interval(found, 'pseudo_loss')}   nats a token")
    out.result(f"pseudo perplexity     {interval(found, 'pseudo_perplexity')}   a token")
    out.say(found["note"])
    if found["unknown_tokens"]:
        share = found["unknown_tokens"] / found["tokens"]
        out.warn(
            f"{found['unknown_tokens']:,} tokens ({share:.1%}) stand for what the vocabulary lacks: "
            "their bytes are counted, their text is not predicted."
        )
    out.say(window_line(found))
