"""Runs for the tests of tasks."""

from __future__ import annotations

from pathlib import Path

import ownlm
from tests.conftest import TINY


def wide_run(corpus: Path, output: Path) -> Path:
    """A run of a few steps whose window of 256 tokens holds an instruction and a text."""
    settings = {**TINY, "context": 256}
    ownlm.pretrain(corpus, output=output, max_steps=4, **settings)
    return output
