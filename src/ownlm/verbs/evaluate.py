"""`ownlm evaluate`: how well a model predicts text."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ownlm.console import output as out
from ownlm.console.command import option_name
from ownlm.console.errors import UsageError
from ownlm.console.settings import given_settings, verb
from ownlm.verbs._figures import baselines, interval, text_line, window_line

if TYPE_CHECKING:
    from ownlm.evaluation.documents import Encoded
    from ownlm.loaded import LoadedModel


@verb
def evaluate(
    model: Any,
    texts: list[str] = [],  # noqa: B006 - pydantic copies the default
    *,
    task: Literal[
        "chat",
        "completion",
        "classification",
        "sentiment",
        "ner",
        "qa",
        "translation",
        "summarization",
        "text",
    ]
    | None = None,
    map: list[str] = [],  # noqa: B006
    output: Path | None = None,
    max_new_tokens: int | None = None,
    truncate: bool = False,
    stride: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    dtype: Literal["auto", "float32", "bfloat16", "int8", "int4"] = "auto",
    device: str = "auto",
    json: bool = False,
) -> dict[str, Any]:
    """How well a model predicts text that it has not seen, or does a task on rows of data.

    Without TEXT it reads the held-out split of the corpus that the run was trained on. TEXT: files and
    folders (@file, too), - for standard input, or the text itself. Bits per byte compare models with
    different tokenizers; loss and perplexity count tokens and do not. Each figure has a 95 % interval
    (documents, or with fewer than 20 of them blocks of 256 tokens, are drawn again with replacement) and
    stands beside what gzip -9 and xz -9 make of the same text in one piece. The figures of a masked model are
    called pseudo and compare with those of masked models only.

    `ownlm evaluate MODEL DATA --task TASK` lets the model do a task on rows (jsonl, json, csv, tsv, parquet) and
    measures its answers, beside what something simple reaches. A run keeps the figures in its run.json, and shows
    the rows that went wrong in its report.html.

    Args:
        model: a run or checkpoint folder, `last` (the newest run below this folder), or a name on the hub.
        texts: what to evaluate on.
        task: what the rows are for; text: none, the text of the files. When not given, text, or for rows of a task
            that the model was taught that task.
        map: column=role for columns of other names, such as abstract=document (may be repeated).
        output: a file for what came of each row: input, expected, got, right or a figure, file:line.
        max_new_tokens: of an answer that is written, at most.
        truncate: cut rows that are longer than the model's window; without it they are refused.
        stride: tokens that the window advances over a long document; half of the context when not given.
        batch_size: windows that torch computes at once; changes speed and memory, not the figures.
        seed: of the intervals.
        dtype: float32, bfloat16 (figures change in the third digit), int8, int4 (on a CPU), or auto: as the model is
            stored.
        device: cpu, cuda, mps, or auto.
        json: print the figures as JSON.
    """
    from ownlm.loaded import load

    task_only = ("map", "output", "max_new_tokens", "truncate")
    if task != "text":
        from ownlm.verbs import _evaluate_task

        asked = task is not None or bool(given_settings() & set(task_only))
        rows = _evaluate_task.rows_given(model, texts, task, map, output, asked=asked)
        if rows is not None:
            _refuse_options(("stride", "batch_size"), "is for measuring text, not for the rows of a task.")
            loaded = load(model, device=device, dtype=dtype)
            return _evaluate_task.evaluate_task(
                loaded, rows, texts, maps=map, output=output, seed=seed, json=json,
                max_new_tokens=max_new_tokens, truncate=truncate,
            )  # fmt: skip
    else:
        _refuse_options(task_only, "is for the rows of a task, not for text.")
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"{batch_size} windows at once; it must be at least 1.", where="--batch-size")
    loaded = load(model, device=device, dtype=dtype)  # loads torch only when there is such a model
    from ownlm.evaluation.evaluate import evaluate_documents
    from ownlm.machine.device import choose_dtype
    from ownlm.masked import MaskedModel

    if isinstance(loaded, MaskedModel):
        from ownlm.verbs import _masked

        return _masked.evaluate(
            loaded, texts, stride=stride, batch_size=batch_size, seed=seed, dtype=dtype, json=json
        )
    backend = loaded.engine.backend
    if backend.name == "torch":
        choose_dtype(dtype, str(backend.device))
    elif batch_size is not None:
        out.say(
            "--batch-size changes nothing: windows go through the engine, as many at once as it has room for."
        )
    if dtype not in ("auto", backend.dtype):
        raise UsageError(f"the model is open in {backend.dtype} already.", where="--dtype", do="leave it out")
    what, documents, size = _documents(loaded, texts)
    figures = evaluate_documents(
        loaded.text_scorer,
        documents,
        context=loaded.context,
        stride=stride,
        batch_size=batch_size,
        seed=seed,
        dtype=backend.dtype,
        total_bytes=size,
    )
    found = {"model": str(loaded.path), "text": what, **figures}
    if out.from_cli():
        if json:
            out.result_json(found)
        else:
            _show(found)
            path = shlex.quote(str(loaded.path))
            out.next_commands(f"ownlm score {path} @FILE", f"ownlm generate {path} PROMPT")
    return found


def _refuse_options(names: tuple[str, ...], why: str) -> None:
    for name in names:
        if name in given_settings():
            raise UsageError(why, where=option_name(name), do="leave it out")


def _documents(loaded: LoadedModel, texts: list[str]) -> tuple[str, Iterable[Encoded], int | None]:
    """(what is read, in words; the documents; their bytes when known)."""
    from ownlm.evaluation.documents import encoded, held_out, run_corpus
    from ownlm.verbs._arguments import given_texts

    if not texts:
        corpus = run_corpus(loaded.run, loaded.path)
        split = corpus.split("validation")
        return f"held-out split of {corpus.path}", held_out(split), split.num_bytes
    what, given = given_texts(texts)
    return what, encoded(loaded.tokenizer, given), None


def _show(found: dict[str, Any]) -> None:
    """The figures as lines: each beside its baselines."""
    out.say(text_line(found))
    out.result(f"bits per byte  {interval(found, 'bits_per_byte')}   beside {baselines(found)}")
    out.result(f"loss           {interval(found, 'loss')}   nats a token")
    out.result(f"perplexity     {interval(found, 'perplexity')}   a token")
    out.say(window_line(found))
