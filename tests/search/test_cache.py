"""The index is kept beside its context, refreshed by what changed, made anew when damaged, and never half written."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import ownlm
from ownlm.console.errors import Refused, UsageError
from ownlm.search import cache, reading
from ownlm.search.cache import FOLDER, Opened, open_index
from ownlm.search.index import read as read_index
from ownlm.search.ranking import search
from tests.corpus.test_readers_office import write_pdf


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "texts"
    path.mkdir()
    (path / "whales.md").write_text("# Whales\n\nWhales sing long songs below the ice.\n", encoding="utf-8")
    (path / "moon.txt").write_text("The moon pulls the water.\n\nIt makes the tides.\n", encoding="utf-8")
    return path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read from now on."""
    names: list[str] = []
    original = reading.Context.read

    def counted(self, file):
        names.append(Path(file.path).name)
        return original(self, file)

    monkeypatch.setattr(reading.Context, "read", counted)
    return names


def places(opened: Opened, question: str) -> list[str]:
    return [hit.place for hit in search(opened, question, 5).hits]


def test_it_is_kept_beside_the_folder_and_used_the_next_time(folder, reads, capfd):
    opened = open_index(folder)
    assert opened.place == folder.parent / FOLDER / "texts.npz"
    assert (folder.parent / FOLDER / ".gitignore").read_text() == "*\n"
    assert sorted(path.name for path in folder.iterdir()) == ["moon.txt", "whales.md"]
    assert str(opened.place) in capfd.readouterr().err
    written = opened.place.stat().st_mtime_ns
    again = open_index(folder)
    assert places(again, "Which songs?") == places(opened, "Which songs?") == [f"{folder}/whales.md:1"]
    assert sorted(reads) == ["moon.txt", "whales.md"]
    assert again.place.stat().st_mtime_ns == written
    assert capfd.readouterr().err == ""


def test_only_what_changed_is_read_again(folder, reads):
    open_index(folder)
    reads.clear()
    (folder / "moon.txt").write_text("The glacier moves.\n", encoding="utf-8")
    opened = open_index(folder)
    assert reads == ["moon.txt"]
    assert places(opened, "glacier") == [f"{folder}/moon.txt:1"]
    assert places(opened, "tides") == []
    assert "tid" not in opened.index.vocabulary
    assert places(opened, "songs") == [f"{folder}/whales.md:1"]


def test_a_new_file_and_one_that_is_gone(folder, reads):
    open_index(folder)
    reads.clear()
    (folder / "a.txt").write_text("An otter swims.\n", encoding="utf-8")
    (folder / "moon.txt").unlink()
    opened = open_index(folder)
    assert reads == ["a.txt"]
    assert places(opened, "otter") == [f"{folder}/a.txt:1"]
    assert places(opened, "tides") == []


def test_a_file_that_is_gone_and_nothing_else(folder, reads):
    open_index(folder)
    reads.clear()
    (folder / "moon.txt").unlink()
    opened = open_index(folder)
    assert reads == []
    assert places(opened, "tides") == []
    assert [source.name for source in opened.index.sources] == ["whales.md"]


def test_a_touched_file_with_the_same_content_is_not_read_again(folder, reads):
    open_index(folder)
    reads.clear()
    os.utime(folder / "moon.txt", (1, 1))
    open_index(folder)
    assert reads == []
    assert read_index(folder.parent / FOLDER / "texts.npz").sources[0].modified == 10**9


def test_a_refreshed_index_is_the_one_that_would_be_made_anew(folder):
    open_index(folder)
    (folder / "moon.txt").write_text("Whales and the moon, whales and a song.\n", encoding="utf-8")
    refreshed = open_index(folder)
    assert refreshed.place is not None
    refreshed.place.unlink()
    anew = open_index(folder)
    for question in ("whales", "songs of the moon"):
        scores = [[(hit.place, hit.score) for hit in search(o, question, 5).hits] for o in (refreshed, anew)]
        assert scores[0] == scores[1]


@pytest.mark.parametrize("damage", ["cut", "noise", "flipped", "pickled", "compressed", "older", "pointing"])
def test_a_damaged_index_is_made_anew_which_is_said(folder, damage, reads, capfd):
    place = open_index(folder).place
    assert place is not None
    data = place.read_bytes()
    with np.load(place) as file:
        arrays = dict(file)
    if damage == "cut":
        place.write_bytes(data[: len(data) // 2])
    elif damage == "noise":
        place.write_bytes(b"no archive")
    elif damage == "flipped":
        at = data.index(b"Whales sing")
        place.write_bytes(data[:at] + b"w" + data[at + 1 :])
    elif damage == "pickled":
        np.savez(place, **{**arrays, "rows": np.array([{}], object)})
    elif damage == "compressed":
        np.savez_compressed(place, **arrays)
    elif damage == "older":
        meta = json.loads(arrays["meta"].tobytes()) | {"format": "ownlm index 0"}
        np.savez(place, **{**arrays, "meta": np.frombuffer(json.dumps(meta).encode(), np.uint8)})
    else:
        np.savez(place, **{**arrays, "passages_texts": arrays["passages_texts"] + 1000})
    reads.clear()
    capfd.readouterr()
    assert places(open_index(folder), "songs") == [f"{folder}/whales.md:1"]
    assert "made anew" in capfd.readouterr().err
    assert sorted(reads) == ["moon.txt", "whales.md"]
    reads.clear()
    open_index(folder)
    assert reads == []


def test_what_may_not_be_written_is_kept_in_the_cache(folder, monkeypatch, tmp_path, reads, capfd):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != folder and access(path, mode))
    opened = open_index(folder)
    assert opened.place is not None
    assert opened.place.parent == tmp_path / "cache/ownlm/index"
    assert str(opened.place) in capfd.readouterr().err
    assert not (folder.parent / FOLDER).exists()
    reads.clear()
    assert places(open_index(folder), "songs")
    assert reads == []


def test_without_any_place_it_is_made_each_time_which_is_said(folder, monkeypatch, capfd):
    monkeypatch.setattr(cache, "_makes", lambda folder: False)
    opened = open_index(folder)
    assert opened.place is None
    assert "not kept" in capfd.readouterr().err
    assert places(opened, "songs")


def test_a_disk_that_is_full_is_said_and_the_answer_is_given(folder, monkeypatch, capfd):
    def full(file, **arrays):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    opened = open_index(folder)
    assert places(opened, "songs")
    assert "No space left" in capfd.readouterr().err
    assert [path.name for path in (folder.parent / FOLDER).iterdir()] == [".gitignore"]


def test_what_a_killed_process_left_is_removed(folder):
    (folder.parent / FOLDER).mkdir()
    old, new = (folder.parent / FOLDER / f"texts.npz.{name}.partial" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    open_index(folder)
    assert not old.exists()
    assert new.exists()


def test_two_processes_at_once(folder):
    """Each sees a whole index, whoever writes it."""
    code = (
        "import sys, ownlm\n"
        "for n in range(4):\n"
        "    open(f'{sys.argv[1]}/{sys.argv[2]}.txt', 'w').write(f'Otter {n} of {sys.argv[2]}.')\n"
        "    found = ownlm.answer('Which songs?', context=sys.argv[1])\n"
        "    assert found['passages'][0]['file'].endswith('whales.md'), found\n"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(folder), name], stderr=subprocess.PIPE, text=True)
        for name in ("a", "b")
    ]
    for process in started:
        errors = process.communicate(timeout=60)[1]
        assert process.returncode == 0, errors
        assert "made anew" not in errors
    assert len(open_index(folder).index.sources) == 4


def test_places_of_each_format(tmp_path, corpus):
    pytest.importorskip("markitdown")
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "a.html").write_text("<h1>Otters</h1><p>An otter swims.</p>", encoding="utf-8")
    rows = [{"text": "A falcon dives.\nFast."}, {"text": "A heron waits."}]
    (folder / "b.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    (folder / "c.txt").write_bytes("Stra\u00dfe\n\nEin K\u00e4fer kriecht.\n".encode("latin-1"))
    write_pdf(folder / "d.pdf", "A badger digs")
    (folder / "e.pptx").write_bytes(b"")
    found = {q: places(open_index(folder), q) for q in ("otter", "heron", "kafer", "badger")}
    assert found == {
        "otter": [f"{folder}/a.html"],
        "heron": [f"{folder}/b.jsonl:2"],
        "kafer": [f"{folder}/c.txt:1"],
        "badger": [f"{folder}/d.pdf"],
    }
    (hit, *_) = search(open_index(corpus), "quick brown fox", 1).hits
    assert hit.file.endswith(".txt")
    assert hit.line is not None


def test_pages_and_slides():
    from ownlm.corpus.documents import Document
    from ownlm.search.index import place

    talk = "<!-- Slide number: 1 -->\n# Start\n<!-- Slide number: 4 -->\n# Otters\nAn otter swims."
    for kind, text, expected in (
        ("pdf", "First.\fAn otter swims.\f", ["x, page 1", "x, page 2"]),
        ("pptx", talk, ["x, slide 1", "x, slide 4"]),
        ("docx", "An otter swims.", ["x"]),
    ):
        read = reading._cut([("x", Document(text, "x", 1, None, kind, "utf-8"))])
        assert [place(cut.unit, cut.number, cut.name) for cut in read.cuts] == expected
        assert read.documents == 1


def test_what_is_not_searched_is_said(folder, capfd):
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    (folder / "empty.jsonl").write_text('{"text": ""}\n{"title": "no text"}\n', encoding="utf-8")
    (folder / ".hidden").write_text("x")
    open_index(folder)
    said = capfd.readouterr().err
    assert "1 files, .png: image, not text" in said
    assert "hidden" in said
    assert "documents" in said
    open_index(folder)
    again = capfd.readouterr().err
    assert ".png" in again
    assert "hidden" not in again


def test_contexts_that_cannot_be_searched(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(Refused, match="an empty folder"):
        open_index(tmp_path / "empty")
    (tmp_path / "empty/a.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    with pytest.raises(Refused, match="no file here can be read: 1 .png"):
        open_index(tmp_path / "empty")
    with pytest.raises(UsageError, match="no such file or folder"):
        open_index(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="standard input holds questions"):
        open_index("-")
    (tmp_path / "a.csv").write_text("title,body\nx,A falcon dives.\n")
    with pytest.raises(UsageError, match='no column "text"') as refusal:
        open_index(tmp_path / "a.csv")
    assert "--column" in refusal.value.do
    assert "--context corpus" in refusal.value.do
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="a pipe"):
        open_index(tmp_path / "pipe")


def test_an_unfinished_corpus_is_refused(tmp_path, corpus):
    import shutil

    shutil.copytree(corpus, tmp_path / "corpus")
    next((tmp_path / "corpus").glob("train-*.bin")).unlink()
    with pytest.raises(Refused, match="shard is missing"):
        open_index(tmp_path / "corpus")


def test_one_file_of_100_000_characters(tmp_path):
    lines = [f"Line {n} tells of number {n * 7}." for n in range(4000)]
    lines[3210] = "The password of the lighthouse is heliotrope."
    file = tmp_path / "long.txt"
    file.write_text("\n".join(lines), encoding="utf-8")
    assert file.stat().st_size > 100_000
    hit = search(open_index(file), "What is the password of the lighthouse?", 1).hits[0]
    assert hit.place_of(hit.text.index("heliotrope")) == f"{file}:3211"


def test_nothing_is_pickled_or_compressed(folder):
    place = open_index(folder).place
    assert place is not None
    with zipfile.ZipFile(place) as archive:
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}
    with np.load(place, allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)


def test_without_bm25s_the_message_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(UsageError, match="bm25s, which is not installed") as refusal:
        ownlm.answer("Which songs?", context=str(folder))
    assert refusal.value.do == "pip install 'ownlm[search]'"
