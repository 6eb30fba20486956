"""Architectures that are not built in: what transformers computes, through our interface, equals transformers alone."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import ownlm
from ownlm.cli import main
from ownlm.engine import Engine, Event, Request, SamplingSettings, foreign_model
from ownlm.loaded import load
from tests.peers import foreign_models as peers

transformers = pytest.importorskip("transformers")
PROMPTS = peers.PROMPTS
GREEDY = {"temperature": 0, "max_new_tokens": 20}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """form -> (transformers' model, its folder); made once."""
    made: dict[str, Any] = {}

    def one(form: str) -> Any:
        if form not in made:
            folder = tmp_path_factory.mktemp(form)
            made[form] = peers.build_form(form, folder), folder
        return made[form]

    return one


# ---- causal


@pytest.mark.parametrize("form", peers.CAUSAL)
def test_greedy_text(form, built):
    theirs, folder = built(form)
    ours = load(folder)
    # The penalty keeps random models from writing one token for ever.
    settings = SamplingSettings(temperature=0, repetition_penalty=2.0, max_new_tokens=20, stop_token_ids=(2,))
    for prompt in PROMPTS:
        request = Request(ours.tokenizer.encode_prompt(prompt), settings)
        found = [event.token_id for event in ours.engine.generate([request])]
        assert found == peers.their_tokens(theirs, ours, prompt, repetition_penalty=2.0)
        assert len(set(found)) > 2
        assert ours.generate(prompt, completion_only=True, **GREEDY) == peers.their_text(theirs, ours, prompt)


@pytest.mark.parametrize("form", peers.CAUSAL)
def test_scores_of_a_ragged_batch(form, built):
    theirs, folder = built(form)
    ours = load(folder)
    rows = [ours.tokenizer.encode_prompt(text) for text in (*peers.TEXT, "A")]
    for ids, found in zip(rows, ours.engine.score(rows), strict=True):
        np.testing.assert_allclose(found.logprobs, peers.their_logprobs(theirs, ids), atol=1e-4)
        np.testing.assert_allclose(found.logprobs, ours.engine.score([ids])[0].logprobs, atol=1e-5)


@pytest.mark.parametrize("form", ["gpt_neox", "mamba"])
def test_a_row_does_not_depend_on_its_neighbours(form, built):
    """Bit for bit: several prompts and sequences of each together, and one sequence after the other."""
    _, folder = built(form)
    backend = load(folder).engine.backend
    settings = SamplingSettings(temperature=1.0, top_k=50, max_new_tokens=12, seed=5, n=2)
    requests = [Request([5, 9, 11 + i][: i + 1], settings) for i in range(3)]

    def events(max_sequences: int) -> list[tuple[int, int, int, int, float]]:
        found = Engine(backend, max_sequences=max_sequences).generate(requests)
        return sorted((e.request_id, e.index, n, e.token_id, e.logprob) for n, e in _numbered(found))

    together, alone = events(6), events(1)
    assert together == alone
    tokens = [[token for *key, _, token, _ in alone if key == [1, index]] for index in (0, 1)]
    assert tokens[0] != tokens[1] and len(tokens[0]) == len(tokens[1]) == 12


def _numbered(events: Iterator[Event]) -> Iterator[tuple[int, Event]]:
    """Events with their place in their own sequence."""
    seen: Counter[tuple[int, int]] = Counter()
    for event in events:
        seen[event.request_id, event.index] += 1
        yield seen[event.request_id, event.index], event


@pytest.mark.parametrize("form", ["gpt_neox", "bart"])
def test_without_a_cache_the_same_text(form, built, monkeypatch, capsys):
    _, folder = built(form)
    usual = load(folder)
    monkeypatch.setattr(foreign_model, "CACHES", (None,))
    capsys.readouterr()
    slow = load(folder)
    assert "keeps nothing of the tokens it has read" in capsys.readouterr().err
    assert (usual.model.cache_name, slow.model.cache_name) == ("past_key_values", None)
    assert slow.generate(PROMPTS, **GREEDY) == usual.generate(PROMPTS, **GREEDY)


def test_a_native_family_with_a_field_that_is_not_built_in(tmp_path, capsys):
    rope = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32}
    config = transformers.LlamaConfig(
        vocab_size=400, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=128, rope_parameters=rope, bos_token_id=0, eos_token_id=2,
    )  # fmt: skip
    theirs = peers.build(config, tmp_path, peers.byte_level(), "AutoModelForCausalLM")
    ours = load(tmp_path)
    said = capsys.readouterr().err
    assert "yarn" in said and f"LlamaForCausalLM is run by transformers {transformers.__version__}" in said
    assert ours.generate(PROMPTS[0], completion_only=True, **GREEDY) == peers.their_text(
        theirs, ours, PROMPTS[0]
    )


def test_the_window_ends_a_text(built):
    _, folder = built("gpt_neox")
    ours = load(folder, max_context=16)
    found = ours.complete("A", temperature=1.0, seed=1, max_new_tokens=99)[0]
    assert ours.context == 16
    assert len(ours.tokenizer.encode_prompt("A")) + found.new_tokens == 16 and found.finish_reason == "length"


# ---- encoder-decoder


@pytest.mark.parametrize("form", peers.SEQ2SEQ)
def test_answers(form, built):
    theirs, folder = built(form)
    ours = load(folder)
    texts = [peers.their_text(theirs, ours, prompt) for prompt in PROMPTS]
    assert len(set(texts)) > 1
    assert ours.generate(PROMPTS, **GREEDY) == texts  # the answer alone, as the prompt is another text
    assert ours.taught == ["answers a prompt with a text of its own"]
    streamed = "".join(piece.text for piece in ours.stream(PROMPTS[0], **GREEDY))
    assert streamed == ours.complete(PROMPTS[0], **GREEDY)[0].text == texts[0]


def test_a_first_space_of_sentencepiece_is_no_text(built):
    """As in the library's own decoding; several of the answers begin with a word."""
    _, folder = built("t5")
    ours = load(folder)
    request = ours.tokenizer.encode_whole(PROMPTS[1]).ids
    spaces = 0
    for seed in range(40):
        options = {"temperature": 20.0, "max_new_tokens": 2, "seed": seed}
        settings = SamplingSettings(**options, stop_token_ids=(2,))
        ids = [event.token_id for event in ours.engine.generate([Request(request, settings)])]
        pieces = list(ours.stream(PROMPTS[1], **options))
        streamed = "".join(piece.text for piece in pieces)
        assert streamed == pieces[-1].completion.text == ours.tokenizer.backend.decode(ids)
        spaces += ours.tokenizer.token_bytes(ids[0]).startswith(b" ")
    assert spaces


def test_the_answer_has_a_window_of_its_own(built):
    _, folder = built("bart")
    ours = load(folder)
    prompt = "The river runs. " * 8
    used = len(ours.tokenizer.encode_whole(prompt).ids)
    found = ours.complete(prompt, temperature=1.0, seed=3, max_new_tokens=200)[0]
    assert used > peers.WINDOW // 2
    assert found.finish_reason == "stop" or found.new_tokens == peers.WINDOW - len(ours.model._prefix)
    with pytest.raises(ownlm.Refused, match=f"the encoder's window holds {peers.WINDOW}"):
        ours.generate(prompt * 2)


@pytest.mark.parametrize("form", peers.SEQ2SEQ)
def test_ranking_candidates(form, built, tmp_path, capsys):
    theirs, folder = built(form)
    candidates = ["To the sea", "the fox", "Rain on the hills"]
    file = tmp_path / "candidates.txt"
    file.write_text("\n".join(candidates))
    assert main(["score", str(folder), "--rank", str(file), "--prompt", PROMPTS[2], "--json"]) == 0
    ranked = json.loads(capsys.readouterr().out)[0]["ranked"]
    ours = load(folder)
    prompt = ours.tokenizer.encode_whole(PROMPTS[2]).ids
    start = [theirs.config.decoder_start_token_id]
    expected = {
        text: peers.their_answer_logprob(theirs, prompt, start, ours.tokenizer.encode(text).tolist())
        for text in candidates
    }
    assert [row["candidate"] for row in ranked] == sorted(expected, key=lambda text: -expected[text])
    for row in ranked:
        assert row["logprob"] == pytest.approx(expected[row["candidate"]], abs=1e-4)


def test_forced_first_token_of_answers(tmp_path):
    """mBART's language code, BART's <s>: in config.json of the hub's models."""
    theirs = peers.build_form("bart", tmp_path)
    file = tmp_path / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"forced_bos_token_id": 7}))
    theirs.generation_config.forced_bos_token_id = 7
    ours = load(tmp_path)
    answer = ours.tokenizer.encode("To the sea")
    prompt = ours.tokenizer.encode_whole(PROMPTS[0]).ids
    found = float(ours.model.score_answers([np.array(prompt)], [answer])[0].sum())
    with_forced, without = (
        peers.their_answer_logprob(theirs, prompt, start, answer.tolist()) for start in ([2, 7], [2])
    )
    assert found == pytest.approx(with_forced, abs=1e-4) and abs(with_forced - without) > 0.01
    tokens = peers.their_tokens(theirs, ours, PROMPTS[0], tokens=21)  # its count includes the forced token
    assert tokens[0] == 7
    assert ours.complete(PROMPTS[0], **GREEDY)[0].text == ours.tokenizer.decode(tokens[1:])


# ---- masked


def test_masked(tmp_path, capsys):
    config = transformers.ElectraConfig(
        vocab_size=400,
        embedding_size=24,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=48,
        pad_token_id=1,
    )
    theirs = peers.build(config, tmp_path, peers.wordpiece(), "AutoModelForMaskedLM")
    text = "the river runs to the <mask>."
    assert main(["generate", str(tmp_path), text, "--top-k", "4", "--json"]) == 0
    caught = capsys.readouterr()
    assert "ElectraForMaskedLM is run by transformers" in caught.err
    candidates = json.loads(caught.out)["filled"][0]["masks"][0]["candidates"]
    ours = load(tmp_path)
    ids = torch.tensor([ours.tokenizer.encode_whole(text, specials=True).ids])
    with torch.no_grad():
        logits = theirs(input_ids=ids).logits[0, ids[0].tolist().index(4)]
    best = logits.softmax(-1).topk(4)
    assert [c["id"] for c in candidates] == best.indices.tolist()
    np.testing.assert_allclose([c["probability"] for c in candidates], best.values.numpy(), atol=1e-5)
    assert ours.context == 48


def test_positions_that_start_behind_the_padding(tmp_path):
    """XLM-RoBERTa's table has 514 rows and takes 512 tokens."""
    config = transformers.XLMRobertaConfig(
        vocab_size=400, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=34, pad_token_id=1,
    )  # fmt: skip
    theirs = peers.build(config, tmp_path, peers.wordpiece(), "AutoModelForMaskedLM")
    ours = load(tmp_path)
    ids = torch.full((1, ours.context), 9)
    assert ours.model.logits(ids, ids > 0).shape == (1, ours.context, 400)
    with pytest.raises((IndexError, RuntimeError)):
        theirs(input_ids=torch.full((1, ours.context + 1), 9))


# ---- command line


def test_generate_several_prompts_and_sequences(built, capsys):
    _, folder = built("gpt_neox")
    options = ["--num-return-sequences", "2", "--max-new-tokens", "5", "--seed", "3", "--json"]
    assert main(["generate", str(folder), *PROMPTS[:2], *options]) == 0
    found = json.loads(capsys.readouterr().out)
    texts = [(c["prompt"], c["index"], c["text"]) for c in found["completions"]]
    assert [entry[:2] for entry in texts] == [(p, i) for p in PROMPTS[:2] for i in (0, 1)]
    alone = load(folder).generate(
        PROMPTS[1], seed=3, max_new_tokens=5, num_return_sequences=2, completion_only=True
    )
    assert [text for prompt, _, text in texts if prompt == PROMPTS[1]] == alone


def test_generate_prints_the_answer_alone(built, capsys):
    theirs, folder = built("t5")
    options = ["--temperature", "0", "--max-new-tokens", "20"]
    assert main(["generate", str(folder), PROMPTS[0], *options]) == 0
    assert capsys.readouterr().out == peers.their_text(theirs, load(folder), PROMPTS[0]) + "\n"


def test_evaluate_and_score_a_file(built, tmp_path, capsys):
    theirs, folder = built("opt")
    file = tmp_path / "text.txt"
    file.write_text(peers.TEXT[0], encoding="utf-8")
    assert main(["evaluate", str(folder), str(file), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    ours = load(folder)
    ids = [ours.tokenizer.start_id, *ours.tokenizer.encode(peers.TEXT[0]).tolist()]
    expected = peers.their_logprobs(theirs, ids)
    bits = -expected.sum() / math.log(2) / len(peers.TEXT[0].encode())
    assert figures["bits_per_byte"]["value"] == pytest.approx(bits, abs=1e-4)
    assert main(["score", str(folder), str(file), "--top", "3", "--json"]) == 0
    places = json.loads(capsys.readouterr().out)["places"]
    np.testing.assert_allclose([p["logprob"] for p in places], np.sort(expected)[:3], atol=1e-4)
