"""Builds the native kernels where a C++ compiler is; without one the package installs all the same, and runs on torch.

Everything else about the package is in pyproject.toml.
"""

from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FLAGS = {
    "unix": [
        "-std=c++17",
        "-O3",
        "-fopenmp-simd",
        "-fno-math-errno",
        "-fno-trapping-math",
        "-fvisibility=hidden",
    ],
    "msvc": ["/std:c++17", "/O2", "/openmp:experimental"],
}

# The same bits however many rows are computed together: no product is joined with a sum but where the source says so.
EXACT = {"unix": ["-ffp-contract=off"], "msvc": ["/fp:precise"]}


class BuildKernels(build_ext):
    """A library with a C interface: it is loaded through ctypes and is no Python module."""

    def build_extension(self, ext):
        kind = self.compiler.compiler_type
        ext.extra_compile_args = FLAGS.get(kind, []) + EXACT.get(kind, []) * (ext is INFERENCE)
        super().build_extension(ext)

    def get_export_symbols(self, ext):
        return []  # an initialising function for Python is not there


KERNELS = Extension(
    "ownlm.kernels._native",
    sources=["src/ownlm/kernels/native.cpp"],
    depends=[
        f"src/ownlm/kernels/{name}.h"
        for name in (
            "numbers",
            "parallel",
            "platform",
            "training",
            "optimizer",
            "amx",
            "amx_attention",
            "amx_muon",
        )
    ],
    language="c++",
    optional=True,
)

INFERENCE = Extension(
    "ownlm.kernels._inference",
    sources=["src/ownlm/kernels/inference/engine.cpp"],
    depends=[
        "src/ownlm/kernels/platform.h",
        *(str(path) for path in sorted(Path("src/ownlm/kernels/inference").glob("*.h"))),
    ],
    language="c++",
    optional=True,
)

setup(ext_modules=[KERNELS, INFERENCE], cmdclass={"build_ext": BuildKernels})
