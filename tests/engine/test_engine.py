"""One sequence: the engine's tokens and log-probabilities are those of the model's full forward pass."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ownlm.console.errors import OwnlmError, Refused, UsageError
from ownlm.engine import Engine, Request, SamplingSettings, memory_plan
from ownlm.model.transformer import Transformer

from .conftest import random_model

PROMPT = [3, 14, 15, 9, 26, 5]


def tokens(engine: Engine, prompt: list[int], sampling: SamplingSettings) -> list[int]:
    return [event.token_id for event in engine.generate([Request(prompt, sampling)])]


@torch.inference_mode()
def full_logprobs(model: Transformer, ids: list[int]) -> torch.Tensor:
    return model(torch.tensor([ids]))[0].double().log_softmax(-1)


@pytest.mark.parametrize("changes", [{}, {"sliding_window": 8}, {"positions": "learned"}, {"norm": "layer"}])
def test_greedy_is_the_argmax_of_the_forward_pass_without_cache(changes: dict[str, object]) -> None:
    model = random_model(**changes)
    ids = list(PROMPT)
    for _ in range(90):  # longer than a block of cache slots
        ids.append(int(full_logprobs(model, ids)[-1].argmax()))
    found = tokens(Engine(model), PROMPT, SamplingSettings(temperature=0, max_new_tokens=90))
    assert found == ids[len(PROMPT) :]
    assert len(set(found)) > 3, "the model must not be trivial"


def test_log_probabilities_equal_those_without_cache(model: Transformer) -> None:
    sampling = SamplingSettings(temperature=1.7, max_new_tokens=150, seed=5, logprobs=3)
    events = list(Engine(model).generate([Request(PROMPT, sampling)]))
    ids = PROMPT + [event.token_id for event in events]
    expected = full_logprobs(model, ids)
    for place, event in enumerate(events, len(PROMPT) - 1):
        assert event.logprob == pytest.approx(float(expected[place, event.token_id]), abs=2e-5)
        best = expected[place].topk(3)
        assert [t for t, _ in event.top] == best.indices.tolist()
        assert [p for _, p in event.top] == pytest.approx(best.values.tolist(), abs=2e-5)


def test_a_long_prompt_is_computed_in_chunks_with_the_same_result() -> None:
    model = random_model(context=1400)
    ids = np.random.default_rng(0).integers(0, 60, 1300).tolist()
    event = next(iter(Engine(model).generate([Request(ids, SamplingSettings(temperature=0))])))
    assert event.logprob == pytest.approx(float(full_logprobs(model, ids)[-1].max()), abs=2e-5)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(st.integers(0, 59), min_size=1, max_size=70), min_size=1, max_size=9))
def test_score_is_teacher_forcing(model: Transformer, sequences: list[list[int]]) -> None:
    for ids, found in zip(sequences, Engine(model).score(sequences), strict=True):
        full = full_logprobs(model, ids)
        expected = [float(full[i, token]) for i, token in enumerate(ids[1:])]
        np.testing.assert_allclose(found.logprobs, expected, atol=2e-5)


def test_it_stops_at_the_asked_length_at_a_stop_token_and_at_the_window(model: Transformer) -> None:
    engine = Engine(model, max_context=20)
    free = tokens(engine, PROMPT, SamplingSettings(seed=1))
    assert len(free) == 14
    events = list(engine.generate([Request(PROMPT, SamplingSettings(seed=1, max_length=10))]))
    assert [e.token_id for e in events] == free[:4]
    assert [e.finish_reason for e in events] == [None, None, None, "length"]
    stop = SamplingSettings(seed=1, stop_token_ids=(free[5],))
    events = list(engine.generate([Request(PROMPT, stop)]))
    assert [e.token_id for e in events] == free[: free.index(free[5]) + 1]
    assert events[-1].finish_reason == "stop"


def test_a_prompt_that_fills_the_window_is_refused_with_both_numbers(model: Transformer) -> None:
    engine = Engine(model, max_context=20)
    assert len(tokens(engine, [1] * 19, SamplingSettings())) == 1
    with pytest.raises(Refused, match=r"20 tokens.*holds 20"):
        engine.submit(Request([1] * 20))
    with pytest.raises(Refused, match=r"22 tokens.*holds 20"):
        engine.score([[1] * 22])
    assert not engine.busy


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: SamplingSettings(temperature=-1), "temperature"),
        (lambda: SamplingSettings(temperature=float("nan")), "temperature"),
        (lambda: SamplingSettings(top_p=0), "top_p"),
        (lambda: SamplingSettings(max_new_tokens=0), "max_new_tokens"),
        (lambda: SamplingSettings(seed=2**64), "seed"),
        (lambda: SamplingSettings(max_new_tokens=5, max_length=9), "max_length: set together"),
        (lambda: SamplingSettings(temperature=0, top_p=0.9), "temperature: 0"),
        (lambda: SamplingSettings(temperature=0, n=2), "temperature: 0"),
        (lambda: SamplingSettings(presence_penalty=float("nan")), "presence_penalty"),
        (lambda: SamplingSettings(logit_bias={3: float("inf")}), "logit_bias"),
        (lambda: SamplingSettings(min_new_tokens=5, max_new_tokens=4), "min_new_tokens: 5 is more"),
        (lambda: SamplingSettings(prompt_logprobs=-1), "prompt_logprobs"),
    ],
)
def test_wrong_or_contradictory_settings_are_refused(make: object, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make()  # type: ignore[operator]


@pytest.mark.parametrize("prompt", [[], [60], [-1]])
def test_prompts_of_no_or_unknown_tokens_are_refused(model: Transformer, prompt: list[int]) -> None:
    with pytest.raises(UsageError):
        Engine(model).submit(Request(prompt))


def test_a_length_without_room_for_an_answer_is_refused(model: Transformer) -> None:
    with pytest.raises(UsageError, match="max_length is 6"):
        Engine(model).submit(Request(PROMPT, SamplingSettings(max_length=6)))


def test_a_model_of_nan_says_so_and_the_engine_goes_on() -> None:
    model = random_model()
    engine = Engine(model, backend="torch")  # it computes with the model's own tensors
    with torch.no_grad():
        good = model.blocks[0].attention_norm.weight.clone()
        model.blocks[0].attention_norm.weight.fill_(float("nan"))
    with pytest.raises(OwnlmError, match="not a finite number"):
        tokens(engine, 20 * PROMPT, SamplingSettings())
    with torch.no_grad():
        model.blocks[0].attention_norm.weight.copy_(good)
    assert len(tokens(engine, 20 * PROMPT, SamplingSettings(max_new_tokens=3))) == 3
    assert not engine.usage.blocks_in_use


def test_a_vocabulary_of_one_token() -> None:
    engine = Engine(random_model(vocab_size=1))
    assert tokens(engine, [0], SamplingSettings(max_new_tokens=3)) == [0, 0, 0]


def test_the_callers_model_is_not_changed_by_another_dtype(model: Transformer) -> None:
    engine = Engine(model, dtype="bfloat16", backend="torch")
    assert engine.backend.model.embedding.weight.dtype == torch.bfloat16
    assert model.embedding.weight.dtype == torch.float32
    assert len(tokens(engine, PROMPT, SamplingSettings(max_new_tokens=5))) == 5
    with pytest.raises(UsageError, match="int3"):
        Engine(model, dtype="int3")
    with pytest.raises(UsageError, match="made for 256"):
        Engine(model, max_context=257)


def test_what_the_cache_can_never_hold_is_refused_at_once(model: Transformer) -> None:
    block = Engine(model).backend.block_bytes
    engine = Engine(model, cache_memory=2 * block)
    assert "for 128 tokens" in str(engine.plan) and "the window would hold 256" in str(engine.plan)
    with pytest.raises(Refused, match=r"a text of 130 tokens; the cache holds 128"):
        engine.submit(Request([1] * 100, SamplingSettings(max_new_tokens=30)))
    with pytest.raises(Refused, match=r"a text of 150 tokens"):
        engine.submit(Request([1] * 150))
    assert len(tokens(engine, [1] * 100, SamplingSettings(seed=1, max_new_tokens=29))) == 29
    assert len(tokens(engine, [1] * 100, SamplingSettings(seed=1))) == 29, "up to what the cache holds"
    with pytest.raises(Refused, match="a text of 130 tokens"):
        engine.score([[1] * 130])
    assert len(engine.score([[1] * 129])[0].logprobs) == 128
    with pytest.raises(Refused, match="cache_memory: 100 B of cache; 64 tokens take"):
        Engine(model, cache_memory=100)


def test_memory_is_looked_at_before_anything_is_allocated(
    model: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_plan, "available_memory", lambda: 2_000_000)
    plan = Engine(model, max_sequences=1, step_tokens=32).plan
    assert plan.weights + plan.cache + plan.activations <= plan.available
    with pytest.raises(Refused, match="does not fit into memory: weights .* 2.7 MB free"):
        Engine(model, step_tokens=10_000)
    with pytest.raises(Refused, match="does not fit"):
        memory_plan.refuse_too_large(dataclasses.replace(model.config, vocab_size=10_000), "float32", "cpu")
    memory_plan.refuse_too_large(dataclasses.replace(model.config, vocab_size=10_000), "int4", "cpu")


def test_prompt_logprobs_come_with_the_first_event(model: Transformer) -> None:
    sampling = SamplingSettings(seed=1, max_new_tokens=4, n=2, prompt_logprobs=2)
    events = list(Engine(model, step_tokens=4, max_sequences=4).generate([Request(PROMPT, sampling)]))
    full = full_logprobs(model, PROMPT)
    firsts = [event for event in events if event.prompt is not None]
    assert sorted(event.index for event in firsts) == [0, 1] and len(events) == 8
    for event in firsts:
        expected = [float(full[i, token]) for i, token in enumerate(PROMPT[1:])]
        np.testing.assert_allclose(event.prompt.logprobs, expected, atol=2e-5)
        assert event.prompt.top_ids.tolist() == full[:-1].topk(2).indices.tolist()
    read = list(Engine(model).stream(Request(PROMPT, SamplingSettings(max_new_tokens=0, prompt_logprobs=0))))
    assert [(e.token_id, e.finish_reason) for e in read] == [(-1, "length")]
    with pytest.raises(UsageError, match="max_new_tokens"):
        SamplingSettings(max_new_tokens=0)


@pytest.mark.parametrize(
    ("sampling", "says"),
    [
        (SamplingSettings(stop_token_ids=(60,)), "between 0 and 59"),
        (SamplingSettings(logit_bias={-1: 1.0}), "between 0 and 59"),
    ],
)
def test_settings_that_name_unknown_tokens_are_refused(
    model: Transformer, sampling: SamplingSettings, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        Engine(model).submit(Request(PROMPT, sampling))


def test_backends_that_cannot_be_are_refused(model: Transformer) -> None:
    with pytest.raises(UsageError, match='no backend "abacus"'):
        Engine(model, backend="abacus")
    with pytest.raises(UsageError, match="int8 needs the native kernels"):
        Engine(model, backend="torch", dtype="int8")
    with pytest.raises(UsageError, match="for CPUs, not for meta"):
        Engine(model, backend="native", device="meta")
