"""A training out of a folder, run by a test itself, by each rank of a launcher, or by two ranks that a test forks.

A launcher starts `python tests/ranked_training.py folder`; ranks are forked from a process that has imported all this.

The folder holds `base`, `student.safetensors` (what is trained, as it starts) and `case.json`; the work folder `work` and,
for each rank, its weights, losses and the error that stopped it are written beside them.
"""

import json
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from artifact_folders import work
from safetensors.torch import load_file, save_file

from qthink_core.errors import QThinkError
from qthink_core.method.losses import Objective
from qthink_core.method.student import Student
from qthink_core.method.targets import Example
from qthink_core.models import loading
from qthink_core.pipeline import ranks
from qthink_core.pipeline.recipe import Recipe
from qthink_core.training.loop import train


def steps(planned: Iterator[int], killed: dict[str, int], folder: Path) -> Iterator[int]:
    """The steps; the rank that is to be killed is killed before its step, which the time of a file `ending` tells."""
    for step in planned:
        if killed == {"rank": ranks.rank(), "step": step}:
            (folder / "ending").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        yield step


def run(folder: Path) -> list[dict[str, Any]]:
    """Trains and returns the losses."""
    case = json.loads((folder / "case.json").read_text())
    device = loading.pick_device(case["device"])
    recipe = Recipe.model_validate(case["recipe"])
    lora = recipe.lora
    made = Student(
        loading.load_model(folder / "base", device, case["dtype"]),
        K=case["K"],
        seed=0,
        lora_r=lora.r,
        lora_alpha=lora.alpha,
        lora_targets=lora.targets,
    )
    made.load_state_dict(load_file(folder / "student.safetensors"), strict=False)
    if ranks.rank() > 0:
        with torch.no_grad():
            made.trained().popitem()[1].add_(1)  # what a rank starts from is rank 0's word
    fields = {name: np.array(values, np.float32) for name, values in case["teachers"].items()}
    if ranks.rank() == 0:
        place = work(folder)
    ranks.barrier()
    if ranks.rank() > 0:
        place = ranks.JoinedWork(folder / "work", "0" * 64)
    losses = train(
        made,
        [Example(*row) for row in case["examples"]],
        fields,
        recipe,
        Objective(2.0, "per_step", "mean", "l1", "tokens"),
        seed=5,
        pad_id=0,
        work=place,
        checkpoint_every=2,
        show=lambda planned, _: steps(planned, case["killed"], folder),
    )
    save_file(
        {name: value.detach().cpu().clone() for name, value in made.trained().items()}, folder / f"{called()}.safetensors"
    )
    (folder / f"{called()}.json").write_text(json.dumps(losses))
    return losses


def called() -> str:
    """What this process is called in the names of its files."""
    return f"rank-{ranks.rank()}-of-{ranks.world()}"


def main(folder: Path) -> None:
    """The training of one rank, which the environment names."""
    torch.set_num_threads(1)
    ranks.join()
    try:
        run(folder)
    except QThinkError as error:
        Path(folder, f"{called()}.error").write_text(f"{type(error).__name__}: {error}")
        if error.everywhere:  # both files are to be there before the launcher ends anyone
            ranks.barrier()
        raise
    ranks.leave()


def main_under(environment: dict[str, str], folder: Path) -> None:
    """As `main`, in a process that has been forked."""
    os.environ |= environment
    main(folder)


def two_forks(folder: Path, patience_s: float) -> list[int | None]:
    """The exit codes of a training by two ranks. A launcher costs ten times as much: it and each rank import torch."""
    context = multiprocessing.get_context("forkserver")
    # not this module: Python 3.11 starts the server without sys.path, and says nothing where it cannot import
    context.set_forkserver_preload([Student.__module__, train.__module__])
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    started = [
        context.Process(target=main_under, args=({**meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)}, folder))
        for rank in (0, 1)
    ]
    for one in started:
        one.start()
    for one in started:
        one.join(patience_s)
        one.kill()
        one.join()
    return [one.exitcode for one in started]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
