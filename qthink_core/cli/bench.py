"""`qthink bench`: what the method's code costs on this machine, against plain transformers code with the same results."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from qthink_core.cli.program import CHECK, app, complain, one_line
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
    batch_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens in a batch of extraction.")] = None,
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
    """
    with one_line():
        from qthink_core.pipeline.process import pin_numerics

        if output is not None and not output.parent.is_dir():
            raise ParamError(f"--output is {output}, in a folder that does not exist: make it first")
        for kind in only or ():
            if kind not in KINDS:
                raise ParamError(f"--only is {kind!r:.40}: choose from {', '.join(KINDS)}")
        pin_numerics(1, "native")  # before torch is imported
        from qthink_core.benchmarking import bench as benchmark
        from qthink_core.benchmarking import measured

        given = {
            "problems": problems,
            "G": rollouts,
            "prompt": prompt,
            "thought": thought,
            "answer": answer,
            "batch_tokens": batch_tokens,
            "micro_batch": micro_batch,
            "questions": questions,
        }
        sizes = (benchmark.QUICK if quick else benchmark.FULL)._replace(seed=seed)
        sizes = sizes._replace(**{name: value for name, value in given.items() if value is not None})
        plan = benchmark.Plan(sizes, rounds or (1 if quick else 3), memory, only or ())
        rows = []
        for row in benchmark.measure(plan):
            complain(f"{row.work}, {row.model}, against {row.against}: {row.ratio.median:.2f}x")
            rows.append(row)
        found = {"sizes": sizes._asdict(), "rounds": plan.rounds, "rows": measured.as_json(rows)}
        text = (json.dumps(found, indent=1) if as_json else measured.as_text(rows)) + "\n"
        if output is not None:
            output.write_text(text)
        sys.stdout.write(text)
