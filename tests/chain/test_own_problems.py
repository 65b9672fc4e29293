"""docs/data.md: a user's own problems, from nothing, by the commands of the page, through every stage."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from imports import ROOT
from ruamel.yaml import YAML
from workplaces import DISTILLED, FINETUNED, Workplace

from qthink_core.running import warm

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]

SECTION = (ROOT / "docs/data.md").read_text().partition("\n## Your own problems\n")[2]
TASK = "my_problems"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)


def shell(place: Workplace, text: str) -> str:
    """What a block of the page says, at the scale of the copy."""
    done = place.run("bash", "-euc", text.replace("params/tiny.yaml", "params/nano.yaml"))
    assert done.returncode == 0, done.stdout
    return done.stdout


def python(place: Workplace, text: str) -> None:
    done = place.run(sys.executable, "-c", text)
    assert done.returncode == 0, done.stdout


def prepared(place: Workplace) -> dict[str, object]:
    return json.loads((place.root / f"artifacts/problems/{TASK}/manifest.json").read_bytes())


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    """A copy of the repository whose stages are forks of a warm server, which saves their imports."""
    with warm.server(1, "avx2") as server:
        yield Workplace(tmp_path, **{warm.PLACE: str(server)})


def test_own_problems_go_through_every_stage_by_the_commands_of_the_page(place: Workplace) -> None:
    (entry,), (run,), (write, save) = blocks("yaml"), blocks("sh"), blocks("python")
    python(place, write)
    params = place.root / "params.yaml"
    text, n = re.subn(r"^data:.*\n", lambda found: found[0] + entry, params.read_text(), flags=re.MULTILINE)
    assert n == 1
    params.write_text(text)
    said = shell(place, run)
    assert f"prepare@{TASK}: 12 train, 0 validation, 8 test problems" in said
    assert f"| system | {TASK} (n=8) |" in (place.root / "results/table.md").read_text()
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

    python(place, save)
    yaml = YAML()
    tree = yaml.load(params)
    tree["data"][TASK] |= {"train": "mine/saved", "test": {"file": "mine/saved"}}
    yaml.dump(tree, params)
    assert place.repro("repro", "-s", f"prepare@{TASK}") == [f"prepare@{TASK}"]
    again = prepared(place)
    assert again["files"] == first["files"]
    contents = [[one["about"]["splits"][split]["content"] for split in ("train", "test")] for one in (first, again)]
    assert contents[0] == contents[1]
