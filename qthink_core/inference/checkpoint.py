"""A checkpoint that anyone may bring: a folder or a repository of the hub, checked before its weights are loaded.

Three layouts are known: an export of this project (its `qthink.json` says K and whether it thinks), the layout of the
published checkpoints (`projection_head.pt` beside the weights, K is not recorded), and any causal language model without a
head. Nothing in a checkpoint is executed: weights are safetensors, the head is read with `weights_only`, and remote code is
never trusted.
"""

import fnmatch
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import GenerationConfig

from qthink_core import hub
from qthink_core.artifacts import store
from qthink_core.artifacts.files import check_file, read_small
from qthink_core.benchmarks.bounded_rendering import check_tokenizer
from qthink_core.errors import DataError, ParamError, QThinkError, first_line
from qthink_core.inference import question
from qthink_core.inference.shown import count
from qthink_core.method import projection_head
from qthink_core.models.acceptance import chat_template, folders, forward
from qthink_core.models.acceptance.configs import config_of
from qthink_core.models.loading import CONFIG, HEAD, MAX_STEPS, System, pretrained, read_config
from qthink_core.models.model_folder import GENERATION
from qthink_core.models.tokenizer import load_tokenizer

DTYPES = ("auto", "float32", "bfloat16", "float16")
FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "tokenizer.model", HEAD]
NAMES = "a model's folder, or a repository of the hub as owner/name"


class Checkpoint(NamedTuple):
    """A checkpoint's folder, its number of latent steps (0: none), and whether its prompts ask for thinking.

    `trained_K` is the number of its `qthink.json`, None where it has none.
    """

    folder: Path
    K: int
    thinking: bool
    trained_K: int | None = None


def find(model: str | Path, K: int | None = None, thinking: bool | None = None, revision: str | None = None) -> Checkpoint:
    """The checkpoint in a folder or, if there is no such folder, in a repository of the hub.

    `K` and `thinking` override what the checkpoint says. A model with a projection head does not think unless it is told to,
    and then takes no latent steps unless `K` is given; a model without one thinks. Raises ParamError when K is negative, too
    large, or neither given nor recorded, for another type, and for a revision of a local folder. Raises DataError when there
    is no such folder or repository, when the folder is not a model, holds what `folders.check` refuses, has no projection
    head although K > 0, is not available from the hub, comes from a cache that does not show whether the repository has
    latent steps, or differs from the manifest that a model made by the pipeline has. Raises OSError for a file that this
    user may not read.
    """
    if not isinstance(model, str | Path):
        raise ParamError(f"model is {model!r:.40} ({type(model).__name__}): give {NAMES}")
    if thinking not in (None, True, False):
        raise ParamError(f"thinking is {thinking!r:.40}: give True, False or None")
    check_steps(K)
    question.check_unicode(str(model), "the name of the model")
    folder = Path(model)
    if folder.exists() or folder.is_absolute() or str(model).startswith("."):
        if not folder.exists():
            raise DataError(f"{folder} does not exist: give {NAMES}")
        if not (folder / "config.json").is_file():
            raise DataError(f"{folder} has no config.json: give {NAMES}")
        if revision is not None:
            raise ParamError(f"{folder} is a local folder and has no revision {revision!r}: leave the revision out")
    else:
        folder = _on_hub(str(model), revision, () if K is not None else (HEAD, CONFIG))
    _check_readable(folder)
    _check_unchanged(folder)
    folders.check(folder)
    exported = read_config(folder) if (folder / CONFIG).is_file() else None
    has_head = (folder / HEAD).is_file()
    steps = K if K is not None else exported.K if exported else None
    if K is None and thinking and not (exported and exported.thinking):
        steps = 0  # latent steps stand in for the think block
    if steps is None and has_head:
        raise ParamError(
            f"{folder} has a projection head but no {CONFIG}, which would say the number of latent steps: give it "
            "(K=6 in Python, --latents 6 on the command line; the published checkpoints were trained with 6)"
        )
    if steps and not has_head:
        needed = f"which {count(steps, 'latent step')} need{'s' if steps == 1 else ''}"
        raise DataError(f"{folder} has no {HEAD}, {needed}: take a latent model, or 0 latent steps")
    if thinking is None:
        thinking = exported.thinking if exported else not has_head
    return Checkpoint(folder, steps or 0, thinking, exported.K if exported else None)


def check_steps(K: int | None) -> None:
    """Raises ParamError unless K is None or a number of latent steps."""
    if K is not None and (type(K) is not int or not 0 <= K <= MAX_STEPS):
        raise ParamError(f"{K!r} latent steps were asked for: give a whole number from 0 to {MAX_STEPS}")


def _on_hub(name: str, revision: str | None, known: Sequence[str]) -> Path:
    """The cached or downloaded folder of a repository; what cannot be the name of one does not reach the hub."""
    missing = f"there is no folder {name} here, and"
    nowhere = DataError(f"{missing} it is not owner/name of a repository of the hub: give {NAMES}")
    if name.count("/") != 1:
        raise nowhere
    try:
        return hub.snapshot(name, revision, FILES, known=known)
    except ParamError:
        raise nowhere from None
    except DataError as error:
        raise DataError(f"{missing} {error}") from None


def _check_readable(folder: Path) -> None:
    """Opens each file once, because safetensors and torch call a file damaged or missing that they may not read."""
    for path in files(folder):
        with path.open("rb"):
            pass


def _check_unchanged(folder: Path) -> None:
    """Raises DataError when the files of a model that the pipeline made are not those of its manifest.

    The manifest of a further training seed is in the folder above. A folder without a manifest is not checked.
    """
    for place in (folder, folder.parent):
        path = place / store.MANIFEST
        if path.is_file() and _is_ours(path):
            break
    else:
        return
    manifest = store.manifest_of(place)
    fix = store.fix(manifest.place)
    if not manifest.place or not place.resolve().match(manifest.place):
        fix = f"fetch or export it again, or delete {path} if the change is yours"
    inside = folder.relative_to(place)
    own = {name: record for name, record in manifest.files.items() if Path(name).parent == inside}
    if not own:
        return
    for name, record in own.items():
        if any(fnmatch.fnmatch(Path(name).name, pattern) for pattern in FILES):
            check_file(place / name, record, fix)
    for path in files(folder):
        if path.name != store.MANIFEST and str(path.relative_to(place)) not in own:
            raise DataError(f"{path} is not in the manifest of this model: delete it, or {fix}")


def _is_ours(path: Path) -> bool:
    """Whether a `manifest.json` is one of the pipeline's, even if it is damaged; other programs have files of this name."""
    try:
        raw = read_small(path)
    except ValueError as error:
        raise DataError(f"{path} {error}: fetch it again, or take another model") from None
    return path.with_name(CONFIG).is_file() or any(word in raw for word in (b'"seal": "', b'"artifact": "'))


def files(folder: Path) -> list[Path]:
    """The files of a checkpoint: weights, projection head, configs, tokenizer and chat template."""
    return sorted({path for pattern in FILES for path in folder.glob(pattern) if path.is_file()})


def load(checkpoint: Checkpoint, dtype: str = "auto", device_map: Any = "cpu") -> System:
    """The model, its tokenizer and its projection head, in one dtype (`auto`: that of the weights).

    `device_map` is a device such as `cuda`, or a map of transformers. The head is checked first, because that is cheap.
    Raises ParamError for an unknown dtype or a missing device, and DataError for a damaged head, a folder without a chat
    template or tokenizer, and a chat template that does not end a latent model's prompt in an empty think block.
    """
    folder, K, thinking, _ = checkpoint
    check_place(dtype, device_map)
    head = None
    try:
        if str(device_map) == "cpu":
            folders.check_memory(folder)
        config = config_of(folder)
        if K:
            head = projection_head.load(folder / HEAD, config.hidden_size)
        tokenizer = load_tokenizer(folder)
        _check_template(folder, tokenizer, latent=K > 0)
        model = pretrained(folder, dtype=dtype if dtype == "auto" else getattr(torch, dtype), device_map=device_map)
        forward.check_logits(model, folder)
        ends = more_ends(folder)
    except (QThinkError, PermissionError, IsADirectoryError):
        raise
    except ImportError as error:
        raise DataError(f"{folder} needs a package that is missing ({first_line(error)}): install it") from None
    except Exception as error:  # noqa: BLE001 - transformers raise many kinds for a folder that they cannot use
        raise DataError(f"{folder} cannot be loaded ({first_line(error)}): fetch it again, or take another model") from None
    devices = set(getattr(model, "hf_device_map", {}).values())
    if len(devices) > 1:
        raise ParamError(
            f"device_map {device_map!r} splits the model over {', '.join(sorted(map(str, devices)))}, but it must be on one "
            "device: name that device"
        )
    if head is not None:
        output = model.get_output_embeddings().weight
        head = head.to(output.device, output.dtype).eval()
    return System(model, tokenizer, head, K, thinking, ends)


def more_ends(folder: Path) -> frozenset[int]:
    """The end tokens in a model's generation config, as transformers reads it; raises DataError for other content."""
    try:
        if (folder / GENERATION).is_file():
            read = GenerationConfig.from_pretrained(folder, local_files_only=True)
        else:
            read = GenerationConfig.from_model_config(config_of(folder))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{folder / GENERATION} cannot be loaded ({first_line(error)}): fetch it again") from None
    found = read.eos_token_id
    listed = [] if found is None else found if isinstance(found, list) else [found]
    if not all(type(one) is int for one in listed):
        raise DataError(f"{folder / GENERATION} has the eos_token_id {found!r:.40}: give the numbers of tokens")
    return frozenset(listed)


def check_place(dtype: str, device_map: Any) -> None:
    """Raises ParamError for an unknown dtype, and for a device that is unknown or missing."""
    if dtype not in DTYPES:
        raise ParamError(f"dtype is {dtype!r}: give one of {', '.join(DTYPES)}")
    if not isinstance(device_map, str | torch.device) or device_map == "auto":
        return  # a map of transformers
    try:
        kind = torch.device(device_map).type
    except RuntimeError:
        kind = ""
    if kind == "cuda" and not torch.cuda.is_available():
        raise ParamError(f"device {device_map} was asked for, but torch sees no GPU: give cpu")
    if kind not in ("cpu", "cuda"):
        raise ParamError(f"device is {str(device_map)!r}: give cpu, cuda, or cuda:0, cuda:1 ...")


def _check_template(folder: Path, tokenizer: Any, latent: bool) -> None:
    if not tokenizer.chat_template:
        raise DataError(f"{folder} has no chat template (chat_template.jinja): take an instruction-tuned model")
    if tokenizer.eos_token_id is None:
        raise DataError(f"{folder} has no end token (eos_token in tokenizer_config.json): take an instruction-tuned model")
    check_tokenizer(tokenizer.encode, tokenizer.decode, f"the tokenizer in {folder}")
    origin = f"the chat template of {folder}"
    if latent:
        chat_template.empty_block(tokenizer, origin)
    else:
        chat_template.prompts(tokenizer, origin)
