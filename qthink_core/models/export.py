"""Export: the files of a trained adapter, and of the merged checkpoint in the published layout."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from peft import PeftModel

from qthink_core.artifacts.files import Writer, canonical_json
from qthink_core.errors import DataError
from qthink_core.models.loading import CAPPED_ATTENTION, CONFIG, EAGER, HEAD, TOKENIZER_FILES, pretrained
from qthink_core.models.model_folder import CONFIG as MODEL_CONFIG
from qthink_core.models.model_folder import read_json

ADAPTER_CONFIG = "adapter_config.json"


def merge(base: Path, adapter: Path, dtype: str, scratch: Path) -> dict[str, Writer | bytes]:
    """The files of an exported model by name, as writers for one unit of work.

    The writers move the weights out of the folder `scratch`. Adapters are merged in float32 and then cast to `dtype`: a
    merge in bfloat16 would change logits by 3 %. Raises DataError when the folder `adapter` has no adapter.
    """
    if not (adapter / ADAPTER_CONFIG).is_file():  # otherwise PEFT would look for it on the hub
        raise DataError(f"{adapter} holds no adapter: run `dvc repro` to train it")
    model = pretrained(base, dtype=torch.float32)
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    merged.to(getattr(torch, dtype)).save_pretrained(scratch)
    if getattr(model.config, CAPPED_ATTENTION, None) is not None:  # transformers leave out how a model is to be loaded
        config = read_json(scratch / MODEL_CONFIG) | {"attn_implementation": EAGER}
        (scratch / MODEL_CONFIG).write_bytes(canonical_json(config))
    files: dict[str, Writer | bytes] = {path.name: moved(path) for path in sorted(scratch.iterdir())}
    for name in TOKENIZER_FILES:
        files[name] = (base / name).read_bytes()
    for name in (HEAD, CONFIG):
        if (adapter / name).is_file():
            files[name] = (adapter / name).read_bytes()
    return files


def inside(folder: Path, files: Mapping[str, Writer | bytes]) -> dict[str, Writer | bytes]:
    """The same files with names inside a folder."""
    return {str(folder / name): write for name, write in files.items()}


def export_adapter(adapted: PeftModel, scratch: Path) -> dict[str, Writer | bytes]:
    """The adapter's two files, with bytes that depend on the training only.

    PEFT would list the target modules in hash order, and record the path of the base model.
    """
    adapted.save_pretrained(str(scratch), save_embedding_layers=False)
    config = json.loads((scratch / ADAPTER_CONFIG).read_bytes())
    config["target_modules"] = sorted(config["target_modules"])
    config["base_model_name_or_path"] = None
    return {
        "adapter_model.safetensors": moved(scratch / "adapter_model.safetensors"),
        ADAPTER_CONFIG: canonical_json(config),
    }


def moved(source: Path) -> Writer:
    """A writer that moves an existing file to its path."""

    def write(path: Path) -> None:
        shutil.move(source, path)

    return write
