"""The native library: found, loaded through ctypes, its functions typed. None where it was not built."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.machinery
import os
import sys
from collections.abc import Iterator
from ctypes import c_float, c_int, c_int64, c_void_p
from pathlib import Path

LEVELS = ("portable", "avx2", "avx512")

_P, _N, _I, _F = c_void_p, c_int64, c_int, c_float
SIGNATURES: dict[str, list[object]] = {
    "norm_forward": [_I, *[_P] * 8, _N, _N, _F],
    "norm_backward": [_I, *[_P] * 5, _I, *[_P] * 4, _N, _N],
    "heads_forward": [_I, *[_P] * 9, *[_N] * 5, _F],
    "heads_backward": [_I, *[_P] * 11, *[_N] * 5],
    "swap_heads": [_I, _P, _P, *[_N] * 4],
    "softmax_forward": [_I, _P, *[_N] * 4, _P, *[_N] * 3, _F],
    "softmax_backward": [_I, _P, _P, *[_N] * 4, _P, *[_N] * 3, _F],
    "swiglu_forward": [_I, _P, _P, _N, _N],
    "swiglu_backward": [_I, _P, _P, _P, _N, _N],
    "gelu_forward": [_I, _P, _P, _N],
    "gelu_backward": [_I, _P, _P, _P, _N],
    "cross_entropy": [_I, _P, _P, _P, _N, _N, _N, _F],
    "embedding_backward": [_P, _P, _P, _N, _N],
    "sum_rows": [_I, _P, _P, _N, _N],
    "add_partials": [_P, _N, _N, _P, _I],
    "muon_momentum": [_I, *[_P] * 4, _N, _N, _F],
    "muon_apply": [_I, _P, _P, _N, _N, _F, _F],
    "amx_product": [_P, _N, _P, _P, _P, *[_N] * 4],
    "amx_weight_gradient": [_P, _N, _P, _P, _N, _N, _N, _I],
    "amx_pack": [_P, _N, _P, _N, _N],
    "amx_pack_transposed": [_P, _N, _P, _N, _N],
    "amx_newton_schulz": [_P, _N, _N, _N, _P, _N],
    "amx_attention_forward": [*[_P] * 5, *[_N] * 4, _P, _F],
    "amx_attention_backward": [*[_P] * 8, *[_N] * 4, _P, _F],
    "set_runtime": [_P, _P],
    "set_threads": [_I],
}


@functools.cache
def library() -> ctypes.CDLL | None:
    """The loaded library, tied to torch's OpenMP threads; None where it was not built or OWNLM_NATIVE=0."""
    if os.environ.get("OWNLM_NATIVE") == "0":
        return None
    path = built("_native")
    if path is None:
        return None
    loaded = ctypes.CDLL(str(path))
    for name, types in SIGNATURES.items():
        function = getattr(loaded, f"ownlm_{name}", None)
        if function is None and name.startswith("amx_"):
            continue  # built for another processor
        assert function is not None, name
        function.argtypes, function.restype = types, None
    loaded.ownlm_block_rows.restype = loaded.ownlm_piece.restype = c_int64
    runtime = _openmp()
    if runtime is not None:
        loaded.ownlm_set_runtime(
            ctypes.cast(runtime.GOMP_parallel, c_void_p), ctypes.cast(runtime.omp_get_thread_num, c_void_p)
        )
    return loaded


def built(name: str) -> Path | None:
    """Where a library of this folder lies, or None: `_native` for training, `_inference` for the engine."""
    here = Path(__file__).parent
    for suffix in (*importlib.machinery.EXTENSION_SUFFIXES, ".dylib"):
        path = here / f"{name}{suffix}"
        if path.exists():
            return path
    return None


def _openmp() -> ctypes.CDLL | None:
    """The OpenMP runtime that torch has loaded, when it has GNU's interface (libgomp; LLVM's has it on Linux)."""
    import torch

    folder = Path(torch.__file__).parent / "lib"
    found = [*folder.glob("libgomp*"), *folder.glob("libiomp5*"), *folder.glob("libomp*")]
    found += [*(folder.parent.parent / "torch.libs").glob("libgomp*")]
    names = [str(path) for path in found] or (["libgomp.so.1"] if sys.platform == "linux" else [])
    for name in names:
        with contextlib.suppress(OSError, AttributeError):
            runtime = ctypes.CDLL(name)
            if runtime.GOMP_parallel and runtime.omp_get_thread_num:
                return runtime
    return None


@functools.cache
def has_tiles() -> bool:
    """Whether matrix products can run on the processor's tile unit (AMX)."""
    loaded = library()
    return loaded is not None and bool(loaded.ownlm_has_amx())


def level() -> str:
    """The instruction set in use: portable, avx2, avx512; "none" without the library."""
    loaded = library()
    return LEVELS[loaded.ownlm_level()] if loaded is not None else "none"


@contextlib.contextmanager
def at_level(name: str) -> Iterator[str]:
    """Run with a lower instruction set than the best one; gives the one that is really used."""
    loaded = library()
    assert loaded is not None
    before = loaded.ownlm_level()
    try:
        yield LEVELS[loaded.ownlm_set_level(LEVELS.index(name))]
    finally:
        loaded.ownlm_set_level(before)
