"""Models with task heads in use, beside the pipelines of transformers on the same folder."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ownlm
from ownlm.console.errors import Refused, UsageError
from ownlm.corpus.tokenizer import Tokenizer
from ownlm.headed import HeadedModel
from ownlm.headed_inputs import HeadInputs, causal_rule
from ownlm.headed_logits import predict
from ownlm.headed_refusal import example
from ownlm.headed_tags import STRATEGIES
from ownlm.model.heads import HeadConfig

transformers = pytest.importorskip("transformers")

from tests.peers.headed_models import LABELS, NER, TEXTS, WINDOW, build
from tests.peers.masked_models import LONG, byte_level

FAMILIES = ("bert", "roberta", "distilbert", "qwen3")
SHORT = [text for text in TEXTS if text]


def opened(family: str, kind: str, folder: Path, **changes: Any) -> HeadedModel:
    build(family, kind, folder, **changes)
    loaded = ownlm.load(folder, device="cpu")
    assert isinstance(loaded, HeadedModel) and loaded.kind == kind
    return loaded


@pytest.fixture(scope="module")
def texts_model(tmp_path_factory) -> HeadedModel:
    return opened("bert", "sequence-classification", tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="module")
def words_model(tmp_path_factory) -> HeadedModel:
    return opened("bert", "token-classification", tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="module")
def answers_model(tmp_path_factory) -> HeadedModel:
    return opened("bert", "question-answering", tmp_path_factory.mktemp("answers"))


# ---- labels of texts


@pytest.mark.parametrize("family", FAMILIES)
def test_labels_are_those_of_transformers(family, tmp_path):
    model = opened(family, "sequence-classification", tmp_path)
    pipe = transformers.pipeline("text-classification", model=str(tmp_path), device="cpu")
    expected = pipe(SHORT, top_k=None)
    found = model.classify(SHORT, top_k=None)
    for ours, theirs in zip(found, expected, strict=True):
        assert [one["label"] for one in ours] == [one["label"] for one in theirs]
        np.testing.assert_allclose([o["score"] for o in ours], [t["score"] for t in theirs], atol=1e-5)
        assert sum(one["score"] for one in ours) == pytest.approx(1)
    assert model.classify(SHORT[0])[0][0]["label"] == found[0][0]["label"]
    assert model.classify(["", "  "], top_k=None)[0][0]["score"] > 0


@pytest.mark.parametrize(
    ("changes", "adds_up"),
    [
        ({"problem_type": "multi_label_classification"}, False),
        ({"problem_type": "regression", "id2label": {0: "stars"}, "label2id": {"stars": 0}}, False),
        ({"id2label": {0: "spam"}, "label2id": {"spam": 0}}, False),
    ],
)
def test_scores_of_other_problems(changes, adds_up, tmp_path):
    model = opened("bert", "sequence-classification", tmp_path, **changes)
    pipe = transformers.pipeline("text-classification", model=str(tmp_path), device="cpu")
    for ours, theirs in zip(model.classify(SHORT, top_k=None), pipe(SHORT, top_k=None), strict=True):
        assert [one["label"] for one in ours] == [one["label"] for one in theirs]
        np.testing.assert_allclose([o["score"] for o in ours], [t["score"] for t in theirs], atol=1e-5)


def test_a_choice_among_the_labels(texts_model):
    (found,) = texts_model.classify(SHORT[0], labels=["positive", "negative"], top_k=None)
    (whole,) = texts_model.classify(SHORT[0], top_k=None)
    score = {one["label"]: one["score"] for one in whole}
    total = score["positive"] + score["negative"]
    assert {o["label"]: pytest.approx(o["score"]) for o in found} == {
        name: score[name] / total for name in ("positive", "negative")
    }
    with pytest.raises(UsageError, match='no label "positiv". Did you mean "positive"'):
        texts_model.classify("the", labels=["positiv"])
    with pytest.raises(UsageError, match="no labels"):
        texts_model.classify("the", labels=[])
    assert texts_model.classify([]) == []


def test_pairs_of_texts(texts_model):
    tokenizer = transformers.AutoTokenizer.from_pretrained(texts_model.path)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(texts_model.path).eval()
    inputs = tokenizer("The fox runs.", "A river runs.", return_tensors="pt", return_token_type_ids=True)
    assert int(inputs["token_type_ids"].sum()) > 0
    with torch.no_grad():
        expected = theirs(**inputs).logits[0].double().numpy()
    found = texts_model.logits([("The fox runs.", "A river runs."), "The fox runs."])
    np.testing.assert_allclose(found[0], expected, atol=1e-5)
    assert not np.allclose(found[0], found[1], atol=1e-3)


def test_a_long_text_is_read_through_windows_and_that_is_said(texts_model, capsys):
    texts_model._said_long = False
    found = texts_model.logits([LONG, "the"])[0]
    said = capsys.readouterr().err
    assert f"longer than the window of {WINDOW}" in said and said.count("overlapping windows") == 1
    texts_model.logits(LONG)
    assert capsys.readouterr().err == ""
    ids = texts_model.tokenizer.encode(LONG).tolist()
    room = WINDOW - 2
    starts = [*range(0, len(ids) - room, room // 2), len(ids) - room]
    each = []
    for start in starts:
        row = torch.tensor([[2, *ids[start : start + room], 3]])
        with torch.no_grad():
            each.append(texts_model.model(row)[0].log_softmax(-1).double().numpy())
    mean = np.mean(each, axis=0)
    np.testing.assert_allclose(found - found[0], mean - mean[0], atol=1e-5)


def test_an_answer_does_not_depend_on_the_batch(texts_model, words_model, answers_model):
    many = [*SHORT, LONG, *SHORT]
    whole = texts_model.logits(many)
    for text, row in zip(many, whole):
        np.testing.assert_allclose(texts_model.logits(text)[0], row, atol=1e-5)
    alone = [words_model.tag(text)[0] for text in many]
    for ours, one in zip(words_model.tag(many), alone):
        assert [e["entity"] for e in ours] == [e["entity"] for e in one]
    pairs = [("Who runs?", text) for text in many]
    for ours, (question, context) in zip(answers_model.read_all(pairs), pairs):
        (one,) = answers_model.read(question, context)
        assert one["score"] == pytest.approx(ours[0]["score"], abs=1e-6)
        assert one["answer"] == ours[0]["answer"]


def test_batches_are_small(texts_model, monkeypatch):
    from ownlm import headed_logits

    sizes: list[int] = []

    class Counting:
        head_config, vocab_size, context = texts_model.model.head_config, 1, WINDOW

        def __call__(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
            sizes.append(ids.numel())
            return texts_model.model(ids, mask, types)

    monkeypatch.setattr(headed_logits, "BATCH_TOKENS", 3 * WINDOW)
    rows = [w for text in SHORT * 3 for w in texts_model.inputs.windows(texts_model.inputs.text(text))]
    found = predict(Counting(), rows, "cpu")
    assert max(sizes) <= 3 * WINDOW and len(sizes) > 1
    monkeypatch.undo()
    for one, other in zip(found, predict(texts_model.model, rows, "cpu")):
        np.testing.assert_allclose(one, other, atol=1e-5)


# ---- labels of words


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
def test_entities_are_those_of_transformers(family, strategy, tmp_path):
    model = opened(family, "token-classification", tmp_path)
    pipe = transformers.pipeline("ner", model=str(tmp_path), device="cpu", aggregation_strategy=strategy)
    for text, ours in zip(SHORT, model.tag(SHORT, strategy), strict=True):
        theirs = pipe(text)
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs):
            assert one.keys() == other.keys()
            assert one.pop("score") == pytest.approx(float(other.pop("score")), abs=1e-5)
            assert one == other


def test_tags_of_a_long_text(words_model):
    """A token has the label of the window in which it stands farther from an edge."""
    (found,) = words_model.tag(LONG)
    assert all(LONG[entity["start"] : entity["end"]] for entity in found)
    encoded = words_model.inputs.text(LONG)
    for window in words_model.inputs.windows(encoded):
        with torch.no_grad():
            best = words_model.model(torch.tensor([window.ids]))[0].argmax(-1)
        for token in range(window.first, window.last):
            label = NER[int(best[window.begin + token - window.start])]
            tagged = [e["entity"] for e in found if e["index"] == encoded.first + token]
            assert tagged == ([] if label == "O" else [label])


def test_tags_of_words(words_model):
    """A word has the label of its first token."""
    words = ["The", "Fox", "hides", "", "Paris."]
    (found,) = words_model.tag_words([words])
    ids, firsts = [2], {}
    for number, word in enumerate(words):
        firsts[number] = len(ids)
        ids += words_model.tokenizer.encode(word).tolist()
    with torch.no_grad():
        best = words_model.model(torch.tensor([[*ids, 3]]))[0].argmax(-1)
    expected = [NER[int(best[firsts[number]])] if word else "O" for number, word in enumerate(words)]
    assert found == expected
    assert words_model.tag_words([[], ["the"]])[0] == []
    with pytest.raises(UsageError, match='no strategy "best"'):
        words_model.tag("the", "best")


# ---- answers


def by_hand(
    model: Any, tokenizer: Any, question: str, context: str, longest: int
) -> dict[tuple[int, int], float]:
    """(start, end) in characters -> score of every span of a context that fits the window, from its definition."""
    inputs = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True,
                       return_token_type_ids=True)  # fmt: skip
    owners = inputs.sequence_ids(0)
    offsets = inputs.pop("offset_mapping")[0].tolist()
    with torch.no_grad():
        found = model(**inputs)
    places = [0, *(place for place, owner in enumerate(owners) if owner == 1)]
    start, end = (
        dict(zip(places, logits[0, places].double().softmax(-1).tolist()))
        for logits in (found.start_logits, found.end_logits)
    )
    spans = {(0, 0): start[0] * end[0]}
    for i in places[1:]:
        for j in places[1:]:
            if i <= j < i + longest:
                spans[offsets[i][0], offsets[j][1]] = start[i] * end[j]
    return spans


@pytest.mark.parametrize("longest", [1, 4, 30])
def test_answers_are_the_most_probable_spans(answers_model, longest):
    theirs = transformers.AutoModelForQuestionAnswering.from_pretrained(answers_model.path).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(answers_model.path)
    question, context = "Who runs home?", "the fox runs home; the sea is wide."
    spans = by_hand(theirs, tokenizer, question, context, longest)
    found = answers_model.read(question, context, 6, max_answer_len=longest, no_answer=True)
    best = sorted(spans.items(), key=lambda entry: -entry[1])[:6]
    assert [(one["start"], one["end"]) for one in found] == [place for place, _ in best]
    np.testing.assert_allclose([one["score"] for one in found], [score for _, score in best], atol=1e-6)
    assert all(one["answer"] == context[one["start"] : one["end"]] for one in found)
    without = answers_model.read(question, context, 100, max_answer_len=longest)
    assert all(one["answer"] for one in without)


def test_a_run_says_whether_questions_may_have_no_answer(answers_model):
    wanted = answers_model.read("Who?", "the sea", 100, no_answer=True)
    assert "" in [one["answer"] for one in wanted]
    run = {"taught": ["qa"]}
    trained = HeadedModel(answers_model.path, run, answers_model.tokenizer, answers_model.model)
    assert trained.read("Who?", "the sea", 100) == wanted and trained.taught == ["qa"]
    run["no_answer"] = False  # type: ignore[assignment]
    without = trained.read("Who?", "the sea", 100)
    assert without == answers_model.read("Who?", "the sea", 100)
    assert "" not in [one["answer"] for one in without]


class Pointing:
    """A scorer that finds one token: start and end are there, elsewhere the row's first token."""

    def __init__(self, token: int, size: int, context: int) -> None:
        self.token, self.vocab_size, self.context = token, size, context
        self.head_config = HeadConfig("question-answering", ("LABEL_0", "LABEL_1"), pad_token_id=0)
        self.lengths: list[int] = []

    def __call__(self, ids_BT: torch.Tensor, mask_BT: torch.Tensor, types_BT: torch.Tensor) -> torch.Tensor:
        assert bool((ids_BT[:, 0] == 2).all()), "every window begins with [CLS]"
        self.lengths.append(ids_BT.shape[1])
        hit = (ids_BT == self.token) & (types_BT == 1)
        logits = torch.zeros(*ids_BT.shape, 2)
        logits[hit] = 9.0
        logits[~hit.any(1), 0] = 9.0
        return logits


@pytest.mark.parametrize("place", [0, 30, 45])
def test_an_answer_anywhere_in_a_long_context(answers_model, place):
    words = ["the"] * 46
    words[place] = "river"
    context = " ".join(words)
    tokenizer = answers_model.tokenizer
    (token,) = tokenizer.encode("river").tolist()
    scorer = Pointing(token, tokenizer.vocab_size, WINDOW)
    model = HeadedModel(answers_model.path, {}, tokenizer, scorer)
    for stride in (None, 1, 5):
        (found,) = model.read("Who runs to the river?", context, no_answer=True, stride=stride)
        assert found["answer"] == "river" and found["start"] == 4 * place
        assert found["score"] > 0.9
    assert max(scorer.lengths) <= WINDOW
    (nothing,) = model.read("river?", "the " * 46, no_answer=True)
    assert nothing["answer"] == "" and nothing["score"] > 0.9 and (nothing["start"], nothing["end"]) == (0, 0)


def test_questions_that_cannot_be_read(answers_model):
    for question in ("", " \n"):
        with pytest.raises(UsageError, match="the question is empty"):
            answers_model.read(question, "the sea")
    with pytest.raises(Refused, match=f"beside the text; the window holds {WINDOW}") as caught:
        answers_model.read("the " * WINDOW, "the sea " * 30)
    assert "at most 18 tokens" in caught.value.do
    for options, where in (({"top_k": 0}, "top_k"), ({"max_answer_len": 0}, "max_answer_len")):
        with pytest.raises(UsageError, match=f"{where}: 0; it must be at least 1"):
            answers_model.read("Who?", "the sea", **options)
    with pytest.raises(UsageError, match="stride"):
        answers_model.read("Who?", LONG, stride=0)
    (found,) = answers_model.read("Who?", "")
    assert found["answer"] == ""


def test_an_emoji_and_broken_surrogates(answers_model, words_model):
    context = "the 🦊 runs \ud800 home"
    for found in answers_model.read("Who runs?", context, 5):
        assert found["answer"] == context.replace("\ud800", "�")[found["start"] : found["end"]]
    words_model.tag(context)


# ---- opening


def test_what_a_head_does_not_do(texts_model, words_model, answers_model):
    for model, says in (
        (texts_model, "ownlm classify"),
        (words_model, ".tag("),
        (answers_model, "ownlm answer"),
    ):
        for call in (model.complete, model.stream, model.generate):
            with pytest.raises(Refused, match="does not continue text") as caught:
                call("The river")
            assert says in caught.value.do and str(model.path) in caught.value.do
        with pytest.raises(Refused, match="does not chat"):
            model.chat("The river")
        with pytest.raises(Refused, match="does not continue text"):
            _ = model.engine
        with pytest.raises(Refused, match="a head for"):
            model.translate("The river", "de")
        assert caught.value.do == example(model.path, model.kind)
    for call in (texts_model.tag, words_model.classify, answers_model.classify):
        with pytest.raises(Refused, match="with a head for"):
            call("the")
    with pytest.raises(Refused, match="does not answer questions"):
        texts_model.read("Who?", "the sea")
    with pytest.raises(Refused, match="does not label words"):
        answers_model.tag_words([["the"]])


@pytest.mark.parametrize("verb", [["generate", "the"], ["score", "the"], ["chat"], ["bench"], ["evaluate"]])
def test_verbs_for_other_models_say_what_it_does(texts_model, verb, capsys):
    from ownlm.cli import main

    name, *rest = verb
    assert main([name, str(texts_model.path), *rest]) in (2, 3)
    said = " ".join(capsys.readouterr().err.split())
    assert "a head for sequence-classification" in said and "ownlm classify" in said


def test_what_is_loaded(texts_model):
    assert ownlm.load(texts_model) is texts_model
    assert "sequence-classification" in repr(texts_model) and texts_model.taught == ["classification"]
    assert texts_model.labels == LABELS
    small = ownlm.load(texts_model.path, device="cpu", max_context=8)
    assert small.context == 8 and len(small.classify(LONG)) == 1
    tokenizer = Tokenizer.load(texts_model.path)
    with pytest.raises(Refused, match="do not belong together"):
        HeadedModel(texts_model.path, {}, tokenizer, Pointing(1, tokenizer.vocab_size - 1, WINDOW))


def test_bf16_weights(tmp_path):
    build("bert", "sequence-classification", tmp_path)
    model = ownlm.load(tmp_path, device="cpu", dtype="bfloat16")
    assert {p.dtype for p in model.model.parameters()} == {torch.bfloat16}
    assert len(model.classify(SHORT)) == len(SHORT)


# ---- the rule of causal models


def test_transformers_reads_texts_by_the_same_rule(corpus, tmp_path):
    tokenizer = causal_rule(Tokenizer.load(corpus))
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    inputs = HeadInputs(Tokenizer.load(tmp_path), 64)
    eos, (line,) = tokenizer.eos_id, tokenizer.encode("\n").tolist()
    for texts in (("The fox runs.",), ("Who runs?", "The fox runs 春眠."), ("",)):
        ours = inputs.text(*texts) if len(texts) == 1 else inputs.pair(*texts)
        plain = [tokenizer.encode(text).tolist() for text in texts]
        assert ours.ids == [eos, *plain[0]] if len(plain) == 1 else [eos, *plain[0], line, *plain[1]]
        assert theirs(*texts)["input_ids"] == ours.ids
        assert theirs(*texts).keys() == {"input_ids", "attention_mask"}
    before = Tokenizer.load(corpus)
    assert (tokenizer.type, tokenizer.prefix_ids) == (before.type, before.prefix_ids)
    assert tokenizer.encode("The fox 春眠").tolist() == before.encode("The fox 春眠").tolist()


def test_the_rule_of_a_tokenizer_from_elsewhere(tmp_path):
    byte_level().save_pretrained(tmp_path)
    made = causal_rule(Tokenizer.load(tmp_path))
    found = HeadInputs(made, 64).pair("the fox", "the sea")
    plain = made.encode
    expected = [0, *plain("the fox").tolist(), *plain("\n").tolist(), *plain("the sea").tolist()]
    assert found.ids == expected
    # transformers would make a post-processor of its own for a class with a name.
    named = Tokenizer(made.text, made.config | {"tokenizer_class": "RobertaTokenizer"})
    causal_rule(named).save(tmp_path)
    assert transformers.AutoTokenizer.from_pretrained(tmp_path)("the fox", "the sea")["input_ids"] == expected


@pytest.mark.parametrize(
    "words", [["The", "fox", "runs", "."], ["春", "眠", "不", "觉"], ["The", "春", "眠", "fox"]]
)
def test_words_stand_in_a_text_as_they_are_written(words, corpus):
    """Each word's tokens are its own, with the space before it, and none between Chinese characters."""
    tokenizer = causal_rule(Tokenizer.load(corpus))
    encoded = HeadInputs(tokenizer, 64).words(words)
    text = words[0]
    for left, right in pairwise(words):
        text += right if left in "春眠不" and right in "春眠不觉" else f" {right}"
    assert tokenizer.decode(encoded.ids) == text
    assert sorted(set(encoded.words)) == list(range(len(words)))
    firsts = dict(HeadInputs(tokenizer, 64).first_tokens(encoded))
    assert sorted(firsts) == list(range(len(words)))


def test_a_causal_model_of_ours_with_a_head(run, tmp_path):
    """From a run of pretrain to a folder with a head that transformers' own pipeline reads alike."""
    from ownlm.model.heads_checkpoint import new_head, save_headed

    tokenizer = causal_rule(Tokenizer.load(run))
    for kind, labels in (("sequence-classification", LABELS), ("question-answering", ())):
        folder = tmp_path / kind
        model = new_head(run, kind, labels, seed=1, pad_token_id=tokenizer.pad_id)
        model.head.output.weight.data.mul_(30)
        save_headed(model, folder, {"eos_token_id": tokenizer.eos_id})
        tokenizer.save(folder)
    ours = ownlm.load(tmp_path / "sequence-classification", device="cpu")
    pipe = transformers.pipeline("text-classification", model=str(ours.path), device="cpu")
    texts = ["the quick fox runs", "春眠不觉晓", "a"]
    for found, theirs in zip(ours.classify(texts), pipe(texts), strict=True):
        assert found[0]["label"] == theirs["label"]
        assert found[0]["score"] == pytest.approx(theirs["score"], abs=1e-5)
    reader = ownlm.load(tmp_path / "question-answering", device="cpu")
    context = "the fox runs home. " * 10
    (answer,) = reader.read("who runs?", context)
    assert answer["answer"] == context[answer["start"] : answer["end"]] != ""
