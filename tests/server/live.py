"""A server in this process, on a free port of the loopback device, and what tests ask of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from ownlm.server import run
from ownlm.server.access_log import AccessLog
from ownlm.server.app import build
from ownlm.server.call import State
from ownlm.server.front import Access
from ownlm.server.limits import Limits
from ownlm.server.models import open_state

CHAT = [{"role": "user", "content": "The quick"}]


class Live:
    """A server that runs.

    Attributes:
        state: of the server. url: where it answers. client: asks it.
    """

    def __init__(self, state: State, url: str) -> None:
        self.state, self.url = state, url
        self.client = httpx.Client(base_url=url, timeout=60)

    def post(self, path: str, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
        return self.client.post(path, json=fields, headers=headers)

    def ok(self, path: str, **fields: Any) -> Any:
        answer = self.post(path, **fields)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def refused(self, path: str, status: int = 400, **fields: Any) -> dict[str, Any]:
        """The error that a request is answered with."""
        answer = self.post(path, **fields)
        assert answer.status_code == status, answer.text
        return error_of(answer)

    def events(self, path: str, **fields: Any) -> list[Any]:
        """The events of a stream, comments left out."""
        with self.client.stream("POST", path, json=fields | {"stream": True}) as answer:
            assert answer.status_code == 200, answer.read()
            assert answer.headers["content-type"].startswith("text/event-stream")
            lines = [line for line in answer.iter_lines() if line and not line.startswith(":")]
        assert all(line.startswith("data: ") for line in lines)
        assert lines[-1] == "data: [DONE]"
        return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]

    def idle(self, seconds: float = 5.0) -> bool:
        """Whether nothing runs, waits or is in the cache within so many seconds."""
        return wait_until(self._is_idle, seconds)

    def _is_idle(self) -> bool:
        driver = self.state.models.drivers[0]
        usage = driver.engine.usage
        return not (
            self.state.gate.running
            or self.state.gate.waiting
            or driver.requests
            or usage.running
            or usage.blocks_in_use
        )


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """The error in an answer, which has the form that clients expect."""
    assert len(answer.content) < 8000
    content = answer.json()
    assert set(content) == {"error"}
    assert set(content["error"]) == {"message", "type", "param", "code"}
    assert content["error"]["message"]
    found: dict[str, Any] = content["error"]
    return found


def wait_until(true: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


@contextmanager
def live(
    path: Path,
    limits: Limits | None = None,
    *,
    keys: dict[str, str] | None = None,
    hosts: tuple[str, ...] = (),
    origins: tuple[str, ...] = (),
    log: AccessLog | None = None,
    port: int = 0,
    **options: Any,
) -> Iterator[Live]:
    """A server of a model folder while it is needed."""
    options = {"name": "run", "adapters": {}, "chat_template": "chatml"} | options
    state = open_state(path, limits=limits or Limits(), **options)
    app = build(state, Access(keys or {}, hosts, origins), log or AccessLog(on=False))
    sock = run.listen("127.0.0.1", port, str)
    server = run.made(app, state)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    found = Live(state, f"http://127.0.0.1:{sock.getsockname()[1]}")
    try:
        yield found
    finally:
        found.client.close()
        server.should_exit = True
        thread.join(10)
        if thread.is_alive():
            server.handle_exit(2, None)
            thread.join(10)
        sock.close()
        assert not thread.is_alive()
