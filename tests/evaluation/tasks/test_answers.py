"""Question answering: equal to the published scripts of SQuAD and CMRC 2018."""

from __future__ import annotations

import random
import re
import string
from collections import Counter

import pytest

from ownlm.evaluation.tasks import measure
from ownlm.evaluation.tasks.answers import NONE, cmrc, longest_common_run, squad
from ownlm.tasks.items import Answer, Question


def question(context: str, *answers: str, asked: str = "who?") -> Question:
    found = tuple(Answer(text, context.find(text)) for text in answers)
    return Question("rows.jsonl:1", context, asked, found)


# ---- what the scripts do, written for these tests from their definitions


def squad_normal(text: str) -> str:
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def squad_f1(gold: str, got: str) -> float:
    expected, words = squad_normal(gold).split(), squad_normal(got).split()
    if not expected or not words:
        return float(expected == words)
    same = sum((Counter(expected) & Counter(words)).values())
    if not same:
        return 0.0
    precision, recall = same / len(words), same / len(expected)
    return 2 * precision * recall / (precision + recall)


CMRC_REMOVED = ["-", ":", "_", "*", "^", "/", "\\", "~", "`", "+", "=", "，", "。", "：", "？", "！", "“", "”", "；",
                "’", "《", "》", "……", "·", "、", "「", "」", "（", "）", "－", "～", "『", "』"]  # fmt: skip


def cmrc_pieces(text: str) -> list[str]:
    from nltk.tokenize import TreebankWordTokenizer

    pieces, latin = [], ""
    for character in text.lower().strip():
        if character in CMRC_REMOVED:
            continue
        if re.search("[\u4e00-\u9fa5]", character):
            pieces += TreebankWordTokenizer().tokenize(latin)
            latin = ""
            pieces.append(character)
        else:
            latin += character
    return pieces + TreebankWordTokenizer().tokenize(latin)


def cmrc_f1(gold: str, got: str) -> float:
    a, b = cmrc_pieces(gold), cmrc_pieces(got)
    run = max(
        (n for n in range(len(a), 0, -1) for i in range(len(a) - n + 1) for j in range(len(b) - n + 1)
         if a[i : i + n] == b[j : j + n]),
        default=0,
    )  # fmt: skip
    return 2 * (run / len(b)) * (run / len(a)) / (run / len(b) + run / len(a)) if run else 0.0


def test_squad_rules_by_hand():
    assert squad(["The Beatles"], "beatles!") == (1, 1)
    assert squad(["a red car"], "red car, fast") == (0, pytest.approx(0.8))
    assert squad(["New York"], "york new") == (0, 1)  # a bag of words
    assert squad(["Bern", "Berne"], "Berne") == (1, 1)  # the best answer counts
    assert squad(["the"], "") == (1, 1)  # an answer of articles alone is none
    assert squad(["Bern"], "") == (0, 0)
    assert squad([], "") == (1, 1)
    assert squad([], "Bern") == (0, 0)


def test_squad_rules_are_those_of_the_script():
    draw = random.Random(0)
    words = [
        "the",
        "a",
        "red",
        "Car,",
        "car.",
        "fox's",
        "river-bed",
        "New",
        "York",
        "1990",
        "1,000",
        "É",
        "an",
        "(blue)",
        "!",
    ]
    for _ in range(500):
        golds = [" ".join(draw.choices(words, k=draw.randint(1, 5))) for _ in range(draw.randint(1, 3))]
        got = " ".join(draw.choices(words, k=draw.randint(0, 6)))
        kept = [g for g in golds if squad_normal(g)] or [""]
        exact = max(float(squad_normal(g) == squad_normal(got)) for g in kept)
        assert squad(golds, got) == (exact, pytest.approx(max(squad_f1(g, got) for g in kept)))


def test_chinese_rules_are_those_of_the_script_of_cmrc_2018():
    draw = random.Random(0)
    parts = [
        "北京",
        "，",
        "天安门",
        "2008",
        "年",
        "8",
        "月",
        "《",
        "红楼梦",
        "》",
        "Windows",
        "XP",
        "3.5",
        "公里",
        "·",
        "~",
        "。",
        "（",
        "中国",
        "）",
        "1,000",
        "人",
        "10%",
        "dos",
    ]
    for _ in range(300):
        gold = "".join(draw.choices(parts, k=draw.randint(1, 6)))
        got = "".join(draw.choices(parts, k=draw.randint(1, 6)))
        if not cmrc_pieces(gold):
            continue
        exact, f1 = cmrc([gold], got)
        assert f1 == pytest.approx(cmrc_f1(gold, got)), (gold, got)
        plain = ["".join(c for c in text.lower().strip() if c not in CMRC_REMOVED) for text in (gold, got)]
        assert exact == float(plain[0] == plain[1])


def test_chinese_by_hand():
    assert cmrc(["北京市"], "北京市。") == (1, 1)
    assert cmrc(["北京市海淀区"], "北京市") == (0, pytest.approx(2 / 3))
    assert cmrc(["京北"], "北京") == (0, pytest.approx(0.5))  # a run, no bag
    assert cmrc(["上海", "北京"], "北京") == (1, 1)
    assert cmrc([], "") == (1, 1)
    assert cmrc([], "北京") == (0, 0)
    assert longest_common_run("abcde", "xbcdy") == 3


def test_rows_are_measured_by_the_script_that_fits_their_text():
    items = [question("A fox ran home.", "A fox"), question("狐狸跑回家了。", "狐狸跑回")]
    found = measure("qa", items, [{"answer": "fox a"}, {"answer": "回跑狸狐"}])
    assert [row.values["f1"] for row in found.rows] == [1.0, pytest.approx(0.25)]
    assert "1 of 2 rows" in found.how["words"] and "1 of 2 rows" in found.how["characters"]


def test_rows_without_an_answer_count_apart():
    items = [question("A fox ran.", "A fox"), question("A fox ran."), question("A fox ran.")]
    found = measure("qa", items, [{"answer": "fox"}, {"answer": ""}, {"answer": "ran"}])
    figures = {name: value["value"] for name, value in found.metrics.items()}
    assert figures["exact_match"] == pytest.approx(2 / 3)
    assert figures["answerable_exact_match"] == figures["answerable_f1"] == 1
    assert figures["unanswerable_accuracy"] == 0.5
    assert found.metrics["unanswerable_accuracy"]["n"] == 2
    assert found.rows[1].expected == (NONE,) and found.rows[1].got == NONE
    all_answered = measure("qa", items[:1], [{"answer": "fox"}])
    assert set(all_answered.metrics) == {"exact_match", "f1"}


def test_the_baseline_is_the_sentence_with_the_most_question_words():
    context = "The sky is blue. The old river runs to the sea. 秋天来了。"
    found = measure("qa", [question(context, "the sea", asked="Where does the river run?")], [{"answer": ""}])
    assert found.baselines[0].metrics["f1"]["value"] == pytest.approx(
        squad(["the sea"], "The old river runs to the sea.")[1]
    )
    chinese = question("春天花开。长城在北京的北面。", "北面", asked="长城在哪里？")
    found = measure("qa", [chinese], [{"answer": ""}])
    assert found.baselines[0].metrics["f1"]["value"] == pytest.approx(cmrc(["北面"], "长城在北京的北面。")[1])
