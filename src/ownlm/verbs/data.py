"""`ownlm data`: what data for fine-tuning is like, how a model reads it, and data sets to try things out with."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ownlm.console import output as out
from ownlm.console.errors import Refused, UsageError, did_you_mean
from ownlm.console.settings import given_settings, verb

if TYPE_CHECKING:
    from ownlm.tasks.dataset import DataSet

OPTIONS = {
    "check": {"task", "map", "model", "chat_template", "json"},
    "show": {"task", "map", "model", "chat_template", "rows", "json"},
    "example": {"output", "json"},
}


@verb
def data(
    action: Literal["check", "show", "example"],
    sources: list[str] = [],  # noqa: B006 - pydantic copies the default
    *,
    task: Literal[
        "chat", "completion", "classification", "sentiment", "ner", "qa", "translation", "summarization"
    ]
    | None = None,
    map: list[str] = [],  # noqa: B006
    model: str | None = None,
    chat_template: str | None = None,
    rows: int = 3,
    output: Path | None = None,
    json: bool = False,
) -> Any:
    """Look at data for fine-tuning: check it, show how a model reads it, or write an example of it.

    `ownlm data check DATA…` reads rows (jsonl, json, csv, tsv, parquet, two aligned text files), finds out what
    they are from their columns, and reports every row that cannot be used, with its place and what to change.

    `ownlm data show DATA… --model MODEL` prints rows as the model reads them: text, token ids, what is trained.

    `ownlm data example TASK -o DIR` writes a data set offline, made of Python's own source, or of dates and numbers.

    Args:
        action: check, show or example.
        sources: files and folders; with example: the task.
        task: what the rows are for; found from their columns when not given.
        map: column=role for columns of other names, such as abstract=document (may be repeated).
        model: a run, `last`, or a name on the hub: count its tokens, use its chat template.
        chat_template: in place of the model's own: chatml, alpaca, a file with a Jinja template, or none for plain pairs.
        rows: with show: how many.
        output: with example: the folder, example-TASK when not given.
        json: print everything as JSON.

    Returns:
        The report, the rows, or what was written; see docs/data.md.
    """
    _check_options(action)
    if action == "example":
        return _example(sources, output, json)
    if not sources:
        raise UsageError(f"data {action} needs DATA.", do=f"ownlm data {action} rows.jsonl")
    if chat_template is not None and model is None:
        raise UsageError("has no effect without --model.", where="--chat-template", do="--model MODEL")
    if action == "show" and model is None:
        words = shlex.join(["ownlm", "data", "show", *sources])
        raise UsageError("show needs --model: ids and template are the model's.", do=f"{words} --model last")
    from ownlm.tasks.dataset import read_dataset

    found = read_dataset(sources, task=task, maps=map)
    typed = _typed(sources, task, map)
    if action == "show":
        return _show(found, typed, str(model), chat_template, rows, json)
    return _check(found, typed, model, chat_template, json)


def _check_options(action: str) -> None:
    for name in sorted(given_settings() - {"action", "sources"} - OPTIONS[action]):
        option = "--" + name.replace("_", "-")
        raise UsageError(f"has no effect with {action}.", where=option, do="ownlm data --help")


def _typed(sources: list[str], task: str | None, maps: list[str]) -> str:
    """The words behind `ownlm data check` that name this data, to be typed again."""
    words = [
        *sources,
        *(["--task", task] if task else []),
        *(word for each in maps for word in ("--map", each)),
    ]
    return shlex.join(words)


def _check(
    found: DataSet, typed: str, model: str | None, chat_template: str | None, as_json: bool
) -> dict[str, Any]:
    from ownlm.tasks.check import report
    from ownlm.tasks.measure import open_reader
    from ownlm.tasks.print_report import print_report
    from ownlm.tasks.templates import template_option

    anything = any(part.items for part in found.parts)
    reader = open_reader(model, found, chat_template) if model is not None and anything else None
    content = report(found, reader)
    if out.from_cli():
        out.result_json(content) if as_json else print_report(content, found)
    if not content["usable"]:
        raise _nothing(found, typed)
    shown = shlex.quote(model) if model else "last"
    out.next_commands(f"ownlm data show {typed} --model {shown}{template_option(chat_template)}")
    return content


def _nothing(found: DataSet, typed: str) -> Refused:
    """None of the rows can be used: the most frequent reason, and what helps against it."""
    where = found.parts[0].name
    if not found.problems.left_out:
        return Refused("there is no row in it.", where=where, why="Nothing could be trained.")
    kind, number = found.problems.left_out.most_common(1)[0]
    problem = next(problem for problem in found.problems.kept if problem.kind == kind and problem.left_out)
    return Refused(
        f"nothing could be trained: none of {found.rows:,} rows can be used.",
        where=where,
        why=f"Of {number:,} of them: {kind}. {problem.fix}",
        do=f"ownlm data check {typed}   (after the change)",
    )


def _show(
    found: DataSet, typed: str, model: str, chat_template: str | None, number: int, as_json: bool
) -> list[dict[str, Any]]:
    from ownlm.tasks.measure import open_reader
    from ownlm.tasks.show import legend, print_rows, shown_rows

    if number < 1:
        raise UsageError(f"should be 1 or more, not {number}.", where="--rows")
    if not any(part.items for part in found.parts):
        raise _nothing(found, typed)
    reader = open_reader(model, found, chat_template)
    shown = shown_rows(found, reader, number)
    left_out = sum(found.problems.left_out.values())
    if not shown:
        raise _nothing(found, typed)
    content = [{key: row[key] for key in row if key != "spans"} for row in shown]
    if out.from_cli():
        if as_json:
            out.result_json(content)
        else:
            _say_what_is_shown(found, reader.template, left_out)
            out.say(legend())
            print_rows(shown)
    out.next_commands(f"ownlm data check {typed} --model {shlex.quote(model)}")
    return content


def _say_what_is_shown(found: DataSet, template: Any, left_out: int) -> None:
    out.say(f"{found.rows:,} rows of the shape {found.shape.name}, task {found.task}.")
    if left_out:
        out.warn(f"{left_out:,} exceptions: rows that are left out. ownlm data check lists them.")
    if template is not None:
        out.say(f"Chat template: {template.where}, sha256 {template.sha256[:12]}…")


def _example(sources: list[str], output: Path | None, as_json: bool) -> dict[str, Any]:
    from ownlm.tasks.examples.write import EXAMPLES, write_example

    do = f"ownlm data example {next(iter(EXAMPLES))} -o DIR"
    if len(sources) != 1:
        raise UsageError(f"example needs one task: {', '.join(EXAMPLES)}.", do=do)
    task = sources[0]
    if task not in EXAMPLES:
        raise UsageError(
            f'no example for "{task}".{did_you_mean(task, EXAMPLES)}',
            why=f"There are {', '.join(EXAMPLES)}.",
            do=do,
        )
    written = write_example(task, output or Path(f"example-{task}"))
    if out.from_cli():
        if as_json:
            out.result_json(written)
        else:
            out.result(
                f"{written['folder']}: {written['train']:,} rows to train on, {written['validation']:,} held out"
            )
    out.next_commands(f"ownlm data check {shlex.quote(written['folder'])}")
    return written
