"""Which backend computes a model: the native kernels on a CPU, torch elsewhere and where they were not built."""

from __future__ import annotations

from pathlib import Path

import torch

from ownlm.console.errors import UsageError
from ownlm.engine import native_backend
from ownlm.engine.backend import Backend
from ownlm.engine.memory_plan import refuse_too_large
from ownlm.engine.native_backend import NativeBackend
from ownlm.engine.quantized import Quantized, config_of, dequantize, stored_weights
from ownlm.engine.torch_backend import TorchBackend, chosen_dtype
from ownlm.model.checkpoint import load_model, read_config, stored_dtype
from ownlm.model.transformer import Transformer

BACKENDS = ("native", "torch")
NATIVE_DTYPES = ("float32", "bfloat16", "int8", "int4")
NOT_BUILT = "the native kernels were not built on this machine"


def takes_native(backend: str | None, device: torch.device) -> bool:
    """Whether the native kernels compute on this device.

    Args:
        backend: what was asked for; None: native where it can.

    Raises:
        UsageError: an unknown backend, or native where it cannot be.
    """
    if backend not in (None, *BACKENDS):
        raise UsageError(f'there is no backend "{backend}".', where="backend", do=" or ".join(BACKENDS))
    why = f"They are for CPUs, not for {device}." if device.type != "cpu" else ""
    if not why and not native_backend.available():
        why = f"Now {NOT_BUILT}."
    if backend == "native" and why:
        raise UsageError("the native kernels cannot be used.", where="backend", why=why, do='backend="torch"')
    return backend != "torch" and not why


def backend_of(
    model: Transformer,
    *,
    dtype: str = "auto",
    device: str | None = None,
    max_context: int | None = None,
    backend: str | None = None,
) -> Backend:
    """A backend for a model in memory, which stays as it is; see `Engine` for the arguments.

    Raises:
        UsageError: a dtype, context or backend that cannot be.
    """
    own = model.embedding.weight
    where = own.device if device is None else torch.device(device)
    if takes_native(backend, where):
        name = _native_dtype(dtype, own.dtype)
        return NativeBackend.of(model, name, max_context=max_context)
    _refuse_integers(dtype)
    return TorchBackend(model, dtype, device, max_context)


def open_folder(
    folder: Path,
    *,
    dtype: str = "auto",
    device: str = "cpu",
    max_context: int | None = None,
    backend: str | None = None,
) -> Backend:
    """A backend for a folder of a built-in family; memory is looked at before anything is read.

    Raises:
        UsageError: no model there; a dtype, context or backend that cannot be. Refused: damaged, or too large.
    """
    where = torch.device(device)
    config, bits = config_of(folder)
    own = stored_dtype(read_config(folder))
    if takes_native(backend, where):
        name = f"int{bits}" if bits and dtype == "auto" else _native_dtype(dtype, own)
        refuse_too_large(config, name, where)
        return NativeBackend.open(folder, name, max_context=max_context)
    _refuse_integers(dtype)
    held = chosen_dtype(dtype, own, where)
    refuse_too_large(config, str(held).removeprefix("torch."), where)
    return TorchBackend(torch_model(folder, device, held), dtype, max_context=max_context)


def torch_model(folder: Path, device: str, dtype: torch.dtype) -> Transformer:
    """A folder as a torch model; quantised weights become floats again.

    Raises:
        UsageError: no model there. Refused: damaged.
    """
    config, bits = config_of(folder)
    if not bits:
        return load_model(folder, device=device, dtype=dtype)
    with torch.device(device):
        model = Transformer(config).to(dtype)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, values in stored_weights(folder):
            parameters[name].copy_(dequantize(values) if isinstance(values, Quantized) else values)
    return model.eval()


def _native_dtype(dtype: str, own: torch.dtype) -> str:
    """The dtype of packed weights: the stored one, unless another was asked for."""
    if dtype == "auto":
        return "bfloat16" if own == torch.bfloat16 else "float32"
    if dtype not in NATIVE_DTYPES:
        known = ", ".join(("auto", *NATIVE_DTYPES))
        raise UsageError(f'there is no dtype "{dtype}".', where="dtype", do=known)
    return dtype


def _refuse_integers(dtype: str) -> None:
    if dtype in ("int8", "int4"):
        raise UsageError(
            f"{dtype} needs the native kernels, which are for CPUs.",
            where="dtype",
            why="" if native_backend.available() else f"Now {NOT_BUILT}.",
            do="dtype bfloat16 or float32",
        )
