"""A small model and a server of it that tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import TINY
from tests.server.live import Live, live

CONTEXT = 128


@pytest.fixture(scope="session")
def model_folder(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a window of 128 tokens."""
    import ownlm

    path = tmp_path_factory.mktemp("served") / "run"
    ownlm.pretrain(corpus, output=path, max_steps=20, **{**TINY, "context": CONTEXT})
    return path


@pytest.fixture(scope="session")
def server(model_folder: Path) -> Iterator[Live]:
    """A server without limits that tests would reach, with a chat template."""
    with live(model_folder) as found:
        yield found
