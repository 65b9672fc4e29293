"""Stages as forks of the warm server: nobody sees a difference but in time, whoever is killed."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from small_repository import PAGE, edit_page, fingerprint, make_with_core

from qthink_core.pipeline import process
from qthink_core.running import warm

pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="the warm server is for Linux"), pytest.mark.slow]
BOX = "write@gsm8k-short"
OUT = Path("artifacts/written/gsm8k/short")
# The server's imports take six seconds of processor time, and the machine may be under load.
PATIENCE_S = 120.0
STARTED: list[subprocess.Popen[str]] = []
# A stage that says what Python and torch are like where it runs.
SEEN = """
import json, os, random, signal, sys, threading
from pathlib import Path

from qthink_core.pipeline import process, stage
from qthink_core.pipeline.parameters import Section
import qthink_core.errors


class Params(Section):
    cpu_threads: int
    cpu_kernels: str


def run(params, at, work):
    import numpy, torch
    mask = os.umask(0)
    os.umask(mask)
    seen = {
        "argv": sys.argv, "orig_argv": sys.orig_argv[1:], "path": sys.path, "cwd": os.getcwd(), "umask": mask,
        "name": __name__, "main": sys.modules["__main__"].__dict__ is globals(),
        "environ": {name: value for name, value in os.environ.items() if name != "QTHINK_PARENT"},
        "descriptors": sorted(os.listdir("/proc/self/fd")),
        "links": [os.readlink(f"/proc/self/fd/{n}") for n in (0, 1, 2)],
        "buffered": [sys.stdout.line_buffering, sys.stderr.line_buffering],
        "signals": [str(signal.getsignal(n)) for n in (signal.SIGCHLD, signal.SIGHUP, signal.SIGPIPE)],
        "threads": [threading.active_count(), torch.get_num_threads(), torch.get_num_interop_threads()],
        "torch": [torch.are_deterministic_algorithms_enabled(), str(torch.get_default_dtype()),
                  torch.is_grad_enabled(), torch.backends.mkldnn.enabled, torch.get_float32_matmul_precision(),
                  torch.backends.cpu.get_cpu_capability()],
    }
    Path(os.environ["SEEN"]).write_text(json.dumps(seen))
    Path(os.environ["SEEN"] + ".own").write_text(json.dumps([random.random(), numpy.random.rand(), torch.rand(1).item()]))
    work.commit("unit", {"file": b""})
    work.publish(Path("artifacts/collected", at.task), "collected", ["unit"])
    return "what is seen"


if __name__ == "__main__":
    stage.main("collect", run)
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with warm.server(1, "avx2") as path:
        yield path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_with_core(tmp_path)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Ends what a test started, however the test ended."""
    yield
    for one in STARTED:
        one.kill()
        with one:  # closes its pipes and waits
            pass
    STARTED.clear()


def program(command: list[str], root: Path, environ: Mapping[str, str] = os.environ) -> subprocess.Popen[str]:
    """Started there; the kernel ends it with this process."""
    running = subprocess.Popen(
        command,
        cwd=root,
        env=environ,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=process.die_with_parent,
    )
    STARTED.append(running)
    return running


def start(root: Path, place: Path | None, box: str = BOX, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", f"stages.{box.partition('@')[0]}"]
    named = {} if place is None else {warm.PLACE: str(place)}
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "OMP_NUM_THREADS")}
    return program(command, root, environ | {"DVC_STAGE": box} | named | environment)


def run(root: Path, place: Path | None, box: str = BOX, **environment: str) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of a whole run."""
    running = start(root, place, box, **environment)
    out, err = running.communicate(timeout=PATIENCE_S)
    return running.returncode, out, err


def wait_for(happens: object, what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not happens():  # type: ignore[operator]
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.01)


def wait_for_unit(root: Path, running: subprocess.Popen[str]) -> None:
    """Until a stage has committed its first unit; fails at once when what started it has ended."""
    wait_for(lambda: (root / "ready").exists() or running.poll() is not None, "the first unit")
    assert running.poll() is None, running.communicate()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def fork_of(root: Path, box: str = BOX) -> int:
    """The process that holds the lock of a box."""
    return int((root / ".work" / f"{box}.lock").read_text())


@pytest.fixture
def paused(root: Path, place: Path) -> subprocess.Popen[str]:
    """The client of a fork that has committed its first unit and waits."""
    (root / "pause").touch()
    client = start(root, place)
    wait_for_unit(root, client)
    assert fork_of(root) != client.pid, "it runs cold"
    return client


def published(root: Path, folder: Path = OUT) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((root / folder).iterdir())}


def test_a_fork_says_and_leaves_what_a_cold_stage_does(root: Path, place: Path) -> None:
    cold = run(root, None)
    first = published(root)
    shutil.rmtree(root / "artifacts/written")
    warmed = run(root, place)
    assert (cold[0], warmed[0], cold[2], warmed[2]) == (0, 0, "", "")
    assert warmed[1].startswith(f"{BOX}: two units (")
    assert published(root) == first


def seen(root: Path, place: Path | None, **environment: str) -> tuple[dict[str, object], list[float]]:
    shutil.rmtree(root / "artifacts/collected", ignore_errors=True)
    code, _, err = run(root, place, "collect@gsm8k", SEEN=str(root / "seen"), **environment)
    assert code == 0, err
    return json.loads((root / "seen").read_text()), json.loads((root / "seen.own").read_text())


def comparable(found: Mapping[str, object]) -> dict[str, object]:
    """Without the names of the pipes, which are each run's own, and without the path of the server."""
    environ = {name: value for name, value in dict(found["environ"]).items() if name != warm.PLACE}  # type: ignore[call-overload]
    return dict(found) | {"links": [str(one).partition(":")[0] for one in found["links"]], "environ": environ}  # type: ignore[attr-defined]


def test_a_fork_sees_the_same_process_as_a_cold_stage_and_random_numbers_of_its_own(root: Path, place: Path) -> None:
    (root / "stages/collect.py").write_text(SEEN)
    fingerprint(root)
    for box in (BOX, "write@gsm8k-long"):
        run(root, None, box)
    cold, _ = seen(root, None, EXTRA="\udcff ü", TZ="Asia/Kathmandu")
    warmed, own = seen(root, place, EXTRA="\udcff ü", TZ="Asia/Kathmandu")
    assert comparable(warmed) == comparable(cold)
    assert warmed["descriptors"] == cold["descriptors"]
    again, others = seen(root, place)
    assert again["torch"] == cold["torch"]
    assert not set(own) & set(others)


def test_an_edit_of_a_stage_or_of_the_core_counts_at_once(root: Path, place: Path) -> None:
    assert run(root, place)[0] == 0
    edit_page(root, PAGE.replace('return "two units"', 'return "2 units"'))
    assert run(root, place)[1].startswith(f"{BOX}: 2 units (")
    core = root / "qthink_core/pipeline/stage.py"
    core.write_text(core.read_text().replace("{printable(made)} (", "edited {printable(made)} ("))
    fingerprint(root)
    assert run(root, place)[1].startswith(f"{BOX}: edited 2 units (")


def test_a_refusal_and_an_error_end_with_the_code_of_a_cold_stage(root: Path, place: Path) -> None:
    (root / "texts/gsm8k.txt").unlink()
    code, out, err = run(root, place)
    assert (code, out) == (65, "")
    assert err == run(root, None)[2]
    (root / "texts/gsm8k.txt").write_text("text")
    for last, expected in (
        ("raise RuntimeError('odd')", 1),
        ("os.kill(os.getpid(), 11)", -signal.SIGSEGV),
        ("os._exit(7)", 7),
    ):
        edit_page(root, PAGE.replace("def run(params, at, work):", f"def run(params, at, work):\n    import os\n    {last}"))
        assert run(root, place)[0] == run(root, None)[0] == expected


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [("cpu_threads", "1", "2"), ("cpu_kernels", "avx2", "native")],
)
def test_a_stage_of_other_threads_or_kernels_starts_cold_and_says_nothing_of_it(
    root: Path, place: Path, file: str, old: str, new: str
) -> None:
    (root / "params/small.yaml").write_text(
        (root / "params/small.yaml").read_text().replace(f"{file}: {old}", f"{file}: {new}")
    )
    (root / "pause").touch()
    client = start(root, place)
    wait_for_unit(root, client)
    assert fork_of(root) == client.pid
    (root / "pause").unlink()
    out, err = client.communicate(timeout=PATIENCE_S)
    assert (client.returncode, err) == (0, "")
    assert out.startswith(f"{BOX}: two units (")


@pytest.mark.parametrize("name", ["QTHINK_EXECUTOR", "MASTER_ADDR"])
def test_one_of_several_processes_starts_cold(root: Path, place: Path, name: str) -> None:
    (root / "pause").touch()
    client = start(root, place, **{name: "x"})
    wait_for_unit(root, client)
    assert fork_of(root) == client.pid


def test_without_a_server_at_the_place_a_stage_starts_cold(root: Path, tmp_path: Path) -> None:
    assert run(root, tmp_path / "nowhere")[0] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_client_stops_the_fork_which_keeps_its_units(
    root: Path, place: Path, paused: subprocess.Popen[str], number: signal.Signals
) -> None:
    paused.send_signal(number)
    out, err = paused.communicate(timeout=PATIENCE_S)
    assert (paused.returncode, out) == (75, "")
    assert err == f"{BOX}: stopped by {number.name}; finished units are kept, `dvc repro` continues from there\n"
    (root / "pause").unlink()
    assert run(root, place)[0] == 0
    assert (root / "computed").read_text().split() == ["first", "second"], "the first unit was not made twice"


def test_a_fork_is_killed_when_its_client_is(root: Path, place: Path, paused: subprocess.Popen[str]) -> None:
    fork = fork_of(root)
    paused.kill()
    wait_for(lambda: not alive(fork), "the end of the fork")
    assert not (root / OUT).exists()
    (root / "pause").unlink()
    assert run(root, place)[0] == 0, "the lock went with the process that held it"


def test_a_fork_is_killed_when_what_started_its_client_is(root: Path, place: Path) -> None:
    (root / "pause").touch()
    waits = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    shell = ["sh", "-c", 'QTHINK_PARENT=$PPID exec "$0" -m stages.write', sys.executable]
    starter = program([sys.executable, "-c", waits, *shell], root, os.environ | {"DVC_STAGE": BOX, warm.PLACE: str(place)})
    wait_for_unit(root, starter)
    fork = fork_of(root)
    assert alive(fork)
    starter.kill()
    starter.wait()
    wait_for(lambda: not alive(fork), "the end of the fork")


def test_a_client_whose_fork_is_killed_ends_in_the_same_way(root: Path, paused: subprocess.Popen[str]) -> None:
    os.kill(fork_of(root), signal.SIGKILL)
    assert paused.wait(PATIENCE_S) == -signal.SIGKILL


def own_server(root: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process with a server of its own, of few packages, and the place of that server."""
    holds = (
        "import time; from qthink_core.running import warm\n"
        "with warm.server(1, 'avx2') as place: print(place, flush=True); time.sleep(1000)"
    )
    starter = program([sys.executable, "-c", holds], root)
    assert starter.stdout
    place = Path(starter.stdout.readline().strip())
    assert place.is_socket(), starter.communicate()
    return starter, place


def child_of(pid: int) -> int:
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def test_fork_and_client_end_with_the_server_and_the_next_stage_starts_cold(root: Path) -> None:
    starter, place = own_server(root)
    (root / "pause").touch()
    client = start(root, place)
    wait_for_unit(root, client)
    fork = fork_of(root)
    assert fork != client.pid
    os.kill(child_of(starter.pid), signal.SIGKILL)
    _, err = client.communicate(timeout=PATIENCE_S)
    assert client.returncode == 75
    assert err == f"{BOX}: the warm server, which ran this stage, has ended: run `dvc repro` again\n"
    wait_for(lambda: not alive(fork), "the end of the fork")
    assert not (root / OUT).exists()
    (root / "pause").unlink()
    assert run(root, place)[0] == 0
    shutil.rmtree(place.parent)


def test_the_server_ends_with_the_process_that_started_it(root: Path) -> None:
    starter, place = own_server(root)
    assert place.parent.stat().st_mode & 0o777 == 0o700
    (root / "pause").touch()
    client = start(root, place)
    wait_for_unit(root, client)
    fork = fork_of(root)
    assert fork != client.pid
    starter.kill()
    assert client.wait(PATIENCE_S) == 75
    wait_for(lambda: not alive(fork), "the end of the fork")
    shutil.rmtree(place.parent)


def test_stages_run_side_by_side(root: Path, place: Path, paused: subprocess.Popen[str]) -> None:
    (root / "pause").rename(root / "waits")
    (root / "waits").rename(root / "pause")
    other = start(root, place, "write@gsm8k-long")
    (root / "pause").unlink()
    assert [one.communicate(timeout=PATIENCE_S)[1] for one in (paused, other)] == ["", ""]
    assert (paused.returncode, other.returncode) == (0, 0)


def test_the_end_without_a_word_is_no_code_of_a_refusal() -> None:
    from qthink_core import errors

    codes = {one.exit_code for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.QThinkError)}
    assert process.COLD not in {0, *codes}


def test_where_pidfd_open_is_refused_no_server_starts() -> None:
    program = """
import os, sys
from qthink_core.running import warm_server
def refused(pid):
    raise PermissionError(1, "Operation not permitted")
os.pidfd_open = refused
sys.argv = ["warm_server", "0", "1", "avx2"]
warm_server.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    said = "qthink: this kernel or container refuses pidfd_open (Operation not permitted): stages start cold\n"
    assert (done.returncode, done.stderr) == (1, said)


def test_a_socket_in_a_folder_with_a_long_name_can_be_reached(tmp_path: Path) -> None:
    folder = tmp_path / ("ä" * 100) / ("ö" * 100)
    folder.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        with pytest.raises(OSError, match="too long"):
            listener.bind(str(folder / "warm"))
        with warm.short_name(folder / "warm") as name:
            listener.bind(name)
        listener.listen()
        with warm.short_name(folder / "warm") as name:
            client.connect(name)
    assert (folder / "warm").is_socket()
