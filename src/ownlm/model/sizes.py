"""One dial: `--size` names a fixed row (layers, width, heads), independent of the vocabulary."""

from __future__ import annotations

from dataclasses import dataclass

from ownlm.console.errors import UsageError, did_you_mean
from ownlm.model.config import ModelConfig

HEAD_DIM = 64  # rotary pairs and attention kernels like it; 128 was not better at these widths (docs/log.md)


@dataclass(frozen=True)
class Size:
    """A row of the table. `key_value_heads`: below 350M the cache is small, so every head has its own."""

    layers: int
    width: int
    key_value_heads: int

    @property
    def heads(self) -> int:
        """Query heads: the width divided by the head size."""
        return self.width // HEAD_DIM

    @property
    def intermediate(self) -> int:
        """Inner MLP width: 8/3 of the width keeps a gated MLP at the 8·width² weights of a plain one
        (Shazeer 2020, arXiv 2002.05202), rounded up to a multiple of 64 for the matrix kernels."""
        return -(-self.width * 8 // 3 // 64) * 64

    @property
    def block_parameters(self) -> int:
        """Weights of all blocks' matrices, embeddings not counted: what the row's name is about below 124M."""
        key_value = self.key_value_heads * HEAD_DIM
        attention = self.width * (2 * self.width + 2 * key_value)
        return self.layers * (attention + 3 * self.width * self.intermediate)


# 124M and 350M are GPT-2's rows (their names count a 50,257-token vocabulary), the others count blocks only.
SIZES = {
    "1M": Size(4, 128, 2),
    "3M": Size(4, 256, 4),
    "10M": Size(6, 384, 6),
    "30M": Size(10, 512, 8),
    "124M": Size(12, 768, 12),
    "350M": Size(24, 1024, 4),
    "1B": Size(22, 2048, 8),
}


def config_for(size: str, vocab_size: int, context: int) -> ModelConfig:
    """The Qwen3-layout config of a named size.

    Raises:
        UsageError: an unknown name.
    """
    row = SIZES.get(size.upper().replace("MB", "M"))
    if row is None:
        raise UsageError(
            f'there is no size "{size}".{did_you_mean(size, SIZES)} Sizes: {", ".join(SIZES)}.',
            where="--size",
            do="--size 10M, or --size 10M --set num_hidden_layers=8 for something between",
        )
    return ModelConfig(
        vocab_size=vocab_size,
        hidden_size=row.width,
        num_hidden_layers=row.layers,
        num_attention_heads=row.heads,
        num_key_value_heads=row.key_value_heads,
        head_dim=HEAD_DIM,
        intermediate_size=row.intermediate,
        max_position_embeddings=context,
        # Untied heads learn faster per step; they cost weights, not time (docs/log.md).
        tie_word_embeddings=False,
    )
