"""Bytes of a training step at the moments when most is held, for each way of computing its gradients.

`plain`: torch's autograd. `fused`: our kernels (fused.py). Every moment is a dict of parts; the largest sum is the peak.
Tests hold the kept activations against what autograd really keeps, bench/train_memory.py the sums against real peaks.

N = rows · context tokens, C width, Q query width, K key width, I inner MLP width, V vocabulary, e bytes of a product.
"""

from __future__ import annotations

from dataclasses import dataclass

from ownlm.kernels.library import has_tiles, library
from ownlm.kernels.tiles import fits
from ownlm.model.config import ModelConfig
from ownlm.training import fused as fused_path
from ownlm.training import loss

Parts = dict[str, int]

# Autograd allocates and frees values of many sizes; the C library keeps the gaps between them for itself. Measured
# peak / kept values on Linux, by bytes of a product (bench/train_memory.py). With gradient checkpointing freed memory
# goes back to the system (machine/cpu.py).
GAPS = {4: 1.38, 2: 1.48}


@dataclass(frozen=True)
class Step:
    """What the memory of a training step depends on.

    Args:
        rows: of a micro-batch. context: tokens of a row.
        accumulation: micro-batches of a step.
        dtype: of the matrix products, float32 or bfloat16.
        fused: whether gradients come from our kernels; gradient checkpointing goes through autograd.
    """

    config: ModelConfig
    rows: int
    context: int
    accumulation: int = 1
    dtype: str = "float32"
    device: str = "cpu"
    gradient_checkpointing: bool = False
    fused: bool = False

    @property
    def tokens(self) -> int:
        """N: tokens of a micro-batch."""
        return self.rows * self.context

    @property
    def element(self) -> int:
        """e: bytes of a number in a matrix product."""
        return 2 if self.dtype == "bfloat16" else 4

    @property
    def matrices(self) -> int:
        """Weights of the blocks' matrices."""
        counts = self.config.parameter_counts()
        return counts["attention"] + counts["mlp"]

    @property
    def head(self) -> int:
        """V · C."""
        return self.config.vocab_size * self.config.hidden_size

    @property
    def native_optimizer(self) -> bool:
        """Whether Muon's momentum and update are native kernels (optimizer.py)."""
        return self.device == "cpu" and library() is not None


def plain(step: Step) -> list[Parts]:
    """Moments of a step through autograd."""
    config, tokens, e = step.config, step.tokens, step.element
    layers = config.num_hidden_layers
    last = tokens * (2 * 4 * config.hidden_size + 8)  # of the final norm, and the token ids
    one = layer_activations(step)
    kept = last + (layers * 4 * config.hidden_size * tokens if step.gradient_checkpointing else layers * one)
    copies = e * step.matrices if e == 2 else 0  # autocast's, which autograd keeps
    held = _held(step)
    all_gradients = 4 * config.num_parameters()
    before = all_gradients if step.accumulation > 1 else 0  # those of the micro-batches before
    again, again_copies = (one, copies // layers) if step.gradient_checkpointing else (0, 0)
    if step.gradient_checkpointing:
        copies = 0
    embedding = 4 * step.head if config.tie_word_embeddings or step.accumulation > 1 else 0
    gaps = 1.0 if step.gradient_checkpointing or step.device != "cpu" else GAPS[e]
    return [
        held
        | {
            "gradients": before,
            "copies": copies,
            "activations": round(gaps * kept),
            "head": _plain_head(step),
        },
        held
        | {
            "gradients": max(before, 4 * step.head),
            "copies": copies + again_copies,
            "activations": round(gaps * (kept + again)),
            "workspace": round(gaps * _block_workspace(step)),
        },
        held
        | {
            "gradients": all_gradients,
            "copies": copies // layers + again_copies,
            "activations": round(gaps * (kept // layers + again)),
            "workspace": embedding,
        },
        held | {"gradients": all_gradients, "workspace": _update_workspace(step)},
    ]


def layer_activations(step: Step) -> int:
    """Bytes that autograd keeps of one block: every value that a derivative needs, each copy counted.

    A norm keeps its input and the normalised values in fp32 (on a GPU one kernel keeps the input alone), products
    keep their inputs, under autocast a copy for each matrix; attention keeps q, k, v, its output and one fp32
    number a head (Dao et al. 2022, arXiv 2205.14135, §3.1).
    """
    config, e, bf16 = step.config, step.element, step.element == 2
    width, query, key = config.hidden_size, config.query_width, config.key_value_width
    normed = 4 * width if config.norm == "layer" or step.device.startswith("cuda") else 8 * width
    readers = (1 if config.fused_qkv else 3) + (
        2 if config.mlp == "gated" and not config.fused_gate_up else 1
    )
    values = 2 * normed + (2 * readers * width if bf16 else 2 * 4 * width)
    for kind, q, k in (("none", 2, 2), ("full", 2, 2), ("head", 3, 2)):
        if config.qk_norm == kind:
            values += e * (q * query + k * key)
    if config.qk_norm != "none":
        values += 2 * 4 * (query + key)
    if config.fused_qkv and config.positions == "rotary":
        values += e * (query + key)  # the values' matrix holds queries and keys before their rotation too
    values += 4 * config.num_attention_heads
    values += (4 if config.mlp == "gated" else 2) * config.intermediate_size * e
    kept = step.tokens * values
    if bf16 and config.positions == "rotary":
        kept += 4 * 2 * step.context * config.head_dim  # cos and sin, cast for queries and for keys
    if config.sliding_window is not None and config.sliding_window < step.context:
        kept += e * step.context**2
    return kept


def _held(step: Step) -> Parts:
    """What lasts from step to step: fp32 weights, one moment of the matrices, two of the rest, Muon's update."""
    parameters, matrices = step.config.num_parameters(), step.matrices
    update = step.element * matrices if step.native_optimizer else 0
    return {"weights": 4 * parameters, "optimizer": 4 * matrices + 8 * (parameters - matrices) + update}


def _plain_head(step: Step) -> int:
    """The head's loss: its gradient twice over (sum and summand), copies in bf16, a chunk of logits (loss.py)."""
    vocabulary, e = step.config.vocab_size, step.element
    rows = min(step.tokens, max(64, loss.CHUNK_LOGITS // vocabulary))
    chunk = rows * vocabulary * (4 if e == 4 else 4 + 2 * 2)
    hidden = step.tokens * step.config.hidden_size * (4 if e == 4 else 2 + 2)
    return step.head * (8 if e == 4 else 4 + 2 + 2) + chunk + hidden


def _block_workspace(step: Step) -> int:
    """Gradients of activations while a block goes backwards: three of the MLP's inside and three of the stream."""
    return step.tokens * (3 * step.element * step.config.intermediate_size + 3 * 4 * step.config.hidden_size)


def _update_workspace(step: Step) -> int:
    """Newton–Schulz over the largest group of equal matrices (optimizer.py): two of its size, two of its squares."""
    config, e = step.config, step.element
    width, query, inner = config.hidden_size, config.query_width, config.intermediate_size
    layers, most = config.num_hidden_layers, 0
    for count, rows, columns in (
        (layers * (2 if config.mlp == "gated" else 1), inner, width),
        (
            layers * (4 if query == config.key_value_width == width and not config.fused_qkv else 1),
            query,
            width,
        ),
    ):
        if step.native_optimizer and e == 2 and has_tiles() and fits(rows, columns):
            continue  # in place, a matrix at a time
        group = count * rows * columns
        iteration = e * (2 * group + 2 * count * min(rows, columns) ** 2)
        most = max(most, iteration if step.native_optimizer else iteration + group * (4 + 4 + e))
    return most


def fused(step: Step) -> list[Parts]:
    """Moments of a step through the kernels: all its memory lasts from step to step, so only the update adds to it."""
    config, tokens, e = step.config, step.tokens, step.element
    width, query, key = config.hidden_size, config.query_width, config.key_value_width
    heads, inner = config.num_attention_heads, config.intermediate_size
    gated = 2 if config.mlp == "gated" else 1
    a_token = (
        8 * width + 16 + 2 * e * width + e * (query + 2 * key) + 4 * (heads + config.num_key_value_heads)
    )
    a_token += e * (4 * query + gated * inner + inner)
    chunk = min(step.context, fused_path.QUERY_CHUNK)
    # The tile unit makes scores again on the way back.
    on_tiles = e == 2 and has_tiles() and fits(step.context, config.head_dim)
    scores = 0 if on_tiles else sum(_attended(step, layer) for layer in range(config.num_hidden_layers))
    activations = tokens * a_token * config.num_hidden_layers + e * step.rows * heads * scores
    activations += tokens * (8 + 4 + e) * width
    work = tokens * (4 * width + e * (3 * width + query + (1 + gated) * inner + query + 2 * key + 4 * query))
    work += e * step.rows * heads * chunk * step.context
    rows = min(tokens, max(64, fused_path.CHUNK_LOGITS // config.vocab_size))
    lasting = _held(step) | {
        "gradients": 4 * config.num_parameters(),
        "copies": (3 if on_tiles else 2) * e * (step.matrices + step.head),
        "activations": activations,
        "head": e * rows * config.vocab_size,
    }
    return [lasting | {"workspace": work + _update_workspace(step)}]


def _attended(step: Step, layer: int) -> int:
    """Scores of a head that are kept: each chunk of queries with the keys from the first to the last that it sees."""
    window, total = step.config.window_of(layer) or 0, 0
    for first in range(0, step.context, fused_path.QUERY_CHUNK):
        end = min(first + fused_path.QUERY_CHUNK, step.context)
        total += (end - first) * (end - (max(0, first - window + 1) if window else 0))
    return total
