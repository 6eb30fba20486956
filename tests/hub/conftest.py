"""A hub with the small model, and this process as its client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from ownlm import hub_fetch
from tests.hub.server import serve
from tests.hub.state import Hub

NAME = "tester/tiny"


def use(monkeypatch: pytest.MonkeyPatch, endpoint: str, home: Path) -> None:
    """Let huggingface_hub talk to an endpoint; it reads the environment once, when it is imported."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HOME", str(home))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_ETAG_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(hub_fetch, "PAUSE_SECONDS", 0.01)


@pytest.fixture(scope="session")
def model_files(run: Path) -> dict[str, bytes]:
    """The small run as a repository has it, with code, a pickle and a folder beside it."""
    names = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md")
    files = {name: (run / name).read_bytes() for name in names}
    files["LICENSE"] = b"Do what you like.\n"
    files["modeling_tiny.py"] = b"raise SystemExit('code of the repository ran')\n"
    files["pytorch_model.bin"] = b"not to be fetched"
    files["onnx/config.json"] = b"{}"
    return files


@pytest.fixture
def hub(model_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A running hub with the model under NAME; the current folder is empty."""
    with serve() as running:
        running.add(NAME, model_files)
        use(monkeypatch, running.endpoint, tmp_path / "home")
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        yield running


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """`offline.on()` is HF_HUB_OFFLINE=1 from then on."""
    from huggingface_hub import constants

    return SimpleNamespace(on=lambda: monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True))
