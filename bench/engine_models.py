"""The models of engine_speed and engine_quality: folders with random weights, the same weights as GGUF files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from ownlm.corpus.train_tokenizer import train_tokenizer
from ownlm.model.checkpoint import save_model
from ownlm.model.config import ModelConfig
from ownlm.model.families import FAMILIES
from ownlm.model.transformer import Transformer

HERE = Path(__file__).parent
PAIRS = {
    "float32": "f32",
    "bfloat16": "f16",
    "int8": "q8_0",
    "int4": "q4_0",
}  # ours: the peer's of as many bits


def _config(architecture: str, *numbers: int, tied: bool, **fields: float | str) -> ModelConfig:
    """`numbers`: vocabulary, width, layers, heads, key-value heads, head size, inner width, context."""
    both = {**FAMILIES[architecture].fixed, "tie_word_embeddings": tied, **fields}
    return ModelConfig(*numbers, architecture=architecture, **both)


SHAPES = {
    "124M": _config(
        "gpt2", 50257, 768, 12, 12, 12, 64, 3072, 1024, tied=True, activation="gelu_tanh", norm_eps=1e-5
    ),
    "0.6B": _config("qwen3", 151936, 1024, 28, 16, 8, 128, 3072, 4096, tied=True, rope_theta=1e6),
    "1.1B": _config("llama", 32000, 2048, 22, 32, 4, 64, 5632, 2048, tied=False, norm_eps=1e-5),
}
TINY = {
    "tiny gpt2": _config(
        "gpt2", 512, 64, 2, 4, 4, 16, 256, 128, tied=True, activation="gelu_tanh", norm_eps=1e-5
    ),
    "tiny llama": _config("llama", 512, 128, 2, 4, 2, 32, 160, 128, tied=False, norm_eps=1e-5),
    "tiny qwen3": _config("qwen3", 512, 64, 2, 4, 2, 32, 160, 128, tied=True, rope_theta=1e6),
}


def write_folder(folder: Path, config: ModelConfig) -> None:
    """A model whose matrices keep the size of what they are given, in bf16, with a tokenizer that nobody asks."""
    model = Transformer(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            draw = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                parameter.copy_(0.1 * draw + name.endswith("norm.weight"))
            else:
                parameter.copy_(draw / parameter.shape[1] ** 0.5)
    text = "The quick brown fox jumps over the lazy dog. " * 50
    tokenizer = train_tokenizer([text], vocab_size=None, kind="char", corpus_bytes=len(text))
    save_model(model, folder, {}, torch.bfloat16)
    tokenizer.save(folder)


def gguf_of(folder: Path, kind: str, python: Path, target_folder: Path | None = None) -> Path:
    """The GGUF file of a model, written by the peer's Python when it is not there yet; beside the model if not said."""
    target = (target_folder or folder) / f"{kind}.gguf"
    if not target.exists():
        command = [str(python), str(HERE / "gguf_file.py"), str(folder), str(target), "--type", kind]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            target.unlink(missing_ok=True)
            sys.exit(f"gguf_file ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return target
