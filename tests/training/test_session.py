"""A run from its settings to its folder: what is refused first, what is decided before step 1, what survives."""

from __future__ import annotations

import errno
import json
import os
import shlex

import pytest
import torch
from safetensors.torch import load_file

import ownlm
from ownlm.cli import main
from ownlm.console.errors import Interrupted, OwnlmError, UsageError
from ownlm.corpus.shards import Corpus
from ownlm.training import checkpoint, draft, setup
from ownlm.training.checkpoint import checkpoints
from ownlm.training.log import read_log
from ownlm.training.loop import Trainer
from ownlm.training.plan import LEAST

NOTICE = "No length given"


def contents(folder):
    """Every file below a folder, with its bytes and time."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def weights(run):
    return load_file(run / "model.safetensors")


def assert_equal(first, second):
    a, b = weights(first), weights(second)
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


# ---- what is refused, and in which order


def refused_commands(corpus, run, tmp_path):
    (tmp_path / "photos").mkdir(exist_ok=True)
    (tmp_path / "photos/a.jpg").write_bytes(b"beach")
    (tmp_path / "file").touch()
    yield ["pretrain", tmp_path / "no-corpus", "-o", tmp_path / "x"]
    yield ["pretrain", corpus, "-o", run]
    yield ["pretrain", corpus, "-o", tmp_path / "photos"]
    yield ["pretrain", corpus, "-o", tmp_path / "file"]
    yield ["pretrain", corpus, "-o", tmp_path / "x", "--size", "3N"]
    yield ["pretrain", corpus, "-o", tmp_path / "x", "--from", tmp_path / "no-run"]
    yield ["pretrain", corpus, "-o", tmp_path / "x", "--context", 100_000]
    yield ["pretrain", corpus, "-o", tmp_path / "x", "--learning-rate", -1]


def test_a_refusal_comes_before_the_notice_about_the_length(corpus, run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(setup, "build_trainer", lambda *_: pytest.fail("began to train"))
    before = contents(run)
    for command in refused_commands(corpus, run, tmp_path):
        assert main([*map(str, command)]) in (2, 3), command
        assert NOTICE not in capsys.readouterr().err, command
    assert contents(run) == before
    assert (tmp_path / "photos/a.jpg").read_bytes() == b"beach"
    assert not (tmp_path / "x").exists()


def test_without_a_length_it_is_said_what_is_taken(corpus, tmp_path, tiny, capsys, monkeypatch):
    asked = []

    def steps(trainer, seconds):
        asked.append(seconds)
        return 1, 0.1

    monkeypatch.setattr(setup, "calibrated_steps", steps)
    ownlm.pretrain(corpus, output=tmp_path / "run", **tiny)
    assert f"{NOTICE}: training for 10 minutes" in capsys.readouterr().err
    assert 500 < asked[0] < 600
    ownlm.pretrain(corpus, output=tmp_path / "given", max_steps=1, **tiny)
    assert NOTICE not in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong", [{"max_steps": 3, "warmup_steps": 3}, {"max_steps": 2, "context": 100_000}, {"max_steps": -1}]
)
def test_overwrite_removes_nothing_when_the_plan_is_refused(corpus, tmp_path, tiny, wrong):
    ownlm.pretrain(corpus, output=tmp_path / "run", max_steps=1, **tiny)
    before = contents(tmp_path / "run")
    with pytest.raises(OwnlmError):
        ownlm.pretrain(corpus, output=tmp_path / "run", overwrite=True, **(tiny | wrong))
    assert contents(tmp_path / "run") == before
    again = ownlm.pretrain(corpus, output=tmp_path / "run", overwrite=True, max_steps=2, **tiny)
    assert again.content["plan"]["max_steps"] == 2
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["step-2"]


@pytest.mark.parametrize("below", [".", "checkpoints/step-1"])
def test_a_run_never_overwrites_the_model_it_starts_from(corpus, tmp_path, tiny, below):
    ownlm.pretrain(corpus, output=tmp_path / "run", max_steps=1, **tiny)
    before = contents(tmp_path / "run")
    settings = {name: value for name, value in tiny.items() if name not in ("size", "set")}
    with pytest.raises(UsageError, match="would be replaced"):
        ownlm.pretrain(
            corpus,
            output=tmp_path / "run",
            from_=tmp_path / "run" / below,
            overwrite=True,
            max_steps=1,
            **settings,
        )
    assert contents(tmp_path / "run") == before


@pytest.mark.parametrize("name", [name for name in LEAST if name != "eval_rows"])  # that one is finetune's
def test_numbers_that_mean_nothing_are_refused(corpus, tmp_path, tiny, name):
    settings = {"max_steps": 2} | tiny | {name: LEAST[name] - 1}
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')}: .* at least {LEAST[name]:g}"):
        ownlm.pretrain(corpus, output=tmp_path / "x", **settings)
    assert not (tmp_path / "x").exists()


# ---- what the folder holds


def test_the_log_holds_what_happened(run):
    lines = read_log(run / "log.jsonl")
    by_kind = {
        kind: [line for line in lines if line["kind"] == kind] for kind in {line["kind"] for line in lines}
    }
    plan = json.loads((run / "run.json").read_text(encoding="utf-8"))["plan"]
    assert by_kind.keys() == {"step", "validation", "sample", "checkpoint"}
    assert {"step", "loss", "bits_per_byte", "seconds"} <= by_kind["validation"][0].keys()
    assert {"step", "seconds", "prompt", "text"} <= by_kind["sample"][0].keys()
    assert {"step", "seconds"} <= by_kind["checkpoint"][0].keys()
    assert (by_kind["validation"][0]["step"], by_kind["validation"][-1]["step"]) == (0, plan["max_steps"])
    assert [line["step"] for line in by_kind["sample"]] == [*plan["sample_steps"], plan["max_steps"]]
    for number, line in enumerate(by_kind["step"], 1):
        assert (line["step"], line["tokens"]) == (number, number * plan["tokens_per_step"])
        assert line["mfu"] == pytest.approx(
            line["tokens_per_second"] * plan["flops_per_token"] / plan["peak_flops"], rel=1e-3, abs=1e-6
        )
    assert by_kind["validation"][-1]["loss"] < by_kind["validation"][0]["loss"]
    seconds = [line["seconds"] for line in lines]
    assert seconds == sorted(seconds)


def test_save_total_limit_keeps_the_newest(corpus, tmp_path, tiny):
    settings = tiny | {"max_steps": 5, "save_steps": 1}
    for limit in (1, 3):
        output = tmp_path / str(limit)
        ownlm.pretrain(corpus, output=output, save_total_limit=limit, **settings)
        assert [path.name for path in checkpoints(output)] == [f"step-{n}" for n in range(6 - limit, 6)]


def test_threads_are_those_of_torch(corpus, tmp_path, tiny, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    done = ownlm.pretrain(corpus, output=tmp_path / "run", max_steps=0, **(tiny | {"threads": 7}))
    assert set(asked) == {7}
    assert done.content["environment"]["threads"] == done.content["plan"]["threads"] == 7
    monkeypatch.setattr(draft, "num_cores", lambda: 5)
    done = ownlm.pretrain(corpus, output=tmp_path / "all", max_steps=0, **(tiny | {"threads": None}))
    assert done.content["plan"]["threads"] == 5


# ---- what goes wrong on the way


def test_a_full_disk_leaves_the_older_checkpoint_and_says_how_to_go_on(
    corpus, tmp_path, tiny, capsys, monkeypatch
):
    settings = tiny | {"max_steps": 6, "save_steps": 2}
    save = checkpoint.save_tensors

    def full_at_4(tensors, path):
        if path.parent.name.startswith("step-4"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        save(tensors, path)

    output = tmp_path / "a run"
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_tensors", full_at_4)
        with pytest.raises(OwnlmError, match="disk is full") as error:
            ownlm.pretrain(corpus, output=output, **settings)
    assert error.value.exit_code == 1
    assert "step-2 is whole" in str(error.value)
    assert [path.name for path in (output / "checkpoints").iterdir()] == ["step-2"]
    command = shlex.split(error.value.do.partition(": ")[2])
    assert command == ["ownlm", "pretrain", str(corpus), "-o", str(output), "--resume"]
    assert main(command[1:]) == 0
    assert "Going on at step 2 of 6" in capsys.readouterr().err
    ownlm.pretrain(corpus, output=tmp_path / "whole", **settings)
    assert_equal(output, tmp_path / "whole")


def stopped_at(monkeypatch, step):
    """Ctrl-C during this step."""
    train_step = Trainer.train_step

    def interrupted(trainer):
        values = train_step(trainer)
        if trainer.step == step:
            trainer.stop.set()
        return values

    monkeypatch.setattr(Trainer, "train_step", interrupted)


@pytest.mark.parametrize("lost", [False, True])
def test_a_run_that_goes_on_from_a_model_is_resumed_from_that_model(
    corpus, run, tmp_path, tiny, monkeypatch, lost
):
    """Also when it was killed before its first checkpoint, and --from is not typed again."""
    settings = {name: value for name, value in tiny.items() if name not in ("size", "set")} | {"max_steps": 4}
    whole = ownlm.pretrain(corpus, output=tmp_path / "whole", from_=str(run), **settings)
    with monkeypatch.context() as patch:
        stopped_at(patch, 2)
        with pytest.raises(Interrupted, match="step 2 of 4"):
            ownlm.pretrain(corpus, output=tmp_path / "run", from_=str(run), **settings)
    if lost:
        for file in (tmp_path / "run/checkpoints/step-2").iterdir():
            file.unlink()
    ownlm.pretrain(corpus, output=tmp_path / "run", resume=True)
    assert_equal(tmp_path / "run", whole.path)
    start = weights(run)
    assert any(not torch.equal(start[name], tensor) for name, tensor in weights(whole.path).items())


def test_last_is_written_down_as_the_run_it_meant(corpus, tmp_path, tiny, monkeypatch):
    """The new run is the last one a moment later: the command that repeats it must name the old one."""
    monkeypatch.chdir(tmp_path)
    ownlm.pretrain(corpus, output="first", max_steps=1, **tiny)
    settings = {name: value for name, value in tiny.items() if name not in ("size", "set")}
    second = ownlm.pretrain(corpus, output="second", from_="last", max_steps=1, **settings)
    words = shlex.split(second.content["repeat"])
    assert words[words.index("--from") + 1] == "first"
    assert main(words[1:]) == 0
    assert_equal(tmp_path / "second", tmp_path / "second-again")


def test_the_prompt_of_samples_is_whole_text(corpus, run):
    prompt = json.loads((run / "run.json").read_text(encoding="utf-8"))["plan"]["sample_prompt"]
    split = Corpus.open(corpus).split("validation")
    assert prompt
    assert "\ufffd" not in prompt
    assert split.document_text(0).startswith(prompt)


def test_a_prompt_that_ends_inside_a_character_is_cut_before_it(tmp_path, tiny):
    """春眠 … with a vocabulary of bytes: three tokens a character, eight tokens end inside the third."""
    (tmp_path / "t.txt").write_text("春眠不觉晓，处处闻啼鸟。\n" * 300, encoding="utf-8")
    corpus = ownlm.prepare([str(tmp_path / "t.txt")], output=tmp_path / "c", vocab_size=272)
    done = ownlm.pretrain(corpus, output=tmp_path / "run", max_steps=0, **tiny)
    prompt = done.content["plan"]["sample_prompt"]
    assert prompt and "\ufffd" not in prompt
    assert corpus.split("validation").document_text(0).startswith(prompt)


def test_the_closing_commands_run(corpus, tmp_path, tiny, capsys):
    output = tmp_path / "it's a run"
    words = [w for value in tiny["set"] for w in ("--set", value)]
    words += ["--size", "1M", "--context", "32", "--max-steps", "1", "--threads", "1"]
    assert main(["pretrain", str(corpus), "-o", str(output), *words, "--sample-prompt", 'He said "$5"']) == 0
    said = capsys.readouterr().err
    commands = [shlex.split(line) for line in said.partition("Next:\n")[2].splitlines()]
    assert [command[:3] for command in commands] == [
        ["ownlm", verb, str(output)] for verb in ("generate", "evaluate", "score")
    ]
    assert commands[0][3] == 'He said "$5"'
    for command in commands:
        assert main(command[1:]) == 0, command
