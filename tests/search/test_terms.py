"""Texts become terms: stems of words, pairs of characters where a script has no spaces, nothing of grammar."""

import pytest

from ownlm.search.terms import marked, question_terms, terms, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Foxes, a fox", ["fox", "fox"]),
        ("resumed resumes RESUMING resume", ["resum"] * 4),
        ("She said; what did she say?", ["sai", "sai"]),  # y at the end is written i, as in stories
        ("stories and a story", ["stori", "stori"]),
        ("the king's", ["king"]),
        ("Stra\u00dfe Caf\u00e9 na\u00efve", ["strass", "caf", "naiv"]),
        ("learning_rate 3.14 (v2)", ["learn", "rat", "3", "14", "v2"]),
        ("光荣", ["光", "光荣", "荣"]),
        ("在Nexon开发", ["在", "nexon", "开", "开发", "发"]),
        ("ﾃﾞ ＡＢ", ["デ", "ab"]),
        ("हिन्दी привет", ["हिन्दी", "привет"]),
        ("to be or not to be", []),
        ("", []),
    ],
)
def test_terms_of_a_text(text, expected):
    assert terms(text) == expected


def test_words_that_differ_stay_apart():
    assert terms("king bring thing string bed red user class bus") == (
        ["king", "bring", "thing", "string", "bed", "red", "user", "class", "bus"]
    )


def test_a_question_is_searched_by_pairs_first_and_not_by_words_that_ask():
    weights = question_terms("这款游戏是由哪两个公司开发的？")
    assert weights["开发"] == 1.0
    assert weights["开"] == 0.5
    assert "哪两" not in weights
    assert question_terms("哪") == {"哪": 0.5}  # nothing else is left of it
    assert question_terms("foxes and a fox") == {"fox": 2.0}
    assert question_terms("What is it?") == {}


def test_places_of_terms_in_a_text():
    text = "Resumed runs; 光荣开发了《战国》"
    places = list(marked(text, frozenset(question_terms("resume 开发 战国"))))
    assert [text[begin:end] for begin, end in places] == ["Resumed", "开发", "战国"]
    assert (
        list(marked("开始", frozenset({"开发", "开"}))) == []
    )  # a single character says too little beside pairs
    assert list(marked("开始", frozenset({"开"}))) == [(0, 1)]


def test_words_of_a_question_with_their_terms():
    assert list(words("Who founded 光荣 Nexon?")) == [("founded", "found"), ("Nexon", "nexon")]
