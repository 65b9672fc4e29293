"""The tokenizer of a model folder. This module does not import torch, so stages that only render prompts start fast."""

from pathlib import Path
from typing import Any


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in `folder` with its chat template."""
    from transformers import AutoTokenizer

    # without the refusal, transformers would ask on standard input whether to run code of the folder
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
