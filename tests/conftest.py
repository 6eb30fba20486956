"""What every test shares: no network, and small corpora and runs made by the code under test."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from tests.network import isolate

NETWORK = isolate()  # before anything starts a thread: a namespace belongs to the thread that enters it

from pathlib import Path

import pytest


def pytest_report_header() -> str:
    return NETWORK


TALES = {
    "fox.txt": "The quick brown fox jumps over the lazy dog. The dog sleeps, and the fox runs home.\n",
    "river.txt": "A river runs to the sea. Rain falls on the hills, and the river runs again.\n",
    "春.txt": "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。\n",
}


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three short texts, each repeated with numbers so that they differ."""
    folder = tmp_path_factory.mktemp("texts")
    for name, text in TALES.items():
        lines = (f"{number}: {text}" for number in range(120))
        (folder / name).write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def corpus(text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared corpus of the small texts (vocabulary 400)."""
    import ownlm

    path = tmp_path_factory.mktemp("corpus") / "corpus"
    ownlm.prepare([str(text_folder)], output=path, vocab_size=400)
    return path


@pytest.fixture(scope="session")
def run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 30 steps of a very small model on the small corpus."""
    import ownlm

    path = tmp_path_factory.mktemp("run") / "run"
    ownlm.pretrain(corpus, output=path, max_steps=30, **TINY)
    return path


TINY = {
    "size": "1M",
    "context": 32,
    "set": ["num_hidden_layers=2", "hidden_size=64", "intermediate_size=128"],
    "per_device_train_batch_size": 8,
    "dtype": "float32",
    "threads": 1,
}


@pytest.fixture
def tiny() -> dict[str, object]:
    """Settings of a model that trains in a second or two."""
    return dict(TINY)
