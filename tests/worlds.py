"""The world of the tiny scale, as its params file gives it."""

from pathlib import Path

from qthink_core import settings
from qthink_core.pretraining import Style
from qthink_core.world import World

_TINY = settings.read_yaml(Path(__file__).parents[1] / "params" / "tiny.yaml")
WORLD = World(**_TINY["world"])
PRETRAIN = _TINY["base"]["pretrain"]
STYLE = Style(*(PRETRAIN[name] for name in Style._fields))
