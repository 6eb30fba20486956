"""`quickstart`: facts with their baselines, commands that run, and a second one that does nothing twice."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest

import ownlm
from ownlm.cli import main
from ownlm.console.errors import Interrupted
from ownlm.training import draft
from ownlm.training.loop import Trainer

FACTS = ("bits per byte", "true line preferred", "completions that parse", "new, not copied")


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setattr(draft, "num_cores", lambda: 1)


@pytest.fixture(scope="module")
def source(text_folder, tmp_path_factory):
    """A folder of one's own: the texts, and Python source with functions enough to complete."""
    folder = tmp_path_factory.mktemp("my texts") / "mine"
    shutil.copytree(text_folder, folder)
    return folder


class Typed:
    """`ownlm quickstart` typed once: its exit code, output and folder."""

    def __init__(self, code, shown, folder):
        self.code, self.out, self.err, self.folder = code, shown.out, shown.err, folder


def typed(capsys, source, folder, *more, minutes="0.01"):
    words = [
        "quickstart",
        *([str(source)] if source else []),
        "-o",
        str(folder),
        "--minutes",
        minutes,
        "--size",
        "1M",
    ]
    capsys.readouterr()
    code = main([*words, *more])
    return Typed(code, capsys.readouterr(), Path(folder))


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.fixture
def no_training(monkeypatch):
    """Training and measuring are left out: what is looked at happens before them."""

    def untrained(trainer):
        trainer.step = trainer.plan.max_steps
        return True

    monkeypatch.setattr(Trainer, "train", untrained)
    monkeypatch.setattr("ownlm.training.setup.calibrated_steps", lambda trainer, seconds: (1, 0.1))
    monkeypatch.setattr("ownlm.evaluation.facts._novelty", lambda *_: "left out by the test")


def test_facts_report_and_next_commands(source, tmp_path, capsys):
    found = typed(capsys, source, tmp_path / "my start", "--json")
    assert found.code == 0, found.err
    run = found.folder / "run"
    facts = json.loads(found.out)
    assert facts == json.loads((run / "facts.json").read_text(encoding="utf-8"))
    measured = {fact["name"] for fact in facts["facts"]}
    left_out = {entry["name"]: entry["why"] for entry in facts["left_out"]}
    assert sorted([*measured, *left_out]) == sorted(FACTS)
    assert {"bits per byte", "new, not copied"} <= measured
    assert left_out["completions that parse"].startswith("0 Python functions")
    for fact in facts["facts"]:
        assert fact["baselines"], fact["name"]
        assert fact["name"] in found.err
    for name, why in left_out.items():
        assert f"not measured: {name}: {why}" in found.err
    closing = json.loads((run / "run.json").read_text(encoding="utf-8"))["result"]["bits_per_byte"]
    assert next(fact["value"] for fact in facts["facts"] if fact["name"] == "bits per byte") == closing
    assert "bits per byte" in (run / "report.html").read_text(encoding="utf-8")
    assert f"report: {run / 'report.html'}" in found.err

    assert found.err.count("Next:") == 1
    commands = [shlex.split(line) for line in found.err.partition("Next:\n")[2].splitlines()]
    assert [command[:2] for command in commands] == [
        ["ownlm", verb] for verb in ("generate", "score", "pretrain")
    ]
    assert Path(commands[1][3].removeprefix("@")).is_file()
    longer = commands[2]
    assert longer[longer.index("--minutes") + 1] == "10"
    # Ten minutes are not needed to see that the command is understood: one step instead.
    at = longer.index("--minutes")
    commands[2] = [*longer[:at], "--max-steps", "1", "--size", "1M", "--threads", "1"]
    for command in commands:
        assert main(command[1:]) == 0, command
    assert (Path(longer[longer.index("-o") + 1]) / "model.safetensors").is_file()


def test_a_second_one_uses_the_corpus_again_and_changed_text_does_not(source, tmp_path, capsys, no_training):
    mine = tmp_path / "mine"
    shutil.copytree(source, mine)
    folder = tmp_path / "start"
    first = typed(capsys, mine, folder)
    assert first.code == 0, first.err
    assert "already prepared" not in first.err
    before = contents(folder / "corpus")
    second = typed(capsys, mine, folder)
    assert second.code == 0, second.err
    assert "already prepared (same settings, unchanged sources)" in second.err
    assert contents(folder / "corpus") == before
    hashes = [
        json.loads((folder / name / "run.json").read_text(encoding="utf-8"))["data"]["hash"]
        for name in ("run", "run-2")
    ]
    assert hashes[0] == hashes[1]
    (mine / "new.txt").write_text("The sea is wide, and the sea is deep.\n" * 60, encoding="utf-8")
    third = typed(capsys, mine, folder)
    assert third.code == 0, third.err
    assert "already prepared" not in third.err
    assert contents(folder / "corpus") != before
    assert json.loads((folder / "corpus/corpus.json").read_text(encoding="utf-8"))["sources"]["files"] == 4
    assert json.loads((folder / "run-3/run.json").read_text(encoding="utf-8"))["data"]["hash"] != hashes[0]


def test_an_interrupted_one_goes_on(source, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "start"
    monkeypatch.setattr("ownlm.training.setup.calibrated_steps", lambda trainer, seconds: (4, 0.1))
    train_step = Trainer.train_step

    def interrupted(trainer):
        values = train_step(trainer)
        if trainer.step == 2:
            trainer.stop.set()
        return values

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", interrupted)
        stopped = typed(capsys, source, folder)
    assert stopped.code == 130
    assert not (folder / "run/model.safetensors").exists()
    command = shlex.split(stopped.err.partition("Try: ")[2].splitlines()[0])
    assert command == ["ownlm", "pretrain", str(folder / "corpus"), "-o", str(folder / "run"), "--resume"]
    monkeypatch.setattr("ownlm.evaluation.facts._novelty", lambda *_: "left out by the test")
    done = typed(capsys, source, folder)
    assert done.code == 0, done.err
    assert f"An unfinished run is in {folder / 'run'}: going on with it." in done.err
    assert "Going on at step 2 of 4" in done.err
    assert not (folder / "run-2").exists()
    assert json.loads((folder / "run/run.json").read_text(encoding="utf-8"))["finished"] is True


def test_an_unfinished_run_of_other_text_is_left_alone(source, tmp_path, capsys, monkeypatch, no_training):
    folder, mine = tmp_path / "start", tmp_path / "mine"
    shutil.copytree(source, mine)

    def stopped(trainer):
        raise Interrupted("stopped by the test.")

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train", stopped)
        assert typed(capsys, mine, folder).code == 130
    before = contents(folder / "run")
    (mine / "new.txt").write_text("The sea is wide, and the sea is deep.\n" * 60, encoding="utf-8")
    assert typed(capsys, mine, folder).code == 0
    assert contents(folder / "run") == before
    assert (folder / "run-2/run.json").is_file()


def test_settings_reach_what_they_are_of(source, tmp_path, capsys, no_training):
    """Size, minutes and seed in run.json; the seed in the corpus too."""
    ownlm.quickstart([str(source)], output=tmp_path / "a", minutes=0.02, size="1M", seed=3)
    content = json.loads((tmp_path / "a/run/run.json").read_text(encoding="utf-8"))
    assert (content["settings"]["minutes"], content["model"]["size"], content["seed"]) == (0.02, "1M", 3)
    assert (
        json.loads((tmp_path / "a/corpus/corpus.json").read_text(encoding="utf-8"))["settings"]["seed"] == 3
    )
    assert typed(capsys, source, tmp_path / "b", minutes="0").code == 2
    assert typed(capsys, source, tmp_path / "b", "--device", "abacus").code == 2
    assert not (tmp_path / "b" / "run").exists()


def test_the_folder_is_named_after_the_first_source(source, tmp_path, capsys, no_training, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["quickstart", str(source), "--minutes", "0.01", "--size", "1M"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["ownlm-quickstart-mine"]


def test_without_sources_it_reads_pythons_own(tmp_path, capsys, monkeypatch):
    """Not the whole library: what is asked of `prepare` is looked at."""
    from ownlm.corpus import pipeline
    from ownlm.corpus.standard_library import standard_library

    asked = []

    class Enough(Exception):
        pass

    def asked_for(settings):
        asked.append(settings)
        raise Enough

    monkeypatch.setattr(pipeline, "prepare_corpus", asked_for)
    with pytest.raises(Enough):
        ownlm.quickstart(output=tmp_path / "start")
    library = standard_library()
    assert (asked[0].sources, asked[0].group_by) == (tuple(library.sources), library.group_by)
    assert (Path(library.sources[0]) / "json").is_dir()
