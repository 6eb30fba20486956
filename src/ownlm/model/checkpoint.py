"""Weights to and from a Hugging Face folder: config.json and model.safetensors. Nothing is ever pickled."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ownlm.console.errors import Refused, UsageError
from ownlm.model.config import ModelConfig
from ownlm.model.families import from_hugging_face, to_hf_name, to_hugging_face
from ownlm.model.transformer import Transformer

FP32_LIMIT = 350_000_000  # parameters up to which a finished run stores fp32; above it bf16 (DESIGN)


def save_model(
    model: Transformer, folder: Path, special_ids: dict[str, int], dtype: torch.dtype | None = None
) -> None:
    """Write config.json and model.safetensors, each under a temporary name first.

    Args:
        special_ids: bos/eos/pad token ids for config.json.
        dtype: of the stored weights; None: fp32 up to 350M parameters, else bf16.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if dtype is None:
        dtype = torch.float32 if model.num_parameters() <= FP32_LIMIT else torch.bfloat16
    content = to_hugging_face(model.config, special_ids) | {"dtype": str(dtype).removeprefix("torch.")}
    tensors = {
        to_hf_name(name, model.config.architecture): p.detach().to(device="cpu", dtype=dtype).contiguous()
        for name, p in model.named_parameters()
    }
    save_tensors(tensors, folder / "model.safetensors")
    write_json(folder / "config.json", content)


def save_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write a safetensors file atomically: a kill leaves the old file or the new one, never a half."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        save_file(tensors, temporary, metadata={"format": "pt"})
    except SafetensorError as error:
        temporary.unlink(missing_ok=True)
        if "No space left" in str(error) or "os error 28" in str(error):
            raise OSError(28, os.strerror(28), str(path)) from error
        raise
    with temporary.open("rb") as written:
        os.fsync(written.fileno())
    temporary.replace(path)


def write_json(path: Path, content: object) -> None:
    """Write JSON atomically."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)


def load_config(folder: Path) -> ModelConfig:
    """The model config of a folder."""
    path = folder / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(
            "there is no model in this folder (no config.json).", where=folder, do="ownlm runs"
        ) from None
    except ValueError as error:
        raise Refused(f"not valid JSON: {error}.", where=path) from None
    if not isinstance(content, dict):
        raise Refused("not a model configuration.", where=path)
    return from_hugging_face(content, path)


def load_model(
    folder: Path | str, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> Transformer:
    """Open a folder as a `Transformer` in eval mode, weight by weight from the memory-mapped file.

    Raises:
        UsageError: no model there. Refused: missing or misshapen weights, names that do not belong.
    """
    folder = Path(folder)
    config = load_config(folder)
    path = folder / "model.safetensors"
    if not path.exists():
        raise UsageError("the weights are missing (no model.safetensors).", where=folder, do="ownlm runs")
    with torch.device("meta"):
        model = Transformer(config)
    wanted = {to_hf_name(name, config.architecture): name for name, _ in model.named_parameters()}
    model.to_empty(device=device)
    if dtype is not None:
        model.to(dtype)
    parameters = dict(model.named_parameters())
    try:
        with safe_open(path, framework="pt") as stored:
            names = set(stored.keys())
            missing = sorted(set(wanted) - names)
            unknown = sorted(names - set(wanted) - {"lm_head.weight"})
            if missing or unknown:
                word, listed = ("missing", missing) if missing else ("unknown", unknown)
                raise Refused(f"{len(listed)} {word} weights, first: {listed[0]}.", where=path)
            for theirs, ours in wanted.items():
                tensor = stored.get_tensor(theirs)
                if tensor.shape != parameters[ours].shape:
                    raise Refused(
                        f"{theirs} is {list(tensor.shape)}, the config wants {list(parameters[ours].shape)}.",
                        where=path,
                    )
                parameters[ours].data.copy_(tensor)
    except SafetensorError as error:
        raise Refused(f"not a safetensors file: {error}.", where=path) from None
    return model.eval()
