"""translation, summarization and text2text-generation: texts for texts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ownlm.console.errors import UsageError
from ownlm.pipelines.base import Pipeline, texts_of
from ownlm.seq2seq import Seq2SeqModel

# Fields of GenerationConfig that courses use; with an encoder-decoder model they are its search.
SEARCH = {
    "max_length": None, "min_length": None, "max_new_tokens": None, "min_new_tokens": None, "num_beams": None,
    "length_penalty": None, "early_stopping": None, "no_repeat_ngram_size": None, "repetition_penalty": None,
    "do_sample": None, "temperature": None, "top_k": None, "top_p": None, "num_return_sequences": None,
}  # fmt: skip
_TASK = re.compile(r"translation_([A-Za-z-]+)_to_([A-Za-z-]+)")


class TextToText(Pipeline):
    """{"generated_text"}, {"summary_text"} or {"translation_text"} for each text.

    With an encoder-decoder model the options are those of its search; a causal model is asked in words and takes
    `max_new_tokens` and `temperature`. Texts that do not fit the window are cut when `truncation` is set, else refused.
    """

    OPTIONS: ClassVar = {
        **SEARCH,
        "src_lang": None,
        "tgt_lang": None,
        "truncation": None,
        "batch_size": 1,
        "prefix": "",
    }
    KEY: ClassVar = "generated_text"
    KIND: ClassVar = "completion"

    def __call__(self, inputs: Any, **options: Any) -> Any:
        found = super().__call__(inputs, **options)
        if isinstance(inputs, list):  # one answer to each text: a flat list
            return [one[0] for one in found] if all(len(one) == 1 for one in found) else found
        return found

    def _checked(self, options: Mapping[str, Any]) -> dict[str, Any]:
        cut = {"truncation": options["truncation"]} if options.get("truncation") not in (None, False) else {}
        return super()._checked(options) | cut

    def many(self, values: Sequence[Any], options: Mapping[str, Any]) -> list[Any]:
        texts = [str(self._value(options, "prefix") or "") + text for text in texts_of(values)]
        search = {name: options[name] for name in SEARCH if options.get(name) is not None}
        cut = bool(options.get("truncation"))
        languages = self._languages(options)
        if isinstance(self.model, Seq2SeqModel):
            size = int(self._value(options, "batch_size") or 1)
            found = self.model.search(self.KIND, texts, languages, truncate=cut, batch_size=size, **search)
        else:
            found = [[one] for one in self._asked(texts, languages, cut, search)]
        return [[{self.KEY: text} for text, _ in answers] for answers in found]

    def _asked(
        self, texts: Sequence[str], languages: tuple[str, str], cut: bool, search: dict[str, Any]
    ) -> list[tuple[str, str]]:
        """A causal model."""
        known = {name: search.pop(name) for name in ("max_new_tokens", "temperature") if name in search}
        if search:
            raise UsageError(
                "is for the search of an encoder-decoder model.",
                where=next(iter(search)),
                do="max_new_tokens and temperature",
            )
        return self.model._write_pairs(self.KIND, texts, languages, truncate=cut, **known)

    def _languages(self, options: Mapping[str, Any]) -> tuple[str, str]:
        return "", ""


class Summarization(TextToText):
    """{"summary_text"} for each text."""

    KEY, KIND = "summary_text", "summarization"


class Translation(TextToText):
    """{"translation_text"} for each text; languages are those of the task's name, or `src_lang` and `tgt_lang`."""

    KEY, KIND = "translation_text", "translation"

    def _languages(self, options: Mapping[str, Any]) -> tuple[str, str]:
        named = _TASK.fullmatch(self.task)
        from_, to = (named[1], named[2]) if named else ("", "")
        return options.get("src_lang") or from_, options.get("tgt_lang") or to
