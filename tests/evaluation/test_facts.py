"""The facts of quickstart: each beside its baseline, or left out with the reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ownlm
from ownlm.console import output as out
from ownlm.corpus.shards import Corpus
from ownlm.evaluation import facts
from ownlm.evaluation.compression import bits_per_byte
from ownlm.evaluation.facts import collect, show
from tests.conftest import TINY

NUMBERS = [
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "fox",
    "river",
    "home",
    "sea",
    "hill",
    "rain",
    "dog",
    "night",
]


def python_source(seed: int) -> str:
    """A file of twelve short functions."""
    draw = np.random.default_rng(seed)
    names = [f"{a}_{b}" for a in NUMBERS[:6] for b in NUMBERS[10:14]]
    found = []
    for _ in range(12):
        name, other, number = *draw.choice(names, 2, replace=False), int(draw.integers(1000))
        found.append(
            f"def {name}{number}(x):\n    y = [{number},\n         x]\n    {other} = y\n    return {other}\n"
        )
    return "\n\n".join(found)


def chinese_text(seed: int) -> str:
    """Lines of drawn words of two characters."""
    draw = np.random.default_rng(seed)
    words = [a + b for a in "山水风花雪月春秋" for b in "人声色影夜日光明"]
    lines = ["".join(draw.choice(words, 5)) + "，" + "".join(draw.choice(words, 3)) + "。" for _ in range(40)]
    return "\n".join(lines) + "\n"


def trained(folder: Path, texts: dict[str, str], **settings: Any) -> tuple[Path, Corpus]:
    source = folder / "texts"
    source.mkdir()
    for name, text in texts.items():
        (source / name).write_text(text, encoding="utf-8")
    corpus = ownlm.prepare([str(source)], output=folder / "corpus", vocab_size=500, validation=["hash:0.3"])
    run = ownlm.pretrain(corpus, output=folder / "run", max_steps=2, **{**TINY, **settings})
    return run.path, corpus


def by_name(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {fact["name"]: fact for fact in content["facts"]}


def baselines(fact: dict[str, Any]) -> dict[str, Any]:
    return {entry["name"]: entry["value"] for entry in fact["baselines"]}


def check_shape(content: dict[str, Any]) -> None:
    """Every fact is measured or left out; a measured one has its interval, its unit, a note and baselines."""
    names = [fact["name"] for fact in content["facts"]] + [entry["name"] for entry in content["left_out"]]
    assert sorted(names) == sorted(
        ["bits per byte", "true line preferred", "completions that parse", "new, not copied"]
    )
    assert all(entry["why"] for entry in content["left_out"])
    for fact in content["facts"]:
        assert fact["value"]["low"] <= fact["value"]["value"] <= fact["value"]["high"]
        assert fact["note"]
        assert fact["baselines"]
        better = {
            "bits per byte": "lower",
            "new, not copied": "",
        }  # nonsense is new too: no direction is better
        assert {entry["better"] for entry in fact["baselines"]} == {better.get(fact["name"], "higher")}


@pytest.fixture(scope="module")
def small(run: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    path = tmp_path_factory.mktemp("facts") / "run"
    shutil.copytree(run, path)
    return collect(path, Corpus.open(corpus), seed=0), path


def test_the_small_run_has_its_facts_beside_their_baselines(
    small: tuple[dict[str, Any], Path], corpus: Path, run: Path
) -> None:
    content, path = small
    check_shape(content)
    found = by_name(content)
    split = Corpus.open(corpus).split("validation")
    text = "".join(split.document_text(number) for number in range(split.num_documents))
    assert found["bits per byte"]["value"] == ownlm.load(run).run["result"]["bits_per_byte"]
    assert baselines(found["bits per byte"]) == bits_per_byte(text.encode())
    real = baselines(found["new, not copied"])["held-out real text"]
    assert 0 <= real["value"] <= 1
    assert json.loads((path / "facts.json").read_text(encoding="utf-8")) == content


def test_what_is_not_python_has_no_completions(small: tuple[dict[str, Any], Path]) -> None:
    why = {entry["name"]: entry["why"] for entry in small[0]["left_out"]}
    assert "0 Python functions" in why["completions that parse"]


def test_the_same_seed_gives_the_same_facts(small: tuple[dict[str, Any], Path], corpus: Path) -> None:
    content, path = small
    assert collect(path, Corpus.open(corpus), seed=0) == content
    assert collect(path, Corpus.open(corpus), seed=1) != content


def test_a_python_corpus_has_completions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, corpus = trained(
        tmp_path, {f"{number}.py": python_source(number) for number in range(8)}, context=96
    )
    monkeypatch.setattr(facts, "NGRAM_BYTES", corpus.split("train").num_bytes - 1000)
    fact = facts._completions(ownlm.load(path), corpus, 0)
    assert isinstance(fact, dict)
    beside = baselines(fact)
    assert list(beside) == ["4-gram counter", "the true functions, cut the same way"]
    assert fact["value"]["n"] == beside["4-gram counter"]["n"] >= facts.LEAST
    assert beside["the true functions, cut the same way"]["value"] == 1
    assert beside["4-gram counter"]["value"] > 0.5 > fact["value"]["value"]  # so few steps teach nothing
    assert "192 tokens" in fact["note"]
    assert fact["note"].endswith(f"the counter read the first {out.human_bytes(facts.NGRAM_BYTES)}")


def test_few_functions_are_left_out_with_their_number(
    run: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = python_source(0) + python_source(1)
    monkeypatch.setattr(facts, "_texts", lambda *_: [source[: source.index("def", 1200)]])
    model = ownlm.load(run)
    monkeypatch.setattr(model.engine, "max_context", 96)
    number = source[: source.index("def", 1200)].count("def ")
    assert 0 < number < facts.LEAST
    why = facts._completions(model, Corpus.open(corpus), 0)
    assert why == f"{number} Python functions in the held-out text fit the context; {facts.LEAST} are needed"


@pytest.fixture(scope="module")
def chinese(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Corpus]:
    folder = tmp_path_factory.mktemp("chinese")
    return trained(folder, {f"{number}.txt": chinese_text(number) for number in range(12)})


def test_a_chinese_corpus_has_lines_and_words(chinese: tuple[Path, Corpus]) -> None:
    path, corpus = chinese
    content = collect(path, corpus, seed=0)
    check_shape(content)
    fact = by_name(content)["true line preferred"]
    assert fact["value"]["n"] >= facts.LEAST
    assert "4-gram counter" in baselines(fact)
    assert baselines(fact)["chance"] == 0.5


def test_few_lines_are_left_out_with_their_number(
    chinese: tuple[Path, Corpus], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, corpus = chinese
    model = ownlm.load(path)
    monkeypatch.setattr(facts, "SWAPS", facts.LEAST)
    enough = facts._swaps(model, corpus, 0)
    assert isinstance(enough, dict)
    assert enough["value"]["n"] == facts.LEAST
    monkeypatch.setattr(facts, "SWAPS", facts.LEAST - 1)
    assert facts._swaps(model, corpus, 0) == (
        f"{facts.LEAST - 1} held-out lines have a word to swap; {facts.LEAST} are needed"
    )


def test_the_limit_of_texts_counts_bytes(chinese: tuple[Path, Corpus]) -> None:
    split = chinese[1].split("train")
    sizes = [len(split.document_text(number).encode()) for number in range(split.num_documents)]
    assert list(facts._texts(split)) == [split.document_text(n) for n in range(split.num_documents)]
    for number in range(len(sizes)):
        read = list(facts._texts(split, sum(sizes[: number + 1]) - 1))
        assert len(read) == number + 1


def test_the_facts_are_shown_with_their_baselines(
    small: tuple[dict[str, Any], Path], corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, _ = small
    show(content, Corpus.open(corpus))
    captured = capsys.readouterr()
    said = " ".join((captured.out + captured.err).split())
    for fact in content["facts"]:
        assert fact["name"] in said
    for entry in content["left_out"]:
        assert f"not measured: {entry['name']}: {entry['why']}" in said
    bits = by_name(content)["bits per byte"]
    word = "better" if bits["value"]["value"] < baselines(bits)["gzip -9"] else "worse"
    assert f"{word} than gzip -9" in said
    assert f"It read {out.human_bytes(Corpus.open(corpus).split('train').num_bytes)} of text." in said
