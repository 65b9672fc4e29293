"""A repository with a stage of two systems and one input, and a stage that collects them, to try what every stage does."""

import re
import shutil
from pathlib import Path

from imports import ROOT

from qthink_core.pipeline import code, layout

DVC_YAML = """\
stages:
  write:
    matrix:
      task: ${tasks}
      system: ${systems}
    cmd: python -m stages.write
    params:
      - seed
      - "systems.${item.system}"
      - "params/${scale}.yaml": [cpu_threads, cpu_kernels]
    deps:
      - artifacts/code/write.json
      - "texts/${item.task}.txt"
    outs:
      - "artifacts/written/${item.task}/${item.system}"
  collect:
    matrix:
      task: ${tasks}
    cmd: python -m stages.collect
    params:
      - systems
      - "params/${scale}.yaml": [cpu_threads, cpu_kernels]
    deps:
      - artifacts/code/collect.json
      - "artifacts/written/${item.task}"
    outs:
      - "artifacts/collected/${item.task}"
      - collected.md: {cache: false}
"""
PARAMS = """\
scale: small
tasks: [gsm8k]
seed: 0
systems:
  short: {words: one}
  long: {words: one two three}
"""
PAGE = '''\
"""write: two units. While a file named `pause` lies there, it waits after the first."""

import time
from pathlib import Path

from qthink_core.pipeline import stage
from qthink_core.pipeline.parameters import Section


class System(Section):
    words: str


class Params(Section):
    scale: str
    tasks: list[str]
    seed: int
    cpu_threads: int
    cpu_kernels: str
    systems: dict[str, System]


def run(params, at, work):
    for unit in ("first", "second"):
        if not work.done(unit):
            text = f"{Path('texts', at.task).with_suffix('.txt').read_text()} {params.systems[at.system].words} {unit}"
            work.commit(unit, {f"{unit}.txt": text.encode()}, {"units": 1})
            with Path("computed").open("a") as file:
                file.write(f"{unit}\\n")
        Path("ready").touch()
        while Path("pause").exists():
            time.sleep(0.01)
    work.publish(Path("artifacts/written", at.task, at.system), "written", ["first", "second"])
    return "two units"


if __name__ == "__main__":
    stage.main("write", run)
'''
COLLECT = '''\
"""collect: the names of all that was written."""

from pathlib import Path

from qthink_core.pipeline import stage
from qthink_core.pipeline.parameters import Section
from stages.write import System


class Params(Section):
    cpu_threads: int
    cpu_kernels: str
    systems: dict[str, System]


def run(params, at, work):
    names = sorted(path.name for path in Path("artifacts/written", at.task).iterdir())
    work.commit("names", {"names.txt": " ".join(names).encode()})
    work.publish(Path("artifacts/collected", at.task), "collected", ["names"])
    return f"{len(names)} names"


if __name__ == "__main__":
    stage.main("collect", run)
'''


def make(root: Path) -> Path:
    """Writes the repository into an existing folder."""
    for name, text in {
        "dvc.yaml": DVC_YAML,
        "params.yaml": PARAMS,
        "params/small.yaml": "cpu_threads: 1\ncpu_kernels: avx2\n",
        "stages/__init__.py": "",
        "stages/write.py": PAGE,
        "stages/collect.py": COLLECT,
        "texts/gsm8k.txt": "text",
    }.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    fingerprint(root)
    return root


def make_with_core(root: Path) -> Path:
    """The same with a core of its own, so that an edit of that is one of the test's.

    A server that is started there imports torch, which it needs for a fork, and not the other packages, which take it four
    seconds more of the processor.
    """
    make(root)
    shutil.copy(ROOT / "stages/__init__.py", root / "stages")
    shutil.copytree(ROOT / "qthink_core", root / "qthink_core")
    server = root / "qthink_core/running/warm_server.py"
    text, found = re.subn(r"^PACKAGES = \(\n.*?^\)$", 'PACKAGES = ("numpy", "torch")', server.read_text(), flags=re.M | re.S)
    assert found == 1
    server.write_text(text)
    fingerprint(root)
    return root


def fingerprint(root: Path) -> None:
    """Writes what the code of both stages says, as the stage before them would."""
    code.write(root / layout.CODE, {stage: code.of_stage(root, stage) for stage in ("write", "collect")})


def edit_page(root: Path, text: str) -> None:
    """Another page of the first stage, and what it says."""
    (root / "stages" / "write.py").write_text(text)
    fingerprint(root)
