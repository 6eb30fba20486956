"""`ownlm summarize`: what documents say, in short."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from ownlm.console.settings import verb


@verb
def summarize(
    model: Any,
    texts: list[str] = [],  # noqa: B006 - pydantic copies the default
    *,
    max_new_tokens: int | None = None,
    truncate: bool = False,
    output: Path | None = None,
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16", "int8", "int4"] = "auto",
    json: bool = False,
) -> list[dict[str, str]]:
    """Summarize documents.

    A file is one document. @file and - (standard input) hold one document a line, a file that ends in .jsonl one JSON
    string or {"document": "…"} a line. Everything else is a document as it is typed. Line n of the result belongs to
    line n of the input.

    Args:
        model: a run or checkpoint folder, `last` (the newest run below this folder), or a name on the hub.
        texts: files or texts to summarize.
        max_new_tokens: tokens of a summary at most; 256 when neither this nor the model's own settings say it.
        truncate: cut documents that do not fit the model's window, which is counted; else they are refused.
        output: write the summaries into this file as they are done; JSON lines where it ends in .jsonl.
        device: cpu, cuda, mps, or auto.
        dtype: float32, bfloat16, int8, int4 (on a CPU), or auto: as the model is stored.
        json: print or write {"summary_text": "…"} for each document.
    """
    from ownlm.loaded import load
    from ownlm.task_methods.fitting import Tally
    from ownlm.verbs._lines import Job, lines_of, work
    from ownlm.verbs._measured import say_measured

    lines = lines_of(texts, ("document", "article", "source", "text"), files_whole=True)
    loaded = load(model, device=device, dtype=dtype)
    say_measured(loaded, "summarization")
    tally = Tally()
    limit = {} if max_new_tokens is None else {"max_new_tokens": max_new_tokens}
    job = Job(
        lambda batch: loaded.summarize(batch, truncate=truncate, tally=tally, **limit),
        lambda result: str(result["summary_text"]),
        {"summary_text": ""},
    )
    found = work(lines, job, output=output, json=json)
    tally.say()
    return found
