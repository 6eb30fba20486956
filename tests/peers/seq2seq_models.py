"""Small random encoder-decoder models as Marian, T5, BART, NLLB and mBART are published, saved by transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import AddedToken, processors

from tests.peers.foreign_models import _BART, byte_level, sentencepiece

ENGLISH = [
    "The quick brown fox jumps over the lazy dog, and the dog sleeps at home.",
    "A river runs to the sea. Rain falls on the hills, and the river runs again.",
    "Where does the river run? To the sea, says the fox, and the owl says so too.",
]
GERMAN = [
    "Der schnelle Fuchs springt über den faulen Hund.",
    "Ein Fluss fließt zum Meer, und Regen fällt auf die Hügel.",
]
LANGUAGES = ["eng_Latn", "deu_Latn", "zho_Hans"]
CODES = ["en_XX", "de_DE", "zh_CN"]


def marian_tokenizer(folder: Path, languages: tuple[str, ...] = ()) -> dict[str, int]:
    """source.spm, target.spm and vocab.json; the vocabulary lacks two of the source's pieces."""
    import sentencepiece

    pieces: dict[str, None] = {}
    for name, text in (("source", ENGLISH), ("target", [*GERMAN, "春眠不觉晓"])):
        (folder / f"{name}.txt").write_text("\n".join(text * 20), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            input=str(folder / f"{name}.txt"), model_prefix=str(folder / name), vocab_size=80, model_type="unigram",
            unk_id=2, bos_id=-1, eos_id=0, pad_id=-1, minloglevel=2, hard_vocab_limit=False,
        )  # fmt: skip
        (folder / f"{name}.model").rename(folder / f"{name}.spm")
        model = sentencepiece.SentencePieceProcessor(str(folder / f"{name}.spm"))
        pieces |= dict.fromkeys(model.id_to_piece(n) for n in range(model.get_piece_size()))
    left = [piece for piece in pieces if piece not in ("</s>", "<unk>", "▁fox", "▁the")]
    tokens = ["</s>", "<unk>", *left, *(f">>{code}<<" for code in languages), "<pad>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    config = {"model_max_length": 512} if languages else {"source_lang": "eng", "target_lang": "deu"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": "MarianTokenizer"}))
    return vocabulary


def marian(folder: Path, languages: tuple[str, ...] = ()) -> None:
    """Opus-MT: several beams, the padding token forbidden."""
    size = len(marian_tokenizer(folder, languages))
    ids = {"pad_token_id": size - 1, "eos_token_id": 0, "decoder_start_token_id": size - 1}
    shape = {name: value for name, value in _BART.items() if not name.endswith("token_id")} | {
        "vocab_size": size
    }
    search = transformers.GenerationConfig(
        num_beams=3,
        max_length=20,
        bad_words_ids=[[size - 1]],
        forced_eos_token_id=0,
        no_repeat_ngram_size=2,
        **ids,
    )
    config = transformers.MarianConfig(**shape, **ids, forced_eos_token_id=0)
    _save(transformers.MarianMTModel, config, folder, search)


def t5(folder: Path) -> None:
    """T5: the words before a text, and the search of each task, stand in config.json."""
    tasks = {
        "summarization": {"prefix": "summarize: ", "num_beams": 2, "max_length": 12, "min_length": 4, "early_stopping": True,
                          "no_repeat_ngram_size": 3, "length_penalty": 2.0},
        "translation_en_to_de": {"prefix": "translate English to German: ", "num_beams": 2, "max_length": 15,
                                 "early_stopping": True},
        "translation_en_to_fr": {"prefix": "translate English to French: ", "num_beams": 2, "max_length": 15},
    }  # fmt: skip
    tokenizer = sentencepiece()
    config = transformers.T5Config(
        vocab_size=tokenizer.get_vocab_size(), d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
        bos_token_id=0, pad_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    _tokenizer(tokenizer, folder)
    _save(transformers.T5ForConditionalGeneration, config, folder)
    _add(folder / "config.json", task_specific_params=tasks)


def bart(folder: Path) -> None:
    """BART for summaries: its search stands in generation_config.json."""
    search = transformers.GenerationConfig(
        num_beams=4, max_length=14, min_length=5, length_penalty=2.0, no_repeat_ngram_size=3, early_stopping=True,
        bos_token_id=0, pad_token_id=1, eos_token_id=2, decoder_start_token_id=2,
    )  # fmt: skip
    _tokenizer(byte_level("<s> $A </s>"), folder)
    config = transformers.BartConfig(**_BART, decoder_start_token_id=2)
    _save(transformers.BartForConditionalGeneration, config, folder, search)


def multilingual(folder: Path, kind: str) -> None:
    """NLLB: the language before the text; mBART: behind it. The answer begins with that of the target."""
    names = LANGUAGES if kind == "nllb" else CODES
    tokenizer = byte_level()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in names])
    first = tokenizer.token_to_id(names[0])
    around = f"{names[0]} $A </s>" if kind == "nllb" else f"$A </s> {names[0]}"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=around, special_tokens=[("</s>", 2), (names[0], first)]
    )
    _tokenizer(tokenizer, folder)
    forms = {
        "nllb": (transformers.M2M100Config, transformers.M2M100ForConditionalGeneration),
        "mbart": (transformers.MBartConfig, transformers.MBartForConditionalGeneration),
    }
    config, model = forms[kind]
    _save(model, config(**_BART, decoder_start_token_id=2), folder)


def tokenizer_of(folder: Path) -> tokenizers.Tokenizer:
    """The file's tokenizer, by its own library."""
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


def _tokenizer(tokenizer: tokenizers.Tokenizer, folder: Path) -> None:
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))


def _save(kind: Any, config: Any, folder: Path, search: Any = None) -> None:
    """Random weights with which rows get answers of several tokens that are not all the same."""
    for seed in range(3, 60):
        torch.manual_seed(seed)
        model = kind(config).eval()
        for name, parameter in model.named_parameters():
            if "positions" not in name:
                parameter.data.add_(torch.randn_like(parameter) * 0.5)
        if search is not None:
            model.generation_config = search
        model.save_pretrained(folder)
        rows = [torch.tensor([[5 + n, 9 * n + 7, 11, 40 - n, 2]]) for n in range(4)]
        settings = {} if search is not None else {"max_new_tokens": 12}
        found = {tuple(model.generate(row, **settings)[0].tolist()) for row in rows}
        if len(found) > 1 and any(len(set(one)) > 3 for one in found):
            return
    raise AssertionError("no seed gives several answers")


def _add(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
