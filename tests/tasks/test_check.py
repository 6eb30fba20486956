"""The report: numbers, copies, what a model makes of the rows."""

from __future__ import annotations

import json

import pytest

from ownlm.tasks.check import nearly_equal, report
from ownlm.tasks.dataset import read_dataset
from ownlm.tasks.lengths import bars, summary
from ownlm.tasks.measure import open_reader
from tests.tasks.files import CHAT, turns, write_jsonl
from tests.tasks.models import TEMPLATES, model_folder


def test_labels_languages_and_lengths(tmp_path):
    rows = [{"text": "the fox and the dog are here", "label": "yes"}] * 1
    rows += [{"text": f"狐狸跑回家了 {i}", "label": "No"} for i in range(2)]
    rows += [{"text": "x" * 250, "label": "no "}]
    content = report(read_dataset([write_jsonl(tmp_path / "rows.jsonl", rows)]))
    assert content["labels"] == {"No": 2, "no": 1, "yes": 1}
    assert nearly_equal(content["labels"]) == [["No", "no"]]
    assert content["languages"] == {"input": {"zh": 2, "en": 2}}
    lengths = content["characters"]["input"]
    assert (lengths["longest"], lengths["total"]) == (250, 28 + 16 + 250)
    assert lengths["histogram"] == [
        [5, 10, 2],
        [10, 20, 0],
        [20, 50, 1],
        [50, 100, 0],
        [100, 200, 0],
        [200, 500, 1],
    ]


def test_histograms_and_bars():
    assert summary([]) == {}
    assert summary([0])["histogram"] == [[0, 1, 1]]
    assert summary([1, 1, 100_000])["histogram"][-1] == [100_000, 200_000, 1]
    assert bars([[0, 1, 1], [1, 2, 60], [2, 5, 0]]) == [
        ("0", "1", "█"),
        ("1", "60", "█" * 30),
        ("2–4", "0", ""),
    ]


def test_copies_other_answers_and_both_sides(tmp_path):
    def row(text, label):
        return {"text": text, "label": label}

    train = write_jsonl(
        tmp_path / "train.jsonl", [row("a", "1"), row("b", "1"), row("a", "1"), row("b", "2")]
    )
    held = write_jsonl(tmp_path / "validation.jsonl", [row("c", "1"), row("a", "2")])
    copies = report(read_dataset([held, train]))["copies"]
    assert (copies["same_row"], copies["other_answer"], copies["in_both_splits"]) == (1, 2, 1)
    assert copies["first"] == {
        "same_row": f"{train}:3 and {train}:1",
        "other_answer": f"{train}:4 and {train}:2",
        "in_both_splits": f"{held}:2 and {train}:1",
    }


def test_files_that_are_all_held_out_by_their_names_are_what_is_trained(tmp_path):
    dev = write_jsonl(tmp_path / "dev.jsonl", [CHAT])
    assert [part.held_out for part in read_dataset([dev]).parts] == [False]
    assert [
        part.held_out for part in read_dataset([dev, write_jsonl(tmp_path / "t.jsonl", [CHAT])]).parts
    ] == [True, False]


def test_files_columns_and_exceptions_are_counted(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", [CHAT | {"score": 3}, {"messages": turns("a")}, CHAT])
    (tmp_path / "notes.md").write_text("not rows")
    content = report(read_dataset([tmp_path]))
    assert (content["rows"], content["usable"]) == (3, 2)
    assert content["left_out"] == {"no answer of the assistant": 1}
    assert content["unused_columns"] == {"score": 1}
    assert content["columns"] == ["messages"]
    assert content["not_read"] == [{"reason": ".md: no rows", "files": 1}]
    assert content["exceptions"][0]["where"] == f"{tmp_path}/train.jsonl:2"
    json.dumps(content)


def test_tokens_of_a_model_and_rows_that_would_train_nothing(tmp_path, corpus):
    path = write_jsonl(tmp_path / "rows.jsonl", [CHAT, {"messages": turns("春" * 40, "b")}])
    folder = model_folder(tmp_path / "model", corpus, TEMPLATES["chatml"])
    (folder / "config.json").write_text('{"max_position_embeddings": 60}')
    data = read_dataset([path])
    tokens = report(data, open_reader(folder, data, None))["tokens"]
    assert tokens["longer_than_context"] == 1
    assert 0 < tokens["trained"] < tokens["length"]["total"]
    assert tokens["endless_answers"] == 0
    assert tokens["chat_template"]["from"] == str(folder / "tokenizer_config.json")
    nothing = model_folder(
        tmp_path / "nothing", corpus, "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    )
    unmarked = "{% for m in messages %}{{ m.content }}{% endfor %}{% if false %}{% generation %}{% endgeneration %}{% endif %}"
    for folder in (nothing, model_folder(tmp_path / "unmarked", corpus, unmarked)):
        data = read_dataset([path])
        content = report(data, open_reader(folder, data, None))
        assert content["usable"] == 0
        assert sum(content["left_out"].values()) == 2


@pytest.mark.parametrize(
    ("row", "needs_template"),
    [
        ({"text": "the fox", "label": "a"}, False),
        ({"prompt": "the", "completion": " fox"}, False),
        ({"context": "the fox", "question": "who", "answers": ["fox"]}, False),
        ({"tokens": ["the", "fox"], "tags": ["O", "B"]}, False),
        ({"en": "fox", "de": "Fuchs"}, True),
        (CHAT, True),
    ],
)
def test_a_template_is_asked_for_only_where_words_are_said(row, needs_template, tmp_path, corpus):
    data = read_dataset([write_jsonl(tmp_path / "rows.jsonl", [row])])
    folder = model_folder(tmp_path / "model", corpus, None)
    reader = open_reader(folder, data, "alpaca")
    assert (reader.template is not None) == needs_template
    assert report(data, reader)["tokens"]["length"]["longest"] > 1
