"""What must not be fetched is not: no access, no use, hostile listings, other bytes than announced."""

from __future__ import annotations

import hashlib
import json

import pytest

from ownlm import hub_listing
from ownlm.cli import main
from ownlm.console.errors import OwnlmError, Refused
from ownlm.loaded import resolve
from tests.hub.conftest import NAME
from tests.hub.folders import FETCHED, names, no_bytes_kept
from tests.hub.state import TOKEN, git_hash

# ---- no


def test_no_such_repository(hub, capsys):
    assert main(["generate", "tester/tinny", "The"]) == 2
    said = capsys.readouterr().err
    assert "has no model of this name" in said and "no token was sent" in said and "hf auth login" in said


def test_a_gated_repository(hub, monkeypatch, capsys, tmp_path):
    hub.repositories[NAME].gated = True
    assert main(["generate", NAME, "The"]) == 2
    said = capsys.readouterr().err
    assert "gated" in said and f"{hub.endpoint}/{NAME}" in said and "HF_TOKEN" in said
    assert not any((tmp_path / "home").rglob("snapshots"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert names(resolve(NAME)) == FETCHED


def test_the_token_goes_to_the_hub_and_not_to_its_cdn(hub, monkeypatch):
    hub.repositories[NAME].private = True
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    resolve(NAME)
    assert hub.asked("/resolve/") and hub.asked("/cdn/")
    for request in hub.requests:
        sent = request.headers.get("authorization")
        assert sent == (None if request.path.startswith("/cdn/") else f"Bearer {TOKEN}")


def test_the_hub_learns_nothing_about_this_machine(hub):
    from ownlm import __version__

    resolve(NAME)
    assert {request.headers["user-agent"] for request in hub.requests} == {f"ownlm/{__version__}"}


def test_access_that_is_refused(hub, capsys):
    hub.status = [("/api/", 403, {"X-Error-Message": "your address is blocked"})]
    assert main(["generate", NAME, "The"]) == 2
    assert "your address is blocked" in capsys.readouterr().err


def test_a_listed_file_that_is_not_there(hub):
    hub.status = [("/resolve/.*/tokenizer.json", 404, {"X-Error-Code": "EntryNotFound"})]
    with pytest.raises(OwnlmError, match="lists a file that it does not have") as error:
        resolve(NAME)
    assert error.value.exit_code == 1


@pytest.mark.parametrize(
    ("missing", "added", "match"),
    [
        ("config.json", {}, "has no config.json"),
        ("model.safetensors", {}, r"only pickled weights \(pytorch_model.bin\)"),
        ("model.safetensors", {"pytorch_model.bin": None, "m.gguf": b"x"}, "another format"),
        ("model.safetensors", {"pytorch_model.bin": None}, "no weights"),
    ],
)
def test_repositories_that_are_no_use(hub, model_files, tmp_path, missing, added, match):
    files = {name: data for name, data in model_files.items() if name != missing} | added
    hub.add(NAME, {name: data for name, data in files.items() if data is not None})
    with pytest.raises(Refused, match=match):
        resolve(NAME)
    assert not hub.asked("/resolve/") and no_bytes_kept(tmp_path)


# ---- hostile


@pytest.mark.parametrize(
    "name",
    ["../evil.json", "/etc/evil.json", "a/../../evil.json", "..\\evil.json", "C:\\evil.json", "C:evil.json", "a\nb.json",
     "~/evil.json", "./evil.json"],
)  # fmt: skip
def test_names_that_lead_outside(hub, model_files, tmp_path, name):
    hub.add(NAME, {**model_files, name: b"evil"})
    with pytest.raises(Refused, match="outside"):
        resolve(NAME)
    assert not hub.asked("/resolve/")
    assert not list(tmp_path.rglob("*evil*"))


def test_names_that_are_one_on_some_disks(hub, model_files):
    hub.add(NAME, {**model_files, "Config.json": b"{}"})
    with pytest.raises(Refused, match="case"):
        resolve(NAME)


@pytest.mark.parametrize(
    ("name", "row", "match"),
    [
        (
            "model.safetensors",
            {"lfs": {"sha256": "0" * 64, "size": 10**18, "pointerSize": 1}},
            "1000000.0 TB",
        ),
        ("config.json", {"size": 10**12}, "no text of a model"),
        ("config.json", {"size": -1}, "without a size"),
        ("config.json", {"size": "many"}, "without a size"),
        ("config.json", {"blobId": "../../evil"}, "without a hash"),
        ("model.safetensors", {"lfs": {}}, "without a size"),
        ("config.json", {"rfilename": None}, "without a name"),
    ],
)
def test_absurd_rows(hub, tmp_path, name, row, match):
    hub.listed = {name: row}
    with pytest.raises(Refused, match=match):
        resolve(NAME)
    assert not hub.asked("/resolve/") and no_bytes_kept(tmp_path)


def test_a_listing_that_is_too_large_or_too_long(hub, model_files, monkeypatch):
    monkeypatch.setattr(hub_listing, "MAX_FILES", len(model_files) - 1)
    with pytest.raises(Refused, match=f"lists {len(model_files)} files"):
        resolve(NAME)
    monkeypatch.setattr(hub_listing, "MAX_ANSWER_BYTES", 100)
    with pytest.raises(Refused, match="larger than"):
        resolve(NAME)


def test_an_endpoint_that_is_no_hub(hub, monkeypatch):
    from tests.hub.server import Handler

    monkeypatch.setattr(Handler, "info", lambda self, *_, body: self._bytes(200, b"<html>", {}))
    monkeypatch.setattr(Handler, "ROUTES", ((r"/api/models/.*", Handler.info),))
    with pytest.raises(Refused, match="not a hub's list"):
        resolve(NAME)


def damaged(data: bytes, how: str) -> bytes:
    return {"other": data[:-1] + b"\xff", "shorter": data[:-7], "longer": data + b"more", "empty": b""}[how]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("how", ["other", "shorter", "longer", "empty"])
def test_other_bytes_than_announced(hub, model_files, tmp_path, name, how):
    hub.replaced = {name: damaged(model_files[name], how)}
    with pytest.raises(Refused, match=f"{name} has (other|more|fewer) bytes"):
        resolve(NAME)
    digest = git_hash(model_files[name])
    digest = hashlib.sha256(model_files[name]).hexdigest() if name.endswith("safetensors") else digest
    assert not [path for path in (tmp_path / "home").rglob(f"{digest}*") if path.suffix != ".lock"]
    assert not any((tmp_path / "home").rglob("snapshots"))
    hub.replaced = {}
    assert json.loads((resolve(NAME) / "config.json").read_text())  # the next try is not spoilt
