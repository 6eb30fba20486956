"""Going on equals never having stopped, bit for bit; a kill in the middle loses at most what came after a checkpoint."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

import ownlm
from ownlm.training.checkpoint import checkpoints
from ownlm.training.log import read_log

SETTINGS = ["--size", "1M", "--context", "32", "--set", "num_hidden_layers=2", "--set", "hidden_size=64",
            "--per-device-train-batch-size", "8", "--dtype", "float32", "--threads", "1", "--save-steps", "7"]  # fmt: skip


def command(corpus, run, steps, *more):
    return [
        sys.executable,
        "-m",
        "ownlm",
        "pretrain",
        str(corpus),
        "-o",
        str(run),
        "--max-steps",
        str(steps),
        *SETTINGS,
        *more,
    ]


def wait_for_step(run, step, process):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if any(line["kind"] == "step" and line["step"] >= step for line in read_log(run / "log.jsonl")):
            return
        time.sleep(0.01)
    pytest.fail("training did not get there")


def assert_same_model(a, b):
    first, second = load_file(a / "model.safetensors"), load_file(b / "model.safetensors")
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def losses(run):
    return [(line["step"], line["loss"]) for line in read_log(run / "log.jsonl") if line["kind"] == "step"]


STEPS = 160  # more than two epochs of the small corpus


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    run = tmp_path_factory.mktemp("whole") / "run"
    subprocess.run(command(corpus, run, STEPS), check=True, capture_output=True)
    return run


@pytest.mark.parametrize("step", [9, 120])
def test_killed_and_resumed_equals_never_stopped(corpus, whole, tmp_path, step):
    run = tmp_path / "run"
    process = subprocess.Popen(command(corpus, run, STEPS), stderr=subprocess.DEVNULL)
    wait_for_step(run, step, process)
    process.kill()
    process.wait()
    assert not (run / "model.safetensors").exists()
    subprocess.run(command(corpus, run, STEPS, "--resume"), check=True, capture_output=True)
    assert_same_model(run, whole)
    assert losses(run) == losses(whole)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to another process")
def test_ctrl_c_saves_and_says_how_to_go_on(corpus, whole, tmp_path):
    run = tmp_path / "run"
    process = subprocess.Popen(command(corpus, run, STEPS), stderr=subprocess.PIPE, text=True)
    wait_for_step(run, 20, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"ownlm pretrain {corpus} -o {run} --resume" in errors
    stopped = int(checkpoints(run)[-1].name.split("-")[1])
    assert losses(run)[-1][0] == stopped
    subprocess.run(command(corpus, run, STEPS, "--resume"), check=True, capture_output=True)
    assert_same_model(run, whole)


def test_the_repeat_command_gives_the_same_bits(corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    subprocess.run(
        [sys.executable, "-m", "ownlm", "pretrain", str(corpus), "-o", "a", "--minutes", "0.08", *SETTINGS],
        check=True,
        capture_output=True,
    )
    recorded = json.loads((tmp_path / "a/run.json").read_text())
    assert recorded["plan"]["max_steps"] >= 1
    words = recorded["repeat"].split()
    assert words[0] == "ownlm"
    subprocess.run([sys.executable, "-m", *words], check=True, capture_output=True)
    assert_same_model(tmp_path / "a", tmp_path / "a-again")


def test_resume_refuses_what_would_not_be_the_same_run(corpus, whole, tmp_path, tiny):
    with pytest.raises(ownlm.UsageError, match="finished"):
        ownlm.pretrain(corpus, output=whole, resume=True)
    with pytest.raises(ownlm.UsageError, match="not a run folder"):
        ownlm.pretrain(corpus, output=tmp_path / "nothing", resume=True)
    run = tmp_path / "run"
    process = subprocess.Popen(command(corpus, run, STEPS), stderr=subprocess.DEVNULL)
    wait_for_step(run, 8, process)
    process.kill()
    process.wait()
    with pytest.raises(ownlm.UsageError, match="learning_rate was 0.004, now 0.01"):
        ownlm.pretrain(corpus, output=run, resume=True, learning_rate=0.01)
    with pytest.raises(ownlm.UsageError, match="unfinished"):
        ownlm.pretrain(corpus, output=run, max_steps=2, **tiny)


def test_checkpoints_are_pruned_and_halves_are_not_used(whole):
    assert [p.name for p in checkpoints(whole)] == [f"step-{STEPS - STEPS % 7}", f"step-{STEPS}"]
    half = whole / "checkpoints" / "step-999"
    half.mkdir()
    assert half not in checkpoints(whole)
    os.rmdir(half)


@pytest.mark.long
def test_twenty_random_kills(corpus, whole, tmp_path):
    import random

    random.seed(1)
    run = tmp_path / "run"
    more = []
    for _ in range(20):
        process = subprocess.Popen(command(corpus, run, STEPS, *more), stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=random.uniform(2.5, 5))
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        more = ["--resume"] if (run / "run.json").exists() else []
    subprocess.run(command(corpus, run, STEPS, *more), capture_output=True)
    assert_same_model(run, whole)
