"""Tokenizers without a tokenizer.json: what is refused, and what stands before a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ownlm.console.errors import Refused, UsageError
from ownlm.corpus.tokenizer import Tokenizer
from ownlm.corpus.train_tokenizer import train_tokenizer
from ownlm.loaded import stop_ids
from tests.corpus.foreign import (
    SENTENCES,
    write_bert,
    write_gpt2,
    write_json,
)


def refused(folder: Path, *words: str) -> None:
    """Loading the folder is refused, and the message has these words."""
    with pytest.raises(Refused) as caught:
        Tokenizer.load(folder)
    for word in words:
        assert word in str(caught.value)


# ---- tokenizer.json

SPEC: dict[str, Any] = {
    "version": "1.0",
    "added_tokens": [],
    "pre_tokenizer": {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    },
    "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2}, "merges": []},
}


def spec(vocab: Any = None, added: Any = (), **model: Any) -> dict[str, Any]:
    changed = {**SPEC["model"], **({} if vocab is None else {"vocab": vocab}), **model}
    entries = [{"special": True, "lstrip": False, "rstrip": False, "single_word": False} | e for e in added]
    return {**SPEC, "added_tokens": [{"normalized": False} | e for e in entries], "model": changed}


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (spec({"a": 0, "b": 0}), "both the id 0"),
        (spec({"a": 0, "b": 1, "c": 9}), "ids run up to 9"),
        (spec({"a": 0, "b": 10**9}), "1000000000"),
        (spec({"a": 0, "b": -1}), "-1"),
        (spec({"a": 0, "b": 1.5}), "1.5"),
        (spec({"a": 0, "b": "1"}), "'1'"),
        (spec({"a": 0, "b": None}), "None"),
        (spec({}), "no tokens"),
        (spec(added=[{"id": 0, "content": "<x>"}]), "both the id 0"),
        (spec(added=[{"id": 5, "content": "<x>"}]), "claims the id 5, and gets 3"),
        (spec(added=[{"id": 3, "content": "<x>"}, {"id": 4, "content": "<x>"}]), "has the ids 3 and 4"),
        (spec(added=[{"content": "<x>"}]), "KeyError"),
        (spec(merges=[["a", "zz"]]), "zz"),
        (spec(merges=[[0, 1]]), "not a tokenizer"),
        ([], "not a tokenizer.json"),
    ],
)
def test_a_damaged_tokenizer_json_is_refused(content: Any, word: str, tmp_path: Path) -> None:
    write_json(tmp_path / "tokenizer.json", spec())
    assert Tokenizer.load(tmp_path).encode("cab").tolist() == [2, 0, 1]  # the undamaged one is taken
    write_json(tmp_path / "tokenizer.json", content)
    refused(tmp_path, "tokenizer.json", word)


def test_an_id_without_a_token_is_allowed(tmp_path: Path) -> None:
    write_json(tmp_path / "tokenizer.json", spec({"a": 0, "b": 1, "c": 3}))
    tokenizer = Tokenizer.load(tmp_path)
    assert (tokenizer.vocab_size, tokenizer.token_bytes(2), tokenizer.decode([3, 2, 0])) == (4, b"", "ca")


# ---- GPT-2


def test_both_pairs_of_names_are_read(tmp_path: Path) -> None:
    found = []
    for number, names in enumerate([("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")]):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_gpt2(folder, names)
        found.append(Tokenizer.load(folder))
    assert found[0].sha256 == found[1].sha256
    text = SENTENCES[0]
    assert found[0].decode(found[0].encode(text)) == text and len(found[0].encode(text)) < len(text)


def test_a_merge_of_unknown_tokens_is_refused_with_its_line(tmp_path: Path) -> None:
    write_gpt2(tmp_path)
    merges = tmp_path / "merges.txt"
    whole = merges.read_bytes()
    lines = whole.count(b"\n")
    for bad, word in (
        (b"zz qq\n", "'zz'"),
        (b"a\n", "'a'"),
        (b"a b c\n", "two tokens"),
        (b"\xff\xfe a\n", "UTF-8"),
    ):
        merges.write_bytes(whole + bad)
        refused(tmp_path, "merges.txt" if word == "UTF-8" else f"merges.txt:{lines + 1}", word)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b'{"a": 0, "a": 1}', "comes twice"),
        (b'{"a": 0, "b": 0}', "both the id 0"),
        (b'{"a": 0, "b": 77}', "ids run up to 77"),
        (b'{"a": 99999999999}', "99999999999"),
        (b'{"a": true}', "True"),
        (b'["a"]', "object"),
        (b'{"a": ', "JSON"),
        (b'{"\xff": 0}', "JSON"),
        (b"[" * 100_000, "JSON"),
        (b"{}", "no tokens"),
    ],
)
def test_a_damaged_vocabulary_is_refused(content: bytes, word: str, tmp_path: Path) -> None:
    write_gpt2(tmp_path)
    (tmp_path / "vocab.json").write_bytes(content)
    refused(tmp_path, "vocab.json", word)


def test_another_class_with_the_same_files_is_refused_by_name(tmp_path: Path) -> None:
    write_gpt2(tmp_path)
    write_json(tmp_path / "config.json", {"model_type": "roberta"})
    refused(tmp_path, "roberta", "config.json")
    write_json(tmp_path / "tokenizer_config.json", {"tokenizer_class": "CLIPTokenizer"})
    refused(tmp_path, "CLIPTokenizer", "save_pretrained")
    write_json(tmp_path / "tokenizer_config.json", {"tokenizer_class": "GPT2TokenizerFast"})
    assert Tokenizer.load(tmp_path).vocab_size == 600 + 1


@pytest.mark.parametrize(
    ("listed", "word"),
    [
        ({"700": {"content": "<x>"}}, "cannot have the id 700"),
        ({"0": {"content": "<x>"}}, "cannot have the id 0"),
        ({"x": {"content": "<x>"}}, "numbers"),
        ({"601": {}}, "no token"),
        (["<x>"], "numbers"),
    ],
)
def test_added_tokens_that_cannot_have_their_id_are_refused(listed: Any, word: str, tmp_path: Path) -> None:
    write_gpt2(tmp_path)
    write_json(tmp_path / "tokenizer_config.json", {"added_tokens_decoder": listed})
    refused(tmp_path, "tokenizer_config.json", word)


# ---- BERT


def test_a_repeated_line_of_vocab_txt_is_refused_with_both_lines(tmp_path: Path) -> None:
    write_bert(tmp_path)
    file = tmp_path / "vocab.txt"
    whole = file.read_bytes()
    tokens = whole.decode().splitlines()
    file.write_bytes(whole + f"{tokens[7]}\n".encode())
    refused(tmp_path, f"vocab.txt:{len(tokens) + 1}", "line 8")
    file.write_bytes(whole.replace(b"[CLS]\n", b"[CLX]\n"))
    refused(tmp_path, "vocab.txt", "[CLS]")
    file.write_bytes(whole + b"\xff\n")
    refused(tmp_path, "vocab.txt", "UTF-8")
    file.write_bytes(whole.replace(b"\n", b"\r\n"))
    assert Tokenizer.load(tmp_path).vocab_size == len(tokens)


# ---- before and after a text


def test_our_own_tokenizers_put_their_end_token_before_a_prompt() -> None:
    own = train_tokenizer(list(SENTENCES) * 4, vocab_size=400, corpus_bytes=5_000)
    assert own.ours and own.prefix_ids == [own.eos_id] and own.start_id == own.eos_id
    assert own.encode_prompt("fox") == [own.eos_id, *own.encode("fox").tolist()]
    assert own.encode_prompt("") == [own.eos_id]


def test_an_empty_prompt_without_a_prefix_starts_from_the_start_token(tmp_path: Path) -> None:
    write_gpt2(tmp_path)
    found = Tokenizer.load(tmp_path)
    assert found.encode_prompt("fox") == found.encode("fox").tolist()
    assert found.encode_prompt("") == [found.eos_id]


@pytest.mark.parametrize(
    "processor",
    [
        {"type": "BertProcessing", "sep": ["c", 2], "cls": ["b", 1]},
        {
            "type": "RobertaProcessing",
            "sep": ["c", 2],
            "cls": ["b", 1],
            "trim_offsets": True,
            "add_prefix_space": False,
        },
        {
            "type": "Sequence",
            "processors": [
                {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
                {
                    "type": "TemplateProcessing",
                    "single": [
                        {"SpecialToken": {"id": "b", "type_id": 0}},
                        {"SpecialToken": {"id": "cc", "type_id": 0}},
                        {"Sequence": {"id": "A", "type_id": 0}},
                        {"SpecialToken": {"id": "b", "type_id": 0}},
                    ],
                    "pair": [
                        {"Sequence": {"id": "A", "type_id": 0}},
                        {"Sequence": {"id": "B", "type_id": 1}},
                    ],
                    "special_tokens": {
                        "b": {"id": "b", "ids": [1], "tokens": ["b"]},
                        "cc": {"id": "cc", "ids": [2, 2], "tokens": ["c", "c"]},
                    },
                },
            ],
        },
    ],
)
def test_the_prefix_is_what_the_post_processor_puts_in_front(
    processor: dict[str, Any], tmp_path: Path
) -> None:
    write_json(tmp_path / "tokenizer.json", spec() | {"post_processor": processor})
    found = Tokenizer.load(tmp_path)
    whole = found.backend.encode("a").ids
    assert found.prefix_ids == whole[: whole.index(0)] != []
    assert found.start_id == found.prefix_ids[-1]


def test_end_tokens_of_the_generation_config(tmp_path: Path) -> None:
    write_gpt2(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    end = tokenizer.eos_id
    assert stop_ids(tmp_path, tokenizer, 700) == (end,)
    write_json(tmp_path / "config.json", {"model_type": "gpt2", "eos_token_id": 5})
    assert stop_ids(tmp_path, tokenizer, 700) == (end, 5)
    write_json(tmp_path / "generation_config.json", {"eos_token_id": [7, end, 8]})
    assert stop_ids(tmp_path, tokenizer, 700) == (end, 7, 8)
    for bad in (700, -1, "x", [1.5], [[3]]):
        write_json(tmp_path / "generation_config.json", {"eos_token_id": bad})
        with pytest.raises(Refused, match="generation_config.json"):
            stop_ids(tmp_path, tokenizer, 700)


def test_a_folder_without_a_tokenizer_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="merges.txt"):
        Tokenizer.load(tmp_path)
    write_json(tmp_path / "vocab.json", {"a": 0})  # half of a pair
    with pytest.raises(UsageError, match="merges.txt"):
        Tokenizer.load(tmp_path)
    assert json.loads((tmp_path / "vocab.json").read_text()) == {"a": 0}
