"""When torch's compiler is asked, and that compiled blocks train as the others do."""

from __future__ import annotations

import functools
import json

import pytest
import torch
from safetensors.torch import load_file

from ownlm.cli import main
from ownlm.console.errors import Refused
from ownlm.machine.system import compiler
from ownlm.training import compiled
from ownlm.training.compiled import decide


def test_a_run_is_compiled_when_the_saving_pays_for_the_cost():
    cost, saving = compiled.ASSUMED_COST["cpu"], compiled.ASSUMED_SAVING["cpu"]
    assert not decide("auto", "cpu", fused=False, seconds=cost / saving - 1)
    assert decide("auto", "cpu", fused=False, seconds=cost / saving + 1)
    assert not decide("no", "cpu", fused=False, seconds=1e9)
    assert not decide("auto", "cpu", fused=True, seconds=1e9)
    assert not decide("auto", "mps", fused=False, seconds=1e9)


@pytest.mark.parametrize(("device", "fused", "why"), [("cpu", True, "kernels"), ("mps", False, "mps")])
def test_compiling_that_cannot_be_done_is_refused(device, fused, why):
    with pytest.raises(Refused, match=why):
        decide("yes", device, fused, 1.0)


def test_without_a_compiler_nothing_is_compiled(monkeypatch):
    monkeypatch.setattr(compiled, "compiler", lambda: "")
    assert not decide("auto", "cpu", fused=False, seconds=1e9)
    with pytest.raises(Refused, match=r"C\+\+"):
        decide("yes", "cpu", fused=False, seconds=1.0)


def trained(corpus, folder, asked):
    # OLMo 2's layout is not covered by the native kernels.
    words = ["--architecture", "olmo2", "--max-steps", "4", "--dtype", "float32", "--eval-steps", "2"]
    words += ["--size", "1M", "--set", "hidden_size=64", "--set", "num_hidden_layers=2", "--context", "32"]
    assert main(["pretrain", str(corpus), "-o", str(folder), "--compile", asked, *words]) == 0
    assert json.loads((folder / "run.json").read_text())["plan"]["compile"] == (asked == "yes")
    return load_file(folder / "model.safetensors")


def assert_close(first, second):
    assert first.keys() == second.keys()
    for key in first:
        torch.testing.assert_close(first[key], second[key], rtol=0, atol=1e-5)


def test_compiled_blocks_train_as_the_others_do(corpus, tmp_path, monkeypatch):
    """With the compiler's front end alone, so that it takes seconds."""
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    assert_close(trained(corpus, tmp_path / "compiled", "yes"), trained(corpus, tmp_path / "plain", "no"))
    assert len(graphs) == 1  # both blocks share it, and neither validation nor samples asked for another


@pytest.mark.long
@pytest.mark.skipif(not compiler(), reason="no C++ compiler")
def test_the_whole_compiler_trains_as_torch_does(corpus, tmp_path):
    assert_close(trained(corpus, tmp_path / "compiled", "yes"), trained(corpus, tmp_path / "plain", "no"))
