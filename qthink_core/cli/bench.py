"""`qthink bench`: what the method's code costs on this machine, against plain transformers code with the same results."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from qthink_core.cli.program import CHECK, app, complain, one_line, repository
from qthink_core.errors import ParamError

KINDS = ("extraction", "answers", "training", "merged", "probes", "vllm")


@app.command(rich_help_panel=CHECK)
def bench(
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes and one round: a minute or two of one core.")] = False,
    only: Annotated[list[str] | None, typer.Option(help=f"{', '.join(KINDS)}: only this; may be repeated.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds of naive, own, own, naive.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The seed of weights and tokens.")] = 0,
    problems: Annotated[int | None, typer.Option(min=1, help="Problems whose rollouts are extracted.")] = None,
    rollouts: Annotated[int | None, typer.Option(min=1, help="Rollouts of each problem.")] = None,
    prompt: Annotated[int | None, typer.Option(min=2, help="Mean tokens of a prompt.")] = None,
    thought: Annotated[int | None, typer.Option(min=6, help="Mean tokens of a thought.")] = None,
    answer: Annotated[int | None, typer.Option(min=2, help="Mean tokens of a training answer.")] = None,
    batch_tokens: Annotated[
        str, typer.Option(help="Tokens in a pass of extraction; several, as in 512,1024, are compared with each other.")
    ] = "",
    scale: Annotated[
        str, typer.Option(help="The model, device and batches of this scale take the place of the table's.")
    ] = "",
    growth: Annotated[
        bool, typer.Option("--growth", help="How the work of stages grows with the number of problems.")
    ] = False,
    micro_batch: Annotated[int | None, typer.Option(min=1, help="Examples in a micro-batch of training.")] = None,
    questions: Annotated[int | None, typer.Option(min=2, help="Questions answered at once; half as many, too.")] = None,
    memory: Annotated[bool, typer.Option("--memory/--no-memory", help="Measure extraction's memory (Linux).")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of the table.")] = False,
    output: Annotated[Path | None, typer.Option(help="Write what is printed to this file, too.")] = None,
) -> None:
    """Measures extraction, answers, training and probes against plain transformers code that gives the same results.

    ```
    qthink bench --quick
    qthink bench --only extraction --batch-tokens 8192 --json
    ```

    The models have random weights: a Qwen3 of 10 million parameters with a vocabulary of 4,096 and of 32,768, and the model
    of the tiny scale. Both ways run in turn in this process, on one thread, and their processor time is compared. A ratio
    is the median over the rounds; above 1, the method's code is faster.

    **differs by** is the largest difference between the two results: of states or gradients as a share of the largest
    number, or the number of answers that are not the same tokens.

    **of ceiling** is the share of the speed of a large matrix product on this machine.

    Tokens, forward calls and rows of logits are counted exactly and do not depend on the machine. Nothing is written
    without `--output`.

    **tokens/s** are the tokens that our way needs, or for answers those that it writes, in a second.

    With `--scale`, the model is that of this scale, where its parameters say: on a GPU, times are those of the device, and
    the ceiling is that of its products in the scale's dtype.

    Two other tables take the place of this one. Several values of `--batch-tokens` are compared with each other, and the
    best value is named. `--growth` measures the work of `sample`, `extract`, `train` and `evaluate` for more and more
    problems.

    ```
    qthink bench --quick --scale smol
    qthink bench --only extraction --batch-tokens 256,512,1024 --scale smol
    qthink bench --growth
    ```
    """
    with one_line():
        from qthink_core.pipeline.process import pin_numerics
        from qthink_core.planning.settings import checked_with

        if output is not None and not output.parent.is_dir():
            raise ParamError(f"--output is {output}, in a folder that does not exist: make it first")
        for kind in only or ():
            if kind not in KINDS:
                raise ParamError(f"--only is {kind!r:.40}: choose from {', '.join(KINDS)}")
        values = values_of(batch_tokens, only or (), scale, growth)
        tree: dict[str, Any] = checked_with(repository(), scale, ()) if scale else {}
        pin_numerics(tree.get("cpu_threads", 1), tree.get("cpu_kernels", "native"))  # before torch is imported
        from qthink_core.benchmarking import batch_sizes, measured, scale_sizes
        from qthink_core.benchmarking import bench as benchmark
        from qthink_core.benchmarking import growth as growing

        of = scale_sizes.of_scale(scale, tree) if scale else None

        given: dict[str, Any] = {
            "problems": problems,
            "G": rollouts,
            "prompt": prompt,
            "thought": thought,
            "answer": answer,
            "batch_tokens": values[0] if len(values) == 1 else None,
            "micro_batch": micro_batch,
            "questions": questions,
        }
        sizes = (benchmark.QUICK if quick else benchmark.FULL)._replace(seed=seed)
        if of is not None:
            sizes = sizes._replace(on=of.on, **of.sizes)
        sizes = sizes._replace(**{name: value for name, value in given.items() if value is not None})
        plan = benchmark.Plan(sizes, rounds or (1 if quick else 3), memory, only or (), of)
        rows: list[Any] = []
        if growth:
            rows.extend(benchmark.grow(plan))
            found, text = growing.as_json(rows), growing.as_text(rows)
        elif len(values) > 1:
            rows.extend(benchmark.compare(plan, values))
            found, text = batch_sizes.as_json(rows), batch_sizes.as_text(rows)
        else:
            for row in benchmark.measure(plan):
                complain(f"{row.work}, {row.model}, against {row.against}: {row.ratio.median:.2f}x")
                rows.append(row)
            found, text = measured.as_json(rows), measured.as_text(rows)
        if as_json:
            text = json.dumps({"sizes": sizes._asdict(), "rounds": plan.rounds, "rows": found}, indent=1)
        if output is not None:
            output.write_text(f"{text}\n")
        sys.stdout.write(f"{text}\n")


def values_of(text: str, only: Sequence[str], scale: str, growth: bool) -> list[int]:
    """The whole numbers in `512,1024`, in their order.

    Raises ParamError at anything else, and where the other options do not go with them.
    """
    parts = [one.strip() for one in text.split(",")] if text else []
    if not all(one.isascii() and one.isdigit() and len(one) < 10 and int(one) for one in parts):
        raise ParamError(f"--batch-tokens is {text!r:.40}: expected whole numbers of at least 1, as in 512,1024")
    values = list(dict.fromkeys(map(int, parts)))
    if growth and (only or values or scale):
        raise ParamError("--growth is a table of its own: leave out --only, --batch-tokens and --scale")
    if len(values) > 1 and list(only) != ["extraction"]:
        raise ParamError(f"--batch-tokens is {text!r:.40}: several values go with --only extraction")
    return values
