"""Products by oneDNN: those of torch up to rounding, where they are used, and nothing left behind."""

import os
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from qthink_core.numerics import products
from qthink_core.numerics.products import chosen_for_speed, faster, fixed, over_rows, reordered
from qthink_core.pipeline.process import pin_numerics

# The design's bound for float32 sums in another order, relative to the largest value.
TOLERANCE = 3e-6
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
LIMITS = {"ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA"}
avx512 = pytest.mark.skipif(not faster(), reason="oneDNN is not faster on this processor, so it is not used")


class Own(nn.Linear):
    """A linear layer with a forward of its own."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs) * 2


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    faster.cache_clear()
    yield
    faster.cache_clear()


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(40, 64), nn.GELU(), nn.Linear(64, 32, bias=False), Own(32, 8))


@avx512
@pytest.mark.parametrize("shape", [(1, 40), (3, 1, 40), (2, 7, 40), (0, 40), (70, 40)])
def test_products_are_those_of_torch_up_to_rounding(shape: tuple[int, ...]) -> None:
    layers, inputs = model(), torch.randn(shape)
    strided = torch.randn(*shape, 2)[..., 0]
    with torch.inference_mode():
        for given in (inputs, strided):
            expected = layers(given)
            with reordered(layers, layers[0]):
                found = layers(given)
            assert found.shape == expected.shape
            if found.numel():
                torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE * expected.abs().max().item())


@avx512
def test_a_layer_is_as_it_was_after_the_context_even_after_an_error() -> None:
    layers, inside = model(), list[bool]()

    def fail() -> None:
        with reordered(layers):
            inside.extend("forward" in vars(layer) for layer in layers)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert inside == [True, False, True, False]
    assert not any("forward" in vars(layer) for layer in layers)


@avx512
def test_changed_weights_are_seen_by_the_next_context() -> None:
    layers, inputs = model(), torch.randn(2, 40)
    for _ in range(2):
        with torch.inference_mode(), reordered(layers):
            found = layers(inputs)
        torch.testing.assert_close(found, layers(inputs), rtol=0, atol=1e-5)
        with torch.no_grad():
            layers[0].weight.mul_(3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_are_left_to_torch(dtype: torch.dtype) -> None:
    layers = model().to(dtype)
    with reordered(layers):
        assert not any("forward" in vars(layer) for layer in layers)


def test_without_avx_512_or_with_a_product_that_is_wrong_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert not faster()
    faster.cache_clear()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(products, "_product", lambda weight, bias, inputs: torch.zeros(5, 64))
    assert not faster()
    layers = model()
    with reordered(layers):
        assert not any("forward" in vars(layer) for layer in layers)


@avx512
def test_a_gradient_is_refused() -> None:
    layers = model()
    with reordered(layers), pytest.raises(AssertionError, match="no gradient"):
        layers(torch.randn(2, 40))


@avx512
def test_weights_that_are_moved_are_gone_in_the_context_and_the_same_numbers_after_it() -> None:
    layers, tied, inputs = model(), nn.Linear(40, 64, bias=False), torch.randn(2, 40)
    tied.weight = layers[0].weight
    before = [layer.weight.clone() for layer in (layers[0], layers[2])]
    with torch.inference_mode():
        expected = layers(inputs)
        with reordered(layers, moved=True):
            found, inside = layers(inputs), [layers[0].weight.numel(), layers[2].weight.numel()]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert inside == [0, 0]
    for layer, weight in zip((layers[0], layers[2]), before, strict=True):
        assert torch.equal(layer.weight, weight)
        assert layer.weight.requires_grad
        assert not layer.weight.is_inference()
    with torch.inference_mode(), reordered(layers, tied, moved=True):
        assert layers[0].weight.numel() == 40 * 64  # the other layer reads it, too
        torch.testing.assert_close(tied(inputs), nn.functional.linear(inputs, before[0]), rtol=0, atol=1e-5)


@avx512
def test_weights_that_do_not_change_are_put_in_order_once_for_many_contexts(monkeypatch: pytest.MonkeyPatch) -> None:
    layers, inputs, asked = model(), torch.randn(3, 40), list[torch.Size]()
    assert faster()  # which tries a product of its own
    in_order = products._in_order
    monkeypatch.setattr(products, "_in_order", lambda weight: asked.append(weight.shape) or in_order(weight))
    made = products.Reordered(layers)
    with torch.inference_mode():
        found = []
        for _ in range(2):
            with made.used():
                found.append(layers(inputs))
        expected = layers(inputs)
    assert asked == [(64, 40), (32, 64)]
    assert torch.equal(*found)
    torch.testing.assert_close(found[0], expected, rtol=0, atol=TOLERANCE * expected.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_fixed_product_is_torchs_with_either_side_transposed(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weight, bias, inputs = (torch.randn(shape, dtype=dtype) for shape in ((64, 40), (64,), (3, 70, 40)))
    with torch.no_grad():
        forth = fixed(weight, bias)(inputs)
        back = fixed(weight.T)(forth)
    expected = nn.functional.linear(inputs, weight, bias)
    assert (forth - expected).abs().max() <= TOLERANCE * expected.abs().max()
    expected = forth @ weight
    assert (back - expected).abs().max() <= TOLERANCE * expected.abs().max()


@avx512
def test_a_fixed_product_is_refused_under_autograd() -> None:
    with pytest.raises(AssertionError, match="no gradient flows"):
        fixed(torch.randn(4, 4))(torch.randn(2, 4))


@avx512
def test_with_few_sizes_rows_are_added_and_the_results_have_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, real = set[int](), products._without_autograd
    layers, _ = model(), faster()  # which tries a product once
    monkeypatch.setattr(products, "_without_autograd", lambda w, b, x: sizes.add(x.shape[:-1].numel()) or real(w, b, x))
    inputs = [torch.randn(1, n, 40) for n in (1, 9, 16, 17, 100, 128, 200, 256)]
    with torch.inference_mode():
        with reordered(layers):
            expected = [layers(one) for one in inputs]
        assert sizes == {1, 9, 16, 17, 100, 128, 200, 256}
        sizes.clear()
        with reordered(layers, few_sizes=True):
            found = [layers(one) for one in inputs]
    assert sizes == {16, 64, 128, 256}
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_product_over_rows_is_that_of_torch(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    wide, narrow = torch.randn(500, 70, dtype=dtype), torch.randn(500, 8, dtype=dtype)
    with torch.no_grad():
        found, expected = over_rows(wide, narrow), wide.T @ narrow
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE * expected.abs().max().item())


@pytest.mark.parametrize(
    ("processor", "kernels", "chosen"),
    [("AVX2", None, True), ("AVX512", None, True), ("AVX2", "avx2", False), ("DEFAULT", None, False)],
)
def test_sums_are_chosen_for_speed_on_measured_processors_without_the_promise_of_equal_bytes(
    processor: str, kernels: str | None, chosen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: processor)
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    if kernels:
        monkeypatch.setenv("ATEN_CPU_CAPABILITY", kernels)
    assert chosen_for_speed() == chosen


def test_native_kernels_do_not_depend_on_limits_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*LIMITS, "MKL_CBWR", "MKL_DYNAMIC", "OMP_DYNAMIC", "TOKENIZERS_PARALLELISM", *THREADS):
        monkeypatch.setenv(name, "avx2")  # put back at the end
    pin_numerics(1, "native")
    assert not LIMITS & os.environ.keys()
    pin_numerics(1, "avx2")
    assert {os.environ[name] for name in LIMITS} == {"avx2", "AVX2"}
