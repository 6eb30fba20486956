"""The losses of 50 steps on a text made here, held against those that were written down when training was known good.

What changes initial weights, data order, the schedule or the optimizer on purpose changes the curve; it is then made
anew on the machine whose figures are the strict ones, and the change is said in the commit:

    python tests/training/test_golden.py --write
"""

from __future__ import annotations

import json
import platform
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

import ownlm
from ownlm.machine.cpu import bf16_pays
from ownlm.training.log import read_log

GOLDEN = Path(__file__).with_name("golden_loss.json")
DTYPES = ("float32", "bfloat16")
# Measured with the same batches in other micro-batches: below 0.00001 in fp32, 0.011 in bf16. The least of the faults
# that must show: Muon's rate a tenth too high 0.024, no weight decay 0.021, beta2 of 0.96 for 0.95 0.006 (fp32 alone).
TOLERANCE = {
    "float32": {"Linux x86_64 AVX512": 0.0005, "elsewhere": 0.003},
    "bfloat16": {"Linux x86_64 AVX512": 0.018, "elsewhere": 0.03},
}
# Every setting that the curve depends on is said here: a default that is tuned anew must not change it. The rates are
# half of what is usual: at full rates the curve is chaotic, and another order of the same sums moves it by 0.03 in bf16.
SETTINGS = {
    "size": "1M", "context": 32, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1,
    "set": ["num_hidden_layers=2", "hidden_size=64", "intermediate_size=128"],
    "architecture": "qwen3", "learning_rate": 0.002, "muon_learning_rate": 0.01, "weight_decay": 0.5,
    "max_grad_norm": 0.0, "warmup_steps": 5, "max_steps": 50, "eval_steps": 50, "save_steps": 0, "seed": 0, "threads": 1,
    "device": "cpu",
}  # fmt: skip


def made_text(words: int, seed: int) -> str:
    """Sentences in which a word says much about the next one: there is something to learn in 50 steps."""
    source = random.Random(seed)
    known = [f"{a}{b}{c}" for a in "bdkmrst" for b in "aeiou" for c in ("n", "rl", "st")]
    text, word = [], 0
    for _ in range(words):
        word = (7 * word + int(4 * source.random() ** 2)) % len(known)
        text.append(known[word] + (".\n" if source.random() < 0.1 else ""))
    return " ".join(text)


def made_corpus(folder: Path) -> Path:
    """One token a letter: no library's merges stand between the text and the curve."""
    for name, words in (("train", 8_000), ("validation", 400)):
        (folder / f"{name}.txt").write_text(made_text(words, seed=words), encoding="utf-8")
    held_out = [str(folder / "validation.txt")]
    ownlm.prepare(
        [str(folder / "train.txt")], output=folder / "corpus", tokenizer_type="char", validation=held_out
    )
    return folder / "corpus"


def losses(corpus: Path, output: Path, dtype: str, **changed: Any) -> list[float]:
    """The loss of each step."""
    ownlm.pretrain(corpus, output=output, **SETTINGS | {"dtype": dtype, "allow_overlap": True} | changed)
    return [line["loss"] for line in read_log(output / "log.jsonl") if line["kind"] == "step"]


def this_platform() -> str:
    """What decides in which order products are added up."""
    return f"{platform.system()} {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_corpus(tmp_path_factory.mktemp("golden"))


@pytest.mark.parametrize("dtype", DTYPES)
def test_losses_are_those_written_down(made: Path, tmp_path: Path, dtype: str) -> None:
    if dtype == "bfloat16" and not bf16_pays():
        pytest.skip("this processor has no bf16 arithmetic")
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    allowed = golden["tolerance"][dtype].get(this_platform(), golden["tolerance"][dtype]["elsewhere"])
    found, expected = losses(made, tmp_path / "run", dtype), golden["losses"][dtype]
    assert len(found) == len(expected)
    furthest = max(range(len(expected)), key=lambda step: abs(found[step] - expected[step]))
    assert abs(found[furthest] - expected[furthest]) <= allowed, f"step {furthest + 1}"


def write() -> None:
    """Make golden_loss.json anew."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = made_corpus(Path(folder))
        curves = {dtype: losses(corpus, Path(folder) / dtype, dtype) for dtype in DTYPES}
    made = {
        "made by": "python tests/training/test_golden.py --write",
        "platform": this_platform(),
        "torch": torch.__version__,
    }
    GOLDEN.write_text(
        json.dumps(made | {"tolerance": TOLERANCE, "losses": curves}, indent=1) + "\n",
        encoding="utf-8",
    )


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    write()
