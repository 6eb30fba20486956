"""Requests checked against the table of fields; the first thing that is wrong is named."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from ownlm.console.errors import did_you_mean
from ownlm.server.errors import ApiError
from ownlm.server.fields import ROUTES
from ownlm.server.fields import Field as Row


def checked(route: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The honoured fields of a request with their defaults.

    Raises:
        ApiError: 400: an unknown or refused field, or a value that is not possible.
    """
    rows = _rows(route)
    for name, value in given.items():
        row = rows.get(name)
        if row is None:
            raise ApiError(
                400,
                f'Unknown field "{name[:100]}" of {route}.{did_you_mean(name[:100], rows)}',
                param=name,
                code="unknown_field",
            )
        if row.treatment == "refused" and not _asks_nothing(row, value):
            raise ApiError(400, f"{name} is not supported: {row.note}.", param=name, code="unsupported_field")
    try:
        model = _model(route).model_validate({name: v for name, v in given.items() if v is not None})
    except ValidationError as error:
        raise _first(rows, error) from None
    honoured = [row for row in rows.values() if row.treatment == "honoured"]
    return {row.name: getattr(model, _attribute(row.name)) for row in honoured}


def schema(route: str) -> dict[str, Any]:
    """The JSON schema of a route's requests."""
    return _model(route).model_json_schema()


@functools.cache
def _rows(route: str) -> dict[str, Row]:
    return {row.name: row for row in ROUTES[route]}


def _asks_nothing(row: Row, value: Any) -> bool:
    """Compared by type too: 1 is no true."""
    return value is None or any(type(value) is type(one) and value == one for one in row.neutral)


def _attribute(name: str) -> str:
    return f"f_{name}"  # pydantic keeps some names for itself


@functools.cache
def _model(route: str) -> type[BaseModel]:
    made: dict[str, Any] = {}
    for row in ROUTES[route]:
        about = (
            f"{row.note}." if row.treatment == "honoured" else f"{row.treatment.capitalize()}: {row.note}."
        )
        extra: Any = {"enum": [None, *row.neutral]} if row.treatment == "refused" else {}
        kind = Any if row.treatment == "refused" else row.kind if row.default is ... else row.kind | None
        made[_attribute(row.name)] = (
            kind,
            Field(row.default, alias=row.name, description=about, json_schema_extra=extra),
        )
    name = "".join(part.capitalize() for part in route.strip("/").split("/")) + "Request"
    strict = ConfigDict(extra="forbid", strict=True, protected_namespaces=(), allow_inf_nan=False)
    return create_model(name, __config__=strict, **made)


def _first(rows: Mapping[str, Row], error: ValidationError) -> ApiError:
    """The first complaint, in the words of the table."""
    found = error.errors(include_url=False, include_input=False, include_context=False)[0]
    name = str(found["loc"][0])
    row = rows[name]
    if found["type"] == "missing" and len(found["loc"]) == 1:
        return ApiError(400, f"{name} is required: {row.expects}.", param=name, code="missing_field")
    inner = [part for part in found["loc"][1:] if isinstance(part, int) or part.isidentifier()]
    detail = (
        f" ({'.'.join(map(str, inner))}: {found['msg']})" if inner and "union" not in found["type"] else ""
    )
    return ApiError(400, f"{name} must be {row.expects}{detail}.", param=name, code="invalid_value")
