"""`push` and `export --to` send a folder to the hub."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time

import pytest

import ownlm
from ownlm.cli import main
from ownlm.console.errors import OwnlmError, Refused, UsageError
from ownlm.export.push import push
from tests.hub.conftest import NAME, use
from tests.hub.server import closed_port, silent_port
from tests.hub.state import TOKEN


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def test_nothing_is_asked_about_the_program_that_calls(hub, run, token, tmp_path, monkeypatch):
    from huggingface_hub import constants
    from huggingface_hub.utils import _detect_agent

    monkeypatch.setattr(_detect_agent, "_registry", None)  # as in a new process
    monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(tmp_path / "harnesses.json"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    ownlm.export(str(run), tmp_path / "sent")
    push(tmp_path / "sent", "tester/sent", True)
    ownlm.pull("tester/sent", output=tmp_path / "back")
    ownlm.load(NAME)
    assert hub.asked("tester/sent") and not hub.asked("harness")
    agents = {request.headers.get("user-agent", "") for request in hub.requests}
    assert agents and not any("torch/" in agent or "agent/" in agent for agent in agents)


def test_push_then_pull_is_the_same_model(hub, run, token, tmp_path, capsys):
    folder = tmp_path / "sent"
    ownlm.export(str(run), folder)
    (folder / ".env").write_text("SECRET=1")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("x")
    (folder / "below").mkdir()
    (folder / "below" / ".hidden").write_text("x")
    capsys.readouterr()
    assert push(folder, "tester/sent", True) == f"{hub.endpoint}/tester/sent"
    assert capsys.readouterr().err == ""  # no bars off a terminal
    repository = hub.repositories["tester/sent"]
    assert repository.private
    sent = repository.commits[repository.refs["main"]]
    expected = {path.name for path in folder.iterdir() if not path.name.startswith(".")} - {"below"}
    assert set(sent) - {".gitattributes"} == expected
    assert all(sent[name] == (folder / name).read_bytes() for name in expected)
    ownlm.pull("tester/sent", output=tmp_path / "back")
    options = {"max_new_tokens": 8, "seed": 5}
    assert ownlm.load(tmp_path / "back").generate("A", **options) == ownlm.load(run).generate("A", **options)


def test_the_verb_export_outlives_the_folder_export():
    code = "import ownlm, ownlm.export.push, ownlm.export.card; print(ownlm.export.__name__, callable(ownlm.export))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["export", "True"], done.stderr


def test_export_sends_what_it_wrote(hub, run, token, capsys):
    assert main(["export", str(run), "sent", "--to", "hub:tester/new", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["hub"] == f"{hub.endpoint}/tester/new"
    assert (
        "model.safetensors"
        in hub.repositories["tester/new"].commits[hub.repositories["tester/new"].refs["main"]]
    )


def test_a_public_repository_that_was_there_is_said(hub, run, token, tmp_path, capsys):
    ownlm.export(str(run), tmp_path / "sent")
    push(tmp_path / "sent", NAME, True)
    assert "public" in capsys.readouterr().err
    assert not hub.repositories[NAME].private


def test_push_without_a_token(hub, run):
    with pytest.raises(UsageError, match="log in") as error:
        push(run, "tester/new", True)
    assert "HF_TOKEN" in error.value.do and "hf auth login" in error.value.do
    assert hub.requests == []


def test_push_with_a_wrong_token(hub, run, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(UsageError, match="does not know the token"):
        push(run, "tester/new", True)
    assert [request.path for request in hub.requests] == ["/api/whoami-v2"]


def test_push_where_one_may_not_write(hub, run, token):
    hub.status = [("/api/repos/create", 403, {"X-Error-Message": "not your namespace"})]
    with pytest.raises(UsageError, match="not your namespace") as error:
        push(run, "others/new", True)
    assert "right to write" in error.value.do


@pytest.mark.parametrize("kind", ["closed", "silent"])
def test_push_to_nobody(kind, run, token, monkeypatch, tmp_path):
    with silent_port() as silent:
        use(monkeypatch, silent if kind == "silent" else closed_port(), tmp_path)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "1")
        start = time.monotonic()
        with pytest.raises(OwnlmError, match="cannot be reached"):
            push(run, "tester/new", True)
        assert time.monotonic() - start < 2


def test_push_sends_no_pickles_and_nothing_offline(hub, run, token, tmp_path, offline):
    shutil.copytree(run, tmp_path / "sent")
    (tmp_path / "sent" / "optimizer.pt").write_bytes(b"x")
    with pytest.raises(Refused, match=re.escape("optimizer.pt")):
        push(tmp_path / "sent", "tester/new", True)
    offline.on()
    with pytest.raises(UsageError, match="HF_HUB_OFFLINE"):
        push(run, "tester/new", True)
    assert hub.requests == []


def test_a_hub_without_xet(hub, run, token, monkeypatch):
    """huggingface_hub sends through Xet wherever its package is installed; a hub in the house may not have it."""
    from huggingface_hub import constants
    from huggingface_hub.utils._runtime import is_xet_available

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    if not is_xet_available():
        pytest.skip("hf_xet is not installed")
    with pytest.raises(OwnlmError, match="xet") as error:
        push(run, "tester/new", True)
    assert error.value.do.startswith("HF_HUB_DISABLE_XET=1")
