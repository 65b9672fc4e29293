"""Training steps: against one example at a time with logits everywhere, against an online teacher, and merged LoRA."""

from collections.abc import Callable

import torch
from torch import Tensor

from qthink_core.benchmarking import naive
from qthink_core.benchmarking.counting import Work, counted
from qthink_core.benchmarking.measured import Measured
from qthink_core.benchmarking.timing import paired
from qthink_core.benchmarking.workload import PAD, Sizes, examples_of, head_of, model_of, problems_of, rows_of
from qthink_core.method.hidden_states import read_positions
from qthink_core.method.losses import Objective
from qthink_core.method.student import Student
from qthink_core.planning import cost
from qthink_core.planning.cost import Shape
from qthink_core.training.loop import backward, micro_batches

# As params.yaml and params/tiny.yaml set them.
RANK, ALPHA, TARGETS, GAMMA = 32, 16, "all-linear", 2.0
OBJECTIVE = Objective(GAMMA, "per_step", "mean", "l1", "tokens")
ADAPTER_STD = 0.02  # of B, which starts at zero: both factors then have a gradient
# Gradients are compared in this type on a processor: the L1 distance has a kink where a latent meets its teacher, and among
# tens of thousands of numbers one is so close to it that the rounding of float32 chooses the side. Many GPUs are slow in it.
EXACT = "float64"


class Step:
    """One effective batch of a student with adapters of random weights, and three ways to compute its gradient.

    The teacher of a problem is that of its first rollout, so that an online teacher is one forward.
    """

    def __init__(self, shape: Shape, sizes: Sizes, merged: bool = False) -> None:
        self.shape, self.sizes = shape, sizes
        problems = problems_of(shape, sizes._replace(G=1))
        model = model_of(shape, sizes.seed, sizes.on, lively=False)
        self.examples, self.rows = examples_of(problems), rows_of(problems, sizes.K)
        exact = sizes.on.dtype == EXACT
        states = read_positions(model, self.rows, sizes.K, sizes.batch_tokens, EXACT if exact else "float32")
        self.teachers = {one.problem_id: state for one, state in zip(self.examples, states, strict=True)}
        self.batch = micro_batches(range(len(problems)), self.examples, sizes.micro_batch)
        self.student = Student(
            model, K=sizes.K, seed=sizes.seed, lora_r=RANK, lora_alpha=ALPHA, lora_targets=TARGETS, merged=merged
        ).to(sizes.on.name)
        if exact:
            self.student.double()  # otherwise what is trained is in float32, as in `train`
        assert self.student.head is not None, "latent steps have a head"
        self.student.head.load_state_dict(head_of(shape, sizes.seed).state_dict())
        torch.manual_seed(sizes.seed + 2)
        with torch.no_grad():
            for name, parameter in self.student.trained().items():
                if "lora_B" in name:
                    parameter.normal_(std=ADAPTER_STD)
        self.student.train()

    def own(self) -> None:
        """As `train` computes a step: micro-batches without padding, stored teachers, logits of answer tokens alone."""
        self.student.zero_grad(set_to_none=True)
        backward(self.student, self.examples, self.teachers, self.batch, OBJECTIVE, PAD, 0)

    def naive(self, online: bool = False) -> None:
        """One example at a time, with logits at all positions; `online` reads each teacher anew."""
        student, n_tokens = self.student, sum(len(one.target) for one in self.examples)
        assert student.head is not None, "latent steps have a head"
        student.zero_grad(set_to_none=True)
        for example, row in zip(self.examples, self.rows, strict=True):
            if online:
                teacher = naive.online_teacher(student.adapted, row.tokens, row.positions)
            else:
                teacher = torch.from_numpy(self.teachers[example.problem_id]).to(self.sizes.on.name)
            inputs = (example.prompt, example.target, teacher, self.sizes.K, GAMMA)
            cross_entropy, distance = naive.example_loss(student.model, student.head, *inputs)
            (cross_entropy / n_tokens + distance / len(self.examples)).backward()

    def gradient(self, compute: Callable[[], None]) -> tuple[dict[str, Tensor], Work]:
        """The gradient by the names of the parameters, and the work of the forward passes."""
        with counted(self.student.model) as work:
            compute()
        return {name: one.grad.clone() for name, one in self.student.trained().items() if one.grad is not None}, work

    def flops(self) -> float:
        """FLOPs that a step needs: two a weight and token forward, as many again for the gradient of what is computed.

        The frozen weights have no gradient, so the backward pass costs the forward pass again, and not twice. The head is
        needed at the answer's tokens.
        """
        tokens = sum(len(one.prompt) + self.sizes.K + len(one.target) - 1 for one in self.examples)
        answers = sum(len(one.target) for one in self.examples)
        return 4.0 * (cost.body(self.shape) * tokens + cost.output_head(self.shape) * answers)


def difference(left: dict[str, Tensor], right: dict[str, Tensor]) -> float:
    """The largest difference of two gradients as a share of the largest number in the second; both have the same names."""
    assert left.keys() == right.keys(), "both ways train the same parameters"
    apart = max(float((left[name] - right[name]).abs().max()) for name in left)
    return apart / max(float(one.abs().max()) for one in right.values())


def exactly(sizes: Sizes) -> Sizes:
    """The sizes with the dtype in which gradients are compared."""
    return sizes._replace(on=sizes.on._replace(dtype=EXACT)) if sizes.on.name == "cpu" else sizes


def steps(
    name: str, shape: Shape, sizes: Sizes, rounds: int, peak: float, goals: tuple[float | None, float | None], merged: bool
) -> list[Measured]:
    """The rows of a shape against the stored and the online teacher."""
    step, exact = Step(shape, sizes, merged), Step(shape, exactly(sizes), merged)
    _, work = step.gradient(step.own)
    found, _ = exact.gradient(exact.own)
    rows = []
    for online, goal in zip((False, True), goals, strict=True):
        _, naively = step.gradient(lambda online=online: step.naive(online))  # type: ignore[misc]
        expected, _ = exact.gradient(lambda online=online: exact.naive(online))  # type: ignore[misc]
        counts: dict[str, float] = {
            "examples": len(step.examples),
            "tokens_processed": work.tokens,
            "naive_tokens": naively.tokens,
            "logits_rows": work.logits_rows,
            "naive_logits_rows": naively.logits_rows,
            "forward_calls": work.forward_calls,
            "naive_forward_calls": naively.forward_calls,
        }
        against = "batch 1 with logits everywhere" + (", and an online teacher" if online else "")
        ratio = paired(lambda online=online: step.naive(online), step.own, rounds, sizes.on)  # type: ignore[misc]
        share, tokens_s = step.flops() / ratio.own_s / peak, work.tokens / ratio.own_s
        apart = difference(found, expected)
        rows.append(Measured("training step", name, against, ratio, apart, counts, goal, {}, share, tokens_s))
    return rows


def merged_step(name: str, shape: Shape, sizes: Sizes, rounds: int, goal: float | None) -> Measured:
    """The row of LoRA merged into the weights against PEFT's layers, in the same passes."""
    own, plain = Step(shape, sizes, merged=True), Step(shape, sizes)
    _, work = own.gradient(own.own)
    plain.gradient(plain.own)
    found, expected = (one.gradient(one.own)[0] for one in (Step(shape, exactly(sizes), merged) for merged in (True, False)))
    counts: dict[str, float] = {"examples": len(own.examples), "forward_calls": work.forward_calls}
    return Measured(
        "training step, LoRA merged",
        name,
        "the same step with LoRA in every call",
        paired(plain.own, own.own, rounds, sizes.on),
        difference(found, expected),
        counts,
        goal,
    )
