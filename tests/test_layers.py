"""Who may import what: stages import the core and never back, and what is heavy or dangerous has its one place."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from imports import ROOT, closure, imported, outside

from qthink_core.answers import BENCHMARKS
from qthink_core.stage import stage_sections

CORE = sorted((ROOT / "qthink_core").rglob("*.py"))
PAGES = sorted(path for path in (ROOT / "stages").glob("*.py") if path.stem != "__init__")
WITHOUT_TORCH = [
    *("answers", "artifacts", "base_source", "calibration", "claims", "cli", "code", "completions", "cost", "errors"),
    *("extraction", "fairness", "findings", "grades", "grading", "instances", "layout", "plan", "plan_words", "plots"),
    *(
        "prepared",
        "problems",
        "process",
        "published",
        "ranks",
        "readout",
        "recipe",
        "report",
        "report_data",
        "report_page",
        "report_table",
        "rollouts",
        "scores",
        "settings",
    ),
    *("committed", "demo", "dvc_fork", "progress", "warm", "warm_server"),
    *("shapes", "stage", "stage_costs", "stated", "statistics", "synthetic", "targets", "teachers", "think", "verdicts"),
]
# Which modules may import a package by name.
SOLE_IMPORTERS = {
    "accelerate": {"training"},
    "dvc": {"dvc_fork"},
    "jinja2": {"report_page"},
    "matplotlib": {"plots"},
    "peft": {"student", "merged_lora", "export"},
    "ray": {"ray_workers"},
    "typer": {"cli"},
    "vllm": {"vllm_engine"},
}
LAUNCHABLE = {"extract", "finetune", "train"}
# What `make demo` runs around DVC and the stages: no result depends on it.
AROUND_STAGES = {f"qthink_core.{one}" for one in ("committed", "demo", "dvc_fork", "progress", "warm", "warm_server")}
ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.MatMult)
MAX_PAGE_LINES = 95
# Threefold what was measured (0.3 s with warm files): the checks of a bad parameter must end within 2 s.
MAX_IMPORT_S = 1.0


def name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


every_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
every_module = pytest.mark.parametrize("path", [*CORE, *PAGES], ids=name)


def test_the_core_does_not_import_stages_but_for_the_check_of_all_parameters() -> None:
    upward = {name(path) for path in CORE if any(one.split(".")[0] == "stages" for one in imported(path))}
    assert upward == {"qthink_core.stage"}


@every_page
def test_a_page_imports_no_other_page(page: Path) -> None:
    assert not {one for one in imported(page) if one.startswith("stages")}


def test_only_pages_know_where_artifacts_lie_but_for_what_the_code_of_a_stage_says() -> None:
    assert {name(path) for path in CORE if "qthink_core.layout" in imported(path)} == {"qthink_core.stage"}


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_a_module_of_values_and_contracts_reaches_no_torch(module: str) -> None:
    path = ROOT / "qthink_core" / module
    reached = closure(path / "__init__.py" if path.is_dir() else path.with_suffix(".py"))
    # `ranks` imports it in the functions that a launcher's processes need; the next test holds that they alone do
    assert {name(file) for file in reached if any(one.split(".")[0] == "torch" for one in imported(file))} <= {
        "qthink_core.ranks"
    }


def test_the_modules_without_torch_do_not_load_it() -> None:
    program = "import sys; " + "; ".join(f"import qthink_core.{module}" for module in WITHOUT_TORCH)
    heavy = {"torch", "transformers", "peft", "accelerate", "datasets", "math_verify", "sympy"}
    assert not loaded_by(program) & heavy


@pytest.mark.parametrize("package", SOLE_IMPORTERS)
def test_a_heavy_package_has_its_few_importers(package: str) -> None:
    found = {path.stem for path in [*CORE, *PAGES] if any(one.split(".")[0] == package for one in imported(path))}
    assert found == SOLE_IMPORTERS[package]


def test_only_trainings_reach_accelerate() -> None:
    assert {page.stem for page in PAGES if "accelerate" in outside(page)} == {"finetune", "train"}


def test_only_stages_whose_units_may_be_dealt_out_reach_ray() -> None:
    assert {page.stem for page in PAGES if "ray" in outside(page)} == {"sample", "extract", "baseline", "evaluate"}


def test_only_what_grades_reaches_the_scoring_pages() -> None:
    rules = ROOT / "qthink_core" / "answers" / "gsm8k.py"
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
    # the parameter classes of all pages, and the preflight, for checking; no result depends on another page or on it
    assert not by_value or name(path) in {"qthink_core.stage", *AROUND_STAGES}


def test_no_stage_reaches_what_starts_stages() -> None:
    reached = {name(file) for page in PAGES for file in closure(page)}
    assert not reached & AROUND_STAGES


@every_module
def test_nothing_that_a_model_or_a_file_says_is_executed(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}, ast.unparse(node)
            assert called.rpartition(".")[2] not in {"sympify", "parse_expr", "read_pickle"}, ast.unparse(node)
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert "trust_remote_code" not in options, ast.unparse(node)
            assert options.get("shell", "False") == "False", ast.unparse(node)
            assert options.get("allow_pickle", "False") == "False", ast.unparse(node)
            if called == "torch.load":
                assert name(path) == "qthink_core.projection_head", ast.unparse(node)
                assert options["weights_only"] == "True", ast.unparse(node)
        # a keyword may hide in a mapping that is unpacked later
        assert not (isinstance(node, ast.Constant) and node.value == "trust_remote_code")
    unsafe = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml"}
    assert not {one.split(".")[0] for one in imported(path)} & unsafe


def test_the_report_knows_every_benchmark_by_name() -> None:
    (literal,) = get_args(stage_sections()["report"].model_fields["tasks"].annotation)
    assert get_args(literal) == BENCHMARKS
