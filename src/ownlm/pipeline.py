"""`pipeline`: the task names, default models and calls of transformers 4, so that course code goes on to run."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from ownlm.console import output as out
from ownlm.console.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from ownlm.loaded import LoadedModel
    from ownlm.pipelines.base import Pipeline

ALIASES = {"sentiment-analysis": "text-classification", "ner": "token-classification"}
# Task → (module, class, name on the hub, revision), as src/transformers/pipelines/__init__.py of transformers 4.57.
TASKS: dict[str, tuple[str, str, str, str]] = {
    "text-classification": ("labels", "TextClassification",
                            "distilbert/distilbert-base-uncased-finetuned-sst-2-english", "714eb0f"),
    "token-classification": ("words", "TokenClassification",
                             "dbmdz/bert-large-cased-finetuned-conll03-english", "4c53496"),
    "question-answering": ("words", "QuestionAnswering", "distilbert/distilbert-base-cased-distilled-squad", "564e9b5"),
    "fill-mask": ("masks", "FillMask", "distilbert/distilroberta-base", "fb53ab8"),
    "feature-extraction": ("masks", "FeatureExtraction", "distilbert/distilbert-base-cased", "6ea8117"),
    "zero-shot-classification": ("labels", "ZeroShotClassification", "facebook/bart-large-mnli", "d7645e1"),
    "summarization": ("texts", "Summarization", "sshleifer/distilbart-cnn-12-6", "a4f8f3e"),
    "translation": ("texts", "Translation", "google-t5/t5-base", "a9723ea"),
    "text2text-generation": ("texts", "TextToText", "google-t5/t5-base", "a9723ea"),
    "text-generation": ("generation", "TextGeneration", "openai-community/gpt2", "607a30d"),
}  # fmt: skip
T5_PAIRS = ("translation_en_to_fr", "translation_en_to_de", "translation_en_to_ro")
_TRANSLATION = re.compile(r"translation_[A-Za-z-]+_to_[A-Za-z-]+")


def pipeline(
    task: str | None = None,
    model: Any = None,
    *,
    tokenizer: Any = None,
    revision: str | None = None,
    device: Any = None,
    dtype: Any = "auto",
    torch_dtype: Any = None,
    framework: str | None = None,
    **options: Any,
) -> Pipeline:
    """A model for a task, called as the pipelines of transformers 4 are; results have their shapes.

    Args:
        task: sentiment-analysis, text-classification, ner, token-classification, question-answering, fill-mask,
            summarization, translation_xx_to_yy, translation, text2text-generation, text-generation,
            zero-shot-classification or feature-extraction.
        model: a run folder, a name on the hub or what `ownlm.load` gave; None: the default model of transformers 4,
            which is said.
        tokenizer: that of the model, which is used anyway; another one is refused.
        revision: of the repository on the hub.
        device: "cpu", "cuda", "cuda:0", "mps", a number (-1: cpu) or a torch.device.
        dtype, torch_dtype: "auto", "float32", "bfloat16" or the torch dtype.
        framework: "pt".
        options: of the task, for every call; those of transformers 4.

    Raises:
        UsageError: an unknown task or option. Refused: a model that cannot do the task.
    """
    if task is None:
        raise UsageError("which task?", where="task", do=f'pipeline("{next(iter(TASKS))}", model=…)')
    if framework not in (None, "pt"):
        raise UsageError(f'there is no framework "{framework}".', where="framework", do='framework="pt"')
    kind = ALIASES.get(task, "translation" if _TRANSLATION.fullmatch(task) else task)
    if kind not in TASKS:
        known = [*TASKS, *ALIASES, "translation_xx_to_yy"]
        raise UsageError(
            f'there is no task "{task}".{did_you_mean(task, known)}',
            where="task",
            why=f"Tasks: {', '.join(known)}.",
        )
    loaded = _loaded(task, kind, model, revision, device, torch_dtype or dtype)
    _check_tokenizer(tokenizer, model)
    module, name = TASKS[kind][:2]
    import importlib

    made: Pipeline = getattr(importlib.import_module(f"ownlm.pipelines.{module}"), name)(
        task, loaded, options
    )
    return made


def _loaded(task: str, kind: str, model: Any, revision: str | None, device: Any, dtype: Any) -> LoadedModel:
    from ownlm.loaded import LoadedModel, load

    if isinstance(model, LoadedModel):
        return model
    if model is None:
        if kind == "translation" and task not in T5_PAIRS:
            raise UsageError(
                f'"{task}" has no default model.',
                where="task",
                why=f"These have: {', '.join(T5_PAIRS)}.",
                do="model=…",
            )
        name, own = TASKS[kind][2:]
        revision = revision or own
        out.say(f"No model was given: {name}, revision {revision}, the default of transformers 4.")
        model = name
    if not isinstance(model, str | os.PathLike):
        raise UsageError(
            f"{type(model).__name__} is not a model of ownlm.",
            where="model",
            do="a folder, a name on the hub, or ownlm.load(…)",
        )
    name = os.fspath(model)
    if revision is not None and "@" not in name:
        name = f"{name}@{revision}"
    return load(name, device=_device(device), dtype=_dtype(dtype))


def _device(device: Any) -> str:
    """A device as `load` names it."""
    if device is None:
        return "auto"
    if isinstance(device, int):
        return "cpu" if device < 0 else "cuda"
    kind = str(device).partition(":")[0]
    if str(device) not in (kind, f"{kind}:0"):
        raise UsageError(f'there is no device "{device}".', where="device", do="cpu, cuda or mps")
    return kind


def _dtype(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.") if dtype is not None else "auto"


def _check_tokenizer(tokenizer: Any, model: Any) -> None:
    """A model has its tokenizer beside it; another one would give other ids."""
    from ownlm.corpus.tokenizer import Tokenizer

    if tokenizer is None or isinstance(tokenizer, Tokenizer):
        return
    if not isinstance(tokenizer, str | os.PathLike) or os.fspath(tokenizer) != str(model):
        raise UsageError(
            "a model is used with the tokenizer in its own folder.", where="tokenizer", do="leave it out"
        )
