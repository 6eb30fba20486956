"""Chat templates: the one of a model folder, a built-in one by its name, or a file; never a guess."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from ownlm.console.errors import Refused, UsageError, did_you_mean
from ownlm.tasks.problems import BadRow
from ownlm.tasks.sandbox import GENERATION_MARK, MAX_SOURCE, Sandbox

if TYPE_CHECKING:
    from ownlm.corpus.tokenizer import Tokenizer

FILE = "chat_template.jinja"

BUILT_IN = {
    # The form of OpenAI's ChatML as Qwen has it, without a system text of its own.
    "chatml": """\
{%- for message in messages %}
    {%- if message.tool_calls or message.role == 'tool' %}
        {{- raise_exception('chatml has no form for tools') }}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}""",
    # The headings of Stanford Alpaca (Taori et al. 2023) for several turns, without its introduction.
    "alpaca": """\
{%- for message in messages %}
    {%- if message.tool_calls or message.role == 'tool' %}
        {{- raise_exception('alpaca has no form for tools') }}
    {%- elif message.role == 'system' %}
        {{- message.content + '\\n\\n' }}
    {%- elif message.role == 'user' %}
        {{- '### Instruction:\\n' + message.content + '\\n\\n' }}
    {%- else %}
        {{- '### Response:\\n' + message.content + eos_token + '\\n\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '### Response:\\n' }}
{%- endif %}""",
}
NO_TEMPLATE = "none"  # in place of a name: pairs of texts stand behind each other
NEEDS = {"chatml": ("<|im_start|>", "<|im_end|>"), "alpaca": ()}


class ChatTemplate:
    """A Jinja template that turns messages into text.

    Args:
        source: its text.
        where: file or name, for messages.
        tokens: the special tokens that it may name: {"eos_token": "<|im_end|>", …}.

    Raises:
        Refused: it is no template, or too long.
    """

    def __init__(self, source: str, where: object, tokens: Mapping[str, Any]) -> None:
        self.source, self.where, self.tokens = source, where, dict(tokens)
        self._sandbox = Sandbox()
        try:
            self._template = self._sandbox.compiled(source)
        except jinja2.TemplateSyntaxError as error:
            raise Refused(
                f"not a Jinja template: {error.message}.", where=f"{where}:{error.lineno}"
            ) from None
        except (jinja2.TemplateError, RecursionError) as error:
            raise Refused(f"not used as a chat template: {error}.", where=where) from None

    @cached_property
    def sha256(self) -> str:
        """Hash of its text (UTF-8)."""
        return hashlib.sha256(self.source.encode("utf-8", "surrogatepass")).hexdigest()

    @cached_property
    def marks_answers(self) -> bool:
        """Whether it says itself what the assistant writes (`{% generation %}`)."""
        return "generation" in {
            word for tag in self.source.split("{%")[1:] for word in tag[:40].split("%}")[0].split()
        }

    def text(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Any] = (),
        *,
        add_generation_prompt: bool = False,
    ) -> str:
        """Messages as text, as `apply_chat_template(…, tokenize=False)` of transformers gives it."""
        return self.marked(messages, tools, add_generation_prompt=add_generation_prompt).replace(
            GENERATION_MARK, ""
        )

    def marked(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Any] = (),
        *,
        add_generation_prompt: bool = False,
    ) -> str:
        """The same with `GENERATION_MARK` before and after what the template marks as the assistant's.

        Raises:
            BadRow: the template refuses these messages.
        """
        variables = self.tokens | {
            "messages": [dict(message) for message in messages],
            "tools": list(tools) or None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            return self._sandbox.render(self._template, variables)
        except jinja2.TemplateError as error:
            reason = " ".join(str(error).split())[:200]
            raise BadRow(
                "the chat template refuses it", f"Change the row for {self.where}.", reason
            ) from None


def find_template(tokenizer: Tokenizer, folder: Path, given: str | None) -> ChatTemplate:
    """The template to use: the given one, else that of the model folder.

    Args:
        tokenizer: of the model. folder: of the model.
        given: a name in `BUILT_IN`, or a file with a template.

    Raises:
        Refused: the model has none and none was given; a file that holds none; tokens that the tokenizer lacks.
        UsageError: neither a name nor a file.
    """
    tokens = special_tokens(tokenizer)
    if given is None:
        found = folder_template(tokenizer, folder)
        if found is None:
            raise Refused(
                "the model has no chat template.",
                where=folder,
                why="How a conversation is written decides what is trained, so it is not guessed.",
                do=f"--chat-template {' or '.join(BUILT_IN)}, or a file with a Jinja template",
            )
        return ChatTemplate(found[0], found[1], tokens)
    if given in BUILT_IN:
        _check_tokens(tokenizer, given, tokens, folder)
        return ChatTemplate(BUILT_IN[given], given, tokens)
    path = Path(given)
    if not path.is_file():
        raise UsageError(
            f"no such template or file.{did_you_mean(given, BUILT_IN)}",
            where=f"--chat-template {given}",
            why=f"Names are {', '.join(BUILT_IN)}.",
        )
    return ChatTemplate(_read(path), path, tokens)


def folder_template(tokenizer: Tokenizer, folder: Path) -> tuple[str, Path] | None:
    """(text, file) of a model's own template: chat_template.jinja, else that in tokenizer_config.json; or None."""
    if (folder / FILE).is_file():
        return _read(folder / FILE), folder / FILE
    found, where = tokenizer.config.get("chat_template"), folder / "tokenizer_config.json"
    if isinstance(found, list):  # several by name; transformers takes the one that is called default
        named = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
        if named and "default" not in named:
            raise Refused(
                f"has several chat templates and none is called default: {', '.join(map(str, named))}.",
                where=where,
                do="--chat-template FILE with the one that is meant",
            )
        found = named.get("default")
    if not found:
        return None
    if not isinstance(found, str):
        raise Refused("chat_template is not a text.", where=where)
    return found, where


def special_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """The named special tokens of a tokenizer as templates see them: {"eos_token": "</s>", …}."""
    found = {}
    for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"):
        token = tokenizer.config.get(f"{name}_token")
        content = token.get("content") if isinstance(token, dict) else token
        if isinstance(content, str):
            found[f"{name}_token"] = content
    return found


def _check_tokens(tokenizer: Tokenizer, name: str, tokens: Mapping[str, str], folder: Path) -> None:
    missing = [token for token in NEEDS[name] if token not in tokenizer.special_ids]
    if name == "alpaca" and "eos_token" not in tokens:
        missing.append("eos_token")
    if missing:
        others = [other for other in BUILT_IN if other != name]
        raise Refused(
            f"the tokenizer has no {' and no '.join(missing)}.",
            where=folder,
            why=f"The template {name} ends turns with it; spelled in letters it would be several tokens.",
            do=f"--chat-template {' or '.join(others)}, or a file with a Jinja template",
        )


def _read(path: Path) -> str:
    if path.stat().st_size > 4 * MAX_SOURCE:
        raise Refused(f"larger than {4 * MAX_SOURCE // 1000} kB: not a chat template.", where=path)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise Refused(f"not UTF-8 text (byte {error.start:,}).", where=path) from None


def template_option(given: str | None) -> str:
    """The option as it is typed again, "" when it was not given."""
    return "" if given is None else f" --chat-template {shlex.quote(given)}"
