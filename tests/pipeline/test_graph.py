"""The map holds: dvc.yaml, stages/, layout.py, the params files, README.md, docs/pipeline.md and dvc.lock say the same."""

import ast
import hashlib
import json
import re
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

import networkx as nx
import pytest
import small_run
from graph import SCALES, STAGES, boxes, code, inputs, outputs, resolved, tree_of
from imports import OURS, ROOT
from ruamel.yaml import YAML

from qthink_core.artifacts.conditions import TRAINED
from qthink_core.artifacts.files import canonical_json
from qthink_core.pipeline import code as source
from qthink_core.pipeline import layout, parameters
from qthink_core.pipeline.graph import Box, parameter_classes
from qthink_core.planning import schedule
from qthink_core.report import build
from qthink_core.report.params import SYSTEM_NAMES
from qthink_core.running import figures

SECTIONS = parameter_classes()
every_stage = pytest.mark.parametrize("stage", STAGES)


def page_tables() -> list[list[list[str]]]:
    blocks = re.findall(r"(?:^\|.*\n)+", (ROOT / "docs/pipeline.md").read_text(), re.MULTILINE)
    return [
        [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in block.splitlines()] for block in blocks
    ]


def stage_map() -> dict[str, list[str]]:
    """The row of each stage in docs/pipeline.md, by the name in the first column."""
    tables = [table for table in page_tables() if table[0][0] == "stage"]
    assert len(tables) == 1, f"docs/pipeline.md has {len(tables)} tables whose first column is headed `stage`, expected one"
    return {row[0]: row[1:] for row in tables[0][2:]}


def test_a_stage_has_one_name_in_the_graph_in_its_file_and_on_its_page() -> None:
    files = {path.stem for path in (ROOT / "stages").glob("*.py")} - {"__init__"}
    assert files == set(STAGES)
    assert list(stage_map()) == [f"`{stage}`" for stage in STAGES], "the rows are the stages, from left to right"


@every_stage
def test_the_page_names_where_a_stage_writes_and_parameters_that_it_reads(stage: str) -> None:
    _, where, reads = stage_map()[f"`{stage}`"]
    folders = re.findall(r"`([^`]*)`", re.sub(r"<(\w+)>", r"${item.\1}", where))
    assert all(any(PurePosixPath(out).is_relative_to(one) for one in folders) for out in outputs(stage)), (
        f"{where} is not where {outputs(stage)} lie"
    )
    declared = [key.partition(".${")[0] for _, key in declared_params(stage)]
    for named in re.findall(r"`([^`]*)`", reads):
        assert any((key + ".").startswith(named + ".") for key in declared), f"{stage} does not read {named}"


def test_the_picture_in_the_readme_is_the_graph_without_what_follows_from_other_arrows() -> None:
    tree, _ = tree_of("tiny")
    graph = nx.DiGraph()
    for box, needs in schedule.edges(ROOT, tree).items():
        graph.add_edges_from((Box.parse(one).stage, Box.parse(box).stage) for one in needs)
    graph.remove_node(source.STAGE)
    drawn = re.search(r"```mermaid\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert drawn, "README.md has no mermaid picture"
    assert set(re.findall(r"(\w+) --> (\w+)", drawn[1])) == set(nx.transitive_reduction(graph).edges)
    assert drawn[1] == figures.mermaid(ROOT), "run `qthink figures`"


@every_stage
def test_a_command_is_a_constant_that_runs_the_stage_of_its_name(stage: str) -> None:
    assert STAGES[stage]["cmd"] == f"QTHINK_PARENT=$PPID exec python -m stages.{stage}"


@every_stage
def test_a_stage_depends_on_what_its_own_code_says_and_the_one_that_writes_it_on_all_code(stage: str) -> None:
    assert code(stage) == (list(OURS) if stage == source.STAGE else [str(layout.code(stage))])


def test_every_file_of_the_packages_is_a_module_or_read_by_a_known_one() -> None:
    files = {path.relative_to(ROOT) for package in OURS for path in (ROOT / package).rglob("*") if path.is_file()}
    others = {path.parent.as_posix() for path in files if path.suffix not in (".py", ".pyc")}
    # what no stage reads: the pages of commands, and the types for users of the package
    beside = {"qthink_core", "qthink_core/inference/evaluation/templates", "qthink_core/inference/page"}
    copied = "qthink_core/models/custom_generate"  # a module that is written into exported folders, and not imported
    assert (others - beside) | {copied} == set(source.READ_BY.values())
    assert beside <= others
    assert {Path(reader) for reader in source.READ_BY} <= files


def declared_params(stage: str) -> list[tuple[str, str]]:
    """(file, key) of each param that dvc.yaml declares, with their `${...}`."""
    found = []
    for entry in STAGES[stage].get("params", []):
        for file, keys in entry.items() if isinstance(entry, dict) else [("params.yaml", [entry])]:
            found += [(file, key) for key in keys]
    return found


@every_stage
@pytest.mark.parametrize("scale", SCALES)
def test_the_declared_params_of_a_stage_are_those_that_its_params_class_reads(stage: str, scale: str) -> None:
    tree, origin = tree_of(scale)
    keys = [
        (re.sub(r"\$\{scale\}", scale, file), tuple(re.sub(r"\$\{.*?\}", "*", key).split(".")))
        for file, key in declared_params(stage)
    ]
    given = {leaf: file for leaf, file in origin.items() if parameters.value(tree, ".".join(leaf)) is not None}
    declared = {
        (file, leaf) for leaf, file in given.items() if any(file == at and parameters.matches(leaf, key) for at, key in keys)
    }
    read = {
        (file, leaf)
        for leaf, file in origin.items()
        if any(parameters.matches(leaf, one) for one in parameters.patterns(SECTIONS[stage]))
    }
    assert not read - declared, f"dvc.yaml: {stage} reads undeclared {sorted(read - declared)}: a change would not rerun it"
    assert not declared - read, (
        f"dvc.yaml: {stage} declares unread {sorted(declared - read)}: a change would rerun it in vain"
    )
    idle = [
        (file, ".".join(key))
        for file, key in keys
        if not any(file == at and parameters.matches(leaf, key) for leaf, at in origin.items())
    ]
    assert not idle, f"dvc.yaml: {stage} declares params that do not exist: {idle}"


@every_stage
def test_a_box_depends_on_the_parameters_of_its_own_system_only(stage: str) -> None:
    for _, key in declared_params(stage):
        if key.startswith("systems.") and "system" in STAGES[stage].get("matrix", {}):
            assert key.endswith(".${item.system}"), f"{stage} depends on {key}: another system's settings would rerun it"


def layout_paths(stage: str) -> tuple[set[str], set[str]]:
    """(read, written) paths that the page names through `layout`; a variable that is not part of the box reads `*`."""
    tree = ast.parse((ROOT / "stages" / f"{stage}.py").read_text())
    names = {"at.task": "${item.task}", "at.system": "${item.system}", "at.seed": "${item.seed}"}
    names["params.probe.thinker"] = "${probe.thinker}"
    written: set[int] = set()
    found: dict[int, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if ast.unparse(node.func.value) == "layout":
                value = getattr(layout, node.func.attr)(*(names.get(ast.unparse(one), "*") for one in node.args))
                found[id(node)] = value.as_posix()
            if ast.unparse(node.func) in ("work.publish", "build.write", "code.write"):
                written.add(id(node.args[0]))
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "layout" and node.attr.isupper():
            found[id(node)] = getattr(layout, node.attr).as_posix()
    return {path for at, path in found.items() if at not in written}, {path for at, path in found.items() if at in written}


def covers(declared: str, path: str) -> bool:
    """Whether a path of dvc.yaml is the page's path, one of its cases, or the folder that holds all its cases."""
    return fnmatch(declared, path) or declared == re.sub(r"(/\*)+$", "", path)


@every_stage
def test_artifacts_lie_where_the_page_reads_and_writes_them(stage: str) -> None:
    read, written = layout_paths(stage)
    if stage == "report":
        written = {f"{folder}/*" for folder in written}
    for kind, declared, used in (
        ("deps", inputs(stage), read),
        ("outs", outputs(stage), written),
    ):
        # a summary names the path it made: what is written may be named again
        extra = written if kind == "deps" else set()
        undeclared = [path for path in used - extra if not any(covers(one, path) for one in declared)]
        unused = [one for one in declared if not any(covers(one, path) for path in used)]
        assert not undeclared, f"dvc.yaml: {stage} lacks {kind} {undeclared}"
        assert not unused, f"dvc.yaml: {stage} declares {kind} {unused}, which its page does not name"


def test_every_input_is_made_by_a_stage_and_every_artifact_by_one_alone() -> None:
    tree, _ = tree_of("tiny")
    every_box = [at for stage in STAGES for at in boxes(stage, tree)]
    made = [path for at in every_box for path in resolved(outputs(at.stage), at, tree)]
    assert len(made) == len(set(made))
    for at in every_box:
        for path in resolved(inputs(at.stage), at, tree):
            assert any(PurePosixPath(one).is_relative_to(path) for one in made), f"{at} needs {path}, which no stage makes"


def test_the_files_of_the_report_are_those_that_dvc_knows_with_the_columns_that_it_plots(tmp_path: Path) -> None:
    folders = {"gsm8k": small_run.run(tmp_path, "gsm8k", {("sft", 0, TRAINED): "rw"})}
    written = build.write(tmp_path / "results", build.find(folders, small_run.outline(["sft"])), folders)
    declared = outputs("report")
    for path in written:
        assert any(path.is_relative_to(tmp_path / out) for out in declared), f"dvc.yaml does not know {path.name}"
    for entry in STAGES["report"]["plots"]:
        for path, options in entry.items():
            files = [file for file in written if file.is_relative_to(tmp_path / path)]
            assert files, f"nothing is written to {path}"
            for file in files:
                columns = file.read_text().splitlines()[0].split(",")
                assert {options["x"], options["y"]} <= set(columns), f"dvc.yaml plots {options} of {file}: {columns}"


def test_the_trained_systems_are_the_finetuned_and_then_the_distilled_ones() -> None:
    systems = parameters.read_yaml(ROOT / "params.yaml")["systems"]
    assert systems["trained"] == [*systems["finetuned"], *systems["distilled"]]


def test_every_system_of_the_params_has_a_name_in_the_table() -> None:
    systems = parameters.read_yaml(ROOT / "params.yaml")["systems"]
    assert set(SYSTEM_NAMES) == {*systems["baseline"], *systems["trained"]}


@pytest.fixture(scope="module")
def locked() -> dict[str, Any]:
    assert (ROOT / "dvc.lock").is_file(), "dvc.lock is missing: run `dvc repro` and commit it"
    return YAML(typ="safe").load(ROOT / "dvc.lock")["stages"]


def test_the_lock_has_every_box_of_the_graph_and_no_other(locked: dict[str, Any]) -> None:
    tree, _ = parameters.load(ROOT)
    assert set(locked) == {str(at) for stage in STAGES for at in boxes(stage, tree)}


def folder_md5(folder: Path) -> str:
    """The hash of a folder as DVC writes it: of the list of its files and their hashes."""
    files = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    listed = [{"md5": md5(path.read_bytes()), "relpath": path.relative_to(folder).as_posix()} for path in files]
    return md5(json.dumps(sorted(listed, key=lambda one: one["relpath"])).encode()) + ".dir"


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def test_the_lock_is_from_this_code(locked: dict[str, Any]) -> None:
    now = {package: folder_md5(ROOT / package) for package in OURS} | {
        str(layout.code(stage)): md5(canonical_json(source.of_stage(ROOT, stage))) for stage in STAGES
    }
    tree, _ = parameters.load(ROOT)
    stale = set()
    for stage in STAGES:
        for at in boxes(stage, tree):
            deps = locked[str(at)]["deps"]
            assert [dep["path"] for dep in deps] == sorted(resolved(STAGES[stage]["deps"], at, tree))
            stale |= {f"{at}: {dep['path']}" for dep in deps if dep["md5"] != now.get(dep["path"], dep["md5"])}
    assert not stale, f"dvc.lock was made with other code ({sorted(stale)}): run `dvc repro` and commit dvc.lock"


def test_the_lock_is_from_these_parameters(locked: dict[str, Any]) -> None:
    _, origin = parameters.load(ROOT)
    for box, entry in locked.items():
        for file, values in entry.get("params", {}).items():
            here = parameters.read_yaml(ROOT / file)
            for key, value in values.items():
                assert parameters.value(here, key) == value, f"{box} was run with {key} = {value}"
    assert {file for entry in locked.values() for file in entry["params"]} == set(origin.values())
