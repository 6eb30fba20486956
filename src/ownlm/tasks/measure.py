"""Rows through a model's tokenizer and template: how many tokens they have, how many of them are trained."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownlm.console.errors import UsageError
from ownlm.json_files import read_object
from ownlm.tasks.dataset import DataSet
from ownlm.tasks.items import Chat, Item, Labelled, Pair, Question, Tagged
from ownlm.tasks.lengths import summary
from ownlm.tasks.problems import BadRow
from ownlm.tasks.prompts import as_chat, as_plain
from ownlm.tasks.render import Rendered, render_chat, render_pair
from ownlm.tasks.templates import NO_TEMPLATE, ChatTemplate, find_template

if TYPE_CHECKING:
    from ownlm.corpus.tokenizer import Tokenizer

CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "n_ctx")


@dataclass(frozen=True)
class Reader:
    """What turns rows into token ids.

    Attributes:
        name: the model as it was typed.
        tokenizer: its tokenizer.
        template: its chat template; None for tasks that need none.
        context: tokens that the model takes at most; None when its config does not say.
    """

    name: str
    tokenizer: Tokenizer
    template: ChatTemplate | None
    context: int | None


def open_reader(model: str | os.PathLike[str], data: DataSet, chat_template: str | None) -> Reader:
    """Open a model's tokenizer and template; no weights are read.

    Args:
        model: a run folder, a checkpoint, `last`, or a name on the hub. data: its task says whether a template is
            needed. chat_template: a name of `templates.BUILT_IN` or a file.

    Raises:
        UsageError: no such model or template. Refused: a template is needed and there is none.
    """
    from ownlm.corpus.tokenizer import Tokenizer
    from ownlm.hub import local_folder
    from ownlm.locate import find_run

    folder = find_run(model) if os.fspath(model) == "last" else local_folder(model, tokenizer_only=True)
    tokenizer = Tokenizer.load(folder)
    needed = any(as_chat(item, data.task) is not None for item in data.items())
    template = needed_template(data, tokenizer, folder, chat_template) if needed else None
    return Reader(os.fspath(model), tokenizer, template, _context(folder))


def needed_template(
    data: DataSet, tokenizer: Tokenizer, folder: Path, given: str | None
) -> ChatTemplate | None:
    """The template that conversations go through; None where pairs of texts shall have none ("none").

    Raises:
        UsageError, Refused: see `find_template`; "none" for what is a conversation by itself.
    """
    if given != NO_TEMPLATE:
        return find_template(tokenizer, folder, given)
    if not all(isinstance(item, Pair) for item in data.items()):
        raise UsageError(
            "conversations need a template.",
            where=f"--chat-template {NO_TEMPLATE}",
            why="Without one only pairs of texts can be learnt: translations, summaries.",
            do="--chat-template chatml",
        )
    return None


def _context(folder: Path) -> int | None:
    file = folder / "config.json"
    config = read_object(file) if file.is_file() else {}
    found = next((config[name] for name in CONTEXT_NAMES if name in config), None)
    return found if isinstance(found, int) else None


def rendered(item: Item, task: str, reader: Reader) -> Rendered | None:
    """A row as the model reads it, or None for tasks that train a head on a text.

    Raises:
        BadRow: its template refuses the row, or does not tell where an answer stands.
    """
    chat = as_chat(item, task)
    if chat is not None and reader.template is not None:
        return render_chat(chat, reader.template, reader.tokenizer)
    return render_pair(as_plain(item, task), reader.tokenizer) if isinstance(item, Pair) else None


def measured(data: DataSet, reader: Reader) -> tuple[dict[str, Any], set[int]]:
    """(what `tokens` in the report says, ids of the items that cannot be trained).

    Rows that the template refuses, and those without a trained token, are added to the problems.
    """
    lengths: list[int] = []
    trained = straddling = endless = 0
    refused: set[int] = set()
    counted = True
    for item in data.items():
        try:
            row = rendered(item, data.task, reader)
            if row is not None and not any(row.trained):
                raise BadRow("no trained token", "The template shows no answer of this row.")
        except BadRow as bad:
            data.problems.bad(item.where, bad)
            refused.add(id(item))
            continue
        if row is None:
            counted = False
            lengths.append(len(head_ids(item, reader.tokenizer)))
        else:
            lengths.append(len(row.ids))
            trained += sum(row.trained)
            straddling += row.straddling
            endless += row.endless
    template = reader.template
    return {
        "model": reader.name,
        "tokenizer": reader.tokenizer.sha256,
        "chat_template": None
        if template is None
        else {"from": str(template.where), "sha256": template.sha256},
        "length": summary(lengths),
        "trained": trained if counted else None,
        "straddling": straddling,
        "endless_answers": endless,
        "context": reader.context,
        "longer_than_context": sum(n > reader.context for n in lengths) if reader.context else None,
    }, refused


def head_ids(item: Item, tokenizer: Tokenizer) -> list[int]:
    """Token ids that a head is trained on: the text, or question and context."""
    match item:
        case Labelled():
            parts = [item.text]
        case Tagged():
            parts = [" ".join(item.tokens)]
        case Question():
            parts = [item.question, item.context]
        case Chat() | Pair():
            raise TypeError(type(item).__name__)
    return [index for part in parts for index in tokenizer.encode(part).tolist()]
