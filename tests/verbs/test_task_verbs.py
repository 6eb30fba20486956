"""`translate`, `classify` and `summarize` as commands: lines in, lines out."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.task_methods.models import wide_run

import ownlm
from ownlm.cli import main

OPTIONS = {
    "translate": ["--to", "de", "--max-new-tokens", "4"],
    "classify": ["--labels", "good,bad"],
    "summarize": ["--max-new-tokens", "4"],
}


@pytest.fixture(scope="module")
def wide(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(wide_run(corpus, tmp_path_factory.mktemp("wide") / "run"))


@pytest.fixture
def typed(wide, capsys, monkeypatch, tmp_path):
    """Types a verb with the small run; gives exit code, output, errors."""
    monkeypatch.chdir(tmp_path)

    def type_it(verb: str, *words: str, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        code = main([verb, wide, *OPTIONS[verb], *words])
        return code, *capsys.readouterr()

    return type_it


@pytest.mark.parametrize("verb", OPTIONS)
def test_line_n_of_the_result_belongs_to_line_n_of_the_input(verb, typed, tmp_path):
    """From a file and from standard input, empty lines too."""
    texts = ["The fox runs home.", "", "A river flows.", " \t", "春眠不觉晓"]
    (tmp_path / "lines.txt").write_bytes("\r\n".join(texts).encode())
    code, shown, errors = typed(verb, "@lines.txt")
    assert code == 0 and "2 of 5 lines are empty and stay so" in errors
    found = shown.split("\n")
    assert len(found) == 6 and found[1] == found[3] == found[5] == ""
    alone = [typed(verb, texts[n])[1].strip("\n") for n in (0, 2, 4)]
    assert [found[n] for n in (0, 2, 4)] == [
        " ".join(one.split()) if verb != "classify" else one for one in alone
    ]
    assert typed(verb, "-", stdin="\n".join(texts).encode() + b"\n")[1] == shown
    assert typed(verb, stdin="\n".join(texts).encode())[1] == shown  # nothing named: standard input


def test_more_lines_than_a_batch_keep_their_order(typed):
    lines = [f"{n}: The fox" for n in range(150)]
    _, shown, errors = typed("classify", "-", stdin="\n".join(lines).encode())
    assert shown.count("\n") == 150 and "150 texts in " in errors
    assert shown.split("\n")[140] + "\n" == typed("classify", lines[140])[1]


@pytest.mark.parametrize(
    ("verb", "keys"),
    [("translate", {"translation_text"}), ("summarize", {"summary_text"}), ("classify", {"label", "score"})],
)
def test_json_output_and_python_give_the_shapes_of_the_old_pipelines(verb, keys, typed, wide, tmp_path):
    code, shown, _ = typed(verb, "The fox", "A river", "--json")
    found = json.loads(shown)
    assert code == 0 and len(found) == 2
    entries = [one[0] for one in found] if verb == "classify" else found
    assert all(set(one) == keys for one in entries)
    options: dict[str, Any] = {
        "translate": {"to": "de", "max_new_tokens": 4},
        "classify": {"labels": ["good", "bad"]},
        "summarize": {"max_new_tokens": 4},
    }[verb]
    assert getattr(ownlm, verb)(wide, ["The fox", "A river"], **options) == found
    code, shown, _ = typed(verb, "The fox", "A river", "--output", "out.jsonl")
    assert (code, shown) == (0, "")
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == found
    typed(verb, "The fox", "A river", "-o", "out.txt")
    plain = (tmp_path / "out.txt").read_text().splitlines()
    assert len(plain) == 2 and not plain[0].startswith("{")


def test_top_k_gives_more_labels_best_first(typed):
    _, shown, _ = typed("classify", "The fox", "--top-k", "2")
    first, score, second, other = shown.strip().split("\t")
    assert {first, second} == {"good", "bad"} and float(score) >= float(other)
    assert float(score) + float(other) == pytest.approx(1, abs=2e-4)
    assert typed("classify", "The fox", "--top-k", "0")[0] == 2


def test_options_reach_the_model(typed):
    one, three = (typed("translate", "The fox", "--max-new-tokens", n)[1] for n in ("1", "9"))
    assert one != three
    assert typed("translate", "A fox", "--from", "en")[1] != typed("translate", "A fox", "--from", "zh")[1]
    long = "The fox runs. " * 200
    for verb in ("translate", "summarize"):
        code, _, errors = typed(verb, long)
        assert code == 3 and "--truncate" in errors
        code, shown, errors = typed(verb, long, "--truncate")
        assert code == 0 and shown and "1 of 1 texts did not fit the window and were cut" in errors
    assert typed("classify", "x", "--device", "cuda:9")[0] in (2, 3)
    assert typed("classify", "x", "--dtype", "float16")[0] == 2
    assert typed("classify", "The fox", "--dtype", "int8")[1] != typed("classify", "The fox")[1]


def test_a_file_to_summarize_is_one_document(typed, tmp_path):
    (tmp_path / "story.txt").write_text("The fox runs home.\nA river flows.\n")
    whole = typed("summarize", "story.txt")[1]
    assert whole == typed("summarize", "The fox runs home.\nA river flows.\n")[1]
    assert typed("summarize", "@story.txt")[1].count("\n") == 2
    code, _, errors = typed("summarize", "stroy.txt")
    assert code == 2 and "stroy.txt: no such file" in errors
    assert typed("translate", "@stroy.txt")[0] == 2


def test_json_lines_hold_a_text_each_and_a_row_of_another_shape_is_refused_before_anything_is_done(
    typed, tmp_path
):
    rows = ['"The fox\\nruns"', '{"text": "A river", "n": 1}', "", '{"source": "Rain"}']
    (tmp_path / "rows.jsonl").write_text("\n".join(rows) + "\n")
    code, shown, _ = typed("translate", "@rows.jsonl", "--json")
    assert code == 0 and len(json.loads(shown)) == 3
    for bad, message in (
        ('{"label": 1}', "It has label"),
        ("[1]", "no text under"),
        ('{"text": 3}', "no text"),
        ("{", "not a JSON line"),
    ):
        (tmp_path / "bad.jsonl").write_text("\n".join([*rows, bad, '"more"']))
        code, shown, errors = typed("translate", "@bad.jsonl", "--output", "none.txt")
        assert (code, shown) == (3, "") and f"bad.jsonl:{len(rows) + 1}: " in errors and message in errors
        assert not (tmp_path / "none.txt").exists()


def test_bytes_of_latin_1(typed, tmp_path):
    data = "Le café est fermé.\nÀ la rivière.\n".encode("latin-1")
    (tmp_path / "french.txt").write_bytes(data)
    code, shown, errors = typed("classify", "@french.txt")
    assert code == 0 and shown.count("\n") == 2 and "french.txt: read as latin-1" in errors
    assert shown.split("\n")[0] + "\n" == typed("classify", "Le café est fermé.")[1]
    code, shown, errors = typed("classify", "-", stdin=b"The fox\n" + data)
    assert code == 3 and "standard input:2: byte 7 of the line is not UTF-8" in errors


@pytest.mark.parametrize("verb", OPTIONS)
def test_no_text(verb, typed, tmp_path):
    (tmp_path / "empty.txt").write_bytes(b"\n\n")
    for words in ([""], [" \n"], ["@empty.txt"], ["-"]):
        code, shown, errors = typed(verb, *words)
        assert code == 3 and not shown.strip() and "there is no text" in errors


def test_the_line_that_does_not_fit_is_named(typed, tmp_path):
    (tmp_path / "lines.txt").write_text("A fox\n\n" + "The fox runs. " * 200 + "\n")
    code, _, errors = typed("translate", "@lines.txt")
    assert code == 3 and "lines.txt:3: " in errors


def test_languages_are_checked_before_the_model_is_opened(typed, capsys):
    code, _, errors = typed("translate", "x", "--to", "jp")
    assert code == 2 and '--to: there is no language "jp". Did you mean "ja" (Japanese)?' in errors
    assert typed("translate", "x", "--from", "klingon")[0] == 2
    assert main(["translate", "no/such/run", "x"]) == 2
    assert "needs --to" in capsys.readouterr().err


def test_what_was_measured_is_said_and_what_was_not(typed, wide):
    _, _, errors = typed("classify", "x")
    assert "has no measured score for classification, and was not taught it (continues text)" in errors
    assert f"ownlm evaluate {wide} DATA --task classification" in errors
    file = Path(wide) / "run.json"
    before = file.read_text()
    score = {"accuracy": {"value": 0.832, "low": 0.8, "high": 0.86, "n": 500}}
    scores = {"sentiment": {"before": None, "after": score, "data": "reviews.jsonl"}}
    file.write_text(
        json.dumps(
            json.loads(before)
            | {"scores": scores, "taught": ["continues text", "sentiment"], "labels": ["good", "bad"]}
        )
    )
    try:
        _, _, errors = typed("classify", "x")
        assert "sentiment: accuracy 83.2 % (80.0 % to 86.0 %, 500 rows) on reviews.jsonl, measured." in errors
        assert "no measured score" not in errors
        assert "no measured score for translation" in typed("translate", "x")[2]
    finally:
        file.write_text(before)


def test_ctrl_c_keeps_the_lines_that_are_done(wide, tmp_path):
    """Two batches are written while standard input stays open; then the user stops."""
    command = [sys.executable, "-m", "ownlm", "classify", wide, "-", "--labels", "good,bad", "-o", "out.txt"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ}
    )
    assert process.stdin is not None
    process.stdin.write(b"The fox\n" * 128)
    process.stdin.flush()
    out = tmp_path / "out.txt"
    for _ in range(600):
        if out.is_file() and out.read_text().count("\n") == 128:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (
        b"stopped after 128 texts; out.txt holds their results" in errors and b"from number 129 on" in errors
    )
    assert out.read_text().count("\n") == 128


def test_results_of_several_lines_are_joined_where_lines_count(typed, monkeypatch, tmp_path):
    from ownlm.task_methods import methods

    monkeypatch.setattr(
        methods.TaskMethods,
        "summarize",
        lambda self, texts, **_: [{"summary_text": "two\nlines"} for _ in texts],
    )
    (tmp_path / "lines.txt").write_text("a\nb\n")
    _, shown, errors = typed("summarize", "@lines.txt")
    assert (
        shown == "two lines\ntwo lines\n"
        and "2 results of several lines were written as one line each" in errors
    )
    assert typed("summarize", "a")[1] == "two\nlines\n"
