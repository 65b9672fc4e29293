"""Settings in the form of `dvc exp run -S`: values put in place of those of the params files, which stay as they are.

`key=value` sets a value, `+key=value` adds one, `~key` takes one away. The name of the file comes before it, with a colon;
without a name it is params.yaml. DVC reads more of Hydra's grammar; what is not read here is an error. No torch.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qthink_core import plain_yaml
from qthink_core.errors import ParamError
from qthink_core.pipeline import graph, parameters
from qthink_core.pipeline.parameters import Files
from qthink_core.planning.calibration import with_params

MAX_KEY = 200  # characters of a key that are compared with the known ones
# Keys that no name may have are read, too, so that the check of the names can say so.
KEY = r"[\w.@/-]+"
FORM = re.compile(rf"(?:(?P<file>params(?:/\w+)?\.yaml):)?(?:(?P<sign>\+?)(?P<key>{KEY})=(?P<value>.*)|~(?P<gone>{KEY}))")


def checked_with(root: Path, scale: str | None, settings: Sequence[str]) -> dict[str, Any]:
    """The checked parameters of all stages at a scale, with the settings in place of the values in the files.

    A setting of `scale` counts like the argument. Raises ParamError with every fault, one per line: settings of another form
    or of an unknown key, and those of the parameters.
    """
    chosen = [one.partition("=")[2] for one in settings if re.fullmatch(r"(params\.yaml:)?scale=.*", one)]
    files = parameters.read(root, chosen[-1] if chosen else scale)
    if files.whole:
        for one in settings:
            files = _with(files, one)
    return graph.checked(files)


def _with(files: Files, setting: str) -> Files:
    """The files after one setting; one that cannot be put in is a fault."""

    def refused(why: str) -> Files:
        return files._replace(faults=[*files.faults, f"-S {setting!r:.80}{why}"])

    read = FORM.fullmatch(setting)
    if read is None:
        return refused(" is not a setting: expected key=value, +key=value or ~key, as in gamma=1.0")
    key = read["key"] or read["gone"]
    place = key.rpartition(".")[0] if read["sign"] else key
    if place:
        try:
            parameters.value(files.tree, place)
        except ParamError as error:
            known = [".".join(leaf) for leaf in files.origin]
            near = difflib.get_close_matches(place[:MAX_KEY], known, n=1, cutoff=0.5)
            return refused(f": {error!s:.200}{f'; did you mean {near[0]}?' if near else ''}")
    held = {file for leaf, file in files.origin.items() if place and parameters.matches(leaf, tuple(place.split(".")))}
    if held and (read["file"] or "params.yaml") not in held:
        fix = f"{min(held)}:{setting.removeprefix((read['file'] or '') + ':')}"
        return refused(f": {place} is in {min(held)}: write {fix}")
    if read["gone"]:
        return files._replace(tree=_without(files.tree, key.split(".")))
    value, wrong = plain_yaml.read(read["value"].encode(errors="surrogateescape"), "the value")
    if wrong:
        return refused(f": {'; '.join(wrong)}")
    return files._replace(tree=with_params(files.tree, {key: value}))


def _without(tree: Mapping[str, Any], path: Sequence[str]) -> dict[str, Any]:
    first, *rest = path
    if rest:
        return {**tree, first: _without(tree[first], rest)}
    return {key: value for key, value in tree.items() if key != first}
