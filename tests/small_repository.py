"""A repository with one stage, two systems and one input, to try on it what every stage does."""

from pathlib import Path

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
      - "texts/${item.task}.txt"
      - stages/write.py
    outs:
      - "artifacts/written/${item.task}/${item.system}"
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

from qthink_core import stage
from qthink_core.settings import Section


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


def make(root: Path) -> Path:
    """Writes the repository into an existing folder."""
    for name, text in {
        "dvc.yaml": DVC_YAML,
        "params.yaml": PARAMS,
        "params/small.yaml": "cpu_threads: 1\ncpu_kernels: portable\n",
        "stages/__init__.py": "",
        "stages/write.py": PAGE,
        "texts/gsm8k.txt": "text",
    }.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    return root
