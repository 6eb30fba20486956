"""`ownlm score`: the probability of every token; the strangest places of files; candidates ordered."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownlm.console import output as out
from ownlm.console.errors import UsageError
from ownlm.console.settings import verb

if TYPE_CHECKING:
    from ownlm.evaluation.strangest import Place
    from ownlm.loaded import LoadedModel

TOP = 20


@verb
def score(
    model: Any,
    texts: list[str] = [],  # noqa: B006 - pydantic copies the default
    *,
    top: int = TOP,
    rank: str | None = None,
    prompt: str = "",
    per_byte: bool = False,
    stride: int | None = None,
    device: str = "auto",
    json: bool = False,
) -> Any:
    """The probability of every token given what stands before it.

    A TEXT is printed token by token, then the product of the probabilities as a sum of logarithms: what
    training makes as large as it can. A file or folder (a path that exists, or @path) is proof-read: its
    least probable tokens come first, as file:line:column token p expected. - is a text from standard input.
    Everything else is text.

    --rank FILE orders candidates, best first: one a line and a blank line between lists, or JSON lines
    {"candidates": ["…", "…"], "prompt": "…"}.

    A masked model gives each token given what stands before and after it: pseudo-log-likelihoods, not comparable
    with those of other models.

    Args:
        model: a run or checkpoint folder, `last` (the newest run below this folder), or a name on the hub.
        texts: texts, files or folders.
        top: how many places of files to show.
        rank: a file of candidate lists, or - for standard input.
        prompt: with --rank: text that stands before each candidate.
        per_byte: with --rank: order by log-probability a byte, so that length does not decide.
        stride: tokens that the window advances over a long text; half of the context when not given.
        device: cpu, cuda, mps, or auto.
        json: print the result as JSON.
    """
    from ownlm.loaded import load
    from ownlm.verbs._arguments import texts_and_paths

    if top < 1:
        raise UsageError(f"{top} places; it must be at least 1.", where="--top")
    if rank is None and (prompt or per_byte):
        raise UsageError("only works with --rank.", where="--prompt" if prompt else "--per-byte")
    if rank is not None and top != TOP:
        raise UsageError("does nothing with --rank, which shows every candidate.", where="--top")
    if rank is not None and texts:
        raise UsageError("--rank reads a file; TEXT cannot be scored in the same command.", where=texts[0])
    loaded = load(model, device=device)  # loads torch only when there is such a model
    from ownlm.masked import MaskedModel
    from ownlm.verbs import _masked

    if rank is not None:
        return _rank(loaded, rank, prompt, per_byte, stride, json)
    literal, paths = texts_and_paths(texts or ["-"])
    if top != TOP and not paths:
        out.say("--top is about files: every token of a text is shown.")
    if isinstance(loaded, MaskedModel):
        return _masked.score(loaded, literal, paths, stride, top, json=json)
    found: dict[str, Any] = {"model": str(loaded.path)}
    if literal:
        found["texts"] = [_text(loaded, text, stride, show=not json) for text in literal]
    if paths:
        found["places"] = [place.as_dict() for place in _places(loaded, paths, stride, top, show=not json)]
    if out.from_cli():
        if json:
            out.result_json(found)
        else:
            out.next_commands(f"ownlm evaluate {shlex.quote(str(loaded.path))}")
    return found


def _text(loaded: LoadedModel, text: str, stride: int | None, *, show: bool) -> dict[str, Any]:
    """One text, token by token."""
    from ownlm.evaluation.documents import Text, normalised
    from ownlm.evaluation.strangest import places, quoted, score_texts

    source = Text("text", 1, normalised(text))
    _, item, scored = next(
        score_texts(loaded.text_scorer, loaded.tokenizer, [source], context=loaded.context, stride=stride)
    )
    tokens = places(loaded.tokenizer, source, item, scored)
    total = float(scored.logprobs.sum())
    size = len(item.data)
    found = {
        "text": source.text,
        "tokens": [{"token": p.token, "probability": p.probability, "logprob": p.logprob} for p in tokens],
        "logprob": total,
        "bytes": size,
        "bits_per_byte": -total / math.log(2) / size if size else 0.0,
    }
    if show and out.from_cli():
        out.result("probability      log p  token")
        for place in tokens:
            out.result(f"{place.probability:11.3g} {place.logprob:10.4f}  {quoted(place.token)}")
        out.result(f"{_power(total):>11} {total:10.4f}  all {len(tokens):,} tokens together")
        out.say(f"{found['bits_per_byte']:.4f} bits per byte over {size:,} bytes")
    return found


def _power(logprob: float) -> str:
    """exp(logprob) as '3.1e-52', also where a float would be 0."""
    exponent = math.floor(logprob / math.log(10))
    digits = f"{math.exp(logprob - exponent * math.log(10)):.2f}"
    return f"1.00e{exponent + 1}" if digits == "10.00" else f"{digits}e{exponent}"


def _places(
    loaded: LoadedModel, paths: list[str], stride: int | None, top: int, *, show: bool
) -> list[Place]:
    from ownlm.evaluation.documents import read_texts
    from ownlm.evaluation.strangest import strangest_places

    found = strangest_places(
        loaded.text_scorer,
        loaded.tokenizer,
        read_texts(paths),
        context=loaded.context,
        stride=stride,
        top=top,
    )
    if show and out.from_cli():
        for place in found:
            out.result(str(place))
    return found


def _rank(
    loaded: LoadedModel, rank: str, prompt: str, per_byte: bool, stride: int | None, json: bool
) -> list[dict[str, Any]]:
    from dataclasses import replace

    from ownlm.evaluation import ranking
    from ownlm.masked import MaskedModel
    from ownlm.verbs import _masked
    from ownlm.verbs._arguments import read_file, read_stdin

    path = rank.removeprefix("@")
    text = read_stdin() if rank == "-" else read_file(Path(path))
    lists = ranking.read_candidates(text, "standard input" if rank == "-" else path)
    if prompt:
        lists = [one if one.prompt else replace(one, prompt=prompt) for one in lists]
    if isinstance(loaded, MaskedModel):
        return _masked.rank(loaded, lists, stride, per_byte, json=json)
    ranked = ranking.rank(
        loaded.text_scorer, loaded.tokenizer, lists, context=loaded.context, stride=stride, per_byte=per_byte
    )
    found = [{"prompt": one.prompt, "ranked": [r.as_dict() for r in r_]} for one, r_ in zip(lists, ranked)]
    if out.from_cli():
        if json:
            out.result_json(found)
        else:
            out.say("log p a byte, candidate" if per_byte else "log p, candidate")
            out.result("\n\n".join("\n".join(f"{r.score:.4f}\t{r.candidate}" for r in r_) for r_ in ranked))
            changed = sum(r_[0].given != 1 for r_ in ranked)
            out.say(
                f"{len(ranked):,} {'list' if len(ranked) == 1 else 'lists'}; in {changed:,} another candidate than the first one given is best."
            )
    return found
