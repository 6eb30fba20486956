"""`ownlm generate`: continue a text."""

from __future__ import annotations

import inspect
import shlex
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from ownlm.console import output as out
from ownlm.console.errors import UsageError
from ownlm.console.settings import verb

if TYPE_CHECKING:
    from ownlm.continuation import Completion, Piece
    from ownlm.loaded import LoadedModel


@verb
def generate(
    model: Any,
    prompts: list[str] = [],  # noqa: B006 - pydantic copies the default
    *,
    max_length: int | None = None,
    max_new_tokens: int | None = None,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    presence_penalty: float = 0.0,
    frequency_penalty: float = 0.0,
    min_new_tokens: int = 0,
    schema: str | dict[str, Any] | None = None,
    choices: list[str] = [],  # noqa: B006
    regex: str | None = None,
    stop: list[str] = [],  # noqa: B006
    seed: int | None = None,
    num_return_sequences: int = 1,
    completion_only: bool = False,
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16", "int8", "int4"] = "auto",
    json: bool = False,
) -> str | list[str]:
    """Continue a text.

    Without PROMPT, or with -, the prompt is read from standard input (without the line end that echo adds);
    @file reads a file; everything else is text, "" too: then the model begins a document of its own. Prompt
    and continuation go to standard output as they are written, everything else to standard error. Several
    prompts, or --num-return-sequences, are computed together and printed one after another.

    A masked model (BERT, RoBERTa) fills each [MASK] or <mask> of the text with the most probable token; the best
    candidates go to standard error. Options of sampling are refused then.

    Args:
        model: a run or checkpoint folder, `last` (the newest run below this folder), or a name on the hub.
        prompts: the text to continue.
        max_length: tokens of prompt and answer together at most.
        max_new_tokens: tokens of the answer at most; 200 without either; never more than the window holds.
        temperature: 0 always takes the most probable token; above 0 samples, the higher the more surprising.
        top_k: sample from the k most probable tokens only; 0: from all. With a masked model: candidates shown.
        top_p: sample from the smallest set of tokens that together reach this probability.
        min_p: leave out tokens less probable than this share of the most probable one.
        repetition_penalty: above 1 makes tokens that were seen less probable.
        presence_penalty: taken from the logit of every token that the answer holds already.
        frequency_penalty: taken from a token's logit once for each time that the answer holds it.
        min_new_tokens: tokens of the answer at least; the model cannot end the text before.
        schema: a JSON schema, as a file or as it is typed: the answer is JSON that it accepts.
        choices: the answer is one of these texts: "yes,no", or repeated for texts that hold a comma.
        regex: the answer is a text that this regular expression matches as a whole, such as "[0-9]{4}-[0-9]{2}".
        stop: end when this text appears, which is not printed; may be repeated.
        seed: of the draws; the same seed gives the same text. Drawn and shown when not given.
        num_return_sequences: texts for each prompt.
        completion_only: print what is new, without the prompt.
        device: cpu, cuda, mps, or auto.
        dtype: float32, bfloat16, int8, int4 (on a CPU), or auto: as the model is stored.
        json: print texts, token counts, finish reasons and seed as JSON.
    """
    from ownlm.loaded import draw_seed, load
    from ownlm.verbs._arguments import read_argument, read_schema

    if num_return_sequences < 1:
        what = f"{num_return_sequences} texts; it must be at least 1."
        raise UsageError(what, where="--num-return-sequences")
    loaded = load(model, device=device, dtype=dtype)  # loads torch only when there is such a model
    from ownlm.masked import MaskedModel

    texts = [read_argument(prompt) for prompt in prompts or ["-"]]
    if isinstance(loaded, MaskedModel):
        from ownlm.verbs import _masked

        _masked.refuse_options(
            generate,
            max_length=max_length,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
            min_new_tokens=min_new_tokens,
            schema=schema,
            choices=choices,
            regex=regex,
            stop=stop,
            seed=seed,
            num_return_sequences=num_return_sequences,
            completion_only=completion_only,
        )
        return _masked.fill(loaded, texts, top_k, json=json)
    drawn = draw_seed() if seed is None else seed
    sampling: dict[str, Any] = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "presence_penalty": presence_penalty,
        "frequency_penalty": frequency_penalty,
        "min_new_tokens": min_new_tokens,
        "schema": read_schema(schema) if isinstance(schema, str) else schema,
        "choices": choices[0].split(",") if len(choices) == 1 else choices,
        "regex": regex,
        "stop": stop,
        "seed": drawn,
        "num_return_sequences": num_return_sequences,
        "max_length": max_length,
        "max_new_tokens": max_new_tokens,
    }
    pieces = loaded.stream(texts, **sampling)
    asked = max_length or max_new_tokens or 0
    if asked > loaded.context:
        out.say(f"The context window holds {loaded.context:,} tokens: the text ends there, not at {asked:,}.")
    if temperature == 0 and seed is not None:
        out.say("Temperature 0 always takes the most probable token: --seed changes nothing.")
    if json and completion_only:
        out.say("--json holds prompt and text apart: --completion-only changes nothing.")
    begin = time.monotonic()
    alone = len(texts) == num_return_sequences == 1
    if out.from_cli() and alone and not json:
        found = _streamed(pieces, "" if completion_only or loaded.answers_alone else texts[0])
    else:
        found = _collected(pieces)
    seconds = time.monotonic() - begin
    apart = completion_only or loaded.answers_alone
    shown = [c.text if apart else c.prompt + c.text for c in found]
    if out.from_cli():
        if json:
            out.result_json(_document(loaded, found, sampling, seconds))
        elif not alone:
            for text in shown:
                out.result(text, end="\n\n")
        _closing(loaded, found, seconds)
        cut = sum(c.finish_reason == "length" for c in found) if schema or choices or regex else 0
        if cut:
            out.warn(
                f"{cut} of {len(found)} answers were cut before their form was complete (--max-new-tokens for more)."
            )
        if seed is None and temperature > 0:
            typed = {**sampling, "schema": schema, "choices": choices}
            again = _again(loaded, prompts, typed, device, dtype, completion_only)
            out.say(f"The same text again: {again}", style="dim")
    return shown[0] if alone else shown


def _streamed(pieces: Iterator[Piece], prompt: str) -> list[Completion]:
    """Print the prompt at once and the rest as it comes."""
    out.result(prompt, end="")
    found = []
    try:
        for piece in pieces:
            out.result(piece.text, end="")
            if piece.completion is not None:
                found.append(piece.completion)
    finally:
        out.result("")
    return found


def _collected(pieces: Iterator[Piece]) -> list[Completion]:
    found = [(piece.prompt, piece.index, piece.completion) for piece in pieces if piece.completion]
    return [completion for _, _, completion in sorted(found, key=lambda entry: entry[:2])]


def _document(
    loaded: LoadedModel, found: list[Completion], sampling: dict[str, Any], seconds: float
) -> dict[str, Any]:
    tokens = sum(c.new_tokens for c in found)
    return {
        "model": str(loaded.path),
        "settings": sampling,
        "seed": sampling["seed"],
        "completions": [completion.as_dict() for completion in found],
        "seconds": seconds,
        "tokens_per_second": tokens / seconds if seconds else 0.0,
    }


def _closing(loaded: LoadedModel, found: list[Completion], seconds: float) -> None:
    """Tokens, speed, and why it ended."""
    tokens = sum(c.new_tokens for c in found)
    rate = f"{tokens:,} tokens in {out.human_seconds(seconds)}, {tokens / max(seconds, 1e-9):,.0f} tokens/s"
    reasons = {
        "stop": "the model ended the text",
        "length": "the length was reached (--max-new-tokens for more)",
        "window": f"the context window of {loaded.context:,} tokens is full",
    }
    ends = sorted({reasons[_reason(loaded, c)] if c.stop is None else f"{c.stop!r} appeared" for c in found})
    out.say(f"{rate}; ended because {' or '.join(ends)}.", style="dim")
    dropped = sum(c.bytes_dropped for c in found)
    if dropped:
        out.say(f"{dropped} bytes of an unfinished character at the end are not shown.", style="dim")


def _reason(loaded: LoadedModel, completion: Completion) -> str:
    prompt = completion.prompt_tokens + int(loaded.tokenizer.ours)
    full = prompt + completion.new_tokens >= loaded.engine.longest(prompt)
    return "window" if completion.finish_reason == "length" and full else completion.finish_reason


def _again(
    loaded: LoadedModel,
    prompts: list[str],
    sampling: dict[str, Any],
    device: str,
    dtype: str,
    completion_only: bool,
) -> str:
    """The command with the seed that was drawn; a prompt that is long or came from a pipe is left out."""
    from ownlm.console.command import option_name

    words = shlex.join(prompts)
    shown = words if 0 < len(words) < 80 else "…"
    options = {**sampling, "device": device, "dtype": dtype, "completion_only": completion_only}
    given: list[str] = []
    for name, parameter in inspect.signature(generate).parameters.items():
        value = options.get(name, parameter.default)
        if name != "seed" and value != parameter.default:
            for one in value if isinstance(value, list) else [value]:
                given += [option_name(name)] if one is True else [option_name(name), shlex.quote(str(one))]
    place = shlex.quote(str(loaded.path))
    return " ".join(["ownlm generate", place, shown, *given, "--seed", str(sampling["seed"])])
