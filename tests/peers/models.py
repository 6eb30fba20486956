"""Small random models of every native family, built and saved by transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

VOCABULARY, WINDOW = 97, 8
_SHAPE = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 96, "max_position_embeddings": 128,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
_LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
_GPT2 = {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 128,
         "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip


def _config(kind: str, **changes: Any) -> Any:
    return getattr(transformers, kind)(**(_SHAPE | changes))


# Name of the form -> its config. Each family, and each setting that changes the arithmetic.
FORMS = {
    "gpt2": lambda: transformers.GPT2Config(**_GPT2),
    "gpt2, relu, wide": lambda: transformers.GPT2Config(**_GPT2, activation_function="relu", n_inner=160),
    "llama": lambda: _config("LlamaConfig"),
    "llama 3": lambda: _config(
        "LlamaConfig", rope_parameters=_LLAMA3, attention_bias=True, mlp_bias=True, tie_word_embeddings=True
    ),
    "llama, linear rope": lambda: _config(
        "LlamaConfig", rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0}, head_dim=32
    ),
    "mistral": lambda: _config("MistralConfig", sliding_window=WINDOW),
    "mistral, no window": lambda: _config("MistralConfig", sliding_window=None, head_dim=32),
    "qwen2": lambda: _config("Qwen2Config"),
    "qwen2, windows": lambda: _config(
        "Qwen2Config", use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1
    ),
    "qwen3": lambda: _config("Qwen3Config", head_dim=32, attention_bias=True),
    "qwen3, windows": lambda: _config(
        "Qwen3Config", head_dim=16, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=2
    ),
    "olmo2": lambda: _config("Olmo2Config"),
    "olmo2, all heads": lambda: _config("Olmo2Config", num_key_value_heads=4, attention_bias=True),
    "phi3": lambda: _config("Phi3Config"),
    "phi3, window": lambda: _config("Phi3Config", sliding_window=WINDOW, tie_word_embeddings=True),
    "smollm3": lambda: _config("SmolLM3Config", no_rope_layer_interval=2),
    "smollm3, windows": lambda: _config(
        "SmolLM3Config", no_rope_layers=[1, 0, 1], use_sliding_window=True, sliding_window=WINDOW
    ),
}  # fmt: skip


def build(form: str, folder: Path) -> Any:
    """A random model of this form, in eval mode, saved in `folder`.

    Weights are far from their usual start, so that attention is not flat and every part matters.
    """
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(FORMS[form]()).eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.06)
    model.save_pretrained(folder)
    return model


def random_ids(rows: int, length: int, seed: int = 2) -> torch.Tensor:
    """Token ids [rows, length], special ones left out."""
    return torch.randint(3, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))
