"""Runs that end before their time, and what a run does not begin with: what is said, what is kept, what goes on."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

import ownlm
from ownlm.console.errors import Interrupted, OwnlmError, Refused, UsageError
from ownlm.training.loop import Trainer
from ownlm.training.tuning import session
from ownlm.training.tuning.broken import changed

FAST: dict[str, Any] = {"threads": 1, "dtype": "float32", "eval_rows": 3}
OPTIONS: dict[str, Any] = {"max_steps": 3, **FAST}


def rows(path: Path, made: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = [{"instruction": f"Say {n}.", "output": f"{n} is said"} for n in range(30)]
    return rows(tmp_path_factory.mktemp("chats") / "chats.jsonl", made)


def after(number: int, do: Any) -> Any:
    """A step that does something when so many steps were made."""
    step = Trainer.train_step

    def stopping(self: Trainer) -> dict[str, Any]:
        if self.step == number:
            do(self)
        return step(self)

    return stopping


def broken_off(trainer: Trainer) -> None:
    raise KeyboardInterrupt


def test_a_second_ctrl_c_says_what_is_kept(talker, chats, tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "train_step", after(2, broken_off))
    with pytest.raises(Interrupted, match="broken off after step 2 of 3") as stopped:
        ownlm.finetune(str(talker), [chats], output=tmp_path / "r", save_steps=1, **OPTIONS)
    assert "step-2 is whole" in stopped.value.why and stopped.value.do.endswith("--resume")


def test_what_is_missing_after_the_last_step_is_made_up_for(talker, chats, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(session.Tuning, "_measure", lambda *_: broken_off(None))
        with pytest.raises(Interrupted, match="figures or the report are missing"):
            ownlm.finetune(str(talker), [chats], output=tmp_path / "r", **OPTIONS)
    assert not (tmp_path / "r" / "report.html").exists()
    run = ownlm.finetune(str(talker), [chats], output=tmp_path / "r", resume=True)
    assert run.content["scores"]["chat"]["after"] and (tmp_path / "r" / "report.html").is_file()
    with pytest.raises(UsageError, match="finished"):
        ownlm.finetune(str(talker), [chats], output=tmp_path / "r", resume=True)


def test_a_run_that_diverges_says_how_to_go_on(talker, chats, tmp_path):
    options = OPTIONS | {"max_steps": 6, "learning_rate": 1e6, "save_steps": 1}
    with pytest.raises(OwnlmError, match="diverged at step") as stopped:
        ownlm.finetune(str(talker), [chats], output=tmp_path / "r", **options)
    command = stopped.value.do.splitlines()[-1]
    assert "--learning-rate 500000.0" in command and "--muon-learning-rate 0.005" in command
    assert "Renamed, because their weights are bad" in stopped.value.why
    assert list((tmp_path / "r" / "checkpoints").glob("*-diverged"))


def test_memory_that_runs_out_says_what_needs_less(talker, chats, tmp_path, monkeypatch):
    def none_left(trainer: Trainer) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(Trainer, "train_step", after(0, none_left))
    options = OPTIONS | {"per_device_train_batch_size": 6}
    with pytest.raises(OwnlmError, match="out of memory") as stopped:
        ownlm.finetune(str(talker), [chats], output=tmp_path / "r", **options)
    said = "--per-device-train-batch-size 3 --gradient-accumulation-steps 2"
    assert said in stopped.value.do and stopped.value.do.endswith("--gradient-checkpointing")


def test_an_option_of_a_command_is_changed_or_added():
    assert changed("ownlm x --a 1 'b c'", {"--a": 2, "--d": 3}) == "ownlm x --a 2 'b c' --d 3"


def test_what_a_run_does_about_divergence_may_change_when_it_goes_on(talker, chats, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "train_step", after(1, lambda trainer: trainer.stop.set()))
        with pytest.raises(Interrupted):
            ownlm.finetune(str(talker), [chats], output=tmp_path / "r", **OPTIONS)
    run = ownlm.finetune(
        str(talker), [chats], output=tmp_path / "r", resume=True, on_divergence="skip", logging_steps=1
    )
    assert run.content["settings"]["on_divergence"] == "skip" and run.content["cost"]["skipped_steps"] == 0


def test_last_is_the_model_that_it_was_at_the_start(talker, chats, tmp_path, monkeypatch):
    shutil.copytree(talker, tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "train_step", after(1, lambda trainer: trainer.stop.set()))
        with pytest.raises(Interrupted) as stopped:
            ownlm.finetune("last", [chats], output=Path("r"), **OPTIONS)
    assert shlex.split(stopped.value.do)[2] == "base"
    run = ownlm.finetune("last", [chats], output=Path("r"), resume=True)
    assert shlex.split(run.content["repeat"])[2] == "base" and run.content["finished"]


def test_resume_refuses_a_model_that_has_changed(talker, chats, tmp_path, monkeypatch):
    base = Path(shutil.copytree(talker, tmp_path / "base"))
    monkeypatch.setattr(Trainer, "train_step", after(1, lambda trainer: trainer.stop.set()))
    with pytest.raises(Interrupted):
        ownlm.finetune(str(base), [chats], output=tmp_path / "r", **OPTIONS)
    weights = {name: 1.01 * value for name, value in load_file(base / "model.safetensors").items()}
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(Refused, match="no longer those that this run began with"):
        ownlm.finetune(str(base), [chats], output=tmp_path / "r", resume=True)


def test_a_damaged_model_replaces_no_run(talker, chats, tmp_path):
    ownlm.finetune(str(talker), [chats], output=tmp_path / "r", **(OPTIONS | {"max_steps": 0}))
    base = Path(shutil.copytree(talker, tmp_path / "base"))
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(Refused, match="no numbers"):
        ownlm.finetune(str(base), [chats], output=tmp_path / "r", overwrite=True, **OPTIONS)
    assert (tmp_path / "r" / "model.safetensors").is_file()


def test_nothing_of_an_adapter_stays_in_a_run_that_replaces_it(talker, chats, tmp_path):
    opinions = [{"text": f"a day {n}", "label": "good" if n % 2 else "bad"} for n in range(30)]
    data = rows(tmp_path / "opinions.jsonl", opinions)
    options = {"output": tmp_path / "r", **(OPTIONS | {"max_steps": 1})}
    ownlm.finetune(str(talker), [chats], lora=True, lora_r=2, **options)
    ownlm.finetune(str(talker), [data], overwrite=True, **options)
    there = {path.name for path in (tmp_path / "r").iterdir()}
    assert "model.safetensors" in there
    assert not there & {"adapter_config.json", "adapter_model.safetensors", "chat_template.jinja"}
    with pytest.raises(Refused, match="head for sequence-classification cannot learn chat as text"):
        ownlm.finetune(
            str(tmp_path / "r"), [chats], chat_template="chatml", **(options | {"output": tmp_path / "s"})
        )


def test_a_tokenizer_of_another_model_is_refused(talker, chats, tmp_path, text_folder):
    base = Path(shutil.copytree(talker, tmp_path / "base"))
    ownlm.prepare([str(text_folder)], output=tmp_path / "corpus", vocab_size=450)
    shutil.copy(tmp_path / "corpus" / "tokenizer.json", base)
    with pytest.raises(Refused, match="the tokenizer has 450 tokens, the model 400"):
        ownlm.finetune(str(base), [chats], output=tmp_path / "r", **OPTIONS)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("made", "options", "message"),
    [
        ([{"text": f"day {n}", "label": "good"} for n in range(9)], {}, 'every row has the label "good"'),
        ([{"instruction": "a", "output": "b"}], {"validation": 0.9999999}, "every row is held out"),
        ([{"instruction": "a", "output": "b"}], {"eval_rows": -1}, "at least 0"),
    ],
    ids=["one label", "all held out", "eval_rows"],
)
def test_what_cannot_be_learnt_is_refused(talker, tmp_path, made, options, message):
    data = rows(tmp_path / "d.jsonl", made)
    with pytest.raises((Refused, UsageError), match=message):
        ownlm.finetune(str(talker), [data], output=tmp_path / "r", **(OPTIONS | options))


def test_what_is_not_read_or_not_learnt_is_said(talker, tmp_path, capsys):
    made = [{"instruction": f"Say {n}.", "output": f"{n} is said", "stars": 5} for n in range(20)]
    made[3]["instruction"] = "Say " + "a much longer thing " * 30
    (tmp_path / "d").mkdir()
    rows(tmp_path / "d" / "d.jsonl", made)
    (tmp_path / "d" / "README.md").write_text("no rows", encoding="utf-8")
    ownlm.finetune(
        str(talker), [str(tmp_path / "d")], output=tmp_path / "r", overlong="truncate", validation=0,
        dry_run=True, **OPTIONS,
    )  # fmt: skip
    said = capsys.readouterr().err
    assert "files not read: 1 .md" in said and "columns not read: stars" in said
    assert "1 rows are left out; the first:" in said and "d.jsonl:4: nothing of the answer is left" in said


def test_a_step_of_a_head_visits_a_row_once(talker, tmp_path):
    context = "The fox is red and the dog is old."
    answer = {"text": ["fox"], "answer_start": [4]}
    made = [{"context": f"{context} {n}", "question": "Who?", "answers": answer} for n in range(20)]
    run = ownlm.finetune(
        str(talker), [rows(tmp_path / "d.jsonl", made)], output=tmp_path / "r", validation=0, dry_run=True,
        per_device_train_batch_size=1000, **OPTIONS,
    )  # fmt: skip
    looked = run.content["preflight"]
    assert (looked["rows_per_step"], looked["epochs"], looked["labels"]) == (20, 3.0, [])
