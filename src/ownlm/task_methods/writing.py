"""Free answers of a causal model: translations, summaries, completions, all through one call of the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ownlm.console import output as out
from ownlm.console.errors import Refused, UsageError
from ownlm.continuation import Completion, continue_texts
from ownlm.engine.requests import SamplingSettings
from ownlm.task_methods.asking import Asked, Asker
from ownlm.task_methods.languages import language_name
from ownlm.tasks.items import Item, Pair

if TYPE_CHECKING:
    from ownlm.loaded import LoadedModel

NEW_TOKENS = 256  # of a translation or a summary at most: a long paragraph
LEAST_ROOM = 16  # tokens for an answer: a prompt that leaves fewer is taken as too long


def write(
    loaded: LoadedModel,
    asker: Asker,
    asked: Sequence[Asked],
    *,
    max_new_tokens: int = NEW_TOKENS,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[Completion]:
    """An answer to each prompt, in order.

    Args:
        asker: of the model. asked: prompts that fit the window.
        max_new_tokens: of an answer at most; never more than the window holds.
        temperature: 0: always the most probable token.
    """
    settings = SamplingSettings(
        temperature=temperature, max_new_tokens=max_new_tokens, stop_token_ids=asker.stop_ids, seed=seed
    )
    found: list[Completion | None] = [None] * len(asked)
    for stop in dict.fromkeys(one.stop for one in asked):
        mine = [number for number, one in enumerate(asked) if one.stop == stop]
        prompts = [asker.prompt(asked[number]) for number in mine]
        for piece in continue_texts(loaded.engine, loaded.tokenizer, prompts, [settings] * len(mine), stop):
            if piece.completion is not None:
                found[mine[piece.prompt]] = piece.completion
    return [completion for completion in found if completion is not None]


def fitted(
    loaded: LoadedModel,
    asker: Asker,
    texts: Sequence[str],
    build: Callable[[int, str], Asked],
    *,
    max_new_tokens: int,
    truncate: bool = False,
    where: Callable[[int], str] = "text {}".format,
) -> list[Asked]:
    """Prompts of texts that leave room for an answer in the window.

    Args:
        build: number and text → prompt. truncate: cut texts that are too long at their end, which is counted and said.
        where: number of a text from 0 → what messages call it.

    Raises:
        Refused: an empty text; one that is too long, unless `truncate` is set.
    """
    most = loaded.context - min(LEAST_ROOM, max_new_tokens, loaded.context // 4)
    found, cut = [], 0
    for number, text in enumerate(texts):
        if not text.strip():
            raise Refused("an empty text.", where=where(number))
        asked = build(number, text)
        tokens = len(asker.ids(asked))
        if tokens > most:
            if not truncate:
                raise too_long(where(number), tokens, most, loaded.context)
            asked = _cut(asker, text, partial(build, number), most, where(number))
            cut += 1
        found.append(asked)
    if cut:
        out.warn(f"{cut:,} of {len(texts):,} texts were cut to fit the window of {loaded.context:,} tokens.")
    return found


def too_long(where: str, tokens: int, most: int, context: int) -> Refused:
    """The refusal of a text that leaves no room for an answer."""
    return Refused(
        f"{tokens:,} tokens, what is asked included; the window of {context:,} has room for {most:,} beside an answer.",
        where=where,
        do="--truncate cuts its end off; or shorter texts",
    )


def _cut(asker: Asker, text: str, build: Callable[[str], Asked], most: int, where: str) -> Asked:
    """A prompt of as much of a text's beginning as fits."""
    encoding = asker.loaded.tokenizer.backend.encode(text, add_special_tokens=False)
    around = len(asker.ids(build("")))
    keep = min(most - around, len(encoding.ids))
    while keep > 0:
        asked = build(text[: encoding.offsets[keep - 1][1]])
        over = len(asker.ids(asked)) - most
        if over <= 0:
            return asked
        keep -= over
    raise Refused(f"what is asked takes {around:,} tokens alone; there is room for {most:,}.", where=where)


def write_pairs(
    loaded: LoadedModel,
    task: str,
    texts: Sequence[str],
    languages: tuple[str, str] = ("", ""),
    *,
    max_new_tokens: int = NEW_TOKENS,
    truncate: bool = False,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[tuple[str, str]]:
    """(answer, finish reason) for each text to translate or to summarize.

    Args:
        languages: codes of source and target, "" where unknown.
        truncate: cut texts that are too long; else they are refused.
    """
    asker = Asker(loaded)
    named = trained_languages(loaded, task, languages)
    asked = fitted(
        loaded,
        asker,
        texts,
        lambda _, text: asker.pair(task, text, named),
        max_new_tokens=max_new_tokens,
        truncate=truncate,
    )
    found = write(loaded, asker, asked, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    return [(one.text.strip(), one.finish_reason) for one in found]


def trained_languages(loaded: LoadedModel, task: str, asked: tuple[str, str]) -> tuple[str, str]:
    """The languages to name in the prompt: of a model that was fine-tuned on translations those it was trained with.

    Raises:
        UsageError: other languages were asked for.
    """
    named, wanted = loaded.run.get("languages"), (language_name(asked[0]), language_name(asked[1]))
    if task != "translation" or task not in loaded.taught or not isinstance(named, list) or len(named) != 2:
        return wanted
    trained = language_name(str(named[0])), language_name(str(named[1]))
    for option, code, have, want in zip(("--from", "--to"), named, trained, wanted):
        if want and have and want != have:
            raise UsageError(
                f"{want}; this model was trained from {trained[0]} to {trained[1]}.",
                where=option,
                do=f"{option} {code}",
            )
    return trained


def write_items(
    loaded: LoadedModel,
    task: str,
    items: Sequence[Item],
    *,
    max_new_tokens: int = NEW_TOKENS,
    truncate: bool = False,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """{"text", "finish_reason"} for each row, asked as in training.

    Raises:
        Refused: a row that is too long; conversations are never cut.
    """
    asker = Asker(loaded)
    pairs = [item for item in items if isinstance(item, Pair)]
    if len(pairs) == len(items):
        asked = fitted(
            loaded,
            asker,
            [item.source for item in pairs],
            lambda number, text: asker.pair(task, text, pairs[number].languages),
            max_new_tokens=max_new_tokens,
            truncate=truncate,
            where=lambda number: pairs[number].where,
        )
    else:
        asked = [asker.item(item, task) for item in items]
        most = loaded.context - 1
        for item, one in zip(items, asked):
            tokens = len(asker.ids(one))
            if tokens > most:
                raise too_long(item.where, tokens, most, loaded.context)
    found = write(loaded, asker, asked, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    strip = task in ("translation", "summarization")
    return [
        {"text": one.text.strip() if strip else one.text, "finish_reason": one.finish_reason} for one in found
    ]
