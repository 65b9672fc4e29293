import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from artifact_folders import work

from qthink_core.artifacts.store import Work
from qthink_core.errors import NumericError, ParamError
from qthink_core.method import projection_head
from qthink_core.method.losses import Objective
from qthink_core.method.student import Student
from qthink_core.method.targets import Example
from qthink_core.pipeline.recipe import Lora, Recipe
from qthink_core.training.checkpoints import checkpoints
from qthink_core.training.loop import backward, lr_factor, micro_batches, plan, train

K, D = 2, 32
OBJECTIVE = Objective(2.0, "per_step", "mean", "l1", "tokens")
RECIPE = Recipe(
    lr=2e-4,
    lr_multiplier=20.0,
    epochs=3,
    batch=4,
    micro_batch=2,
    warmup=0.3,
    weight_decay=0.01,
    clip=1.0,
    target="rollout",
    end_token="only_if_whole",
    answer_max_tokens=256,
    prompt_max_tokens=512,
    cross_entropy="tokens",
    lora=Lora(r=4, alpha=8, merged=False, targets=["q_proj"]),
)
N_STEPS = 9  # three epochs of ten examples in batches of four
# The plain loop clips in float64, torch in float32: a relative 1e-7 of every gradient. Adam's first steps are
# lr * sign(gradient), so a weight may differ by a part of lr where its gradient is almost nothing: a thousandth of 4e-3.
WEIGHT_TOLERANCE = 1e-3 * 4e-3
LOSS_TOLERANCE = 1e-5


@pytest.fixture
def examples(questions: list[list[int]], tokenizer: Any) -> list[Example]:
    """Ten problems; the last has no target."""
    rng = np.random.default_rng(0)
    targets = [[*rng.integers(0, 256, int(rng.integers(1, 9))).tolist(), tokenizer.eos_token_id] for _ in range(9)]
    return [Example(f"p{i}", questions[i], target) for i, target in enumerate([*targets, []])]


@pytest.fixture
def teachers() -> dict[str, np.ndarray]:
    """A teacher for all but the first."""
    rng = np.random.default_rng(1)
    return {f"p{i}": rng.standard_normal((K, D)).astype(np.float32) for i in range(1, 10)}


class PowerCut(Exception):
    """What ends a training from outside."""


def until(steps: Iterator[int], stop: int | None) -> Iterator[int]:
    """The steps, with a power cut in place of step `stop`."""
    for step in steps:
        if step == stop:
            raise PowerCut
        yield step


def run(
    made: Student,
    examples: list[Example],
    teachers: dict[str, Any],
    place: Work,
    stop: int | None = None,
    recipe: Recipe = RECIPE,
    started: list[int] | None = None,
) -> list[dict[str, Any]]:
    """A training with a checkpoint every other step; `started` gets the number of steps that it had before it."""
    return train(
        made,
        examples,
        teachers,
        recipe,
        OBJECTIVE,
        seed=5,
        pad_id=0,
        work=place,
        checkpoint_every=2,
        show=lambda steps, total: (started.append(total) if started is not None else None, until(steps, stop))[1],
    )


def trained_bytes(made: Student) -> bytes:
    """Every trained weight."""
    return b"".join(value.detach().numpy().tobytes() for value in made.trained().values())


def test_the_learning_rate_rises_in_steps_then_follows_a_cosine_to_zero() -> None:
    # 3 % of 100 steps: three rising ones, then 97 along the cosine
    assert [lr_factor(step, 100, 0.03) for step in range(4)] == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert lr_factor(3 + 48, 100, 0.03) == pytest.approx(0.5 * (1 + math.cos(math.pi * 48 / 97)))
    assert lr_factor(99, 100, 0.03) == pytest.approx(0.5 * (1 + math.cos(math.pi * 96 / 97)))
    assert 0 < lr_factor(99, 100, 0.03) < 3e-4
    # half of four steps
    assert [lr_factor(step, 4, 0.5) for step in range(4)] == pytest.approx([0.5, 1, 1, 0.5])
    # no warm-up: the first step has the whole rate
    assert [lr_factor(step, 3, 0.0) for step in range(3)] == pytest.approx([1, 0.75, 0.25])
    # a share of a step is a step, and one step is enough for a training
    assert lr_factor(0, 1, 0.03) == 1
    assert [lr_factor(step, 2, 0.03) for step in range(2)] == [1, 1]


def test_each_epoch_holds_every_example_once_in_an_order_of_its_own() -> None:
    steps = plan(10, RECIPE, seed=5)
    assert [len(batch) for batch in steps] == [4, 4, 2] * 3
    epochs = [[i for batch in steps[start : start + 3] for i in batch] for start in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert plan(10, RECIPE, seed=5) == steps
    assert plan(10, RECIPE, seed=6) != steps


def test_another_micro_batch_size_leaves_the_plan() -> None:
    assert plan(50, RECIPE, seed=0) == plan(50, RECIPE.model_copy(update={"micro_batch": 1}), seed=0)


def test_micro_batches_hold_like_lengths_and_every_example(examples: list[Example]) -> None:
    groups = micro_batches([7, 2, 9, 4, 0], examples, 2)
    assert [len(group) for group in groups] == [2, 2, 1]
    order = [i for group in groups for i in group]
    assert sorted(order) == [0, 2, 4, 7, 9]
    lengths = [len(examples[i].prompt) + len(examples[i].target) for i in order]
    assert lengths == sorted(lengths)


@pytest.mark.slow
def test_training_is_adamw_on_clipped_gradients_of_whole_effective_batches(
    student: Any, examples: list[Example], teachers: dict[str, Any], tmp_path: Path
) -> None:
    made, plain = student(K), student(K)
    made.head.mlp[0].bias.grad = torch.full_like(made.head.mlp[0].bias, 0.1)  # left by another use
    losses = run(made, examples, teachers, work(tmp_path))
    parameters = plain.trained()
    optimizer = torch.optim.AdamW(parameters.values(), lr=1.0, weight_decay=0.01)
    expected, norms = [], []
    plain.train()
    for step, batch in enumerate(plan(10, RECIPE, seed=5)):
        groups = micro_batches(batch, examples, RECIPE.micro_batch)
        found = backward(plain, examples, teachers, groups, OBJECTIVE, 0, step)
        norm = sum(float(value.grad.double().square().sum()) for value in parameters.values()) ** 0.5
        for value in parameters.values():
            value.grad *= min(1.0, 1.0 / (norm + 1e-6))
        # 0.3 * 9 steps: three of warm-up
        optimizer.param_groups[0]["lr"] = 4e-3 * (
            (step + 1) / 3 if step < 3 else 0.5 * (1 + math.cos(math.pi * (step - 3) / 6))
        )
        optimizer.step()
        optimizer.zero_grad()
        expected.append(found)
        norms.append(norm)
    assert min(norms) > 1  # every step was clipped
    assert [entry["step"] for entry in losses] == list(range(N_STEPS))
    for entry, found in zip(losses, expected, strict=True):
        assert entry["cross_entropy"] == pytest.approx(found["cross_entropy"], rel=LOSS_TOLERANCE)
        assert entry["distance"] == pytest.approx(found["distance"], rel=LOSS_TOLERANCE)
    for name, value in made.trained().items():
        torch.testing.assert_close(value, parameters[name], rtol=0, atol=WEIGHT_TOLERANCE, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("fast", [True, False])
def test_the_log_says_that_micro_batches_are_padded(
    student: Any, examples: list[Example], tmp_path: Path, fast: bool, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(Student, "fast", fast)
    run(student(0), examples[:4], {}, work(tmp_path), recipe=RECIPE.model_copy(update={"epochs": 1}))
    said = "micro-batches are padded, as the attention of a Qwen3ForCausalLM needs it\n"
    assert capsys.readouterr().out == ("" if fast else said)


@pytest.mark.slow
def test_training_lowers_the_loss_and_leaves_the_base_model_bit_for_bit(
    student: Any, examples: list[Example], teachers: dict[str, Any], tmp_path: Path
) -> None:
    made = student(K)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    losses = run(made, examples, teachers, work(tmp_path), recipe=RECIPE.model_copy(update={"epochs": 8}))
    first, last = (sum(entry["cross_entropy"] for entry in part) for part in (losses[:3], losses[-3:]))
    assert last < 0.8 * first
    trained = set(made.trained())
    for name, value in made.state_dict().items():
        assert torch.equal(value, before[name]) == (name not in trained), name


@pytest.mark.slow
@pytest.mark.parametrize("stop", [1, 2, 5, 8])
def test_a_training_that_was_cut_off_ends_with_the_same_bytes(
    student: Any, examples: list[Example], teachers: dict[str, Any], tmp_path: Path, stop: int
) -> None:
    whole = student(K)
    losses = run(whole, examples, teachers, work(tmp_path / "whole"))
    with pytest.raises(PowerCut):
        run(student(K), examples, teachers, work(tmp_path / "cut"), stop)
    resumed, started = student(K), []
    again = run(resumed, examples, teachers, work(tmp_path / "cut"), started=started)
    assert started == [N_STEPS - stop // 2 * 2]  # steps behind the newest checkpoint are taken again, no others
    assert again == losses
    assert trained_bytes(resumed) == trained_bytes(whole)
    assert projection_head.to_bytes(resumed.head) == projection_head.to_bytes(whole.head)


@pytest.mark.slow
def test_a_training_may_be_cut_off_again_and_again(
    student: Any, examples: list[Example], teachers: dict[str, Any], tmp_path: Path
) -> None:
    whole = student(K)
    losses = run(whole, examples, teachers, work(tmp_path / "whole"))
    for stop in (3, 5, 7):
        with pytest.raises(PowerCut):
            run(student(K), examples, teachers, work(tmp_path / "cut"), stop)
    resumed = student(K)
    assert run(resumed, examples, teachers, work(tmp_path / "cut")) == losses
    assert trained_bytes(resumed) == trained_bytes(whole)


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["truncated", "flipped", "unrecorded"])
def test_a_damaged_checkpoint_is_refused_and_the_training_still_ends_the_same(
    student: Any, examples: list[Example], teachers: dict[str, Any], tmp_path: Path, harm: str
) -> None:
    whole = student(K)
    losses = run(whole, examples, teachers, work(tmp_path / "whole"))
    place = work(tmp_path / "cut")
    with pytest.raises(PowerCut):
        run(student(K), examples, teachers, place, 5)
    assert checkpoints(place) == ["checkpoint-0000004"]  # the older one went when this one stood
    weights = place.path("checkpoint-0000004.safetensors")
    if harm == "truncated":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif harm == "flipped":
        raw = bytearray(weights.read_bytes())
        raw[-3] ^= 1  # a bit of a weight: safetensors would load it
        weights.write_bytes(raw)
    else:
        place.path("checkpoint-0000004.unit.json").unlink()
    resumed, started = student(K), []
    assert run(resumed, examples, teachers, work(tmp_path / "cut"), started=started) == losses
    assert started == [N_STEPS]
    assert trained_bytes(resumed) == trained_bytes(whole)


def test_a_checkpoint_is_the_same_bytes_each_time(
    student: Any, examples: list[Example], teachers: dict[str, Any], tmp_path: Path
) -> None:
    found = []
    for name in ("a", "b"):
        place = work(tmp_path / name)
        with pytest.raises(PowerCut):
            run(student(K), examples, teachers, place, 3)
        found.append({file.name: file.read_bytes() for file in sorted(place.folder.iterdir())})
    assert found[0] == found[1]
    assert len(found[0]) == 3


@pytest.mark.slow
def test_another_seed_sees_the_examples_in_another_order(
    student: Any, examples: list[Example], teachers: dict[str, Any], tmp_path: Path
) -> None:
    first = run(student(K), examples, teachers, work(tmp_path / "a"))
    other = train(
        student(K),
        examples,
        teachers,
        RECIPE,
        OBJECTIVE,
        seed=6,
        pad_id=0,
        work=work(tmp_path / "b"),
        checkpoint_every=100,
        show=lambda steps, _: steps,
    )
    assert first != other


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_before_its_step_and_names_it(
    student: Any, examples: list[Example], teachers: dict[str, Any], tmp_path: Path
) -> None:
    bad = plan(10, RECIPE, seed=5)[2][0]  # first seen in step 2
    teachers[f"p{bad}"] = np.full((K, D), np.nan, np.float32)
    place, made, stopped = work(tmp_path), student(K), student(K)
    with pytest.raises(NumericError, match=rf"the loss of step 2 is nan on .*p{bad}\b"):
        run(made, examples, teachers, place)
    with pytest.raises(PowerCut):
        run(stopped, examples, teachers, work(tmp_path / "stopped"), 2)
    assert trained_bytes(made) == trained_bytes(stopped)
    assert checkpoints(place) == ["checkpoint-0000002"]  # what was good is kept


def test_a_hidden_state_that_is_not_finite_stops_too(
    student: Any, examples: list[Example], teachers: dict[str, Any], tmp_path: Path
) -> None:
    made = student(K)
    bad = plan(10, RECIPE, seed=5)[0][0]
    unused = min(set(range(256, made.model.config.vocab_size)) - {token for row in examples for token in row.prompt})
    examples[bad] = examples[bad]._replace(prompt=[*examples[bad].prompt, unused])
    with torch.no_grad():
        made.model.model.embed_tokens.weight[unused] = torch.inf
    before = trained_bytes(made)
    with pytest.raises(NumericError, match=rf"the loss of step 0 is nan on .*p{bad}\b"):
        run(made, examples, teachers, work(tmp_path))
    assert trained_bytes(made) == before


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_stops_before_its_step_and_names_it(
    student: Any, examples: list[Example], teachers: dict[str, Any], tmp_path: Path, value: float
) -> None:
    made = student(K)
    before = trained_bytes(made)
    made.head.mlp[0].bias.register_hook(lambda gradient: gradient * 0 + value)
    with pytest.raises(NumericError, match=r"the gradient of step 0 is not finite \(batch of p\d, p\d, p\d, p\d"):
        run(made, examples, teachers, work(tmp_path))
    assert trained_bytes(made) == before


@pytest.mark.parametrize("kind", ["DEEPSPEED", "FSDP", "MEGATRON_LM"])
def test_a_launcher_that_would_split_the_model_is_refused_before_anything_is_trained(
    student: Any,
    examples: list[Example],
    teachers: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    made = student(K)
    before = trained_bytes(made)
    monkeypatch.setenv(f"ACCELERATE_USE_{kind}", "true")
    with pytest.raises(ParamError, match=rf"^training cannot use {kind}: launch without it, e\.g\. by `accelerate launch"):
        run(made, examples, teachers, work(tmp_path))
    assert trained_bytes(made) == before
