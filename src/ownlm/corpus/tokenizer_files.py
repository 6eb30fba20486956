"""Tokenizers that come without a `tokenizer.json`: the same ids from the older files.

Read are GPT-2's `vocab.json` + `merges.txt` (also named `encoder.json` + `vocab.bpe`), sentencepiece's
`tokenizer.model` and BERT's `vocab.txt`. The first and the last get the ids of the classes of transformers 5. A
sentencepiece model gets those of sentencepiece, which llama.cpp and Meta's own program give too: transformers 5.23
takes the order of the merges from the ids instead of the scores and leaves out the space before a text that starts
with one, so that an indented line of code has other ids there than the model was trained with.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ownlm.console.errors import Refused
from ownlm.corpus import special_tokens
from ownlm.corpus.sentencepiece import read_model, tokenizer_spec
from ownlm.corpus.tokenizer_spec import bpe_section, template
from ownlm.corpus.vocabulary import check_ids

_ANY_CLASS = (
    "PreTrainedTokenizer",
    "TokenizersBackend",
)  # with "Fast" left out: they say nothing of the rules


@dataclass(frozen=True)
class Source:
    """One way in which a tokenizer is stored.

    Args:
        files: names of its files, all of which are needed.
        class_name: the class of transformers whose ids it gets.
        model_types: values of `model_type` in config.json whose class that is.
        build: (paths, configuration) → content of a tokenizer.json; it may fill in the configuration.
    """

    files: tuple[str, ...]
    class_name: str
    model_types: tuple[str, ...]
    build: Callable[[list[Path], dict[str, Any]], dict[str, Any]]


def find(folder: Path) -> Source | None:
    """How the tokenizer of a folder without a `tokenizer.json` is stored; None: there is none."""
    for source in SOURCES:
        if all((folder / name).is_file() for name in source.files):
            return source
    return None


def build(folder: Path, source: Source) -> tuple[str, dict[str, Any], Path]:
    """The `tokenizer.json` that gives the same ids.

    Returns:
        Its text, the content of `tokenizer_config.json` with what the class fills in, and the file for messages.

    Raises:
        Refused: damaged files, files that contradict each other, a class whose rules are not known here.
    """
    paths = [folder / name for name in source.files]
    config = special_tokens.read_config(folder)
    _check_class(folder, config, source)
    spec = source.build(paths, config)
    special_tokens.add(spec, config, folder)
    if spec["post_processor"] is None:
        spec["post_processor"] = _template(spec, config)
    config.setdefault("tokenizer_class", source.class_name)
    return json.dumps(spec, ensure_ascii=False), config, paths[0]


def _check_class(folder: Path, config: dict[str, Any], source: Source) -> None:
    named, where = config.get("tokenizer_class"), folder / "tokenizer_config.json"
    if named is None:
        model = special_tokens.read_json(folder / "config.json")
        named, where = model.get("tokenizer_class"), folder / "config.json"
        kind = model.get("model_type")
        if named is None and kind is not None and source.model_types and kind not in source.model_types:
            named = f"the tokenizer of {kind}"
    if named is None:
        return
    if str(named).removesuffix("Fast") not in (*_ANY_CLASS, source.class_name):
        raise Refused(
            f"{named} with {' + '.join(source.files)} is not read; {source.class_name} is.",
            where=where,
            why="Its rules are not known here, and the ids would be others.",
            do=f"python -c \"from transformers import AutoTokenizer as T; T.from_pretrained('{folder}')"
            f".save_pretrained('{folder}')\"",
        )


def _template(spec: dict[str, Any], config: dict[str, Any]) -> dict[str, Any] | None:
    """What `add_bos_token` and `add_eos_token` put around a text."""

    def token(name: str) -> list[tuple[str, int]]:
        content = special_tokens.content(config.get(f"{name}_token"))
        if not config.get(f"add_{name}_token") or content is None:
            return []
        return [(content, special_tokens.index_of(spec, content))]

    before, after = token("bos"), token("eos")
    return template(before, after) if before or after else None


# ---- GPT-2


def _gpt2(paths: list[Path], config: dict[str, Any]) -> dict[str, Any]:
    for name in ("unk_token", "bos_token", "eos_token"):
        config.setdefault(name, "<|endoftext|>")
    vocabulary = special_tokens.read_json(paths[0], unique=True)
    check_vocabulary(vocabulary, paths[0])
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": byte_level | {"add_prefix_space": bool(config.get("add_prefix_space"))},
        "post_processor": None,
        "decoder": byte_level | {"add_prefix_space": True},
        "model": bpe_section(vocabulary, _read_merges(paths[1], vocabulary)),
    }


def _read_merges(file: Path, vocabulary: dict[str, int]) -> list[list[str]]:
    """Lines of two tokens; what they make has to be in the vocabulary too."""
    found = []
    for number, line in enumerate(read_text(file).split("\n"), 1):
        line = line.removesuffix("\r")
        if not line or (number == 1 and line.startswith("#version")):
            continue
        parts = line.split(" ")
        if len(parts) != 2:
            raise Refused(
                f"two tokens with a space between are expected: {line[:60]!r}.", where=f"{file}:{number}"
            )
        for token in (*parts, "".join(parts)):
            if token not in vocabulary:
                raise Refused(
                    f"the token {token[:60]!r} is not in the vocabulary.",
                    where=f"{file}:{number}",
                    why="The two files do not belong together, or one is cut off.",
                )
        found.append(parts)
    return found


# ---- BERT


def _bert(paths: list[Path], config: dict[str, Any]) -> dict[str, Any]:
    for name in ("unk", "sep", "pad", "cls", "mask"):
        config.setdefault(f"{name}_token", f"[{name.upper()}]")
    if config.get("do_basic_tokenize") is False:
        raise Refused(
            "do_basic_tokenize = false is not supported.", where=paths[0].with_name("tokenizer_config.json")
        )
    vocabulary = _read_lines(paths[0])
    around = {}
    for name in ("unk_token", "cls_token", "sep_token"):
        token = str(special_tokens.content(config[name]))
        if token not in vocabulary:
            raise Refused(f"has no {token}, which is the {name}.", where=paths[0])
        around[name] = (token, vocabulary[token])
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": bool(config.get("tokenize_chinese_chars", True)),
            "strip_accents": config.get("strip_accents"),
            "lowercase": bool(config.get("do_lower_case", True)),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": template([around["cls_token"]], [around["sep_token"]]),
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": around["unk_token"][0],
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
    }


def _read_lines(file: Path) -> dict[str, int]:
    """Token → line number from 0. Lines of spaces alone are no tokens that a text could have."""
    lines = read_text(file).removesuffix("\n").split("\n")
    vocabulary: dict[str, int] = {}
    for index, line in enumerate(lines):
        token = line.rstrip()
        if token and vocabulary.setdefault(token, index) != index:
            raise Refused(
                f"the token {token[:60]!r} is in line {vocabulary[token] + 1:,} already.",
                where=f"{file}:{index + 1}",
                why="It would have two ids.",
            )
        vocabulary[token] = index
    check_vocabulary(vocabulary, file)
    return vocabulary


# ---- sentencepiece


def _sentencepiece(paths: list[Path], config: dict[str, Any]) -> dict[str, Any]:
    model = read_model(paths[0])
    if config.get("add_prefix_space") is False:
        model = replace(model, dummy_prefix=False)
    for name, index in (("unk", model.unk_id), ("bos", model.bos_id), ("eos", model.eos_id)):
        if model.piece(index) is not None:
            config.setdefault(f"{name}_token", model.piece(index))
    if config.get("bos_token") is not None:
        # The file says nothing of it; programs that use a sentencepiece model put <s> before a text.
        config.setdefault("add_bos_token", True)
    llama = str(config.get("tokenizer_class")).removesuffix("Fast") == "LlamaTokenizer"
    # A written folder has the tokenizer.json below; with LlamaTokenizer transformers would make another one of it.
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    return tokenizer_spec(model, after_specials=not llama or bool(config.get("legacy", False)))


# ---- files


def read_text(file: Path, limit: int = special_tokens.MAX_BYTES) -> str:
    """The text of a file of at most `limit` bytes.

    Raises:
        Refused: too large for a vocabulary, or not UTF-8.
    """
    if file.stat().st_size > limit:
        raise Refused(f"larger than {limit // 10**6} MB: not the file of a tokenizer.", where=file)
    try:
        return file.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused(
            f"not a tokenizer: the file is not UTF-8 text (byte {error.start:,}).", where=file
        ) from None


def check_vocabulary(vocabulary: dict[str, int], file: Path) -> None:
    """Refuse ids that are none, that two tokens share, or that lie far apart."""
    try:
        check_ids(vocabulary.items())
    except (ValueError, TypeError) as error:
        raise Refused(f"not a vocabulary: {error}.", where=file) from None


SOURCES = (
    Source(("tokenizer.model",), "LlamaTokenizer", (), _sentencepiece),
    Source(("vocab.json", "merges.txt"), "GPT2Tokenizer", ("gpt2", "gpt_neo", "gptj", "gpt_bigcode"), _gpt2),
    Source(("encoder.json", "vocab.bpe"), "GPT2Tokenizer", ("gpt2",), _gpt2),
    Source(("vocab.txt",), "BertTokenizer", ("bert",), _bert),
)
