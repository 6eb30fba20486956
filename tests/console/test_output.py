"""Where words go, and in which encoding."""

import io
import json
import os
import shutil
import sys

import pytest

from ownlm.console import output


class Terminal(io.TextIOWrapper):
    """A stdout in a narrow encoding."""

    def __init__(self, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding=encoding)

    def text(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)  # type: ignore[attr-defined]


def test_results_go_to_stdout_and_words_to_stderr(capsys):
    output.result("answer")
    output.say("note")
    output.table("title", ["name", "n"], [["模型", 3]], numeric=[1])
    captured = capsys.readouterr()
    assert captured.out == "answer\n"
    assert "note" in captured.err
    assert "模型" in captured.err
    assert "\x1b" not in captured.err


def test_quiet_silences_words_but_not_warnings_or_results(capsys):
    with output.quiet():
        output.say("note")
        output.table("t", ["a"], [["b"]])
        output.next_commands("ownlm runs")
        output.warn("careful")
        output.result("answer")
    captured = capsys.readouterr()
    assert captured.err == "warning: careful\n"
    assert captured.out == "answer\n"
    output.say("again")
    assert "again" in capsys.readouterr().err


def test_a_table_that_is_the_result_goes_to_stdout_without_colour(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with output.quiet():
        output.result_table("Runs", ["run", "n"], [["模型", 1000]], numeric=[1])
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "\x1b" not in captured.out
    header, _, row = [line for line in captured.out.splitlines() if line and line != "Runs"]
    assert header.split() == ["run", "n"]
    assert row.split() == ["模型", "1000"]


def test_control_characters_of_a_name_do_not_reach_the_terminal(capsys):
    name = "a\x1b[31m\x9b\x07b\r.txt"
    output.say(name)
    output.warn(name)
    output.table("", ["file"], [[name]])
    shown = capsys.readouterr().err
    assert not set(shown) & set("\x1b\x9b\x07\r")
    assert shown.count(r"a\x1b[31m\x9b\x07b\x0d.txt") == 3


def test_a_narrow_terminal_gets_cells_line_by_line(capsys, monkeypatch):
    rows = [["exact duplicates", "86,879", "one dropped\ntwo dropped"], ["split", "12", ""]]
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((30, 20)))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    output.result_table("Steps", ["step", "documents", "what happened"], rows, numeric=[1])
    assert capsys.readouterr().out.splitlines() == [
        "Steps",
        "exact duplicates",
        "  documents: 86,879",
        "  what happened: one dropped",
        "    two dropped",
        "split",
        "  documents: 12",
    ]


def test_brackets_are_text_and_not_markup(capsys):
    output.say("[bold]x[/bold] data[0]")
    output.table("", ["h"], [["[red]y"]])
    captured = capsys.readouterr().err
    assert "[bold]x[/bold] data[0]" in captured
    assert "[red]y" in captured


def test_long_lines_stay_in_one_piece_off_a_terminal(capsys):
    path = "folder/" * 60
    output.say(path)
    assert path in capsys.readouterr().err


def test_a_narrow_encoding_replaces_characters_and_says_so_once(monkeypatch, capsys):
    monkeypatch.setattr(output, "_lossy_said", False)
    terminal = Terminal("latin-1")
    monkeypatch.setattr(sys, "stdout", terminal)
    output.result("café 诗")
    output.result("诗")
    assert terminal.text() == "café ?\n?\n"
    assert capsys.readouterr().err.count("PYTHONIOENCODING") == 1


def test_json_loses_nothing_in_a_narrow_encoding(monkeypatch):
    terminal = Terminal("latin-1")
    monkeypatch.setattr(sys, "stdout", terminal)
    output.result_json({"text": "诗"})
    assert json.loads(terminal.text()) == {"text": "诗"}


def test_json_is_readable_where_it_can_be(capsys):
    output.result_json({"text": "诗"})
    assert "诗" in capsys.readouterr().out


def test_python_and_shell_are_told_apart():
    assert not output.from_cli()
    with output.command_line():
        assert output.from_cli()
    assert not output.from_cli()


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (output.human_bytes, 999, "999 B"),
        (output.human_bytes, 1_234_567, "1.2 MB"),
        (output.human_bytes, 3e12, "3.0 TB"),
        (output.human_count, 512, "512"),
        (output.human_count, 10_312_704, "10.3M"),
        (output.human_count, 999_999, "1M"),
        (output.human_count, 2.5e12, "2.5T"),
        (output.human_seconds, 3.21, "3.2 s"),
        (output.human_seconds, 59.7, "1 min 0 s"),
        (output.human_seconds, 3725, "1 h 2 min"),
        (output.human_seconds, 3 * 86400, "3.0 days"),
    ],
)
def test_figures_for_people(function, value, text):
    assert function(value) == text
