"""The think tokens of a base model: checked if it has them, added if not.

The method needs `<think>` and `</think>` as single tokens that decoding keeps. It also needs a chat template that ends the
prompt in an empty think block when `enable_thinking` is False (Qwen3's convention).
"""

import json
from pathlib import Path
from typing import Any, Literal

import torch

from qthink_core.artifacts.files import canonical_json, write_file
from qthink_core.errors import DataError
from qthink_core.models.model_folder import CONFIG, TEMPLATE, TOKENIZER, WEIGHTS, read_json, read_tensors, write_tensors
from qthink_core.models.tokenizer import load_tokenizer

THINK, END_THINK = "<think>", "</think>"
EMPTY_BLOCK = f"{THINK}\n\n{END_THINK}\n\n"
# A model that was never trained to think does not open a block itself, so its prompt opens one.
OPEN_BLOCK = f"{THINK}\n"
ADDED_TEMPLATE = (
    "{%- if add_generation_prompt %}"
    "{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- " + json.dumps(EMPTY_BLOCK) + " }}"
    "{%- else %}"
    "{{- " + json.dumps(OPEN_BLOCK) + " }}"
    "{%- endif %}{%- endif %}"
)
EMBEDDINGS = ("model.embed_tokens.weight", "lm_head.weight")


def with_thinking(folder: Path, thinking: Literal["native", "added"]) -> None:
    """Makes the model in `folder` follow Qwen3's think convention.

    `native` only checks the model. `added` first adds what is missing. The embedding of a new think token is the mean of the
    embeddings of its plain-text pieces ('<', 'think', '>'). The template's generation prompt then ends in an open `<think>`,
    or in an empty block when `enable_thinking` is False. Raises DataError when the result does not follow the convention.
    """
    if thinking == "added":
        _add_tokens(folder)
        _extend_template(folder)
    check(folder)


def _add_tokens(folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    missing = [token for token in (THINK, END_THINK) if tokenizer.token_to_id(token) is None]
    if not missing:
        return
    pieces = {token: tokenizer.encode(token, add_special_tokens=False).ids for token in missing}
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in missing])
    vocabulary = tokenizer.get_vocab()
    rows = {vocabulary[token]: ids for token, ids in pieces.items()}
    tensors = read_tensors(folder / WEIGHTS)
    if EMBEDDINGS[0] not in tensors:
        raise DataError(
            f"{folder / WEIGHTS} has no {EMBEDDINGS[0]}, so think tokens cannot be added: take a model that has them"
        )
    for name in EMBEDDINGS:
        if name in tensors:
            tensors[name] = _with_means(tensors[name], rows)
    config = read_json(folder / CONFIG) | {"vocab_size": tensors[EMBEDDINGS[0]].shape[0]}
    write_tensors(folder, tensors)
    write_file(folder / CONFIG, canonical_json(config))
    write_file(folder / TOKENIZER, canonical_json(json.loads(tokenizer.to_str())))


def _with_means(weight_VD: torch.Tensor, rows: dict[int, list[int]]) -> torch.Tensor:
    """The matrix with each row i of `rows` set to the mean of its rows `rows[i]`; it grows if i is beyond its end."""
    n_rows = max(weight_VD.shape[0], *(row + 1 for row in rows))
    grown_VD = torch.zeros(n_rows, weight_VD.shape[1], dtype=weight_VD.dtype)
    grown_VD[: weight_VD.shape[0]] = weight_VD
    for row, pieces in rows.items():
        grown_VD[row] = weight_VD[pieces].double().mean(0).to(weight_VD.dtype)
    return grown_VD


def _extend_template(folder: Path) -> None:
    if _prompt(load_tokenizer(folder), enable_thinking=False).endswith(EMPTY_BLOCK):
        return
    template = (folder / TEMPLATE).read_text(encoding="utf-8")
    write_file(folder / TEMPLATE, (template + ADDED_TEMPLATE).encode())


def check(folder: Path) -> None:
    """Raises DataError, with the fix, when the tokenizer in `folder` does not follow the think convention."""
    tokenizer = load_tokenizer(folder)
    fix = "set thinking to `added`, or take a model that thinks"
    for token in (THINK, END_THINK):
        ids = tokenizer.encode(token, add_special_tokens=False)
        if len(ids) != 1:
            raise DataError(f"{folder / TOKENIZER} encodes {token} as {len(ids)} tokens where one is expected: {fix}")
        if tokenizer.decode(ids, skip_special_tokens=True) != token:
            raise DataError(f"{folder / TOKENIZER} marks {token} as special, so decoding drops it: set special to false")
    without, thinking = (_prompt(tokenizer, enable_thinking=flag) for flag in (False, True))
    if not without.endswith(EMPTY_BLOCK):
        raise DataError(
            f"{folder / TEMPLATE} ends the prompt of enable_thinking=False in {without[-20:]!r} where an "
            f"empty think block ({EMPTY_BLOCK!r}) is expected: {fix}"
        )
    if without.removesuffix(EMPTY_BLOCK) != thinking.removesuffix(OPEN_BLOCK):
        raise DataError(f"{folder / TEMPLATE} changes more with enable_thinking than the think block: take another model")


def _prompt(tokenizer: Any, enable_thinking: bool) -> str:
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hello"}],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=enable_thinking,
    )
    assert isinstance(text, str)
    return text
