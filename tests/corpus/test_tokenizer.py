"""One class over every `tokenizer.json`: files, ids, bytes, and what is refused."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownlm.console.errors import Refused, UsageError
from ownlm.corpus import tokenizer as module
from ownlm.corpus.tokenizer import END_OF_TEXT, PAD, SPECIAL_TOKENS, Tokenizer
from ownlm.corpus.train_tokenizer import Kind
from tests.corpus.vocabularies import Reference, hard_texts, opened, trained, training_text

TOKENIZER = trained()
REFERENCE = Reference(TOKENIZER.text)
KINDS: list[Kind] = ["bpe", "char", "word"]


# ---- files


def test_a_saved_tokenizer_is_the_same_bytes_and_gives_the_same_ids(tmp_path: Path) -> None:
    odd = Tokenizer(TOKENIZER.text.replace("\n", "\r\n") + "\n", {"eos_token": "é"})
    odd.save(tmp_path / "new" / "folder")
    for path in (tmp_path / "new" / "folder", tmp_path / "new" / "folder" / "tokenizer.json"):
        loaded = Tokenizer.load(path)
        assert loaded.text == odd.text.replace(
            "\r\n", "\n"
        )  # as Python reads text; the file keeps its line ends
        assert loaded.config == {"eos_token": "é"}
        assert loaded.sha256 == TOKENIZER.sha256
    saved = (tmp_path / "new" / "folder" / "tokenizer.json").read_bytes()
    assert saved == odd.text.encode()


def test_it_travels_between_processes() -> None:
    other = pickle.loads(pickle.dumps(TOKENIZER))
    text = training_text(3, 50)
    assert other.encode(text).tolist() == TOKENIZER.encode(text).tolist()
    assert other.config == TOKENIZER.config


def test_no_file_is_a_wrong_argument(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.json"):
        with pytest.raises(UsageError) as error:
            Tokenizer.load(path)
        assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"model": {"type": "BPE"}}', b"[" * 100_000, b"null"]
)
def test_a_file_that_is_no_tokenizer_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(Refused) as error:
        Tokenizer.load(path)
    assert str(path) in str(error.value)


def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 100)
    TOKENIZER.save(tmp_path)
    with pytest.raises(Refused, match="larger than"):
        Tokenizer.load(tmp_path)


def test_a_broken_configuration_is_refused(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path)
    for content in ("{", "[1]"):
        (tmp_path / "tokenizer_config.json").write_text(content, encoding="utf-8")
        with pytest.raises(Refused):
            Tokenizer.load(tmp_path)


def test_the_hash_is_of_what_decides_the_ids() -> None:
    spec = copy.deepcopy(TOKENIZER.spec)
    again = Tokenizer(json.dumps(dict(reversed(spec.items())), indent=7))
    padded = opened(
        spec
        | {"truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}}
    )
    assert again.sha256 == padded.sha256 == TOKENIZER.sha256
    text = training_text(4, 40)
    assert padded.encode_slowly(text).tolist() == REFERENCE.ids(
        text
    )  # the file's truncation cuts nothing off
    spec["model"]["merges"].pop()
    assert opened(spec).sha256 != TOKENIZER.sha256


# ---- what it is


@pytest.mark.parametrize("kind", KINDS)
def test_ours_are_known_by_their_kind(kind: Kind) -> None:
    assert trained(kind).type == kind
    assert [trained(kind).special_ids[token] for token in SPECIAL_TOKENS] == list(range(len(SPECIAL_TOKENS)))
    assert trained(kind).eos_id == SPECIAL_TOKENS.index(END_OF_TEXT)
    assert trained(kind).pad_id == SPECIAL_TOKENS.index(PAD)


def renamed(**names: str) -> Tokenizer:
    """The tokenizer with other names for its special tokens."""
    spec = copy.deepcopy(TOKENIZER.spec)
    for token in spec["added_tokens"]:
        name = names.get(token["content"], f"<unnamed {token['id']}>")
        spec["model"]["vocab"][name] = spec["model"]["vocab"].pop(token["content"])
        token["content"] = name
    return Tokenizer(json.dumps(spec), {"eos_token": {"content": "<fin>"}, "pad_token": "<void>"})


def test_the_end_token_of_other_vocabularies_is_found_by_name() -> None:
    assert renamed(**{PAD: "</s>"}).eos_id == TOKENIZER.special_ids[PAD]
    assert renamed(**{PAD: "</s>", END_OF_TEXT: "<fin>"}).eos_id == TOKENIZER.special_ids[END_OF_TEXT]
    assert renamed(**{PAD: "<void>", END_OF_TEXT: "<fin>"}).pad_id == TOKENIZER.special_ids[PAD]
    assert (
        renamed(**{END_OF_TEXT: "<fin>"}).pad_id == TOKENIZER.special_ids[END_OF_TEXT]
    )  # none: the end token
    assert renamed().type == "given"
    with pytest.raises(UsageError, match="no token that ends a text"):
        _ = renamed().eos_id


# ---- text and ids


@pytest.mark.parametrize("kind", KINDS)
def test_every_text_comes_back_and_its_bytes_count_once(kind: Kind) -> None:
    tokenizer = trained(kind)

    @given(hard_texts([*SPECIAL_TOKENS[:3], "<0x41>", "Ġ", "▁"]))
    @settings(max_examples=80, deadline=None)
    def check(text: str) -> None:
        ids = tokenizer.encode(text)
        assert ids.dtype == np.uint32
        assert tokenizer.decode(ids) == text
        assert tokenizer.decode_bytes(ids.tolist()) == text.encode()
        assert tokenizer.token_byte_lengths[ids].sum() == len(text.encode())

    check()


@given(st.text(st.characters(exclude_categories=[]), max_size=20))
@settings(max_examples=100, deadline=None)
def test_surrogates_become_replacement_characters(text: str) -> None:
    clean = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert TOKENIZER.encode(text).tolist() == REFERENCE.ids(clean)


def test_special_tokens_are_ordinary_text_unless_asked_for() -> None:
    text = f"a{END_OF_TEXT}b<|im_start|>"
    plain, honoured = TOKENIZER.encode(text).tolist(), TOKENIZER.encode(text, specials=True).tolist()
    assert not set(plain) & set(TOKENIZER.special_ids.values())
    assert TOKENIZER.decode(plain) == text
    assert honoured == [
        *REFERENCE.ids("a"),
        TOKENIZER.eos_id,
        *REFERENCE.ids("b"),
        TOKENIZER.special_ids["<|im_start|>"],
    ]
    assert TOKENIZER.decode(honoured) == "ab"


@given(st.lists(hard_texts(length=8), max_size=6))
@settings(max_examples=50, deadline=None)
def test_a_batch_is_the_ids_of_each(texts: list[str]) -> None:
    assert [ids.tolist() for ids in TOKENIZER.encode_batch(texts)] == [REFERENCE.ids(text) for text in texts]


def test_cut_characters_are_shown_as_replacement_and_ids_past_the_end_as_nothing() -> None:
    ids = TOKENIZER.encode("鼊").tolist()  # no character of the training text
    assert len(ids) > 1
    assert TOKENIZER.decode(ids[:1]) == "\ufffd"
    assert TOKENIZER.token_bytes(TOKENIZER.vocab_size) == TOKENIZER.token_bytes(-1) == b""
    assert TOKENIZER.decode([TOKENIZER.vocab_size + 5, *ids]) == "鼊"


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_opens_the_folder_and_gives_the_same_ids(tmp_path: Path, kind: Kind) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = trained(kind)
    tokenizer.save(tmp_path)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    text = training_text(8, 80) + "🙂 e\u0301 \x00 '  \n\n x"
    assert theirs.encode(text, add_special_tokens=False) == tokenizer.encode(text).tolist()
    assert theirs.decode(tokenizer.encode(text).tolist()) == text
    assert (theirs.eos_token_id, theirs.pad_token_id) == (tokenizer.eos_id, tokenizer.pad_id)
    assert len(theirs) == tokenizer.vocab_size
