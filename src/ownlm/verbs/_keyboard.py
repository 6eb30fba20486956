"""`ownlm chat` at a terminal: messages and commands line by line, Ctrl-C stops an answer."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ownlm.console import keyboard
from ownlm.console import output as out
from ownlm.console.errors import OwnlmError, UsageError, did_you_mean
from ownlm.verbs._talk import Talk, save

PROMPT = "you> "


class Command(NamedTuple):
    """What is typed behind `/`: what it does, and its line of help."""

    does: Callable[[Talk, str], None]
    help: str


class Leave(Exception):
    """The person wants to go."""


def converse(talk: Talk) -> None:
    """Read messages and print answers until the person leaves."""
    out.say(f"template {talk.conversation.template.where}; /help lists the commands, Ctrl-D leaves")
    alerted = False  # one Ctrl-C was pressed: the next one leaves
    with keyboard.history():
        while True:
            try:
                line = keyboard.ask(PROMPT)
                alerted = False
                _take(talk, line)
            except Leave:
                break
            except EOFError:
                out.say()
                break
            except KeyboardInterrupt:
                out.say()
                if alerted:
                    break
                alerted = True
                out.say("Ctrl-C again, Ctrl-D or /exit leaves.")
            except OwnlmError as error:
                out.warn(str(error))
            except _Stopped:
                alerted = True


class _Stopped(Exception):
    """Ctrl-C has ended an answer."""


def _take(talk: Talk, line: str) -> None:
    """Do what a line says."""
    if not line.strip():
        return
    if not line.startswith("/"):
        answer(talk, line)
        return
    word, _, rest = line[1:].strip().partition(" ")
    if word not in COMMANDS:
        raise UsageError(
            f"there is no such command.{did_you_mean(word, COMMANDS)}",
            where=f"/{word}",
            do="/help, or a space before it for a message that begins with /",
        )
    COMMANDS[word].does(talk, rest.strip())


def answer(talk: Talk, question: str, seed: int | None = None) -> None:
    """Print the answer to a message as it is written.

    Raises:
        Leave: Ctrl-C was pressed twice.
    """

    def show(text: str) -> None:
        out.result(out.printable(text), end="")

    try:
        with keyboard.stoppable() as stopped:
            turn = talk.ask(question, show, stopped, seed)
    except KeyboardInterrupt:
        out.result("")
        raise Leave from None
    out.result("")
    talk.remark(turn)
    out.result("")
    if turn.completion is None:
        raise _Stopped


def _again(talk: Talk, _: str) -> None:
    if not talk.turns:
        raise UsageError("there is no answer yet.", where="/again")
    turn = talk.turns.pop()
    kept = len(talk.turns)
    try:
        answer(talk, turn.question, (turn.seed + 1) % 2**64)
    finally:
        if len(talk.turns) == kept:  # no other answer came
            talk.turns.append(turn)
    out.say(f"seed {talk.turns[-1].seed}", style="dim")


def _undo(talk: Talk, _: str) -> None:
    if not talk.turns:
        raise UsageError("there is nothing to take back.", where="/undo")
    turn = talk.turns.pop()
    out.say(f"Taken back: {turn.question[:60]!r} and its answer. {len(talk.turns)} before it stay.")


def _clear(talk: Talk, _: str) -> None:
    out.say(
        f"Forgotten: {len(talk.turns)} messages and answers."
        + (" The system text stays." if talk.system else "")
    )
    talk.turns.clear()


def _system(talk: Talk, text: str) -> None:
    talk.system = text or None
    out.say("The system text is set." if text else "There is no system text any more.")


def _save(talk: Talk, name: str) -> None:
    if not name:
        raise UsageError("no file was named.", where="/save", do="/save talk.jsonl")
    if not talk.turns:
        raise UsageError("nothing has been said yet.", where="/save")
    file = Path(name).expanduser()
    rows = save(talk, file)
    cut = sum(turn.finish_reason != "stop" for turn in talk.turns)
    note = f"; {cut} of its answers did not end by themselves" if cut else ""
    out.say(f"{file}: row {rows}, {len(talk.messages)} messages{note}.")
    out.say(f"Look at it: ownlm data check {shlex.quote(str(file))}")


def _help(_: Talk, __: str) -> None:
    out.result("\n".join(f"/{name:8}{command.help}" for name, command in COMMANDS.items()))


def _exit(_: Talk, __: str) -> None:
    raise Leave


COMMANDS = {
    "again": Command(_again, "another answer to the last message"),
    "undo": Command(_undo, "take the last message and its answer back"),
    "clear": Command(_clear, "forget all messages; the system text stays"),
    "system": Command(_system, "/system TEXT sets the system text, /system alone takes it away"),
    "save": Command(_save, "/save FILE adds the conversation to a file of rows for fine-tuning"),
    "help": Command(_help, "this list"),
    "exit": Command(_exit, "leave; Ctrl-D too. Ctrl-C stops an answer"),
}
