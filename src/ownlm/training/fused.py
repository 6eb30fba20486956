"""Loss and gradients of a training step on the CPU without autograd: matrix products by torch, the rest by our kernels.

Eager autograd spends most of a step on a CPU between the products: casts, copies, one pass through memory for each
small operation. Here each block is written down once forwards and once backwards, and what lies between two products
is one kernel. Gradients end in `parameter.grad`, as autograd leaves them; tests hold the two against each other.

Shapes: B rows, T tokens, N = B·T, C width, H query heads, D head width, I inner MLP width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ownlm.kernels.library import has_tiles, library
from ownlm.kernels.tensors import HeadShape, Kernels, Seen, gradient_of
from ownlm.kernels.tiles import TILE, Tiles, fits
from ownlm.model.config import ModelConfig
from ownlm.model.transformer import Block, Transformer, places_of
from ownlm.training.products import Product, product

CHUNK_LOGITS = 2**23  # stored logits of a chunk of the head: 16 MB in bf16
QUERY_CHUNK = 256  # queries whose scores exist together; keys after them are left out
MAX_HEAD_DIM = 512


def why_not(config: ModelConfig, device: str, gradient_checkpointing: bool) -> str | None:
    """Why this model cannot be trained by the fused path; None when it can."""
    if device != "cpu":
        return f"the device is {device}"
    if gradient_checkpointing:
        return "gradient checkpointing goes through autograd"
    if library() is None:
        return "the native kernels were not built"
    covered = {
        "norm_placement": config.norm_placement == "before",
        "qk_norm": config.qk_norm in ("none", "head"),
        "activation": config.activation == ("silu" if config.mlp == "gated" else "gelu_tanh"),
        "causal": config.causal,
        "head_dim": config.head_dim <= MAX_HEAD_DIM,
    }
    for field, is_covered in covered.items():
        if not is_covered:
            return f"{field} {getattr(config, field)} is not covered"
    return None


@dataclass
class _Saved:
    """What a block keeps for the way back."""

    x_NC: Tensor
    middle_NC: Tensor
    stats: Tensor  # [2, 2, N]: mean and 1/deviation of both norms
    normed_NC: Tensor
    normed_middle_NC: Tensor
    qkv: Tensor
    scales: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    probabilities: list[Tensor]  # none on the tile unit, which makes them again from:
    normalizers: Tensor
    mixed_NC: Tensor
    inner: Tensor
    activated_NI: Tensor


class _FusedBlock:
    """One block, forwards and backwards."""

    def __init__(
        self, block: Block, config: ModelConfig, layer: int, kernels: Kernels, tiles: Tiles | None
    ) -> None:
        attention, mlp, dtype = block.attention, block.mlp, kernels.dtype
        self.tiles = tiles if fits(config.head_dim) else None
        self.config, self.kernels, self.block = config, kernels, block
        split = [attention.q_proj, attention.k_proj, attention.v_proj] if not config.fused_qkv else None
        self.qkv = product(split or [attention.qkv_proj], dtype, tiles)
        self.o = product([attention.o_proj], dtype, tiles)
        self.gated = config.mlp == "gated"
        if config.fused_gate_up:
            inner = [mlp.gate_up_proj]
        else:
            inner = [mlp.gate_proj, mlp.up_proj] if self.gated else [mlp.up_proj]
        self.up, self.down = product(inner, dtype, tiles), product([mlp.down_proj], dtype, tiles)
        self.norms = (attention.q_norm, attention.k_norm) if config.qk_norm == "head" else None
        self.window = config.window_of(layer) or 0
        self.rotates, self.scale = attention.rotary, attention.scale

    def products(self) -> list[Product]:
        return [self.qkv, self.o, self.up, self.down]

    def allocate(self, batch: int, length: int) -> _Saved:
        config, dtype, rows = self.config, self.kernels.dtype, batch * length
        width, heads, inner = config.hidden_size, config.num_attention_heads, config.intermediate_size
        per_head = (batch * heads, length, config.head_dim)
        probabilities = [
            torch.empty(batch * heads, last - first, last - start, dtype=dtype)
            for first, last, start in self._chunks(length)
            if not self._on_tiles(length)
        ]
        return _Saved(
            x_NC=torch.empty(0),
            middle_NC=torch.empty(rows, width),
            stats=torch.empty(2, 2, rows),
            normed_NC=torch.empty(rows, width, dtype=dtype),
            normed_middle_NC=torch.empty(rows, width, dtype=dtype),
            qkv=torch.empty(rows, config.query_width + 2 * config.key_value_width, dtype=dtype),
            scales=torch.empty(rows, heads + config.num_key_value_heads),
            q=torch.empty(per_head, dtype=dtype),
            k=torch.empty(per_head, dtype=dtype),
            v=torch.empty(per_head, dtype=dtype),
            probabilities=probabilities,
            normalizers=torch.empty(batch * heads, length),
            mixed_NC=torch.empty(rows, config.query_width, dtype=dtype),
            inner=torch.empty(rows, inner * (2 if self.gated else 1), dtype=dtype),
            activated_NI=torch.empty(rows, inner, dtype=dtype),
        )

    def _on_tiles(self, length: int) -> bool:
        return self.tiles is not None and fits(length)

    def _chunks(self, length: int) -> list[tuple[int, int, int]]:
        """(first query, end, first key) of each chunk of queries."""
        found = []
        for first in range(0, length, QUERY_CHUNK):
            start = max(0, first - self.window + 1) if self.window else 0
            found.append((first, min(first + QUERY_CHUNK, length), start))
        return found

    def forward(
        self, saved: _Saved, x_NC: Tensor, branch: Tensor | None, shape: HeadShape, work: _Work
    ) -> None:
        """x (+ branch, what the block before added) through attention; `work.branch_NC` is what the MLP adds."""
        kernels, block = self.kernels, self.block
        saved.x_NC = work.sum_NC if branch is not None else x_NC
        kernels.norm(x_NC, branch, block.attention_norm, saved.x_NC, saved.normed_NC, saved.stats[0])
        self.qkv.forward(saved.normed_NC, saved.qkv)
        rotary = work.rotary if self.rotates else None
        kernels.heads(saved.qkv, self.norms, rotary, saved.q, saved.k, saved.v, saved.scales, shape)
        self._attention(saved, shape, work)
        self.o.forward(saved.mixed_NC, work.branch_NC)
        kernels.norm(
            saved.x_NC,
            work.branch_NC,
            block.mlp_norm,
            saved.middle_NC,
            saved.normed_middle_NC,
            saved.stats[1],
        )
        self.up.forward(saved.normed_middle_NC, saved.inner)
        kernels.activation(self.gated, saved.inner, saved.activated_NI)
        self.down.forward(saved.activated_NI, work.branch_NC)

    def _attention(self, saved: _Saved, shape: HeadShape, work: _Work) -> None:
        first_keys, z = work.first_keys[self.window], work.heads[0]
        if self._on_tiles(shape.length):
            assert self.tiles is not None
            self.tiles.attention(
                saved.q, saved.k, saved.v, saved.mixed_NC, saved.normalizers, shape, first_keys, self.scale
            )
            return
        for (first, last, start), p in zip(self._chunks(shape.length), saved.probabilities):
            torch.bmm(saved.q[:, first:last], saved.k[:, start:last].mT, out=p)
            self.kernels.softmax(p, Seen(shape.query, first, start, first_keys), self.scale)
            torch.bmm(p, saved.v[:, start:last], out=z[:, first:last])
        self.kernels.swap(z, saved.mixed_NC, shape.batch, shape.query, shape.length, shape.size)

    def backward(self, saved: _Saved, shape: HeadShape, work: _Work) -> None:
        """From the gradient after the block (`work.d_x_NC` and its stored copy) to the one before it, in place."""
        kernels, block = self.kernels, self.block
        self.down.backward(work.d_stored_NC, saved.activated_NI, work.d_activated_NI, kernels)
        kernels.activation_backward(self.gated, work.d_activated_NI, saved.inner, work.d_inner)
        self.up.backward(work.d_inner, saved.normed_middle_NC, work.d_normed_NC, kernels)
        kernels.norm_backward(
            work.d_normed_NC, saved.middle_NC, block.mlp_norm, saved.stats[1], work.d_x_NC, work.d_stored_NC,
            first=False,
        )  # fmt: skip
        self.o.backward(work.d_stored_NC, saved.mixed_NC, work.d_mixed_NC, kernels)
        _, d_q, d_k, d_v = work.heads
        if self._on_tiles(shape.length):
            assert self.tiles is not None
            first_keys = work.first_keys[self.window]
            self.tiles.attention_backward(
                saved.q, saved.k, saved.v, work.d_mixed_NC, saved.normalizers, d_q, d_k, d_v, shape, first_keys, self.scale
            )  # fmt: skip
        else:
            self._attention_backward(saved, shape, work)
        rotary = work.rotary if self.rotates else None
        kernels.heads_backward(d_q, d_k, d_v, saved.qkv, self.norms, rotary, saved.scales, work.d_qkv, shape)
        self.qkv.backward(work.d_qkv, saved.normed_NC, work.d_normed_NC, kernels)
        kernels.norm_backward(
            work.d_normed_NC, saved.x_NC, block.attention_norm, saved.stats[0], work.d_x_NC, work.d_stored_NC,
            first=False,
        )  # fmt: skip

    def _attention_backward(self, saved: _Saved, shape: HeadShape, work: _Work) -> None:
        d_z, d_q, d_k, d_v = work.heads
        first_keys = work.first_keys[self.window]
        self.kernels.swap(work.d_mixed_NC, d_z, shape.batch, shape.length, shape.query, shape.size)
        chunks = self._chunks(d_z.shape[1])
        alone = len(chunks) == 1
        if not alone:
            d_k.zero_(), d_v.zero_()
        for (first, last, start), p in zip(chunks, saved.probabilities):
            d_p = work.scores[: p.numel()].view(p.shape)
            change = d_z[:, first:last]
            torch.bmm(change, saved.v[:, start:last].mT, out=d_p)
            self.kernels.softmax_backward(p, d_p, Seen(shape.query, first, start, first_keys), self.scale)
            torch.bmm(d_p, saved.k[:, start:last], out=d_q[:, first:last])
            if alone:
                torch.bmm(p.mT, change, out=d_v)
                torch.bmm(d_p.mT, saved.q, out=d_k)
            else:
                d_v[:, start:last].baddbmm_(p.mT, change)
                d_k[:, start:last].baddbmm_(d_p.mT, saved.q[:, first:last])


class _Work:
    """Memory that blocks use one after the other."""

    def __init__(self, config: ModelConfig, batch: int, length: int, dtype: torch.dtype) -> None:
        rows, width = batch * length, config.hidden_size
        per_head = (batch * config.num_attention_heads, length, config.head_dim)
        self.rotary: tuple[Tensor, Tensor] | None = None
        self.first_keys: dict[int, Tensor | None] = {}  # window (0: none) → what `Seen` needs
        self.sum_NC = torch.empty(rows, width)
        self.d_x_NC = torch.empty(rows, width)
        self.branch_NC = torch.empty(rows, width, dtype=dtype)
        self.d_stored_NC = torch.empty(rows, width, dtype=dtype)
        self.d_normed_NC = torch.empty(rows, width, dtype=dtype)
        self.d_mixed_NC = torch.empty(rows, config.query_width, dtype=dtype)
        self.d_activated_NI = torch.empty(rows, config.intermediate_size, dtype=dtype)
        gated = 2 if config.mlp == "gated" else 1
        self.d_inner = torch.empty(rows, config.intermediate_size * gated, dtype=dtype)
        self.d_qkv = torch.empty(rows, config.query_width + 2 * config.key_value_width, dtype=dtype)
        self.heads = [torch.empty(per_head, dtype=dtype) for _ in range(4)]
        self.scores = torch.empty(per_head[0] * min(length, QUERY_CHUNK) * length, dtype=dtype)


class FusedGradients:
    """Loss and gradients of a model by the fused path.

    Args:
        model: on the CPU; `why_not` must have nothing against it.
        dtype: of the products and of stored activations: bfloat16 or float32.
    """

    def __init__(self, model: Transformer, dtype: torch.dtype) -> None:
        self.model, self.config = model, model.config
        self.kernels = Kernels(dtype)
        tiles = Tiles() if has_tiles() and dtype == torch.bfloat16 else None
        self.blocks = [
            _FusedBlock(block, self.config, layer, self.kernels, tiles)  # type: ignore[arg-type]
            for layer, block in enumerate(model.blocks)
        ]
        self.head = Product([model.head_weight], [], dtype, tiles, fill=True)
        self._shape: HeadShape | None = None
        self._versions: list[int] = []

    def _refresh(self) -> None:
        """Copies follow the parameters; a parameter counts its changes."""
        versions = [parameter._version for parameter in self.model.parameters()]
        if versions == self._versions:
            return
        for block in self.blocks:
            for one in block.products():
                one.refresh()
        self.head.refresh()
        self._versions = versions

    def _allocate(self, batch: int, length: int) -> HeadShape:
        config, dtype = self.config, self.kernels.dtype
        shape = HeadShape(
            batch, length, config.num_attention_heads, config.num_key_value_heads, config.head_dim
        )
        if shape != self._shape:
            self._shape = None
            self.saved = [block.allocate(batch, length) for block in self.blocks]
            self.sums = [torch.empty(batch * length, config.hidden_size) for _ in range(len(self.blocks) + 1)]
            self.work = _Work(config, batch, length, dtype)
            rows = min(batch * length, max(64, CHUNK_LOGITS // config.vocab_size // TILE * TILE))
            self.logits = torch.empty(rows, self.head.width, dtype=dtype)
            self.normed_NC = torch.empty(batch * length, config.hidden_size, dtype=dtype)
            self.last_stats = torch.empty(2, batch * length)
            self._shape = shape
        return shape

    @torch.no_grad()
    def loss_sum(
        self, ids_BT: Tensor, targets_BT: Tensor, divisor: float | None, starts_BT: Tensor | None = None
    ) -> Tensor:
        """Summed cross-entropy in nats; with a divisor, gradients of sum / divisor are added to `parameter.grad`.

        Args:
            ids_BT: token ids, int64. targets_BT: the token after each; negative: not trained.
            starts_BT: as for `Transformer.hidden`.
        """
        self.kernels.use_threads()
        self._refresh()
        shape = self._allocate(*ids_BT.shape)
        ids_N, targets_N = ids_BT.reshape(-1), targets_BT.reshape(-1).contiguous()
        x_NC = self._forward(ids_BT, starts_BT, shape)
        losses_N = torch.empty(len(targets_N))
        self._head(targets_N, losses_N, divisor)
        if divisor is not None:
            self._backward(x_NC, ids_N.contiguous(), starts_BT, shape)
        return losses_N.double().sum()

    def _forward(self, ids_BT: Tensor, starts_BT: Tensor | None, shape: HeadShape) -> Tensor:
        """Fills `saved`; `normed_NC` are the final hidden states; returns their residual stream."""
        model, work = self.model, self.work
        x_BTC = nn.functional.embedding(ids_BT, model.embedding.weight)
        if model.position_embedding is not None:
            x_BTC += nn.functional.embedding(places_of(ids_BT, starts_BT), model.position_embedding.weight)
        # What turning says is the distance of two tokens, so it needs no places counted from a text's beginning.
        work.first_keys = {
            block.window: self._first_keys(block.window, starts_BT, shape) for block in self.blocks
        }
        work.rotary = model._rotary_for(shape.length, None, ids_BT.device)
        x_NC, branch = x_BTC.flatten(0, 1), None
        for layer, block in enumerate(self.blocks):
            work.sum_NC = self.sums[layer]
            block.forward(self.saved[layer], x_NC, branch, shape, work)
            x_NC, branch = self.saved[layer].middle_NC, work.branch_NC
        last = self.sums[-1] if branch is not None else x_NC
        self.kernels.norm(x_NC, branch, model.norm, last, self.normed_NC, self.last_stats)
        return last

    def _head(self, targets_N: Tensor, losses_N: Tensor, divisor: float | None) -> None:
        """Losses; with a divisor also the head's gradient and that of the final hidden states (`work.d_normed_NC`)."""
        step = len(self.logits)
        for first in range(0, len(targets_N), step):
            part = slice(first, min(first + step, len(targets_N)))
            logits = self.logits[: part.stop - first]
            self.head.forward(self.normed_NC[part], logits)
            factor = 1 / divisor if divisor is not None else 0.0
            self.kernels.cross_entropy(
                logits, targets_N[part], losses_N[part], self.config.vocab_size, factor
            )
            if divisor is not None:
                self.head.backward(logits, self.normed_NC[part], self.work.d_normed_NC[part], self.kernels)

    def _first_keys(self, window: int, starts_BT: Tensor | None, shape: HeadShape) -> Tensor | None:
        """The first key that each query sees, [B, T]; None: the first of its row."""
        if not window:
            return None if starts_BT is None else starts_BT.contiguous()
        behind_T = torch.arange(shape.length).sub_(window - 1).clamp_(min=0)
        if starts_BT is not None:
            return starts_BT.maximum(behind_T)
        return behind_T.repeat(shape.batch, 1)

    def _backward(self, last_NC: Tensor, ids_N: Tensor, starts_BT: Tensor | None, shape: HeadShape) -> None:
        model, work = self.model, self.work
        self.kernels.norm_backward(
            work.d_normed_NC, last_NC, model.norm, self.last_stats, work.d_x_NC, work.d_stored_NC, first=True
        )
        for saved, block in zip(reversed(self.saved), reversed(self.blocks)):
            block.backward(saved, shape, work)
        self.kernels.embedding_backward(ids_N, work.d_x_NC, gradient_of(model.embedding.weight))
        if model.position_embedding is not None:
            table = gradient_of(model.position_embedding.weight)
            if starts_BT is None:
                table[: shape.length] += work.d_x_NC.view(shape.batch, shape.length, -1).sum(0)
            else:
                places_N = places_of(ids_N.view(shape.batch, -1), starts_BT).flatten()
                self.kernels.embedding_backward(places_N, work.d_x_NC, table)
