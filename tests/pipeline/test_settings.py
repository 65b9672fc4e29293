"""Parameters: every fault is found before anything starts, all at once, a line each, with the file and the fix."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from graph import SCALES, boxes, copy_repository, tree_of
from imports import ROOT

from qthink_core.errors import ParamError
from qthink_core.pipeline import checks, parameters
from qthink_core.pipeline.graph import parameter_classes

# From the promise in docs/decisions/engineering.md: a bad parameter ends a stage within 2 s.
SECTIONS = parameter_classes()
# From the promise in docs/decisions/engineering.md: a bad parameter ends a stage within 2 s.
MAX_CPU_S = 2.0
# Every scale has the same keys but for the source of its model: one with each.
SOURCES = ["tiny", "smol", "paper"]


@pytest.fixture
def params(tmp_path: Path) -> Path:
    """A folder with the params files alone."""
    shutil.copytree(ROOT / "params", tmp_path / "params")
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    return tmp_path


def edit(file: Path, old: str, new: str) -> None:
    text, n = re.subn(rf"^{old}", new, file.read_text(), flags=re.MULTILINE)
    assert n == 1, f"{file.name} has {n} lines that start like {old}"
    file.write_text(text)


def faults(root: Path) -> list[str]:
    return checks.faults(*parameters.load(root), SECTIONS)


@pytest.mark.parametrize("scale", SCALES)
def test_a_committed_scale_has_no_fault(scale: str) -> None:
    assert checks.faults(*tree_of(scale), SECTIONS) == []


def test_every_scale_sets_the_same_parameters_but_for_the_source_of_its_model_and_of_its_problems() -> None:
    keys = {
        scale: {
            leaf
            for leaf in parameters.leaves(parameters.read_yaml(ROOT / "params" / f"{scale}.yaml"))
            if leaf[0] not in ("base", "world")
        }
        for scale in SCALES
    }
    for scale in SCALES:
        assert keys[scale] == keys["tiny"], f"params/{scale}.yaml differs in {sorted(keys[scale] ^ keys['tiny'])}"


WRONG = {
    "text for a number": ("params.yaml", "K: 6", "K: six", "K is 'six': input should be a valid integer"),
    "a fraction for a count": ("params.yaml", "K: 6", "K: 6.5", "K is 6.5: input should be a valid integer"),
    "yes for a count": ("params.yaml", "seed: 0", "seed: true", "seed is True: input should be a valid integer"),
    "below the range": ("params.yaml", "K: 6", "K: 0", "K is 0: input should be greater than or equal to 1"),
    "above the range": (
        "params.yaml",
        r"(rollout:(?:.*\n)+?)  top_p: 0.95",
        r"\1  top_p: 1.5",
        "rollout.top_p is 1.5: input should be less than or equal to 1",
    ),
    "greedy rollouts": (
        "params.yaml",
        r"(rollout:(?:.*\n)+?)  temperature: 0.6",
        r"\1  temperature: 0",
        "rollout.temperature is 0: input should be greater than or equal to 0.01",
    ),
    "nan": ("params.yaml", "gamma: 2.0", "gamma: .nan", "gamma is nan: input should be a finite number"),
    "infinity": ("params.yaml", "  lr: 2.0e-4", "  lr: .inf", "train.lr is inf: input should be a finite number"),
    "a number beyond floats": ("params.yaml", "gamma: 2.0", "gamma: 1e999", "gamma is inf: input should be a finite number"),
    "nothing": ("params.yaml", "gamma: 2.0", "gamma:", "gamma is None: input should be a valid number"),
    "no such choice": (
        "params.yaml",
        "  target: rollout",
        "  target: golden",
        "train.target is 'golden': input should be 'rollout' or 'gold'",
    ),
    "no such benchmark": (
        "params.yaml",
        r"tasks: \[gsm8k",
        "tasks: [gsm9k",
        "tasks names gsm9k, which has no entry in data: did you mean gsm8k? Else add data.gsm9k (docs/data.md)",
    ),
    "no such teacher of a system": (
        "params.yaml",
        "    uniform: {teacher: uniform",
        "    uniform: {teacher: unifrom",
        "systems.distilled.uniform.teacher is 'unifrom': input should be 'uniform' or 'reward_weighted'",
    ),
    "a mapping for a number": (
        "params.yaml",
        "gamma: 2.0",
        "gamma: {value: 2.0}",
        "gamma is {'value': 2.0}: input should be a valid number",
    ),
    "neither a count nor all": (
        "params/tiny.yaml",
        r"  n_train: \d+",
        "  n_train: most",
        "prepare.n_train is 'most': input should be a valid integer, or input should be 'all'",
    ),
    "no seed of a training": (
        "params.yaml",
        r"seeds: \[.*?\]",
        "seeds: []",
        "seeds is []: list should have at least 1 item after validation, not 0",
    ),
    "a seed below zero": (
        "params.yaml",
        r"seeds: \[.*?\]",
        "seeds: [0, -1]",
        "seeds.1 is -1: input should be greater than or equal to 0",
    ),
    "a seed twice": ("params.yaml", r"seeds: \[.*?\]", "seeds: [0, 0]", "seeds is [0, 0]: each must appear once"),
    "a fraction for seeds": ("params.yaml", r"seeds: \[.*?\]", "seeds: 1.5", "seeds is 1.5: input should be a valid list"),
    "a fraction for a seed": (
        "params.yaml",
        r"seeds: \[.*?\]",
        "seeds: [1.5]",
        "seeds.0 is 1.5: input should be a valid integer",
    ),
    "yes for seeds": ("params.yaml", r"seeds: \[.*?\]", "seeds: true", "seeds is True: input should be a valid list"),
    "yes for a seed": (
        "params.yaml",
        r"seeds: \[.*?\]",
        "seeds: [true]",
        "seeds.0 is True: input should be a valid integer",
    ),
    "a seed that no column of answers holds": (
        "params.yaml",
        r"seeds: \[.*?\]",
        "seeds: [2147483648]",
        "seeds.0 is 2147483648: input should be less than or equal to 2147483647",
    ),
    "a condition twice": (
        "params.yaml",
        r"  conditions: \[.*?\]",
        "  conditions: [mean, mean]",
        "probe.conditions is ['mean', 'mean']: each must appear once",
    ),
    "an unknown row for a thinker": (
        "params.yaml",
        "  thinker: base ",
        "  thinker: bass ",
        "probe.thinker is 'bass': name a row of systems.baseline with thinking (base)",
    ),
    "a row that does not think for a thinker": (
        "params.yaml",
        "  thinker: base ",
        "  thinker: base_direct ",
        "probe.thinker is 'base_direct': name a row of systems.baseline with thinking (base)",
    ),
    "a trained row for a thinker": (
        "params.yaml",
        "  thinker: base ",
        "  thinker: sft ",
        "probe.thinker is 'sft': name a row of systems.baseline with thinking (base)",
    ),
    "a value of the scale": (
        "params/tiny.yaml",
        "device: cpu",
        "device: gpu",
        "device is 'gpu': input should be 'cpu' or 'cuda'",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_value_is_one_line_with_its_file_its_name_itself_and_what_was_expected(params: Path, case: str) -> None:
    file, old, new, sentence = WRONG[case]
    edit(params / file, old, new)
    assert faults(params) == [f"{file}: {sentence}"]


def test_an_unknown_key_is_refused_with_the_nearest_name_offered_and_the_readers_of_the_missing_one(params: Path) -> None:
    edit(params / "params.yaml", "gamma: 2.0", "gama: 2.0")
    assert faults(params) == [
        "params.yaml: no stage reads gama: did you mean gamma?",
        "gamma is missing from params.yaml or params/tiny.yaml (read by report, train)",
    ]


def test_an_unknown_key_of_a_system_is_refused_with_that_systems_name(params: Path) -> None:
    edit(params / "params.yaml", "    base: {thinking: true", "    base: {thinking: true, thinkin: false")
    (fault,) = faults(params)
    said = "params.yaml: no stage reads systems.baseline.base.thinkin: did you mean systems.baseline.base.thinking?"
    assert fault == said


def test_a_key_that_resembles_none_is_to_be_removed(params: Path) -> None:
    edit(params / "params.yaml", "gamma: 2.0", "gamma: 2.0\nzzzzz: 1")
    assert faults(params) == ["params.yaml: no stage reads zzzzz: remove it"]


def mappings(tree: dict[str, Any], above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    inner = [found for key, value in tree.items() if isinstance(value, dict) for found in mappings(value, (*above, key))]
    return [above, *inner]


@pytest.mark.slow
@pytest.mark.parametrize("scale", SOURCES)
def test_an_unknown_key_is_refused_at_every_place(scale: str) -> None:
    tree, origin = tree_of(scale)
    named_freely = {("systems", "finetuned"), ("systems", "distilled"), ("systems", "baseline"), ("data",)}
    for place in mappings(tree):
        altered = YamlTree(tree).with_value(place, "novel", 1)
        said = checks.faults(altered, origin, SECTIONS)
        assert any(".".join((*place, "novel")) in one for one in said), f"a key under {place or 'the top'} went unnoticed"
        assert len(said) == 1 or place in named_freely


def test_a_null_is_accepted_for_a_section_that_may_be_left_out_and_refused_under_an_unknown_name() -> None:
    tree, origin = tree_of("paper")
    assert tree["world"] is None
    assert checks.faults(tree, origin, SECTIONS) == []
    (fault,) = checks.faults(tree | {"wrld": None}, origin, SECTIONS)
    assert "no stage reads wrld" in fault


@pytest.mark.slow
@pytest.mark.parametrize("scale", SOURCES)
def test_a_missing_value_is_refused_at_every_place(scale: str) -> None:
    """But for a gamma of a row's own, without which the row takes that of all, and for facts of a place of problems."""
    tree, origin = tree_of(scale)
    for leaf in parameters.leaves(tree):
        if leaf[0] in ("data", "test_sets") and leaf[-1] != "benchmark":
            continue
        said = checks.faults(YamlTree(tree).without(leaf), origin, SECTIONS)
        if leaf == ("systems", "distilled", "undistilled", "gamma"):
            assert said == []
            continue
        assert any(".".join(leaf) in one and "is missing" in one for one in said), f"{'.'.join(leaf)} was not missed"


class YamlTree:
    """A copy of a tree of parameters with one place altered."""

    def __init__(self, tree: dict[str, Any]) -> None:
        self.tree = tree

    def with_value(self, place: tuple[str, ...], key: str, value: Any) -> dict[str, Any]:
        if not place:
            return self.tree | {key: value}
        return self.tree | {place[0]: YamlTree(self.tree[place[0]]).with_value(place[1:], key, value)}

    def without(self, leaf: tuple[str, ...]) -> dict[str, Any]:
        if len(leaf) == 1:
            return {key: value for key, value in self.tree.items() if key != leaf[0]}
        return self.tree | {leaf[0]: YamlTree(self.tree[leaf[0]]).without(leaf[1:])}


def test_all_faults_are_listed_at_once(params: Path) -> None:
    edit(params / "params.yaml", "K: 6", "K: 0")
    edit(params / "params.yaml", "  lr: 2.0e-4", "  learning_rate: 2.0e-4")
    edit(params / "params/tiny.yaml", "device: cpu", "device: gpu")
    said = "\n".join(faults(params))
    for part in ("K is 0", "no stage reads train.learning_rate", "train.lr is missing", "params/tiny.yaml: device is 'gpu'"):
        assert part in said
    assert len(said.splitlines()) == 4


TRAINED = "  trained: [sft, answer_only, uniform, reward_weighted, undistilled, final_step]"


@pytest.mark.parametrize(
    ("trained", "said"),
    [
        (
            "sft, answer_only, uniform, reward_weighted, undistilled",
            ["lacks final_step, which would be trained but never evaluated: add it"],
        ),
        ("sft, sft, answer_only, uniform, reward_weighted, undistilled, final_step", ["names sft 2 times: keep one"]),
        (
            "sft, answer_only, unifrom, reward_weighted, undistilled, final_step",
            [
                "names unifrom, which is neither in systems.finetuned nor in systems.distilled: did you mean uniform?",
                "lacks uniform, which would be trained but never evaluated: add it",
            ],
        ),
        (
            "sft, answer_only, uniform, reward_weighted, undistilled, final_step, zzz",
            ["names zzz, which is neither in systems.finetuned nor in systems.distilled: remove it"],
        ),
        ("final_step, undistilled, reward_weighted, uniform, answer_only, sft", []),
    ],
)
def test_the_trained_systems_are_those_that_are_defined_in_an_order_of_choice(
    params: Path, trained: str, said: list[str]
) -> None:
    edit(params / "params.yaml", re.escape(TRAINED), f"  trained: [{trained}]")
    assert faults(params) == [f"params.yaml: systems.trained {one}" for one in said]


@pytest.mark.parametrize(
    "systems", ["systems: 3", "systems: {trained: 3}", "systems: {finetuned: [], distilled: {}, trained: []}"]
)
def test_a_malformed_group_of_systems_is_a_fault_and_no_crash(params: Path, systems: str) -> None:
    text = (params / "params.yaml").read_text()
    (params / "params.yaml").write_text(text[: text.index("systems:")] + systems + "\n")
    assert any("systems" in one for one in faults(params))


def test_a_base_model_has_exactly_one_source(params: Path) -> None:
    edit(params / "params/smol.yaml", "base:", "base:\n  folder: bases/mine")
    edit(params / "params.yaml", "scale: tiny", "scale: smol")
    (fault,) = faults(params)
    assert fault.startswith("params/smol.yaml: base is {")
    assert fault.endswith("folder and wheel is given, expected one of pretrain, hub, folder, wheel")


def test_a_parameter_in_both_files_is_refused(params: Path) -> None:
    edit(params / "params/tiny.yaml", "  epochs:", "  lr: 1.0e-3\n  epochs:")
    with pytest.raises(ParamError, match=r"^train\.lr is in params\.yaml and in params/tiny\.yaml: keep one of them$"):
        parameters.load(params)


def test_a_section_that_is_a_value_in_the_other_file_is_refused(params: Path) -> None:
    edit(params / "params/tiny.yaml", "prepare:", "rollout: 3\nprepare:")
    with pytest.raises(ParamError, match=r"^rollout is in params\.yaml and in params/tiny\.yaml: keep one of them$"):
        parameters.load(params)


def test_a_scale_without_a_file_is_refused_with_those_that_have_one(params: Path) -> None:
    edit(params / "params.yaml", "scale: tiny", "scale: huge")
    with pytest.raises(ParamError, match=f"scale: 'huge': expected one of the files in params/: {', '.join(SCALES)}$"):
        parameters.load(params)


def test_what_dvc_writes_for_a_small_learning_rate_is_a_number(params: Path) -> None:
    edit(params / "params.yaml", "  lr: 2.0e-4", "  lr: 1e-05")
    assert faults(params) == []
    assert parameters.load(params)[0]["train"]["lr"] == 1e-05


def test_a_stage_sees_its_own_parameters_and_no_others(params: Path) -> None:
    tree, _ = parameters.load(params)
    kept = parameters.prune(tree, parameters.patterns(SECTIONS["merge"]))
    assert kept == {key: tree[key] for key in ("seeds", "cpu_threads", "cpu_kernels", "dtype")}
    systems = parameters.prune(tree, parameters.patterns(SECTIONS["finetune"]))["systems"]
    assert systems == {"finetuned": {"sft": {"target": "think_and_answer"}, "answer_only": {"target": "answer"}}}


@pytest.mark.slow
def test_a_stage_with_bad_parameters_ends_at_once_with_a_line_for_each_and_without_torch(tmp_path: Path) -> None:
    root = copy_repository(tmp_path / "copy")
    edit(root / "params.yaml", "K: 6", "K: 0")
    edit(root / "params.yaml", "gamma: 2.0", "gama: 2.0")
    for heavy in ("torch", "numpy", "transformers", "peft", "accelerate", "pyarrow"):
        (tmp_path / "traps").mkdir(exist_ok=True)
        (tmp_path / "traps" / f"{heavy}.py").write_text(f"raise SystemExit('{heavy} was imported')\n")
    environment = os.environ | {"DVC_STAGE": "train@gsm8k-uniform", "PYTHONPATH": str(tmp_path / "traps")}
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.train"],
        cwd=root,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = process.stdout.read(), process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    assert os.waitstatus_to_exitcode(status) == ParamError.exit_code == 2
    assert out == ""
    assert err.splitlines() == [
        "train@gsm8k-uniform: params.yaml: no stage reads gama: did you mean gamma?",
        "train@gsm8k-uniform: params.yaml: K is 0: input should be greater than or equal to 1",
        "train@gsm8k-uniform: gamma is missing from params.yaml or params/tiny.yaml (read by report, train)",
    ]
    assert used.ru_utime + used.ru_stime < MAX_CPU_S
    assert not (root / ".work").exists()


@pytest.mark.parametrize(("key", "value"), [("kv_heads", 2), ("head_dim", 31)])
def test_heads_that_do_not_fit_each_other_are_refused_before_anything_is_made(key: str, value: int) -> None:
    tree, origin = tree_of("tiny")
    altered = YamlTree(tree).with_value(("base", "pretrain"), key, value)
    said = checks.faults(altered, origin, SECTIONS)
    assert any("heads must be a multiple of kv_heads, and head_dim even" in one for one in said), said


ALSO = "params.yaml: extract.also"
RUNNING_3 = "{K: 3, positions: running}"


@pytest.mark.parametrize(
    ("rows", "also", "said"),
    [
        ({}, [], []),
        ({"uniform": {"distance": "cosine", "gamma": 1.0}}, [], []),
        ({"uniform": {"K": 6}, "final_step": {"positions": "even"}}, [], []),  # what all share, said again
        ({"uniform": {"K": 3}}, [(3, "even")], []),
        (
            {"uniform": {"K": 3, "positions": "running"}, "final_step": {"K": 3, "positions": "running"}},
            [(3, "running")],
            [],
        ),
        (
            {"uniform": {"K": 3}, "final_step": {"positions": "running"}, "undistilled": {"K": 3}},
            [],
            [
                f"{ALSO} lacks what systems.distilled.uniform, undistilled needs: add {{K: 3, positions: even}}",
                f"{ALSO} lacks what systems.distilled.final_step needs: add {{K: 6, positions: running}}",
            ],
        ),
        (
            {"uniform": {"K": 3}},
            [(3, "even"), (3, "running")],
            [f"{ALSO} lists {RUNNING_3}, which no row of systems.distilled uses: remove it"],
        ),
        ({}, [(6, "even")], [f"{ALSO} lists {{K: 6, positions: even}}, which is read anyway: remove it"]),
        (
            {"uniform": {"K": 3, "positions": "running"}},
            [(3, "running"), (3, "running")],
            [f"{ALSO} lists {RUNNING_3} 2 times: keep one"],
        ),
    ],
)
def test_the_pairs_that_rows_need_are_those_that_are_read(
    rows: dict[str, Any], also: list[tuple[int, str]], said: list[str]
) -> None:
    tree, origin = tree_of("tiny")
    for name, own in rows.items():
        held = tree["systems"]["distilled"][name] | own
        tree = YamlTree(tree).with_value(("systems", "distilled"), name, held)
    listed = [{"K": K, "positions": positions} for K, positions in also]
    tree = YamlTree(tree).with_value(("extract",), "also", listed)
    assert checks.faults(tree, origin, SECTIONS) == said


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{K: 0, positions: even}", "extract.also.0.K is 0: input should be greater than or equal to 1"),
        ("{K: 3, positions: evn}", "extract.also.0.positions is 'evn': input should be 'even' or 'running'"),
        ("{K: 3, positions: running, rule: 1}", "extract.also.0.rule is 1: extra inputs are not permitted: remove it"),
        ("{K: 3}", "extract.also.0.positions is missing from params.yaml or params/tiny.yaml (read by extract)"),
        ("3", "extract.also.0 is 3: input should be a valid dictionary or instance of Also"),
    ],
)
def test_a_wrong_pair_is_named_by_its_place(params: Path, entry: str, said: str) -> None:
    edit(params / "params.yaml", r"  also: \[\]", f"  also: [{entry}]")
    assert any(one.endswith(said) for one in faults(params)), faults(params)


@pytest.mark.parametrize(
    ("path", "key", "value", "said"),
    [
        ((), "K", [6], "params.yaml: K is [6]: input should be a valid integer"),
        ((), "K", -1, "params.yaml: K is -1: input should be greater than or equal to 1"),
        (
            ("extract",),
            "positions",
            ["even"],
            "params.yaml: extract.positions is ['even']: input should be 'even' or 'running'",
        ),
        (("systems", "distilled", "uniform"), "K", [3], "params.yaml: systems.distilled.uniform.K is [3]: input should be"),
        (("systems", "distilled", "uniform"), "K", {"a": 1}, "params.yaml: systems.distilled.uniform.K is {'a': 1}: input"),
        (("extract",), "also", [{"K": [3], "positions": "even"}], "params.yaml: extract.also.0.K is [3]: input should be"),
    ],
)
def test_a_malformed_k_or_rule_is_one_fault_and_asks_for_no_pair(
    path: tuple[str, ...], key: str, value: Any, said: str
) -> None:
    tree, origin = tree_of("tiny")
    found = checks.faults(YamlTree(tree).with_value(path, key, value), origin, SECTIONS)
    assert any(one.startswith(said) for one in found), found
    assert not [one for one in found if "add {K" in one or "remove it" in one]


def test_a_name_in_two_groups_of_systems_is_refused() -> None:
    """Both rows would be written to the same folders."""
    tree, origin = tree_of("tiny")
    twice = YamlTree(tree).with_value(("systems", "finetuned"), "uniform", {"target": "answer"})
    assert checks.faults(twice, origin, SECTIONS) == [
        "params.yaml: systems.distilled.uniform has the name of a row of systems.finetuned: rename one of them"
    ]


def test_a_merged_weight_is_not_rounded_to_bfloat16() -> None:
    tree, origin = tree_of("tiny")
    assert tree["train"]["lora"]["merged"] is True
    assert checks.faults(tree, origin, SECTIONS) == []
    altered = YamlTree(tree).with_value((), "dtype", "bfloat16")
    assert checks.faults(altered, origin, SECTIONS) == [
        "params/tiny.yaml: train.lora.merged is true, but with dtype: bfloat16 merged weights are rounded: set it to false"
    ]


def test_make_claims_asks_for_seeds_without_a_fault(params: Path) -> None:
    asked = re.findall(r"^\tqthink run --seeds (\S+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert asked == ["0,1,2"]
    parameters.write_value(params / "params.yaml", "seeds", [int(one) for one in asked[0].split(",")])
    assert faults(params) == []
    tree, _ = parameters.load(params)
    assert tree["seeds"] == [0, 1, 2]
    assert len(boxes("train", tree)) == 3 * len(tree["tasks"]) * len(tree["systems"]["distilled"])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "a: 1\nseeds: [0]             # of the trainings\nb: 2\n",
            "a: 1\nseeds: [0, 1, 2]             # of the trainings\nb: 2\n",
        ),
        ("seeds:        # of the trainings\nb: 2\n", None),
        ("a: 1\nseeds:\n- 0\n- 4\nb: 2\n", "a: 1\nseeds: [0, 1, 2]\nb: 2\n"),
        ("a: 1\n", None),
    ],
)
def test_one_value_of_a_params_file_is_changed_and_nothing_else(tmp_path: Path, before: str, after: str | None) -> None:
    """As a list in a line, as the block that `dvc exp run -S` makes of it, and not where there is no value."""
    path = tmp_path / "params.yaml"
    path.write_text(before)
    if after is None:
        with pytest.raises(ParamError, match="has 0 values of seeds, expected one"):
            parameters.write_value(path, "seeds", [0, 1, 2])
        after = before
    else:
        parameters.write_value(path, "seeds", [0, 1, 2])
    assert path.read_text() == after
