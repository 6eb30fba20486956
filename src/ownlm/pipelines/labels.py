"""text-classification and zero-shot-classification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from ownlm.console.errors import Refused, UsageError
from ownlm.headed import HeadedModel
from ownlm.headed_logits import softmax
from ownlm.pipelines.base import Pipeline, texts_of


class TextClassification(Pipeline):
    """Labels of texts: {"label", "score"}; with `top_k` or `return_all_scores` a list of them for each text.

    `labels` names what a model without a head chooses from.
    """

    OPTIONS: ClassVar = {"top_k": None, "return_all_scores": None, "function_to_apply": None, "labels": None}

    def __call__(self, inputs: Any, **options: Any) -> Any:
        found = super().__call__(inputs, **options)
        # As in transformers: without top_k in the call a single text gives a list of one result.
        return [found] if isinstance(inputs, str) and "top_k" not in options else found

    def many(self, values: Sequence[Any], options: Mapping[str, Any]) -> list[Any]:
        every = self._value(options, "return_all_scores")
        given = "top_k" in options
        top_k = options["top_k"] if given else None if every else 1
        texts = [_text_or_pair(value) for value in values]
        if top_k is not None and top_k < 1:
            raise UsageError(f"{top_k} labels; it must be at least 1.", where="top_k")
        found = self._scored(texts, options)
        if every and not given:  # in the order of the labels
            return found
        ranked = [sorted(one, key=lambda entry: -entry["score"])[:top_k] for one in found]
        return ranked if given else [one[0] for one in ranked]

    def _scored(self, texts: Sequence[Any], options: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
        """Every label of each text; of a head in its order."""
        if not isinstance(self.model, HeadedModel):
            found: list[list[dict[str, Any]]] = self.model.classify(
                texts_of(texts), options.get("labels"), top_k=None
            )
            return found
        function = self._value(options, "function_to_apply")
        if function is None:
            order = {label: place for place, label in enumerate(self.model.labels)}
            scored = self.model.classify(texts, top_k=None)
            return [sorted(one, key=lambda entry: order[entry["label"]]) for one in scored]
        scores = _applied(str(getattr(function, "value", function)), self.model.logits(texts))
        return [
            [{"label": label, "score": float(score)} for label, score in zip(self.model.labels, row)]
            for row in scores
        ]


def _text_or_pair(value: Any) -> str | tuple[str, str]:
    """A text, or {"text", "text_pair"}."""
    if isinstance(value, dict) and isinstance(value.get("text"), str):
        pair = value.get("text_pair")
        return value["text"] if pair is None else (value["text"], str(pair))
    if isinstance(value, str):
        return value
    raise UsageError(
        f"{str(value)[:60]} is no text.", where="inputs", do='"…" or {"text": "…", "text_pair": "…"}'
    )


def _applied(function: str, logits: Any) -> Any:
    if function == "softmax":
        return softmax(logits)
    if function == "sigmoid":
        return 1 / (1 + np.exp(-logits))
    if function == "none":
        return logits
    raise UsageError(
        f'there is no function "{function}".', where="function_to_apply", do="softmax, sigmoid or none"
    )


class ZeroShotClassification(Pipeline):
    """Any labels for texts: {"sequence", "labels", "scores"}, best first.

    A model for natural language inference says how far a text entails "This example is LABEL."; another one weighs
    how likely each label is after the text (`LoadedModel.classify`).
    """

    OPTIONS: ClassVar = {
        "candidate_labels": None,
        "hypothesis_template": "This example is {}.",
        "multi_label": False,
        "multi_class": False,
    }

    def __call__(self, inputs: Any, candidate_labels: Any = None, **options: Any) -> Any:
        if candidate_labels is not None:
            options["candidate_labels"] = candidate_labels
        found = super().__call__(inputs, **options)
        return found[0] if isinstance(inputs, list) and len(inputs) == 1 else found

    def many(self, values: Sequence[Any], options: Mapping[str, Any]) -> list[Any]:
        given = self._value(options, "candidate_labels")
        labels = (
            [label.strip() for label in given.split(",")] if isinstance(given, str) else list(given or [])
        )
        if not labels or not all(labels):
            raise UsageError("at least one label is needed.", where="candidate_labels", do='["good", "bad"]')
        texts = texts_of(values)
        multiple = bool(self._value(options, "multi_label") or self._value(options, "multi_class"))
        if isinstance(self.model, HeadedModel):
            template = str(self._value(options, "hypothesis_template"))
            scores = [self._entailed(text, labels, template, multiple) for text in texts]
            return [_ordered(text, labels, row.tolist()) for text, row in zip(texts, scores)]
        if multiple:
            raise UsageError(
                "a model without a head shares one probability among the labels.",
                where="multi_label",
                do="a model for natural language inference, such as facebook/bart-large-mnli",
            )
        found = self.model.classify(texts, labels, top_k=None)
        return [
            {"sequence": text, "labels": [e["label"] for e in one], "scores": [e["score"] for e in one]}
            for text, one in zip(texts, found)
        ]

    def _entailed(self, text: str, labels: Sequence[str], template: str, multiple: bool) -> Any:
        """The score of each label for one text (Yin et al. 2019, arXiv 1909.00161)."""
        model = self.model
        assert isinstance(model, HeadedModel)
        if template.format("1") == template:
            raise UsageError(
                f'"{template}" has no place for a label.', where="hypothesis_template", do='"It is {}."'
            )
        yes = next((n for n, name in enumerate(model.labels) if name.lower().startswith("entail")), None)
        if yes is None or len(model.labels) < 2:
            raise Refused(
                f"no label of it means entailment: {', '.join(model.labels[:8])}.",
                where=model.path,
                why="Zero-shot classification asks whether a text entails a sentence with the label.",
                do="a model for natural language inference, such as facebook/bart-large-mnli",
            )
        logits = model.logits([(text, template.format(label)) for label in labels])
        no = len(model.labels) - 1 if yes == 0 else 0
        if multiple or len(labels) == 1:
            return softmax(logits[:, [no, yes]])[:, 1]
        return softmax(logits[:, yes][None])[0]


def _ordered(text: str, labels: Sequence[str], scores: Sequence[float]) -> dict[str, Any]:
    order = sorted(range(len(labels)), key=lambda n: (-scores[n], n))
    return {"sequence": text, "labels": [labels[n] for n in order], "scores": [scores[n] for n in order]}
