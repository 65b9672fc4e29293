"""The world of the tiny scale, as its params file gives it."""

from pathlib import Path

from qthink_core.benchmarks.world import World
from qthink_core.models.pretraining import Style
from qthink_core.pipeline import parameters

_TINY = parameters.read_yaml(Path(__file__).parents[1] / "params" / "tiny.yaml")
WORLD = World(**_TINY["world"])
PRETRAIN = _TINY["base"]["pretrain"]
STYLE = Style(*(PRETRAIN[name] for name in Style._fields))
