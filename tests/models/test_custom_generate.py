"""`generate` of an exported folder: the engine's tokens, under everything that callers of `generate` ask for."""

import json
import sys
from pathlib import Path
from threading import Thread
from typing import Any

import exported
import pytest
import torch
from engines import answer
from imports import imported
from transformers import AutoTokenizer, GenerationMixin, TextIteratorStreamer, TextStreamer, pipeline
from transformers.generation import GenerationConfig

from qthink_core.generation.hf_engine import HFEngine
from qthink_core.models import loading, model_card

K = 6
NEW = 24
CPU = torch.device("cpu")


@pytest.fixture
def folder(qwen3: Any, tokenizer: Any, random_head: Any, tmp_path: Path) -> Path:
    return exported.write(tmp_path / "exported", qwen3(), tokenizer, random_head(), K)


@pytest.fixture
def model(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(GenerationMixin, "init_continuous_batching", GenerationMixin.init_continuous_batching)
    return exported.trusted(folder, tmp_path / "modules", monkeypatch)


@pytest.fixture
def prompts(questions: list[list[int]]) -> list[list[int]]:
    """Eight prompts of eight lengths."""
    by_length = {len(prompt): prompt for prompt in questions}
    return [by_length[length] for length in sorted(by_length)[:8]]


def padded(prompts: list[list[int]], tokenizer: Any) -> dict[str, torch.Tensor]:
    return dict(tokenizer.pad({"input_ids": prompts}, return_tensors="pt", padding_side="left"))


def answers(output: torch.Tensor, width: int, tokenizer: Any) -> list[list[int]]:
    """The new tokens of each row, up to and with its end token."""
    rows = output[:, width:].tolist()
    return [row[: row.index(tokenizer.eos_token_id) + 1] if tokenizer.eos_token_id in row else row for row in rows]


def engine_answers(folder: Path, prompts: list[list[int]], limit: int = NEW) -> list[list[int]]:
    system = loading.load_system(folder, CPU, "float32")
    return [row.tokens for row in answer(HFEngine(system, limit), {f"q{i:02}": one for i, one in enumerate(prompts)})]


@pytest.mark.slow
def test_a_ragged_batch_has_the_engines_tokens_and_those_of_each_row_alone(
    model: Any, folder: Path, prompts: list[list[int]], tokenizer: Any
) -> None:
    batch = padded(prompts, tokenizer)
    together = model.generate(**batch, max_new_tokens=NEW)
    width = batch["input_ids"].shape[1]
    assert torch.equal(together[:, :width], batch["input_ids"])
    found = answers(together, width, tokenizer)
    alone = [model.generate(torch.tensor([one]), max_new_tokens=NEW)[0, len(one) :].tolist() for one in prompts]
    assert found == alone == engine_answers(folder, prompts)
    direct = answers(model.generate(**batch, max_new_tokens=NEW, latent_steps=0), width, tokenizer)
    assert sum(one != other for one, other in zip(found, direct, strict=True)) > len(prompts) / 2


@pytest.mark.parametrize("steps", [1, 3, 9])
def test_latent_steps_replaces_the_number_of_the_folder(
    model: Any, folder: Path, prompts: list[list[int]], tokenizer: Any, steps: int
) -> None:
    batch = padded(prompts, tokenizer)
    found = answers(model.generate(**batch, max_new_tokens=NEW, latent_steps=steps), batch["input_ids"].shape[1], tokenizer)
    (folder / loading.CONFIG).write_text(json.dumps({"K": steps, "thinking": False}))
    assert found == engine_answers(folder, prompts)


def test_without_latent_steps_it_is_the_generate_of_transformers(
    model: Any, prompts: list[list[int]], tokenizer: Any
) -> None:
    batch = padded(prompts, tokenizer)
    plain = type(model).generate(model, **batch, max_new_tokens=NEW)
    assert torch.equal(model.generate(**batch, max_new_tokens=NEW, latent_steps=0), plain)


def from_embeddings(model: Any, ids: torch.Tensor, **options: Any) -> torch.Tensor:
    """The new tokens when transformers read the prompt from embeddings; the latents are computed here without a cache."""
    head = model._qthink["head"]
    inputs = model.get_input_embeddings()(ids)
    for _ in range(K):
        hidden = model.model(inputs_embeds=inputs).last_hidden_state[:, -1:]
        inputs = torch.cat([inputs, head(hidden)], dim=1)
    return type(model).generate(model, inputs_embeds=inputs, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": True, "temperature": 1.3, "top_k": 20},
        {"do_sample": True, "num_return_sequences": 5},
        {"num_beams": 3},
        {"num_beams": 4, "num_return_sequences": 2},
        {"do_sample": True, "min_new_tokens": 12, "top_p": 0.7},
        {"suppress_tokens": [300, 301], "forced_eos_token_id": 626},
    ],
    ids=str,
)
@torch.no_grad()
def test_samples_and_beams_are_those_of_transformers_on_the_same_embeddings(
    model: Any, prompts: list[list[int]], tokenizer: Any, options: dict[str, Any]
) -> None:
    options = options | {"max_new_tokens": NEW}
    for prompt in prompts[:3]:
        ids = torch.tensor([prompt])
        model.generate(ids, max_new_tokens=1)
        torch.manual_seed(5)
        found = model.generate(ids, **options)
        torch.manual_seed(5)
        expected = from_embeddings(model, ids, **options)
        assert torch.equal(found[:, len(prompt) :], expected)
        assert len(found) == options.get("num_return_sequences", 1)


def test_several_samples_of_a_ragged_batch_are_in_the_order_of_its_rows(
    model: Any, prompts: list[list[int]], tokenizer: Any
) -> None:
    batch = padded(prompts, tokenizer)
    torch.manual_seed(0)
    found = model.generate(**batch, do_sample=True, top_k=1, num_return_sequences=2, max_new_tokens=NEW)
    greedy = model.generate(**batch, max_new_tokens=NEW)
    assert torch.equal(found, greedy.repeat_interleave(2, dim=0))


def test_limits_count_the_answer_and_not_the_latent_steps(model: Any, prompts: list[list[int]]) -> None:
    ids = torch.tensor([prompts[0]])
    never = {"eos_token_id": -1, "pad_token_id": 624}
    whole = model.generate(ids, max_new_tokens=9, **never)
    assert whole.shape[1] == len(prompts[0]) + 9
    assert torch.equal(model.generate(ids, max_length=len(prompts[0]) + 9, **never), whole)
    config = GenerationConfig(max_length=len(prompts[0]) + 9, **never)
    assert torch.equal(model.generate(ids, generation_config=config), whole)
    assert torch.equal(model.generate(ids, GenerationConfig(max_new_tokens=9, **never)), whole)
    assert config.max_length == len(prompts[0]) + 9
    assert model.generate(ids, **never).shape[1] == len(prompts[0]) + 20  # the default of transformers
    longest = model.generate(ids, min_length=len(prompts[0]) + 15, max_new_tokens=15)
    assert longest.shape[1] == len(prompts[0]) + 15


def test_a_stop_string_ends_an_answer(model: Any, prompts: list[list[int]], tokenizer: Any) -> None:
    ids = torch.tensor([prompts[1]])
    text = tokenizer.decode(model.generate(ids, max_new_tokens=NEW)[0, ids.shape[1] :])
    stop = text[len(text) // 3 : len(text) // 3 + 3]
    found = model.generate(ids, max_new_tokens=NEW, stop_strings=[stop], tokenizer=tokenizer)
    stopped = tokenizer.decode(found[0, ids.shape[1] :])
    assert text.startswith(stopped)
    assert stop in stopped
    assert len(stopped) < len(text)


def test_streamers_get_the_prompt_and_then_each_token(
    model: Any, prompts: list[list[int]], tokenizer: Any, capsys: Any
) -> None:
    ids = torch.tensor([prompts[2]])

    class Recorder(TextStreamer):
        def put(self, value: torch.Tensor) -> None:
            seen.append(value.flatten().tolist())
            super().put(value)

    seen: list[list[int]] = []
    found = model.generate(ids, max_new_tokens=NEW, streamer=Recorder(tokenizer, skip_prompt=True))[0].tolist()
    assert seen == [prompts[2], *([token] for token in found[len(prompts[2]) :])]
    text = tokenizer.decode(found[len(prompts[2]) :])
    assert capsys.readouterr().out == text + "\n"
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=60)
    thread = Thread(target=model.generate, args=(ids,), kwargs={"max_new_tokens": NEW, "streamer": streamer})
    thread.start()
    assert "".join(streamer) == text
    thread.join()


def test_a_dictionary_is_returned_where_it_is_asked_for(model: Any, prompts: list[list[int]], tokenizer: Any) -> None:
    batch = padded(prompts[:2], tokenizer)
    options = {"max_new_tokens": 5, "return_dict_in_generate": True, "output_logits": True}
    found = model.generate(**batch, **options)
    assert torch.equal(found.sequences, model.generate(**batch, max_new_tokens=5))
    assert len(found.logits) == found.sequences.shape[1] - batch["input_ids"].shape[1]


def test_padding_is_recognised_without_a_mask_as_in_transformers(
    model: Any, prompts: list[list[int]], tokenizer: Any
) -> None:
    batch = padded(prompts, tokenizer)
    without = model.generate(batch["input_ids"], max_new_tokens=NEW)
    assert torch.equal(without, model.generate(**batch, max_new_tokens=NEW))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"assistant_model": object()}, "assistant_model"),
        ({"prompt_lookup_num_tokens": 3}, "prompt_lookup_num_tokens"),
        ({"guidance_scale": 1.5}, "guidance_scale"),
        ({"cache_implementation": "static"}, "cache_implementation"),
        ({"generation_config": GenerationConfig(cache_implementation="static")}, "cache_implementation"),
        ({"inputs_embeds": torch.zeros(1, 3, 32)}, "inputs_embeds"),
        ({"custom_generate": "somebody/something"}, "custom_generate"),
        ({"latent_steps": -1}, "latent_steps is -1: a whole number is expected"),
        ({"latent_steps": 2.0}, "latent_steps is 2.0"),
        ({"input_ids": None}, "pass input_ids"),
        ({"input_ids": torch.zeros(1, 0, dtype=torch.long)}, "pass input_ids"),
        ({"attention_mask": torch.tensor([[1, 1, 0]])}, "padding_side='left'"),
        ({"input_ids": torch.ones(1, 506, dtype=torch.long)}, "506 tokens and 6 latent steps fill the 512 positions"),
    ],
    ids=[str(number) for number in range(13)],
)
def test_what_would_lose_the_latent_steps_is_refused_by_name(model: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        model.generate(**{"input_ids": torch.tensor([[5, 6, 7]]), "max_new_tokens": 2} | options)
    assert "\n" not in str(caught.value)


def test_a_prompt_without_the_empty_think_block_is_answered_with_one_warning(
    model: Any, tokenizer: Any, caplog: Any
) -> None:
    chat = [{"role": "user", "content": "Compute 3 + 4"}]
    for thinking, expected in ((False, 0), (True, 1), (True, 1)):
        prompt = tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, enable_thinking=thinking, return_tensors="pt", return_dict=True
        )
        model.generate(**prompt, max_new_tokens=2)
        assert caplog.text.count("empty think block") == expected


@pytest.mark.parametrize("block", ["<think></think>", "<think>\n</think>\n"])
def test_the_empty_block_is_the_one_that_the_template_writes(folder: Path, model: Any, tokenizer: Any, block: str) -> None:
    template = folder / model_card.TEMPLATE
    written = template.read_text()
    replaced = written.replace(r"<think>\n\n</think>\n\n", block.replace("\n", r"\n"))
    assert replaced != written
    template.write_text(replaced)
    model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=1)
    assert tokenizer.decode(model._qthink["end"]) == block


def test_continuous_batching_is_refused_for_this_model_and_no_other(model: Any, qwen3: Any) -> None:
    for start in (model.init_continuous_batching, lambda: model.generate_batch([[5, 6, 7]])):
        with pytest.raises(ValueError, match="continuous batching would leave the latent steps out"):
            start()
    assert qwen3().init_continuous_batching() is not None


def test_pipeline_answers_as_the_engine_with_trust_and_without_latent_steps_otherwise(
    model: Any, folder: Path, tokenizer: Any, prompts: list[list[int]]
) -> None:
    chat = [{"role": "user", "content": "Compute 3 + 4"}]
    (prompt,) = [tokenizer.apply_chat_template(chat, add_generation_prompt=True, enable_thinking=False)["input_ids"]]
    options = {"max_new_tokens": NEW, "return_full_text": False, "do_sample": False}  # a pipeline samples unless told
    (expected,) = engine_answers(folder, [prompt])
    trusted = pipeline("text-generation", model=str(folder), trust_remote_code=True)
    found = trusted(chat, **options)[0]["generated_text"]
    assert found == tokenizer.decode(expected, skip_special_tokens=True)
    plain = pipeline("text-generation", model=str(folder))
    direct = model.generate(torch.tensor([prompt]), max_new_tokens=NEW, latent_steps=0)[0, len(prompt) :]
    assert plain(chat, **options)[0]["generated_text"] == tokenizer.decode(direct, skip_special_tokens=True) != found


@pytest.mark.parametrize("thinking", [True, False])
def test_the_template_renders_as_the_base_models_and_ends_in_an_empty_block_by_default(
    folder: Path, tokenizer: Any, thinking: bool
) -> None:
    ours = AutoTokenizer.from_pretrained(folder)
    chats = [[{"role": "user", "content": "a"}], [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]]
    for chat in chats:
        for prompt in (True, False):
            options = {"tokenize": False, "add_generation_prompt": prompt}
            asked = tokenizer.apply_chat_template(chat, enable_thinking=thinking, **options)
            assert ours.apply_chat_template(chat, enable_thinking=thinking, **options) == asked
            assert ours.apply_chat_template(chat, **options) == tokenizer.apply_chat_template(
                chat, enable_thinking=False, **options
            )


def test_a_damaged_or_dangerous_head_runs_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Dangerous:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    good = torch.load(folder / loading.HEAD, weights_only=True)
    monkeypatch.setattr(GenerationMixin, "init_continuous_batching", GenerationMixin.init_continuous_batching)
    for content in (Dangerous(), {"mlp.0.weight": good["mlp.0.weight"]}, good | {"mlp.3.bias": good["mlp.3.bias"] / 0}):
        torch.save(content, folder / loading.HEAD)
        model = exported.trusted(folder, tmp_path / "modules", monkeypatch)
        with pytest.raises(Exception, match=r"weights_only|Missing key|NaN or an infinity"):
            model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=1)
    assert not (tmp_path / "ran").exists()


def test_a_folder_in_the_published_layout_asks_for_the_number_of_steps(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prompts: list[list[int]]
) -> None:
    monkeypatch.setattr(GenerationMixin, "init_continuous_batching", GenerationMixin.init_continuous_batching)
    expected = engine_answers(folder, prompts[:1])
    (folder / loading.CONFIG).unlink()
    model = exported.trusted(folder, tmp_path / "modules", monkeypatch)
    ids = torch.tensor(prompts[:1])
    with pytest.raises(ValueError, match=r"has no qthink\.json: pass the number"):
        model.generate(ids, max_new_tokens=NEW)
    assert [model.generate(ids, max_new_tokens=NEW, latent_steps=K)[0, ids.shape[1] :].tolist()] == expected


def test_in_bfloat16_the_head_has_the_models_type_and_the_tokens_are_the_engines(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prompts: list[list[int]]
) -> None:
    monkeypatch.setattr(GenerationMixin, "init_continuous_batching", GenerationMixin.init_continuous_batching)
    model = exported.trusted(folder, tmp_path / "modules", monkeypatch, dtype=torch.bfloat16)
    system = loading.load_system(folder, CPU, "bfloat16")
    for prompt in prompts[:3]:
        (row,) = answer(HFEngine(system, NEW), {"q": prompt})
        assert model.generate(torch.tensor([prompt]), max_new_tokens=NEW)[0, len(prompt) :].tolist() == row.tokens
    assert model._qthink["head"][0].weight.dtype == torch.bfloat16


def test_the_file_needs_torch_and_transformers_alone() -> None:
    names = {name.split(".")[0] for name in imported(exported.PACKAGE / model_card.GENERATE)}
    assert names <= {"torch", "transformers"} | sys.stdlib_module_names
