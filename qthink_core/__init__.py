"""QThink: latent reasoning by distillation from averaged rollouts; `LatentReasoner` answers questions with a checkpoint."""

import importlib
from typing import Any

__all__ = ["LatentReasoner"]


def __getattr__(name: str) -> Any:
    # By name and late, because every stage imports this package: an import would load torch, and make the code behind
    # `LatentReasoner` part of every stage's code.
    if name == "LatentReasoner":
        return importlib.import_module("qthink_core.inference.reasoner").LatentReasoner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
