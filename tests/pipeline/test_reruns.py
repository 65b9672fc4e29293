"""What a change may rerun, asked of DVC itself on a copy of the repository whose every artifact is up to date.

`dvc status` names the boxes that a change touches; what lies after them in the graph reruns only if their outputs change.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import networkx
import pytest
from dvc.dependency import param
from graph import STAGES, copy_repository, fingerprint
from graph import boxes as boxes_of
from imports import OURS

from qthink_core.pipeline import layout, parameters

# DVC takes seconds to commit the copy that all tests ask.
pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning:dvc"), pytest.mark.slow]

TASK, CODE = "gsm8k", "fingerprint"
BASELINE = {"base", "base_direct"}
FINETUNED = {"sft", "answer_only"}
DISTILLED = {"uniform", "reward_weighted", "undistilled", "final_step"}
TRAINED_BY_SEED = ("finetune", "train")
SCORES = {"evaluate", "probe", "grade", "report"}


def boxes(stage: str, systems: set[str]) -> set[str]:
    seed = "-0" if stage in TRAINED_BY_SEED else ""
    return {f"{stage}@{TASK}-{system}{seed}" for system in systems}


TRAININGS = boxes("finetune", FINETUNED) | boxes("train", DISTILLED)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One task of the graph, its outputs filled with their own names and committed to DVC."""
    root = copy_repository(tmp_path_factory.mktemp("reruns"))
    (root / "dvc.lock").unlink(missing_ok=True)
    edit(root / "params.yaml", r"^tasks: .*$", f"tasks: [{TASK}]")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path_factory.mktemp("site")))
        patch.chdir(root)
        patch.setattr(param, "load_path", parsed_once(param.load_path))
        commit_all(root)
        yield root


def parsed_once(load_path: Callable[..., Any]) -> Callable[..., Any]:
    """DVC parses the params files anew for every box and every question: here once for each content."""
    known: dict[tuple[str, bytes], Any] = {}

    def load(path: str, fs: Any) -> Any:
        content = Path(path).read_bytes()
        if (path, content) not in known:
            known[path, content] = load_path(path, fs)
        return known[path, content]

    return load


def commit_all(root: Path) -> None:
    from dvc.repo import Repo

    repo = Repo(str(root))
    for stage in repo.index.stages:
        for out in stage.outs if stage.addressing != CODE else ():
            path = Path(out.fs_path)
            file = path if path.suffix else path / "content"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(out.def_path)
    run_fingerprint(root)
    by_the_stage = {path.name: path.read_bytes() for path in (root / layout.CODE).glob("*.json")}
    fingerprint(root)  # the tests below use it in place of the stage
    assert {path.name: path.read_bytes() for path in (root / layout.CODE).glob("*.json")} == by_the_stage != {}
    repo.commit(force=True)
    assert repo.status() == {}
    repo.close()


def run_fingerprint(root: Path) -> None:
    """Runs the stage that says what the code is."""
    environment = os.environ | {"DVC_STAGE": CODE}
    subprocess.run([sys.executable, "-m", f"stages.{CODE}"], cwd=root, env=environment, check=True, capture_output=True)


def edit(file: Path, old: str, new: str) -> None:
    text, n = re.subn(old, new, file.read_text(), flags=re.MULTILINE)
    assert n == 1, f"{file.name} has {n} places that look like {old}"
    file.write_text(text)


def rerun(root: Path, file: str, old: str, new: str) -> tuple[set[str], set[str]]:
    """(boxes that an edit touches, those and all after them), with the edit undone at the end.

    An edit of code touches the first box, which says of each stage whether its code is another one.
    """
    from dvc.repo import Repo

    before, of_code = (root / file).read_text(), file.startswith(OURS)
    edit(root / file, old, new)
    try:
        repo = Repo(str(root))
        if of_code:
            assert set(repo.status([CODE])) == {CODE}
            fingerprint(root)
        touched = set(repo.status())
        graph = repo.index.graph
        # an edge leads from a stage to what it needs
        after = {
            one.addressing
            for stage in graph
            if stage.addressing in touched - {CODE}
            for one in networkx.ancestors(graph, stage)
        }
        repo.close()
    finally:
        (root / file).write_text(before)
        if of_code:
            fingerprint(root)
    return touched, touched | after


def stages(names: set[str]) -> set[str]:
    return {name.partition("@")[0] for name in names}


def of_systems(names: set[str]) -> set[str]:
    """The systems whose own boxes are among them."""
    return {name.split("-")[1] for name in names if "-" in name}


def test_gamma_reruns_the_distilled_trainings_and_their_scores_only(copy: Path) -> None:
    touched, reruns = rerun(copy, "params.yaml", r"^gamma: 2\.0", "gamma: 1.0")
    assert touched == boxes("train", DISTILLED) | {"report"}
    assert stages(reruns) == {"train", "merge"} | SCORES
    assert of_systems(reruns) == DISTILLED


def test_the_learning_rate_reruns_trainings_and_scores_but_neither_sampling_nor_extraction(copy: Path) -> None:
    touched, reruns = rerun(copy, "params.yaml", r"^  lr: 2\.0e-4", "  lr: 1.0e-4")
    assert touched == TRAININGS
    assert stages(reruns) == {"finetune", "train", "merge"} | SCORES


def test_k_reruns_from_the_extraction_on_but_no_sampling_and_no_system_without_latent_steps(copy: Path) -> None:
    touched, reruns = rerun(copy, "params.yaml", r"^K: 6", "K: 4")
    # a probe reads K from the exported model, so it runs when that has changed
    assert touched == boxes("train", DISTILLED) | {f"extract@{TASK}", "report"}
    assert stages(reruns) == {"extract", "average", "train", "merge"} | SCORES
    assert of_systems(reruns) == DISTILLED


# The temperature of a block of params.yaml: rollouts and answers have each their own.
DRAWN = r"^({}:(?:.*\n)+?)  temperature: 0\.6"
HOTTER = r"\1  temperature: 1.0"


@pytest.mark.parametrize(("old", "new"), [(r"^  G: 16", "  G: 8"), (DRAWN.replace("{}", "rollout"), HOTTER)])
def test_rollouts_rerun_from_the_sampling_on_but_neither_base_nor_data(copy: Path, old: str, new: str) -> None:
    touched, reruns = rerun(copy, "params.yaml", old, new)
    # the report states G in its last line
    assert touched - {"report"} == {f"sample@{TASK}"}
    assert stages(reruns) == {"sample", "reward", "extract", "average", "finetune", "train", "merge"} | SCORES


def test_how_answers_are_drawn_reruns_the_answers_and_no_rollout(copy: Path) -> None:
    touched, reruns = rerun(copy, "params.yaml", DRAWN.replace("{}", "evaluate"), HOTTER)
    assert touched == boxes("baseline", BASELINE) | boxes("evaluate", FINETUNED | DISTILLED)
    assert stages(reruns) == {"baseline"} | SCORES


def test_a_systems_supervision_reruns_that_system_and_no_other(copy: Path) -> None:
    old = r"^    uniform: \{teacher: uniform, supervision: per_step\}"
    touched, reruns = rerun(copy, "params.yaml", old, "    uniform: {teacher: uniform, supervision: final_step}")
    # the report marks what rows do not share
    assert touched == boxes("train", {"uniform"}) | {"report"}
    assert stages(reruns) == {"train", "merge"} | SCORES
    assert of_systems(reruns) == {"uniform"}


@pytest.mark.parametrize("own", ["K: 3", "positions: running", "distance: cosine", "gamma: 1.0"])
def test_a_setting_of_a_rows_own_reruns_that_row_and_no_other(copy: Path, own: str) -> None:
    """The pair of another K or rule is listed already, for another row."""
    row = "uniform: {teacher: uniform, supervision: per_step"
    touched, reruns = rerun(copy, "params.yaml", rf"^    {row}\}}", f"    {row}, {own}}}")
    assert touched == boxes("train", {"uniform"}) | {"report"}
    assert stages(reruns) == {"train", "merge"} | SCORES
    assert of_systems(reruns) == {"uniform"}


def test_a_further_pair_is_extracted_and_averaged_again_with_the_others_and_samples_nothing(copy: Path) -> None:
    touched, reruns = rerun(copy, "params.yaml", r"^  also: \[\]", "  also: [{K: 3, positions: even}]")
    assert touched == {f"extract@{TASK}"}
    assert stages(reruns) == {"extract", "average", "train", "merge"} | SCORES


def test_the_shared_distance_reruns_the_distilled_trainings_and_their_scores_only(copy: Path) -> None:
    touched, reruns = rerun(copy, "params.yaml", r"^  distance: l1", "  distance: cosine")
    assert touched == boxes("train", DISTILLED) | {"report"}
    assert of_systems(reruns) == DISTILLED


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        (
            "qthink_core/method/positions.py",
            r"^    return \[min\(k, block.stop\)",
            "    return [min(k + 0, block.stop)",
            {f"extract@{TASK}", *boxes("probe", DISTILLED)},
        ),
        (
            "qthink_core/pipeline/recipe.py",
            r'^Distance = Literal\["l1"',
            'Distance = Literal["l3", "l1"',
            {*TRAININGS, "report"},
        ),
        ("qthink_core/pipeline/checks/rows.py", r"^    return f\"\{\{K: ", '    return f"{{{{K : ', set()),
    ],
    ids=["a rule for positions", "the name of a distance", "a check of the parameters"],
)
def test_a_change_of_the_method_is_other_code_of_what_uses_it_and_of_no_sampling_and_no_answer(
    copy: Path, file: str, old: str, new: str, expected: set[str]
) -> None:
    touched, _ = rerun(copy, file, old, new)
    assert touched == {CODE} | expected


def test_a_finetuned_systems_target_reruns_that_system_and_no_other(copy: Path) -> None:
    touched, reruns = rerun(copy, "params.yaml", r"^    sft: \{target: think_and_answer\}", "    sft: {target: answer}")
    assert touched == boxes("finetune", {"sft"}) | {"report"}
    assert of_systems(reruns) == {"sft"}


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("qthink_core/errors.py", r"\Z", "# a comment\n"),
        (
            "qthink_core/method/losses.py",
            r'^FINAL_STEP, TOKENS = "final_step", ',
            "FINAL_STEP, TOKENS = 'final_step', \\\\\n    ",
        ),
        ("qthink_core/method/losses.py", r"^    .*One number for each problem: .*$", '    """Other words."""'),
        ("qthink_core/pipeline/stage.py", r"\A.*$", '"""Other words."""\n'),
        ("stages/train.py", r"^    .*The rows of the table that this stage trains.*$", "    # without words"),
    ],
    ids=["comment", "line breaks and quotes", "docstring", "docstring of a module", "no docstring"],
)
def test_what_says_nothing_to_the_machine_reruns_no_box_that_computes(copy: Path, file: str, old: str, new: str) -> None:
    touched, reruns = rerun(copy, file, old, new)
    assert touched == reruns == {CODE}


# Where their outputs do not change, nothing after them runs: a manifest holds no digest of code
# (tests/pipeline/test_stage.py, test_other_code_changes_no_byte_of_the_same_output).
@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("qthink_core/method/losses.py", r"distances\.sum\(dim=1\)", "distances.mean(dim=1)"),
        ("qthink_core/method/student.py", r"\Z", "FURTHER = 1\n"),
        ("qthink_core/training/loop.py", r"\Z", "import qthink_core.method.losses as further\n"),
    ],
)
def test_an_edit_of_the_training_code_reruns_the_trainings_and_what_follows_and_nothing_before(
    copy: Path, file: str, old: str, new: str
) -> None:
    touched, reruns = rerun(copy, file, old, new)
    assert touched == TRAININGS | {CODE}
    assert stages(reruns) == {CODE, "finetune", "train", "merge"} | SCORES


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("qthink_core/evidence/verdicts.py", r'"The latents are idle"', '"The latents do nothing"'),
        ("qthink_core/report/templates/page.css", r"\Z", "p { margin: 0; }\n"),
    ],
)
def test_the_wording_of_a_verdict_and_the_looks_of_the_page_rerun_the_report_alone(
    copy: Path, file: str, old: str, new: str
) -> None:
    touched, reruns = rerun(copy, file, old, new)
    assert touched == reruns == {CODE, "report"}


# Problems and rewards are mostly the same bytes under another rule, and then nothing after them runs; the report runs when a
# grade is another one.
def test_a_scoring_page_touches_what_grades_and_nothing_that_generates_or_trains(copy: Path) -> None:
    touched, _ = rerun(copy, "qthink_core/benchmarks/graders/gsm8k.py", r"^MAX_NUMBER_CHARS = 100", "MAX_NUMBER_CHARS = 99")
    assert touched == {CODE, *(f"{stage}@{TASK}" for stage in ("prepare", "reward", "grade"))}


def test_what_the_report_shows_touches_the_report_alone(copy: Path) -> None:
    touched, reruns = rerun(copy, "params.yaml", r"^  questions: \d+", "  questions: 3")
    assert touched == reruns == {"report"}


def test_other_conditions_rerun_the_probes_and_their_scores(copy: Path) -> None:
    touched, reruns = rerun(
        copy,
        "params.yaml",
        r"^  conditions: \[K=0, zeros, noise, other, mean, teacher\]",
        "  conditions: [K=0, zeros, noise, other, mean]",
    )
    assert touched == boxes("probe", DISTILLED)
    assert stages(reruns) == {"probe", "grade", "report"}


def test_the_evaluation_limit_reruns_the_scores_but_no_training(copy: Path) -> None:
    touched, reruns = rerun(
        copy, "params/tiny.yaml", r"^evaluate:\n  max_new_tokens: \d+", "evaluate:\n  max_new_tokens: 33"
    )
    scored = boxes("evaluate", FINETUNED | DISTILLED) | boxes("probe", DISTILLED) | boxes("baseline", BASELINE)
    assert touched == scored | {"report"}
    assert stages(reruns) == {"baseline"} | SCORES


def test_the_seed_touches_what_draws_or_may_draw_at_random_and_the_line_that_states_it(copy: Path) -> None:
    touched, _ = rerun(copy, "params.yaml", r"^seed: 0", "seed: 1")
    # the answers of rows that think may be drawn: evaluate.thinking
    assert stages(touched) == {"base", "prepare", "sample", "baseline", "evaluate", "report"}


def test_further_seeds_add_trainings_and_rerun_none(copy: Path) -> None:
    touched, _ = rerun(copy, "params.yaml", r"^seeds: \[0\]", "seeds: [0, 1]")
    assert not touched & TRAININGS
    assert {name for name in touched if name.endswith("-1")} == {name[:-1] + "1" for name in TRAININGS}
    assert stages(touched) == {"finetune", "train", "merge", "evaluate", "probe", "report"}


def test_the_split_reruns_the_scores_and_no_training(copy: Path) -> None:
    touched, reruns = rerun(copy, "params.yaml", r"^split: test", "split: validation")
    assert stages(touched) == {"baseline", "evaluate", "probe", "grade", "report"}
    assert stages(reruns) == {"baseline"} | SCORES


def test_the_parameters_of_another_scale_touch_nothing(copy: Path) -> None:
    touched, _ = rerun(copy, "params/paper.yaml", r"^  epochs: 3", "  epochs: 4")
    assert touched == set()


def test_one_task_more_reruns_no_box_of_the_others(copy: Path) -> None:
    touched, _ = rerun(copy, "params.yaml", rf"^tasks: \[{TASK}\]", f"tasks: [{TASK}, tooluse]")
    assert {name for name in touched if TASK in name} == set()
    assert "report" in touched


def test_the_entry_of_a_task_reruns_that_task_alone(copy: Path) -> None:
    touched, _ = rerun(copy, "params.yaml", r"^(    train: \{.*)rows: 7473", r"\1rows: 7472")
    assert touched == {f"prepare@{TASK}"}
    touched, _ = rerun(copy, "params.yaml", r"tooluse/train\.json\}", "tooluse/other.json}")
    assert touched == set()


def test_a_further_test_set_touches_what_prepares_it_and_nothing_that_samples_or_trains(copy: Path) -> None:
    """Nothing after it runs unless the test sets are others: the problems stay as they are (test_stage.py)."""
    touched, _ = rerun(copy, "params.yaml", r"^(  gsm8k:.*\n(?:    .*\n)*?)    also: \[\]", r"\1    also: [svamp]")
    assert touched == {f"prepare@{TASK}"}
    readers = {stage for stage, entry in STAGES.items() if any("artifacts/test_sets" in dep for dep in entry["deps"])}
    assert readers == {"baseline", "evaluate", "grade", "report"}


@pytest.mark.parametrize("outside", [False, True])
def test_a_file_in_the_users_folder_is_noticed_wherever_the_folder_lies(copy: Path, tmp_path: Path, outside: bool) -> None:
    from dvc.repo import Repo

    def touched() -> set[str]:
        repo = Repo(str(copy))
        found = set(repo.status())
        repo.close()
        return found

    folder, params = tmp_path if outside else copy / "data", copy / "params.yaml"
    before = params.read_text(), (copy / "dvc.lock").read_text()
    try:
        if outside:
            edit(params, r"^  folder: data ", f"  folder: {folder} ")
            repo = Repo(str(copy))
            repo.commit(f"prepare@{TASK}", force=True)
            repo.close()
        assert touched() == set()
        (folder / "mine.jsonl").write_text("{}")
        assert touched() == {f"prepare@{TASK}"}
    finally:
        (folder / "mine.jsonl").unlink(missing_ok=True)
        params.write_text(before[0])
        (copy / "dvc.lock").write_text(before[1])
    # What a clone says about the folder does not count.
    readme = (copy / "data/README.md").read_text()
    (copy / "data/README.md").write_text("other words")
    assert touched() == set()
    (copy / "data/README.md").write_text(readme)


def test_a_dry_run_at_the_papers_scale_shows_the_whole_graph_where_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `--force`: else DVC asks its run cache about every box and, dry or not, hashes inputs that are not there."""
    from dvc.repo import Repo

    root = copy_repository(tmp_path / "clone")
    edit(root / "params.yaml", r"^scale: \w+", "scale: paper")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.chdir(root)
    tree, _ = parameters.load(root)
    before = sorted(root.rglob("artifacts"))
    repo = Repo(str(root))
    shown = [one.addressing for one in repo.reproduce(dry=True, force=True)]
    repo.close()
    assert sorted(shown) == sorted(str(at) for stage in STAGES for at in boxes_of(stage, tree))
    assert sorted(root.rglob("artifacts")) == before
