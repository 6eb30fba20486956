"""Adapters beside the library PEFT: the same results, gradients and dropped values, and each opens the other's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ownlm.console.errors import Refused
from ownlm.export.merge import merge
from ownlm.model.checkpoint import load_model
from ownlm.model.encoder_checkpoint import load_encoder
from ownlm.model.heads_checkpoint import new_head
from ownlm.model.layer_names import hugging_face_names
from ownlm.model.lora import LoraSettings, add_lora, lora_layers, merge_lora, seed_dropout
from ownlm.model.lora_apply import attach, headed_base, merge_into
from ownlm.model.lora_files import read_adapter, save_adapter
from tests.peers.models import FORMS, VOCABULARY, build, random_ids

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

# Name of the form -> target_modules. Fused and separate matrices, matrices stored [in, out], one name of two layers.
TARGETS: dict[str, list[str] | str] = {
    "gpt2": ["c_attn", "mlp.c_proj"],
    "phi3": ["qkv_proj", "gate_up_proj"],
    "qwen3": "all-linear",
    "olmo2": ["q_proj", "down_proj", "1.mlp.up_proj"],
    "gpt2, relu, wide": "all-linear",
}


def filled(model: nn.Module) -> None:
    """Low-rank matrices that change the model, B too."""
    generator = torch.Generator().manual_seed(3)
    for name, parameter in sorted(model.named_parameters()):
        if "lora_" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)


def without_own_dropout(model: nn.Module) -> None:
    for name, part in model.named_modules():
        if isinstance(part, nn.Dropout) and "lora" not in name:
            part.p = 0.0


def theirs_of(form: str, folder: Path, **settings: Any) -> Any:
    """A random model with an adapter of PEFT's on it, saved in `folder`/base and `folder`/adapter."""
    base = build(form, folder / "base")
    config = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=TARGETS[form], **settings)
    model = peft.get_peft_model(base, config)
    filled(model)
    model.peft_config["default"].base_model_name_or_path = str(folder / "base")
    model.save_pretrained(folder / "adapter")
    return model.eval()


@pytest.mark.parametrize("form", TARGETS)
@torch.no_grad()
def test_what_peft_saves_gives_the_same_logits_here(form: str, tmp_path: Path) -> None:
    theirs = theirs_of(form, tmp_path, r=6, lora_alpha=9, use_rslora=form == "phi3")
    ours, ids = load_model(tmp_path / "base"), random_ids(2, 20)
    plain = ours(ids)
    attach(ours, read_adapter(tmp_path / "adapter"))
    expected = theirs(ids).logits
    torch.testing.assert_close(ours.eval()(ids), expected, atol=1e-4, rtol=0)
    assert (plain - expected).abs().max() > 0.1
    merge_lora(ours)
    assert not lora_layers(ours)
    torch.testing.assert_close(ours(ids), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("form", TARGETS)
@torch.no_grad()
def test_what_is_saved_here_gives_the_same_logits_there(form: str, tmp_path: Path) -> None:
    build(form, tmp_path / "base")
    ours, ids = load_model(tmp_path / "base"), random_ids(2, 20)
    wanted = TARGETS[form]
    targets = wanted if isinstance(wanted, str) else tuple(wanted)
    settings = LoraSettings(r=5, alpha=20, dropout=0.1, rslora=form == "phi3", target_modules=targets)
    add_lora(ours, settings, seed=1)
    filled(ours)
    save_adapter(ours, tmp_path / "adapter", settings, base=str(tmp_path / "base"))
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    with_adapter = peft.PeftModel.from_pretrained(again, tmp_path / "adapter").eval()
    torch.testing.assert_close(ours.eval()(ids), with_adapter(ids).logits, atol=1e-4, rtol=0)
    counted = sum(p.numel() for name, p in with_adapter.named_parameters() if "lora_" in name)
    assert counted == sum(p.numel() for name, p in ours.named_parameters() if "lora_" in name)


@pytest.mark.parametrize("form", ["gpt2", "phi3"])
@torch.no_grad()
def test_a_merged_folder_opens_in_transformers(form: str, tmp_path: Path) -> None:
    theirs = theirs_of(form, tmp_path, r=6, lora_alpha=9)
    (tmp_path / "merged").mkdir()
    merge(read_adapter(tmp_path / "adapter"), tmp_path / "base", tmp_path / "merged", None)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    ids = random_ids(2, 20)
    torch.testing.assert_close(again(ids).logits, theirs(ids).logits, atol=1e-4, rtol=0)
    assert not hasattr(again, "peft_config") or not again.peft_config


@pytest.mark.parametrize("form", ["qwen3", "gpt2"])
def test_gradients_with_the_same_dropped_values(form: str, tmp_path: Path) -> None:
    theirs = theirs_of(form, tmp_path, r=4, lora_alpha=8, lora_dropout=0.3).train()
    without_own_dropout(theirs)
    ours = load_model(tmp_path / "base").train()
    attach(ours, read_adapter(tmp_path / "adapter"))
    ids = random_ids(2, 20)
    for model in (ours, theirs):
        seed_dropout(7, step=3, micro_batch=1)
        logits = model(ids) if model is ours else model(ids).logits
        nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    names = hugging_face_names(ours)
    expected = dict(theirs.named_parameters())
    for ours_name, layer in lora_layers(ours).items():
        for side in ("A", "B"):
            gradient: Tensor = getattr(layer, f"lora_{side}").grad
            wanted = expected[f"base_model.model.{names[ours_name]}.lora_{side}.default.weight"].grad
            assert (gradient - wanted).norm() / wanted.norm() < 1e-4, ours_name
    assert all(p.grad is None for name, p in ours.named_parameters() if "lora_" not in name)


@torch.no_grad()
def test_ranks_and_alphas_of_single_layers(tmp_path: Path) -> None:
    ranks = {
        "1.self_attn.q_proj": 3,
        r"layers\.(0|2)\.mlp\.down_proj": 7,
        "^model.layers.0.self_attn.o_proj": 2,
    }
    alphas = {"k_proj": 1.5, ".*up_proj": 11}
    theirs = theirs_of("qwen3", tmp_path, r=4, lora_alpha=8, rank_pattern=ranks, alpha_pattern=alphas)
    ours, ids = load_model(tmp_path / "base"), random_ids(2, 20)
    adapter = read_adapter(tmp_path / "adapter")
    attach(ours, adapter)
    assert ours.get_submodule("blocks.2.mlp.down_proj").lora_A.shape[0] == 7
    expected = theirs(ids).logits
    torch.testing.assert_close(ours.eval()(ids), expected, atol=1e-4, rtol=0)
    save_adapter(ours, tmp_path / "again", adapter.config.settings, base=str(tmp_path / "base"))
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    with_adapter = peft.PeftModel.from_pretrained(base, tmp_path / "again").eval()
    torch.testing.assert_close(with_adapter(ids).logits, expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_a_masked_model_both_ways(tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
    )
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path / "base")
    ours, ids = load_encoder(tmp_path / "base"), random_ids(2, 12)
    settings = LoraSettings(r=3, alpha=12)
    add_lora(ours, settings, seed=1)
    filled(ours)
    save_adapter(ours, tmp_path / "one", settings, base="base")
    base = transformers.BertForMaskedLM.from_pretrained(tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "one").eval()
    expected = theirs(ids).logits
    torch.testing.assert_close(ours.eval().logits(ids), expected, atol=1e-4, rtol=0)
    theirs.save_pretrained(tmp_path / "two")
    again = load_encoder(tmp_path / "base")
    attach(again, read_adapter(tmp_path / "two"))
    torch.testing.assert_close(again.eval().logits(ids), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "lora_only"}, "bias='lora_only'"),
        ({"lora_bias": True}, "lora_bias"),
        ({"init_lora_weights": "olora"}, "init_lora_weights='olora'"),
        ({"modules_to_save": ["embed_tokens"]}, "embed_tokens"),
        ({"trainable_token_indices": [1, 2]}, "trainable_token_indices"),
    ],
)
def test_what_would_change_more_is_refused_by_name(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    theirs_of("qwen3", tmp_path, r=4, **settings)
    ours = load_model(tmp_path / "base")
    with pytest.raises(Refused, match=message):
        attach(ours, read_adapter(tmp_path / "adapter"))


def test_another_method_is_refused_by_name(tmp_path: Path) -> None:
    model = peft.get_peft_model(
        build("qwen3", tmp_path / "base"), peft.IA3Config(task_type="CAUSAL_LM", target_modules=["k_proj"],
                                                        feedforward_modules=[])
    )  # fmt: skip
    model.save_pretrained(tmp_path / "adapter")
    with pytest.raises(Refused, match="IA3"):
        read_adapter(tmp_path / "adapter")
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["peft_type"] == "IA3"


HEADS = {
    "qwen3": ("SequenceClassification", "sequence-classification", ["q_proj", "down_proj"]),
    "gpt2": ("TokenClassification", "token-classification", "all-linear"),
    "qwen2": ("QuestionAnswering", "question-answering", ["v_proj"]),
    "bert": ("SequenceClassification", "sequence-classification", ["query", "output.dense"]),
    "roberta": ("SequenceClassification", "sequence-classification", ["value"]),
    "distilbert": ("SequenceClassification", "sequence-classification", "all-linear"),
}


def masked_base(form: str, folder: Path) -> None:
    """A random masked model of this architecture."""
    torch.manual_seed(1)
    small = {"vocab_size": VOCABULARY, "pad_token_id": 0}
    if form == "distilbert":
        config = transformers.DistilBertConfig(dim=64, n_layers=2, n_heads=4, hidden_dim=96, **small)
    else:
        shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
        kind = transformers.BertConfig if form == "bert" else transformers.RobertaConfig
        config = kind(**shape, **small)
    transformers.AutoModelForMaskedLM.from_config(config).save_pretrained(folder)


@pytest.mark.parametrize("form", HEADS)
@torch.no_grad()
def test_a_task_head_both_ways(form: str, tmp_path: Path) -> None:
    """Ours opens there with the same logits, and what is saved there opens here."""
    suffix, kind, wanted = HEADS[form]
    auto = getattr(transformers, f"AutoModelFor{suffix}")
    if kind == "question-answering":  # transformers finds the body of this class only where it saved it so
        auto.from_config(FORMS[form]()).save_pretrained(tmp_path / "base")
    elif form in ("qwen3", "gpt2"):
        build(form, tmp_path / "base")
    else:
        masked_base(form, tmp_path / "base")
    labels = () if kind == "question-answering" else ("bad", "fair", "good")
    ours = new_head(tmp_path / "base", kind, labels, seed=4, pad_token_id=0)
    settings = LoraSettings(r=3, alpha=9, target_modules=wanted if isinstance(wanted, str) else tuple(wanted))
    trained = add_lora(ours, settings, seed=1)
    assert {id(p) for p in ours.parameters() if p.requires_grad} == {id(p) for p in trained}
    filled(ours)
    save_adapter(ours, tmp_path / "one", settings, base=str(tmp_path / "base"))
    ids = random_ids(2, 12)
    expected = ours.eval()(ids)
    count = {} if kind == "question-answering" else {"num_labels": 3}
    base = auto.from_pretrained(tmp_path / "base", pad_token_id=0, **count)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "one").eval()

    def logits_there() -> Tensor:
        found = theirs(ids)
        if kind == "question-answering":
            return torch.stack((found.start_logits, found.end_logits), dim=-1)
        return found.logits

    torch.testing.assert_close(expected, logits_there(), atol=1e-4, rtol=0)
    theirs.save_pretrained(tmp_path / "two")
    assert not (tmp_path / "two" / "config.json").exists()
    for folder, names in (("one", labels), ("two", ("LABEL_0", "LABEL_1", "LABEL_2"))):
        adapter = read_adapter(tmp_path / folder)
        again = headed_base(adapter, tmp_path / "base")
        if labels:
            assert again.labels == names
        if form == "qwen3" and folder == "two":
            object.__setattr__(again.head_config, "pad_token_id", 0)  # PEFT stores none
        merge_into(again, adapter)
        torch.testing.assert_close(again(ids), expected, atol=1e-4, rtol=0)
