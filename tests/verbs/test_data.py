"""`ownlm data` as it is typed: reports on stdout, exit codes, what a wrong command says."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from tests.tasks.files import CHAT, turns, write_jsonl
from tests.tasks.models import TEMPLATES, model_folder

import ownlm
from ownlm.cli import main


@pytest.fixture
def typed(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(*words):
        code = main(["data", *map(str, words)])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def chats(tmp_path):
    rows = [CHAT, {"messages": [*turns("a"), *turns("b", "c")]}, CHAT, {"text": "x"}]
    return write_jsonl(tmp_path / "faq.jsonl", rows)


def test_check_prints_the_report_and_every_exception_with_its_place(typed, chats):
    code, out, err = typed("check", "faq.jsonl")
    assert code == 0
    assert "4, of which 2 can be trained on, 2 not" in out
    assert 'faq.jsonl:2: two "user" turns in a row (turn 2). Join them' in out
    assert "faq.jsonl:4: not of the shape messages (text)." in out
    assert "1 rows are there before, the first: faq.jsonl:3 and faq.jsonl:1" in out
    assert "ownlm data show faq.jsonl --model last" in err


def test_check_says_how_many_exceptions_it_does_not_print(typed, tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", [CHAT, *[{"messages": turns("a")}] * 30])
    assert "and 20 more: --json" in typed("check", "rows.jsonl")[1]
    content = json.loads(typed("check", "rows.jsonl", "--json")[1])
    assert len(content["exceptions"]) == 30
    assert content == ownlm.data("check", ["rows.jsonl"])


@pytest.mark.parametrize("words", [("check",), ("check", "--json")])
def test_nothing_to_train_ends_with_3_after_the_report(typed, tmp_path, words):
    write_jsonl(tmp_path / "rows.jsonl", [{"messages": turns("a")}] * 3)
    code, out, err = typed(*words, "rows.jsonl")
    assert code == 3
    assert "no answer of the assistant" in out
    assert "none of 3 rows can be used" in err


def test_task_map_and_template_reach_the_data(typed, tmp_path, corpus):
    write_jsonl(tmp_path / "rows.jsonl", [{"abst": "a long text", "name": "short"}])
    assert typed("check", "rows.jsonl")[0] == 3
    code, out, err = typed("check", "rows.jsonl", "--map", "abst=document", "--map", "name=summary")
    assert (code, "summarization" in out) == (0, True)
    assert "ownlm data show rows.jsonl --map abst=document --map name=summary --model last" in err
    write_jsonl(tmp_path / "pair.jsonl", [{"source": "a", "target": "b"}])
    assert "summarization" in typed("check", "pair.jsonl", "--task", "summarization")[1]
    model_folder(tmp_path / "model", corpus, None)
    words = ("check", "pair.jsonl", "--model", "model")
    assert typed(*words)[0] == 3
    chatml, alpaca = (
        json.loads(typed(*words, "--chat-template", n, "--json")[1]) for n in ("chatml", "alpaca")
    )
    assert chatml["tokens"]["chat_template"]["sha256"] != alpaca["tokens"]["chat_template"]["sha256"]
    assert chatml["tokens"]["length"] != alpaca["tokens"]["length"]


def test_show_marks_what_is_trained(typed, tmp_path, corpus, chats):
    model_folder(tmp_path / "model", corpus, TEMPLATES["chatml"])
    code, out, err = typed("show", "faq.jsonl", "--model", "model", "-n", "1")
    assert code == 0
    assert "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n⟦The fox.<|im_end|>⟧\n" in out
    assert "── faq.jsonl:1" in out
    assert "faq.jsonl:3" not in out
    assert "2 exceptions" in err
    shown = json.loads(typed("show", "faq.jsonl", "--model", "model", "--json")[1])
    assert [row["where"] for row in shown] == ["faq.jsonl:1", "faq.jsonl:3"]
    trained = [i for i, on in zip(shown[0]["ids"], shown[0]["trained"]) if on]
    assert f"⟦{' '.join(map(str, trained))}⟧" in out


def test_show_uses_colour_on_a_terminal_alone_and_spells_out_control_characters(
    typed, tmp_path, corpus, monkeypatch
):
    from ownlm.tasks import show

    model_folder(tmp_path / "model", corpus, TEMPLATES["chatml"])
    write_jsonl(tmp_path / "rows.jsonl", [{"messages": turns("\x1b[2J", "fox")}])
    assert "\x1b" not in typed("show", "rows.jsonl", "--model", "model")[1]
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(show, "on_terminal", lambda: True)
    out = typed("show", "rows.jsonl", "--model", "model")[1]
    assert f"{show.GREEN}fox<|im_end|>{show.PLAIN}" in out
    assert "\\x1b[2J" in out


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ({"text": "the fox", "label": "animal"}, "a head learns: animal"),
        ({"tokens": ["the", "fox"], "tags": ["O", "B-A"]}, "the ⟦fox/B-A⟧"),
        ({"context": "the fox runs", "question": "who?", "answers": ["fox"]}, "who?\nthe ⟦fox⟧ runs"),
        ({"prompt": "the fox", "completion": " runs"}, "the fox⟦ runs<|endoftext|>⟧"),
    ],
)
def test_show_for_other_tasks(typed, tmp_path, corpus, row, shown):
    write_jsonl(tmp_path / "rows.jsonl", [row])
    model_folder(tmp_path / "model", corpus, None)
    code, out, _ = typed("show", "rows.jsonl", "--model", "model")
    assert (code, shown in out) == (0, True), out


def test_example_is_written_where_it_is_asked_for_and_checked(typed, tmp_path):
    code, out, err = typed("example", "translation", "-o", "pairs")
    assert code == 0
    assert "pairs: " in out
    assert "ownlm data check pairs" in err
    assert typed("check", "pairs")[0] == 0
    assert typed("example", "translation", "-o", "pairs")[0] == 2
    assert json.loads(typed("example", "translation", "--json")[1])["folder"] == "example-translation"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("check",), "data check needs DATA"),
        (("show", "faq.jsonl"), "--model last"),
        (("check", "faq.jsonl", "-n", "2"), "--rows: has no effect with check"),
        (("check", "faq.jsonl", "-o", "x"), "--output: has no effect with check"),
        (("example", "chat", "--model", "m"), "--model: has no effect with example"),
        (("check", "faq.jsonl", "--chat-template", "chatml"), "no effect without --model"),
        (("show", "faq.jsonl", "--model", "corpus", "-n", "0"), "should be 1 or more"),
        (("example",), "needs one task"),
        (("example", "translating"), 'Did you mean "translation"'),
        (("check", "nothing.jsonl"), "no such file"),
    ],
)
def test_wrong_words(typed, chats, words, message):
    code, _, err = typed(*words)
    assert (code, message in err) == (2, True), err


def test_check_and_example_load_no_torch(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", [CHAT])
    code = (
        "import sys, ownlm; ownlm.data('check', ['rows.jsonl']); ownlm.data('example', ['translation'], output='out');"
        "print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert done.stdout == "False False\n", done.stderr
