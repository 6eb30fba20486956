"""What is asked of a server itself: its models, its health, its version, its counts."""

from __future__ import annotations

from starlette.responses import PlainTextResponse, Response

from ownlm.server.call import State, json_response
from ownlm.server.errors import ApiError


def list_models(state: State) -> Response:
    """`/v1/models`."""
    return json_response(
        {"object": "list", "data": [model.about() for model in state.models.by_name.values()]}
    )


def one_model(state: State, name: str) -> Response:
    """`/v1/models/NAME`."""
    return json_response(state.models.find(name).about())


def health(state: State) -> Response:
    """200 while requests are answered; else 503."""
    if state.gate.draining:
        raise ApiError(503, "The server is stopping.")
    if not all(driver.alive for driver in state.models.drivers):
        raise ApiError(503, "The engine has ended.")
    return Response(status_code=200)


def version() -> Response:
    """`/version`."""
    from ownlm import __version__

    return json_response({"version": __version__})


def metrics(state: State) -> Response:
    """`/metrics` for Prometheus."""
    return PlainTextResponse(
        state.metrics.text(state.models, state.gate), media_type="text/plain; version=0.0.4; charset=utf-8"
    )
