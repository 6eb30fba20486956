"""Adapters as further models over one base in memory."""

from __future__ import annotations

import ownlm
from tests.server.live import live
from tests.test_adapters import made


def test_each_name_is_its_own_model(model_folder, tmp_path):
    import shutil

    base = tmp_path / "base"
    shutil.copytree(model_folder, base, ignore=shutil.ignore_patterns("checkpoints"))
    folders = {name: made(base, tmp_path / name, seed) for name, seed in (("one", 1), ("two", 2))}
    asked = {"prompt": "The quick", "max_tokens": 12, "seed": 1}
    with live(base, name="base", adapters={name: str(folder) for name, folder in folders.items()}) as server:
        listed = server.client.get("/v1/models").json()["data"]
        assert [(m["id"], m["parent"], m["root"]) for m in listed] == [
            ("base", None, "base"), ("one", "base", "base"), ("two", "base", "base"),
        ]  # fmt: skip
        assert len(server.state.models.drivers) == 1
        texts = {}
        for name, folder in (("base", base), *folders.items()):
            found = server.ok("/v1/completions", model=name, **asked)
            assert found["model"] == name
            texts[name] = found["choices"][0]["text"]
            own = ownlm.load(folder).generate(
                "The quick", max_new_tokens=12, temperature=1.0, seed=1, completion_only=True
            )
            assert texts[name] == own, name
        assert len(set(texts.values())) == 3
        vectors = [
            server.ok("/v1/embeddings", model=name, input="The")["data"][0]["embedding"] for name in texts
        ]
        assert vectors[0] != vectors[1] != vectors[2]
        prints = {server.ok("/v1/completions", model=name, **asked)["system_fingerprint"] for name in texts}
        assert len(prints) == 3
        task = server.ok("/v1/tasks/classify", model="one", input="good", labels=["a", "b"], top_k=2)
        other = server.ok("/v1/tasks/classify", model="base", input="good", labels=["a", "b"], top_k=2)
        assert task["results"] != other["results"]


def test_an_adapter_folder_is_served_with_its_base(model_folder, tmp_path):
    folder = made(model_folder, tmp_path / "one", 1)
    with live(folder, name="one") as server:
        found = server.ok("/v1/completions", prompt="The quick", max_tokens=12, seed=1)["choices"][0]["text"]
        own = ownlm.load(folder)
        assert found == own.generate(
            "The quick", max_new_tokens=12, temperature=1.0, seed=1, completion_only=True
        )
        assert server.client.get("/v1/models").json()["data"][0]["taught"] == ["chat"]
