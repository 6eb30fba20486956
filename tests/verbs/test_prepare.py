"""`prepare` as a link of the chain: what it closes with is a command that goes on, from every kind of call."""

from __future__ import annotations

import io
import json
import shlex
import sys

import ownlm
from ownlm.cli import main
from ownlm.corpus.shards import Corpus


def test_the_closing_command_trains_on_the_corpus(text_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", str(text_folder), "-o", "my corpus", "--vocab-size", "400"]) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    (command,) = [shlex.split(line) for line in shown.err.partition("Next:\n")[2].splitlines()]
    assert command[:3] == ["ownlm", "pretrain", "my corpus"]
    assert main([*command[1:], "--max-steps", "0", "--size", "1M", "--threads", "1"]) == 0
    assert (
        json.loads((tmp_path / "run/run.json").read_text(encoding="utf-8"))["data"]["hash"]
        == Corpus.open(tmp_path / "my corpus").hash
    )


def test_command_line_settings_file_and_python_make_the_same_corpus(text_folder, tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text(
        f"sources: ['{text_folder}']\nvocab_size: 400\nvalidation: ['tail:0.2']\nseed: 3\n", encoding="utf-8"
    )
    words = [str(text_folder), "--vocab-size", "400", "--validation", "tail:0.2", "--seed", "3"]
    assert main(["prepare", *words, "-o", str(tmp_path / "a")]) == 0
    assert main(["prepare", "-c", str(file), "-o", str(tmp_path / "b")]) == 0
    c = ownlm.prepare(text_folder, output=tmp_path / "c", vocab_size=400, validation="tail:0.2", seed=3)
    assert Corpus.open(tmp_path / "a").hash == Corpus.open(tmp_path / "b").hash == c.hash
    plain = ownlm.prepare(text_folder, output=tmp_path / "d", vocab_size=400)
    assert plain.hash != c.hash


def test_json_is_the_manifest_and_the_only_thing_on_standard_output(tmp_path, capsys, monkeypatch):
    text = "".join(f"{i}: The fox runs home.\n" for i in range(200))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert main(["prepare", "-", "-o", str(tmp_path / "c"), "--vocab-size", "300", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == Corpus.open(tmp_path / "c").manifest
    sizes = [Corpus.open(tmp_path / "c").split(name).num_bytes for name in ("train", "validation")]
    assert sum(sizes) == len(text.encode())
