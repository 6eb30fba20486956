"""The verbs on masked models."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

import ownlm
from ownlm import cli
from ownlm.evaluation.compression import bits_per_byte

transformers = pytest.importorskip("transformers")

from tests.peers.masked_models import BERT, LINES, build


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "bert"
    build(BERT, folder)
    return folder


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
