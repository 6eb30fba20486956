"""For source code: the share of completed functions that Python's own parser accepts.

A prompt is a function of a held-out file, cut after its first line (`def …:`); a completion is what a model
writes until the first line that leaves the function. It counts when `ast` parses both together. One that reaches
the length was only cut, so it is judged as far as it goes: what is written must be the beginning of a function,
with one whole statement at least. The true functions, cut at the same length, stand beside it: what the cut
alone costs.
"""

from __future__ import annotations

import ast
import codeop
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from ownlm.evaluation.metrics import Metric, share
from ownlm.seeds import derive

if TYPE_CHECKING:
    from ownlm.corpus.tokenizer import Tokenizer
    from ownlm.engine.engine import Engine
    from ownlm.evaluation.ngram_writer import NgramWriter

NEW_TOKENS = 192  # room for most functions to end; what is longer is judged as far as it goes
LEAST_TOKENS = 32  # a window that leaves less is no room for a statement
TEMPERATURE = 0.8
# Tells a text that only ends too early from one that is wrong, as Python's interactive console does.
ALLOW_INCOMPLETE: int = codeop.PyCF_ALLOW_INCOMPLETE_INPUT  # type: ignore[attr-defined]


class Prompt(NamedTuple):
    """A function to complete.

    Args:
        head: its lines up to the `:` before the body, dedented, with the line end.
        body: the lines below, as they truly are.
        ids: the head as tokens, the end token first.
        new_tokens: how many tokens a completion may have.
    """

    head: str
    body: str
    ids: list[int]
    new_tokens: int


def function_prompts(
    texts: Iterable[str], tokenizer: Tokenizer, context: int, n: int = 50, seed: int = 0
) -> list[Prompt]:
    """Functions of the texts, at most `n`, drawn by the seed; [] when the texts are not Python.

    Left out: one-line functions, heads that end in a comment, functions that do not parse by themselves, and
    heads that leave fewer than 32 tokens of the window. Of functions with the same head the first one is taken.
    """
    found: dict[str, str] = {}
    for text in texts:
        for head, body in _functions(text):
            found.setdefault(head, body)
    heads = sorted(found)
    prompts: list[Prompt] = []
    for index in np.random.default_rng(derive(seed, "completions")).permutation(len(heads)):
        if len(prompts) == n:
            break
        head = heads[index]
        ids = tokenizer.encode_prompt(head)
        room = min(NEW_TOKENS, context - len(ids))
        if room >= LEAST_TOKENS and _tree(head + found[head]) is not None:
            prompts.append(Prompt(head, found[head], ids, room))
    return prompts


def _functions(text: str) -> Iterator[tuple[str, str]]:
    """(head, body) of the functions of a source file, without the indentation of what they stand in."""
    tree = _tree(text)
    lines = text.split("\n")  # as the parser counts them; `splitlines` would also split at U+2028
    for node in ast.walk(tree) if tree is not None else ():
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.end_lineno is None:
            continue
        own = [_dedented(line, node.col_offset) for line in lines[node.lineno - 1 : node.end_lineno]]
        below = node.body[0].lineno - node.lineno
        head = "\n".join(own[:below])
        if head.rstrip().endswith(":"):
            yield head.rstrip() + "\n", "\n".join(own[below:]) + "\n"


def _dedented(line: str, columns: int) -> str:
    """A line without its first columns; one that has text there (inside a string) stays."""
    return line if line[:columns].strip() else line[columns:]


def parsed_share(engine: Engine, tokenizer: Tokenizer, prompts: Sequence[Prompt], seed: int = 0) -> Metric:
    """The share of a model's completions (temperature 0.8) that parse."""
    from ownlm.engine import Request, SamplingSettings

    requests = []
    for index, prompt in enumerate(prompts):
        settings = SamplingSettings(
            temperature=TEMPERATURE,
            max_new_tokens=prompt.new_tokens,
            stop_token_ids=(tokenizer.eos_id,),
            seed=derive(seed, "completion", index) % 2**32,
        )
        requests.append(Request(prompt.ids, settings))
    first = 0
    written: dict[int, list[int]] = {}
    texts: dict[int, bytearray] = {}
    for event in engine.generate(requests):
        number = event.request_id
        first = first or number
        written.setdefault(number, []).append(event.token_id)
        text = texts.setdefault(number, bytearray())
        text += tokenizer.token_bytes(event.token_id)
        margin = text[text.rfind(b"\n") + 1 :][:1].strip()
        if margin and _leaves(prompts[number - first].head, text.decode("utf-8", "replace")):
            engine.cancel(number)  # what comes after the function costs time and is not looked at
    return _share(tokenizer, prompts, [written[key] for key in sorted(written)])


def counter_share(
    writer: NgramWriter, tokenizer: Tokenizer, prompts: Sequence[Prompt], seed: int = 0
) -> Metric:
    """The share of the completions of a 4-gram counter (same temperature, same length) that parse."""
    written = []
    for index, prompt in enumerate(prompts):
        generator = np.random.default_rng(derive(seed, "counter completion", index))
        written.append(
            writer.write(prompt.ids, prompt.new_tokens, tokenizer.eos_id, generator, temperature=TEMPERATURE)
        )
    return _share(tokenizer, prompts, written)


def true_share(tokenizer: Tokenizer, prompts: Sequence[Prompt]) -> Metric:
    """The share of the true functions that pass when they are cut at the same length."""
    ids = [[*tokenizer.encode(prompt.body).tolist(), tokenizer.eos_id] for prompt in prompts]
    return _share(tokenizer, prompts, [own[: prompt.new_tokens] for own, prompt in zip(ids, prompts)])


def _share(tokenizer: Tokenizer, prompts: Sequence[Prompt], written: Sequence[Sequence[int]]) -> Metric:
    """The share of completions, token ids each, that parse."""
    end = tokenizer.eos_id
    good = sum(
        parses(prompt.head, tokenizer.decode([i for i in ids if i != end]), ended=ids[-1] == end)
        for prompt, ids in zip(prompts, written)
    )
    return share(good, len(prompts))


def parses(head: str, text: str, *, ended: bool) -> bool:
    """Whether a completion is right as far as it goes.

    Args:
        head: the prompt, `def …:` with its line end.
        text: what was written after it.
        ended: the writer ended the text; otherwise it reached the length, and its last line is cut.
    """
    lines = text.split("\n")
    if not ended:
        lines.pop()

    outside = _outside(head, lines)
    found = _state(head, lines[:outside])
    if found == "open" and outside is None and not ended:
        return any(_state(head, lines[:count]) == "whole" for count in range(len(lines) - 1, 0, -1))
    return found == "whole"


def _leaves(head: str, text: str) -> bool:
    """Whether a text has gone on to what is below the function."""
    return _outside(head, text.split("\n")) is not None


def _outside(head: str, lines: Sequence[str]) -> int | None:
    """The first line at the margin, unless it belongs to a bracket or string that is open there."""
    for count, line in enumerate(lines):
        if line and not line[0].isspace() and _state(head, lines[:count]) != "open":
            return count
    return None


State = Literal["whole", "open", "broken"]


def _state(head: str, lines: Sequence[str]) -> State:
    """Whether a source text parses, could parse with more text after it, or neither."""
    text = head + "\n".join(lines) + "\n"
    if _tree(text) is not None:
        return "whole"
    error = _error(lambda: compile(text, "text", "exec", ast.PyCF_ONLY_AST | ALLOW_INCOMPLETE))
    return "open" if isinstance(error, SyntaxError) and "incomplete input" in str(error.msg) else "broken"


def _tree(text: str) -> ast.AST | None:
    found: list[ast.AST] = []
    _error(lambda: found.append(ast.parse(text)))
    return found[0] if found else None


def _error(parse: Callable[[], object]) -> Exception | None:
    """What Python's parser says against a text; its warnings about escapes in strings say nothing here."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parse()
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return error
    return None
