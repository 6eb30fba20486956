"""`ownlm runs`."""

import json
from pathlib import Path

import pytest

import ownlm
from ownlm.cli import main, verb_command
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
        "result": {"loss": metric(3.456), "bits_per_byte": metric(1.234)} if finished else None,
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
    for figure in ("old", "3.41M", "语料", "1,200", "3.456", "1.234", "5 min 5 s", "finished"):
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


def test_an_unfinished_run_is_shown_as_far_as_its_log_goes(tmp_path, capsys):
    make_run(tmp_path / "a", "2026-01-01T00:00:00+00:00", finished=False)
    lines = [
        {"kind": "validation", "step": 100, "loss": 4.25, "bits_per_byte": 2.125},
        {"kind": "step", "step": 118, "loss": 4.1, "bits_per_byte": 2.0, "tokens": 1180, "seconds": 42.0},
    ]
    (tmp_path / "a" / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["runs", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    row = captured.out.splitlines()[-1]
    for words in ("~4.250", "~2.125", "42 s", "not finished (step 118)"):
        assert words in row
    assert "on a sample of the held-out text" in captured.err
    [found] = ownlm.runs(tmp_path)
    assert (found["step"], found["steps"], found["tokens"]) == (118, 1200, 1180)
    assert found["loss"] is None and found["validation"] == {
        "step": 100,
        "loss": 4.25,
        "bits_per_byte": 2.125,
    }


def test_an_adapter_names_its_base(tmp_path, capsys):
    make_run(tmp_path / "a", "2026-01-01T00:00:00+00:00")
    config = tmp_path / "a" / "adapter_config.json"
    config.write_text('{"base_model_name_or_path": "runs/base"}')
    assert main(["runs", str(tmp_path)]) == 0
    assert "adapter of runs/base, finished" in capsys.readouterr().out
    config.write_text("[")
    assert ownlm.runs(tmp_path)[0]["adapter_of"] == "a model it does not name"


def test_two_finished_runs_can_be_compared_next(tmp_path, monkeypatch, capsys):
    make_run(tmp_path / "old", "2026-01-01T00:00:00+00:00")
    make_run(tmp_path / "new one", "2026-02-01T00:00:00+00:00")
    monkeypatch.chdir(tmp_path)
    assert main(["runs"]) == 0
    assert "ownlm runs compare old 'new one'" in capsys.readouterr().err


def test_the_word_compare_is_completed_beside_folders(tmp_path, monkeypatch):
    for name in ("corpus", "compiled", ".hidden", "runs"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    folder = verb_command("runs").params[0]
    for typed, shown in (
        ("", ["compare", "compiled/", "corpus/", "runs/"]),
        ("com", ["compare", "compiled/"]),
    ):
        assert [item.value for item in folder.shell_complete(None, typed)] == shown
    assert [item.type for item in folder.shell_complete(None, "cor")] == ["file"]  # the shell does it
