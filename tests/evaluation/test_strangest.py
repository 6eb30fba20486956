"""The least expected places have the file, line and column at which an editor shows them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownlm.corpus.tokenizer import Tokenizer
from ownlm.evaluation.documents import Text, encoded, read_texts
from ownlm.evaluation.scoring import score_tokens
from ownlm.evaluation.strangest import Place, places, score_texts, shown, strangest_places
from ownlm.model.transformer import Transformer

from .conftest import CONTEXT

MIXED = "The fox\truns.\n\n春眠🙂不觉é晓\n" * 12 + "end 🦊"  # over several windows


def places_of(model: Transformer, tokenizer: Tokenizer, text: Text) -> list[Place]:
    (found,) = [
        places(tokenizer, *scored) for scored in score_texts(model, tokenizer, [text], context=CONTEXT)
    ]
    return found


def walked(tokenizer: Tokenizer, text: Text) -> list[tuple[int, int]]:
    """(line, column) of each token, by walking over the characters."""
    at: dict[int, tuple[int, int]] = {}
    offset, line, column = 0, text.line, 1
    for character in text.text:
        for _ in range(len(character.encode())):
            at[offset] = (line, column)
            offset += 1
        line, column = (line + 1, 1) if character == "\n" else (line, column + 1)
    starts = np.cumsum([0, *(len(tokenizer.token_bytes(i)) for i in tokenizer.encode(text.text))])[:-1]
    return [at[start] for start in starts.tolist()]


@given(st.text(st.sampled_from("aé春🙂 \t\n,x"), min_size=1, max_size=60), st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_lines_and_columns_are_those_of_a_walk_over_the_characters(
    model: Transformer, tokenizer: Tokenizer, words: str, line: int
) -> None:
    text = Text("a.txt", line, words)
    found = places_of(model, tokenizer, text)
    assert [(place.line, place.column) for place in found] == walked(tokenizer, text)
    assert {place.name for place in found} == {"a.txt"}


def test_a_token_inside_a_character_has_the_place_of_the_character(
    model: Transformer, tokenizer: Tokenizer
) -> None:
    found = places_of(model, tokenizer, Text("a.txt", 1, "a\n🦊!"))
    assert [place.token for place in found[-5:-1]] == ["<0xF0>", "<0x9F>", "<0xA6>", "<0x8A>"]
    assert {(place.line, place.column) for place in found[-5:-1]} == {(2, 1)}
    assert (found[-1].token, found[-1].line, found[-1].column) == ("!", 2, 2)


def test_places_point_into_the_file_as_it_is_on_disk(
    model: Transformer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    file = tmp_path / "windows.txt"
    file.write_bytes(MIXED.replace("\n", "\r\n").encode())
    lines = file.read_bytes().decode().split("\r\n")
    (text,) = read_texts([str(file)])
    found = places_of(model, tokenizer, text)
    assert len(found) > 3 * CONTEXT
    for place in found:
        assert place.name == text.name
        rest = (lines[place.line - 1] + "\n")[place.column - 1 :]
        whole = place.token.partition("<0x")[0].split("\n")[0]  # what one line of the file can show
        assert rest.startswith(whole)
        assert rest


def test_a_place_in_a_row_has_the_line_of_the_row(
    model: Transformer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    file = tmp_path / "rows.jsonl"
    rows = ["one\ntwo\nthree", "fox\nriver"]
    file.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    for text in read_texts([str(file)]):
        for place in places_of(model, tokenizer, text):
            assert place.line == text.line
            token = place.token
            assert text.text[place.column - 1 :].startswith(token)
    found = strangest_places(model, tokenizer, read_texts([str(file)]), context=CONTEXT, top=99)
    assert {place.line for place in found} == {1, 2}


def test_a_space_that_a_tokenizer_puts_before_a_text_moves_no_place(
    model: Transformer, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = Text("a.txt", 1, "The fox\n runs")
    (item,) = encoded(tokenizer, [" " + text.text])
    (scored,) = score_tokens(model, [item.ids], context=CONTEXT, top=1)
    monkeypatch.setitem(vars(tokenizer), "leading_spaces_stripped", 1)
    found = places(tokenizer, text, item._replace(data=text.text.encode()), scored)
    assert (found[0].line, found[0].column) == (1, 1)
    for place in found[1:]:
        line = (text.text.split("\n")[place.line - 1] + "\n")[place.column - 1 :]
        assert line.startswith(place.token.split("\n")[0])


def test_the_least_probable_tokens_of_all_texts_come_first(model: Transformer, tokenizer: Tokenizer) -> None:
    texts = [Text(f"{n}.txt", 1, f"{n} rivers run to the sea, fox {n * 7}.") for n in range(70)]
    every = [place for text in texts for place in places_of(model, tokenizer, text)]
    found = strangest_places(model, tokenizer, iter(texts), context=CONTEXT, top=15)
    expected = sorted(every, key=lambda place: place.logprob)[:15]
    assert [place.logprob for place in found] == pytest.approx(
        [place.logprob for place in expected], rel=1e-5
    )
    where = {(place.name, place.line, place.column, place.token) for place in expected[:10]}
    assert where <= {(place.name, place.line, place.column, place.token) for place in found}


def test_equally_probable_places_come_in_reading_order(model: Transformer, tokenizer: Tokenizer) -> None:
    texts = [Text(f"{number}.txt", 1, "The fox") for number in range(4)]
    found = strangest_places(model, tokenizer, texts, context=CONTEXT, top=4)
    assert [place.name for place in found] == [text.name for text in texts]


def test_a_place_says_the_probability_and_what_was_expected(model: Transformer, tokenizer: Tokenizer) -> None:
    text = Text("a.txt", 1, MIXED)
    _, item, scored = next(score_texts(model, tokenizer, [text], context=CONTEXT, top=3))
    found = places(tokenizer, text, item, scored)
    assert "".join(place.token for place in found[:3]) == MIXED[: len("".join(p.token for p in found[:3]))]
    for place, logprob, best in zip(found, scored.logprobs, scored.top_logprobs):
        assert place.probability == pytest.approx(math.exp(logprob))
        assert [p for _, p in place.expected] == pytest.approx(np.exp(best))
        assert place.expected[0][1] >= place.probability * (1 - 1e-6)
    line = str(found[0])
    assert line.startswith(f'a.txt:1:1 "{found[0].token}" p = ')
    assert len(line.split("expected ")[1].split("), ")) == 3


def test_bytes_that_are_no_character_are_shown_as_bytes() -> None:
    assert [shown(b"fox"), shown("春".encode()[:2]), shown(b"")] == ["fox", "<0xE6><0x98>", "<special>"]
