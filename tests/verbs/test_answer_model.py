"""`ownlm answer` with a model: words of a passage, or a text that it writes from the passages."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.conftest import TINY

import ownlm
from ownlm.cli import main
from ownlm.console.errors import Refused
from ownlm.loaded import LoadedModel
from ownlm.tasks.templates import BUILT_IN, FILE

TEXTS = {
    "river.txt": "The quick brown fox sleeps.\n\nThe river runs to the sea.",
    "hills.txt": "Rain falls on the hills.\n\nThe river runs below the hills again and again.",
}
QUESTION = "Where does the river run?"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "texts").mkdir()
    for name, text in TEXTS.items():
        (tmp_path / "texts" / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return "texts"


@pytest.fixture(scope="module")
def chatty(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model with a chat template and a window of 512 tokens."""
    path = tmp_path_factory.mktemp("chatty") / "chatty"
    ownlm.pretrain(corpus, output=path, max_steps=0, **(TINY | {"context": 512}))
    (path / FILE).write_text(BUILT_IN["chatml"], encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def head(chatty: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a new head for question answering."""
    from ownlm.model.heads_checkpoint import new_head, save_headed

    path = tmp_path_factory.mktemp("head") / "head"
    shutil.copytree(chatty, path, ignore=shutil.ignore_patterns("checkpoints", "*.safetensors", "run.json"))
    save_headed(new_head(chatty, "question-answering", (), 0, pad_token_id=0), path)
    figures = {"f1": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9}}
    scores = {"qa": {"before": None, "after": figures, "data": "q"}}
    (path / "run.json").write_text(json.dumps({"taught": ["qa"], "scores": scores}), encoding="utf-8")
    return path


def test_a_head_reads_the_passages(folder, head, capfd):
    assert main(["answer", str(head), QUESTION, "--context", folder]) == 0
    printed = capfd.readouterr()
    found = ownlm.answer(str(head), QUESTION, context=folder)
    answer, passages = found["answer"], found["passages"]
    assert passages == ownlm.answer(QUESTION, context=folder)["passages"]
    assert len(passages) == 2
    assert passages[answer["passage"]]["text"][answer["start"] : answer["end"]] == answer["answer"]
    assert printed.out.endswith(f"\n\nAnswer: {answer['answer']}\n        ({answer['sources'][0]})\n")
    loaded = ownlm.load(head)
    read = [loaded.read(QUESTION, passage["text"])[0] for passage in passages]
    weighed = [one["score"] * p["score"] / passages[0]["score"] for one, p in zip(read, passages)]
    assert answer["score"] == pytest.approx(max(weighed))
    assert "measured" in printed.err
    assert "no measured score" not in printed.err


class Reader(LoadedModel):
    """Answers as a table says."""

    def __init__(self, answers: dict[str, tuple[str, float]]) -> None:
        self.path, self.run, self.answers, self.asked = Path("reader"), {}, answers, list[str]()

    def read_all(self, pairs: Any, top_k: int = 1) -> Any:
        found = []
        for question, context in pairs:
            self.asked.append(question)
            answer, score = next(a for word, a in self.answers.items() if word in context)
            start = context.index(answer) if answer else 0
            found.append([{"answer": answer, "score": score, "start": start, "end": start + len(answer)}])
        return found


def test_search_and_reading_are_weighed_together(folder):
    scores = [p["score"] for p in ownlm.answer(QUESTION, context=folder)["passages"]]
    names = [Path(p["file"]).name for p in ownlm.answer(QUESTION, context=folder)["passages"]]
    ratio = scores[1] / scores[0]
    assert ratio < 0.99
    words = {"river.txt": ("quick", "to the sea"), "hills.txt": ("Rain", "below the hills")}
    (best, best_answer), (second, second_answer) = (words[name] for name in names)
    for chance, expected in ((0.5 * ratio * 1.01, best_answer), (0.5 * ratio * 0.99, second_answer)):
        reader = Reader({best: (best_answer, chance), second: (second_answer, 0.5)})
        answer = ownlm.answer(reader, QUESTION, context=folder)["answer"]
        assert answer["answer"] == expected
    line = ownlm.answer(reader, QUESTION, context=folder)["answer"]["sources"]
    assert line == [f"texts/{names[1]}:3"]  # the line of the answer, not of the passage


def test_an_answer_that_no_passage_gives(folder, capfd, monkeypatch):
    reader = Reader({"river": ("", 0.9)})
    found = ownlm.answer(reader, QUESTION, context=folder)
    assert (found["found"], found["answer"], len(found["passages"])) == (False, None, 2)
    monkeypatch.setattr("ownlm.loaded.load", lambda model, **options: reader)
    monkeypatch.setattr("ownlm.loaded.resolve", Path)
    assert main(["answer", "reader", QUESTION, "--context", folder]) == 0
    printed = capfd.readouterr()
    assert "Answer: not found in these 2 documents; the model finds none in these passages" in printed.out
    assert "no measured score for qa" in printed.err


def test_a_model_does_not_read_what_was_not_found(folder):
    reader = Reader({})
    assert not ownlm.answer(reader, "Who repaired the engine of the river submarine?", context=folder)[
        "found"
    ]
    assert reader.asked == []


def test_a_model_without_a_head_answers_in_words_of_a_passage(folder, chatty, capfd):
    assert main(["answer", str(chatty), QUESTION, "--context", folder, "--json"]) == 0
    printed = capfd.readouterr()
    found = json.loads(printed.out)
    loaded = ownlm.load(chatty)
    read = [loaded.read(QUESTION, passage["text"])[0]["answer"] for passage in found["passages"]]
    assert any(read)
    assert found["answer"]["answer"] in read
    assert "no measured score for qa" in printed.err


class Talker(Reader):
    """Says one thing, and refuses more than `room` characters."""

    def __init__(self, says: str, room: int = 10**9) -> None:
        super().__init__({})
        self.says, self.room = says, room

    def chat(self, messages: Any, **sampling: Any) -> Any:  # type: ignore[override]
        if len(messages) > self.room:
            raise Refused("too long.", where="message")
        assert sampling["temperature"] == 0
        self.asked.append(messages)
        return SimpleNamespace(text=self.says, finish_reason="stop")


def test_a_model_that_chats_writes_the_answer(folder, chatty, capfd):
    model = Talker(" To the sea. ")
    found = ownlm.answer(model, QUESTION, context=folder, generate=True)
    sources = [passage["source"] for passage in found["passages"]]
    assert found["answer"] == {"answer": "To the sea.", "sources": sources}
    (asked,) = model.asked
    assert all(passage["text"] in asked for passage in found["passages"])
    assert asked.endswith(f"Question: {QUESTION}")
    command = [
        "answer",
        str(chatty),
        "Which fox?",
        "--context",
        folder,
        "--generate",
        "--top-k",
        "1",
        "--json",
    ]
    assert main(command) == 0
    printed = capfd.readouterr()
    real = json.loads(printed.out)
    if real["answer"] is not None:
        assert real["answer"]["sources"] == [real["passages"][0]["source"]]
    assert "no measured score for chat" in printed.err


def test_passages_that_do_not_fit_are_left_out_from_the_end(folder, capfd):
    model = Talker("The sea.", room=240)
    found = ownlm.answer(model, QUESTION, context=folder, generate=True)
    assert found["answer"]["sources"] == [found["passages"][0]["source"]]
    assert "1 of 2 passages do not fit" in capfd.readouterr().err
    with pytest.raises(Refused, match="too long"):
        ownlm.answer(Talker("", room=20), QUESTION, context=folder, generate=True)


def test_a_model_that_says_it_is_not_there(folder):
    found = ownlm.answer(Talker('"Not in the text."'), QUESTION, context=folder, generate=True)
    assert (found["found"], found["answer"]) == (False, None)


def test_device_and_dtype_reach_the_model(folder, head, capfd):
    assert main(["answer", str(head), QUESTION, "--context", folder, "--device", "abacus"]) != 0
    assert "abacus" in capfd.readouterr().err
    scores = [
        ownlm.answer(str(head), QUESTION, context=folder, dtype=dtype)["answer"]["score"]
        for dtype in ("float32", "bfloat16")
    ]
    assert scores[0] != scores[1]
    assert scores[0] == pytest.approx(scores[1], rel=0.2)
