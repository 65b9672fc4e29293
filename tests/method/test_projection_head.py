import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from qthink_core.errors import DataError
from qthink_core.method import projection_head
from qthink_core.method.projection_head import ProjectionHead

CARD_SHAPES = {
    "mlp.0.weight": (32, 32),
    "mlp.0.bias": (32,),
    "mlp.2.weight": (32, 32),
    "mlp.2.bias": (32,),
    "mlp.3.weight": (32,),
    "mlp.3.bias": (32,),
}
# Float32 against the same formula in float64.
TOLERANCE = 1e-5


def test_the_state_dict_has_the_cards_names() -> None:
    assert {name: tuple(tensor.shape) for name, tensor in ProjectionHead(32).state_dict().items()} == CARD_SHAPES


def test_the_head_is_linear_gelu_linear_layernorm(random_head: Any) -> None:
    head, hidden = random_head(), torch.randn(5, 32, dtype=torch.float64)
    w = {name: tensor.double() for name, tensor in head.state_dict().items()}
    inner = hidden @ w["mlp.0.weight"].T + w["mlp.0.bias"]
    inner = inner * (1 + torch.erf(inner / math.sqrt(2))) / 2
    outer = inner @ w["mlp.2.weight"].T + w["mlp.2.bias"]
    centred = outer - outer.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    expected = normed * w["mlp.3.weight"] + w["mlp.3.bias"]
    torch.testing.assert_close(head(hidden.float()).double(), expected, rtol=0, atol=TOLERANCE)


def test_a_saved_head_loads_bit_for_bit(random_head: Any, tmp_path: Path) -> None:
    head = random_head()
    (tmp_path / "projection_head.pt").write_bytes(projection_head.to_bytes(head))
    loaded = projection_head.load(tmp_path / "projection_head.pt", 32)
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in head.state_dict().items())


def test_the_cards_own_class_loads_our_file(random_head: Any, tmp_path: Path) -> None:
    class CardsProjectionHead(nn.Module):
        def __init__(self, hidden_size: int = 2048) -> None:
            super().__init__()
            self.mlp = nn.Sequential(
                nn.Linear(hidden_size, hidden_size),
                nn.GELU(),
                nn.Linear(hidden_size, hidden_size),
                nn.LayerNorm(hidden_size),
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.mlp(x)

    head, hidden = random_head(), torch.randn(3, 32)
    (tmp_path / "projection_head.pt").write_bytes(projection_head.to_bytes(head))
    proj = CardsProjectionHead(32)
    proj.load_state_dict(torch.load(tmp_path / "projection_head.pt", map_location="cpu"))
    assert torch.equal(proj(hidden), head(hidden))


def test_equal_heads_are_equal_bytes_whatever_else_was_saved_between(random_head: Any) -> None:
    first = projection_head.to_bytes(random_head())
    projection_head.to_bytes(random_head(seed=2))
    assert projection_head.to_bytes(random_head()) == first
    assert projection_head.to_bytes(random_head(seed=2)) != first


def changed(random_head: Any, path: Path, change: Any) -> None:
    """Saves a head's state dict after `change(dict)` altered it, or what that returned instead."""
    state = dict(random_head().state_dict())
    replaced = change(state)
    torch.save(state if replaced is None else replaced, path)


def put(name: str, value: Any) -> Any:
    return lambda state: state.__setitem__(name, value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: dict(list(state.items())[:-1]), r"holds \['mlp.0.bias', .*'mlp.3.weight'\] where .*'mlp.3.bias'"),
        (put("mlp.4.weight", torch.zeros(1)), "mlp.4.weight"),
        (put("mlp.0.bias", torch.zeros(33)), r"mlp.0.bias does not have shape \(32,\) \(hidden size 32\)"),
        (put("mlp.0.bias", 1.0), "mlp.0.bias does not have shape"),
        (put("mlp.2.weight", torch.full((32, 32), torch.nan)), "mlp.2.weight holds a NaN or an infinity"),
        (put("mlp.3.weight", torch.full((32,), torch.inf)), "mlp.3.weight holds a NaN or an infinity"),
        (lambda state: list(state.values()), "holds list where"),
        (put(7, torch.zeros(1)), "'7', 'mlp.0.bias'"),
    ],
)
def test_a_file_that_is_no_head_of_this_size_is_refused_in_one_sentence(
    random_head: Any, tmp_path: Path, change: Any, said: str
) -> None:
    path = tmp_path / "projection_head.pt"
    changed(random_head, path, change)
    with pytest.raises(DataError, match=said) as refusal:
        projection_head.load(path, 32)
    assert "\n" not in str(refusal.value)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize("kept", [0, 10, 500, -1])
def test_a_truncated_file_is_refused(random_head: Any, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "projection_head.pt"
    path.write_bytes(projection_head.to_bytes(random_head())[:kept])
    with pytest.raises(DataError, match="is not a PyTorch state dict") as refusal:
        projection_head.load(path, 32)
    assert "\n" not in str(refusal.value)


def test_a_file_that_cannot_be_read_is_not_called_damaged(tmp_path: Path) -> None:
    (tmp_path / "projection_head.pt").mkdir()
    with pytest.raises(IsADirectoryError):
        projection_head.load(tmp_path / "projection_head.pt", 32)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"projection_head\.pt is missing"):
        projection_head.load(tmp_path / "projection_head.pt", 32)


class Trap:
    """Unpickling it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.path, "executed"))


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    torch.save({"mlp.0.weight": Trap(tmp_path / "trace")}, tmp_path / "projection_head.pt")
    with pytest.raises(DataError, match="is not a PyTorch state dict"):
        projection_head.load(tmp_path / "projection_head.pt", 32)
    assert not (tmp_path / "trace").exists()
