"""`/v1/tasks/search`: a question is answered from documents of the server's, with its sources."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from ownlm.server.errors import ApiError
from ownlm.server.task_routes import run_task

if TYPE_CHECKING:
    from ownlm.search.cache import Opened
    from ownlm.server.call import Call
    from ownlm.server.served import Served

FRESH_SECONDS = 30.0  # after which it is looked whether files have changed


class Documents:
    """A file, folder or corpus that is searched; its index follows what changes in it.

    Args:
        path: of them.

    Raises:
        UsageError: no such file or folder, or bm25s is not installed. Refused: nothing in it can be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._opened, self._at = self._open(), time.monotonic()

    def opened(self) -> Opened:
        """The index as of half a minute ago at most."""
        with self._lock:
            if time.monotonic() - self._at > FRESH_SECONDS:
                self._opened, self._at = self._open(), time.monotonic()
            return self._opened

    @property
    def count(self) -> int:
        """How many documents are searched."""
        return sum(source.documents for source in self._opened.index.sources)

    def _open(self) -> Opened:
        from ownlm.search.cache import open_index

        return open_index(self.path)


async def search_documents(call: Call) -> Response:
    """Answer a request."""
    documents = call.state.documents
    fields = await call.fields()
    served = call.state.models.find(fields["model"])
    if documents is None:
        raise ApiError(
            400, "There are no documents here (ownlm serve --documents FOLDER).", code="no_documents"
        )
    if not fields["question"].strip():
        raise ApiError(400, "The question is empty.", param="question", code="invalid_value")
    _check(served, fields["answer"])
    return await run_task(
        call, served, "search", lambda model: _found(documents, served, model, fields), fields
    )


def _check(served: Served, how: str) -> None:
    """Whether the model can answer in this way.

    Raises:
        ApiError: 400: it cannot.
    """
    can = {"passages": True, "span": hasattr(served.loaded, "read_all"), "text": served.template is not None}
    if not can[how]:
        raise ApiError(
            400,
            f'The model "{served.name}" cannot answer with "{how}". What it can: '
            f"{', '.join(name for name, possible in can.items() if possible)}.",
            param="answer",
            code="task_not_supported",
        )


def _found(documents: Documents, served: Served, model: Any, fields: dict[str, Any]) -> dict[str, Any]:
    from ownlm.answering import document, span_answer, written_answer
    from ownlm.search.ranking import search

    question, how = fields["question"].strip(), fields["answer"]
    notes: list[str] = []
    opened = documents.opened()
    results = search(opened, question, fields["top_k"])
    answer = None
    if results.found and how == "span":
        answer = span_answer(model, question, results.hits)
    elif results.found and how == "text":
        answer = written_answer(
            model, question, results.hits, chat_template=_given_template(served), tell=notes.append
        )
    found = document(question, results, answer, documents.count, read=how != "passages")
    return found | {"notes": notes}


def _given_template(served: Served) -> str | None:
    """The template that the server was started with, when it is not that of the model's folder."""
    assert served.template is not None
    origin = served.template.where
    is_own = isinstance(origin, Path) and origin.parent == Path(served.loaded.path)
    return None if is_own else str(origin)
