"""For source code: the share of completions that Python's own parser accepts.

A prompt is a function of a held-out file, cut after its first line (`def …:`); a completion is what the model writes
until the first line that would leave the function. It counts when `ast` parses `def` line and completion together.
Functions that do not parse by themselves are no prompts.
"""

from __future__ import annotations

import ast
import textwrap
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ownlm.evaluation.metrics import Metric, share
from ownlm.seeds import derive

if TYPE_CHECKING:
    from ownlm.corpus.tokenizer import Tokenizer
    from ownlm.engine.engine import Engine

NEW_TOKENS = 64


def function_prompts(texts: Iterable[str], n: int = 50, seed: int = 0) -> list[str]:
    """First lines of functions of the texts, dedented, at most `n`, drawn by the seed; [] when it is not Python."""
    found: set[str] = set()
    for text in texts:
        tree = _parsed(text)
        lines = text.splitlines()
        for node in ast.walk(tree) if tree is not None else ():
            if isinstance(node, ast.FunctionDef) and node.body[0].lineno > node.lineno:
                head = "\n".join(lines[node.lineno - 1 : node.body[0].lineno - 1])
                if head.rstrip().endswith(":"):
                    found.add(textwrap.dedent(head).strip() + "\n")
    order = np.random.default_rng(derive(seed, "completions")).permutation(len(found))
    prompts = sorted(found)
    return [prompts[i] for i in order[:n]]


def parsed_share(engine: Engine, tokenizer: Tokenizer, prompts: Sequence[str], seed: int = 0) -> Metric:
    """The share of completions that parse; a completion that hits the length limit loses its last, cut line."""
    from ownlm.engine import Request, SamplingSettings

    requests = []
    for index, prompt in enumerate(prompts):
        ids = [tokenizer.eos_id, *tokenizer.encode(prompt).tolist()]
        room = engine.max_context - len(ids)
        if room < 1:
            continue
        settings = SamplingSettings(
            temperature=0.8,
            max_new_tokens=min(NEW_TOKENS, room),
            stop_token_ids=(tokenizer.eos_id,),
            seed=derive(seed, "completion", index) % 2**32,
        )
        requests.append(Request(ids, settings))
    written: dict[int, list[int]] = {}
    for event in engine.generate(requests):
        written.setdefault(event.request_id, []).append(event.token_id)
    good = 0
    for request, ids in zip(requests, (written[key] for key in sorted(written))):
        prompt = tokenizer.decode(list(request.prompt_ids)[1:])
        body = tokenizer.decode([i for i in ids if i != tokenizer.eos_id])
        good += _parsed(prompt + _inside(body, whole=ids[-1] == tokenizer.eos_id)) is not None
    return share(good, len(requests))


def _inside(body: str, whole: bool) -> str:
    """The lines that belong to the function: up to the first line that is not indented."""
    lines = body.split("\n")
    if not whole:
        lines = lines[:-1]
    kept = []
    for line in lines:
        if line.strip() and not line[0].isspace():
            break
        kept.append(line)
    return "\n".join(kept) + "\n"


def _parsed(text: str) -> ast.AST | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
