"""The task methods that every loaded model has; a causal model does them in words, other models have their own."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from ownlm.console.errors import Refused, UsageError

if TYPE_CHECKING:
    from ownlm.loaded import LoadedModel
    from ownlm.tasks.items import Item


class TaskMethods:
    """Classify, read, translate, summarize: the shapes of results are those of the pipelines of transformers 4."""

    def classify(
        self, texts: str | Sequence[str], labels: Sequence[str] | None = None, top_k: int | None = 1
    ) -> list[list[dict[str, Any]]]:
        """The most probable labels of each text, [{"label", "score"}], best first.

        A causal model weighs how likely each label is after the text; the probabilities sum to one.

        Args:
            labels: to choose from; those that the model was trained on when not given.
            top_k: how many are given; None: all.

        Raises:
            UsageError: no labels are known. Refused: an empty text, or a window that is too small.
        """
        from ownlm.task_methods.labels import classify

        loaded = cast("LoadedModel", self)
        known = loaded.run.get("labels") if labels is None else labels
        if not known:
            raise UsageError(
                "no labels to choose from.",
                where="labels",
                why="The model was not trained on labels.",
                do='--labels "positive,negative"',
            )
        return classify(loaded, _listed(texts), [str(label) for label in known], top_k)

    def tag(self, texts: str | Sequence[str]) -> list[list[dict[str, Any]]]:
        """Entities of each text, [{"entity", "score", "index", "word", "start", "end"}].

        Raises:
            Refused: the model has no head for it.
        """
        loaded = cast("LoadedModel", self)
        raise Refused(
            "this model gives no tags to words.",
            where=loaded.path,
            why="Tagging needs a head, which fine-tuning adds.",
            do=f"ownlm finetune {shlex.quote(str(loaded.path))} DATA --task ner -o RUN",
        )

    def read(self, question: str, context: str, top_k: int = 1) -> list[dict[str, Any]]:
        """The best answers as spans of a context, [{"answer", "score", "start", "end"}], best first.

        "" (start = end = 0) says that the context does not hold it. See `task_methods.reading`.
        """
        return self.read_all([(question, context)], top_k)[0]

    def read_all(self, pairs: Sequence[tuple[str, str]], top_k: int = 1) -> list[list[dict[str, Any]]]:
        """`read` of (question, context) pairs, all at the same time."""
        from ownlm.task_methods.reading import read_all

        return read_all(cast("LoadedModel", self), pairs, top_k)

    def translate(
        self, texts: str | Sequence[str], to: str, from_: str | None = None, **options: Any
    ) -> list[dict[str, str]]:
        """Each text in another language, [{"translation_text"}].

        Args:
            to, from_: ISO 639 codes or English names of languages.
            options: `max_new_tokens`, `truncate`, `tally` (counts what was cut in place of saying it); `temperature`
                and `seed` with a causal model.

        Raises:
            UsageError: an unknown language. Refused: an empty text, or one that does not fit the window.
        """
        from ownlm.task_methods.languages import language_code

        codes = ("" if from_ is None else language_code(from_, "--from"), language_code(to, "--to"))
        written = self._write_pairs("translation", _listed(texts), codes, **options)
        return [{"translation_text": text} for text, _ in written]

    def summarize(self, texts: str | Sequence[str], **options: Any) -> list[dict[str, str]]:
        """A summary of each text, [{"summary_text"}].

        Args:
            options: `max_new_tokens`, `truncate`, `tally` (counts what was cut in place of saying it); `temperature`
                and `seed` with a causal model.

        Raises:
            Refused: an empty text, or one that does not fit the window.
        """
        return [
            {"summary_text": text}
            for text, _ in self._write_pairs("summarization", _listed(texts), **options)
        ]

    def answer_items(self, task: str, items: Sequence[Item], **options: Any) -> list[dict[str, Any]]:
        """{"text", "finish_reason"} for each row of a task whose answers are texts."""
        from ownlm.task_methods.writing import write_items

        return write_items(cast("LoadedModel", self), task, items, **options)

    def _write_pairs(
        self, task: str, texts: Sequence[str], languages: tuple[str, str] = ("", ""), **options: Any
    ) -> list[tuple[str, str]]:
        """(text, finish reason) for each source."""
        from ownlm.task_methods.writing import write_pairs

        return write_pairs(cast("LoadedModel", self), task, texts, languages, **options)


def _listed(texts: str | Sequence[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts)
