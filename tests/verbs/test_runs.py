"""`ownlm runs`."""

import json
from pathlib import Path

import pytest

import ownlm
from ownlm.cli import main
from ownlm.console.errors import UsageError


def metric(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 40}


def make_run(folder: Path, created: str, finished: bool = True) -> None:
    folder.mkdir(parents=True)
    content = {
        "format": "ownlm run 1",
        "created": created,
        "model": {"size": "3M", "parameters": 3_412_992},
        "data": {"corpus": "语料"},
        "plan": {"max_steps": 1200},
        "cost": {"seconds": 305.2, "tokens": 9_830_400} if finished else None,
        "result": {"bits_per_byte": metric(1.234)} if finished else None,
        "finished": finished,
    }
    (folder / "run.json").write_text(json.dumps(content), encoding="utf-8")


def test_newest_first_with_its_figures_on_stdout(tmp_path, monkeypatch, capsys):
    make_run(tmp_path / "old", "2026-01-01T00:00:00+00:00")
    make_run(tmp_path / "new", "2026-02-01T00:00:00+00:00", finished=False)
    monkeypatch.chdir(tmp_path)
    assert main(["runs"]) == 0
    captured = capsys.readouterr()
    new, old = captured.out.splitlines()[-2:]
    assert new.split()[0] == "new"
    assert "not finished" in new
    for figure in ("old", "3.41M", "语料", "1,200", "1.234", "5 min 5 s", "finished"):
        assert figure in old
    assert "ownlm generate old" in captured.err


def test_json_and_python_give_the_same_rows(tmp_path, capsys):
    make_run(tmp_path / "a", "2026-01-01T00:00:00+00:00")
    assert main(["runs", str(tmp_path), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == ownlm.runs(tmp_path)
    assert printed[0]["bits_per_byte"] == metric(1.234)
    assert printed[0]["finished"] is True
    assert capsys.readouterr().out == ""


def test_a_broken_run_is_shown_with_its_reason(tmp_path, capsys):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "run.json").write_text("{")
    assert main(["runs", str(tmp_path)]) == 0
    assert "cannot be read" in capsys.readouterr().out


def test_nothing_found_names_the_next_commands(tmp_path, capsys):
    assert main(["runs", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "ownlm quickstart" in captured.err
    assert main(["runs", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_missing_folder_is_a_usage_error(tmp_path, capsys):
    assert main(["runs", str(tmp_path / "nothing")]) == 2
    with pytest.raises(UsageError, match="no such folder"):
        ownlm.runs(tmp_path / "nothing")
