"""What is known before a step is planned: the model, the rows, which of them are held out, what is learnt of them."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ownlm.console import output as out
from ownlm.console.errors import Refused, UsageError
from ownlm.corpus.tokenizer import Tokenizer
from ownlm.headed_inputs import causal_rule
from ownlm.headed_training import KIND_OF_TASK, head_labels
from ownlm.model.checkpoint import load_config, read_config
from ownlm.model.encoder_families import is_masked
from ownlm.model.head_families import head_kind
from ownlm.model.heads import HeadConfig
from ownlm.tasks.dataset import DataSet, read_dataset, typed_name
from ownlm.tasks.items import Item, Labelled, Question, Tagged
from ownlm.tasks.measure import Reader, needed_template
from ownlm.tasks.problems import Problems
from ownlm.tasks.prompts import as_chat
from ownlm.tasks.templates import ChatTemplate
from ownlm.tasks.text_forms import classification_chat, question_chat
from ownlm.training.tuning import split
from ownlm.training.tuning.forms import Example, LabelForm, TextForm, headed_model, lengths
from ownlm.training.tuning.texts import Counted


@dataclass
class Prepared:
    """See the module.

    Attributes:
        folder: of the model to start from. base: what an adapter names as its base. config: of its body.
        run: its run.json, {} for other models.
        train, held_out: rows. both_sides: held-out inputs that are trained too.
        examples, held_out_examples: what is learnt of them.
        counted: of the rows to train on.
    """

    folder: Path
    base: str
    config: Any
    run: dict[str, Any]
    data: DataSet
    form: TextForm | LabelForm
    template: ChatTemplate | None
    train: list[Item]
    held_out: list[Item]
    both_sides: list[tuple[str, str]]
    examples: Sequence[Example]
    held_out_examples: Sequence[Example]
    counted: Counted
    max_length: int

    @property
    def labels(self) -> list[str] | None:
        """Names of labels to choose from, for a model that writes them."""
        if self.form.head is not None or not isinstance(self.train[0], Labelled):
            return None
        return head_labels(self.train)

    @property
    def no_answer(self) -> bool | None:
        """Whether questions were among the rows that their context does not answer; None without questions."""
        questions = [item for item in self.train if isinstance(item, Question)]
        return any(not item.answers for item in questions) if questions else None

    @property
    def tokens(self) -> int:
        """Of all examples."""
        return int(lengths(self.examples).sum())

    @property
    def longest(self) -> int:
        """Tokens of the longest example."""
        return int(lengths(self.examples).max())


def prepare(settings: Mapping[str, Any], output: Path) -> Prepared:
    """Everything that can be refused before a plan is.

    Raises:
        UsageError, Refused: no such model or data, rows that train nothing, a template that is missing, …
    """
    from ownlm.loaded import read_run, resolve

    folder = resolve(settings["model"])
    _refuse_start(folder, output)
    data = read_dataset(settings["data"], task=settings["task"], maps=settings["map"])
    _say_data(data, settings["data"])
    if not any(part.items for part in data.parts):
        raise _nothing_to_train(data, settings["data"])
    tokenizer = Tokenizer.load(folder)
    train, held_out = split.divided(data, settings["validation"], settings["seed"])
    if not train:
        raise _nothing_to_train(data, settings["data"], all_held_out=bool(held_out))
    both = split.on_both_sides(train, held_out)
    if not settings["allow_overlap"]:
        split.refuse_overlap(both, len(held_out))
    as_head = _as_head(settings, data, folder)
    form: TextForm | LabelForm
    template: ChatTemplate | None = None
    config: Any
    if as_head:
        form = _label_form(settings, data, folder, tokenizer, train)
        config, max_length = form.config, _max_length(settings, form.inputs.context)
    else:
        config = load_config(folder)
        max_length = _max_length(settings, config.max_position_embeddings)
        template = _template(settings, data, tokenizer, folder)
        reader = Reader(str(settings["model"]), tokenizer, template, max_length)
        form = TextForm(reader, data.task, settings["train_on"])
    if tokenizer.vocab_size > config.vocab_size:
        raise Refused(
            f"the tokenizer has {tokenizer.vocab_size:,} tokens, the model {config.vocab_size:,}.",
            where=folder,
            why="They do not belong together.",
        )
    labels = head_labels(train)
    already = data.problems.left_out.copy()
    written = train if as_head else [_in_words(item, labels) for item in train]
    examples, kept, counted = form.rows(written, data.problems, max_length, settings["overlong"])
    there = held_out if as_head else [_in_words(item, labels) for item in held_out]
    # Held-out rows that are too long are answered cut; for the loss they are left out.
    aside = Problems()
    held_out_examples, _, _ = form.rows(there, aside, max_length, "drop")
    if not examples:
        raise _nothing_to_train(data, settings["data"])
    _say_left_out(data.problems.left_out - already, data.problems, "rows are left out")
    _say_left_out(aside.left_out, aside, "held-out rows are measured, but not in the validation loss")
    places = {item.where for item in kept}
    return Prepared(
        folder, _base(settings, folder), config, read_run(folder), data, form, template,
        [item for item in train if item.where in places], held_out, both, examples, held_out_examples, counted, max_length,
    )  # fmt: skip


def _refuse_start(folder: Path, output: Path) -> None:
    from ownlm.model.lora_files import is_adapter

    if is_adapter(folder):
        raise Refused(
            "an adapter cannot be the start of another run.",
            where=folder,
            do=f"ownlm export {shlex.quote(str(folder))} merged --merge-adapter, then finetune merged",
        )
    if output.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise UsageError(
            "the model lies in the output folder and would be replaced.", where=folder, do="another -o"
        )


def _as_head(settings: Mapping[str, Any], data: DataSet, folder: Path) -> bool:
    """Whether the task is learnt as a head: by default where it has one."""
    possible = data.task in KIND_OF_TASK
    asked = settings["as_"]
    masked = is_masked(read_config(folder))
    if asked == "head" and not possible:
        raise Refused(
            f"there is no head for {data.task}.", where="--as head", why="It is learnt as text.", do="leave it out"
        )  # fmt: skip
    if masked and (asked == "text" or not possible):
        raise Refused(
            f"a masked model cannot learn {data.task} as text.",
            where=folder,
            why="It does not write.",
            do=f"a task with a head: {', '.join(KIND_OF_TASK)}",
        )
    if (asked == "text" or not possible) and (kind := head_kind(read_config(folder))) is not None:
        raise Refused(
            f"a model with a head for {kind} cannot learn {data.task} as text.",
            where=folder,
            why="It does not write.",
            do="the model that it was made from",
        )
    if asked == "text" and data.task == "ner":
        raise Refused("names are marked by a head.", where="--as text", do="leave it out")
    if possible and asked != "text":
        for name, default in (("chat_template", None), ("train_on", "answers")):
            if settings[name] != default:
                option = "--" + name.replace("_", "-")
                raise Refused("has no effect on a head.", where=option, do="leave it out, or --as text")
        return True
    return False


def _label_form(
    settings: Mapping[str, Any], data: DataSet, folder: Path, tokenizer: Tokenizer, train: list[Item]
) -> LabelForm:
    content = read_config(folder)
    if not is_masked(content):
        tokenizer = causal_rule(tokenizer)
    labels = ["LABEL_0", "LABEL_1"] if data.task == "qa" else head_labels(train)
    pad = content.get("pad_token_id")
    if data.task in ("classification", "sentiment") and len(labels) < 2:
        raise Refused(
            f'every row has the label "{labels[0]}".',
            where=typed_name(settings["data"]),
            why="There is nothing to choose between.",
            do="rows of at least two labels",
        )
    kind: Any = KIND_OF_TASK[data.task]
    head = HeadConfig(kind, tuple(labels), pad_token_id=tokenizer.pad_id if pad is None else pad)
    return LabelForm(folder, tokenizer, headed_model(folder, head, settings["seed"], "cpu"))


def _template(
    settings: Mapping[str, Any], data: DataSet, tokenizer: Tokenizer, folder: Path
) -> ChatTemplate | None:
    first = next(data.items())
    conversation = as_chat(first, data.task) is not None or isinstance(first, Labelled | Question)
    if conversation:
        return needed_template(data, tokenizer, folder, settings["chat_template"])
    if settings["chat_template"] is not None:
        raise Refused(
            f"has no effect on rows of the shape {data.shape.name}.",
            where="--chat-template",
            why="They are texts, not conversations.",
            do="leave it out",
        )
    return None


def _in_words(item: Item, labels: Sequence[str]) -> Item:
    """A row whose answer is a label or a span as a conversation; others as they are."""
    if isinstance(item, Labelled):
        return classification_chat(item, labels)
    if isinstance(item, Question):
        return question_chat(item)
    assert not isinstance(item, Tagged)
    return item


def _max_length(settings: Mapping[str, Any], window: int) -> int:
    asked = settings["max_length"]
    if asked is not None and asked < 2:
        raise UsageError(f"{asked} is not possible; it must be at least 2.", where="--max-length")
    if asked is not None and asked > window:
        raise UsageError(
            f"{asked:,} tokens are more than the model's window of {window:,}.", where="--max-length"
        )
    return int(asked or window)


def _base(settings: Mapping[str, Any], folder: Path) -> str:
    """What an adapter names as its base: a name on the hub as it was typed, else the folder."""
    typed = os.fspath(settings["model"])
    return str(folder.resolve()) if Path(typed).exists() or typed == "last" else typed


def _say_data(data: DataSet, typed: Sequence[str]) -> None:
    out.say(f"{data.rows:,} rows of the shape {data.shape.name}, task {data.task}.")
    if data.not_read:
        groups = ", ".join(f"{group.files:,} {group.reason}" for group in data.not_read)
        out.say(f"  files not read: {groups}")
    if data.unused:
        out.say(f"  columns not read: {', '.join(list(data.unused)[:10])}")
    left_out = sum(data.problems.left_out.values())
    if left_out:
        first = next(problem for problem in data.problems.kept if problem.left_out)
        out.warn(f"{left_out:,} rows cannot be used; the first: {first}")
        out.say(f"  all of them: ownlm data check {typed_name(typed)}")


def _say_left_out(left_out: Counter[str], problems: Problems, what: str) -> None:
    """Rows that were found only now to be of no use, by reason, with the first of each."""
    for kind, number in left_out.most_common():
        first = next(problem for problem in problems.kept if problem.left_out and problem.kind == kind)
        out.warn(f"{number:,} {what}; the first: {first}")


def _nothing_to_train(data: DataSet, typed: Sequence[str], *, all_held_out: bool = False) -> Refused:
    if all_held_out:
        return Refused(
            "nothing could be trained: every row is held out.",
            where=typed_name(typed),
            why="The share that is held out is drawn by the rows' inputs.",
            do="--validation 0, or more rows",
        )
    problems = data.problems
    kinds = ", ".join(f"{kind} ({number:,})" for kind, number in problems.left_out.most_common(3))
    first = next((f" The first: {problem}" for problem in problems.kept if problem.left_out), "")
    return Refused(
        "nothing could be trained: no row has a token to learn.",
        where=typed_name(typed),
        why=f"Left out: {kinds or 'there is no row to train on'}.{first}",
        do=f"ownlm data check {typed_name(typed)}",
    )
