"""What `check` says of a model folder, and each way in which its files may not belong together."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_folders
import torch

from qthink_core.errors import DataError
from qthink_core.models import loading, model_folder, sources
from qthink_core.models.model_folder import WEIGHTS, check, read_tensors, write_tensors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_folders.save(tmp_path / "source", tiny_folders.plain_tokenizer())
    sources.from_folder(tmp_path / "source", tmp_path / "base")
    return tmp_path / "base"


def test_the_facts_of_a_model_are_those_of_its_architecture(folder: Path) -> None:
    n_tokens = 3 + 256 + len(tiny_folders.MERGES)
    per_layer = 32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 32 + 2 * 32
    assert check(folder) == {
        "architecture": "LlamaForCausalLM",
        "hidden_size": 32,
        "layers": 2,
        "vocab": n_tokens,
        "tokens": n_tokens,
        "parameters": 2 * per_layer + 32 + 2 * 32 * n_tokens,
        "dtype": "float32",
    }


@pytest.mark.parametrize("tied", [True, False])
def test_tied_weights_need_not_be_stored_twice(tmp_path: Path, tied: bool) -> None:
    model = tiny_folders.save(tmp_path / "source", tiny_folders.plain_tokenizer(), tied=tied)
    sources.from_folder(tmp_path / "source", tmp_path / "base")
    assert check(tmp_path / "base")["parameters"] == sum(weight.numel() for weight in model.parameters())


def test_the_weights_file_has_the_same_bytes_at_every_write(folder: Path) -> None:
    before = (folder / WEIGHTS).read_bytes()
    write_tensors(folder, read_tensors(folder / WEIGHTS))
    assert (folder / WEIGHTS).read_bytes() == before


def change(name: str, make: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tensors = read_tensors(folder / WEIGHTS)
        write_tensors(folder, tensors | {name: make(tensors.get(name, torch.zeros(1)))})

    return edit


def drop(name: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tensors = read_tensors(folder / WEIGHTS)
        del tensors[name]
        write_tensors(folder, tensors)

    return edit


def truncate(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])


def other_end(folder: Path) -> None:
    path = folder / model_folder.TOKENIZER_CONFIG
    path.write_text(path.read_text().replace("<|im_end|>", "<|endoftext|>"))


def other_tokenizer(folder: Path) -> None:
    tokenizer = tiny_folders.plain_tokenizer()
    tokenizer.add_tokens(["one more"])
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (truncate, "is not a complete safetensors file"),
        (change("model.norm.weight", lambda t: t * float("nan")), "NaN or an infinity in model.norm.weight"),
        (change("model.norm.weight", lambda t: t / 0), "NaN or an infinity in model.norm.weight"),
        (
            change("model.norm.weight", lambda t: t[:9].clone()),
            r"shape \(9,\) but its config.json says \(32,\)",
        ),
        (change("model.extra", lambda t: t), "says no such tensor"),
        (change("model.norm.weight", lambda t: t.half()), "mixes float16, float32"),
        (drop("model.norm.weight"), "lacks 1 tensors .* first model.norm.weight"),
        (drop("lm_head.weight"), "lacks 1 tensors .* first lm_head.weight"),
        (
            other_end,
            r"ends an assistant's turn with '<\|im_end\|>\\n' where the tokenizer's eos_token is '<\|endoftext",
        ),
        (other_tokenizer, r"267 tokens \(the last is 'one more'\) but 266 embedding rows"),
        (lambda folder: (folder / "generation_config.json").unlink(), "generation_config.json is missing"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(folder: Path, spoil: Callable[[Path], Any], said: str) -> None:
    spoil(folder)
    with pytest.raises(DataError, match=said):
        check(folder)


@pytest.mark.parametrize("content", ["{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}'])
def test_an_index_without_a_map_of_tensors_to_files_is_refused(tmp_path: Path, content: str) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(content)
    with pytest.raises(DataError, match="has no weight_map of tensors to files"):
        model_folder.shards_of(index)


def test_a_description_that_is_no_small_file_is_refused(tmp_path: Path) -> None:
    pipe, large = tmp_path / "config.json", tmp_path / "qthink.json"
    os.mkfifo(pipe)
    large.touch()
    os.truncate(large, (256 << 20) + 1)
    with pytest.raises(DataError, match=r"config\.json is not a regular file: fetch it again$"):
        model_folder.read_json(pipe)
    with pytest.raises(DataError, match=r"qthink\.json .*has 268,435,457 bytes, expected at most 268,435,456.*: fetch"):
        loading.read_config(tmp_path)
