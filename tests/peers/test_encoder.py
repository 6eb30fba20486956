"""BERT, RoBERTa and DistilBERT beside transformers: hidden states and logits, both ways through a folder, refusals by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ownlm.console.errors import Refused, UsageError
from ownlm.model.encoder import Encoder
from ownlm.model.encoder_checkpoint import load_encoder, save_encoder
from ownlm.model.fields import NotNative

transformers = pytest.importorskip("transformers")

VOCABULARY = 61
_SHAPE = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
    "intermediate_size": 48, "max_position_embeddings": 24, "type_vocab_size": 2,
}  # fmt: skip


def _form(config: str, model: str, **changes: Any) -> Any:
    return getattr(transformers, model), getattr(transformers, config)(**_SHAPE | changes)


def _distil(model: str, **changes: Any) -> Any:
    shape = {
        "vocab_size": VOCABULARY, "dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48,
        "max_position_embeddings": 24,
    }  # fmt: skip
    return getattr(transformers, model), transformers.DistilBertConfig(**shape | changes)


FORMS = {
    "bert": lambda: _form("BertConfig", "BertForMaskedLM"),
    "bert, untied": lambda: _form("BertConfig", "BertForMaskedLM", tie_word_embeddings=False, type_vocab_size=1),
    "bert, gelu_new": lambda: _form("BertConfig", "BertForMaskedLM", hidden_act="gelu_new", layer_norm_eps=1e-5),
    "bert, relu": lambda: _form("BertConfig", "BertForMaskedLM", hidden_act="relu", pad_token_id=7),
    "bert, all heads": lambda: _form("BertConfig", "BertForPreTraining"),
    "bert, no head": lambda: _form("BertConfig", "BertModel"),
    "roberta": lambda: _form("RobertaConfig", "RobertaForMaskedLM", type_vocab_size=1),
    "roberta, untied, relu": lambda: _form(
        "RobertaConfig", "RobertaForMaskedLM", tie_word_embeddings=False, hidden_act="relu", pad_token_id=4
    ),
    "roberta, gelu_new": lambda: _form("RobertaConfig", "RobertaForMaskedLM", hidden_act="gelu_new", pad_token_id=0),
    "roberta, no head": lambda: _form("RobertaConfig", "RobertaModel"),
    "distilbert": lambda: _distil("DistilBertForMaskedLM", sinusoidal_pos_embds=True),
    "distilbert, untied, relu": lambda: _distil(
        "DistilBertForMaskedLM", tie_word_embeddings=False, activation="relu", pad_token_id=7
    ),
    "distilbert, no head": lambda: _distil("DistilBertModel"),
}  # fmt: skip


def build(form: str, folder: Path) -> Any:
    """A random model of this form, in eval mode, saved in `folder`; weights far from their flat start."""
    torch.manual_seed(1)
    kind, config = FORMS[form]()
    model = kind(config).eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return model


def ragged(pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids [3, 18], mask [3, 18]): rows of 18, 5 and 11 tokens, padded on the right."""
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(8, VOCABULARY, (3, 18), generator=generator)
    mask = torch.arange(18)[None] < torch.tensor([18, 5, 11])[:, None]
    return ids.masked_fill(~mask, pad), mask


@pytest.fixture(scope="module", params=FORMS)
def pair(request, tmp_path_factory):
    """(our model, theirs, the folder that transformers wrote)."""
    folder = tmp_path_factory.mktemp("model")
    theirs = build(request.param, folder)
    return load_encoder(folder), theirs, folder


@torch.no_grad()
def assert_same(ours: Encoder, theirs: Any) -> None:
    """Hidden states and logits of a ragged batch, with and without a mask."""
    ids, mask = ragged(theirs.config.pad_token_id)
    for given in (mask, None):
        real = mask if given is not None else torch.ones_like(mask)
        upstream = theirs(
            ids,
            attention_mask=None if given is None else given.long(),
            output_hidden_states=True,
            return_dict=True,
        )
        hidden = ours.hidden(ids, given)
        torch.testing.assert_close(hidden[real], upstream.hidden_states[-1][real], atol=1e-4, rtol=0)
        if ours.config.head:
            logits = upstream.logits if hasattr(upstream, "logits") else upstream.prediction_logits
            torch.testing.assert_close(ours.logits(ids, given)[real], logits[real], atol=1e-4, rtol=0)


def test_hidden_states_and_logits(pair):
    ours, theirs, _ = pair
    assert_same(ours, theirs)


def test_back_through_a_folder_of_ours(pair, tmp_path):
    ours, theirs, folder = pair
    save_encoder(ours, tmp_path)
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    again, report = type(theirs).from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert_same(ours, again.eval())
    assert_same(load_encoder(tmp_path), theirs)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [type(theirs).__name__]


def test_counts_add_up(pair):
    ours, theirs, _ = pair
    assert sum(p.numel() for p in ours.parameters()) == ours.config.num_parameters() == ours.num_parameters()
    assert ours.num_parameters() == sum(p.numel() for p in theirs.parameters())


@torch.no_grad()
def test_a_row_does_not_depend_on_padding(pair):
    ours, theirs, _ = pair
    ids, mask = ragged(theirs.config.pad_token_id)
    alone = ours.hidden(ids[1:2, :5], mask[1:2, :5])
    torch.testing.assert_close(ours.hidden(ids, mask)[1:2, :5], alone, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_window_is_as_long_as_upstream_allows(pair):
    ours, theirs, _ = pair
    ids = torch.full((1, ours.context + 1), 9)
    upstream = theirs(ids[:, :-1], output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(ours.hidden(ids[:, :-1]), upstream, atol=1e-4, rtol=0)
    with pytest.raises((IndexError, RuntimeError)):
        theirs(ids)
    with pytest.raises(UsageError, match=f"at most {ours.context}"):
        ours.hidden(ids)


@torch.no_grad()
def test_logits_at_places(tmp_path):
    build("bert", tmp_path)
    ours = load_encoder(tmp_path)
    ids, mask = ragged(0)
    rows, columns = torch.tensor([0, 1, 2, 2]), torch.tensor([17, 3, 0, 10])
    whole = ours.logits(ids, mask)[rows, columns]
    torch.testing.assert_close(ours.logits_at(ids, mask, rows, columns), whole, atol=1e-5, rtol=0)


def test_no_head_says_so(tmp_path):
    build("bert, no head", tmp_path)
    with pytest.raises(Refused, match="no head that predicts tokens"):
        load_encoder(tmp_path).logits(torch.tensor([[9, 10]]))


def test_bf16_weights_are_stored_and_read(tmp_path):
    build("roberta", tmp_path)
    ours = load_encoder(tmp_path, dtype=torch.bfloat16)
    save_encoder(ours, tmp_path / "half", dtype=torch.bfloat16)
    stored = load_file(tmp_path / "half" / "model.safetensors")
    assert {t.dtype for t in stored.values()} == {torch.bfloat16}
    again = load_encoder(tmp_path / "half")
    assert torch.equal(again.embeddings.token.weight, ours.embeddings.token.weight.float())


# ---- other people's files


def rewrite(folder: Path, change: Any) -> None:
    """Store the weights again after `change(tensors)`."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_names_of_the_first_release(tmp_path):
    theirs = build("bert, all heads", tmp_path)

    def old(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            new = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            )
            tensors[new] = tensors.pop(name)
        tensors["bert.embeddings.position_ids"] = torch.arange(24)[None]
        tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"].clone()

    rewrite(tmp_path, old)
    assert any(name.endswith("gamma") for name in load_file(tmp_path / "model.safetensors"))
    assert_same(load_encoder(tmp_path), theirs)


def test_fields_of_the_first_release(tmp_path):
    theirs = build("bert", tmp_path)
    edit(tmp_path, directionality="bidi", pooler_type="first_token_transform", pooler_fc_size=768,
         pooler_num_attention_heads=12, pooler_num_fc_layers=3, pooler_size_per_head=128, output_past=True,
         position_embedding_type="absolute", gradient_checkpointing=False)  # fmt: skip
    assert_same(load_encoder(tmp_path), theirs)


@pytest.mark.parametrize("kept", ["bias", "decoder.bias"])
def test_an_untied_head_with_one_bias(tmp_path, kept):
    """transformers 4 held both names as one tensor, and stored one of them."""
    build("bert, untied", tmp_path)
    given = load_file(tmp_path / "model.safetensors")["cls.predictions.decoder.bias"]

    def one(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["cls.predictions.bias"], tensors["cls.predictions.decoder.bias"]
        tensors[f"cls.predictions.{kept}"] = given

    rewrite(tmp_path, one)
    head = load_encoder(tmp_path).head
    assert torch.equal(head.decoder.bias, given) and torch.equal(head.bias, given)


def test_a_pooler_beside_a_masked_head_is_kept(tmp_path):
    build("bert, all heads", tmp_path)
    rewrite(tmp_path, lambda t: [t.pop(f"cls.seq_relationship.{w}") for w in ("weight", "bias")])
    edit(tmp_path, architectures=["BertForMaskedLM"])
    save_encoder(load_encoder(tmp_path), tmp_path / "again")
    before, after = (
        load_file(tmp_path / "model.safetensors"),
        load_file(tmp_path / "again" / "model.safetensors"),
    )
    assert before.keys() == after.keys() and "bert.pooler.dense.weight" in after
    assert all(torch.equal(before[name], after[name]) for name in before)


def edit(folder: Path, **fields: Any) -> None:
    """Change fields of config.json."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.mark.parametrize("form", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("position_embedding_type", "relative_key"),
        ("is_decoder", True),
        ("add_cross_attention", True),
        ("is_encoder_decoder", True),
        ("hidden_act", "mish"),
        ("activation", "mish"),
        ("directionality", "left"),
        ("embedding_size", 128),
        ("made_up_field", 3),
        ("architectures", ["BertForSequenceClassification"]),
    ],
)
def test_what_is_not_built_in_is_refused_by_name(tmp_path, form, field, value):
    build(form, tmp_path)
    edit(tmp_path, **{field: value})
    shown = value[0] if isinstance(value, list) else field
    with pytest.raises(NotNative, match=shown):
        load_encoder(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("num_attention_heads", 5, "multiple of num_attention_heads"),
        ("pad_token_id", VOCABULARY, "not in the vocabulary"),
        ("pad_token_id", None, "pad_token_id is missing"),
        ("max_position_embeddings", 2, "leave none"),
        ("type_vocab_size", 0, "type_vocab_size is 0"),
        ("num_hidden_layers", 10**9, "num_hidden_layers"),
        ("layer_norm_eps", "small", "layer_norm_eps"),
        ("tie_word_embeddings", "yes", "tie_word_embeddings"),
    ],
)
def test_numbers_that_make_no_model(tmp_path, field, value, says):
    build("roberta", tmp_path)
    edit(tmp_path, **{field: value})
    with pytest.raises(Refused, match=says) as caught:
        load_encoder(tmp_path)
    assert not isinstance(caught.value, NotNative)


@pytest.mark.parametrize(
    ("form", "name", "says"),
    [
        ("bert", "cls.predictions.transform.dense.weight", "1 missing weights.*transform.dense.weight"),
        ("bert", "bert.encoder.layer.2.output.dense.bias", "1 missing weights.*layer.2.output.dense.bias"),
        ("roberta, no head", "embeddings.LayerNorm.weight", "1 missing weights.*LayerNorm.weight"),
    ],
)
def test_missing_weights(tmp_path, form, name, says):
    build(form, tmp_path)
    rewrite(tmp_path, lambda tensors: tensors.pop(name))
    with pytest.raises(Refused, match=says):
        load_encoder(tmp_path)


def test_a_masked_model_without_its_whole_head(tmp_path):
    build("roberta", tmp_path)
    rewrite(tmp_path, lambda t: [t.pop(name) for name in list(t) if name.startswith("lm_head.")])
    with pytest.raises(Refused, match="5 missing weights, first: lm_head"):
        load_encoder(tmp_path)


def test_weights_that_do_not_belong(tmp_path):
    build("bert", tmp_path)
    rewrite(tmp_path, lambda tensors: tensors.update(classifier=torch.zeros(2, 32)))
    with pytest.raises(Refused, match="1 unknown weights, first: classifier"):
        load_encoder(tmp_path)


def test_a_second_copy_of_distilberts_tied_matrix(tmp_path):
    """The published files hold it."""
    theirs = build("distilbert", tmp_path)
    word, copied = "distilbert.embeddings.word_embeddings.weight", "vocab_projector.weight"
    rewrite(tmp_path, lambda t: t.update({copied: t[word].clone()}))
    assert_same(load_encoder(tmp_path), theirs)
    rewrite(tmp_path, lambda t: t.update({copied: torch.zeros(VOCABULARY, 32)}))
    with pytest.raises(Refused, match=f"{copied} differs from {word}"):
        load_encoder(tmp_path)


def test_a_tied_head_with_another_matrix(tmp_path):
    build("bert", tmp_path)
    rewrite(tmp_path, lambda t: t.update({"cls.predictions.decoder.weight": torch.zeros(VOCABULARY, 32)}))
    with pytest.raises(Refused, match=r"decoder\.weight differs from bert.embeddings.word_embeddings"):
        load_encoder(tmp_path)


def test_one_weight_under_both_names(tmp_path):
    build("bert", tmp_path)
    rewrite(tmp_path, lambda t: t.update({"bert.embeddings.LayerNorm.gamma": torch.ones(32)}))
    with pytest.raises(Refused, match="stored twice"):
        load_encoder(tmp_path)


def test_not_a_number(tmp_path):
    build("roberta", tmp_path)
    rewrite(tmp_path, lambda tensors: tensors["lm_head.dense.weight"].fill_(float("nan")))
    with pytest.raises(Refused, match=r"lm_head\.dense\.weight holds"):
        load_encoder(tmp_path)
