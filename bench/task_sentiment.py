"""Sentiment of sst2's sentences, from nothing: our commands beside TF–IDF and logistic regression on the same rows.

    python bench/task_sentiment.py SHARED_DATA -o WORK        # pretrain, fine-tune, compare
    python bench/task_sentiment.py SHARED_DATA --run RUN      # compare a run that is there

Text that is pretrained on: English books, Wikipedia and web pages, film reviews, sst2's own training sentences; nothing
of its dev rows. Needs scikit-learn.
"""

from __future__ import annotations

import argparse
import json
import lzma
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

SAMPLES = 10_000  # of the paired bootstrap


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("work"))
    parser.add_argument("--run", type=Path)
    options = parser.parse_args()
    train, dev = (rows(options.data / "sst2" / f"{name}.jsonl.xz") for name in ("train", "dev"))
    run = options.run or trained(options.data, options.output)
    right = np.array([str(row["label"]) for row in dev])
    ours = ours_of(run, [row["text"] for row in dev]) == right
    print(f"{run}: accuracy {ours.mean():.4f} (n = {len(dev)})")
    for name, said in baselines(train, dev).items():
        theirs = said == right
        low, high, p = paired(ours.astype(float) - theirs)
        print(
            f"{name}: accuracy {theirs.mean():.4f}; difference {ours.mean() - theirs.mean():+.4f} "
            f"(95 % {low:+.4f} to {high:+.4f}, paired bootstrap, p = {p:.3f})"
        )


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file."""
    return [json.loads(line) for line in lzma.open(path, "rt", encoding="utf-8")]


def trained(data: Path, work: Path) -> Path:
    """The run folder, after all of our commands; their times are printed."""
    work.mkdir(parents=True, exist_ok=True)
    films = [
        data / "movie_reviews/train.jsonl.xz",
        data / "sst2/train.jsonl.xz",
        data / "wiki_c4_demo/c4_demo.jsonl.xz",
    ]
    books = [data / "books_en/train.jsonl.xz", data / "wiki_c4_demo/wiki_demo.txt.xz"]
    place = {name: str(work / name) for name in ("films", "books", "base", "base-films", "run")}
    ownlm("prepare", *films, "-o", place["films"], "--vocab-size", "4096")
    ownlm("prepare", *books, "-o", place["books"], "--tokenizer", place["films"])
    ownlm("pretrain", place["books"], "-o", place["base"], "--size", "3M", "--max-steps", "2500")
    ownlm(
        "pretrain", place["films"], "-o", place["base-films"], "--from", place["base"], "--max-steps", "1500",
        "--learning-rate", "0.003", "--muon-learning-rate", "0.015",
    )  # fmt: skip
    ownlm(
        "finetune", place["base-films"], data / "sst2/train.jsonl.xz", data / "sst2/dev.jsonl.xz", "--task", "sentiment",
        "-o", place["run"],
    )  # fmt: skip
    return work / "run"


def ownlm(*words: object) -> None:
    """Run a command and print how long it took."""
    begin = time.monotonic()
    subprocess.run([sys.executable, "-m", "ownlm", *map(str, words), "-q"], check=True)
    print(f"ownlm {words[0]}: {time.monotonic() - begin:.0f} s", flush=True)


def ours_of(run: Path, texts: list[str]) -> Any:
    """The labels that a run gives."""
    import ownlm as package

    return np.array([found[0]["label"] for found in package.load(run).classify(texts)])


def baselines(train: list[dict[str, Any]], dev: list[dict[str, Any]]) -> dict[str, Any]:
    """Labels by TF–IDF and logistic regression, of words, and of words and pairs."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    found = {}
    for name, spans in (
        ("TF-IDF + logistic regression, words", (1, 1)),
        ("the same, words and pairs", (1, 2)),
    ):
        terms = TfidfVectorizer(ngram_range=spans, sublinear_tf=True, token_pattern=r"\S+")
        model = LogisticRegression(C=4.0, max_iter=1000)
        model.fit(terms.fit_transform([row["text"] for row in train]), [str(row["label"]) for row in train])
        found[name] = model.predict(terms.transform([row["text"] for row in dev]))
    return found


def paired(differences: Any) -> tuple[float, float, float]:
    """(low, high, p) of a mean difference over the same rows; p is two-sided."""
    draw = np.random.default_rng(0)
    means = differences[draw.integers(0, len(differences), (SAMPLES, len(differences)))].mean(axis=1)
    p = 2 * min((means <= 0).mean(), (means >= 0).mean())
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975)), float(min(1, p))


if __name__ == "__main__":
    main()
