"""Checks of the rows of the table against each other and against the settings that they share."""

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from qthink_core.artifacts.pairs import Rule
from qthink_core.pipeline.parameters import Path_, file_of


def trained_faults(tree: Mapping[str, Any], origin: Mapping[Path_, str]) -> Iterator[str]:
    """Faults of `systems.trained`, which must list every trained system once: DVC exports and evaluates only those."""
    systems = tree.get("systems")
    if not isinstance(systems, Mapping):
        return
    listed, groups = systems.get("trained"), [systems.get("finetuned"), systems.get("distilled")]
    if not isinstance(listed, list) or not all(isinstance(one, Mapping) for one in groups):
        return
    trained, defined = [str(name) for name in listed], [str(name) for one in groups for name in one or ()]
    here = f"{file_of(origin, ('systems', 'trained'))}: systems.trained"
    for name, times in Counter(trained).items():
        if name not in defined:
            near = difflib.get_close_matches(name[:80], defined, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else "remove it"
            yield f"{here} names {name:.80}, which is neither in systems.finetuned nor in systems.distilled: {hint}"
        elif times > 1:
            yield f"{here} names {name} {times} times: keep one"
    for name in defined:
        if name not in trained:
            yield f"{here} lacks {name}, which would be trained but never evaluated: add it"


def thinker_faults(tree: Mapping[str, Any], origin: Mapping[Path_, str]) -> Iterator[str]:
    """A fault unless `probe.thinker` is a base row with thinking: the probe reads the base model along its own thoughts."""
    systems, probe = tree.get("systems"), tree.get("probe")
    baseline = systems.get("baseline") if isinstance(systems, Mapping) else None
    if not isinstance(baseline, Mapping) or not isinstance(probe, Mapping) or "thinker" not in probe:
        return
    able = [str(name) for name, one in baseline.items() if isinstance(one, Mapping) and one.get("thinking") is True]
    if probe["thinker"] not in able:
        here = f"{file_of(origin, ('probe', 'thinker'))}: probe.thinker is {probe['thinker']!r:.80}"
        yield f"{here}: name a row of systems.baseline with thinking ({', '.join(able) or 'there is none'})"


def control_faults(tree: Mapping[str, Any], origin: Mapping[Path_, str]) -> Iterator[str]:
    """A fault unless `report.control` has the targets of latent systems but no latent steps, as the verdict requires."""
    systems, report = tree.get("systems"), tree.get("report")
    finetuned = systems.get("finetuned") if isinstance(systems, Mapping) else None
    if not isinstance(finetuned, Mapping) or not isinstance(report, Mapping) or "control" not in report:
        return
    able = [str(name) for name, one in finetuned.items() if isinstance(one, Mapping) and one.get("target") == "answer"]
    if report["control"] not in able:
        here = f"{file_of(origin, ('report', 'control'))}: report.control is {report['control']!r:.80}"
        yield f"{here}: name a row of systems.finetuned with target answer ({', '.join(able) or 'there is none'})"


def split_faults(tree: Mapping[str, Any], origin: Mapping[Path_, str]) -> Iterator[str]:
    """A fault where the scored split has too few questions to compare systems."""
    prepare = tree.get("prepare")
    held = prepare.get("n_validation") if isinstance(prepare, Mapping) else None
    if tree.get("split") == "validation" and isinstance(held, int) and held < 2:
        where = file_of(origin, ("prepare", "n_validation"))
        yield f"{where}: prepare.n_validation is {held}, but split: validation scores on them: set it to 2 or more"


def merged_faults(tree: Mapping[str, Any], origin: Mapping[Path_, str]) -> Iterator[str]:
    """A fault for merged adapters in bfloat16: merged weights have the model's dtype, which rounds small updates away."""
    train = tree.get("train")
    lora = train.get("lora") if isinstance(train, Mapping) else None
    if isinstance(lora, Mapping) and lora.get("merged") is True and tree.get("dtype") == "bfloat16":
        where = file_of(origin, ("train", "lora", "merged"))
        yield f"{where}: train.lora.merged is true, but with dtype: bfloat16 merged weights are rounded: set it to false"


def pair_faults(tree: Mapping[str, Any], origin: Mapping[Path_, str]) -> Iterator[str]:
    """Faults of `extract.also`, which must list the positions that rows need beyond the shared ones, and no others."""
    systems, extract = tree.get("systems"), tree.get("extract")
    distilled = systems.get("distilled") if isinstance(systems, Mapping) else None
    listed = extract.get("also") if isinstance(extract, Mapping) else None
    if not isinstance(distilled, Mapping) or not isinstance(extract, Mapping) or not isinstance(listed, list):
        return
    rows = {str(name): one for name, one in distilled.items() if isinstance(one, Mapping)}
    shared = tree.get("K"), extract.get("positions")
    read = [(one.get("K"), one.get("positions")) for one in listed if isinstance(one, Mapping)]
    needed = {name: (one.get("K") or shared[0], one.get("positions") or shared[1]) for name, one in rows.items()}
    if not all(map(_well_formed, (shared, *read, *needed.values()))):
        return
    here = f"{file_of(origin, ('extract', 'also'))}: extract.also"
    for pair in dict.fromkeys(needed.values()):
        if pair != shared and pair not in read:
            names = ", ".join(name for name, one in needed.items() if one == pair)
            yield f"{here} lacks what systems.distilled.{names} needs: add {_entry(pair)}"
    for pair, times in Counter(read).items():
        if pair == shared:
            yield f"{here} lists {_entry(pair)}, which is read anyway: remove it"
        elif pair not in needed.values():
            yield f"{here} lists {_entry(pair)}, which no row of systems.distilled uses: remove it"
        elif times > 1:
            yield f"{here} lists {_entry(pair)} {times} times: keep one"


def _well_formed(pair: tuple[Any, Any]) -> bool:
    K, rule = pair
    return type(K) is int and K >= 1 and isinstance(rule, str) and rule in get_args(Rule)


def _entry(pair: tuple[Any, Any]) -> str:
    return f"{{K: {pair[0]}, positions: {pair[1]}}}"
