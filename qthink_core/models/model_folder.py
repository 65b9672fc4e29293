"""A model folder in the Hugging Face layout: its files, its tensors, and the check that they belong together."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from qthink_core.artifacts.files import read_object, read_small, write_file
from qthink_core.errors import DataError, first_line
from qthink_core.models.acceptance.chat_template import conversation
from qthink_core.models.acceptance.configs import config_of
from qthink_core.models.tokenizer import load_tokenizer

CONFIG, WEIGHTS, GENERATION = "config.json", "model.safetensors", "generation_config.json"
TOKENIZER, TOKENIZER_CONFIG, TEMPLATE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
FILES = (CONFIG, WEIGHTS, GENERATION, TOKENIZER, TOKENIZER_CONFIG, TEMPLATE)
INDEX = "model.safetensors.index.json"
# What training computes with; whole numbers and floats of 8 bits are quantised weights.
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
POINTER = b"version https://git-lfs"
EMBEDDINGS, OUTPUT_HEAD = "model.embed_tokens.weight", "lm_head.weight"


def check(folder: Path) -> dict[str, int | str]:
    """Facts about a usable model: architecture, hidden_size, layers, vocab, tokens, parameters, dtype.

    `vocab` counts embedding rows, `tokens` those that the tokenizer uses. Raises DataError when a file is missing or
    unreadable; when the weights differ from the configuration in names or shapes, or contain a NaN or an infinity; when the
    tokenizer has more tokens than there are embedding rows; and when the chat template does not end an assistant's turn with
    the tokenizer's end token.
    """
    from transformers import AutoModelForCausalLM, GenerationConfig

    for name in FILES:
        if not (folder / name).is_file():
            raise DataError(f"{folder / name} is missing: a base model has {', '.join(FILES)}")
    config = config_of(folder)
    try:
        GenerationConfig.from_pretrained(folder).validate(strict=True)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except Exception as error:  # noqa: BLE001 - each model type checks its settings in its own way
        raise DataError(f"{folder} holds no usable language model ({first_line(error)}): take another model") from None
    dtype = _check_tensors(folder / WEIGHTS, model)
    tokenizer = load_tokenizer(folder)
    vocab = model.get_input_embeddings().weight.shape[0]
    check_room(folder, tokenizer.get_vocab(), vocab)
    check_end_of_turn(folder, tokenizer)
    return {
        "architecture": type(model).__name__,
        "hidden_size": config.hidden_size,
        "layers": config.num_hidden_layers,
        "vocab": vocab,
        "tokens": len(tokenizer),
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "dtype": dtype,
    }


def _check_tensors(path: Path, model: Any) -> str:
    """The dtype of the weights; raises DataError unless they match `model` in name and shape and share one dtype."""
    expected = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    found, dtypes = set(), set()
    for name, tensor in tensors_of(path):
        found.add(name)
        dtype = str(tensor.dtype).removeprefix("torch.")
        dtypes.add(dtype)
        if name not in expected and ("experts" in name or "moe" in name):
            raise DataError(f"{path} holds a mixture of experts ({name}), which is not supported: take a dense model")
        if tuple(tensor.shape) != expected.get(name):
            raise DataError(
                f"{path} holds {name} of shape {tuple(tensor.shape)} but its {CONFIG} says "
                f"{expected.get(name, 'no such tensor')}: take both from one model"
            )
        if tensor.dtype not in FLOATS:
            raise DataError(f"{path} holds {name} in {dtype}, which is quantised: take the unquantised model")
        if not bool(torch.isfinite(tensor).all()):
            raise DataError(f"{path} holds a NaN or an infinity in {name}: fetch the file again")
    missing = sorted(expected.keys() - found - set(model.all_tied_weights_keys))
    if missing:
        raise DataError(
            f"{path} lacks {len(missing)} tensors that its {CONFIG} asks for, first {missing[0]}: fetch it again"
        )
    if len(dtypes) != 1:
        raise DataError(f"{path} mixes {', '.join(sorted(dtypes))}: store the base model in one dtype")
    return str(dtypes.pop())


def check_room(folder: Path, vocabulary: Mapping[str, int], rows: int) -> None:
    """Raises DataError when a token has no row of its own: rows that are added would be those of no trained token."""
    last, token = max((number, token) for token, number in vocabulary.items())
    if last >= rows:
        raise DataError(
            f"{folder} has {last + 1} tokens (the last is {token!r}) but {rows} embedding rows: "
            "its tokenizer belongs to another model, take both from one"
        )


def check_end_of_turn(folder: Path, tokenizer: Any) -> None:
    """Raises DataError when the chat template does not end an assistant's turn with the tokenizer's end token."""
    text = conversation(tokenizer, str(folder / TEMPLATE))
    end = tokenizer.eos_token
    if not end or f"Goodbye{end}" not in text:
        raise DataError(
            f"{folder / TEMPLATE} ends an assistant's turn with {text.partition('Goodbye')[2]!r} where the "
            f"tokenizer's eos_token is {end!r}: set eos_token in {TOKENIZER_CONFIG} to what ends a turn"
        )


def tensors_of(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a safetensors file with their names.

    Raises DataError when it is truncated or in another format, and OSError when it cannot be read.
    """
    _check_fetched(path)  # also opens it, since safetensors calls a file missing that it may not read
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                yield name, file.get_tensor(name)
    except SafetensorError as error:
        raise DataError(f"{path} is not a complete safetensors file ({error}): fetch it again") from None


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file by name; raises as `tensors_of` does."""
    return dict(tensors_of(path))


def write_tensors(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Writes the weights file, with a single metadata key: with two, the bytes would differ between saves."""
    write_file(folder / WEIGHTS, lambda path: save_file(dict(tensors), path, metadata={"format": "pt"}))


def shards_of(index: Path) -> dict[str, set[str]]:
    """The tensor names of each shard that an index lists.

    Raises DataError when the index lists no shards, or when a shard is not a plain file name: `../` would leave the folder.
    """
    shards: dict[str, set[str]] = {}
    listed = read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(shard, str) for shard in listed.values()):
        raise DataError(f"{index} has no weight_map of tensors to files: fetch it again")
    for name, shard in listed.items():
        if not shard or Path(shard).name != shard:
            raise DataError(f"{index} names a shard '{shard}' outside its folder: fetch it again from a source you trust")
        shards.setdefault(shard, set()).add(name)
    return shards


def _check_fetched(path: Path) -> None:
    """Raises DataError where Git left the address of a large file in its place."""
    with path.open("rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise DataError(f"{path} is a pointer of Git LFS and not the file: run `git lfs pull` where it comes from")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; raises DataError when the file contains something else."""
    try:
        content = read_small(path)
        _check_fetched(path)
        return read_object(content)
    except ValueError as error:
        raise DataError(f"{path} {error}: fetch it again") from None
