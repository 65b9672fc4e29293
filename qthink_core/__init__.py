"""QThink: latent reasoning by distillation from averaged rollouts; `LatentReasoner` answers questions with a checkpoint."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qthink_core.inference.reasoner import LatentReasoner

__all__ = ["LatentReasoner"]


def __getattr__(name: str) -> Any:
    # Late, because every command and stage imports this package, and most of them need no torch.
    if name == "LatentReasoner":
        from qthink_core.inference.reasoner import LatentReasoner

        return LatentReasoner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
