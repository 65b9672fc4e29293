"""Checkpoints that anyone may bring: what is missing or wrong is one line, and nothing in them runs."""

import errno
import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from checkpoints import exported, plain, published
from safetensors.torch import load_file, save_file

from qthink_core import LatentReasoner, hub
from qthink_core.errors import DataError, ParamError
from qthink_core.inference import checkpoint
from qthink_core.models.acceptance import folders

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Trap:
    """A pickle that creates a file when it is loaded."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return (Path.touch, (self.canary,))


def refused(folder: Path, message: str, **how: Any) -> None:
    with pytest.raises((DataError, ParamError), match=message) as caught:
        LatentReasoner.from_pretrained(folder, **how)
    assert "\n" not in str(caught.value)


def test_each_layout_says_what_it_is(folder: Path, qwen3: Any, tokenizer: Any, random_head: Any, tmp_path: Path) -> None:
    bare = published(tmp_path / "published", qwen3(), tokenizer, random_head())
    thinking = plain(tmp_path / "plain", qwen3(), tokenizer)
    assert checkpoint.find(folder) == (folder, 6, False, 6)
    assert checkpoint.find(folder, K=0) == (folder, 0, False, 6)
    assert checkpoint.find(bare, K=6) == (bare, 6, False, None)
    assert checkpoint.find(thinking) == (thinking, 0, True, None)
    assert checkpoint.find(thinking, thinking=False) == (thinking, 0, False, None)


def test_latent_steps_without_a_head_are_refused(qwen3: Any, tokenizer: Any, tmp_path: Path) -> None:
    refused(plain(tmp_path / "plain", qwen3(), tokenizer), r"has no projection_head\.pt, which 6 latent steps need", K=6)


@pytest.mark.parametrize("K", [-1, 1025, 2.5, True])
def test_a_number_of_latent_steps_out_of_range_is_refused(folder: Path, K: Any) -> None:
    refused(folder, rf"^{K} latent steps were asked for: give a whole number from 0 to 1024$", K=K)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    names = r"give a model's folder, or a repository of the hub as owner/name$"
    refused(tmp_path, rf"^{tmp_path} has no config\.json: {names}")
    refused(tmp_path / "missing", rf"^{tmp_path}/missing does not exist: {names}")
    for name in ("./nope", "../nope"):
        with pytest.raises(DataError, match=rf"^{Path(name)} does not exist: {names}"):
            checkpoint.find(name)


@pytest.mark.parametrize(
    "name", ["nosuchfolder", "models/gsm8k/nope", "no such/repo", "owner/name/", "owner/na..me", "owner/-name"]
)
def test_what_is_neither_a_folder_nor_the_name_of_a_repository_is_not_asked_of_the_hub(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "_require_reachable", lambda *_: pytest.fail("the hub was asked"))
    said = "here, and it is not owner/name of a repository of the hub: give a model's folder, or a repository of the hub"
    with pytest.raises(DataError, match=rf"^there is no folder {re.escape(name)} {said} as owner/name$"):
        checkpoint.find(name)


@pytest.mark.parametrize(
    ("model", "how", "message"),
    [
        (3, {}, r"^model is 3 \(int\): give a model's folder"),
        ("owner/name", {"thinking": "no"}, "^thinking is 'no': give True, False or None$"),
        ("owner/name", {"K": -1}, "^-1 latent steps were asked for"),
        ("owner/name", {"dtype": "float8"}, "^dtype is 'float8'"),
        ("owner/name", {"device_map": "gpu"}, "^device is 'gpu'"),
    ],
)
def test_an_argument_of_the_wrong_kind_is_named_before_the_hub_is_asked(
    model: Any, how: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "snapshot", lambda *_, **__: pytest.fail("the hub was asked"))
    with pytest.raises(ParamError, match=message):
        LatentReasoner.from_pretrained(model, **how)


@pytest.mark.parametrize("name", ["config.json", "qthink.json", "projection_head.pt", "model.safetensors", "tokenizer.json"])
def test_a_file_that_may_not_be_read_is_called_neither_damaged_nor_missing(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests may run as root, who may read every file."""
    monkeypatch.setattr(Path, "open", forbidden(name))
    with pytest.raises(PermissionError) as caught:
        LatentReasoner.from_pretrained(folder)
    assert caught.value.filename == str(folder / name)
    run = forked.qthink("ask", str(folder), "Who?", "--device", "cpu")
    said = f"qthink: {folder / name} failed (Permission denied): fix this and run the same command again\n"
    assert (run.returncode, run.stderr.decode()) == (74, said)


def forbidden(name: str) -> Any:
    opened = Path.open

    def refuse(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == name:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *arguments, **options)

    return refuse


def test_a_head_with_code_is_refused_and_the_code_does_not_run(folder: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    torch.save({"mlp.0.weight": Trap(canary)}, folder / "projection_head.pt")
    refused(folder, r"projection_head\.pt is not a PyTorch state dict")
    (folder / "projection_head.pt").write_bytes(pickle.dumps(Trap(canary)))
    refused(folder, r"projection_head\.pt is not a PyTorch state dict")
    assert not canary.exists()
    pickle.loads((folder / "projection_head.pt").read_bytes())  # noqa: S301 - the trap works
    assert canary.exists()


def test_a_head_of_another_width_is_refused(qwen3: Any, tokenizer: Any, random_head: Any, tmp_path: Path) -> None:
    refused(exported(tmp_path, qwen3(), tokenizer, random_head(16)), r"mlp\.0\.weight does not have shape \(32, 32\)")


@pytest.mark.parametrize("kept", [0, 100, 4000])
def test_a_damaged_head_is_refused(folder: Path, kept: int) -> None:
    head = folder / "projection_head.pt"
    head.write_bytes(head.read_bytes()[:kept])
    refused(folder, r"projection_head\.pt is not a PyTorch state dict")


def test_damaged_weights_are_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    refused(folder, r"^.* cannot be loaded \(.*\): fetch it again")


@pytest.mark.parametrize("change", ["left out", "renamed", "of another shape"])
def test_weights_that_lack_a_tensor_are_refused_and_not_drawn_at_random(folder: Path, change: str) -> None:
    name = "model.layers.1.mlp.down_proj.weight"
    tensors = load_file(folder / "model.safetensors")
    found = tensors.pop(name)
    if change != "left out":
        tensors |= {"other.weight": found} if change == "renamed" else {name: found[:1].clone()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    refused(
        folder, rf"(lack 1 of the tensors that its config\.json asks for, first {name}: fetch it again|cannot be loaded)"
    )


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("kind", ["vit", "llama", "unknown"])
def test_code_that_a_folder_names_is_neither_run_nor_asked_about(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, checked: bool
) -> None:
    """Transformers refuse it, too, where the check does not look."""
    canary = tmp_path / "canary"
    (folder / "evil.py").write_text(f"open({str(canary)!r}, 'w')\nclass Evil: ...\n")
    classes = {"AutoTokenizer": ["evil.Evil", "evil.Evil"], "AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}
    for name, change in (("tokenizer_config.json", {"tokenizer_class": "Evil"}), ("config.json", {"model_type": kind})):
        about = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(about | {"auto_map": classes} | change))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    if not checked:
        monkeypatch.setattr(folders, "check", lambda _: None)
    refused(folder, r"^config\.json of .* asks to run its own code \(auto_map\)" if checked else "cannot be loaded")
    assert not canary.exists()


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"K": -3, "thinking": False}, "has K -3 where a whole number from 0 to 1024 is expected"),
        ({"K": True, "thinking": False}, "has K True where"),
        ({"K": 2.9, "thinking": False}, r"has K 2\.9 where"),
        ({"K": "6", "thinking": False}, "has K '6' where"),
        ({"K": 3000, "thinking": False}, "has K 3000 where"),
        ({"thinking": False}, "has K None where"),
        ({"K": 6, "thinking": "false"}, "has thinking 'false' where true or false is expected"),
        ({"K": 6}, "has thinking None where"),
    ],
)
def test_what_an_export_says_of_itself_is_not_guessed(folder: Path, about: dict[str, Any], message: str) -> None:
    (folder / "qthink.json").write_text(json.dumps(about))
    refused(folder, message)


def test_thinking_takes_no_latent_steps_unless_they_are_asked_for(folder: Path) -> None:
    assert checkpoint.find(folder, thinking=True)[1:3] == (0, True)
    assert checkpoint.find(folder, K=6, thinking=True)[1:3] == (6, True)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% if %}", "the chat template of .* cannot be used"),
        ("{{ raise_exception('no') }}", r"the chat template of .* cannot be used \(no\)"),
        ("{{ messages.nothing.there }}", "the chat template of .* cannot be used"),
    ],
)
def test_a_template_that_fails_is_one_line(folder: Path, template: str, message: str) -> None:
    (folder / "chat_template.jinja").write_text(template)
    refused(folder, message)


@pytest.mark.parametrize("change", [{"max_position_embeddings": "4096"}, {"quantization_config": {"quant_method": "gptq"}}])
def test_a_config_that_cannot_be_used_is_one_line(folder: Path, change: dict[str, Any]) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    refused(folder, "cannot be loaded|needs a package that is missing")


def test_a_manifest_beyond_measure_is_one_line(folder: Path) -> None:
    (folder / "manifest.json").touch()
    os.truncate(folder / "manifest.json", (256 << 20) + 1)
    refused(folder, r"manifest\.json has 268,435,457 bytes, expected at most 268,435,456: fetch it again, or take another")


@pytest.mark.parametrize("device", ["gpu", "mps", "cpu:x", "meta"])
def test_a_device_that_is_not_known_is_named(folder: Path, device: str) -> None:
    refused(folder, rf"^device is '{device}': give cpu, cuda, or cuda:0", device_map=device)


def test_weights_in_a_pickle_are_not_loaded(folder: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (folder / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Trap(canary)}, folder / "pytorch_model.bin")
    refused(folder, r"cannot be loaded")
    assert not canary.exists()


def test_a_model_with_code_of_its_own_is_refused_and_the_code_does_not_run(folder: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (folder / "modeling.py").write_text(f"open({str(canary)!r}, 'w')")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "unknown", "auto_map": {"AutoConfig": "modeling.C", "AutoModelForCausalLM": "modeling.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    refused(folder, r"^config\.json of .* asks to run its own code \(auto_map\): take a model that transformers knows")
    assert not canary.exists()


def test_a_folder_without_a_chat_template_is_refused(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    refused(folder, r"has no chat template \(chat_template\.jinja\)")


def test_a_template_that_does_not_close_the_think_block_is_refused_for_latents_alone(folder: Path) -> None:
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("<think>\\n\\n</think>\\n\\n", ""))
    refused(folder, r"where latent steps follow an empty think block")
    assert LatentReasoner.from_pretrained(folder, K=0).K == 0


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"dtype": "float8"}, r"^dtype is 'float8': give one of auto, float32, bfloat16, float16$"),
        ({"device_map": "cuda"}, r"^device cuda was asked for, but torch sees no GPU: give cpu$"),
    ],
)
def test_a_dtype_or_device_that_is_missing_is_named(folder: Path, how: dict[str, Any], message: str) -> None:
    if "device_map" in how and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    refused(folder, message, **how)


def test_the_dtype_is_that_of_the_weights_unless_another_is_given(
    qwen3: Any, tokenizer: Any, random_head: Any, tmp_path: Path
) -> None:
    folder = exported(tmp_path, qwen3("bfloat16"), tokenizer, random_head())
    for how, expected in ({}, torch.bfloat16), ({"dtype": "float32"}, torch.float32):
        system = LatentReasoner.from_pretrained(folder, **how).system
        assert system.head is not None
        assert system.model.dtype == system.head.dtype == expected
        LatentReasoner(system, folder).generate("Who?", max_new_tokens=2)


def test_a_repository_comes_from_the_cache_when_the_hub_cannot_be_reached(
    qwen3: Any, tokenizer: Any, random_head: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The layout of the hub's cache, with the published layout inside."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--LakshyAAAgrawal--QThink-Qwen3-1.7B-GSM8k"
    published(cached / "snapshots" / COMMIT, qwen3(), tokenizer, random_head())
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(COMMIT)
    reasoner = LatentReasoner.from_pretrained("LakshyAAAgrawal/QThink-Qwen3-1.7B-GSM8k", K=6)
    assert reasoner.folder == cached / "snapshots" / COMMIT
    assert reasoner.generate("Who?", max_new_tokens=2).latent_steps == 6


def test_a_repository_that_is_not_cached_is_one_line_when_the_hub_cannot_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    reason = r"is not in the local cache and could not be downloaded \(HF_HUB_OFFLINE is set\): go online"
    with pytest.raises(DataError, match=rf"^there is no folder owner/name here, and owner/name at main {reason}"):
        LatentReasoner.from_pretrained("owner/name")


def test_a_revision_of_a_local_folder_is_refused(folder: Path) -> None:
    refused(folder, r"^.* is a local folder and has no revision 'v2': leave the revision out$", revision="v2")


@pytest.fixture
def partial(qwen3: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cached snapshot of owner/name as plain transformers leaves it, without what it did not ask for."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--owner--name"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(COMMIT)
    return plain(cached / "snapshots" / COMMIT, qwen3(), tokenizer)


def test_a_cache_that_does_not_show_whether_there_are_latents_is_refused(partial: Path) -> None:
    unknown = (
        r"do not show whether it takes latent steps \(projection_head\.pt, qthink\.json\), and the hub could not be asked"
    )
    said = rf"^there is no folder owner/name here, and the cached files of owner/name {unknown}"
    with pytest.raises(DataError, match=rf"{said} \(HF_HUB_OFFLINE is set\): go online"):
        checkpoint.find("owner/name")
    assert checkpoint.find("owner/name", K=0) == (partial, 0, True, None)


def test_a_cache_that_knows_that_a_model_has_no_latents_is_used(partial: Path) -> None:
    marks = partial.parents[1] / ".no_exist" / COMMIT
    marks.mkdir(parents=True)
    (marks / "projection_head.pt").touch()
    with pytest.raises(DataError, match=r"latent steps \(qthink\.json\), and"):
        checkpoint.find("owner/name")
    (marks / "qthink.json").touch()
    assert checkpoint.find("owner/name") == (partial, 0, True, None)


def test_a_cache_with_the_list_of_all_files_is_used(partial: Path) -> None:
    (partial.parents[1] / "trees").mkdir()
    (partial.parents[1] / "trees" / f"{COMMIT}.json").write_text("{}")
    assert checkpoint.find("owner/name") == (partial, 0, True, None)
