"""fill-mask and feature-extraction: what a model says of a whole text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from ownlm.console import output as out
from ownlm.console.errors import Refused, UsageError
from ownlm.headed import HeadedModel
from ownlm.masked import MaskedModel
from ownlm.model.encoder import Encoder
from ownlm.model.transformer import Transformer
from ownlm.pipelines.base import Pipeline, texts_of


class FillMask(Pipeline):
    """The most probable tokens for a mask: {"score", "token", "token_str", "sequence"} each, best first.

    Of a text with several masks a list for each of them.
    """

    OPTIONS: ClassVar = {"top_k": 5, "targets": None, "tokenizer_kwargs": None}

    def __call__(self, inputs: Any, **options: Any) -> Any:
        found = super().__call__(inputs, **options)
        return found[0] if isinstance(inputs, list) and len(inputs) == 1 else found

    def many(self, values: Sequence[Any], options: Mapping[str, Any]) -> list[Any]:
        if not isinstance(self.model, MaskedModel):
            raise Refused(
                "this model fills no masks.",
                where=self.model.path,
                why="Masked models do, such as BERT and RoBERTa.",
            )
        targets = self._targets(self._value(options, "targets"))
        top_k = min(self._value(options, "top_k"), len(targets or range(self.model.scorer.vocab_size)))
        return [self._filled(text, top_k, targets) for text in texts_of(values)]

    def _filled(self, text: str, top_k: int, targets: Sequence[int] | None) -> Any:
        model = self.model
        assert isinstance(model, MaskedModel)
        masks = model.fill(text, top=model.scorer.vocab_size if targets else top_k).masks
        whole = self.tokenizer.encode_whole(text, specials=True).ids
        places = [place for place, index in enumerate(whole) if index == model.pseudo.mask_id]
        found = []
        for place, mask in zip(places, masks, strict=True):
            chosen = [c for c in mask.candidates if targets is None or c.id in targets][:top_k]
            found.append([self._entry(whole, place, one, len(places) == 1) for one in chosen])
        return found[0] if len(found) == 1 else found

    def _entry(self, whole: Sequence[int], place: int, candidate: Any, alone: bool) -> dict[str, Any]:
        decode = self.tokenizer.backend.decode
        ids = [*whole[:place], candidate.id, *whole[place + 1 :]]
        return {
            "score": candidate.probability,
            "token": candidate.id,
            "token_str": decode([candidate.id], skip_special_tokens=False),
            # With other masks special tokens stay, or these would be gone.
            "sequence": decode(ids, skip_special_tokens=alone),
        }

    def _targets(self, given: Any) -> list[int] | None:
        """Ids of the tokens to choose from: a word that is no token counts as its first one, which is said."""
        if given is None:
            return None
        found: dict[int, None] = {}
        for word in [given] if isinstance(given, str) else list(given):
            index = self.tokenizer.backend.token_to_id(word)
            if index is None:
                ids = self.tokenizer.encode(word).tolist()
                if not ids:
                    out.warn(f'"{word}" is no token and is left out.')
                    continue
                index = ids[0]
                out.warn(
                    f'"{word}" is no token; {self.tokenizer.backend.id_to_token(index)!r} is taken for it.'
                )
            found[index] = None
        if not found:
            raise UsageError("none of them is a token.", where="targets")
        return list(found)


class FeatureExtraction(Pipeline):
    """Hidden states after the last layer, as lists [1][tokens][width] for each text."""

    OPTIONS: ClassVar = {"return_tensors": False, "tokenize_kwargs": None}

    def many(self, values: Sequence[Any], options: Mapping[str, Any]) -> list[Any]:
        tensors = bool(self._value(options, "return_tensors"))
        found = [self._states(text) for text in texts_of(values)]
        return found if tensors else [one.tolist() for one in found]

    @torch.inference_mode()
    def _states(self, text: str) -> torch.Tensor:
        """[1, T, C], float32."""
        model, tokenizer = self.model, self.tokenizer
        whole = isinstance(model, MaskedModel | HeadedModel)
        row = list(tokenizer.encode_whole(text).ids) if whole else tokenizer.encode_prompt(text)
        if len(row) > model.context:
            raise Refused(
                f"the text has {len(row):,} tokens; the window holds {model.context:,}.", where="inputs"
            )
        ids_BT = torch.tensor([row])
        body: Any = getattr(model.model, "backbone", model.model)
        if not isinstance(body, Encoder | Transformer):  # computed by transformers
            inner: Any = body.inner.base_model
            states = inner(input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT))[0]
        else:
            states = body.hidden(ids_BT)
        return states.float().cpu()
