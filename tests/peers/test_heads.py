"""Task heads beside transformers: the same logits, both ways through a folder, for every family that has the class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ownlm.console.errors import Refused, UsageError
from ownlm.model.head_families import DOES, KINDS, STEMS, head_class, head_form, is_encoder
from ownlm.model.heads import HeadModel
from ownlm.model.heads_checkpoint import load_headed, new_head, save_headed

transformers = pytest.importorskip("transformers")
from transformers.models.auto import modeling_auto as auto

VOCABULARY, PAD = 61, 3
_CAUSAL = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 24, "pad_token_id": PAD,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_MASKED = {k: v for k, v in _CAUSAL.items() if k != "num_key_value_heads"} | {"max_position_embeddings": 30}
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 24,
             "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": PAD},
    "bert": _MASKED,
    "roberta": _MASKED,
    "distilbert": {"vocab_size": VOCABULARY, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48,
                   "max_position_embeddings": 24, "pad_token_id": PAD},
    "qwen3": _CAUSAL | {"head_dim": 16},
}  # fmt: skip
OPENERS = {
    "sequence-classification": transformers.AutoModelForSequenceClassification,
    "token-classification": transformers.AutoModelForTokenClassification,
    "question-answering": transformers.AutoModelForQuestionAnswering,
}
TABLES = {
    "sequence-classification": auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    "token-classification": auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
    "question-answering": auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES,
}
CASES = [(family, kind) for family in STEMS for kind in KINDS if head_class(family, kind)]
NER = ("O", "B-PER", "I-PER")


def build(family: str, kind: str, folder: Path, **changes: Any) -> Any:
    """A random model of transformers, in eval mode, saved in `folder`; weights far from their flat start."""
    torch.manual_seed(1)
    config = transformers.AutoConfig.for_model(family, **SHAPES.get(family, _CAUSAL) | changes)
    if kind != "question-answering":
        config.id2label = dict(enumerate(NER))
        config.label2id = {name: index for index, name in enumerate(NER)}
    model = OPENERS[kind].from_config(config).eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return model


def ragged(pad: int = PAD) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids [3, 18], mask [3, 18]): rows of 18, 5 and 11 tokens, padded on the right."""
    ids = torch.randint(8, VOCABULARY, (3, 18), generator=torch.Generator().manual_seed(2))
    mask = torch.arange(18)[None] < torch.tensor([18, 5, 11])[:, None]
    return ids.masked_fill(~mask, pad), mask


def their_logits(theirs: Any, **inputs: torch.Tensor) -> torch.Tensor:
    """Logits of a model of transformers in our shape."""
    found = theirs(**inputs)
    return (
        found.logits if hasattr(found, "logits") else torch.stack([found.start_logits, found.end_logits], -1)
    )


@torch.no_grad()
def assert_same(ours: HeadModel, theirs: Any) -> None:
    ids, mask = ragged()
    found, expected = ours(ids, mask), their_logits(theirs, input_ids=ids, attention_mask=mask.long())
    if ours.kind != "sequence-classification":
        found, expected = found[mask], expected[mask]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.fixture(scope="module", params=CASES, ids=" ".join)
def pair(request, tmp_path_factory):
    """(our model, theirs, the folder that transformers wrote, the kind)."""
    family, kind = request.param
    folder = tmp_path_factory.mktemp("model")
    theirs = build(family, kind, folder)
    return load_headed(folder), theirs, folder, kind


def test_the_same_logits(pair):
    ours, theirs, _, kind = pair
    assert_same(ours, theirs)
    assert ours.labels == (NER if kind != "question-answering" else ("LABEL_0", "LABEL_1"))
    assert ours.num_parameters() == sum(p.numel() for p in theirs.parameters())


def test_transformers_opens_ours(pair, tmp_path):
    ours, theirs, folder, kind = pair
    save_headed(ours, tmp_path, {"bos_token_id": 1, "eos_token_id": 2})
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    again, report = OPENERS[kind].from_pretrained(tmp_path, output_loading_info=True)
    assert type(again) is type(theirs)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert_same(ours, again.eval())
    assert_same(load_headed(tmp_path), theirs)
    if kind != "question-answering":
        assert again.config.id2label == dict(enumerate(NER))
        assert again.config.label2id == {name: index for index, name in enumerate(NER)}


@torch.no_grad()
def test_a_row_does_not_depend_on_padding(pair):
    ours, _, _, kind = pair
    ids, mask = ragged()
    alone, whole = ours(ids[1:2, :5], mask[1:2, :5]), ours(ids, mask)[1:2]
    whole = whole if kind == "sequence-classification" else whole[:, :5]
    torch.testing.assert_close(whole, alone, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_the_second_text_of_a_pair_has_its_own_type(kind, tmp_path):
    theirs = build("bert", kind, tmp_path)
    ours = load_headed(tmp_path)
    ids, mask = ragged()
    types = (torch.arange(18) >= 4).long().expand(3, -1)
    found = ours(ids, mask, types)
    inputs = {"input_ids": ids, "attention_mask": mask.long()}
    expected = their_logits(theirs, **inputs, token_type_ids=types)
    rows = slice(None) if kind == "sequence-classification" else mask
    torch.testing.assert_close(found[rows], expected[rows], atol=1e-4, rtol=0)
    assert not torch.allclose(found[rows], ours(ids, mask)[rows], atol=1e-3)


@torch.no_grad()
def test_a_text_that_ends_with_the_padding_token(tmp_path):
    """transformers reads the last token that is another one, alone too."""
    theirs = build("qwen3", "sequence-classification", tmp_path)
    ids = torch.tensor([[9, 10, PAD, 11, PAD]])
    found = load_headed(tmp_path)(ids, torch.ones_like(ids, dtype=torch.bool))
    torch.testing.assert_close(found, theirs(ids).logits, atol=1e-4, rtol=0)


@torch.no_grad()
def test_without_a_padding_token_the_mask_tells(tmp_path):
    theirs = build("qwen3", "sequence-classification", tmp_path, pad_token_id=None)
    ours = load_headed(tmp_path)
    ids, mask = ragged(pad=0)
    for row in range(3):
        length = int(mask[row].sum())
        expected = theirs(ids[row : row + 1, :length]).logits[0]
        torch.testing.assert_close(ours(ids, mask)[row], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_is_that_of_transformers(kind):
    for family in STEMS:
        assert head_class(family, kind) == TABLES[kind].get(family), family


@pytest.mark.parametrize(
    ("family", "kind"), [("olmo2", "token-classification"), ("phi3", "question-answering")]
)
def test_what_transformers_lacks_is_refused_with_what_works(family, kind):
    with pytest.raises(Refused, match=f"no head for {kind} on {family}.*qwen3") as caught:
        head_form(family, kind)
    assert family not in str(caught.value).split("has one for")[1]


# ---- new heads


def base(family: str, folder: Path) -> Any:
    """A model without a task head: it predicts tokens."""
    opener = transformers.AutoModelForMaskedLM if is_encoder(family) else transformers.AutoModelForCausalLM
    torch.manual_seed(4)
    model = opener.from_config(
        transformers.AutoConfig.for_model(family, **SHAPES.get(family, _CAUSAL))
    ).eval()
    model.save_pretrained(folder)
    return model


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["qwen3", "gpt2", "llama", "bert", "roberta", "distilbert"])
def test_a_new_head_on_a_trained_body(family, kind, tmp_path):
    """The body is the base's, the head a small random one; transformers computes the same."""
    theirs = base(family, tmp_path / "base")
    labels = () if kind == "question-answering" else NER
    ours = new_head(tmp_path / "base", kind, labels, seed=7, pad_token_id=PAD)
    save_headed(ours, tmp_path / "headed", {"bos_token_id": 1, "eos_token_id": 2})
    opened, report = OPENERS[kind].from_pretrained(tmp_path / "headed", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert_same(ours, opened.eval())
    ids, mask = ragged()
    body = getattr(theirs, theirs.base_model_prefix)
    expected = body(input_ids=ids, attention_mask=mask.long()).last_hidden_state[mask]
    hidden = ours.backbone.hidden(ids, mask) if is_encoder(family) else ours.backbone.hidden(ids)
    torch.testing.assert_close(hidden[mask], expected, atol=1e-4, rtol=0)
    assert 0.01 < float(ours.head.output.weight.std()) < 0.03
    same = new_head(tmp_path / "base", kind, labels, seed=7, pad_token_id=PAD)
    other = new_head(tmp_path / "base", kind, labels, seed=8, pad_token_id=PAD)
    assert torch.equal(ours.head.output.weight, same.head.output.weight)
    assert not torch.equal(ours.head.output.weight, other.head.output.weight)


def test_berts_pooler_is_kept_where_it_is_used(tmp_path):
    torch.manual_seed(4)
    config = transformers.BertConfig(**_MASKED)
    theirs = transformers.BertModel(config)
    theirs.save_pretrained(tmp_path)
    text = new_head(tmp_path, "sequence-classification", NER, seed=1)
    assert torch.equal(text.backbone.pooler.weight, theirs.pooler.dense.weight)
    assert new_head(tmp_path, "token-classification", NER, seed=1).backbone.pooler is None


def test_another_head_on_the_same_body(tmp_path):
    build("qwen3", "token-classification", tmp_path)
    first = load_headed(tmp_path)
    again = new_head(tmp_path, "question-answering", (), seed=1, pad_token_id=PAD)
    assert torch.equal(first.backbone.embedding.weight, again.backbone.embedding.weight)
    assert again.head.output.weight.shape == (2, 32)


# ---- dropout and fields


@pytest.mark.parametrize(
    ("family", "kind", "fields", "share"),
    [
        ("bert", "sequence-classification", {"classifier_dropout": 0.5, "hidden_dropout_prob": 0.0}, 0.5),
        ("roberta", "token-classification", {"hidden_dropout_prob": 0.25}, 0.25),
        ("bert", "question-answering", {"hidden_dropout_prob": 0.25}, 0.0),
        ("distilbert", "sequence-classification", {"seq_classif_dropout": 0.5, "dropout": 0.1}, 0.5),
        ("distilbert", "question-answering", {"qa_dropout": 0.5}, 0.5),
        ("distilbert", "token-classification", {"dropout": 0.5}, 0.5),
        ("qwen3", "token-classification", {"classifier_dropout": 0.5}, 0.5),
        ("qwen3", "token-classification", {}, 0.0),
        ("qwen3", "sequence-classification", {"classifier_dropout": 0.5}, 0.0),
    ],
)
def test_dropout_of_the_head_as_the_config_says(family, kind, fields, share, tmp_path):
    build(family, kind, tmp_path / "theirs", **fields)
    ours = load_headed(tmp_path / "theirs")
    assert ours.head.dropout == share
    save_headed(ours, tmp_path / "ours")
    assert load_headed(tmp_path / "ours").head.dropout == share
    ids, mask = ragged()
    ours.train()
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(ours(ids, mask))
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2]) == (share == 0)
    assert torch.equal(ours.eval()(ids, mask), ours(ids, mask))


@pytest.mark.parametrize(
    ("family", "kind", "field"),
    [
        ("bert", "sequence-classification", "classifier_dropout"),
        ("roberta", "sequence-classification", "classifier_dropout"),
        ("roberta", "token-classification", "classifier_dropout"),
        ("distilbert", "sequence-classification", "seq_classif_dropout"),
        ("distilbert", "question-answering", "qa_dropout"),
        ("qwen3", "token-classification", "classifier_dropout"),
    ],
)
def test_dropout_takes_the_same_numbers_as_that_of_transformers(family, kind, field, tmp_path):
    """In training, from the same random state, where the body has none."""
    none = dict.fromkeys(
        ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout"), 0.0
    )
    theirs = build(family, kind, tmp_path, **none | {field: 0.5}).train()
    ours = load_headed(tmp_path).train()
    torch.manual_seed(3)
    expected = their_logits(theirs, input_ids=torch.tensor([[9, 10, 11, 12]]))
    torch.manual_seed(3)
    torch.testing.assert_close(ours(torch.tensor([[9, 10, 11, 12]])), expected, atol=1e-4, rtol=0)


def test_a_pooler_that_is_not_used_is_kept(tmp_path):
    """First checkpoints of BERT for questions hold one."""
    build("bert", "question-answering", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["bert.pooler.dense.weight"], tensors["bert.pooler.dense.bias"] = (
        torch.ones(32, 32),
        torch.ones(32),
    )
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    save_headed(load_headed(tmp_path), tmp_path / "again")
    assert load_file(tmp_path / "again" / "model.safetensors").keys() == tensors.keys()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"id2label": {"0": "a", "2": "b"}}, "names of the labels 0, 1, 2"),
        ({"id2label": ["a", "b"]}, "names of the labels"),
        ({"id2label": {"0": "a", "1": "b"}}, r"score.weight is \[3, 32\], the config wants \[2, 32\]"),
        ({"problem_type": "guess"}, "problem_type is 'guess'"),
        ({"pad_token_id": "x"}, "pad_token_id is 'x'"),
    ],
)
def test_fields_that_make_no_head(fields, says, tmp_path):
    build("qwen3", "sequence-classification", tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    with pytest.raises(Refused, match=says):
        load_headed(tmp_path)


def test_a_class_without_a_head_is_not_opened(tmp_path):
    base("qwen3", tmp_path)
    with pytest.raises(Refused, match="Qwen3ForCausalLM has no task head"):
        load_headed(tmp_path)
    assert set(DOES) == set(KINDS)


def test_labels_are_checked(tmp_path):
    base("qwen3", tmp_path)
    for labels, says in ((("a",), "1 label"), (("a", "b", "a"), "'a' is there twice"), ((), "0 labels")):
        with pytest.raises(UsageError, match=says):
            new_head(tmp_path, "sequence-classification", labels, seed=1)
