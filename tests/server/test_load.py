"""Many clients, and many that leave: nothing is lost, nothing differs, the server answers."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from ownlm.server.limits import Limits
from tests.server.conftest import CONTEXT
from tests.server.live import CHAT, live, wait_until
from tests.server.test_limits import opened

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
ROUTE = "/v1/completions"


def test_after_200_abandoned_requests_a_new_one_is_answered(model_folder, monkeypatch):
    from ownlm.engine.engine import Engine

    step = Engine.step

    def slowly(self):
        time.sleep(0.01)
        return step(self)

    monkeypatch.setattr(Engine, "step", slowly)
    with live(model_folder, Limits(queue=1000)) as server:
        body = {"prompt": "The quick", "max_tokens": CONTEXT - 10, "ignore_eos": True}
        connections = [opened(server, body | {"stream": bool(i % 2), "n": 1 + i % 3}) for i in range(200)]
        assert wait_until(lambda: server.state.gate.running + server.state.gate.waiting > 100, 60)
        time.sleep(0.5)
        for connection in connections:
            connection.close()
        begin = time.monotonic()
        assert server.ok(ROUTE, prompt="The", max_tokens=2)
        assert time.monotonic() - begin < 5
        assert server.idle()
        assert server.state.models.drivers[0].engine.usage.blocks_in_use == 0


def test_64_clients_for_two_minutes(model_folder):
    """Each asks what another has asked before, as a stream or not: the text is the same, and nothing is lost."""
    seconds, clients, kinds = 120.0, 64, 40
    with live(model_folder, Limits(concurrent=48, queue=64)) as server:
        asked = [
            (ROUTE, {"prompt": f"The quick {i}", "max_tokens": 5 + i, "seed": i, "n": 1 + i % 2}) if i % 3
            else ("/v1/chat/completions", {"messages": CHAT, "max_tokens": 5 + i, "seed": i})
            for i in range(kinds)
        ]  # fmt: skip
        alone = [texts(server.ok(path, **body)) for path, body in asked]
        end = time.monotonic() + seconds
        counted = [0] * clients
        wrong: list[object] = []

        def client(number: int) -> None:
            with httpx.Client(base_url=server.url, timeout=600) as mine:
                while time.monotonic() < end and not wrong:
                    kind = (number * 7 + counted[number] * 13) % kinds
                    path, body = asked[kind]
                    stream = bool((number + counted[number]) % 2)
                    found = ask(mine, path, body, stream)
                    if found != alone[kind]:
                        wrong.append((kind, stream, found, alone[kind]))
                    counted[number] += 1

        with ThreadPoolExecutor(clients) as pool:
            for done in [pool.submit(client, number) for number in range(clients)]:
                done.result()
        assert wrong == []
        assert min(counted) > 0
        assert server.state.metrics.statuses[200] >= sum(counted)
        assert set(server.state.metrics.statuses) == {200}
        assert server.idle()
        assert threading.active_count() < 64


def texts(answer: dict[str, object]) -> list[str]:
    choices: list[dict[str, object]] = answer["choices"]  # type: ignore[assignment]
    return [str(c["text"] if "text" in c else c["message"]["content"]) for c in choices]  # type: ignore[index]


def ask(client: httpx.Client, path: str, body: dict[str, object], stream: bool) -> list[str]:
    if not stream:
        answer = client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return texts(answer.json())
    found = [""] * int(body.get("n", 1))  # type: ignore[call-overload]
    with client.stream("POST", path, json=body | {"stream": True}) as answer:
        assert answer.status_code == 200
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    for line in lines[:-1]:
        (choice,) = json.loads(line)["choices"]
        found[choice["index"]] += choice["text"] if "text" in choice else choice["delta"].get("content", "")
    return found
