"""A model with a task head, ready for use: labels of texts, labels of words, or answers that stand in a text.

It is a `LoadedModel` so that every verb takes it; what would need a model that writes is refused with what it does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch

from ownlm.console import output as out
from ownlm.console.errors import Refused, UsageError
from ownlm.corpus.vocabulary import without_surrogates
from ownlm.headed_inputs import Encoded, HeadInputs, Window
from ownlm.headed_logits import HeadScorer, Logits, chosen_labels, label_scores, predict
from ownlm.headed_refusal import refusal
from ownlm.headed_spans import answers
from ownlm.headed_tags import OUTSIDE, entities, tagged_tokens, token_probabilities
from ownlm.loaded import LoadedModel, read_run
from ownlm.model.head_families import HeadKind

if TYPE_CHECKING:
    from ownlm.continuation import Completion, Piece
    from ownlm.corpus.tokenizer import Tokenizer

Text = str | tuple[str, str]
MAX_ANSWER_LEN = 30  # tokens of an answer, as in the scripts that came with SQuAD models
TASK = {
    "sequence-classification": "classification",
    "token-classification": "ner",
    "question-answering": "qa",
}


LABELS_NO_TEXTS = "does not give a text a label"


class HeadedModel(LoadedModel):
    """A folder with a task head, opened for use.

    Args:
        path: the folder.
        run: what its run.json says; {} for a model from elsewhere.
        tokenizer: text to ids and back.
        scorer: gives the logits.
        device: where it takes its ids.
        max_context: a smaller window than the model was made for.
    """

    def __init__(
        self,
        path: Path,
        run: dict[str, Any],
        tokenizer: Tokenizer,
        scorer: HeadScorer,
        *,
        device: str = "cpu",
        max_context: int | None = None,
    ) -> None:
        self.path, self.run, self.tokenizer, self.scorer, self.device = path, run, tokenizer, scorer, device
        self.max_context, self._said_long = max_context, False
        if tokenizer.vocab_size > scorer.vocab_size:
            raise Refused(
                f"the tokenizer has {tokenizer.vocab_size:,} tokens, the model {scorer.vocab_size:,}.",
                where=path,
                why="They do not belong together.",
            )

    def __repr__(self) -> str:
        return f"HeadedModel({str(self.path)!r}, {self.kind}, context {self.context:,})"

    @property
    def kind(self) -> HeadKind:
        """sequence-classification, token-classification or question-answering."""
        return self.scorer.head_config.kind

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels in the order of the logits."""
        return self.scorer.head_config.labels

    @property
    def model(self) -> Any:
        """The scorer; of a built-in family a `HeadModel`."""
        return self.scorer

    @property
    def context(self) -> int:
        """Tokens of a row at most, what stands around the text included."""
        return min(self.scorer.context, self.max_context or self.scorer.context)

    @property
    def taught(self) -> list[str]:
        """The task, and what run.json says."""
        return [str(what) for what in self.run.get("taught", [TASK[self.kind]])]

    @cached_property
    def inputs(self) -> HeadInputs:
        """How it reads texts."""
        return HeadInputs(self.tokenizer, self.context)

    # ---- labels of texts

    def classify(
        self, texts: str | Sequence[Text], labels: Sequence[str] | None = None, top_k: int | None = 1
    ) -> list[list[dict[str, Any]]]:
        """The labels of texts, most probable first.

        Probabilities add up to one over the labels; where several can be true at the same time (problem_type
        multi_label_classification, or one label) each has its own; of a model that gives a number, the score is it.
        A text that is longer than the window is read through windows, whose log-probabilities are averaged.

        Args:
            texts: a text or several; a pair of texts is a tuple.
            labels: choose among these labels of the model alone; None: all.
            top_k: how many labels of each text; None: all.

        Returns:
            For each text [{"label", "score"}, …].

        Raises:
            UsageError: labels that the model does not have. Refused: a head for something else.
        """
        self._needs("sequence-classification", LABELS_NO_TEXTS)
        chosen = chosen_labels(labels, self.labels)
        logits = self.logits(texts)[:, chosen]
        found = []
        for row in label_scores(logits, self.scorer.head_config):
            order = sorted(range(len(chosen)), key=lambda place: (-row[place], place))[:top_k]
            found.append([{"label": self.labels[chosen[i]], "score": float(row[i])} for i in order])
        return found

    def logits(self, texts: str | Sequence[Text]) -> Logits:
        """Logits [texts, labels]; the mean over its windows for a text that is longer than one."""
        self._needs("sequence-classification", LABELS_NO_TEXTS)
        given: Sequence[Text] = [texts] if isinstance(texts, str) else texts
        windows: list[list[Window]] = []
        for text in given:
            encoded = self.inputs.text(text) if isinstance(text, str) else self._pair(*text)
            windows.append(self._windows(encoded, "The log-probabilities of its windows are averaged."))
        values = self._predict(windows)
        return np.array([np.mean(one, axis=0) for one in values]).reshape(len(given), len(self.labels))

    def _pair(self, first: str, second: str) -> Encoded:
        """Two texts; the longer one is read through windows."""
        return self.inputs.pair(first, second, windowed=int(len(second) >= len(first)))

    # ---- labels of words

    def tag(
        self, texts: str | Sequence[str], aggregation_strategy: str = "none"
    ) -> list[list[dict[str, Any]]]:
        """Entities of texts; what is labelled "O" is left out.

        Args:
            texts: a text or several. One that is longer than the window is read through overlapping windows; a token
                has the label that it gets where it stands farther from an edge.
            aggregation_strategy: none: each token; simple, first, average, max: neighbours as one entity, see
                `headed_tags`.

        Returns:
            For each text [{"entity", "score", "index", "word", "start", "end"}, …], of neighbours
            [{"entity_group", "score", "word", "start", "end"}, …]; start and end are characters of the text.

        Raises:
            UsageError: an unknown strategy. Refused: a head for something else.
        """
        self._needs("token-classification", "does not label words")
        given = [without_surrogates(text) for text in ([texts] if isinstance(texts, str) else texts)]
        encoded = [self.inputs.text(text) for text in given]
        found = []
        for text, one, values in zip(given, encoded, self._tags(encoded)):
            ids = one.ids[one.first : one.last]
            tokens = tagged_tokens(self.tokenizer, text, ids, one.first, one.offsets, values)
            found.append(entities(tokens, self.labels, self.tokenizer, aggregation_strategy))
        return found

    def tag_words(self, texts: Sequence[Sequence[str]]) -> list[list[str]]:
        """The label of each word of texts that are given in words: that of a word's first token, as in training.

        A word that the vocabulary leaves nothing of is "O", or the first label where there is no "O".
        """
        self._needs("token-classification", "does not label words")
        encoded = [self.inputs.words(words) for words in texts]
        nothing = OUTSIDE if OUTSIDE in self.labels else self.labels[0]
        found = []
        for words, one, values in zip(texts, encoded, self._tags(encoded)):
            tags = [nothing] * len(words)
            for word, token in self.inputs.first_tokens(one):
                tags[word] = self.labels[int(values[token].argmax())]
            found.append(tags)
        return found

    def _tags(self, encoded: Sequence[Encoded]) -> list[Logits]:
        """Probabilities [tokens, labels] of each text."""
        how = "A token's label is that of the window in which it stands farther from an edge."
        windows = [self._windows(one, how) for one in encoded]
        return token_probabilities(windows, self._predict(windows), len(self.labels))

    # ---- answers

    def read(self, question: str, context: str, top_k: int = 1, **options: Any) -> list[dict[str, Any]]:
        """The answer to a question as a part of the context; options and result as in `read_all`."""
        return self.read_all([(question, context)], top_k, **options)[0]

    def read_all(
        self,
        pairs: Sequence[tuple[str, str]],
        top_k: int = 1,
        *,
        max_answer_len: int = MAX_ANSWER_LEN,
        no_answer: bool | None = None,
        stride: int | None = None,
    ) -> list[list[dict[str, Any]]]:
        """Answers to questions, each as a part of its context.

        Args:
            pairs: (question, context). A context that is longer than the window is read through overlapping ones.
            top_k: how many answers to each.
            max_answer_len: tokens of an answer at most.
            no_answer: "" counts as an answer, with its own score; None: as run.json says (`no_answer`), else with a
                model that was taught questions here, and not with one from elsewhere.
            stride: tokens by which windows advance; None: half of what one holds.

        Returns:
            For each pair [{"answer", "score", "start", "end"}, …], best first; characters of the context, and of ""
            0 and 0.

        Raises:
            UsageError: an empty question; numbers below 1. Refused: a question that leaves no room for the context, a
                head for something else.
        """
        self._needs("question-answering", "does not answer questions")
        for name, value in (("top_k", top_k), ("max_answer_len", max_answer_len)):
            if value < 1:
                raise UsageError(f"{value}; it must be at least 1.", where=name)
        if any(not question.strip() for question, _ in pairs):
            raise UsageError("the question is empty.", where="question")
        if no_answer is None:
            # Windows without the answer train "not here" in every run of ours.
            no_answer = bool(self.run.get("no_answer", "qa" in self.run.get("taught", [])))
        pairs = [(question, without_surrogates(context)) for question, context in pairs]
        encoded = [self.inputs.pair(question, context) for question, context in pairs]
        windows = [self.inputs.windows(one, stride) for one in encoded]
        values = self._predict(windows)
        limits: dict[str, Any] = {"top_k": top_k, "max_answer_len": max_answer_len, "no_answer": no_answer}
        return [
            answers(context, one, its, logits, **limits)
            for (_, context), one, its, logits in zip(pairs, encoded, windows, values)
        ]

    # ---- the model

    def _predict(self, windows: Sequence[Sequence[Window]]) -> list[list[Logits]]:
        """Logits of the windows of each text."""
        values = iter(predict(self.scorer, [window for one in windows for window in one], self.device))
        return [[next(values) for _ in one] for one in windows]

    def _windows(self, encoded: Encoded, how: str) -> list[Window]:
        found = self.inputs.windows(encoded, where="text")
        if len(found) > 1 and not self._said_long:
            self._said_long = True
            tokens = encoded.last - encoded.first
            out.say(
                f"A text of {tokens:,} tokens is longer than the window of {self.context:,}: it is read through "
                f"{len(found)} overlapping windows. {how} The same holds for other long texts."
            )
        return found

    # ---- what it does not do

    @property
    def engine(self) -> NoReturn:  # type: ignore[override]
        """None: refused with what the model does."""
        self._refuse("does not continue text")

    def complete(self, prompt: Any = "", **options: Any) -> list[Completion]:
        """Refused: there is nothing that continues."""
        self._refuse("does not continue text")

    def stream(self, prompt: Any = "", **options: Any) -> Iterator[Piece]:
        """Refused: there is nothing that continues."""
        self._refuse("does not continue text")

    def chat_stream(self, messages: Any = "", **options: Any) -> Iterator[Piece]:
        """Refused: there is nothing that answers."""
        self._refuse("does not chat")

    def _needs(self, kind: str, otherwise: str) -> None:
        if self.kind != kind:
            self._refuse(otherwise)

    def _refuse(self, what: str) -> NoReturn:
        raise refusal(self.path, self.kind, what)


def load_headed_model(
    path: Path, tokenizer: Tokenizer, *, device: str, dtype: str = "auto", max_context: int | None = None
) -> HeadedModel:
    """Open a folder of a built-in family with a task head.

    Args:
        device: cpu, cuda, mps.
        dtype: float32, bfloat16, or auto: the stored one (float32 on a CPU without bf16 arithmetic).
        max_context: a smaller window than the model was made for.
    """
    from ownlm.engine.torch_backend import chosen_dtype
    from ownlm.model.checkpoint import read_config, stored_dtype
    from ownlm.model.heads_checkpoint import load_headed

    held = chosen_dtype(dtype, stored_dtype(read_config(path)), torch.device(device))
    model = load_headed(path, device=device, dtype=held)
    return HeadedModel(path, read_run(path), tokenizer, model, device=device, max_context=max_context)
