"""Texts: equal to sacrebleu and rouge-score, with words of every script."""

from __future__ import annotations

import random

import numpy as np
import pytest

from ownlm.console.errors import UsageError
from ownlm.evaluation.tasks import measure, measuring
from ownlm.evaluation.tasks.bleu import bleu, choose_tokenizer
from ownlm.evaluation.tasks.bootstrap import metrics
from ownlm.evaluation.tasks.chrf import chrf
from ownlm.evaluation.tasks.rouge import rouge
from ownlm.evaluation.tasks.sentences import closest_sentence, first_sentence, sentences
from ownlm.evaluation.tasks.words import without_blanks, words
from ownlm.tasks.items import Chat, Pair

WORDS = [
    "The",
    "the",
    "cat,",
    "a",
    "Dog",
    "sat",
    "on",
    "mat.",
    "(quickly)",
    "3.5",
    "isn't",
    "Äpfel",
    "naïve",
    "—",
    "end!",
    "3,000",
    "U.S.",
    "红",
    "色",
    "猫",
]


def texts(number: int, seed: int, longest: int = 14) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(0, longest))) for _ in range(number)]


def pairs(languages=("en", "de"), others=True) -> list[Pair]:
    draw = random.Random(5)
    return [
        Pair(
            f"rows.jsonl:{n}",
            source,
            target,
            tuple(texts(draw.randint(0, 2), n)) if others else (),
            languages,
        )
        for n, (source, target) in enumerate(zip(texts(60, 1), [t or "x" for t in texts(60, 2)]), 1)
    ]


def streams(items: list[Pair]) -> list[list[str | None]]:
    right = [list(dict.fromkeys((item.target, *item.others))) for item in items]
    most = max(map(len, right))
    return [[row[place] if place < len(row) else None for row in right] for place in range(most)]


@pytest.mark.parametrize("tokenizer", ["13a", "char", "zh"])
def test_bleu_and_its_signature_are_sacrebleus(tokenizer):
    from sacrebleu.metrics import BLEU

    items, got = pairs(), texts(60, 3)
    references = [list(dict.fromkeys((item.target, *item.others))) for item in items]
    figure, signature = bleu(got, references, tokenizer)
    theirs = BLEU(tokenize=tokenizer)
    expected = theirs.corpus_score(got, streams(items))
    assert metrics([figure], 60, 0)["bleu"]["value"] == pytest.approx(expected.score)
    assert signature == str(theirs.get_signature())


@pytest.mark.parametrize("changed", ["short", "empty", "no_four", "single_words", "nothing_right"])
def test_bleu_at_its_edges(changed):
    from sacrebleu.metrics import BLEU

    right = ["the cat sat on the mat today", "a dog ran far away from the cat"]
    got = {
        "short": ["the cat", "a dog"],
        "empty": ["", ""],
        "no_four": ["the cat sat", "a dog on"],
        "single_words": ["mat xx on yy cat zz", "dog ww far vv from uu"],
        "nothing_right": ["xx yy zz ww vv", "qq ww ee rr tt"],
    }[changed]
    figure, _ = bleu(got, [[r] for r in right], "13a")
    assert metrics([figure], 2, 0)["bleu"]["value"] == pytest.approx(BLEU().corpus_score(got, [right]).score)


def test_bleu_of_resamples_is_sacrebleus_of_those_rows():
    from sacrebleu.metrics import BLEU

    items, got = pairs(others=False), texts(60, 3)
    figure, _ = bleu(got, [[item.target] for item in items], "13a")
    draw = np.random.default_rng(0)
    for _ in range(5):
        chosen = draw.integers(0, 60, 60)
        weights = np.bincount(chosen, minlength=60)[None].astype(float)
        expected = BLEU().corpus_score([got[i] for i in chosen], [[items[i].target for i in chosen]])
        assert figure.score(figure.statistics.sums(weights))[0] == pytest.approx(expected.score)


def test_the_interval_of_bleu_is_near_that_of_sacrebleus_bootstrap():
    from sacrebleu.metrics import BLEU

    items = [Pair(f"r:{n}", "x", f"{t} and the cat sat on the mat") for n, t in enumerate(texts(60, 2))]
    got = [f"{t} the cat sat on the mat" for t in texts(60, 3, 5)]
    figure, _ = bleu(got, [[item.target] for item in items], "13a")
    ours = metrics([figure], 60, 0)["bleu"]
    theirs = BLEU().corpus_score(got, [[item.target for item in items]], n_bootstrap=1000)
    assert (ours["high"] - ours["low"]) / 2 == pytest.approx(theirs._ci, rel=0.2)


def test_chrf_is_sacrebleus():
    from sacrebleu.metrics import CHRF

    items, got = pairs(), texts(60, 3)
    references = [list(dict.fromkeys((item.target, *item.others))) for item in items]
    figure, each = chrf(got, references)
    assert metrics([figure], 60, 0)["chrf"]["value"] == pytest.approx(
        CHRF().corpus_score(got, streams(items)).score
    )
    for text, right, value in zip(got[:20], references, each):
        assert value == pytest.approx(CHRF().sentence_score(text, right).score)
    signature = measure("translation", items, [{"text": text} for text in got]).how["chrf"]
    reference = CHRF()
    reference.corpus_score(got, streams(items))
    assert str(reference.get_signature()).startswith(signature)


def test_rouge_is_rouge_scores_for_ascii_and_takes_the_best_reference():
    from rouge_score.rouge_scorer import RougeScorer

    plain = [[t.encode("ascii", "ignore").decode() for t in texts(40, seed)] for seed in (1, 2, 3)]
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    table = rouge(plain[0], [list(two) for two in zip(plain[1], plain[2])])
    for got, one, two, row in zip(*plain, table):
        both = [scorer.score(right, got) for right in (one, two)]
        for name, value in zip(("rouge1", "rouge2", "rougeL"), row):
            assert value == pytest.approx(max(score[name].fmeasure for score in both))


def test_rouge_of_chinese_is_by_characters():
    table = rouge(["今天天气很好"], [["今天天气不错"]])
    assert table[0] == pytest.approx([4 / 6, 3 / 5, 4 / 6])
    assert rouge(["Les élèves à l'école"], [["les élèves a l ecole"]])[0][0] == pytest.approx(3 / 5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The U.S. isn't 3.5_x", ["the", "u", "s", "isn", "t", "3", "5", "x"]),
        ("naïve Äpfel", ["naïve", "äpfel"]),
        ("nai\u0308ve", ["naïve"]),  # composed and not composed are one word
        ("हिन्दी में", ["हिन्दी", "में"]),  # vowel signs are no letters of their own
        ("中文abc，и русский", ["中", "文", "abc", "и", "русский"]),
        ("日本のカメラー", list("日本のカメラー")),
        ("한국어 문장", ["한국어", "문장"]),
        ("", []),
    ],
)
def test_words(text, expected):
    assert words(text) == expected


def test_scripts_without_blanks_are_told_apart():
    assert without_blanks("中文句子 with some") and without_blanks("ภาษาไทย") and without_blanks("カメラ")
    assert (
        not without_blanks("An English sentence 中")
        and not without_blanks("한국어 문장")
        and not without_blanks("123")
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Dr. A. Smith came. He left! Why? etc.", ["Dr. A. Smith came.", "He left!", "Why?", "etc."]),
        ("It costs 3.5 dollars. ok then", ["It costs 3.5 dollars. ok then"]),
        ("她说：“好。”然后走了。真的吗？", ["她说：“好。”", "然后走了。", "真的吗？"]),
        ("one line\nanother line", ["one line", "another line"]),
        ("no end", ["no end"]),
        ("", []),
    ],
)
def test_sentences(text, expected):
    assert sentences(text) == expected


def test_first_and_closest_sentence():
    assert first_sentence("One. Two.") == "One."
    assert first_sentence("  ") == "  "
    assert (
        closest_sentence("Where is the river?", "A sky. The river is here. The river is there.")
        == "The river is here."
    )
    assert closest_sentence("x", "") == ""


def test_the_tokenizer_of_bleu_follows_the_language(monkeypatch):
    english, chinese, thai = [["the cat"]], [["中文句子"]], [["ภาษาไทย"]]
    assert choose_tokenizer("de", english) == ("13a", "")
    assert choose_tokenizer("zh-CN", chinese) == ("zh", "")
    assert choose_tokenizer("", chinese) == ("zh", "")
    assert choose_tokenizer("", thai)[0] == "char"
    assert choose_tokenizer("", english)[0] == "13a"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    name, note = choose_tokenizer("ja", [["日本のカメラ"]])
    assert name == "char" and "ja-mecab is not installed (pip install 'sacrebleu[ja]')" in note
    assert choose_tokenizer("", [["日本のカメラ"]])[0] == "char"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert choose_tokenizer("ko", english)[0] == "ko-mecab"


def test_translations_beside_the_source_copied():
    items = pairs(others=False)
    found = measure("translation", items, [{"text": item.target} for item in items])
    assert found.metrics["bleu"]["value"] == pytest.approx(100)
    assert found.metrics["chrf"]["value"] == pytest.approx(100)
    assert found.baselines[0].name == "the source copied"
    assert found.baselines[0].metrics["bleu"]["value"] < 20
    assert found.how["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert found.rows[0].right is None
    assert found.worst()[0].values["chrf"] == min(row.values["chrf"] for row in found.rows)


def test_text_that_looks_tokenized_is_told():
    items = [Pair(f"r:{n}", "x", "the cat .") for n in range(120)]
    found = measure("translation", items, [{"text": "the cat ."}] * 120)
    assert any("not tokenized" in note for note in found.notes)


def test_summaries_beside_lead_1():
    items = [
        Pair("r:1", "The cat sat. It was red.", "The cat sat."),
        Pair("r:2", "猫坐着。它是红的。", "它是红的。"),
    ]
    found = measure("summarization", items, [{"text": "A cat"}, {"text": "它是红的"}])
    assert found.metrics["rouge1"]["value"] == pytest.approx((2 / 5 + 1) / 2)
    lead = found.baselines[0]
    assert lead.metrics["rouge1"]["value"] == pytest.approx((1 + 0) / 2)
    assert "no stemming" in found.how["rouge"]


def test_completions_and_chats():
    items = [Pair("r:1", "1+1=", "2"), Pair("r:2", "1+2=", "3"), Pair("r:3", "a", "b", ("c",))]
    got = [
        {"text": " 2\n", "finish_reason": "stop"},
        {"text": "33", "finish_reason": "length"},
        {"text": "c"},
    ]
    found = measure("completion", items, got)
    assert found.metrics["exact_match"]["value"] == pytest.approx(2 / 3)
    assert "stopped" not in found.metrics  # one answer does not say
    found = measure("completion", items, [{"finish_reason": "stop"} | each for each in got])
    assert found.metrics["stopped"]["value"] == pytest.approx(2 / 3)
    turns = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    chat = Chat("r:1", tuple({"role": role, "content": content} for role, content in turns))
    row = measure("chat", [chat], [{"text": "d"}]).rows[0]
    assert (row.expected, row.right) == (("d",), True)
    assert row.input == "user: a\nassistant: b\nuser: c"


@pytest.mark.parametrize(
    ("task", "package"), [("translation", "sacrebleu"), ("summarization", "rouge-score")]
)
def test_a_missing_package_is_named_with_what_installs_it(monkeypatch, task, package):
    monkeypatch.setattr(measuring.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=rf"needs the package {package}.*[\s\S]*ownlm\[eval\]"):
        measure(task, [Pair("r:1", "a", "b")], [{"text": "b"}])
