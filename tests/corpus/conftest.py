from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ownlm.corpus.discover import discover
from ownlm.corpus.documents import Document, Dropped
from ownlm.corpus.readers import ReadSettings, plan_tasks, read_task

Read = Callable[..., tuple[list[Document], list[Dropped]]]


@pytest.fixture
def read() -> Read:
    """Reads sources as `prepare` does: (documents, what was dropped)."""

    def read_sources(*sources: Any, **settings: Any) -> tuple[list[Document], list[Dropped]]:
        files = discover(sources).files
        items = [item for task in plan_tasks(files, ReadSettings(**settings)) for item in read_task(task)]
        return (
            [item for item in items if isinstance(item, Document)],
            [item for item in items if isinstance(item, Dropped)],
        )

    return read_sources
