"""README and docs: every command is one that its program takes, every link leads somewhere, every line is a sentence.

Commands are read out of blocks marked `sh` and out of inline code; NOT_RUN says why a program is not started here.
"""

import ast
import html
import itertools
import json
import re
import shlex
import subprocess
import time
import tomllib
from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import forked
import pytest
import typer.main
from dvc.cli.parser import DvcParserError, get_main_parser
from graph import tree_of
from imports import OURS, ROOT

from qthink_core.cli import __main__ as cli
from qthink_core.errors import ParamError
from qthink_core.planning import schedule
from qthink_core.planning.settings import checked_with
from qthink_core.serving import settings

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
# What it says was true of a commit that it names.
HISTORY = ROOT / "docs/search.md"
LANGUAGES = {"sh", "text", "python", "yaml", "mermaid", "diff", "json"}
MAX_README_LINES = 175
NOT_RUN = {
    "make": "it installs packages and takes minutes; tests/running/test_runner.py runs what it calls",
    "dvc": "it takes minutes or changes this checkout; tests/pipeline/test_reruns.py and tests/chain ask it on copies",
    "git": "it changes this checkout",
    "pytest": "it is running",
    "pip": "it installs packages",
    "hf": "it needs the hub; tests/planning/test_scale.py compares the revision",
    "accelerate": "tests/pipeline/test_ranks.py starts it; tests/planning/test_scale.py looks at its options",
    "transformers": "it serves until it is ended; tests/serving/test_transformers_serve.py starts it",
    "lm_eval": "it is installed for `make test-serve` alone; tests/serving/test_lm_eval.py calls it",
    "vllm": "it is in an environment of its own; tests/serving/test_vllm_server.py starts its server",
}
SHELL = {"cp", "echo", "export", "grep", "rm", "sleep", "source", "until", "do", "done"}
# Inline code that begins with one of these and goes on is a command.
INLINE = re.compile(r"(?:[A-Z_]+=(?:\"[^\"]*\"|\S+) )*(?:make|qthink|dvc|pytest|pip|accelerate) \S")
PYTHON_RUN_BY = {
    ROOT / "README.md": "tests/inference/test_use_python.py",
    ROOT / "docs/use.md": "tests/models/test_export.py",
    ROOT / "docs/use/transformers.md": "tests/models/test_use_transformers.py",
    ROOT / "docs/use/serve.md": "tests/serving/test_transformers_serve.py",
    ROOT / "docs/use/python.md": "tests/inference/test_use_python.py",
    ROOT / "docs/data.md": "tests/chain/test_own_problems.py",
    ROOT / "docs/use/audit.md": "tests/inference/evaluation/test_audit.py",
    ROOT / "docs/use/vllm.md": "tests/serving/test_vllm_server.py",
}
BOXES = schedule.edges(ROOT, tree_of("tiny")[0])
MAX_PLAN_S = 20


def fences(page: Path) -> Iterator[tuple[str, str]]:
    """(language, text) of each fenced block of a page."""
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        yield found[1], found[2]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def simple(shell: str) -> Iterator[tuple[dict[str, str], list[str]]]:
    """(variables set for it, words) of each simple command of a shell text, without comments and redirections."""
    for line in shell.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|<>")
        lexer.whitespace_split = True
        group: list[str] = []
        for word in [*lexer, ";"]:
            if word.strip(";&|"):
                group.append(word)
                continue
            while ">" in group or "<" in group:
                at = next(i for i, one in enumerate(group) if one in "<>")
                del group[at : at + 2]
            while group and group[0] in ("until", "do", "done"):
                del group[0]
            variables = {}
            while group and re.match(r"[A-Z][A-Z0-9_]*=", group[0]):
                name, _, variables[name] = group.pop(0).partition("=")
            if group or variables:
                yield variables, group
            group = []


def commands(page: Path) -> list[str]:
    """The shell texts of a page: blocks that are not whole scripts, and inline code that is a command without gaps."""
    blocks = [text for language, text in fences(page) if language == "sh" and not text.startswith("#!")]
    inline = [
        span for span in re.findall(r"`([^`\n]+)`", prose(page)) if INLINE.match(span) and not re.search(r"[<…]", span)
    ]
    return [*blocks, *inline]


ALL = [(page, text) for page in PAGES if page != HISTORY for text in commands(page)]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


@pytest.mark.parametrize(("page", "text"), ALL, ids=[f"{page.stem}: {text.splitlines()[0]:.50}" for page, text in ALL])
def test_a_command_of_a_page_is_one_that_its_program_takes(page: Path, text: str) -> None:
    subprocess.run(["bash", "-n", "-c", text], check=True)
    for variables, words in simple(text):
        for name, value in [*variables.items(), *(word.split("=", 1) for word in words[1:] if words[0] == "export")]:
            check_variable(name, value)
        if words and words[0] not in SHELL:
            CHECKS[words[0]](words[1:])


def test_every_program_of_the_pages_is_known_here_and_no_other() -> None:
    named = {words[0] for _, text in ALL for _, words in simple(text) if words} - SHELL
    assert named == {*NOT_RUN, "qthink"}
    assert set(CHECKS) == named


def check_variable(name: str, value: str) -> None:
    if name.startswith("QTHINK_"):
        sources = [path for package in OURS for path in (ROOT / package).rglob("*.py")]
        assert any(f'"{name}"' in path.read_text() for path in [*sources, *(ROOT / "tests").rglob("*.py")]), (
            f"{name} is not read"
        )
    if name == "QTHINK_LAUNCH":
        check_accelerate(shlex.split(value)[1:])


def check_make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    for word in words:
        name, _, value = word.partition("=")
        assert f"$({name})" in makefile if value else word in targets, f"the Makefile has no {word}"


def check_qthink(words: list[str]) -> None:
    group: Any = typer.main.get_command(cli.app)
    if words[0].startswith("--"):
        assert words[0] in {option for parameter in group.params for option in parameter.opts}
        return
    assert words[0] in group.commands, f"qthink has no command {words[0]}"
    if len(words) > 1 and "--help" not in words:
        try:
            group.commands[words[0]].make_context(words[0], words[1:])
        except Exception as error:  # noqa: BLE001 - typer's own usage errors have no public base class
            pytest.fail(f"qthink does not take {shlex.join(words)}: {error}")


def subcommands(parser: ArgumentParser) -> dict[str, Any]:
    return next((dict(one.choices) for one in parser._actions if isinstance(one, _SubParsersAction)), {})


def check_dvc(words: list[str]) -> None:
    parser: Any = get_main_parser()
    below = parser
    for word in words:
        below = subcommands(below).get(word)
        if below is None:
            break
    else:
        return  # the name of a command, without what it would act on
    try:
        found = parser.parse_args(words)
    except DvcParserError:
        pytest.fail(f"dvc does not take {shlex.join(words)}")
    settings = getattr(found, "set_param", None) or []
    if not {"scale=mine", "tasks=[my_problems]"} & {*settings}:  # a scale or a task that the reader makes
        checked_with(ROOT, None, settings)
    if found.cmd in ("repro", "run", "status") and not found.__dict__.get("glob"):
        for target in found.targets:
            assert target in BOXES or target in {box.partition("@")[0] for box in BOXES}, f"the graph has no {target}"


def check_git(words: list[str]) -> None:
    assert words[0] in {"restore", "checkout", "commit", "show", "config", "status"}
    if words[0] in ("restore", "checkout", "commit"):
        rest = words[1:]
        while "-m" in rest:
            at = rest.index("-m")
            del rest[at : at + 2]
        for path in rest:
            assert (ROOT / path).exists(), f"there is no {path}"


def check_pytest(words: list[str]) -> None:
    marks = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["markers"]
    for before, word in zip(["", *words], words, strict=False):
        if before == "-m":
            assert any(one.startswith(f"{word}:") for one in marks), f"no marker {word}"
        elif not word.startswith("-"):
            assert list(ROOT.glob(word)), f"there is no {word}"


def check_pip(words: list[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert words[0] == "install"
    for extra in re.findall(r"\.\[([\w,-]+)\]", " ".join(words)):
        assert set(extra.split(",")) <= set(extras), f"no extra {extra}"


def check_hf(words: list[str]) -> None:
    assert words[0] == "download"


def check_accelerate(words: list[str]) -> None:
    from accelerate.commands.launch import launch_command_parser

    known = {option for action in launch_command_parser()._actions for option in action.option_strings}
    assert words[0] == "launch"
    assert {word for word in words if word.startswith("--")} <= known


def check_transformers(words: list[str]) -> None:
    text = (ROOT / "tests/serving/test_transformers_serve.py").read_text()
    assert words[0] == "serve"
    assert all(f'"{word}"' in text for word in words if word.startswith("--"))


def check_lm_eval(words: list[str]) -> None:
    text = (ROOT / "tests/serving/test_lm_eval.py").read_text()
    assert words[0] == "run"
    assert all(word[2:] in text for word in words if word.startswith("--"))


def check_vllm(words: list[str]) -> None:
    assert words[0] == "serve"
    options = dict(zip(words[2::2], words[3::2], strict=True))
    assert set(options) <= {"--served-model-name", "--additional-config"}
    assert set(json.loads(options.get("--additional-config", "{}"))) <= {settings.OPTION}


CHECKS = {
    "transformers": check_transformers,
    "lm_eval": check_lm_eval,
    "make": check_make,
    "qthink": check_qthink,
    "dvc": check_dvc,
    "git": check_git,
    "pytest": check_pytest,
    "pip": check_pip,
    "hf": check_hf,
    "accelerate": check_accelerate,
    "vllm": check_vllm,
}


@pytest.mark.parametrize(
    "wrong",
    [
        "make tset",
        "make demo JOBZ=1",
        "qthink paln",
        "qthink plan --gpu 8",
        "qthink grade --benchmark gsm9k",
        "dvc rerun",
        "dvc exp run -S gama=1.0",
        "dvc exp run -S params/tiny.yaml:evaluate.max_tokens=3",
        "dvc repro -s train@gsm8k-uniform-7",
        "dvc exp show --only-altered",
        "git restore parameters.yaml",
        "pytest -m gpus",
        "pip install --editable '.[vlm]'",
        "QTHINK_EXEKUTOR=ray dvc repro",
        "echo 1 | qthink rate",
        "vllm serve models --additional-config '{\"latent\": 6}'",
    ],
)
def test_a_wrong_command_would_be_found(wrong: str) -> None:
    with pytest.raises((AssertionError, ParamError, pytest.fail.Exception)):
        test_a_command_of_a_page_is_one_that_its_program_takes(ROOT / "README.md", wrong)


PLANS = sorted({shlex.join(words) for _, text in ALL for _, words in simple(text) if words[:2] == ["qthink", "plan"]})
PLANS.remove("qthink plan --scale mine")  # tests/test_own.py makes that scale


@pytest.mark.slow
@pytest.mark.parametrize("line", PLANS)
def test_a_plan_of_the_pages_is_made(line: str) -> None:
    began = time.monotonic()
    done = forked.qthink(*shlex.split(line)[1:], cwd=ROOT)
    assert time.monotonic() - began < MAX_PLAN_S
    assert done.returncode == 0, done.stderr
    assert b"boxes" in done.stdout


@every_page
def test_a_block_says_what_it_is_and_python_is_run_by_a_test(page: Path) -> None:
    assert page.read_text().count("\n```") % 2 == 0
    found = list(fences(page))
    assert {language for language, _ in found} <= LANGUAGES
    for language, text in found:
        if language == "python":
            compile(text, str(page), "exec")
            assert page.relative_to(ROOT).as_posix() in (ROOT / PYTHON_RUN_BY[page]).read_text()


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_every_link_leads_to_a_file_and_to_a_heading_of_it(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("page", sorted((ROOT / "docs/use").glob("*.md")), ids=lambda page: page.stem)
def test_a_page_for_users_of_the_wheel_says_what_needs_the_repository(page: Path) -> None:
    text = "\n".join(commands(page))
    if re.search(r"^(make|dvc|qthink (export|plan)|pip install --editable)|artifacts/", text, re.MULTILINE):
        assert re.search(r"\b[Ii]n the repository\b", page.read_text())
    if "artifacts/" in text or "answer_only" in text:
        assert "After `make demo`" in page.read_text()


@every_page
def test_a_path_in_inline_code_exists(page: Path) -> None:
    if page == HISTORY:
        pytest.skip("it names files of an older commit")
    named = re.findall(r"`((?:qthink_core|stages|tests|docs|params)/[\w./-]*)`", prose(page))
    assert not [one for one in named if not (ROOT / one).exists()]


ARROW = re.compile(r"`([\w/]+\.py):([\w.]+)`(?= → `([\w/]+\.py):([\w.]+)`)?")
FOLLOWED = [step for line in prose(ROOT / "docs/pipeline.md").splitlines() for step in ARROW.findall(line)]


def defined(path: str, name: str) -> ast.AST:
    """The function, class, method or constant `name` of a file that docs/pipeline.md names."""
    file = next(one for one in (ROOT / path, ROOT / "qthink_core" / path) if one.exists())
    scope: ast.Module | ast.ClassDef = ast.parse(file.read_text())
    for part in name.split("."):
        assert isinstance(scope, ast.Module | ast.ClassDef), f"{path} has no {name}"
        found = [one for one in scope.body if part in names_of(one)]
        assert found, f"{path} has no {name}"
        (scope,) = found
    return scope


def names_of(statement: ast.stmt) -> set[str]:
    """What a statement defines."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return {statement.name}
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    flat = [part for one in targets for part in (one.elts if isinstance(one, ast.Tuple) else [one])]
    return {one.id for one in flat if isinstance(one, ast.Name)}


@pytest.mark.parametrize(
    ("path", "name", "next_path", "next_name"), FOLLOWED, ids=[f"{one[0]}:{one[1]}" for one in FOLLOWED]
)
def test_a_function_that_is_followed_exists_and_uses_the_one_after_it(
    path: str, name: str, next_path: str, next_name: str
) -> None:
    used = {getattr(node, "attr", None) or getattr(node, "id", None) for node in ast.walk(defined(path, name))}
    if next_path:
        defined(next_path, next_name)
        assert next_name.rpartition(".")[2] in used


def test_three_things_are_followed_and_a_wrong_step_would_be_found() -> None:
    page = (ROOT / "docs/pipeline.md").read_text()
    assert [page.count(f"\n**{one}**, from ") for one in ("gamma", "K", "A prompt")] == [1, 1, 1]
    assert page.count(" → ") == sum(bool(one[2]) for one in FOLLOWED) > 20
    for path, name in (("method/losses.py", "lost"), ("stages/train.py", "Params.run")):
        with pytest.raises(AssertionError):
            defined(path, name)
    with pytest.raises(AssertionError):
        test_a_function_that_is_followed_exists_and_uses_the_one_after_it(
            "training/loop.py", "lr_factor", "method/losses.py", "loss"
        )


def test_a_page_that_the_code_names_exists() -> None:
    files = [
        path
        for folder in (*OURS, "tests", "params")
        for path in (ROOT / folder).rglob("*.*")
        if path.suffix in (".py", ".yaml")
    ]
    named = {
        one
        for file in [*files, ROOT / "params.yaml", ROOT / "dvc.yaml", ROOT / "Makefile", ROOT / "pyproject.toml"]
        for one in re.findall(r"docs/[\w/-]+\.md", file.read_text())
    }
    assert named
    assert not [one for one in named if not (ROOT / one).exists()]


def test_the_readme_is_short_and_its_tree_has_every_folder() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= MAX_README_LINES
    (tree,) = [block for language, block in fences(ROOT / "README.md") if language == "text" and "qthink_core/ " in block]
    top = set(re.findall(r"^(\w+)/ +\w", tree, re.MULTILINE))
    inner = set(re.findall(r"^  (\w+)/ +\w", tree, re.MULTILINE))
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert top == {path.split("/")[0] for path in tracked if "/" in path and not path.startswith(".")}
    packages = {path.split("/")[1] for path in tracked if path.startswith("qthink_core/") and path.count("/") > 1}
    assert inner == packages


@every_page
def test_the_readme_lists_every_page(page: Path) -> None:
    if page.parent == ROOT / "docs":
        assert f"](docs/{page.name})" in (ROOT / "README.md").read_text()


@every_page
def test_a_line_of_prose_is_one_sentence(page: Path) -> None:
    rows = [line for line in prose(page).splitlines() if not line.startswith(("|", "#"))]
    bare = [re.sub(r"`[^`]*`|\]\([^)]*\)", "x", re.sub(r"^ *\d+\. ", "", line)) for line in rows]
    assert not [line for line in bare if re.search(r"\w[)x]?[.?!] [A-Z]", line)]


def test_what_the_readme_shows_of_the_demo_is_what_the_committed_run_printed() -> None:
    (shown,) = [block for language, block in fences(ROOT / "README.md") if language == "text" and "boxes to make" in block]
    assert shown.startswith(f"{len(BOXES)} of {len(BOXES)} boxes to make")
    table = (ROOT / "results/table.md").read_text().splitlines()
    rows = [line.removesuffix("...") for line in shown.splitlines() if line.startswith("|")]
    assert len(rows) == 3
    assert all(any(line.startswith(row) for line in table) for row in rows)


def test_the_readme_shows_what_the_committed_latents_read_as() -> None:
    """What `qthink ask --show-latents` prints for a question of the report, where the same readout is a table."""
    blocks = re.findall(r"^```(?:sh|text)\n(.*?)\n```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    command, said = next((one, two) for one, two in itertools.pairwise(blocks) if "--show-latents" in one)
    report = (ROOT / "results/report.html").read_text()
    asked = report[report.rindex(f"{shlex.split(command)[-1]}</pre>") :]
    shown = html.unescape(asked.partition("QThink uniform per-step")[2].partition("</table>")[0])
    lines = re.findall(r"<pre[^>]*>(.*?)</pre>", shown, re.DOTALL)
    for step, cells in re.findall(r'<th scope="row">(\d)</th>(.*?)</tr>', shown):
        likely = re.findall(r'<code>(.*?)</code> <span class="quiet">(\d+)</span>', cells)
        tokens = [(token.translate({ord("␣"): " ", ord("↵"): "\n"}), share) for token, share in likely]
        kept = [f"{token!r} {share}%" for rank, (token, share) in enumerate(tokens) if rank == 0 or share != "0"]
        lines.append(f"latent {step}: {'  '.join(kept)}")
    assert said == "\n".join(lines)
