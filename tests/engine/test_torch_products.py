"""Products and functions of rows: every row has the same bits in any company, at any place, on any number of threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

from ownlm.engine.torch_products import apply, padded_rows, product
from ownlm.machine.cpu import bf16_pays

DTYPES = [torch.float32, *([torch.bfloat16] if bf16_pays() else [])]


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("inner", "outputs"), [(896, 128), (200, 96), (2048, 768), (37, 1)])
def test_a_row_of_a_product_has_the_same_bits_everywhere(
    dtype: torch.dtype, inner: int, outputs: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(outputs, inner, generator=generator).to(dtype)
    x = torch.randn(80, inner, generator=generator)
    torch.set_num_threads(1)
    whole = product(x, weight)
    torch.testing.assert_close(
        whole, x.to(dtype).double() @ weight.double().T, atol=0.3, rtol=0.02, check_dtype=False
    )
    for count in (1, 2, 4):
        torch.set_num_threads(count)
        assert torch.equal(product(x, weight), whole)
        for rows in ([5], list(range(20, 33)), [79, 3, 3, 41]):
            filled = x[rows + [0] * (padded_rows(len(rows)) - len(rows))]
            assert torch.equal(product(filled, weight)[: len(rows)], whole[rows])


@pytest.mark.parametrize("function", [F.silu, F.gelu, lambda x: F.gelu(x, approximate="tanh")])
def test_a_number_has_the_same_bits_at_the_end_of_an_array(function: object) -> None:
    x = torch.randn(200_100, generator=torch.Generator().manual_seed(0)) * 3
    torch.set_num_threads(1)
    whole = apply(function, x)  # type: ignore[arg-type]
    for count in (2, 3):
        torch.set_num_threads(count)
        assert torch.equal(apply(function, x), whole)  # type: ignore[arg-type]
        for length in (1, 3, 17, 31, 33, 63, 65, 99_999):
            assert torch.equal(apply(function, x[7 : 7 + length]), whole[7 : 7 + length])  # type: ignore[arg-type]
