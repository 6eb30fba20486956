"""`ownlm chat`: talk to a model that was taught to chat."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ownlm.console import keyboard
from ownlm.console import output as out
from ownlm.console.errors import OwnlmError, Refused, UsageError
from ownlm.console.settings import verb

if TYPE_CHECKING:
    from ownlm.loaded import LoadedModel
    from ownlm.verbs._talk import Talk

MAX_LINE_BYTES = 10_000_000  # of a message; no window holds more


@verb
def chat(
    model: Any,
    message: str | None = None,
    *,
    system: str | None = None,
    max_new_tokens: int | None = None,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    schema: str | dict[str, Any] | None = None,
    choices: list[str] = [],  # noqa: B006 - pydantic copies the default
    regex: str | None = None,
    stop: list[str] = [],  # noqa: B006
    seed: int | None = None,
    chat_template: str | None = None,
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16", "int8", "int4"] = "auto",
    json: bool = False,
) -> str | list[str]:
    """Talk to a model that was taught to chat.

    At a terminal without MESSAGE you talk until /exit or Ctrl-D; /help lists the commands, Ctrl-C stops an answer.
    With MESSAGE there is one answer; @file reads a message, - reads it from standard input. Without MESSAGE each
    line of standard input is the next message of one conversation. Answers go to standard output.

    Messages are written through the chat template of the model's folder, the same ids as in training. A model
    without one is refused, because how it reads a conversation is not guessed.

    Args:
        model: a run or checkpoint folder, `last` (the newest run below this folder), or a name on the hub.
        message: what to say.
        system: a text that stands before the conversation, or @file.
        max_new_tokens: tokens of an answer at most; 512 without; never more than the window holds.
        temperature: 0 always takes the most probable token; above 0 samples, the higher the more surprising.
        top_k: sample from the k most probable tokens only; 0: from all.
        top_p: sample from the smallest set of tokens that together reach this probability.
        min_p: leave out tokens less probable than this share of the most probable one.
        repetition_penalty: above 1 makes tokens that were seen in the conversation less probable.
        schema: a JSON schema, as a file or as it is typed: every answer is JSON that it accepts.
        choices: every answer is one of these texts: "yes,no", or repeated for texts that hold a comma.
        regex: every answer is a text that this regular expression matches as a whole.
        stop: end an answer when this text appears, which is not printed; may be repeated.
        seed: of the draws; the same seed gives the same answers. Drawn and shown when not given.
        chat_template: chatml, alpaca or a file with a Jinja template, in place of the model's own.
        device: cpu, cuda, mps, or auto.
        dtype: float32, bfloat16, int8, int4 (on a CPU), or auto: as the model is stored.
        json: print the messages with token counts, finish reasons and seeds as JSON.
    """
    from ownlm.loaded import draw_seed, load, resolve
    from ownlm.verbs._arguments import read_argument, read_schema

    path = resolve(model)  # before torch is loaded: a wrong name is said at once
    _refuse_what_does_not_chat(path, chat_template)
    alone = message is None and keyboard.is_there()
    if alone and json:
        raise UsageError(
            "needs a message, or messages on standard input.",
            where="--json",
            do=f'ownlm chat {shlex.quote(str(path))} "A message" --json',
        )
    text = None if message is None else read_argument(message)
    front = None if system is None else read_argument(system)
    from ownlm.conversation import ANSWER_TOKENS, Conversation
    from ownlm.verbs._talk import Talk

    drawn = draw_seed() if seed is None else seed
    sampling: dict[str, Any] = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "schema": read_schema(schema) if isinstance(schema, str) else schema,
        "choices": choices[0].split(",") if len(choices) == 1 else choices,
        "regex": regex,
        "stop": stop,
        "max_new_tokens": ANSWER_TOKENS if max_new_tokens is None else max_new_tokens,
    }
    loaded = load(model, device=device, dtype=dtype)
    talk = Talk(Conversation(loaded, chat_template), sampling, drawn, front)
    _say_what_was_not_taught(loaded, talk)
    if alone:
        from ownlm.verbs._keyboard import converse

        converse(talk)
    else:
        _answer_all(talk, text, json=json)
    if temperature > 0 and seed is None and talk.turns:
        out.say(f"The same answers again: --seed {drawn}", style="dim")
    answers = [turn.answer for turn in talk.turns]
    return answers[0] if text is not None else answers


def _refuse_what_does_not_chat(path: Path, chat_template: str | None) -> None:
    """Refuse a model that cannot chat before its weights are read."""
    from ownlm.conversation import has_template, not_taught
    from ownlm.loaded import read_run
    from ownlm.locate import holds_adapter
    from ownlm.model.checkpoint import read_config
    from ownlm.model.encoder_families import fills_masks
    from ownlm.model.head_families import head_kind

    content = read_config(path) if (path / "config.json").is_file() else {}
    kind = head_kind(content)
    if kind is not None:
        from ownlm.headed_refusal import refusal

        raise refusal(path, kind, "does not chat")
    if fills_masks(content):
        from ownlm.corpus.tokenizer import Tokenizer
        from ownlm.masked import mask_token

        gap = f"The river runs to the {mask_token(Tokenizer.load(path), path)}."
        command = f"ownlm generate {shlex.quote(str(path))} {shlex.quote(gap)}"
        raise not_taught(path, ["fills masks"], command)
    taught = [str(what) for what in read_run(path).get("taught", ["continues text"])]
    # An adapter may have its template from its base.
    if chat_template is None and "chat" not in taught and not (has_template(path) or holds_adapter(path)):
        raise not_taught(path, taught)


def _say_what_was_not_taught(loaded: LoadedModel, talk: Talk) -> None:
    if loaded.run and "chat" not in loaded.taught:
        where = talk.conversation.template.where
        did = ", ".join(loaded.taught)
        out.say(f"{loaded.path}: not taught to chat, and not with the template {where}. What it does: {did}.")
    if not talk.conversation.end_ids:
        where = talk.conversation.template.where
        out.say(
            f"{where}: this template has no token that ends an answer; answers end where the model ends a text, "
            "at --stop, or at --max-new-tokens."
        )


def _answer_all(talk: Talk, text: str | None, *, json: bool) -> None:
    """Answer one message, or each line of standard input; what was answered before a refusal is printed."""
    begin = time.monotonic()
    try:
        if text is not None:
            _answer(talk, text, json=json)
            return
        out.say("Each line of standard input is a message of one conversation.")
        for number, line in _lines():
            try:
                _answer(talk, line, json=json)
            except OwnlmError as error:
                if error.where == "message":
                    error.where = f"standard input:{number}"
                raise
        if not talk.turns:
            raise Refused(
                "no message came.",
                where="standard input",
                do=f'ownlm chat {shlex.quote(str(talk.conversation.loaded.path))} "A message"',
            )
    finally:
        if json and out.from_cli() and talk.turns:
            out.result_json(talk.document(time.monotonic() - begin))


def _answer(talk: Talk, text: str, *, json: bool) -> None:
    """One answer; on a terminal control characters that a model writes are spelled out."""
    shown = out.from_cli() and not json
    spelled = sys.stdout.isatty()
    apart = bool(talk.turns)  # an answer may have several lines: a blank one stands between two

    def show(piece: str) -> None:
        nonlocal apart
        if shown:
            out.result(("\n" if apart else "") + (out.printable(piece) if spelled else piece), end="")
        apart = False

    turn = talk.ask(text, show)
    if shown:
        out.result("")
    talk.remark(turn)


def _lines() -> Iterator[tuple[int, str]]:
    """(number, text) of the lines of standard input that hold something.

    Raises:
        Refused: a line that is not UTF-8, or longer than any window.
    """
    if sys.stdin is None or sys.stdin.closed:
        raise UsageError("there is no standard input to read.", where="standard input")
    stream: Any = getattr(sys.stdin, "buffer", sys.stdin)
    number = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        where = f"standard input:{number}"
        if len(line) > MAX_LINE_BYTES:
            raise Refused(f"a line of more than {MAX_LINE_BYTES // 10**6} MB.", where=where)
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8") if isinstance(line, bytes) else line
        except UnicodeDecodeError as error:
            raise Refused(f"byte {error.start:,} of the line is not UTF-8.", where=where) from None
        text = text.rstrip("\r\n")
        if text.strip():
            yield number, text
        else:
            out.say(f"{where}: an empty line is no message.")
