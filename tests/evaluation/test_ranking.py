"""Candidates in the order of their probability after the prompt; lists with the line of an error."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ownlm.console.errors import Refused
from ownlm.corpus.tokenizer import Tokenizer
from ownlm.engine import scoring as engine_scoring
from ownlm.evaluation.ranking import CandidateList, rank, read_candidates
from ownlm.evaluation.scoring import score_tokens
from ownlm.model.transformer import Transformer

from .conftest import CONTEXT

HEARD = ["the river runs", "the river ruins", "a fox", "the quick brown fox jumps over the lazy dog", "春眠"]


def log_probability(model: Transformer, tokenizer: Tokenizer, text: str) -> float:
    ids = np.concatenate([[tokenizer.start_id], tokenizer.encode(text)])
    return float(score_tokens(model, [ids], context=CONTEXT)[0].logprobs.sum())


def test_candidates_are_ordered_by_their_log_probability(model: Transformer, tokenizer: Tokenizer) -> None:
    (found,) = rank(model, tokenizer, [CandidateList(HEARD)], context=CONTEXT)
    expected = {text: log_probability(model, tokenizer, text) for text in HEARD}
    assert [one.candidate for one in found] == sorted(HEARD, key=lambda text: -expected[text])
    for one in found:
        assert one.score == one.logprob == pytest.approx(expected[one.candidate], rel=1e-5)
        assert HEARD[one.given - 1] == one.candidate
        assert one.bytes == len(one.candidate.encode())


def test_per_byte_divides_by_the_bytes(model: Transformer, tokenizer: Tokenizer) -> None:
    (found,) = rank(model, tokenizer, [CandidateList(HEARD)], context=CONTEXT, per_byte=True)
    each = {text: log_probability(model, tokenizer, text) / len(text.encode()) for text in HEARD}
    assert [one.candidate for one in found] == sorted(HEARD, key=lambda text: -each[text])
    assert [one.score for one in found] == pytest.approx([each[one.candidate] for one in found], rel=1e-5)


def test_only_what_follows_the_prompt_is_scored(model: Transformer, tokenizer: Tokenizer) -> None:
    prompt, candidates = "Rain falls.\n", ["春眠", "7 foxes"]  # tokens do not reach over this prompt's end
    (found,) = rank(model, tokenizer, [CandidateList(candidates, prompt)], context=CONTEXT)
    before = log_probability(model, tokenizer, prompt)
    for one in found:
        after = log_probability(model, tokenizer, prompt + one.candidate) - before
        assert one.logprob == pytest.approx(after, abs=1e-4)


def test_a_token_over_the_end_of_the_prompt_is_scored_for_all(
    model: Transformer, tokenizer: Tokenizer
) -> None:
    prompt, candidates = "the ru", ["ns", "st"]
    whole = [tokenizer.encode(prompt + c).tolist() for c in candidates]
    assert tokenizer.encode(prompt).tolist() != whole[0][: len(tokenizer.encode(prompt))]
    (found,) = rank(model, tokenizer, [CandidateList(candidates, prompt)], context=CONTEXT)
    shared = log_probability(model, tokenizer, "the")
    for one in found:
        expected = log_probability(model, tokenizer, prompt + one.candidate) - shared
        assert one.logprob == pytest.approx(expected, abs=1e-4)


def test_equal_candidates_have_equal_scores_and_keep_their_order(
    model: Transformer, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Batches of three rows, the last one of one row: kernels round differently for another number of rows.
    size = len(tokenizer.encode(HEARD[0]))
    monkeypatch.setattr(engine_scoring.score_windows, "__kwdefaults__", {
        **engine_scoring.score_windows.__kwdefaults__, "batch_tokens": 3 * size
    })  # fmt: skip
    (found,) = rank(model, tokenizer, [CandidateList([HEARD[0]] * 7)], context=CONTEXT)
    assert [one.given for one in found] == [1, 2, 3, 4, 5, 6, 7]
    assert len({one.score for one in found}) == 1


def test_each_list_is_ordered_by_itself(model: Transformer, tokenizer: Tokenizer) -> None:
    lists = [CandidateList(HEARD[:2]), CandidateList([HEARD[4]]), CandidateList(HEARD[2:4], "So ")]
    found = rank(model, tokenizer, lists, context=CONTEXT)
    assert [sorted(one.candidate for one in r) for r in found] == [sorted(one.candidates) for one in lists]
    for ranked, one in zip(found, lists):
        (alone,) = rank(model, tokenizer, [one], context=CONTEXT)
        assert [r.candidate for r in ranked] == [r.candidate for r in alone]


def test_the_bytes_are_those_of_what_is_scored(model: Transformer, tokenizer: Tokenizer) -> None:
    (found,) = rank(model, tokenizer, [CandidateList(["e\u0301", "é", ""])], context=CONTEXT, per_byte=True)
    sizes = {one.candidate: (one.bytes, one.score) for one in found}
    assert sizes["e\u0301"] == sizes["é"]
    assert sizes[""] == (0, 0.0)


def test_plain_lists_are_divided_by_blank_lines() -> None:
    text = "\n \nthe fox\r\nthe\u2028box \r\n\t\na river\n\n\n\n{x\n"
    assert read_candidates(text, "f") == [
        CandidateList(["the fox", "the\u2028box "]),
        CandidateList(["a river"]),
        CandidateList(["{x"]),
    ]


def test_json_lines_have_candidates_and_prompts() -> None:
    rows = [{"candidates": ["a", "b"]}, {"candidates": ["c\u2028d"], "prompt": "so "}]
    text = "\r\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    assert read_candidates(text, "f") == [CandidateList(["a", "b"]), CandidateList(["c\u2028d"], "so ")]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"candidates": ["a"]', "not a JSON line"),
        ('["a", "b"]', 'no list of texts under "candidates"'),
        ('{"candidates": []}', 'no list of texts under "candidates"'),
        ('{"candidates": ["a", 1]}', 'no list of texts under "candidates"'),
        ('{"texts": ["a"]}', 'no list of texts under "candidates"'),
        ('{"candidates": ["a"], "promt": ""}', 'unknown key "promt"'),
        ('{"candidates": ["a"], "prompt": 1}', '"prompt" is not a text'),
    ],
)
def test_a_wrong_json_line_is_named(line: str, words: str) -> None:
    good = json.dumps({"candidates": ["x\u2028y"]}, ensure_ascii=False)
    with pytest.raises(Refused, match=words) as caught:
        read_candidates(f"{good}\n\n{line}\n", "heard.jsonl")
    assert str(caught.value).startswith("heard.jsonl:3: ")
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_no_candidate_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="heard.txt: there are no candidates"):
        read_candidates(text, "heard.txt")
