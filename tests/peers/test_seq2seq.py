"""Encoder-decoder models: what they are told, and answers equal to those of transformers' own search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ownlm.cli import main
from ownlm.console.errors import Refused, UsageError
from ownlm.corpus.tokenizer import Tokenizer
from ownlm.loaded import load
from ownlm.predicting import predictions
from ownlm.seq2seq import Seq2SeqModel
from ownlm.tasks.items import Chat, Pair
from tests.peers import seq2seq_models as peers

transformers = pytest.importorskip("transformers")
pytest.importorskip("sentencepiece")
TEXTS = ["The quick brown fox runs home.", "A river runs to the sea, says the owl.", "Rain."]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Name of a model → (transformers' model, its folder); made once."""
    known: dict[str, tuple[Any, Path]] = {}
    makers = {
        "marian": peers.marian,
        "marian of several": lambda folder: peers.marian(folder, ("deu", "fra")),
        "t5": peers.t5,
        "bart": peers.bart,
        "nllb": lambda folder: peers.multilingual(folder, "nllb"),
        "mbart": lambda folder: peers.multilingual(folder, "mbart"),
    }

    def one(name: str) -> tuple[Any, Path]:
        if name not in known:
            folder = tmp_path_factory.mktemp(name.replace(" ", "-"))
            makers[name](folder)
            known[name] = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval(), folder
        return known[name]

    return one


def searched(model: Any, tokenizer: Any, ids: list[int], **settings: Any) -> str:
    """What transformers' search alone gives for a row of ids."""
    found = model.generate(
        torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), **settings
    )
    return str(tokenizer.decode(found[0].tolist(), skip_special_tokens=True)).strip()


# ---- Marian


@pytest.mark.parametrize("name", ["marian", "marian of several"])
def test_ids_of_marian(name, made):
    _, folder = made(name)
    theirs, ours = transformers.MarianTokenizer.from_pretrained(folder), Tokenizer.load(folder)
    texts = [
        *TEXTS,
        "",
        "  two  spaces ",
        "the fox ☃☃ 春眠 und Straße ﬁ",
        "Der Hund",
        "\n",
        "a" * 2000,
        ">>deu<< The fox",
        ">>no",
    ]
    for text in texts:
        ids = theirs(text)["input_ids"]
        assert ours.encode_whole(text).ids == ids, text
        if text.startswith(">>"):  # the token of a language is no part of a text
            continue
        assert ours.decode(ids).strip() == theirs.decode(ids, skip_special_tokens=True).strip()
    assert ours.vocab_size == theirs.vocab_size and ours.eos_id == 0


def test_a_marian_tokenizer_is_kept_as_it_is(made, tmp_path):
    _, folder = made("marian")
    Tokenizer.load(folder).save(tmp_path)
    assert (
        Tokenizer.load(tmp_path).encode_whole(TEXTS[0]).ids
        == Tokenizer.load(folder).encode_whole(TEXTS[0]).ids
    )
    (tmp_path / "vocab.json").write_text('{"</s>": 0, "<unk>": 2}')
    with pytest.raises(Refused, match="are not 0, 1, 2"):
        Tokenizer.load(tmp_path)


def test_marian_translates_as_with_transformers(made, capsys):
    theirs, folder = made("marian")
    tokenizer = transformers.MarianTokenizer.from_pretrained(folder)
    ours = load(folder)
    assert isinstance(ours, Seq2SeqModel)
    expected = [searched(theirs, tokenizer, tokenizer(text)["input_ids"]) for text in TEXTS]
    assert ours.translate(TEXTS, to="de", from_="en") == [{"translation_text": text} for text in expected]
    assert "its own settings: beams 3, no_repeat_ngram_size 2, at most 19 tokens" in capsys.readouterr().err
    assert len(set(expected)) > 1
    together = ours.translate(TEXTS, to="de", batch_size=3)
    assert together == [{"translation_text": text} for text in expected]
    with pytest.raises(UsageError, match="French; this model has German there"):
        ours.translate("x", to="fr")
    with pytest.raises(UsageError, match="Chinese; this model has English there"):
        ours.translate("x", to="de", from_="zh")


def test_marian_of_several_languages_is_told_which(made):
    theirs, folder = made("marian of several")
    tokenizer = transformers.MarianTokenizer.from_pretrained(folder)
    ours = load(folder)
    expected = searched(theirs, tokenizer, tokenizer(f">>fra<< {TEXTS[0]}")["input_ids"])
    assert ours.translate(TEXTS[0], to="fr") == [{"translation_text": expected}]
    assert ours.translate(TEXTS[0], to="de") != ours.translate(TEXTS[0], to="fr")
    with pytest.raises(UsageError, match=r"no Chinese. Its languages begin with >>deu<<, >>fra<<"):
        ours.translate(TEXTS[0], to="zh")


# ---- words and tokens around a text


def test_t5_reads_the_words_of_its_config_and_searches_as_it_says(made, capsys):
    theirs, folder = made("t5")
    tokenizer, ours = peers.tokenizer_of(folder), load(folder)
    settings = {"num_beams": 2, "max_length": 15, "early_stopping": True}
    for text in TEXTS[:2]:
        ids = tokenizer.encode(f"translate English to German: {text}").ids
        expected = searched(theirs, tokenizer, ids, **settings)
        assert ours.translate(text, to="de", from_="en") == [{"translation_text": expected}]
        assert ours.translate(text, to="de") == [{"translation_text": expected}]  # one task fits
    ids = tokenizer.encode(f"summarize: {TEXTS[1]}").ids
    settings = {"num_beams": 2, "max_length": 12, "min_length": 4, "early_stopping": True, "no_repeat_ngram_size": 3,
                "length_penalty": 2.0}  # fmt: skip
    assert ours.summarize(TEXTS[1]) == [{"summary_text": searched(theirs, tokenizer, ids, **settings)}]
    said = capsys.readouterr().err
    assert (
        "beams 2, length_penalty 2.0, no_repeat_ngram_size 3" in said
        and 'before a text stands "summarize: "' in said
    )
    ids = tokenizer.encode(f"translate English to Romanian: {TEXTS[0]}").ids
    expected = searched(theirs, tokenizer, ids, max_new_tokens=5)
    found = ours.translate(TEXTS[0], to="ro", from_="en", max_new_tokens=5)
    assert (
        found == [{"translation_text": expected}]
        and "its config names no such task" in capsys.readouterr().err
    )
    with pytest.raises(UsageError, match="has to be told both languages"):
        ours.translate("x", to="ro")


def test_bart_summarizes_with_the_beams_of_its_generation_config(made):
    theirs, folder = made("bart")
    tokenizer, ours = peers.tokenizer_of(folder), load(folder)
    expected = [searched(theirs, tokenizer, tokenizer.encode(text).ids) for text in TEXTS]
    assert ours.summarize(TEXTS) == [{"summary_text": text} for text in expected]
    greedy = [
        searched(theirs, tokenizer, tokenizer.encode(text).ids, num_beams=1, max_length=14) for text in TEXTS
    ]
    assert greedy != expected
    short = searched(theirs, tokenizer, tokenizer.encode(TEXTS[0]).ids, max_new_tokens=3, min_length=3)
    assert ours.summarize(TEXTS[0], max_new_tokens=3) == [{"summary_text": short}]


@pytest.mark.parametrize(("name", "languages"), [("nllb", peers.LANGUAGES), ("mbart", peers.CODES)])
def test_the_languages_stand_around_the_text_and_before_the_answer(
    name, languages, made, capsys, monkeypatch
):
    theirs, folder = made(name)
    tokenizer, ours = peers.tokenizer_of(folder), load(folder)
    plain = tokenizer.encode(TEXTS[0], add_special_tokens=False).ids
    source, target = (tokenizer.token_to_id(languages[n]) for n in (2, 1))
    row = [source, *plain, 2] if name == "nllb" else [*plain, 2, source]
    expected = searched(theirs, tokenizer, row, forced_bos_token_id=target, max_new_tokens=12)
    assert ours.translate(TEXTS[0], to="de", from_="zh", max_new_tokens=12) == [
        {"translation_text": expected}
    ]
    given: dict[str, Any] = {}
    plain_search = ours.inner.generate
    monkeypatch.setattr(
        ours.inner, "generate", lambda **options: given.update(options) or plain_search(**options)
    )
    ours.translate(TEXTS[0], to="zh", from_="de", max_new_tokens=2)
    assert given["input_ids"].tolist() == [[target if index == source else index for index in row]]
    assert given["forced_bos_token_id"] == source
    with pytest.raises(UsageError, match="no French"):
        ours.translate(TEXTS[0], to="fr")
    ours.translate(TEXTS[0], to="de", max_new_tokens=2)
    assert f"--from was not given: the text is read as {languages[0]}" in capsys.readouterr().err


def test_a_model_that_does_not_say_its_language_cannot_be_checked(made, capsys):
    _, folder = made("bart")
    load(folder).translate(TEXTS[0], to="de")
    assert "do not say which language it writes; German is not checked" in capsys.readouterr().err


# ---- lengths, rows, what is refused


def test_a_long_text_is_refused_or_cut(made, capsys, monkeypatch):
    _, folder = made("marian")
    ours = load(folder)
    long = "The fox runs home. " * 5_000
    with pytest.raises(Refused, match=r"there is room for 64 in the window"):
        ours.translate(long, to="de")
    given: dict[str, Any] = {}
    plain = ours.inner.generate
    monkeypatch.setattr(ours.inner, "generate", lambda **options: given.update(options) or plain(**options))
    ours.translate(long, to="de", truncate=True)
    assert "1 of 1 texts did not fit the window and were cut" in capsys.readouterr().err
    # As much as fits, and the end of the text behind it.
    assert 60 <= given["input_ids"].shape[1] <= 64 and given["input_ids"][0, -1] == ours.tokenizer.eos_id
    with pytest.raises(Refused, match="an empty text"):
        ours.translate(" ", to="de")
    with pytest.raises(UsageError, match="at least 1"):
        ours.translate("x", to="de", max_new_tokens=0)
    with pytest.raises(UsageError, match="no such option"):
        ours.translate("x", to="de", beams=3)


def test_predictions_group_rows_by_their_languages(made):
    _, folder = made("marian of several")
    ours = load(folder)
    rows = [Pair("f:1", TEXTS[0], "", languages=("en", "de")), Pair("f:2", TEXTS[0], "", languages=("en", "fr")),
            Pair("f:3", TEXTS[1], "", languages=("en", "de"))]  # fmt: skip
    found = predictions(ours, "translation", rows)
    alone = [ours.translate(row.source, to=row.languages[1])[0]["translation_text"] for row in rows]
    assert [one["text"] for one in found] == alone and {one["finish_reason"] for one in found} <= {
        "stop",
        "length",
    }
    with pytest.raises(Refused, match="keeps no conversation"):
        predictions(
            ours,
            "chat",
            [Chat("f:1", ({"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}))],
        )


def test_other_methods_weigh_the_decoder(made):
    _, folder = made("t5")
    ours = load(folder)
    (found,) = ours.classify(TEXTS[0], ["good", "bad"], top_k=None)
    assert sum(one["score"] for one in found) == pytest.approx(1)
    answer = ours.read("Where?", TEXTS[1])[0]
    assert answer["answer"] == TEXTS[1][answer["start"] : answer["end"]]
    assert isinstance(ours.generate(TEXTS[0], temperature=0, max_new_tokens=4), str)


def test_the_verbs_take_them(made, tmp_path, capsys):
    _, folder = made("marian")
    (tmp_path / "lines.txt").write_text(f"{TEXTS[0]}\n\n{TEXTS[1]}\n")
    assert main(["translate", str(folder), f"@{tmp_path}/lines.txt", "--to", "de"]) == 0
    shown = capsys.readouterr()
    assert shown.out.split("\n")[1] == "" and shown.out.count("\n") == 3
    assert "run by transformers" in shown.err and "no measured score for translation" in shown.err
    assert main(["translate", str(folder), f"@{tmp_path}/lines.txt", "--to", "fr"]) == 2
