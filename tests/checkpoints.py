"""Small checkpoints on disk: the layout of the published ones, an export of this project, and a model without a head."""

import json
from pathlib import Path
from typing import Any

from qthink_core.method import projection_head
from qthink_core.models.loading import CONFIG, HEAD


def published(folder: Path, model: Any, tokenizer: Any, head: Any) -> Path:
    """The published layout: weights, tokenizer and head; K is not recorded."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / HEAD).write_bytes(projection_head.to_bytes(head))
    return folder


def exported(folder: Path, model: Any, tokenizer: Any, head: Any, K: int = 6) -> Path:
    """An export of this project, which records K."""
    (published(folder, model, tokenizer, head) / CONFIG).write_text(json.dumps({"K": K, "thinking": False}))
    return folder


def plain(folder: Path, model: Any, tokenizer: Any) -> Path:
    """A model without a projection head."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
