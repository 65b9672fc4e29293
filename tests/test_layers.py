"""Who may import what: stages import the core and never back, and what is heavy or dangerous has its one place."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from imports import ROOT, closure, imported, outside

CORE = sorted((ROOT / "qthink_core").rglob("*.py"))
PAGES = sorted(path for path in (ROOT / "stages").glob("*.py") if path.stem != "__init__")
# What each package may import; `errors` and `hub` lie beside the packages. Nobody imports a package further down.
ARROWS = {
    "artifacts": "errors",
    "pipeline": "artifacts errors",
    "numerics": "",
    "method": "artifacts numerics errors",
    "benchmarks": "artifacts pipeline errors hub",
    "models": "artifacts pipeline method benchmarks errors hub",
    "training": "artifacts pipeline method models errors",
    "generation": "artifacts pipeline numerics method models errors",
    "serving": "method models errors",
    "evidence": "artifacts errors",
    "report": "artifacts pipeline models evidence errors",
    "planning": "artifacts pipeline benchmarks models evidence errors hub",
    "running": "artifacts pipeline evidence report planning errors",
    "inference": "artifacts method benchmarks models generation evidence report planning errors hub",
    "benchmarking": "artifacts numerics method models generation training planning errors",
    "cli": "pipeline benchmarks benchmarking inference evidence report planning running errors",
}
MAX_MODULES, MAX_LINES = 13, 300
# Packages whose modules load no torch, except for the preflight, which checks models, and the program of a grader.
WITHOUT_TORCH = ("artifacts", "pipeline", "benchmarks", "evidence", "report", "planning", "running")
# Which modules may import a package by name.
SOLE_IMPORTERS = {
    "jinja2": {"report.page", "inference.evaluation.page"},
    "dvc": {"running.dvc_jobs", "running.repair"},
    "datasets": {"hub", "benchmarks.source_rows"},
    "accelerate": set(),  # it starts ranks, and has no part in them
    "matplotlib": {"report.plots"},
    "peft": {"method.student", "method.fast_training.merged_lora", "models.export"},
    "ray": {"pipeline.ray_workers"},
    "typer": {"cli.bench", "cli.evaluate", "cli.grade", "cli.models", "cli.page", "cli.pipeline", "cli.program"},
    "vllm": {
        "generation.vllm_engine",
        "serving.vllm_model",
        "serving.vllm_plugin",
        "serving.vllm_requests",
        "serving.vllm_scheduler",
    },
}
LAUNCHABLE = {"extract", "finetune", "train"}
# What runs around DVC and the stages, or after them: no result depends on it.
AROUND_STAGES = (
    "qthink_core.benchmarking",
    "qthink_core.cli",
    "qthink_core.inference",
    "qthink_core.planning",
    "qthink_core.running",
)
ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.MatMult)
MAX_PAGE_LINES = 95
# Threefold what was measured (0.3 s with warm files): the checks of a bad parameter must end within 2 s.
MAX_IMPORT_S = 1.0


def name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


APART = {
    ROOT / "qthink_core" / path
    for path in ("planning/preflight.py", "planning/source_checks.py", "benchmarks/graders/latex_worker.py")
}
LIGHT = sorted({path for one in WITHOUT_TORCH for path in (ROOT / "qthink_core").glob(f"{one}/**/*.py")} - APART)

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
every_module = pytest.mark.parametrize("path", [*CORE, *PAGES], ids=name)


@pytest.mark.slow
def test_the_core_does_not_import_stages_but_for_the_check_of_all_parameters() -> None:
    upward = {name(path) for path in CORE if any(one.split(".")[0] == "stages" for one in imported(path))}
    assert upward == {"qthink_core.pipeline.graph"}


@every_page
def test_a_page_imports_no_other_page(page: Path) -> None:
    assert not {one for one in imported(page) if one.startswith("stages")}


def test_only_pages_know_where_artifacts_lie_and_what_reads_those_of_several_stages() -> None:
    # the code of a stage, the folder to publish, which takes a model and its scores, and the repair of any artifact
    knowing = {"qthink_core.pipeline.stage", "qthink_core.report.publishing", "qthink_core.running.repair"}
    assert {name(path) for path in CORE if "qthink_core.pipeline.layout" in imported(path)} == knowing


@pytest.mark.parametrize("package", ARROWS)
def test_imports_between_packages_go_one_way(package: str) -> None:
    others = {*ARROWS, "errors", "hub"} - {package}
    reached = {
        one.split(".")[1]
        for path in (ROOT / "qthink_core" / package).rglob("*.py")
        for one in imported(path)
        if one.startswith("qthink_core.")
    }
    assert reached & others == set(ARROWS[package].split())


def test_the_arrows_have_no_circle() -> None:
    assert list(graphlib.TopologicalSorter({one: below.split() for one, below in ARROWS.items()}).static_order())


def test_modules_have_no_circle() -> None:
    own = {name(path): path for path in CORE}
    graph = {one: {other for other in imported(path) if other in own} - {one} for one, path in own.items()}
    assert list(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("package", ["", *ARROWS])
def test_a_folder_is_seen_at_a_glance(package: str) -> None:
    modules = [path for path in (ROOT / "qthink_core" / package).glob("*.py") if path.stem != "__init__"]
    assert len(modules) <= MAX_MODULES, f"{package} has {len(modules)} modules"


@every_module
def test_a_module_is_short(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= MAX_LINES, f"{name(path)} has {lines} lines: split it"


@pytest.mark.parametrize("path", LIGHT, ids=name)
def test_a_module_of_values_and_contracts_reaches_no_torch(path: Path) -> None:
    # `ranks` imports it in the functions that a launcher's processes need; the next test holds that they alone do
    reached = {name(file) for file in closure(path) if any(one.split(".")[0] == "torch" for one in imported(file))}
    assert reached <= {"qthink_core.pipeline.ranks"}


@pytest.mark.slow
def test_the_modules_without_torch_do_not_load_it() -> None:
    program = "import sys; " + "; ".join(f"import {name(path)}" for path in LIGHT)
    heavy = {"torch", "transformers", "peft", "accelerate", "datasets", "math_verify", "sympy"}
    assert not loaded_by(program) & heavy


@pytest.mark.parametrize("package", SOLE_IMPORTERS)
def test_a_heavy_package_has_its_few_importers(package: str) -> None:
    found = {name(path) for path in [*CORE, *PAGES] if any(one.split(".")[0] == package for one in imported(path))}
    assert found == {f"qthink_core.{one}" for one in SOLE_IMPORTERS[package]}


def test_only_stages_whose_units_may_be_dealt_out_reach_ray() -> None:
    assert {page.stem for page in PAGES if "ray" in outside(page)} == {"sample", "extract", "baseline", "evaluate"}


def test_only_what_grades_reaches_the_scoring_pages() -> None:
    rules = ROOT / "qthink_core" / "benchmarks" / "graders" / "gsm8k.py"
    assert {page.stem for page in PAGES if rules in closure(page)} == {"prepare", "reward", "grade"}


def loaded_by(program: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after a program."""
    program += "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_all_pages_together_are_imported_at_once_and_without_numpy() -> None:
    program = "import time; start = time.process_time(); " + "; ".join(f"import stages.{page.stem}" for page in PAGES)
    program += f"\nspent = time.process_time() - start\nassert spent < {MAX_IMPORT_S}, spent"
    assert not loaded_by(program) & {"torch", "numpy", "pyarrow", "transformers", "tqdm"}


@every_page
def test_a_page_is_a_page(page: Path) -> None:
    lines = len(page.read_text().splitlines())
    assert lines <= MAX_PAGE_LINES, f"{page.name} has {lines} lines: move code into qthink_core"


def text(node: ast.AST) -> bool:
    """Whether an operand is text, so that `+` joins sentences and `/` joins a path."""
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def computed(node: ast.AST) -> Iterator[ast.BinOp]:
    """The arithmetic below a node, apart from units in a printed sentence (`{size / 1e6:.1f} MB`)."""
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, ast.BinOp) and isinstance(inner.op, ARITHMETIC) and not (text(inner.left) or text(inner.right)):
            yield inner
        if not isinstance(inner, ast.FormattedValue):
            yield from computed(inner)


@every_page
def test_a_page_does_no_arithmetic(page: Path) -> None:
    assert not [ast.unparse(node) for node in computed(ast.parse(page.read_text()))]


@every_page
def test_a_page_has_a_params_class_a_run_function_and_a_main_that_names_it(page: Path) -> None:
    tree = ast.parse(page.read_text())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert [one.name for one in functions] == ["run"]
    assert [one.arg for one in functions[0].args.args] == ["params", "at", "work"]
    assert "Params" in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    launchable = ", launchable=True" if page.stem in LAUNCHABLE else ""
    assert ast.unparse(tree.body[-1]) == f"if __name__ == '__main__':\n    stage.main('{page.stem}', run{launchable})"


@every_module
def test_imports_are_absolute_and_by_name_so_that_the_closure_sees_them(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    by_value = [
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module")
    ]
    # the parameter classes of all stage files, the preflight, and the name LatentReasoner: no result of a stage depends on
    # them
    by_name = {"qthink_core", "qthink_core.pipeline.graph", "qthink_core.pipeline.stage"}
    assert not by_value or name(path) in by_name or name(path).startswith(AROUND_STAGES)


def test_no_stage_reaches_what_starts_stages() -> None:
    reached = {name(file) for page in PAGES for file in closure(page)}
    assert not {one for one in reached if one.startswith(AROUND_STAGES)}
