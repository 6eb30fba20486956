"""The native backend keeps what every backend must: the same suite, for every dtype."""

from __future__ import annotations

import pytest

from ownlm.engine import native_backend
from ownlm.engine.backend import Backend
from ownlm.engine.native_backend import NativeBackend
from ownlm.model.transformer import Transformer

from .conformance import Conformance

pytestmark = pytest.mark.skipif(not native_backend.available(), reason="the native kernels were not built")


class Native(Conformance):
    dtype: str

    def backend(self, model: Transformer) -> Backend:
        return NativeBackend.of(model, self.dtype, threads=2)


class TestFloat32(Native):
    dtype = "float32"


class TestBfloat16(Native):
    dtype = "bfloat16"
    tolerance = 0.12


# How far whole numbers are from the fp32 model is for test_native_backend; here they are held against themselves.
class TestInt8(Native):
    dtype, tolerance = "int8", 1.0


class TestInt4(Native):
    dtype, tolerance = "int4", 10.0
