"""Sampling: the right distribution, the same filters as transformers, no state."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ownlm.console.errors import OwnlmError
from ownlm.engine import SamplingSettings
from ownlm.engine.sampling import (
    adjusted,
    choose,
    filtered_weights,
    log_normaliser,
    most_probable,
    penalised,
    uniform,
)

LOGITS = np.array([2.0, 1.0, 0.5, -1.0, 0.0, 3.0, -4.0], np.float32)


def frequencies(sampling: SamplingSettings, draws: int = 20_000) -> np.ndarray:
    counts = np.zeros(len(LOGITS))
    for position in range(draws):
        counts[choose(LOGITS, sampling, np.zeros(position, np.int64), 0)] += 1
    return counts


@pytest.mark.parametrize("temperature", [0.6, 1.0, 2.5])
def test_draws_follow_the_softmax(temperature: float) -> None:
    counts = frequencies(SamplingSettings(temperature=temperature, seed=7))
    expected = np.exp(LOGITS / temperature) / np.exp(LOGITS / temperature).sum() * counts.sum()
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 22.5, "the 99.9 % point with 6 degrees of freedom"


def test_filtered_tokens_are_never_drawn_and_the_others_keep_their_proportions() -> None:
    counts = frequencies(SamplingSettings(temperature=1.0, top_k=3, seed=1))
    assert set(np.flatnonzero(counts)) == {0, 1, 5}
    kept = np.exp(LOGITS[[0, 1, 5]])
    np.testing.assert_allclose(counts[[0, 1, 5]] / counts.sum(), kept / kept.sum(), atol=0.012)


logits_lists = st.lists(st.integers(-80, 80), min_size=2, max_size=40, unique=True).map(
    lambda values: np.array(values, np.float32) / 8
)


@settings(max_examples=200, deadline=None)
@given(
    logits_lists,
    st.floats(0.2, 3),
    st.integers(0, 12),
    st.sampled_from([1.0, 0.95, 0.9, 0.5, 0.1]),
    st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    st.sampled_from([1.0, 1.3, 0.8]),
)
def test_filters_are_those_of_transformers(
    logits: np.ndarray, temperature: float, top_k: int, top_p: float, min_p: float, penalty: float
) -> None:
    torch = pytest.importorskip("torch")
    process = pytest.importorskip("transformers.generation.logits_process")
    seen = np.array([0, len(logits) - 1, 0])
    scores = torch.from_numpy(logits.copy())[None].double()
    steps = [process.RepetitionPenaltyLogitsProcessor(penalty), process.TemperatureLogitsWarper(temperature)]
    steps += [process.TopKLogitsWarper(top_k)] if top_k else []
    steps += [process.TopPLogitsWarper(top_p)] if top_p < 1 else []
    steps += [process.MinPLogitsWarper(min_p)] if min_p else []
    for number, step in enumerate(steps):
        scores = step(torch.from_numpy(seen)[None], scores)
        # A penalty can make two tokens equal in float32 and not in float64: then either may come first.
        if number == 1:
            assume(float(scores[0].sort().values.diff().min()) > 1e-5)
    expected = scores.softmax(-1)[0].numpy()
    sampling = SamplingSettings(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    changed = penalised(logits, seen, penalty) if penalty != 1 else logits
    weights = filtered_weights(changed, sampling)
    # Tokens whose share meets a limit to within rounding may fall on either side in the two programs.
    np.testing.assert_allclose(weights / weights.sum(), expected, rtol=1e-4, atol=1e-9)


def test_the_draw_is_a_function_of_seed_index_and_position() -> None:
    places = [
        (seed, index, position) for seed in (0, 1, 2, 2**63) for index in range(9) for position in range(50)
    ]
    numbers = {uniform(*place) for place in places}
    assert len(numbers) == len(places)
    assert all(0 <= number < 1 for number in numbers)
    assert uniform(3, 1, 4) == uniform(3, 1, 4)
    along = np.array([[uniform(s, i, p) for p in range(300)] for s in range(6) for i in range(6)])
    assert abs(along.mean() - 0.5) < 0.01
    assert np.abs(np.corrcoef(along) - np.eye(36)).max() < 0.25


def test_greedy_takes_the_lowest_of_equal_tokens() -> None:
    logits = np.array([1.0, 5.0, 5.0, 5.0], np.float32)
    assert choose(logits, SamplingSettings(temperature=0), np.array([0]), 0) == 1
    assert most_probable(logits, log_normaliser(logits), 2)[0].tolist() == [1, 2]


def test_a_penalty_makes_seen_tokens_less_probable() -> None:
    changed = penalised(LOGITS, np.array([3, 5, 5]), 2.0)
    assert changed[3] == -2.0
    assert changed[5] == 1.5
    assert (np.delete(changed, [3, 5]) == np.delete(LOGITS, [3, 5])).all()


def test_log_probabilities_are_normalised_without_overflow() -> None:
    logits = np.array([1e4, 1e4, -1e4], np.float32)
    ids, found = most_probable(logits, log_normaliser(logits), 3)
    assert ids.tolist() == [0, 1, 2]
    np.testing.assert_allclose(found[:2], np.log(0.5))
    assert np.exp(found).sum() == pytest.approx(1)


def test_presence_and_frequency_penalties_look_at_the_answer_alone() -> None:
    sampling = SamplingSettings(presence_penalty=0.5, frequency_penalty=0.25)
    prompt, answer = [0, 1, 1], [3, 3, 5]
    found = adjusted(LOGITS, sampling, np.array(prompt + answer), np.array(answer))
    expected = LOGITS.copy()
    expected[3] -= 0.5 + 2 * 0.25
    expected[5] -= 0.5 + 0.25
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert LOGITS[3] == -1.0, "the model's own logits stay as they are"


def test_bias_and_constraints_and_the_least_length_forbid_tokens() -> None:
    greedy = {"temperature": 0}
    seen = np.array([0, 1])

    def chosen(allowed: np.ndarray | None = None, new: int = 0, **changes: object) -> int:
        sampling = SamplingSettings(**greedy, **changes)  # type: ignore[arg-type]
        return choose(LOGITS, sampling, np.append(seen, [2] * new), 0, len(seen), allowed)

    best, second = np.argsort(-LOGITS)[:2]
    assert chosen() == best
    assert chosen(logit_bias={int(best): -np.inf}) == second
    assert chosen(logit_bias={6: 8.0}) == 6
    assert chosen(np.arange(7) == 6) == 6
    assert chosen(stop_token_ids=(int(best),), min_new_tokens=2, new=1) == second
    assert chosen(stop_token_ids=(int(best),), min_new_tokens=2, new=2) == best
    only_the_end = np.arange(7) == best
    assert chosen(only_the_end, stop_token_ids=(int(best),), min_new_tokens=2) == best
    with pytest.raises(OwnlmError, match="no token may come next"):
        chosen(np.arange(7) == 6, logit_bias={6: -np.inf})
