"""Room for a run: the disk that it still needs, and the parameter to lower where the memory is too small. No torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qthink_core.errors import ParamError
from qthink_core.pipeline import parameters

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
# The same for an engine in which rows that do not fit wait: the length of the one row that must fit.
LENGTH = {"sample": "sample.max_new_tokens", "baseline": "evaluate.max_new_tokens"}


def remedy(stage: str, tree: Mapping[str, Any]) -> str:
    """What to do where a stage's largest box does not fit into memory: the parameter to lower and its file.

    A stage whose memory no parameter of the tree decides needs a device with more memory.
    """
    key = BATCH.get(stage, "")
    paged = tree.get(key.partition(".")[0], {}).get("engine") == "vllm"
    key = LENGTH.get(stage, key) if paged else key
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
