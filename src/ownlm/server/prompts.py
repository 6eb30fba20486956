"""From the fields of a request to what the engine reads: prompts as token ids, sampling settings, a form."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ownlm.console.errors import OwnlmError
from ownlm.server.errors import ApiError, from_ownlm
from ownlm.server.kinds import MAX_PROMPTS, Message, ResponseFormat, StructuredOutputs
from ownlm.server.limits import Limits
from ownlm.server.served import Served, no_template

if TYPE_CHECKING:
    from ownlm.corpus.tokenizer import Tokenizer
    from ownlm.engine.requests import Constraint, Request

DEFAULT_TOKENS = 16  # of a completion, as at OpenAI
FORBIDS = -100.0  # as a bias


@dataclass(frozen=True)
class Prompt:
    """What the model reads.

    Args:
        ids: all of it.
        uncounted: how many of them the model wants before a text; they are no part of the prompt.
        text: as it is echoed; None: to be made from the ids.
    """

    ids: list[int]
    uncounted: int = 0
    text: str | None = None

    @property
    def tokens(self) -> int:
        """Tokens that are counted."""
        return len(self.ids) - self.uncounted


def text_prompts(model: Served, given: Any, add_special_tokens: bool, param: str = "prompt") -> list[Prompt]:
    """The prompts of a completion or an embedding, one at least.

    Args:
        param: the field that they are in.

    Special tokens that a text spells are special tokens: whoever writes a whole prompt writes those too.
    """
    many = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
    return [_prompt(model, one, add_special_tokens, param) for one in many]


def _prompt(model: Served, given: str | list[int], add_special_tokens: bool, param: str) -> Prompt:
    if isinstance(given, list):
        check_ids(model, given, param)
        return Prompt(given)
    from ownlm.corpus.vocabulary import without_surrogates

    tokenizer = model.tokenizer
    text = without_surrogates(given)
    ids = encode_spelled(tokenizer, text)
    if add_special_tokens:
        return Prompt([*tokenizer.prefix_ids, *ids] or [tokenizer.start_id], int(tokenizer.ours), text)
    if not ids:
        raise ApiError(400, "The text has no token; with add_special_tokens it would have one.", param=param)
    return Prompt(ids, 0, text)


def check_ids(model: Served, ids: Iterable[int], param: str) -> None:
    """Token ids of a request.

    Raises:
        ApiError: 400: one that the model does not have.
    """
    loaded = model.loaded
    size = model.tokenizer.vocab_size if model.driver is None else loaded.engine.backend.vocab_size
    if max(ids, default=0) >= size:
        raise ApiError(400, f"Token ids lie between 0 and {size - 1:,}.", param=param)


def encode_spelled(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a text whose special tokens count, quickly where it spells none."""
    spelled = any(name in text for name in tokenizer.special_ids)
    return list(tokenizer.encode(text, specials=spelled).tolist())


def chat_prompt(model: Served, messages: Sequence[Message], add_generation_prompt: bool) -> Prompt:
    """A conversation as its template writes it; the ids are those of training.

    Raises:
        ApiError: 400: the model has no template, or the template refuses the messages.
    """
    from ownlm.corpus.vocabulary import without_surrogates
    from ownlm.tasks.problems import BadRow

    if model.template is None:
        raise no_template(model)
    turns = [_turn(model, number, message) for number, message in enumerate(messages)]
    try:
        with model.rendering:
            written = model.template.text(turns, add_generation_prompt=add_generation_prompt)
    except BadRow as refusal:
        reason = f": {refusal.detail}" if refusal.detail else ""
        raise ApiError(
            400,
            f"The chat template refuses these messages{reason}.",
            param="messages",
            code="refused_by_template",
        ) from None
    text = without_surrogates(written)
    encoding = model.tokenizer.encode_whole(text, specials=True)
    ids = [index for index, added in zip(encoding.ids, encoding.special_tokens_mask) if not added]
    if not ids:
        raise ApiError(400, "The chat template makes nothing of these messages.", param="messages")
    return Prompt(ids, 0, text)


def _turn(model: Served, number: int, message: Message) -> dict[str, Any]:
    where = f"messages.{number}"
    assert model.template is not None
    if message.content is None and message.role != "assistant":
        raise ApiError(400, f"{where} has no content.", param=f"{where}.content")
    content = message.content or ""
    if isinstance(content, list):
        content = "".join(part.text for part in content)
    turn = {"role": "system" if message.role == "developer" else message.role, "content": content}
    if message.name is not None:
        if "name" not in model.template.source:
            raise ApiError(400, "This model's chat template does not write names.", param=f"{where}.name")
        turn["name"] = message.name
    return turn


def form_of(model: Served, fields: Mapping[str, Any]) -> Constraint | None:
    """What holds the answer to a form, or None.

    Raises:
        ApiError: 400: a form that cannot be followed, with its keyword.
    """
    wanted: ResponseFormat | None = fields["response_format"]
    other: StructuredOutputs | None = fields["structured_outputs"]
    schema, choices = None, None
    if wanted is not None and wanted.type == "json_object":
        schema = {"type": "object"}
    elif wanted is not None and wanted.type == "json_schema":
        schema = wanted.json_schema.schema_
    if other is not None:
        given = [other.json_, other.choice]
        if schema is not None or sum(one is not None for one in given) != 1:
            raise ApiError(
                400,
                "structured_outputs takes one of json and choice, without response_format.",
                param="structured_outputs",
            )
        schema, choices = other.json_, other.choice
    if schema is None and choices is None:
        return None
    name = "response_format" if other is None else "structured_outputs"
    try:
        from ownlm.engine.constrained import json_schema, one_of

        if choices is not None:
            return one_of(model.loaded.vocabulary, choices, where=name)
        assert schema is not None
        return json_schema(model.loaded.vocabulary, schema, where=name)
    except OwnlmError as error:
        raise from_ownlm(error, name) from None


def requests_of(
    model: Served,
    prompts: Sequence[Prompt],
    fields: Mapping[str, Any],
    limits: Limits,
    *,
    new_tokens: int | None,
    default_tokens: int | None,
    seed: int,
    top: int | None,
    echo: bool = False,
    turn_ends: Sequence[int] = (),
) -> list[tuple[Request, list[int]]]:
    """Requests for the engine, each with the numbers of the answers that it gives.

    Args:
        new_tokens: that were asked for; None: `default_tokens`, or as many as the window holds.
        top: the most probable tokens that are listed; None: no log-probabilities are wanted.
        echo: those of the prompt are wanted too.
        turn_ends: further tokens that end an answer.

    Raises:
        ApiError: 400: a prompt or an answer that does not fit, or settings that are not possible.
    """
    from ownlm.engine.requests import Request

    n = fields["n"]
    if len(prompts) * n > MAX_PROMPTS:
        raise ApiError(400, f"{len(prompts)} prompts with n = {n}: at most {MAX_PROMPTS} answers.", param="n")
    for name in ("stop_token_ids", "logit_bias"):
        check_ids(model, map(int, fields[name]), name)
    form = form_of(model, fields)
    # The most probable token has no alternatives: the answers are equal, and the engine gives each of its own.
    each = n if fields["temperature"] == 0 else 1
    found = []
    for number, prompt in enumerate(prompts):
        room = _room(model, prompt, new_tokens, default_tokens, limits)
        scored = (top or 0) if echo and (top is not None or room == 0) else None
        settings = _settings(model, fields, room, seed, top or 0, scored, n // each, turn_ends)
        for copy in range(each):
            first = number * n + copy
            numbers = list(range(first, first + n // each))
            found.append((Request(prompt.ids, settings, model.adapter, form), numbers))
    return found


def _room(model: Served, prompt: Prompt, asked: int | None, default: int | None, limits: Limits) -> int:
    """Tokens of the answer."""
    assert model.driver is not None
    window = model.driver.engine.longest(len(prompt.ids))
    left = window - len(prompt.ids)
    if limits.new_tokens is not None and asked is not None and asked > limits.new_tokens:
        raise ApiError(
            400,
            f"{asked:,} tokens were asked for; this server gives {limits.new_tokens:,} at most.",
            param="max_tokens",
        )
    if left < (1 if asked is None else asked):
        wanted = "" if asked is None else f" and {asked:,} were asked for"
        start = f" and {prompt.uncounted} for the start of a text" if prompt.uncounted else ""
        raise ApiError(
            400,
            f"The context window holds {window:,} tokens; the prompt has {prompt.tokens:,}{start}{wanted}.",
            param="messages" if default is None else "prompt",
            code="context_length_exceeded",
        )
    if asked is not None:
        return asked
    return min(left, *(limit for limit in (default, limits.new_tokens) if limit is not None), left)


def _settings(
    model: Served,
    fields: Mapping[str, Any],
    room: int,
    seed: int,
    top: int,
    scored: int | None,
    n: int,
    turn_ends: Sequence[int],
) -> Any:
    from ownlm.engine.requests import SamplingSettings

    greedy = fields["temperature"] == 0
    stops = [] if fields["ignore_eos"] else [*model.loaded.stop_ids, *turn_ends]
    top_p = fields["top_p"]
    biases = {int(token): value for token, value in dict(fields["logit_bias"]).items()}
    try:
        return SamplingSettings(
            temperature=fields["temperature"],
            # At temperature 0 the filters have no effect by definition; no share at all leaves the best token.
            top_k=0 if greedy else 1 if top_p == 0 else max(0, fields["top_k"]),
            top_p=1.0 if greedy or top_p == 0 else top_p,
            min_p=0.0 if greedy else fields["min_p"],
            repetition_penalty=fields["repetition_penalty"],
            presence_penalty=fields["presence_penalty"],
            frequency_penalty=fields["frequency_penalty"],
            logit_bias={token: -math.inf if value == FORBIDS else value for token, value in biases.items()},
            min_new_tokens=fields["min_tokens"],
            max_new_tokens=room,
            stop_token_ids=tuple(dict.fromkeys([*stops, *fields["stop_token_ids"]])),
            seed=seed % 2**64,
            n=n,
            logprobs=top,
            prompt_logprobs=scored,
        )
    except OwnlmError as error:
        raise from_ownlm(error) from None
