"""Adapter folders in use: opened with their base by every verb, several at once over one base in memory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import ownlm
from ownlm.adapters import AdaptedModel
from ownlm.engine import Request, SamplingSettings, native_backend
from ownlm.loaded import LoadedModel
from ownlm.model.checkpoint import load_model
from ownlm.model.lora import LoraSettings, add_lora, lora_layers
from ownlm.model.lora_files import save_adapter
from ownlm.model.weights_hash import weights_sha256

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
