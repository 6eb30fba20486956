"""`evaluate`: the figures are those of pretraining and of a plain cross-entropy, whatever the text comes from."""

from __future__ import annotations

import gzip
import io
import json
import math
import shutil
import sys

import pytest
import torch

import ownlm
from ownlm.cli import main
from ownlm.console.errors import UsageError
from ownlm.engine import native_backend


@pytest.fixture
def typed(capsys, monkeypatch):
    """Types `ownlm evaluate …`; gives (exit code, standard output, standard error)."""

    def evaluate(*words, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        code = main(["evaluate", *map(str, words)])
        return (code, *capsys.readouterr())

    return evaluate


METRICS = ("loss", "perplexity", "bits_per_byte")


def test_the_held_out_split_gives_the_closing_figures_of_pretrain(typed, run, corpus):
    code, shown, _ = typed(run, "--json")
    found = json.loads(shown)
    closing = json.loads((run / "run.json").read_text(encoding="utf-8"))["result"]
    assert code == 0
    assert {name: found[name] for name in METRICS} == {name: closing[name] for name in METRICS}
    from ownlm.corpus.shards import Corpus

    split = Corpus.open(corpus).split("validation")
    assert (found["documents"], found["bytes"]) == (split.num_documents, split.num_bytes)
    assert str(corpus) in found["text"]


@pytest.mark.parametrize("change", [{"seed": 7}, {"context": 16, "from_": True}], ids=["seed", "context"])
def test_that_holds_for_other_seeds_and_for_a_window_smaller_than_the_models(
    run, corpus, tmp_path, tiny, change
):
    settings = tiny | {"max_steps": 2} | change
    if change.get("from_"):
        settings |= {"from_": str(run)}
        settings = {name: value for name, value in settings.items() if name not in ("size", "set")}
    closing = ownlm.pretrain(corpus, output=tmp_path / "run", **settings).result
    found = ownlm.evaluate(tmp_path / "run")
    assert {name: found[name] for name in METRICS} == {name: closing[name] for name in METRICS}


def test_a_given_text_gives_the_cross_entropy_that_torch_computes(typed, run):
    model = ownlm.load(run, dtype="float32")
    text = "7: The fox runs home, 春眠."
    ids = torch.tensor([[model.tokenizer.eos_id, *model.tokenizer.encode(text).tolist()]])
    assert ids.shape[1] < model.context
    with torch.no_grad():
        logits = model.model(ids[:, :-1])[0]
    nats = torch.nn.functional.cross_entropy(logits.double(), ids[0, 1:], reduction="sum").item()
    size, count = len(text.encode()), ids.shape[1] - 1
    code, shown, _ = typed(run, text, "--json")
    found = json.loads(shown)
    assert code == 0
    assert (found["bytes"], found["tokens"], found["documents"]) == (size, count, 1)
    assert found["loss"]["value"] == pytest.approx(nats / count, rel=1e-5)
    assert found["perplexity"]["value"] == pytest.approx(math.exp(nats / count), rel=1e-5)
    assert found["bits_per_byte"]["value"] == pytest.approx(nats / math.log(2) / size, rel=1e-5)
    expected = len(gzip.compress(text.encode(), 9)) * 8 / size
    assert found["baselines"]["gzip -9"] == pytest.approx(expected, abs=8 * 24 / size)  # headers may differ


def test_files_folders_and_standard_input_are_the_same_text(typed, run, tmp_path):
    text = "The river runs to the sea.\n" * 30
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text(text, encoding="utf-8")
    given = [[folder / "a.txt"], [f"@{folder / 'a.txt'}"], [folder]]
    figures = [json.loads(typed(run, *words, "--json")[1]) for words in given]
    figures.append(json.loads(typed(run, "-", "--json", stdin=text.encode() + b"\n")[1]))
    for found in figures:
        assert [found[name] for name in METRICS] == [figures[0][name] for name in METRICS]
        assert found["bytes"] == len(text.encode())
    (folder / "b.txt").write_text("春眠不觉晓\n", encoding="utf-8")
    both = json.loads(typed(run, folder, "--json")[1])
    assert (both["documents"], both["bytes"]) == (2, len(text.encode()) + 16)
    assert both["loss"]["value"] != figures[0]["loss"]["value"]


def test_lines_for_a_person_hold_the_figures_and_their_intervals(typed, run, tmp_path):
    (tmp_path / "t.txt").write_text("".join(f"{i}: The river runs.\n" for i in range(200)), encoding="utf-8")
    code, shown, said = typed(run, tmp_path / "t.txt")
    found = json.loads(typed(run, tmp_path / "t.txt", "--json")[1])
    assert code == 0
    lines = shown.splitlines()
    for line, name in zip(lines, ("bits_per_byte", "loss", "perplexity"), strict=True):
        assert (
            f" {found[name]['value']:.4f} (95 % {found[name]['low']:.4f} to {found[name]['high']:.4f}" in line
        )
    assert f"gzip -9 {found['baselines']['gzip -9']:.4f}" in lines[0]
    assert f"ownlm score {run} @FILE" in said
    assert "too little text for an interval" in typed(run, "fox")[1]


def test_settings_change_what_they_say(run, tmp_path):
    text = tmp_path / "t.txt"
    text.write_text("".join(f"{i}: The fox and the river.\n" for i in range(200)), encoding="utf-8")
    plain = ownlm.evaluate(run, [str(text)])
    more = ownlm.evaluate(run, [str(text)], stride=1)
    assert more["loss"]["value"] < plain["loss"]["value"]  # more text stands before every token
    other = ownlm.evaluate(run, [str(text)], seed=1)
    assert other["loss"]["value"] == plain["loss"]["value"]
    assert other["loss"]["low"] != plain["loss"]["low"]


def test_batch_size_changes_how_many_windows_are_computed_at_once(run, tmp_path, monkeypatch):
    from ownlm.model.transformer import Transformer

    text = "".join(f"{i}: The fox and the river.\n" for i in range(60))
    rows, hidden = [], Transformer.hidden

    def counted(model, ids, *args, **kwargs):
        rows[-1].append(len(ids))
        return hidden(model, ids, *args, **kwargs)

    monkeypatch.setattr(Transformer, "hidden", counted)
    monkeypatch.setattr("ownlm.engine.native_backend.available", lambda: False)
    losses = []
    for size in (1, 5):
        rows.append([])
        losses.append(ownlm.evaluate(run, [text], batch_size=size)["loss"]["value"])
    assert (max(rows[0]), max(rows[1])) == (1, 5)
    assert sum(rows[0]) == sum(rows[1])
    assert losses[0] == pytest.approx(losses[1], rel=1e-7)


@pytest.mark.skipif(not native_backend.available(), reason="the native kernels were not built")
def test_the_engine_and_torch_give_the_same_figures(run, tmp_path, monkeypatch):
    text = tmp_path / "t.txt"
    text.write_text("".join(f"{i}: The fox and the river.\n" for i in range(60)), encoding="utf-8")
    found = ownlm.evaluate(run, [str(text)])
    places = ownlm.score(run, [str(text)])["places"]
    assert found["dtype"] == "float32"
    with monkeypatch.context() as patched:
        patched.setattr(native_backend, "available", lambda: False)
        other = ownlm.evaluate(run, [str(text)])
        others = ownlm.score(run, [str(text)])["places"]
    assert [other[name] == found[name] for name in METRICS] == [False] * 3, (
        "else one of them was measured twice"
    )
    for name in METRICS:
        assert other[name]["value"] == pytest.approx(found[name]["value"], rel=1e-6)
    assert [place["logprob"] for place in others] == pytest.approx([p["logprob"] for p in places], abs=1e-4)
    halves = ownlm.evaluate(run, [str(text)], dtype="bfloat16")
    assert halves["dtype"] == "bfloat16"
    assert halves["loss"]["value"] == pytest.approx(found["loss"]["value"], rel=5e-3)
    with pytest.raises(UsageError, match="open in float32 already"):
        ownlm.evaluate(ownlm.load(run), [str(text)], dtype="bfloat16")


def test_what_cannot_be_evaluated_is_refused_with_what_can(typed, run, tmp_path):
    (tmp_path / "empty.txt").write_text(" \n", encoding="utf-8")
    code, shown, said = typed(run, tmp_path / "empty.txt")
    assert (code, shown) == (3, "")
    assert "no text to evaluate" in said
    assert typed(run, "")[0] == 3
    code, _, said = typed(run, tmp_path / "missing.txt")
    assert code == 2 and "no such file or folder" in said
    assert typed(run, "x", "--batch-size", 0)[0] == 2
    assert typed(run, "The fox runs", "--stride", 1000)[0] == 2
    assert typed(tmp_path / "nothing")[0] == 2
    copy = tmp_path / "copy"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("checkpoints"))
    content = json.loads((copy / "run.json").read_text(encoding="utf-8"))
    for change, words in (
        ({"hash": "0" * 64}, "was changed after this run"),
        ({"corpus": str(tmp_path / "gone")}, "is not at"),
    ):
        changed = content | {"data": content["data"] | change}
        (copy / "run.json").write_text(json.dumps(changed), encoding="utf-8")
        code, _, said = typed(copy)
        assert code == 3 and words in said and f"ownlm evaluate {copy}" in said
    assert typed(copy, "The fox")[0] == 0
