"""Every setting of `finetune` changes what it is for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import TINY

import ownlm
from ownlm.console.errors import UsageError
from ownlm.training.log import read_log
from ownlm.training.run_folder import Run

PLAIN: dict[str, Any] = {
    "chat_template": "chatml", "max_steps": 3, "threads": 1, "dtype": "float32", "eval_rows": 4,
    "per_device_train_batch_size": 4,
}  # fmt: skip

TRAINED: dict[str, dict[str, Any]] = {
    "learning_rate": {"learning_rate": 0.003},
    "muon_learning_rate": {"muon_learning_rate": 0.02},
    "weight_decay": {"weight_decay": 0.9},
    "max_grad_norm": {"max_grad_norm": 1e-3},
    "warmup_steps": {"warmup_steps": 2},
    "per_device_train_batch_size": {"per_device_train_batch_size": 2},
    "gradient_accumulation_steps": {"gradient_accumulation_steps": 2},
    "max_steps": {"max_steps": 2},
    "num_train_epochs": {"max_steps": None, "num_train_epochs": 1},
    "seed": {"seed": 1},
    "train_on": {"train_on": "all"},
    "chat_template": {"chat_template": "alpaca"},
    "validation": {"validation": 0.5},
    "max_length": {"max_length": 40, "overlong": "truncate"},
    "overlong": {"max_length": 40, "overlong": "drop"},
}
ADAPTED: dict[str, dict[str, Any]] = {
    "lora_r": {"lora_r": 2},
    "lora_alpha": {"lora_alpha": 8.0},
    "lora_dropout": {"lora_dropout": 0.5},
    "rslora": {"rslora": True},
    "target_modules": {"target_modules": "q_proj,v_proj"},
    "base_dtype": {"base_dtype": "int8"},
}


@pytest.fixture(scope="module")
def base(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "base"
    ownlm.pretrain(corpus, output=path, max_steps=2, **(TINY | {"context": 128}))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    made = [
        {"instruction": f"Say {n}." + " Please." * (n % 9), "input": "", "output": f"{n} is said"}
        for n in range(80)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    return str(path)


def trained(base: Path, data: str, output: Path, **options: Any) -> Run:
    return ownlm.finetune(str(base), [data], output=output, **(PLAIN | options))


def weights(run: Path) -> dict[str, torch.Tensor]:
    name = "adapter_model" if (run / "adapter_model.safetensors").exists() else "model"
    return load_file(run / f"{name}.safetensors")


def differ(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() != b.keys() or any(a[k].shape != b[k].shape or not torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def plain(base: Path, data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(base, data, tmp_path_factory.mktemp("plain") / "r").path


@pytest.fixture(scope="module")
def adapted(base: Path, data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(base, data, tmp_path_factory.mktemp("adapted") / "r", lora=True).path


@pytest.mark.parametrize("name", TRAINED)
def test_it_changes_the_model(base, data, plain, tmp_path, name):
    assert differ(plain, trained(base, data, tmp_path / "r", **TRAINED[name]).path)


@pytest.mark.parametrize("name", ADAPTED)
def test_it_changes_the_adapter(base, data, adapted, tmp_path, name):
    assert differ(adapted, trained(base, data, tmp_path / "r", lora=True, **ADAPTED[name]).path)


def test_it_changes_the_log_and_the_folder(base, data, plain, tmp_path, capsys):
    run = trained(
        base,
        data,
        tmp_path / "r",
        eval_steps=1,
        save_steps=1,
        save_total_limit=3,
        logging_steps=1,
        eval_rows=2,
    )
    assert not differ(plain, run.path)
    kinds = [line["kind"] for line in read_log(run.path / "log.jsonl")]
    assert (kinds.count("validation"), kinds.count("checkpoint")) == (4, 3)
    assert len(list((run.path / "checkpoints").iterdir())) == 3
    assert run.content["scores"]["chat"]["after"]["chrf"]["n"] == 2
    assert capsys.readouterr().err.count("tokens/s") >= 3


def test_memory_is_saved_without_changing_the_model(base, data, plain, tmp_path):
    saving = trained(base, data, tmp_path / "r", gradient_checkpointing=True)
    a, b = weights(plain), weights(saving.path)
    assert all(torch.allclose(a[name], b[name], atol=1e-4) for name in a)
    assert not saving.content["plan"]["fused"]


def test_minutes_become_steps(base, data, tmp_path):
    run = trained(base, data, tmp_path / "r", max_steps=None, minutes=0.1)
    assert run.content["plan"]["max_steps"] > 3 and "--max-steps" in run.content["repeat"]


def test_threads_and_dtype_are_recorded(base, data, tmp_path):
    content = trained(base, data, tmp_path / "r", dry_run=True, threads=2).content
    assert (content["plan"]["threads"], content["plan"]["dtype"]) == (2, "float32")
    with pytest.raises(UsageError):
        trained(base, data, tmp_path / "r", device="abacus")


def test_task_map_and_columns(base, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"q": f"Say {n}", "a": f"{n}!"}) + "\n" for n in range(40)))
    run = ownlm.finetune(
        str(base), [str(path)], output=tmp_path / "r", task="completion", map=["q=prompt", "a=completion"],
        **(PLAIN | {"chat_template": None, "max_steps": 1}),
    )  # fmt: skip
    assert run.content["taught"][-1] == "completion" and run.content["data"]["shape"] == "prompt/completion"


def test_overlap_is_allowed_when_asked_and_recorded(base, tmp_path):
    rows = [{"instruction": f"Say {n}.", "input": "", "output": "said"} for n in range(20)]
    for name in ("train", "validation"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    typed = [str(tmp_path / "train.jsonl"), str(tmp_path / "validation.jsonl")]
    run = ownlm.finetune(
        str(base), typed, output=tmp_path / "r", allow_overlap=True, **(PLAIN | {"max_steps": 1})
    )
    assert run.content["preflight"]["overlap"]["both_sides"] == 20
    assert "too good" in (run.path / "README.md").read_text()


def test_a_settings_file_and_json(base, data, tmp_path, capsys):
    from ownlm.cli import main

    (tmp_path / "s.yaml").write_text("max_steps: 1\nchat_template: chatml\nthreads: 1\neval_rows: 2\n")
    words = [
        "finetune",
        str(base),
        data,
        "-o",
        str(tmp_path / "r"),
        "--config",
        str(tmp_path / "s.yaml"),
        "--json",
    ]
    assert main(words) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["plan"]["max_steps"] == 1 and content["finished"]
