"""`/v1/completions`: every field has the effect that it says."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from ownlm.engine.requests import Request, SamplingSettings
from tests.server.conftest import CONTEXT
from tests.server.live import Live

ROUTE = "/v1/completions"
LONG = {"max_tokens": 30, "seed": 5}


def text(server: Live, **fields: object) -> str:
    found = server.ok(ROUTE, **{"prompt": "The quick", **LONG, **fields})
    return str(found["choices"][0]["text"])


def ids_of(server: Live, words: str) -> list[int]:
    found: list[int] = server.ok("/tokenize", prompt=words)["tokens"]
    return found


def test_the_shape_of_an_answer(server):
    before = int(time.time())
    found = server.ok(ROUTE, model="run", prompt="The quick", max_tokens=3, seed=1)
    assert found["id"].startswith("cmpl-")
    assert found["object"] == "text_completion"
    assert before <= found["created"] <= time.time()
    assert found["model"] == "run"
    assert found["system_fingerprint"].startswith("fp_")
    assert found["usage"] == {"prompt_tokens": 6, "completion_tokens": 3, "total_tokens": 9}
    (choice,) = found["choices"]
    assert choice["index"] == 0
    assert choice["finish_reason"] == "length"
    assert choice["logprobs"] is None


def test_nothing_but_a_prompt_is_needed_and_not_even_that(server):
    assert server.ok(ROUTE, prompt="The")["usage"]["completion_tokens"] <= 16
    assert server.ok(ROUTE)["usage"]["prompt_tokens"] == 0


def test_the_text_is_that_of_generate(server, model_folder):
    import ownlm

    own = ownlm.load(model_folder).generate(
        "The quick", max_new_tokens=30, temperature=1.0, seed=5, completion_only=True
    )
    assert text(server) == own


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(server):
    assert text(server, seed=-3) == text(server, seed=-3)
    assert text(server, seed=6) != text(server, seed=7)
    assert text(server, seed=None) != text(server, seed=None)


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0.1}, {"top_k": 2}, {"top_p": 0.2}, {"min_p": 0.5}, {"presence_penalty": 2.0},
        {"frequency_penalty": 2.0}, {"repetition_penalty": 3.0}, {"seed": 9},
    ],
    ids=lambda fields: next(iter(fields)),
)  # fmt: skip
def test_a_setting_changes_the_text(server, fields):
    assert text(server, **fields) != text(server)


def test_filters_have_no_effect_at_temperature_0_and_no_share_is_the_best_token(server):
    greedy = text(server, temperature=0)
    assert text(server, temperature=0, top_p=0.5, top_k=3, min_p=0.1) == greedy
    assert text(server, top_p=0) == greedy
    found = server.ok(ROUTE, prompt="The quick", temperature=0, n=2, max_tokens=5)
    assert [c["index"] for c in found["choices"]] == [0, 1]
    assert (
        found["choices"][0]["text"]
        == found["choices"][1]["text"]
        == greedy[: len(found["choices"][0]["text"])]
    )
    assert found["usage"]["completion_tokens"] == 10


def test_several_prompts_and_several_answers(server):
    many = server.ok(ROUTE, prompt=["The quick", "A river"], n=2, **LONG)
    assert [c["index"] for c in many["choices"]] == [0, 1, 2, 3]
    alone = [server.ok(ROUTE, prompt=p, n=2, **LONG)["choices"] for p in ("The quick", "A river")]
    assert [c["text"] for c in many["choices"]] == [c["text"] for one in alone for c in one]
    assert many["choices"][0]["text"] != many["choices"][1]["text"]


def test_token_ids_are_taken_as_they_are(server):
    ids = ids_of(server, "The quick")
    assert text(server, prompt=ids) == text(server)
    assert text(server, prompt=[ids]) == text(server)
    assert server.ok(ROUTE, prompt=ids, max_tokens=1)["usage"]["prompt_tokens"] == len(ids)
    assert text(server, prompt=ids[1:]) == text(server, add_special_tokens=False) != text(server)


def test_special_tokens_that_a_text_spells_count(server):
    found = server.ok("/tokenize", prompt="<|im_start|>x", add_special_tokens=False)
    assert found["token_strs"] == ["<|im_start|>", "x"]
    assert server.ok(ROUTE, prompt="<|im_start|>x", max_tokens=1)["usage"]["prompt_tokens"] == 2


def test_a_stop_text_ends_the_answer_and_is_not_part_of_it(server):
    whole = text(server)
    stop = whole[8:11]
    cut = server.ok(ROUTE, prompt="The quick", stop=[None, "never there", stop], **LONG)["choices"][0]
    assert cut["text"] == whole[: whole.index(stop)]
    assert (cut["finish_reason"], cut["stop_reason"]) == ("stop", stop)
    shown = server.ok(ROUTE, prompt="The quick", stop=stop, include_stop_str_in_output=True, **LONG)
    assert shown["choices"][0]["text"] == whole[: whole.index(stop) + len(stop)]
    assert server.idle()


def test_a_stop_token_ends_the_answer(server):
    found = server.ok(ROUTE, prompt="The quick", logprobs=0, **LONG)["choices"][0]["logprobs"]["tokens"]
    index = ids_of(server, "x" + found[3])[-1]
    ended = server.ok(ROUTE, prompt="The quick", stop_token_ids=[index], **LONG)
    if ended["usage"]["completion_tokens"] <= 4:
        assert ended["choices"][0]["stop_reason"] == index
        assert ended["choices"][0]["finish_reason"] == "stop"


def test_eos_can_be_forbidden_ignored_and_written_out(server):
    bias = {"0": 100}
    ended = server.ok(ROUTE, prompt="The", logit_bias=bias, max_tokens=5)
    assert (ended["choices"][0]["text"], ended["choices"][0]["finish_reason"]) == ("", "stop")
    assert ended["usage"]["completion_tokens"] == 1
    assert text(server, logit_bias=bias, ignore_eos=True, max_tokens=4) == ""
    shown = text(server, logit_bias=bias, ignore_eos=True, skip_special_tokens=False, max_tokens=2)
    assert shown == "<|endoftext|>" * 2
    later = server.ok(ROUTE, prompt="The", logit_bias=bias, min_tokens=3, max_tokens=9)
    assert later["usage"]["completion_tokens"] == 4


def test_a_bias_of_minus_100_forbids(server):
    greedy = server.ok(ROUTE, prompt="The quick", temperature=0, max_tokens=1, logprobs=1)["choices"][0]
    token = server.ok("/tokenize", prompt="The quick" + greedy["text"])["tokens"][-1]
    other = text(server, temperature=0, max_tokens=1, logit_bias={str(token): -100})
    assert other != greedy["text"]
    assert server.refused(ROUTE, prompt="x", logit_bias={"99999": 1})["param"] == "logit_bias"


# ---- echo and log-probabilities


def test_echo_with_logprobs_are_those_of_the_engine_to_the_last_digit(server, model_folder):
    import ownlm

    ids = ids_of(server, "The quick fox runs.")
    found = server.ok(ROUTE, prompt=[ids], max_tokens=1, temperature=0, logprobs=1, echo=True, seed=1234)
    logprobs = found["choices"][0]["logprobs"]
    assert {len(column) for column in logprobs.values()} == {len(ids) + 1}
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["top_logprobs"][0] is None
    engine = ownlm.load(model_folder).engine
    scores = engine.score([ids], top=1)[0]
    assert logprobs["token_logprobs"][1:-1] == scores.logprobs.tolist()
    best = [max(one.values()) for one in logprobs["top_logprobs"][1:-1]]
    assert best == scores.top_logprobs[:, 0].tolist()
    greedy = [own == top for own, top in zip(scores.logprobs, scores.top_logprobs[:, 0])]
    assert [a == b for a, b in zip(logprobs["token_logprobs"][1:-1], best)] == greedy


def test_echo_of_a_text_begins_with_the_text(server):
    found = server.ok(ROUTE, prompt="春眠 The", echo=True, logprobs=0, max_tokens=4, seed=2)["choices"][0]
    logprobs, words = found["logprobs"], found["text"]
    assert words.startswith("春眠 The")
    assert logprobs["text_offset"][0] == 0
    assert "".join(token for token in logprobs["tokens"] if not token.startswith("bytes:")) != ""
    for token, offset in zip(logprobs["tokens"], logprobs["text_offset"]):
        if not token.startswith("bytes:"):
            assert words[offset : offset + len(token)] == token
    assert logprobs["token_logprobs"][0] is not None  # the start of a document stands before it


def test_echo_without_new_tokens_scores_the_prompt(server):
    ids = ids_of(server, "The quick fox")
    found = server.ok(ROUTE, prompt=ids, max_tokens=0, echo=True, logprobs=2)["choices"][0]
    assert len(found["logprobs"]["tokens"]) == len(ids)
    assert found["text"] == "<|endoftext|>The quick fox"
    assert found["finish_reason"] == "length"
    assert server.ok(ROUTE, prompt="The quick", max_tokens=0, echo=True)["choices"][0]["text"] == "The quick"
    assert server.refused(ROUTE, prompt="x", max_tokens=0)["param"] == "max_tokens"


def test_top_logprobs_hold_the_token_and_so_many_others(server):
    found = server.ok(ROUTE, prompt="The", max_tokens=6, logprobs=3, seed=2)["choices"][0]["logprobs"]
    for token, own, best in zip(found["tokens"], found["token_logprobs"], found["top_logprobs"]):
        assert best[token] == own
        assert 3 <= len(best) <= 4
        assert all(value < 0 and math.isfinite(value) for value in best.values())


def test_of_tokens_with_one_name_the_most_probable_counts():
    from ownlm.server.answers import Entry, completion_logprobs

    class Names:
        def name(self, index: int) -> str:
            return "same"

        def data(self, index: int) -> bytes:
            return b"same"

    entries = [Entry(1, -3.0, ((2, -1.0), (3, -2.0))), Entry(1, -math.inf, ())]
    found = completion_logprobs(entries, Names(), 5)  # type: ignore[arg-type]
    assert found["top_logprobs"] == [{"same": -1.0}, {"same": -9999.0}]
    assert found["token_logprobs"] == [-3.0, -9999.0]
    assert found["text_offset"] == [5, 9]


# ---- streams


@pytest.mark.parametrize(
    "fields",
    [{}, {"n": 3}, {"stop": "r"}, {"prompt": ["春眠", "A river"], "n": 2}, {"echo": True, "prompt": "春眠"}],
)
def test_a_stream_is_the_text_of_the_answer(server, fields):
    asked = {"prompt": "The quick", **LONG, **fields}
    whole = server.ok(ROUTE, **asked)["choices"]
    events = server.events(ROUTE, **asked)
    texts = dict.fromkeys(range(len(whole)), "")
    reasons = {}
    for event in events:
        assert event["object"] == "text_completion"
        assert len({e["id"] for e in events}) == 1
        (choice,) = event["choices"]
        assert choice["index"] not in reasons
        texts[choice["index"]] += choice["text"]
        if choice["finish_reason"] is not None:
            reasons[choice["index"]] = choice["finish_reason"]
    assert list(texts.values()) == [choice["text"] for choice in whole]
    assert [reasons[i] for i in range(len(whole))] == [choice["finish_reason"] for choice in whole]


def test_logprobs_of_a_stream_are_those_of_the_answer(server):
    asked = {"prompt": "春眠", "logprobs": 2, "echo": True, **LONG}
    whole = server.ok(ROUTE, **asked)["choices"][0]["logprobs"]
    parts = [event["choices"][0]["logprobs"] for event in server.events(ROUTE, **asked)]
    for column in ("tokens", "token_logprobs", "top_logprobs"):
        assert [one for part in parts for one in part[column]] == whole[column]


def test_token_counts_come_at_the_end_of_a_stream_when_asked_for(server):
    counted = server.events(ROUTE, prompt="The", stream_options={"include_usage": True}, **LONG)
    assert counted[-1]["choices"] == []
    assert counted[-1]["usage"] == server.ok(ROUTE, prompt="The", **LONG)["usage"]
    assert all(event["usage"] is None for event in counted[:-1])
    assert all("usage" not in event for event in server.events(ROUTE, prompt="The", **LONG))
    always = server.events(ROUTE, prompt="The", stream_options={"continuous_usage_stats": True}, **LONG)
    assert [e["usage"]["completion_tokens"] for e in always] == sorted(
        e["usage"]["completion_tokens"] for e in always
    )
    assert always[-1]["choices"]


# ---- what does not fit


def test_a_prompt_and_an_answer_that_do_not_fit_are_refused_with_both_numbers(server):
    error = server.refused(ROUTE, prompt="The quick", max_tokens=CONTEXT)
    assert error["code"] == "context_length_exceeded"
    assert f"holds {CONTEXT} tokens; the prompt has 6" in error["message"]
    assert f"{CONTEXT} were asked for" in error["message"]
    long = server.refused(ROUTE, prompt="The quick " * 100)
    tokens = server.ok("/tokenize", prompt="The quick " * 100, add_special_tokens=False)["count"]
    assert f"holds {CONTEXT} tokens; the prompt has {tokens}" in long["message"]
    assert server.refused(ROUTE, prompt="The quick " * 100, stream=True)["code"] == "context_length_exceeded"
    fits = server.ok(ROUTE, prompt="The quick", max_tokens=CONTEXT - 7, ignore_eos=True)
    assert fits["usage"]["completion_tokens"] == CONTEXT - 7


def test_the_usual_number_of_tokens_ends_at_the_window(server):
    ids = list(range(20, 20 + CONTEXT - 3))
    assert server.ok(ROUTE, prompt=ids, ignore_eos=True)["usage"]["completion_tokens"] == 3


def test_ids_that_the_model_does_not_have(server):
    assert server.refused(ROUTE, prompt=[4000])["param"] == "prompt"
    assert server.refused(ROUTE, prompt=[-1])["param"] == "prompt"
    assert server.refused(ROUTE, prompt=[])["param"] == "prompt"
    assert server.refused(ROUTE, prompt=[[]])["param"] == "prompt"
    assert server.refused(ROUTE, prompt="", add_special_tokens=False)["param"] == "prompt"


def test_too_many_answers(server):
    assert server.refused(ROUTE, prompt=["a"] * 1025, n=2)["param"] == "n"
    assert server.refused(ROUTE, prompt="a", min_tokens=9, max_tokens=3)["param"] == "min_tokens"


def test_scoring_many_prompts_at_once(server, model_folder):
    import ownlm

    rows = [ids_of(server, f"The quick {word}") for word in ("fox", "dog", "river", "hen")]
    found = server.ok(ROUTE, prompt=rows, max_tokens=1, temperature=0, logprobs=1, echo=True)["choices"]
    engine = ownlm.load(model_folder).engine
    events = list(engine.generate([Request(rows[0], SamplingSettings(temperature=0, max_new_tokens=1))]))
    assert found[0]["logprobs"]["token_logprobs"][-1] == events[0].logprob
    for row, choice, scores in zip(rows, found, engine.score(rows)):
        assert choice["logprobs"]["token_logprobs"][1 : len(row)] == np.asarray(scores.logprobs).tolist()
