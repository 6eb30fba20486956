"""A masked model: BERT, RoBERTa and DistilBERT as one small `Encoder`. It reads both ways and never enters the engine.

Shapes: B texts, T tokens, C width, H heads, D width of a head, V vocabulary, N chosen places.

Devlin et al. 2019 (arXiv 1810.04805), Liu et al. 2019 (arXiv 1907.11692), Sanh et al. 2019 (arXiv 1910.01108). Each
layer normalises after its sum (Vaswani et al. 2017); every matrix has a bias; positions are learned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ownlm.console.errors import Refused, UsageError
from ownlm.model.config import MAX_CONTEXT, MAX_LAYERS, MAX_VOCABULARY, MAX_WIDTH, check_limits
from ownlm.model.layers import ACTIVATIONS, Embedding, Linear

EncoderActivation = Literal["gelu", "gelu_tanh", "relu", "silu"]


@dataclass(frozen=True)
class EncoderConfig:
    """All that is needed to build an `Encoder`; field names follow Hugging Face configs where they exist.

    Args:
        architecture: bert, roberta or distilbert.
        max_position_embeddings: rows of the position table; `context` is what remains of it for tokens.
        type_vocab_size: rows of the token-type table; 0: there is none (DistilBERT).
        activation: of the layers, and of BERT's head (RoBERTa's head always has gelu).
        pad_token_id: RoBERTa counts positions from pad_token_id + 1 and leaves padding out of the count.
        tie_word_embeddings: the head's matrix is the token embedding.
        head: it predicts masked tokens; without, it gives hidden states only.
        pooler: a matrix on the first token's hidden state was stored; kept, and without effect here.
        next_sentence: BERT's second head, on the pooler, was stored; kept, and without effect here.
    """

    architecture: Literal["bert", "roberta", "distilbert"]
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int = 2
    activation: EncoderActivation = "gelu"
    norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = True
    head: bool = True
    pooler: bool = False
    next_sentence: bool = False
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        limits = {
            "vocab_size": MAX_VOCABULARY,
            "hidden_size": MAX_WIDTH,
            "num_hidden_layers": MAX_LAYERS,
            "num_attention_heads": MAX_WIDTH,
            "intermediate_size": 16 * MAX_WIDTH,
            "max_position_embeddings": MAX_CONTEXT,
        }
        if self.architecture != "distilbert":
            limits["type_vocab_size"] = MAX_VOCABULARY
        check_limits(self, limits)
        self._check()

    def _check(self) -> None:
        """What two fields say together."""
        problem = ""
        if self.hidden_size % self.num_attention_heads:
            problem = f"hidden_size ({self.hidden_size}) is not a multiple of num_attention_heads."
        elif self.architecture == "roberta" and self.pad_token_id is None:
            problem = "pad_token_id is missing; RoBERTa counts its positions from it."
        elif self.pad_token_id is not None and not 0 <= self.pad_token_id < self.vocab_size:
            problem = f"pad_token_id {self.pad_token_id} is not in the vocabulary."
        elif self.context < 1:
            problem = f"{self.max_position_embeddings} positions leave none after pad_token_id."
        elif self.activation not in get_args(EncoderActivation):
            problem = f"activation is {self.activation!r}; known: {', '.join(get_args(EncoderActivation))}."
        if problem:
            raise UsageError(problem, where="model config")

    @property
    def first_position(self) -> int:
        """Row of the position table that belongs to a text's first token."""
        return (self.pad_token_id or 0) + 1 if self.architecture == "roberta" else 0

    @property
    def context(self) -> int:
        """Longest text in tokens, what stands around it ([CLS] … [SEP]) included."""
        return self.max_position_embeddings - self.first_position

    @property
    def two_biases(self) -> bool:
        """Whether an untied head has a bias beside that of its decoder (BERT, RoBERTa)."""
        return self.architecture != "distilbert"

    def parameter_counts(self) -> dict[str, int]:
        """Number of weights by part; the tensors of an `Encoder` add up to the same (tested)."""
        width, inner, layers = self.hidden_size, self.intermediate_size, self.num_hidden_layers
        square = width * width + width
        untied = 0 if self.tie_word_embeddings else self.vocab_size * (width + self.two_biases)
        return {
            "embedding": self.vocab_size * width,
            "position": self.max_position_embeddings * width,
            "token_type": self.type_vocab_size * width,
            "attention": layers * 4 * square,
            "mlp": layers * (2 * width * inner + inner + width),
            "norm": (1 + 2 * layers) * 2 * width,
            "head": (square + 2 * width + self.vocab_size + untied) if self.head else 0,
            "pooler": square * self.pooler + (2 * width + 2) * self.next_sentence,
        }

    def num_parameters(self) -> int:
        """All weights, a tied head counted once."""
        return sum(self.parameter_counts().values())


class Encoder(nn.Module):
    """Token ids to hidden states, and to logits of the token at each place."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.head = Head(config) if config.head else None
        width = config.hidden_size
        self.pooler = Linear(width, width) if config.pooler else None
        self.next_sentence = Linear(width, 2) if config.next_sentence else None

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return self.config.vocab_size

    @property
    def context(self) -> int:
        """Longest text in tokens."""
        return self.config.context

    def num_parameters(self) -> int:
        """All weights, a tied head counted once."""
        return sum(p.numel() for p in self.parameters())

    def hidden(self, ids_BT: Tensor, mask_BT: Tensor | None = None, types_BT: Tensor | None = None) -> Tensor:
        """Hidden states [B, T, C] after the last layer.

        Args:
            ids_BT: token ids, int64, T at most `context`.
            mask_BT: true (or 1) where a token stands, false where a row was padded; None: nowhere padded. What
                comes out at padded places means nothing.
            types_BT: 0 in the first text of a pair, 1 in the second; None: 0 everywhere. Without effect where the
                model has no types.
        """
        if ids_BT.shape[1] > self.context:
            raise UsageError(
                f"{ids_BT.shape[1]:,} tokens; the model reads at most {self.context:,} at once.",
                where="context",
            )
        seen_B11T = None if mask_BT is None else mask_BT.bool()[:, None, None, :]
        x_BTC = self.embeddings(ids_BT, types_BT)
        for block in self.blocks:
            x_BTC = block(x_BTC, seen_B11T)
        return x_BTC

    def pooled(self, hidden_BTC: Tensor) -> Tensor:
        """BERT's summary [B, C] of a text: tanh of a matrix on the first token's hidden state."""
        assert self.pooler is not None, "the model was made without a pooler"
        return self.pooler(hidden_BTC[:, 0]).tanh()

    def logits(self, ids_BT: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """Logits [B, T, V] of the token at each place.

        Raises:
            Refused: the model has no head.
        """
        return self._predict(self.hidden(ids_BT, mask_BT))

    def logits_at(self, ids_BT: Tensor, mask_BT: Tensor | None, rows_N: Tensor, columns_N: Tensor) -> Tensor:
        """Logits [N, V] at the places (row, column) alone: the head is the largest matrix of a small model."""
        return self._predict(self.hidden(ids_BT, mask_BT)[rows_N, columns_N])

    def _predict(self, x: Tensor) -> Tensor:
        if self.head is None:
            raise Refused(
                "the model has no head that predicts tokens: it gives hidden states only.",
                why="It was saved without one (such as BertModel).",
                do="the same model with its head (BertForMaskedLM, RobertaForMaskedLM, DistilBertForMaskedLM)",
            )
        logits: Tensor = self.head(x, self.embeddings.token.weight)
        return logits


class Embeddings(nn.Module):
    """Token + position + type, then a layer norm."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.token = Embedding(config.vocab_size, config.hidden_size)
        self.position = Embedding(config.max_position_embeddings, config.hidden_size)
        types = config.type_vocab_size
        self.token_type = Embedding(types, config.hidden_size) if types else None
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)

    def forward(self, ids_BT: Tensor, types_BT: Tensor | None = None) -> Tensor:
        """[B, T] -> [B, T, C]; without types all tokens are of type 0."""
        x_BTC = self.token(ids_BT)
        if self.token_type is not None:
            x_BTC = x_BTC + (self.token_type.weight[0] if types_BT is None else self.token_type(types_BT))
        return self.norm(x_BTC + self.position(self.positions(ids_BT)))

    def positions(self, ids_BT: Tensor) -> Tensor:
        """Rows of the position table.

        BERT and DistilBERT count from 0. RoBERTa counts the tokens that are not padding (by their id, as upstream does, not by
        the attention mask) from pad_token_id + 1; padding stands at pad_token_id.
        """
        if self.config.architecture != "roberta":
            return torch.arange(ids_BT.shape[1], device=ids_BT.device)
        pad = self.config.first_position - 1
        real_BT = ids_BT.ne(pad).long()
        return real_BT.cumsum(dim=1) * real_BT + pad


class Attention(nn.Module):
    """softmax(q·k / √D) v over all tokens of the text, before and after."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.query, self.key, self.value, self.output = (Linear(width, width) for _ in range(4))

    def forward(self, x_BTC: Tensor, seen_B11T: Tensor | None) -> Tensor:
        """[B, T, C] -> [B, T, C]; `seen` is false at keys that are padding."""
        B, T, C = x_BTC.shape

        def split(projected: Tensor) -> Tensor:
            return projected.view(B, T, self.heads, C // self.heads).transpose(1, 2)

        q, k, v = split(self.query(x_BTC)), split(self.key(x_BTC)), split(self.value(x_BTC))
        mixed_BHTD = F.scaled_dot_product_attention(q, k, v, attn_mask=seen_B11T)
        return self.output(mixed_BHTD.transpose(1, 2).reshape(B, T, C))


class MLP(nn.Module):
    """down(act(up(x)))."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.up_proj = Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x_BTC: Tensor) -> Tensor:
        """[B, T, C] -> [B, T, C]."""
        return self.down_proj(self.activation(self.up_proj(x_BTC)))


class Block(nn.Module):
    """Attention and MLP, each added to its input and then normalised."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.mlp = MLP(config)
        self.mlp_norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)

    def forward(self, x_BTC: Tensor, seen_B11T: Tensor | None) -> Tensor:
        """[B, T, C] -> [B, T, C]."""
        x_BTC = self.attention_norm(x_BTC + self.attention(x_BTC, seen_B11T))
        return self.mlp_norm(x_BTC + self.mlp(x_BTC))


class Head(nn.Module):
    """Hidden states to logits: dense, activation, layer norm, decoder.

    A tied head is the token embedding and `bias`. An untied one is `decoder`, in BERT and RoBERTa with a bias of its
    own; `bias` is stored beside it without effect there, as upstream has it, and kept.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.dense = Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        tied = config.tie_word_embeddings
        self.decoder = None if tied else Linear(width, config.vocab_size, bias=config.two_biases)
        self.activation = F.gelu if config.architecture == "roberta" else ACTIVATIONS[config.activation]

    def forward(self, x: Tensor, embedding_VC: Tensor) -> Tensor:
        """[..., C] -> [..., V]."""
        x = self.norm(self.activation(self.dense(x)))
        if self.decoder is not None and self.decoder.bias is not None:
            return self.decoder(x)
        return F.linear(x, embedding_VC if self.decoder is None else self.decoder.weight, self.bias)
