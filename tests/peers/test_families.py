"""Every native family beside transformers: logits, greedy text, gradients, both ways through a folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ownlm.engine import Engine, Request, SamplingSettings
from ownlm.model.cache import KeyValueCache
from ownlm.model.checkpoint import load_model, save_model
from ownlm.model.fields import NotNative
from tests.peers.models import FORMS, WINDOW, build, random_ids

transformers = pytest.importorskip("transformers")
LENGTH = 5 * WINDOW  # the left context is longer than the sliding window


@pytest.fixture(scope="module", params=FORMS)
def pair(request, tmp_path_factory):
    """(our model, theirs, the folder that transformers wrote)."""
    folder = tmp_path_factory.mktemp("model")
    theirs = build(request.param, folder)
    return load_model(folder), theirs, folder


def assert_equal(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@torch.no_grad()
def test_logits_without_cache(pair):
    ours, theirs, _ = pair
    ids = random_ids(3, LENGTH)
    assert_equal(ours(ids), theirs(ids).logits)


@torch.no_grad()
def test_logits_token_by_token_with_cache(pair):
    ours, theirs, _ = pair
    ids = random_ids(2, LENGTH)
    cache = KeyValueCache(ours.config, 2, LENGTH)
    steps = [ids[:, : WINDOW + 3], *ids[:, WINDOW + 3 :].split(1, dim=1)]
    found, start = [], 0
    for step in steps:
        positions = torch.arange(start, start + step.shape[1]).expand(2, -1)
        found.append(ours(step, positions_BT=positions, cache=cache))
        start += step.shape[1]
    assert_equal(torch.cat(found, dim=1), theirs(ids).logits)


@torch.no_grad()
def test_scores_of_a_ragged_batch(pair):
    """Rows of different lengths are padded on our side; each equals the row alone on theirs."""
    ours, theirs, _ = pair
    rows = [random_ids(1, n, seed=n)[0] for n in (LENGTH, 5, 2 * WINDOW + 1)]
    scores = Engine(ours, dtype="float32").score([row.tolist() for row in rows])
    for row, scored in zip(rows, scores, strict=True):
        expected = theirs(row[None]).logits[0, :-1].log_softmax(-1).gather(-1, row[1:, None])[:, 0]
        np.testing.assert_allclose(scored.logprobs, expected.double().numpy(), atol=1e-4)


def test_the_same_greedy_tokens(pair):
    ours, theirs, _ = pair
    prompts = [random_ids(1, n, seed=n)[0].tolist() for n in (3, WINDOW + 4, 30)]
    engine = Engine(ours, dtype="float32")
    greedy = SamplingSettings(temperature=0, max_new_tokens=50)
    written: dict[int, list[int]] = {}
    for event in engine.generate([Request(prompt, greedy) for prompt in prompts]):
        written.setdefault(event.request_id, []).append(event.token_id)
    for prompt, (_, tokens) in zip(prompts, sorted(written.items()), strict=True):
        ids = torch.tensor([prompt])
        theirs_tokens = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=50, min_new_tokens=50,
            eos_token_id=None, pad_token_id=0,
        )[0, len(prompt) :].tolist()  # fmt: skip
        assert tokens == theirs_tokens


@torch.no_grad()
def test_what_we_save_opens_in_transformers(pair, tmp_path):
    ours, theirs, _ = pair
    ids = random_ids(2, LENGTH)
    save_model(ours, tmp_path, {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0})
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert type(again) is type(theirs)
    assert_equal(again(ids).logits, theirs(ids).logits)
    stored = {name: value.clone() for name, value in again.state_dict().items()}
    for name, value in theirs.state_dict().items():
        assert torch.equal(stored[name], value), name


@pytest.mark.parametrize("form", ["gpt2", "llama", "phi3"])
def test_gradients_of_a_training_step(form, tmp_path):
    theirs = build(form, tmp_path).train()
    for module in theirs.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    ours = load_model(tmp_path).train()
    ids = random_ids(2, 20)
    logits = ours(ids)
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    expected = theirs(ids, labels=ids).loss
    expected.backward()
    assert abs(float(loss.detach() - expected.detach())) < 1e-5
    from ownlm.model.families import is_transposed, to_hf_name

    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        theirs_gradient = gradients[to_hf_name(name, form)]
        if is_transposed(name, form):
            theirs_gradient = theirs_gradient.T
        error = (parameter.grad - theirs_gradient).norm() / theirs_gradient.norm().clamp(min=1e-6)
        assert error < 1e-4, name


@torch.no_grad()
def test_a_bare_gpt2_with_mask_buffers_as_on_the_hub(tmp_path):
    """OpenAI's gpt2 on the hub has no `transformer.` in its names, and stores the causal masks."""
    from safetensors.torch import load_file, save_file

    theirs = build("gpt2", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    bare = {name.removeprefix("transformer."): t for name, t in tensors.items() if name != "lm_head.weight"}
    for layer in range(3):
        bare[f"h.{layer}.attn.bias"] = torch.ones(128, 128).tril().view(1, 1, 128, 128)
    save_file(bare, tmp_path / "model.safetensors", metadata={"format": "pt"})
    ids = random_ids(1, 9)
    assert_equal(load_model(tmp_path)(ids), theirs(ids).logits)


@torch.no_grad()
def test_shards(tmp_path):
    theirs = build("llama", tmp_path / "one")
    ours = load_model(tmp_path / "one")
    save_model(ours, tmp_path / "many", {"pad_token_id": 0}, shard_bytes=50_000)
    files = sorted(path.name for path in (tmp_path / "many").glob("*.safetensors"))
    assert len(files) > 3 and files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(p.numel() * 4 for p in ours.parameters())
    ids = random_ids(1, 9)
    assert torch.equal(load_model(tmp_path / "many")(ids), ours(ids))
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "many").eval()
    assert_equal(again(ids).logits, theirs(ids).logits)
    theirs.save_pretrained(tmp_path / "their shards", max_shard_size="50KB")
    assert torch.equal(load_model(tmp_path / "their shards")(ids), ours(ids))


REFUSED = {
    "gpt2": [
        ("activation_function", "gelu_made_up"),
        ("scale_attn_weights", False),
        ("scale_attn_by_inverse_layer_idx", True),
        ("add_cross_attention", True),
    ],
    "llama": [
        ("hidden_act", "mish"),
        ("rope_parameters", {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}),
        ("rope_scaling", {"type": "dynamic", "factor": 2.0}),
        ("rope_parameters", {"rope_theta": 1e4, "partial_rotary_factor": 0.5}),
        ("quantization_config", {"quant_method": "gptq", "bits": 4}),
        ("attn_logit_softcapping", 50.0),
    ],
    "phi3": [("rope_scaling", {"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]})],
}


@pytest.mark.parametrize(
    ("form", "field", "value"), [(form, *change) for form, changes in REFUSED.items() for change in changes]
)
def test_a_field_that_is_not_supported_is_refused_by_name(form, field, value, tmp_path):
    build(form, tmp_path)
    file = tmp_path / "config.json"
    content = json.loads(file.read_text())
    if field == "rope_scaling":
        content.pop("rope_parameters", None)
    file.write_text(json.dumps(content | {field: value}))
    with pytest.raises(NotNative) as refusal:
        load_model(tmp_path)
    named = {"yarn", "dynamic", "longrope", "partial_rotary_factor"} if isinstance(value, dict) else {field}
    assert any(name in str(refusal.value) for name in named | {field})
    assert "transformers" in str(refusal.value)


def test_what_every_config_of_transformers_says_is_known(tmp_path):
    """A full config with all of transformers' own fields at their defaults is no reason to refuse."""
    for form in FORMS:
        folder = tmp_path / form.replace(" ", "-")
        build(form, folder)
        config = transformers.AutoConfig.from_pretrained(folder)
        (folder / "config.json").write_text(json.dumps(config.to_dict(), default=str))
        load_model(folder)


def test_older_configs(tmp_path):
    """transformers 4 wrote rope_theta beside rope_scaling, torch_dtype, and generation settings."""
    theirs = build("llama 3", tmp_path)
    file = tmp_path / "config.json"
    content = json.loads(file.read_text())
    rope = content.pop("rope_parameters")
    content |= {
        "rope_theta": rope.pop("rope_theta"), "rope_scaling": rope | {"type": rope["rope_type"]}, "torch_dtype": "float32",
        "temperature": 0.6, "top_p": 0.9, "transformers_version": "4.40.0", "_name_or_path": "someone/something",
    }  # fmt: skip
    file.write_text(json.dumps(content))
    ids = random_ids(1, LENGTH)
    with torch.no_grad():
        assert_equal(load_model(tmp_path)(ids), theirs(ids).logits)


def test_the_folder_stays_as_it_was(pair):
    _, _, folder = pair
    names = {path.name for path in Path(folder).iterdir()}
    assert names <= {"config.json", "generation_config.json", "model.safetensors"}


@pytest.mark.parametrize("architecture", sorted({form.split(",")[0].split(" ")[0] for form in FORMS}))
def test_what_is_trained_here_opens_in_transformers(architecture, corpus, tiny, tmp_path):
    """`pretrain --architecture`: a few steps, then the folder as transformers reads it."""
    import ownlm

    tiny["set"] = ["num_hidden_layers=2"]
    if architecture not in ("gpt2",):
        tiny["set"] += ["hidden_size=64", "intermediate_size=128"]
    run = ownlm.pretrain(corpus, output=tmp_path / "run", max_steps=3, architecture=architecture, **tiny)
    assert run.content["model"]["architecture"] == architecture
    theirs = transformers.AutoModelForCausalLM.from_pretrained(run.path).eval()
    ids = random_ids(2, 20)
    with torch.no_grad():
        assert_equal(load_model(run.path)(ids), theirs(ids).logits)
