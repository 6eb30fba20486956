"""Whole runs: they learn, are written as others read them, go on after a stop, and are refused where they would not learn."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import TINY

import ownlm
from ownlm.console.errors import Interrupted, Refused, UsageError
from ownlm.model.weights_hash import weights_sha256
from ownlm.task_methods.asking import Asker
from ownlm.tasks.dataset import read_dataset
from ownlm.tasks.measure import Reader
from ownlm.training.loop import Trainer
from ownlm.training.tuning.texts import texts_of

FAST: dict[str, Any] = {"threads": 1, "dtype": "float32", "eval_rows": 20}
GOOD, BAD = ["quick", "bright", "warm", "calm", "kind"], ["slow", "grey", "cold", "rude", "dull"]


@pytest.fixture(scope="module")
def base(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "base"
    ownlm.pretrain(corpus, output=path, max_steps=20, **(TINY | {"context": 128}))
    return path


def rows(path: Path, made: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = [{"instruction": f"Say {n % 40}.", "input": "", "output": f"{n % 40} is said"} for n in range(120)]
    return rows(tmp_path_factory.mktemp("chats") / "chats.jsonl", made)


@pytest.fixture(scope="module")
def opinions(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = []
    for n in range(160):
        words = GOOD if n % 2 else BAD
        text = f"a {words[n % 5]} {'fox' if n % 3 else 'dog'} and a {words[n // 5 % 5]} day {n}"
        made.append({"text": text, "label": "good" if n % 2 else "bad"})
    return rows(tmp_path_factory.mktemp("opinions") / "opinions.jsonl", made)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(one: Path, other: Path, name: str = "model.safetensors") -> bool:
    a, b = load_file(one / name), load_file(other / name)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_chat_run(base, chats, tmp_path, capsys):
    run = ownlm.finetune(
        str(base), [chats], output=tmp_path / "r", chat_template="chatml", num_train_epochs=4, **FAST
    )
    content = run.content
    assert content["taught"] == ["continues text", "chat"] and content["finished"]
    assert content["scores"]["chat"]["after"]["chrf"]["n"] == 20
    assert content["chat_template"]["from"] == "chatml"
    assert (tmp_path / "r" / "chat_template.jinja").is_file() and (tmp_path / "r" / "report.html").is_file()
    log = [json.loads(line) for line in (tmp_path / "r" / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in log if line["kind"] == "validation"]
    assert losses[-1] < 0.8 * losses[0]
    said = capsys.readouterr().err
    assert "rows can give" in said and "[[" in said and "% of the tokens" in said
    card = (tmp_path / "r" / "README.md").read_text()
    assert "| chrf | – |" in card and content["repeat"] in card


def test_the_repeat_command_trains_the_same_bits(base, chats, tmp_path):
    from ownlm.cli import main

    options = {"chat_template": "chatml", "num_train_epochs": 1, **FAST}
    first = ownlm.finetune(str(base), [chats], output=tmp_path / "r", **options)
    words = first.content["repeat"].split()[1:]
    assert main([*words, "--threads", "1", "--dtype", "float32", "--chat-template", "chatml"]) == 0
    assert same(tmp_path / "r", tmp_path / "r-again")


@pytest.mark.parametrize("way", ["full", "lora", "head"])
def test_a_stopped_run_goes_on_to_the_same_bits(base, chats, opinions, tmp_path, monkeypatch, way):
    data, options = chats, {"chat_template": "chatml", "max_steps": 6, "save_steps": 2, **FAST}
    if way == "lora":
        options |= {"lora": True, "lora_r": 4, "lora_dropout": 0.3}
    if way == "head":
        data, options = opinions, {"max_steps": 6, "save_steps": 2, **FAST}
    ownlm.finetune(str(base), [data], output=tmp_path / "whole", **options)
    step = Trainer.train_step

    def stopping(self):
        values = step(self)
        if self.step == 3:
            self.stop.set()
        return values

    monkeypatch.setattr(Trainer, "train_step", stopping)
    with pytest.raises(Interrupted, match="stopped at step 3 of 6") as stopped:
        ownlm.finetune(str(base), [data], output=tmp_path / "r", **options)
    assert stopped.value.do.endswith("--resume")
    monkeypatch.setattr(Trainer, "train_step", step)
    ownlm.finetune(str(base), [data], output=tmp_path / "r", resume=True)
    name = "adapter_model.safetensors" if way == "lora" else "model.safetensors"
    assert same(tmp_path / "r", tmp_path / "whole", name)


def test_resume_refuses_other_rows_and_other_settings(base, chats, tmp_path, monkeypatch):
    mine = tmp_path / "mine.jsonl"
    shutil.copyfile(chats, mine)
    options = {"chat_template": "chatml", "max_steps": 4, **FAST}
    step = Trainer.train_step
    monkeypatch.setattr(Trainer, "train_step", lambda self: (step(self), self.stop.set())[0])
    with pytest.raises(Interrupted):
        ownlm.finetune(str(base), [str(mine)], output=tmp_path / "r", **options)
    with pytest.raises(UsageError, match="goes on with the settings of the run"):
        ownlm.finetune(str(base), [str(mine)], output=tmp_path / "r", resume=True, seed=5)
    mine.write_text(mine.read_text().replace("is said", "was said"), encoding="utf-8")
    with pytest.raises(Refused, match="not those that this run was trained on"):
        ownlm.finetune(str(base), [str(mine)], output=tmp_path / "r", resume=True)


def test_an_adapter_leaves_its_base_alone(base, chats, tmp_path):
    before = weights(base)
    ownlm.finetune(
        str(base),
        [chats],
        output=tmp_path / "r",
        chat_template="chatml",
        lora=True,
        lora_r=4,
        max_steps=5,
        **FAST,
    )
    assert all(torch.equal(before[name], value) for name, value in weights(base).items())
    stored = load_file(tmp_path / "r" / "adapter_model.safetensors")
    assert stored and all(".lora_" in name for name in stored)
    assert any(bool(value.abs().max() > 0) for name, value in stored.items() if "lora_B" in name)
    assert not (tmp_path / "r" / "model.safetensors").exists()
    assert json.loads((tmp_path / "r" / "run.json").read_text())["base_sha256"] == weights_sha256(base)
    assert ownlm.load(tmp_path / "r").generate("The fox", max_new_tokens=3, seed=1)


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_opinions_are_learnt(base, opinions, tmp_path, lora):
    run = ownlm.finetune(
        str(base), [opinions], output=tmp_path / "r", task="sentiment", lora=lora, num_train_epochs=8,
        learning_rate=0.004, validation=0.25, **(FAST | {"eval_rows": 100}),
    )  # fmt: skip
    after = run.content["scores"]["sentiment"]["after"]
    assert after["accuracy"]["value"] > 0.9
    found = ownlm.load(tmp_path / "r").classify(
        ["a warm fox and a kind day 5", "a dull dog and a rude day 6"]
    )
    assert [one[0]["label"] for one in found] == ["good", "bad"]


def test_opinions_as_text(base, opinions, tmp_path):
    run = ownlm.finetune(
        str(base), [opinions], output=tmp_path / "r", as_="text", chat_template="chatml", max_steps=3, **FAST
    )
    assert run.content["labels"] == ["bad", "good"]
    assert "accuracy" in run.content["scores"]["classification"]["after"]


def test_pairs_without_a_template_are_asked_as_they_were_learnt(base, tmp_path):
    made = [{"en": f"The fox {n} runs.", "de": f"Fuchs {n}"} for n in range(40)]
    typed = rows(tmp_path / "pairs.jsonl", made)
    run = ownlm.finetune(str(base), [typed], output=tmp_path / "r", chat_template="none", max_steps=2, **FAST)
    assert run.content["chat_template"] is None and not (tmp_path / "r/chat_template.jinja").exists()
    loaded = ownlm.load(tmp_path / "r")
    data = read_dataset([typed])
    item = next(data.items())
    reader = Reader("r", loaded.tokenizer, None, 128)
    [learnt], _, _ = texts_of(
        [item], "translation", reader, data.problems, max_length=128, overlong="error", train_on="answers"
    )
    asked = Asker(loaded).ids(Asker(loaded).item(item, "translation"))
    assert asked == learnt.ids[: len(asked)].tolist()
    assert (learnt.targets >= 0).argmax() == len(asked) - 1
    chat = rows(
        tmp_path / "c.jsonl", [{"instruction": f"a {n}", "input": "", "output": "b"} for n in range(30)]
    )
    with pytest.raises(UsageError, match="conversations need a template"):
        ownlm.finetune(str(base), [chat], output=tmp_path / "r2", chat_template="none", **FAST)


def test_a_dry_run_writes_nothing(base, chats, tmp_path):
    run = ownlm.finetune(
        str(base), [chats], output=tmp_path / "r", chat_template="chatml", dry_run=True, **FAST
    )
    assert not (tmp_path / "r").exists()
    assert 0.2 < run.content["preflight"]["rows"]["trained_share"] < 0.8
    assert "[[" in run.content["preflight"]["sample"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no chat template"),
        ({"chat_template": "chatml", "lora_r": 4}, "has no effect without --lora"),
        ({"chat_template": "chatml", "max_length": 8}, "rows are longer than 8 tokens"),
        ({"chat_template": "chatml", "as_": "head"}, "there is no head for chat"),
        ({"chat_template": "chatml", "task": "ner"}, "ner"),
    ],
    ids=str,
)
def test_what_would_not_be_what_it_seems_is_refused(base, chats, tmp_path, options, message):
    from ownlm.console.settings import given_settings  # noqa: F401 - the verb notes what was given

    with pytest.raises((Refused, UsageError), match=message):
        ownlm.finetune(str(base), [chats], output=tmp_path / "r", **(FAST | options))
    assert not (tmp_path / "r").exists()


def test_rows_without_an_answer_are_refused(base, tmp_path):
    empty = rows(tmp_path / "d.jsonl", [{"instruction": "Say it.", "input": "", "output": ""}] * 5)
    with pytest.raises(Refused, match="nothing could be trained"):
        ownlm.finetune(str(base), [empty], output=tmp_path / "r", chat_template="chatml", **FAST)


def test_a_run_is_not_replaced_unasked(base, chats, tmp_path):
    options = {"chat_template": "chatml", "max_steps": 1, **FAST}
    ownlm.finetune(str(base), [chats], output=tmp_path / "r", **options)
    with pytest.raises(UsageError, match="there is a run in this folder already"):
        ownlm.finetune(str(base), [chats], output=tmp_path / "r", **options)
    ownlm.finetune(str(base), [chats], output=tmp_path / "r", overwrite=True, **options)
    with pytest.raises(UsageError, match="lies in the output folder"):
        ownlm.finetune(str(tmp_path / "r"), [chats], output=tmp_path / "r", overwrite=True, **options)


def test_a_head_run_is_read_by_transformers(base, opinions, tmp_path):
    transformers = pytest.importorskip("transformers")
    ownlm.finetune(str(base), [opinions], output=tmp_path / "r", task="sentiment", max_steps=2, **FAST)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "r").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "r")
    text = "a warm fox and a kind day"
    with torch.no_grad():
        logits = theirs(**tokenizer(text, return_tensors="pt")).logits[0]
    ours = ownlm.load(tmp_path / "r").classify([text], top_k=None)[0]
    wanted = dict(zip(theirs.config.id2label.values(), logits.softmax(-1).tolist()))
    assert {one["label"]: pytest.approx(one["score"], abs=1e-5) for one in ours} == wanted
