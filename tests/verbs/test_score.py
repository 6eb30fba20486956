"""`score`: probabilities that multiply to the total, places that can be opened, candidates in order."""

from __future__ import annotations

import io
import json
import math
import re
import sys

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import ownlm
from ownlm.cli import main

TEXT = "7: The fox runs to the river, 春眠."


@pytest.fixture(scope="module")
def model(run):
    return ownlm.load(run, dtype="float32")


@pytest.fixture
def typed(run, capsys, monkeypatch):
    """Types `ownlm score RUN …`; gives (exit code, standard output, standard error)."""

    def score(*words, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        code = main(["score", str(run), *map(str, words)])
        return (code, *capsys.readouterr())

    return score


def nats(model, text):
    """log p of a text by torch alone."""
    ids = torch.tensor([[model.tokenizer.eos_id, *model.tokenizer.encode(text).tolist()]])
    with torch.no_grad():
        return -torch.nn.functional.cross_entropy(
            model.model(ids[:, :-1])[0].double(), ids[0, 1:], reduction="sum"
        ).item()


def test_the_probabilities_multiply_to_the_printed_total(typed, model):
    code, shown, said = typed(TEXT)
    assert code == 0
    header, *lines, last = shown.splitlines()
    assert header.split() == ["probability", "log", "p", "token"]
    logs, product, tokens = [], 1.0, []
    for line in lines:
        probability, log, token = line.split(maxsplit=2)
        assert float(probability) == pytest.approx(math.exp(float(log)), rel=0.01)
        product *= float(probability)
        logs.append(float(log))
        tokens.append(json.loads(token))
    total, log, *words = last.split()
    assert sum(logs) == pytest.approx(float(log), abs=1e-4 * len(logs))
    assert product == pytest.approx(float(total), rel=0.01 * len(logs))
    assert float(log) == pytest.approx(nats(model, TEXT), abs=1e-3)
    assert f"all {len(lines)} tokens" in " ".join(words)
    assert b"".join(_bytes(token) for token in tokens) == TEXT.encode()
    bits = -float(log) / math.log(2) / len(TEXT.encode())
    assert float(said.split()[0]) == pytest.approx(bits, abs=1e-4)


def _bytes(token):
    """What is shown of a token, as bytes: bytes inside a character are shown as <0xE6>."""
    found = re.fullmatch(r"(<0x[0-9A-F]{2}>)+", token)
    return bytes.fromhex(token.replace("<0x", "").replace(">", "")) if found else token.encode()


def test_json_holds_the_same(typed, model, run):
    code, shown, _ = typed(TEXT, "--json")
    content = json.loads(shown)
    (found,) = content["texts"]
    assert (code, content["model"], found["text"], found["bytes"]) == (0, str(run), TEXT, len(TEXT.encode()))
    assert found["logprob"] == pytest.approx(sum(t["logprob"] for t in found["tokens"]))
    for token in found["tokens"]:
        assert token["probability"] == pytest.approx(math.exp(token["logprob"]))
    assert json.loads(typed("-", "--json", stdin=TEXT.encode() + b"\n")[1]) == content
    assert json.loads(typed("--json", stdin=TEXT.encode())[1]) == content
    evaluated = ownlm.evaluate(run, [TEXT])
    assert found["bits_per_byte"] == pytest.approx(evaluated["bits_per_byte"]["value"], rel=1e-9)


def test_an_empty_text_has_probability_1(typed):
    code, shown, _ = typed("")
    assert (code, shown.splitlines()[-1].split()[:2]) == (0, ["1.00e0", "0.0000"])


@given(st.floats(-5000, 0))
@example(math.log(0.99999))
@example(math.log(9.9999e-4))
def test_the_total_is_readable_where_a_float_would_be_0(logprob):
    import importlib

    text = importlib.import_module("ownlm.verbs.score")._power(logprob)
    digits, exponent = text.split("e")
    assert re.fullmatch(r"\d\.\d\d", digits)
    assert math.log(float(digits)) + int(exponent) * math.log(10) == pytest.approx(logprob, abs=0.006)


@pytest.fixture
def proof(tmp_path):
    """A file with one strange word, and a quiet one."""
    file = tmp_path / "proof.txt"
    lines = [f"{i}: The quick brown fox jumps over the lazy dog." for i in range(40)]
    lines[22] = "22: 春眠，The quick zebra fox jumps over the lazy dog."
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


PLACE = re.compile(
    r'(?P<file>.+?):(?P<line>\d+):(?P<column>\d+) (?P<token>".*") p = (?P<p>\S+), expected (?P<expected>.+)'
)


def test_places_of_files_can_be_opened_and_the_strangest_comes_first(typed, proof):
    code, shown, _ = typed(f"@{proof}")
    assert code == 0
    places = [PLACE.fullmatch(line) for line in shown.splitlines()]
    assert len(places) == 20
    assert all(places)
    text = proof.read_text(encoding="utf-8").splitlines(keepends=True)
    for place in places:
        token = json.loads(place["token"])
        rest = text[int(place["line"]) - 1][int(place["column"]) - 1 :]
        assert place["file"] == str(proof)
        assert token.startswith("<0x") or rest.startswith(token) or token.startswith(rest), place.group()
    p = [float(place["p"]) for place in places]
    assert p == sorted(p)
    assert any(place["line"] == "23" for place in places[:6])
    assert typed(proof)[1] == shown  # a path that exists needs no @
    assert typed(proof, "--top", 3)[1].splitlines() == shown.splitlines()[:3]
    found = json.loads(typed(proof, "--top", 3, "--json")[1])["places"]
    assert [f"{e['name']}:{e['line']}:{e['column']}" for e in found] == [
        m.group().split(" ")[0] for m in places[:3]
    ]


def test_files_and_texts_in_one_command(typed, proof):
    code, shown, _ = typed(proof, "The fox", "--json", "--top", 2)
    content = json.loads(shown)
    assert (code, len(content["texts"]), len(content["places"])) == (0, 1, 2)


def test_candidates_are_ordered_by_their_probability(typed, model, tmp_path):
    file = tmp_path / "candidates.txt"
    file.write_text("the dog zebra\nthe lazy dog.\n\nhome\nThe river runs again.\n", encoding="utf-8")
    code, shown, said = typed("--rank", file)
    assert code == 0
    lists = [[line.split("\t") for line in part.splitlines()] for part in shown.strip().split("\n\n")]
    assert [candidate for _, candidate in lists[0]] == ["the lazy dog.", "the dog zebra"]
    for ranked in lists:
        scores = [float(value) for value, _ in ranked]
        assert scores == sorted(scores, reverse=True)
        for value, candidate in ranked:
            assert float(value) == pytest.approx(nats(model, candidate), abs=1e-3)
    assert "2 lists; in 1 another" in said or "2 lists; in 2 another" in said
    by_byte = json.loads(typed("--rank", file, "--per-byte", "--json")[1])
    for one in by_byte:
        for entry in one["ranked"]:
            assert entry["score"] == pytest.approx(entry["logprob"] / len(entry["candidate"].encode()))
    assert by_byte[1]["ranked"][0]["candidate"] == "The river runs again."
    assert typed("--rank", "-", stdin=file.read_bytes())[1] == shown


def test_a_prompt_stands_before_the_candidates(typed, model, tmp_path):
    file = tmp_path / "candidates.jsonl"
    own = {"candidates": [" fox", " sea"], "prompt": "3: The quick brown"}
    file.write_text(
        json.dumps(own) + "\n" + json.dumps({"candidates": own["candidates"]}) + "\n", encoding="utf-8"
    )
    first, second = json.loads(typed("--rank", file, "--prompt", "0: A river runs to the", "--json")[1])
    assert (first["prompt"], second["prompt"]) == ("3: The quick brown", "0: A river runs to the")
    assert first["ranked"][0]["logprob"] > first["ranked"][1]["logprob"]
    for one in (first, second):
        for entry in one["ranked"]:
            expected = nats(model, one["prompt"] + entry["candidate"]) - nats(model, one["prompt"])
            assert entry["logprob"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["fox", "--top", "0"], 2, "--top"),
        (["fox", "--prompt", "The"], 2, "only works with --rank"),
        (["fox", "--per-byte"], 2, "only works with --rank"),
        (["--rank", "{file}", "fox"], 2, "--rank reads a file"),
        (["--rank", "{file}", "--top", "3"], 2, "--top"),
        (["--rank", "missing.txt"], 2, "no such file"),
        (["--rank", "{empty}"], 3, "no candidates"),
        (["missing.txt"], 2, "no such file or folder"),
        (["fox runs", "--stride", "0"], 2, "--stride"),
    ],
)
def test_what_does_not_go_together_is_refused(typed, tmp_path, words, code, said):
    (tmp_path / "c.txt").write_text("a\nb\n", encoding="utf-8")
    (tmp_path / "e.txt").write_text("\n", encoding="utf-8")
    words = [w.replace("{file}", f"{tmp_path}/c.txt").replace("{empty}", f"{tmp_path}/e.txt") for w in words]
    found = typed(*words)
    assert found[:2] == (code, "")
    assert said in found[2]


def test_top_without_a_file_is_said(typed):
    assert "--top is about files" in typed("The fox", "--top", 3)[2]
    assert "--top" not in typed("The fox")[2]
