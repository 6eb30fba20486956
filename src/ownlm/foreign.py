"""Models that are not built in, opened with the library transformers (extra `transformers`) behind our interface.

Its classes compute logits; texts, sampling, seeds, scores and figures are ours. What comes from elsewhere is looked
at before the library sees it: no Python code of a model's folder, no pickles, nothing from the network.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ownlm.console import output as out
from ownlm.console.errors import Refused, UsageError
from ownlm.continuation import Piece, Prompt
from ownlm.engine.engine import Engine
from ownlm.engine.foreign_backend import ForeignBackend
from ownlm.engine.foreign_model import ForeignCausal, ForeignModel, ForeignSeq2Seq
from ownlm.engine.torch_backend import chosen_dtype
from ownlm.foreign_open import (
    MASKED,
    SEQ2SEQ,
    answer_prefix,
    kind_of,
    open_model,
    positions,
    refuse_code,
    silence,
    window,
)
from ownlm.loaded import LoadedModel, read_run
from ownlm.model.checkpoint import read_config, stored_dtype
from ownlm.model.fields import NotNative
from ownlm.model.head_families import KINDS
from ownlm.model.stored import StoredWeights

if TYPE_CHECKING:
    from ownlm.corpus.tokenizer import Tokenizer
    from ownlm.engine.requests import SamplingSettings


class AnsweringModel(LoadedModel):
    """An encoder-decoder model: the encoder reads the prompt, the completion is the decoder's own text."""

    answers_alone = True

    def stream(self, prompt: str | Prompt | Sequence[str | Prompt] = "", **options: Any) -> Iterator[Piece]:
        """Yield text as it becomes certain; see `LoadedModel.generate`.

        The answer begins a text, so the space that sentencepiece puts before a first word is left out.
        """
        pieces = super().stream(prompt, **options)
        return _without_first_space(pieces, self.tokenizer.leading_spaces_stripped)

    def _prompt(self, text: str, settings: SamplingSettings) -> Prompt:
        """What the encoder reads: the text with what the tokenizer puts around it."""
        ids = self.tokenizer.encode_whole(text).ids
        if len(ids) >= self.context:
            raise Refused(
                f"the prompt has {len(ids):,} tokens; the encoder's window holds {self.context:,}.",
                where="prompt",
                do=f"a prompt of at most {self.context - 1:,} tokens",
            )
        if settings.max_length is not None and settings.max_length <= len(ids):
            raise UsageError(
                f"the prompt has {len(ids):,} tokens already.",
                where="--max-length",
                why="It counts prompt and answer together.",
                do="--max-new-tokens 100",
            )
        return Prompt(text, ids)


def _without_first_space(pieces: Iterator[Piece], spaces: int) -> Iterator[Piece]:
    """Pieces of answers without up to `spaces` spaces at the start of each answer, in the completions too."""
    begun: set[tuple[int, int]] = set()
    for piece in pieces:
        key, text, completion = (piece.prompt, piece.index), piece.text, piece.completion
        if key not in begun:
            text = _stripped(text, spaces)
            if piece.text:
                begun.add(key)
        if completion is not None:
            completion = replace(completion, text=_stripped(completion.text, spaces))
        yield Piece(*key, text, completion)


def _stripped(text: str, spaces: int) -> str:
    return text[min(spaces, len(text) - len(text.lstrip(" "))) :]


class ForeignMasked:
    """A masked model as `ownlm.masked.MaskedModel` takes it: logits of every place.

    Args:
        inner: the model of transformers, in eval mode.
        context: tokens of a text, what stands around it included.
    """

    def __init__(self, inner: Any, context: int) -> None:
        self.inner, self.context = inner, context
        self.device = inner.get_input_embeddings().weight.device
        ids = torch.zeros(1, 1, dtype=torch.long)
        self.vocab_size = self.logits(ids, torch.ones_like(ids, dtype=torch.bool)).shape[-1]

    @torch.inference_mode()
    def logits(self, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Logits [B, T, V]; `mask_BT` is true where a token stands, false where a row was padded."""
        mask = mask_BT.to(self.device, torch.long)
        logits: Tensor = self.inner(input_ids=ids_BT.to(self.device), attention_mask=mask).logits
        return logits


def load_foreign(
    path: Path,
    tokenizer: Tokenizer,
    refusal: NotNative,
    *,
    device: str,
    dtype: str = "auto",
    max_context: int | None = None,
) -> LoadedModel:
    """Open a folder with transformers and say so in one line.

    Args:
        refusal: why the model is not built in; raised as it is where transformers is not installed.
        device: cpu, cuda, mps.
        dtype: float32, bfloat16, or auto: the stored one (float32 on a CPU without bf16 arithmetic).
        max_context: a smaller window than the model was made for.

    Raises:
        Refused: the folder wants its own code to run, holds no safetensors, or transformers cannot open it.
    """
    if importlib.util.find_spec("transformers") is None:
        raise refusal
    import transformers

    content = read_config(path)
    refuse_code(content, path / "config.json")
    kind = kind_of(content, path / "config.json")
    with StoredWeights(path):
        pass  # pickles, damaged files and links out of the folder are refused here
    held = chosen_dtype(dtype, stored_dtype(content), torch.device(device))
    with silence():
        inner = open_model(path, kind, held, device)
        context, notes = window(inner.config, tokenizer, kind, max_context)
        loaded = _wrapped(path, tokenizer, kind, inner, context, device)
    if kind not in (MASKED, *KINDS) and loaded.model.cache_name is None:
        notes += " It keeps nothing of the tokens it has read: each new one costs as much as the whole text."
    name, version = type(inner).__name__, transformers.__version__
    out.say(f"{path}: {refusal.what} {name} is run by transformers {version}.{notes}")
    return loaded


def _wrapped(
    path: Path, tokenizer: Tokenizer, kind: str, inner: Any, context: int, device: str
) -> LoadedModel:
    """A model of transformers behind the interface of its kind."""
    run = read_run(path)
    if kind in KINDS:
        from ownlm.foreign_headed import ForeignHead
        from ownlm.headed import HeadedModel

        head = ForeignHead(inner, kind, min(context, positions(inner) or context), tokenizer, path)
        return HeadedModel(path, run, tokenizer, head, device=device)
    if kind == MASKED:
        from ownlm.masked import MaskedModel

        scorer = ForeignMasked(inner, min(context, positions(inner) or context))
        return MaskedModel(path, run, tokenizer, scorer, device=device)
    model: ForeignModel
    if kind == SEQ2SEQ:
        model = ForeignSeq2Seq(inner, context, path, answer_prefix(inner, path))
    else:
        model = ForeignCausal(inner, context, path)
    if tokenizer.vocab_size > model.vocab_size:
        raise Refused(
            f"the tokenizer has {tokenizer.vocab_size:,} tokens, the model {model.vocab_size:,}.",
            where=path,
            why="They do not belong together.",
        )
    engine = Engine(ForeignBackend(model))
    if kind == SEQ2SEQ:
        from ownlm.seq2seq import Seq2SeqModel

        return Seq2SeqModel(
            path, {"taught": ["answers a prompt with a text of its own"]} | run, tokenizer, engine
        )
    return LoadedModel(path, run, tokenizer, engine)
