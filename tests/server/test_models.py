"""Served models by name, what is asked of the server itself, embeddings, tokens, tasks."""

from __future__ import annotations

import base64
from types import SimpleNamespace

import numpy as np
import pytest

from ownlm.console.errors import Refused, UsageError
from ownlm.server.models import adapter_names
from ownlm.server.page import POLICY
from ownlm.server.served import check_names
from tests.server.conftest import CONTEXT
from tests.server.live import Live, error_of, live


def test_the_served_models(server):
    found = server.client.get("/v1/models").json()
    assert found["object"] == "list"
    (model,) = found["data"]
    assert (model["id"], model["object"], model["max_model_len"]) == ("run", "model", CONTEXT)
    assert model["taught"] == ["continues text"]
    assert server.client.get("/v1/models/run").json() == model
    answer = server.client.get("/v1/models/other")
    assert answer.status_code == 404
    assert error_of(answer)["code"] == "model_not_found"


def test_names(model_folder, server):
    error = server.refused("/v1/completions", 404, model="ran", prompt="x")
    assert 'Did you mean "run"?' in error["message"]
    assert server.ok("/v1/completions", model="run", prompt="x", max_tokens=1)["model"] == "run"
    with live(model_folder, name="owner/my-model:7b") as named:
        assert named.ok("/v1/completions", prompt="x", max_tokens=1)["model"] == "owner/my-model:7b"
        assert named.client.get("/v1/models/owner/my-model:7b").json()["id"] == "owner/my-model:7b"
        assert named.refused("/v1/completions", 404, model="run", prompt="x")
    for bad in (["a b"], ["a", "a"], [""]):
        with pytest.raises(Refused):
            check_names(bad)


def test_adapters_as_they_are_typed():
    assert adapter_names(["fr=runs/fr", "de=a=b"]) == {"fr": "runs/fr", "de": "a=b"}
    for given in (["fr"], ["=x"], ["fr="], ["a=b", "a=c"]):
        with pytest.raises(UsageError):
            adapter_names(given)


def test_health_version_and_openapi(server):
    health = server.client.get("/health")
    assert (health.status_code, health.content) == (200, b"")
    assert server.client.get("/version").json()["version"]
    document = server.client.get("/openapi.json").json()
    assert document["paths"]["/v1/completions"]["post"]["requestBody"]["required"]
    assert "$ref" not in str(document["paths"])


def test_metrics_count(server):
    def value(name: str) -> float:
        lines = server.client.get("/metrics").text.splitlines()
        return next(float(line.split()[-1]) for line in lines if line.startswith(f"ownlm:{name}"))

    between = value("inter_token_latency_seconds_count")
    server.ok("/v1/completions", prompt="The quick", max_tokens=4, ignore_eos=True, n=3)
    assert value("inter_token_latency_seconds_count") == between + 3 * 3
    before = (
        value("generation_tokens_total"),
        value("prompt_tokens_total"),
        value("time_to_first_token_seconds_count"),
    )
    server.ok("/v1/completions", prompt="The quick", max_tokens=7, ignore_eos=True)
    assert value("generation_tokens_total") == before[0] + 7
    assert value("prompt_tokens_total") == before[1] + 6
    assert value("time_to_first_token_seconds_count") == before[2] + 1
    assert value("num_requests_running") == 0
    for line in server.client.get("/metrics").text.splitlines():
        assert line.startswith("# ") or float(line.rpartition(" ")[2]) >= 0


def test_a_dead_engine_is_not_healthy(model_folder):
    with live(model_folder) as server:
        server.state.models.drivers[0].stop()
        answer = server.client.get("/health")
        assert answer.status_code == 503
        error_of(answer)


def test_the_page_or_what_can_be_asked(server):
    answer = server.client.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"] == POLICY
    assert "script-src 'self'" in POLICY
    assert "unsafe" not in POLICY
    for path in (
        "/page/none.js",
        "/page/../page.py",
        "/page/%2e%2e/page.py",
        "/page//etc/passwd",
        "/page/",
        "/page/a%00.js",
    ):
        assert server.client.get(path).status_code == 404, path


# ---- embeddings


def test_embeddings_are_the_engines_means_of_length_1(server, model_folder):
    import ownlm

    found = server.ok("/v1/embeddings", input=["The quick", "A river"], model="run")
    assert found["object"] == "list"
    assert [one["index"] for one in found["data"]] == [0, 1]
    ids = server.ok("/tokenize", prompt="The quick")["tokens"]
    own = ownlm.load(model_folder).engine.embed([ids])[0]
    assert found["data"][0]["embedding"] == pytest.approx((own / np.linalg.norm(own)).tolist(), abs=1e-6)
    alone = server.ok("/v1/embeddings", input="The quick")["data"]
    assert alone == found["data"][:1]
    assert server.ok("/v1/embeddings", input=ids)["data"] == alone
    assert found["usage"]["prompt_tokens"] == found["usage"]["total_tokens"] == 6 + 4


def test_embeddings_in_base64_and_shorter(server):
    numbers = server.ok("/v1/embeddings", input="The")["data"][0]["embedding"]
    packed = server.ok("/v1/embeddings", input="The", encoding_format="base64")["data"][0]["embedding"]
    assert np.frombuffer(base64.b64decode(packed), "<f4").tolist() == numbers
    short = server.ok("/v1/embeddings", input="The", dimensions=8)["data"][0]["embedding"]
    assert np.linalg.norm(short) == pytest.approx(1, abs=1e-5)
    assert np.array(short) == pytest.approx(np.array(numbers[:8]) / np.linalg.norm(numbers[:8]), abs=1e-5)
    assert "this model has 64" in server.refused("/v1/embeddings", input="The", dimensions=65)["message"]
    error = server.refused("/v1/embeddings", input="The quick " * 100)
    assert f"holds {CONTEXT} tokens" in error["message"]
    assert server.refused("/v1/embeddings", input=[])["param"] == "input"


# ---- tokens


def test_tokenize_and_back(server):
    words = "The quick 春眠 <|im_end|>"
    found = server.ok("/tokenize", prompt=words, add_special_tokens=False)
    assert found["count"] == len(found["tokens"]) == len(found["token_strs"])
    assert found["max_model_len"] == CONTEXT
    assert server.ok("/detokenize", tokens=found["tokens"]) == {"prompt": words}
    with_start = server.ok("/tokenize", prompt=words, return_token_strs=False)
    assert with_start["tokens"] == [0, *found["tokens"]]
    assert with_start["token_strs"] is None
    assert server.ok("/tokenize", prompt="", add_special_tokens=False)["tokens"] == []
    assert server.refused("/tokenize")["param"] == "prompt"
    assert server.refused("/detokenize", tokens=[5000])["param"] == "tokens"
    assert server.ok("/detokenize", tokens=[]) == {"prompt": ""}


def test_tokenizer_info(server):
    found = server.client.get("/tokenizer_info").json()
    assert found["eos_token"] == "<|endoftext|>"
    assert found["pad_token"] == "<|pad|>"
    assert found["chat_template"]
    assert server.client.get("/tokenizer_info?model=other").status_code == 404


# ---- tasks

TASKS = {
    "translate": ({"input": ["The fox", "A river"], "to": "de", "from": "en"}, 2),
    "answer": ({"question": "Who runs?", "context": "The fox runs home."}, 1),
    "classify": ({"input": ["good", "bad"], "labels": ["positive", "negative"], "top_k": 2}, 2),
    "summarize": ({"input": "The fox runs home. The hen waits."}, 1),
}


class Able:
    """A model with the methods that tasks call, which note what they were given."""

    def __init__(self, loaded):
        self.loaded, self.given = loaded, []
        self.engine = SimpleNamespace(prompt_tokens=5, new_tokens=7, leave=lambda: None)

    def __getattr__(self, name):
        return getattr(self.loaded, name)

    def translate(self, texts, to, from_=None):
        self.given.append((texts, to, from_))
        return [{"translation_text": text.upper()} for text in texts]

    def read(self, question, context, top_k=1):
        self.given.append((question, context, top_k))
        return [{"answer": "fox", "score": 0.5, "start": 4, "end": 7}]

    def classify(self, texts, labels=None, top_k=1):
        self.given.append((texts, labels, top_k))
        return [[{"label": "positive", "score": 0.9}] for _ in texts]

    def summarize(self, texts):
        self.given.append(texts)
        return [{"summary_text": "Fox."} for _ in texts]


@pytest.mark.parametrize("name", TASKS)
def test_a_task_calls_the_method_of_the_model(server, name, monkeypatch):
    served = server.state.models.first
    able = Able(served.loaded)
    monkeypatch.setattr(served, "loaded", able)
    monkeypatch.setattr(type(served), "for_thread", lambda self: able)
    fields, count = TASKS[name]
    found = server.ok(f"/v1/tasks/{name}", **fields)
    assert found["object"] == f"task.{name}"
    assert len(found["results"]) == count
    assert found["usage"] == {"prompt_tokens": 5, "completion_tokens": 7}
    given = able.given[0]
    wanted = {
        "translate": (["The fox", "A river"], "de", "en"),
        "answer": ("Who runs?", "The fox runs home.", 1),
        "classify": (["good", "bad"], ["positive", "negative"], 2),
        "summarize": ["The fox runs home. The hen waits."],
    }
    assert given == wanted[name]


@pytest.mark.parametrize("name", TASKS)
def test_a_model_that_cannot_do_a_task_says_so(server, name, monkeypatch):
    served = server.state.models.first

    class Unable:
        taught = ("continues text",)

    monkeypatch.setattr(served, "loaded", Unable())
    error = server.refused(f"/v1/tasks/{name}", **TASKS[name][0])
    assert error["code"] == "task_not_supported"
    assert "continues text" in error["message"]


def test_a_task_is_computed_by_the_shared_engine(server):
    """The same text in a thread beside the driver as alone."""
    served = server.state.models.first
    shared = served.for_thread()
    fields = {"max_new_tokens": 20, "seed": 3, "temperature": 1.0, "num_return_sequences": 2}
    assert shared.generate("The quick", **fields) == server_alone(server, fields)
    scores = shared.engine.score([[20, 30, 40], [21, 22]])
    alone = served.loaded.engine
    assert [one.logprobs.tolist() for one in scores] == [
        one.logprobs.tolist() for one in type(alone)(alone.backend).score([[20, 30, 40], [21, 22]])
    ]
    assert shared.engine.prompt_tokens > 0
    assert shared.engine.new_tokens == 40 or shared.engine.new_tokens > 0
    with pytest.raises(Refused):
        shared.generate("The quick " * 100)
    assert server.idle()


def server_alone(server: Live, fields: dict[str, object]) -> object:
    import ownlm

    return ownlm.load(server.state.models.first.loaded.path).generate("The quick", **fields)  # type: ignore[arg-type]
