"""The causal Transformer: token ids in, logits out. B batch, T tokens, C width, V vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ownlm.model.attention import Attention, position_mask, texts_mask, window_mask
from ownlm.model.cache import KeyValueCache
from ownlm.model.config import ModelConfig
from ownlm.model.int8 import Int8Matrix
from ownlm.model.layers import MLP, Embedding, Linear, Norm, rotary_tables
from ownlm.model.recomputed import recomputed


class Block(nn.Module):
    """Attention and MLP, each added to the residual stream, norms before them or on their output."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attention = Attention(config, layer)
        self.mlp = MLP(config)
        self.attention_norm = Norm(config, config.hidden_size)
        self.mlp_norm = Norm(config, config.hidden_size)
        self.before = config.norm_placement == "before"

    def forward(self, x_BTC: Tensor, *context: object) -> Tensor:
        """[B, T, C] -> [B, T, C]; `context` is what `Attention.forward` takes after x."""
        if self.before:
            x_BTC = x_BTC + self.attention(self.attention_norm(x_BTC), *context)
            return x_BTC + self.mlp(self.mlp_norm(x_BTC))
        x_BTC = x_BTC + self.attention_norm(self.attention(x_BTC, *context))
        return x_BTC + self.mlp_norm(self.mlp(x_BTC))


def places_of(ids_BT: Tensor, starts_BT: Tensor | None) -> Tensor:
    """Position of each token in its text: [B, T], or [1, T] where every row is one text."""
    places = torch.arange(ids_BT.shape[1], device=ids_BT.device)[None]
    return places if starts_BT is None else places - starts_BT


class Transformer(nn.Module):
    """A causal language model as its config describes it.

    Attributes:
        gradient_checkpointing: in training, keep only the input of each block and compute the rest again on the way
            back: the same gradients in less memory for about a third more time (Chen et al. 2016, arXiv 1604.06174).
        in_training: what runs in place of each block in training, such as compiled blocks; empty: the blocks.
        has_dropout: the blocks draw random numbers in training (low-rank adapters may).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config, self.gradient_checkpointing, self.has_dropout = config, False, False
        self.in_training: list[Callable[..., Any]] = []
        self.embedding = Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = (
            Embedding(config.max_position_embeddings, config.hidden_size)
            if config.positions == "learned"
            else None
        )
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = Norm(config, config.hidden_size)
        self.lm_head = (
            None if config.tie_word_embeddings else Linear(config.hidden_size, config.vocab_size, bias=False)
        )
        self._rotary: tuple[Tensor, Tensor] | None = None
        assert self.num_parameters() == config.num_parameters(), "the config's counters must add up"

    def init_weights(self, seed: int) -> None:
        """Fill every weight from one random stream.

        Embeddings: normal, std `initializer_range`. Matrices into a block: uniform with std 1/sqrt(fan in).
        Matrices that write to the residual stream (o_proj, down_proj) and an untied head: zero, so that the model
        starts as "every token equally likely" and each block as the identity (Yang et al. 2022, arXiv 2203.03466,
        for the head; Zhang et al. 2019, arXiv 1901.09321, for the residual branches). Norms: one; biases: zero.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            last = name.split(".")[-2] if "." in name else name
            if parameter.ndim == 1:
                nn.init.constant_(parameter, 1.0 if name.endswith("weight") else 0.0)
            elif last in ("embedding", "position_embedding"):
                parameter.data.copy_(
                    torch.randn(parameter.shape, generator=generator) * self.config.initializer_range
                )
            elif last in ("o_proj", "down_proj", "lm_head"):
                nn.init.zeros_(parameter)
            else:
                bound = (3 / parameter.shape[1]) ** 0.5
                parameter.data.copy_(
                    torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator)
                )

    def forward(
        self, ids_BT: Tensor, *, positions_BT: Tensor | None = None, cache: KeyValueCache | None = None
    ) -> Tensor:
        """Logits [B, T, V] in fp32 of the token that follows each position."""
        return self.head(self.hidden(ids_BT, positions_BT=positions_BT, cache=cache))

    def head(self, hidden: Tensor) -> Tensor:
        """Logits [..., V] in fp32 of final hidden states [..., C]."""
        matrix = self.head_matrix
        if isinstance(matrix, Int8Matrix):
            return matrix.product(hidden).float()
        return nn.functional.linear(hidden, matrix).float()

    @property
    def head_weight(self) -> Tensor:
        """[V, C]: the head's matrix, which is the embedding's when they are tied; of one in int8 a copy in floats."""
        matrix = self.head_matrix
        return matrix.floats() if isinstance(matrix, Int8Matrix) else matrix

    @property
    def head_matrix(self) -> Tensor | Int8Matrix:
        """The same as it is held."""
        module: nn.Module = self.embedding if self.lm_head is None else self.lm_head
        if isinstance(module, Int8Matrix):
            return module
        assert isinstance(module.weight, Tensor)
        return module.weight

    def hidden(
        self,
        ids_BT: Tensor,
        *,
        positions_BT: Tensor | None = None,
        cache: KeyValueCache | None = None,
        starts_BT: Tensor | None = None,
    ) -> Tensor:
        """Final hidden states [B, T, C], after the last norm.

        Args:
            ids_BT: token ids.
            positions_BT: position of each token; None: 0, 1, 2, … Needed with a cache.
            cache: keys and values of earlier positions; the new ones are added to it.
            starts_BT: where rows hold several texts: the place in the row at which each token's text begins. Texts
                do not see each other, and each counts its positions from 0. Without a cache.
        """
        config, length = self.config, ids_BT.shape[1]
        end = 0
        if starts_BT is not None:
            assert cache is None, "rows of several texts have no cache"
            assert positions_BT is None, "they count their positions themselves"
            positions_BT = places_of(ids_BT, starts_BT)
        if cache is None:
            if (
                positions_BT is None
                and length > config.max_position_embeddings
                and config.positions == "learned"
            ):
                raise ValueError(f"{length} tokens in a model made for {config.max_position_embeddings}")
        else:
            assert positions_BT is not None, "a cache needs positions"
            end = cache.slots_in_use(positions_BT)
        x_BTC = self.embedding(ids_BT)
        if self.position_embedding is not None:
            known = positions_BT if positions_BT is not None else torch.arange(length, device=ids_BT.device)
            x_BTC = x_BTC + self.position_embedding(known.clamp(max=config.max_position_embeddings - 1))
        rotary = self._rotary_for(length, positions_BT, ids_BT.device)
        masks: dict[int | None, Tensor | None] = {}
        for layer, block in enumerate(self.blocks):
            window = config.window_of(layer)
            if window not in masks:
                masks[window] = (
                    texts_mask(starts_BT, window)
                    if starts_BT is not None
                    else self._mask(length, positions_BT, end, window, ids_BT.device, cache is not None)
                )
            x_BTC = self._through(layer, block, x_BTC, rotary, masks[window], cache, positions_BT, end)
        return self.norm(x_BTC)

    def _through(self, layer: int, block: nn.Module, x_BTC: Tensor, *context: Any) -> Any:
        """The block's output, its inner values kept for the backward pass or not."""
        if not (self.training and torch.is_grad_enabled()):
            return block(x_BTC, *context)
        run = self.in_training[layer] if self.in_training else block
        if self.gradient_checkpointing:
            return recomputed(lambda x: run(x, *context), x_BTC, random=self.has_dropout)
        return run(x_BTC, *context)

    def _rotary_for(
        self, length: int, positions_BT: Tensor | None, device: torch.device
    ) -> tuple[Tensor, Tensor] | None:
        if self.config.positions != "rotary":
            return None
        needed = length if positions_BT is None else int(positions_BT.max()) + 1
        if self._rotary is None or self._rotary[0].shape[0] < needed or self._rotary[0].device != device:
            with torch.inference_mode(False):  # kept, also for training, which refuses tensors of inference
                self._rotary = rotary_tables(
                    self.config, max(needed, self.config.max_position_embeddings + 1), device
                )
        cos, sin = self._rotary
        if positions_BT is None:
            return cos[:length], sin[:length]
        return cos[positions_BT].unsqueeze(1), sin[positions_BT].unsqueeze(1)

    def _mask(
        self,
        length: int,
        positions_BT: Tensor | None,
        end: int,
        window: int | None,
        device: torch.device,
        cached: bool,
    ) -> Tensor | None:
        if cached:
            assert positions_BT is not None
            return position_mask(positions_BT, end, window)
        if window is not None and window < length:
            return window_mask(length, window, device)
        return None

    def num_parameters(self) -> int:
        """All weights, a tied head counted once."""
        return sum(parameter.numel() for parameter in self.parameters())
