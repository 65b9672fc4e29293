"""The plan of a task of the user's own is that of its benchmark, with the problems that its entry says."""

from typing import Any

import pytest
from graph import tree_of
from imports import ROOT

from qthink_core.pipeline.graph import Box
from qthink_core.planning import plan_text, room, schedule, source_checks, stage_costs
from qthink_core.planning.run_plan import plan_run
from qthink_core.planning.workload import PUBLISHED_PROMPTS, size_of, size_of_set, workload_of


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


FOLDER = ["tasks=[gsm8k]", "params/paper.yaml:prepare.source=folder"]
ALSO = "data.gsm8k.also=[svamp,gsm_plus]"  # 300 and 10,552 questions beside the 1,319


def test_the_questions_of_further_test_sets_are_answered_and_graded_but_not_probed() -> None:
    alone, more = (plan_run(ROOT, "paper", "h100", 1, None, settings) for settings in (FOLDER, [*FOLDER, ALSO]))
    before, after = ({row.stage: row for row in one.stages} for one in (alone, more))
    for stage in ("baseline", "evaluate"):
        assert after[stage].tokens == pytest.approx(before[stage].tokens * (1319 + 300 + 10552) / 1319)
        assert after[stage].memory == before[stage].memory
    assert after["grade"].disk > before["grade"].disk
    others = ["base", "sample", "reward", "extract", "average", "finetune", "train", "merge", "probe"]
    assert [after[one] for one in others] == [before[one] for one in others]
    assert "1,319 questions, 300 of svamp, 10,552 of gsm_plus." in plan_text.assumptions(more)
    assert ("data.gsm8k.also", []) in room.changes("evaluate", more.workload)
    assert "data.gsm8k.also" not in dict(room.changes("evaluate", alone.workload))
    assert plan_text.smallest_differences(more) == plan_text.smallest_differences(alone)


@pytest.mark.parametrize(
    ("record", "prepared", "n_test", "size"),
    [(300, {}, "all", 300), (300, {}, 100, 100), (300, {"svamp.test": 290}, "all", 290), (None, {}, 100, None)],
)
def test_the_size_of_a_set_is_as_prepared_or_on_record_and_at_most_what_params_ask_for(
    record: int | None, prepared: dict[str, int], n_test: Any, size: int | None
) -> None:
    known = {"svamp": {"benchmark": "gsm8k"} | ({} if record is None else {"rows": record})}
    assert size_of_set({"prepare": {"n_test": n_test}, "test_sets": known}, "svamp", prepared) == size


def test_a_set_of_unknown_size_counts_as_none_and_is_named() -> None:
    of_paper = tree_of("paper")[0]
    tree = of_paper | {
        "tasks": ["gsm8k"],
        "prepare": of_paper["prepare"] | {"source": "folder"},
        "data": {"gsm8k": of_paper["data"]["gsm8k"] | {"also": ["bags"]}},
        "test_sets": {"bags": {"benchmark": "gsm8k", "file": "bags.jsonl"}},
    }
    made = plan_run(ROOT, "paper", "h100", 1, None, FOLDER)
    load = workload_of(ROOT, tree, schedule.first_outputs(ROOT, tree))
    said = plan_text.assumptions(made._replace(workload=load))
    assert "The questions of bags count as 0, because their number is unknown" in said
    assert load.further(Box("evaluate", "gsm8k", "uniform")) == [0]
    missing = [one.text for one in source_checks.data(tree) if isinstance(one, source_checks.Check) and not one.passed]
    assert "data/bags.jsonl is missing: put the file there, or correct test_sets.bags in params.yaml" in missing
