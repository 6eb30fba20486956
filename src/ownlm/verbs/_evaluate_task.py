"""`ownlm evaluate MODEL DATA --task`: how well a model does a task."""

from __future__ import annotations

import json as json_format
import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownlm.console import output as out
from ownlm.console.errors import OwnlmError, Refused, UsageError
from ownlm.verbs._task_figures import show

if TYPE_CHECKING:
    from ownlm.evaluation.tasks.result import TaskResult
    from ownlm.tasks.dataset import DataSet
    from ownlm.tasks.items import Item

ROWS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
HEADS = {
    "ForSequenceClassification": "classification",
    "ForTokenClassification": "ner",
    "ForQuestionAnswering": "qa",
}
SHOWN_PROBLEMS = 3


def evaluate_task(
    loaded: Any,
    data: DataSet,
    typed: Sequence[str],
    *,
    maps: Sequence[str],
    output: Path | None,
    seed: int,
    json: bool,
    max_new_tokens: int | None = None,
    truncate: bool = False,
) -> dict[str, Any]:
    """Predict, measure, write down and show.

    Args:
        loaded: what `ownlm.load` gave. data: rows of one shape. typed: what was typed for them.
        maps: as typed. output: file for one JSON line a row. seed: of the intervals. json: print JSON.
        max_new_tokens, truncate: see `predicting.predictions`.

    Raises:
        Refused: the model does not do this task, or knows none of the labels. UsageError: an option that changes
            nothing for this task, a package that is not installed.
    """
    from ownlm.evaluation.tasks import measure
    from ownlm.predicting import WRITTEN, predictions

    if max_new_tokens is not None and (max_new_tokens < 1 or data.task not in WRITTEN):
        what = "must be at least 1." if max_new_tokens < 1 else f"has no effect: {data.task} writes no text."
        raise UsageError(what, where="--max-new-tokens", do="leave it out")
    items, name = rows_to_measure(data, typed)
    items = _in_labels_of(loaded, items)
    predicted = predictions(loaded, data.task, items, max_new_tokens=max_new_tokens, truncate=truncate)
    result = measure(data.task, items, predicted, seed)
    if output is not None:
        write_rows(output, result)
    report = _store(Path(loaded.path), loaded.run, result, name)
    found = {
        "model": str(loaded.path),
        "data": name,
        "shape": data.shape.name,
        "left_out": sum(data.problems.left_out.values()),
        **result.as_dict(),
        "output": None if output is None else str(output),
        "report": None if report is None else str(report),
    }
    if out.from_cli():
        if json:
            out.result_json(found)
        else:
            rows = "1 row" if len(items) == 1 else f"{len(items):,} rows"
            out.say(f"{name}: {rows} of the shape {data.shape.name}")
            show(result)
            _next(loaded, data.task, typed, maps, output, report)
    return found


def rows_given(
    model: Any,
    typed: Sequence[str],
    task: str | None,
    maps: Sequence[str],
    output: Path | None,
    *,
    asked: bool,
) -> DataSet | None:
    """The rows of a task, read before a model is opened; None when text is to be measured.

    Args:
        model, typed, task, maps, output: as typed. asked: options say that a task is to be measured.

    Raises:
        UsageError: no data, no such file, column or role; an output file that cannot be written. Refused: no shape
            or no task fits, or there is no row.
    """
    from ownlm.evaluation.tasks import require
    from ownlm.tasks.dataset import read_dataset

    if not asked:
        found = _rows_of_a_task(model, typed)
        if found is not None:
            require(found.task)
        return found
    if not typed:
        words = ["ownlm", "evaluate", str(getattr(model, "path", model)), "rows.jsonl"]
        do = shlex.join([*words, *(["--task", task] if task else [])])
        raise UsageError("a task is measured on rows, and none are given.", do=do)
    if output is not None and (output.is_dir() or not output.absolute().parent.is_dir()):
        what = "is a folder; a file is needed." if output.is_dir() else "its folder does not exist."
        raise UsageError(what, where=f"--output {output}", do="--output rows.jsonl")
    data = read_dataset(typed, task=task, maps=maps)
    require(data.task)
    if not any(part.items for part in data.parts):
        raise _nothing(data, typed)
    return data


def rows_to_measure(data: DataSet, typed: Sequence[str]) -> tuple[list[Item], str]:
    """(the rows, what they are called); of data that has parts for training and for testing, those for testing."""
    left_out = sum(data.problems.left_out.values())
    if left_out:
        out.warn(f"{left_out:,} rows are left out:")
        for problem in data.problems.first(SHOWN_PROBLEMS):
            if problem.left_out:
                out.warn(str(problem))
        out.say(f"All of them: ownlm data check {shlex.join(typed)}")
    held_out = [part for part in data.parts if part.held_out and part.items]
    others = [part for part in data.parts if not part.held_out]
    if held_out and others:
        names = shlex.join(part.name for part in held_out)
        rows = sum(len(part.items) for part in others)
        out.say(f"Measured on {names}; {rows:,} rows in files for training are not.")
        return [item for part in held_out for item in part.items], names
    return list(data.items()), shlex.join(typed)


def _rows_of_a_task(model: Any, texts: Sequence[str]) -> DataSet | None:
    """What is measured without `--task`: rows of a task that the model was taught or whose head it has.

    No weights are read. Other models, and files that hold no rows of a task, are measured as text.
    """
    from ownlm.tasks.dataset import read_dataset
    from ownlm.tasks.shapes import SAME_ROWS

    if not texts or not all(text.lower().endswith(ROWS) and Path(text).is_file() for text in texts):
        return None
    tasks = _tasks_of(model)
    if not tasks:
        return None
    try:
        data = read_dataset(texts)
    except Refused:
        return None
    same = {data.task, *(name for name, other in SAME_ROWS.items() if other == data.task)} & tasks
    if not same or not any(part.items for part in data.parts):
        return None
    data.task = data.task if data.task in same else same.pop()
    out.say(
        f"Rows of the shape {data.shape.name} are measured as {data.task}; as text: --task text", style="dim"
    )
    return data


def _tasks_of(model: Any) -> set[str]:
    """Tasks that a model was taught, by run.json, and those of its head, by config.json."""
    from ownlm.json_files import read_object
    from ownlm.loaded import read_run, resolve

    folder = Path(model.path) if hasattr(model, "path") else resolve(model)
    taught = read_run(folder).get("taught", [])
    config = folder / "config.json"
    architectures = read_object(config).get("architectures") if config.is_file() else None
    names = [str(name) for name in architectures] if isinstance(architectures, list) else []
    heads = (task for end, task in HEADS.items() if any(name.endswith(end) for name in names))
    return {str(what) for what in taught if what != "continues text"} | set(heads)


def write_rows(output: Path, result: TaskResult) -> None:
    """One JSON line a row, in the order of the data; the file appears when it is whole."""
    unfinished = output.with_name(output.name + ".part")
    with unfinished.open("w", encoding="utf-8") as file:
        for row in result.rows:
            file.write(json_format.dumps(row.as_dict(), ensure_ascii=False) + "\n")
    unfinished.replace(output)


def _in_labels_of(loaded: Any, items: list[Item]) -> list[Item]:
    """Rows whose labels are the numbers of the model's labels (0, 1, …) get its names, which is said.

    Raises:
        Refused: the model has labels, and no row has one of them.
    """
    from ownlm.evaluation.tasks.labels import refuse_unknown_labels
    from ownlm.tasks.items import Labelled, Tagged

    known = [str(name) for name in getattr(loaded, "labels", ())]
    labelled = [item for item in items if isinstance(item, Labelled)]
    if not known:
        return items
    if not labelled:
        tags = {tag for item in items if isinstance(item, Tagged) for tag in item.tags} - set(known)
        if tags:
            out.warn(f"the model does not know these tags of the rows: {', '.join(sorted(tags)[:10])}.")
        return items
    names = {str(number): name for number, name in enumerate(known)}
    there = {item.label for item in labelled}
    if not there <= set(names) or there & set(known):
        refuse_unknown_labels(labelled, known)
        return items
    shown = sorted(there, key=int)[:10]
    out.say("Labels by the model's numbers: " + ", ".join(f"{n} = {names[n]}" for n in shown))
    return [replace(item, label=names[item.label]) for item in labelled]


def _store(folder: Path, run: dict[str, Any], result: TaskResult, data: str) -> Path | None:
    """Write the figures into a run folder of ours; its report. A folder that cannot be written to is told."""
    from ownlm.console.lock import only_one
    from ownlm.evaluation.tasks.stored import store_scores
    from ownlm.locate import FORMAT, RUN_FILE
    from ownlm.report import write_report

    if run.get("format") != FORMAT or not (folder / RUN_FILE).is_file():
        return None
    try:
        with only_one(folder):
            store_scores(folder, result, data)
            return write_report(folder)
    except (OSError, UsageError) as error:
        why = error.what if isinstance(error, OwnlmError) else error
        out.warn(f"{folder}: the figures are not kept in the run: {why}")
        return None


def _nothing(data: DataSet, typed: Sequence[str]) -> Refused:
    where = data.parts[0].name if data.parts else shlex.join(typed)
    if not data.problems.left_out:
        return Refused("there is no row in it.", where=where, why="A figure needs rows.")
    kind, number = data.problems.left_out.most_common(1)[0]
    problem = next(each for each in data.problems.kept if each.kind == kind and each.left_out)
    return Refused(
        f"none of {data.rows:,} rows can be used.",
        where=problem.where,
        why=f"Of {number:,} of them: {kind}. {problem.fix}",
        do=f"ownlm data check {shlex.join(typed)}",
    )


def _next(
    loaded: Any,
    task: str,
    typed: Sequence[str],
    maps: Sequence[str],
    output: Path | None,
    report: Path | None,
) -> None:
    if report is not None:
        out.say(f"The rows, wrong ones first: {report}")
    words = ["ownlm", "evaluate", os.fspath(loaded.path), *typed, "--task", task]
    words += [word for each in maps for word in ("--map", each)]
    commands = [] if output is not None else [shlex.join([*words, "--output", "rows.jsonl"])]
    out.next_commands(*commands, "ownlm runs")
