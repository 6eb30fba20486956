"""Odd numbers, short runs, cut logs, breaks: what is refused, what is kept, and what is said."""

import json
import os
from types import SimpleNamespace

import pytest

import ownlm
from ownlm.console.errors import Interrupted, OwnlmError, UsageError
from ownlm.corpus.shards import Corpus
from ownlm.training import draft, session, setup
from ownlm.training.log import RunLog, cut_log, read_log
from ownlm.training.loop import Trainer
from ownlm.training.parallel import Processes
from ownlm.training.plan import EVAL_SHARE, MOST_THREADS, TrainPlan, parse_count
from ownlm.verbs.quickstart import SCORED_BYTES, _some_source


def test_a_log_keeps_samples_with_other_line_ends_and_survives_a_cut_inside_a_character(tmp_path):
    path = tmp_path / "log.jsonl"
    texts = ["one\u2028two\u0085three\u2029four", "春眠不觉晓"]
    with RunLog(path) as log:
        for step, text in enumerate(texts):
            log.write("sample", step=step, text=text)
    assert [line["text"] for line in read_log(path)] == texts
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index("晓".encode()) + 1])
    assert cut_log(path, 10) == 0
    assert [line["text"] for line in read_log(path)] == texts[:1]
    path.write_bytes(path.read_bytes() + b"12\n")  # a cut at its front: a number, no line of a log
    assert len(read_log(path)) == 1


@pytest.mark.parametrize("text", ["inf", "1e400", "nan"])
def test_no_number_of_tokens(text):
    with pytest.raises(UsageError, match="not a number of tokens"):
        parse_count(text, "--tokens")


def test_more_threads_than_a_machine_can_start_are_refused(corpus, tmp_path, tiny):
    with pytest.raises(UsageError, match="--threads: .* at most"):
        ownlm.pretrain(corpus, output=tmp_path / "x", max_steps=1, **tiny | {"threads": MOST_THREADS + 1})
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", "1e999"])
def test_a_field_of_the_model_is_a_finite_number(corpus, tmp_path, tiny, value):
    with pytest.raises(UsageError, match="--set: .* not a finite number"):
        ownlm.pretrain(
            corpus,
            output=tmp_path / "x",
            max_steps=1,
            **tiny | {"set": [*tiny["set"], f"rope_theta={value}"]},
        )


@pytest.mark.parametrize("rows", [1, 8, 64])
@pytest.mark.parametrize("steps", [3, 10, 45, 100, 1000])
def test_validation_of_a_short_run_looks_at_fewer_rows(rows, steps):
    plan = TrainPlan(
        max_steps=0, context=32, per_device_train_batch_size=rows, gradient_accumulation_steps=1, learning_rate=0.01,
        muon_learning_rate=0.01, weight_decay=0.0, max_grad_norm=0.0, warmup_steps=0, decay_steps=1, eval_steps=1,
        eval_rows=32, save_steps=1, save_total_limit=2, sample_steps=[], sample_prompt="", seed=0, dtype="float32",
        device="cpu", threads=1, flops_per_token=1.0, peak_flops=1.0,
    )  # fmt: skip
    decided = plan.with_steps(steps, warmup_steps=None, eval_steps=None, save_steps=None)
    looks = sum(step % decided.eval_steps == 0 for step in range(steps)) + 1
    share = looks * decided.eval_rows / 3 / (steps * rows)
    assert share <= EVAL_SHARE or decided.eval_rows == 1
    assert decided.eval_rows == plan.eval_rows or share > EVAL_SHARE / 2 or decided.eval_rows == 1
    asked = plan.with_steps(steps, warmup_steps=None, eval_steps=1, save_steps=None)
    assert (asked.eval_rows, asked.eval_steps) == (plan.eval_rows, 1)


def test_the_rows_of_the_plan_are_validated(corpus, tmp_path, tiny, monkeypatch):
    seen = []
    validate = Trainer.validate
    monkeypatch.setattr(
        Trainer, "validate", lambda self: seen.append(len(self.validation.ids)) or validate(self)
    )
    run = ownlm.pretrain(corpus, output=tmp_path / "run", max_steps=2, **tiny)
    assert set(seen) == {run.content["plan"]["eval_rows"]}


@pytest.mark.parametrize("seconds", [15.0, 60.0, 600.0])
def test_minutes_are_used_up_and_not_passed(monkeypatch, seconds):
    """On a machine whose clock only training moves: the calibration's own time counts, and what is left is used."""
    clock = [0.0]

    def takes(duration):
        clock[0] += duration
        return {}

    monkeypatch.setattr(setup.time, "monotonic", lambda: clock[0])
    trainer = SimpleNamespace(
        train_step=lambda: takes(0.125),
        validate=lambda: takes(0.16),
        validates=True,
        plan=SimpleNamespace(device="cpu"),
        processes=Processes(),
    )
    steps, per_step = setup.calibrated_steps(trainer, seconds)
    assert per_step == pytest.approx(0.125)
    share = clock[0] + steps * per_step
    assert 0.89 * seconds <= share <= (1 - 0.02) * seconds


@pytest.mark.parametrize("step_seconds", [3.0, 6.0, 60.0])
def test_calibration_of_slow_steps_ends_in_ten_seconds_or_with_the_first_step(monkeypatch, step_seconds):
    clock = [0.0]

    def takes(duration):
        clock[0] += duration
        return {}

    monkeypatch.setattr(setup.time, "monotonic", lambda: clock[0])
    trainer = SimpleNamespace(
        train_step=lambda: takes(step_seconds),
        validate=lambda: takes(step_seconds),
        validates=True,
        plan=SimpleNamespace(device="cpu"),
        processes=Processes(),
    )
    steps, per_step = setup.calibrated_steps(trainer, 3600.0)
    assert per_step == pytest.approx(step_seconds)
    assert clock[0] <= max(10.0, step_seconds)
    assert 0.9 * 3600 <= clock[0] + steps * per_step <= 3600


@pytest.mark.parametrize("before", ["\n\n\n", "  \n", ""])
def test_samples_continue_words_also_where_the_held_out_part_begins_with_blank_lines(corpus, before):
    tokenizer = Corpus.open(corpus).tokenizer
    line = "The king is here and so is the queen of all the lands that lie beyond the sea"
    ids = [tokenizer.eos_id, *tokenizer.encode(f"{before}{line}\nsecond line").tolist()]
    split = SimpleNamespace(num_documents=1, document=lambda number: ids)
    text = draft.first_words(SimpleNamespace(split=lambda name: split, tokenizer=tokenizer))
    assert text == tokenizer.decode(tokenizer.encode(line)[:8])
    assert line.startswith(text.strip())


def test_a_second_break_says_what_is_kept_and_the_run_goes_on(corpus, tmp_path, tiny, monkeypatch):
    run = tmp_path / "a run"
    train_step = Trainer.train_step

    def breaks(self):
        if self.step == 3:
            raise KeyboardInterrupt
        return train_step(self)

    monkeypatch.setattr(Trainer, "train_step", breaks)
    with pytest.raises(Interrupted) as broken:
        ownlm.pretrain(corpus, output=run, max_steps=4, save_steps=2, **tiny)
    assert str(run / "checkpoints" / "step-2") in broken.value.what
    assert broken.value.do == f"ownlm pretrain {corpus} -o '{run}' --resume"
    monkeypatch.setattr(Trainer, "train_step", train_step)
    assert ownlm.pretrain(corpus, output=run, resume=True).content["finished"]


def test_a_break_in_the_full_pass_says_that_the_model_is_written(corpus, tmp_path, tiny, monkeypatch):
    def breaks(self, *_):
        raise KeyboardInterrupt

    monkeypatch.setattr(session.Session, "_score", breaks)
    with pytest.raises(Interrupted, match="the model is written") as broken:
        ownlm.pretrain(corpus, output=tmp_path / "run", max_steps=1, **tiny)
    assert broken.value.do == f"ownlm evaluate {tmp_path / 'run'}"
    assert (tmp_path / "run" / "model.safetensors").exists()
    assert json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["finished"]


def test_a_full_disk_is_known_by_the_words_of_other_libraries_too(corpus, tmp_path, tiny, monkeypatch):
    def full(*_):
        raise RuntimeError(f"I/O error: {os.strerror(28)} (os error 28)")

    monkeypatch.setattr("ownlm.training.loop.save_checkpoint", full)
    with pytest.raises(OwnlmError, match="the disk is full; training stopped after step 2 of 3") as broken:
        ownlm.pretrain(corpus, output=tmp_path / "run", max_steps=3, save_steps=2, **tiny)
    assert broken.value.do.endswith("--resume")


def test_quickstart_proposes_to_score_a_small_file(tmp_path):
    for name, size in (("large.txt", SCORED_BYTES + 1), ("small.txt", 10)):
        (tmp_path / name).write_text("x" * size)
    names = ["large.txt", "gone.txt", "small.txt"]

    def proposed(names):
        where = [f"{tmp_path / name}:1" for name in names]
        split = SimpleNamespace(num_documents=len(where), where=where.__getitem__)
        return _some_source(SimpleNamespace(split=lambda _: split))

    assert proposed(names) == f"@{tmp_path / 'small.txt'}"
    assert proposed(names[:2]) == ""


def test_a_disk_that_is_full_before_step_1_is_said_with_what_works_then(corpus, tmp_path, tiny, monkeypatch):
    from ownlm.corpus.tokenizer import Tokenizer

    save = Tokenizer.save

    def full(*_):
        raise OSError(28, os.strerror(28), "tokenizer.json")

    monkeypatch.setattr(Tokenizer, "save", full)
    with pytest.raises(OwnlmError, match="the disk is full; no step was made") as broken:
        ownlm.pretrain(corpus, output=tmp_path / "run", max_steps=1, **tiny)
    assert "--overwrite" in broken.value.do
    monkeypatch.setattr(Tokenizer, "save", save)
    assert ownlm.pretrain(corpus, output=tmp_path / "run", max_steps=1, overwrite=True, **tiny).content[
        "finished"
    ]


def test_a_run_stopped_before_step_1_logs_its_beginning_once(corpus, tmp_path, tiny, monkeypatch):
    options = {"max_steps": 2, **tiny}
    between = Trainer._between_steps

    def stopping(self, *arguments):
        between(self, *arguments)
        self.stop.set()

    monkeypatch.setattr(Trainer, "_between_steps", stopping)
    with pytest.raises(Interrupted, match="stopped at step 0"):
        ownlm.pretrain(corpus, output=tmp_path / "run", **options)
    monkeypatch.setattr(Trainer, "_between_steps", between)
    ownlm.pretrain(corpus, output=tmp_path / "run", resume=True)
    log = read_log(tmp_path / "run/log.jsonl")
    assert [line["step"] for line in log if line["kind"] == "validation"].count(0) == 1
