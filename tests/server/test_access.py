"""Who may ask, and what is noted of it."""

from __future__ import annotations

import json
import socket

import pytest

from ownlm.console.errors import UsageError
from ownlm.server.access_log import AccessLog
from ownlm.verbs.serve import api_keys
from tests.server.live import CHAT, Live, error_of, live

KEY = "a-long-secret"


def test_keys(model_folder):
    with live(model_folder, keys={"alice": KEY, "bob": "another-secret"}) as guarded:
        for path in ("/health", "/"):
            assert guarded.client.get(path).status_code == 200, path
        asked = [
            ("GET", p)
            for p in ("/v1/models", "/metrics", "/version", "/openapi.json", "/tokenizer_info", "/none")
        ]
        for method, path in [*asked, ("POST", "/v1/completions"), ("POST", "/v1/tasks/translate")]:
            for given in (
                {},
                {"authorization": "Bearer wrong"},
                {"authorization": f"Basic {KEY}"},
                {"authorization": "Bearer"},
            ):
                answer = guarded.client.request(method, path, headers=given)
                assert answer.status_code == 401, path
                assert error_of(answer)["code"] == "invalid_api_key"
                assert answer.headers["www-authenticate"] == "Bearer"
        for key in (KEY, "another-secret"):
            good = {"authorization": f"Bearer {key}"}
            assert guarded.client.get("/v1/models", headers=good).status_code == 200
            assert guarded.post("/v1/completions", good, prompt="The", max_tokens=1).status_code == 200


def test_keys_as_they_are_typed():
    assert api_keys(["12345678", "alice:abcdefgh"], "") == {"key1": "12345678", "alice": "abcdefgh"}
    assert api_keys(["12345678"], "bob:87654321, abcdefgh") == {
        "key1": "12345678", "bob": "87654321", "key3": "abcdefgh",
    }  # fmt: skip
    for given in (["short"], ["a b c d e f"], ["x:12345678", "x:87654321"], ["a/b:12345678"]):
        with pytest.raises(UsageError):
            api_keys(given, "")


def test_hosts(model_folder, server):
    def status(one: Live, host: str) -> int:
        return one.client.get("/v1/models", headers={"host": host}).status_code

    for host in ("127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000", "192.168.1.5", "a.localhost"):
        assert status(server, host) == 200, host
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8000", ""):
        answer = server.client.get("/health", headers={"host": host})
        assert answer.status_code == 403, host
        assert error_of(answer)["code"] == "foreign_host"
    with live(model_folder, hosts=("model.example",)) as named:
        assert status(named, "Model.example:8000") == 200
        assert status(named, "evil.example") == 403


def test_other_origins(model_folder, server):
    origin = {"origin": "https://page.example"}
    for method in ("GET", "OPTIONS"):
        answer = server.client.request(method, "/v1/models", headers=origin)
        assert "access-control-allow-origin" not in answer.headers
    with live(model_folder, origins=("https://page.example",), keys={"a": KEY}) as shared:
        asked = origin | {"access-control-request-method": "POST"}
        answer = shared.client.request("OPTIONS", "/v1/completions", headers=asked)
        assert answer.status_code == 204
        assert answer.headers["access-control-allow-origin"] == "https://page.example"
        assert "authorization" in answer.headers["access-control-allow-headers"]
        answer = shared.client.get("/v1/models", headers=origin | {"authorization": f"Bearer {KEY}"})
        assert answer.headers["access-control-allow-origin"] == "https://page.example"
        other = shared.client.get("/v1/models", headers={"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_bodies_that_a_page_could_send_without_asking_are_refused(server, kind):
    answer = server.client.post("/v1/completions", content=b'{"prompt":"x"}', headers={"content-type": kind})
    assert answer.status_code == 415
    assert error_of(answer)["code"] == "unsupported_media_type"


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b'"x"', b'{"prompt": NaN}', b'{"prompt": "a", "prompt": "b"}', b"\xff\xfe", b"null",
        b'{"a":' * 5000 + b"1" + b"}" * 5000, b"[" * 100_000, b'{"seed":' + b"9" * 6000 + b"}",
        b'{"prompt":"a","metadata":' + b'{"a":' * 80 + b"1" + b"}" * 80 + b"}",
    ],
    ids=lambda body: str(body[:24]),
)  # fmt: skip
def test_bodies_that_are_no_json_object(server, body):
    answer = server.client.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    error_of(answer)


def test_routes_and_methods(server):
    answer = server.client.get("/v1/nothing")
    assert answer.status_code == 404
    assert "POST /v1/completions" in error_of(answer)["message"]
    answer = server.client.get("/v1/completions")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    error_of(answer)
    assert server.client.delete("/v1/models").status_code == 405
    assert server.client.get("/v1/models/").status_code == 200
    assert server.client.head("/health").status_code == 200
    assert server.client.options("/v1/completions").status_code == 204


def test_request_ids(server):
    own = server.client.get("/version", headers={"x-request-id": "mine-1"})
    assert own.headers["x-request-id"] == "mine-1"
    for bad in ("a b", "x" * 101, "a\tb"):
        other = server.client.get("/version", headers={"x-request-id": bad}).headers["x-request-id"]
        assert other.startswith("req_")
    assert server.client.get("/none").headers["x-request-id"].startswith("req_")


def test_errors_stay_small_whatever_a_request_holds(server):
    for name in ("x" * 100_000, "\x00" * 5000, "\ud800" * 5000):
        answer = server.client.post(
            "/v1/completions", content=json.dumps({name: 1}), headers={"content-type": "application/json"}
        )
        assert answer.status_code == 400
        error_of(answer)
    assert server.refused("/v1/completions", 404, model="m" * 100_000)["param"] == "model"


def test_half_of_a_surrogate_pair_is_answered(server):
    kind = {"content-type": "application/json"}
    body = json.dumps({"prompt": "a\ud800b", "echo": True, "max_tokens": 1, "user": "\udfff"})
    answer = server.client.post("/v1/completions", content=body, headers=kind)
    assert answer.json()["choices"][0]["text"].startswith("a\ufffdb")
    answer = server.client.post("/v1/completions", content=json.dumps({"stop": "\ud800"}), headers=kind)
    assert answer.status_code == 400
    assert error_of(answer)["param"] == "stop"


def test_what_was_said_is_not_noted_unless_asked_for(model_folder, capsys):
    secret = "hidden words"
    with live(model_folder, log=AccessLog(), keys={"alice": KEY}) as quiet:
        good = {"authorization": f"Bearer {KEY}"}
        quiet.post("/v1/completions", good, prompt=secret, max_tokens=3, seed=1)
        quiet.post("/v1/chat/completions", good, messages=[{"role": "user", "content": secret}], max_tokens=3)
        quiet.post("/v1/completions", good, **{secret: 1})
        quiet.client.get("/v1/models")
        quiet.client.get("/health")
    lines = capsys.readouterr().err.splitlines()
    noted = [line for line in lines if " key=" in line]
    assert len(noted) == 4
    assert "key=alice POST /v1/completions 200 model=run prompt=" in noted[0]
    assert " new=3 finish=length" in noted[0]
    assert "key=- GET /v1/models 401" in noted[3]
    assert not any(secret in line or KEY in line for line in lines)
    with live(model_folder, log=AccessLog(content=True)) as loud:
        found = loud.ok("/v1/completions", prompt=secret, max_tokens=3, seed=1)
    shown = capsys.readouterr().err
    assert secret in shown
    assert json.dumps(found["choices"][0]["text"], ensure_ascii=False) in shown


def test_a_path_cannot_write_into_the_log(model_folder, capsys):
    with live(model_folder, log=AccessLog()) as noted:
        noted.client.get("/a%0Ab%1B[31m" + "c" * 500)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if " key=" in line]
    assert "\x1b" not in line


def test_what_is_no_http_does_no_harm(server):
    host, port = server.url.removeprefix("http://").split(":")
    for data in (
        b"\x00\xff" * 100,
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: abc\r\n\r\n",
    ):
        with socket.create_connection((host, int(port)), timeout=5) as raw:
            raw.sendall(data)
            raw.settimeout(5)
            raw.recv(1000)
    assert server.client.get("/health").status_code == 200
    assert server.ok("/v1/chat/completions", messages=CHAT, max_tokens=1)


def test_a_foreign_host_is_refused_before_its_key_is_looked_at(model_folder):
    with live(model_folder, keys={"a": KEY}) as guarded:
        answer = guarded.client.get(
            "/v1/models", headers={"host": "evil.example", "authorization": f"Bearer {KEY}"}
        )
        assert answer.status_code == 403


def test_an_error_is_cut_to_its_size():
    from ownlm.server.errors import ApiError
    from ownlm.server.json_form import to_json

    found = to_json(ApiError(400, "\x00" * 100_000, param="春" * 10_000).body())
    assert len(found) < 8000
