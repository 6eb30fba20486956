"""What every backend of the engine must keep, as tests that a subclass runs with its own backend.

The result of a token depends on the tokens before it and on nothing else: a difference in one bit is a failure.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from ownlm.console.errors import OwnlmError
from ownlm.engine import Engine, Request, SamplingSettings
from ownlm.engine.backend import BLOCK, Backend, LoraWeights
from ownlm.model.transformer import Transformer

from .conftest import random_model

VOCABULARY = 60
Bits = list[tuple[int, float]]

# The layouts of all families that generate, at the size of `random_model`.
LAYOUTS: dict[str, dict[str, object]] = {
    "gpt2": {
        "norm": "layer", "positions": "learned", "qk_norm": "none", "attention_bias": True,
        "attention_output_bias": True, "fused_qkv": True, "mlp": "plain", "activation": "gelu_tanh",
        "mlp_bias": True, "num_key_value_heads": 4, "tie_word_embeddings": True,
    },
    "llama": {"qk_norm": "none", "num_key_value_heads": 1},
    "mistral": {"qk_norm": "none", "sliding_window": 20},
    "qwen2": {"qk_norm": "none", "attention_bias": True, "sliding_window": 70, "window_layers": (1,)},
    "qwen3": {"tie_word_embeddings": True},
    "olmo2": {"qk_norm": "full", "norm_placement": "after", "num_key_value_heads": 4},
    "phi3": {"qk_norm": "none", "fused_qkv": True, "fused_gate_up": True},
    "smollm3": {"qk_norm": "none", "no_rope_layers": (1,)},
}  # fmt: skip


def adapter(seed: int) -> LoraWeights:
    """Random low-rank weights, of another rank in each layer that they change."""
    rng = np.random.default_rng(seed)
    shapes = {
        "blocks.0.attention.q_proj": (96, 96),
        "blocks.1.mlp.down_proj": (200, 96),
        "blocks.1.attention.o_proj": (96, 96),
    }
    drawn = {
        name: (
            rng.normal(0, 0.2, (rank, k)).astype(np.float32),
            rng.normal(0, 0.2, (o, rank)).astype(np.float32),
        )
        for rank, (name, (k, o)) in enumerate(shapes.items(), 2)
    }
    return LoraWeights(drawn, scale=0.7)


class Conformance:
    """Subclasses say how a backend is made."""

    def backend(self, model: Transformer) -> Backend:
        """The backend under test, for a model in fp32."""
        raise NotImplementedError

    def engine(self, model: Transformer, **options: int | bool) -> Engine:
        return Engine(self.backend(model), **options)  # type: ignore[arg-type]

    def alone(self, model: Transformer, request: Request, **options: int | bool) -> Bits:
        return [(e.token_id, e.logprob) for e in self.engine(model, **options).stream(request)]

    def scored(
        self, model: Transformer, texts: Sequence[Sequence[int]], **options: int | bool
    ) -> list[bytes]:
        return [one.logprobs.tobytes() for one in self.engine(model, **options).score(texts)]

    # ---- one and the same, whatever happens beside it

    @pytest.mark.parametrize("temperature", [0.0, 1.1])
    def test_a_prompt_among_others_has_one_completion(self, model: Transformer, temperature: float) -> None:
        self.one_completion(model, temperature, 100)

    @pytest.mark.long
    @pytest.mark.parametrize("temperature", [0.0, 1.1])
    def test_a_thousand_requests_have_one_completion(self, model: Transformer, temperature: float) -> None:
        self.one_completion(model, temperature, 1000)

    def one_completion(self, model: Transformer, temperature: float, count: int) -> None:
        """The same request again and again among random others that come, go and share its beginning."""
        rng = np.random.default_rng(5)
        engine = self.engine(
            model, max_sequences=24, step_tokens=90, cache_memory=28 * self.block_bytes(model)
        )
        prompt = rng.integers(0, VOCABULARY, BLOCK + 9).tolist()
        mine = Request(prompt, SamplingSettings(temperature=temperature, seed=3, max_new_tokens=60))
        left, wanted, others = count, {}, []
        while left or engine.busy:
            for _ in range(rng.integers(0, 4)):
                if left and rng.random() < 0.5:
                    wanted[engine.submit(mine)] = []
                    left -= 1
                elif left:
                    others.append(engine.submit(self.other(rng, prompt)))
            if others and rng.random() < 0.2:
                engine.cancel(others.pop(rng.integers(len(others))))
            for event in engine.step():
                if event.request_id in wanted:
                    wanted[event.request_id].append((event.token_id, event.logprob))
        assert {tuple(found) for found in wanted.values()} == {tuple(self.alone(model, mine))}
        assert engine.usage.preemptions and engine.usage.prefix_tokens, (
            "the cache must have been short, and hit"
        )
        assert not engine.usage.blocks_in_use

    def other(self, rng: np.random.Generator, prompt: list[int]) -> Request:
        """A random request; some begin as the one that is watched."""
        own = rng.integers(0, VOCABULARY, rng.integers(1, 150)).tolist()
        ids = prompt[: rng.integers(1, len(prompt) + 1)] + own[:20] if rng.random() < 0.4 else own
        settings = SamplingSettings(
            temperature=float(rng.choice([0.6, 1.3])),
            max_new_tokens=int(rng.integers(1, 70)),
            n=int(rng.choice([1, 1, 3])),
            seed=int(rng.integers(1000)),
            stop_token_ids=(7,),
        )
        return Request(ids, settings)

    def block_bytes(self, model: Transformer) -> int:
        return self.backend(model).block_bytes

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_scores_are_those_of_generating_however_the_text_is_cut(self, layout: str) -> None:
        model = random_model(**LAYOUTS[layout])
        prompt = np.random.default_rng(1).integers(0, VOCABULARY, 30).tolist()
        settings = SamplingSettings(temperature=1.0, seed=2, max_new_tokens=130)
        events = self.alone(model, Request(prompt, settings))
        text = prompt + [token for token, _ in events]
        generated = np.array([logprob for _, logprob in events]).tobytes()
        whole = self.scored(model, [text])[0]
        assert whole[-len(generated) :] == generated
        for tokens in (1, 23, BLOCK, 100):
            assert self.scored(model, [text], step_tokens=tokens, max_sequences=1) == [whole], tokens
        beside = [text, text[:70], text[5:], text[:1]]
        assert self.scored(model, beside)[0] == whole

    def test_threads_change_no_bit(self, model: Transformer) -> None:
        text = np.random.default_rng(2).integers(0, VOCABULARY, 200).tolist()
        before = torch.get_num_threads()
        try:
            found = set()
            for threads in (1, 2):
                torch.set_num_threads(threads)
                found.add(self.scored(model, [text])[0])
                found.add(self.scored(model, [text], step_tokens=9, max_sequences=9)[0])
        finally:
            torch.set_num_threads(before)
        assert len(found) == 1

    def test_a_cached_prefix_changes_no_bit_and_saves_its_tokens(self, model: Transformer) -> None:
        rng = np.random.default_rng(3)
        start = rng.integers(0, VOCABULARY, 2 * BLOCK + 5).tolist()
        settings = SamplingSettings(temperature=0.9, seed=1, max_new_tokens=20)
        first, second = (Request(start + tail, settings) for tail in ([1, 2, 3], [4, 5]))
        engine = self.engine(model)
        assert [(e.token_id, e.logprob) for e in engine.stream(first)] == self.alone(model, first)
        assert engine.usage.prefix_tokens == 0
        assert [(e.token_id, e.logprob) for e in engine.stream(second)] == self.alone(model, second)
        assert engine.usage.prefix_tokens == 2 * BLOCK
        off = self.engine(model, prefix_cache=False)
        for _ in range(2):
            assert [(e.token_id, e.logprob) for e in off.stream(second)] == self.alone(model, second)
        assert off.usage.prefix_tokens == 0

    def test_answers_continue_from_the_cache_of_an_earlier_answer(self, model: Transformer) -> None:
        engine = self.engine(model)
        settings = SamplingSettings(temperature=0.9, seed=1, max_new_tokens=BLOCK)
        prompt = list(range(30))
        turn = prompt + [e.token_id for e in engine.stream(Request(prompt, settings))] + [3]
        found = [(e.token_id, e.logprob) for e in engine.stream(Request(turn, settings))]
        assert engine.usage.prefix_tokens == BLOCK
        assert found == self.alone(model, Request(turn, settings))

    def test_preempted_sequences_go_on_with_the_same_bits(self, model: Transformer) -> None:
        rng = np.random.default_rng(4)
        requests = [
            Request(rng.integers(0, VOCABULARY, 40).tolist(), SamplingSettings(seed=i, max_new_tokens=160))
            for i in range(6)
        ]
        engine = self.engine(model, cache_memory=9 * self.block_bytes(model), prefix_cache=False)
        found: dict[int, Bits] = {engine.submit(request): [] for request in requests}
        while engine.busy:
            for event in engine.step():
                found[event.request_id].append((event.token_id, event.logprob))
        assert engine.usage.preemptions > 0
        assert list(found.values()) == [self.alone(model, request) for request in requests]
        assert not engine.usage.blocks_in_use

    def test_sequences_of_one_prompt_share_its_cache_and_part_ways(self, model: Transformer) -> None:
        prompt = np.random.default_rng(6).integers(0, VOCABULARY, BLOCK + 10).tolist()
        settings = SamplingSettings(temperature=1.0, seed=11, n=5, max_new_tokens=70)
        engine = self.engine(model)
        engine.submit(Request(prompt, settings))
        found: dict[int, Bits] = {}
        used = []
        while engine.busy:
            for event in engine.step():
                found.setdefault(event.index, []).append((event.token_id, event.logprob))
            used.append(engine.usage.blocks_in_use)
        assert used[:2] == [2, 6], "one full block and one begun; then five of the latter"
        short = self.engine(model, max_sequences=2)
        again: dict[int, Bits] = {}
        for event in short.stream(Request(prompt, settings)):
            again.setdefault(event.index, []).append((event.token_id, event.logprob))
        assert found == again
        assert len({tuple(bits) for bits in found.values()}) == 5

    def test_a_prompt_is_scored_from_any_place_and_its_beginning_comes_from_the_cache(
        self, model: Transformer
    ) -> None:
        text = np.random.default_rng(12).integers(0, VOCABULARY, 3 * BLOCK).tolist()
        whole = self.engine(model).score([text], top=2)[0]
        engine = self.engine(model, step_tokens=50)
        for place, cached in (
            (1, 0),
            (BLOCK + 3, BLOCK),
            (3 * BLOCK - 1, 2 * BLOCK),
            (3 * BLOCK + 5, 2 * BLOCK),
        ):
            before = engine.usage.prefix_tokens
            settings = SamplingSettings(max_new_tokens=0, prompt_logprobs=2, prompt_logprobs_from=place)
            [event] = engine.stream(Request(text, settings))
            assert event.prompt is not None
            assert event.prompt.logprobs.tobytes() == whole.logprobs[place - 1 :].tobytes()
            assert event.prompt.top_ids.tobytes() == whole.top_ids[place - 1 :].tobytes()
            assert engine.usage.prefix_tokens - before == cached

    def test_an_embedding_is_the_same_after_its_sequence_was_put_aside(self, model: Transformer) -> None:
        rng = np.random.default_rng(13)
        text = rng.integers(0, VOCABULARY, 150).tolist()
        alone = self.engine(model).embed([text])
        engine = self.engine(
            model, cache_memory=4 * self.block_bytes(model), step_tokens=8, prefix_cache=False
        )
        settings = SamplingSettings(seed=1, max_new_tokens=100)
        engine.submit(Request(rng.integers(0, VOCABULARY, BLOCK - 4).tolist(), settings))
        number = engine.submit(Request(text, embedding="mean"))
        found = [event.embedding for _ in range(200) for event in (engine.step() if engine.busy else ())
                 if event.request_id == number]  # fmt: skip
        assert engine.usage.preemptions
        np.testing.assert_array_equal(np.stack(found), alone)

    # ---- limits

    def test_a_text_fills_the_window_to_the_last_token(self, model: Transformer) -> None:
        engine = self.engine(model)
        window = engine.max_context
        ids = np.random.default_rng(7).integers(0, VOCABULARY, window + 1).tolist()
        settings = SamplingSettings(temperature=0, prompt_logprobs=1)
        events = list(engine.stream(Request(ids[: window - 1], settings)))
        assert [e.finish_reason for e in events] == ["length"]
        scores = engine.score([ids], top=1)[0]
        assert len(scores.logprobs) == window
        assert events[0].prompt is not None
        assert events[0].prompt.logprobs.tobytes() == scores.logprobs[: window - 2].tobytes()
        assert scores.top_ids[window - 2, 0] == events[0].token_id
        whole = list(engine.stream(Request(ids[:1], SamplingSettings(seed=1))))
        assert len(whole) == window - 1

    def test_a_vocabulary_of_one_token(self) -> None:
        engine = self.engine(random_model(vocab_size=1))
        events = list(engine.stream(Request([0], SamplingSettings(max_new_tokens=3))))
        assert [(e.token_id, e.logprob) for e in events] == [(0, 0.0)] * 3

    def test_weights_that_are_nan_are_said(self) -> None:
        model = random_model()
        with torch.no_grad():
            model.norm.weight.fill_(float("nan"))
        engine = self.engine(model)
        with pytest.raises(OwnlmError, match="not a finite number"):
            list(engine.stream(Request([1, 2], SamplingSettings(seed=1))))
        with pytest.raises(OwnlmError, match="not a finite number"):
            engine.score([[1, 2, 3]])
        assert not engine.busy and not engine.usage.blocks_in_use

    def test_a_sequence_that_is_not_finite_harms_no_other(self) -> None:
        model, bad = random_model(), VOCABULARY - 1
        with torch.no_grad():
            model.embedding.weight[bad] = float("nan")
        good = Request(
            [1, 2, 3], SamplingSettings(temperature=0, max_new_tokens=30, logit_bias={bad: -np.inf})
        )
        expected = self.alone(model, good)
        engine = self.engine(model, cache_memory=5 * self.block_bytes(model))
        for _ in range(6):  # through all blocks, with what the bad ones left in them
            broken, number = engine.submit(Request([bad] * 100, good.settings)), engine.submit(good)
            with pytest.raises(OwnlmError, match="not a finite number"):
                engine.step_for({broken})
            found = []
            while events := engine.step_for({number}):
                found += [(e.token_id, e.logprob) for e in events]
            assert found == expected

    def test_states_of_a_text_do_not_depend_on_how_it_is_cut(self, model: Transformer) -> None:
        texts = [np.random.default_rng(i).integers(0, VOCABULARY, 20 + 60 * i).tolist() for i in range(3)]
        for pooling in ("last", "mean"):
            whole = self.engine(model).embed(texts, pooling=pooling)
            parts = self.engine(model, step_tokens=17, max_sequences=2).embed(texts, pooling=pooling)
            assert whole.shape == (3, 96)
            assert whole.tobytes() == parts.tobytes()
            with torch.inference_mode():
                states = model.hidden(torch.tensor([texts[2]]))[0]
            expected = states[-1] if pooling == "last" else states.mean(0)
            np.testing.assert_allclose(whole[2], expected, atol=self.tolerance)

    def test_adapters_change_their_own_sequences_and_no_bit_of_others(self, model: Transformer) -> None:
        prompt = np.random.default_rng(9).integers(0, VOCABULARY, BLOCK + 20).tolist()
        settings = SamplingSettings(temperature=0.9, seed=2, max_new_tokens=25)
        adapters = [adapter(1), adapter(2)]
        engine = self.engine(model)
        numbers = [0, *(engine.add_adapter(one) for one in adapters)]
        found: dict[int, Bits] = {}
        for wanted in (numbers, [numbers[1], 0]):  # the second time all prefixes are in the cache
            found |= {engine.submit(Request(prompt, settings, number)): [] for number in wanted}
            while engine.busy:
                for event in engine.step():
                    found[event.request_id].append((event.token_id, event.logprob))
        assert engine.usage.prefix_tokens == 2 * BLOCK
        base, first, second, first_again, base_again = found.values()
        assert (first, base) == (first_again, base_again)
        assert base == self.alone(model, Request(prompt, settings))
        assert len({tuple(base), tuple(first), tuple(second)}) == 3
        only = self.engine(model)
        assert [
            (e.token_id, e.logprob)
            for e in only.stream(Request(prompt, settings, only.add_adapter(adapters[1])))
        ] == second

    def test_an_adapter_equals_its_merged_weights(self, model: Transformer) -> None:
        merged, change = copy.deepcopy(model), adapter(3)
        with torch.no_grad():
            for name, (down, up) in change.matrices.items():
                merged.get_parameter(f"{name}.weight").add_(change.scale * torch.from_numpy(up @ down))
        ids = np.random.default_rng(10).integers(0, VOCABULARY, 90).tolist()
        engine = self.engine(model)
        number = engine.add_adapter(change)
        found = engine.score([ids], adapter=number)[0].logprobs
        plain = engine.score([ids])[0].logprobs
        np.testing.assert_allclose(found, self.engine(merged).score([ids])[0].logprobs, atol=self.tolerance)
        assert np.abs(found - plain).max() > 0.5
        engine.remove_adapter(number)
        with pytest.raises(OwnlmError):
            engine.score([ids], adapter=number)

    tolerance = 2e-5  # of logits and states against the fp32 model

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_log_probabilities_are_those_of_the_model(self, layout: str) -> None:
        model = random_model(**LAYOUTS[layout])
        ids = np.random.default_rng(8).integers(0, VOCABULARY, 150)
        with torch.inference_mode():
            expected = model(torch.from_numpy(ids)[None])[0, :-1].double().log_softmax(-1)
        found = self.engine(model).score([ids.tolist()], top=3)[0]
        chosen = expected.gather(-1, torch.from_numpy(ids[1:])[:, None])[:, 0]
        np.testing.assert_allclose(found.logprobs, chosen, atol=self.tolerance)
        np.testing.assert_allclose(found.top_logprobs, expected.topk(3).values, atol=self.tolerance)
