"""The commands around the pipeline: plan, preflight, run, compare, csv, export, figures."""

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from qthink_core.cli.program import PIPELINE, app, one_line, repository
from qthink_core.errors import DataError, ParamError, UnavailableError

SETTING = "A value in place of that of the params files, as for `dvc exp run`; may be repeated."


@app.command(rich_help_panel=PIPELINE)
def plan(
    scale: Annotated[str | None, typer.Option(help="A scale of params/; by default that of params.yaml.")] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="h100, h200, a100, l40s, 5090, 4090, 3090, a10, l4, or cpu (this machine's); by default the scale's device."
        ),
    ] = None,
    gpus: Annotated[int, typer.Option(help="The number of GPUs.")] = 1,
    memory: Annotated[
        float | None,
        typer.Option(help="GB of the device's memory; without --device, the fastest GPU that has it or comes closest."),
    ] = None,
    settings: Annotated[list[str] | None, typer.Option("--set-param", "-S", help=SETTING)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of a table.")] = False,
) -> None:
    """Estimates a run before it starts: boxes, tokens, FLOP, bytes and hours of every stage, and whether it fits.

    ```
    qthink plan --scale paper --device h100 --gpus 8
    ```

    With `-S`, as in `dvc exp run`, another value is planned without an edit: `-S 'tasks=[gsm8k]'`,
    `-S params/paper.yaml:probe.sweep=0`.

    Reads the params files with your edits and, if a run left them, manifests, `logs/runs.jsonl` and `dvc.lock`. Starts
    nothing. Estimates should be right within a factor of two. Stages that were logged here, at this scale and on this
    device, are scaled to the time that they took.

    * **memory**: of the largest box, with rows as long as the limits allow; with a `!` if the device has less.
    * **floor**: the shortest time that the device's matrix products and memory allow; **time**: the estimate.
    * **on**: where a stage computes, or how many GPUs share a box; **from**: whether its time is from the formula alone, or
      from the log, with the number of logged boxes if some are missing.

    It ends with the dearest stage and what would make it cheaper, and with the time on other GPUs.

    The exit code is 69 if a stage needs more memory than the device has, or if the plan is for this machine and its disk is
    too small. The plan is printed all the same.
    """
    with one_line():
        _plan(scale, device, gpus, memory, settings or [], as_json)


@app.command(rich_help_panel=PIPELINE)
def preflight(
    scale: Annotated[str | None, typer.Option(help="A scale of params/; by default that of params.yaml.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set-param", "-S", help=SETTING)] = None,
) -> None:
    """Checks whether this machine has what a scale needs: device and memory, disk, packages, base model, data sets.

    ```
    qthink preflight --scale paper
    ```

    The stages `base` and `prepare` run the same checks before they start. Everything that is missing is listed, one per line
    with its fix, and the exit code is 69. Nothing is downloaded. A hub that does not answer costs five seconds.
    """
    with one_line():
        from qthink_core.planning import preflight

        print(*preflight.check(repository(), None, scale, settings or []), sep="\n")


@app.command(rich_help_panel=PIPELINE)
def run(
    tasks: Annotated[list[str] | None, typer.Argument(help="Tasks of params.yaml; by default all.")] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Boxes at once; by default as many as processors and memory allow.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Training seeds, as in 0,1,2: written to params.yaml first.")] = "",
) -> None:
    """Makes every box of the graph that has changed, several at once, and prints the table. `make demo` calls it.

    ```
    qthink run gsm8k --jobs 2
    ```

    If tasks are given, only their boxes are made, and their table goes to `demo/`, because `results/` is for all tasks. At
    the end it compares the results with the committed ones. Ctrl-C stops it; run the same command again to continue.
    """
    with one_line(continues=True):
        from qthink_core.pipeline import parameters
        from qthink_core.planning.settings import checked_with

        root = repository()
        given = _seeds(seeds) if seeds else []
        # before anything is written, and before DVC is imported, which takes longer than the check
        checked_with(root, None, [f"seeds={given}"] if given else [])
        if given:
            parameters.write_value(root / "params.yaml", "seeds", given)

        from qthink_core.running import runner

        runner.run(root, tasks or [], jobs)


@app.command(rich_help_panel=PIPELINE)
def repair(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Folders in artifacts/ or models/; by default everything that the run made.")
    ] = None,
) -> None:
    """Brings damaged artifacts back: from DVC's cache if that is sound, else by removing what the next run makes again.

    ```
    qthink repair artifacts/rollouts/gsm8k && dvc repro
    ```

    Reads every file of the artifacts and its copy in DVC's cache. A damaged file is replaced by the copy, a damaged copy by
    the file. If both are damaged, both are removed; `dvc repro` then makes only the units (blocks of rollouts, shards,
    batches of answers, checkpoints) that were lost.

    `dvc checkout` is no substitute: it takes a file with the expected size and time, and an object in the cache, unread.
    """
    with one_line():
        from qthink_core.running import repair

        for line in repair.repair(repository(), paths or []):
            print(line, flush=True)


@app.command(rich_help_panel=PIPELINE)
def compare(
    before: Annotated[str, typer.Argument(help="A branch, tag, commit or DVC experiment.")] = "HEAD",
    after: Annotated[str | None, typer.Argument(help="A second one; by default the files in this folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of tables.")] = False,
) -> None:
    """Compares two runs: the accuracies, verdicts on the latents, mean tokens and parameters that differ.

    ```
    qthink compare                  # the last commit with the files in this folder
    qthink compare main my-branch
    qthink compare HEAD puffy-gram  # an experiment of `dvc exp run`
    ```

    **beyond chance**: whether an accuracy differs by more than chance, by the exact paired test on the verdicts in
    `results/verdicts/`, with Holm's correction over all cells. It is tested if both runs have the same questions and the
    same number of training seeds.
    """
    with one_line():
        from qthink_core.report import compare

        found = compare.compare(repository(), before, after)
        print(compare.as_json(found) if as_json else compare.text(found))


@app.command(rich_help_panel=PIPELINE)
def csv(
    task: Annotated[str, typer.Argument(help="A task of params.yaml.")],
    system: Annotated[str, typer.Argument(help="A system of params.yaml.")],
    seed: Annotated[int | None, typer.Option(help="A training seed; by default the lowest.")] = None,
    condition: Annotated[
        str,
        typer.Option(help="What replaced the latents: trained (nothing), K=0, zeros, noise, other, mean, teacher, K=1..."),
    ] = "trained",
    test_set: Annotated[
        str, typer.Option(help="One of the further test sets of the task; by default its own questions.")
    ] = "",
) -> None:
    """Writes the questions of a task with one system's answers as CSV: question, gold, answer, verdict, tokens.

    ```
    qthink csv gsm8k uniform --condition zeros > zeros.csv
    ```

    Reads `artifacts/`. The CSV is UTF-8 with a header, and every cell is quoted. It is safe to open: characters that are
    invisible or would control a terminal are written as ⟨U+001B⟩, and a cell that a spreadsheet could take for a formula
    (its text begins with = + - or @) begins with an apostrophe.
    """
    with one_line():
        from qthink_core.report import answers

        written = answers.to_csv(repository(), task, system, seed, condition, test_set)
        if sys.stdout is None:
            raise DataError("standard output is closed: redirect it to a file")
        sys.stdout.buffer.write(written.encode())
        sys.stdout.buffer.flush()


@app.command(rich_help_panel=PIPELINE)
def export(
    task: Annotated[str, typer.Argument(help="A task of params.yaml.")],
    system: Annotated[str, typer.Argument(help="A trained system of params.yaml.")],
    folder: Annotated[Path, typer.Argument(help="The folder to write: new or empty.")],
    seed: Annotated[int | None, typer.Option(help="A training seed; by default the first.")] = None,
    date: Annotated[str | None, typer.Option(help="The day of the evaluation for the hub, as in 2026-01-31.")] = None,
    url: Annotated[str | None, typer.Option(help="Where the hub's score should link to.")] = None,
) -> None:
    """Writes the folder of a trained model as it is published: model, card with the measured table, score for the hub.

    ```
    qthink export gsm8k uniform publish/qthink-gsm8k
    ```

    Reads `models/` and `artifacts/`, and sends nothing: it ends with the command that uploads the folder. A score in
    `.eval_results/` is written only if all test questions of a benchmark that the hub keeps scores of were answered.
    Generated problems are no such benchmark. Without a score, `--date` and `--url` are not used, and a line says so.

    Only what the run made is published. If a file of the model has changed, or model, answers and grades are not of one run,
    the command ends with exit code 65 and names what to make again.
    """
    with one_line():
        from qthink_core.report import publishing

        print(*publishing.export(repository(), task, system, folder, seed, date, url), sep="\n")


@app.command(rich_help_panel=PIPELINE)
def figures() -> None:
    """Draws the figures of README.md again, for a commit with new results or a changed graph.

    ```
    qthink figures
    ```

    * `docs/figures/accuracy.svg` from the files in `results/`;
    * the Mermaid graph of the stages in `README.md` from `dvc.yaml`.

    Equal inputs give equal bytes, and the tests compare both with the committed ones.
    """
    with one_line():
        from qthink_core.running import figures

        drawn = figures.write(repository())
        print(f"drew {' and '.join(map(str, drawn))}")


def _plan(
    scale: str | None, device: str | None, gpus: int, gigabytes: float | None, settings: list[str], as_json: bool
) -> None:
    # imported here, because pydantic and the parameters of the stages would slow `grade` down
    from qthink_core.planning import plan_text, room
    from qthink_core.planning.calibration import CPU
    from qthink_core.planning.run_plan import plan_run, plan_tree

    root = repository()
    found = plan_run(root, scale, device, gpus, None if gigabytes is None else gigabytes * 1e9, settings)
    here = found.device == CPU or Path("/dev/nvidia0").exists()
    free = shutil.disk_usage(root).free
    missing = room.missing_disk(root, found.disk, free)
    cheaper = room.cheaper(root, found)
    cards = [] if found.device == CPU else room.elsewhere(root, found)
    if as_json:
        print(plan_text.as_json(found, cheaper, cards))
    else:
        instead = None if here else plan_tree(root, found.workload.tree, CPU, 1)
        said = [plan_text.summary(found, free, missing, instead), plan_text.advice(found, cheaper), plan_text.cards(cards)]
        parts = plan_text.table(found), plan_text.assumptions(found), plan_text.power_line(found)
        print(*parts, "\n".join(filter(None, said)), sep="\n\n")
    if found.too_large or (here and missing > 0):
        raise typer.Exit(UnavailableError.exit_code)


def _seeds(text: str) -> list[int]:
    from pydantic import TypeAdapter

    from qthink_core.pipeline.systems import MAX_SEED, Seeds

    try:
        return TypeAdapter(Seeds).validate_python([int(one) for one in text.split(",")])
    except ValueError:
        expected = f"give different whole numbers from 0 to {MAX_SEED} with commas between them, as in 0,1,2"
        raise ParamError(f"--seeds is {text!r:.80}: {expected}") from None
