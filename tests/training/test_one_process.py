"""A run folder and its corpus are what the run thinks they are: one writer, the tokens that were prepared, whole checkpoints."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from ownlm.cli import main
from ownlm.console.errors import UsageError
from ownlm.console.lock import only_one
from ownlm.training.checkpoint import checkpoints
from ownlm.training.log import RunLog, read_log
from ownlm.verbs.runs import runs

TINY = ["--size", "1M", "--set", "num_hidden_layers=2", "--set", "hidden_size=64", "--context", "32"]


def train(corpus, folder, *words):
    return main(["pretrain", str(corpus), "-o", str(folder), *TINY, *words])


def test_the_lock_is_held_by_one_process_and_given_back_by_its_end(tmp_path):
    hold = "import sys; from pathlib import Path; from ownlm.console.lock import only_one\n"
    hold += "with only_one(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(UsageError, match="another process"), only_one(tmp_path):
        pass
    holder.kill()
    holder.wait()
    with only_one(tmp_path):
        pass


@pytest.mark.parametrize("words", [["--overwrite", "--max-steps", "3"], ["--resume"]])
def test_a_folder_that_another_process_trains_in_is_left_alone(corpus, tmp_path, capsys, words):
    folder = tmp_path / "run"
    assert train(corpus, folder, "--max-steps", "2") == 0
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with only_one(folder):
        assert main(["pretrain", str(corpus), "-o", str(folder), *words]) == 2
    assert "another process" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_changed_tokens_are_refused_before_step_1(corpus, tmp_path, capsys):
    changed = tmp_path / "corpus"
    shutil.copytree(corpus, changed)
    shard = next(changed.glob("train-*.bin"))
    tokens = np.fromfile(shard, dtype="<u2")
    tokens[:100] = tokens[:100][::-1].copy()
    tokens.tofile(shard)
    assert train(changed, tmp_path / "run", "--max-steps", "2") == 3
    assert "the shard was changed" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_weights_that_are_refused_cost_no_finished_run(corpus, tmp_path):
    good, bad = tmp_path / "good", tmp_path / "bad"
    assert train(corpus, good, "--max-steps", "2") == 0
    shutil.copytree(good, bad)
    tensors = load_file(bad / "model.safetensors")
    next(iter(tensors.values())).view(-1)[0] = float("nan")
    save_file(tensors, bad / "model.safetensors", {"format": "pt"})
    before = (good / "model.safetensors").read_bytes()
    words = ["--overwrite", "--from", str(bad), "--max-steps", "2", "--context", "32"]
    assert main(["pretrain", str(corpus), "-o", str(good), *words]) == 3
    assert (good / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("damage", ["weights", "optimizer", "state", "empty state"])
def test_a_damaged_checkpoint_is_named_with_what_helps(corpus, tmp_path, capsys, damage):
    folder = tmp_path / "run"
    assert train(corpus, folder, "--max-steps", "4", "--save-steps", "2") == 0
    content = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(content | {"finished": False}))
    newest = checkpoints(folder)[-1]
    if damage in ("weights", "optimizer"):
        file = newest / {"weights": "model.safetensors", "optimizer": "optimizer.safetensors"}[damage]
        file.write_bytes(file.read_bytes()[:-1000])
    else:
        (newest / "state.json").write_text("{" if damage == "state" else "{}")
    resume = ["pretrain", str(corpus), "-o", str(folder), "--resume"]
    assert main(resume) == 3
    said = capsys.readouterr().err
    assert "damaged" in said and f"mv {newest}" in said
    newest.rename(newest.with_name(newest.name + "-damaged"))
    assert main(resume) == 0


def test_a_run_killed_before_its_figures_gets_them(corpus, tmp_path):
    folder = tmp_path / "run"
    assert train(corpus, folder, "--max-steps", "2") == 0
    content = json.loads((folder / "run.json").read_text())
    figures = content["result"]
    (folder / "run.json").write_text(json.dumps(content | {"result": {}}))
    (folder / "report.html").unlink()
    assert main(["pretrain", str(corpus), "-o", str(folder), "--resume"]) == 0
    assert json.loads((folder / "run.json").read_text())["result"] == figures
    assert (folder / "report.html").exists()


def test_small_numbers_are_not_logged_as_zero(tmp_path):
    with RunLog(tmp_path / "log.jsonl") as log:
        log.write("step", learning_rate=1.23456789e-7, loss=2.123456789)
    [line] = read_log(tmp_path / "log.jsonl")
    assert line["learning_rate"] == 1.23457e-7
    assert line["loss"] == 2.123457


@pytest.mark.parametrize("change", [{"cost": [1]}, {"plan": "x"}, {"plan": {"max_steps": "many"}}])
def test_one_odd_run_does_not_hide_the_others(corpus, tmp_path, change):
    for name in ("a", "b"):
        assert train(corpus, tmp_path / name, "--max-steps", "1") == 0
    content = json.loads((tmp_path / "a/run.json").read_text())
    (tmp_path / "a/run.json").write_text(json.dumps(content | change))
    rows = {row["run"]: row for row in runs(tmp_path)}
    assert "damaged" in rows[str(tmp_path / "a")]["problem"]
    assert rows[str(tmp_path / "b")]["problem"] is None
    assert main(["runs", str(tmp_path)]) == 0


def test_more_steps_than_any_machine_makes_are_refused(corpus, tmp_path, capsys):
    assert train(corpus, tmp_path / "run", "--num-train-epochs", "1e30") == 2
    assert "steps" in capsys.readouterr().err
