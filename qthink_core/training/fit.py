"""One training run, from artifacts to artifact: rollouts, rewards and teachers in; adapter, head and loss curve out."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from qthink_core.artifacts import rollouts, teachers
from qthink_core.artifacts.files import canonical_json
from qthink_core.artifacts.grades import read_rewards
from qthink_core.artifacts.store import Work
from qthink_core.errors import DataError
from qthink_core.method import projection_head, targets, think
from qthink_core.method.losses import Objective
from qthink_core.method.student import Student
from qthink_core.models import export, loading
from qthink_core.pipeline import ranks
from qthink_core.pipeline.recipe import Recipe
from qthink_core.training import loop


class Sources(NamedTuple):
    """The inputs of a training run; `teachers` is None for a system without latent steps."""

    base: Path
    problems: Sequence[Mapping[str, Any]]
    rollouts: Path
    rewards: Path
    teachers: Path | None


class Shape(NamedTuple):
    """The kind of system that is trained: K latent steps, the kind of target, and whether the prompt asks for thinking.

    `one_step`: no gradient flows from a latent input into the state that it was computed from. `positions`: the rule of a
    row that has its own. The exported model records that rule, because `probe` reads teachers by it.
    """

    K: int
    target: str
    thinking: bool
    one_step: bool = False
    positions: str | None = None


def fit(
    sources: Sources,
    shape: Shape,
    recipe: Recipe,
    objective: Objective,
    *,
    seed: int,
    device: str,
    dtype: str,
    work: Work,
    checkpoint_every: int,
    show: Callable[[Iterator[int], int], Iterator[int]],
) -> dict[str, int]:
    """The counts of problems used and left out, after one system is trained and committed to `work` as unit `trained`.

    Raises what `check_lessons` and `loop.train` raise.
    """
    where = loading.pick_device(device)
    tokenizer = loading.load_tokenizer(sources.base)
    problems = {row["id"]: row for row in sources.problems}
    states = teachers.read(sources.teachers) if sources.teachers else {}
    wanted, counts = make_targets(sources, problems, tokenizer, shape, recipe, seed)
    examples, kept = targets.examples(
        problems,
        wanted,
        thinking=shape.thinking,
        prompt_max_tokens=recipe.prompt_max_tokens,
        with_teacher=frozenset(states),
    )
    check_lessons(examples, states, sources.teachers, counts | kept)
    model = loading.load_model(sources.base, where, dtype)
    student = Student(
        model,
        K=shape.K,
        seed=seed,
        lora_r=recipe.lora.r,
        lora_alpha=recipe.lora.alpha,
        lora_targets=recipe.lora.targets,
        merged=recipe.lora.merged,
        one_step=shape.one_step,
    )
    losses = loop.train(
        student,
        examples,
        states,
        recipe,
        objective,
        seed=seed,
        pad_id=tokenizer.pad_token_id,
        work=work,
        checkpoint_every=checkpoint_every,
        show=show,
    )
    if ranks.rank() == 0:
        files = export.export_adapter(student.adapted, work.scratch())
        if student.head is not None:
            files[loading.HEAD] = projection_head.to_bytes(student.head)
        own = {} if shape.positions is None else {"positions": shape.positions}
        files[loading.CONFIG] = canonical_json({"K": shape.K, "thinking": shape.thinking} | own)
        files["losses.json"] = canonical_json(losses)
        work.commit("trained", files, counts | kept)
    return counts | kept


def check_lessons(
    examples: Sequence[targets.Example], states: Mapping[str, Any], teachers: Path | None, counts: Mapping[str, int]
) -> None:
    """Raises DataError when no problem has a target, or none has a teacher where the system needs teachers.

    Otherwise an untrained adapter would become a row of the table.
    """
    found = ", ".join(f"{name} {count}" for name, count in counts.items())
    if not examples or all(not example.target for example in examples):
        raise DataError(f"no training problem has a target ({found}): sample more, or set train.target to gold")
    if teachers is not None and not any(example.problem_id in states for example in examples):
        raise DataError(
            f"no training problem has a teacher in {teachers} ({found}): sample more, or raise train.prompt_max_tokens"
        )


def make_targets(
    sources: Sources,
    problems: Mapping[str, Mapping[str, Any]],
    tokenizer: Any,
    shape: Shape,
    recipe: Recipe,
    seed: int,
) -> tuple[dict[str, list[int]], dict[str, int]]:
    """The target of each problem, from a right rollout or the published solution (`recipe.target`), and counts."""
    limit = targets.Limit(recipe.answer_max_tokens, recipe.end_token)
    marks = think.marks(tokenizer)
    if recipe.target == targets.GOLD:
        return targets.from_gold(problems, tokenizer, kind=shape.target, limit=limit)
    by_index, unseen = read_rewards(sources.rewards), dict(problems)
    wanted: dict[str, list[int]] = {}
    counts: Counter[str] = Counter()

    def add(some: Mapping[str, Mapping[str, Any]], sampled: Mapping[str, Sequence[rollouts.Rollout]]) -> None:
        rewards = {name: [by_index[name][row.rollout] for row in rows] for name, rows in sampled.items()}
        found, more = targets.from_rollouts(some, sampled, rewards, marks, kind=shape.target, seed=seed, limit=limit)
        wanted.update(found)
        counts.update(more)

    for file in rollouts.files(sources.rollouts):  # file by file: all rollouts together would take gigabytes in every rank
        sampled = rollouts.by_problem(rollouts.read(file))
        add({name: unseen.pop(name) for name in sampled}, sampled)
    add(unseen, {})
    return wanted, dict(counts)
