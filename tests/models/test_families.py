"""Other families of models, at micro size with their own architecture and template, through the whole method."""

from pathlib import Path
from typing import Any

import exported
import families
import pytest
import torch
from families import FAMILIES
from transformers import AutoTokenizer, GenerationMixin

from qthink_core.artifacts.files import canonical_json, write_file
from qthink_core.benchmarks.rendering import render
from qthink_core.generation.hf_engine import HFEngine
from qthink_core.generation.requests import Request
from qthink_core.method import projection_head
from qthink_core.method.losses import Objective, counts, loss
from qthink_core.method.student import Student
from qthink_core.models import base_model, export, loading, model_card

CPU = torch.device("cpu")
K, NEW = 3, 8
QUESTION = "Tom has 3 boxes and buys 2. How many?"
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def built(source: Path, out: Path, thinking: str) -> dict[str, Any]:
    """What `base` says of a folder; the model is in `out`."""
    found = base_model.build(
        pretrain=None,
        world=None,
        hub=None,
        folder=str(source),
        wheel=None,
        thinking=thinking,  # type: ignore[arg-type]
        seed=0,
        out=out,
        show=lambda items, _: iter(items),
        show_problems=lambda items, _: iter(items),
    )
    (out.parent / "base").mkdir()
    for name, write in found.files.items():
        write_file(out.parent / "base" / name, write)
    return found.about


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> families.Family:
    return FAMILIES[request.param]


@pytest.mark.slow
def test_the_whole_method_runs_and_what_is_exported_answers_as_the_engine(
    family: families.Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    families.save(tmp_path / "source", family)
    (tmp_path / "out").mkdir()
    built(tmp_path / "source", tmp_path / "out", family.thinking)
    base = tmp_path / "base"
    tokenizer = loading.load_tokenizer(base)
    thoughtful, direct = (render(tokenizer, QUESTION, thinking=one) for one in (True, False))
    other = render(tokenizer, "2 + 2?", thinking=False)

    # the student's latent steps and loss are those of passes that the model itself makes, without a cache
    model = loading.load_model(base, CPU, "float32")
    student = Student(model, K=K, seed=0, lora_r=2, lora_alpha=4, lora_targets=TARGETS)
    answer = [*tokenizer.encode("5", add_special_tokens=False), tokenizer.eos_token_id]
    assert student.head is not None
    outputs = student([direct, other], [answer, answer], tokenizer.pad_token_id)
    teachers = torch.zeros(2, K, 32)
    objective = Objective(1.0, "per_step", "mean", "l1", "tokens")
    found = loss(outputs, teachers, torch.ones(2), objective, counts([answer, answer], [True, True], "tokens"))
    losses = []
    with torch.no_grad():
        for prompt in (direct, other):
            embeddings = model.get_input_embeddings()(torch.tensor([prompt]))
            for _ in range(K):
                states = model(inputs_embeds=embeddings, output_hidden_states=True).hidden_states[-1]
                embeddings = torch.cat([embeddings, student.head(states[:, -1:])], dim=1)
            embeddings = torch.cat([embeddings, model.get_input_embeddings()(torch.tensor([answer]))], dim=1)
            own = model(inputs_embeds=embeddings).logits[0, -len(answer) - 1 : -1]
            losses.append(torch.nn.functional.cross_entropy(own, torch.tensor(answer)))
    torch.testing.assert_close(found.cross_entropy, torch.stack(losses).mean(), rtol=1e-4, atol=1e-5)
    optimizer = torch.optim.AdamW(student.trained().values(), lr=0.05)
    found.total.backward()
    assert all(one.grad is not None and one.grad.isfinite().all() for one in student.trained().values())
    optimizer.step()

    # merged and exported
    (tmp_path / "scratch").mkdir()
    files = export.export_adapter(student.adapted, tmp_path / "scratch")
    files[loading.HEAD] = projection_head.to_bytes(student.head)
    files[loading.CONFIG] = canonical_json({"K": K, "thinking": False})
    for name, write in files.items():
        write_file(tmp_path / "adapter" / name, write)
    (tmp_path / "more").mkdir()
    merged = export.merge(base, tmp_path / "adapter", "float32", tmp_path / "more")
    folder = tmp_path / "exported"
    for name, write in (merged | model_card.files(base, tmp_path / "adapter")).items():
        write_file(folder / name, write)

    # `generate` of the exported folder, by the card's usage, writes the engine's tokens
    system = loading.load_system(folder, CPU, "float32")
    requests = [Request("a", direct), Request("b", other)]
    ours = [row.tokens for (row,) in HFEngine(system, NEW).generate(requests)]
    monkeypatch.setattr(GenerationMixin, "init_continuous_batching", GenerationMixin.init_continuous_batching)
    trusted = exported.trusted(folder, tmp_path / "modules", monkeypatch)
    public = AutoTokenizer.from_pretrained(folder)
    for question, prompt, tokens in ((QUESTION, direct, ours[0]), ("2 + 2?", other, ours[1])):
        asked = public.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        assert asked["input_ids"][0].tolist() == prompt  # the exported template ends in the empty block by default
        written = trusted.generate(**asked, max_new_tokens=NEW, do_sample=False)[0, len(prompt) :].tolist()
        assert written == tokens
    assert thoughtful != direct
