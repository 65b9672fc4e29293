"""Training checkpoints: the trained parameters, the optimiser's state and the losses, as one unit of work."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from qthink_core.artifacts.files import canonical_json
from qthink_core.artifacts.store import Work


def _moments(name: str) -> dict[str, str]:
    return {key: f"optimizer.{key}.{name}" for key in ("exp_avg", "exp_avg_sq", "step")}


def save(work: Work, trained: Mapping[str, nn.Parameter], optimizer: Any, losses: list[dict[str, Any]]) -> None:
    """Commits the trained weights, the AdamW state and the losses as one unit, then deletes the older checkpoints."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in trained.items():
        tensors[f"weight.{name}"] = parameter.detach().cpu().contiguous()
        for key, stored in _moments(name).items():
            tensors[stored] = optimizer.state[parameter][key].detach().cpu().contiguous()

    def write(path: Path) -> None:
        save_file(tensors, path)

    older = checkpoints(work)
    unit = f"checkpoint-{len(losses):07d}"
    work.commit(unit, {f"{unit}.safetensors": write, f"{unit}.losses.json": canonical_json(losses)})
    for name in older:
        work.drop(name)


def checkpoints(work: Work) -> list[str]:
    """The units of complete, undamaged checkpoints, oldest first."""
    names = sorted(path.name.removesuffix(".unit.json") for path in work.folder.glob("checkpoint-*.unit.json"))
    return [name for name in names if work.done(name)]


def restore(work: Work, trained: Mapping[str, nn.Parameter], optimizer: Any) -> list[dict[str, Any]]:
    """The losses of the newest complete checkpoint, after loading it into parameters and optimiser; [] if there is none.

    Its hashes are checked first. No random state is stored, because the order of the examples depends on (seed, epoch)
    only.
    """
    found = checkpoints(work)
    if not found:
        return []
    tensors = load_file(work.path(f"{found[-1]}.safetensors"))
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(tensors[f"weight.{name}"])
            optimizer.state[parameter] = {
                key: tensors[stored].to(parameter.device)  # the fused AdamW keeps its step count there, too
                for key, stored in _moments(name).items()
            }
    return json.loads(work.path(f"{found[-1]}.losses.json").read_bytes())
