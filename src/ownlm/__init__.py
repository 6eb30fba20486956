"""ownlm: from raw text to a language model you own.

    import ownlm
    corpus = ownlm.prepare("my_texts/", output="corpus")
    run = ownlm.pretrain(corpus, output="run", minutes=5)
    model = ownlm.load(run)
    print(model.generate("Once upon", max_length=100, temperature=0.7))

Names and defaults are those of the command line. Nothing heavy is imported before it is used.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ownlm.console.errors import Interrupted, OwnlmError, Refused, UsageError

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ownlm.loaded import load
    from ownlm.pipeline import pipeline
    from ownlm.verbs.answer import answer
    from ownlm.verbs.bench import bench
    from ownlm.verbs.chat import chat
    from ownlm.verbs.classify import classify
    from ownlm.verbs.data import data
    from ownlm.verbs.doctor import doctor
    from ownlm.verbs.evaluate import evaluate
    from ownlm.verbs.export import export
    from ownlm.verbs.finetune import finetune
    from ownlm.verbs.generate import generate
    from ownlm.verbs.prepare import prepare
    from ownlm.verbs.pretrain import pretrain
    from ownlm.verbs.pull import pull
    from ownlm.verbs.quickstart import quickstart
    from ownlm.verbs.runs import runs
    from ownlm.verbs.score import score
    from ownlm.verbs.serve import serve
    from ownlm.verbs.summarize import summarize
    from ownlm.verbs.translate import translate

__all__ = [
    "Interrupted",
    "OwnlmError",
    "Refused",
    "UsageError",
    "__version__",
    "answer",
    "bench",
    "chat",
    "classify",
    "data",
    "doctor",
    "evaluate",
    "export",
    "finetune",
    "generate",
    "load",
    "pipeline",
    "prepare",
    "pretrain",
    "pull",
    "quickstart",
    "runs",
    "score",
    "serve",
    "summarize",
    "translate",
]


def __getattr__(name: str) -> Any:
    from ownlm.verbs import VERBS, load_verb

    if name == "load":
        from ownlm.loaded import load

        return load
    if name == "pipeline":
        from ownlm.pipeline import pipeline

        return pipeline
    if name in VERBS:
        return load_verb(name)
    raise AttributeError(f"module 'ownlm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """Importing the folder `ownlm.export` must not put a module in the place of the verb `ownlm.export`."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
