"""The student's loss and gradients against a straightforward implementation, and what of it trains."""

from typing import Any

import numpy as np
import pytest
import torch

from qthink_core.errors import ParamError
from qthink_core.method.losses import Counts, Objective, loss
from qthink_core.method.student import Student
from qthink_core.method.targets import Example
from qthink_core.training.loop import backward

K, D = 6, 32
# Norms and losses end in float32 whatever the model is in: 2**-24 of a logit, summed over some fifty tokens. Relative.
LOSS_TOLERANCE = 1e-6
# The design's bound for the same function computed in another way, relative to the largest gradient.
GRADIENT_TOLERANCE = 3e-6
# In float32 throughout, rounding of seven passes through two layers comes on top.
FLOAT32_TOLERANCE = 3e-5
LORA = {"lora_r": 4, "lora_alpha": 8, "lora_targets": ["q_proj", "v_proj"]}


@pytest.fixture
def examples(questions: list[list[int]], tokenizer: Any) -> list[Example]:
    """Eight problems of different lengths; the fourth has no target."""
    rng = np.random.default_rng(0)
    lengths = [9, 1, 14, 0, 3, 6, 2, 11]
    targets = [[*rng.integers(0, 256, n - 1).tolist(), tokenizer.eos_token_id] if n else [] for n in lengths]
    return [Example(f"p{i}", questions[i], target) for i, target in enumerate(targets)]


@pytest.fixture
def teachers() -> dict[str, np.ndarray]:
    """A teacher for all of them but the second and the last."""
    rng = np.random.default_rng(1)
    return {f"p{i}": rng.standard_normal((K, D)).astype(np.float32) for i in range(8) if i not in (1, 7)}


def straightforward(student: Student, row: Example, teacher: np.ndarray | None) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Summed cross-entropy and mean_d |h_k - t_k| of one problem, token by token through the whole Hugging Face model.

    K separate latent passes and one pass a target token: nothing batched, padded, fused or left out.
    """
    model = student.model
    out = model(input_ids=torch.tensor([row.prompt]), output_hidden_states=True, use_cache=True)
    distances = []
    for k in range(student.K):
        latent = student.head(out.hidden_states[-1][:, -1])
        out = model(
            inputs_embeds=latent[:, None], past_key_values=out.past_key_values, output_hidden_states=True, use_cache=True
        )
        if teacher is not None:
            distances.append((out.hidden_states[-1][0, -1] - torch.from_numpy(teacher[k])).abs().mean())
    cross_entropy = torch.zeros((), dtype=torch.float64)
    for token in row.target:
        cross_entropy = cross_entropy - out.logits[0, -1].log_softmax(-1)[token]
        out = model(input_ids=torch.tensor([[token]]), past_key_values=out.past_key_values, use_cache=True)
    return cross_entropy, distances


def gradients(student: Student) -> dict[str, torch.Tensor]:
    """The gradients, taken away."""
    found = {name: parameter.grad.clone() for name, parameter in student.trained().items()}
    student.zero_grad(set_to_none=True)
    return found


def ours(
    student: Student,
    examples: list[Example],
    teachers: dict[str, Any],
    objective: Objective,
    micro: int = 8,
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What the training adds for one effective batch in micro-batches of this size."""
    batch = [list(range(start, min(start + micro, len(examples)))) for start in range(0, len(examples), micro)]
    student.train()
    found = backward(student, examples, teachers, batch, objective, 0, 0)
    return found, gradients(student)


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], tolerance: float) -> None:
    largest = max(gradient.abs().max().item() for gradient in first.values())
    assert largest > 1e-3
    for name, gradient in first.items():
        torch.testing.assert_close(
            second[name], gradient, rtol=0, atol=tolerance * largest, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.slow
@pytest.mark.parametrize(("supervision", "reduction"), [("per_step", "mean"), ("per_step", "sum"), ("final_step", "mean")])
def test_loss_and_gradients_are_those_of_k_separate_passes(
    student: Any, examples: list[Example], teachers: dict[str, Any], supervision: str, reduction: str
) -> None:
    made, gamma = student(K, "float64"), 2.0
    made.train()
    n_tokens, n_taught = sum(len(row.target) for row in examples), len(teachers)
    assert (n_tokens, n_taught) == (46, 6)
    cross_entropy, distil, by_step = torch.zeros(()), torch.zeros(()), torch.zeros(K)
    for row in examples:
        ce, distances = straightforward(made, row, teachers.get(row.problem_id))
        cross_entropy = cross_entropy + ce / n_tokens
        if distances:
            chosen = distances[-1:] if supervision == "final_step" else distances
            distil = distil + sum(chosen) / (1 if reduction == "sum" else len(chosen)) / n_taught
            by_step += torch.stack(distances).detach() / n_taught
    (cross_entropy + gamma * distil).backward()
    expected = gradients(made)
    losses, found = ours(made, examples, teachers, Objective(gamma, supervision, reduction, "l1", "tokens"))
    assert losses["cross_entropy"] == pytest.approx(cross_entropy.item(), rel=LOSS_TOLERANCE)
    assert losses["distillation"] == pytest.approx(distil.item(), rel=LOSS_TOLERANCE)
    assert losses["distance"] == pytest.approx(by_step.tolist(), rel=LOSS_TOLERANCE)
    assert_same(expected, found, GRADIENT_TOLERANCE)
    assert all(gradient.abs().max() > 0 for gradient in found.values())  # every adapter, and the head's six tensors


@pytest.mark.slow
@pytest.mark.parametrize("micro", [1, 3, 8])
def test_the_mean_over_problems_is_that_of_their_means_whatever_the_micro_batches(
    student: Any, examples: list[Example], micro: int
) -> None:
    """Eight problems of which one has no target: seven means."""
    made = student(K, "float64")
    made.train()
    each = [straightforward(made, row, None)[0] / len(row.target) for row in examples if row.target]
    assert len(each) == 7
    expected = torch.stack(each).mean()
    expected.backward()
    gradient = {name: value for name, value in gradients(made).items()}
    losses, found = ours(made, examples, {}, Objective(0.0, "per_step", "mean", "l1", "problems"), micro)
    assert losses["cross_entropy"] == pytest.approx(expected.item(), rel=LOSS_TOLERANCE)
    assert_same(gradient, found, GRADIENT_TOLERANCE)
    over_tokens, _ = ours(made, examples, {}, Objective(0.0, "per_step", "mean", "l1", "tokens"), micro)
    assert abs(over_tokens["cross_entropy"] - expected.item()) > 0.01


def test_gradients_flow_from_the_last_step_through_all_passes(
    student: Any, examples: list[Example], teachers: dict[str, Any]
) -> None:
    """With only h_K supervised, the head is moved through each of its K uses: cut after one, its gradient is another."""
    made, rows = student(K, "float64"), examples[3:4]  # no target: distillation alone
    _, found = ours(made, rows, teachers, Objective(1.0, "final_step", "mean", "l1", "tokens"))
    uses = []
    made.head.register_forward_pre_hook(lambda _, inputs: uses.append(inputs[0]))
    handle = made.head.register_full_backward_hook(lambda *_: uses.append("backward"))
    ours(made, rows, teachers, Objective(1.0, "final_step", "mean", "l1", "tokens"))
    handle.remove()
    assert uses.count("backward") == K
    assert all(use.requires_grad for use in uses if isinstance(use, torch.Tensor))
    assert found["head.mlp.0.weight"].abs().max() > 0


@pytest.mark.slow
@pytest.mark.parametrize("micro", [1, 3, 5])
def test_micro_batches_and_padding_change_neither_loss_nor_gradient(
    student: Any, examples: list[Example], teachers: dict[str, Any], micro: int
) -> None:
    objective = Objective(2.0, "per_step", "mean", "l1", "tokens")
    for n_latent, dtype, tolerance in ((K, "float64", GRADIENT_TOLERANCE), (0, "float32", FLOAT32_TOLERANCE)):
        made = student(n_latent, dtype)
        rows, known = (examples, teachers) if n_latent else ([row for row in examples if row.target], {})
        whole, gradient = ours(made, rows, known, objective)
        split, in_parts = ours(made, rows, known, objective, micro)
        assert split.keys() == whole.keys()
        for key, value in whole.items():
            assert split[key] == pytest.approx(value, rel=LOSS_TOLERANCE)
        assert_same(gradient, in_parts, tolerance)


def test_the_pad_token_does_not_matter(student: Any, examples: list[Example], teachers: dict[str, Any]) -> None:
    made, prompts, targets = student(K), [row.prompt for row in examples], [row.target for row in examples]
    first, second = made(prompts, targets, 0), made(prompts, targets, 77)
    assert len(first.latents) == K
    for one, other in zip((*first[:3], *first.latents), (*second[:3], *second.latents), strict=True):
        assert torch.equal(one, other)


def test_an_empty_target_trains_on_distillation_alone(
    student: Any, examples: list[Example], teachers: dict[str, Any]
) -> None:
    made, per_step = student(K, "float64"), Objective(2.0, "per_step", "mean", "l1", "tokens")
    losses, gradient = ours(made, examples[3:4], teachers, per_step)
    assert losses["cross_entropy"] == 0.0
    _, doubled = ours(made, examples[3:4], teachers, per_step._replace(gamma=4.0))
    assert_same({name: 2 * one for name, one in gradient.items()}, doubled, GRADIENT_TOLERANCE)


def test_a_problem_without_a_teacher_trains_on_its_answer_alone(
    student: Any, examples: list[Example], teachers: dict[str, Any]
) -> None:
    made = student(K, "float64")
    losses, gradient = ours(made, examples[1:2], teachers, Objective(2.0, "per_step", "mean", "l1", "tokens"))
    assert losses["distillation"] == 0.0
    _, without = ours(made, examples[1:2], {}, Objective(0.0, "per_step", "mean", "l1", "tokens"))
    assert_same(without, gradient, GRADIENT_TOLERANCE)


def test_gamma_0_leaves_the_cross_entropy(student: Any, examples: list[Example], teachers: dict[str, Any]) -> None:
    made = student(K, "float64")
    _, gradient = ours(made, examples, teachers, Objective(0.0, "per_step", "mean", "l1", "tokens"))
    _, without = ours(made, examples, {}, Objective(2.0, "per_step", "mean", "l1", "tokens"))
    assert_same(without, gradient, GRADIENT_TOLERANCE)


def test_without_latent_steps_the_loss_is_hugging_faces_own(student: Any, examples: list[Example]) -> None:
    made, rows = student(0, "float64"), [row for row in examples if row.target]
    losses, found = ours(made, rows, {}, Objective(0.0, "per_step", "mean", "l1", "tokens"))
    assert losses.keys() == {"cross_entropy"}
    total = torch.zeros(())
    for row in rows:
        ids = torch.tensor([[*row.prompt, *row.target]])
        labels = torch.tensor([[-100] * len(row.prompt) + row.target])
        total = total + made.model(input_ids=ids, labels=labels).loss * len(row.target) / 46
    total.backward()
    assert losses["cross_entropy"] == pytest.approx(total.item(), rel=LOSS_TOLERANCE)
    assert_same(gradients(made), found, GRADIENT_TOLERANCE)


def test_the_last_latent_and_the_answer_share_a_pass_and_the_output_head_sees_answer_positions_only(
    student: Any, examples: list[Example]
) -> None:
    made = student(K)
    passes: list[tuple[int, ...]] = []
    scored: list[int] = []
    made.model.model.layers[0].register_forward_pre_hook(lambda _, inputs: passes.append(tuple(inputs[0].shape[:2])))
    made.model.lm_head.register_forward_pre_hook(lambda _, inputs: scored.append(inputs[0].shape[:-1].numel()))
    made([row.prompt for row in examples], [row.target for row in examples], 0)
    read = sum(len(row.prompt) for row in examples)
    # K + 1 passes without padding; the targets have 46 tokens and the last is not read, and one of them is empty
    assert passes == [(1, read)] + [(1, 8)] * (K - 1) + [(1, 8 + 46 - 7)]
    assert scored == [46]


def test_only_adapters_and_head_train(student: Any) -> None:
    made = student(K)
    names = made.trained()
    assert {name for name in names if not name.startswith("head.mlp.")} == {
        name for name, _ in made.named_parameters() if "lora_" in name
    }
    assert len([name for name in names if "lora_" in name]) == 2 * 7 * 2  # A and B of seven projections in two layers
    assert len([name for name in names if name.startswith("head.")]) == 6
    assert student(0).head is None


def test_an_untrained_student_without_latents_is_the_base_model(qwen3: Any, questions: list[list[int]]) -> None:
    ids = torch.tensor([questions[0]])
    with torch.no_grad():
        expected = qwen3()(input_ids=ids).logits
        made = Student(qwen3(), K=0, seed=0, **LORA)
        assert torch.equal(made.model(input_ids=ids).logits, expected)


def test_all_linear_layers_of_a_qwen3_are_the_seven_of_the_sister_card(qwen3: Any) -> None:
    """It lists them by name; PEFT's word for them leaves the output head out."""
    made = Student(qwen3(), K=0, seed=0, lora_r=4, lora_alpha=8, lora_targets="all-linear")
    adapted = {name.split(".lora_")[0].rsplit(".", 1)[1] for name in made.trained()}
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_adapters_scale_by_alpha_over_r(qwen3: Any) -> None:
    made = Student(qwen3(), K=0, seed=0, lora_r=32, lora_alpha=16, lora_targets=["q_proj"])
    layer = made.model.model.layers[0].self_attn.q_proj
    assert layer.scaling == {"default": 0.5}
    assert layer.lora_A["default"].weight.shape == (32, 32)


def test_in_a_bfloat16_model_adapters_and_head_stay_float32(qwen3: Any, examples: list[Example]) -> None:
    made = Student(qwen3("bfloat16"), K=2, seed=0, **LORA)
    assert {parameter.dtype for parameter in made.trained().values()} == {torch.float32}
    frozen = {parameter.dtype for parameter in made.parameters() if not parameter.requires_grad}
    assert frozen == {torch.bfloat16}
    outputs = made([examples[0].prompt], [examples[0].target], 0)
    objective = Objective(2.0, "per_step", "mean", "l1", "tokens")
    found = loss(outputs, torch.zeros(1, 2, D), torch.ones(1), objective, Counts(9, 1))
    assert found.total.dtype == found.by_step.dtype == torch.float32
    found.total.backward()
    assert made.head.mlp[0].weight.grad.dtype == torch.float32


def test_no_layer_recomputes_its_pass(student: Any) -> None:
    """With gradient checkpointing transformers drops the cache, and each latent step would be blind to the prompt."""
    made = student(K)
    made.train()
    assert not made.model.is_gradient_checkpointing
    assert made.model.config.use_cache


def test_the_same_seed_gives_the_same_student_and_another_seed_another(qwen3: Any) -> None:
    first, again, other = (Student(qwen3(), K=K, seed=seed, **LORA).trained() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.mlp.0.weight"], other["head.mlp.0.weight"])
    adapter = next(name for name in first if "lora_A" in name)
    assert not torch.equal(first[adapter], other[adapter])


def test_a_projection_that_the_model_does_not_have_is_named(qwen3: Any) -> None:
    """PEFT would train the others alone."""
    with pytest.raises(ParamError, match=r"names qkv_proj, which a Qwen3ForCausalLM does not have: choose from down_proj, "):
        Student(qwen3(), K=0, seed=0, lora_r=4, lora_alpha=8, lora_targets=["q_proj", "qkv_proj"])
