"""The projection head, which turns a last hidden state into the next input embedding (model card, section Architecture)."""

import io
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qthink_core.errors import DataError


class ProjectionHead(nn.Module):
    """Linear(D, D) -> GELU -> Linear(D, D) -> LayerNorm(D), with the card's state-dict names `mlp.0`, `mlp.2`, `mlp.3`."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(hidden_size, hidden_size),
            nn.GELU(),
            nn.Linear(hidden_size, hidden_size),
            nn.LayerNorm(hidden_size),
        )

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the head's parameters, in which it computes."""
        return next(self.parameters()).dtype

    def forward(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        return self.mlp(hidden)


def to_bytes(head: ProjectionHead) -> bytes:
    """The head in the format of the model card: a PyTorch state dict, as bytes that do not depend on a file name."""
    buffer = io.BytesIO()
    torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in head.state_dict().items()}, buffer)
    return buffer.getvalue()


def load(path: Path, hidden_size: int) -> ProjectionHead:
    """The head in a file `projection_head.pt`, loaded with `weights_only` and checked.

    Raises DataError when the file is missing, is not a PyTorch state dict or has other keys, and when a tensor has another
    shape or a value that is not finite, and OSError when the file cannot be read.
    """
    head = ProjectionHead(hidden_size)
    expected = head.state_dict()
    try:
        raw = path.read_bytes()  # here, because an OSError of torch.load may be about the content
    except FileNotFoundError:
        raise DataError(f"{path} is missing: a latent model needs it beside model.safetensors") from None
    try:
        found = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - torch raises a dozen kinds for a damaged file, none of them documented
        raise DataError(f"{path} is not a PyTorch state dict ({type(error).__name__}): fetch it again") from None
    if not isinstance(found, dict) or set(found) != set(expected):
        names = sorted(map(str, found)) if isinstance(found, dict) else type(found).__name__
        raise DataError(f"{path} holds {names} where {sorted(expected)} was expected: take the head of this model")
    for name, tensor in expected.items():
        if not isinstance(found[name], Tensor) or found[name].shape != tensor.shape:
            raise DataError(
                f"{path}: {name} does not have shape {tuple(tensor.shape)} (hidden size {hidden_size}): "
                "take the head of this model"
            )
        if not torch.isfinite(found[name]).all():
            raise DataError(f"{path}: {name} holds a NaN or an infinity: fetch the file again")
    head.load_state_dict(found)
    return head
