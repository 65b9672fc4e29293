"""Pages run for real on a tiny model: a row's own settings reach its training, and each seed has its checkpoint."""

import copy
import itertools
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from imports import ROOT
from worlds import WORLD

from qthink_core.artifacts import answers, grades, prepared, rollouts, teachers
from qthink_core.artifacts.conditions import TRAINED
from qthink_core.artifacts.files import Writer
from qthink_core.artifacts.store import MANIFEST, Manifest, Work, read_manifest
from qthink_core.benchmarks.problems import generated
from qthink_core.benchmarks.rendering import prompted
from qthink_core.errors import DataError
from qthink_core.method import projection_head
from qthink_core.models import loading
from qthink_core.pipeline import layout, parameters, seconds
from qthink_core.pipeline.graph import Box
from qthink_core.pipeline.systems import of_seed
from stages import average, baseline, evaluate, extract, finetune, grade, merge, probe, train

TASK, K, D, N = "gsm8k", 2, 32, 4
SET, FURTHER = "more", 3
# One epoch over a few problems, taught by the published solutions: no rollouts are needed.
SMALL = {"K": K, "train.target": "gold", "train.epochs": 1, "train.batch": N, "train.micro_batch": N, "train.lora.r": 2}
ADAPTER = ("adapter_model.safetensors", loading.HEAD, loading.CONFIG)

numbers = itertools.count()


def new_work() -> Work:
    return Work(Path(".work", str(next(numbers))), "0" * 64, "settings", {})


def put(place: Path, files: Mapping[str, Writer | bytes], about: Mapping[str, Any] | None = None) -> None:
    work = new_work()
    work.commit("unit", files)
    work.publish(place, "content", ["unit"], about)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, qwen3: Any, tokenizer: Any) -> Path:
    """A working folder with a base model, four problems, a further test set, and random teachers of both kinds."""
    monkeypatch.chdir(tmp_path)
    qwen3(tied=True).save_pretrained(layout.BASE)
    tokenizer.save_pretrained(layout.BASE)
    rows, scored = (prompted(TASK, generated(TASK, split, N, seed=3, world=WORLD), tokenizer) for split in ("train", "test"))
    files = {"train.parquet": prepared.writer(rows), "test.parquet": prepared.writer(scored)}
    put(layout.problems(TASK), files, {"benchmark": TASK, "source": "generated"})
    # its ids are those of the test split, so one set taken for the other would not be noticed by them
    others = prompted(TASK, generated(TASK, "test", FURTHER, seed=4, world=WORLD), tokenizer)
    put(layout.test_sets(TASK), {f"{SET}.test.parquet": prepared.writer(others)}, {"sets": {SET: {}}})
    rng = np.random.default_rng(0)
    for kind in ("uniform", "reward_weighted"):
        made = {row["id"]: teachers.Teacher(rng.standard_normal((K, D)).astype(np.float32), 1, False) for row in rows}
        put(layout.teachers(TASK, kind), teachers.writers(made))
    return tmp_path


def params(page: ModuleType, edits: Mapping[str, Any]) -> Any:
    """The page's parameters at the tiny scale with these edits, by dotted key."""
    tree = copy.deepcopy(parameters.load(ROOT)[0])
    for key, value in edits.items():
        above, _, last = key.rpartition(".")
        (parameters.value(tree, above) if above else tree)[last] = value
    return page.Params.model_validate(parameters.prune(tree, parameters.patterns(page.Params)))


def run(page: ModuleType, system: str = "", seed: int = -1, **edits: Any) -> None:
    page.run(params(page, SMALL | edits), Box(page.__name__.rpartition(".")[2], TASK, system, seed), new_work())


def trained(page: ModuleType, system: str, seed: int, **edits: Any) -> tuple[dict[str, bytes], Manifest]:
    """The files that make the adapter of one training, and its manifest."""
    run(page, system, seed, **edits)
    folder = layout.adapters(TASK, system, seed)
    return {name: (folder / name).read_bytes() for name in ADAPTER if (folder / name).exists()}, read_manifest(folder)


@pytest.mark.slow
def test_a_gamma_of_its_own_is_the_gamma_of_a_systems_training_and_of_no_others() -> None:
    usual, _ = trained(train, "uniform", 0, gamma=2.0)
    without, _ = trained(train, "uniform", 0, gamma=0.0)
    own, _ = trained(train, "uniform", 0, **{"gamma": 2.0, "systems.distilled.uniform.gamma": 0.0})
    assert own == without != usual
    other, _ = trained(train, "reward_weighted", 0, **{"gamma": 2.0, "systems.distilled.uniform.gamma": 0.0})
    assert other == trained(train, "reward_weighted", 0, gamma=2.0)[0]


@pytest.mark.slow
@pytest.mark.parametrize(("page", "group", "system"), [(train, "distilled", "uniform"), (finetune, "finetuned", "sft")])
def test_a_length_of_answers_of_its_own_cuts_a_systems_targets(page: ModuleType, group: str, system: str) -> None:
    usual, whole = trained(page, system, 0, **{"train.answer_max_tokens": 256})
    shorter, cut = trained(page, system, 0, **{"train.answer_max_tokens": 2})
    own, also_cut = trained(
        page, system, 0, **{"train.answer_max_tokens": 256, f"systems.{group}.{system}.answer_max_tokens": 2}
    )
    assert own == shorter != usual
    assert (whole.counts["target_cut"], cut.counts["target_cut"], also_cut.counts["target_cut"]) == (0, N, N)


def contents(folder: Path) -> dict[str, bytes]:
    """A model's files, but for the manifest, which names the folder and all its files, and for the other seeds' models."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name != MANIFEST and not name.startswith("seed-")}


def merged(seeds: list[int]) -> Path:
    run(merge, "uniform", seeds=seeds)
    return layout.model(TASK, "uniform")


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [[3, 5], [5, 3]])
def test_the_first_seeds_checkpoint_is_the_folder_and_the_others_lie_inside_each_as_if_merged_alone(
    seeds: list[int],
) -> None:
    adapters = {seed: trained(train, "uniform", seed)[0] for seed in (3, 5)}
    assert adapters[3] != adapters[5]
    alone = {seed: contents(merged([seed])) for seed in seeds}
    first, second = seeds
    assert alone[first]["model.safetensors"] != alone[second]["model.safetensors"]
    folder, inner = merged(seeds), f"seed-{second}"
    assert contents(folder) == alone[first]
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"custom_generate", inner}
    assert contents(folder / inner) == alone[second]
    assert set(read_manifest(folder).files) == {*alone[first], *(f"{inner}/{name}" for name in alone[second])}
    for seed in seeds:
        system = loading.load_system(of_seed(folder, seed, seeds), torch.device("cpu"), "float32")
        assert (system.K, system.thinking) == (K, False)
        assert projection_head.to_bytes(system.head) == adapters[seed][loading.HEAD]
        stored = safetensors.torch.load(alone[seed]["model.safetensors"])
        assert all(torch.equal(system.model.state_dict()[name], value) for name, value in stored.items())


@pytest.mark.slow
def test_a_seed_without_an_adapter_is_refused_and_the_folder_is_not_made() -> None:
    trained(train, "uniform", 3)
    with pytest.raises(
        DataError, match=r"^artifacts/adapters/gsm8k/uniform/5 holds no adapter: run `dvc repro` to train it$"
    ):
        merged([3, 5])
    assert not layout.model(TASK, "uniform").exists()


@pytest.mark.slow
def test_sampled_thinking_changes_the_rows_that_think_with_the_seed_of_the_run_and_no_others() -> None:
    rows = {"base": {"thinking": True}, "base_direct": {"thinking": False}}
    edits = {"systems.baseline": rows, "split": "test", "evaluate.max_new_tokens": 12}

    def tokens(system: str, thinking: str, seed: int = 0) -> list[list[int]]:
        asked = params(baseline, SMALL | edits | {"evaluate.thinking": thinking, "seed": seed})
        baseline.run(asked, Box("baseline", TASK, system), new_work())
        found = [row.tokens for row in answers.read(layout.answers(TASK, system))]
        shutil.rmtree(layout.answers(TASK, system))
        return found

    plain = tokens("base", "greedy")
    assert tokens("base", "greedy", seed=1) == plain
    first = tokens("base", "sampled")
    assert tokens("base", "sampled") == first != plain
    assert tokens("base", "sampled", seed=1) != first
    assert tokens("base_direct", "sampled") == tokens("base_direct", "greedy")
    edits |= {"seeds": [3, 5], "systems.trained": ["sft", "uniform"]}
    for page, system in ((finetune, "sft"), (train, "uniform")):
        for seed in (3, 5):
            trained(page, system, seed)
        run(merge, system, seeds=[3, 5])
        found = {}
        for thinking in ("greedy", "sampled"):
            run(evaluate, system, **edits, **{"evaluate.thinking": thinking})
            found[thinking] = [row.tokens for row in answers.read(layout.answers(TASK, system))]
            shutil.rmtree(layout.answers(TASK, system))
        assert (found["greedy"] != found["sampled"]) == (system == "sft")


@pytest.mark.slow
def test_every_seed_and_condition_is_answered_and_graded_on_every_question() -> None:
    edits = {"seeds": [3, 5], "split": "test", "evaluate.max_new_tokens": 8, "evaluate.batch": 3, "probe.sweep": 2}
    edits |= {"systems.baseline": {"base": {"thinking": True}}, "systems.trained": ["uniform"], "probe.thinker": "base"}
    edits["probe.conditions"] = ["teacher", "K=0", "noise", "zeros", "other", "mean"]
    for seed in (3, 5):
        trained(train, "uniform", seed)
    merged([3, 5])
    run(baseline, "base", **edits)
    run(evaluate, "uniform", **edits)
    run(probe, "uniform", **edits)
    run(grade, **edits)
    measured = seconds.read(seconds.LOG)
    assert {key: (one.answers, one.device) for key, one in measured.items()} == {
        (TASK, "base"): (N, "cpu"),
        (TASK, "uniform"): (2 * N, "cpu"),
    }
    assert all(one.seconds > 0 for one in measured.values())
    seconds.record(seconds.LOG / f"baseline@{TASK}-base", "batch-00009", 1, 1.0, "cpu")
    shutil.rmtree(layout.answers(TASK, "base"))
    run(baseline, "base", **edits)
    assert seconds.read(seconds.LOG)[TASK, "base"].answers == N, "a box that begins anew begins with no records"
    ids = [row["id"] for row in prepared.read(layout.problems(TASK), "test")]
    conditions = ["trained", "teacher", "K=0", "noise", "zeros", "other", "mean", "K=1", "K=2", "K=3", "K=4"]
    expected = [("base", None, "trained", name) for name in ids]
    expected += [("uniform", *rest) for rest in itertools.product((3, 5), conditions, ids)]
    rows = grades.read_grades(layout.grades(TASK))
    assert {(row.system, row.seed, row.condition, row.problem_id) for row in rows} == set(expected)
    assert len(rows) == len(expected)
    others = grades.read_grades(layout.grades(TASK), SET)
    assert [(row.system, row.seed, row.condition) for row in others[::FURTHER]] == [
        ("base", None, TRAINED),
        ("uniform", 3, TRAINED),
        ("uniform", 5, TRAINED),
    ]
    assert [row.problem_id for row in others] == 3 * ids[:FURTHER]
    own, more = (answers.read(layout.answers(TASK, "base"), name)[:FURTHER] for name in ("", SET))
    assert [one.problem_id for one in own] == [one.problem_id for one in more]
    assert [one.text for one in own] != [one.text for one in more]
    # the base model's random weights open no think block
    lacking = [row for row in rows if row.finish == "no_teacher"]
    assert [(row.condition, row.verdict, row.n_tokens) for row in lacking] == [("teacher", "unparsable", 0)] * 2 * N
    assert read_manifest(layout.probes(TASK, "uniform")).counts["without_teacher"] == 2 * N


def thought(tokenizer: Any, rng: np.random.Generator) -> list[int]:
    """A completion that thinks up to twelve random tokens and answers with one."""
    think, end = tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    return [think, *rng.integers(0, 256, int(rng.integers(1, 12))).tolist(), end, 7, tokenizer.eos_token_id]


def put_thoughts(tokenizer: Any) -> None:
    """Two graded rollouts of every training problem, and the base's thoughts on the scored questions."""
    rng = np.random.default_rng(2)
    ids, scored = ([row["id"] for row in prepared.read(layout.problems(TASK), split)] for split in ("train", "test"))
    made = [
        rollouts.Rollout(thought(tokenizer, rng), "", "stop", problem_id=name, rollout=index)
        for name in ids
        for index in (0, 1)
    ]
    put(layout.rollouts(TASK), {"block-00000.parquet": rollouts.writer(made)})
    graded = [grades.Reward(row.problem_id, row.rollout, ("wrong", "right")[row.rollout]) for row in made]
    put(layout.rewards(TASK), {"rewards.parquet": grades.rewards_writer(graded)})
    thoughts = [
        answers.Answer(thought(tokenizer, rng), "", "stop", problem_id=name, seed=None, condition=TRAINED) for name in scored
    ]
    put(layout.answers(TASK, "base"), {"batch-00000.parquet": answers.writer(thoughts)})


# A pass over other lengths rounds otherwise: sixteen bits of states of about 1, of which the last eight are left.
STATE_TOLERANCE = 2**-16


@pytest.mark.slow
def test_a_further_pair_is_read_beside_the_shared_one_and_both_are_what_each_alone_would_be(tokenizer: Any) -> None:
    put_thoughts(tokenizer)
    found = {}
    for name, edits in {
        "both": {"extract.also": [{"K": 3, "positions": "running"}]},
        "shared": {},
        "alone": {"K": 3, "extract.positions": "running"},
    }.items():
        run(extract, **edits)
        run(average)
        for kind in ("uniform", "reward_weighted"):
            folder = layout.teachers(TASK, kind)
            found[name, kind] = teachers.read(folder)
            inner = sorted(path.name for path in folder.iterdir() if path.is_dir())
            assert inner == ["K3-running"] * (name == "both")
            assert read_manifest(folder).counts["problems"] == N
            if name == "both":
                found["further", kind] = teachers.read(folder / "K3-running")
        shutil.rmtree(layout.hidden_states(TASK))
    for kind in ("uniform", "reward_weighted"):
        for one, other, steps in (("both", "shared", K), ("further", "alone", 3)):
            assert found[one, kind].keys() == found[other, kind].keys()
            for problem, states in found[one, kind].items():
                assert states.shape == (steps, D)
                np.testing.assert_allclose(states, found[other, kind][problem], rtol=0, atol=STATE_TOLERANCE)
    weighted = found["further", "reward_weighted"]
    assert all(not np.array_equal(states, weighted[one]) for one, states in found["further", "uniform"].items())


@pytest.mark.slow
@pytest.mark.parametrize("key", ["K", "distil.distance"])
def test_a_number_of_latent_steps_or_a_distance_of_its_own_is_that_of_a_systems_training_and_of_no_others(key: str) -> None:
    rng, ids = np.random.default_rng(1), [row["id"] for row in prepared.read(layout.problems(TASK), "train")]
    three = {one: teachers.Teacher(rng.standard_normal((3, D)).astype(np.float32), 1, False) for one in ids}
    two = {one: teachers.Teacher(states.states[:2], 1, False) for one, states in three.items()}
    name, value = key.rpartition(".")[2], {"K": 3, "distil.distance": "cosine"}[key]
    for kind in ("uniform", "reward_weighted"):
        put(layout.teachers(TASK, kind), teachers.writers(two) | teachers.writers(three, "K3-even"))
    usual, _ = trained(train, "uniform", 0)
    own, _ = trained(train, "uniform", 0, **{f"systems.distilled.uniform.{name}": value})
    other, _ = trained(train, "reward_weighted", 0, **{f"systems.distilled.uniform.{name}": value})
    assert other == trained(train, "reward_weighted", 0)[0]
    if key == "K":
        put(layout.teachers(TASK, "uniform"), teachers.writers(three))
    shared, _ = trained(train, "uniform", 0, **{key: value})
    assert own == shared != usual


@pytest.mark.slow
def test_a_row_of_three_steps_at_positions_of_its_own_is_extracted_trained_exported_and_probed(tokenizer: Any) -> None:
    """All with the stages' own code; the shared K is 2 and the shared positions are even."""
    put_thoughts(tokenizer)
    edits = {"extract.also": [{"K": 3, "positions": "running"}], "split": "test", "evaluate.max_new_tokens": 4}
    edits |= {"systems.distilled.uniform.K": 3, "systems.distilled.uniform.positions": "running", "probe.sweep": 1}
    for page in (extract, average):
        run(page, **edits)
    _, manifest = trained(train, "uniform", 0, **edits)
    assert manifest.counts["examples"] == N
    merged([0])
    assert loading.read_config(layout.model(TASK, "uniform")) == loading.QThinkConfig(3, False, "running")
    losses = json.loads((layout.adapters(TASK, "uniform", 0) / "losses.json").read_bytes())
    assert {len(step["distance"]) for step in losses} == {3}
    run(evaluate, "uniform", **edits)
    assert read_manifest(layout.answers(TASK, "uniform")).about == {"K": 3}
    run(probe, "uniform", **edits)
    found = answers.read(layout.probes(TASK, "uniform"))
    assert {row.condition for row in found if re.fullmatch(r"K=[1-9]", row.condition)} == {"K=1", "K=2", "K=3"}
    assert "no_teacher" not in {row.finish for row in found}
    run(probe, "uniform", **edits | {"extract.positions": "running"})
    assert answers.read(layout.probes(TASK, "uniform")) == found, "its own rule places the teachers"
