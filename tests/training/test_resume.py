"""Going on equals never having stopped, bit for bit; a kill in the middle loses at most what came after a checkpoint."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import sys
from pathlib import Path

import pytest
from tests.training.real_runs import KILL, assert_same_run, assert_same_tensors, halve, run_command

import ownlm
from ownlm.console.errors import OwnlmError
from ownlm.corpus.batches import Batches
from ownlm.corpus.shards import Corpus
from ownlm.training import checkpoint
from ownlm.training.checkpoint import checkpoints

CONTEXT, EPOCH_STEPS, STEPS, SAVE = 32, 20, 30, 7  # an epoch ends between the checkpoints at 14 and at 21
SETTINGS = ["--size", "1M", "--context", str(CONTEXT), "--set", "num_hidden_layers=2", "--set", "hidden_size=64",
            "--set", "intermediate_size=128", "--dtype", "float32", "--threads", "1"]  # fmt: skip


@pytest.fixture(scope="module")
def settings(corpus: Path) -> list[str]:
    """Options of a run that sees all of the text in 20 steps and trains for 30."""
    rows = Batches(Corpus.open(corpus).split("train"), CONTEXT, 1, 0).blocks // EPOCH_STEPS
    assert rows
    return [*SETTINGS, "--per-device-train-batch-size", str(rows), "--save-steps", str(SAVE)]


def command(corpus: Path, run: Path, settings: list[str]) -> list[str]:
    return ["pretrain", str(corpus), "-o", str(run), "--max-steps", str(STEPS), *settings]


@pytest.fixture(scope="module")
def whole(corpus, settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert run_command(command(corpus, folder / "run", settings), folder / "words") == 0
    return folder / "run"


@pytest.fixture(scope="module")
def killed(corpus, settings, tmp_path_factory):
    """A run that was killed in step 9; its last checkpoint is that of step 7."""
    folder = tmp_path_factory.mktemp("killed")
    ended = run_command(command(corpus, folder / "run", settings), folder / "words", at=9)
    assert ended == -KILL or os.name == "nt"
    return folder / "run"


@pytest.fixture
def stopped(killed, tmp_path):
    """A copy of it."""
    return Path(shutil.copytree(killed, tmp_path / "run"))


def names(run: Path) -> list[str]:
    return [path.name for path in checkpoints(run)]


def test_killed_in_two_random_steps_equals_never_stopped(corpus, settings, whole, tmp_path):
    """Once before the epoch's end, once after it; both go on before it."""
    plan = json.loads((whole / "run.json").read_text())["plan"]
    blocks = Batches(Corpus.open(corpus).split("train"), CONTEXT, 1, 0).blocks
    epoch = blocks / plan["per_device_train_batch_size"]
    first, second = random.randrange(SAVE, 2 * SAVE), random.randrange(int(epoch) + 2, STEPS)
    print(f"killed in steps {first} and {second}, the epoch ends in step {epoch:.1f}")
    assert 2 * SAVE < epoch < STEPS - 1
    run = tmp_path / "run"
    for step in (first, second):
        more = ["--resume"] if run.exists() else []
        run_command(command(corpus, run, settings) + more, tmp_path / "words", at=step)
        assert not (run / "model.safetensors").exists()
        assert names(run)[-1:] == [f"step-{(step - 1) // SAVE * SAVE}"] or step == SAVE
    assert run_command([*command(corpus, run, settings), "--resume"], tmp_path / "words") == 0
    assert_same_run(run, whole)


@pytest.mark.parametrize(("during", "kept"), [("checkpoint", "step-7"), ("model", f"step-{STEPS}")])
def test_a_kill_while_writing_leaves_the_last_good_checkpoint(
    corpus, settings, whole, tmp_path, during, kept
):
    run = tmp_path / "run"
    run_command(command(corpus, run, settings), tmp_path / "words", at=14, during=during)
    assert names(run)[-1] == kept
    assert list(run.rglob("*.tmp")), "nothing was being written"
    assert not (run / "model.safetensors").exists()
    ownlm.pretrain(corpus, output=run, resume=True)
    assert_same_run(run, whole)
    assert not list(run.rglob("*.tmp"))


def test_a_full_disk_leaves_the_last_good_checkpoint(corpus, whole, stopped, monkeypatch):
    write = checkpoint.save_tensors

    def full(tensors, path):
        write(tensors, path)
        halve(path)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(checkpoint, "save_tensors", full)
    with pytest.raises(OwnlmError, match="the disk is full; training stopped after step 14") as broken:
        ownlm.pretrain(corpus, output=stopped, resume=True)
    assert str(stopped / "checkpoints" / "step-7") in str(broken.value.why)
    assert os.listdir(stopped / "checkpoints") == ["step-7"]
    monkeypatch.setattr(checkpoint, "save_tensors", write)
    ownlm.pretrain(corpus, output=stopped, resume=True)
    assert_same_run(stopped, whole)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to another process")
def test_ctrl_c_saves_and_says_how_to_go_on(corpus, settings, whole, tmp_path):
    run, words = tmp_path / "run", tmp_path / "words"
    assert run_command(command(corpus, run, settings), words, at=17, sent=signal.SIGINT) == 130
    assert f"ownlm pretrain {corpus} -o {run} --resume" in words.read_text()
    assert names(run)[-1] == "step-17"  # the step that was under way is finished and saved
    ownlm.pretrain(corpus, output=run, resume=True)
    assert_same_tensors(run / "model.safetensors", whole / "model.safetensors")


def test_the_repeat_command_gives_the_same_bits(corpus, settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = tmp_path / "words"
    assert run_command(["pretrain", str(corpus), "-o", "a", "--minutes", "0.01", *settings], words) == 0
    recorded = json.loads((tmp_path / "a/run.json").read_text())
    assert recorded["plan"]["max_steps"] >= 1
    program, *arguments = recorded["repeat"].split()
    assert program == "ownlm"
    assert run_command(arguments, words) == 0
    assert_same_tensors(tmp_path / "a/model.safetensors", tmp_path / "a-again/model.safetensors")


def test_resume_refuses_what_would_not_be_the_same_run(corpus, whole, stopped, tmp_path, tiny):
    with pytest.raises(ownlm.UsageError, match="finished"):
        ownlm.pretrain(corpus, output=whole, resume=True)
    with pytest.raises(ownlm.UsageError, match="not a run folder"):
        ownlm.pretrain(corpus, output=tmp_path / "nothing", resume=True)
    with pytest.raises(ownlm.UsageError, match="learning_rate was 0.004, now 0.01"):
        ownlm.pretrain(corpus, output=stopped, resume=True, learning_rate=0.01)
    with pytest.raises(ownlm.UsageError, match="unfinished"):
        ownlm.pretrain(corpus, output=stopped, max_steps=2, **tiny)


def test_checkpoints_are_pruned_and_halves_are_not_used(corpus, whole, stopped):
    assert names(whole) == [f"step-{STEPS - STEPS % SAVE}", f"step-{STEPS}"]
    half = stopped / "checkpoints" / "step-999"
    half.mkdir()
    assert half not in checkpoints(stopped)
    halve(stopped / "log.jsonl")  # a kill may cut the log anywhere
    ownlm.pretrain(corpus, output=stopped, resume=True)
    assert_same_tensors(stopped / "model.safetensors", whole / "model.safetensors")


def test_save_total_limit_counts_the_checkpoints(corpus, tmp_path, tiny):
    run = tmp_path / "run"
    ownlm.pretrain(corpus, output=run, max_steps=5, save_steps=1, save_total_limit=3, **tiny)
    assert names(run) == ["step-3", "step-4", "step-5"]
