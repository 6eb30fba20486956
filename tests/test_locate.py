"""Finding runs: `last`, names, lists."""

import json
from pathlib import Path

import pytest

from ownlm import locate
from ownlm.console.errors import Refused, UsageError
from ownlm.locate import find_run, list_runs


def make_run(folder: Path, created: str, **facts: object) -> Path:
    folder.mkdir(parents=True)
    content = {"format": "ownlm run 1", "created": created, **facts}
    (folder / "run.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_last_is_the_newest_run_by_its_own_date_not_by_name_or_file_time(tmp_path, monkeypatch):
    make_run(tmp_path / "zz", "2026-01-01T00:00:00+00:00")
    make_run(tmp_path / "deep" / "er" / "模型", "2026-03-01T00:00:00+00:00")
    make_run(tmp_path / "aa", "2026-02-01T00:00:00+00:00")
    monkeypatch.chdir(tmp_path)
    assert find_run("last") == Path("deep/er/模型")
    assert [run.path.name for run in list_runs(tmp_path)] == ["模型", "aa", "zz"]


def test_runs_in_skipped_hidden_and_too_deep_folders_are_not_found(tmp_path):
    for folder in (".venv/run", ".git/run", "run/checkpoints/step-5", "node_modules/run", "1/2/3/4/5"):
        make_run(tmp_path / folder, "2026-01-01T00:00:00+00:00")
    assert list_runs(tmp_path) == []
    make_run(tmp_path / "1" / "2" / "3" / "run", "2026-01-01T00:00:00+00:00")
    assert len(list_runs(tmp_path)) == 1


def test_no_run_names_the_commands_that_make_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="no run found") as error:
        find_run("last")
    assert "ownlm quickstart" in error.value.do
    assert "ownlm pretrain" in error.value.do


def test_a_misspelt_run_gets_the_closest_one(tmp_path, monkeypatch):
    make_run(tmp_path / "poetry", "2026-01-01T00:00:00+00:00")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match='Did you mean "poetry"'):
        find_run("poetri")


def test_a_hugging_face_folder_is_a_run_and_a_corpus_is_not(tmp_path):
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "config.json").write_text("{}")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "corpus.json").write_text("{}")
    assert find_run(tmp_path / "hub") == tmp_path / "hub"
    with pytest.raises(Refused, match="a corpus, not a run") as error:
        find_run(str(tmp_path / "corpus"))
    assert error.value.do.startswith("ownlm pretrain")


def test_a_folder_called_last_wins_over_the_word(tmp_path, monkeypatch):
    make_run(tmp_path / "last", "2020-01-01T00:00:00+00:00")
    make_run(tmp_path / "newer", "2026-01-01T00:00:00+00:00")
    monkeypatch.chdir(tmp_path)
    assert find_run("last") == Path("last")


def test_a_broken_run_is_listed_with_its_problem(tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text('{"format": ')
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.json").write_text("[1, 2]")
    problems = {run.path.name: run.problem for run in list_runs(tmp_path)}
    assert "cannot be read" in problems["broken"]
    assert "ownlm run 1" in problems["other"]


def test_a_huge_tree_is_not_walked_to_its_end_and_that_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(locate, "MAX_FOLDERS", 3)
    for name in "abcdef":
        make_run(tmp_path / name, "2026-01-01T00:00:00+00:00")
    assert len(list_runs(tmp_path)) == 2
    assert "3 folders" in capsys.readouterr().err
