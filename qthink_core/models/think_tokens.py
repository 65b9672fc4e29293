"""The think tokens of a base model: checked if it has them, added if not.

The method needs `<think>` and `</think>` as single tokens that decoding keeps, and a chat template that follows the
convention of `acceptance.chat_template`.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from qthink_core.artifacts.files import canonical_json, write_file
from qthink_core.errors import DataError
from qthink_core.models.acceptance import tokenizer_files
from qthink_core.models.acceptance.chat_template import END_THINK, FIX, THINK, following
from qthink_core.models.model_folder import (
    CONFIG,
    EMBEDDINGS,
    OUTPUT_HEAD,
    TEMPLATE,
    TOKENIZER,
    TOKENIZER_CONFIG,
    WEIGHTS,
    check_room,
    read_json,
    read_tensors,
    write_tensors,
)
from qthink_core.models.tokenizer import load_tokenizer


def with_thinking(folder: Path, thinking: Literal["native", "added"]) -> list[str]:
    """Makes the model in `folder` follow the think convention, and returns a sentence for each change.

    `native` changes the chat template alone. `added` first adds the tokens that are missing. The embedding of a new think
    token is the mean of the embeddings of its plain-text pieces ('<', 'think', '>'). Raises DataError when the result does
    not follow the convention.
    """
    changes = _add_tokens(folder) if thinking == "added" else []
    tokenizer = load_tokenizer(folder)
    check_tokens(tokenizer, folder)
    kept = tokenizer.decode(tokenizer.encode(THINK + END_THINK, add_special_tokens=False), skip_special_tokens=True)
    if kept != THINK + END_THINK:
        raise DataError(f"{folder / TOKENIZER} decodes {THINK}{END_THINK} to {kept!r}: take another model")
    template, more = following(tokenizer, thinking, str(folder / TEMPLATE))
    if more:
        write_file(folder / TEMPLATE, template.encode())
    return [*changes, *more]


def _add_tokens(folder: Path) -> list[str]:
    from tokenizers import AddedToken

    tokenizer = tokenizer_files.written(folder)
    pieces = {token: tokenizer.encode(token, add_special_tokens=False).ids for token in (THINK, END_THINK)}
    missing = {token: ids for token, ids in pieces.items() if len(ids) != 1}
    if not missing:
        return []
    known = tokenizer.get_vocab()
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in missing])
    vocabulary = tokenizer.get_vocab()
    rows = {vocabulary[token]: ids for token, ids in missing.items() if token not in known}
    tensors = read_tensors(folder / WEIGHTS)
    if EMBEDDINGS not in tensors:
        raise DataError(
            f"{folder / WEIGHTS} has no {EMBEDDINGS}, so think tokens cannot be added: take a model that has them"
        )
    check_room(folder, known, tensors[EMBEDDINGS].shape[0])
    for name in (EMBEDDINGS, OUTPUT_HEAD):
        if name in tensors and rows:
            tensors[name] = _with_means(tensors[name], rows)
    config = read_json(folder / CONFIG) | {"vocab_size": tensors[EMBEDDINGS].shape[0]}
    write_tensors(folder, tensors)
    write_file(folder / CONFIG, canonical_json(config))
    content = json.loads(tokenizer.to_str())
    write_file(folder / TOKENIZER, canonical_json(content))
    _list_in_config(folder, [entry for entry in content["added_tokens"] if entry["content"] in missing])
    return [f"{' and '.join(missing)} are new tokens"]


def _list_in_config(folder: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Lists new tokens in the tokenizer's config, if it has such a list: some classes read added tokens from there alone."""
    about = read_json(folder / TOKENIZER_CONFIG)
    if isinstance(about.get("added_tokens_decoder"), dict):
        listed = {str(entry["id"]): {key: value for key, value in entry.items() if key != "id"} for entry in entries}
        about["added_tokens_decoder"] |= listed
        write_file(folder / TOKENIZER_CONFIG, canonical_json(about))


def _with_means(weight_VD: torch.Tensor, rows: dict[int, list[int]]) -> torch.Tensor:
    """The matrix with each row i of `rows` set to the mean of its rows `rows[i]`; it grows if i is beyond its end."""
    n_rows = max(weight_VD.shape[0], *(row + 1 for row in rows))
    grown_VD = torch.zeros(n_rows, weight_VD.shape[1], dtype=weight_VD.dtype)
    grown_VD[: weight_VD.shape[0]] = weight_VD
    for row, pieces in rows.items():
        grown_VD[row] = weight_VD[pieces].double().mean(0).to(weight_VD.dtype)
    return grown_VD


def check_tokens(tokenizer: Any, folder: Path) -> None:
    """Raises DataError, with the fix, unless each think mark is a single token."""
    for token in (THINK, END_THINK):
        ids = tokenizer.encode(token, add_special_tokens=False)
        if len(ids) != 1:
            raise DataError(f"{folder / TOKENIZER} encodes {token} as {len(ids)} tokens where one is expected: {FIX}")
