"""`qthink compare`: two runs beside each other, in a Git repository of a few verdicts."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
from imports import ROOT
from scipy.stats import binomtest

from qthink_core.report import compare
from qthink_core.report.revisions import Run, Verdicts

K, N = 6, 40
CONDITIONS = ("K=0", "zeros", "noise", "other", "mean")
PARAMS = f"scale: tiny\nseed: 0\nsplit: test\nK: {K}\nreport: {{control: control, questions: 2}}\ngamma: 2.0\n"
SCALE = "prepare: {source: generated, n_train: 4, n_validation: 2, n_test: 40}\nworld: null\ncpu_threads: 1\n"


def letters(right: int) -> list[str]:
    return ["r"] * right + ["w"] * (N - right)


def verdicts_csv(base: int, latent: int, without: int, seeds: int = 1) -> str:
    """A base, a control that is never right, and a latent system, whose substitutes are as good as no latents."""
    columns = {"base": letters(base)}
    for seed in range(seeds):
        columns |= {
            f"control:{seed}": letters(0),
            f"latent:{seed}": letters(latent),
            f"latent:{seed}:K={K}": letters(latent),
        }
        columns |= {f"latent:{seed}:{one}": letters(without) for one in CONDITIONS}
    rows = [["problem_id", *columns], *([f"q{i:02}", *(one[i] for one in columns.values())] for i in range(N))]
    return "".join(",".join(row) + "\n" for row in rows)


def tokens_csv(**means: float) -> str:
    head = "cell,benchmark,system,mean_tokens,latent_passes,hit_limit,accuracy\n"
    return head + "".join(f"gsm8k {name},gsm8k,{name},{mean},0,0.0,0.5\n" for name, mean in means.items())


def write(root: Path, **texts: str) -> None:
    files = {
        "params": "params.yaml",
        "scale": "params/tiny.yaml",
        "verdicts": "results/verdicts/gsm8k.csv",
        "tokens": "results/tokens.csv",
    }
    for name, text in texts.items():
        (root / files[name]).parent.mkdir(parents=True, exist_ok=True)
        (root / files[name]).write_text(text)


def git(root: Path, *arguments: str) -> str:
    name = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(["git", *name, *arguments], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two commits, `first` and `second`, and an experiment. In the second the latents fail, and gamma is another one."""
    root = tmp_path_factory.mktemp("runs")
    git(root, "init", "--quiet")
    shutil.copy(ROOT / "dvc.yaml", root)
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "no run")
    git(root, "tag", "empty")
    write(root, params=PARAMS, scale=SCALE, verdicts=verdicts_csv(30, 30, 2), tokens=tokens_csv(base=19, latent=6))
    commit(root, "first")
    write(root, params=PARAMS.replace("gamma: 2.0", "gamma: 1.0"), verdicts=verdicts_csv(34, 3, 2))
    write(root, tokens=tokens_csv(base=19, latent=9.25))
    commit(root, "second")
    write(root, verdicts=verdicts_csv(30, 31, 2))
    commit(root, "tried")
    baseline = git(root, "rev-parse", "second")
    git(root, "update-ref", f"refs/exps/{baseline[:2]}/{baseline[2:]}/puffy-gram", "HEAD")
    git(root, "update-ref", "refs/exps/exec/EXEC_BASELINE", baseline)
    git(root, "tag", "--delete", "tried")
    git(root, "reset", "--quiet", "--hard", "second")
    return root


def commit(root: Path, name: str) -> None:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", name)
    git(root, "tag", name)


@pytest.fixture
def root(repository: Path, tmp_path: Path) -> Path:
    """A copy to edit."""
    return Path(shutil.copytree(repository, tmp_path / "runs"))


def run(root: Path, *arguments: str) -> tuple[int, str, str]:
    done = forked.qthink("compare", *arguments, cwd=root)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.slow
def test_a_run_and_the_next_differ_in_what_the_files_say(repository: Path) -> None:
    code, out, err = run(repository, "first", "second")
    assert (code, err) == (0, "")
    short = [git(repository, "rev-parse", "--short=7", name) for name in ("first", "second")]
    # base: 4 of 40 questions, all one way, p = 2 / 2^4; latent: 27 of 40, p = 2 / 2^27
    assert out == (
        f"first ({short[0]}) compared with second ({short[1]})\n\n"
        "2 of 3 accuracies differ, 1 beyond chance (paired tests, Holm's correction over all 3 tested, 0.05).\n\n"
        "| benchmark | system | before | after | difference | beyond chance |\n| --- | --- | --- | --- | --- | --- |\n"
        "| gsm8k | base | 75.0 | 85.0 | +10.0 | no |\n| gsm8k | latent | 75.0 | 7.5 | -67.5 | yes |\n\n"
        "1 of 1 verdicts on the latents differs.\n\n"
        "| benchmark | system | before | after |\n| --- | --- | --- | --- |\n"
        "| gsm8k | latent | earns, these weights only | idle |\n\n"
        "1 of 2 mean numbers of tokens differs.\n\n"
        "| benchmark | system | before | after |\n| --- | --- | --- | --- |\n| gsm8k | latent | 6.00 | 9.25 |\n\n"
        "1 parameter differs.\n\n"
        "| parameter | before | after |\n| --- | --- | --- |\n| gamma | 2.0 | 1.0 |\n"
    )


@pytest.mark.slow
def test_programs_get_shares_corrected_p_values_and_values_of_parameters(repository: Path) -> None:
    code, out, _ = run(repository, "first", "second", "--json")
    found = json.loads(out)
    assert code == 0
    base, latent = found["accuracies"]
    assert (base["before"], base["after"], base["difference"]) == (0.75, 0.85, pytest.approx(0.1))
    # of three cells the second and the first by their p-values
    assert base["p"] == pytest.approx(2 * binomtest(4, 4).pvalue)
    assert latent["p"] == pytest.approx(3 * binomtest(27, 27).pvalue)
    assert (base["beyond_chance"], latent["beyond_chance"], latent["untested"]) == (False, True, None)
    assert found["verdicts"] == [
        {"benchmark": "gsm8k", "system": "latent", "before": "earns, these weights only", "after": "idle"}
    ]
    assert found["tokens"] == [{"benchmark": "gsm8k", "system": "latent", "before": 6.0, "after": 9.25}]
    assert found["parameters"] == [{"name": "gamma", "before": 2.0, "after": 1.0}]


@pytest.mark.slow
def test_without_arguments_the_last_commit_is_compared_with_the_files_here(root: Path) -> None:
    _, out, _ = run(root)
    name = f"HEAD ({git(root, 'rev-parse', '--short=7', 'HEAD')})"
    assert out == (
        f"{name} compared with the workspace\n\nNone of 3 accuracies differ.\n\n"
        "None of 1 verdicts on the latents differ.\n\nNone of 2 mean numbers of tokens differ.\n\nNo parameters differ.\n"
    )
    write(root, verdicts=verdicts_csv(34, 30, 2))
    _, out, _ = run(root)
    assert "| gsm8k | latent | 7.5 | 75.0 | +67.5 | yes |" in out
    _, out, _ = run(root, "first")
    assert out.startswith("first (")
    assert "| gsm8k | base | 75.0 | 85.0 | +10.0 | no |" in out


@pytest.mark.slow
def test_an_experiment_is_named_as_dvc_names_it(repository: Path) -> None:
    code, out, _ = run(repository, "first", "puffy-gram")
    assert code == 0
    assert "first (" in out.splitlines()[0]
    assert "compared with puffy-gram (" in out.splitlines()[0]
    assert "| gsm8k | latent | 75.0 | 77.5 | +2.5 | no |" in out


@pytest.mark.slow
def test_it_works_in_a_folder_inside_of_a_repository(repository: Path, tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    shutil.copytree(repository, tmp_path / "inner", ignore=shutil.ignore_patterns(".git"))
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "all")
    code, out, _ = run(tmp_path / "inner")
    assert (code, "None of 3 accuracies differ." in out) == (0, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nowhere"], 2, "there is no revision 'nowhere': give a branch, tag, commit or experiment"),
        (["first", "nowhere"], 2, "there is no revision 'nowhere'"),
        (["EXEC_BASELINE"], 2, "there is no revision 'EXEC_BASELINE'"),
        (["--", "--all"], 2, "there is no revision '--all'"),
        (["\x1b[31m"], 2, r"there is no revision '\x1b[31m'"),
        (["empty"], 2, "has no params.yaml: name a revision of QThink"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(repository: Path, arguments: list[str], code: int, said: str) -> None:
    found, out, err = run(repository, *arguments)
    assert (found, out) == (code, "")
    assert err.startswith("qthink: ")
    assert said in err
    assert err.count("\n") == 1
    assert err.rstrip("\n").isprintable()


def test_a_folder_outside_of_a_repository_is_said_in_one_line(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository, tmp_path / "plain", ignore=shutil.ignore_patterns(".git"))
    code, out, err = run(tmp_path / "plain")
    assert (code, out) == (2, "")
    assert err == ("qthink: Git finds no repository here: run it in a clone of QThink, with Git installed\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "text", "code", "said"),
    [
        ("results/verdicts/gsm8k.csv", None, 65, "the workspace has no results/verdicts: run `dvc repro`"),
        ("results/tokens.csv", None, 65, "the workspace has no results/tokens.csv: run `dvc repro`"),
        ("results/verdicts/gsm8k.csv", b"", 65, "results/verdicts/gsm8k.csv of the workspace is damaged"),
        ("results/verdicts/gsm8k.csv", b"problem_id,base\nq00\n", 65, "results/verdicts/gsm8k.csv of the workspace is"),
        ("results/verdicts/gsm8k.csv", b"\xff", 65, "results/verdicts/gsm8k.csv of the workspace is damaged"),
        ("results/tokens.csv", b"a,b\n1,2\n", 65, "results/tokens.csv of the workspace is damaged"),
        ("params.yaml", b"a: [", 2, "params.yaml of the workspace is not valid YAML at line"),
        ("params/tiny.yaml", None, 2, "the workspace has no params/tiny.yaml"),
        ("dvc.yaml", b"stages: {}\n", 65, "dvc.yaml has no stage 'report'"),
    ],
)
def test_missing_or_damaged_results_are_said_in_one_line(
    root: Path, file: str, text: bytes | None, code: int, said: str
) -> None:
    (root / file).unlink()
    if text is not None:
        (root / file).write_bytes(text)
    found, out, err = run(root)
    assert (found, out) == (code, "")
    assert said in err
    assert err.count("\n") == 1


def a_run(verdicts: Mapping[str, Verdicts], **params: Any) -> Run:
    return Run("a run", {"seed": 0, "prepare": {"source": "generated"}, "split": "test", **params}, verdicts, {})


def rows(*counts: int, ids: int = N) -> Verdicts:
    """A system with these numbers of right answers, a training seed each."""
    right = [[question < count for question in range(ids)] for count in counts]
    return Verdicts([f"q{number}" for number in range(ids)], {("mine", ""): right})


def only_cell(before: Run, after: Run) -> compare.Cell:
    (cell,) = compare.of_runs(before, after).cells
    return cell


@pytest.mark.parametrize(
    ("changed", "untested"),
    [
        ({}, ""),
        ({"gamma": 1.0}, ""),
        ({"cpu_threads": 2}, ""),
        ({"seed": 1}, "other questions"),
        ({"split": "validation"}, "other questions"),
        ({"prepare": {"source": "hub"}}, "other questions"),
        ({"data": {"gsm8k": {"test": "x.jsonl"}}}, "other questions"),
        ({"data": {"gsm8k": {"test": "y.jsonl", "also": ["svamp"]}}}, ""),
        ({"test_sets": {"svamp": {"file": "x.jsonl"}}}, ""),
    ],
)
def test_accuracies_are_tested_where_the_parameters_leave_the_questions_the_same(
    changed: dict[str, Any], untested: str
) -> None:
    before = {"data": {"gsm8k": {"test": "y.jsonl", "also": []}}}
    found = only_cell(a_run({"gsm8k": rows(30)}, **before), a_run({"gsm8k": rows(10)}, **before | changed))
    assert (found.before, found.after, found.untested) == (0.75, 0.25, untested)
    assert found.beyond_chance is (None if untested else True)


def test_a_further_test_set_is_tested_where_its_own_entry_is_the_same_too() -> None:
    sets = [{"test_sets": {"svamp": {"file": name}}} for name in ("x.jsonl", "x.jsonl", "y.jsonl")]
    before, same, other = (a_run({"gsm8k-svamp": rows(30)}, **one) for one in sets)
    assert [only_cell(before, one).untested for one in (same, other)] == ["", "other questions"]


def test_other_ids_or_other_numbers_of_seeds_are_not_tested() -> None:
    assert only_cell(a_run({"gsm8k": rows(30)}), a_run({"gsm8k": rows(30, ids=N + 1)})).untested == "other questions"
    assert only_cell(a_run({"gsm8k": rows(30)}), a_run({"gsm8k": rows(10, 10, 10)})).untested == "other training seeds"


def test_trainings_count_where_there_are_several() -> None:
    """+30, 0 and 0 of 40 questions: of these weights a difference, of the method none."""
    found = only_cell(a_run({"gsm8k": rows(5, 5, 5)}), a_run({"gsm8k": rows(35, 5, 5)}))
    assert found.difference == pytest.approx(0.25)
    assert found.beyond_chance is False


def test_a_system_and_a_benchmark_of_one_run_alone_are_shown_with_a_dash() -> None:
    before, after = a_run({"gsm8k": rows(30)}), a_run({"math500": rows(30)}, new={"key": None})
    found = compare.of_runs(before, after)
    assert [(one.task, one.before, one.after, one.untested) for one in found.cells] == [
        ("gsm8k", 0.75, None, "in one run only"),
        ("math500", None, 0.75, "in one run only"),
    ]
    text = compare.text(found)
    assert "| gsm8k | mine | 75.0 | – | – | not tested: in one run only |" in text
    assert "| new.key | – | null |" in text
    (entry,) = json.loads(compare.as_json(found))["parameters"]
    assert entry == {"name": "new.key", "after": None}


def test_a_run_without_the_control_of_its_verdicts_has_none() -> None:
    conditions = {("latent", name): [[True] * N] for name in ("", f"K={K}", *CONDITIONS)}
    run = a_run({"gsm8k": Verdicts(rows(1).ids, conditions)}, K=K, report={"control": "control"})
    assert compare.words_of(run) == {}
    with_control = Verdicts(rows(1).ids, conditions | {("control", ""): [[False] * N]})
    assert compare.words_of(a_run({"gsm8k": with_control}, K=K, report={"control": "control"})) == {
        ("gsm8k", "latent"): "idle"
    }


def test_names_out_of_files_steer_no_terminal() -> None:
    one = Verdicts(rows(1).ids, {("\x1b[2J\u202e", ""): [[True] * N]})
    found = compare.of_runs(a_run({"gsm8k": one}), a_run({}))
    assert all(line.isprintable() for line in compare.text(found).split("\n"))
    assert r"\x1b[2J\u202e" in compare.text(found)


def test_the_correction_is_over_all_cells_that_were_tested() -> None:
    before = {task: rows(20) for task in ("gsm8k", "math500")}
    after = {"gsm8k": rows(26), "math500": rows(20)}
    found = compare.cells(before, after)
    assert np.array([one.p for one in found]) == pytest.approx(np.array([2 * 2 / 2**6, 1.0]))
