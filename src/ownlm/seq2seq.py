"""Encoder-decoder models for translation and summaries: how each is told what to do, and its own beam search.

transformers computes and searches; what is asked, what is said of it, and the form of the results are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch

from ownlm.console import output as out
from ownlm.console.errors import Refused
from ownlm.foreign import AnsweringModel
from ownlm.foreign_open import silence
from ownlm.seq2seq_settings import SearchSettings, search_settings
from ownlm.seq2seq_sources import Source, Sources
from ownlm.task_methods.fitting import Tally, fitted
from ownlm.tasks.items import Chat, Item, Pair


class Seq2SeqModel(AnsweringModel):
    """An encoder-decoder model, opened for use; `generate` samples from it like from every model.

    `translate` and `summarize` search with the beams, lengths and penalties that the model's own files ask for, one
    text after the other unless `batch_size` says more: so the result does not depend on the texts beside it.
    """

    def __repr__(self) -> str:
        return super().__repr__().replace("LoadedModel", "Seq2SeqModel", 1)

    @property
    def inner(self) -> Any:
        """The model of transformers."""
        return self.model.inner

    @cached_property
    def sources(self) -> Sources:
        """How a text is put for the encoder."""
        return Sources(self.tokenizer, self.path)

    @cached_property
    def _said(self) -> set[str]:
        return set()

    def _write_pairs(
        self, task: str, texts: Sequence[str], languages: tuple[str, str] = ("", ""), **options: Any
    ) -> list[tuple[str, str]]:
        """(text, finish reason) for each source; the best one of `search`."""
        return [answers[0] for answers in self.search(task, texts, languages, **options)]

    def search(
        self,
        task: str,
        texts: Sequence[str],
        languages: tuple[str, str] = ("", ""),
        *,
        max_new_tokens: int | None = None,
        truncate: bool = False,
        tally: Tally | None = None,
        batch_size: int = 1,
        seed: int = 0,
        **options: Any,
    ) -> list[list[tuple[str, str]]]:
        """(text, finish reason) of the best answers to each source, best first.

        Args:
            task: "translation", "summarization" or "completion" (the text as it is).
            languages: codes of source and target, "" where unknown.
            max_new_tokens: None: what the model's own settings say, else 256.
            truncate: cut texts that are too long; else they are refused.
            tally: counts what was cut, to be said later; None: it is said here.
            batch_size: texts that are computed together, padded: the last bits of their scores then differ.
            seed: of the draws, where the settings ask for any.
            options: further fields of `GenerationConfig`, such as num_beams and num_return_sequences.
        """
        source = self.sources.of(task, languages)
        counted = tally or Tally()
        kept = fitted(
            texts,
            lambda _, text: self.sources.ids(source, text),
            self.tokenizer,
            self.context,
            truncate=truncate,
            tally=counted,
        )
        settings = search_settings(self.inner, self.path, source.settings, max_new_tokens, options)
        self._say(source.note, settings.note)
        rows = [self.sources.ids(source, text) for text in kept]
        found: list[list[tuple[str, str]]] = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for first in range(0, len(rows), batch_size):
                found += self._searched(rows[first : first + batch_size], source, settings)
        counted.cut_answers += sum(answers[0][1] == "length" for answers in found)
        if tally is None:
            counted.say()
        return found

    def answer_items(self, task: str, items: Sequence[Item], **options: Any) -> list[dict[str, Any]]:
        """{"text", "finish_reason"} for each row; rows of other languages are answered apart."""
        if any(isinstance(item, Chat) for item in items):
            raise Refused("an encoder-decoder model keeps no conversation.", where=self.path)
        pairs = [item for item in items if isinstance(item, Pair)]
        found: dict[int, tuple[str, str]] = {}
        for languages in dict.fromkeys(pair.languages for pair in pairs):
            mine = [number for number, pair in enumerate(pairs) if pair.languages == languages]
            texts = [pairs[number].source for number in mine]
            found |= dict(zip(mine, self._write_pairs(task, texts, languages, **options), strict=True))
        return [{"text": found[n][0], "finish_reason": found[n][1]} for n in range(len(pairs))]

    @torch.inference_mode()
    def _searched(
        self, rows: Sequence[Sequence[int]], source: Source, settings: SearchSettings
    ) -> list[list[tuple[str, str]]]:
        """The best answers of each row, best first."""
        length = max(map(len, rows))
        pad = self.tokenizer.pad_id
        ids = torch.tensor([[*row, *[pad] * (length - len(row))] for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
        forced = {} if source.first_id is None else {"forced_bos_token_id": source.first_id}
        device = self.inner.device
        with silence():
            sequences = self.inner.generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                generation_config=settings.config,
                **forced,
            )
        answers = [self._answer(row, settings) for row in sequences.tolist()]
        each = len(answers) // len(rows)
        return [answers[first : first + each] for first in range(0, len(answers), each)]

    def _answer(self, row: list[int], settings: SearchSettings) -> tuple[str, str]:
        """The text of a sequence that begins with decoder_start_token_id."""
        generated = row[1:]
        end = next((n for n, index in enumerate(generated) if index in settings.end_ids), None)
        # A forced end at the last place is a cut: the search had to stop there.
        cut = end is None or (end + 1 >= settings.limit and settings.forces_end)
        return self.tokenizer.decode(generated[:end]).strip(), "length" if cut else "stop"

    def _say(self, *notes: str) -> None:
        """What decides the answers beside the text; each note once."""
        for text in notes:
            if text and text not in self._said:
                self._said.add(text)
                out.say(f"{self.path}: {text}")
