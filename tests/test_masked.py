"""Filling masks and pseudo-log-likelihood, beside transformers on the same folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from tokenizers import models, normalizers, pre_tokenizers

import ownlm
from ownlm.console.errors import Refused, UsageError
from ownlm.corpus.tokenizer import Tokenizer
from ownlm.evaluation.pseudo import parts
from ownlm.masked import MaskedModel
from ownlm.model.encoder import Encoder

transformers = pytest.importorskip("transformers")

from tests.peers.masked_models import (
    BERT,
    DISTILBERT,
    LINES,
    LONG,
    ROBERTA,
    WINDOW,
    build,
    byte_level,
    wordpiece,
)


@pytest.fixture(scope="module", params=[BERT, ROBERTA, DISTILBERT])
def trio(request, tmp_path_factory):
    """(our model, transformers' model, transformers' tokenizer) of one folder."""
    folder = tmp_path_factory.mktemp(request.param)
    build(request.param, folder)
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    ours = ownlm.load(folder, device="cpu")
    assert isinstance(ours.model, Encoder)
    return ours, theirs, transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "bert"
    build(BERT, folder)
    return folder


def loop(theirs: Any, tokenizer: Any, text: str) -> np.ndarray:
    """Log-probability of each token of a short text, masked in turn, by transformers alone."""
    ids = tokenizer(text, return_tensors="pt").input_ids
    found = []
    with torch.no_grad():
        for place in range(1, ids.shape[1] - 1):
            masked = ids.clone()
            masked[0, place] = tokenizer.mask_token_id
            logits = theirs(masked, attention_mask=torch.ones_like(masked)).logits[0, place]
            found.append(float(logits.log_softmax(-1)[ids[0, place]]))
    return np.array(found)


# ---- filling


@pytest.mark.parametrize(
    "text",
    [
        "Paris is the {} of France.",
        "{} runs",
        "the {}{} sea",
        "A {} runs to\n{} sea. {}",
        "{}",
        "(the {}) fox",
    ],
)
def test_filling_is_the_argmax_of_transformers(trio, text):
    ours, theirs, tokenizer = trio
    text = text.replace("{}", tokenizer.mask_token)
    inputs = tokenizer(text, return_tensors="pt")
    ids = inputs.input_ids[0]
    with torch.no_grad():
        logits = theirs(inputs.input_ids, attention_mask=inputs.attention_mask).logits[0]
    probabilities = logits[ids == tokenizer.mask_token_id].softmax(-1)
    found = ours.fill(text, top=4)
    assert len(found.masks) == text.count(tokenizer.mask_token)
    for mask, row in zip(found.masks, probabilities):
        best = row.topk(4)
        assert [c.id for c in mask.candidates] == best.indices.tolist()
        np.testing.assert_allclose([c.probability for c in mask.candidates], best.values, atol=1e-5)
        assert text[mask.start : mask.end] == tokenizer.mask_token
    assert ours.generate(text) == found.text


class Fixed:
    """A scorer that predicts the same token everywhere, and takes no `logits_at`."""

    def __init__(self, size: int, token: int) -> None:
        self.vocab_size, self.context, self.token = size, WINDOW, token

    def logits(self, ids_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
        assert ids_BT.shape == mask_BT.shape and bool(mask_BT.all())
        logits = torch.zeros(*ids_BT.shape, self.vocab_size)
        logits[..., self.token] = 9.0
        return logits


@pytest.mark.parametrize(
    ("text", "token", "filled"),
    [
        ("The [MASK] Runs", "river", "The river Runs"),
        ("The\n[MASK]!", "river", "The\nriver!"),
        ("[MASK] runs", "river", "river runs"),
        ("The  [MASK] runs", "river", "The  river runs"),
        ("the[MASK]runs", "river", "the river runs"),
        ("the ([MASK]) runs", "river", "the (river) runs"),
        ("ri[MASK]", "##n", "rin"),
        ("The [MASK] runs", "##n", "Then runs"),
        ("The river [MASK] Then", ".", "The river . Then"),
        ("The river[MASK] Then", ".", "The river. Then"),
        ("[MASK][MASK]", "river", "river river"),
        ("The [MASK]", "[SEP]", "The [SEP]"),
        ("The <mask> Runs", "Ġriver", "The river Runs"),
        ("The <mask> runs", "n", "Then runs"),
        ("The<mask> runs", "Ġriver", "The river runs"),
        ("<mask> runs", "Ġriver", "river runs"),
        ("The\n<mask> runs", "Ġriver", "The\nriver runs"),
        ("The\n<mask> runs", "n", "The\nn runs"),
        ("The <mask>.", "Ġriver", "The river."),
        ("<mask><mask>", "Ġriver", "river river"),
    ],
)
def test_the_text_around_a_mask_stays_as_it_was_typed(tmp_path, text, token, filled):
    made = wordpiece() if "[MASK]" in text else byte_level()
    made.save_pretrained(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    index = tokenizer.backend.token_to_id(token)
    assert index is not None
    model = MaskedModel(tmp_path, {}, tokenizer, Fixed(tokenizer.vocab_size, index))
    assert model.generate(text) == filled
    assert model.generate([text, text]) == [filled, filled]


def test_chinese_characters_stand_without_spaces(tmp_path):
    vocabulary = {
        token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "春", "眠"])
    }
    made = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(list(vocabulary)[:5])
    tokenizer = Tokenizer(made.to_str())
    model = MaskedModel(tmp_path, {}, tokenizer, Fixed(7, vocabulary["眠"]))
    assert model.generate("春[MASK]春") == "春眠春"


def test_what_fill_refuses(bert):
    model = ownlm.load(bert, device="cpu")
    with pytest.raises(UsageError, match=r"no \[MASK\] in 'The river'") as caught:
        model.fill("The river")
    assert "[MASK]" in caught.value.do
    with pytest.raises(UsageError, match="0 candidates"):
        model.fill("The [MASK]", top=0)
    with pytest.raises(UsageError, match="temperature"):
        model.generate("The [MASK]", temperature=1.0)
    words = "the " * (WINDOW - 2)
    assert model.fill(f"{words[4:]}[MASK]").masks
    with pytest.raises(Refused, match=f"has {WINDOW - 1} tokens; the window holds {WINDOW}") as refused:
        model.fill(f"{words}[MASK]")
    assert refused.value.do == f"a text of at most {WINDOW - 2} tokens"
    for call in (model.complete, model.stream):
        with pytest.raises(Refused, match="does not continue text"):
            call("The river")
    with pytest.raises(Refused, match="does not continue text"):
        _ = model.engine


def test_a_smaller_window(bert):
    model = ownlm.load(bert, device="cpu", max_context=8)
    assert model.context == 8
    with pytest.raises(Refused, match="the window holds 8"):
        model.fill("the the the the the the [MASK]")


def test_load_gives_back_what_is_loaded(bert):
    model = ownlm.load(bert, device="cpu")
    assert ownlm.load(model) is model and str(bert) in repr(model) and model.taught == ["fills masks"]


# ---- pseudo-log-likelihood


def test_pseudo_log_likelihood_is_that_of_a_loop_with_transformers(trio):
    ours, theirs, tokenizer = trio
    for text in (LINES[0], "Rain falls, Paris runs.", "sea"):
        scored = ours.pseudo.score(text)
        np.testing.assert_allclose(scored.logprobs, loop(theirs, tokenizer, text), atol=1e-4)


def test_an_empty_text_has_no_tokens(trio):
    assert len(trio[0].pseudo.score("").logprobs) == 0


def test_a_mask_that_is_spelled_in_a_scored_text_is_text(trio):
    ours, _, tokenizer = trio
    scored = ours.pseudo.score(f"the {tokenizer.mask_token}")
    assert tokenizer.mask_token_id not in scored.whole.ids


def test_a_long_text_is_read_through_windows(trio):
    """Each token's figure is that of its window, computed alone by transformers."""
    ours, theirs, _ = trio
    scored = ours.pseudo.score(LONG, top=3)
    ids, room = scored.whole.ids, WINDOW - 2
    assert len(ids) > 2 * room
    for part in parts(len(ids), room):
        row = torch.tensor([*scored.whole.prefix, *ids[part.start : part.stop], *scored.whole.suffix])
        for place in range(part.first, part.last):
            masked = row.clone()[None]
            masked[0, place - part.start + 1] = ours.pseudo.mask_id
            with torch.no_grad():
                logits = theirs(masked, attention_mask=torch.ones_like(masked)).logits[
                    0, place - part.start + 1
                ]
            assert scored.logprobs[place] == pytest.approx(
                float(logits.log_softmax(-1)[ids[place]]), abs=1e-4
            )
            assert scored.top_ids[place].tolist() == logits.topk(3).indices.tolist()


@pytest.mark.parametrize("stride", [None, 1, 3, 7])
def test_windows_score_each_token_once_and_far_from_edges(stride):
    room = 7
    for tokens in range(40):
        found = list(parts(tokens, room, stride))
        assert [t for p in found for t in range(p.first, p.last)] == list(range(tokens))
        for part in found:
            assert 0 <= part.start <= part.first <= part.last <= part.stop <= tokens
            assert part.stop - part.start == min(room, tokens)
        for part in found:  # no other window holds a token farther from its edges
            for token in range(part.first, part.last):
                inside = [
                    min(token - p.start, p.stop - 1 - token) for p in found if p.start <= token < p.stop
                ]
                assert min(token - part.start, part.stop - 1 - token) >= max(inside) - 1


@pytest.mark.parametrize("stride", [0, 19, -1])
def test_a_stride_that_would_skip_tokens_is_refused(bert, stride):
    with pytest.raises(UsageError, match="stride"):
        ownlm.load(bert, device="cpu").pseudo.score(LONG, stride=stride)


def test_any_scorer_with_logits_will_do(bert):
    """Without `logits_at`, in batches of any size: the same figures."""
    model = ownlm.load(bert, device="cpu")

    class Plain:
        vocab_size, context = model.model.vocab_size, model.model.context

        def logits(self, ids_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
            return model.model.logits(ids_BT, mask_BT)

    plain = MaskedModel(bert, {}, model.tokenizer, Plain())
    wanted = model.pseudo.score(LONG).logprobs
    for rows in (None, 1, 3):
        np.testing.assert_allclose(plain.pseudo.score(LONG, batch_size=rows).logprobs, wanted, atol=1e-5)
    assert plain.generate("The [MASK] runs") == model.generate("The [MASK] runs")


def test_few_rows_at_once_where_all_logits_come(bert, monkeypatch):
    from ownlm.evaluation import pseudo

    model = ownlm.load(bert, device="cpu")
    sizes: list[int] = []

    class Counting(Fixed):
        def logits(self, ids_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
            sizes.append(ids_BT.numel() * self.vocab_size)
            return super().logits(ids_BT, mask_BT)

    limit = 3 * WINDOW * model.model.vocab_size
    monkeypatch.setattr(pseudo, "LOGITS_AT_ONCE", limit)
    counting = MaskedModel(bert, {}, model.tokenizer, Counting(model.model.vocab_size, 9))
    counting.pseudo.score(LONG)
    assert max(sizes) == limit


def test_a_tokenizer_that_does_not_belong(bert, tmp_path):
    model = ownlm.load(bert, device="cpu")
    with pytest.raises(Refused, match="do not belong together"):
        MaskedModel(bert, {}, model.tokenizer, Fixed(model.tokenizer.vocab_size - 1, 9))


@pytest.mark.parametrize(
    ("asked", "stored", "multiplies_bf16", "held"),
    [
        ("auto", "float32", True, torch.float32),
        ("auto", "bfloat16", True, torch.bfloat16),
        ("auto", "bfloat16", False, torch.float32),
        ("bfloat16", "float32", True, torch.bfloat16),
        ("float32", "bfloat16", True, torch.float32),
    ],
)
def test_the_dtype_in_memory(bert, tmp_path, monkeypatch, asked, stored, multiplies_bf16, held):
    from ownlm.engine import torch_backend

    kept = transformers.AutoModelForMaskedLM.from_pretrained(bert, dtype=getattr(torch, stored))
    kept.save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(bert).save_pretrained(tmp_path)
    monkeypatch.setattr(torch_backend, "bf16_pays", lambda: multiplies_bf16)
    model = ownlm.load(tmp_path, device="cpu", dtype=asked)
    assert {p.dtype for p in model.model.parameters()} == {held}
    (candidate,) = model.fill("The [MASK]", top=1).masks[0].candidates
    assert 0 < candidate.probability <= 1
