"""Many documents at once have the ids of each alone, in whatever groups, and fallbacks are counted."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownlm.corpus import encode
from ownlm.corpus.encode import Encoder, encode_documents, encode_stream
from ownlm.corpus.fast_bpe import SEPARATOR
from ownlm.corpus.tokenizer import Tokenizer
from ownlm.corpus.train_tokenizer import Kind
from tests.corpus.vocabularies import Reference, hard_texts, opened, plain_texts, trained

TOKENIZER = trained()
REFERENCE = Reference(TOKENIZER.text)
TEXTS = st.lists(
    st.one_of(
        plain_texts(length=10), hard_texts([SEPARATOR], length=6), st.sampled_from(["", "春", "\ud800x"])
    ),
    max_size=12,
)


def check(tokenizer: Tokenizer, reference: Reference, texts: list[str]) -> None:
    clean = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in texts]
    ids, lengths, fallbacks = encode_stream(tokenizer, texts)
    assert ids.tolist() == reference.joined(clean, tokenizer.eos_id)
    assert lengths.tolist() == [1 + len(reference.ids(text)) for text in clean]
    assert fallbacks == Counter(["broken surrogates"] * sum("\ud800" in text for text in texts))
    apart, _ = encode_documents(tokenizer, texts)
    assert [found.tolist() for found in apart] == [reference.ids(text) for text in clean]


@given(TEXTS, st.sampled_from([1, 20, 10**6]))
@settings(max_examples=120, deadline=None)
def test_a_stream_is_the_ids_of_each_text_after_the_end_token(texts: list[str], characters: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode, "GROUP_CHARACTERS", characters)
        check(TOKENIZER, REFERENCE, texts)


@pytest.mark.parametrize("kind", ["char", "word"])
def test_the_other_kinds(kind: Kind) -> None:
    tokenizer = trained(kind)
    reference = Reference(tokenizer.text)
    texts = ["春眠不觉晓。\n", "", "The quick brown fox 🙂", f"a{SEPARATOR}b"]
    ids, lengths, fallbacks = encode_stream(tokenizer, texts)
    assert ids.tolist() == reference.joined(texts, tokenizer.eos_id)
    assert lengths.sum() == len(ids)
    assert sum(fallbacks.values()) == (len(texts) if kind == "word" else 0)


def test_groups_hold_about_so_many_characters_and_keep_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "GROUP_CHARACTERS", 10)
    texts = ["abcd", "efgh", "ijkl", "m" * 50, "", "n", "o" * 9]
    groups = [list(group) for group in encode._groups(texts)]
    assert [text for group in groups for text in group] == texts
    assert groups == [texts[:3], texts[3:4], texts[4:]]


def test_no_texts() -> None:
    ids, lengths, fallbacks = encode_stream(TOKENIZER, [])
    assert len(ids) == len(lengths) == len(fallbacks) == 0


def test_every_text_of_a_tokenizer_without_a_fast_way_is_counted_with_the_reason() -> None:
    tokenizer = opened(TOKENIZER.spec | {"normalizer": {"type": "NFC"}})
    _, _, fallbacks = encode_stream(tokenizer, ["a", "b"])
    assert fallbacks == {"its normalizer (NFC) is not in tiktoken": 2}


def test_one_text_with_the_separator_does_not_cost_its_neighbours_the_fast_way() -> None:
    texts = ["春眠", f"a{SEPARATOR}b", "c"]
    ids, _, fallbacks = encode_stream(TOKENIZER, texts)
    assert ids.tolist() == REFERENCE.joined(texts, TOKENIZER.eos_id)
    assert not fallbacks


def test_an_encoder_travels_to_another_process_as_a_path(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path)
    encoder = Encoder(tmp_path)
    packed = pickle.dumps(encoder)
    assert len(packed) < 1000
    other = pickle.loads(packed)
    assert [ids.tolist() for ids in other.encode_documents(["春眠", "a"])] == [
        REFERENCE.ids("春眠"),
        REFERENCE.ids("a"),
    ]


def test_an_encoder_adds_up_its_fallbacks(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path)
    encoder = Encoder(tmp_path)
    encoder.encode_stream(["\ud800", "a"])
    encoder.encode_documents(["\ud800"])
    assert encoder.fallbacks == {"broken surrogates": 2}
