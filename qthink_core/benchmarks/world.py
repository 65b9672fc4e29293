"""The parameters of the generated problems, which `generated` makes; docs/world.md gives the reasons."""

from pydantic import Field

from qthink_core.pipeline.parameters import Section


class World(Section):
    """The chains: `changes` steps each, running values 1..largest, operands 1..largest_operand (2 for * and /)."""

    changes: int = Field(ge=1, le=99)
    largest: int = Field(ge=4, le=99)
    largest_operand: int = Field(ge=2, le=9)
