"""What a server takes on, and clients that leave."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from ownlm.server.limits import Limits
from ownlm.server.record import Record
from tests.server.conftest import CONTEXT
from tests.server.live import CHAT, Live, error_of, live, wait_until

ROUTE = "/v1/completions"
LONG = {"prompt": "The quick", "max_tokens": CONTEXT - 10, "ignore_eos": True, "seed": 1}


@pytest.fixture
def slow(monkeypatch):
    """Steps of the engine take 20 ms."""
    from ownlm.engine.engine import Engine

    step = Engine.step

    def slowly(self):
        time.sleep(0.02)
        return step(self)

    monkeypatch.setattr(Engine, "step", slowly)


def opened(server: Live, body: dict[str, object], path: str = ROUTE) -> socket.socket:
    """A connection that has asked and does not read."""
    host, port = server.url.removeprefix("http://").split(":")
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    raw = socket.create_connection((host, int(port)), timeout=10)
    raw.sendall(head.encode() + data)
    return raw


def running(server: Live) -> int:
    return server.state.models.drivers[0].engine.usage.running


def test_the_queue_is_full(model_folder, slow):
    with live(model_folder, Limits(concurrent=1, queue=1)) as small:
        first = opened(small, LONG)
        assert wait_until(lambda: running(small) == 1)
        second = opened(small, LONG | {"max_tokens": 2})
        assert wait_until(lambda: small.state.gate.waiting == 1)
        answer = small.post(ROUTE, prompt="The", max_tokens=1)
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        assert "1 requests run and 1 wait" in error_of(answer)["message"]
        assert running(small) == 1
        for path in ("/health", "/v1/models", "/metrics"):
            assert small.client.get(path).status_code == 200
        assert b"200 OK" in second.recv(100)
        assert b"200 OK" in first.recv(100)
        first.close(), second.close()
        assert small.ok(ROUTE, prompt="The", max_tokens=1)


def test_whoever_waits_is_served_in_order(model_folder, slow):
    with live(model_folder, Limits(concurrent=1, queue=8)) as small:
        done: list[int] = []

        def ask(number: int) -> None:
            small.ok(ROUTE, prompt="The", max_tokens=3)
            done.append(number)

        with ThreadPoolExecutor(5) as pool:
            for number in range(5):
                pool.submit(ask, number)
                assert wait_until(
                    lambda n=number: small.state.gate.running + small.state.gate.waiting + len(done) > n
                )
        assert done == [0, 1, 2, 3, 4]
        assert small.idle()


def test_an_answer_has_so_many_tokens_at_most(model_folder):
    with live(model_folder, Limits(new_tokens=5)) as short:
        error = short.refused(ROUTE, prompt="The", max_tokens=6)
        assert "6 tokens were asked for; this server gives 5 at most" in error["message"]
        found = short.ok("/v1/chat/completions", messages=CHAT, ignore_eos=True)
        assert found["usage"]["completion_tokens"] == 5
        assert short.ok(ROUTE, prompt="The", ignore_eos=True)["usage"]["completion_tokens"] == 5


def test_a_body_that_is_too_large(model_folder):
    with live(model_folder, Limits(body_bytes=2000)) as small:
        answer = small.post(ROUTE, prompt="x" * 3000)
        assert answer.status_code == 413
        assert "larger than 2,000 bytes" in error_of(answer)["message"]
        pieces = (b'{"prompt":"' if i == 0 else b"x" * 100 for i in range(100))  # without a length in front
        answer = small.client.post(ROUTE, content=pieces, headers={"content-type": "application/json"})
        assert answer.status_code == 413
        assert small.ok(ROUTE, prompt="x", max_tokens=1)


def test_the_time_is_over(model_folder, slow):
    with live(model_folder, Limits(seconds=0.5)) as hurried:
        answer = hurried.post(ROUTE, **LONG)
        assert answer.status_code == 408
        assert answer.headers["x-should-retry"] == "false"
        assert "longer than 0.5 seconds" in error_of(answer)["message"]
        with hurried.client.stream("POST", ROUTE, json=LONG | {"stream": True}) as stream:
            lines = [line for line in stream.iter_lines() if line]
        assert stream.status_code == 200
        assert json.loads(lines[-2].removeprefix("data: "))["error"]["code"] == "timeout"
        assert lines[-1] == "data: [DONE]"
        raw = opened(hurried, {})
        raw.close()
        assert hurried.idle()


def test_a_body_that_does_not_come(model_folder):
    with live(model_folder, Limits(seconds=0.3)) as hurried:
        host, port = hurried.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=5) as raw:
            raw.sendall(
                b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: 100\r\n\r\n{"
            )
            assert b"408" in raw.recv(100)


# ---- clients that leave


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", [ROUTE, "/v1/chat/completions"])
def test_a_client_that_leaves_while_it_is_answered(model_folder, slow, stream, path):
    with live(model_folder) as left:
        asked = {k: v for k, v in LONG.items() if k != "prompt"} | {"max_tokens": 80}
        body = (
            asked
            | ({"prompt": "The quick"} if path == ROUTE else {"messages": CHAT})
            | {"stream": stream, "n": 3}
        )
        raw = opened(left, body, path)
        assert wait_until(lambda: running(left) == 3)
        raw.close()
        assert left.idle(0.5), "80 steps would take 1.6 s"
        assert left.state.metrics.finished["abandoned"] == 3
        assert left.ok(ROUTE, prompt="The", max_tokens=1)


def test_a_client_that_leaves_the_queue(model_folder, slow):
    with live(model_folder, Limits(concurrent=1)) as left:
        first = opened(left, LONG)
        assert wait_until(lambda: running(left) == 1)
        second = opened(left, LONG)
        assert wait_until(lambda: left.state.gate.waiting == 1)
        second.close()
        assert wait_until(lambda: left.state.gate.waiting == 0, 0.5)
        assert running(left) == 1
        first.close()
        assert left.idle(0.5)


def test_a_client_that_leaves_while_its_prompt_is_read(model_folder, slow, monkeypatch):
    from ownlm.engine import engine

    monkeypatch.setattr(engine, "STEP_TOKENS", 2)
    with live(model_folder) as left:
        left.state.models.drivers[0].engine._scheduler.step_tokens = 2
        ids = list(range(20, 20 + 100))  # 50 steps, a second
        raw = opened(left, {"prompt": ids, "max_tokens": 5})
        assert wait_until(lambda: running(left) == 1)
        raw.close()
        assert left.idle(0.4)


@pytest.mark.parametrize("path", ["/v1/tasks/translate", "/v1/embeddings"])
def test_a_client_that_leaves_another_route(model_folder, slow, path):
    with live(model_folder) as left:
        left.state.models.drivers[0].engine._scheduler.step_tokens = 2
        body = {"input": "The quick brown fox"} | ({"to": "de"} if "tasks" in path else {})
        raw = opened(left, body, path)
        assert wait_until(lambda: running(left) >= 1)
        raw.close()
        assert left.idle(1.0)


@pytest.mark.parametrize("n", [1, 2])
def test_after_a_stop_text_nothing_is_computed(model_folder, slow, n):
    with live(model_folder) as server:
        fields = LONG | {"temperature": 0, "n": n}
        begin = server.ok(ROUTE, **fields | {"max_tokens": 8})["choices"][0]["text"]
        found = server.ok(ROUTE, **fields, stop=begin[:3])
        assert {choice["stop_reason"] for choice in found["choices"]} == {begin[:3]}
        assert server.idle(0.5), "118 steps would take 2.4 s"


def test_a_silent_stream_is_kept_open(model_folder, monkeypatch):
    from ownlm.engine.engine import Engine

    step = Engine.step
    go = threading.Event()

    def waiting(self):
        go.wait(10)
        return step(self)

    monkeypatch.setattr(Engine, "step", waiting)
    with (
        live(model_folder, Limits(ping_seconds=0.1)) as quiet,
        quiet.client.stream("POST", ROUTE, json={"prompt": "The", "stream": True, "max_tokens": 2}) as stream,
    ):
        lines = stream.iter_lines()
        assert next(lines) == ": ping"
        go.set()
        assert [line for line in lines if line][-1] == "data: [DONE]"


def test_a_client_that_does_not_read_its_stream(monkeypatch):
    """What is sent waits for ever: the request ends all the same."""
    from ownlm.server import streaming

    monkeypatch.setattr(streaming, "READING_SECONDS", 0.1)
    ended = []
    call = SimpleNamespace(time_left=0.0, record=Record(), close=lambda: ended.append(True))

    async def nothing():
        yield b"data: {}"

    async def stuck(message):
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    stream = streaming.EventStream(call, b"first", nothing())
    asyncio.run(asyncio.wait_for(stream({}, None, stuck), 5))
    assert ended == [True]
    assert call.record.finish == ["not read"]


# ---- what breaks


def test_a_step_that_fails_ends_what_ran_and_the_server_goes_on(model_folder, monkeypatch, capsys):
    from ownlm.engine.engine import Engine

    step = Engine.step
    broken = threading.Event()
    broken.set()

    def failing(self):
        if broken.is_set():
            raise RuntimeError("boom")
        return step(self)

    monkeypatch.setattr(Engine, "step", failing)
    with live(model_folder) as server:
        answer = server.post(ROUTE, prompt="The")
        assert answer.status_code == 500
        assert "boom" not in answer.text
        assert error_of(answer)["type"] == "server_error"
        assert server.post("/v1/embeddings", input="The").status_code == 500
        broken.clear()
        assert server.ok(ROUTE, prompt="The", max_tokens=1)
        assert server.idle()
    assert "boom" in capsys.readouterr().err


def test_a_handler_that_fails_is_answered_without_its_words(model_folder, monkeypatch, capsys):
    from ownlm.server import completions

    monkeypatch.setattr(completions, "text_prompts", lambda *_: 1 / 0)
    with live(model_folder) as server:
        answer = server.post(ROUTE, {"x-request-id": "mine"}, prompt="The")
        assert answer.status_code == 500
        assert "ZeroDivision" not in answer.text
        assert answer.headers["x-request-id"] == "mine"
        error_of(answer)
        assert server.client.get("/health").status_code == 200
    shown = capsys.readouterr().err
    assert "request mine" in shown
    assert "ZeroDivisionError" in shown


def test_weights_that_give_no_numbers_are_told_without_a_wish_to_repeat(model_folder, monkeypatch):
    import numpy as np

    from ownlm.engine.native_backend import NativeBackend
    from ownlm.engine.torch_backend import TorchBackend

    for backend in (NativeBackend, TorchBackend):
        compute = backend.compute
        monkeypatch.setattr(
            backend,
            "compute",
            lambda self, pieces, compute=compute: [rows * np.nan for rows in compute(self, pieces)],
        )
    with live(model_folder) as server:
        for stream in (False, True):
            answer = server.post(ROUTE, prompt="The", stream=stream)
            assert answer.status_code == 400
            assert error_of(answer)["code"] == "model_failure"
        assert server.idle()
