"""Checks of the parameters of all stages: values one by one, then names, places and rows against each other."""

from collections.abc import Mapping
from typing import Any

from qthink_core.errors import printable
from qthink_core.pipeline.checks import names, places, rows, values
from qthink_core.pipeline.parameters import Path_, Section

CONFLICTS = (
    names.form_faults,
    names.name_faults,
    places.task_faults,
    places.set_faults,
    places.place_faults,
    places.folder_faults,
    rows.trained_faults,
    rows.thinker_faults,
    rows.control_faults,
    rows.split_faults,
    rows.merged_faults,
    rows.pair_faults,
)
MAX_FAULT = 600  # characters; names and values of any length are part of it


def faults(
    tree: Mapping[str, Any], origin: Mapping[Path_, str], sections: Mapping[str, type[Section]], whole: bool = True
) -> list[str]:
    """Every fault of the parameters, one line each: first those of single values, then conflicts between them.

    Missing keys are faults if the tree is `whole`, which it is not where a params file could not be read. The checks of
    conflicts skip malformed values, which the section that reads them has already reported.
    """
    found = values.faults(tree, origin, sections, whole)
    for check in CONFLICTS:
        found += check(tree, origin)
    return [one if len(one) <= MAX_FAULT else f"{one[:MAX_FAULT]}..." for one in map(printable, found)]
