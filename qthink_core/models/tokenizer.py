"""The tokenizer of a model folder. This module does not import torch, so stages that only render prompts start fast."""

from pathlib import Path
from typing import Any

from qthink_core.errors import DataError, first_line


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in `folder` with its chat template; raises DataError when transformers cannot read it."""
    from transformers import AutoTokenizer

    # without the refusal, transformers would ask on standard input whether to run code of the folder
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001 - each class of tokenizers fails in its own way
        raise DataError(
            f"the tokenizer in {folder} cannot be loaded ({first_line(error)}): fetch it again, or take another model"
        ) from None
