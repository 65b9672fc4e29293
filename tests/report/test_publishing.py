"""`qthink export`: the folder to publish has the model's bytes, and numbers that follow from the verdicts by hand."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import forked
import pytest
import scipy.stats
from huggingface_hub import ModelCard, parse_eval_result_entries
from imports import ROOT
from ruamel.yaml import YAML
from small_run import ABOUT, run, substituted

from qthink_core.artifacts.conditions import TRAINED
from qthink_core.artifacts.files import canonical_json, sealed, sha256
from qthink_core.artifacts.store import Manifest, digest, manifest_of
from qthink_core.errors import DataError, ParamError
from qthink_core.models.model_card import WITHOUT_THINKING
from qthink_core.pipeline import parameters
from qthink_core.report import publishing

TASK = "gsm8k"
TRAINED_ROWS = ("sft", "answer_only", "uniform", "reward_weighted", "undistilled", "final_step")
VERDICTS = {
    ("base", None, TRAINED): "r" * 12 + "w" * 4,
    ("base_direct", None, TRAINED): "r" * 4 + "w" * 12,
    **{
        (system, seed, TRAINED): "r" * (4 + 8 * (system == "uniform") - seed) + "w" * (12 - 8 * (system == "uniform") + seed)
        for system in TRAINED_ROWS
        for seed in (0, 1)
    },
}
for name in TRAINED_ROWS[2:]:
    for number in (0, 1):
        VERDICTS |= substituted(name, number, "r" * 4 + "w" * 12)
        VERDICTS[name, number, "K=6"] = VERDICTS[name, number, TRAINED]
FILES = {
    "model.safetensors": b"weights",
    "config.json": b"{}",
    "custom_generate/generate.py": b"code",
    "chat_template.jinja": WITHOUT_THINKING.encode() + b"template",
    "README.md": b"card",
}
MODEL, ANSWERS, GRADES = "models/gsm8k/uniform", "artifacts/answers/gsm8k/uniform", "artifacts/grades/gsm8k"
INPUTS = {
    MODEL: ("artifacts/adapters/gsm8k/uniform", "artifacts/base"),
    ANSWERS: ("artifacts/problems/gsm8k", MODEL),
    GRADES: ("artifacts/answers/gsm8k", "artifacts/probes/gsm8k", "artifacts/problems/gsm8k"),
}


@pytest.fixture
def root(repository: Path, tmp_path: Path) -> Path:
    """A copy of the repository for one test."""
    return Path(shutil.copytree(repository, tmp_path / "repository"))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the artifacts of one task and two training seeds of a system's model."""
    root = tmp_path_factory.mktemp("repository")
    for file in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / file, root)
    shutil.copytree(ROOT / "params", root / "params")
    parameters.write_value(root / "params.yaml", "seeds", [0, 1])
    made = run(root / "artifacts", TASK, VERDICTS)
    for folder in (made.problems, made.grades):  # there with their task twice
        for file in folder.iterdir():
            file.rename(folder.parent / file.name)
    (root / "artifacts/base").mkdir()
    base = Manifest("base", "artifacts/base", "settings", about={"source": {"pretrain": {"steps": 3}}})
    (root / "artifacts/base/manifest.json").write_bytes(sealed(vars(base)))
    for folder, mark in ((root / "models/gsm8k/uniform", b"0"), (root / "models/gsm8k/uniform/seed-1", b"1")):
        for file, content in FILES.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(content + mark)
        (folder / "qthink.json").write_bytes(canonical_json({"K": 6, "thinking": False}))
    for place in ("artifacts/problems/gsm8k", MODEL, ANSWERS, GRADES):
        seal(root, place)
    return root


def seal(root: Path, place: str, about: dict[str, Any] = ABOUT) -> None:
    """Writes the manifest of a folder as its stage would, from the files and inputs that are there now."""
    files = {name: root / place / name for name in sorted(names(root / place) - {"manifest.json"})}
    listed = {name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for name, path in files.items()}
    inputs = {source: digest(root / source) for source in INPUTS.get(place, ())}
    manifest = Manifest(Path(place).parts[0], place, "settings", inputs, listed, about=about)
    (root / place / "manifest.json").write_bytes(sealed(vars(manifest)))


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_the_folder_has_the_bytes_of_one_seed_and_a_card_with_its_numbers(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    lines = publishing.export(root, TASK, "uniform", out)
    assert names(out) == {*FILES, "qthink.json", "manifest.json"}
    assert set(manifest_of(out).files) == {*FILES, "qthink.json"} - {"README.md"}
    assert (out / "model.safetensors").read_bytes() == b"weights0"
    assert lines[-1] == f"hf upload NAME {out}"
    assert "12 of 16 right, without .eval_results: its questions are generated" in lines[0]
    card = (out / "README.md").read_text()
    data = ModelCard(card).data
    assert (data.license, data.datasets) == ("apache-2.0", None)
    assert "(training seed 0) answers 12 of 16 questions correctly" in card
    assert "generated in the form of gsm8k, and not the benchmark" in card
    assert "gsm8k-test-00000?" in card  # the usage asks the first question
    # 12 and 11 of 16 right: 71.9 %; 3 + (0 + ... + 15) / 16 = 10.5 tokens
    (row,) = re.findall(r"\| QThink uniform per-step \(this model's system\) (.*)", card)
    assert row.startswith("| 71.9 | [")
    assert row.endswith("] | 16 | 2 | 10.5 | 6 |")
    assert "| Base, not thinking | 25.0 |" in card
    assert "Do its latent steps do anything? **" in card


def test_the_card_tells_the_models_own_accuracy_from_the_mean_of_its_system(root: Path, tmp_path: Path) -> None:
    """Both trainings have 71.9 %; seed 1 has 11 of 16 = 68.75 %, with Wilson's interval from an independent computation."""
    publishing.export(root, TASK, "uniform", tmp_path / "out", seed=1)
    card = (tmp_path / "out/README.md").read_text()
    own = scipy.stats.binomtest(11, 16).proportion_ci(method="wilson")
    limits = f"[{100 * own.low:.1f}, {100 * own.high:.1f}]"
    assert f"answers 11 of 16 questions correctly: 68.8 %, with a 95 % interval of {limits}." in card
    assert "In the table, the figures of a system are over all its trainings." in card
    assert card.count("(this model's system) | 71.9 |") == 1
    assert "(this model)" not in card


def test_what_belongs_to_the_score_is_said_to_be_unused_without_one(root: Path, tmp_path: Path) -> None:
    lines = publishing.export(root, TASK, "uniform", tmp_path / "out", date="2026-01-31", url="https://example.org")
    assert [line.split()[0] for line in lines] == ["wrote", "--date", "--url", "hf"]
    assert lines[1] == "--date was not used: it belongs to the score, and none was written"
    assert len(publishing.export(root, TASK, "uniform", tmp_path / "other")) == 2


def test_a_training_without_grades_is_named(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / MODEL / "seed-1", root / MODEL / "seed-2")
    parameters.write_value(root / "params.yaml", "seeds", [0, 1, 2])
    for system in TRAINED_ROWS:
        shutil.copytree(root / f"artifacts/adapters/{TASK}/{system}/1", root / f"artifacts/adapters/{TASK}/{system}/2")
    remade(root)
    with pytest.raises(DataError, match=r"has no grades of uniform, training seed 2: run `dvc repro`"):
        publishing.export(root, TASK, "uniform", tmp_path / "out", seed=2)


def test_another_seed_has_its_own_bytes_and_score(root: Path, tmp_path: Path) -> None:
    publishing.export(root, TASK, "uniform", tmp_path / "out", seed=1)
    assert (tmp_path / "out/model.safetensors").read_bytes() == b"weights1"
    assert "(training seed 1) answers 11 of 16" in (tmp_path / "out/README.md").read_text()


def refused(root: Path, out: Path, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        publishing.export(root, TASK, "uniform", out)
    assert "dvc repro" in str(error.value)
    assert not out.exists()


@pytest.mark.parametrize("file", [f"{MODEL}/model.safetensors", f"{MODEL}/seed-1/config.json", f"{GRADES}/grades.parquet"])
def test_other_bytes_than_the_run_made_are_not_published(root: Path, tmp_path: Path, file: str) -> None:
    content = (root / file).read_bytes()
    (root / file).write_bytes(content[:-1] + b"X")
    refused(root, tmp_path / "out", "does not have the sha256 of its manifest")


@pytest.mark.parametrize(
    ("made", "outdated"),
    [("artifacts/base", MODEL), (MODEL, ANSWERS), (ANSWERS, GRADES), ("artifacts/probes/gsm8k/uniform", GRADES)],
)
def test_numbers_of_an_older_version_of_an_input_are_not_published(
    root: Path, tmp_path: Path, made: str, outdated: str
) -> None:
    """A training that was repeated, a merge, an evaluation: each with a sound manifest, and nothing after it made again."""
    if made in INPUTS:
        (root / made / "more").write_bytes(b"more")
        seal(root, made)
    else:
        manifest = root / made / "manifest.json"
        manifest.write_bytes(canonical_json(json.loads(manifest.read_bytes()) | {"counts": {"made": 7}}))
    refused(root, tmp_path / "out", f"{outdated} was made from another version of ")


@pytest.mark.parametrize("place", [MODEL, ANSWERS, GRADES])
def test_an_artifact_without_its_manifest_is_not_published(root: Path, tmp_path: Path, place: str) -> None:
    (root / place / "manifest.json").unlink()
    refused(root, tmp_path / "out", "is missing or holds no manifest.json")


def test_a_file_that_the_run_did_not_make_is_refused(root: Path, tmp_path: Path) -> None:
    (root / MODEL / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=f"{MODEL}/notes.txt is not a file of the artifact in .*{MODEL}: delete it"):
        publishing.export(root, TASK, "uniform", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def remade(root: Path) -> None:
    for place in (MODEL, ANSWERS, GRADES):
        seal(root, place)


def test_a_latent_model_merged_before_it_had_a_generate_is_merged_again_first(root: Path, tmp_path: Path) -> None:
    (root / MODEL / "custom_generate/generate.py").unlink()
    remade(root)
    refused(root, tmp_path / "out", "has no custom_generate/generate.py, .* run `dvc repro merge@gsm8k-uniform`")
    publishing.export(root, TASK, "uniform", tmp_path / "other", seed=1)  # which has its own


@pytest.mark.parametrize("template", [None, b"template"])
def test_so_is_one_whose_template_leaves_thinking_on(root: Path, tmp_path: Path, template: bytes | None) -> None:
    path = root / MODEL / "chat_template.jinja"
    path.unlink()
    if template is not None:
        path.write_bytes(template)
    remade(root)
    refused(root, tmp_path / "out", "has no chat_template.jinja that turns thinking off, .* run `dvc repro merge@")


@pytest.mark.parametrize("about", [{"K": 0, "thinking": False}, {"K": 6, "thinking": True}])
def test_the_base_models_template_is_enough_without_latents_and_after_a_thought(
    root: Path, tmp_path: Path, about: dict[str, Any]
) -> None:
    (root / MODEL / "chat_template.jinja").write_bytes(b"template")
    (root / MODEL / "qthink.json").write_bytes(canonical_json(about))
    if not about["K"]:
        (root / MODEL / "custom_generate/generate.py").unlink()
    remade(root)
    publishing.export(root, TASK, "uniform", tmp_path / "out")
    assert (tmp_path / "out/chat_template.jinja").read_bytes() == b"template"


def test_a_score_for_the_hub_is_of_the_whole_published_benchmark_alone() -> None:
    content = publishing.scored("gsm8k", 1097, 1319, 6, "2026-01-31", "https://example.org/run")
    assert content is not None
    (entry,) = parse_eval_result_entries(YAML(typ="safe").load(content))
    assert (entry.dataset_id, entry.task_id) == ("openai/gsm8k", "gsm8k")
    assert entry.value == 83.17  # 1097 / 1319 = 0.83169
    assert (entry.date, entry.source_url) == ("2026-01-31", "https://example.org/run")
    assert entry.notes == "6 latent steps, zero-shot, greedy; 1097 of 1319 right"
    assert publishing.scored("gsm8k", 400, 400, 6, None, None) is None
    assert publishing.scored("math500", 400, 500, 6, None, None) is None


def prepared_from(root: Path, published: bool) -> None:
    """The same run on problems out of a folder."""
    splits = {"test": {"published": published}}
    seal(root, "artifacts/problems/gsm8k", {"benchmark": "gsm8k", "source": "folder", "splits": splits})
    for place in (ANSWERS, GRADES):
        seal(root, place)


def test_problems_of_the_users_own_are_said_to_be_and_no_score(root: Path, tmp_path: Path) -> None:
    prepared_from(root, published=False)
    said = publishing.export(root, TASK, "uniform", tmp_path / "out", url="https://example.org")
    assert "without .eval_results: 16 test questions are not the hub's benchmark" in said[0]
    card = (tmp_path / "out/README.md").read_text()
    assert "They are the problems gsm8k of its author's own, graded by the rules of gsm8k." in card
    assert ModelCard(card).data.datasets is None


def test_published_questions_in_another_number_are_no_score(root: Path, tmp_path: Path) -> None:
    prepared_from(root, published=True)
    (said, _) = publishing.export(root, TASK, "uniform", tmp_path / "out")
    assert said.endswith("without .eval_results: 16 test questions are not the hub's benchmark")
    assert ModelCard((tmp_path / "out/README.md").read_text()).data.datasets == ["openai/gsm8k"]


def test_a_folder_with_anything_in_it_is_left_as_it_is(root: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("mine")
    with pytest.raises(DataError, match="is not empty: name a new folder"):
        publishing.export(root, TASK, "uniform", tmp_path / "out")
    assert names(tmp_path / "out") == {"mine"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("gsm9k", "uniform"), {}, "no task 'gsm9k': params.yaml has gsm8k"),
        (("gsm8k", "base"), {}, r"no system 'base': systems\.trained has sft"),
        (("gsm8k", "uniform"), {"seed": 7}, "no training seed 7: params.yaml has 0, 1"),
        *(
            (("gsm8k", "uniform"), {"date": date}, "as in 2026-01-31")
            for date in ("31.1.2026", "20260131", "2026-W05-6", "")
        ),
        (("gsm8k", "sft"), {}, "holds no model: run `dvc repro merge@gsm8k-sft`"),
    ],
)
def test_what_the_run_does_not_have_is_named(
    root: Path, tmp_path: Path, arguments: tuple[str, str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises((ParamError, DataError), match=message):
        publishing.export(root, *arguments, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_command_ends_in_the_line_that_uploads(root: Path, tmp_path: Path) -> None:
    done, again = (forked.qthink("export", TASK, "uniform", str(tmp_path / "out"), cwd=root) for _ in range(2))
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().splitlines()[-1] == f"hf upload NAME {tmp_path / 'out'}"
    assert (again.returncode, again.stderr.count(b"\n")) == (65, 1)
