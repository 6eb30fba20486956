"""Task heads of families that are not built in, run by transformers behind the interface of `HeadedModel`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ownlm
from ownlm.console.errors import Refused
from ownlm.foreign_headed import ForeignHead
from ownlm.headed import HeadedModel

transformers = pytest.importorskip("transformers")

from tests.peers.headed_models import LABELS, NER, OPENERS, TEXTS
from tests.peers.masked_models import byte_level, wordpiece

SHORT = [text for text in TEXTS if text]
_SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
_BART = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4,
         "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 40,
         "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2}  # fmt: skip
FORMS: dict[str, tuple[Any, dict[str, Any]]] = {
    "electra": (wordpiece, _SHAPE | {"embedding_size": 24, "max_position_embeddings": 40, "pad_token_id": 0}),
    "xlm-roberta": (
        byte_level,
        _SHAPE | {"max_position_embeddings": 42, "pad_token_id": 1, "type_vocab_size": 1},
    ),
    "bart": (byte_level, _BART),
    "gpt_neox": (byte_level, _SHAPE | {"max_position_embeddings": 40, "pad_token_id": None}),
}


def build(family: str, kind: str, folder: Path) -> Any:
    make, shape = FORMS[family]
    tokenizer = make()
    tokenizer.save_pretrained(folder)
    config = transformers.AutoConfig.for_model(family, vocab_size=len(tokenizer), **shape)
    labels = {"sequence-classification": LABELS, "token-classification": NER}.get(kind)
    if labels:
        config.id2label = dict(enumerate(labels))
        config.label2id = {name: index for index, name in enumerate(labels)}
    torch.manual_seed(6)
    model = OPENERS[kind].from_config(config).eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("family", FORMS)
def test_labels_of_texts(family, tmp_path, capsys):
    build(family, "sequence-classification", tmp_path)
    model = ownlm.load(tmp_path, device="cpu")
    assert isinstance(model, HeadedModel) and isinstance(model.model, ForeignHead)
    assert "ForSequenceClassification is run by transformers" in capsys.readouterr().err
    pipe = transformers.pipeline("text-classification", model=str(tmp_path), device="cpu")
    for ours, text in zip(model.classify(SHORT, top_k=None), SHORT, strict=True):
        theirs = pipe(text, top_k=None)
        assert [one["label"] for one in ours] == [one["label"] for one in theirs]
        np.testing.assert_allclose([o["score"] for o in ours], [t["score"] for t in theirs], atol=1e-5)


def test_entities(tmp_path):
    build("electra", "token-classification", tmp_path)
    model = ownlm.load(tmp_path, device="cpu")
    pipe = transformers.pipeline("ner", model=str(tmp_path), device="cpu")
    for ours, text in zip(model.tag(SHORT), SHORT, strict=True):
        assert [(e["entity"], e["start"], e["end"]) for e in ours] == [
            (e["entity"], e["start"], e["end"]) for e in pipe(text)
        ]


@pytest.mark.parametrize("family", ["electra", "bart"])
def test_answers(family, tmp_path):
    theirs = build(family, "question-answering", tmp_path)
    model = ownlm.load(tmp_path, device="cpu")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    question, context = "Who runs?", "the fox runs home"
    inputs = tokenizer(question, context, return_tensors="pt", return_token_type_ids=family == "electra")
    encoded = model.inputs.pair(question, context)
    assert inputs["input_ids"][0].tolist() == encoded.ids
    with torch.no_grad():
        found = theirs(**inputs)
    places = [0, *range(encoded.first, encoded.last)]
    start, end = (x[0, places].double().softmax(-1).numpy() for x in (found.start_logits, found.end_logits))
    scores = np.triu(np.outer(start[1:], end[1:]))
    (answer,) = model.read(question, context)
    assert answer["score"] == pytest.approx(float(scores.max()), abs=1e-6)
    first, last = np.unravel_index(int(scores.argmax()), scores.shape)
    text = context[encoded.offsets[first][0] : encoded.offsets[last][1]]
    assert answer["answer"] == text.strip()


def test_types_of_a_tokenizer_that_the_model_has_no_table_for(tmp_path):
    theirs = build("xlm-roberta", "sequence-classification", tmp_path)
    wordpiece().save_pretrained(tmp_path)  # says 1 in the second text
    model = ownlm.load(tmp_path, device="cpu")
    encoded = model.inputs.pair("the fox", "the sea")
    assert max(encoded.types) == 1
    with torch.no_grad():
        expected = theirs(torch.tensor([encoded.ids])).logits.double().numpy()
    np.testing.assert_allclose(model.logits([("the fox", "the sea")]), expected, atol=1e-5)


def test_a_head_that_is_missing(tmp_path):
    build("electra", "sequence-classification", tmp_path)
    transformers.ElectraModel.from_pretrained(tmp_path).save_pretrained(tmp_path / "body")
    wordpiece().save_pretrained(tmp_path / "body")
    file = tmp_path / "body" / "config.json"
    file.write_text(file.read_text().replace("ElectraModel", "ElectraForSequenceClassification"))
    with pytest.raises(Refused, match=r"missing weights, first: classifier\.dense"):
        ownlm.load(tmp_path / "body", device="cpu")
