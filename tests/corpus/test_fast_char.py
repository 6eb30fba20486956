"""The table gives the ids of `tokenizers` for character vocabularies."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownlm.corpus.fast_char import SEPARATOR, FastChar
from tests.corpus.vocabularies import Reference, hard_texts, trained

TOKENIZER = trained("char", None)
REFERENCE = Reference(TOKENIZER.text)


def fast() -> FastChar:
    found = TOKENIZER.fast_path
    assert isinstance(found, FastChar)
    return found


@given(hard_texts([SEPARATOR, "<|endoftext|>", "<0x41>"]))
@settings(max_examples=200, deadline=None)
def test_ids_are_those_of_tokenizers(text: str) -> None:
    assert fast().encode(text).tolist() == REFERENCE.ids(text)
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@given(st.lists(hard_texts(length=6), min_size=1, max_size=6))
@settings(max_examples=80, deadline=None)
def test_joined_documents_have_the_ids_of_each(texts: list[str]) -> None:
    joined = fast().encode_joined(texts, TOKENIZER.eos_id)
    if any(SEPARATOR in text for text in texts):
        assert joined is None
    else:
        assert joined is not None
        assert joined.tolist() == REFERENCE.joined(texts, TOKENIZER.eos_id)


@pytest.mark.parametrize("character", ["\x00", "ß", "\u07ff", "\u0800", "\uffff", "𠀀", "\U0010ffff"])
def test_unknown_characters_are_their_bytes(character: str) -> None:
    names = [TOKENIZER.backend.id_to_token(index) for index in fast().encode(f"春{character}春").tolist()]
    assert names == ["春", *(f"<0x{byte:02X}>" for byte in character.encode()), "春"]


@pytest.mark.parametrize("texts", [["a", SEPARATOR], [f"{SEPARATOR}b"], ["a", "\udc00"]])
def test_documents_are_not_joined_when_one_is_not_for_it(texts: list[str]) -> None:
    assert fast().encode_joined(texts, 0) is None


def test_broken_surrogates_go_to_tokenizers() -> None:
    assert fast().refuses("a\udc00") == "broken surrogates"
    assert fast().refuses("春") is None
    assert TOKENIZER.encode("a\udc00").tolist() == REFERENCE.ids("a\ufffd")
