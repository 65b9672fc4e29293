"""docs/data.md: a user's own problems, from nothing, by the commands of the page, through every stage."""

import csv
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from imports import ROOT
from ruamel.yaml import YAML
from workplaces import DISTILLED, FINETUNED, Workplace

from qthink_core.running import warm

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]

SETS, _, SECTION = (ROOT / "docs/data.md").read_text().partition("\n## Your own problems\n")
TASK, SET = "my_problems", "bags"
BAGS = [
    *({"story": f"A bag holds {n} nuts.", "ask": "How many nuts do 2 bags hold?", "n": 2 * n} for n in range(1, 6)),
    {"story": "A bag holds nuts.", "ask": "How many?", "n": "None"},
    {"story": "A box holds 3 pens.", "ask": " How many  pens do 3 boxes hold?", "n": 9},  # a training question
]


def blocks(language: str, text: str = SECTION) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def shell(place: Workplace, text: str) -> str:
    """What a block of the page says, at the scale of the copy."""
    done = place.run("bash", "-euc", text.replace("params/tiny.yaml", "params/nano.yaml"))
    assert done.returncode == 0, done.stdout
    return done.stdout


def csv_of(place: Workplace, path: str) -> list[dict[str, str]]:
    return list(csv.DictReader((place.root / path).read_text().splitlines()))


def python(place: Workplace, text: str) -> None:
    done = place.run(sys.executable, "-c", text)
    assert done.returncode == 0, done.stdout


def prepared(place: Workplace, kind: str = "problems") -> dict[str, Any]:
    return json.loads((place.root / f"artifacts/{kind}/{TASK}/manifest.json").read_bytes())


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    """A copy of the repository whose stages are forks of a warm server, which saves their imports."""
    with warm.server(1, "avx2") as server:
        yield Workplace(tmp_path, **{warm.PLACE: str(server)})


def test_own_problems_go_through_every_stage_by_the_commands_of_the_page(place: Workplace) -> None:
    (entry,), (run,), (write, save) = blocks("yaml"), blocks("sh"), blocks("python")
    python(place, write)
    own_set = blocks("yaml", SETS)[-1]
    (place.root / "data/mine/bags.jsonl").write_text("".join(json.dumps(row) + "\n" for row in BAGS))
    params = place.root / "params.yaml"
    text = params.read_text()
    for section, added in (("data", f"{entry}    also: [{SET}]\n"), ("test_sets", own_set)):
        text, n = re.subn(rf"^{section}:.*\n", lambda found, new=added: found[0] + new, text, flags=re.MULTILINE)
        assert n == 1
    params.write_text(text)
    said = shell(place, run)
    assert f"prepare@{TASK}: 12 train, 0 validation, 8 test problems, 5 of {SET}, " in said
    table = (place.root / "results/table.md").read_text()
    assert f"| system | {TASK} (n=8) |" in table
    assert f"| {TASK}, other test sets | {SET} (n=5) |" in table
    about = prepared(place, "test_sets")["about"]["sets"][SET]
    assert about["left_out"] == {"no gold": 1, "in the training set": 1}
    answered = csv_of(place, f"results/verdicts/{TASK}-{SET}.csv")
    assert [row["problem_id"] for row in answered] == [f"{TASK}-{SET}-{n:05d}" for n in range(5)]
    assert set(answered[0]) == {"problem_id", "base", f"{FINETUNED}:0", f"{DISTILLED}:0"}
    right = sum(row["base"] == "r" for row in answered) / 5
    metrics = json.loads((place.root / "results/accuracy.json").read_bytes())
    assert metrics[f"{TASK}-{SET}"]["base"] == right
    assert metrics.keys() == {TASK, f"{TASK}-{SET}"}
    assert {path.name for path in (place.root / "models" / TASK).iterdir()} == {FINETUNED, DISTILLED}
    first = prepared(place)
    assert first["about"]["benchmark"] == "gsm8k"
    assert first["about"]["splits"]["train"]["left_out"] == {}
    page = (place.root / "results/report.html").read_text()
    assert f"problems of the user&#39;s own ({TASK})" in page

    # Another file of the folder prepares the task again, and nothing follows.
    (place.root / "data/other.txt").write_text("x")
    assert place.repro() == [f"prepare@{TASK}"]
    assert prepared(place) == first
    # An edited problem is noticed.
    file = place.root / "data/mine/test.jsonl"
    file.write_text(file.read_text().replace("A box holds 13 pens", "A tin holds 13 pens"))
    assert place.repro("repro", "-s", f"prepare@{TASK}") == [f"prepare@{TASK}"]
    assert prepared(place)["files"]["test.parquet"] != first["files"]["test.parquet"]
    file.write_text(file.read_text().replace("A tin holds 13 pens", "A box holds 13 pens"))

    # Another test set changes nothing that is sampled or trained: the problems stay the same bytes.
    yaml = YAML()
    tree = yaml.load(params)
    tree["data"][TASK]["also"] = []
    yaml.dump(tree, params)
    assert place.repro("repro", "-s", f"prepare@{TASK}") == [f"prepare@{TASK}"]
    assert prepared(place) == first
    assert prepared(place, "test_sets")["files"] == {}

    python(place, save)
    tree["data"][TASK] |= {"train": "mine/saved", "test": {"file": "mine/saved"}}
    yaml.dump(tree, params)
    assert place.repro("repro", "-s", f"prepare@{TASK}") == [f"prepare@{TASK}"]
    again = prepared(place)
    assert again["files"] == first["files"]
    contents = [[one["about"]["splits"][split]["content"] for split in ("train", "test")] for one in (first, again)]
    assert contents[0] == contents[1]
