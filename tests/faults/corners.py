"""Environments in which the pipeline has to make the same bytes, and fresh clones of one commit to run it in."""

import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from workplaces import HALTING, Workplace

CLOCK = Path(__file__).with_name("clock.c")
# What each factor is at its second level; at the first it is as in `Workplace`.
FACTORS = ("time zone", "locale", "umask", "hash seed", "clock", "path", "temporary folder", "terminal", "user", "threads")
# Six rows in which every pair of levels of every two of ten factors occurs: the columns are the ten choices of three of the
# last five rows (Kleitman and Spencer, Families of k-independent sets, 1973). The first row has every first level.
CHOICES = list(itertools.combinations(range(1, 6), 3))
ROWS = [[int(row in chosen) for chosen in CHOICES] for row in range(6)]
LATIN = "de_DE.ISO-8859-1"
# A processor without AVX-512, for the libraries that choose their code by what they find: NumPy, Arrow and glibc.
OLDER = {
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL",
    "ARROW_USER_SIMD_LEVEL": "AVX2",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX512DQ,-AVX512CD",
}


class Corner(NamedTuple):
    """An environment by its factors at their second levels, and the jobs of `qthink run`; None stands for `dvc repro`."""

    name: str
    other: frozenset[str]
    jobs: int | None
    further: Mapping[str, str] = {}


def corners() -> list[Corner]:
    """The corners: row 1 is the reference, and a second clone has the same environment."""
    found = [
        Corner(f"row {number}", frozenset(itertools.compress(FACTORS, row)), 1 + number % 2)
        for number, row in enumerate(ROWS[1:], 2)
    ]
    return [
        Corner("reference", frozenset(), None),
        Corner("second clone", frozenset(), 2),
        *found,
        Corner("without AVX-512", frozenset(), 2, OLDER),
    ]


class Made(NamedTuple):
    """What a run left: dvc.lock, the files of the report, and its seconds."""

    lock: bytes
    results: dict[str, bytes]
    seconds: float


def origin(folder: Path) -> Path:
    """A repository at the nano scale with one commit, to clone."""
    folder.mkdir()
    return Workplace(folder).root


def run(source: Path, folder: Path, corner: Corner) -> Made:
    """Clones `source` and makes everything in the environment of a corner."""
    place = folder / ("mit Leerzeichen, Ümläuten" if "path" in corner.other else "plain")
    place.mkdir(parents=True)
    root = place / "repository"
    subprocess.run(["git", "clone", "--quiet", str(source), str(root)], check=True)
    program = ["dvc", "repro"]
    if corner.jobs is not None:
        program = [sys.executable, "-m", "qthink_core.cli", "run", "--jobs", str(corner.jobs)]
    began = time.monotonic()
    done = subprocess.run(
        program,
        cwd=root,
        env=environment(place, corner),
        umask=0o077 if "umask" in corner.other else 0o022,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    seconds = time.monotonic() - began
    assert done.returncode == 0, f"{corner}: {done.stdout.decode(errors='replace')}"
    files = sorted(file for file in (root / "results").rglob("*") if file.is_file())
    made = Made(
        (root / "dvc.lock").read_bytes(), {str(file.relative_to(root)): file.read_bytes() for file in files}, seconds
    )
    shutil.rmtree(place)
    return made


def environment(place: Path, corner: Corner) -> dict[str, str]:
    """The variables of a corner, with nothing of the user who runs the tests."""
    other = corner.other
    names = ("home", "temporary") if "temporary folder" not in other else ("home", f"zeitweilig, für Ümläute, {'lang' * 20}")
    home, temporary = (place / name for name in names)
    for made in (home, temporary):
        made.mkdir()
    found = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"]),
        "HOME": str(home),
        "DVC_SITE_CACHE_DIR": str(place / "site"),
        "DVC_NO_ANALYTICS": "1",
        "QTHINK_CHECKPOINT_EVERY": "1",
        "PYTHONPATH": str(HALTING),
        "TMPDIR": str(temporary),
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "TZ": "UTC",
    }
    if "time zone" in other:
        found |= {"TZ": "Asia/Kathmandu"}
    if "locale" in other:
        del found["LANG"]
        found |= latin(place)
    if "hash seed" in other:
        found |= {"PYTHONHASHSEED": "4294967295"}
    if "clock" in other:
        found |= {"LD_PRELOAD": str(shifted_clock(place)), "CLOCK_OFFSET_S": str(1000 * 86400)}
    if "terminal" in other:
        found |= {"COLUMNS": "20", "LINES": "5", "TERM": "dumb", "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}
    if "user" in other:
        found |= {"USER": "jürgen", "LOGNAME": "jürgen", "XDG_CACHE_HOME": str(place / "cache"), "MALLOC_PERTURB_": "165"}
    if "threads" in other:
        found |= dict.fromkeys(
            ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "RAYON_NUM_THREADS"), "4"
        )
        found |= {"MKL_DYNAMIC": "TRUE", "MKL_CBWR": "COMPATIBLE", "ATEN_CPU_CAPABILITY": "default"}
    return found | dict(corner.further)


def latin(place: Path) -> dict[str, str]:
    """A locale with a decimal comma whose encoding has 256 characters; where it cannot be made, ASCII."""
    made = place / LATIN
    command = ["localedef", "--inputfile=de_DE", "--charmap=ISO-8859-1", str(made)]
    if shutil.which("localedef") and not subprocess.run(command, capture_output=True, check=False).returncode:
        return {"LOCPATH": str(place), "LC_ALL": LATIN}
    return {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


def shifted_clock(place: Path) -> Path:
    """The library that shifts the clock; it needs a C compiler."""
    library = place / "clock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(CLOCK), "-ldl"], check=True)
    return library
