"""The description of a causal Transformer: what varies between families is a field here, not a subclass."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ownlm.console.errors import UsageError, did_you_mean

MAX_LAYERS, MAX_WIDTH, MAX_VOCABULARY, MAX_CONTEXT = 1_000, 65_536, 4_000_000, 16_777_216


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched for windows longer than those of the first training.

    Args:
        rope_type: linear: all by `factor` (Chen et al. 2023, arXiv 2306.15595); llama3: the slow ones by
            `factor`, the fast ones not, those between gradually (Llama team 2024, arXiv 2407.21783, §3.2).
        low_freq_factor, high_freq_factor: turns within the original window, below and above which a frequency
            counts as slow and fast.
        original_max_position_embeddings: that window.
    """

    rope_type: Literal["linear", "llama3"]
    factor: float
    original_max_position_embeddings: int = 8192
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0

    def to_hugging_face(self) -> dict[str, Any]:
        """For config.json."""
        if self.rope_type == "linear":
            return {"rope_type": "linear", "factor": self.factor}
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class ModelConfig:
    """All that is needed to build a `Transformer`; field names follow Hugging Face configs where they exist.

    Args:
        vocab_size: number of token ids.
        hidden_size: width C of the residual stream.
        num_hidden_layers: number of blocks.
        num_attention_heads: query heads; a multiple of `num_key_value_heads` (grouped-query attention,
            Ainslie et al. 2023, arXiv 2305.13245).
        num_key_value_heads: key and value heads.
        head_dim: width of one head.
        intermediate_size: inner width of the MLP.
        max_position_embeddings: the context: longest sequence the model was made for, in tokens.
        norm: root mean square (Zhang & Sennrich 2019) or layer norm.
        norm_placement: on a block's input (GPT-2, Llama) or on its output (OLMo 2).
        positions: rotary (Su et al. 2021), learned, or none.
        rope_scaling: stretched frequencies (Llama 3.1), or None.
        no_rope_layers: indexes of the layers without rotary positions (SmolLM3).
        qk_norm: normalise queries and keys per head (Qwen3), over the full width (OLMo 2), or not.
        attention_bias: biases on q, k, v. `attention_output_bias`: on the output projection.
        fused_qkv: q, k, v are one matrix (GPT-2's c_attn), as in the family's checkpoints.
        mlp: gated (Shazeer 2020) or plain two-matrix MLP. `fused_gate_up`: gate and up are one matrix (Phi-3).
        tie_word_embeddings: the head is the token embedding.
        sliding_window: tokens a query sees (itself included) in the layers of `window_layers`; None: all.
        window_layers: indexes of the layers with the window; None: every layer.
        attention_scale: factor on q·k; None: 1/sqrt(head_dim).
        causal: position i sees only j <= i.
        initializer_range: standard deviation of the embeddings at the start.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    max_position_embeddings: int
    architecture: str = "qwen3"
    norm: Literal["rms", "layer"] = "rms"
    norm_placement: Literal["before", "after"] = "before"
    norm_eps: float = 1e-6
    positions: Literal["rotary", "learned", "none"] = "rotary"
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    no_rope_layers: tuple[int, ...] = ()
    qk_norm: Literal["none", "head", "full"] = "head"
    attention_bias: bool = False
    attention_output_bias: bool = False
    fused_qkv: bool = False
    mlp: Literal["gated", "plain"] = "gated"
    activation: Literal["silu", "gelu", "gelu_tanh", "relu", "relu2"] = "silu"
    mlp_bias: bool = False
    fused_gate_up: bool = False
    tie_word_embeddings: bool = True
    sliding_window: int | None = None
    window_layers: tuple[int, ...] | None = None
    attention_scale: float | None = None
    causal: bool = True
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        limits = {
            "vocab_size": MAX_VOCABULARY,
            "hidden_size": MAX_WIDTH,
            "num_hidden_layers": MAX_LAYERS,
            "num_attention_heads": MAX_WIDTH,
            "num_key_value_heads": MAX_WIDTH,
            "head_dim": MAX_WIDTH,
            "intermediate_size": 16 * MAX_WIDTH,
            "max_position_embeddings": MAX_CONTEXT,
        }
        check_limits(self, limits)
        for field in dataclasses.fields(self):
            self._check_choice(field.name)
        if self.num_attention_heads % self.num_key_value_heads:
            raise UsageError(
                f"num_attention_heads ({self.num_attention_heads}) is not a multiple of "
                f"num_key_value_heads ({self.num_key_value_heads}).",
                where="model config",
            )
        if self.positions == "rotary" and self.head_dim % 2:
            raise UsageError(
                f"rotary positions need an even head_dim, not {self.head_dim}.", where="model config"
            )
        if self.sliding_window is not None and self.sliding_window < 1:
            raise UsageError(
                f"sliding_window is {self.sliding_window}; it must be at least 1.", where="model config"
            )

    def _check_choice(self, name: str) -> None:
        annotation = _hints()[name]
        if get_origin(annotation) is Literal and getattr(self, name) not in get_args(annotation):
            choices = ", ".join(get_args(annotation))
            raise UsageError(f"{name} is {getattr(self, name)!r}; known: {choices}.", where="model config")

    @property
    def query_width(self) -> int:
        """Width of all query heads together."""
        return self.num_attention_heads * self.head_dim

    @property
    def key_value_width(self) -> int:
        """Width of all key heads (and of all value heads)."""
        return self.num_key_value_heads * self.head_dim

    def window_of(self, layer: int) -> int | None:
        """Tokens a query of this layer sees, itself included; None: all before it."""
        if self.sliding_window is None or (
            self.window_layers is not None and layer not in self.window_layers
        ):
            return None
        return self.sliding_window

    def changed(self, assignments: dict[str, Any]) -> ModelConfig:
        """A copy with fields replaced (`--set name=value`); unknown names and wrong types are refused."""
        known = {field.name for field in dataclasses.fields(self)}
        checked: dict[str, Any] = {}
        for name, value in assignments.items():
            if name not in known:
                raise UsageError(
                    f'the model has no field "{name}".{did_you_mean(name, known)}', where="--set"
                )
            checked[name] = _converted(name, value)
        return dataclasses.replace(self, **checked)

    def parameter_counts(self) -> dict[str, int]:
        """Number of weights by part; `Transformer` asserts that its tensors add up to the same."""
        width, query, kv = self.hidden_size, self.query_width, self.key_value_width
        attention = width * (query + 2 * kv) + query * width
        attention += (query + 2 * kv) * self.attention_bias + width * self.attention_output_bias
        matrices = 3 if self.mlp == "gated" else 2
        mlp = matrices * width * self.intermediate_size
        mlp += (self.intermediate_size * (matrices - 1) + width) * self.mlp_bias
        per_norm = width * (2 if self.norm == "layer" else 1)
        qk = {"none": 0, "head": 2 * self.head_dim, "full": query + kv}[self.qk_norm]
        layers = self.num_hidden_layers
        return {
            "embedding": self.vocab_size * width,
            "position": self.max_position_embeddings * width if self.positions == "learned" else 0,
            "attention": layers * attention,
            "mlp": layers * mlp,
            "norm": layers * (2 * per_norm + qk) + per_norm,
            "head": 0 if self.tie_word_embeddings else self.vocab_size * width,
        }

    def num_parameters(self) -> int:
        """All weights, a tied head counted once."""
        return sum(self.parameter_counts().values())

    def flops_per_token(self, context: int, *, training: bool = True) -> float:
        """Floating-point operations a token costs.

        Forward: 2 a weight of every matrix (embedding lookups are free, the head is a matrix), plus
        4 · layers · query width · attended tokens for q·k and the weighted values; a causal model attends to
        half of the context on average. Training is three times the forward pass (Kaplan et al. 2020, §2.1).
        """
        counts = self.parameter_counts()
        matrices = counts["attention"] + counts["mlp"] + self.vocab_size * self.hidden_size
        attended = sum(self._mean_attended(layer, context) for layer in range(self.num_hidden_layers))
        forward = 2 * matrices + 4 * self.query_width * attended
        return forward * (3 if training else 1)

    def _mean_attended(self, layer: int, context: int) -> float:
        """Mean number of tokens a query of this layer sees in a full context."""
        if not self.causal:
            return context
        window = min(self.window_of(layer) or context, context)
        # The first `window` queries see 1, 2, ... window tokens, all later ones see `window`.
        return (window * (window + 1) / 2 + (context - window) * window) / context

    def key_value_bytes_per_token(self, bytes_per_value: int = 4) -> int:
        """Bytes of key-value cache one token takes over all layers."""
        return 2 * self.num_hidden_layers * self.key_value_width * bytes_per_value


def check_limits(config: object, limits: dict[str, int]) -> None:
    """Refuse a config whose fields do not lie between 1 and their limits.

    Raises:
        UsageError: the first such field, by name.
    """
    for name, limit in limits.items():
        value = getattr(config, name)
        if not 1 <= value <= limit:
            raise UsageError(
                f"{name} is {value:,}; it must lie between 1 and {limit:,}.", where="model config"
            )


def _hints() -> dict[str, Any]:
    return get_type_hints(ModelConfig)


def _converted(name: str, value: Any) -> Any:
    """A value from the command line or YAML as the field's own type."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(_hints()[name]).validate_python(value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise UsageError(f"{name}={value!r}: {reason}.", where="--set") from None
