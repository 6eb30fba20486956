"""`ownlm answer` without a model: passages with their places, and what is not there."""

import io
import json
import sys
from pathlib import Path

import pytest

import ownlm
from ownlm.cli import main
from ownlm.console.errors import Refused, UsageError

WHALES = "# Whales\n\nWhales sing long songs below the ice.\nA song lasts for half an hour.\n"
MOON = "The moon pulls the water.\n\nIt makes the tides of the sea.\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "whales.md").write_text(WHALES, encoding="utf-8")
    (texts / "moon.txt").write_text(MOON, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return "texts"


def type_questions(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_passages_with_their_places_best_first(folder, capfd):
    assert main(["answer", "How long does a song of whales last?", "--context", folder]) == 0
    printed = capfd.readouterr()
    assert printed.out == (
        "texts/whales.md:1  Whales\n  # Whales\n  Whales sing long songs below the ice.\n"
        "  A song lasts for half an hour.\n"
    )
    assert "ownlm answer MODEL 'How long does a song of whales last?' --context texts" in printed.err


def test_what_is_not_there(folder, capfd):
    assert main(["answer", "Who repaired the submarine of the moon base?", "--context", folder]) == 0
    printed = capfd.readouterr()
    assert printed.out == "not found in these 2 documents\n"
    assert "Not in any document: repaired, submarine, base." in printed.err
    assert "Nearest: texts/moon.txt:1" in printed.err


def test_a_question_in_another_script(folder, capfd):
    assert main(["answer", "鲸鱼唱什么歌？", "--context", folder]) == 0
    printed = capfd.readouterr()
    assert printed.out == "not found in these 2 documents\n"
    assert "another script than the documents" in printed.err


def test_python_gets_what_json_prints(folder, capfd):
    question = "What makes the tides?"
    found = ownlm.answer(question, context=folder)
    assert capfd.readouterr().out == ""
    assert main(["answer", question, "--context", folder, "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == found
    assert (found["found"], found["documents"], found["answer"], found["missing"]) == (True, 2, None, [])
    (passage,) = found["passages"]
    assert passage["text"] == MOON.strip()
    assert (passage["source"], passage["file"], passage["line"], passage["page"]) == (
        "texts/moon.txt:1", "texts/moon.txt", 1, None,
    )  # fmt: skip
    assert found["share"] > found["threshold"]
    nothing = ownlm.answer("Who repaired the submarine?", context=folder)
    assert (nothing["found"], nothing["passages"]) == (False, [])
    assert ownlm.answer(question=question, context=Path(folder)) == found


def test_questions_from_standard_input_and_a_file(folder, monkeypatch, capfd):
    lines = "What makes the tides?\n\nWho repaired the submarine?\nWhat is it?\n"
    type_questions(monkeypatch, lines.encode())
    assert main(["answer", "--context", folder, "--top-k", "1"]) == 0
    printed = capfd.readouterr()
    moon = "texts/moon.txt:1\n  The moon pulls the water.\n  It makes the tides of the sea.\n"
    assert printed.out == (
        f"What makes the tides?\n{moon}\n\n\n\nWho repaired the submarine?\nnot found in these 2 documents\n"
        "\nWhat is it?\nnot found in these 2 documents\n"
    )
    assert "standard input:4: The question has only words of grammar" in printed.err
    assert "4 questions, 1 of them found" in printed.err
    Path("questions.txt").write_text(lines, encoding="utf-8")
    assert main(["answer", "@questions.txt", "--context", folder, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert [one["found"] for one in found] == [True, False, False, False]
    type_questions(monkeypatch, lines.encode())
    assert ownlm.answer("-", context=folder) == found


def test_answers_are_kept_in_a_file(folder, monkeypatch, capfd):
    Path("q.jsonl").write_text('{"question": "What makes the tides?"}\n"Which songs?"\n', encoding="utf-8")
    assert main(["answer", "@q.jsonl", "--context", folder, "--output", "a.jsonl"]) == 0
    rows = [json.loads(line) for line in Path("a.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["passages"][0]["file"] for row in rows] == ["texts/moon.txt", "texts/whales.md"]
    assert capfd.readouterr().out == ""
    assert main(["answer", "Which songs?", "--context", folder, "-o", "a.txt"]) == 0
    assert Path("a.txt").read_text(encoding="utf-8").startswith("texts/whales.md:1  Whales\n")

    def interrupted():
        yield b"What makes the tides?\n"
        raise KeyboardInterrupt

    class Keys:
        buffer = interrupted()
        closed = False

        def isatty(self) -> bool:
            return False

    monkeypatch.setattr(sys, "stdin", Keys())
    assert main(["answer", "--context", folder, "--output", "b.jsonl"]) == 130
    assert "stopped after 1 questions; b.jsonl holds the answers" in capfd.readouterr().err
    assert json.loads(Path("b.jsonl").read_text(encoding="utf-8"))["found"]


def test_words_of_the_question_are_marked_on_a_terminal(folder, monkeypatch, capfd):
    from ownlm.verbs import _answers

    monkeypatch.setattr(_answers, "coloured", lambda: True)
    assert main(["answer", "What song do whales sing?", "--context", folder]) == 0
    printed = capfd.readouterr().out
    assert "\x1b[1;33mWhales\x1b[0m \x1b[1;33msing\x1b[0m long \x1b[1;33msongs\x1b[0m below" in printed
    assert "\x1b[36mtexts/whales.md:1\x1b[0m" in printed


@pytest.mark.parametrize(
    ("no_color", "terminal", "expected"), [(None, True, True), ("", True, False), (None, False, False)]
)
def test_colour_is_for_terminals_that_want_it(monkeypatch, no_color, terminal, expected):
    from ownlm.verbs import _answers

    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    assert _answers.coloured() == expected


def test_what_it_refuses(folder, monkeypatch, capfd):
    for question, what in (
        ("", "the question is empty"),
        ("  ", "empty"),
        ("Who is it?", "only words of grammar"),
    ):
        with pytest.raises(Refused, match=what):
            ownlm.answer(question, context=folder)
    with pytest.raises(UsageError, match="--top-k: 0 passages"):
        ownlm.answer("songs", context=folder, top_k=0)
    with pytest.raises(UsageError, match="needs a MODEL"):
        ownlm.answer("songs", context=folder, generate=True)
    with pytest.raises(UsageError, match="needs context"):
        ownlm.answer("songs")
    with pytest.raises(UsageError, match="a question is a text"):
        ownlm.answer(5, context=folder)
    type_questions(monkeypatch, b"\n\n")
    with pytest.raises(Refused, match="there is no question"):
        ownlm.answer(context=folder)
    type_questions(monkeypatch, b"Which songs?\n\xff\xfe\n")
    assert main(["answer", "--context", folder]) == 3
    assert "standard input:2: byte 1 of the line is not UTF-8." in capfd.readouterr().err


def test_a_question_that_is_a_model_is_a_forgotten_question(folder, run, capfd):
    assert main(["answer", str(run), "--context", folder]) == 2
    said = capfd.readouterr().err
    assert "a model; the question is missing." in said
    assert "--context texts" in said
    assert main(["answer", "last", "--context", folder]) == 2


def test_a_model_that_is_not_there_is_said_before_the_index_is_made(folder, capfd):
    assert main(["answer", "./no/such", "Which songs?", "--context", folder]) == 2
    assert "no such run folder" in capfd.readouterr().err
    assert not Path(".ownlm-index").exists()


def test_latin_1_documents_are_read(tmp_path):
    (tmp_path / "a.txt").write_bytes("Der Bär schläft im Winter in der Höhle.\n".encode("latin-1") * 3)
    found = ownlm.answer("Wo schläft der Bär im Winter?", context=tmp_path / "a.txt")
    assert found["found"]
    assert "Bär schläft" in found["passages"][0]["text"]
