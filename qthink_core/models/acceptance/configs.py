"""The configuration of a model folder, read by transformers, and the kinds of models that it shows to be unusable here."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from qthink_core.errors import DataError, first_line

# Their frequencies change with the longest sequence that is computed together, so an answer would depend on its batch.
BY_LENGTH = ("dynamic", "longrope", "su")
PARTS = ("text_config", "vision_config", "audio_config")


def config_of(folder: Path) -> PreTrainedConfig:
    """The configuration of the model in `folder`; no code of the folder is run.

    Raises DataError when transformers cannot read it, for a model that reads more than text or is no decoder, and for
    rotary positions that depend on the length of the batch.
    """
    path = folder / "config.json"
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001 - each model type checks its settings in its own way
        raise DataError(f"{path} cannot be loaded ({first_line(error)}): fetch it again, or take another model") from None
    kind = config.model_type
    if config.is_encoder_decoder or any(getattr(config, part, None) is not None for part in PARTS):
        raise DataError(f"{path} describes a {kind}, which is not a decoder of text alone: take a language model")
    if not all(isinstance(getattr(config, name, None), int) for name in ("hidden_size", "num_hidden_layers")):
        raise DataError(f"{path} describes a {kind} without hidden_size and num_hidden_layers: take a language model")
    for rope in _rope_types(getattr(config, "rope_parameters", None)):
        if rope in BY_LENGTH:
            raise DataError(
                f"{path} scales rotary positions by the rule '{rope}', which depends on the longest sequence of a batch, so "
                "an answer would depend on the others: take a model with another rule (default, linear, llama3, yarn)"
            )
    return config


def _rope_types(found: Any) -> Iterator[str]:
    """The rules of scaling that a config names; some models have one for each type of layer."""
    if not isinstance(found, Mapping):
        return
    for key, value in found.items():
        if key in ("rope_type", "type"):
            yield str(value)
        yield from _rope_types(value)
