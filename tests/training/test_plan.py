"""Schedules, lengths and rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownlm.console.errors import UsageError
from ownlm.model.sizes import SIZES
from ownlm.seeds import derive
from ownlm.training import setup
from ownlm.training.plan import one_length, parse_count, rows_for, steps_for
from ownlm.training.schedule import learning_rate_factor


def test_the_rate_rises_stays_and_falls():
    rates = [learning_rate_factor(step, 100, 10, 40) for step in range(100)]
    assert rates[0] == 0.1
    assert rates[9:61] == [1.0] * 52
    assert rates[61:] == sorted(rates[61:], reverse=True)
    assert rates[-1] == 1 / 40
    assert all(0 < rate <= 1 for rate in rates)


def test_lengths():
    assert parse_count("10M", "--tokens") == 10_000_000
    assert parse_count("1.5k", "--tokens") == 1500
    assert parse_count("2_000", "--tokens") == 2000
    for bad in ("ten", "0", "-3M", ""):
        with pytest.raises(UsageError, match="--tokens"):
            parse_count(bad, "--tokens")
    with pytest.raises(UsageError, match="--minutes and --max-steps"):
        one_length(minutes=1.0, max_steps=5, tokens=None)
    both = dict(tokens_per_step=100, tokens_per_epoch=1000)
    assert steps_for(max_steps=None, tokens=950, epochs=None, **both) == 10
    assert steps_for(max_steps=None, tokens=None, epochs=2.0, **both) == 20
    assert steps_for(max_steps=None, tokens=None, epochs=None, **both) is None


@given(st.integers(1, 10**6), st.integers(1, 4096))
def test_rows_fill_the_step(tokens, context):
    rows, accumulation = rows_for(tokens, context, None, None)
    assert rows >= 1
    assert accumulation == 1
    assert rows == 1 or abs(rows * context - tokens) <= context / 2 + 1


def test_seeds_are_told_apart_by_all_their_parts():
    seeds = {derive(seed, purpose, index) for seed in (0, 1) for purpose in ("a", "b") for index in (0, 1)}
    assert len(seeds) == 8
    assert derive(3, "x", 5) == derive(3, "x", 5)
    assert all(0 <= s < 2**63 for s in seeds)


def test_the_size_grows_with_the_time_and_not_beyond_the_text(monkeypatch):
    monkeypatch.setattr(setup, "num_cores", lambda: 2)
    names = list(SIZES)

    def chosen(minutes, tokens=10**12, device="cpu"):
        return names.index(setup.choose_size(minutes * 60, device, "bfloat16", tokens))

    times = [0.1, 1, 10, 100, 1000, 10**7]
    assert [chosen(minutes) for minutes in times] == sorted(chosen(minutes) for minutes in times)
    assert chosen(times[0]) == 0 and chosen(times[-1]) == len(names) - 1
    for tokens in (100_000, 1_000_000, 100_000_000):
        weights = SIZES[names[chosen(10**7, tokens)]].block_parameters
        assert weights <= setup.WEIGHTS_A_TOKEN * tokens or weights == SIZES["1M"].block_parameters
    assert chosen(10**7, 1_000_000) < chosen(10**7)
    assert chosen(10, device="cuda") > chosen(10)
