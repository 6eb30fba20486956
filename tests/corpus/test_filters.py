from __future__ import annotations

import pytest

from ownlm.console.errors import UsageError
from ownlm.corpus.filters import FILTERS, judge, unfit
from ownlm.corpus.languages import language_of
from ownlm.corpus.repetition import duplicate_ngram_share, duplicate_shares, top_share

ENGLISH = (
    "The river runs down from the hills to the sea, and people have lived beside it for a thousand years. "
    "They fish in the morning, and in the evening they sit with friends and tell the stories of that day. "
    "When rain falls the water rises, but the old bridge has never been lost to a flood.\n"
    "Nobody knows who built it. A stone near the middle carries a date that the moss has nearly covered.\n"
)
CHINESE = (
    "长江发源于青藏高原，流经十一个省区，最后注入东海。两岸的人们世世代代在这里耕种、捕鱼和经商，留下了许多动人的故事。\n"
    "每到夏天，雨水使江面变宽，船只往来不断；冬天水位下降，沙洲露出水面，成群的水鸟在那里过冬，引来远方的游客。\n"
)
GERMAN = (
    "Der Fluss kommt aus den Bergen und fließt in das Meer. Menschen leben seit tausend Jahren an ihm, und "
    "sie erzählen sich die Geschichten von früher. Das Wasser ist kalt, und die Brücke ist alt.\n"
)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (ENGLISH, "en"),
        (CHINESE, "zh"),
        (GERMAN, "spaced"),
        ("Все люди рождаются свободными и равными.", "spaced"),
        ("すべての人間は、生まれながらにして自由である。", "other"),
        ("มนุษย์ทั้งหลายเกิดมามีอิสระ", "other"),
        ("1234 5678", "other"),
        ("buy cheap watches discount casino", "en"),
    ],
)
def test_language(text: str, language: str) -> None:
    assert language_of(text) == language


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("text", [ENGLISH, CHINESE, GERMAN])
def test_good_text_is_never_dropped(name: str, text: str) -> None:
    assert judge(name, text) is None


def test_what_a_filter_does_not_fit_is_said() -> None:
    assert unfit("c4", CHINESE) == "not judged: not English"
    assert unfit("gopher", GERMAN) == "not judged: not English or Chinese"
    assert unfit("gopher", CHINESE) is None
    assert judge("c4", "{ 中文 }" * 50) is None


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("gopher", "Too short, and to the point.", "fewer than 50 words"),
        ("gopher", "今天天气很好。", "fewer than 50 words"),
        ("gopher", "the " * 60_000 + "and " * 60_000, "more than 100,000 words"),
        ("gopher", "a b c d e f " * 20, "mean word length"),
        ("gopher", ENGLISH + "# " * 20, "0.1 # a word"),
        ("gopher", ENGLISH.replace(" ", "... "), "ellipses a word"),
        ("gopher", "- the list of words and more\n" * 20, "start with a bullet"),
        (
            "gopher",
            "the list goes on to the end and...\n" * 5 + ENGLISH.replace("\n", "..."),
            "end with an ellipsis",
        ),
        ("gopher", "the of 1234 5678 9012 3456 " * 20, "have a letter"),
        ("gopher", "cheap watches discount casino bonus " * 20, "stop words"),
        ("c4", ENGLISH + "Lorem ipsum dolor.", "lorem ipsum"),
        ("c4", ENGLISH + "function() { return; }", "curly bracket"),
        ("c4", "One sentence that has more than five words.\nno end mark here at all\nShort.", "3 sentences"),
        ("c4", "Please enable Javascript now. It is needed here. Thank you very much.\n", "3 sentences"),
        (
            "fineweb",
            "Home of the brave people and others\nContact us by letter or by telephone\n" * 9,
            "punctuation",
        ),
        ("fineweb", "A menu.\nAn item.\nAnother.\n", "lines are short"),
        ("fineweb", (ENGLISH.split("\n")[0] + "\n") * 2, "repeated lines"),
        ("fineweb", "首页。\n新闻。\n联系我们。\n", "lines are short"),
        ("gopher-repetition", "the same line again\n" * 5 + ENGLISH, "lines are repeated"),
        ("gopher-repetition", ENGLISH + "buy now " * 60, "most frequent 2-gram"),
        ("gopher-repetition", CHINESE.replace("\n", "") * 2, "repeated 5-grams"),
    ],
)
def test_what_is_dropped_and_why(name: str, text: str, reason: str) -> None:
    assert reason in (judge(name, text) or "passed")


def test_chinese_is_judged_by_its_own_measures() -> None:
    assert judge("gopher", CHINESE.replace("。", "。#") * 1) is None
    assert judge("gopher", CHINESE + "……" * 30) == "more than 0.1 ellipses a word"


def test_shares() -> None:
    assert duplicate_shares(["aa", "b", "aa", "aa"]) == (0.5, 4 / 7)
    assert top_share(["a", "b", "a", "b", "c"], 2, 5) == 4 / 5
    assert top_share(["a", "b", "c", "d"], 2, 4) == 0
    words = ["a", "b", "c", "d", "e", "f", "a", "b", "c", "d", "e", "f"]
    assert duplicate_ngram_share(words, 5, 12) == 0.5


def test_unknown_names() -> None:
    with pytest.raises(UsageError, match='Did you mean "gopher"'):
        judge("gofer", "x")


@pytest.mark.parametrize("name", FILTERS)
def test_every_filter_names_its_paper(name: str) -> None:
    assert any(year in FILTERS[name].paper for year in ("2020", "2021", "2024"))
    assert FILTERS[name].judge.__doc__
