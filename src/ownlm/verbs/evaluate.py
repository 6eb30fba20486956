"""`ownlm evaluate`: how well a model predicts text."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from ownlm.console import output as out
from ownlm.console.errors import UsageError
from ownlm.console.settings import verb
from ownlm.verbs._figures import baselines, interval, text_line, window_line

if TYPE_CHECKING:
    from ownlm.evaluation.documents import Encoded
    from ownlm.loaded import LoadedModel


@verb
def evaluate(
    model: Any,
    texts: list[str] = [],  # noqa: B006 - pydantic copies the default
    *,
    stride: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    dtype: Literal["float32", "bfloat16"] = "float32",
    device: str = "auto",
    json: bool = False,
) -> dict[str, Any]:
    """Loss, perplexity and bits per byte of text the model has not seen.

    Without TEXT it reads the held-out split of the corpus that the run was trained on. TEXT: files and
    folders (@file, too), - for standard input, or the text itself. Bits per byte compare models with
    different tokenizers; loss and perplexity count tokens and do not. Each figure has a 95 % interval
    (documents, or with fewer than 20 of them blocks of 256 tokens, are drawn again with replacement) and
    stands beside what gzip -9 and xz -9 make of the same text in one piece. The figures of a masked model are
    called pseudo and compare with those of masked models only.

    Args:
        model: a run or checkpoint folder, `last` (the newest run below this folder), or a name on the hub.
        texts: what to evaluate on.
        stride: tokens that the window advances over a long document; half of the context when not given.
        batch_size: windows computed at once; changes speed and memory, not the figures.
        seed: of the intervals.
        dtype: bfloat16 products are quicker and change figures in the third digit.
        device: cpu, cuda, mps, or auto.
        json: print the figures as JSON.
    """
    from ownlm.loaded import load

    if batch_size is not None and batch_size < 1:
        raise UsageError(f"{batch_size} windows at once; it must be at least 1.", where="--batch-size")
    loaded = load(
        model, device=device, dtype="float32", backend="torch"
    )  # loads torch only when there is such a model
    from ownlm.evaluation.evaluate import evaluate_documents
    from ownlm.machine.device import choose_dtype
    from ownlm.masked import MaskedModel

    if isinstance(loaded, MaskedModel):
        from ownlm.verbs import _masked

        return _masked.evaluate(
            loaded, texts, stride=stride, batch_size=batch_size, seed=seed, dtype=dtype, json=json
        )
    choose_dtype(dtype, str(loaded.engine.backend.device))
    what, documents, size = _documents(loaded, texts)
    figures = evaluate_documents(
        loaded.model,
        documents,
        context=loaded.context,
        stride=stride,
        batch_size=batch_size,
        seed=seed,
        autocast=dtype == "bfloat16",
        total_bytes=size,
    )
    found = {"model": str(loaded.path), "text": what, **figures}
    if out.from_cli():
        if json:
            out.result_json(found)
        else:
            _show(found)
            path = shlex.quote(str(loaded.path))
            out.next_commands(f"ownlm score {path} @FILE", f"ownlm generate {path} PROMPT")
    return found


def _documents(loaded: LoadedModel, texts: list[str]) -> tuple[str, Iterable[Encoded], int | None]:
    """(what is read, in words; the documents; their bytes when known)."""
    from ownlm.evaluation.documents import encoded, held_out, run_corpus
    from ownlm.verbs._arguments import given_texts

    if not texts:
        corpus = run_corpus(loaded.run, loaded.path)
        split = corpus.split("validation")
        return f"held-out split of {corpus.path}", held_out(split), split.num_bytes
    what, given = given_texts(texts)
    return what, encoded(loaded.tokenizer, given), None


def _show(found: dict[str, Any]) -> None:
    """The figures as lines: each beside its baselines."""
    out.say(text_line(found))
    out.result(f"bits per byte  {interval(found, 'bits_per_byte')}   beside {baselines(found)}")
    out.result(f"loss           {interval(found, 'loss')}   nats a token")
    out.result(f"perplexity     {interval(found, 'perplexity')}   a token")
    out.say(window_line(found))
