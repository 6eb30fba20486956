"""`ownlm answer`: what documents say to a question, with the places where they say it."""

from __future__ import annotations

import json as json_format
import os
import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from ownlm.console import output as out
from ownlm.console.errors import Interrupted, Refused, UsageError
from ownlm.console.settings import verb

if TYPE_CHECKING:
    from ownlm.loaded import LoadedModel
    from ownlm.search.cache import Opened
    from ownlm.verbs._lines import Line


@verb
def answer(
    model: Any = None,
    question: str | None = None,
    *,
    context: Path,
    top_k: int = 5,
    generate: bool = False,
    output: Path | None = None,
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16", "int8", "int4"] = "auto",
    json: bool = False,
) -> dict[str, Any] | list[dict[str, Any]]:
    """Find the passages of documents that answer a question.

    One argument is the QUESTION, two are MODEL and QUESTION. Without a MODEL the passages are the answer. A MODEL
    reads them: its answer is words of one of them, or with --generate a text that it writes from them.

    QUESTION - reads questions from standard input, one a line, @file from a file; so does no QUESTION at all. A
    question that no passage holds enough of is answered by "not found in these N documents".

    The index is kept beside the context, in .ownlm-index, and refreshed when files change.

    Args:
        model: a run or checkpoint folder, `last` (the newest run below this folder), or a name on the hub.
        question: what to ask.
        context: the file or folder that is searched, of any format that prepare reads, or a corpus folder.
        top_k: how many passages are shown, and read by the model.
        generate: let a model that chats write the answer.
        output: write the answers into this file as they are found; JSON lines where it ends in .jsonl.
        device: cpu, cuda, mps, or auto.
        dtype: float32, bfloat16, int8, int4 (on a CPU), or auto: as the model is stored.
        json: print or write passages, scores and answer as JSON.
    """
    from ownlm.search.cache import open_index
    from ownlm.verbs._lines import lines_of
    from ownlm.verbs._measured import say_measured

    if top_k < 1:
        raise UsageError(f"{top_k} passages; it must be at least 1.", where="--top-k")
    model, word = _told_apart(model, question, context)
    if generate and model is None:
        raise UsageError(
            "needs a MODEL that chats.",
            where="--generate",
            do=f'ownlm answer MODEL "A question" --context {context}',
        )
    lines = lines_of([word], ("question", "text"))
    loaded = None
    if model is not None:
        from ownlm.loaded import LoadedModel, load, resolve

        if not isinstance(model, LoadedModel):
            resolve(model)  # a wrong name is said before the index is made
    opened = open_index(context)
    if model is not None:
        loaded = load(model, device=device, dtype=dtype)
        say_measured(loaded, "chat" if generate else "qa")
    desk = _Desk(opened, loaded, top_k, generate, output, json)
    found = desk.answer_all(lines)
    typed = word != "-" and not word.startswith("@")
    if out.from_cli() and json and output is None:
        out.result_json(found[0] if typed else found)
    if out.from_cli() and loaded is None and typed and found[0]["found"]:
        out.next_commands(f"ownlm answer MODEL {shlex.quote(word)} --context {shlex.quote(str(context))}")
    return found[0] if typed else found


def _told_apart(model: Any, question: str | None, context: Path) -> tuple[Any, str]:
    """(model or None, question): the only argument is the question."""
    from ownlm.verbs._arguments import exists

    if question is not None:
        return model, question
    if model is None:
        return None, "-"
    if not isinstance(model, (str, os.PathLike)):
        raise UsageError(f"a question is a text, not {model!r}.", where="question")
    is_folder = exists(os.fspath(model)) and any(
        (Path(model) / file).is_file() for file in ("run.json", "config.json", "adapter_config.json")
    )
    if is_folder or model == "last" or not isinstance(model, str):
        place = shlex.quote(os.fspath(model))
        raise UsageError(
            "a model; the question is missing.",
            where=os.fspath(model),
            do=f'ownlm answer {place} "A question" --context {shlex.quote(str(context))}  (- reads questions from standard input)',
        )
    return None, model


class _Desk:
    """Questions that are answered one after another.

    Args:
        opened: the index. loaded: the model that reads what was found, or None.
        top_k, generate, output, json: see `answer`.
    """

    def __init__(
        self,
        opened: Opened,
        loaded: LoadedModel | None,
        top_k: int,
        generate: bool,
        output: Path | None,
        json: bool,
    ) -> None:
        self.opened, self.loaded, self.top_k, self.generate = opened, loaded, top_k, generate
        self.output = output
        self.json = json or (output is not None and output.suffix in (".jsonl", ".ndjson"))
        self.documents = sum(source.documents for source in opened.index.sources)

    def answer_all(self, lines: Any) -> list[dict[str, Any]]:
        """Answer every question and show each answer when it is there.

        Raises:
            Refused: no question. Interrupted: Ctrl-C; what is done is kept in `output`.
        """
        found: list[dict[str, Any]] = []
        with ExitStack() as stack:
            file: TextIO | None = None
            try:
                for line in lines:
                    result, text = self._answer(line)
                    if self.output is not None and file is None:
                        file = stack.enter_context(self.output.open("w", encoding="utf-8", newline="\n"))
                    self._show(result, text, file, first=not found, alone=line.typed)
                    found.append(result)
            except KeyboardInterrupt:
                kept = "what was printed is complete" if file is None else f"{self.output} holds the answers"
                raise Interrupted(
                    f"stopped after {len(found):,} questions; {kept}.",
                    do=f"the same command with the questions from number {len(found) + 1:,} on",
                ) from None
        if not any(one["question"].strip() for one in found):
            raise Refused(
                "there is no question.", where="QUESTION", do='ownlm answer "A question" --context FOLDER'
            )
        if len(found) > 1:
            hits = sum(one["found"] for one in found)
            out.say(f"{len(found):,} questions, {hits:,} of them found", style="dim")
        return found

    def _answer(self, line: Line) -> tuple[dict[str, Any], str]:
        from ownlm.answering import document, span_answer, written_answer
        from ownlm.search.ranking import search
        from ownlm.verbs import _answers

        question = line.text.strip()
        if line.typed and not question:
            raise Refused("the question is empty.", where="QUESTION", do='"How do I …?"')
        results = search(self.opened, question, self.top_k)
        if line.typed and not results.terms:
            raise Refused(
                "only words of grammar: there is nothing to search by.",
                where="QUESTION",
                do="a question that names what it is about",
            )
        answered = None
        if self.loaded is not None and results.found:
            ask = written_answer if self.generate else span_answer
            answered = ask(self.loaded, question, results.hits)
        result = document(question, results, answered, self.documents, read=self.loaded is not None)
        if question and not results.found:
            out.say(("" if line.typed else f"{line.where}: ") + _answers.why(results))
        colour = self.output is None and _answers.coloured()
        return result, _answers.shown(result, results, colour=colour) if question else ""

    def _show(
        self, result: dict[str, Any], text: str, file: TextIO | None, *, first: bool, alone: bool
    ) -> None:
        """Write one answer; of several questions each stands above its passages, a blank line between them."""
        if file is None and (self.json or not out.from_cli()):
            return
        if self.json:
            text = json_format.dumps(result, ensure_ascii=False)
        elif not alone:
            text = ("" if first else "\n") + f"{result['question']}\n{text}"
        if file is None:
            out.result(text)
        else:
            file.write(text + "\n")
            file.flush()
