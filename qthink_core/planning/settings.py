"""Settings in the form of `dvc exp run -S`: values put in place of those of the params files, which stay as they are.

`key=value` sets a value, `+key=value` adds one, `~key` takes one away. The name of the file comes before it, with a colon;
without a name it is params.yaml. DVC reads more of Hydra's grammar; what is not read here is an error. No torch.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from qthink_core.errors import ParamError
from qthink_core.pipeline import checks, graph, parameters
from qthink_core.pipeline.parameters import Path_
from qthink_core.planning.calibration import with_params

# Keys that no name may have are read, too, so that the check of the names can say so.
KEY = r"[\w.@/-]+"
FORM = re.compile(rf"(?:(?P<file>params(?:/\w+)?\.yaml):)?(?:(?P<sign>\+?)(?P<key>{KEY})=(?P<value>.*)|~(?P<gone>{KEY}))")


def checked_with(root: Path, scale: str | None, settings: Sequence[str]) -> dict[str, Any]:
    """The checked parameters of all stages at a scale, with the settings in place of the values in the files.

    A setting of `scale` counts like the argument. Raises ParamError at a setting of another form or of an unknown key, and
    with every fault of the parameters, one per line.
    """
    if not settings:
        return graph.checked_parameters(root, scale)
    chosen = [one.partition("=")[2] for one in settings if re.fullmatch(r"(params\.yaml:)?scale=.*", one)]
    tree, origin = parameters.load(root, next(iter(chosen), scale))
    for one in settings:
        tree = _with(tree, origin, one)
    found = checks.faults(tree, origin, graph.parameter_classes())
    if found:
        raise ParamError("\n".join(found))
    return tree


def _with(tree: Mapping[str, Any], origin: Mapping[Path_, str], setting: str) -> dict[str, Any]:
    """The tree after one setting."""
    said = f"-S {setting!r:.80}"
    read = FORM.fullmatch(setting)
    if read is None:
        raise ParamError(f"{said} is not a setting: expected key=value, +key=value or ~key, as in gamma=1.0")
    key = read["key"] or read["gone"]
    place = key.rpartition(".")[0] if read["sign"] else key
    if place:
        try:
            parameters.value(tree, place)
        except ParamError as error:
            raise ParamError(f"{said}: {error}") from None
    files = {file for leaf, file in origin.items() if place and parameters.matches(leaf, tuple(place.split(".")))}
    if files and (read["file"] or "params.yaml") not in files:
        fix = f"{min(files)}:{setting.removeprefix((read['file'] or '') + ':')}"
        raise ParamError(f"{said}: {place} is in {min(files)}: write {fix}")
    if read["gone"]:
        return _without(tree, key.split("."))
    try:
        value = YAML(typ="safe", pure=True).load(read["value"])
    except YAMLError:
        raise ParamError(f"{said}: the value is not YAML") from None
    return with_params(tree, {key: value})


def _without(tree: Mapping[str, Any], path: Sequence[str]) -> dict[str, Any]:
    first, *rest = path
    if rest:
        return {**tree, first: _without(tree[first], rest)}
    return {key: value for key, value in tree.items() if key != first}
