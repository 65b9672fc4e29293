"""Extraction against one naive forward per rollout: processor time, tokens, and memory in processes of their own."""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from qthink_core.benchmarking import naive
from qthink_core.benchmarking.counting import counted, tokens_needed
from qthink_core.benchmarking.measured import Measured
from qthink_core.benchmarking.timing import paired, peak_of_gpu
from qthink_core.benchmarking.workload import Sizes, model_of, problems_of, rows_of
from qthink_core.errors import ParamError
from qthink_core.method.extraction import Row
from qthink_core.method.hidden_states import read_positions
from qthink_core.planning import cost
from qthink_core.planning.cost import Shape

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # proc(5)
KIB = 1024
# The least that counts as memory: below it, one page that the allocator kept decides the quotient.
LEAST_BYTES = 1 << 20


def sides(shape: Shape, sizes: Sizes) -> tuple[Any, list[Any], Callable[[], Any], Callable[[], Any]]:
    """The model, the rollouts to read, and two functions that read their states (N, K, D): the naive one and ours."""
    model, rows = model_of(shape, sizes.seed, sizes.on, lively=False), rows_of(problems_of(shape, sizes), sizes.K)

    def one_by_one() -> Any:
        return np.stack([naive.states(model, row.tokens, row.positions).float().cpu().numpy() for row in rows])

    return model, rows, one_by_one, lambda: read_positions(model, rows, sizes.K, sizes.batch_tokens, "float32")


def measured(
    name: str, shape: Shape, sizes: Sizes, rounds: int, peak: float, goal: float | None, long: Sizes | None = None
) -> Measured:
    """The row of a shape; also the quotient of the two ways' extra memory for `long` rollouts where these are given."""
    model, rows, one_by_one, own = sides(shape, sizes)
    with counted(model) as naively:
        expected = one_by_one()
    with counted(model) as work:
        found = own()
    needed = tokens_needed(rows)
    counts: dict[str, float] = {
        "tokens_needed": needed,
        "tokens_processed": work.tokens,
        "processed_per_needed": work.tokens / needed,
        "naive_tokens": naively.tokens,
        "forward_calls": work.forward_calls,
        "naive_forward_calls": naively.forward_calls,
        "logits_rows": work.logits_rows,
        "naive_logits_rows": naively.logits_rows,
    }
    bounds = {"processed_per_needed": 1.02}
    if long is not None:
        counts["longest_rollout"] = max(len(row.tokens) for row in rows_of(problems_of(shape, long), long.K))
        counts |= {f"{side}_extra_MiB": extra_bytes(side, shape, long) / (1 << 20) for side in ("own", "naive")}
        counts["extra_memory_per_naive"] = counts["own_extra_MiB"] / counts["naive_extra_MiB"]
        bounds["extra_memory_per_naive"] = 1 / 15
    ratio = paired(one_by_one, own, rounds, sizes.on)
    return Measured(
        "extraction",
        name,
        "one forward per rollout",
        ratio,
        float(np.abs(found - expected).max() / np.abs(expected).max()),
        counts,
        goal,
        bounds,
        flops(shape, rows, needed) / ratio.own_s / peak,
        needed / ratio.own_s,
    )


def flops(shape: Shape, rows: Sequence[Row], needed: int) -> float:
    """FLOPs that the states of rollouts need: two a weight and token, and attention to the tokens before it.

    In the last layer, what follows the attention is needed at the K positions alone.
    """
    read = sum(len(row.positions) for row in rows)
    prompts = {tuple(row.tokens[: row.prompt]) for row in rows}
    context = sum(len(row.tokens) ** 2 - row.prompt**2 for row in rows) + sum(len(one) ** 2 for one in prompts)
    weights = cost.body(shape) * needed - after_attention(shape) * (needed - read)
    return 2.0 * weights + cost.attention_flops(shape, context / 2)


def after_attention(shape: Shape) -> int:
    """The weights of a layer that follow its attention."""
    return shape.heads * shape.head_dim * shape.hidden + 3 * shape.hidden * shape.intermediate


def extra_bytes(side: str, shape: Shape, sizes: Sizes) -> int:
    """The most memory that extraction took beyond what its process held before, in a process of its own (`own`, `naive`).

    On a GPU it is that of the device. Raises ParamError where the kernel does not tell a process its peak, as on macOS.
    """
    if sizes.on.name != "cpu":
        _, _, one_by_one, own = sides(shape, sizes)
        return peak_of_gpu({"naive": one_by_one, "own": own}[side])
    if not (STATUS.exists() and RESET.exists()):
        raise ParamError(f"peak memory needs {STATUS} and {RESET}, which Linux has: pass --no-memory")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as child:
        return max(child.submit(_grown, side, shape, sizes).result(), LEAST_BYTES)


def _grown(side: str, shape: Shape, sizes: Sizes) -> int:
    warm = sizes._replace(problems=1, G=1, prompt=2, thought=sizes.K)
    for function in sides(shape, warm)[2:]:
        function()  # what a first call imports and allocates for good
    _, _, one_by_one, own = sides(shape, sizes)
    return grown_by({"naive": one_by_one, "own": own}[side])


def grown_by(compute: Callable[[], Any]) -> int:
    """The bytes by which the memory of this process exceeds what it holds now, at most, while it computes."""
    before = _status("VmRSS")
    RESET.write_text(RESET_PEAK)
    compute()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * KIB
