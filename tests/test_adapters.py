"""Adapter folders in use: opened with their base by every verb, several at once over one base in memory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import ownlm
from ownlm.adapter_bases import base_of
from ownlm.adapters import AdaptedModel
from ownlm.console.errors import Refused, UsageError
from ownlm.corpus.tokenizer import Tokenizer
from ownlm.engine import Request, SamplingSettings, native_backend
from ownlm.headed import HeadedModel
from ownlm.loaded import LoadedModel
from ownlm.model.checkpoint import load_model, save_model
from ownlm.model.heads_checkpoint import new_head
from ownlm.model.lora import LoraSettings, add_lora, lora_layers
from ownlm.model.lora_apply import attach
from ownlm.model.lora_config import read_adapter_config
from ownlm.model.lora_files import read_adapter, save_adapter
from ownlm.model.weights_hash import weights_sha256
from ownlm.tasks.templates import folder_template

BACKENDS = [
    "torch",
    pytest.param("native", marks=pytest.mark.skipif(not native_backend.available(), reason="not built")),
]


def made(base: Path, folder: Path, seed: int, name_of_base: str | None = None, **changes: object) -> Path:
    """An adapter folder as fine-tuning writes it, with random changes."""
    model = load_model(base)
    settings = LoraSettings(r=4, alpha=8, **changes)
    add_lora(model, settings, seed)
    generator = torch.Generator().manual_seed(seed)
    for layer in lora_layers(model).values():
        layer.lora_B.data.copy_(torch.randn(layer.lora_B.shape, generator=generator) * 0.1)
    save_adapter(model, folder, settings, base=name_of_base or str(base))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(base / file, folder / file)
    run = {"format": "ownlm run 1", "base_sha256": weights_sha256(base), "taught": ["chat"]}
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def place(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run and two adapters of it."""
    folder = tmp_path_factory.mktemp("adapters")
    shutil.copytree(run, folder / "base", ignore=shutil.ignore_patterns("checkpoints"))
    made(folder / "base", folder / "one", 1)
    made(folder / "base", folder / "two", 2, rslora=True, target_modules=("q_proj", "down_proj"))
    return folder


def scores(model: LoadedModel, ids: list[int]) -> np.ndarray:
    return model.engine.score([ids])[0].logprobs


@pytest.mark.parametrize("backend", BACKENDS)
def test_several_adapters_share_the_engine_of_their_base(place: Path, backend: str) -> None:
    base = ownlm.load(place / "base", backend=backend, adapters=[place / "one", place / "two"])
    one, two = base.with_adapter("one"), base.with_adapter("two")
    assert base.with_adapter("one") is one and list(one.adapters) == ["one", "two"]
    assert one.engine.backend is base.engine.backend and one.taught == ["chat"]
    ids = base.tokenizer.encode("3: The quick brown fox runs home.").tolist()
    found = {name: scores(model, ids) for name, model in (("base", base), ("one", one), ("two", two))}
    for name, model in (("one", one), ("two", two)):
        with torch.no_grad():
            logits = model.model(torch.tensor([ids]))[0, :-1].log_softmax(-1)
        expected = logits.gather(-1, torch.tensor(ids[1:])[:, None])[:, 0].numpy()
        np.testing.assert_allclose(found[name], expected, atol=2e-4)
        assert np.abs(found[name] - found["base"]).max() > 0.01
    # All at once, in one queue: each gets its own bits.
    settings = SamplingSettings(max_new_tokens=0, prompt_logprobs=0)
    numbers = {model.engine.submit(Request(ids, settings)): name for name, model in
               (("base", base), ("one", one), ("two", two))}  # fmt: skip
    while base.engine.busy:
        for event in base.engine.step():
            np.testing.assert_array_equal(event.prompt.logprobs, found[numbers[event.request_id]])


def test_an_adapter_folder_is_a_model(place: Path) -> None:
    model = ownlm.load(place / "one")
    assert isinstance(model, AdaptedModel) and str(place / "one") in repr(model)
    greedy = {"temperature": 0.0, "max_new_tokens": 12}
    text = model.generate("3: The", **greedy)
    base = ownlm.load(place / "base")
    assert text == base.with_adapter(place / "one").generate("3: The", **greedy)
    assert text != base.generate("3: The", **greedy)
    assert ownlm.generate(place / "one", "3: The", **greedy) == text


def test_figures_and_scores_are_those_of_the_merged_model(place: Path, tmp_path: Path) -> None:
    ownlm.export(str(place / "one"), tmp_path / "merged", merge_adapter=True)
    text = "3: The quick brown fox runs home. Rain falls on the sea."
    for ask in (ownlm.evaluate, ownlm.score):
        adapted, merged, base = (
            json.loads(json.dumps(ask(str(folder), [text]))) for folder in
            (place / "one", tmp_path / "merged", place / "base")
        )  # fmt: skip
        if ask is ownlm.score:
            values = [found["texts"][0]["logprob"] for found in (adapted, merged, base)]
        else:
            values = [found["loss"]["value"] for found in (adapted, merged, base)]
        assert values[0] == pytest.approx(values[1], abs=1e-4)
        assert abs(values[0] - values[2]) > 1e-3


@pytest.mark.parametrize("dtype", ["bfloat16", "int8", "int4"])
@pytest.mark.skipif(not native_backend.available(), reason="not built")
def test_the_base_may_be_in_any_dtype(place: Path, dtype: str) -> None:
    ids = Tokenizer.load(place / "one").encode("3: The quick brown fox runs home.").tolist()
    exact = scores(ownlm.load(place / "one"), ids)
    coarse = scores(ownlm.load(place / "one", dtype=dtype), ids)
    without = scores(ownlm.load(place / "base"), ids)
    assert 0 < np.abs(coarse - exact).mean() < 0.5 * np.abs(without - exact).mean()


def moved(place: Path, folder: Path, base: str) -> Path:
    """A copy of the first adapter whose file names this base."""
    shutil.copytree(place / "one", folder)
    content = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(content | {"base_model_name_or_path": base}))
    return folder


def test_where_the_base_is_looked_for(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "base"
    shutil.copytree(place / "base", base)
    monkeypatch.chdir(place)
    for name, given in (("a", str(base)), ("b", "../base"), ("c/checkpoints/step-3", "../base")):
        folder = moved(place, tmp_path / name, given)
        assert base_of(folder, read_adapter_config(folder)).resolve() == base
        assert capsys.readouterr().err == ""
    # All was moved together: the base lies beside the adapter now.
    folder = moved(place, tmp_path / "d", "/gone/base")
    assert base_of(folder, read_adapter_config(folder)) == base
    assert f"no longer at /gone/base; {base} is used" in capsys.readouterr().err
    asked: list[str] = []
    monkeypatch.setattr("ownlm.adapter_bases.resolve", lambda name: asked.append(name) or base)
    folder = moved(place, tmp_path / "hub", "owner/name")
    content = json.loads((folder / "adapter_config.json").read_text())
    for revision in (None, "v2"):
        text = json.dumps(content | {"revision": revision})
        (folder / "adapter_config.json").write_text(text)
        assert base_of(folder, read_adapter_config(folder)) == base
    assert asked == ["owner/name", "owner/name@v2"]
    monkeypatch.undo()
    for name, given, message in (
        ("e", "/gone/other", "its base, /gone/other, is not there"),
        ("f", "", "does not say which model it changes"),
        ("g", "../a", "is an adapter itself.*\n.*--merge-adapter"),
    ):
        folder = moved(place, tmp_path / name, given)
        with pytest.raises((Refused, UsageError), match=message):
            ownlm.load(folder)


def test_a_base_with_other_weights_is_refused(place: Path, tmp_path: Path) -> None:
    folder = moved(place, tmp_path / "one", "../base")
    shutil.copytree(place / "base", tmp_path / "base")
    ownlm.load(folder)
    changed = load_model(tmp_path / "base")
    changed.blocks[0].mlp.up_proj.weight.data[3, 5] += 0.1
    save_model(changed, tmp_path / "base", {})
    for ask in (
        lambda: ownlm.load(folder),
        lambda: ownlm.load(tmp_path / "base", adapters=[folder]),
        lambda: ownlm.export(str(folder), tmp_path / "merged", merge_adapter=True),
    ):
        with pytest.raises(Refused, match="no longer those that it was trained on"):
            ask()
    assert not (tmp_path / "merged").exists()


def test_a_folder_from_elsewhere_takes_the_tokenizer_of_its_base(place: Path, tmp_path: Path) -> None:
    folder = moved(place, tmp_path / "bare", str(place / "base"))
    for file in ("tokenizer.json", "tokenizer_config.json", "run.json"):
        (folder / file).unlink()
    model = ownlm.load(folder)
    assert model.tokenizer.sha256 == ownlm.load(place / "base").tokenizer.sha256
    assert model.stop_ids and model.taught == ["continues text"]
    assert folder_template(model.tokenizer, model.path) is None
    shutil.copytree(place / "base", tmp_path / "base")
    (tmp_path / "base" / "chat_template.jinja").write_text("{{ messages }}")
    templated = ownlm.load(moved(place, tmp_path / "templated", "../base"))
    found = folder_template(templated.tokenizer, templated.path)
    assert found is not None and found[0] == "{{ messages }}"
    assert model.generate("3: The", temperature=0.0, max_new_tokens=9) == ownlm.load(place / "one").generate(
        "3: The", temperature=0.0, max_new_tokens=9
    )


def test_a_whole_model_beside_an_adapter_is_what_is_opened(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place / "base", tmp_path / "both")
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copyfile(place / "one" / file, tmp_path / "both" / file)
    assert not isinstance(ownlm.load(tmp_path / "both"), AdaptedModel)
    assert "opened without the adapter" in capsys.readouterr().err


def test_names_of_adapters(place: Path, tmp_path: Path) -> None:
    base = ownlm.load(place / "base", adapters={"first": place / "one"})
    assert list(base.adapters) == ["first"]
    with pytest.raises(UsageError, match=r"no adapter 'frist'.*first"):
        base.with_adapter("frist")
    with pytest.raises(UsageError, match="'first' already"):
        ownlm.load(base, adapters={"first": place / "two"})
    other = moved(place, tmp_path / "one", str(place / "base"))
    with pytest.raises(UsageError, match="the same name"):
        ownlm.load(base, adapters=[place / "one", other])
    with pytest.raises(UsageError, match="holds no adapter"):
        ownlm.load(base, adapters=[place / "base"])
    assert base.with_adapter(place / "two").taught == ["chat"]


def test_export_needs_an_adapter_and_an_adapter_needs_merging(place: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="nothing to merge"):
        ownlm.export(str(place / "base"), tmp_path / "x", merge_adapter=True)
    with pytest.raises(Refused, match="Try: ownlm export .*one .*x --merge-adapter"):
        ownlm.export(str(place / "one"), tmp_path / "x")
    assert not (tmp_path / "x").exists()


@torch.no_grad()
@pytest.mark.parametrize(("held", "asked"), [("float32", None), ("bfloat16", None), ("float32", "bfloat16")])
def test_a_merged_folder_is_a_model_of_its_own(
    place: Path, tmp_path: Path, held: str, asked: str | None
) -> None:
    shutil.copytree(place / "base", tmp_path / "base")
    save_model(load_model(place / "base"), tmp_path / "base", {}, getattr(torch, held))
    adapter = made(tmp_path / "base", tmp_path / "adapter", 1)
    (adapter / "chat_template.jinja").write_text("{{ messages }}")
    done = ownlm.export(str(adapter), tmp_path / "merged", merge_adapter=True, dtype=asked)
    merged, base = load_model(tmp_path / "merged"), load_model(tmp_path / "base")
    attach(base, read_adapter(adapter))
    stored = torch.bfloat16 if "bfloat16" in (held, asked) else torch.float32
    for name, layer in lora_layers(base).items():
        change = layer.lora_B @ layer.lora_A * layer.scale
        wanted = (layer.base.weight + change).to(stored).float()
        torch.testing.assert_close(
            merged.get_submodule(name).weight, wanted, atol=1e-6, rtol=0 if stored == torch.float32 else 8e-3
        )
    assert torch.equal(merged.norm.weight, base.norm.weight.to(stored).float())
    run = json.loads((tmp_path / "merged" / "run.json").read_text())
    assert run["exported"] and run["taught"] == ["chat"] and "base_sha256" not in run
    assert (tmp_path / "merged" / "chat_template.jinja").read_text() == "{{ messages }}"
    assert not (tmp_path / "merged" / "adapter_config.json").exists()
    assert f"added to the weights of `{tmp_path / 'base'}`" in (tmp_path / "merged" / "README.md").read_text()
    assert done["merged_into"] == str(tmp_path / "base")
    ids = torch.arange(20)[None]
    if stored == torch.float32:
        torch.testing.assert_close(merged(ids), base.eval()(ids), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_task_head_is_opened_and_merged(place: Path, tmp_path: Path) -> None:
    model = new_head(place / "base", "sequence-classification", ("bad", "good"), seed=3, pad_token_id=0)
    settings = LoraSettings(r=4)
    add_lora(model, settings, seed=1)
    for layer in lora_layers(model).values():
        layer.lora_B.data.fill_(0.05)
    folder = tmp_path / "adapter"
    save_adapter(model, folder, settings, base=str(place / "base"))
    opened = ownlm.load(folder)
    assert isinstance(opened, HeadedModel) and opened.labels == ("bad", "good")
    ids = torch.arange(3, 20)[None]
    torch.testing.assert_close(opened.model(ids), model.eval()(ids), atol=1e-5, rtol=1e-4)
    beside = ownlm.load(place / "base", adapters=[folder]).with_adapter("adapter")
    assert beside.classify("3: The fox") == opened.classify("3: The fox")
    ownlm.export(str(folder), tmp_path / "merged", merge_adapter=True)
    merged = ownlm.load(tmp_path / "merged")
    assert isinstance(merged, HeadedModel) and merged.labels == ("bad", "good")
    torch.testing.assert_close(merged.model(ids), opened.model(ids), atol=1e-5, rtol=1e-4)
