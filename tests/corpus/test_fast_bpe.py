"""tiktoken gives the ids of `tokenizers` where it is used, and says why where it is not."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ownlm.corpus import fast_bpe
from ownlm.corpus.engine_differences import differences, differing_characters, reads_alike
from ownlm.corpus.fast_bpe import GPT2_PATTERN, MAX_SPACES, QWEN2_PATTERN, SEPARATOR, FastBpe
from ownlm.corpus.tokenizer import Tokenizer
from tests.corpus.vocabularies import Reference, hard_texts, opened, plain_texts, trained, training_text

TOKENIZER = trained()
REFERENCE = Reference(TOKENIZER.text)
Change = Callable[[dict[str, Any]], None]


def fast(tokenizer: Tokenizer = TOKENIZER) -> FastBpe:
    found = tokenizer.fast_path
    assert isinstance(found, FastBpe)
    return found


def changed(change: Change) -> Tokenizer:
    """The tokenizer with something changed in its file."""
    spec = copy.deepcopy(TOKENIZER.spec)
    change(spec)
    return opened(spec)


def gpt2_like() -> Tokenizer:
    """The same merges behind GPT-2's regex."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return changed(lambda spec: spec.update(pre_tokenizer=byte_level))


@given(hard_texts(["<|endoftext|>", "<|im_start|>", SEPARATOR]))
@example("I'LL 'ſ 'K don't")
@example("a\u00a0\u00a0b \u2003 c\n \n")
@settings(max_examples=300, deadline=None)
def test_ids_are_those_of_tokenizers(text: str) -> None:
    assert fast().refuses(text) is None
    assert fast().encode(text).tolist() == REFERENCE.ids(text)
    assert TOKENIZER.encode(text).tolist() == REFERENCE.ids(text)


def test_ids_are_those_of_tokenizers_behind_the_regex_of_gpt2() -> None:
    tokenizer = gpt2_like()
    reference = Reference(tokenizer.text)

    @given(hard_texts())
    @settings(max_examples=150, deadline=None)
    def check(text: str) -> None:
        assert fast(tokenizer).encode(text).tolist() == reference.ids(text)

    check()


@given(st.lists(st.one_of(plain_texts(length=12), hard_texts(length=6)), min_size=1, max_size=8))
@settings(max_examples=150, deadline=None)
def test_joined_documents_have_the_ids_of_each(texts: list[str]) -> None:
    joined = fast().encode_joined(texts, TOKENIZER.eos_id)
    if any(SEPARATOR in text for text in texts):
        assert joined is None
    else:
        assert joined is not None
        assert joined.tolist() == REFERENCE.joined(texts, TOKENIZER.eos_id)


@pytest.mark.parametrize(
    "texts", [["a", f"b{SEPARATOR}"], [SEPARATOR], ["a", "\ud800"], ["春", " " * 20_000]]
)
def test_documents_are_not_joined_when_one_is_not_for_it(texts: list[str]) -> None:
    assert fast().encode_joined(texts, 0) is None


def test_spaces_without_end_are_refused_in_time_and_encoded_all_the_same() -> None:
    text = "a" + " " * 1_000_000 + "b"
    assert fast().refuses(text) == f"more than {MAX_SPACES:,} spaces in a row"
    assert TOKENIZER.encode(text).tolist() == REFERENCE.ids(text)


@pytest.mark.parametrize("space", [" ", "\n", "\u3000"])
@pytest.mark.parametrize("before", [0, 1, 1249, 1250, 7777])
def test_every_run_over_the_limit_is_seen_and_none_below(space: str, before: int) -> None:
    def around(run: int) -> str:
        return "x" * before + space * run + "y" * 3000

    assert fast().refuses(around(MAX_SPACES + 1)) is not None
    assert fast().refuses(around(MAX_SPACES)) is None
    assert fast().encode(around(MAX_SPACES)).tolist() == REFERENCE.ids(around(MAX_SPACES))


def test_broken_surrogates_are_refused_and_become_a_replacement_character() -> None:
    assert fast().refuses("a\ud800b") == "broken surrogates"
    assert TOKENIZER.encode("a\ud800b").tolist() == REFERENCE.ids("a\ufffdb")
    assert TOKENIZER.encode("\ud83d\ude42").tolist() == REFERENCE.ids("🙂")


def test_a_text_that_spells_an_added_token_goes_to_tokenizers() -> None:
    def add(spec: dict[str, Any]) -> None:
        size = max(*spec["model"]["vocab"].values(), *(t["id"] for t in spec["added_tokens"])) + 1
        token = {"id": size, "content": "<tool>", "special": False, "normalized": False}
        spec["added_tokens"].append(token | {"single_word": False, "lstrip": False, "rstrip": False})

    tokenizer = changed(add)
    assert fast(tokenizer).refuses("a <tool> b") == "spells an added token"
    assert fast(tokenizer).refuses("a < tool> b") is None
    ids = tokenizer.encode("a <tool> b").tolist()
    assert ids == Reference(tokenizer.text).ids("a <tool> b")
    assert tokenizer.backend.token_to_id("<tool>") in ids


def test_characters_that_the_engines_sort_differently_go_to_tokenizers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fast_bpe, "differing_characters", lambda pattern: re.compile("[春]"))
    tokenizer = opened(TOKENIZER.spec)
    assert fast(tokenizer).refuses("春眠") == "characters that the regex engines sort differently"
    assert fast(tokenizer).refuses("夏") is None
    assert tokenizer.encode("春眠").tolist() == REFERENCE.ids("春眠")


def test_the_engines_agree_on_the_classes_of_both_patterns() -> None:
    assert differing_characters(QWEN2_PATTERN) is None
    assert differing_characters(GPT2_PATTERN) is None


@pytest.mark.parametrize(
    ("pattern", "alike"),
    [
        (QWEN2_PATTERN, True),
        (GPT2_PATTERN, True),
        (r"'(?i:[sdmt]|ll)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s+(?!\S)", True),
        (r"[$^.]+|\[|\$|\^|\\", True),
        (r"\p{N}{1,3}+", False),
        (r"\s+$", False),
        (r"^\s+", False),
        (r"(?<a>x)\g<a>", False),
        (r"(a)\1", False),
        (r"a(?i)b|c", False),
        (r"[a-z&&[^b]]", False),
        (r"[[:alpha:]]", False),
        (r"\bword", False),
        (r"a{,3}", False),
        (r"a{2,}", True),
    ],
)
def test_only_what_both_engines_read_alike_is_taken(pattern: str, alike: bool) -> None:
    assert reads_alike(pattern) is alike


def test_a_difference_between_the_engines_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from ownlm.corpus import engine_differences

    monkeypatch.setattr(engine_differences, "_matched_by_rust", lambda expression, text: set(text) - {"é"})
    assert "é" in differences(r"\p{L}", [0xE9, 0x6625])
    assert differences(r"\p{L}", [0x6625]) == set()


def split(pattern: str, behavior: str = "Isolated", invert: bool = False) -> Change:
    def change(spec: dict[str, Any]) -> None:
        first = spec["pre_tokenizer"]["pretokenizers"][0]
        first.update(pattern={"Regex": pattern}, behavior=behavior, invert=invert)

    return change


def merges_turned_round(spec: dict[str, Any]) -> None:
    spec["model"]["merges"].reverse()


def a_token_without_merge(spec: dict[str, Any]) -> None:
    spec["model"]["merges"].pop()


def a_byte_is_missing(spec: dict[str, Any]) -> None:
    vocabulary = spec["model"]["vocab"]
    vocabulary["qqq"] = vocabulary.pop("Ā")
    spec["model"]["merges"] = [m for m in spec["model"]["merges"] if "Ā" not in "".join(m)]


def set_model(**rules: Any) -> Change:
    return lambda spec: spec["model"].update(rules)


NOT_EXPRESSED: dict[str, tuple[Change, str]] = {
    "normalizer": (lambda spec: spec.update(normalizer={"type": "NFC"}), "its normalizer (NFC)"),
    "no pre-tokenizer": (lambda spec: spec.update(pre_tokenizer=None), "its pre-tokenizer (none)"),
    "whitespace": (lambda spec: spec.update(pre_tokenizer={"type": "Whitespace"}), "its pre-tokenizer (Whitespace)"),
    "space in front": (
        lambda spec: spec["pre_tokenizer"]["pretokenizers"][1].update(add_prefix_space=True),
        "a space in front",
    ),
    "removed": (split(QWEN2_PATTERN, "Removed"), "its pre-tokenizer"),
    "inverted": (split(QWEN2_PATTERN, invert=True), "its pre-tokenizer"),
    "call of a group": (split(r"(?<a>\p{L})\g<a>*|\s"), "may mean something else"),
    "unknown property": (split(r"\p{In_Basic_Latin}+|\s"), "does not take its regex"),
    "byte fallback": (set_model(byte_fallback=True), "byte_fallback"),
    "suffix": (set_model(end_of_word_suffix="</w>"), "end_of_word_suffix"),
    "order of merges": (merges_turned_round, "not in the order of their ids"),
    "token without merge": (a_token_without_merge, "not made by a merge"),
    "byte missing": (a_byte_is_missing, "not every byte is a token"),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_EXPRESSED)
def test_what_tiktoken_cannot_express_falls_back_and_says_why(name: str) -> None:
    change, reason = NOT_EXPRESSED[name]
    tokenizer = changed(change)
    assert not tokenizer.fast
    assert reason in tokenizer.fast_reason
    text = training_text(7, 60)
    assert tokenizer.encode(text).tolist() == Reference(tokenizer.text).ids(text)


def test_a_fallback_is_not_for_show() -> None:
    """With its merges turned round `tokenizers` gives other ids than tiktoken would by the ids' order."""
    tokenizer = changed(merges_turned_round)
    text = training_text(7, 60)
    assert tokenizer.encode(text).tolist() != TOKENIZER.encode(text).tolist()


def test_the_reason_of_the_fast_way_is_a_sentence_too() -> None:
    assert TOKENIZER.fast
    assert TOKENIZER.fast_reason == "tiktoken, made from the same merges"
