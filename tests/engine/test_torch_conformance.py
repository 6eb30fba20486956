"""The torch backend keeps what every backend must keep, in fp32 and, where the processor has it, in bf16."""

from __future__ import annotations

import pytest

from ownlm.engine.torch_backend import TorchBackend
from ownlm.machine.cpu import bf16_pays
from ownlm.model.transformer import Transformer

from .conformance import Conformance


class TestFloat32(Conformance):
    def backend(self, model: Transformer) -> TorchBackend:
        return TorchBackend(model, "float32")


@pytest.mark.skipif(
    not bf16_pays(), reason="this processor emulates bf16, and its order of addition is unknown"
)
class TestBfloat16(Conformance):
    tolerance = 0.12

    def backend(self, model: Transformer) -> TorchBackend:
        return TorchBackend(model, "bfloat16")
