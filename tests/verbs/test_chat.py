"""`chat` with a model that was not taught to: what it does instead of answering nonsense."""

from __future__ import annotations

import json
import shlex
import shutil

from ownlm.cli import main


def test_a_model_of_text_alone_is_refused_with_a_command_that_works(run, capsys):
    assert main(["chat", str(run)]) == 3
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "was not taught to chat. What it does: continues text." in shown.err
    command = shlex.split(shown.err.partition("Try: ")[2].splitlines()[0])
    assert command[:3] == ["ownlm", "generate", str(run)]
    assert main([*command[1:], "--max-new-tokens", "2"]) == 0
    assert capsys.readouterr().out.startswith(command[3])


def test_a_checkpoint_knows_what_its_run_was_taught(run, capsys):
    checkpoint = next((run / "checkpoints").iterdir())
    assert main(["chat", str(checkpoint)]) == 3
    assert "What it does: continues text." in capsys.readouterr().err


def test_no_model_is_another_message(tmp_path, capsys):
    assert main(["chat", str(tmp_path / "nothing")]) == 2
    assert "no such run folder" in capsys.readouterr().err


def test_a_model_that_chats_is_not_told_that_it_does_not(run, tmp_path, capsys):
    copy = tmp_path / "a copy"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("checkpoints"))
    content = json.loads((copy / "run.json").read_text(encoding="utf-8"))
    (copy / "run.json").write_text(json.dumps(content | {"taught": ["chat"]}), encoding="utf-8")
    main(["chat", str(copy)])
    assert "not taught to chat" not in capsys.readouterr().err
