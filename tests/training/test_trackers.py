"""`--report-to`: what TensorBoard's own reader finds in a run folder is what log.jsonl says."""

from __future__ import annotations

import importlib.util
import shutil
import socket
from pathlib import Path

import pytest

import ownlm
from ownlm.console.errors import Interrupted, UsageError
from ownlm.training.log import read_log
from ownlm.training.loop import Trainer


@pytest.fixture(scope="module")
def broken_off(corpus, tmp_path_factory):
    """A run that reports, broken off in step 6, after its checkpoint of step 3; it has logged lines after that."""
    from tests.conftest import TINY

    train_step = Trainer.train_step

    def breaks(trainer):
        if trainer.step == 5:
            raise KeyboardInterrupt
        return train_step(trainer)

    run = tmp_path_factory.mktemp("reports") / "run"
    settings = TINY | {"report_to": "tensorboard", "max_steps": 8, "save_steps": 3, "eval_steps": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train_step", breaks)
        with pytest.raises(Interrupted):
            ownlm.pretrain(corpus, output=run, **settings)
    return run


@pytest.fixture
def unfinished(broken_off, tmp_path):
    return Path(shutil.copytree(broken_off, tmp_path / "run"))


def events(run):
    """What TensorBoard shows of the run: the reader that its server uses, over the folder; tag -> (step, value)s."""
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    read = EventAccumulator(str(run / "tensorboard"), size_guidance={"tensors": 0}).Reload()
    return {
        tag: [(event.step, make_ndarray(event.tensor_proto).item()) for event in read.Tensors(tag)]
        for tag in read.Tags()["tensors"]
    }


def assert_says_what_the_log_says(run):
    shown, lines = events(run), read_log(run / "log.jsonl")
    names = {"step": "train", "validation": "validation", "checkpoint": "checkpoint", "sample": "sample"}
    assert {line["kind"] for line in lines} == set(names)
    tags = set()
    for kind, group in names.items():
        of_kind = [line for line in lines if line["kind"] == kind]
        for name in of_kind[0].keys() - {"kind", "step"}:
            tags.add(f"{group}/{name}")
            steps, values = zip(*shown[f"{group}/{name}"])
            assert list(steps) == [line["step"] for line in of_kind], (group, name)
            if isinstance(values[0], bytes):
                assert [value.decode() for value in values] == [line[name] for line in of_kind]
            else:
                assert values == pytest.approx([line[name] for line in of_kind], rel=1e-6)
    assert set(shown) == tags


def test_the_event_file_says_what_the_log_says(corpus, broken_off):
    assert max(line["step"] for line in read_log(broken_off / "log.jsonl")) == 5
    assert_says_what_the_log_says(broken_off)
    (file,) = (broken_off / "tensorboard").iterdir()
    assert socket.gethostname() not in file.name


def test_a_run_that_goes_on_shows_no_step_twice(corpus, unfinished):
    ownlm.pretrain(corpus, output=unfinished, resume=True)
    assert len(list((unfinished / "tensorboard").iterdir())) == 2
    assert [step for step, _ in events(unfinished)["train/loss"]] == list(range(1, 9))
    assert_says_what_the_log_says(unfinished)


def test_a_kill_inside_an_event_loses_that_event_only(corpus, unfinished):
    (file,) = (unfinished / "tensorboard").iterdir()
    file.write_bytes(file.read_bytes()[:-7])
    ownlm.pretrain(corpus, output=unfinished, resume=True)
    assert_says_what_the_log_says(unfinished)


def test_a_run_may_begin_and_cease_to_report_when_it_goes_on(corpus, unfinished):
    before = [file.name for file in (unfinished / "tensorboard").iterdir()]
    content = ownlm.pretrain(corpus, output=unfinished, resume=True, report_to="none").content
    assert content["settings"]["report_to"] == "none"
    assert [file.name for file in (unfinished / "tensorboard").iterdir()] == before


def test_what_was_logged_before_a_run_began_to_report_is_shown_too(corpus, unfinished):
    shutil.rmtree(unfinished / "tensorboard")
    ownlm.pretrain(corpus, output=unfinished, resume=True, report_to="tensorboard")
    assert_says_what_the_log_says(unfinished)


def test_overwrite_leaves_no_events_of_the_run_before(corpus, unfinished, tiny):
    ownlm.pretrain(corpus, output=unfinished, overwrite=True, max_steps=1, **tiny)
    assert not (unfinished / "tensorboard").exists()


def test_without_the_package_nothing_starts(corpus, unfinished, tmp_path, tiny, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "tensorboard" else find(name, *more)
    )
    log = (unfinished / "log.jsonl").read_bytes()
    for output, more in ((tmp_path / "new", tiny | {"max_steps": 2}), (unfinished, {"resume": True})):
        with pytest.raises(UsageError, match="tensorboard, which is not installed") as refused:
            ownlm.pretrain(corpus, output=output, report_to="tensorboard", **more)
        assert refused.value.do == "pip install 'ownlm[tensorboard]'"
    assert not (tmp_path / "new").exists()
    assert (unfinished / "log.jsonl").read_bytes() == log
