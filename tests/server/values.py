"""Requests drawn from the table of fields: right ones, nearly right ones, and nonsense."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from pydantic import TypeAdapter

from ownlm.server.fields import Field

WORDS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["The quick", "春眠", "<|im_end|>", "", "\x00", "a\u0301", "🦊", "run", "en", "de"]),
)
JUNK: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(allow_nan=False, allow_infinity=False),
        WORDS,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=6,
)


def values(field: Field) -> st.SearchStrategy[Any]:
    """Values of a field: mostly of its kind."""
    if field.treatment == "refused":
        return st.one_of(st.sampled_from([None, *field.neutral]), JUNK)
    schema = TypeAdapter(field.kind).json_schema()
    right = of_schema(schema, schema.get("$defs", {}))
    return st.one_of(right, right, right, right, st.none(), JUNK)


def of_schema(schema: dict[str, Any] | bool, parts: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values of the part of JSON Schema that pydantic writes for the table."""
    if isinstance(schema, bool):
        return JUNK
    if "$ref" in schema:
        return of_schema(parts[schema["$ref"].rpartition("/")[2]], parts)
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return st.one_of([of_schema(one, parts) for one in schema[choice]])
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema.get("type")
    if kind == "integer":
        low, high = (
            schema.get("minimum", -(2**63)),
            schema.get("maximum", schema.get("exclusiveMaximum", 2**63) - 1),
        )
        return st.one_of(st.integers(low, min(high, low + 12)), st.integers(low, high))
    if kind == "number":
        low, high = schema.get("minimum", schema.get("exclusiveMinimum", -1e6)), schema.get("maximum", 1e6)
        return st.floats(low, high, allow_nan=False)
    if kind == "boolean":
        return st.booleans()
    if kind == "null":
        return st.none()
    if kind == "array":
        inner = of_schema(schema.get("items", {}), parts)
        least = schema.get("minItems", 0)
        return st.lists(inner, min_size=least, max_size=max(least, min(schema.get("maxItems", 4), 4)))
    if kind == "object" and "properties" in schema:
        needed = {
            k: of_schema(v, parts) for k, v in schema["properties"].items() if k in schema.get("required", ())
        }
        optional = {k: of_schema(v, parts) for k, v in schema["properties"].items() if k not in needed}
        return st.fixed_dictionaries(needed, optional=optional)
    if kind == "object":
        keys = (
            st.integers(0, 500).map(str)
            if "propertyNames" in schema or "patternProperties" in schema
            else WORDS
        )
        return st.dictionaries(keys, of_schema(schema.get("additionalProperties") or {}, parts), max_size=3)
    if kind == "string":
        return WORDS
    return JUNK


def requests(fields: list[Field], unknown: bool = True) -> st.SearchStrategy[dict[str, Any]]:
    """Bodies of a route."""
    needed = {field.name: values(field) for field in fields if field.default is ...}
    optional = {field.name: values(field) for field in fields if field.default is not ...}
    names = st.lists(st.sampled_from(sorted(optional)), unique=True, max_size=6)
    body = st.tuples(
        st.fixed_dictionaries(needed),
        names.flatmap(lambda chosen: st.fixed_dictionaries({n: optional[n] for n in chosen})),
    ).map(lambda pair: pair[0] | pair[1])
    broken = st.tuples(body, st.dictionaries(WORDS, JUNK, max_size=1)).map(lambda pair: pair[0] | pair[1])
    return st.one_of(body, body, body, broken) if unknown else body
