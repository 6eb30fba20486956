"""Token ids beside those of the programs that other people use: transformers, sentencepiece, llama.cpp."""

from __future__ import annotations

import lzma
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from ownlm.corpus.tokenizer import Tokenizer
from ownlm.corpus.train_tokenizer import train_tokenizer
from ownlm.corpus.vocabulary import without_surrogates
from tests.corpus.foreign import (
    SENTENCES,
    TEXTS,
    model_bytes,
    pieces,
    plain_bpe,
    write_bert,
    write_gpt2,
    write_json,
)

DATA = Path(__file__).parents[2].parent / "shared" / "data"
shared = pytest.mark.skipif(not DATA.is_dir(), reason="the shared data folder is not beside this checkout")


def upstream(folder: Path) -> Any:
    """transformers' tokenizer of a folder."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def many_texts() -> list[str]:
    """Sentences in a dozen scripts and edge cases; with the shared data a piece of each of 130 translations."""
    file = DATA / "udhr2" / "udhr2.zip"
    if not file.is_file():
        return list(TEXTS)
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if name.endswith(".txt")]
        return [*TEXTS, *(archive.read(name)[:600].decode("utf-8", "replace") for name in names[::3])]


def assert_same_ids(ours: Tokenizer, theirs: Any, texts: list[str]) -> None:
    """As ordinary text, and with special tokens honoured."""
    for text in texts:
        whole = without_surrogates(text)  # the reference takes no broken surrogates
        expected = theirs.encode(whole, add_special_tokens=False, split_special_tokens=True)
        assert ours.encode(text).tolist() == expected, text
        expected = theirs.encode(whole, add_special_tokens=False, split_special_tokens=False)
        assert ours.encode(text, specials=True).tolist() == expected, text


# ---- our own


@pytest.mark.parametrize("kind", ["bpe", "char", "word"])
def test_transformers_gives_the_ids_of_our_own_tokenizers(kind: Any, tmp_path: Path) -> None:
    ours = train_tokenizer(list(SENTENCES) * 8, vocab_size=500, kind=kind, corpus_bytes=10_000)
    ours.save(tmp_path)
    theirs = upstream(tmp_path)
    assert ours.type == kind and len(theirs) == ours.vocab_size
    texts = many_texts()
    assert_same_ids(ours, theirs, texts)
    for text in texts:
        whole = without_surrogates(text)
        ids = ours.encode(text).tolist()
        assert ours.decode_bytes(ids) == whole.encode("utf-8")
        assert theirs.decode(ids, clean_up_tokenization_spaces=False) == whole
    chat = "<|im_start|>user\nHi<|im_end|>"
    marked = ours.encode(chat, specials=True).tolist()
    assert marked[0] == ours.special_ids["<|im_start|>"] and marked[-1] == ours.special_ids["<|im_end|>"]
    assert not set(ours.encode(chat).tolist()) & set(ours.special_ids.values())


# ---- GPT-2 and BERT


@pytest.mark.parametrize("prefix_space", [False, True])
def test_gpt2_files(prefix_space: bool, tmp_path: Path) -> None:
    write_gpt2(tmp_path)
    if prefix_space:
        write_json(
            tmp_path / "tokenizer_config.json", {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True}
        )
    ours, theirs = Tokenizer.load(tmp_path), upstream(tmp_path)
    assert_same_ids(ours, theirs, many_texts())
    assert ours.prefix_ids == theirs.encode("") == []
    assert ours.start_id == ours.eos_id == theirs.eos_token_id == len(theirs) - 1


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"do_lower_case": False},
        {"strip_accents": False, "tokenize_chinese_chars": False},
        {"do_lower_case": False, "strip_accents": True},
    ],
)
def test_bert_files(config: dict[str, Any], tmp_path: Path) -> None:
    write_bert(tmp_path, **config)
    ours, theirs = Tokenizer.load(tmp_path), upstream(tmp_path)
    assert_same_ids(ours, theirs, many_texts())
    assert [*ours.prefix_ids, ours.eos_id] == theirs.encode("")
    assert ours.start_id == theirs.cls_token_id


ADDED = {"lstrip": False, "rstrip": True, "single_word": False, "normalized": False, "special": True}


@pytest.mark.parametrize("listed", ["added_tokens_decoder", "added_tokens.json", "special_tokens_map.json"])
def test_added_tokens_of_every_file(listed: str, tmp_path: Path) -> None:
    write_gpt2(tmp_path)
    size = Tokenizer.load(tmp_path).vocab_size
    config: dict[str, Any] = {"tokenizer_class": "GPT2Tokenizer", "pad_token": "[PAD]", "add_bos_token": True}
    if listed == "added_tokens_decoder":
        plain = ADDED | {"special": False, "rstrip": False}
        entries = [ADDED | {"content": "[PAD]"}, plain | {"content": "fox"}, ADDED | {"content": "<user>"}]
        config["added_tokens_decoder"] = {str(size + i): entry for i, entry in enumerate(entries)}
    elif listed == "added_tokens.json":
        write_json(tmp_path / listed, {"fox": size, "<user>": size + 1, "[PAD]": size + 2})
    else:
        more = {"bos_token": ADDED | {"content": "<user>"}, "additional_special_tokens": ["fox"]}
        write_json(tmp_path / listed, more)
    write_json(tmp_path / "tokenizer_config.json", config)
    ours, theirs = Tokenizer.load(tmp_path), upstream(tmp_path)
    texts = ["a fox<user> said [PAD] foxes", "<user>  two spaces", *TEXTS]
    assert_same_ids(ours, theirs, texts)
    assert ours.vocab_size == len(theirs) == size + 3
    assert ours.pad_id == theirs.pad_token_id
    assert ours.prefix_ids == theirs.encode("") == [theirs.bos_token_id] == [ours.start_id]
    ours.save(tmp_path / "saved")
    write_json(tmp_path / "saved" / "config.json", {"model_type": "gpt2"})
    assert_same_ids(Tokenizer.load(tmp_path / "saved"), upstream(tmp_path / "saved"), texts)


# ---- sentencepiece


@pytest.mark.parametrize("byte_fallback", [True, False])
@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_bpe(byte_fallback: bool, prefix: bool, tmp_path: Path) -> None:
    made = pieces(byte_fallback=byte_fallback)
    file = tmp_path / "tokenizer.model"
    file.write_bytes(
        model_bytes(made, {"byte_fallback": int(byte_fallback)}, {"add_dummy_prefix": int(prefix)})
    )
    ours = Tokenizer.load(tmp_path)
    for text in many_texts():
        whole = without_surrogates(text)[:150]
        ids = ours.encode(whole).tolist()
        assert ids == plain_bpe(made, whole, prefix=prefix), whole
        if byte_fallback:
            assert ours.decode_bytes(ids).decode() == whole.replace("▁", " ")
    assert ours.prefix_ids == [1] and ours.start_id == 1 and ours.eos_id == 2
    ours.save(tmp_path / "saved")
    write_json(tmp_path / "saved" / "config.json", {"model_type": "llama"})
    theirs = upstream(tmp_path / "saved")
    assert_same_ids(ours, theirs, list(TEXTS))
    assert theirs.encode("") == ours.prefix_ids


@pytest.mark.parametrize(
    ("unigram", "symbols"), [(False, ()), (False, ("[[x]]", "▁▁▁")), (True, ()), (True, ("[[x]]",))]
)
@pytest.mark.parametrize("collapse", [0, 1])
def test_sentencepiece_beside_its_own_library(
    unigram: bool, symbols: tuple[str, ...], collapse: int, tmp_path: Path
) -> None:
    sentencepiece = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    file = tmp_path / "tokenizer.model"
    kind = {"model_type": 1 if unigram else 2}
    file.write_bytes(model_bytes(pieces(symbols=symbols), kind, {"remove_extra_whitespaces": collapse}))
    ours, theirs = Tokenizer.load(tmp_path), sentencepiece.SentencePieceProcessor(str(file))
    for text in ("[[x]] a [[x]]b", "   a    b", "a[[x]]", *many_texts()):
        whole = without_surrogates(text)
        if unigram and "<s>" in whole:
            continue  # as everywhere in `tokenizers`, Unigram finds the texts of control pieces too
        assert ours.encode(whole).tolist() == theirs.encode(whole), whole


# ---- the vocabularies that everybody has


def vectors(name: str) -> list[tuple[str, list[int]]]:
    """(text, ids) of llama.cpp's own tests."""
    stem = DATA / "tokenizer_vectors" / f"ggml-vocab-{name}.gguf"
    texts = Path(f"{stem}.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    ids = [[int(i) for i in line.split()] for line in Path(f"{stem}.out").read_text().split("\n")]
    assert len(texts) == len(ids) == 47
    return list(zip(texts, ids))


def unpack(source: Path, target: Path) -> None:
    target.write_bytes(lzma.decompress(source.read_bytes()))


@shared
@pytest.mark.parametrize("form", ["encoder.json", "vocab.json", "tokenizer.json"])
def test_gpt2_gives_the_ids_of_llama_cpp(form: str, tmp_path: Path) -> None:
    source = DATA / "tokenizers" / "gpt2"
    if form == "tokenizer.json":
        unpack(source / "tokenizer.json.xz", tmp_path / form)
    else:
        unpack(source / "encoder.json.xz", tmp_path / form)
        unpack(source / "vocab.bpe.xz", tmp_path / ("vocab.bpe" if form == "encoder.json" else "merges.txt"))
    ours = Tokenizer.load(tmp_path)
    for text, ids in vectors("gpt-2"):
        assert ours.encode(text).tolist() == ids, text
    assert ours.prefix_ids == [] and ours.start_id == ours.eos_id == 50256
    if form == "vocab.json":
        write_json(tmp_path / "config.json", {"model_type": "gpt2"})
        assert_same_ids(ours, upstream(tmp_path), [text for text, _ in vectors("gpt-2")])


@shared
def test_llama2_gives_the_ids_of_llama_cpp(tmp_path: Path) -> None:
    shutil.copy(DATA / "tokenizers" / "llama2" / "tokenizer.model", tmp_path)
    config = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "legacy": False}
    for named in (False, True):
        if named:
            write_json(tmp_path / "tokenizer_config.json", config)
        ours = Tokenizer.load(tmp_path)
        for text, ids in vectors("llama-spm"):
            assert ours.encode(text).tolist() == ids, text
        assert ours.prefix_ids == [1]


@shared
def test_bert_gives_the_ids_of_llama_cpp(tmp_path: Path) -> None:
    packed = DATA / "tokenizers/bert_base_uncased/vocab_from_gguf.txt.xz"
    lines = lzma.decompress(packed.read_bytes()).decode().removesuffix("\n").split("\n")
    # Word starts are marked there, continuations in a vocab.txt.
    back = [
        line if line[0] == "[" and line[-1] == "]" else line[1:] if line[0] == "▁" else "##" + line
        for line in lines
    ]
    (tmp_path / "vocab.txt").write_bytes("\n".join([*back, ""]).encode())
    write_json(tmp_path / "config.json", {"model_type": "bert"})
    ours = Tokenizer.load(tmp_path)
    for text, ids in vectors("bert-bge"):
        assert ours.encode(text).tolist() == ids, text
    assert_same_ids(ours, upstream(tmp_path), [text for text, _ in vectors("bert-bge")])


# ---- a model with somebody else's tokenizer


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """A small random Llama with a sentencepiece tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    made = pieces()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(made), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(model_bytes(made))
    return tmp_path


def generated(folder: Path, ids: list[int], **options: Any) -> list[int]:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    return model.generate(torch.tensor([ids]), do_sample=False, pad_token_id=0, **options)[0].tolist()


@pytest.mark.parametrize("prompt", ["The quick fox", ""])
def test_max_length_counts_like_transformers(prompt: str, llama: Path) -> None:
    import ownlm

    tokenizer = Tokenizer.load(llama)
    ids = [1, *tokenizer.encode(prompt).tolist()]
    expected = generated(llama, ids, max_length=16)
    found = ownlm.load(llama, device="cpu", dtype="float32").complete(prompt, max_length=16, temperature=0)[0]
    assert (found.prompt_tokens, found.new_tokens) == (len(ids), 16 - len(ids))
    assert found.text == tokenizer.decode(expected[len(ids) :])


def test_every_end_token_of_generation_config_ends_an_answer(llama: Path) -> None:
    import ownlm

    ids = Tokenizer.load(llama).encode_prompt("The quick fox")
    free = generated(llama, ids, max_new_tokens=12)[len(ids) :]
    end = next(token for token in free[2:] if token not in free[:2])
    write_json(llama / "generation_config.json", {"bos_token_id": 1, "eos_token_id": [2, end]})
    expected = generated(llama, ids, max_new_tokens=12)[len(ids) :]
    assert expected[-1] == end and len(expected) < 12
    model = ownlm.load(llama, device="cpu", dtype="float32")
    found = model.complete("The quick fox", max_new_tokens=12, temperature=0)[0]
    assert (found.new_tokens, found.finish_reason) == (len(expected), "stop")


def test_a_run_made_with_somebody_elses_tokenizer_starts_texts_as_its_documents_did(
    llama: Path, text_folder: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    import ownlm

    corpus = ownlm.prepare([str(text_folder)], output=tmp_path / "corpus", tokenizer=str(llama))
    run = ownlm.pretrain(corpus, output=tmp_path / "run", max_steps=1, **tiny)
    first = int(corpus.split("train").document(0)[0])
    tokenizer = ownlm.load(run).tokenizer
    assert tokenizer.encode_prompt("The")[:1] == tokenizer.prefix_ids == [first] == [2]
    assert Tokenizer.load(llama).prefix_ids == [1]
    theirs = upstream(run.path)
    text = "The quick fox"
    assert theirs(text, add_special_tokens=False).input_ids == tokenizer.encode(text).tolist()
