"""The verb: what a person types, what is refused and with which words, and what is printed."""

from __future__ import annotations

import io
import json
import lzma
import os
import random
import sys
from pathlib import Path

import pytest

import ownlm
from ownlm.cli import main
from ownlm.console.errors import OwnlmError, Refused, UsageError
from ownlm.corpus import workers
from ownlm.corpus.catalogue import zeros
from tests.corpus.texts import chinese, contents, english, folder_of


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "texts", 24)


def test_the_table_says_where_everything_went(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (texts / "copy.txt").write_text(english(0), encoding="utf-8")
    (texts / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(3000))
    (texts / "empty.txt").touch()
    output = tmp_path / "my corpus"
    assert main(["prepare", str(texts), "-o", str(output), "--vocab-size", "400"]) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    for words in (
        "25 → 24",
        "1 dropped: exact duplicate",
        "Not read:",
        ".png: image, not text",
        "vocabulary  400 ids (bpe)",
        "5% of the documents, by hash (seed 0)",
        "dropped.jsonl",
        f"ownlm pretrain '{output}' -o run",
    ):
        assert words in shown.err, words


def test_json_prints_the_manifest(texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["prepare", str(texts), "-o", str(tmp_path / "c"), "--vocab-size", "400", "--json", "-q"]) == 0
    )
    shown = capsys.readouterr()
    assert json.loads(shown.out) == json.loads((tmp_path / "c" / "corpus.json").read_text(encoding="utf-8"))
    assert "Steps" not in shown.err
    assert "Next" not in shown.err


def test_stdin_is_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO((english(1) + chinese(2)).encode() * 2)

    monkeypatch.setattr(sys, "stdin", Stdin)
    corpus = ownlm.prepare("-", output=tmp_path / "c", vocab_size=400)
    assert corpus.split("train").where(0) == "<stdin>:1"
    with pytest.raises(Refused, match="stream"):
        ownlm.prepare("-", output=tmp_path / "c", vocab_size=400)


def test_a_finished_corpus_is_recognised(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ownlm.prepare([str(texts)], output=tmp_path / "c", vocab_size=400)
    before = contents(tmp_path / "c")
    with monkeypatch.context() as patch:
        patch.setattr(workers.Workers, "__init__", lambda *_: pytest.fail("worked again"))
        second = ownlm.prepare([str(texts)], output=tmp_path / "c", vocab_size=400)
    assert "already prepared" in capsys.readouterr().err
    assert second.hash == first.hash
    with pytest.raises(Refused, match=r"vocab_size 400, now 500(.|\n)*--overwrite"):
        ownlm.prepare([str(texts)], output=tmp_path / "c", vocab_size=500)
    (texts / "new.txt").write_text(chinese(77), encoding="utf-8")
    with pytest.raises(Refused, match="some have changed"):
        ownlm.prepare([str(texts)], output=tmp_path / "c", vocab_size=400)
    assert contents(tmp_path / "c") == before
    third = ownlm.prepare([str(texts)], output=tmp_path / "c", vocab_size=400, overwrite=True)
    assert third.manifest["steps"][0]["documents_out"] == 25


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_other_content_is_refused_and_nothing_is_lost(
    texts: Path, tmp_path: Path, overwrite: bool
) -> None:
    other = tmp_path / "photos"
    other.mkdir()
    (other / "holiday.jpg").write_bytes(b"beach")
    with pytest.raises(Refused, match="holds other files"):
        ownlm.prepare([str(texts)], output=other, vocab_size=400, overwrite=overwrite)
    (other / "corpus.json").write_text('{"mine": true}', encoding="utf-8")
    with pytest.raises(Refused, match="did not write"):
        ownlm.prepare([str(texts)], output=other, vocab_size=400, overwrite=overwrite)
    assert contents(other) == {"holiday.jpg": b"beach", "corpus.json": b'{"mine": true}'}
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        ownlm.prepare([str(texts)], output=tmp_path / "file", vocab_size=400)


def test_another_command_on_a_half_made_folder_says_so(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ownlm.corpus.pipeline.decide", interrupted)
        assert main(["prepare", str(texts), "-o", str(tmp_path / "c"), "--vocab-size", "400"]) == 130
    with pytest.raises(Refused, match=r"half-made corpus of another command \(seed 0, now 1\)"):
        ownlm.prepare([str(texts)], output=tmp_path / "c", vocab_size=400, seed=1)
    corpus = ownlm.prepare([str(texts)], output=tmp_path / "c", vocab_size=400, seed=1, overwrite=True)
    assert corpus.manifest["settings"]["seed"] == 1
    assert not (tmp_path / "c" / ".work").exists()


def test_nothing_to_read_is_refused_with_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(300))
    (folder / "blank.txt").write_text("  \n", encoding="utf-8")
    assert main(["prepare", str(folder), "-o", str(tmp_path / "c")]) == 3
    shown = capsys.readouterr().err
    assert "no readable text" in shown
    assert "1 × empty text" in shown
    assert ".png" in shown
    assert not (tmp_path / "c").exists()


def test_too_little_text_is_refused_with_its_size(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("春眠不觉晓\n", encoding="utf-8")
    with pytest.raises(Refused, match="only 16 bytes of text in 1 document"):
        ownlm.prepare([str(tmp_path / "a.txt")], output=tmp_path / "c")


def test_text_that_is_all_dropped_is_refused_with_the_reasons(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "list.txt").write_text("- x\n" * 2000, encoding="utf-8")
    with pytest.raises(Refused, match=r"no readable text(.|\n)*1 ×"):
        ownlm.prepare([str(folder)], output=tmp_path / "c", filters=["gopher"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--tokenizer", "{texts}", "--vocab-size", "300"], "its own vocabulary"),
        (["--tokenizer", "{texts}"], "tokenizer.json"),
        (["--tokenizer", "no/such/place"], "no such file"),
        (["--validation", "hash:2"], "between 0 and 1"),
        (["--validation", "{texts}/nothing"], "no such file"),
        (["--filters", "gofer"], "gopher"),
        (["--group-by", "re:("], "not a regular expression"),
        (["--near-duplicates", "maybe"], "drop"),
        (["--workers", "0"], "--workers"),
        (["--vocab-size", "100"], "too small"),
        (["--validation", "hash"], "needs a share"),
    ],
)
def test_wrong_options_are_named_before_any_work(
    texts: Path, tmp_path: Path, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [option.replace("{texts}", str(texts)) for option in options]
    assert main(["prepare", str(texts), "-o", str(tmp_path / "c"), *given]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_what_a_refusal_says_to_type_works(texts: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="one group") as refusal:
        ownlm.prepare([str(texts)], output=tmp_path / "c", vocab_size=400, group_by="folder")
    assert "--validation none" in refusal.value.do
    corpus = ownlm.prepare(
        [str(texts)], output=tmp_path / "c", vocab_size=400, group_by="folder", validation=["none"]
    )
    assert corpus.split("train").num_documents == 24


@pytest.mark.parametrize("group_by", ["folders", "column:patient", "re:(patient)"])
def test_groups_that_no_document_has_are_refused(texts: Path, tmp_path: Path, group_by: str) -> None:
    with pytest.raises(UsageError, match="no document has a group"):
        ownlm.prepare([str(texts)], output=tmp_path / "c", vocab_size=400, group_by=group_by)


def test_documents_without_a_group_are_counted(texts: Path, tmp_path: Path) -> None:
    corpus = ownlm.prepare([str(texts)], output=tmp_path / "c", vocab_size=400, group_by="re:/(00.)")
    assert "14 documents have no group" in corpus.manifest["splits"]["validation"]["rule"]


def test_every_byte_on_disk_is_read_or_not_read(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (texts / "it's a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(3000))
    (texts / "no text.jsonl").write_text('{"content": "words"}\n' * 40, encoding="utf-8")
    packed = lzma.compress(random.Random(1).randbytes(60_000).hex().encode())
    (texts / "damaged.txt.xz").write_bytes(packed[:30_000] + b"\xff" * 30_000)
    sources = ownlm.prepare([str(texts)], output=tmp_path / "c", vocab_size=400).manifest["sources"]
    on_disk = sum(file.stat().st_size for file in texts.iterdir())
    assert sources["bytes"] + sources["bytes_not_read"] == on_disk
    assert sources["bytes_not_read"] > 20_000 + 3000 + 800
    shown = capsys.readouterr().err
    assert f"Not read: {sources['bytes_not_read'] / on_disk:.1%} of the bytes" in shown
    sizes = [group["bytes"] for group in sources["not_read"]]
    assert sizes == sorted(sizes, reverse=True)  # the reader of a short table sees the largest
    assert "it's a.png" in shown
    assert f"ownlm prepare '{texts}/no text.jsonl' --column content" in shown


def test_a_table_that_cannot_be_read_is_refused_with_the_command_that_reads_it(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.jsonl").write_text('{"content": "words"}\n' * 90, encoding="utf-8")
    with pytest.raises(Refused, match="no readable text") as refusal:
        ownlm.prepare([str(tmp_path / "texts")], output=tmp_path / "c")
    assert refusal.value.do == f"ownlm prepare {tmp_path}/texts/a.jsonl --column content …"


def test_a_source_whose_name_is_not_unicode(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/b\xffd.txt"
    try:
        Path(os.fsdecode(path)).write_text(english(1) * 2 + english(2), encoding="utf-8")
    except OSError:
        pytest.skip("this file system takes only Unicode names")
    corpus = ownlm.prepare([os.fsdecode(path)], output=tmp_path / "c", vocab_size=400)
    assert corpus.split("train").where(0) == f"{tmp_path}/b\\xffd.txt:1"
    assert corpus.manifest["settings"]["sources"] == [f"{tmp_path}/b\\xffd.txt"]
    again = ownlm.prepare([os.fsdecode(path)], output=tmp_path / "c", vocab_size=400)
    assert again.hash == corpus.hash


def test_an_output_that_cannot_be_made_says_why(texts: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be made: Not a directory"):
        ownlm.prepare([str(texts)], output=tmp_path / "file" / "c", vocab_size=400)


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", str(tmp_path / "missing.txt"), "-o", str(tmp_path / "c")]) == 2
    assert "missing.txt: no such file" in capsys.readouterr().err


@pytest.mark.parametrize("words", [(28, "No space left on device"), ("541747 requested and 71680 written",)])
def test_a_full_disk_is_named_and_the_work_goes_on_later(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[object, ...]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(*words)

    with monkeypatch.context() as patch:
        patch.setattr("ownlm.corpus.pieces._encode", full)
        with pytest.raises(OwnlmError, match="disk is full"):
            ownlm.prepare([str(texts)], output=tmp_path / "c", vocab_size=400)
    assert ownlm.prepare([str(texts)], output=tmp_path / "c", vocab_size=400).split("train").num_tokens


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot reserve space")
def test_what_is_written_in_place_has_its_space_on_the_disk(tmp_path: Path) -> None:
    zeros(tmp_path / "map", 1 << 20)
    assert (tmp_path / "map").read_bytes() == bytes(1 << 20)
    assert (tmp_path / "map").stat().st_blocks * 512 >= 1 << 20


def test_a_tokenizer_can_be_taken_from_another_corpus(texts: Path, tmp_path: Path) -> None:
    first = ownlm.prepare([str(texts)], output=tmp_path / "a", vocab_size=400)
    other = folder_of(tmp_path / "others", 21)
    second = ownlm.prepare([str(other)], output=tmp_path / "b", tokenizer=str(tmp_path / "a"))
    assert second.tokenizer.sha256 == first.tokenizer.sha256
    assert second.manifest["tokenizer"]["type"] == "given"
    assert "as given" in second.manifest["tokenizer"]["why"]


def test_a_corpus_below_its_sources_is_not_read_as_text(texts: Path) -> None:
    corpus = ownlm.prepare([str(texts)], output=texts / "corpus", vocab_size=400)
    assert corpus.manifest["sources"]["files"] == 24
    again = ownlm.prepare([str(texts)], output=texts / "corpus", vocab_size=400)
    assert again.hash == corpus.hash


@pytest.mark.parametrize(
    "changed",
    [
        {"vocab_size": 450},
        {"tokenizer_type": "char"},
        {"documents": "line"},
        {"validation": ["none"]},
        {"validation": ["tail:0.3"]},
        {"group_by": "folder"},
        {"near_duplicates": "off"},
        {"exact_duplicates": "keep"},
        {"filters": ["gopher"]},
        {"exclude": ["00*.txt"]},
        {"seed": 3},
        {"column": "body"},
    ],
    ids=lambda changed: "-".join(map(str, changed.items())),
)
def test_every_setting_changes_the_corpus(
    tmp_path: Path, changed: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = folder_of(tmp_path / "texts", 30)
    (texts / "copy.txt").write_text(english(2), encoding="utf-8")
    (texts / "near.txt").write_text(english(4) + "more\n", encoding="utf-8")
    folder_of(texts / "more", 1).joinpath("000.txt").write_text(english(300) * 2, encoding="utf-8")
    for number in range(6):  # groups go by the hash of their path: with two of them all may be on one side
        (texts / f"folder{number}").mkdir()
        (texts / f"folder{number}" / "a.txt").write_text(english(400 + number), encoding="utf-8")
    table = [{"text": english(i), "body": chinese(i)} for i in range(60, 70)]
    (texts / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table), encoding="utf-8")
    plain = {"vocab_size": 400, "validation": ["hash:0.3"]}
    first = ownlm.prepare([str(texts)], output=tmp_path / "a", **plain)
    second = ownlm.prepare([str(texts)], output=tmp_path / "b", **(plain | changed))
    assert second.hash != first.hash
