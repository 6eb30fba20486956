"""A conversation as it grows: what was said, the next answer, and what a person should know of an answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ownlm.console import output as out
from ownlm.console.errors import OwnlmError, Refused
from ownlm.conversation import Conversation, checked, say_left_out

if TYPE_CHECKING:
    from ownlm.continuation import Completion, Piece

STOPPED = "interrupted"


@dataclass(frozen=True)
class Turn:
    """A message and its answer.

    Attributes:
        completion: None when the answer was stopped.
        left_out: older messages that the model did not read.
    """

    question: str
    answer: str
    seed: int
    completion: Completion | None
    left_out: int

    @property
    def finish_reason(self) -> str:
        """Why the answer ended."""
        return STOPPED if self.completion is None else self.completion.finish_reason

    def as_messages(self) -> list[dict[str, str]]:
        """As templates and data sets have it."""
        return [{"role": "user", "content": self.question}, {"role": "assistant", "content": self.answer}]


@dataclass
class Talk:
    """What was said so far.

    Args:
        conversation: with which model.
        sampling: as `LoadedModel.stream` takes it, without the seed.
        seed: of every answer; an answer that is asked for again has another one.
        system: the text in front.
    """

    conversation: Conversation
    sampling: dict[str, Any]
    seed: int
    system: str | None = None
    turns: list[Turn] = field(default_factory=list)

    @property
    def messages(self) -> list[dict[str, str]]:
        """The system text and all turns."""
        front = [] if self.system is None else [{"role": "system", "content": self.system}]
        return front + [message for turn in self.turns for message in turn.as_messages()]

    def ask(
        self,
        question: str,
        show: Callable[[str], None],
        stopped: Callable[[], bool] = lambda: False,
        seed: int | None = None,
    ) -> Turn:
        """The answer to a message, which is kept with it.

        Args:
            show: is given the answer piece by piece.
            stopped: says whether to end it here; asked after each piece.
        """
        seed = self.seed if seed is None else seed
        messages = checked([*self.messages, {"role": "user", "content": question}])
        pieces, left_out = self.conversation.stream(messages, seed=seed, **self.sampling)
        say_left_out(left_out, self.conversation.loaded)
        self._say_special(question)
        text, completion = "", None
        with closing(cast("Generator[Piece, None, None]", pieces)):
            for piece in pieces:
                text, completion = text + piece.text, piece.completion
                show(piece.text)
                if stopped():
                    break
        self.turns.append(Turn(question, text, seed, completion, left_out))
        return self.turns[-1]

    def _say_special(self, question: str) -> None:
        found = [token for token in self.conversation.loaded.tokenizer.special_ids if token in question]
        if found:
            out.say(
                f"The message spells {' and '.join(found)}: the model reads a special token there, not letters."
            )

    def remark(self, turn: Turn) -> None:
        """Say what an answer does not show: that it was cut, and where."""
        completion = turn.completion
        if completion is None:
            out.say("The answer was stopped here.", style="dim")
            return
        if completion.finish_reason == "length":
            self._say_cut(completion)
        elif not turn.answer and completion.stop is None:
            out.say("The model ended its answer before the first word.", style="dim")
        if completion.bytes_dropped:
            out.say(
                f"{completion.bytes_dropped} bytes of an unfinished character at the end are not shown.",
                style="dim",
            )

    def _say_cut(self, completion: Completion) -> None:
        loaded = self.conversation.loaded
        full = completion.prompt_tokens + completion.new_tokens >= loaded.engine.longest(
            completion.prompt_tokens
        )
        reason = (
            f"the context window of {loaded.context:,} tokens is full"
            if full
            else f"{completion.new_tokens:,} tokens are reached (--max-new-tokens for more)"
        )
        formed = any(self.sampling.get(name) for name in ("schema", "choices", "regex"))
        if formed:
            out.warn(f"the answer was cut before its form was complete: {reason}.")
        else:
            out.say(f"The answer ends here because {reason}.", style="dim")

    def document(self, seconds: float) -> dict[str, Any]:
        """Everything for `--json`: messages, and beside each answer what it took and why it ended."""
        front = [] if self.system is None else [{"role": "system", "content": self.system}]
        messages: list[dict[str, Any]] = [*front]
        for turn in self.turns:
            asked, answered = turn.as_messages()
            messages += [asked, {**answered, **_facts(turn)}]
        template = self.conversation.template
        return {
            "model": str(self.conversation.loaded.path),
            "chat_template": {"where": str(template.where), "sha256": template.sha256},
            "settings": {**self.sampling, "seed": self.seed},
            "seed": self.seed,
            "messages": messages,
            "seconds": seconds,
        }


def _facts(turn: Turn) -> dict[str, Any]:
    completion = turn.completion
    if completion is None:
        return {"finish_reason": STOPPED, "seed": turn.seed, "messages_left_out": turn.left_out}
    known = completion.as_dict()
    names = ("prompt_tokens", "new_tokens", "finish_reason", "stop", "seed", "logprob", "bytes_dropped")
    return {name: known[name] for name in names} | {"messages_left_out": turn.left_out}


def save(talk: Talk, file: Path) -> int:
    """Add the conversation to a file of rows that `finetune` reads; gives the number of rows in it then.

    Raises:
        Refused: the file holds something else. OwnlmError: it cannot be written.
    """
    row = json.dumps({"messages": talk.messages}, ensure_ascii=False)
    try:
        before = file.read_text(encoding="utf-8") if file.exists() else ""
        lines = before.splitlines()
        if not all(_is_row(line) for line in lines):
            raise Refused("holds something else than conversations.", where=file, do="/save another file")
        with file.open("a", encoding="utf-8", newline="\n") as stream:
            stream.write(("" if before.endswith("\n") or not before else "\n") + row + "\n")
    except UnicodeDecodeError:
        raise Refused("is not a text file.", where=file, do="/save another file") from None
    except OSError as error:
        raise OwnlmError(
            f"cannot be written: {error.strerror}.", where=file, do="/save another file"
        ) from None
    return len(lines) + 1


def _is_row(line: str) -> bool:
    try:
        found = json.loads(line)
    except ValueError:
        return False
    return isinstance(found, dict) and "messages" in found
