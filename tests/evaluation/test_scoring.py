"""Every token after the first is scored once with the left context that was promised, in any batch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ownlm
from ownlm.console.errors import UsageError
from ownlm.corpus.shards import Corpus
from ownlm.engine import Engine, Request, SamplingSettings, memory_plan, native_backend
from ownlm.engine import scoring as engine_scoring
from ownlm.evaluation import scoring
from ownlm.evaluation.scoring import (
    DocumentScores,
    bits_per_byte,
    evaluate_split,
    loss,
    perplexity,
    score_documents,
    score_tokens,
    window_bounds,
)
from ownlm.model.transformer import Transformer

from .conftest import CONTEXT


@torch.inference_mode()
def log_probabilities(model: Transformer, ids: np.ndarray) -> np.ndarray:
    """[tokens, vocabulary] from one forward pass over a whole text."""
    return model(torch.from_numpy(ids.astype(np.int64))[None])[0].double().log_softmax(-1).numpy()


def plain(model: Transformer, ids: np.ndarray, context: int, stride: int) -> list[float]:
    """Token by token: the first window that reaches a token, and a forward pass for it alone."""
    found = []
    for target in range(1, len(ids)):
        start = next(start for start in range(0, len(ids), stride) if target <= start + context)
        found.append(log_probabilities(model, ids[start:target])[-1, ids[target]])
    return found


def random_documents(vocabulary: int, *lengths: int) -> list[np.ndarray]:
    generator = np.random.default_rng(len(lengths))
    return [np.concatenate([[0], generator.integers(16, vocabulary, n)])[:n] for n in lengths]


@pytest.fixture(scope="module")
def documents(model: Transformer) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    lengths = [1, 2, CONTEXT, CONTEXT + 1, CONTEXT + 2, 700, *generator.integers(1, 150, 30)]
    return random_documents(model.config.vocab_size, *lengths)


def total(scores: DocumentScores) -> float:
    return float(scores.nll.sum())


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_windows_score_each_token_once_with_the_promised_left_context(data: st.DataObject) -> None:
    tokens = data.draw(st.integers(0, 200))
    context = data.draw(st.integers(1, 40))
    stride = data.draw(st.none() | st.integers(1, context))
    step = max(context // 2, 1) if stride is None else stride
    windows = list(window_bounds(tokens, context, stride))
    scored_in = {}
    for start, first, stop in windows:
        assert 0 <= start < first < stop <= tokens
        assert stop - start <= context + 1
        for target in range(first, stop):
            assert target not in scored_in
            scored_in[target] = start
    reached = {
        target: next(k * step for k in range(tokens) if target <= k * step + context)
        for target in range(1, tokens)
    }
    assert scored_in == reached
    for target, start in scored_in.items():
        assert target - start >= min(target, context - step + 1)


@pytest.mark.parametrize("stride", [0, -1, CONTEXT + 1])
def test_a_stride_that_skips_tokens_is_refused(model: Transformer, stride: int) -> None:
    with pytest.raises(UsageError, match=f"--stride: a stride of {stride} tokens") as caught:
        score_documents(model, [np.zeros(9, np.int64)], [8], context=CONTEXT, stride=stride)
    assert caught.value.exit_code == 2


def test_a_text_that_fits_the_window_has_the_scores_of_one_forward_pass(model: Transformer) -> None:
    (ids,) = random_documents(model.config.vocab_size, CONTEXT + 1)
    expected = log_probabilities(model, ids[:-1])
    (found,) = score_tokens(model, [ids], context=CONTEXT, top=5)
    np.testing.assert_allclose(found.logprobs, expected[np.arange(CONTEXT), ids[1:]], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found.top_ids, np.argsort(-expected, axis=1, kind="stable")[:, :5])
    np.testing.assert_allclose(found.top_logprobs, -np.sort(-expected, axis=1)[:, :5], rtol=1e-5, atol=1e-5)
    scores = score_documents(model, [ids], [100], context=CONTEXT)
    assert total(scores) == pytest.approx(-found.logprobs.sum(), rel=1e-9)


@pytest.mark.parametrize(("context", "stride"), [(CONTEXT, None), (12, 1), (12, 12), (1, None)])
def test_a_long_text_has_the_scores_of_its_windows_computed_one_by_one(
    model: Transformer, context: int, stride: int | None
) -> None:
    (ids,) = random_documents(model.config.vocab_size, 90)
    expected = plain(model, ids, context, stride or max(context // 2, 1))
    (found,) = score_tokens(model, [ids], context=context, stride=stride)
    np.testing.assert_allclose(found.logprobs, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_an_engine_gives_the_scores_of_the_torch_model_and_the_bits_of_generating(
    model: Transformer, documents: list[np.ndarray], backend: str
) -> None:
    if backend == "native" and not native_backend.available():
        pytest.skip("the native kernels were not built")
    engine = Engine(model, backend=backend)
    sizes = np.array([max(1, len(one) - 1) for one in documents])
    ours, theirs = (score_documents(one, documents, sizes, context=CONTEXT) for one in (engine, model))
    np.testing.assert_allclose(ours.nll, theirs.nll, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(ours.tokens, theirs.tokens)
    assert not engine.busy
    (ids,) = random_documents(model.config.vocab_size, 8)
    settings = SamplingSettings(seed=1, max_new_tokens=CONTEXT - 8)
    events = list(engine.stream(Request(ids, settings)))
    (found,) = score_tokens(engine, [np.array([*ids, *(e.token_id for e in events)])], context=CONTEXT, top=2)
    assert found.logprobs[-len(events) :].tolist() == [event.logprob for event in events]
    assert found.top_ids.shape == (CONTEXT - 1, 2)


def test_windows_of_an_engine_are_taken_a_few_at_a_time_and_cancelled_when_nobody_reads_on(
    model: Transformer,
) -> None:
    engine, taken = Engine(model), []

    def endless() -> Iterator[engine_scoring.Window]:
        for number in itertools.count():
            taken.append(number)
            yield engine_scoring.Window((number,), np.arange(20) % 60, 11)

    scores = engine_scoring.engine_scores(engine, endless())
    assert {len(next(scores).logprobs) for _ in range(300)} == {9}
    assert len(taken) <= 300 + engine_scoring.QUEUED
    scores.close()
    assert not engine.busy


def test_scores_fall_back_on_torch_where_memory_holds_no_second_copy(
    model: Transformer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if native_backend.available():
        assert isinstance(engine_scoring.scorer_of(model, "float32"), Engine)
    monkeypatch.setattr(memory_plan, "available_memory", lambda: 100_000)
    assert engine_scoring.scorer_of(model, "float32") is model
    assert native_backend.available() == ("does not fit into memory" in capsys.readouterr().err)
    monkeypatch.setattr(native_backend, "available", lambda: False)
    assert engine_scoring.scorer_of(model, "float32") is model


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_figures_do_not_depend_on_the_batch_size(
    model: Transformer, documents: list[np.ndarray], batch_size: int
) -> None:
    sizes = [3 * len(ids) for ids in documents]
    usual = score_documents(model, documents, sizes, context=CONTEXT)
    other = score_documents(model, documents, sizes, context=CONTEXT, batch_size=batch_size)
    np.testing.assert_allclose(other.nll, usual.nll, rtol=1e-6)
    for figure in (loss, perplexity, bits_per_byte):
        assert figure(other)["value"] == pytest.approx(figure(usual)["value"], rel=1e-8)


def test_figures_do_not_depend_on_the_order_of_documents(
    model: Transformer, documents: list[np.ndarray]
) -> None:
    sizes = np.array([3 * len(ids) for ids in documents])
    usual = score_documents(model, documents, sizes, context=CONTEXT)
    order = np.random.default_rng(1).permutation(len(documents))
    other = score_documents(model, [documents[i] for i in order], sizes[order], context=CONTEXT)
    np.testing.assert_allclose(other.nll, usual.nll[order], rtol=1e-6)
    np.testing.assert_array_equal(other.tokens, usual.tokens[order])
    assert bits_per_byte(other)["value"] == pytest.approx(bits_per_byte(usual)["value"], rel=1e-8)


def test_small_pieces_of_work_change_nothing(
    model: Transformer, documents: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [3 * len(ids) for ids in documents]
    usual = score_documents(model, documents, sizes, context=CONTEXT)
    monkeypatch.setattr(engine_scoring, "GROUP_BATCHES", 1)
    monkeypatch.setattr(engine_scoring, "LOGITS_AT_ONCE", 3 * model.config.vocab_size)
    other = score_documents(model, iter(documents), sizes, context=CONTEXT, batch_size=2)
    np.testing.assert_allclose(other.nll, usual.nll, rtol=1e-6)


def test_bits_per_byte_count_every_byte_and_every_token_after_the_first_once(
    model: Transformer, documents: list[np.ndarray]
) -> None:
    sizes = [5 * len(ids) + 1 for ids in documents]
    scores = score_documents(model, documents, sizes, context=CONTEXT)
    nats = [-scored.logprobs.sum() for scored in score_tokens(model, documents, context=CONTEXT)]
    np.testing.assert_allclose(scores.nll, nats, rtol=1e-6)
    tokens = sum(len(ids) - 1 for ids in documents)
    assert scores.tokens.tolist() == [len(ids) - 1 for ids in documents]
    assert bits_per_byte(scores)["value"] == pytest.approx(sum(nats) / math.log(2) / sum(sizes))
    assert loss(scores)["value"] == pytest.approx(sum(nats) / tokens)
    assert perplexity(scores)["value"] == pytest.approx(math.exp(sum(nats) / tokens))


def test_few_documents_are_resampled_in_blocks_that_add_up(model: Transformer) -> None:
    few = random_documents(model.config.vocab_size, 300, 1, 600, 257)
    sizes = np.array([900, 0, 1800, 700])
    scores = score_documents(model, few, sizes, context=CONTEXT)
    nats, tokens, size = scores.parts()
    block = scoring.BLOCK_TOKENS
    each = [scored.logprobs for scored in score_tokens(model, few, context=CONTEXT)]
    expected = [-own[at : at + block].sum() for own in each for at in range(0, len(own), block)]
    np.testing.assert_allclose(nats, expected, rtol=1e-6)
    assert tokens.sum() == sum(len(own) for own in each)
    assert tokens.max() == block
    assert size.sum() == pytest.approx(sizes.sum())
    found = bits_per_byte(scores)
    assert found["n"] == len(expected)
    assert found["low"] < found["value"] < found["high"]
    assert scores.unit == f"blocks of {block} tokens"


def test_from_20_documents_on_documents_are_resampled(model: Transformer) -> None:
    for count in (19, 20):
        many = random_documents(model.config.vocab_size, *[300] * count)
        scores = score_documents(model, many, [900] * count, context=CONTEXT)
        assert bits_per_byte(scores)["n"] == (count if count == 20 else 2 * count)


def test_no_text_and_texts_without_a_token_are_possible(model: Transformer) -> None:
    assert len(score_documents(model, [], [], context=CONTEXT).nll) == 0
    empty = score_documents(model, [np.array([0])], [0], context=CONTEXT)
    assert (total(empty), empty.tokens.sum()) == (0.0, 0)
    assert score_tokens(model, [np.array([0])], context=CONTEXT, top=2)[0].top_ids.shape == (0, 2)


def test_the_model_is_left_as_it_was(model: Transformer, documents: list[np.ndarray]) -> None:
    model.train()
    try:
        score_documents(model, documents[:3], [9, 9, 9], context=CONTEXT)
        assert model.training
    finally:
        model.eval()


def test_a_split_is_scored_as_its_documents_are(corpus: Path, model: Transformer) -> None:
    split = Corpus.open(corpus).split("validation")
    texts = [split.document_text(number) for number in range(split.num_documents)]
    assert texts
    found = evaluate_split(model, split, context=CONTEXT, seed=4)
    ids = [split.document(number) for number in range(split.num_documents)]
    nats = sum(-scored.logprobs.sum() for scored in score_tokens(model, ids, context=CONTEXT))
    size = sum(len(text.encode()) for text in texts)
    assert found["bits_per_byte"]["value"] == pytest.approx(nats / math.log(2) / size)


def test_the_closing_figure_of_a_run_is_that_of_evaluate(run: Path) -> None:
    closing = ownlm.load(run).run["result"]["bits_per_byte"]
    assert ownlm.evaluate(run)["bits_per_byte"]["value"] == pytest.approx(closing["value"], rel=1e-8)
