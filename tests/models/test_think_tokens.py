"""Think tokens: checked where a model has them, added where it has none."""

from pathlib import Path

import pytest
import tiny_folders
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from worlds import STYLE, WORLD

from qthink_core.errors import DataError
from qthink_core.models import model_folder, sources, tiny_tokenizer
from qthink_core.models.think_tokens import with_thinking

USER = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def base(tmp_path: Path, **options: object) -> Path:
    tiny_folders.save(tmp_path / "source", tiny_folders.plain_tokenizer(), **options)  # type: ignore[arg-type]
    sources.from_folder(tmp_path / "source", tmp_path / "base")
    return tmp_path / "base"


def prompt(folder: Path, **options: bool) -> str:
    text = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        [{"role": "user", "content": "Hello"}], tokenize=False, add_generation_prompt=True, **options
    )
    assert isinstance(text, str)
    return text


@pytest.mark.slow
@pytest.mark.parametrize("thinking", ["native", "added"])
def test_a_model_that_thinks_is_left_as_it_is(tmp_path: Path, thinking: str) -> None:
    tiny_folders.save(tmp_path / "source", tiny_tokenizer.build(WORLD, STYLE.opening))
    sources.from_folder(tmp_path / "source", tmp_path / "base")
    before = contents(tmp_path / "base")
    with_thinking(tmp_path / "base", thinking)  # type: ignore[arg-type]
    assert contents(tmp_path / "base") == before


def test_a_model_that_knows_no_thinking_is_not_taken_for_one_that_does(tmp_path: Path) -> None:
    folder = base(tmp_path)
    with pytest.raises(DataError, match=r"encodes <think> as 3 tokens .* set thinking to `added`"):
        with_thinking(folder, "native")


def test_think_tokens_without_a_template_for_them_are_not_enough(tmp_path: Path) -> None:
    tokenizer = tiny_folders.plain_tokenizer()
    tokenizer.add_tokens(["<think>", "</think>"])
    tiny_folders.save(tmp_path / "base", tokenizer)
    with pytest.raises(DataError, match=r"enable_thinking=False in .* empty think block .* is expected"):
        with_thinking(tmp_path / "base", "native")


@pytest.mark.slow
def test_the_added_template_opens_a_block_or_renders_an_empty_one(tmp_path: Path) -> None:
    folder = base(tmp_path)
    with_thinking(folder, "added")
    assert prompt(folder) == USER + "<think>\n"
    assert prompt(folder, enable_thinking=True) == USER + "<think>\n"
    assert prompt(folder, enable_thinking=False) == USER + "<think>\n\n</think>\n\n"


@pytest.mark.slow
def test_an_added_token_is_one_that_decoding_keeps(tmp_path: Path) -> None:
    folder = base(tmp_path)
    with_thinking(folder, "added")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.encode("<think>\nthink</think><|im_end|>", add_special_tokens=False)
    assert tokenizer.convert_ids_to_tokens(ids) == ["<think>", "Ċ", "think", "</think>", "<|im_end|>"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<think>\nthink</think>"


@pytest.mark.slow
@pytest.mark.parametrize("tied", [True, False])
def test_an_added_token_starts_as_the_mean_of_its_pieces(tmp_path: Path, tied: bool) -> None:
    folder = base(tmp_path, tied=tied)
    old = model_folder.read_tensors(folder / model_folder.WEIGHTS)
    with_thinking(folder, "added")
    new = model_folder.read_tensors(folder / model_folder.WEIGHTS)
    ids = tiny_folders.vocabulary()
    assert old.keys() == new.keys()
    for name in {"model.embed_tokens.weight", "lm_head.weight"} & new.keys():
        think = sum(old[name][ids[piece]].double() for piece in ("<", "think", ">")) / 3
        end_think = sum(old[name][ids[piece]].double() for piece in ("</", "think", ">")) / 3
        assert torch.equal(new[name][-2], think.float())
        assert torch.equal(new[name][-1], end_think.float())


@pytest.mark.slow
def test_adding_tokens_changes_no_logit_of_the_others(tmp_path: Path) -> None:
    folder = base(tmp_path)
    ids_BT = torch.arange(20)[None]
    before = AutoModelForCausalLM.from_pretrained(folder)(ids_BT).logits
    with_thinking(folder, "added")
    after = AutoModelForCausalLM.from_pretrained(folder)(ids_BT).logits
    assert after.shape[-1] == before.shape[-1] + 2
    # Equal here; another BLAS may sum a product with two more columns in another order.
    torch.testing.assert_close(after[..., :-2], before, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_added_tokens_take_the_spare_rows_of_a_padded_embedding(tmp_path: Path) -> None:
    folder = base(tmp_path, rows=320)
    with_thinking(folder, "added")
    about = model_folder.check(folder)
    assert (about["vocab"], about["tokens"]) == (320, 3 + 256 + len(tiny_folders.MERGES) + 2)


@pytest.mark.slow
def test_adding_twice_adds_once_and_the_model_stays_whole(tmp_path: Path) -> None:
    folder = base(tmp_path)
    with_thinking(folder, "added")
    once = contents(folder)
    with_thinking(folder, "added")
    assert contents(folder) == once
    assert model_folder.check(folder)["tokens"] == 3 + 256 + len(tiny_folders.MERGES) + 2
