"""The native inference library: found, loaded through ctypes, its functions typed. None where it was not built.

kernels/inference/ holds the C++ source; `Structure`s here repeat its structs, field by field.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
from collections.abc import Iterator
from ctypes import POINTER, c_float, c_int, c_int32, c_int64, c_uint8, c_void_p
from pathlib import Path

from ownlm.kernels.library import built

LEVELS = ("portable", "avx2", "avx512", "amx")
WEIGHTS = ("float32", "bfloat16", "int8", "int4")
SOURCES = ("float32", "bfloat16", "float16", "int8", "int4")
NORMS, POSITIONS = ("rms", "layer"), ("none", "rotary", "learned")
QK_NORMS, ACTIVATIONS = ("none", "head", "full"), ("silu", "gelu", "gelu_tanh", "relu", "relu2")

_SHAPE_SIZES = ("vocabulary", "width", "layers", "heads", "key_heads", "head_width", "inner", "context")
_SHAPE_KINDS = ("weights", "norm", "norm_after", "positions", "qk_norm", "gated", "activation", "tied")


class ModelShape(ctypes.Structure):
    """`ModelShape` of inference/model.h."""

    _fields_ = (
        *((name, c_int64) for name in _SHAPE_SIZES),
        *((name, c_int32) for name in _SHAPE_KINDS),
        ("norm_eps", c_float),
        ("attention_scale", c_float),
        ("windows", POINTER(c_int64)),
        ("rotary_layers", POINTER(c_uint8)),
        ("cosines", c_void_p),
        ("sines", c_void_p),
    )


class StepCall(ctypes.Structure):
    """`StepCall` of inference/step.h."""

    _fields_ = (
        ("rows", c_int64),
        ("pieces", c_int64),
        ("ids", c_void_p),
        ("positions", c_void_p),
        ("first_rows", c_void_p),
        ("blocks", c_void_p),
        ("first_blocks", c_void_p),
        ("outputs", c_void_p),
        ("first_outputs", c_void_p),
        ("adapters", c_void_p),
        ("hidden", c_int32),
        ("out", c_void_p),
    )


_P, _L, _I = c_void_p, c_int64, c_int32
SIGNATURES: dict[str, tuple[object, list[object]]] = {
    "level": (c_int, []),
    "set_level": (c_int, [c_int]),
    "create": (_P, [POINTER(ModelShape)]),
    "destroy": (None, [_P]),
    "pack": (None, [_P, _L, _I, _L, _L, _I, _P, _P, c_int]),
    "set_vector": (None, [_P, _L, _I, _I, _L, _L, _P]),
    "reserve": (c_int, [_P, _L]),
    "block_bytes": (_L, [_P]),
    "weight_bytes": (_L, [_P]),
    "copy_block": (None, [_P, _L, _L]),
    "add_adapter": (_L, [_P]),
    "remove_adapter": (None, [_P, _L]),
    "add_delta": (None, [_P, _L, _L, _I, _L, _L, _L, _L, _P, _P]),
    "product": (None, [_P, _L, _I, _L, _P, _P, c_int]),
    "step": (c_int, [_P, POINTER(StepCall), c_int]),
}


@functools.cache
def library() -> ctypes.CDLL | None:
    """The loaded library; None where it was not built or OWNLM_NATIVE=0.

    OWNLM_NATIVE_LEVEL=portable|avx2|avx512|amx takes a lower instruction set than the best one.
    """
    if os.environ.get("OWNLM_NATIVE") == "0":
        return None
    path = built("_inference")
    return None if path is None else opened(path)


def opened(path: Path) -> ctypes.CDLL:
    """The library at this place, its functions typed.

    Raises:
        ValueError: OWNLM_NATIVE_LEVEL names no instruction set.
    """
    loaded = ctypes.CDLL(str(path))
    for name, (result, types) in SIGNATURES.items():
        function = getattr(loaded, f"ownlm_inference_{name}")
        function.restype, function.argtypes = result, types
    if wanted := os.environ.get("OWNLM_NATIVE_LEVEL"):
        if wanted not in LEVELS:
            raise ValueError(f"OWNLM_NATIVE_LEVEL={wanted}; known: {', '.join(LEVELS)}")
        loaded.ownlm_inference_set_level(LEVELS.index(wanted))
    return loaded


def level() -> str:
    """The instruction set in use: one of `LEVELS`; "none" without the library."""
    loaded = library()
    return LEVELS[loaded.ownlm_inference_level()] if loaded is not None else "none"


@contextlib.contextmanager
def at_level(name: str) -> Iterator[str]:
    """Run with a lower instruction set than the best one; gives the one that is really used."""
    loaded = library()
    assert loaded is not None
    before = loaded.ownlm_inference_level()
    try:
        yield LEVELS[loaded.ownlm_inference_set_level(LEVELS.index(name))]
    finally:
        loaded.ownlm_inference_set_level(before)
