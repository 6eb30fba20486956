from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from ownlm.console.errors import UsageError
from ownlm.corpus import kinds
from ownlm.corpus.discover import discover, explain
from ownlm.corpus.ignore import IgnoreRules


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"text of {name}\n")


def names(root: Path, **options: list[str]) -> list[str]:
    return [Path(f.path).relative_to(root).as_posix() for f in discover([root], **options).files]


def test_a_folder_is_read_recursively_in_one_order(tmp_path: Path) -> None:
    make(tmp_path, "b.txt", "a/z.md", "a/b.py", "a.rst", "C.txt")
    assert names(tmp_path) == ["C.txt", "a.rst", "a/b.py", "a/z.md", "b.txt"]


def test_hidden_files_and_tool_folders_are_left_out(tmp_path: Path) -> None:
    make(tmp_path, "a.txt", ".git/config", ".env", "__pycache__/x.txt", "node_modules/m/i.js", "env/lib/x.py")
    (tmp_path / "env/pyvenv.cfg").write_text("home = x\n")
    assert names(tmp_path) == ["a.txt"]
    reasons = {n.reason for n in discover([tmp_path]).not_read}
    assert "hidden" in reasons
    assert "node_modules (folder not entered)" in reasons
    assert all(n.by_rule for n in discover([tmp_path]).not_read)


def test_gitignore_of_each_folder(tmp_path: Path) -> None:
    make(
        tmp_path,
        "a.log",
        "keep.log",
        "build/x.txt",
        "src/build/y.txt",
        "src/a.tmp",
        "src/deep/a.tmp",
        "b.txt",
    )
    (tmp_path / ".gitignore").write_text("# logs\n*.log\n!keep.log\n/build/\n")
    (tmp_path / "src/.gitignore").write_text("a.tmp\n!deep/a.tmp\n")
    assert names(tmp_path) == ["b.txt", "keep.log", "src/build/y.txt", "src/deep/a.tmp"]


def test_exclude_wins_and_takes_back(tmp_path: Path) -> None:
    make(tmp_path, "a.txt", "tests/b.txt", "x.log", ".notes")
    (tmp_path / ".gitignore").write_text("*.log\n")
    assert names(tmp_path, exclude=["tests/", "!*.log", "!.notes"]) == [".notes", "a.txt", "x.log"]


@pytest.mark.parametrize(
    ("pattern", "path", "is_folder", "expected"),
    [
        ("foo", "a/b/foo", False, True),
        ("foo/", "a/foo", False, None),
        ("foo/", "a/foo", True, True),
        ("/foo", "a/foo", False, None),
        ("a/*.c", "a/x.c", False, True),
        ("a/*.c", "a/b/x.c", False, None),
        ("**/logs", "x/y/logs", True, True),
        ("a/**", "a/b/c", False, True),
        ("a/**", "a", True, None),
        ("a/**/b", "a/b", False, True),
        ("a/**/b", "a/x/y/b", False, True),
        ("[abc].txt", "b.txt", False, True),
        ("[!abc].txt", "b.txt", False, None),
        ("[a-c]?.txt", "bz.txt", False, True),
        ("\\!x", "!x", False, True),
        ("\\#x", "#x", False, True),
        ("# comment", "# comment", False, None),
        ("trailing  ", "trailing", False, True),
        ("data.2024", "dataX2024", False, None),
        ("[z-a]", "b", False, None),
        ("[", "[", False, True),
    ],
)
def test_gitignore_patterns(pattern: str, path: str, is_folder: bool, expected: bool | None) -> None:
    assert IgnoreRules([pattern]).verdict(path, is_folder) is expected


def test_globs_and_stdin(tmp_path: Path) -> None:
    make(tmp_path, "a/x.txt", "b/y.txt", "b/z.md")
    found = discover([f"{tmp_path}/**/*.txt", "-"])
    assert [Path(f.path).name for f in found.files] == ["x.txt", "y.txt", "-"] or found.files[
        0
    ].name == "<stdin>"
    assert {f.name for f in found.files if f.stream} == {"<stdin>"}


def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    make(tmp_path, "a/x.txt")
    assert len(discover([tmp_path, tmp_path / "a", tmp_path / "a/x.txt"]).files) == 1
    assert discover([tmp_path, tmp_path / "a/x.txt"]).files[0].explicit


@pytest.mark.parametrize("source", ["nothing.txt", "*.nothing"])
def test_what_does_not_exist_is_an_error(tmp_path: Path, source: str) -> None:
    make(tmp_path, "nothin.txt")
    with pytest.raises(UsageError) as error:
        discover([tmp_path / source])
    assert ("Did you mean" in str(error.value)) == (source == "nothing.txt")


def test_not_read_is_grouped_with_the_command_that_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ownlm.corpus.kinds.installed", lambda package: False)
    make(tmp_path, "a.txt")
    (tmp_path / "p1.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0")
    (tmp_path / "p2.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\0")
    (tmp_path / "d.pdf").write_bytes(b"%PDF-1.7\n" + bytes(500))
    (tmp_path / "t.parquet").write_bytes(b"PAR1" + bytes(300))
    (tmp_path / "z.jsonl.zst").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(50))
    (tmp_path / "s.zip").write_bytes(b"PK\x03\x04" + bytes(20))
    (tmp_path / "blob").write_bytes(bytes(100))
    (tmp_path / "empty.txt").touch()
    rows = {reason: (files, size, do) for reason, files, size, do in explain(discover([tmp_path]).not_read)}
    assert rows[".png: image, not text"][:2] == (2, 23)
    assert rows[".pdf"] == (1, 509, "pip install 'ownlm[documents]'")
    assert rows[".parquet without pyarrow"][2] == "pip install 'ownlm[data]'"
    assert rows[".zst without zstandard"][2] == "pip install 'ownlm[data]'"
    assert rows[".zip: archive"][2] == "unzip FILE -d FOLDER"
    assert rows["no extension: not text (zero bytes)"][0] == 1
    assert rows["empty file"] == (1, 0, "")


@pytest.mark.parametrize("name", ["a.tar.gz", "it's a.zip"])
def test_the_command_for_an_archive_makes_its_text_readable(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "my texts"
    make(tmp_path, "inner.txt")
    folder.mkdir()
    if name.endswith("zip"):
        with zipfile.ZipFile(folder / name, "w") as packed:
            packed.write(tmp_path / "inner.txt", "inner.txt")
    else:
        with tarfile.open(folder / name, "w:gz") as packed:
            packed.add(tmp_path / "inner.txt", "inner.txt")
    (group,) = discover([folder]).not_read
    command = kinds.with_file(group.do, group.examples[0])
    if shutil.which(command.split()[0]) is None:
        pytest.skip(f"{command.split()[0]} is not installed")
    subprocess.run(command, shell=True, check=True, capture_output=True)
    assert [Path(file.path).name for file in discover([folder]).files] == ["inner.txt"]


def test_the_command_for_an_unknown_encoding_makes_the_text_readable(tmp_path: Path) -> None:
    if shutil.which("iconv") is None:
        pytest.skip("iconv is not installed")
    text = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。" * 9
    (tmp_path / "my cat.txt").write_bytes(text.encode("shift_jis"))
    (group,) = discover([tmp_path]).not_read
    command = kinds.with_file(group.do, group.examples[0]).replace("ENCODING", "SHIFT_JIS")
    subprocess.run(command, shell=True, check=True)
    (file,) = discover([tmp_path]).files
    assert Path(file.path).read_text(encoding="utf-8") == text


def test_folders_that_programs_made_are_not_entered_unless_they_are_typed(tmp_path: Path) -> None:
    make(tmp_path, "a.txt", "c/corpus.json", "c/tokenizer.json", "c/x.txt", "r/run.json", "r/config.json")
    make(tmp_path, "v/pyvenv.cfg", "mine/corpus.json")
    found = discover([tmp_path])
    assert [Path(file.path).name for file in found.files] == ["a.txt", "corpus.json"]
    assert sorted(group.reason.partition(" (")[0] for group in found.not_read) == [
        "corpus of ownlm",
        "run of ownlm",
        "virtual environment",
    ]
    assert [Path(file.path).name for file in discover([tmp_path / "c"]).files][-1] == "x.txt"


def test_a_typed_file_that_is_not_text_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0")
    with pytest.raises(UsageError, match="image, not text"):
        discover([tmp_path / "x.png"])


def test_kind_and_compression_go_by_content_and_inner_name(tmp_path: Path) -> None:
    import gzip

    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "x"}\n'))
    (tmp_path / "b.txt").write_bytes(gzip.compress(b"gzip without the name"))
    (tmp_path / "c.gz").write_text("the name without gzip")
    assert [(f.kind, f.compression) for f in discover([tmp_path]).files] == [
        ("jsonl", "gzip"),
        ("text", "gzip"),
        ("text", None),
    ]


def test_links_stay_inside_the_folder(tmp_path: Path) -> None:
    make(tmp_path, "in/real.txt", "in/.store/kept.txt", "out/secret.txt")
    try:
        (tmp_path / "in/again.txt").symlink_to(tmp_path / "in/real.txt")
    except OSError:
        pytest.skip("no symbolic links here")
    (tmp_path / "in/kept.txt").symlink_to(tmp_path / "in/.store/kept.txt")
    (tmp_path / "in/leak.txt").symlink_to(tmp_path / "out/secret.txt")
    (tmp_path / "in/leak").symlink_to(tmp_path / "out")
    (tmp_path / "in/loop").symlink_to(tmp_path / "in")
    (tmp_path / "in/dead.txt").symlink_to("nowhere")
    found = discover([tmp_path / "in"])
    assert [Path(f.path).name for f in found.files] == ["kept.txt", "real.txt"]
    reasons = {n.reason: n.files for n in found.not_read if not n.by_rule}
    assert reasons == {
        "symbolic link that leads outside the folder": 2,
        "symbolic link that leads nowhere": 1,
    }


def test_unreadable_files_are_counted(tmp_path: Path) -> None:
    make(tmp_path, "a.txt", "locked.txt")
    (tmp_path / "locked.txt").chmod(0)
    if os.access(tmp_path / "locked.txt", os.R_OK):
        pytest.skip("this user may read everything")
    assert "cannot be read" in discover([tmp_path]).not_read[0].reason


def test_a_pipe_is_a_stream(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes here")
    os.mkfifo(tmp_path / "pipe")
    assert discover([tmp_path / "pipe"]).files[0].stream
    assert discover([tmp_path]).files == []
