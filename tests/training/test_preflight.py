"""Before step 1: what is shown, what is kept, what is refused, and that a dry run writes nothing."""

from __future__ import annotations

import inspect
import io
import json
import shlex
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import ownlm
from ownlm.cli import main
from ownlm.console.errors import Interrupted, Refused, UsageError
from ownlm.corpus.batches import Batches
from ownlm.corpus.shards import Corpus
from ownlm.machine import predict
from ownlm.training import preflight, preflight_shown, refusals, setup
from ownlm.training.loop import Trainer


def with_overlap(corpus, folder, **changes):
    """A copy of the corpus whose manifest says something else about its overlap; None: nothing."""
    path = folder / "overlapping"
    shutil.copytree(corpus, path)
    manifest = json.loads((path / "corpus.json").read_text(encoding="utf-8"))
    for name, value in changes.items():
        if name == "overlap":
            del manifest["overlap"]
        elif name == "share":
            manifest["overlap"]["share"]["value"] = value
        else:
            manifest["overlap"][name] = value
    (path / "corpus.json").write_text(json.dumps(manifest), encoding="utf-8")
    return path


# ---- what is measured


def test_the_sample_is_the_first_row_that_is_trained_on(corpus, tmp_path, tiny, monkeypatch):
    seen = []
    train_step = Trainer.train_step

    def watched(trainer):
        seen.append(trainer.batches.step(trainer.step)[0])
        return train_step(trainer)

    monkeypatch.setattr(Trainer, "train_step", watched)
    found = ownlm.pretrain(corpus, output=tmp_path / "run", max_steps=1, **tiny).content["preflight"]
    tokenizer = Corpus.open(corpus).tokenizer
    assert found["sample"] == tokenizer.decode(seen[-1]).strip("\ufffd")
    assert json.loads((tmp_path / "run/run.json").read_text(encoding="utf-8"))["preflight"] == found


def test_special_tokens_and_what_is_trained_are_visible(corpus):
    tokenizer = Corpus.open(corpus).tokenizer
    question, answer = tokenizer.encode("the fox?").tolist(), tokenizer.encode("the owl").tolist()
    whole = np.array([tokenizer.eos_id, *question, *answer, tokenizer.eos_id])
    targets = whole[1:].copy()
    assert preflight.shown_row(tokenizer, whole[:-1], targets) == "<|endoftext|>the fox?the owl<|endoftext|>"
    targets[: len(question)] = preflight.NOT_TRAINED
    shown = preflight.shown_row(tokenizer, whole[:-1], targets)
    assert shown == "<|endoftext|>the fox?[[the owl<|endoftext|>]]"


def test_a_long_row_is_cut_and_its_trained_part_stays_visible(corpus):
    tokenizer = Corpus.open(corpus).tokenizer
    long = tokenizer.encode("the old fox and " * 60).tolist()
    row = np.array([*long, *tokenizer.encode("the owl").tolist()])
    assert len(preflight.shown_row(tokenizer, row[:-1], row[1:])) == preflight.SHOWN + 1
    targets = row[1:].copy()
    targets[: len(long) - 1] = preflight.NOT_TRAINED
    shown = preflight.shown_row(tokenizer, row[:-1], targets)
    assert shown.startswith("the old fox") and shown.endswith("[[the owl]]") and len(shown) < 200


def test_shares_of_rows_are_counted(corpus, monkeypatch):
    """Four rows by hand: one begins with a document, two hold a second one."""
    rows = np.array([[0, 5, 5, 5, 5], [5, 5, 0, 5, 5], [5, 0, 5, 5, 5], [5, 5, 5, 5, 0]])
    batches = SimpleNamespace(blocks=4, context=4, step=lambda step, first, count: rows[:count])
    found = preflight.rows_of(batches, 0)
    assert found.cut.tolist() == [False, True, True, True]
    assert found.packed.tolist() == [False, True, True, False]  # the last 0 is only a target
    assert (found.ids == rows[:, :-1]).all() and (found.targets == rows[:, 1:]).all()


def test_the_share_of_trained_tokens_is_computed_from_the_targets(corpus, tmp_path, tiny, monkeypatch):
    rows_of = preflight.rows_of

    def half(batches, start):
        rows = rows_of(batches, start)
        rows.targets[:, : rows.targets.shape[1] // 2] = preflight.NOT_TRAINED
        return rows

    monkeypatch.setattr(preflight, "rows_of", half)
    run = ownlm.pretrain(corpus, output=tmp_path / "x", max_steps=2, dry_run=True, **tiny)
    assert run.content["preflight"]["rows"]["trained_share"] == 0.5
    assert "[[" in run.content["preflight"]["sample"]


def test_length_rate_and_memory_are_those_of_the_plan(corpus, tmp_path, tiny):
    content = ownlm.pretrain(corpus, output=tmp_path / "x", max_steps=40, dry_run=True, **tiny).content
    found, plan = content["preflight"], content["plan"]
    batches = Batches(Corpus.open(corpus).split("train"), 32, 8, 0)
    assert found["tokens_per_epoch"] == batches.tokens_per_epoch
    assert found["epochs"] == pytest.approx(40 * 256 / batches.tokens_per_epoch)
    rate = found["learning_rate"]
    assert (
        (rate["warmup_steps"], rate["decay_steps"]) == (plan["warmup_steps"], plan["decay_steps"]) == (4, 16)
    )
    assert len(rate["curve"]) == 40
    assert rate["curve"][:4] == [0.25, 0.5, 0.75, 1.0] and rate["curve"][-1] == 1 / 16
    memory = found["memory"]
    assert memory["weights"] == 4 * content["model"]["parameters"]
    assert memory["needed"] == sum(size for name, size in memory.items() if name not in ("needed", "free"))
    a_step = plan["flops_per_token"] * plan["tokens_per_step"] / (plan["peak_flops"] * predict.UTILISATION)
    expected = {"seconds": 40 * a_step, "basis": "predicted", "seconds_per_step": a_step}
    assert found["duration"] == pytest.approx(expected)


def test_minutes_are_expected_as_they_were_measured(corpus, tmp_path, tiny, capsys, monkeypatch):
    monkeypatch.setattr(setup, "calibrated_steps", lambda trainer, seconds: (7, 0.25))
    run = ownlm.pretrain(corpus, output=tmp_path / "x", minutes=1, dry_run=True, **tiny)
    duration = run.content["preflight"]["duration"]
    assert duration == {"seconds": 1.75, "basis": "measured", "seconds_per_step": 0.25}
    assert "about 1.8 s of training (250.0 ms a step, measured)" in capsys.readouterr().err


# ---- what is shown


def test_the_screen(corpus, tmp_path, tiny, capsys):
    ownlm.pretrain(corpus, output=tmp_path / "x", max_steps=40, dry_run=True, **tiny)
    lines = capsys.readouterr().err.splitlines()
    names = [line[:12].strip() for line in lines]
    assert names[2:8] == ["first row", "rows", "rate", "memory", "time", "overlap"]
    assert "100% of the tokens are trained" in lines[3]
    assert "▃▅▆█" in lines[4] and "peak 0.004 (AdamW), 0.02 (Muon); 4 steps up, 16 down" in lines[4]
    assert "13-grams are in the training text" in lines[7]


def test_a_terminal_without_unicode_gets_plain_characters(monkeypatch):
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    monkeypatch.setattr(sys, "stderr", screen)
    known = {"known": "no validation text", "beyond": "", "group_by": None}
    memory = {"weights": 4, "needed": 4, "free": 8}
    rate = {"adamw": 1.0, "muon": 2.0, "warmup_steps": 1, "decay_steps": 1, "curve": [0.0, 1.0, 0.5]}
    rows = {"looked_at": 1, "trained_share": 1.0, "cut_share": 0.0, "packed_share": 0.0}
    time = {"seconds": 1.0, "basis": "measured", "seconds_per_step": 1.0}
    preflight_shown.show(
        {
            "sample": "one\ntwo…",
            "rows": rows,
            "learning_rate": rate,
            "memory": memory,
            "duration": time,
            "overlap": known,
        }
    )
    screen.flush()
    shown = screen.buffer.getvalue().decode("ascii")
    assert "one\\ntwo..." in shown
    assert "_#=" in shown


def test_quickstart_shows_the_short_form(capsys):
    shown = ["first row", "time", "overlap"]
    looked = {
        "sample": "a", "rows": {"looked_at": 1, "trained_share": 1.0, "cut_share": 0.0, "packed_share": 0.0},
        "learning_rate": {"curve": []}, "memory": {"needed": 4, "free": 8},
        "duration": {"seconds": 1.0, "basis": "measured", "seconds_per_step": 1.0},
        "overlap": {"known": "not measured", "beyond": "", "group_by": None},
    }  # fmt: skip
    with preflight_shown.brief():
        preflight_shown.show(looked)
    assert [line[:12].strip() for line in capsys.readouterr().err.splitlines()] == shown


# ---- a dry run


def test_a_dry_run_writes_nothing_and_its_command_trains_that(corpus, tmp_path, tiny, capsys, monkeypatch):
    monkeypatch.setattr(Trainer, "train", lambda _: pytest.fail("trained"))
    words = [w for value in tiny["set"] for w in ("--set", value)]
    words += ["--size", "1M", "--context", "32", "--per-device-train-batch-size", "8", "--threads", "1"]
    output = tmp_path / "a run"
    before = sorted(tmp_path.iterdir())
    assert main(["pretrain", str(corpus), "-o", str(output), "--max-steps", "3", "--dry-run", *words]) == 0
    shown = capsys.readouterr()
    assert sorted(tmp_path.iterdir()) == before
    assert shown.out.startswith("dry run, nothing was written: 1M") and "3 steps" in shown.out
    command = shlex.split(shown.err.partition("Next:\n")[2])
    assert command[command.index("-o") + 1] == str(output)
    monkeypatch.undo()
    assert main(command[1:]) == 0
    content = json.loads((output / "run.json").read_text(encoding="utf-8"))
    assert content["plan"]["max_steps"] == 3
    assert "--dry-run" not in content["repeat"]


def test_json_of_a_dry_run_is_the_preflight(corpus, tmp_path, capsys):
    words = ["--size", "1M", "--context", "32", "--max-steps", "3", "--dry-run", "--json"]
    assert main(["pretrain", str(corpus), "-o", str(tmp_path / "x"), *words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steps"] == 3 and found["overlap"]["known"] == "measured"
    assert not (tmp_path / "x").exists()


def test_a_dry_run_refuses_what_the_run_would_refuse(corpus, run, tiny):
    with pytest.raises(UsageError, match="there is a run"):
        ownlm.pretrain(corpus, output=run, max_steps=1, dry_run=True, **tiny)


# ---- what is refused


def refused(corpus, folder, tiny, match, without=(), **settings):
    """The refusal, which came before anything was written."""
    settings = {name: value for name, value in (tiny | settings).items() if name not in without}
    with pytest.raises(Refused, match=match) as error:
        ownlm.pretrain(corpus, output=folder / "x", **settings)
    assert error.value.exit_code == 3 and error.value.do and error.value.where
    assert not (folder / "x").exists()
    return error.value


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"share": 0.21}, "21% of the validation 13-grams"),
        ({"whole_documents": 1}, "1 validation document as a whole"),
        ({"share": 0.5, "whole_documents": 2}, "50% .* and 2 validation documents as a whole"),
    ],
)
def test_validation_text_in_the_training_text_is_refused_unless_allowed(
    corpus, tmp_path, tiny, capsys, changes, what
):
    path = with_overlap(corpus, tmp_path, **changes)
    error = refused(path, tmp_path, tiny, what, max_steps=1)
    assert "--allow-overlap" in error.do
    run = ownlm.pretrain(path, output=tmp_path / "run", max_steps=1, allow_overlap=True, **tiny)
    beyond = run.content["preflight"]["overlap"]["beyond"]
    assert run.content["settings"]["allow_overlap"] is True and "validation" in beyond
    assert "--allow-overlap" in run.content["repeat"]
    assert f"which holds {beyond}" in (run.path / "README.md").read_text(encoding="utf-8")
    assert f"warning: the training text holds {beyond}" in capsys.readouterr().err


def test_little_overlap_is_shown_and_not_in_the_model_card(corpus, tmp_path, tiny, run):
    path = with_overlap(corpus, tmp_path, share=0.2)
    found = ownlm.pretrain(path, output=tmp_path / "x", max_steps=1, dry_run=True, allow_overlap=True, **tiny)
    assert found.content["preflight"]["overlap"]["beyond"] == ""
    assert "overlaps" not in (run / "README.md").read_text(encoding="utf-8")


def test_a_share_of_short_grams_is_shown_and_not_judged(corpus, tmp_path, tiny, capsys):
    path = with_overlap(corpus, tmp_path, share=0.5)
    manifest = json.loads((path / "corpus.json").read_text(encoding="utf-8"))
    manifest["tokenizer"]["bytes_per_token"] = 1.5
    (path / "corpus.json").write_text(json.dumps(manifest), encoding="utf-8")
    ownlm.pretrain(path, output=tmp_path / "x", max_steps=1, dry_run=True, **tiny)
    assert "50.0% of the validation 13-grams" in (said := capsys.readouterr().err)
    assert "no sign of copies" in said
    manifest["overlap"]["whole_documents"] = 1
    (path / "corpus.json").write_text(json.dumps(manifest), encoding="utf-8")
    refused(path, tmp_path, tiny, "1 validation document as a whole", max_steps=1)


def test_overlap_that_was_never_measured_is_unknown(corpus, tmp_path, tiny, capsys):
    path = with_overlap(corpus, tmp_path, overlap=None)
    run = ownlm.pretrain(path, output=tmp_path / "x", max_steps=1, dry_run=True, **tiny)
    assert run.content["preflight"]["overlap"]["known"] == "not measured"
    assert "unknown" in capsys.readouterr().err.split("overlap     ")[1]


def test_fewer_tokens_than_one_batch(corpus, tmp_path, tiny):
    blocks = Batches(Corpus.open(corpus).split("train"), 32, 1, 0).blocks
    error = refused(
        corpus,
        tmp_path,
        tiny,
        f"{blocks + 1:,} rows of 32",
        max_steps=1,
        per_device_train_batch_size=blocks + 1,
    )
    assert f"--per-device-train-batch-size {blocks}," in error.do
    fits = tiny | {"per_device_train_batch_size": blocks}
    assert ownlm.pretrain(corpus, output=tmp_path / "x", max_steps=1, dry_run=True, **fits)


def test_more_micro_batches_than_rows(corpus, tmp_path, tiny):
    without = ("per_device_train_batch_size",)
    refused(
        corpus,
        tmp_path,
        tiny,
        "65 micro-batches .* 64 rows",
        without,
        max_steps=1,
        gradient_accumulation_steps=65,
    )
    settings = {name: value for name, value in tiny.items() if name not in without}
    run = ownlm.pretrain(
        corpus, output=tmp_path / "x", max_steps=1, dry_run=True, gradient_accumulation_steps=64, **settings
    )
    assert run.content["plan"]["per_device_train_batch_size"] == 1


def test_a_model_without_embeddings_for_every_id(corpus, run, tmp_path, tiny):
    opened = Corpus.open(corpus)
    refusals.vocabulary(SimpleNamespace(vocab_size=opened.tokenizer.vocab_size), opened)
    with pytest.raises(Refused, match="399 embeddings, the corpus 400 token ids"):
        refusals.vocabulary(SimpleNamespace(vocab_size=399), opened)
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    small = tmp_path / "small"
    shutil.copytree(run, small, ignore=shutil.ignore_patterns("checkpoints"))
    (small / "config.json").write_text(json.dumps(config | {"vocab_size": 399}), encoding="utf-8")
    refused(corpus, tmp_path, tiny, "399 embeddings", ("size", "set"), max_steps=1, from_=str(small))


DEFAULTS = {
    name: parameter.default for name, parameter in inspect.signature(ownlm.pretrain).parameters.items()
}
# The default itself where there is one: given, it is as idle as any other value.
IDLE = [
    ({"max_steps": 0}, name, 1 if DEFAULTS[name] is None else DEFAULTS[name]) for name in refusals.OF_STEPS
]
IDLE += [({"max_steps": 1, "save_steps": 0}, "save_total_limit", DEFAULTS["save_total_limit"])]


@pytest.mark.parametrize(
    ("others", "name", "value"), IDLE, ids=[f"{name}-{others}" for others, name, _ in IDLE]
)
def test_a_setting_without_effect_is_refused_even_with_its_default(
    corpus, tmp_path, tiny, others, name, value
):
    option = "--" + name.replace("_", "-")
    refused(corpus, tmp_path, tiny, f"^{option}: has no effect with ", **others, **{name: value})


def test_validation_settings_without_validation_text(text_folder, tmp_path, tiny):
    corpus = ownlm.prepare([str(text_folder)], output=tmp_path / "c", vocab_size=400, validation="none")
    refused(corpus, tmp_path, tiny, "--eval-steps: has no effect", max_steps=1, eval_steps=1)
    run = ownlm.pretrain(corpus, output=tmp_path / "run", max_steps=1, sample_prompt="The", **tiny)
    assert run.content["preflight"]["overlap"]["known"] == "no validation text"
    log = (run.path / "log.jsonl").read_text(encoding="utf-8")
    assert '"prompt": "The"' in log and '"validation"' not in log


def test_resume_takes_a_setting_at_its_word_also_when_it_is_the_default(corpus, tmp_path, tiny, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train", lambda trainer: False)
        with pytest.raises(Interrupted, match="stopped"):
            ownlm.pretrain(corpus, output=tmp_path / "run", max_steps=2, learning_rate=0.01, **tiny)
    command = ["pretrain", str(corpus), "-o", str(tmp_path / "run"), "--resume"]
    with pytest.raises(UsageError, match=r"learning_rate was 0.01, now 0.004"):
        ownlm.pretrain(corpus, output=tmp_path / "run", resume=True, learning_rate=0.004)
    (tmp_path / "settings.yaml").write_text("learning_rate: 0.004\n", encoding="utf-8")
    assert main([*command, "-c", str(tmp_path / "settings.yaml")]) == 2
    for option in ("--overwrite", "--dry-run"):
        assert main([*command, option]) == 3
    assert main([*command, "--learning-rate", "0.01"]) == 0


def test_quickstart_goes_on_with_text_that_repeats_itself_and_says_so(tmp_path, capsys, monkeypatch):
    def untrained(trainer):
        trainer.step = trainer.plan.max_steps
        return True

    monkeypatch.setattr(Trainer, "train", untrained)
    monkeypatch.setattr(setup, "calibrated_steps", lambda trainer, seconds: (1, 0.1))
    monkeypatch.setattr("ownlm.evaluation.facts._novelty", lambda *_: "left out by the test")
    (tmp_path / "notes.txt").write_text(
        "".join(
            f"{i}: the river runs to the wide sea, and the old fox runs home again, north of the hills.\n"
            for i in range(300)
        ),
        encoding="utf-8",
    )
    words = ["--minutes", "0.01", "--size", "1M", "-o", str(tmp_path / "start")]
    assert main(["quickstart", str(tmp_path / "notes.txt"), *words]) == 0
    said = capsys.readouterr().err
    content = json.loads((tmp_path / "start/run/run.json").read_text(encoding="utf-8"))
    assert "of the validation 13-grams" in content["preflight"]["overlap"]["beyond"]
    assert "warning: the training text holds" in said
    assert "first row   " in said and "\nrate " not in said
    assert said.rstrip().endswith("--minutes 10 --allow-overlap")
