"""The card of an exported folder: its front matter, and a usage that runs as it is."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import exported
import pytest
import torch
from engines import answer
from huggingface_hub import ModelCard
from transformers import GenerationMixin, dynamic_module_utils

from qthink_core.artifacts.files import canonical_json
from qthink_core.benchmarks.rendering import render
from qthink_core.errors import DataError
from qthink_core.generation.hf_engine import HFEngine
from qthink_core.models import loading, model_card
from qthink_core.pipeline import code

QWEN = {"source": {"hub": {"repo": "Qwen/Qwen3-1.7B", "revision": "70d2"}, "thinking": "native"}}
PRETRAINED = {"source": {"pretrain": {"steps": 300}, "thinking": "native"}}


@pytest.fixture
def folders(tmp_path: Path, tokenizer: Any) -> Any:
    """A base and an adapter as far as the card reads them: `folders(about)`."""

    def make(about: dict[str, Any], base: dict[str, Any] = PRETRAINED) -> tuple[Path, Path]:
        tokenizer.save_pretrained(tmp_path / "base")
        (tmp_path / "base/manifest.json").write_bytes(canonical_json({"about": base}))
        (tmp_path / "adapter").mkdir()
        (tmp_path / "adapter/qthink.json").write_bytes(canonical_json(about))
        return tmp_path / "base", tmp_path / "adapter"

    return make


def test_the_front_matter_is_what_the_hub_reads() -> None:
    data = ModelCard(model_card.card({"K": 6, "thinking": False}, QWEN)).data
    assert (data.base_model, data.license) == ("Qwen/Qwen3-1.7B", "apache-2.0")
    assert (data.library_name, data.pipeline_tag) == ("transformers", "text-generation")
    assert "custom_generate" in data.tags
    own = ModelCard(model_card.card({"K": 0, "thinking": True}, PRETRAINED)).data
    assert (own.base_model, own.license) == (None, "apache-2.0")
    assert "custom_generate" not in own.tags
    other = ModelCard(model_card.card({"K": 6, "thinking": False}, {"source": {"folder": "/data/model"}})).data
    assert (other.base_model, other.license) == (None, None)  # neither is known


def test_a_latent_system_gets_code_and_template_and_another_gets_its_card_alone(folders: Any) -> None:
    found = model_card.files(*folders({"K": 6, "thinking": False}))
    assert set(found) == {"README.md", "custom_generate/generate.py", "chat_template.jinja"}
    assert found["custom_generate/generate.py"] == (exported.PACKAGE / "custom_generate/generate.py").read_bytes()


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        ({"K": 0, "thinking": True}, {"README.md"}),
        ({"K": 6, "thinking": True}, {"README.md", "custom_generate/generate.py"}),  # `distil.prompt: thinking`
    ],
)
def test_the_template_changes_only_where_latent_steps_follow_an_empty_block(
    folders: Any, about: dict[str, Any], expected: set[str]
) -> None:
    assert set(model_card.files(*folders(about))) == expected


def test_a_folder_without_description_is_named(folders: Any) -> None:
    base, adapter = folders({"K": 6, "thinking": False})
    (adapter / "qthink.json").write_text("{")
    with pytest.raises(DataError, match=r"adapter/qthink\.json cannot be read"):
        model_card.files(base, adapter)


def test_an_edit_of_the_code_in_the_folder_reruns_the_stage_that_writes_it_and_no_training() -> None:
    root = exported.PACKAGE.parents[1]
    stages = {
        stage
        for stage in ("merge", "base", "train", "evaluate")
        if any(path.endswith("custom_generate/generate.py") for path in code.of_stage(root, stage))
    }
    assert stages == {"merge"}


@pytest.mark.parametrize("K", [6, 0])
def test_the_usage_of_the_card_answers_as_the_engine(
    qwen3: Any,
    tokenizer: Any,
    random_head: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
    K: int,
) -> None:
    folder = exported.write(tmp_path / "exported", qwen3(), tokenizer, random_head(), K)
    about, question = {"K": K, "thinking": False}, "Tom has 3 'red' boxes, buys 2."
    page = model_card.card(about, PRETRAINED, question=question)
    (usage,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.setattr(GenerationMixin, "init_continuous_batching", GenerationMixin.init_continuous_batching)
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.chdir(folder)
    (tmp_path / "usage.py").write_text(usage.replace("=256", "=24"))
    runpy.run_path(str(tmp_path / "usage.py"))
    (expected,) = answer(
        HFEngine(loading.load_system(folder, torch.device("cpu"), "float32"), 24),
        {"q": render(tokenizer, question, thinking=False)},
    )
    assert capsys.readouterr().out == tokenizer.decode(expected.tokens, skip_special_tokens=True) + "\n"
    assert json.loads((folder / "qthink.json").read_bytes())["K"] == K
