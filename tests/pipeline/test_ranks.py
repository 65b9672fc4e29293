"""Several processes for one stage, on this machine's CPU: started by the real `accelerate launch` or `torchrun`, or forked.

A start of accelerate takes twice as long, so torchrun is what starts ranks where either would do.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ranked_training
import torch
from imports import ROOT
from safetensors.torch import load_file, save_file
from small_repository import PAGE, edit_page, make

from qthink_core.artifacts import store
from qthink_core.errors import DataError, ParamError, UnavailableError
from qthink_core.models import loading
from qthink_core.pipeline import ranks
from qthink_core.pipeline.ranks import LostError
from qthink_core.training.loop import deal

ACCELERATE, TORCHRUN = (Path(sys.executable).with_name(name) for name in ("accelerate", "torchrun"))
PATHS = os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])
# Four starts of Python with torch, one after the other where a machine has one core.
PATIENCE_S = 240.0
WITHIN_A_MINUTE_S = 60.0
BOX = "write@gsm8k-short"
OUT = Path("artifacts/written/gsm8k/short")
K, D, N_STEPS = 2, 32, 9
RECIPE = {
    "lr": 2e-4,
    "lr_multiplier": 20.0,
    "epochs": 3,
    "batch": 4,
    "micro_batch": 1,
    "warmup": 0.3,
    "weight_decay": 0.01,
    "clip": 1.0,
    "target": "rollout",
    "cross_entropy": "tokens",
    "end_token": "only_if_whole",
    "answer_max_tokens": 256,
    "prompt_max_tokens": 512,
    "lora": {"r": 4, "alpha": 8, "merged": False, "targets": ["q_proj", "down_proj"]},
}
# float32 sums in another order: a relative 1e-7 of each gradient and, through the steps so far, of the losses. Where a
# gradient is almost nothing Adam's first steps are lr * its sign, so a weight may be off by a part of lr (4e-3).
LOSS_TOLERANCE = 1e-5
WEIGHT_TOLERANCE = 1e-3 * 4e-3


def test_every_micro_batch_is_dealt_once_and_one_process_takes_them_as_they_come() -> None:
    groups = [[i] for i in range(11)]
    assert deal(groups, 0, 1) == groups
    for world in (2, 3, 8, 20):
        hands = [deal(groups, rank, world) for rank in range(world)]
        assert sorted(group for hand in hands for group in hand) == groups
        assert max(map(len, hands)) - min(map(len, hands)) <= 1


def test_long_and_short_micro_batches_are_dealt_alike() -> None:
    # of lengths 1..16, from shortest to longest, each of eight ranks gets two that sum to 17
    groups = [[length] for length in range(1, 17)]
    assert [sum(map(sum, deal(groups, rank, 8))) for rank in range(8)] == [17] * 8
    # one too many goes to the rank that has the shortest
    assert [deal([[1], [2], [9]], rank, 2) for rank in (0, 1)] == [[[9]], [[1], [2]]]


@pytest.fixture
def folder(tmp_path: Path, student: Callable[..., Any], qwen3: Callable[..., Any], questions: list[list[int]]) -> Path:
    """A training of nine steps on nine problems; every third step has one micro-batch, so that a rank has none."""
    base = qwen3()
    base.save_pretrained(tmp_path / "base")
    made = student(K, base=base)
    save_file({name: value.detach().clone() for name, value in made.trained().items()}, tmp_path / "student.safetensors")
    rng = np.random.default_rng(0)
    targets = [rng.integers(0, 256, int(rng.integers(1, 9))).tolist() for _ in range(8)]
    case = {
        "K": K,
        "device": "cpu",
        "dtype": "float32",
        "recipe": RECIPE,
        "examples": [(f"p{i}", questions[i], target) for i, target in enumerate([*targets, []])],
        "teachers": {f"p{i}": rng.standard_normal((K, D)).tolist() for i in range(1, 9)},
        "killed": {},
    }
    (tmp_path / "case.json").write_text(json.dumps(case))
    return tmp_path


def change(folder: Path, **fields: Any) -> None:
    """Rewrites a part of the case."""
    case = json.loads((folder / "case.json").read_text())
    (folder / "case.json").write_text(json.dumps(case | fields))


BY_ACCELERATE = (str(ACCELERATE), "launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0")
BY_TORCHRUN = (str(TORCHRUN), "--nproc_per_node", "2", "--standalone")


def launched(folder: Path, *launcher: str) -> subprocess.CompletedProcess[str]:
    """The training under two processes that the launcher starts."""
    return subprocess.run(
        [*launcher, str(ROOT / "tests" / "ranked_training.py"), str(folder)],
        env=os.environ | {"PYTHONPATH": PATHS},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(folder / f"{name}.safetensors")


UNBROKEN: dict[str, Path] = {}


def unbroken(folder: Path, cross_entropy: str) -> Path:
    """The folder of a whole training under two processes: this one for the first test that compares with it."""
    if cross_entropy not in UNBROKEN:
        change(folder, recipe=RECIPE | {"cross_entropy": cross_entropy})
        if cross_entropy == "tokens":
            done = launched(
                folder, *BY_ACCELERATE, "--mixed_precision", "bf16"
            )  # which params do not say, and so nobody obeys
            assert done.returncode == 0, done.stderr
        else:
            assert ranked_training.two_forks(folder, PATIENCE_S) == [0, 0]
        (folder / "work").rename(folder / "work-of-two")
        UNBROKEN[cross_entropy] = folder
    return UNBROKEN[cross_entropy]


@pytest.mark.slow
@pytest.mark.timeout(2 * PATIENCE_S)
@pytest.mark.parametrize("cross_entropy", ["tokens", "problems"])
def test_two_processes_train_as_one_does_and_end_with_the_same_bytes_as_each_other(folder: Path, cross_entropy: str) -> None:
    two = unbroken(folder, cross_entropy)
    for suffix in ("json", "safetensors"):
        assert (two / f"rank-0-of-2.{suffix}").read_bytes() == (two / f"rank-1-of-2.{suffix}").read_bytes()
    change(folder, recipe=RECIPE | {"cross_entropy": cross_entropy})
    losses = ranked_training.run(folder)
    assert len(losses) == N_STEPS
    for one, other in zip(losses, json.loads((two / "rank-0-of-2.json").read_text()), strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert other[key] == pytest.approx(value, rel=LOSS_TOLERANCE), (one["step"], key)
    expected = weights(folder, "rank-0-of-1")
    for name, value in weights(two, "rank-0-of-2").items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=WEIGHT_TOLERANCE, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.timeout(2 * PATIENCE_S)
def test_two_gpus_train_a_bfloat16_model_and_end_with_the_same_bytes_as_each_other(folder: Path) -> None:
    change(folder, device="cuda", dtype="bfloat16")
    losses = ranked_training.run(folder)
    (folder / "work").rename(folder / "work-of-one")
    done = launched(folder, *BY_ACCELERATE)
    assert done.returncode == 0, done.stderr
    found = [(folder / f"rank-{rank}-of-2.safetensors").read_bytes() for rank in (0, 1)]
    assert found[0] == found[1]
    assert {value.dtype for value in weights(folder, "rank-0-of-2").values()} == {torch.float32}
    # before the first step the weights are the same; afterwards bfloat16 magnifies what differs
    first = json.loads((folder / "rank-0-of-2.json").read_text())[0]
    assert first["cross_entropy"] == pytest.approx(losses[0]["cross_entropy"], rel=LOSS_TOLERANCE)


@pytest.mark.slow
@pytest.mark.timeout(3 * PATIENCE_S)
def test_a_killed_rank_ends_the_other_within_a_minute_and_the_next_run_goes_on_to_the_same_bytes(folder: Path) -> None:
    change(folder, killed={"rank": 1, "step": 5})
    done = launched(folder, *BY_TORCHRUN)
    assert time.time() - (folder / "ending").stat().st_mtime < WITHIN_A_MINUTE_S
    assert done.returncode != 0
    assert re.search(r"rank\s*: 1 \(local_rank: 1\)\s+exitcode\s*: -9", done.stderr), done.stderr
    assert [path.name for path in (folder / "work").rglob("checkpoint-*.safetensors")] == ["checkpoint-0000004.safetensors"]
    change(folder, killed={})
    assert ranked_training.two_forks(folder, PATIENCE_S) == [0, 0]
    resumed = [(folder / f"rank-{rank}-of-2.safetensors").read_bytes() for rank in (0, 1)]
    (folder / "work").rename(folder / "work-resumed")
    whole = unbroken(folder, "tokens")
    assert resumed == [(whole / f"rank-{rank}-of-2.safetensors").read_bytes() for rank in (0, 1)]


@pytest.mark.slow
def test_a_loss_that_is_not_finite_on_one_rank_stops_both_with_the_same_words(folder: Path) -> None:
    case = json.loads((folder / "case.json").read_text())
    change(folder, teachers=case["teachers"] | {"p3": [[float("nan")] * D] * K})
    assert ranked_training.two_forks(folder, PATIENCE_S) == [1, 1]
    said = {(folder / f"rank-{rank}-of-2.error").read_text() for rank in (0, 1)}
    (line,) = said
    assert re.match(
        r"NumericError: rank [01]: the loss of step [0-2] is nan on (p\d, )?p3(, p\d)?: lower train.lr, or", line
    )
    assert not list(folder.glob("rank-*.safetensors"))


GLOO = "[/gloo/transport/tcp/pair.cc:537] "
NCCL = "NCCL error in: /NCCLUtils.cpp:94, "
RESET = "Read error [127.0.0.1]:17327: Connection reset by peer"
GO_ON = "; finished units are kept, `dvc repro` continues"


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (RuntimeError(f"{GLOO}{RESET}. This is typically"), LostError, f"the other ranks have ended ({RESET}){GO_ON}"),
        (RuntimeError(f"{NCCL}remote process exited or there was a network error, NCCL version 2.27"), LostError, GO_ON),
        (
            RuntimeError(f"{NCCL}unhandled system error\nLast error:\nno device"),
            UnavailableError,
            "error; Last error:; no device)",
        ),
        (RuntimeError("failed to recv. Connection was likely closed. Did the remote server crash?"), LostError, GO_ON),
        (torch.OutOfMemoryError("CUDA out of memory."), torch.OutOfMemoryError, "CUDA out of memory."),
    ],
)
def test_only_ranks_that_went_away_are_said_to_have_gone(
    monkeypatch: pytest.MonkeyPatch, error: RuntimeError, kind: type[Exception], said: str
) -> None:
    def fail(*_: Any) -> None:
        raise error

    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.distributed, "all_reduce", fail)
    with pytest.raises(kind) as found:
        ranks.barrier()
    assert said in str(found.value)
    assert type(found.value) is kind


def test_a_port_that_is_taken_is_no_rank_that_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(taken.getsockname()[1])}
        for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", **meeting}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(
            UnavailableError, match=r"^the ranks cannot reach each other \(.*address already in use\): set GLOO_SOCK"
        ):
            ranks.join()


DEALT = (
    PAGE.partition("def run")[0]
    + """
from qthink_core.pipeline import ranks
from qthink_core.errors import DataError


def run(params, at, work):
    import os

    Path(f"pid-{ranks.rank()}").write_text(str(os.getpid()))
    unit = f"unit-{ranks.rank()}"
    if Path("fail").exists() and ranks.rank() == 1:
        Path("ending").touch()
        raise DataError("row 7 is bad: fix it")
    while Path("pause").exists():
        time.sleep(0.01)
    work.commit(unit, {f"{unit}.txt": f"{unit} of {ranks.world()}".encode()}, {"units": 1})
    ranks.barrier()
    made = work.publish(
        Path("artifacts/written", at.task, at.system), "written", [f"unit-{one}" for one in range(ranks.world())]
    )
    return f"{made.counts['units']} units"


if __name__ == "__main__":
    stage.main("write", run, launchable=True)
"""
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make(tmp_path)
    edit_page(tmp_path, DEALT)
    return tmp_path


def start(root: Path, launcher: str | None, *command: str) -> subprocess.Popen[str]:
    environ = os.environ | {"DVC_STAGE": BOX, "PYTHONPATH": PATHS, "PATH": f"{ACCELERATE.parent}:{os.environ['PATH']}"}
    environ |= {} if launcher is None else {"QTHINK_LAUNCH": launcher}
    return subprocess.Popen(
        [*command, sys.executable, "-m", "stages.write"],
        cwd=root,
        env=environ,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run(root: Path, launcher: str | None) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of a whole run."""
    process = start(root, launcher)
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, err


TWO = "accelerate launch --num_processes 2 --cpu --main_process_port 0"
TWO_BY_TORCHRUN = "torchrun --nproc_per_node 2 --standalone"


@pytest.mark.slow
def test_a_stage_is_run_by_as_many_ranks_as_its_launcher_starts_and_published_once(root: Path) -> None:
    code, out, err = run(root, TWO)
    assert code == 0, err
    assert re.fullmatch(rf"{BOX}: 2 units \(\d+ s\)\n", out)
    assert store.read_manifest(root / OUT, "written").counts == {"units": 2}
    assert (root / OUT / "unit-1.txt").read_text() == "unit-1 of 2"
    assert len((root / "logs" / "runs.jsonl").read_text().splitlines()) == 1


@pytest.mark.slow
def test_without_a_launcher_and_under_one_of_a_single_process_a_stage_is_one_process(root: Path) -> None:
    for launcher in (None, "accelerate launch --num_processes 1 --cpu"):
        code, out, err = run(root, launcher)
        assert (code, out[: len(BOX) + 9]) == (0, f"{BOX}: 1 units"), err
        assert [path.name for path in sorted((root / OUT).iterdir())] == ["manifest.json", "unit-0.txt"]


def test_a_stage_of_one_process_loads_no_torch(root: Path) -> None:
    edit_page(root, DEALT.replace("    made =", '    import sys\n\n    assert "torch" not in sys.modules\n    made ='))
    assert run(root, None)[0] == 0


@pytest.mark.slow
def test_a_rank_that_fails_is_named_and_ends_the_others(root: Path) -> None:
    (root / "fail").touch()
    code, out, err = run(root, TWO_BY_TORCHRUN)
    assert time.time() - (root / "ending").stat().st_mtime < WITHIN_A_MINUTE_S
    assert (code, out) == (1, "")  # the launcher's; the stage's own is in its report
    assert f"{BOX}: rank 1: row 7 is bad: fix it\n" in err
    assert re.search(r"exitcode\s*: 65", err)
    assert not (root / OUT).exists()


@pytest.mark.slow
def test_machines_with_a_launcher_each_make_one_group(root: Path) -> None:
    """As `srun` starts them: the launcher's options are filled in on each machine, here twice on this one."""
    port = free_port()
    launch = f'torchrun --nnodes 2 --nproc_per_node 1 --node_rank $rank --master_addr 127.0.0.1 --master_port {port} "$@"'
    code, out, err = run(root, f"sh -c 'for rank in 0 1; do {launch} & done; wait' launch")
    assert code == 0, err
    assert out.startswith(f"{BOX}: 2 units (")
    assert {file.name for file in (root / OUT).iterdir()} == {"manifest.json", "unit-0.txt", "unit-1.txt"}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_a_rank_that_does_not_see_the_work_folder_of_rank_0_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"work/0{16}, which rank 0 opened, is missing here: start all ranks in one folder"):
        ranks.JoinedWork(tmp_path / "work", "0" * 64)


def test_a_rank_takes_the_gpu_of_its_number_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    assert loading.pick_device("cuda") == torch.device("cuda")
    for name, value in (("RANK", "11"), ("WORLD_SIZE", "16"), ("LOCAL_RANK", "3")):
        monkeypatch.setenv(name, value)
    assert loading.pick_device("cuda") == torch.device("cuda", 3)
    assert taken == [3]
    monkeypatch.setenv("LOCAL_RANK", "4")
    said = "rank 11 is process 4 of its machine, where torch sees 4 GPUs: launch as many processes as there are GPUs"
    with pytest.raises(ParamError, match=said):
        loading.pick_device("cuda")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a process with its parent")
def test_launcher_and_ranks_die_with_the_process_that_started_them(root: Path) -> None:
    (root / "pause").touch()
    program = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    parent = start(root, TWO, sys.executable, "-c", program)
    files = [root / "pid-0", root / "pid-1"]
    try:
        end = time.monotonic() + PATIENCE_S
        while not all(file.exists() and file.read_text() for file in files):
            assert parent.poll() is None, parent.stderr.read()
            assert time.monotonic() < end
            time.sleep(0.05)
        pids = [int(file.read_text()) for file in files]
        parent.send_signal(signal.SIGKILL)
        parent.wait(PATIENCE_S)
        end = time.monotonic() + WITHIN_A_MINUTE_S
        while any(map(running, pids)):
            assert time.monotonic() < end, "a rank lives on without the process that started its launcher"
            time.sleep(0.05)
    finally:
        (root / "pause").unlink()
        parent.kill()
        parent.communicate(timeout=PATIENCE_S)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("launcher", ["", "acelerate launch --num_processes 2", "accelerate 'launch"])
def test_a_launcher_that_is_no_program_is_refused_in_one_line(root: Path, launcher: str) -> None:
    code, out, err = run(root, launcher)
    assert (code, out) == (2, "")
    assert err.startswith(f"{BOX}: QTHINK_LAUNCH is {launcher!r}, which is not a program on the path: give ")
    assert err.count("\n") == 1


@pytest.mark.slow
def test_accelerate_that_starts_one_process_instead_of_several_is_not_taken_for_them(root: Path) -> None:
    environ = os.environ | {"DVC_STAGE": BOX, "PYTHONPATH": PATHS}
    command = [str(ACCELERATE), "launch", "--num_processes", "2", "--cpu", "-m", "stages.write"]
    done = subprocess.run(command, cwd=root, env=environ, text=True, capture_output=True, timeout=PATIENCE_S, check=False)
    assert done.returncode != 0
    assert f"{BOX}: accelerate started one process instead of several: add --multi_gpu" in done.stderr


@pytest.mark.slow
def test_a_stage_that_cannot_use_ranks_refuses_them_and_ignores_the_launcher(root: Path) -> None:
    edit_page(root, PAGE)
    assert run(root, TWO)[0] == 0
    environ = os.environ | {"DVC_STAGE": BOX, "PYTHONPATH": PATHS, "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}
    command = [sys.executable, "-m", "stages.write"]
    done = subprocess.run(command, cwd=root, env=environ, text=True, capture_output=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 2
    assert done.stderr == f"{BOX}: rank 0: write runs in one process, found 2: start it without a launcher\n"
