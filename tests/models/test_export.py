"""Exported folders: the same bytes each time, the adapter's function, and answers under the card's published snippet."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from artifact_folders import published
from engines import answer
from worlds import WORLD

from qthink_core.artifacts.files import canonical_json, sha256
from qthink_core.artifacts.store import MANIFEST
from qthink_core.benchmarks.problems import generated
from qthink_core.benchmarks.rendering import render
from qthink_core.errors import DataError
from qthink_core.generation.hf_engine import HFEngine
from qthink_core.generation.units import batches
from qthink_core.method import projection_head
from qthink_core.models import loading
from qthink_core.models.export import export_adapter, merge
from qthink_core.models.loading import load_system

SNIPPET = Path(__file__).with_name("model_card_usage.txt")
K = 6
# W + (alpha/r) B A is rounded once where the adapter's sum of two products is rounded twice; logits here reach 20.
MERGE_TOLERANCE = 1e-4
N_QUESTIONS = 8
MAX_NEW_TOKENS = 64


@pytest.fixture
def exported(student: Any, qwen3: Any, tokenizer: Any, tmp_path: Path) -> Any:
    """Exports a student of this K; returns its folder and the student. Tied embeddings, as Qwen3-1.7B has them."""

    def make(K: int, name: str = "first", dtype: str = "float32") -> tuple[Path, Any]:
        place = tmp_path / name
        qwen3(tied=True).save_pretrained(place / "base")
        tokenizer.save_pretrained(place / "base")
        made = student(K, base=loading.load_model(place / "base", torch.device("cpu"), "float32"))
        (place / "scratch").mkdir()
        files = export_adapter(made.adapted, place / "scratch")
        files[loading.CONFIG] = canonical_json({"K": K, "thinking": False})
        if K:
            files[loading.HEAD] = projection_head.to_bytes(made.head)
        adapter = published(place / "adapters", "adapter", {"trained": files})
        (place / "more").mkdir()
        merged = merge(place / "base", adapter, dtype, place / "more")
        return published(place / "models", "model", {"model": merged}), made

    return make


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "batch"), [("float32", N_QUESTIONS), ("bfloat16", 1)])
def test_the_published_snippet_answers_as_we_do(exported: Any, tokenizer: Any, dtype: str, batch: int) -> None:
    """Changed in the snippet: folder, hidden size, where the head lies, the token limit, and the question.

    In bfloat16, as published, one question at a time: a batch rounds otherwise, and here that is enough for another token.
    """
    folder, _ = exported(K, dtype=dtype)
    questions = [problem.question for problem in generated("gsm8k", "test", N_QUESTIONS, seed=11, world=WORLD)]
    system = load_system(folder, torch.device("cpu"), dtype)
    assert (system.K, system.thinking) == (6, False)
    prompts = {f"q{i}": render(tokenizer, question, thinking=False) for i, question in enumerate(questions)}
    engine = HFEngine(system, MAX_NEW_TOKENS)
    ours = [
        row.tokens
        for start in range(0, N_QUESTIONS, batch)
        for row in answer(engine, {f"q{i}": prompts[f"q{i}"] for i in range(start, start + batch)})
    ]
    found = []
    for question in questions:
        text = SNIPPET.read_text()
        for old, new in {
            '"LakshyAAAgrawal/QThink-Qwen3-1.7B-GSM8k"': repr(str(folder)),
            "ProjectionHead(2048)": "ProjectionHead(32)",
            'hf_hub_download(repo_id, "projection_head.pt")': 'repo_id + "/projection_head.pt"',
            "torch.bfloat16": f"torch.{dtype}",
            "range(2047)": f"range({MAX_NEW_TOKENS - 1})",
        }.items():
            assert old in text
            text = text.replace(old, new)
        start, end = text.index('question = "') + len("question = "), text.index("\nmessages = ")
        script = folder.parent / "usage.py"
        script.write_text(text[:start] + repr(question) + text[end:])
        found.append(torch.cat(runpy.run_path(str(script))["tokens"]).tolist())
    assert found == ours
    assert len({tuple(tokens) for tokens in found}) > N_QUESTIONS / 2


def test_the_snippet_in_this_repository_is_the_cards() -> None:
    card = Path(__file__).parents[3] / "shared" / "seed" / "qthink-model-card.txt"
    if not card.is_file():
        pytest.skip("the model card is not beside this repository")
    assert SNIPPET.read_text() in card.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_loop_of_the_page_on_use_answers_as_we_do(exported: Any, tokenizer: Any, dtype: str) -> None:
    folder, _ = exported(K, dtype=dtype)
    system = load_system(folder, torch.device("cpu"), dtype)
    page = (Path(__file__).parents[2] / "docs/use.md").read_text()
    snippet = page.split("```python\n")[1].split("```")[0]
    for problem in generated("gsm8k", "test", 3, seed=11, world=WORLD):
        prompts = {"q": render(tokenizer, problem.question, thinking=False)}
        text = snippet
        for old, new in {
            '"models/gsm8k/uniform"': repr(str(folder)),
            '"QUESTION"': repr(problem.question),
            "< 2048": f"< {MAX_NEW_TOKENS}",
        }.items():
            assert old in text
            text = text.replace(old, new)
        script = folder.parent / "use.py"
        script.write_text(text)
        # the folder's config keeps the type it was exported in
        (expected,) = answer(HFEngine(system, MAX_NEW_TOKENS), prompts)
        assert torch.cat(runpy.run_path(str(script))["tokens"]).tolist() == expected.tokens


@pytest.mark.parametrize("n_latent", [K, 0])
def test_a_merged_model_has_the_logits_of_its_adapter(exported: Any, questions: list[list[int]], n_latent: int) -> None:
    folder, made = exported(n_latent)
    merged = load_system(folder, torch.device("cpu"), "float32").model
    base = loading.load_model(folder.parents[1] / "base", torch.device("cpu"), "float32")
    for prompt in questions[:5]:
        ids = torch.tensor([prompt])
        with torch.no_grad():
            expected, found, untrained = (model(input_ids=ids).logits for model in (made.model, merged, base))
        torch.testing.assert_close(found, expected, rtol=0, atol=MERGE_TOLERANCE)
        assert (untrained - expected).abs().max() > 100 * MERGE_TOLERANCE


def test_the_exported_head_is_the_trained_one_bit_for_bit(exported: Any) -> None:
    folder, made = exported(K)
    system = load_system(folder, torch.device("cpu"), "float32")
    assert all(torch.equal(value, system.head.state_dict()[name]) for name, value in made.head.state_dict().items())
    # the file keeps float32 whatever the model is exported in; it is cast when it is loaded beside it
    folder, _ = exported(K, "cast", "bfloat16")
    assert (folder / loading.HEAD).read_bytes() == projection_head.to_bytes(made.head)
    assert load_system(folder, torch.device("cpu"), "bfloat16").head.dtype == torch.bfloat16


def test_a_model_without_latents_has_no_head(exported: Any) -> None:
    folder, _ = exported(0)
    assert not (folder / loading.HEAD).exists()
    assert load_system(folder, torch.device("cpu"), "float32").head is None


def test_two_exports_are_the_same_bytes(exported: Any) -> None:
    first, second = (exported(K, name)[0] for name in ("first", "second"))
    for kind in ("models/model", "adapters/adapter"):
        one, two = (folder.parents[1] / kind for folder in (first, second))
        digests = [{file.name: sha256(file) for file in place.iterdir() if file.name != MANIFEST} for place in (one, two)]
        assert digests[0] == digests[1]  # a manifest names its folder
    names = {file.name for file in first.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja", "projection_head.pt"} <= names


def test_an_adapters_config_holds_no_path_and_no_set_order(exported: Any, tmp_path: Path) -> None:
    folder, _ = exported(K)
    text = (folder.parents[1] / "adapters/adapter/adapter_config.json").read_text()
    config = json.loads(text)
    assert str(tmp_path) not in text
    assert config["base_model_name_or_path"] is None
    assert config["target_modules"] == sorted(config["target_modules"])
    assert (config["r"], config["lora_alpha"], config["lora_dropout"], config["bias"]) == (4, 8, 0.0, "none")


@pytest.mark.slow
def test_a_bfloat16_export_is_the_float32_merge_cast_once(exported: Any) -> None:
    exact = load_system(exported(K, "exact")[0], torch.device("cpu"), "float32").model
    folder, _ = exported(K, "cast", "bfloat16")
    cast = load_system(folder, torch.device("cpu"), "bfloat16").model
    assert json.loads((folder / "config.json").read_bytes())["dtype"] == "bfloat16"
    for name, value in exact.state_dict().items():
        assert torch.equal(cast.state_dict()[name], value.bfloat16()), name


@pytest.mark.parametrize("card", [b"", b"{}", b'{"K": "six", "thinking": false}', b"[6]"])
def test_a_folder_without_a_whole_card_is_refused(exported: Any, card: bytes) -> None:
    folder, _ = exported(K)
    (folder / loading.CONFIG).write_bytes(card)
    with pytest.raises(DataError, match=r"does not describe an exported model|has K"):
        load_system(folder, torch.device("cpu"), "float32")


def test_a_latent_model_without_its_head_is_refused(exported: Any) -> None:
    folder, _ = exported(K)
    (folder / loading.HEAD).unlink()
    with pytest.raises(DataError, match=r"projection_head\.pt is missing"):
        load_system(folder, torch.device("cpu"), "float32")


def test_questions_are_answered_in_batches_of_like_length() -> None:
    prompts = {"b": [1] * 3, "a": [1] * 3, "c": [1], "d": [1] * 9, "e": [1] * 2}
    assert list(batches(prompts, 2).values()) == [["c", "e"], ["a", "b"], ["d"]]
    assert batches(dict(reversed(prompts.items())), 2) == batches(prompts, 2)
