"""Rows and their places: every format, and what is broken in it."""

from __future__ import annotations

import json

import pytest

from ownlm.console.errors import UsageError
from ownlm.tasks.dataset import read_dataset
from ownlm.tasks.items import Answer, Labelled, Pair, Question
from tests.tasks.files import write_jsonl

ROWS = [{"text": 'good, "really"\ngood', "label": "positive"}, {"text": "schlecht 坏", "label": "negative"}]


def items(*paths, **options):
    return list(read_dataset(list(paths), **options).items())


def test_jsonl_json_csv_tsv_and_parquet_give_the_same_rows_with_their_lines(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    write_jsonl(tmp_path / "a.jsonl", ROWS)
    (tmp_path / "a.json").write_text(json.dumps(ROWS, indent=1), encoding="utf-8")
    (tmp_path / "columns.json").write_text(json.dumps({k: [r[k] for r in ROWS] for k in ROWS[0]}))
    for name, separator in (("a.csv", ","), ("semicolon.csv", ";"), ("a.tsv", "\t")):
        quoted = '"good, ""really""\ngood"'
        text = f"text{separator}label\n{quoted}{separator}positive\nschlecht 坏{separator}negative\n"
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    lines = {"a.jsonl": (1, 2), "a.json": (2, 6), "columns.json": (1, 1), "a.csv": (2, 4), "semicolon.csv": (2, 4),
             "a.tsv": (2, 4), "a.parquet": (1, 2)}  # fmt: skip
    for name, (first, second) in lines.items():
        path = tmp_path / name
        assert items(path) == [
            Labelled(f"{path}:{first}", ROWS[0]["text"], "positive"),
            Labelled(f"{path}:{second}", ROWS[1]["text"], "negative"),
        ], name


def test_squad_nested_gives_one_row_a_question_with_its_own_line(tmp_path):
    qas = [
        {"id": "1", "question": "Who runs?", "answers": [{"text": "fox", "answer_start": 4}]},
        {"id": "2", "question": "谁?", "answers": [], "is_impossible": True},
    ]
    content = {
        "version": "2",
        "data": [{"title": "T", "paragraphs": [{"context": "The fox runs.", "qas": qas}]}],
    }
    path = tmp_path / "squad.json"
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
    text = path.read_text().splitlines()
    first, second = items(path)
    assert first == Question(first.where, "The fox runs.", "Who runs?", (Answer("fox", 4),))
    assert second.answers == ()
    for item, words in ((first, "Who runs?"), (second, json.dumps("谁?"))):
        assert words in text[int(item.where.rsplit(":")[-1]) - 1]
    line = tmp_path / "squad.jsonl"
    write_jsonl(line, content["data"])
    assert [item.where for item in items(line)] == [f"{line}:1"] * 2


def test_two_aligned_text_files_in_the_order_in_which_they_are_typed(tmp_path):
    (tmp_path / "train.en").write_text("one\ntwo\n")
    (tmp_path / "train.de").write_text("eins\nzwei\n")
    english, german = tmp_path / "train.en", tmp_path / "train.de"
    assert items(english, german)[1] == Pair(f"{english}:2", "two", "zwei", languages=("en", "de"))
    assert items(german, english)[1] == Pair(f"{german}:2", "zwei", "two", languages=("de", "en"))


def test_aligned_files_of_different_lengths_are_not_read(tmp_path):
    (tmp_path / "a.en").write_text("one\ntwo\n")
    (tmp_path / "a.de").write_text("eins\n")
    (tmp_path / "b.en").write_text("three\n")
    (tmp_path / "b.fr").write_text("trois\n")
    found = read_dataset([tmp_path], task="translation")
    assert [item.source for item in found.items()] == ["three"]
    assert "1 and 2 lines" in str(found.problems.kept[0])


def test_text_files_that_are_no_pair_are_refused_or_counted(tmp_path):
    for name in ("t.en", "t.de", "t.fr"):
        (tmp_path / name).write_text("x\n")
    with pytest.raises(UsageError, match="3 text files that are no pairs"):
        read_dataset([tmp_path / "t.en", tmp_path / "t.de", tmp_path / "t.fr"])
    with pytest.raises(UsageError, match="3 text files"):
        read_dataset([tmp_path])
    with pytest.raises(UsageError, match="plain text has no rows"):
        read_dataset([tmp_path / "t.en"])
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    assert sum(group.files for group in read_dataset([tmp_path]).not_read) == 3


def test_what_is_broken_in_a_file_is_named_with_its_line_and_the_others_are_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    good = json.dumps({"text": "处处闻啼鸟" * 9, "label": "x"}, ensure_ascii=False).encode()
    path.write_bytes(
        b"\n".join([good, b'{"text": ', b"[1]", good, b'{"text": "caf\xe9", "label": "x"}', good]) + b"\n"
    )
    found = read_dataset([path])
    assert [item.where for item in found.items()] == [f"{path}:{n}" for n in (1, 4, 6)]
    told = [str(problem) for problem in found.problems.kept]
    assert [line.split(". ")[0].split(" (")[0] for line in told] == [
        f"{path}:2: not JSON",
        f"{path}:3: row is not an object",
        f"{path}:5: bytes that are not text",
    ]
    assert "0xe9" in told[2]


def test_a_file_in_latin_1_is_read_and_that_is_told(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes("text,label\ncafé très bon,oui\n".encode("latin-1"))
    found = read_dataset([path])
    assert next(found.items()).text == "café très bon"
    assert found.problems.told == {"read as latin-1": 1}


def test_broken_json_ends_the_file_with_its_line(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(ROWS, indent=1).replace("\n }\n]", "\n"))
    found = read_dataset([path])
    assert len(list(found.items())) == 1
    assert str(found.problems.kept[0]).startswith(f"{path}:9: not JSON")


def test_a_csv_row_with_too_many_cells(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('text,label\n"two\nlines",a\nx,b,c\ny,b\n')
    found = read_dataset([path])
    assert [item.where for item in found.items()] == [f"{path}:2", f"{path}:5"]
    assert str(found.problems.kept[0]).startswith(f"{path}:4: another number of cells (3, the header has 2)")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": "", "label": "a"}, '"text" is empty'),
        ({"text": " \n", "label": "a"}, '"text" is empty'),
        ({"text": None, "label": "a"}, '"text" is null'),
        ({"text": float("nan"), "label": "a"}, '"text" is null'),
        ({"text": "x", "label": None}, '"label" is null'),
        ({"text": "x", "label": ["a", "b"]}, "several labels"),
        ({"text": ["x"], "label": "a"}, '"text" is not a text'),
        ({"text": "\ud800", "label": "a"}, '"text" holds half of a surrogate pair'),
        ({"label": "a"}, "not of the shape text/label"),
        ({"messages": []}, "not of the shape text/label"),
    ],
)
def test_a_row_that_cannot_be_used_is_left_out_with_its_reason(tmp_path, row, reason):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, [ROWS[0], row, ROWS[1]])))
    found = read_dataset([path])
    assert [item.where for item in found.items()] == [f"{path}:1", f"{path}:3"]
    assert found.problems.left_out == {reason: 1}
    assert str(found.problems.kept[0]).startswith(f"{path}:2: {reason}")
    assert found.rows == 3


def test_a_hundred_thousand_characters_are_a_row(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": "long " * 20_000, "label": "a"}])
    assert len(items(path)[0].text) == 100_000


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    from ownlm.corpus import kinds

    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    monkeypatch.setattr(kinds, "installed", lambda package: False)
    with pytest.raises(UsageError, match=r"pip install 'ownlm\[data\]'"):
        read_dataset([tmp_path / "rows.parquet"])
