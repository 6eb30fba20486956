"""Filling masks, pseudo-log-likelihood and the verbs on masked models, beside transformers on the same folder."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

import ownlm
from ownlm import cli
from ownlm.console.errors import Refused, UsageError
from ownlm.corpus.tokenizer import Tokenizer
from ownlm.evaluation.compression import bits_per_byte
from ownlm.evaluation.pseudo import parts
from ownlm.masked import MaskedModel

transformers = pytest.importorskip("transformers")

WINDOW = 20  # tokens, those around the text included
LINES = [
    "The quick brown fox jumps over the lazy dog.",
    "A river runs to the sea, and the river runs again.",
    "Rain falls on the hills; the fox runs home.",
    "Paris is the capital of France. The sea is wide.",
]
LONG = " ".join(LINES)
BERT, ROBERTA = "bert", "roberta"


def wordpiece() -> Any:
    """A lower-casing WordPiece tokenizer as BERT's."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=special, show_progress=False)
    made.train_from_iterator(LINES * 3, trainer)
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **names)


def byte_level() -> Any:
    """A byte-level BPE tokenizer as RoBERTa's, whose mask takes the space before it."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(LINES * 3, trainer)
    made.add_special_tokens([tokenizers.AddedToken("<mask>", lstrip=True, special=True)])
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>", cls_token="<s>",
        sep_token="</s>", unk_token="<unk>", mask_token=tokenizers.AddedToken("<mask>", lstrip=True, special=True),
    )  # fmt: skip


def build(kind: str, folder: Path) -> None:
    """A random masked model with its tokenizer, saved by transformers; weights far from flat."""
    tokenizer = wordpiece() if kind == BERT else byte_level()
    tokenizer.save_pretrained(folder)
    offset = 0 if kind == BERT else 2
    name = "Bert" if kind == BERT else "Roberta"
    config = getattr(transformers, f"{name}Config")(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=WINDOW + offset, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(3)
    model = getattr(transformers, f"{name}ForMaskedLM")(config)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)


@pytest.fixture(scope="module", params=[BERT, ROBERTA])
def trio(request, tmp_path_factory):
    """(our model, transformers' model, transformers' tokenizer) of one folder."""
    folder = tmp_path_factory.mktemp(request.param)
    build(request.param, folder)
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    return ownlm.load(folder, device="cpu"), theirs, transformers.AutoTokenizer.from_pretrained(folder)


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


# ---- the verbs


def run(capsys, *words: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a command."""
    try:
        code = cli.main(list(words))
    except SystemExit as ended:
        code = int(ended.code or 0)
    printed = capsys.readouterr()
    return int(code or 0), printed.out, printed.err


def test_generate_prints_the_text_and_says_the_candidates(capsys, bert):
    model = ownlm.load(bert, device="cpu")
    text = "The [MASK] runs to the [MASK]"
    code, printed, said = run(capsys, "generate", str(bert), text, "--device", "cpu")
    found = model.fill(text)
    assert (code, printed) == (0, found.text + "\n")
    for mask in found.masks:
        assert len(mask.candidates) == 5
        for candidate in mask.candidates:
            assert f'"{candidate}" {candidate.probability:.3g}' in said
    assert "No mask saw" in said


def test_generate_as_json_with_more_candidates_and_texts(capsys, bert):
    texts = ["The [MASK]", "[MASK] runs"]
    code, printed, _ = run(capsys, "generate", str(bert), *texts, "--top-k", "7", "--json", "--device", "cpu")
    model = ownlm.load(bert, device="cpu")
    found = json.loads(printed)["filled"]
    assert code == 0 and found == [model.fill(text, top=7).as_dict() for text in texts]
    assert [len(one["masks"][0]["candidates"]) for one in found] == [7, 7]


def test_generate_without_a_mask_says_what_to_type(capsys, bert):
    code, printed, said = run(capsys, "generate", str(bert), "The river", "--device", "cpu")
    assert code == 2 and printed == "" and "there is no [MASK]" in said and "ownlm generate" in said


@pytest.mark.parametrize(
    "option",
    [
        ["--temperature", "0.5"], ["--max-new-tokens", "5"], ["--max-length", "5"], ["--top-p", "0.5"],
        ["--min-p", "0.1"], ["--repetition-penalty", "1.1"], ["--stop", "x"], ["--seed", "1"],
        ["--num-return-sequences", "2"], ["--completion-only"],
    ],
)  # fmt: skip
def test_options_of_sampling_are_refused(capsys, bert, option):
    code, printed, said = run(capsys, "generate", str(bert), "The [MASK]", "--device", "cpu", *option)
    assert code == 2 and printed == ""
    assert option[0] in said and "no effect with a masked model" in said


def test_score_of_a_text(capsys, bert):
    model = ownlm.load(bert, device="cpu")
    wanted = model.pseudo.score(LINES[1]).logprobs
    code, printed, said = run(capsys, "score", str(bert), LINES[1], "--json", "--device", "cpu")
    found = json.loads(printed)
    assert code == 0 and "not comparable" in found["note"]
    (one,) = found["texts"]
    assert one["pseudo_logprob"] == pytest.approx(wanted.sum())
    assert [t["logprob"] for t in one["tokens"]] == pytest.approx(wanted.tolist())
    assert [t["token"] for t in one["tokens"]][:3] == ["A", "river", "runs"]
    assert "logprob" not in one and "bits_per_byte" not in one
    code, printed, said = run(capsys, "score", str(bert), LINES[1], "--device", "cpu")
    assert code == 0 and f"{wanted.sum():.4f}" in printed and "not comparable" in said


def test_score_of_a_file_names_places(capsys, bert, tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("\n".join(LINES[:3]) + "\n", encoding="utf-8")
    code, printed, _ = run(capsys, "score", str(bert), str(file), "--top", "4", "--json", "--device", "cpu")
    places = json.loads(printed)["places"]
    scored = ownlm.load(bert, device="cpu").pseudo.score(file.read_text())
    assert code == 0
    assert [place["logprob"] for place in places] == pytest.approx(sorted(scored.logprobs)[:4])
    for place in places:
        line = LINES[place["line"] - 1]
        assert line[place["column"] - 1 :].startswith(place["token"])


def test_rank_orders_by_the_text_as_a_whole(capsys, bert, tmp_path):
    file = tmp_path / "heard.txt"
    file.write_text("river runs\nsea runs\nfox falls\n", encoding="utf-8")
    code, printed, _ = run(
        capsys, "score", str(bert), "--rank", str(file), "--prompt", "The ", "--json", "--device", "cpu"
    )
    (found,) = json.loads(printed)
    model = ownlm.load(bert, device="cpu")
    sums = {c: float(model.pseudo.score(f"The {c}").logprobs.sum()) for c in file.read_text().splitlines()}
    assert code == 0
    assert [r["candidate"] for r in found["ranked"]] == sorted(sums, key=lambda c: -sums[c])
    assert found["ranked"][0]["pseudo_logprob"] == pytest.approx(max(sums.values()))


def test_evaluate_says_that_its_figures_are_pseudo(capsys, bert, tmp_path):
    for number, line in enumerate(LINES):
        (tmp_path / f"{number}.txt").write_text(line, encoding="utf-8")
    code, printed, _ = run(capsys, "evaluate", str(bert), str(tmp_path), "--json", "--device", "cpu")
    found = json.loads(printed)
    model = ownlm.load(bert, device="cpu")
    scored = [model.pseudo.score(line) for line in LINES]
    nats, size = -sum(s.logprobs.sum() for s in scored), sum(len(line.encode()) for line in LINES)
    tokens = sum(len(s.logprobs) for s in scored)
    assert code == 0 and (found["tokens"], found["bytes"], found["documents"]) == (tokens, size, len(LINES))
    assert found["pseudo_bits_per_byte"]["value"] == pytest.approx(nats / math.log(2) / size)
    assert found["pseudo_loss"]["value"] == pytest.approx(nats / tokens)
    assert found["pseudo_perplexity"]["value"] == pytest.approx(math.exp(nats / tokens))
    assert not {"loss", "perplexity", "bits_per_byte"} & found.keys()
    assert "not comparable with a causal model" in found["note"]
    assert found["baselines"] == pytest.approx(bits_per_byte("".join(LINES).encode()))
    assert found["unknown_tokens"] == 0
    code, printed, said = run(capsys, "evaluate", str(bert), str(tmp_path), "--device", "cpu")
    assert code == 0 and all(line.startswith("pseudo ") for line in printed.splitlines())
    assert "not comparable" in said


def test_evaluate_counts_what_the_vocabulary_lacks(capsys, bert):
    code, _, said = run(capsys, "evaluate", str(bert), "The river 春 runs", "--device", "cpu")
    assert code == 0 and "1 tokens (25.0%) stand for what the vocabulary lacks" in said


def test_evaluate_without_a_text_says_that_there_is_no_corpus(capsys, bert):
    code, _, said = run(capsys, "evaluate", str(bert), "--device", "cpu")
    assert code == 3 and "ownlm evaluate" in said


def test_chat_says_what_a_masked_model_does(capsys, bert):
    code, _, said = run(capsys, "chat", str(bert))
    assert code == 3 and "fills masks" in said and "[MASK]" in said


def test_a_model_without_a_head_says_so(capsys, bert, tmp_path):
    transformers.BertModel.from_pretrained(bert).save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(bert).save_pretrained(tmp_path)
    code, _, said = run(capsys, "generate", str(tmp_path), "The [MASK]", "--device", "cpu")
    assert code == 3 and "no head" in said
    assert ownlm.load(tmp_path, device="cpu").model.hidden(torch.tensor([[2, 9, 3]])).shape == (1, 3, 32)


def test_a_tokenizer_that_does_not_belong(bert, tmp_path):
    model = ownlm.load(bert, device="cpu")
    with pytest.raises(Refused, match="do not belong together"):
        MaskedModel(bert, {}, model.tokenizer, Fixed(model.tokenizer.vocab_size - 1, 9))


@pytest.mark.parametrize(
    ("asked", "stored", "arithmetic", "held"),
    [
        ("auto", "float32", "bfloat16", torch.float32),
        ("auto", "bfloat16", "bfloat16", torch.bfloat16),
        ("auto", "bfloat16", "float32", torch.float32),  # a processor without bf16 arithmetic
        ("bfloat16", "float32", "bfloat16", torch.bfloat16),
        ("float32", "bfloat16", "bfloat16", torch.float32),
    ],
)
def test_the_dtype_in_memory(bert, tmp_path, monkeypatch, asked, stored, arithmetic, held):
    from ownlm.training import setup

    kept = transformers.AutoModelForMaskedLM.from_pretrained(bert, dtype=getattr(torch, stored))
    kept.save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(bert).save_pretrained(tmp_path)
    monkeypatch.setattr(setup, "choose_dtype", lambda dtype, device: arithmetic)
    model = ownlm.load(tmp_path, device="cpu", dtype=asked)
    assert {p.dtype for p in model.model.parameters()} == {held}
    (candidate,) = model.fill("The [MASK]", top=1).masks[0].candidates
    assert 0 < candidate.probability <= 1
