"""Many sequences: what else runs changes nothing, and every row is given back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ownlm.console.errors import OwnlmError
from ownlm.engine import Engine, Event, Request, SamplingSettings
from ownlm.model.transformer import Transformer

from .conftest import random_model


def collect(engine: Engine) -> dict[tuple[int, int], list[Event]]:
    found: dict[tuple[int, int], list[Event]] = {}
    while engine.busy:
        for event in engine.step():
            found.setdefault((event.request_id, event.index), []).append(event)
    return found


def alone(model: Transformer, request: Request, **options: int) -> list[tuple[int, float]]:
    return [(e.token_id, e.logprob) for e in Engine(model, **options).generate([request])]


def random_request(rng: np.random.Generator, longest: int = 150) -> Request:
    prompt = rng.integers(0, 60, rng.integers(1, longest)).tolist()
    sampling = SamplingSettings(
        temperature=float(rng.choice([0.0, 0.7, 1.3])),
        max_new_tokens=int(rng.integers(1, 70)),
        seed=int(rng.integers(1000)),
        stop_token_ids=(7,),
    )
    return Request(prompt, sampling)


@pytest.mark.parametrize("threads", [1, 2])
def test_every_bit_is_the_same_alone_and_among_others(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        model, rng = random_model(), np.random.default_rng(3)
        requests = [random_request(rng) for _ in range(24)]
        engine = Engine(model, max_sequences=10)
        ids = [engine.submit(request) for request in requests[:6]]
        found: dict[int, list[tuple[int, float]]] = {}
        waiting = requests[6:]
        while engine.busy or waiting:
            if waiting and rng.random() < 0.4:  # others join in the middle
                ids.append(engine.submit(waiting.pop(0)))
            for event in engine.step():
                found.setdefault(event.request_id, []).append((event.token_id, event.logprob))
        for request_id, request in zip(ids, requests, strict=True):
            assert found[request_id] == alone(model, request)
    finally:
        torch.set_num_threads(before)


def test_cancelling_neighbours_changes_nothing_and_frees_rows(model: Transformer) -> None:
    rng = np.random.default_rng(8)
    mine = Request([1, 2, 3], SamplingSettings(temperature=1.0, seed=4, max_new_tokens=100))
    engine = Engine(model)
    others = [engine.submit(Request([5] * 20, SamplingSettings(seed=i))) for i in range(7)]
    kept = engine.submit(mine)
    found = []
    for step in range(120):
        found += [(e.token_id, e.logprob) for e in engine.step() if e.request_id == kept]
        if step % 10 == 3 and others:
            assert engine.cancel(others.pop(int(rng.integers(len(others)))))
    assert found == alone(model, mine)
    for request_id in others:
        engine.cancel(request_id)
    assert not engine.busy
    assert not engine.usage.blocks_in_use
    assert not engine.cancel(kept)


def test_sequences_of_one_request_differ_and_repeat(model: Transformer) -> None:
    engine = Engine(model)
    sampling = SamplingSettings(temperature=1.0, seed=11, n=5, max_new_tokens=12)
    request_id = engine.submit(Request([1, 2], sampling))
    found = collect(engine)
    texts = [tuple(e.token_id for e in found[request_id, i]) for i in range(5)]
    assert len(set(texts)) == 5
    first = SamplingSettings(temperature=1.0, seed=11, max_new_tokens=12)
    assert [t for t, _ in alone(model, Request([1, 2], first))] == list(texts[0])


def test_one_sequence_of_a_request_can_be_cancelled(model: Transformer) -> None:
    engine = Engine(model)
    request_id = engine.submit(Request([1, 2], SamplingSettings(seed=1, n=3, max_new_tokens=9)))
    engine.step()
    assert engine.cancel(request_id, 1)
    found = collect(engine)
    assert [len(found.get((request_id, i), [])) for i in range(3)] == [8, 0, 8]


def test_more_sequences_than_may_run_wait_their_turn(model: Transformer) -> None:
    engine = Engine(model, max_sequences=3)
    sampling = SamplingSettings(seed=2, n=8, max_new_tokens=6)
    request_id = engine.submit(Request([9, 9], sampling))
    engine.step()
    assert engine.usage.running == 3
    found = collect(engine)
    wide = Engine(model)
    wide_id = wide.submit(Request([9, 9], sampling))
    expected = collect(wide)
    for index in range(1, 8):
        tokens = [(e.token_id, e.logprob) for e in found[request_id, index]]
        assert tokens[-5:] == [(e.token_id, e.logprob) for e in expected[wide_id, index]][-5:]


def test_ten_thousand_requests_can_wait(model: Transformer) -> None:
    engine = Engine(model)
    sampling = SamplingSettings(max_new_tokens=1)
    ids = [engine.submit(Request([1] * 200, sampling)) for _ in range(10_000)]
    events = engine.step()
    assert [e.request_id for e in events] == ids[:2], "512 tokens: two prompts, and the beginning of a third"
    assert {e.finish_reason for e in events} == {"length"}
    assert all(engine.cancel(request_id) for request_id in reversed(ids[5:]))
    assert {e.request_id for e in engine.step()} == set(ids[2:5])
    assert not engine.busy


def test_leaving_generate_early_ends_its_requests(model: Transformer) -> None:
    engine = Engine(model)
    events = engine.generate([Request([1], SamplingSettings(n=4))])
    next(events)
    events.close()  # type: ignore[attr-defined]
    assert not engine.busy


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=12), st.integers(0, 2**31))
def test_every_sequence_ends_once_with_a_reason(model: Transformer, lengths: list[int], seed: int) -> None:
    engine = Engine(model, max_sequences=5)
    sampling = SamplingSettings(seed=seed, max_new_tokens=9, stop_token_ids=(3,))
    ids = [engine.submit(Request([1] * length, sampling)) for length in lengths]
    found = collect(engine)
    assert sorted(request for request, _ in found) == ids
    for events in found.values():
        assert [e.finish_reason for e in events[:-1]] == [None] * (len(events) - 1)
        assert events[-1].finish_reason == ("stop" if events[-1].token_id == 3 else "length")
    assert not engine.usage.blocks_in_use


def test_callers_in_several_threads_share_one_engine(model: Transformer) -> None:
    engine = Engine(model)
    requests = [Request([i, 2 * i], SamplingSettings(seed=i, max_new_tokens=30)) for i in range(6)]
    with ThreadPoolExecutor(6) as callers:
        found = list(callers.map(lambda r: [(e.token_id, e.logprob) for e in engine.stream(r)], requests))
    assert found == [alone(model, request) for request in requests]
    assert not engine.busy and not engine.usage.blocks_in_use


def test_a_caller_waits_for_its_own_error_alone(model: Transformer) -> None:
    class Broken:
        """A constraint that breaks at its third token."""

        ended = False

        def __init__(self) -> None:
            self.tokens = 0

        def mask(self) -> np.ndarray:
            return np.ones(60, np.bool_)

        def accept(self, token: int) -> None:
            self.tokens += 1
            if self.tokens == 3:
                raise OwnlmError("broken")

        def copy(self) -> Broken:
            return Broken()

    engine = Engine(model)
    good = Request([4, 5], SamplingSettings(seed=1, max_new_tokens=9))
    kept, broken = engine.submit(good), engine.submit(Request([4], constraint=Broken()))
    found = []
    while events := engine.step_for({kept}):
        found += [(e.token_id, e.logprob) for e in events]
    assert found == alone(model, good)
    with pytest.raises(OwnlmError, match="broken"):
        engine.step_for({broken})
    assert engine.step_for({broken}) == [] and not engine.busy


def test_who_gave_its_blocks_back_goes_on_before_those_that_wait(model: Transformer) -> None:
    block = Engine(model).backend.block_bytes
    engine = Engine(model, cache_memory=3 * block, max_sequences=2, prefix_cache=False)
    sampling = SamplingSettings(seed=1, max_new_tokens=90)
    ids = [
        engine.submit(Request([2] * length, sampling)) for length in (50, 50, 80)
    ]  # 3, 3 and 3 blocks at last
    last: dict[int, int] = {}
    first: dict[int, int] = {}
    step = 0
    while engine.busy:
        step += 1
        for event in engine.step():
            first.setdefault(event.request_id, step)
            last[event.request_id] = step
    assert engine.usage.preemptions
    assert last[ids[0]] < last[ids[1]] < first[ids[2]]
