"""Output of a given form: JSON by a schema, a regular expression, one of several texts, a span; by llguidance.

A grammar says after each token which tokens may follow; the engine samples from those alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ownlm.console.errors import OwnlmError, UsageError, did_you_mean, missing_extra

try:
    import llguidance
except ImportError:
    raise missing_extra("llguidance", "schema", "Holding an answer to a form") from None

# Between values stands what `json.dumps` writes: free white space can go on for ever.
SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}

# Keywords of JSON Schema that have an effect or describe: others would be passed over in silence.
KEYWORDS = {
    "type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref", "$defs", "definitions", "properties",
    "required", "additionalProperties", "patternProperties", "minProperties", "maxProperties", "items",
    "prefixItems", "additionalItems", "minItems", "maxItems", "minLength", "maxLength", "pattern",
    "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
    "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$schema", "$id",
    "id", "$anchor", "$comment",
}  # fmt: skip
UNSUPPORTED = {
    "contains", "minContains", "maxContains", "not", "if", "then", "else", "uniqueItems", "propertyNames",
    "dependentRequired", "dependentSchemas", "dependencies", "unevaluatedProperties", "unevaluatedItems",
    "contentEncoding", "contentMediaType", "contentSchema",
}  # fmt: skip
MAPS = ("properties", "patternProperties", "$defs", "definitions")  # of names to schemas
PARTS = ("items", "prefixItems", "additionalItems", "additionalProperties", "anyOf", "oneOf", "allOf")


class TokenBytes:
    """A vocabulary as grammars see it.

    Args:
        tokens: bytes of each id; b"" for special tokens, which no text can hold.
        stop_ids: tokens that end an answer.
        size: V of the model, which may have more ids than the tokenizer.
        encode: ids of a text, as the tokenizer gives them.
    """

    is_tokenizer_wrapper = True  # llguidance asks for it
    bos_token_id = None

    def __init__(
        self,
        tokens: Sequence[bytes],
        stop_ids: Sequence[int],
        size: int,
        encode: Callable[[bytes], list[int]],
    ) -> None:
        self.size, self._encode = size, encode
        # Without a token that ends an answer one is added that the engine never sees.
        self.tokens = [*tokens, *[b""] * (size - len(tokens)), b""]
        self.special_token_ids = [i for i, data in enumerate(self.tokens) if not data]
        ends = list(stop_ids) or [size]
        self.eos_token_id = ends[0]
        self.known = llguidance.LLTokenizer(self, eos_token=ends)  # type: ignore[arg-type]

    def __call__(self, data: bytes | str) -> list[int]:
        return self._encode(data.encode() if isinstance(data, str) else data)


class Grammar:
    """A form and how far an answer has come in it; see `ownlm.engine.requests.Constraint`.

    Args:
        vocabulary: of the model.
        matcher: of llguidance.
    """

    def __init__(self, vocabulary: TokenBytes, matcher: llguidance.LLMatcher) -> None:
        self._vocabulary, self._matcher = vocabulary, matcher
        self._mask: npt.NDArray[np.bool_] | None = None

    def mask(self) -> npt.NDArray[np.bool_]:
        """[V]: True where a token may come next.

        Raises:
            OwnlmError: the grammar is too large to be followed.
        """
        if self._mask is None:
            bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
            if self._matcher.is_error():
                raise OwnlmError(f"the form cannot be followed: {_short(self._matcher.get_error())}.")
            self._mask = np.unpackbits(bits, bitorder="little")[: self._vocabulary.size].astype(np.bool_)
        return self._mask

    def accept(self, token: int) -> None:
        """This token was generated.

        Raises:
            OwnlmError: it is not allowed here.
        """
        self._mask = None
        if not self._matcher.consume_token(token):
            raise OwnlmError(f"token {token} does not belong to the form.")

    @property
    def ended(self) -> bool:
        """Whether the form is complete and nothing but its end can follow."""
        return self._matcher.is_stopped() or not self.mask().any()

    @property
    def complete(self) -> bool:
        """Whether what was generated has the whole form; more may follow."""
        return self._matcher.is_accepting()

    def copy(self) -> Grammar:
        """The same state for another sequence."""
        return Grammar(self._vocabulary, self._matcher.deep_copy())


def json_schema(vocabulary: TokenBytes, schema: Mapping[str, Any], where: str = "schema") -> Grammar:
    """JSON that a schema accepts, written as `json.dumps` writes it.

    Raises:
        UsageError: a keyword that is unknown or not supported, by name; or not a schema.
    """
    for key in _keys(schema):
        if key not in KEYWORDS:
            raise UsageError(
                f'the keyword "{key}" is not supported.{"" if key in UNSUPPORTED else did_you_mean(key, KEYWORDS)}',
                where=where,
                why="Output would not be held to it.",
                do="a schema without it",
            )
    grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema), defaults=SPACING)  # type: ignore[arg-type]
    return _compiled(vocabulary, grammar, where)


def one_of(vocabulary: TokenBytes, choices: Sequence[str], where: str = "choices") -> Grammar:
    """Exactly one of these texts.

    Raises:
        UsageError: none, or an empty one.
    """
    if not choices or "" in choices:
        raise UsageError("a choice is a text of one character at least.", where=where, do='"yes,no"')
    return _compiled(vocabulary, "start: " + " | ".join(json.dumps(one) for one in choices), where)


def matching(vocabulary: TokenBytes, regex: str, where: str = "regex") -> Grammar:
    """A text that a regular expression (the syntax of Rust's `regex`, without look-around) matches as a whole.

    Raises:
        UsageError: it is empty, or cannot be followed.
    """
    if not regex:
        raise UsageError("an empty expression.", where=where, do='"[0-9]{4}-[0-9]{2}"')
    grammar = llguidance.LLMatcher.grammar_from_regex(regex)
    problem = " ".join(llguidance.LLMatcher.validate_grammar(grammar).split())
    if problem:
        # It speaks of the grammar around the expression; the reason stands between these.
        reason = re.split(r"\berror: |\(in regex\): ", problem)[-1].partition(" in regex /")[0]
        reason = re.sub(r" [0-9]+ [|] .*", "", reason)
        raise UsageError(
            f"cannot be followed: {_short(reason)}.",
            where=where,
            do="an expression in the syntax of Rust's regex, without look-around",
        )
    return _compiled(vocabulary, grammar, where)


def span_of(vocabulary: TokenBytes, text: str, where: str = "text") -> Grammar:
    """Words of a text, one at least, in a row and as they stand there.

    Raises:
        UsageError: the text is empty.
    """
    if not text.strip():
        raise UsageError("an empty text has no spans.", where=where)
    span = f'%regex {{ "substring_words": {json.dumps(text)} }}'
    return _compiled(vocabulary, f"start: SPAN\nSPAN: {span} & /(.|\\n)+/", where)


def _compiled(vocabulary: TokenBytes, grammar: str, where: str) -> Grammar:
    matcher = llguidance.LLMatcher(vocabulary.known, grammar, log_level=0)
    problem = matcher.get_error()
    if not problem and not (found := Grammar(vocabulary, matcher)).ended:
        return found
    raise UsageError(_short(problem) or "nothing has this form.", where=where)


def _short(problem: str) -> str:
    """llguidance's message on one line."""
    return " ".join(problem.split())[:200].rstrip(".")


def _keys(schema: Any) -> Iterator[str]:
    """All keywords of a schema and of those within it."""
    if not isinstance(schema, Mapping):
        return
    yield from schema
    for name in MAPS:
        for part in schema[name].values() if isinstance(schema.get(name), Mapping) else ():
            yield from _keys(part)
    for name in PARTS:
        part = schema.get(name)
        for one in part if isinstance(part, list) else [part]:
            yield from _keys(one)
