"""token-classification and question-answering: what stands where in a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ownlm.console.errors import UsageError
from ownlm.headed import HeadedModel
from ownlm.pipelines.base import Pipeline, texts_of


class TokenClassification(Pipeline):
    """Entities: {"entity", "score", "index", "word", "start", "end"} each, or grouped ones with "entity_group"."""

    OPTIONS: ClassVar = {
        "aggregation_strategy": "none",
        "grouped_entities": None,
        "ignore_subwords": None,
        "ignore_labels": ["O"],
        "stride": None,
    }

    def many(self, values: Sequence[Any], options: Mapping[str, Any]) -> list[Any]:
        strategy = self._value(options, "aggregation_strategy")
        strategy = str(getattr(strategy, "value", strategy)).lower()
        if self._value(options, "grouped_entities"):
            # As in transformers 4: with ignore_subwords whole words decide.
            strategy = "first" if self._value(options, "ignore_subwords") else "simple"
        ignored = set(self._value(options, "ignore_labels"))
        if "O" not in ignored:
            raise UsageError('"O" is always left out.', where="ignore_labels", do='["O", …]')
        texts = texts_of(values)
        if not isinstance(self.model, HeadedModel):
            return self.model.tag(texts)
        found = self.model.tag(texts, aggregation_strategy=strategy)
        return [
            [one for one in entities if one.get("entity", one.get("entity_group")) not in ignored]
            for entities in found
        ]


class QuestionAnswering(Pipeline):
    """Answers that stand in a context: {"score", "start", "end", "answer"}; with `top_k` above 1 a list of them."""

    OPTIONS: ClassVar = {
        "top_k": 1,
        "topk": None,
        "handle_impossible_answer": False,
        "max_answer_len": 15,
        "doc_stride": None,
        "max_seq_len": None,
        "max_question_len": None,
        "align_to_words": True,
    }

    def __call__(self, inputs: Any = None, *more: Any, **options: Any) -> Any:
        if more or isinstance(options.get("question"), str | list):
            question = options.pop("question", inputs)
            context = options.pop("context", more[0] if more else None)
            inputs = _paired(question, context)
        for name in ("data", "X"):
            inputs = options.pop(name, inputs)
        found = super().__call__(inputs, **options)
        return found[0] if isinstance(inputs, list) and len(inputs) == 1 else found

    def many(self, values: Sequence[Any], options: Mapping[str, Any]) -> list[Any]:
        pairs = [_pair(value) for value in values]
        top_k = self._value(options, "topk") or self._value(options, "top_k")
        if isinstance(self.model, HeadedModel):
            found = self.model.read_all(
                pairs,
                top_k,
                max_answer_len=self._value(options, "max_answer_len"),
                no_answer=bool(self._value(options, "handle_impossible_answer")),
                stride=self._value(options, "doc_stride"),
            )
        else:
            found = self.model.read_all(pairs, top_k)
        keys = ("score", "start", "end", "answer")
        shown = [[{key: one[key] for key in keys} for one in answers] for answers in found]
        return [one[0] for one in shown] if top_k == 1 else shown


def _paired(question: Any, context: Any) -> Any:
    """Questions and contexts as {"question", "context"}; one context may stand for all questions."""
    if isinstance(question, str) and isinstance(context, str):
        return {"question": question, "context": context}
    questions = [question] if isinstance(question, str) else list(question or [])
    contexts = [context] * len(questions) if isinstance(context, str) else list(context or [])
    if len(questions) == 1:
        questions *= len(contexts)
    if len(questions) != len(contexts):
        raise UsageError(
            f"{len(questions)} questions and {len(contexts)} contexts.", where="question, context"
        )
    return [{"question": q, "context": c} for q, c in zip(questions, contexts)]


def _pair(value: Any) -> tuple[str, str]:
    found = (value.get("question"), value.get("context")) if isinstance(value, dict) else (None, None)
    if not isinstance(found[0], str) or not isinstance(found[1], str):
        raise UsageError(
            "a question and a context are needed.", where="inputs", do='question="…", context="…"'
        )
    return found[0], found[1]
