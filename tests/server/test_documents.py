"""`/v1/tasks/search`: answers from documents of the server's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ownlm.cli import main
from ownlm.server import documents as module
from ownlm.server.documents import Documents
from tests.server.live import Live, live

QUESTION = "What song do whales sing?"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "whales.md").write_text("Whales sing long songs below the ice.\n", encoding="utf-8")
    (tmp_path / "texts" / "birds.md").write_text("Birds fly south when autumn comes.\n", encoding="utf-8")
    return tmp_path / "texts"


@pytest.fixture
def server(model_folder: Path, folder: Path) -> Iterator[Live]:
    with live(model_folder) as found:
        found.state.documents = Documents(folder)
        yield found


def test_passages_with_their_sources(server):
    found = server.ok("/v1/tasks/search", question=QUESTION)
    assert found["object"] == "task.search"
    results = found["results"]
    assert results["found"] is True
    assert results["answer"] is None
    assert results["passages"][0]["source"].endswith("whales.md:1")
    assert results["documents"] == 2


def test_an_answer_is_words_of_a_passage(server):
    results = server.ok("/v1/tasks/search", question=QUESTION, answer="span", top_k=1)["results"]
    assert len(results["passages"]) == 1
    assert results["found"] == (results["answer"] is not None)  # the small model may find none
    if results["answer"] is not None:
        assert results["answer"]["answer"] in results["passages"][0]["text"]


def test_an_answer_is_written_with_the_template_of_the_server(server, monkeypatch):
    def written(model, question, hits, *, chat_template, tell):
        tell("a note")
        return {"answer": f"{question} {chat_template}", "sources": [hits[0].place]}

    monkeypatch.setattr("ownlm.answering.written_answer", written)
    results = server.ok("/v1/tasks/search", question=QUESTION, answer="text")["results"]
    assert results["answer"]["answer"] == f"{QUESTION} chatml"
    assert results["notes"] == ["a note"]


def test_passages_that_do_not_fit_the_window_are_refused_and_not_cut(server):
    error = server.refused("/v1/tasks/search", question=QUESTION, answer="text", top_k=1)
    assert "window" in error["message"]


def test_what_no_document_holds_is_said_to_be_not_found(server):
    results = server.ok("/v1/tasks/search", question="How do volcanoes erupt?", answer="span")["results"]
    assert (results["found"], results["answer"]) == (False, None)
    assert "volcanoes" in results["missing"]


def test_a_file_that_changes_is_read_again(server, folder, monkeypatch):
    (folder / "new.md").write_text("Volcanoes erupt when gas drives magma up.\n", encoding="utf-8")
    question = "Why do volcanoes erupt?"
    assert server.ok("/v1/tasks/search", question=question)["results"]["found"] is False
    monkeypatch.setattr(module, "FRESH_SECONDS", 0.0)
    assert server.ok("/v1/tasks/search", question=question)["results"]["found"] is True


def test_what_is_refused(server, model_folder, folder):
    assert server.refused("/v1/tasks/search", question=" ")["param"] == "question"
    assert server.refused("/v1/tasks/search", question=QUESTION, answer="poem")["param"] == "answer"
    server.state.documents = None
    assert server.refused("/v1/tasks/search", question=QUESTION)["code"] == "no_documents"
    with live(model_folder, chat_template=None) as plain:
        plain.state.documents = Documents(folder)
        error = plain.refused("/v1/tasks/search", question=QUESTION, answer="text")
        assert "passages, span" in error["message"]


def test_the_option(model_folder, folder, tmp_path, capsys):
    assert main(["serve", str(model_folder), "--documents", str(tmp_path / "nothing"), "--port", "0"]) == 2
    assert "nothing" in capsys.readouterr().err
    from tests.server.test_serve import process

    with process([str(model_folder), "--documents", str(folder)]) as server:
        answer = httpx.post(f"{server.url}/v1/tasks/search", json={"question": QUESTION}, timeout=60)
        assert answer.json()["results"]["documents"] == 2
        assert httpx.get(f"{server.url}/v1/tasks").json()["documents"] == {"name": "texts", "count": 2}
