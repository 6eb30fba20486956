"""`ownlm.pipeline`: results equal to those of transformers' pipelines where it still has them, else to its rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import ownlm
from ownlm.console.errors import Refused, UsageError
from tests.peers import headed_models, masked_models, seq2seq_models

transformers = pytest.importorskip("transformers")
WIDE = {"max_position_embeddings": 66}
TEXTS = ["The quick brown fox jumps.", "A river runs to the sea.", "the"]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """(family, kind) → folder; made once."""
    known: dict[tuple[str, str], Path] = {}

    def one(family: str, kind: str) -> Path:
        if (family, kind) not in known:
            folder = tmp_path_factory.mktemp(f"{family}-{kind}")
            if kind == "masked":
                masked_models.build(family, folder)
            else:
                changes: dict[str, Any] = dict(WIDE)
                if kind == "nli":
                    labels = ("contradiction", "neutral", "entailment")
                    changes |= {
                        "id2label": dict(enumerate(labels)),
                        "label2id": {n: i for i, n in enumerate(labels)},
                    }
                of = "sequence-classification" if kind == "nli" else kind
                headed_models.build(family, of, folder, **changes)
            known[family, kind] = folder
        return known[family, kind]

    return one


def both(task: str, folder: Path, **options: Any) -> tuple[Any, Any]:
    """Our pipeline and transformers' over one folder."""
    theirs = transformers.pipeline(task, model=str(folder), **options)
    if theirs.model.config.model_type == "bert":  # as BertTokenizer has it
        theirs.tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    return ownlm.pipeline(task, model=str(folder), **options), theirs


def same(ours: Any, theirs: Any) -> None:
    """Equal structures; numbers nearly."""
    if isinstance(theirs, dict):
        assert isinstance(ours, dict) and list(ours) == list(theirs)
        for key in theirs:
            same(ours[key], theirs[key])
    elif isinstance(theirs, list):
        assert isinstance(ours, list) and len(ours) == len(theirs)
        for one, other in zip(ours, theirs):
            same(one, other)
    elif isinstance(theirs, str | int) or theirs is None:
        assert ours == theirs
    else:
        assert ours == pytest.approx(float(theirs), abs=2e-4)


@pytest.mark.parametrize("family", ["distilbert", "roberta"])
def test_text_classification(family, folder_of):
    ours, theirs = both("sentiment-analysis", folder_of(family, "sequence-classification"))
    for given in (TEXTS[0], TEXTS, [TEXTS[0]], {"text": TEXTS[0], "text_pair": TEXTS[1]}):
        same(ours(given), theirs(given))
        same(ours(given, top_k=2), theirs(given, top_k=2))
        same(ours(given, top_k=None), theirs(given, top_k=None))
    same(ours(TEXTS[0], top_k=1), theirs(TEXTS[0], top_k=1))
    for function in ("sigmoid", "none", "softmax"):
        same(ours(TEXTS, function_to_apply=function), theirs(TEXTS, function_to_apply=function))
    # return_all_scores is gone from transformers 5: in transformers 4 all labels in their order, a list for each text.
    (every,) = ours(TEXTS[0], return_all_scores=True)
    assert [one["label"] for one in every] == list(headed_models.LABELS)
    assert ours([TEXTS[0]], return_all_scores=True) == [every]
    same(list(ours(text for text in TEXTS)), ours(TEXTS))
    assert ours([]) == []


@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_token_classification(strategy, folder_of):
    folder = folder_of("bert", "token-classification")
    ours, theirs = both("ner", folder, aggregation_strategy=strategy)
    same(ours(TEXTS[0]), theirs(TEXTS[0]))
    same(ours(TEXTS), theirs(TEXTS))
    assert any(theirs(text) for text in TEXTS)
    plain = ownlm.pipeline("token-classification", model=str(folder))
    same(plain(TEXTS[0], aggregation_strategy=strategy), theirs(TEXTS[0]))
    assert ownlm.pipeline("ner", model=str(folder), grouped_entities=True)(TEXTS[0]) == plain(
        TEXTS[0], aggregation_strategy="simple"
    )
    some = plain(TEXTS[0], ignore_labels=["O", "B-PER"])
    assert some == [one for one in plain(TEXTS[0]) if one["entity"] != "B-PER"]


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_fill_mask(family, folder_of):
    ours, theirs = both("fill-mask", folder_of(family, "masked"))
    mask = theirs.tokenizer.mask_token
    for text in (f"The quick {mask} fox jumps.", f"{mask} river runs.", f"A {mask} runs to the {mask}."):
        same(ours(text), theirs(text))
        same(ours(text, top_k=2), theirs(text, top_k=2))
        same(ours([text, text]), theirs([text, text]))
        same(ours([text]), theirs([text]))
    targets = ["fox", "sea"] if family == "bert" else ["Ġfox", "Ġsea"]
    found, expected = ours(f"The {mask}.", targets=targets), theirs(f"The {mask}.", targets=targets)
    same(found, expected)
    with pytest.raises(UsageError, match="there is no"):
        ours("no mask")


def test_feature_extraction(folder_of):
    for family, kind in (("bert", "masked"), ("roberta", "masked"), ("qwen3", "sequence-classification")):
        folder = folder_of(family, kind)
        ours = ownlm.pipeline("feature-extraction", model=str(folder))
        model = transformers.AutoModel.from_pretrained(folder).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        for text in TEXTS:
            with torch.inference_mode():
                expected = model(
                    **{k: v for k, v in tokenizer(text, return_tensors="pt").items() if k != "token_type_ids"}
                )[0]
            same(ours(text), expected.tolist())
        assert len(ours(TEXTS)) == 3
        assert ours(TEXTS[0], return_tensors=True).shape == torch.Size(
            [1, *torch.tensor(ours(TEXTS[0])).shape[1:]]
        )


@pytest.mark.parametrize("family", ["roberta", "bert"])
def test_zero_shot_classification(family, folder_of):
    folder = folder_of(family, "nli")
    ours, theirs = both("zero-shot-classification", folder)
    labels = ["sea", "fox", "rain"]
    for options in ({}, {"multi_label": True}, {"hypothesis_template": "It is {} here."}):
        same(
            ours(TEXTS[0], candidate_labels=labels, **options),
            theirs(TEXTS[0], candidate_labels=labels, **options),
        )
        same(ours(TEXTS[:2], labels, **options), theirs(TEXTS[:2], labels, **options))
    same(ours(TEXTS[0], candidate_labels="sea, fox"), theirs(TEXTS[0], candidate_labels="sea, fox"))
    same(ours(TEXTS[0], candidate_labels="sea"), theirs(TEXTS[0], candidate_labels="sea"))
    with pytest.raises(UsageError, match="at least one label"):
        ours(TEXTS[0], candidate_labels=[])
    with pytest.raises(UsageError, match="no place for a label"):
        ours(TEXTS[0], candidate_labels=labels, hypothesis_template="This.")
    with pytest.raises(Refused, match="no label of it means entailment"):
        ownlm.pipeline("zero-shot-classification", model=str(folder_of("bert", "sequence-classification")))(
            TEXTS[0], labels
        )


def test_question_answering_calls(folder_of):
    """Gone from transformers 5; the calls and shapes are those of 4."""
    ours = ownlm.pipeline("question-answering", model=str(folder_of("distilbert", "question-answering")))
    question, context = "Where does the river run?", "A river runs to the sea, and the fox runs home."
    found = ours(question=question, context=context)
    assert list(found) == ["score", "start", "end", "answer"]
    assert context[found["start"] : found["end"]] == found["answer"]
    assert ours({"question": question, "context": context}) == found
    assert ours(question, context) == found
    assert ours([{"question": question, "context": context}] * 2) == [found, found]
    assert ours(question=[question, question], context=context) == [found, found]
    several = ours(question=question, context=context, top_k=3)
    assert len(several) == 3 and several[0] == found
    assert all(
        len(one["answer"].split()) <= 2
        for one in ours(question=question, context=context, max_answer_len=1, top_k=5)
    )
    none = ours(question=question, context=context, handle_impossible_answer=True, top_k=200)
    assert "" in [one["answer"] for one in none]
    with pytest.raises(UsageError, match="a question and a context"):
        ours("x")


@pytest.fixture(scope="module")
def summarizer(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bart")
    seq2seq_models.bart(folder)
    return folder


def test_texts_for_texts(summarizer, tmp_path):
    """Summaries and translations with the options of transformers' search."""
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(summarizer).eval()
    tokenizer = seq2seq_models.tokenizer_of(summarizer)

    def expected(text: str, **options: Any) -> list[str]:
        ids = torch.tensor([tokenizer.encode(text).ids])
        found = theirs.generate(ids, attention_mask=torch.ones_like(ids), **options)
        return [tokenizer.decode(row, skip_special_tokens=True).strip() for row in found.tolist()]

    ours = ownlm.pipeline("summarization", model=str(summarizer))
    assert ours(TEXTS[0]) == [{"summary_text": expected(TEXTS[0])[0]}]
    assert ours(TEXTS[:2]) == [{"summary_text": expected(text)[0]} for text in TEXTS[:2]]
    options = {"min_length": 3, "max_length": 9, "num_beams": 2}
    assert ours(TEXTS[0], **options) == [{"summary_text": expected(TEXTS[0], **options)[0]}]
    two = ours(TEXTS[0], num_return_sequences=2, num_beams=4)
    assert [one["summary_text"] for one in two] == expected(TEXTS[0], num_return_sequences=2, num_beams=4)
    assert len(ours(TEXTS[:2], num_return_sequences=2, num_beams=4)[1]) == 2
    plain = ownlm.pipeline("text2text-generation", model=str(summarizer))
    assert plain(TEXTS[0], do_sample=False) == [{"generated_text": expected(TEXTS[0])[0]}]
    with pytest.raises(Refused, match="--truncate"):
        ours("The fox runs. " * 400)
    assert ours("The fox runs. " * 400, truncation=True)[0]["summary_text"]
    with pytest.raises(UsageError, match='no option "beams"'):
        ours(TEXTS[0], beams=2)
    seq2seq_models.t5(tmp_path)
    translator = ownlm.pipeline("translation_en_to_de", model=str(tmp_path))
    tokenizer, theirs = (
        seq2seq_models.tokenizer_of(tmp_path),
        transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval(),
    )
    text = f"translate English to German: {TEXTS[0]}"
    assert translator(TEXTS[0]) == [
        {"translation_text": expected(text, num_beams=2, max_length=15, early_stopping=True)[0]}
    ]
    raw = ownlm.pipeline("translation", model=str(tmp_path))  # the words are the user's, as in transformers
    assert raw(text, max_length=8) == [{"translation_text": expected(text, max_length=8)[0]}]


def test_text_generation(run):
    ours = ownlm.pipeline("text-generation", model=str(run))
    (one,) = ours("The quick", max_new_tokens=6, do_sample=False)
    assert one == {"generated_text": ownlm.load(run).generate("The quick", max_new_tokens=6, temperature=0)}
    (alone,) = ours("The quick", max_new_tokens=6, do_sample=False, return_full_text=False)
    assert one["generated_text"] == "The quick" + alone["generated_text"]
    several = ours("The quick", max_length=12, num_return_sequences=3, seed=4)
    assert len(several) == 3 and len({entry["generated_text"] for entry in several}) > 1
    assert several == ours("The quick", max_length=12, num_return_sequences=3, seed=4)
    assert [
        len(entries) for entries in ours(["The quick", "A river"], max_new_tokens=3, num_return_sequences=2)
    ] == [2, 2]
    theirs = transformers.pipeline("text-generation", model=str(run))
    expected = theirs("The quick", max_new_tokens=6, do_sample=False)
    assert isinstance(expected, list) and list(expected[0]) == ["generated_text"]
    with pytest.raises(UsageError, match="a causal model draws"):
        ours("x", num_beams=4)
    with pytest.raises(Refused, match="no chat template|was not taught"):
        ours([{"role": "user", "content": "Who?"}])


def test_a_causal_model_does_other_tasks_in_words(corpus, tmp_path):
    from tests.task_methods.models import wide_run

    run = str(wide_run(corpus, tmp_path / "run"))
    found = ownlm.pipeline("zero-shot-classification", model=run)("The fox", candidate_labels=["good", "bad"])
    assert list(found) == ["sequence", "labels", "scores"] and sum(found["scores"]) == pytest.approx(1)
    found = ownlm.pipeline("text-classification", model=run, labels=["good", "bad"])("The fox")
    assert set(found[0]) == {"label", "score"}
    answer = ownlm.pipeline("question-answering", model=run)(question="Who?", context="The fox runs.")
    assert answer["answer"] == "The fox runs."[answer["start"] : answer["end"]]
    assert set(ownlm.pipeline("summarization", model=run)("The fox", max_new_tokens=3)[0]) == {"summary_text"}
    found = ownlm.pipeline("translation_en_to_de", model=run)(["The fox"], max_new_tokens=3)
    assert found == ownlm.load(run).translate("The fox", to="de", from_="en", max_new_tokens=3)
    assert len(ownlm.pipeline("feature-extraction", model=run)("The fox")[0][0]) == 64
    with pytest.raises(UsageError, match="for the search of an encoder-decoder"):
        ownlm.pipeline("summarization", model=run)("The fox", num_beams=2)


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        (None, {}, "which task"),
        ("sentiment", {}, 'no task "sentiment"'),
        ("translation_xx_to_yy", {}, "has no default model"),
        ("fill-mask", {"model": 3}, "int is not a model"),
        ("fill-mask", {"framework": "tf"}, 'no framework "tf"'),
    ],
)
def test_wrong_calls(task, options, message):
    with pytest.raises(UsageError, match=message):
        ownlm.pipeline(task, **options)


def test_options_of_pipeline(run, folder_of):
    loaded = ownlm.load(run)
    made = ownlm.pipeline("text-generation", model=loaded, max_new_tokens=2, do_sample=False)
    assert made.model is loaded and made("The") == made("The", max_new_tokens=2)
    assert made("The") != made("The", max_new_tokens=5)
    assert (
        ownlm.pipeline("text-generation", model=str(run), device=-1, torch_dtype=torch.float32).model
        is not loaded
    )
    assert ownlm.pipeline("text-generation", model=str(run), tokenizer=str(run), framework="pt")
    for options in ({"tokenizer": "another"}, {"device": "cuda:7"}, {"max_tokens": 2}):
        with pytest.raises(UsageError):
            ownlm.pipeline("text-generation", model=str(run), **options)
    with pytest.raises(Refused, match="fills no masks"):
        ownlm.pipeline("fill-mask", model=loaded)("x")
    with pytest.raises(UsageError, match="no text"):
        ownlm.pipeline("summarization", model=loaded)([3])
