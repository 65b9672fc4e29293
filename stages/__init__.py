"""One page per stage of the graph: its parameters, what it reads, what it writes, one call into `qthink_core`."""

import importlib.util
import os
import sys
from pathlib import Path

# `make demo` keeps a process that has the packages of all stages imported: this one then needs none of them. Found by its
# name, since no result depends on it.
if os.environ.get("QTHINK_WARM"):
    importlib.import_module("qthink_core.demo.warm").hand_over()

# `.venv/bin/dvc repro` without an activated environment starts stages with whatever `python` is first on the PATH.
_OWN = Path(__file__).parents[1] / ".venv" / "bin" / "python"
if not all(importlib.util.find_spec(name) for name in ("pydantic", "ruamel", "torch", "peft")):
    if not _OWN.exists() or _OWN in (Path(sys.executable), Path(sys.prefix) / "bin" / "python"):
        sys.exit("qthink: this Python lacks the project's packages: run `make demo`, or `source .venv/bin/activate` first")
    os.execv(_OWN, [str(_OWN), *sys.orig_argv[1:]])
