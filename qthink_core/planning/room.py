"""Room for a run: the disk that it still needs, what to change where memory or time is short, and other GPUs. No torch."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from qthink_core.errors import ParamError
from qthink_core.pipeline import parameters
from qthink_core.pipeline.graph import Box
from qthink_core.planning import cost
from qthink_core.planning.calibration import CPU, with_params
from qthink_core.planning.run_plan import RunPlan, StagePlan, box_parts, plan_tree
from qthink_core.planning.stage_costs import PAGED, places_of, sample
from qthink_core.planning.workload import Workload, also, shares_prompts

# DVC keeps a second copy of every output where the file system cannot share blocks.
COPIES = 2
# The folders that a run fills; their present content is not counted again.
FILLED = ("artifacts", "models", ".work", ".dvc/cache")
# The parameter that decides the memory of a stage's largest box.
BATCH = {
    "base": "base.pretrain.batch",
    "sample": "sample.block_problems",
    "extract": "extract.batch_tokens",
    "finetune": "train.micro_batch",
    "train": "train.micro_batch",
    "baseline": "evaluate.batch",
    "evaluate": "evaluate.batch",
    "probe": "evaluate.batch",
}
# The same for `probe` where it decodes conditions together.
TOGETHER = "probe.rows"
# The same for an engine in which rows that do not fit wait: the length of the one row that must fit.
LENGTH = {"sample": "sample.max_new_tokens", "baseline": "evaluate.max_new_tokens"}
# What decides the time of a stage: engines, numbers that may be halved, and batches that may be doubled.
ENGINES = {"sample": ["sample.engine"], "baseline": ["evaluate.engine"], "evaluate": ["evaluate.engine"]}
SPLITS = {"prepare.n_train": "train", "prepare.n_test": "test"}
FEWER = {
    "base": ["base.pretrain.steps"],
    **{stage: ["prepare.n_train"] for stage in ("sample", "reward", "extract", "average")},
    **{stage: ["prepare.n_train", "train.epochs"] for stage in ("finetune", "train")},
    **{stage: ["prepare.n_test"] for stage in ("baseline", "evaluate", "probe", "grade")},
}
MORE = {stage: [BATCH[stage]] for stage in ("sample", "extract", "finetune", "train", "baseline", "evaluate", "probe")}
ASKED = {"baseline", "evaluate", "grade"}
SEEDED = {"finetune", "train", "merge", "evaluate", "probe", "grade"}
PARAMS = "params.yaml"
# A change is named that saves this share of the run.
WORTH = 0.05


def remedy(stage: str, tree: Mapping[str, Any]) -> str:
    """What to do where a stage's largest box does not fit into memory: the parameter to lower and its file.

    A stage whose memory no parameter of the tree decides needs a device with more memory.
    """
    key = BATCH.get(stage, "")
    paged = tree.get(key.partition(".")[0], {}).get("engine") == PAGED
    key = LENGTH.get(stage, key) if paged else key
    if stage == "probe" and shares_prompts(tree) and tree["probe"]["rows"] >= 2 * tree["evaluate"]["batch"]:
        key = TOGETHER
    try:
        parameters.value(tree, key)
    except ParamError:
        return "use a device with more memory"
    return f"lower {key} in params/{tree['scale']}.yaml"


def missing_disk(root: Path, outputs: float, free: float) -> float:
    """The bytes that the disk lacks for the outputs and DVC's copy of them; at most 0 where they fit.

    Outputs that exist already are not counted again.
    """
    missing = COPIES * outputs - free
    if missing > 0:  # count the outputs only then, because there may be many files
        missing -= sum(file.stat().st_size for name in FILLED for file in (root / name).rglob("*") if file.is_file())
    return missing


class Cheaper(NamedTuple):
    """A change of one parameter that makes a run shorter: key, other value, file, and seconds of the whole run."""

    key: str
    value: Any
    file: str
    wall_s: float

    @property
    def setting(self) -> str:
        """The change as `-S` of `dvc exp run` and `qthink plan` takes it."""
        value = json.dumps(self.value) if isinstance(self.value, list) else self.value
        return f"{'' if self.file == PARAMS else f'{self.file}:'}{self.key}={value}"


class Blocks(NamedTuple):
    """How `sample` uses vLLM on a task.

    `places`: rollouts that vLLM decodes at once. `busy`: the share of them in use on average. `seconds`: of a block, which
    is what a kill costs at most. `twice_saves_s`: what blocks of twice as many problems save.
    """

    task: str
    problems: int
    places: float
    busy: float
    seconds: float
    twice_saves_s: float


def blocks(plan: RunPlan) -> list[Blocks]:
    """The blocks of rollouts of each task by the formulas; none where the engine is another or the number is unknown."""
    load, found = plan.workload, []
    size = load.tree["sample"]["block_problems"]
    twice = load._replace(tree=with_params(load.tree, {"sample.block_problems": 2 * size}))
    for task in load.lengths:
        N = load.problems[task, "train"]
        if N and load.tree["sample"]["engine"] == PAGED:
            at = Box("sample", task)
            one, other = (box_parts(sample(how, at), how, plan.device) for how in (load, twice))
            work, places = sample(load, at).compute, places_of(load, task)
            busy = work.tokens / (work.replays / load.shape.layers * places)
            seconds = (sum(one) - one.start) * min(size / N, 1)
            found.append(Blocks(task, min(size, N), places, busy, seconds, sum(one) - sum(other)))
    return found


def dearest(plan: RunPlan) -> StagePlan:
    """The stage that takes most of the time."""
    return max(plan.stages, key=lambda row: row.seconds)


def cheaper(root: Path, plan: RunPlan) -> list[Cheaper]:
    """What makes the dearest stage cheaper, best first. Each change is planned; it is kept if it saves enough and fits."""
    tree, found = plan.workload.tree, []
    sized = parameters.read_yaml(root / "params" / f"{plan.scale}.yaml")
    for key, value in changes(dearest(plan).stage, plan.workload):
        other = plan_tree(root, with_params(tree, {key: value}), plan.device, plan.gpus, plan.memory)
        if other.wall_s <= (1 - WORTH) * plan.wall_s and len(other.too_large) <= len(plan.too_large):
            file = f"params/{plan.scale}.yaml" if key.partition(".")[0] in sized else PARAMS
            found.append(Cheaper(key, value, file, other.wall_s))
    return sorted(found, key=lambda one: one.wall_s)


def changes(stage: str, load: Workload) -> Iterator[tuple[str, Any]]:
    """(key, another value) of the parameters that decide the time of a stage: none at once, half, or twice as many rows.

    What the method fixes (K, G, the conditions of `probe`) is not among them.
    """
    for key in ENGINES.get(stage, []):
        if value_of(load.tree, key) == "hf" and load.tree["device"] != CPU:
            yield key, "vllm"
    if stage == "probe" and load.tree["probe"]["sweep"]:
        yield "probe.sweep", 0
    for key in FEWER.get(stage, []):
        half = half_of(load, key) if key in SPLITS else (value_of(load.tree, key) or 0) // 2
        if half:
            yield key, half
    for task in load.tree["tasks"] if stage in ASKED else ():
        if also(load.tree, task):
            yield f"data.{task}.also", []
    for key in MORE.get(stage, []):
        yield key, 2 * value_of(load.tree, key)
    if stage == "probe" and shares_prompts(load.tree):
        yield TOGETHER, 2 * value_of(load.tree, TOGETHER)
    if stage in SEEDED and len(load.tree["seeds"]) > 1:
        yield "seeds", load.tree["seeds"][:1]


def half_of(load: Workload, key: str) -> int:
    """Half the problems of the largest task in a split of `prepare`; 0 where another task has fewer or an unknown number."""
    sizes = [n or 0 for (_, split), n in load.problems.items() if split == SPLITS[key]]
    half = max(sizes) // 2
    # a comparison of systems needs two questions
    return half if 1 < half <= min(sizes) else 0


def value_of(tree: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key; None where the tree has none."""
    with contextlib.suppress(ParamError):
        return parameters.value(tree, key)
    return None


def elsewhere(root: Path, plan: RunPlan) -> list[RunPlan]:
    """The plan of the same run on one of each GPU that the plan knows, with that GPU's own memory."""
    return [plan_tree(root, plan.workload.tree, name, 1) for name in cost.GPUS]
