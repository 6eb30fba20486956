"""Builds the native kernels where a C++ compiler is; without one the package installs all the same, and runs on torch.

Everything else about the package is in pyproject.toml.
"""

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


class BuildKernels(build_ext):
    """A library with a C interface: it is loaded through ctypes and is no Python module."""

    def build_extension(self, ext):
        ext.extra_compile_args = FLAGS.get(self.compiler.compiler_type, [])
        super().build_extension(ext)

    def get_export_symbols(self, ext):
        return []  # an initialising function for Python is not there


KERNELS = Extension(
    "ownlm.kernels._native",
    sources=["src/ownlm/kernels/native.cpp"],
    depends=[
        f"src/ownlm/kernels/{name}.h"
        for name in ("numbers", "parallel", "training", "optimizer", "amx", "amx_attention", "amx_muon")
    ],
    language="c++",
    optional=True,
)

setup(ext_modules=[KERNELS], cmdclass={"build_ext": BuildKernels})
