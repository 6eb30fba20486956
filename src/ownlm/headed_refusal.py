"""What is said where a model with a task head is asked for something else."""

from __future__ import annotations

import shlex
from pathlib import Path

from ownlm.console.errors import Refused
from ownlm.model.head_families import DOES, HeadKind


def refusal(path: Path, kind: HeadKind, what: str) -> Refused:
    """A model with a head that cannot do something, `what`: what it does, and how it is asked."""
    return Refused(
        f"a model with a head for {kind} {what}.", where=path, why=DOES[kind], do=example(path, kind)
    )


def example(path: Path, kind: str) -> str:
    """A command that uses a model with such a head."""
    if kind == "sequence-classification":
        return shlex.join(["ownlm", "classify", str(path), "A text."])
    if kind == "question-answering":
        return shlex.join(["ownlm", "answer", str(path), "A question?", "--context", "FILE"])
    code = f"import ownlm; print(ownlm.load({str(path)!r}).tag('A text.'))"
    return shlex.join(["python", "-c", code])
