"""`pretrain` as its users call it: what it writes, what it refuses, and that its settings do something."""

import json

import pytest
import torch

import ownlm
from ownlm.training.log import read_log


def test_the_run_folder_holds_what_was_promised(run):
    names = {path.name for path in run.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json",
            "README.md", "run.json", "log.jsonl", "report.html"} <= names  # fmt: skip
    content = json.loads((run / "run.json").read_text())
    assert content["finished"] is True
    assert content["taught"] == ["continues text"]
    assert content["plan"]["max_steps"] == 30
    for name in ("loss", "perplexity", "bits_per_byte"):
        metric = content["result"][name]
        assert metric["low"] <= metric["value"] <= metric["high"]
    steps = [line for line in read_log(run / "log.jsonl") if line["kind"] == "step"]
    assert [line["step"] for line in steps] == list(range(1, 31))
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert {
        "tokens",
        "loss",
        "bits_per_byte",
        "learning_rate",
        "seconds",
        "tokens_per_second",
        "mfu",
    } <= steps[0].keys()


def test_transformers_opens_the_run_with_our_ids_and_logits(run):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ours = ownlm.load(run)
    theirs = AutoModelForCausalLM.from_pretrained(run)
    tokenizer = AutoTokenizer.from_pretrained(run)
    for text in ("The fox runs to the river.", "春眠不觉晓", "  tabs\tand\n\nlines 123"):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert ids == ours.tokenizer.encode(text).tolist()
        assert tokenizer.decode(ids) == text
        with torch.no_grad():
            batch = torch.tensor([ids])
            torch.testing.assert_close(ours.model(batch), theirs(batch).logits, atol=1e-4, rtol=1e-4)


def test_the_loss_of_the_log_is_the_loss_of_the_model(corpus, tmp_path, tiny):
    """The first logged loss equals a cross-entropy computed from the initialised model by torch alone."""
    from ownlm.corpus.batches import Batches
    from ownlm.corpus.shards import Corpus

    start = ownlm.pretrain(corpus, output=tmp_path / "start", max_steps=0, **tiny)
    ownlm.pretrain(corpus, output=tmp_path / "one", max_steps=1, **tiny)
    batch = torch.from_numpy(Batches(Corpus.open(corpus).split("train"), 32, 8, 0).step(0))
    model = ownlm.load(start).model
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(
            model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten()
        )
    logged = next(line for line in read_log(tmp_path / "one/log.jsonl") if line["kind"] == "step")
    assert logged["loss"] == pytest.approx(float(expected), rel=1e-5)


def test_accumulation_equals_one_large_batch(corpus, tmp_path, tiny):
    settings = tiny | {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    a = ownlm.load(ownlm.pretrain(corpus, output=tmp_path / "a", max_steps=3, **tiny)).model
    b = ownlm.load(ownlm.pretrain(corpus, output=tmp_path / "b", max_steps=3, **settings)).model
    for x, y in zip(a.parameters(), b.parameters()):
        torch.testing.assert_close(x, y, atol=2e-3, rtol=2e-2)


CHANGES = {
    "learning_rate": 0.001,
    "muon_learning_rate": 0.005,
    "weight_decay": 0.5,
    "max_grad_norm": 1e-3,
    "warmup_steps": 3,
    "seed": 1,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "context": 16,
    "set": ["num_hidden_layers=1", "hidden_size=64", "intermediate_size=128"],
    "architecture": "llama",
    "max_steps": 3,
    "size": "3M",
}


@pytest.fixture(scope="module")
def base(corpus, tmp_path_factory):
    from tests.conftest import TINY

    path = tmp_path_factory.mktemp("base") / "run"
    ownlm.pretrain(corpus, output=path, max_steps=4, **TINY)
    return (path / "model.safetensors").read_bytes()


@pytest.mark.parametrize("name", CHANGES)
def test_every_training_setting_changes_the_model(name, base, corpus, tmp_path, tiny):
    settings = {"max_steps": 4, **tiny} | {name: CHANGES[name]}
    if name == "size":
        settings["set"] = ["num_hidden_layers=2", "intermediate_size=128"]
    ownlm.pretrain(corpus, output=tmp_path / "run", **settings)
    assert (tmp_path / "run/model.safetensors").read_bytes() != base


def test_settings_that_change_something_else(corpus, base, tmp_path, tiny):
    """eval, save and sample settings leave the weights alone and show in the log and the folder."""
    settings = tiny | {
        "max_steps": 4,
        "eval_steps": 1,
        "save_steps": 1,
        "save_total_limit": 3,
        "sample_prompt": "The river",
    }
    ownlm.pretrain(corpus, output=tmp_path / "run", **settings)
    assert (tmp_path / "run/model.safetensors").read_bytes() == base
    kinds = [line["kind"] for line in read_log(tmp_path / "run/log.jsonl")]
    assert kinds.count("validation") == 5
    assert kinds.count("checkpoint") == 4
    assert len(list((tmp_path / "run/checkpoints").iterdir())) == 3
    assert any(line.get("prompt") == "The river" for line in read_log(tmp_path / "run/log.jsonl"))


def test_settings_file_and_precedence(corpus, tmp_path, tiny):
    (tmp_path / "settings.yaml").write_text("learning_rate: 0.001\nmax_steps: 2\nseed: 5\n")
    ownlm.pretrain(corpus, output=tmp_path / "run", config=tmp_path / "settings.yaml", seed=6, **tiny)
    settings = json.loads((tmp_path / "run/run.json").read_text())["settings"]
    assert (settings["learning_rate"], settings["max_steps"], settings["seed"]) == (0.001, 2, 6)


def test_refusals(corpus, run, tmp_path, tiny):
    with pytest.raises(ownlm.UsageError, match="--minutes and --max-steps"):
        ownlm.pretrain(corpus, output=tmp_path / "x", minutes=1, max_steps=3)
    with pytest.raises(ownlm.UsageError, match="there is a run"):
        ownlm.pretrain(corpus, output=run, max_steps=1, **tiny)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.txt").write_text("mine")
    with pytest.raises(ownlm.UsageError, match="other files"):
        ownlm.pretrain(corpus, output=tmp_path / "full", max_steps=1, **tiny)
    assert (tmp_path / "full/thesis.txt").read_text() == "mine"
    with pytest.raises(ownlm.Refused, match="--context"):
        ownlm.pretrain(corpus, output=tmp_path / "long", max_steps=1, **(tiny | {"context": 100_000}))
    with pytest.raises(ownlm.UsageError, match='no size "3N"'):
        ownlm.pretrain(corpus, output=tmp_path / "x", max_steps=1, size="3N")
    with pytest.raises(ownlm.UsageError, match="num_hidden_layers"):
        ownlm.pretrain(corpus, output=tmp_path / "x", max_steps=1, set=["num_hidden_layer=2"])
    with pytest.raises(ownlm.UsageError, match="learning_rate"):
        ownlm.pretrain(corpus, output=tmp_path / "x", max_steps=1, learing_rate=0.1)
    with pytest.raises(ownlm.UsageError):
        ownlm.pretrain(tmp_path / "no-corpus", output=tmp_path / "x", max_steps=1)
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "long").exists()


def test_continuing_from_a_model(corpus, run, text_folder, tmp_path, tiny):
    settings = {k: v for k, v in tiny.items() if k not in ("size", "set")}
    first = ownlm.pretrain(corpus, output=tmp_path / "on", from_=str(run), max_steps=1, **settings)
    loss = next(line["loss"] for line in read_log(first.path / "log.jsonl") if line["kind"] == "step")
    started = next(line["loss"] for line in read_log(run / "log.jsonl") if line["kind"] == "step")
    assert loss < started - 0.5
    ownlm.prepare([str(text_folder)], output=tmp_path / "other", vocab_size=350)
    with pytest.raises(ownlm.Refused, match="different tokenizers"):
        ownlm.pretrain(tmp_path / "other", output=tmp_path / "x", from_=str(run), max_steps=1, **settings)


def test_several_processes_are_refused(corpus, tmp_path, tiny, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ownlm.UsageError, match="several processes"):
        ownlm.pretrain(corpus, output=tmp_path / "x", max_steps=1, **tiny)
