"""Free answers of a causal model: translations, summaries, completions, all through one call of the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ownlm.console.errors import UsageError
from ownlm.continuation import Completion, continue_texts
from ownlm.engine.requests import SamplingSettings
from ownlm.task_methods.asking import Asked, Asker
from ownlm.task_methods.fitting import LEAST_ROOM, NEW_TOKENS, Tally, fitted
from ownlm.task_methods.languages import language_name
from ownlm.tasks.items import Item, Pair

if TYPE_CHECKING:
    from ownlm.loaded import LoadedModel

STRIPPED = ("translation", "summarization")  # spaces around these mean nothing


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
    tally: Tally | None = None,
) -> list[tuple[str, str]]:
    """(answer, finish reason) for each text to translate or to summarize.

    Args:
        languages: codes of source and target, "" where unknown.
        max_new_tokens: of an answer at most; never more than the window holds.
        truncate: cut texts that are too long; else they are refused.
        temperature: 0: always the most probable token.
        tally: counts what was cut, to be said later; None: it is said here.
    """
    asker, counted = Asker(loaded), tally or Tally()
    named = trained_languages(loaded, task, languages)

    def build(_: int, text: str) -> Asked:
        return asker.pair(task, text, named)

    asked = _fitted(asker, texts, build, max_new_tokens, truncate, counted)
    found = write(loaded, asker, asked, max_new_tokens, temperature=temperature, seed=seed, tally=counted)
    if tally is None:
        counted.say()
    return [(one.text.strip(), one.finish_reason) for one in found]


def write_items(
    loaded: LoadedModel,
    task: str,
    items: Sequence[Item],
    *,
    max_new_tokens: int = NEW_TOKENS,
    truncate: bool = False,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """{"text", "finish_reason"} for each row, asked as in training.

    Raises:
        Refused: a row that is too long; conversations are never cut.
    """
    asker, tally = Asker(loaded), Tally()

    def build(number: int, text: str) -> Asked:
        item = items[number]
        return asker.pair(task, text, item.languages) if isinstance(item, Pair) else asker.item(item, task)

    texts = [item.source if isinstance(item, Pair) else item.where for item in items]
    cut = truncate and all(isinstance(item, Pair) for item in items)
    asked = _fitted(asker, texts, build, max_new_tokens, cut, tally, lambda number: items[number].where)
    found = write(loaded, asker, asked, max_new_tokens, seed=seed, tally=tally)
    tally.say()
    return [
        {"text": one.text.strip() if task in STRIPPED else one.text, "finish_reason": one.finish_reason}
        for one in found
    ]


def write(
    loaded: LoadedModel,
    asker: Asker,
    asked: Sequence[Asked],
    max_new_tokens: int,
    *,
    temperature: float = 0.0,
    seed: int = 0,
    tally: Tally,
) -> list[Completion]:
    """An answer to each prompt, in order; the prompts fit the window."""
    settings = SamplingSettings(
        temperature=temperature, max_new_tokens=max_new_tokens, stop_token_ids=asker.stop_ids, seed=seed
    )
    found: dict[int, Completion] = {}
    for stop in dict.fromkeys(one.stop for one in asked):
        mine = [number for number, one in enumerate(asked) if one.stop == stop]
        prompts = [asker.prompt(asked[number]) for number in mine]
        for piece in continue_texts(loaded.engine, loaded.tokenizer, prompts, [settings] * len(mine), stop):
            if piece.completion is not None:
                found[mine[piece.prompt]] = piece.completion
    tally.cut_answers += sum(one.finish_reason == "length" for one in found.values())
    return [found[number] for number in range(len(asked))]


def trained_languages(loaded: LoadedModel, task: str, asked: tuple[str, str]) -> tuple[str, str]:
    """The languages to name in the prompt: of a model that was fine-tuned on translations those it was trained with.

    Raises:
        UsageError: other languages were asked for.
    """
    data, wanted = loaded.run.get("data"), (language_name(asked[0]), language_name(asked[1]))
    named = data.get("languages") if isinstance(data, dict) else None
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


def _fitted(
    asker: Asker,
    texts: Sequence[str],
    build: Callable[[int, str], Asked],
    max_new_tokens: int,
    truncate: bool,
    tally: Tally,
    where: Callable[[int], str] = "text {}".format,
) -> list[Asked]:
    """Prompts that leave room for an answer."""
    context = asker.loaded.context
    most = context - min(LEAST_ROOM, max_new_tokens, context // 4)
    kept = fitted(
        texts,
        lambda number, text: asker.ids(build(number, text)),
        asker.loaded.tokenizer,
        most,
        truncate=truncate,
        tally=tally,
        where=where,
    )
    return [build(number, text) for number, text in enumerate(kept)]
