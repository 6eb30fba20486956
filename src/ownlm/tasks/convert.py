"""A row of a known shape → the row type of its task, or what is wrong with it."""

from __future__ import annotations

import json
from typing import Any

from ownlm.tasks.cells import Tell, Values, as_list, has_text, listed, text_of
from ownlm.tasks.items import Chat, Item, Labelled, Messages, Pair, Tagged
from ownlm.tasks.problems import BadRow

ROLES = ("system", "user", "assistant", "tool")
SHAREGPT_ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant",
    "bot": "assistant", "assistant": "assistant", "system": "system", "tool": "tool", "observation": "tool",
    "function_call": "assistant",
}  # fmt: skip
NEVER_ANSWERED = "no answer of the assistant"


def to_messages(values: Values, where: str, tell: Tell) -> Item:
    """{"messages": [{"role", "content"}, …]}, as the chat interfaces of OpenAI and Hugging Face have it."""
    turns = [_message(turn) for turn in listed(values, "messages")]
    return _chat(values, where, turns, tell)


def to_sharegpt(values: Values, where: str, tell: Tell) -> Item:
    """{"conversations": [{"from", "value"}, …], "system", "tools"}."""
    turns: list[Values] = []
    for turn in listed(values, "conversations"):
        if not isinstance(turn, dict):
            raise BadRow(
                "a turn is not an object", 'Write {"from": "human", "value": "…"}.', type(turn).__name__
            )
        if "from" not in turn:
            turns.append(_message(turn))
            continue
        speaker = str(turn["from"])
        if speaker not in SHAREGPT_ROLES:
            raise BadRow("unknown speaker", f"Use one of {', '.join(SHAREGPT_ROLES)}.", speaker[:40])
        content = _content(turn.get("value"), "value")
        if speaker == "function_call":
            turns.append({"role": "assistant", "content": "", "tool_calls": _calls(content)})
        else:
            turns.append({"role": SHAREGPT_ROLES[speaker], "content": content})
    return _chat(values, where, turns, tell)


def to_alpaca(values: Values, where: str, tell: Tell) -> Item:
    """{"instruction", "input", "output", "system", "history": [[asked, answered], …]}."""
    turns: list[Values] = []
    history = values.get("history")
    for number, turn in enumerate(as_list(history, "history") if has_text(history) else (), 1):
        if not isinstance(turn, (list, tuple)) or len(turn) != 2:
            raise BadRow(
                "history is not a list of pairs", 'Write [["asked", "answered"], …].', f"turn {number}"
            )
        turns += [
            {"role": role, "content": _content(t, "history")} for role, t in zip(("user", "assistant"), turn)
        ]
    asked = text_of(values, "instruction")
    if has_text(values.get("input")):
        asked += "\n" + text_of(values, "input")
    turns.append({"role": "user", "content": asked})
    turns.append({"role": "assistant", "content": text_of(values, "output")})
    return _chat(values, where, turns, tell)


def to_completion(values: Values, where: str, tell: Tell) -> Item:
    """{"prompt", "completion"}; both may be lists of messages."""
    if isinstance(values.get("prompt"), list) and isinstance(values.get("completion"), list):
        turns = [_message(turn) for name in ("prompt", "completion") for turn in values[name]]
        return _chat(values, where, turns, tell)
    return Pair(where, text_of(values, "prompt"), text_of(values, "completion"))


def to_labelled(values: Values, where: str, tell: Tell) -> Item:
    """{"text", "label"}."""
    text = text_of(values, "text")
    if isinstance(values.get("label"), list):
        raise BadRow(
            "several labels", "A text has one label here.", json.dumps(values["label"], default=str)[:60]
        )
    if isinstance(values.get("label"), bool):
        return Labelled(where, text, str(values["label"]).lower())
    label = text_of(values, "label")
    if label != label.strip():
        tell("space around a label", "It is taken away; save the labels without.", repr(label[:40]))
    return Labelled(where, text, label.strip())


def to_tagged(values: Values, where: str, tell: Tell) -> Item:
    """{"tokens": ["…"], "tags": ["O", "B-PER", …]}."""
    tokens, tags = listed(values, "tokens"), listed(values, "tags")
    if len(tokens) != len(tags):
        raise BadRow(
            "tokens and tags differ in number", "Every token has one tag.", f"{len(tokens)}, {len(tags)}"
        )
    for name, cells in (("tokens", tokens), ("tags", tags)):
        for number, cell in enumerate(cells, 1):
            text_of({f"{name} {number}": cell}, f"{name} {number}")
    return Tagged(where, tuple(map(str, tokens)), tuple(str(tag).strip() for tag in tags))


def to_translation(values: Values, where: str, tell: Tell) -> Item:
    """{"source", "target"}; the names of the languages are those of the columns."""
    languages = values.get("languages", ("", ""))
    source = text_of(values, languages[0] or "source")
    return _pair(where, source, values, languages[1] or "target", languages)


def to_summary(values: Values, where: str, tell: Tell) -> Item:
    """{"document", "summary"}; a document may be a list of sentences, a summary a list of equally good ones."""
    document = values.get("document")
    sentences = as_list(document, "document") if isinstance(document, list) else None
    if sentences is not None:
        document = " ".join(_content(sentence, "document") for sentence in sentences)
    return _pair(where, text_of(values | {"document": document}, "document"), values, "summary", ("", ""))


def _pair(where: str, source: str, values: Values, name: str, languages: tuple[str, str]) -> Pair:
    given = values.get(name)
    if not isinstance(given, list):
        return Pair(where, source, text_of(values, name), languages=languages)
    targets = [text_of({name: target}, name) for target in given]
    if not targets:
        raise BadRow(f'"{name}" is empty', "Give a text, or leave the row out.")
    return Pair(where, source, targets[0], tuple(targets[1:]), languages)


# ---- conversations


def _chat(values: Values, where: str, turns: list[Values], tell: Tell) -> Chat:
    if has_text(values.get("system")):
        if turns and turns[0]["role"] == "system":
            raise BadRow("two system texts", "One in the column and one in the turns: keep one.")
        turns = [{"role": "system", "content": text_of(values, "system")}, *turns]
    _check_order(turns)
    if turns[-1]["role"] != "assistant":
        tell(
            "ends with a turn that is not the assistant's",
            "Nothing of that turn is trained.",
            turns[-1]["role"],
        )
    tools = values.get("tools")
    return Chat(where, tuple(turns), tuple(as_list(tools, "tools")) if has_text(tools) else ())


def _message(turn: Any) -> Values:
    if not isinstance(turn, dict) or "role" not in turn:
        raise BadRow("a message has no role", 'Write {"role": "user", "content": "…"}.', str(turn)[:40])
    role = str(turn["role"])
    if role not in ROLES:
        raise BadRow("unknown role", f"Use one of {', '.join(ROLES)}.", role[:40])
    calls = turn.get("tool_calls")
    content = turn.get("content")
    message = {"role": role, "content": _content(content, "content") if content or not calls else ""}
    return message | {name: turn[name] for name in ("tool_calls", "tool_call_id", "name") if turn.get(name)}


def _content(content: Any, name: str) -> str:
    if (
        isinstance(content, list)
        and content
        and all(isinstance(p, dict) and p.get("type") == "text" for p in content)
    ):
        content = "".join(str(part.get("text")) for part in content)
    return text_of({name: content}, name)


def _calls(content: str) -> list[Values]:
    try:
        found = json.loads(content)
    except ValueError as error:
        raise BadRow("a tool call is not JSON", 'Write {"name": …, "arguments": {…}}.', str(error)) from None
    calls = found if isinstance(found, list) else [found]
    if not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        raise BadRow("a tool call has no name", 'Write {"name": …, "arguments": {…}}.', content[:60])
    return [{"type": "function", "function": call} for call in calls]


def _check_order(turns: Messages | list[Values]) -> None:
    """User and assistant alternate, a system text stands first, tools answer the assistant."""
    before = ""
    for number, turn in enumerate(turns, 1):
        role = turn["role"]
        if role == "system" and number > 1:
            raise BadRow("a system text that is not the first turn", "Put it first.", f"turn {number}")
        if role == before and role in ("user", "assistant"):
            fix = "Join them, or put the missing turn between: user and assistant take turns."
            raise BadRow(f'two "{role}" turns in a row', fix, f"turn {number}")
        if role == "assistant" and before in ("", "system"):
            raise BadRow("the assistant speaks first", "Begin with a user turn.", f"turn {number}")
        if role == "tool" and before not in ("assistant", "tool"):
            raise BadRow("a tool answers nobody", "It follows an assistant turn.", f"turn {number}")
        before = role
    if not any(turn["role"] == "assistant" for turn in turns):
        raise BadRow(NEVER_ANSWERED, "Nothing of this row would be trained: add an answer.")
