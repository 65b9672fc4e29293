"""Loading a base or an exported model from its folder, and the layout of an exported folder.

An exported folder has the files that the model card publishes: merged `model.safetensors`, config, tokenizer, chat template
and, for K > 0, `projection_head.pt`. Its `qthink.json` adds what an evaluation needs: K, and whether the model thinks.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel

from qthink_core.artifacts.files import read_object, read_small
from qthink_core.errors import DataError, ParamError
from qthink_core.method import projection_head
from qthink_core.method.projection_head import ProjectionHead
from qthink_core.models.acceptance.configs import config_of
from qthink_core.models.tokenizer import load_tokenizer
from qthink_core.pipeline import ranks

CONFIG = "qthink.json"
HEAD = "projection_head.pt"
CAPPED_ATTENTION, EAGER = "attn_logit_softcapping", "eager"
MAX_STEPS = 1024  # K beyond it is a mistake
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


class QThinkConfig(NamedTuple):
    """The content of an exported model's `qthink.json`.

    `positions` is the rule for the positions of its teachers, if its row of the table has a rule of its own.
    """

    K: int
    thinking: bool
    positions: str | None = None


class System(NamedTuple):
    """A model that answers questions: its prompt asks for thinking or not, and K latent steps follow (0: none).

    `more_ends` are tokens that end an answer besides the tokenizer's end token; a stage has none, like the card's snippet.
    """

    model: PreTrainedModel
    tokenizer: Any
    head: ProjectionHead | None
    K: int
    thinking: bool
    more_ends: frozenset[int] = frozenset()

    @property
    def ends(self) -> frozenset[int]:
        """All tokens that end an answer."""
        return self.more_ends | {self.tokenizer.eos_token_id}


transformers.utils.logging.disable_progress_bar()


def pick_device(name: str) -> torch.device:
    """The device with the name that the params give; under a launcher, this rank's own GPU.

    Raises ParamError when it is missing, because another device is never used instead.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ParamError("device is cuda but torch sees no GPU: run on a machine with one, or choose another scale")
    if name == "cpu":
        torch.use_deterministic_algorithms(True)
        # memory that no operation has written is not read here; to fill it took 4 to 9 % of the time of a pass
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if name == "cuda" and ranks.launched():
        if ranks.local() >= torch.cuda.device_count():
            found = f"rank {ranks.rank()} is process {ranks.local()} of its machine, where torch sees"
            raise ParamError(f"{found} {torch.cuda.device_count()} GPUs: launch as many processes as there are GPUs")
        torch.cuda.set_device(ranks.local())
        return torch.device(name, ranks.local())
    return torch.device(name)


def load_model(folder: Path, device: torch.device, dtype: str) -> PreTrainedModel:
    """The causal language model in `folder`, in evaluation mode."""
    model = pretrained(folder, dtype=getattr(torch, dtype))
    model.to(device)  # type: ignore[arg-type]  # transformers wraps the signature away
    return model


def pretrained(folder: Path, **options: Any) -> PreTrainedModel:
    """The model in `folder` as transformers load it with `options`, from safetensors alone and in evaluation mode.

    A model that caps its attention (Gemma 2) computes it in Python, since the kernel of torch leaves the cap out. Raises
    DataError as `config_of` does, and when the weights lack a tensor or have one of another shape, which transformers would
    draw at random.
    """
    config = config_of(folder)
    if getattr(config, CAPPED_ATTENTION, None) is not None:
        options["attn_implementation"] = EAGER
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, output_loading_info=True, **options
    )
    model, found = loaded
    wrong = sorted([*found["missing_keys"], *(str(key) for key, *_ in found["mismatched_keys"])])
    if wrong:
        raise DataError(
            f"the weights in {folder} lack {len(wrong)} of the tensors that its config.json asks for, first {wrong[0]}: "
            "fetch it again"
        )
    return model.eval()


def hidden_size(folder: Path) -> int:
    """The hidden size D of the model in `folder`, from its config alone."""
    return int(config_of(folder).hidden_size)


def read_config(folder: Path) -> QThinkConfig:
    """The `qthink.json` of an exported model.

    Raises DataError when it is missing or damaged, and OSError when it cannot be read.
    """
    path = folder / CONFIG
    fix = "fetch it again, or export the model again (in the repository: `dvc repro merge`)"
    if not path.exists():
        raise DataError(f"{path} is missing, so {folder} is not an exported model: {fix}")
    try:
        config = read_object(read_small(path))
    except ValueError as error:
        raise DataError(f"{path} does not describe an exported model ({error}): {fix}") from None
    K, thinking = config.get("K"), config.get("thinking")
    if type(K) is not int or not 0 <= K <= MAX_STEPS:
        raise DataError(f"{path} has K {K!r:.40} where a whole number from 0 to {MAX_STEPS} is expected: {fix}")
    if type(thinking) is not bool:
        raise DataError(f"{path} has thinking {thinking!r:.40} where true or false is expected: {fix}")
    return QThinkConfig(K, thinking, config.get("positions"))


def load_system(folder: Path, device: torch.device, dtype: str) -> System:
    """An exported model and its projection head in one dtype, as in the model card's example.

    Raises DataError as `read_config` does, and when the head does not belong to this model (`projection_head.load`).
    """
    K, thinking, _ = read_config(folder)
    model = load_model(folder, device, dtype)
    head = None
    if K:
        head = projection_head.load(folder / HEAD, model.config.hidden_size).to(device, model.dtype).eval()
    return System(model, load_tokenizer(folder), head, K, thinking)


def base_system(folder: Path, device: torch.device, dtype: str, thinking: bool) -> System:
    """The base model itself, with or without thinking."""
    return System(load_model(folder, device, dtype), load_tokenizer(folder), None, 0, thinking)
