"""Requests drawn over the table of fields: an answer or an error that names a field, never a 5xx, and it stays alive."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ownlm.server.fields import ROUTES, Field
from tests.server.live import Live, error_of
from tests.server.values import requests

QUIET = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": list(HealthCheck),
}
NAMES = {field.name for fields in ROUTES.values() for field in fields}


def look_at(server: Live, route: str, body: dict[str, object]) -> int:
    """Send a request; what comes back has one of the forms that are promised."""
    answer = server.client.post(route, content=json.dumps(body), headers={"content-type": "application/json"})
    assert answer.status_code in (200, 400, 404), (answer.status_code, body, answer.text)
    assert answer.headers["x-request-id"]
    if answer.status_code == 200:
        if body.get("stream"):
            lines = [line for line in answer.text.splitlines() if line]
            assert lines[-1] == "data: [DONE]"
            assert all(line.startswith(("data: ", ": ")) for line in lines)
        else:
            answer.json()
        refused = [f for f in ROUTES[route] if f.treatment == "refused" and f.name in body]
        for field in refused:
            assert body[field.name] is None or body[field.name] in field.neutral, field.name
        assert set(body) <= {field.name for field in ROUTES[route]}
    else:
        error = error_of(answer)
        param = error["param"]
        assert param is None or param.split(".")[0] in NAMES or param[:100] in {k[:100] for k in body}, error
    return answer.status_code


@pytest.mark.parametrize("route", ROUTES)
def test_requests_over_the_table(server, route):
    seen: list[int] = []

    @settings(max_examples=40, **QUIET)
    @given(requests(ROUTES[route]))
    def run(body):
        seen.append(look_at(server, route, body))

    run()
    assert 400 in seen
    assert server.idle()


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_ten_thousand_requests(server):
    """Spread over the routes by the number of their fields."""
    cases = [
        st.tuples(st.just(route), requests(fields))
        for route, fields in ROUTES.items()
        for _ in range(1 + len(fields) // 10)
    ]
    seen: list[int] = []

    @settings(max_examples=10_000, **QUIET)
    @given(st.one_of(cases))
    def run(case):
        seen.append(look_at(server, *case))

    run()
    assert len(seen) >= 10_000
    assert seen.count(200) > 500
    assert server.client.get("/health").status_code == 200
    assert server.idle()
    assert server.ok("/v1/completions", prompt="The", max_tokens=1)


@pytest.mark.parametrize("route", ROUTES)
def test_every_refused_field_is_refused_and_its_neutral_values_are_not(server, route):
    """Also run over each field alone, so that none of them is passed over."""
    needed: dict[str, object] = {
        "messages": [{"role": "user", "content": "x"}],
        "input": "x",
        "tokens": [1],
        "to": "de",
    }
    needed |= {"question": "x", "context": "x"}
    base = {f.name: needed[f.name] for f in ROUTES[route] if f.default is ...}
    base |= {"prompt": "x"} if route == "/tokenize" else {}
    for field in ROUTES[route]:
        if field.treatment != "refused":
            continue
        error = server.refused(route, **base, **{field.name: {"asks": "for something"}})
        assert error["param"] == field.name
        for value in (None, *field.neutral):
            answer = server.post(route, **base, **{field.name: value})
            assert answer.status_code == 200, (field, value, answer.text)


@pytest.mark.parametrize("route", ROUTES)
def test_the_table_is_in_order(route):
    fields: list[Field] = ROUTES[route]
    names = [field.name for field in fields]
    assert len(names) == len(set(names))
    assert names[0] == "model"
    for field in fields:
        assert field.treatment != "refused" or field.note
        assert field.note[0].islower() or not field.note[0].isalpha()
