"""The command: a process that serves, its signals, its messages."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from ownlm.cli import main
from ownlm.server.run import is_loopback
from tests.server.live import wait_until

if sys.platform == "win32":
    pytest.skip("signals of Unix", allow_module_level=True)


SLOWLY = """
import sys, time
from ownlm.engine.engine import Engine
step = Engine.step
def slowly(self):
    time.sleep(float(sys.argv[1]))
    return step(self)
Engine.step = slowly
from ownlm.cli import main
sys.exit(main(sys.argv[2:]))
"""


class Process:
    """A server in a process of its own; port 0: the system chooses.

    Args:
        slow: seconds that each step of its engine takes at least, so that a request lasts.
    """

    def __init__(self, words: list[str], slow: float = 0.0, **env: str) -> None:
        start = ["-c", SLOWLY, str(slow)] if slow else ["-m", "ownlm"]
        command = [sys.executable, *start, "serve", *words, "--port", "0"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | env)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)

    @property
    def words(self) -> str:
        return "".join(self.lines)

    @property
    def url(self) -> str:
        assert wait_until(lambda: " at http" in self.words or self.process.poll() is not None, 60), self.words
        found = re.search(r" at (http://\S+)", self.words)
        assert found, self.words
        return found[1]

    def ended(self, seconds: float = 30) -> int:
        code = self.process.wait(seconds)
        self._reader.join(5)
        return code


@contextmanager
def process(words: list[str], slow: float = 0.0, **env: str) -> Iterator[Process]:
    found = Process(words, slow, **env)
    try:
        yield found
    finally:
        if found.process.poll() is None:
            found.process.kill()
        found.process.wait(10)


def test_a_server_of_a_run_answers_and_ends_at_sigterm(model_folder):
    with process([str(model_folder)]) as server:
        answer = httpx.post(
            f"{server.url}/v1/completions", json={"prompt": "The", "max_tokens": 2}, timeout=60
        )
        assert answer.status_code == 200
        assert answer.json()["model"] == model_folder.name
        assert "no chat template" in server.words
        assert f"curl {server.url}/v1/completions" in server.words
        server.process.send_signal(signal.SIGTERM)
        assert server.ended() == 0
        assert server.words.rstrip().endswith("stopped.")
        assert "Traceback" not in server.words


LONG = {"prompt": "The quick", "max_tokens": 100, "ignore_eos": True, "stream": True}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_requests_end_before_the_server_does(model_folder, number):
    with process([str(model_folder)], slow=0.02) as server:
        with httpx.stream("POST", f"{server.url}/v1/completions", json=LONG, timeout=60) as answer:
            lines = answer.iter_lines()
            next(lines)
            server.process.send_signal(number)
            assert wait_until(lambda: "stopping: 1 requests end first" in server.words)
            left = [line for line in lines if line]
        assert left[-1] == "data: [DONE]"
        assert '"finish_reason":"length"' in left[-2]
        assert server.ended() == 0


def test_a_second_signal_breaks_requests_off(model_folder):
    with process([str(model_folder)], slow=0.5) as server:
        url = server.url
        with httpx.stream("POST", f"{url}/v1/completions", json=LONG, timeout=60) as answer:
            lines = answer.iter_lines()
            next(lines)
            server.process.send_signal(signal.SIGTERM)
            assert wait_until(lambda: "stopping:" in server.words)
            server.process.send_signal(signal.SIGTERM)
            assert server.ended(20) == 130, "the whole answer takes 50 seconds"
            left = [line for line in lines if line]
        assert '"message":"The server is stopping."' in left[-2]
        assert left[-1] == "data: [DONE]"
        assert "broken off" in server.words
        assert "Traceback" not in server.words


def test_a_port_that_is_taken(model_folder, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", str(model_folder), "--port", str(port)]) == 1
    shown = capsys.readouterr().err
    assert f"127.0.0.1:{port}: another program answers at this port already." in shown
    assert re.search(rf"Try: ownlm .*--port {port + 1}\n", shown)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--host", "no.such.host.invalid"], 2, "no address of this machine"),
        (["--host", "203.0.113.7"], 2, "--host 203.0.113.7"),
        (["--port", "99999"], 2, "--port 99999"),
        (["--max-concurrent", "0"], 2, "--max-concurrent"),
        (["--timeout", "0"], 2, "--timeout"),
        (["--max-new-tokens", "0"], 2, "--max-new-tokens"),
        (["--api-key", "short"], 2, "--api-key"),
        (["--adapter", "x"], 2, "--adapter"),
        (["--name", "a b"], 3, "--name"),
        (["--metrics-prefix", "9"], 2, "--metrics-prefix"),
        (["--chat-template", "chatlm"], 2, 'Did you mean "chatml"?'),
        (["--max-context", "100000"], 2, "max_context"),
        (["--device", "abacus"], 2, "abacus"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_is_refused_before_anything_is_served(model_folder, capsys, words, code, message):
    assert main(["serve", str(model_folder), *words, *([] if "--port" in words else ["--port", "0"])]) == code
    assert message in capsys.readouterr().err


def test_a_wrong_model_is_said_before_a_port_is_taken(tmp_path, capsys):
    assert main(["serve", str(tmp_path / "nothing")]) == 2
    assert "no such run folder" in capsys.readouterr().err


def test_settings_reach_what_they_are_of(model_folder):
    words = [
        "--max-context",
        "50",
        "--metrics-prefix",
        "vllm",
        "--dtype",
        "float32",
        "--device",
        "cpu",
        "--name",
        "mine",
    ]
    with process([str(model_folder), *words], OWNLM_API_KEY="alice:a-long-secret") as server:
        key = {"authorization": "Bearer a-long-secret"}
        with httpx.Client(base_url=server.url, headers=key, timeout=60) as client:
            (model,) = client.get("/v1/models").json()["data"]
            assert (model["id"], model["max_model_len"]) == ("mine", 50)
            assert "vllm:num_requests_running{" in client.get("/metrics").text
        assert httpx.get(f"{server.url}/v1/models").status_code == 401
        assert "Authorization: Bearer KEY" in server.words
        assert "a-long-secret" not in server.words


def test_what_is_announced(model_folder):
    assert is_loopback("127.0.0.1")
    assert is_loopback("::1")
    assert not is_loopback("0.0.0.0")
    with process([str(model_folder), "--host", "0.0.0.0"]) as server:
        assert httpx.get(server.url + "/health").status_code == 200
        assert "everybody who reaches this machine can use the model" in server.words
    with process([str(model_folder), "--host", "0.0.0.0", "--api-key", "a-long-secret", "-q"]) as server:
        server_up = wait_until(lambda: "everybody" in server.words or server.process.poll() is not None, 0.5)
        assert not server_up


def test_no_torch_before_the_name_of_a_model_is_known(tmp_path):
    code = "import sys, ownlm.cli; ownlm.cli.main(['serve', 'no/such/run']); print('torch' in sys.modules, 'fastapi' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert done.stdout == "False False\n"
    assert "no such run folder" in done.stderr


def test_the_fields_of_the_documentation_are_those_of_the_table():
    import importlib.util

    root = Path(__file__).parents[2]
    spec = importlib.util.spec_from_file_location("write_fields", root / "scripts" / "write_fields.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (root / "docs" / "serve.md").read_text(encoding="utf-8")
    assert module.fields_tables() in page, "out of date: python scripts/write_fields.py"


def test_the_json_of_openapi_is_small_enough_to_be_read(model_folder):
    from tests.server.live import live

    with live(model_folder) as server:
        document = server.client.get("/openapi.json")
    assert len(document.content) < 500_000
    assert json.loads(document.content)["info"]["title"] == "ownlm"
