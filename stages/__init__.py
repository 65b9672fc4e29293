"""One file per stage of the graph: its parameters, its inputs and outputs, and the calls into `qthink_core`."""

import importlib.util
import os
import sys
from pathlib import Path

# `make demo` keeps a process that has imported the packages of all stages; it then runs the stage instead of this process.
# The module is imported by name so that it is not part of the stage's code: no result depends on it.
if os.environ.get("QTHINK_WARM"):
    importlib.import_module("qthink_core.running.warm").hand_over()

# Without an activated environment, `.venv/bin/dvc repro` starts stages with the first `python` on the PATH.
_OWN = Path(__file__).parents[1] / ".venv" / "bin" / "python"
if not all(importlib.util.find_spec(name) for name in ("pydantic", "ruamel", "torch", "peft")):
    if not _OWN.exists() or _OWN in (Path(sys.executable), Path(sys.prefix) / "bin" / "python"):
        sys.exit("qthink: this Python lacks the project's packages: run `make demo`, or `source .venv/bin/activate` first")
    os.execv(_OWN, [str(_OWN), *sys.orig_argv[1:]])
