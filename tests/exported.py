"""Exported folders with random weights, and the folder into which transformers copy the code that they run from them."""

import shutil
from pathlib import Path
from typing import Any

from qthink_core.artifacts.files import canonical_json
from qthink_core.method import projection_head
from qthink_core.models import loading, model_card

PACKAGE = Path(model_card.__file__).parent


def write(folder: Path, model: Any, tokenizer: Any, head: Any, K: int, thinking: bool = False) -> Path:
    """Writes what the stage `merge` writes for a latent system, by hand."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    template = folder / model_card.TEMPLATE
    template.write_text(model_card.WITHOUT_THINKING + template.read_text())
    (folder / loading.HEAD).write_bytes(projection_head.to_bytes(head))
    (folder / loading.CONFIG).write_bytes(canonical_json({"K": K, "thinking": thinking}))
    (folder / "custom_generate").mkdir()
    shutil.copy(PACKAGE / model_card.GENERATE, folder / model_card.GENERATE)
    return folder


def trusted(folder: Path, modules: Path, patch: Any, **options: Any) -> Any:
    """The model in a folder with its own `generate`; transformers copy its code into `modules` before they run it."""
    from transformers import AutoModelForCausalLM, dynamic_module_utils

    patch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(modules))
    return AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, **options).eval()
