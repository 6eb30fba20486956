from __future__ import annotations

from pathlib import Path

import pytest

from ownlm.console.errors import UsageError
from tests.corpus.conftest import Read

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def write(path: Path, **columns: list[object]) -> None:
    parquet.write_table(pyarrow.table(columns), path, row_group_size=100)


def test_rows_with_their_numbers_and_groups(tmp_path: Path, read: Read) -> None:
    texts: list[object] = [f"第 {i} 行" for i in range(700)]
    texts[3] = None
    write(tmp_path / "a.parquet", id=list(range(700)), text=texts, who=[str(i % 3) for i in range(700)])
    documents, dropped = read(tmp_path, group_by="who")
    assert [(d.text, d.line, d.group) for d in documents[:4]] == [
        ("第 0 行", 1, "0"),
        ("第 1 行", 2, "1"),
        ("第 2 行", 3, "2"),
        ("第 4 行", 5, "1"),
    ]
    assert len(documents) == 699
    assert [(d.where.rpartition(":")[2], d.reason) for d in dropped] == [("4", "empty text")]


def test_the_column_is_asked_for_by_name(tmp_path: Path, read: Read) -> None:
    write(tmp_path / "a.parquet", id=[1], body=["words"])
    with pytest.raises(UsageError, match="The columns are id, body"):
        read(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", column="body")[0][0].text == "words"


def test_numbers_are_not_text(tmp_path: Path, read: Read) -> None:
    write(tmp_path / "a.parquet", text=[1, 2])
    assert [d.reason for d in read(tmp_path)[1]] == ['column "text" is not a string'] * 2


def test_damage_is_reported(tmp_path: Path, read: Read) -> None:
    write(tmp_path / "a.parquet", text=[f"row {i} " * 50 for i in range(5000)])
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = b"\xff" * 2000
    (tmp_path / "a.parquet").write_bytes(data)
    (tmp_path / "b.parquet").write_bytes(b"PAR1 this is no table PAR1")
    documents, dropped = read(tmp_path)
    assert 0 < len(documents) < 5000
    assert [(Path(d.where).name, d.reason) for d in dropped] == [
        ("a.parquet", "damaged Parquet: read up to there"),
        ("b.parquet", "damaged Parquet: read up to there"),
    ]
