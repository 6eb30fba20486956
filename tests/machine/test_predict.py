"""Predictions follow from the measured figures."""

import pytest

from ownlm.machine import predict

RATES = {256: 1e11, 512: 2e11, 1024: 4e11}


def bytes_to_train(config, rows, context):
    return 16 * config.num_parameters() + 10**5 * rows * context


def test_hours_are_flops_over_the_assumed_share_of_the_nearest_rate():
    rows = {row.size: row for row in predict.training(RATES, 10**12, bytes_to_train)}
    assert list(rows) == ["3M", "10M", "30M", "124M"]
    assert rows["3M"].rate == 1e11
    assert rows["30M"].rate == 2e11
    for row in rows.values():
        assert row.tokens == 20 * row.parameters
        assert row.hours == pytest.approx(row.flops / (row.rate * predict.UTILISATION) / 3600)
        # 6 a weight and token; the input embedding is free, attention comes on top.
        assert 0.4 < row.flops / (6 * row.parameters * row.tokens) < 1.4


def test_twice_the_rate_is_half_the_time():
    slow = predict.training(RATES, 10**12, bytes_to_train)
    fast = predict.training({n: 2 * rate for n, rate in RATES.items()}, 10**12, bytes_to_train)
    assert [row.hours for row in fast] == pytest.approx([row.hours / 2 for row in slow])


def test_rows_that_do_not_fit_say_so():
    assert [row.fits for row in predict.training(RATES, 10**9, bytes_to_train)][-1] is False
    fits = {(row.size, row.weights): row.fits for row in predict.running(3e10, 6 * 10**9)}
    assert fits[("0.6B", "int8")]
    assert fits[("8B", "int4")]
    assert not fits[("8B", "int8")]


@pytest.mark.parametrize(("size", "billions"), [("0.6B", 0.596), ("1.7B", 1.72), ("4B", 4.02), ("8B", 8.19)])
def test_model_shapes_have_the_published_numbers_of_parameters(size, billions):
    assert predict.RUN_MODELS[size].num_parameters() / 1e9 == pytest.approx(billions, rel=0.01)


def test_speed_is_bandwidth_over_the_bytes_of_a_token():
    rows = {(row.size, row.weights): row for row in predict.running(3e10, 10**12)}
    row = rows[("0.6B", "int4")]
    weights = predict.RUN_MODELS["0.6B"].num_parameters() * 0.5625
    assert row.key_value_memory == 2 * 28 * 8 * 128 * 2 * 4096
    assert row.memory == pytest.approx(weights + row.key_value_memory)
    assert row.tokens_per_second == pytest.approx(3e10 / (weights + row.key_value_memory / 2))
    assert rows[("0.6B", "int8")].tokens_per_second < row.tokens_per_second
    # The separate input embedding of 8B is stored but not read for every token.
    eight = rows[("8B", "int8")]
    assert eight.tokens_per_second > 3e10 / (eight.memory - eight.key_value_memory / 2)
