"""The cells of the Hugging Face course (chapters 1, 6 and 7) with one changed import, against a hub on loopback.

Small random models stand under the names that transformers 4 takes when none is given, at its revisions.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

transformers = pytest.importorskip("transformers")
pytest.importorskip("sentencepiece")

from ownlm import pipeline
from ownlm.console.errors import OwnlmError
from ownlm.pipeline import TASKS
from tests.peers import headed_models, masked_models, seq2seq_models

WIDE = {"max_position_embeddings": 130}
ARTICLE = """
    America has changed dramatically during recent years. Not only has the number of graduates in traditional
    engineering disciplines declined, but in most of the premier American universities curricula now concentrate.
"""


def _head(family: str, kind: str, folder: Path, labels: tuple[str, ...] | None = None) -> None:
    named = (
        {"id2label": dict(enumerate(labels)), "label2id": {n: i for i, n in enumerate(labels)}}
        if labels
        else {}
    )
    headed_models.build(family, kind, folder, **WIDE, **named)


def _nli(folder: Path) -> None:
    """BART with a head, as facebook/bart-large-mnli."""
    labels = ("contradiction", "neutral", "entailment")
    tokenizer = masked_models.byte_level()
    tokenizer.save_pretrained(folder)
    config = transformers.BartConfig(
        vocab_size=len(tokenizer), d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=128,
        bos_token_id=0, pad_token_id=1, eos_token_id=2, id2label=dict(enumerate(labels)),
        label2id={name: index for index, name in enumerate(labels)},
    )  # fmt: skip
    transformers.BartForSequenceClassification(config).eval().save_pretrained(folder)


def _gpt2(folder: Path) -> None:
    tokenizer = masked_models.byte_level()
    tokenizer.save_pretrained(folder)
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=128,
        bos_token_id=2,
        eos_token_id=2,
    )
    transformers.GPT2LMHeadModel(config).eval().save_pretrained(folder)
    file = folder / "config.json"
    tasks = {"text-generation": {"do_sample": True, "max_length": 50}}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"task_specific_params": tasks}))


def _masked(family: str, folder: Path) -> None:
    masked_models.build(family, folder)


MAKERS = {
    "distilbert/distilbert-base-uncased-finetuned-sst-2-english":
        lambda f: _head("distilbert", "sequence-classification", f, ("NEGATIVE", "POSITIVE")),
    "dbmdz/bert-large-cased-finetuned-conll03-english": lambda f: _head("bert", "token-classification", f),
    "distilbert/distilbert-base-cased-distilled-squad": lambda f: _head("distilbert", "question-answering", f),
    "distilbert/distilroberta-base": lambda f: _masked("roberta", f),
    "distilbert/distilbert-base-cased": lambda f: _masked("distilbert", f),
    "facebook/bart-large-mnli": _nli,
    "sshleifer/distilbart-cnn-12-6": seq2seq_models.bart,
    "google-t5/t5-base": seq2seq_models.t5,
    "openai-community/gpt2": _gpt2,
}  # fmt: skip
OTHERS = {
    "distilgpt2": _gpt2,
    "bert-base-uncased": lambda f: _masked("bert", f),
    "Helsinki-NLP/opus-mt-fr-en": lambda f: seq2seq_models.marian(f),
}


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> dict[str, dict[str, bytes]]:
    """Name → files of its repository."""
    found = {}
    for name, make in (MAKERS | OTHERS).items():
        folder = tmp_path_factory.mktemp(name.replace("/", "-"))
        make(folder)
        found[name] = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    return found


@pytest.fixture
def course(hub, models):
    """The hub with the models: the defaults at the revisions of transformers 4 alone, the others as main."""
    revisions = {name: revision for _, _, name, revision in TASKS.values()}
    for name, files in models.items():
        kept = {n: data for n, data in files.items() if not n.endswith((".txt", ".vocab"))}
        hub.add(name, kept, ref=revisions.get(name, "main"))
    return hub


def shape(found: Any) -> Any:
    """What a result looks like."""
    if isinstance(found, list):
        return [shape(one) for one in found]
    return list(found) if isinstance(found, dict) else type(found).__name__


LABEL, TEXT = ["label", "score"], ["generated_text"]


def test_sentiment_analysis(course, capsys):
    classifier = pipeline("sentiment-analysis")
    said = capsys.readouterr().err
    assert "distilbert-base-uncased-finetuned-sst-2-english, revision 714eb0f" in said
    assert shape(classifier("I've been waiting for a HuggingFace course my whole life.")) == [LABEL]
    found = classifier(["I've been waiting for a HuggingFace course my whole life.", "I hate this so much!"])
    assert shape(found) == [LABEL, LABEL] and {one["label"] for one in found} <= {"POSITIVE", "NEGATIVE"}


def test_zero_shot_classification(course):
    classifier = pipeline("zero-shot-classification")
    found = classifier(
        "This is a course about the Transformers library",
        candidate_labels=["education", "politics", "business"],
    )
    assert shape(found) == ["sequence", "labels", "scores"] and sorted(found["labels"]) == [
        "business",
        "education",
        "politics",
    ]
    assert sum(found["scores"]) == pytest.approx(1)


def test_text_generation(course):
    generator = pipeline("text-generation")
    found = generator("In this course, we will teach you how to")
    assert shape(found) == [TEXT] and found[0]["generated_text"].startswith("In this course, we will teach")
    generator = pipeline("text-generation", model="distilgpt2")
    found = generator("In this course, we will teach you how to", max_length=40, num_return_sequences=2)
    assert shape(found) == [TEXT, TEXT]


def test_fill_mask(course):
    unmasker = pipeline("fill-mask")
    found = unmasker("This <mask> runs.", top_k=2)
    assert shape(found) == [["score", "token", "token_str", "sequence"]] * 2
    unmasker = pipeline("fill-mask", model="bert-base-uncased")
    result = unmasker("This man works as a [MASK].")
    assert len([r["token_str"] for r in result]) == 5
    for pred in result:
        assert "[MASK]" not in pred["sequence"]


def test_named_entities(course):
    text = "My name is Sylvain and I work at Hugging Face in Brooklyn."
    ner = pipeline("ner", grouped_entities=True)
    for one in ner(text):
        assert list(one) == ["entity_group", "score", "word", "start", "end"]
    token_classifier = pipeline("token-classification")
    for one in token_classifier(text):
        assert list(one) == ["entity", "score", "index", "word", "start", "end"]
    token_classifier = pipeline("token-classification", aggregation_strategy="simple")
    assert token_classifier(text) == ner(text)


def test_question_answering(course):
    question_answerer = pipeline("question-answering")
    context = "My name is Sylvain and I work at Hugging Face in Brooklyn"
    found = question_answerer(question="Where do I work?", context=context)
    assert list(found) == ["score", "start", "end", "answer"]
    assert found["answer"] == context[found["start"] : found["end"]]
    long_context = (context + ". ") * 60  # longer than the window
    found = question_answerer(question="Where do I work?", context=long_context)
    assert found["answer"] == long_context[found["start"] : found["end"]]


def test_summarization(course, capsys):
    summarizer = pipeline("summarization")
    with pytest.raises(
        OwnlmError, match="there is room for"
    ):  # the small model's window; nothing is cut silently
        summarizer(ARTICLE)
    assert shape(summarizer(ARTICLE, truncation=True)) == [["summary_text"]]
    assert "1 of 1 texts did not fit the window and were cut" in capsys.readouterr().err
    assert shape(summarizer("A river runs to the sea.", min_length=2, max_length=8)) == [["summary_text"]]
    assert "\n" not in summarizer("A river runs to the sea.")[0]["summary_text"].strip()


def test_translation(course):
    translator = pipeline("translation", model="Helsinki-NLP/opus-mt-fr-en")
    assert shape(translator("Ce cours est produit par Hugging Face.")) == [["translation_text"]]
    translator = pipeline("translation_en_to_fr")
    found = translator("This course is produced by Hugging Face.", max_length=12)
    assert shape(found) == [["translation_text"]]
    assert shape(pipeline("text2text-generation")("summarize: A river.")) == [TEXT]


def test_feature_extraction(course):
    extractor = pipeline("feature-extraction")
    found = extractor("This river runs.")
    assert len(found) == 1 and len(found[0]) > 3 and {len(row) for row in found[0]} == {32}


def test_a_revision_that_was_asked_for(course, models):
    course.add("distilgpt2", models["distilgpt2"], ref="v2")
    assert pipeline("text-generation", model="distilgpt2", revision="v2").model.path.name
    with pytest.raises(OwnlmError, match="v3"):
        pipeline("text-generation", model="distilgpt2", revision="v3")
