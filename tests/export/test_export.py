"""`ownlm export`: the folder opens in transformers with the same answers; nothing of others is touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import ownlm
from ownlm.cli import main
from ownlm.console.errors import UsageError
from ownlm.verbs.export import parse_size

transformers = pytest.importorskip("transformers")


def logits(folder: Path, dtype: str = "auto") -> torch.Tensor:
    """transformers' logits of some tokens."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    with torch.no_grad():
        return model(torch.arange(20, 50)[None]).logits.float()


def test_a_run_as_it_is(run, tmp_path):
    done = ownlm.export(str(run), tmp_path / "out")
    assert done["tensors"] == len(load_file(run / "model.safetensors"))
    before, after = (load_file(folder / "model.safetensors") for folder in (run, tmp_path / "out"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(logits(run), logits(tmp_path / "out"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (
        tokenizer("The river runs").input_ids
        == transformers.AutoTokenizer.from_pretrained(run)("The river runs").input_ids
    )
    card = (tmp_path / "out" / "README.md").read_text()
    assert done["source_sha256"] in card and str(run) in card and "## Training" in card


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_another_dtype(run, tmp_path, dtype):
    done = ownlm.export(str(run), tmp_path / "out", dtype=dtype)
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {getattr(torch, dtype)}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == dtype
    largest = max(
        float((tensor.float() - stored[name].float()).abs().max())
        for name, tensor in load_file(run / "model.safetensors").items()
    )
    assert done["largest_change"] == pytest.approx(largest) and largest > 0
    torch.testing.assert_close(logits(tmp_path / "out", "float32"), logits(run), atol=0.1, rtol=0.05)
    loaded = ownlm.load(tmp_path / "out")
    assert loaded.generate("The river", max_new_tokens=5, seed=1).startswith("The river")


def test_shards_and_back(run, tmp_path):
    ownlm.export(str(run), tmp_path / "many", max_shard_size="40kB")
    assert len(list((tmp_path / "many").glob("model-*.safetensors"))) > 3
    assert torch.equal(logits(tmp_path / "many"), logits(run))
    ownlm.export(str(tmp_path / "many"), tmp_path / "one")
    one, before = (load_file(folder / "model.safetensors") for folder in (tmp_path / "one", run))
    assert all(torch.equal(one[name], before[name]) for name in before)


def test_a_weight_that_the_dtype_cannot_hold(run, tmp_path, capsys):
    import shutil

    shutil.copytree(run, tmp_path / "big")
    tensors = load_file(tmp_path / "big" / "model.safetensors")
    tensors["model.norm.weight"][3] = 1e6
    save_file(tensors, tmp_path / "big" / "model.safetensors")
    assert main(["export", str(tmp_path / "big"), str(tmp_path / "out"), "--dtype", "float16"]) == 3
    assert "model.norm.weight" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_there_already(run, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    assert main(["export", str(run), str(tmp_path / "mine"), "--overwrite"]) == 2
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]
    assert main(["export", str(run), str(tmp_path / "out")]) == 0
    assert main(["export", str(run), str(tmp_path / "out")]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["export", str(run), str(tmp_path / "out"), "--overwrite", "--dtype", "bfloat16"]) == 0
    assert load_file(tmp_path / "out" / "model.safetensors")["model.norm.weight"].dtype == torch.bfloat16
    assert main(["export", str(run), str(run)]) == 2
    assert (run / "model.safetensors").exists()


def test_json_is_what_python_gets(run, tmp_path, capsys):
    assert main(["export", str(run), str(tmp_path / "a"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    found = ownlm.export(str(run), tmp_path / "b")
    assert printed["source_sha256"] == found["source_sha256"]
    assert printed.keys() == found.keys()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(["--to", "somewhere"], "--to"), (["--to", "hub:name"], "--to"), (["--max-shard-size", "big"], "max-shard"),
     (["--tokenizer", "x.model"], "--tokenizer"), (["--dtype", "int3"], "dtype")],
)  # fmt: skip
def test_wrong_arguments(run, tmp_path, capsys, arguments, word):
    assert main(["export", str(run), str(tmp_path / "out"), *arguments]) == 2
    assert word in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_sizes():
    assert parse_size("5GB") == 5_000_000_000
    assert parse_size("1.5 mb") == 1_500_000
    assert parse_size("7") == 7
    for text in ("", "GB", "-1GB", "1.2.3GB", "0", "5XB"):
        with pytest.raises(UsageError):
            parse_size(text)


def test_no_such_model(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "./nowhere", "out"]) == 2
    assert not Path("out").exists()


def test_last_is_a_run_and_not_its_export(run, tmp_path, monkeypatch):
    import shutil

    from ownlm.locate import find_run

    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, "b-run")
    ownlm.export("b-run", Path("a-export"))
    assert find_run("last") == Path("b-run")
    assert {row["run"]: row["exported"] for row in ownlm.runs(".")} == {"b-run": False, "a-export": True}
    assert ownlm.load("a-export").taught == ["continues text"]
