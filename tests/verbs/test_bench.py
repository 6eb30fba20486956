"""`ownlm bench`: what is counted, what is refused, and that the three formats say the same."""

from __future__ import annotations

import csv
import io
import json
import shlex
from types import SimpleNamespace

import pytest
import torch
from tests.engine.conftest import random_model

import ownlm
from ownlm.cli import main
from ownlm.engine.engine import Engine
from ownlm.loaded import LoadedModel
from ownlm.machine import measure as machine
from ownlm.verbs import _speed
from ownlm.verbs._speed import Case, NotMeasured

SMALL = {"prompt_tokens": 8, "new_tokens": 4, "batch": 1, "repetitions": 1}


@pytest.fixture(autouse=True)
def bandwidth(monkeypatch):
    """30, then 40 GB/s, without measuring; the sizes that were asked for."""
    asked = []

    def read(size):
        asked.append(size)
        return 30e9 if len(asked) % 2 else 40e9

    monkeypatch.setattr(machine, "read_bandwidth", read)
    return asked


@pytest.fixture
def engine():
    return Engine(random_model(context=256))


def computed(engine):
    """Tokens of every call of the backend from now on, call by call."""
    calls, compute = [], engine.backend.compute

    def counted(pieces):
        calls.append([len(piece.ids) for piece in pieces])
        return compute(pieces)

    engine.backend.compute = counted
    return calls


def test_every_batch_and_depth_has_a_row_of_each_test(run):
    found = ownlm.bench(run, prompt_tokens=8, new_tokens=4, batch="2,1", repetitions=3)
    assert [(r["test"], r["batch"], r["depth"]) for r in found["rows"]] == [
        ("pp8", 1, 0), ("pp8", 2, 0), ("tg4", 1, 0), ("tg4", 2, 0),
    ]  # fmt: skip
    for row in found["rows"]:
        assert len(row["samples"]) == 3
        assert row["tokens_per_second"] == pytest.approx(sum(row["samples"]) / 3)
        assert row["deviation"] > 0
        assert not row["not_measured"]
    assert (found["model"], found["backend"]) == (str(run), ownlm.load(run).engine.backend.name)
    assert [r["test"] for r in ownlm.bench(run, **(SMALL | {"new_tokens": 0}))["rows"]] == ["pp8"]
    assert [r["test"] for r in ownlm.bench(run, **(SMALL | {"prompt_tokens": 0}))["rows"]] == ["tg4"]


def test_a_prompt_is_computed_whole_and_once_for_each_repetition(engine):
    calls = computed(engine)
    for _ in range(2):  # nothing of one measurement is found in the cache by the next
        _speed.measure(engine, Case("pp", 70, 3, 0), repetitions=2)
    assert calls == [[70, 70, 70]] * 6
    assert not engine.busy


def test_decoding_counts_steps_of_one_token_a_sequence(engine):
    calls = computed(engine)
    speed = _speed.measure(engine, Case("tg", 5, 3, 0), repetitions=2)
    assert calls == [[1, 1, 1]] * 6 * 3  # the first step makes the first token, five are counted
    assert len(speed.samples) == 2


def test_at_a_depth_only_what_follows_it_is_computed(engine):
    calls = computed(engine)
    _speed.measure(engine, Case("pp", 10, 2, 128), repetitions=1)
    assert calls == [[129, 129], [10, 10], [10, 10]]
    calls.clear()
    _speed.measure(engine, Case("tg", 3, 2, 64), repetitions=1)
    assert calls[0] == [65, 65]
    assert calls[1:] == [[1, 1]] * 4 * 2


def test_time_begins_when_all_sequences_run_and_ends_when_the_first_has_its_tokens(monkeypatch):
    engine = Engine(random_model(context=256), step_tokens=8)  # prompts of 20 tokens begin one after another
    clock = iter(range(100))
    monkeypatch.setattr(_speed.time, "perf_counter", lambda: next(clock))
    prompts = [torch.arange(20).numpy() + i for i in range(3)]
    events, step = [], engine.step
    monkeypatch.setattr(engine, "step", lambda: events.append(step()) or events[-1])
    steps, seconds = _speed._decode(engine, Case("tg", 20, 3, 0), prompts)
    assert seconds == 1
    assert [len(found) for found in events[-steps:]] == [3] * steps
    assert 0 < steps < 20
    assert {len(found) for found in events[:-steps]} >= {0, 1, 2}
    assert not engine.busy


def test_tokens_a_second_are_those_of_all_sequences(engine, monkeypatch):
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr(_speed.time, "perf_counter", lambda: next(clock))
    assert _speed.measure(engine, Case("pp", 30, 4, 0), repetitions=1).samples == [60.0]
    speed = _speed.measure(engine, Case("tg", 6, 4, 0), repetitions=1)
    assert speed.samples == [12.0]
    read = _speed.read_bytes(engine.backend, 4, 1 + 6 / 2)
    assert speed.bytes_per_second == pytest.approx(read * 3)


@pytest.mark.parametrize("tied", [False, True])
def test_a_step_reads_every_matrix_once_and_each_cache(tied):
    model = random_model(context=64, tie_word_embeddings=tied)
    backend = Engine(model, dtype="float32", backend="torch").backend
    weights = sum(p.numel() for name, p in model.named_parameters() if tied or name != "embedding.weight")
    a_token = 2 * 2 * 2 * 24 * 4  # keys and values, layers, heads, width, fp32
    assert _speed.read_bytes(backend, 1, 0) == pytest.approx(4 * weights)
    assert _speed.read_bytes(backend, 3, 10) == pytest.approx(4 * weights + 30 * a_token)


def test_a_window_ends_what_is_read_of_the_cache():
    model = random_model(context=64, sliding_window=16, window_layers=[0])
    backend = Engine(model, dtype="float32", backend="torch").backend
    a_layer = 2 * 2 * 24 * 4
    cache = _speed.read_bytes(backend, 1, 40) - _speed.read_bytes(backend, 1, 0)
    assert cache == pytest.approx((16 + 40) * a_layer)


def test_shares_are_of_the_quicker_of_two_readings_of_as_many_bytes(run, bandwidth):
    found = ownlm.bench(run, **SMALL)
    assert found["read_bandwidth"] == 40e9
    assert bandwidth == [max(found["read_bytes"], 2**22)] * 2
    pp, tg = found["rows"]
    assert pp["bytes_per_second"] is None
    assert tg["share_of_read_bandwidth"] == pytest.approx(tg["bytes_per_second"] / 40e9)


def test_json_is_what_python_gets(run, capsys):
    options = "--prompt-tokens 8 --new-tokens 4 --batch 1 --repetitions 2"
    words = ["bench", str(run), *options.split()]
    found = ownlm.bench(run, **(SMALL | {"repetitions": 2}))
    assert capsys.readouterr().out == ""
    assert main([*words, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed.keys() == found.keys()
    assert [list(row) for row in printed["rows"]] == [list(row) for row in found["rows"]]
    assert main([*words, "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["test"] for row in rows] == ["pp8", "tg4"]
    assert all(float(row["tokens_per_second"]) > 0 for row in rows)
    assert {row["cpu"] for row in rows} == {found["cpu"]}


def test_the_table_names_what_was_measured_on_and_each_figure(run, capsys):
    words = "--prompt-tokens 8 --new-tokens 4 --batch 1,2 --repetitions 2 --threads 1"
    assert main(["bench", str(run), *words.split()]) == 0
    shown, said = capsys.readouterr()
    for expected in ("1 threads", "float32", "40.0 GB/s", "±", "of read bandwidth", "backend", str(run)):
        assert expected in shown, expected
    assert [line.split()[:3] for line in shown.splitlines() if line.split()[:1] == ["tg4"]] == [
        ["tg4", "1", "0"], ["tg4", "2", "0"],
    ]  # fmt: skip
    assert f"ownlm generate {run} PROMPT" in said


def test_dtype_is_that_of_the_engine(run):
    found = {dtype: ownlm.bench(run, dtype=dtype, **SMALL) for dtype in ("float32", "bfloat16")}
    assert {dtype: one["dtype"] for dtype, one in found.items()} == {d: d for d in found}
    assert found["bfloat16"]["weight_bytes"] * 2 == pytest.approx(found["float32"]["weight_bytes"], rel=0.05)


def test_threads_are_those_of_torch(run, monkeypatch):
    before, seen, measure = torch.get_num_threads(), [], _speed.measure

    def watched(*arguments):
        seen.append(torch.get_num_threads())
        return measure(*arguments)

    monkeypatch.setattr(_speed, "measure", watched)
    assert ownlm.bench(run, threads=before + 1, **SMALL)["threads"] == before + 1
    assert seen == [before + 1] * 2
    assert torch.get_num_threads() == before


def test_what_the_cache_cannot_hold_is_said_and_the_rest_is_measured(run, capsys):
    loaded = ownlm.load(run)
    block = loaded.engine.backend.block_bytes
    small = LoadedModel(
        loaded.path, loaded.run, loaded.tokenizer, Engine(loaded.model, cache_memory=2 * block)
    )
    found = ownlm.bench(small, **(SMALL | {"batch": "1,3"}))
    assert [bool(row["not_measured"]) for row in found["rows"]] == [False, True, False, True]
    assert "the cache holds 128 tokens" in found["rows"][1]["not_measured"]
    with pytest.raises(ownlm.Refused, match="nothing could be measured: the cache holds 128"):
        ownlm.bench(small, **(SMALL | {"batch": 3}))
    assert "Traceback" not in capsys.readouterr().err


def test_sequences_that_wait_for_one_another_give_no_figure():
    engine = Engine(random_model(context=256), max_sequences=2)
    with pytest.raises(NotMeasured, match="3 sequences never ran at the same time"):
        _speed.measure(engine, Case("tg", 4, 3, 0), repetitions=1)
    assert not engine.busy


def test_a_backend_with_its_own_cache_has_no_prefill_at_a_depth():
    backend = SimpleNamespace(name="transformers", longest=lambda tokens: 100)
    with pytest.raises(NotMeasured, match="transformers computes a prompt whole"):
        _speed._check(SimpleNamespace(backend=backend), Case("pp", 4, 1, 64))


def test_the_command_for_a_small_context_works(run, capsys):
    assert main(["bench", str(run)]) == 3
    shown, said = capsys.readouterr()
    assert "pp512 at depth 0 takes 513 tokens of context; the model has 32." in said
    assert shown == ""
    words = shlex.split(said.split("Try: ")[1].splitlines()[0])
    assert main([*words[1:], "--repetitions", "1"]) == 0
    assert "pp16" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--batch", "some"], 2, '--batch: "some" is not a number'),
        (["--batch", "1,,2"], 2, "--batch"),
        (["--batch", "0,1"], 2, "--batch: 0 is not possible"),
        (["--depth", "100"], 2, "Try: --depth 128"),
        (["--depth", "-1"], 2, "--depth"),
        (["--prompt-tokens", "-1"], 2, "--prompt-tokens"),
        (["--new-tokens", "-1"], 2, "--new-tokens"),
        (["--prompt-tokens", "0", "--new-tokens", "0"], 2, "nothing is left to measure"),
        (["--repetitions", "0"], 2, "--repetitions"),
        (["--threads", "0"], 2, "--threads"),
        (["--format", "csv", "--json"], 2, "one of the two"),
        (["--depth", "64", "--prompt-tokens", "8", "--new-tokens", "4"], 3, "the model has 32"),
    ],
)
def test_what_is_refused(run, capsys, words, code, said):
    assert main(["bench", str(run), *words]) == code
    found = capsys.readouterr()
    assert found.out == ""
    assert said in found.err


def test_a_masked_model_is_refused(monkeypatch, run):
    from ownlm.masked import MaskedModel

    masked = MaskedModel.__new__(MaskedModel)
    masked.path = run
    monkeypatch.setattr("ownlm.loaded.load", lambda *_, **__: masked)
    with pytest.raises(ownlm.Refused, match="masked model"):
        ownlm.bench(run)
