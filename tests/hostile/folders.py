"""Model folders that someone hostile has made: how each is made from a good one, and what is said of it."""

import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_folders
import torch

Spoil = Callable[[Path], Any]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that every command takes."""
    made = tmp_path_factory.mktemp("good") / "model"
    tiny_folders.save(made, tiny_folders.plain_tokenizer())
    return made


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoilt."""
    return Path(shutil.copytree(good, tmp_path / "model"))


class Trap:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return (Path.touch, (self.canary,))


def edit(name: str, **values: Any) -> Spoil:
    """Sets fields of a JSON file."""

    def spoil(folder: Path) -> None:
        path = folder / name
        found = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(found | values))

    return spoil


def put(name: str, content: bytes | str) -> Spoil:
    """Replaces a file."""
    return lambda folder: (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def header(content: bytes, length: int | None = None) -> Spoil:
    """A safetensors file with this header and no tensors."""
    return put("model.safetensors", struct.pack("<Q", len(content) if length is None else length) + content)


def sparse_weights(folder: Path) -> None:
    """A file of 1 TB that takes a few blocks of the disk."""
    content = json.dumps({"model.norm.weight": {"dtype": "F32", "shape": [1 << 38], "data_offsets": [0, 1 << 40]}}).encode()
    header(content)(folder)
    os.truncate(folder / "model.safetensors", 8 + len(content) + (1 << 40))


def index(shard: Callable[[Path], str]) -> Spoil:
    """Moves the weights out of the folder, and names them in an index."""

    def spoil(folder: Path) -> None:
        outside = folder.parent / "outside.safetensors"
        (folder / "model.safetensors").rename(outside)
        names = {"model.norm.weight": shard(outside)}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))

    return spoil


def link(name: str, target: str) -> Spoil:
    """Replaces a file by a link."""
    return lambda folder: ((folder / name).unlink(missing_ok=True), (folder / name).symlink_to(target))


def growing(folder: Path) -> None:
    """A tokenizer that turns each `a` into 50^8 of them."""
    path = folder / "tokenizer.json"
    one = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 50}
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"normalizer": {"type": "Sequence", "normalizers": [one] * 8}})
    )


def backtracking(folder: Path) -> None:
    """A tokenizer with a pattern that has exponentially many ways not to match."""
    path = folder / "tokenizer.json"
    split = {"type": "Split", "pattern": {"Regex": r"(?:[\w\s]|\w|\s)*(?<=\x00)"}, "behavior": "Isolated", "invert": False}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pre_tokenizer": split}))


def bomb_for(condition: str) -> Spoil:
    """A template that never ends where a condition holds."""
    loops = "{% for a in range(9999) %}" * 3 + "{% endfor %}" * 3
    text = "chat_template.jinja"
    return lambda folder: (folder / text).write_text(
        f"{{% if {condition} %}}{loops}{{% endif %}}" + (folder / text).read_text()
    )


ESCAPE = "{{ cycler.__init__.__globals__.os.system('touch CANARY') }}"
RAN = r"asks to run its own code \(%s\): take a model that transformers knows"
OUTSIDE = r"model\.safetensors\.index\.json names a shard '.*outside\.safetensors' outside its folder: fetch it again"
# What every command that loads a folder refuses at once.
FOLDERS: dict[str, tuple[Spoil, str]] = {
    "1 TB of weights": (
        sparse_weights,
        r"holds 1,099,511,627,\d+ bytes of weights where its config\.json describes at most",
    ),
    "a billion layers": (
        edit("config.json", num_hidden_layers=10**9),
        r"has num_hidden_layers 1000000000, expected 0 to 100,000: take another model$",
    ),
    "a billion labels": (edit("config.json", num_labels=10**9), "has num_labels 1000000000, expected 0 to"),
    "a trillion tokens": (
        edit("config.json", vocab_size=10**12),
        r"has vocab_size 1000000000000, expected 0 to 100,000,000",
    ),
    "fewer tokens than none": (edit("config.json", vocab_size=-1), "has vocab_size -1, expected 0 to"),
    "code for a known model": (edit("config.json", auto_map={"AutoConfig": "evil.C"}), RAN % "auto_map"),
    "code of the hub": (edit("config.json", model_type="x", auto_map={"AutoConfig": "evil/repo--evil.C"}), RAN % "auto_map"),
    "code for the tokenizer": (
        edit("tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]}),
        RAN % "auto_map",
    ),
    "code for generation": (edit("generation_config.json", custom_generate="evil/repo"), RAN % "custom_generate"),
    "a kernel": (
        edit("config.json", attn_implementation="evil/kernel"),
        r"asks to run code of the hub \(attn_implementation: 'evil/kernel'\): remove the field$",
    ),
    "a nested kernel": (edit("config.json", text_config={"_attn_implementation": "evil/kernel"}), "code of the hub"),
    "an adapter": (
        edit("adapter_config.json", base_model_name_or_path="evil/base", auto_mapping={"parent_library": "evil"}),
        r"holds an adapter \(adapter_config\.json\): merge it into its model first",
    ),
    "a shard above": (index(lambda _: "../outside.safetensors"), OUTSIDE),
    "an absolute shard": (index(str), OUTSIDE),
    "a template from elsewhere": (
        link("chat_template.jinja", "/etc/passwd"),
        r"chat_template\.jinja is a link to /etc/passwd, outside its folder: put the file itself there$",
    ),
    "a config from elsewhere": (link("generation_config.json", "/etc/hostname"), "is a link to /etc/hostname, outside"),
    "a long template": (
        put("chat_template.jinja", "{{ 1 }}" * (1 << 18)),
        r"has 1,835,008 bytes, expected at most 1,048,576",
    ),
    "a long list": (edit("generation_config.json", eos_token_id=[5] * 10**6), "bytes, expected at most 1,048,576"),
    "1 TB of tokenizer": (lambda folder: os.truncate(folder / "tokenizer.json", 1 << 40), "has 1,099,511,627,776 bytes"),
    "a config of 100,000 levels": (put("config.json", '{"a":' * 10**5 + "1" + "}" * 10**5), "is nested too deep to read"),
    "a field twice": (put("config.json", '{"model_type": "llama", "model_type": "x"}'), "field 'model_type' appears twice"),
    "not a number": (put("config.json", '{"model_type": "llama", "rope_theta": NaN}'), "NaN is not a finite number"),
}
# What only what reads them finds out: weights, templates, tokenizers. Each is refused by `base` and `ask`.
READ: dict[str, tuple[Spoil, str]] = {
    "a header of 2 GB": (header(b"{}", 2 << 30), "header too large"),
    "a header of 16 EB": (header(b"{}", 2**64 - 1), "header too large"),
    "a deep header": (header(b"[" * 10**5), "invalid JSON in header"),
    "tensors that overlap": (
        lambda folder: header(
            json.dumps({name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for name in "ab"}).encode()
        )(folder),
        "invalid offset for tensor",
    ),
    "a template that escapes": (put("chat_template.jinja", ESCAPE), r"cannot be used \(access to attribute '__init__'"),
    "a template that includes": (put("chat_template.jinja", "{% include '/etc/passwd' %}"), "cannot be used"),
    "a template that calls itself": (
        put("chat_template.jinja", "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}"),
        "cannot be used|takes more than",
    ),
    "a template that never ends": (bomb_for("true"), r"takes more than 5 s, 1 GiB of memory or 64 MiB of text"),
    "a template of 10 GB": (put("chat_template.jinja", "{{ 'a' * 10 ** 10 }}"), "takes more than 5 s, 1 GiB of memory"),
    "a pattern without end": (backtracking, r"tokenizer.* (?:cannot read a short text \(Onig|takes more than 5 s)"),
    "a tokenizer that grows": (growing, r"tokenizer.* takes more than 5 s, 1 GiB of memory or 64 MiB of text for a short"),
}


def zipped(folder: Path) -> None:
    """A head of a few kilobytes that unpacks to 16 MB."""
    with zipfile.ZipFile(folder / "projection_head.pt", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in (("data.pkl", pickle.dumps({})), ("version", b"3\n"), ("data/0", bytes(16 << 20))):
            archive.writestr(f"archive/{name}", content)


def saved(change: Callable[[dict[str, Any], Path], Any]) -> Spoil:
    """A head with other content; the change sees its tensors and the canary."""

    def spoil(folder: Path) -> None:
        path = folder / "projection_head.pt"
        state = torch.load(path, weights_only=True)
        found = change(state, folder.parent / "canary")
        buffer = io.BytesIO()
        torch.save(state if found is None else found, buffer)
        path.write_bytes(buffer.getvalue())

    return spoil


HEADS: dict[str, tuple[Spoil, str]] = {
    "code": (saved(lambda state, canary: state.update({"mlp.0.bias": Trap(canary)})), "is not a PyTorch state dict"),
    "code alone": (
        lambda folder: put("projection_head.pt", pickle.dumps(Trap(folder.parent / "canary")))(folder),
        "is not a PyTorch",
    ),
    "a module": (saved(lambda state, _: torch.nn.Linear(2, 2)), "is not a PyTorch state dict"),
    "16 MB in a zip": (zipped, r"holds 16,7\d+,\d+ bytes where a head of hidden size 32 has at most"),
    "1 TB": (
        lambda folder: os.truncate(folder / "projection_head.pt", 1 << 40),
        "holds 1,099,511,627,776 bytes where a head",
    ),
    "a sparse tensor": (
        saved(lambda state, _: state.update({"mlp.0.weight": torch.eye(32).to_sparse()})),
        r"mlp\.0\.weight",
    ),
    "a tensor of nothing": (
        saved(lambda state, _: state.update({"mlp.0.weight": torch.empty(32, 32, device="meta")})),
        r"mlp\.0\.w",
    ),
    "whole numbers": (saved(lambda state, _: state.update({"mlp.0.weight": torch.ones(32, 32).int()})), r"mlp\.0\.weight"),
    "NaN": (
        saved(lambda state, _: state.update({"mlp.2.weight": torch.full((32, 32), torch.nan)})),
        "holds a NaN or an infinity",
    ),
    "another shape": (saved(lambda state, _: state.update({"mlp.0.bias": torch.zeros(33)})), "does not have shape"),
    "another key": (
        saved(lambda state, _: state.update({"x" * 9000: torch.zeros(1)})),
        r"holds \[.* where .* was expected",
    ),
    "a list": (saved(lambda state, _: list(state.values())), "holds list where"),
}
