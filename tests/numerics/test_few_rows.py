"""Products with few rows on the left: those of torch up to rounding, of any layout, and the same bits in any batch."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from qthink_core.numerics import few_rows
from qthink_core.numerics.few_rows import MOST, product
from qthink_core.numerics.products import chosen_for_speed

# The design's bound for float32 sums in another order, relative to the largest value.
TOLERANCE = 3e-6
N, H, C, X = 5, 3, 40, 24
measured = pytest.mark.skipif(not chosen_for_speed(), reason="sums of rows are not used on this processor")
LAYOUTS: dict[str, Callable[[], Tensor]] = {
    "whole": lambda: torch.randn(N, H, C, X),
    "fewer batches and rows of a buffer": lambda: torch.randn(N + 2, H, C + 7, X)[:N, :, :C],
    "fewer columns of a buffer": lambda: torch.randn(N, H, C, X + 9)[..., :X],
    "behind the beginning of a buffer": lambda: torch.randn(N + 1, H, C, X)[1:],
    "the other way round": lambda: torch.randn(N, H, X, C).transpose(2, 3),
    "heads behind rows": lambda: torch.randn(N, C, H, X).transpose(1, 2),
    "one row for all": lambda: torch.randn(N, H, 1, X).expand(-1, -1, C, -1),
    "one for all batches": lambda: torch.randn(1, H, C, X).expand(N, -1, -1, -1),
}


def left(M: int) -> Tensor:
    return torch.randn(N, H, M, C + 3)[..., 3:]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("M", [1, 2, MOST, MOST + 1])
def test_products_are_those_of_float64_up_to_rounding(layout: str, M: int) -> None:
    torch.manual_seed(0)
    one, other = left(M), LAYOUTS[layout]()
    with torch.inference_mode():
        found, expected = product(one, other), one.double() @ other.double()
    assert found.shape == (N, H, M, X)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=TOLERANCE * expected.abs().max().item())


@measured
def test_a_row_has_the_same_bits_alone_and_in_a_batch() -> None:
    torch.manual_seed(0)
    one, other = left(2), torch.randn(N, H, C, X)
    with torch.inference_mode():
        together = product(one, other)
        for row in range(N):
            assert torch.equal(product(one[row : row + 1], other[row : row + 1])[0], together[row])


def refused(*_: object, **__: object) -> None:
    raise ZeroDivisionError


@measured
def test_few_rows_in_float32_without_autograd_are_sums_of_rows_and_all_else_is_left_to_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(functional, "embedding_bag", refused)
    other = torch.randn(N, H, C, X)
    assert product(left(1), other).shape == (N, H, 1, X)  # autograd is on
    with torch.inference_mode():
        with pytest.raises(ZeroDivisionError):
            product(left(MOST), other)
        for one, two in ((left(MOST + 1), other), (left(1).double(), other.double()), (left(1)[:, :, :0], other)):
            assert torch.equal(product(one, two), one @ two)
        monkeypatch.setattr(few_rows, "chosen_for_speed", lambda: False)
        assert product(left(1), other).shape == (N, H, 1, X)
