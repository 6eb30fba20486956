from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownlm.corpus.normalise import KINDS, is_normal, normalise


def test_clean_text_is_the_same_object() -> None:
    for text in ("def f():\n\treturn 1   \n", "天地玄黄，宇宙洪荒。", ""):
        assert normalise(text)[0] is text
        assert normalise(text)[1] == {}


def test_line_ends() -> None:
    text, counts = normalise("a\r\nb\rc\x85d\n")
    assert text == "a\nb\nc\nd\n"
    assert counts == {"line ends": 3}


def test_controls_marks_and_surrogates_are_removed_and_counted() -> None:
    text, counts = normalise("a\x00b\x07c\x7fd\x9be\ufefff\ud800g\tend\n")
    assert text == "abcdefg\tend\n"
    assert counts == {"control characters": 4, "byte-order marks": 1, "lone surrogates": 1}


def test_joiners_and_direction_marks_are_text() -> None:
    text = "می\u200cخواهم 👩\u200d💻 \u200eabc\u200f"
    assert normalise(text) == (text, {})


def test_nfc() -> None:
    assert normalise("schön".replace("ö", "o\u0308")) == ("schön", {"composed to NFC": 1})


def test_mojibake_is_repaired_only_when_asked() -> None:
    pytest.importorskip("ftfy")
    broken = "schön “quoted”".encode().decode("cp1252", "replace")
    assert normalise("schÃ¶n")[0] == "schÃ¶n"
    assert normalise("schÃ¶n", fix_mojibake=True) == ("schön", {"mojibake repaired": 1})
    assert normalise("“curly” ﬁne ＡＢＣ &amp;", fix_mojibake=True)[0] == "“curly” ﬁne ＡＢＣ &amp;"
    assert broken


@given(st.text(st.characters(codec=None), max_size=60))
def test_result_is_clean_nfc_and_stable(text: str) -> None:
    once, counts = normalise(text)
    assert unicodedata.is_normalized("NFC", once)
    assert not any(unicodedata.category(c) == "Cc" and c not in "\n\t" for c in once)
    once.encode("utf-8")
    assert normalise(once) == (once, {})
    assert set(counts) <= set(KINDS)


def test_clean_text_costs_little() -> None:
    text = "The quick brown fox jumps over the lazy dog, “again” and again.\n" * 100_000  # 6.4 MB
    start = time.process_time()
    normalise(text)
    assert time.process_time() - start < 0.5


@given(
    st.lists(
        st.text(st.sampled_from("ab\ne\u0301é\r\x85\x00\ufeff\ud800春\u1100\u1161"), max_size=4), max_size=5
    )
)
def test_texts_are_normal_together_when_each_is_left_as_it_is(texts: list[str]) -> None:
    assert is_normal(texts) is all(normalise(text) == (text, {}) for text in texts)
