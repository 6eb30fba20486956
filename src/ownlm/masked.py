"""A masked model ready for use: it fills masks and scores texts, behind the names of `LoadedModel`.

It reads a whole text at once and cannot continue one; what would need that is refused with what it does instead.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from ownlm.console.errors import Refused, UsageError
from ownlm.evaluation.pseudo import MaskedScorer, PseudoLikelihood
from ownlm.filling import Filled, Mask, Spelling
from ownlm.loaded import LoadedModel, read_run

if TYPE_CHECKING:
    from ownlm.continuation import Completion, Piece, Prompt
    from ownlm.corpus.tokenizer import Tokenizer

MASKS = ("[MASK]", "<mask>")  # BERT's and RoBERTa's, when tokenizer_config.json names none
CANDIDATES = 5  # as in transformers' fill-mask


class MaskedModel(LoadedModel):
    """A folder with a masked model, opened for use.

    It is a `LoadedModel` so that every verb takes it; `engine` refuses, because a masked model has none.

    Args:
        path: the folder.
        run: what its run.json says; {} for a model from elsewhere.
        tokenizer: text to ids and back.
        scorer: gives logits of every place.
        device: where it takes its ids.
        max_context: a smaller window than the model was made for.
    """

    def __init__(
        self,
        path: Path,
        run: dict[str, Any],
        tokenizer: Tokenizer,
        scorer: MaskedScorer,
        *,
        device: str = "cpu",
        max_context: int | None = None,
    ) -> None:
        self.path, self.run, self.tokenizer, self.scorer, self.device = path, run, tokenizer, scorer, device
        self.max_context = max_context
        if tokenizer.vocab_size > scorer.vocab_size:
            raise Refused(
                f"the tokenizer has {tokenizer.vocab_size:,} tokens, the model {scorer.vocab_size:,}.",
                where=path,
                why="They do not belong together.",
            )

    def __repr__(self) -> str:
        return f"MaskedModel({str(self.path)!r}, context {self.context:,})"

    @property
    def model(self) -> Any:
        """The scorer; of BERT, RoBERTa and DistilBERT an `Encoder`, with `hidden` and `logits`."""
        return self.scorer

    @property
    def engine(self) -> NoReturn:  # type: ignore[override]
        """None: refused with what the model does."""
        self._refuse("a masked model does not continue text.")

    @property
    def context(self) -> int:
        """Tokens of a text at most, what stands around it ([CLS] … [SEP]) included."""
        return min(self.scorer.context, self.max_context or self.scorer.context)

    @property
    def taught(self) -> list[str]:
        """What the model does."""
        return ["fills masks"]

    @cached_property
    def mask_token(self) -> str:
        """The token that stands for a gap, as it is typed."""
        return mask_token(self.tokenizer, self.path)

    @cached_property
    def pseudo(self) -> PseudoLikelihood:
        """Scores texts by masking each token in turn."""
        to_id = self.tokenizer.backend.token_to_id
        named = self.tokenizer.spec["model"].get("unk_token") or self.tokenizer.config.get("unk_token")
        unknown = named.get("content") if isinstance(named, dict) else named
        mask_id = to_id(self.mask_token)
        assert mask_id is not None  # mask_token looked it up
        return PseudoLikelihood(
            self.scorer,
            self.tokenizer,
            self.context,
            self.device,
            mask_id=mask_id,
            unknown_id=to_id(unknown) if unknown else None,
        )

    # ---- masks

    def generate(
        self, prompt: str | Sequence[str] = "", *, completion_only: bool = False, **options: Any
    ) -> str | list[str]:
        """Fill every mask of a text with its most probable token; a list of texts for several.

        Raises:
            UsageError: a text without a mask, or an option of sampling: none has an effect here.
        """
        if completion_only or options:
            name = "completion_only" if completion_only else next(iter(options))
            raise UsageError(
                "has no effect with a masked model: each mask gets its most probable token.", where=name
            )
        texts = [self.fill(text, top=1).text for text in ([prompt] if isinstance(prompt, str) else prompt)]
        return texts[0] if isinstance(prompt, str) else texts

    def fill(self, text: str, top: int = CANDIDATES) -> Filled:
        """The most probable tokens of each mask of a text.

        Args:
            text: with the tokenizer's mask token ("[MASK]", "<mask>") at each gap. Other special tokens that it
                spells are honoured too, as in transformers.
            top: candidates of each mask.

        Raises:
            UsageError: no mask, or `top` below 1. Refused: the text does not fit the window.
        """
        if top < 1:
            raise UsageError(f"{top} candidates; it must be at least 1.", where="top")
        whole = self.pseudo.whole(text, specials=True)
        places = (whole.ids == self.pseudo.mask_id).nonzero()[0]
        if not len(places):
            raise UsageError(
                f"there is no {self.mask_token} in {text[:40]!r}.",
                where="prompt",
                why="A masked model fills gaps; it does not continue text.",
                do=self._example,
            )
        row = [*whole.prefix, *whole.ids.tolist(), *whole.suffix]
        if len(row) > self.context:
            raise Refused(
                f"the text has {len(whole.ids):,} tokens; the window holds {self.context:,}, "
                f"{len(row) - len(whole.ids)} around the text included.",
                where="prompt",
                do=f"a text of at most {self.context - len(row) + len(whole.ids):,} tokens",
            )
        columns = torch.from_numpy(places) + len(whole.prefix)
        with torch.inference_mode():
            logits = self.pseudo.logits_at(torch.tensor([row]), torch.zeros_like(columns), columns)
            best = logits.float().softmax(-1).topk(min(top, logits.shape[-1]), dim=-1)
        found = []
        for place, ids, probabilities in zip(places.tolist(), best.indices.tolist(), best.values.tolist()):
            start, end = whole.offsets[place]
            at = whole.text.find(self.mask_token, start, end)
            if at >= 0:  # a mask token may take spaces beside it with it
                start, end = at, at + len(self.mask_token)
            candidates = [self.spelling.candidate(index, p) for index, p in zip(ids, probabilities)]
            found.append(Mask(start, end, candidates))
        return Filled(text, self.spelling.put_in(whole.text, found), found)

    @cached_property
    def spelling(self) -> Spelling:
        """How tokens become text in place of a mask."""
        return Spelling(self.tokenizer, self.mask_token)

    # ---- what it does not do

    def complete(self, prompt: str | Sequence[str] = "", **options: Any) -> list[Completion]:
        """Refused: there is nothing that continues."""
        self._refuse("a masked model does not continue text.")

    def stream(self, prompt: str | Prompt | Sequence[str | Prompt] = "", **options: Any) -> Iterator[Piece]:
        """Refused: there is nothing that continues."""
        self._refuse("a masked model does not continue text.")

    @property
    def _example(self) -> str:
        return shlex.join(["ownlm", "generate", str(self.path), f"The river runs to the {self.mask_token}."])

    def _refuse(self, what: str) -> NoReturn:
        raise Refused(
            what,
            where=self.path,
            why="It fills masks, from what stands before and after them.",
            do=self._example,
        )


def mask_token(tokenizer: Tokenizer, where: Path) -> str:
    """The token that stands for a gap, as it is typed.

    Raises:
        Refused: the tokenizer has none.
    """
    named = tokenizer.config.get("mask_token")
    for token in (named.get("content") if isinstance(named, dict) else named, *MASKS):
        if token and tokenizer.backend.token_to_id(token) is not None:
            return str(token)
    raise Refused(
        "the tokenizer has no mask token.",
        where=where,
        why="Without one a masked model cannot be asked.",
        do='name it in tokenizer_config.json: {"mask_token": "..."}',
    )


def load_masked(
    path: Path, tokenizer: Tokenizer, *, device: str, dtype: str = "auto", max_context: int | None = None
) -> MaskedModel:
    """Open a folder with BERT, RoBERTa or DistilBERT.

    Args:
        device: cpu, cuda, mps.
        dtype: float32, bfloat16, or auto: the stored one (float32 on a CPU without bf16 arithmetic).
    """
    from ownlm.engine.torch_backend import chosen_dtype
    from ownlm.model.checkpoint import read_config, stored_dtype
    from ownlm.model.encoder_checkpoint import load_encoder

    held = chosen_dtype(dtype, stored_dtype(read_config(path)), torch.device(device))
    encoder = load_encoder(path, device=device, dtype=held)
    return MaskedModel(path, read_run(path), tokenizer, encoder, device=device, max_context=max_context)
