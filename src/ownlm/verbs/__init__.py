"""The verbs: one module each, a plain function with a typed signature and a docstring.

This table is all that `ownlm --help` and `import ownlm` load.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

GROUPS = {
    "start": "the first minutes",
    "make": "from text to a model",
    "use": "let the model work",
    "check": "how good it is",
    "keep": "what you have",
}


class Entry(NamedTuple):
    """A row of the table: the help group and one line of help."""

    group: str
    summary: str


VERBS = {
    "quickstart": Entry(
        "start", "Prepare, train, evaluate and report in a few minutes, on your text or on Python's."
    ),
    "doctor": Entry("start", "What this machine has, how fast it is, and what it can train and run."),
    "prepare": Entry(
        "make", "Files, folders, stdin -> a corpus folder: cleaned, deduplicated, split, tokenized."
    ),
    "pretrain": Entry("make", "A corpus folder -> a run folder with a model in Hugging Face form."),
    "finetune": Entry("make", "A model and rows of a task -> a run folder that was taught the task."),
    "generate": Entry("use", "Continue a text."),
    "chat": Entry("use", "Talk to a model that was taught to chat."),
    "answer": Entry("use", "What documents say to a question, with the places where they say it."),
    "serve": Entry("use", "Answer over HTTP as OpenAI's clients expect it."),
    "translate": Entry("use", "Texts in another language."),
    "classify": Entry("use", "A label for every text: of a trained head, or of labels that you name."),
    "summarize": Entry("use", "What documents say, in short."),
    "evaluate": Entry("check", "Loss, perplexity and bits per byte on text, beside gzip and xz."),
    "score": Entry(
        "check", "The probability of every token; the strangest places of files; rank candidates."
    ),
    "bench": Entry("check", "Tokens a second: reading prompts and writing, beside the memory's rate."),
    "data": Entry("keep", "Data for fine-tuning: check it, show how a model reads it, write an example."),
    "runs": Entry("keep", "The runs below a folder; those that saw a document; runs compared on one page."),
    "export": Entry(
        "keep", "A model as a folder for other tools: another dtype, another format, to the hub."
    ),
    "pull": Entry("keep", "A model of the hub as a folder of its own, to be kept and carried."),
}


def load_verb(name: str) -> Callable[..., Any]:
    """Import a verb's module and return its function."""
    function: Callable[..., Any] = getattr(importlib.import_module(f"ownlm.verbs.{name}"), name)
    return function
