"""A completion counts when Python's parser takes it, and one that was only cut is judged as far as it goes."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from ownlm.corpus.tokenizer import Tokenizer
from ownlm.engine import Engine, Event, Request
from ownlm.evaluation import completions
from ownlm.evaluation.completions import (
    LEAST_TOKENS,
    NEW_TOKENS,
    Prompt,
    counter_share,
    function_prompts,
    parsed_share,
    parses,
    true_share,
)
from ownlm.evaluation.metrics import share
from ownlm.evaluation.ngram_writer import NgramWriter
from ownlm.model.transformer import Transformer

HEAD = "def f(a, b):\n"
SOURCES = [inspect.getsource(module) for module in (textwrap, completions, inspect)]


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("    return a\n", True),
        ("    return a", True),
        ("    return a)\n", False),
        ("    return (a\n", False),
        ("    if a:\n        return b\n    else:\n        pass\n", True),
        ("    if a:\n", False),
        ("    if a:\n        b\n   c\n", False),
        ("    x = 'a\n", False),
        ("    # only a comment\n", False),
        ("", False),
        ("return a\n", False),
        ("    return a\n\n\ndef g(:\n", True),  # what is below the function is not looked at
        ("    return a)\n\n\ndef g():\n    pass\n", False),
        ("    return a\n# a comment at the margin\n", True),
        ("    '''Text\nat the margin.\n'''\n    return a\n", True),
        ("    '''Text\nat the margin.\n", False),
        ("    x = [\n1,\n]\n    return x\nprint(", True),
        ("    try:\n        a\n\nx = 1\n", False),
    ],
)
def test_a_completion_that_ended_counts_when_it_parses(text: str, whole: bool) -> None:
    assert parses(HEAD, text, ended=True) is whole


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("    x = a\n    return x + (b", True),  # the last line is cut
        ("    x = a\n    y = [\n        1,\n        2", True),  # so is the bracket
        ("    x = a\n    '''A long text\n    that goes o", True),
        ("    x = a\n    try:\n        y = b\n    exc", True),
        ("    x = a\n    if b:\n        ", True),
        ("    return a\n\n\ndef g(", True),  # it had left the function
        ("    x = a)\n    y = b\n    retur", False),  # wrong before the cut
        ("    x = a\n    y = b b\n    retur", False),
        ("    x = a\n    y = [1 2\n    z", False),
        ("    x = a\n    try:\n        y = b\n    z = 1\n    re", False),
        ("    '''A long text\n    that goes on\n    and o", False),  # no statement is whole
        ("    x = [\n        1,\n        2", False),
        ("    x = a", False),  # one cut line
        ("", False),
    ],
)
def test_a_completion_that_reached_the_length_is_judged_as_far_as_it_goes(text: str, good: bool) -> None:
    assert parses(HEAD, text, ended=False) is good


def functions(source: str) -> Iterator[tuple[str, list[str]]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and not node.col_offset and node.body[0].lineno > node.lineno:
            lines = source.split("\n")[node.lineno - 1 : node.end_lineno]
            below = node.body[0].lineno - node.lineno
            yield "\n".join(lines[:below]) + "\n", lines[below:]


def is_source(text: str) -> bool:
    try:
        return bool(ast.parse(text))
    except SyntaxError:
        return False


def test_true_functions_pass_wherever_they_are_cut_after_a_statement() -> None:
    checked = 0
    for head, body in functions(SOURCES[2]):
        if not head.rstrip().endswith(":"):
            continue
        good = False
        for count in range(1, min(len(body), 25)):
            good = good or is_source(head + "\n".join(body[:count]) + "\n")
            text = "\n".join(body[:count]) + "\n    cut"
            assert parses(head, text, ended=False) is good, head + text
            checked += 1
    assert checked > 300


def test_prompts_are_functions_of_the_texts_with_their_bodies(tokenizer: Tokenizer) -> None:
    prompts = function_prompts([*SOURCES, "no Python ("], tokenizer, 400, n=1000)
    assert len(prompts) > 50
    whole = "\n".join(SOURCES)
    for prompt in prompts:
        assert prompt.head.startswith(("def ", "async def "))
        assert prompt.head.endswith(":\n")
        ast.parse(prompt.head + prompt.body)
        assert prompt.ids == [tokenizer.start_id, *tokenizer.encode(prompt.head)]
        assert prompt.new_tokens == min(NEW_TOKENS, 400 - len(prompt.ids)) >= LEAST_TOKENS
        first = prompt.body.splitlines()[0].strip()
        assert first in whole
    assert len({prompt.head for prompt in prompts}) == len(prompts)


def test_methods_lose_their_indentation_and_strings_keep_theirs(tokenizer: Tokenizer) -> None:
    source = 'class A:\n    async def f(self,\n                b=1):\n        """Text\nat the margin.\n        """\n'
    (prompt,) = function_prompts([source], tokenizer, 400)
    assert prompt.head == "async def f(self,\n            b=1):\n"
    assert prompt.body == '    """Text\nat the margin.\n    """\n'


@pytest.mark.parametrize(
    "source",
    [
        "def f(): return 1\n",
        "def f():  # a comment\n    return 1\n",
        "x = 1\n",
        "def f(:\n    return 1\n",
        "The river runs to the sea:\n    it is long.\n",
        f"def f({', '.join(f'argument_{n}' for n in range(60))}):\n    return 1\n",  # leaves no room
    ],
)
def test_what_cannot_be_a_prompt_is_left_out(tokenizer: Tokenizer, source: str) -> None:
    assert function_prompts([source], tokenizer, 128) == []
    good = "def g():\n    return 1\n"
    assert [prompt.head for prompt in function_prompts([source, good], tokenizer, 128)] == ["def g():\n"]


def test_a_line_separator_in_a_string_shifts_no_line(tokenizer: Tokenizer) -> None:
    source = 'x = "a\u2028b"\n\n\ndef f():\n    return x\n'
    (prompt,) = function_prompts([source], tokenizer, 128)
    assert (prompt.head, prompt.body) == ("def f():\n", "    return x\n")


def test_prompts_are_drawn_by_the_seed(tokenizer: Tokenizer) -> None:
    one, same, other = (function_prompts(SOURCES, tokenizer, 400, n=20, seed=seed) for seed in (1, 1, 2))
    assert one == same != other
    assert len(one) == 20
    assert function_prompts(SOURCES[::-1], tokenizer, 400, n=20, seed=1) == one


class Scripted:
    """In place of an engine: writes given texts token by token, one token of each in a step."""

    def __init__(self, tokenizer: Tokenizer, texts: Sequence[str]) -> None:
        self.tokenizer, self.texts = tokenizer, texts
        self.cancelled: set[int] = set()
        self.written = 0

    def cancel(self, request_id: int) -> None:
        self.cancelled.add(request_id)

    def generate(self, requests: Sequence[Request]) -> Iterator[Event]:
        end = self.tokenizer.eos_id
        ids = [[*self.tokenizer.encode(text).tolist(), end] for text in self.texts]
        for place in range(max(map(len, ids))):
            for number, (own, request) in enumerate(zip(ids, requests, strict=True), 7):
                limit = min(len(own), request.settings.max_new_tokens or 0)
                if place < limit and number not in self.cancelled:
                    self.written += 1
                    yield Event(number, 0, own[place], 0.0)


def prompts_with(tokenizer: Tokenizer, bodies: Sequence[str], new_tokens: int = 60) -> list[Prompt]:
    heads = [f"def f{number}():\n" for number in range(len(bodies))]
    return [
        Prompt(h, b, [tokenizer.start_id, *tokenizer.encode(h).tolist()], new_tokens)
        for h, b in zip(heads, bodies)
    ]


def test_the_share_of_a_model_is_that_of_its_texts(tokenizer: Tokenizer) -> None:
    texts = [
        "    return 1\n",
        "    return (1\n",
        "    x = 1\n" * 60,
        "    return 1)\n" * 60,
        "    return 1\nx",
    ]
    prompts = prompts_with(tokenizer, texts)
    engine = Scripted(tokenizer, texts)
    assert parsed_share(engine, tokenizer, prompts) == share(3, 5)  # type: ignore[arg-type]


def test_a_model_that_has_left_the_function_is_stopped(tokenizer: Tokenizer) -> None:
    texts = [
        "    return 1\n\n\nfox" + " river" * 40,
        "    return '''\nfox" + " river" * 20 + "'''\n",
        "春\n" + "春" * 40,
    ]
    engine = Scripted(tokenizer, texts)
    prompts = prompts_with(tokenizer, texts, new_tokens=200)
    assert parsed_share(engine, tokenizer, prompts) == share(2, 3)  # type: ignore[arg-type]
    assert engine.cancelled == {7, 9}  # a line of a string that is open does not leave the function
    assert engine.written < sum(len(tokenizer.encode(text)) for text in texts)


def test_true_bodies_are_cut_at_the_same_length(tokenizer: Tokenizer) -> None:
    bodies = [
        "    return 1\n",
        "    x = 1\n" * 90,
        '    """' + "A long text.\n    " * 50 + '"""\n    return 1\n',
    ]
    assert true_share(tokenizer, prompts_with(tokenizer, bodies)) == share(2, 3)
    assert true_share(tokenizer, prompts_with(tokenizer, bodies, new_tokens=2000)) == share(3, 3)


def test_the_counter_writes_what_it_has_read(tokenizer: Tokenizer) -> None:
    (prompt,) = function_prompts(["def g(x):\n    return x\n"], tokenizer, 128)
    text = [tokenizer.eos_id, *tokenizer.encode(prompt.head + prompt.body).tolist()] * 3
    good = NgramWriter(np.array(text))
    assert counter_share(good, tokenizer, [prompt]) == share(1, 1)
    broken = [tokenizer.eos_id, *tokenizer.encode(prompt.head + "    return )\n").tolist()] * 3
    assert counter_share(NgramWriter(np.array(broken)), tokenizer, [prompt]) == share(0, 1)


def test_a_model_of_noise_completes_nothing_and_the_same_every_time(
    model: Transformer, tokenizer: Tokenizer
) -> None:
    prompts = prompts_with(tokenizer, ["    pass\n"] * 6, new_tokens=16)
    found = parsed_share(Engine(model), tokenizer, prompts, seed=1)
    assert found == parsed_share(Engine(model), tokenizer, prompts, seed=1)
    assert found["value"] < 0.5
    assert found["n"] == 6
