"""The plan of a task of the user's own is that of its benchmark, with the problems that its entry says."""

from typing import Any

import pytest
from graph import tree_of
from imports import ROOT

from qthink_core.pipeline.graph import Box
from qthink_core.planning import schedule, stage_costs
from qthink_core.planning.workload import PUBLISHED_PROMPTS, size_of, workload_of


def load_of(**data: Any) -> Any:
    tree = tree_of("smol")[0]
    tree = tree | {"tasks": list(data), "data": tree["data"] | data}  # not in place: other tests have the same tree
    return workload_of(ROOT, tree, schedule.first_outputs(ROOT, tree))


def test_answers_of_math_cost_what_those_of_its_benchmark_do_and_prompts_of_tools_are_long() -> None:
    entry = {"train": "x.jsonl", "test": "y.jsonl"}
    load = load_of(sums=entry | {"benchmark": "math500"}, tools=entry | {"benchmark": "tooluse"})
    rows = load.n(Box("reward", "sums"), "train") * load.tree["rollout"]["G"]
    assert stage_costs.reward(load, Box("reward", "sums")).other_s == pytest.approx(rows * stage_costs.LATEX_S)
    assert stage_costs.reward(load, Box("reward", "tools")).other_s == pytest.approx(rows * stage_costs.GRADING_S)
    assert load.lengths["tools"].prompt == PUBLISHED_PROMPTS["tooluse"] > load.lengths["sums"].prompt


@pytest.mark.parametrize(
    ("train", "prepared", "size"),
    [
        ({"file": "x.jsonl", "rows": 20}, {}, 15),
        ({"file": "x.jsonl", "rows": 20}, {"train": 13}, 13),
        ("x.jsonl", {}, None),
        ("x.jsonl", {"train": 13}, 13),
    ],
)
def test_the_number_of_problems_is_as_prepared_or_as_the_entry_says(
    train: Any, prepared: dict[str, int], size: int | None
) -> None:
    prepare = {"n_train": "all", "n_validation": 5}
    assert size_of(prepare, {"train": train}, "train", prepared) == size
    assert size_of(prepare | {"n_train": 4}, {"train": train}, "train", prepared) == 4
