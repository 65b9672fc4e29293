"""What a model folder of unknown origin may not hold: code, links and names that lead out of it, and files beyond measure.

It is looked at before transformers read it, which would ignore some of this, follow some, and be kept busy by the rest.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from qthink_core.benchmarks.bounded_rendering import Stopped, bounded
from qthink_core.errors import DataError
from qthink_core.models.model_folder import (
    CONFIG,
    GENERATION,
    INDEX,
    TEMPLATE,
    TOKENIZER_CONFIG,
    WEIGHTS,
    read_json,
    shards_of,
)

ADAPTER = "adapter_config.json"
# Files that transformers or torch read whole. Real ones are several times smaller: the largest tokenizers have 35 MB.
READ_WHOLE = (".json", ".jinja", ".txt", ".model")
MAX_BYTES = {CONFIG: 1 << 20, GENERATION: 1 << 20, TEMPLATE: 1 << 20, TOKENIZER_CONFIG: 32 << 20}
MAX_OTHER_BYTES = 256 << 20
# Fields of the JSON files that have transformers run code of a folder or a repository.
CODE = ("auto_map", "custom_generate", "custom_pipelines")
KERNELS = ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation")
# Numbers of layers, heads, experts, labels; and the sizes that are rows or columns of a weight.
MOST_PARTS, MOST_ROWS, SIZES = 100_000, 100_000_000, ("vocab_size", "hidden_size", "intermediate_size")
# To lay out the modules of a model without their weights, imports included; 100 layers take half a second.
LAYOUT_SECONDS, LAYOUT_BYTES = 10, 4 << 30
WIDEST = 8  # bytes of a parameter
HEADER = 64 << 20  # of all weight files


def check(folder: Path) -> None:
    """Raises DataError naming what a model folder may not hold.

    That is a field that asks for code, an adapter, a file of text that is a link out of the folder or too large, a shard
    outside the folder, a config that cannot be laid out in reasonable time and memory, and more bytes of weights than it
    describes.
    """
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in READ_WHOLE:
            _check_file(path, MAX_BYTES.get(path.name, MAX_OTHER_BYTES))
    if (folder / ADAPTER).exists():
        raise DataError(f"{folder} holds an adapter ({ADAPTER}): merge it into its model first (`merge_and_unload` of peft)")
    for name in (CONFIG, TOKENIZER_CONFIG, GENERATION):
        if (folder / name).is_file():
            _check_code(folder / name)
    if (folder / CONFIG).is_file():
        _check_weights(folder)


def check_memory(folder: Path) -> None:
    """Raises DataError where the weights of a folder do not fit into the memory of this machine."""
    size, memory = _weight_bytes(folder), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size > memory:
        raise DataError(
            f"{folder} holds {size:,} bytes of weights, and this machine has {memory:,} bytes of memory: take a larger one"
        )


def _check_file(path: Path, most: int) -> None:
    own, target = path.parent.resolve(), path.resolve()
    # the cache of the hub has links to its blobs
    if not target.is_relative_to(own) and target.parent != own.parents[1] / "blobs":
        raise DataError(f"{path} is a link to {target}, outside its folder: put the file itself there")
    if (size := path.stat().st_size) > most:
        raise DataError(f"{path} has {size:,} bytes, expected at most {most:,}: fetch it again, or take another model")


def _check_code(path: Path) -> None:
    for key, value in _fields(read_json(path)):
        if key in CODE and value is not None:
            raise DataError(
                f"{path.name} of {path.parent} asks to run its own code ({key}): take a model that transformers knows, and "
                "remove the field if they know this one"
            )
        if key in KERNELS and isinstance(value, str) and "/" in value:
            raise DataError(f"{path} asks to run code of the hub ({key}: {value!r:.60}): remove the field")
        most = MOST_PARTS if key.startswith("num_") else MOST_ROWS if key in SIZES else None
        if path.name == CONFIG and most and type(value) is int and not 0 <= value <= most:
            raise DataError(f"{path} has {key} {value}, expected 0 to {most:,}: take another model")


def _fields(found: Any) -> Iterator[tuple[str, Any]]:
    """The fields of a JSON value and of those in it."""
    if isinstance(found, Mapping):
        for key, value in found.items():
            yield str(key), value
            yield from _fields(value)
    elif isinstance(found, list):
        for value in found:
            yield from _fields(value)


def _weight_bytes(folder: Path) -> int:
    """The size of the files of weights that a model would be loaded from; raises DataError as `shards_of` does."""
    if (folder / WEIGHTS).is_file():
        return (folder / WEIGHTS).stat().st_size
    shards = shards_of(folder / INDEX) if (folder / INDEX).is_file() else {}
    return sum((folder / name).stat().st_size for name in shards if (folder / name).is_file())


def _check_weights(folder: Path) -> None:
    size = _weight_bytes(folder)
    found = bounded([lambda _: [_parameters(folder)]], LAYOUT_SECONDS, LAYOUT_BYTES)
    if isinstance(found, Stopped) and found.reason is None:
        limits = f"{LAYOUT_SECONDS} s or {LAYOUT_BYTES >> 30} GiB of memory"
        raise DataError(f"{folder / CONFIG} describes a model that takes more than {limits} to lay out: take another model")
    if isinstance(found, Stopped):
        return  # what reads it next says what is wrong
    if size > (most := WIDEST * int(found[0]) + HEADER):
        expected = f"where its {CONFIG} describes at most {most:,}"
        raise DataError(f"{folder} holds {size:,} bytes of weights {expected}: take both from one model")


def _parameters(folder: Path) -> int:
    """The number of parameters that a config describes, with tied ones counted twice."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return sum(weight.numel() for weight in model.state_dict().values())
