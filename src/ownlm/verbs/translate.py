"""`ownlm translate`: texts in another language."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from ownlm.console.settings import verb


@verb
def translate(
    model: Any,
    texts: list[str] = [],  # noqa: B006 - pydantic copies the default
    *,
    to: str,
    from_: str | None = None,
    max_new_tokens: int | None = None,
    truncate: bool = False,
    output: Path | None = None,
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16", "int8", "int4"] = "auto",
    json: bool = False,
) -> list[dict[str, str]]:
    """Translate texts.

    A TEXT is translated as it is; @file and - (standard input) hold one text a line, a file that ends in .jsonl one
    JSON string or {"text": "…"} a line. Line n of the result belongs to line n of the input.

    A causal model is asked in words, one that was fine-tuned on translations as it was trained; encoder-decoder models
    (Marian, T5, NLLB, mBART) are told the languages in their own way. The most probable words are taken, or the
    beam search that an encoder-decoder model's own settings ask for.

    Args:
        model: a run or checkpoint folder, `last` (the newest run below this folder), or a name on the hub.
        texts: what to translate.
        to: the language to translate into: a code of ISO 639 (de, zh, pt-BR) or its English name.
        from_: the language of the texts; left out, the model has to see it.
        max_new_tokens: tokens of a translation at most; 256 when neither this nor the model's own settings say it.
        truncate: cut texts that do not fit the model's window, which is counted; else they are refused.
        output: write the translations into this file as they are done; JSON lines where it ends in .jsonl.
        device: cpu, cuda, mps, or auto.
        dtype: float32, bfloat16, int8, int4 (on a CPU), or auto: as the model is stored.
        json: print or write {"translation_text": "…"} for each text.
    """
    from ownlm.loaded import load
    from ownlm.task_methods.fitting import Tally
    from ownlm.task_methods.languages import language_code
    from ownlm.verbs._lines import Job, lines_of, work
    from ownlm.verbs._measured import say_measured

    language_code(to, "--to")
    if from_ is not None:
        language_code(from_, "--from")
    lines = lines_of(texts, ("text", "source", "sentence"))
    loaded = load(model, device=device, dtype=dtype)
    say_measured(loaded, "translation")
    tally = Tally()
    limit = {} if max_new_tokens is None else {"max_new_tokens": max_new_tokens}
    job = Job(
        lambda batch: loaded.translate(batch, to, from_, truncate=truncate, tally=tally, **limit),
        lambda result: str(result["translation_text"]),
        {"translation_text": ""},
    )
    found = work(lines, job, output=output, json=json)
    tally.say()
    return found
