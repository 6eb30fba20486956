"""Constraints: what a form allows, token by token, and that an engine follows it whatever its model prefers."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from ownlm.console.errors import UsageError
from ownlm.engine import Engine, Request, SamplingSettings
from ownlm.engine.constrained import KEYWORDS, Grammar, TokenBytes, json_schema, one_of, span_of

from .conftest import random_model

END = 0
SPELT = [b"", b"", *(bytes([i]) for i in range(256)), b"yes", b'{"', b'": ', b"the "]
SIZE = len(SPELT) + 3  # a model may have more ids than its tokenizer


def spell(data: bytes) -> list[int]:
    return [byte + 2 for byte in data]


@pytest.fixture(scope="module")
def vocabulary() -> TokenBytes:
    return TokenBytes(SPELT, [END], SIZE, spell)


def accepts(grammar: Grammar, text: str) -> bool:
    """Whether a text may be written byte by byte, and be the whole answer."""
    for token in spell(text.encode()):
        if not grammar.mask()[token]:
            return False
        grammar.accept(token)
    return grammar.complete


INTEGER = {"type": "integer"}
HELD: list[tuple[dict[str, Any], str, str]] = [
    ({"type": ["integer", "null"]}, "null", "true"),
    ({"enum": ["a", None]}, "null", '"b"'),
    ({"const": {"a": 1}}, '{"a": 1}', '{"a": 2}'),
    ({"anyOf": [INTEGER, {"type": "null"}]}, "7", "true"),
    ({"oneOf": [INTEGER, {"type": "boolean"}]}, "true", "null"),
    ({"allOf": [INTEGER, {"minimum": 3}]}, "4", "2"),
    ({"$ref": "#/$defs/x", "$defs": {"x": INTEGER}}, "4", "true"),
    ({"$ref": "#/definitions/x", "definitions": {"x": INTEGER}}, "4", "true"),
    ({"$ref": "#x", "$defs": {"x": {"$anchor": "x", "type": "integer"}}}, "4", "true"),
    ({"type": "object", "properties": {"a": INTEGER}, "required": ["a"]}, '{"a": 1}', "{}"),
    ({"properties": {"a": INTEGER}, "type": "object", "additionalProperties": False}, "{}", '{"b": 1}'),
    ({"type": "object", "patternProperties": {"^a$": INTEGER}, "additionalProperties": False}, '{"a": 1}', '{"b": 1}'),
    ({"type": "object", "minProperties": 1}, '{"a": 1}', "{}"),
    ({"type": "object", "maxProperties": 1}, '{"a": 1}', '{"a": 1, "b": 2}'),
    ({"type": "array", "items": INTEGER}, "[1]", "[true]"),
    ({"type": "array", "prefixItems": [INTEGER], "items": False}, "[1]", "[1, 2]"),
    ({"type": "array", "minItems": 1}, "[1]", "[]"),
    ({"type": "array", "maxItems": 1}, "[1]", "[1, 2]"),
    ({"type": "string", "minLength": 2}, '"ab"', '"a"'),
    ({"type": "string", "maxLength": 2}, '"ab"', '"abc"'),
    ({"type": "string", "pattern": "^a+$"}, '"aa"', '"b"'),
    ({"type": "string", "format": "date"}, '"2020-01-31"', '"today"'),
    ({"type": "integer", "minimum": 3}, "3", "2"),
    ({"type": "integer", "maximum": 3}, "3", "4"),
    ({"type": "number", "exclusiveMinimum": 3}, "4", "3"),
    ({"type": "number", "exclusiveMaximum": 3}, "2", "3"),
    ({"type": "integer", "multipleOf": 3}, "6", "7"),
]  # fmt: skip
DRAFT_7 = {"$schema": "http://json-schema.org/draft-07/schema#", "type": "array", "items": [INTEGER]}
HELD.append(({**DRAFT_7, "additionalItems": False}, "[1]", "[1, 2]"))
SAYS_ONLY = {
    "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$schema", "$id",
    "id", "$comment",
}  # fmt: skip


@pytest.mark.parametrize(("schema", "good", "bad"), HELD, ids=lambda value: str(value)[:40])
def test_a_keyword_is_held_to(vocabulary: TokenBytes, schema: dict[str, Any], good: str, bad: str) -> None:
    assert accepts(json_schema(vocabulary, schema), good)
    assert not accepts(json_schema(vocabulary, schema), bad)


def test_every_keyword_that_is_taken_is_tried_above() -> None:
    tried = {key for schema, _, _ in HELD for key in json.dumps(schema).split('"') if key in KEYWORDS}
    assert tried | SAYS_ONLY == KEYWORDS


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "array", "contains": INTEGER}, '"contains" is not supported. Output'),
        ({"properties": {"a": {"type": "string", "nullable": True}}}, '"nullable" is not supported'),
        ({"anyOf": [{"$defs": {"a": {"requierd": ["a"]}}}]}, 'Did you mean "required"'),
        ({"type": "string", "format": "poem"}, "poem"),
        ({"type": "string", "pattern": "("}, "regex parse error"),
        ({"$ref": "https://example.com/x"}, "example.com"),
        ({"enum": []}, ""),
    ],
)
def test_a_schema_that_cannot_be_followed_is_refused(
    vocabulary: TokenBytes, schema: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match="schema: ") as refusal:
        json_schema(vocabulary, schema)
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value).partition("\nTry")[0]


def test_choices_and_spans(vocabulary: TokenBytes) -> None:
    choices = ["yes", "yes!", 'a "b"\\', "春"]
    assert all(accepts(one_of(vocabulary, choices), one) for one in choices)
    assert not accepts(one_of(vocabulary, choices), "ye")
    text = 'The "old" fox, 春眠, ran.'
    for span in ("old", "The", "fox, 春眠", '"old" fox'):
        assert accepts(span_of(vocabulary, text), span)
    for other in ("", "new", "The fox", "fo", "old fox"):
        assert not accepts(span_of(vocabulary, text), other)
    for wrong in ([], ["a", ""]):
        with pytest.raises(UsageError, match="choices"):
            one_of(vocabulary, wrong)
    with pytest.raises(UsageError, match="no spans"):
        span_of(vocabulary, " ")


def answers(vocabulary: TokenBytes, grammar: Grammar, ends: tuple[int, ...], n: int = 12) -> set[str]:
    """What a random model writes under a constraint: n sequences of one prompt."""
    engine = Engine(random_model(vocab_size=vocabulary.size))
    settings = SamplingSettings(temperature=1.5, seed=1, n=n, stop_token_ids=ends, max_new_tokens=100)
    written = [bytearray() for _ in range(n)]
    reasons = set()
    for event in engine.stream(Request([5, 6], settings, constraint=grammar)):
        written[event.index] += SPELT[event.token_id]
        reasons.add(event.finish_reason)
    assert reasons == {None, "stop"} and not engine.usage.blocks_in_use
    return {text.decode() for text in written}


def test_the_engine_writes_what_the_form_allows(vocabulary: TokenBytes) -> None:
    choices = ["yes", "yes!", "no"]
    assert answers(vocabulary, one_of(vocabulary, choices), (END,)) == set(choices)
    properties = {"a": {"type": "integer", "minimum": 0, "maximum": 9}, "b": {"enum": ["x", "y"]}}
    schema = {
        "type": "object",
        "properties": properties,
        "required": ["a", "b"],
        "additionalProperties": False,
    }
    found = answers(vocabulary, json_schema(vocabulary, schema), (END,))
    assert len(found) > 4
    for text in found:
        value = json.loads(text)
        assert 0 <= value["a"] <= 9 and value["b"] in ("x", "y")


def test_a_form_ends_by_itself_where_no_token_ends_a_text() -> None:
    endless = TokenBytes(SPELT, [], SIZE, spell)
    assert answers(endless, one_of(endless, ["yes", "no"]), ()) == {"yes", "no"}


def test_the_constraint_that_was_given_is_not_used_up(vocabulary: TokenBytes) -> None:
    grammar = one_of(vocabulary, ["yes", "no"])
    before = grammar.mask().copy()
    assert answers(vocabulary, grammar, (END,)) == answers(vocabulary, grammar, (END,))
    assert np.array_equal(grammar.mask(), before)
    assert not before[len(SPELT) :].any() and not before[END]
