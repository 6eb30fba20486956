"""A small run with a window that holds instructions, plain and with a chat template."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ownlm.loaded import LoadedModel, load
from ownlm.tasks.templates import BUILT_IN
from tests.task_methods.models import wide_run


@pytest.fixture(scope="session")
def wide(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was trained on text alone; its window has 256 tokens."""
    return wide_run(corpus, tmp_path_factory.mktemp("wide") / "run")


@pytest.fixture(scope="session")
def model(wide: Path) -> LoadedModel:
    """The run, loaded."""
    return load(wide)


@pytest.fixture(scope="session")
def chatting(wide: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """The same weights with a chat template."""
    folder = tmp_path_factory.mktemp("chatting") / "run"
    shutil.copytree(wide, folder)
    (folder / "chat_template.jinja").write_text(BUILT_IN["chatml"])
    return load(folder)
