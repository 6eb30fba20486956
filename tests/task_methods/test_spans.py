"""Answers that are words of a text: what may follow, where it stands."""

from __future__ import annotations

import pytest

from ownlm.task_methods.spans import SpanConstraint, Spelling, Text

END = 0
TOKENS = [b"", b"fox", b" fox", b" ", b"es", b"run", b" runs", b"s", b".", "春".encode(), "眠".encode()[:2], "眠".encode()[2:],
          b"3", b".5", b"The", b" The", b"\n"]  # fmt: skip
ID = {token: index for index, token in enumerate(TOKENS) if token}


def allowed(constraint: SpanConstraint) -> set[bytes]:
    return {TOKENS[index] or b"END" for index in constraint.mask().nonzero()[0]}


def begun(text: str, *, spaced: bool = False, barred=()) -> SpanConstraint:
    return SpanConstraint(Text.of(text), Spelling(TOKENS), [END], spaced=spaced, barred=barred)


def write(constraint: SpanConstraint, *tokens: bytes) -> None:
    for token in tokens:
        assert constraint.mask()[ID.get(token, END)], token
        constraint.accept(ID.get(token, END))


def test_an_answer_begins_and_ends_with_words():
    form = begun("The fox runs.")
    assert allowed(form) == {b"The", b"fox", b"run"}
    write(form, b"fox")
    assert allowed(form) == {b"END", b" ", b" runs"}
    write(form, b" runs")
    assert allowed(form) == {b"END", b"."}
    assert form.copy().place == (4, 12)
    write(form, b"END")
    assert form.ended and form.place == (4, 12)


def test_an_unfinished_word_is_no_answer():
    form = begun("The fox runs")
    write(form, b"run")
    assert b"END" not in allowed(form) and form.place is None
    form = begun("fox runs")
    write(form, b"fox", b" ")
    assert form.place == (0, 3)  # cut back to where a word ends


def test_a_space_may_come_before_the_first_word_where_the_prompt_leaves_it_to_the_answer():
    form = begun("The fox", spaced=True)
    assert allowed(form) == {b"The", b"fox", b" The", b" fox", b" "}
    write(form, b" ", b"fox")
    assert form.place == (4, 7)
    assert begun("The fox").mask()[ID[b" fox"]] == False  # noqa: E712


def test_a_word_that_stands_there_twice_goes_on_as_each_of_them():
    form = begun("fox. fox runs")
    write(form, b"fox")
    assert allowed(form) == {b"END", b".", b" ", b" runs"}
    assert form.copy().place == (0, 3)
    write(form, b" runs")
    assert form.place == (5, 13)


def test_characters_of_scripts_without_spaces_are_words():
    form = begun("春眠3.5")
    write(form, "春".encode(), "眠".encode()[:2])
    assert allowed(form) == {"眠".encode()[2:]}  # not in the middle of a character
    write(form, "眠".encode()[2:])
    assert form.place == (0, 2)
    form = begun("x 3.5")
    write(form, b"3")
    assert allowed(form) == {b".5", b"."}  # a number is one word: it does not end here


def test_the_end_of_the_text_ends_the_answer_and_barred_tokens_do_not_begin_it():
    form = begun("fox", barred=[ID[b"fox"]])
    assert not form.mask().any()
    form = SpanConstraint(Text.of("fox"), Spelling(TOKENS), [], spaced=False)
    write(form, b"fox")
    assert form.ended and form.place == (0, 3)


@pytest.mark.parametrize(
    ("text", "starts", "ends"),
    [
        ("(a) b, c!", [0, 1, 4, 7], [2, 3, 5, 6, 8, 9]),
        ("$5 e-mail", [0, 1, 3], [1, 2, 9]),
        ("éa 中。", [0, 4], [3, 7, 10]),
        ("", [], []),
    ],
)
def test_places(text, starts, ends):
    found = Text.of(text)
    assert list(found.starts) == starts
    assert sorted(found.ends) == ends
