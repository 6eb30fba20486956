"""The engine's arithmetic on torch: any device, any family that is built in, paged cache.

N rows (the tokens of all pieces of a call, one after the other), C width, H key-value heads, G query heads that share
one, D head width, O widths of products, V vocabulary. Residual stream, norms and softmax are fp32; only products and
the cache have the dtype of the weights.

On a CPU a row's bits depend on its own sequence alone (`torch_products`, `torch_attention`). GPUs choose their kernels
by the shape of the whole call, and promise nothing of the kind.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ownlm.console.errors import UsageError
from ownlm.engine.admission import checked_context
from ownlm.engine.backend import BLOCK, LoraWeights, Piece
from ownlm.engine.memory_plan import cache_block_bytes
from ownlm.engine.torch_adapters import Adapters
from ownlm.engine.torch_attention import Queries, attend, grouped, tile_shape
from ownlm.engine.torch_products import apply, padded_rows, product
from ownlm.machine.cpu import bf16_pays
from ownlm.model.attention import Attention
from ownlm.model.layers import MLP, Norm, rotary_tables, rotate
from ownlm.model.transformer import Block, Transformer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CPU_PROMISE = (
    "The same bits for a token alone, in any batch, for any cut of its prompt, with or without cached prefix and with "
    "1 to 4 threads, on one machine with one torch; not on another processor or in another dtype."
)
GPU_PROMISE = (
    "Nothing bit for bit: kernels of this device add in an order that depends on what is computed beside."
)


class TorchBackend:
    """A model on one device, with the cache of the running sequences; see `ownlm.engine.backend.Backend`.

    Args:
        model: used as it is when dtype and device are already right, else copied.
        dtype: "auto" (the model's own; bf16 weights compute in fp32 on a CPU without bf16 arithmetic),
            "float32" or "bfloat16".
        device: None: where the model is.
        max_context: tokens of prompt and answer together at most; None: what the model was made for.
    """

    name = "torch"

    def __init__(
        self,
        model: Transformer,
        dtype: str = "auto",
        device: str | None = None,
        max_context: int | None = None,
    ) -> None:
        weight = model.embedding.weight
        self.device: torch.device | str = weight.device if device is None else torch.device(device)
        self._where = torch.device(self.device)
        held = chosen_dtype(dtype, weight.dtype, self._where)
        if weight.dtype != held or weight.device != self._where:
            model = copy.deepcopy(model).to(device=self._where, dtype=held)
        self.model, self.config = model, model.config
        self._blocks = [block for block in model.blocks if isinstance(block, Block)]
        self.dtype = next(name for name, known in DTYPES.items() if known == held)
        self.vocab_size, self.hidden_size = self.config.vocab_size, self.config.hidden_size
        self.max_context = checked_context(self.config, max_context)
        self.block_bytes = cache_block_bytes(self.config, self.dtype)
        self.weight_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
        self.promises = CPU_PROMISE if self._where.type == "cpu" else GPU_PROMISE
        self._adapters = Adapters(model, self._where)
        self._keys = self._values = torch.zeros(0)  # [layers, blocks, H, 64, D]
        self._rotary = rotary_tables(self.config, self.max_context, self._where)
        # A tile holds the query heads of a key-value head for a few tokens; other devices have no tiles.
        group = self.config.num_attention_heads // self.config.num_key_value_heads
        self._together = tile_shape(group)[1] if self._where.type == "cpu" else 1

    def activation_bytes(self, tokens: int, outputs: int) -> int:
        """fp32 rows of a layer's widest part, and logits twice: as computed and as given back."""
        config = self.config
        widths = 6 * config.hidden_size + 4 * config.query_width + 4 * config.key_value_width
        gathered = 4 * tokens * BLOCK * config.num_attention_heads
        return 4 * (
            tokens * (widths + 4 * config.intermediate_size) + gathered + 2 * outputs * self.vocab_size
        )

    def reserve(self, blocks: int) -> None:
        """Allocate the cache; on a CPU its pages take memory when they are first written."""
        config = self.config
        shape = (config.num_hidden_layers, blocks, config.num_key_value_heads, BLOCK, config.head_dim)
        dtype = torch.float32 if self.dtype == "float32" else torch.bfloat16
        if self._where.type == "cpu":
            as_stored = np.float32 if dtype == torch.float32 else np.uint16
            self._keys, self._values = (
                torch.from_numpy(np.zeros(shape, as_stored)).view(dtype) for _ in range(2)
            )
        else:
            self._keys, self._values = (torch.zeros(shape, dtype=dtype, device=self._where) for _ in range(2))

    def copy_block(self, source: int, target: int) -> None:
        """Copy the keys and values of a cache block."""
        self._keys[:, target] = self._keys[:, source]
        self._values[:, target] = self._values[:, source]

    def release(self, sequence: int) -> None:
        """Nothing to do: blocks hold all of a sequence."""

    def add_adapter(self, adapter: LoraWeights) -> int:
        """Keep low-rank weights beside the base; gives the number for `Piece.adapter`."""
        return self._adapters.add(adapter)

    def remove_adapter(self, number: int) -> None:
        """Forget an adapter."""
        self._adapters.remove(number)

    @torch.inference_mode()
    def compute(self, pieces: Sequence[Piece]) -> list[npt.NDArray[np.float32]]:
        """Logits [O, V] of each piece."""
        hidden = self._forward(pieces)
        logits = product(hidden, self.model.head_weight)
        return _split(logits, pieces)

    @torch.inference_mode()
    def hidden(self, pieces: Sequence[Piece]) -> list[npt.NDArray[np.float32]]:
        """Final hidden states [O, C] of each piece, after the last norm."""
        return _split(self._forward(pieces), pieces)

    def _forward(self, pieces: Sequence[Piece]) -> Tensor:
        """Final hidden states of the wanted tokens of all pieces, filled up to a whole number of tiles."""
        counts = [len(piece.ids) for piece in pieces]
        ids = np.concatenate([piece.ids for piece in pieces]).astype(np.int64)
        positions = np.concatenate([np.arange(p.start, p.start + len(p.ids)) for p in pieces])
        slots = np.concatenate([p.blocks[np.arange(p.start, p.start + len(p.ids)) // BLOCK] for p in pieces])
        fill = (0, padded_rows(len(ids)) - len(ids))
        ids_N, positions_N, slots_N = (
            torch.from_numpy(a).to(self._where)
            for a in (np.pad(ids, fill), np.pad(positions, fill), slots.astype(np.int64) * BLOCK)
        )
        slots_N += positions_N[: len(ids)] % BLOCK
        groups = grouped(pieces, self._together, self._where)
        self._adapters.select([piece.adapter for piece in pieces], counts)
        x = self.model.embedding(ids_N).float()
        if self.model.position_embedding is not None:
            x = x + self.model.position_embedding(positions_N).float()
        cos, sin = (table[positions_N][:, None] for table in self._rotary)
        for layer, block in enumerate(self._blocks):
            context = (layer, block.attention, (cos, sin), slots_N, groups)
            if block.before:
                x = x + self._attention(self._norm(block.attention_norm, x), *context)
                x = x + self._mlp(layer, block.mlp, self._norm(block.mlp_norm, x))
            else:
                x = x + self._norm(block.attention_norm, self._attention(x, *context))
                x = x + self._norm(block.mlp_norm, self._mlp(layer, block.mlp, x))
        starts = np.cumsum([0, *counts])[:-1]
        wanted = np.concatenate([piece.outputs + start for piece, start in zip(pieces, starts)])
        rows = np.pad(wanted.astype(np.int64), (0, padded_rows(len(wanted)) - len(wanted)))
        if not len(wanted):
            return x[:0]
        return self._norm(self.model.norm, x[torch.from_numpy(rows).to(self._where)])

    def _norm(self, norm: Norm, x: Tensor) -> Tensor:
        weight = norm.weight.float()
        if norm.bias is not None:
            return nn.functional.layer_norm(x, weight.shape, weight, norm.bias.float(), norm.eps)
        return nn.functional.rms_norm(x, weight.shape, weight, norm.eps)

    def _linear(self, linear: nn.Linear, name: str, x: Tensor) -> Tensor:
        y = self._adapters.added(name, x, product(x, linear.weight))
        return y if linear.bias is None else y + linear.bias.float()

    def _attention(
        self,
        x_NC: Tensor,
        layer: int,
        attention: Attention,
        rotary: tuple[Tensor, Tensor],
        slots_N: Tensor,
        groups: list[Queries],
    ) -> Tensor:
        heads = self.config.num_key_value_heads
        q, k, v = self._project(layer, attention, x_NC)
        if attention.rotary:
            q, k = rotate(q, *rotary), rotate(k, *rotary)
        keys, values = self._keys[layer], self._values[layer]
        real = len(slots_N)
        for cache, new in ((keys, k), (values, v)):
            cache[slots_N // BLOCK, :, slots_N % BLOCK] = new[:real].to(cache.dtype)
        z = torch.zeros_like(q)
        grouped_q = q.unflatten(1, (heads, -1))
        for queries in groups:
            found = attend(grouped_q, queries, keys, values, attention.scale, attention.window)
            z[queries.rows.flatten()[queries.real]] = found.flatten(2, 3).flatten(0, 1)[queries.real]
        return self._linear(attention.o_proj, f"blocks.{layer}.attention.o_proj", z.flatten(1))

    def _project(self, layer: int, attention: Attention, x_NC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        config, name = self.config, f"blocks.{layer}.attention"
        if config.fused_qkv:
            widths = [config.query_width, config.key_value_width, config.key_value_width]
            q, k, v = self._linear(attention.qkv_proj, f"{name}.qkv_proj", x_NC).split(widths, dim=-1)
        else:
            q, k, v = (
                self._linear(getattr(attention, part), f"{name}.{part}", x_NC)
                for part in ("q_proj", "k_proj", "v_proj")
            )
        if config.qk_norm == "full":
            q, k = self._norm(attention.q_norm, q), self._norm(attention.k_norm, k)
        q, k, v = (t.unflatten(-1, (-1, config.head_dim)) for t in (q, k, v))
        if config.qk_norm == "head":
            q, k = self._norm(attention.q_norm, q), self._norm(attention.k_norm, k)
        return q, k, v

    def _mlp(self, layer: int, mlp: MLP, x_NC: Tensor) -> Tensor:
        name = f"blocks.{layer}.mlp"
        if mlp.fused:
            gate, up = self._linear(mlp.gate_up_proj, f"{name}.gate_up_proj", x_NC).chunk(2, dim=-1)
        else:
            up = self._linear(mlp.up_proj, f"{name}.up_proj", x_NC)
            gate = self._linear(mlp.gate_proj, f"{name}.gate_proj", x_NC) if mlp.gated else up
        inner = apply(mlp.activation, gate)
        return self._linear(mlp.down_proj, f"{name}.down_proj", inner * up if mlp.gated else inner)


def _split(rows: Tensor, pieces: Sequence[Piece]) -> list[npt.NDArray[np.float32]]:
    """Results of each piece, without the rows that fill up the last tile."""
    found: npt.NDArray[np.float32] = rows.cpu().numpy()
    ends = np.cumsum([len(piece.outputs) for piece in pieces])
    return np.split(found[: ends[-1]], ends[:-1])


def chosen_dtype(dtype: str, own: torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype of weights in memory, when `dtype` was asked for and they are stored as `own`.

    "auto" is `own`, but float32 on a processor that does not multiply bf16.

    Raises:
        UsageError: an unknown name.
    """
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" and not bf16_pays() else own
    if dtype not in DTYPES:
        known = "auto, " + ", ".join(DTYPES)
        raise UsageError(f'the torch backend has no dtype "{dtype}".', where="dtype", do=known)
    return DTYPES[dtype]
