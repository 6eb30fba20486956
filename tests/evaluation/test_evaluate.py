"""The figures of `ownlm evaluate`: normalised bytes, and baselines over the same bytes."""

from __future__ import annotations

import gzip
import lzma
import math
from pathlib import Path

import numpy as np
import pytest

import ownlm
from ownlm.console.errors import Refused
from ownlm.corpus.normalise import normalise
from ownlm.corpus.tokenizer import Tokenizer
from ownlm.evaluation.documents import Encoded, encoded
from ownlm.evaluation.evaluate import evaluate_documents
from ownlm.evaluation.scoring import score_documents
from ownlm.model.transformer import Transformer

from .conftest import CONTEXT

# A decomposed accent, line ends of Windows, a form feed: the normalised text has fewer bytes.
TEXTS = ["The fox ru\u0301ns home.\r\nA river.\r\n", "春眠不觉晓\x0c，处处闻啼鸟。\n" * 9, "x"]


def test_figures_and_baselines_are_over_the_same_bytes(model: Transformer, tokenizer: Tokenizer) -> None:
    texts = [normalise(text)[0] for text in TEXTS]
    items = list(encoded(tokenizer, texts))
    found = evaluate_documents(model, iter(items), context=CONTEXT)
    data = "".join(texts).encode()
    assert found["bytes"] == len(data)
    assert found["documents"] == len(texts)
    assert found["tokens"] == sum(len(tokenizer.encode(text)) for text in texts)
    assert found["baselines"] == {
        "gzip -9": 8 * len(gzip.compress(data, 9)) / len(data),
        "xz -9": 8 * len(lzma.compress(data, preset=9)) / len(data),
    }
    scores = score_documents(model, [i.ids for i in items], [len(i.data) for i in items], context=CONTEXT)
    bits = scores.nll.sum() / math.log(2) / len(data)
    assert found["bits_per_byte"]["value"] == pytest.approx(bits, rel=1e-8)
    assert found["perplexity"]["value"] == pytest.approx(math.exp(found["loss"]["value"]))
    assert found["loss"]["value"] * found["tokens"] == pytest.approx(scores.nll.sum())


def test_the_settings_that_were_used_are_in_the_figures(model: Transformer, tokenizer: Tokenizer) -> None:
    items = list(encoded(tokenizer, ["a river runs"] * 25))
    found = evaluate_documents(model, items, context=16, seed=3)
    assert (found["context"], found["stride"], found["dtype"]) == (16, 8, "float32")
    assert found["interval"]["resampled"] == "documents"
    assert found["interval"]["seed"] == 3
    assert evaluate_documents(model, items, context=16, stride=5)["stride"] == 5


def test_another_seed_changes_the_interval_alone(model: Transformer, tokenizer: Tokenizer) -> None:
    items = list(encoded(tokenizer, [f"{n} rivers run" * (n % 7) + "." for n in range(40)]))
    one, same, other = (evaluate_documents(model, items, context=CONTEXT, seed=seed) for seed in (1, 1, 2))
    assert one["bits_per_byte"] == same["bits_per_byte"]
    assert one["bits_per_byte"]["value"] == other["bits_per_byte"]["value"]
    assert one["bits_per_byte"]["low"] != other["bits_per_byte"]["low"]


@pytest.mark.parametrize("items", [[], [Encoded(np.array([0]), b"")]])
def test_no_text_is_refused(model: Transformer, items: list[Encoded]) -> None:
    with pytest.raises(Refused, match="no text to evaluate"):
        evaluate_documents(model, items, context=CONTEXT)


def test_the_verb_counts_the_bytes_of_the_normalised_file(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes("".join(TEXTS).encode())
    found = ownlm.evaluate(run, [str(file)])
    assert found["bytes"] == len(normalise("".join(TEXTS))[0].encode()) < len("".join(TEXTS).encode())
    assert found["documents"] == 1
