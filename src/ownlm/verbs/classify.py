"""`ownlm classify`: a label for every text."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from ownlm.console.settings import verb


@verb
def classify(
    model: Any,
    texts: list[str] = [],  # noqa: B006 - pydantic copies the default
    *,
    labels: list[str] = [],  # noqa: B006
    top_k: int = 1,
    output: Path | None = None,
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16", "int8", "int4"] = "auto",
    json: bool = False,
) -> list[list[dict[str, Any]]]:
    """Give every text a label.

    A TEXT is classified as it is; @file and - (standard input) hold one text a line, a file that ends in .jsonl one
    JSON string or {"text": "…"} a line. Line n of the result belongs to line n of the input: label and probability,
    with a tab between them.

    A model with a head has its labels. Any other one weighs how likely each of --labels is after the text; what it
    prefers whatever the text is, is measured on texts that say nothing and divided out.

    Args:
        model: a run or checkpoint folder, `last` (the newest run below this folder), or a name on the hub.
        texts: what to classify.
        labels: to choose from: "positive,negative", or repeated for labels that hold a comma.
        top_k: how many labels of each text are given, best first.
        output: write the labels into this file as they are found; JSON lines where it ends in .jsonl.
        device: cpu, cuda, mps, or auto.
        dtype: float32, bfloat16, int8, int4 (on a CPU), or auto: as the model is stored.
        json: print or write [{"label": "…", "score": 0.9}] for each text.
    """
    from ownlm.console.errors import UsageError
    from ownlm.loaded import load
    from ownlm.verbs._lines import Job, lines_of, work
    from ownlm.verbs._measured import say_measured

    if top_k < 1:
        raise UsageError(f"{top_k} labels; it must be at least 1.", where="--top-k")
    split = labels[0].split(",") if len(labels) == 1 else labels
    named = [label.strip() for label in split] or None
    lines = lines_of(texts, ("text", "sentence"))
    loaded = load(model, device=device, dtype=dtype)
    say_measured(loaded, "classification")
    job = Job(lambda batch: loaded.classify(batch, named, top_k), _shown, [])
    return work(lines, job, output=output, json=json)


def _shown(found: list[dict[str, Any]]) -> str:
    return "\t".join(f"{one['label']}\t{one['score']:.4f}" for one in found)
