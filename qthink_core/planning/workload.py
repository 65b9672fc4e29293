"""What a run has to compute: its problems, and the lengths of prompts, thoughts and answers. No torch.

Lengths are assumed until a run of the same base model has left its counts in the manifests of its artifacts.
"""

import itertools
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

from qthink_core.artifacts.store import of_set
from qthink_core.models.base_params import Base
from qthink_core.pipeline import graph
from qthink_core.pipeline.graph import Box
from qthink_core.planning import calibration, schedule, shapes
from qthink_core.planning.cost import Shape

WIDTH = {"float32": 4, "bfloat16": 2, "float16": 2}


class Lengths(NamedTuple):
    """Mean tokens: prompt, thought, the answer after it, and the answers to scored questions with and without thinking."""

    prompt: float
    thought: float
    answer: float
    thinking: float
    direct: float


# The recipe's own estimate, and the generated tokens of the model card: base with thinking, QThink.
PAPER = Lengths(prompt=120, thought=1000, answer=200, thinking=1399, direct=1025)
# Published prompts that are longer: the 68 of Tooluse's test set list their tools in 481 to 1,300 tokens, 779 on average
# (SmolLM2's tokenizer); the chat template adds about ten.
PUBLISHED_PROMPTS = {"tooluse": 790.0}
# The three generated tasks together, by the base model of the committed run.
GENERATED = Lengths(prompt=30, thought=12, answer=7, thinking=19, direct=7)
# Standard deviation of the logarithm of a rollout's length, assumed as in `qthink bench`.
SPREAD = 0.5
# Lengths that stand for all lengths of a distribution, at evenly spaced probabilities.
QUANTILES = 200


class Workload(NamedTuple):
    """The checked parameters, the model's shape, lengths and problems by task, and mean tokens of answers.

    A size in `problems` is None where it is unknown; that of a further test set has the name of its file in place of the
    split. `generated` holds mean tokens of answers by (task, system); `counted` are the tasks whose lengths come from
    rollouts in this folder; `room` is the device's memory in bytes; `seats` the most rows that vLLM decodes at once there.
    """

    tree: Mapping[str, Any]
    shape: Shape
    lengths: Mapping[str, Lengths]
    problems: Mapping[tuple[str, str], int | None]
    generated: Mapping[tuple[str, str], float]
    counted: frozenset[str] = frozenset()
    room: float = math.inf
    seats: float = math.inf

    @property
    def width(self) -> int:
        """Bytes of a weight and of a number in the cache."""
        return WIDTH[self.tree["dtype"]]

    def n(self, at: Box, split: str) -> int:
        """Problems of a split; 0 where the number is unknown."""
        return self.problems[at.task, split] or 0

    def further(self, at: Box) -> list[int]:
        """Questions of each further test set of the task; 0 where the number is unknown."""
        return [self.n(at, of_set(name, "test")) for name in also(self.tree, at.task)]

    def answer(self, at: Box) -> float:
        """The mean tokens of a system's answers to questions, thoughts included."""
        lengths = self.lengths[at.task]
        mean = self.generated.get((at.task, at.system), lengths.thinking if thinks(self.tree, at.system) else lengths.direct)
        return min(self.tree["evaluate"]["max_new_tokens"], mean)


def workload_of(root: Path, tree: Mapping[str, Any], boxes: Mapping[Box, Path]) -> Workload:
    """The workload of checked parameters; `boxes` maps each box to its first output.

    Raises ParamError where the base model's shape is unknown.
    """
    source = Base.model_validate(tree["base"])
    same = made_base(root, boxes, source)
    shape = shapes.of_base(source, same)
    counts = {at: calibration.counts(root / path) if same else {} for at, path in boxes.items()}
    generated = {
        (at.task, at.system): found["tokens"] / found["answers"]
        for at, found in counts.items()
        if at.stage in ("baseline", "evaluate") and found.get("answers")
    }
    problems: dict[tuple[str, str], int | None] = {}
    lengths: dict[str, Lengths] = {}
    counted: set[str] = set()
    for task in tree["tasks"]:
        prepared = counts.get(Box("prepare", task), {})
        entry = tree["data"][task]
        problems |= {(task, split): size_of(tree["prepare"], entry, split, prepared) for split in ("train", "test")}
        problems[task, "validation"] = tree["prepare"]["n_validation"]
        further = calibration.counts(root / test_sets(root, tree, task)) if same else {}
        problems |= {(task, of_set(name, "test")): size_of_set(tree, name, further) for name in also(tree, task)}
        assumed = GENERATED if source.pretrain else PAPER
        if tree["prepare"]["source"] != "generated":
            assumed = assumed._replace(prompt=PUBLISHED_PROMPTS.get(entry["benchmark"], assumed.prompt))
        mean = with_counts(assumed, task, tree, counts, generated)
        counted |= {task} if mean != assumed else set()
        lengths[task] = within(mean, tree["sample"]["max_new_tokens"])
    return Workload(tree, shape, lengths, problems, generated, frozenset(counted))


def made_base(root: Path, boxes: Mapping[Box, Path], source: Base) -> Path | None:
    """The folder of the base model if it was made from this source, else None."""
    made = root / next(path for at, path in boxes.items() if at.stage == "base")
    return made if calibration.about(made).get("source") == source.source else None


def size_of(prepare: Mapping[str, Any], entry: Mapping[str, Any], split: str, prepared: Mapping[str, int]) -> int | None:
    """Problems of a split: from params, as prepared or on record (less the validation split); None where unknown."""
    wanted = prepare[f"n_{split}"]
    if wanted != "all":
        return int(wanted)
    place = entry[split]
    recorded = place.get("rows") if isinstance(place, Mapping) else None
    if split in prepared or recorded is None:
        return prepared.get(split)
    return max(recorded - (prepare["n_validation"] if split == "train" else 0), 0)


def test_sets(root: Path, tree: Mapping[str, Any], task: str) -> Path:
    """The folder in which `prepare` puts the further test sets of a task, beside the problems."""
    _, folder = schedule.outputs(graph.stages(root)["prepare"])
    return Path(graph.resolve(folder, Box("prepare", task), tree))


def also(tree: Mapping[str, Any], task: str) -> list[str]:
    """The further test sets that the systems of a task answer."""
    return list(tree["data"][task].get("also", []))


def size_of_set(tree: Mapping[str, Any], name: str, prepared: Mapping[str, int]) -> int | None:
    """Questions of a further test set: as prepared or on record, at most as many as params ask for; None where unknown."""
    wanted, known = tree["prepare"]["n_test"], prepared.get(of_set(name, "test"), tree["test_sets"][name].get("rows"))
    return known if known is None or wanted == "all" else min(known, int(wanted))


def with_counts(
    assumed: Lengths,
    task: str,
    tree: Mapping[str, Any],
    counts: Mapping[Box, Mapping[str, int]],
    generated: Mapping[tuple[str, str], float],
) -> Lengths:
    """The lengths, with means from the rollouts and from the base model's answers without thinking in this folder."""
    rollouts = counts.get(Box("sample", task), {})
    if not rollouts.get("rollouts"):
        return assumed
    both = rollouts["tokens"] / rollouts["rollouts"]
    plain = [name for name, one in tree["systems"]["baseline"].items() if not one["thinking"]]
    direct = next((generated[task, name] for name in plain if (task, name) in generated), None)
    answer = min(assumed.answer if direct is None else direct, both)
    without_thinking = assumed.direct if direct is None else direct
    return assumed._replace(thought=both - answer, answer=answer, thinking=both, direct=without_thinking)


def within(lengths: Lengths, limit: int) -> Lengths:
    """The lengths when every rollout is cut at a limit; the thought comes before the answer."""
    thought = min(lengths.thought, limit)
    return lengths._replace(thought=thought, answer=min(lengths.answer, limit - thought))


@cache
def block_steps(rows: int, places: float, mean: float, limit: int) -> float:
    """Passes until `rows` rollouts have ended, of which `places` are decoded at once and the others take over free places.

    Lengths are log-normal with this mean and `SPREAD`, and cut at `limit`. While rollouts wait, all places are in use. Then
    the block drains: the last `places` rollouts end one by one, until the one that has most left. What a rollout in progress
    has left is distributed as in a renewal process: more than x with probability E[max(L - x, 0)] / E[L], and
    E[L^2] / (2 E[L]) on average. The most is taken as what one of them exceeds.
    """

    def length(probability: float) -> float:
        return min(limit, mean * math.exp(SPREAD * NormalDist().inv_cdf(probability) - SPREAD**2 / 2))

    longest = max(mean, length(rows / (rows + 1)))
    if rows <= places:
        return longest
    lengths = [length((number - 0.5) / QUANTILES) for number in range(QUANTILES, 0, -1)]
    total = sum(lengths)
    above = itertools.accumulate(lengths)
    # the x of the sum of max(L - x, 0) over the longest lengths, as many as are above that x
    most = max((sum_of - total / places) / n for n, sum_of in enumerate(above, 1))
    drain = most - sum(one**2 for one in lengths) / (2 * total)
    return max(longest, rows * mean / places + max(drain, 0.0))


def batches_of(n: int, size: int) -> dict[int, int]:
    """The number of batches by their size, when n problems are cut into batches of at most `size`."""
    full, left = divmod(n, size)
    return {rows: times for rows, times in ((size, full), (left, 1)) if rows and times}


def shares_prompts(tree: Mapping[str, Any]) -> bool:
    """Whether the engine hf keeps a prompt once for all of its rows, as it does where the model's attention allows it."""
    return bool(tree["dtype"] == "float32")


def thinks(tree: Mapping[str, Any], system: str) -> bool:
    """Whether a system writes a thought before its answer."""
    row = tree["systems"]["baseline"].get(system)
    return bool(row["thinking"]) if row else tree["systems"]["finetuned"].get(system, {}).get("target") == "think_and_answer"


def latent_steps(tree: Mapping[str, Any], system: str) -> int:
    """The latent steps of a row: its own number or the shared one, 0 for a row without latent steps."""
    row = tree["systems"]["distilled"].get(system)
    return 0 if row is None else int(row.get("K") or tree["K"])


def n_positions(tree: Mapping[str, Any]) -> int:
    """How many positions of a rollout `extract` reads: those that rows share, and those of each further pair."""
    return int(tree["K"] + sum(pair["K"] for pair in tree["extract"]["also"]))


def n_conditions(tree: Mapping[str, Any], system: str) -> int:
    """How many answers `probe` gives to a question: one under each condition, one after each number of steps."""
    how = tree["probe"]
    return len(how["conditions"]) + max(how["sweep"] * latent_steps(tree, system), 1)
