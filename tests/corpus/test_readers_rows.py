from __future__ import annotations

import json
from pathlib import Path

import pytest

from ownlm.console.errors import UsageError
from ownlm.corpus.readers import csv_rows, json_rows
from tests.corpus.conftest import Read


def test_bad_lines_in_the_middle_are_dropped_with_their_line(tmp_path: Path, read: Read) -> None:
    lines = [
        '{"text": "one"}',
        '{"text": "two',
        "",
        '{"text": null}',
        '{"text": 5}',
        '{"other": "x"}',
        '["text"]',
        '{"text": "  "}',
        '{"text": "\\u5929\\u5730 last"}',
        "[" * 100_000,
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    documents, dropped = read(tmp_path)
    assert [(d.text, d.line) for d in documents] == [("one", 1), ("天地 last", 9)]
    assert [(d.where.rpartition(":")[2], d.reason) for d in dropped] == [
        ("2", "not JSON"),
        ("4", "empty text"),
        ("5", 'column "text" is not a string'),
        ("6", 'no column "text"'),
        ("7", "row is not an object"),
        ("8", "empty text"),
        ("10", "not JSON"),
    ]


def test_line_separators_inside_strings_do_not_shift_the_lines(tmp_path: Path, read: Read) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a\u2028b\x0cc"}\r\n{"text": "d"}\r\n', encoding="utf-8")
    documents, dropped = read(tmp_path)
    assert [(d.text, d.line) for d in documents] == [("d", 2)]  # a raw form feed is no JSON
    assert dropped[0].where.endswith(":1")


def test_a_missing_column_names_the_columns(tmp_path: Path, read: Read) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 1, "content": "long text here"}\n')
    with pytest.raises(UsageError) as error:
        read(tmp_path / "a.jsonl")
    assert "The columns are id, content" in str(error.value)
    assert f"{tmp_path}/a.jsonl --column content" in error.value.do
    assert read(tmp_path / "a.jsonl", column="content")[0][0].text == "long text here"


def test_tables_without_the_column_found_in_a_folder_are_dropped_as_a_whole(
    tmp_path: Path, read: Read
) -> None:
    (tmp_path / "package.json").write_text('{"name": "x"}')
    (tmp_path / "a.jsonl").write_text('{"t": 1}\n' * 50)  # a column, but no text: nothing to suggest
    (tmp_path / "b.txt").write_text("text")
    documents, dropped = read(tmp_path)
    assert len(documents) == 1
    assert [(d.reason, d.bytes) for d in dropped] == [('no column "text"', 450), ('no column "text"', 13)]
    assert ["--column name" in d.do for d in dropped] == [False, True]


def test_the_column_that_was_nearly_typed_is_suggested(tmp_path: Path, read: Read) -> None:
    (tmp_path / "a b.jsonl").write_text('{"author": "x", "text": "a much longer text", "title": "y"}\n')
    for setting, option in (("group_by", "--group-by"), ("column", "--column")):
        with pytest.raises(UsageError) as error:
            read(tmp_path / "a b.jsonl", **{setting: "autor"})
        assert error.value.do == f"ownlm prepare '{tmp_path}/a b.jsonl' {option} author …"
    with pytest.raises(UsageError) as error:
        read(tmp_path / "a b.jsonl", group_by="patient")
    assert error.value.do == ""


def test_json_that_is_no_table_is_one_drop(tmp_path: Path, read: Read) -> None:
    (tmp_path / "words.json").write_text(json.dumps(["one", "two", "three"]))
    documents, dropped = read(tmp_path)
    assert documents == []
    assert [(d.reason, d.detail) for d in dropped] == [('no column "text"', "Its rows are not objects")]


def test_group_columns(tmp_path: Path, read: Read) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"text": "a", "patient": 7}\n{"text": "b"}\n{"text": "c", "patient": "x"}\n'
    )
    for option in ("patient", "column:patient"):
        assert [d.group for d in read(tmp_path, group_by=option)[0]] == ["7", None, "x"]
    with pytest.raises(UsageError, match='no column "doctor"'):
        read(tmp_path / "a.jsonl", group_by="doctor")


@pytest.mark.parametrize("group_by", ["re:(", "re:no group"])
def test_wrong_expressions_are_refused(tmp_path: Path, read: Read, group_by: str) -> None:
    with pytest.raises(UsageError):
        read(tmp_path, group_by=group_by)


def test_csv_with_quoted_newlines_keeps_the_right_lines(tmp_path: Path, read: Read) -> None:
    (tmp_path / "a.csv").write_bytes(
        'id,text\r\n1,"first\r\nsecond, ""quoted"""\r\n\r\n2,plain\r\n3\r\n4,a,b\r\n5,\r\n6,"末行"'.encode()
    )
    documents, dropped = read(tmp_path)
    assert [(d.text, d.line) for d in documents] == [
        ('first\r\nsecond, "quoted"', 2),
        ("plain", 5),
        ("末行", 9),
    ]
    assert [(d.where.rpartition(":")[2], d.reason) for d in dropped] == [
        ("6", "number of cells differs from the header"),
        ("7", "number of cells differs from the header"),
        ("8", "empty text"),
    ]


@pytest.mark.parametrize("codec", ["utf-16", "utf-8-sig", "gb18030"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv_in_other_encodings_and_separators(
    tmp_path: Path, read: Read, codec: str, separator: str
) -> None:
    rows = [("text", "n"), ("今天天气很好，我们一起去公园散步吧。", "1"), ("他昨天晚上才回家。", "2")]
    text = "".join(separator.join(row) + "\r\n" for row in rows)
    (tmp_path / "a.csv").write_bytes(text.encode(codec))
    documents, dropped = read(tmp_path / "a.csv")
    assert [(d.text, d.line) for d in documents] == [(rows[1][0], 2), (rows[2][0], 3)]
    assert dropped == []


def test_tsv(tmp_path: Path, read: Read) -> None:
    (tmp_path / "a.tsv").write_text("n\ttext\n1\tone, two; three\n")
    assert read(tmp_path)[0][0].text == "one, two; three"


def test_a_quote_that_never_ends_costs_that_row_only(
    tmp_path: Path, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_rows, "MAX_ROW", 200)
    rows = "".join(f"row {i}\n" for i in range(100))
    (tmp_path / "a.csv").write_text('text\ngood\n"open\n' + rows)
    documents, dropped = read(tmp_path)
    assert documents[0].text == "good"
    assert documents[-1].text == "row 99"
    assert documents[-1].line == 103
    assert [(d.where.rpartition(":")[2], d.reason) for d in dropped] == [("3", "broken row")]


def test_json_arrays_and_columns(tmp_path: Path, read: Read) -> None:
    (tmp_path / "array.json").write_text(
        '[\n {"text": "a"},\n {"text":\n  "b"}, {"x": 1},\n {"text": "c"}]\n'
    )
    (tmp_path / "columns.json").write_text(json.dumps({"text": ["一", "二"], "id": [1, 2]}))
    (tmp_path / "one.json").write_text('{"text": "single", "id": 1}')
    (tmp_path / "none.json").write_text("[]")
    documents, dropped = read(tmp_path)
    assert [(Path(d.source).stem, d.text, d.line) for d in documents] == [
        ("array", "a", 2),
        ("array", "b", 3),
        ("array", "c", 5),
        ("columns", "一", 1),
        ("columns", "二", 1),
        ("one", "single", 1),
    ]
    assert [(d.where.rpartition(":")[2], d.reason) for d in dropped] == [("4", 'no column "text"')]


@pytest.mark.parametrize(
    ("content", "texts", "reason"),
    [
        ('[{"text": "a"}, {"text": "b"', ["a"], "not JSON"),
        ('[{"text": "a"} {"text": "b"}]', ["a"], "not JSON"),
        ('[{"text": "a"}, oops]', ["a"], "not JSON"),
        ('{"text": "a"}\n{"text": "b"}', ["a"], "more than one JSON value"),
        ('{"text": ["a"], "id": [1, 2]}', [], "columns of different lengths"),
    ],
)
def test_broken_json_keeps_what_came_before(
    tmp_path: Path, read: Read, content: str, texts: list[str], reason: str
) -> None:
    (tmp_path / "a.json").write_text(content)
    documents, dropped = read(tmp_path)
    assert [d.text for d in documents] == texts
    assert [d.reason for d in dropped] == [f"{reason}: the rest of the file is not read"]


def test_json_arrays_are_streamed(tmp_path: Path, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": f"row {i} " + "天" * (i % 50), "n": [i, {"deep": 1.5}]} for i in range(3000)]
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False), encoding="utf-8")
    monkeypatch.setattr("ownlm.corpus.readers.compression.CHUNK", 1000)
    documents, dropped = read(tmp_path)
    assert [d.text for d in documents] == [row["text"] for row in rows]
    lines = (tmp_path / "a.json").read_text(encoding="utf-8").split("\n")
    assert all(lines[d.line - 1].strip() == "{" for d in documents)
    assert dropped == []


def test_a_value_over_the_limit_ends_the_file(
    tmp_path: Path, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ownlm.corpus.readers.compression.CHUNK", 100)
    monkeypatch.setattr(json_rows._Values.value, "__defaults__", (500,))
    (tmp_path / "a.json").write_text('[{"text": "a"}, {"text": "' + "b" * 5000)
    documents, dropped = read(tmp_path)
    assert [d.text for d in documents] == ["a"]
    assert "over the limit" in dropped[0].reason
