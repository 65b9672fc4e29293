"""A few optimiser steps, a line each: how many tensors are trained, digests of all of them and of all their gradients.

`python tests/optimiser_steps.py kernels folder`: pre-training, then K latent steps on the model that it made, which is
written into `folder` and read from there, as the stages do it.
"""

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), *(str(ROOT / "tests" / package) for package in ("models", "training"))]

from qthink_core.pipeline import process  # noqa: E402

process.pin_numerics(1, sys.argv[1])

import torch  # noqa: E402
from artifact_folders import work  # noqa: E402
from test_pretraining import trained as pretrained  # noqa: E402
from test_training import OBJECTIVE, RECIPE  # noqa: E402
from torch.optim.optimizer import register_optimizer_step_pre_hook  # noqa: E402

from qthink_core.method.student import Student  # noqa: E402
from qthink_core.method.targets import Example  # noqa: E402
from qthink_core.models.loading import load_model, pick_device  # noqa: E402
from qthink_core.pipeline.recipe import Lora  # noqa: E402
from qthink_core.training.loop import train  # noqa: E402

# Products as large as those of the tiny scale: MKL takes other kernels for small ones.
SIZES = {"hidden_size": 96, "layers": 2, "heads": 3, "kv_heads": 3, "head_dim": 32, "intermediate_size": 192}
STEPS, BATCH, K = 3, 32, 6
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def digest(tensors: Iterable[torch.Tensor]) -> str:
    """The first half of the sha256 of all values."""
    return hashlib.sha256(b"".join(one.detach().numpy().tobytes() for one in tensors)).hexdigest()[:32]


def tell(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Prints a line for the step that the optimiser is about to take."""
    # The other one takes torch.sqrt, which is MKL's and rounds as the processor's rsqrt does.
    assert optimizer.defaults["fused"]
    trained = [one for group in optimizer.param_groups for one in group["params"]]
    print(len(trained), digest(trained), digest(one.grad for one in trained), flush=True)


def latent_training(folder: Path) -> None:
    """Trains adapters and head on the model in `folder`: problems of random tokens, random teachers."""
    random = np.random.default_rng(0)
    examples = [
        Example(f"p{i}", *(random.integers(0, 200, int(random.integers(*size))).tolist() for size in ((20, 60), (2, 12))))
        for i in range(STEPS * BATCH)
    ]
    states = {row.problem_id: random.standard_normal((K, SIZES["hidden_size"]), dtype=np.float32) for row in examples}
    lora = Lora.model_validate(RECIPE.lora.model_dump() | {"r": 32, "alpha": 16, "targets": TARGETS})
    train(
        Student(
            load_model(folder, pick_device("cpu"), "float32"),
            K=K,
            seed=0,
            lora_r=lora.r,
            lora_alpha=lora.alpha,
            lora_targets=lora.targets,
        ),
        examples,
        states,
        RECIPE.model_copy(update={"epochs": 1, "batch": BATCH, "micro_batch": BATCH // 2, "lora": lora}),
        OBJECTIVE,
        seed=0,
        pad_id=0,
        work=work(folder),
        checkpoint_every=STEPS,
        show=lambda steps, total: steps,
    )


if __name__ == "__main__":
    register_optimizer_step_pre_hook(tell)
    place = Path(sys.argv[2])
    pretrained(STEPS, BATCH, **SIZES)[0].save_pretrained(place)
    latent_training(place)
