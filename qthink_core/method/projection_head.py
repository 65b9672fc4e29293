"""The projection head, which turns a last hidden state into the next input embedding (model card, section Architecture)."""

import io
import zipfile
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qthink_core.errors import DataError

# A state dict of this head takes at most this many bytes of a parameter, and this many for names and padding.
WIDEST, OVERHEAD = 8, 64 << 10
NAMED = 12  # names in a message


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
    most = sum(WIDEST * weight.numel() for weight in expected.values()) + OVERHEAD
    try:
        size = path.stat().st_size
        raw = path.read_bytes() if size <= most else b""  # here: an OSError of torch.load may be about the content
    except FileNotFoundError:
        raise DataError(f"{path} is missing: a latent model needs it beside model.safetensors") from None
    size = max(size, _unpacked(raw))
    if size > most:
        expected_size = f"a head of hidden size {hidden_size} has at most {most:,}"
        raise DataError(f"{path} holds {size:,} bytes where {expected_size}: take the head of this model")
    try:
        found = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - torch raises a dozen kinds for a damaged file, none of them documented
        raise DataError(f"{path} is not a PyTorch state dict ({type(error).__name__}): fetch it again") from None
    if not isinstance(found, dict) or set(found) != set(expected):
        names = sorted(map(str, found))[:NAMED] if isinstance(found, dict) else type(found).__name__
        raise DataError(f"{path} holds {names!s:.300} where {sorted(expected)} was expected: take the head of this model")
    for name, tensor in expected.items():
        if not _is_plain(found[name]) or found[name].shape != tensor.shape:
            raise DataError(
                f"{path}: {name} does not have shape {tuple(tensor.shape)} (hidden size {hidden_size}): "
                "take the head of this model"
            )
        if not torch.isfinite(found[name]).all():
            raise DataError(f"{path}: {name} holds a NaN or an infinity: fetch the file again")
    head.load_state_dict(found)
    return head


def _unpacked(raw: bytes) -> int:
    """The bytes that an archive unpacks to; 0 for what is no archive."""
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError):
        return 0


def _is_plain(found: object) -> bool:
    """Whether it is a tensor of floats with a value at each place, in memory."""
    if not isinstance(found, Tensor):
        return False
    return found.layout == torch.strided and found.device.type == "cpu" and found.is_floating_point()
