"""Rows that train task heads: targets, windows, the loss beside transformers' own, and that heads learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import ownlm
from ownlm.console.errors import Refused
from ownlm.headed import HeadedModel
from ownlm.headed_inputs import HeadInputs
from ownlm.headed_training import (
    KIND_OF_TASK,
    NOT_TRAINED,
    head_batch,
    head_examples,
    head_labels,
    head_loss,
    token_span,
)
from ownlm.model.head_families import KINDS
from ownlm.model.heads import HeadConfig
from ownlm.model.heads_checkpoint import load_headed
from ownlm.tasks.items import Answer, Item, Labelled, Question, Tagged
from ownlm.tasks.problems import BadRow

transformers = pytest.importorskip("transformers")

from tests.peers.headed_models import LABELS, NER, WINDOW, build
from tests.peers.masked_models import LONG, wordpiece

LABELLED = [
    Labelled("f:1", "The quick brown fox.", "positive"),
    Labelled("f:2", "rain", "negative"),
    Labelled("f:3", "the sea is wide.", "neutral"),
]
TAGGED = [
    Tagged("f:1", ("Paris", "jumps", "over", "France"), ("B-LOC", "O", "O", "B-LOC")),
    Tagged("f:2", ("the", "Fox"), ("O", "B-PER")),
    Tagged("f:3", ("rain",), ("O",)),
]
CONTEXT = "A river runs to the sea. The fox sleeps."
QUESTIONS = [
    Question("f:1", CONTEXT, "Who sleeps?", (Answer("The fox", CONTEXT.index("The fox")),)),
    Question("f:2", CONTEXT, "Who jumps?", ()),
]
ITEMS: dict[str, list[Any]] = {
    "sequence-classification": LABELLED,
    "token-classification": TAGGED,
    "question-answering": QUESTIONS,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    found = {kind: tmp_path_factory.mktemp(kind) for kind in KINDS}
    for kind, folder in found.items():
        build("bert", kind, folder)
    return found


def reader(folder: Path, window: int = WINDOW) -> HeadInputs:
    from ownlm.corpus.tokenizer import Tokenizer

    return HeadInputs(Tokenizer.load(folder), window)


def head(kind: str, labels: tuple[str, ...] = ()) -> HeadConfig:
    return HeadConfig(kind, labels, pad_token_id=0)  # type: ignore[arg-type]


# ---- rows


def test_a_label_of_a_text(folders):
    inputs = reader(folders["sequence-classification"])
    (row,) = head_examples(LABELLED[0], inputs, head("sequence-classification", LABELS))
    assert row.targets == [2] and row.trained == 1 and row.cut == 0 and row.where == "f:1"
    assert row.ids == inputs.tokenizer.encode_whole(LABELLED[0].text).ids


def test_a_word_is_trained_at_its_first_token(folders):
    inputs = reader(folders["token-classification"])
    (row,) = head_examples(TAGGED[0], inputs, head("token-classification", NER))
    pieces = [inputs.tokenizer.encode(word).tolist() for word in TAGGED[0].tokens]
    assert row.ids == [2, *(index for piece in pieces for index in piece), 3]
    assert max(map(len, pieces)) > 1
    expected = [NOT_TRAINED]
    for piece, tag in zip(pieces, TAGGED[0].tags):
        expected += [NER.index(tag), *[NOT_TRAINED] * (len(piece) - 1)]
    assert row.targets == [*expected, NOT_TRAINED] and row.trained == 4


def test_an_answer_is_its_first_and_last_token(folders):
    inputs = reader(folders["question-answering"], 64)
    (row,) = head_examples(QUESTIONS[0], inputs, head("question-answering"))
    start, end = row.targets
    assert inputs.tokenizer.decode(row.ids[start : end + 1]).strip() == "the fox"
    assert set(row.types[start : end + 1]) == {1}
    (nothing,) = head_examples(QUESTIONS[1], inputs, head("question-answering"))
    assert nothing.targets == [0, 0] and nothing.trained == 1


def test_a_long_context_is_windows_and_those_without_the_answer_say_so(folders):
    inputs = reader(folders["question-answering"])
    at = LONG.index("Paris")
    item = Question("f:9", LONG, "What is it?", (Answer("not there", None), Answer("Paris is", at)))
    rows = head_examples(item, inputs, head("question-answering"))
    assert len(rows) > 3 and max(len(row.ids) for row in rows) <= WINDOW
    held = [row for row in rows if row.targets != [0, 0]]
    assert held and len(held) < len(rows)
    for row in held:
        start, end = row.targets
        assert inputs.tokenizer.decode(row.ids[start : end + 1]).strip() == "paris is"
    for row in rows:
        text = inputs.tokenizer.decode(row.ids)
        assert (row in held) == ("paris is" in text)
    more = head_examples(item, inputs, head("question-answering"), stride=1)
    assert len(more) > 2 * len(rows)


@pytest.mark.parametrize("kind", ["sequence-classification", "token-classification"])
def test_what_does_not_fit_is_cut_only_when_asked(kind, folders):
    inputs = reader(folders[kind])
    words = tuple(LONG.split())
    item: Item = (
        Labelled("f:1", LONG, "neutral")
        if kind.startswith("sequence")
        else Tagged("f:1", words, ("O",) * len(words))
    )
    config = head(kind, LABELS if kind.startswith("sequence") else NER)
    (whole,), (cut,) = (head_examples(item, inputs, config, truncate=asked) for asked in (False, True))
    assert len(whole.ids) > WINDOW and whole.cut == 0
    assert len(cut.ids) == WINDOW and cut.cut > 0 and cut.ids[-1] == 3  # [SEP] stays
    if kind.startswith("token"):
        assert whole.trained == len(words) == cut.trained + cut.cut
        assert len(cut.targets) == WINDOW


@pytest.mark.parametrize(
    ("item", "kind", "says"),
    [
        (
            Labelled("f:1", "the", "positiv"),
            "sequence-classification",
            "a label that the model does not have",
        ),
        (Tagged("f:1", ("the",), ("B-CAT",)), "token-classification", "a label that the model does not have"),
        (
            Question("f:1", CONTEXT, "Who?", (Answer("a cat", None),)),
            "question-answering",
            "the answer is no part of the context",
        ),
        (
            Question("f:1", "the \u200b sea", "Who?", (Answer("\u200b", 4),)),
            "question-answering",
            "no token holds the answer",
        ),
        (LABELLED[0], "token-classification", "labelled rows do not train a head for token-classification"),
    ],
)
def test_rows_that_cannot_be_trained(item, kind, says, folders):
    labels = LABELS if kind == "sequence-classification" else NER
    with pytest.raises(BadRow, match=says) as caught:
        head_examples(item, reader(folders[kind]), head(kind, labels))
    assert caught.value.fix


def test_labels_of_a_data_set_have_a_fixed_order():
    assert head_labels(LABELLED) == ["negative", "neutral", "positive"]
    assert head_labels(TAGGED) == ["O", "B-LOC", "B-PER"]
    assert head_labels(TAGGED[::-1]) == head_labels(TAGGED)
    assert set(KIND_OF_TASK.values()) == set(KINDS)


def test_characters_to_tokens(folders):
    encoded = reader(folders["question-answering"], 64).pair("Who?", CONTEXT)
    for word in ("A", "river", "fox sleeps", "."):
        start = CONTEXT.index(word)
        first, last = token_span(encoded, start, start + len(word))
        text = CONTEXT[encoded.offsets[first][0] : encoded.offsets[last][1]]
        assert text.strip() == word
    assert token_span(encoded, 1, 2) is None  # a space, which no token of this vocabulary holds


# ---- the loss


@pytest.mark.parametrize("family", ["bert", "qwen3", "distilbert"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_that_of_transformers(kind, family, tmp_path):
    theirs = build(family, kind, tmp_path, max_position_embeddings=64)
    ours = load_headed(tmp_path)
    inputs = reader(tmp_path, 64)
    rows = [row for item in ITEMS[kind] for row in head_examples(item, inputs, ours.head_config)]
    batch = head_batch(rows, ours.head_config)
    lengths = {len(row.ids) for row in rows}
    assert len(lengths) > 1 and batch.ids_BT.shape == (len(rows), max(lengths))
    total, count = head_loss(ours, batch)
    if kind == "question-answering":
        # transformers lets an answer stand in the padding of a batch; row by row there is none.
        alone = []
        for row in rows:
            one = head_batch([row], ours.head_config)
            start, end = one.targets[0, :1], one.targets[0, 1:]
            alone.append(_theirs(theirs, family, one, start_positions=start, end_positions=end))
        expected = torch.stack(alone).mean()
    else:
        expected = _theirs(theirs, family, batch, labels=batch.targets)
    torch.testing.assert_close(total / count, expected, atol=1e-5, rtol=0)


def _theirs(theirs: Any, family: str, batch: Any, **targets: torch.Tensor) -> torch.Tensor:
    types = {"token_type_ids": batch.types_BT} if family == "bert" else {}
    return theirs(
        input_ids=batch.ids_BT, attention_mask=batch.mask_BT.long(), **types, **targets
    ).loss.detach()


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_does_not_depend_on_the_batch(kind, tmp_path):
    build("bert", kind, tmp_path, max_position_embeddings=64)
    model = load_headed(tmp_path)
    inputs = reader(tmp_path, 64)
    model.train()  # without dropout of the head: the config says 0.1
    model.head.dropout = 0.0
    rows = [row for item in ITEMS[kind] for row in head_examples(item, inputs, model.head_config)]
    total, count = head_loss(model, head_batch(rows, model.head_config))
    each = [head_loss(model, head_batch([row], model.head_config)) for row in rows]
    torch.testing.assert_close(total, sum(one for one, _ in each), atol=1e-4, rtol=0)
    assert count == sum(n for _, n in each)


@pytest.mark.parametrize("problem", ["regression", "multi_label_classification"])
def test_other_problems_are_not_trained(problem, tmp_path):
    build("bert", "sequence-classification", tmp_path, problem_type=problem)
    model = load_headed(tmp_path)
    rows = head_examples(LABELLED[0], reader(tmp_path), model.head_config)
    with pytest.raises(Refused, match=f"problem_type is {problem}"):
        head_loss(model, head_batch(rows, model.head_config))


# ---- learning


@pytest.mark.parametrize("family", ["bert", "qwen3", "distilbert"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_head_learns_its_rows(kind, family, tmp_path):
    """Then the methods of a loaded model give back what was learnt."""
    build(family, kind, tmp_path)
    wordpiece().save_pretrained(tmp_path)  # one vocabulary for all
    model = load_headed(tmp_path)
    inputs = reader(tmp_path)
    model.train()
    rows = [row for item in ITEMS[kind] for row in head_examples(item, inputs, model.head_config)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first = None
    for step in range(60):
        torch.manual_seed(step)
        total, count = head_loss(model, head_batch(rows, model.head_config))
        first = first or float(total.detach()) / count
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    assert float(total.detach()) / count < 0.1 * first
    used = HeadedModel(tmp_path, {"no_answer": True}, inputs.tokenizer, model.eval())
    if kind == "sequence-classification":
        found = used.classify([item.text for item in LABELLED])
        assert [one[0]["label"] for one in found] == [item.label for item in LABELLED]
    elif kind == "token-classification":
        assert used.tag_words([item.tokens for item in TAGGED]) == [list(item.tags) for item in TAGGED]
    else:
        found = used.read_all([(item.question, item.context) for item in QUESTIONS])
        assert [one[0]["answer"] for one in found] == ["The fox", ""]
        assert found[0][0]["start"] == CONTEXT.index("The fox")


def test_predictions_of_a_model_with_a_head(folders):
    """`evaluate --task` asks for these."""
    from ownlm.predicting import predictions

    model = ownlm.load(folders["sequence-classification"], device="cpu")
    (first, *_) = predictions(model, "classification", LABELLED)
    assert set(first["scores"]) == set(LABELS) and first["label"] in LABELS
    model = ownlm.load(folders["token-classification"], device="cpu")
    assert [len(one["tags"]) for one in predictions(model, "ner", TAGGED)] == [4, 2, 1]
    model = ownlm.load(folders["question-answering"], device="cpu")
    assert all(
        one.keys() == {"answer", "score", "start", "end"} for one in predictions(model, "qa", QUESTIONS)
    )
