"""This run beside the committed one, in a Git repository of a few verdicts."""

import subprocess
from pathlib import Path

import pytest

from qthink_core.report.revisions import verdicts_of
from qthink_core.running import committed

RESULTS = Path("results")
K = 6
CONDITIONS = ("K=0", "zeros", "noise", "other", "mean")
N = 40


def letters(right: int) -> list[str]:
    return ["r"] * right + ["w"] * (N - right)


def verdicts(base: int, latent: int, without: int) -> str:
    """A base, a control that is never right, and a latent system, whose substitutes are as good as no latents."""
    columns = {
        "base": letters(base),
        "control:0": letters(0),
        "latent:0": letters(latent),
        f"latent:0:K={K}": letters(latent),
    }
    columns |= {f"latent:0:{one}": letters(without) for one in CONDITIONS}
    rows = [
        ",".join(["problem_id", *columns]),
        *(",".join([f"q{i:02}", *(one[i] for one in columns.values())]) for i in range(N)),
    ]
    return "\n".join(rows) + "\n"


def lock(code: str = "c0", teachers: str = "70") -> str:
    """What DVC writes: digests of the code of two boxes, and of the teachers that the second one makes."""
    boxes = {"fingerprint": (code, code), "average@gsm8k": (code, teachers)}
    return "schema: '2.0'\nstages:\n" + "".join(
        f"  {box}:\n    cmd: run\n    deps:\n    - path: c\n      md5: {dep}\n    outs:\n    - path: o\n      md5: {out}\n"
        for box, (dep, out) in boxes.items()
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A committed run: base 30 of 40, latents 30, without them 2."""
    for name, text in {
        "params.yaml": "seed: 0\n",
        "params/tiny.yaml": "steps: 1\n",
        "dvc.lock": lock(),
        "results/verdicts/gsm8k.csv": verdicts(30, 30, 2),
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    return tmp_path


def git(root: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=root, check=True)


def commit(root: Path) -> None:
    git(root, "add", "--all")
    git(root, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message", "a run")


def now(root: Path, *counts: int, locked: str = lock(teachers="71")) -> str:
    (root / "dvc.lock").write_text(locked)
    (root / "results/verdicts/gsm8k.csv").write_text(verdicts(*counts))
    return committed.compared(root, RESULTS, RESULTS, ["gsm8k"], "control", {"latent": K})


def test_the_same_bytes_are_said_in_a_sentence(root: Path) -> None:
    equal = "All outputs equal the committed ones, byte for byte."
    assert now(root, 30, 30, 2, locked=lock()) == equal
    elsewhere = "dvc.lock differs elsewhere, such as in digests of code: commit it with that code, or"
    assert now(root, 30, 30, 2, locked=lock(code="c1")) == f"{equal} {elsewhere} `git restore dvc.lock`."
    assert "not every byte" in now(root, 30, 30, 2, locked="nothing that can be read\n")


def test_other_bytes_with_the_same_answers_differ_in_no_cell(root: Path) -> None:
    first, second = now(root, 30, 30, 2).split("\n")
    assert first == (
        "All 3 accuracies equal the committed ones, though not every byte does. "
        "All 1 verdicts on the latents equal the committed ones."
    )
    assert second == committed.BACK


def test_a_few_answers_more_are_no_distinguishable_difference(root: Path) -> None:
    # 4 of 40 questions differ, all one way: p = 2 / 2^4 = 0.125 before any correction
    said = now(root, 34, 30, 2)
    start = (
        "1 of 3 accuracies differs from the committed ones, none distinguishably (paired tests, Holm's correction over all"
    )
    assert said.startswith(start)


def test_many_answers_less_are_one_and_so_is_another_verdict(root: Path) -> None:
    said = now(root, 30, 3, 2)
    assert (
        "distinguishably (paired tests, Holm's correction over all 3, 0.05): gsm8k latent 7.5 % (committed 75.0 %)." in said
    )
    assert "1 of 1 verdicts on the latents differs: gsm8k latent idle (committed: earns, these weights only)." in said


def test_other_parameters_or_questions_and_no_git_are_told_instead_of_a_comparison(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (root / "params/tiny.yaml").write_text("steps: 2\n")
    assert (
        now(root, 1, 1, 1)
        == "The parameters differ from the committed ones, so this run was not compared with the committed one: "
        "`qthink compare` lists what differs."
    )
    git(root, "restore", "params")
    table = root / "results/verdicts/gsm8k.csv"
    table.write_text(verdicts(30, 30, 2).replace("q00", "q99"))
    said = committed.compared(root, RESULTS, RESULTS, ["gsm8k"], "control", {"latent": K})
    assert said.startswith("The committed results have other tasks, systems, seeds or questions, so they were not compared.")
    git(root, "rm", "--cached", "--quiet", "-r", str(RESULTS))
    git(root, "commit", "--quiet", "--message", "without results")
    said = committed.compared(root, RESULTS, RESULTS, ["gsm8k"], "control", {"latent": K})
    assert said == "The last commit holds no results/verdicts of these tasks to compare this run with."
    other = tmp_path_factory.mktemp("no-git")
    assert (
        committed.compared(other, RESULTS, RESULTS, ["gsm8k"], "control", {"latent": K})
        == "There is no commit to compare this run with."
    )


def test_the_run_of_some_tasks_is_compared_from_a_folder_of_its_own(root: Path) -> None:
    (root / "demo/verdicts").mkdir(parents=True)
    (root / "demo/verdicts/gsm8k.csv").write_text(verdicts(31, 30, 2))
    (root / "dvc.lock").write_text("two\n")
    said = committed.compared(root, Path("demo"), RESULTS, ["gsm8k"], "control", {"latent": K})
    assert said.startswith("1 of 3 accuracies differs from the committed ones, none distinguishably")
    assert said.endswith(committed.PART.format(folder="demo"))
    assert "git restore dvc.lock results" not in said


def test_seeds_and_conditions_are_read_out_of_the_names_of_columns() -> None:
    text = b"problem_id,base,late:0,late:1,late:0:K=0,late:1:K=0\nq1,r,r,w,u,r\nq2,w,r,r,o,t\n"
    found = verdicts_of(text)
    assert found.ids == ["q1", "q2"]
    assert found.right == {
        ("base", ""): [[True, False]],
        ("late", ""): [[True, True], [False, True]],
        ("late", "K=0"): [[False, False], [True, False]],
    }
