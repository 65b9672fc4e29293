"""The `qthink` program: grades the outputs of any system by the benchmarks' pages, and says what a run takes and misses."""

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO, Literal, NoReturn

import typer

from qthink_core.benchmarks.graders import grader, latex_equality
from qthink_core.errors import DataError, ParamError, QThinkError, StoppedError, StorageError

# Of an answer, 100,000 characters are read; the thought before it and other fields may take the rest.
MAX_LINE_BYTES = 8 << 20
_EXPECTED = '{"gold": ..., "answer": "..."}'

app = typer.Typer(
    help="QThink: scores that anyone can repeat. The pipeline itself runs by `dvc repro`.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


@app.command()
def grade(
    benchmark: Annotated[
        Literal["gsm8k", "math500", "tooluse"], typer.Option(help="Whose rules of extraction and equality apply.")
    ],
) -> None:
    """Grades JSON lines `{"gold": ..., "answer": ...}` from standard input, one JSON line each on standard output.

    ```
    echo '{"id": 1, "gold": "18", "answer": "<think>2 * 9</think>It is 18."}' | qthink grade --benchmark gsm8k
    {"id": 1, "verdict": "right", "extracted": "18", "details": {}}
    ```

    **answer** is the whole text of a system. A think block may still be there: what follows the last `</think>` is graded,
    and nothing of a block that was opened and never closed. Where the prompt ended in `<think>`, put that in front.

    **gold** is what the benchmark publishes. gsm8k: the solution with its `#### 18`, or the number alone. math500: the LaTeX
    of the field `answer`. tooluse: the calls in the field `answer`, as JSON text or as a list.

    Other fields, such as an id, are passed on, but for `verdict`, `extracted` and `details`, which are written anew:

    * **verdict**: `right`, `wrong`, `unparsable` (nothing to compare), `over_limit` (too long or too deep to read),
      `timeout` (computer algebra ran out of its time); all but the first count as wrong in a score.
    * **extracted**: the text that the verdict was passed on, or null.
    * **details**: further scores. tooluse: `strict_exact` (the verdict), `strict_action`, `published_exact`,
      `published_action`.

    A line that is something else, or has more than 8 MiB, ends the program with exit code 65 and one line that says which
    and why; the verdicts on the lines before it are written. Nothing in an answer is evaluated.
    """
    with _one_line():
        _grade(benchmark)


@app.command()
def plan(
    scale: Annotated[str | None, typer.Option(help="A scale of params/; that of params.yaml where none is given.")] = None,
    device: Annotated[
        str | None, typer.Option(help="h100, a100, 4090 or cpu (this machine's); without it what the scale asks for.")
    ] = None,
    gpus: Annotated[int, typer.Option(help="How many of them.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Figures for programs instead of a table.")] = False,
) -> None:
    """Says before a run what it takes: boxes, tokens, FLOP, bytes and hours of every stage, and whether it fits.

    Reads the params files, edits included, and, where a run left them, manifests, `logs/runs.jsonl` and `dvc.lock`. Starts
    nothing. An estimate is meant to be right within a factor of two; stages that were logged here, at
    this scale and on this device, are scaled to what they took.

    * **memory**: of the largest box, its rows as long as the limits allow.
    * **floor**: the least that the device's matrix products and memory allow; **time**: the estimate.
    """
    with _one_line():
        _plan(scale, device, gpus, as_json)


def _plan(scale: str | None, device: str | None, gpus: int, as_json: bool) -> None:
    # pydantic and the pages' parameters would slow `grade` down
    from qthink_core.planning import plan, plan_words

    root = Path()
    found = plan.make(root, scale, device, gpus)
    if as_json:
        print(plan_words.as_json(found))
        return
    here = found.device == plan.CPU or Path("/dev/nvidia0").exists()
    instead = None if here else plan.make(root, scale, plan.CPU, 1)
    words = plan_words.verdict(found, shutil.disk_usage(root).free, instead)
    print(plan_words.table(found), plan_words.assumptions(found), plan_words.power_line(found), words, sep="\n\n")


@app.command()
def preflight(
    scale: Annotated[str | None, typer.Option(help="A scale of params/; that of params.yaml where none is given.")] = None,
) -> None:
    """Says whether this machine has what a scale asks for: device and memory, disk, packages, base model, data sets.

    The stages `base` and `prepare` ask the same before they start. Everything that is missing is listed at once, a line
    each with its fix, and the exit code is 69. Nothing is downloaded, and a hub that does not answer costs five seconds.
    """
    with _one_line():
        from qthink_core.pipeline import stage

        print(*stage.preflight(None, scale), sep="\n")


@app.command()
def demo(
    tasks: Annotated[list[str] | None, typer.Argument(help="Tasks of params.yaml; all where none is given.")] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Boxes at once; else as many as processors and memory allow.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Training seeds, as in 0,1,2: written to params.yaml first.")] = "",
) -> None:
    """Makes every box of the graph that has changed, several at once, and prints the table. `make demo` calls it.

    With some tasks only their boxes are made, and their table goes to `demo/`: `results/` is of all. At the end it says how
    the results compare with the committed ones. Ctrl-C stops it; the same command goes on from there.
    """
    with _one_line():
        from qthink_core.demo import runner
        from qthink_core.pipeline import parameters

        if seeds:
            parameters.write_value(Path("params.yaml"), "seeds", _seeds(seeds))
        runner.run(Path(), tasks or [], jobs)


def _seeds(text: str) -> list[int]:
    from pydantic import TypeAdapter

    from qthink_core.pipeline.systems import MAX_SEED, Seeds

    try:
        return TypeAdapter(Seeds).validate_python([int(one) for one in text.split(",")])
    except ValueError:
        expected = f"give different whole numbers from 0 to {MAX_SEED}, with commas between them, as in 0,1,2"
        raise ParamError(f"--seeds is {text!r:.80}: {expected}") from None


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """Ends the program with one line and an exit code where something is wrong."""
    try:
        yield
    except KeyboardInterrupt:
        _end(StoppedError.exit_code)
    except BrokenPipeError:  # whoever reads the output has enough of it
        _end(0)
    except OSError as error:
        what = error.filename or "standard input or output"
        _complain(f"{what} failed ({error.strerror}): fix this and run the same command again")
        _end(StorageError.exit_code)
    except QThinkError as error:
        for line in str(error).split("\n"):
            _complain(line)
        _end(error.exit_code)


def _grade(benchmark: str) -> None:
    if sys.stdin is None or sys.stdout is None:
        raise DataError("standard input or output is closed: give JSON lines on the one, read verdicts from the other")
    if sys.stdin.isatty():
        _complain("reading JSON lines from the terminal, Ctrl-D ends them; `qthink grade --help` shows one")
    if benchmark == "math500":
        latex_equality.start()
    for number, line in _lines(sys.stdin.buffer):
        sys.stdout.write(graded(benchmark, line, f"line {number}") + "\n")
        sys.stdout.flush()


def graded(benchmark: str, line: bytes, where: str) -> str:
    """One line of input with its verdict, as one line of ASCII JSON.

    Raises DataError where the line is not a JSON object of UTF-8 with text in `answer` and this benchmark's gold in `gold`.
    """
    rules = grader(benchmark)
    try:
        row = _object(line, where)
        if "gold" not in row:
            raise DataError(f"{where} has no field 'gold': expected {_EXPECTED}")
        gold = rules.gold(row.pop("gold"), where)
        answer = row.pop("answer", None)
        if not isinstance(answer, str):
            raise DataError(f"{where} has {type(answer).__name__} {answer!r:.60} in field 'answer', expected text: fix it")
        found = rules.grade(gold, answer)
        for name in found._fields:
            row.pop(name, None)
        # ASCII: control characters and direction marks reach no terminal, lone surrogates break no encoder.
        return json.dumps(row | found._asdict(), allow_nan=False)
    except RecursionError:
        raise DataError(f"{where} is nested too deep to read: expected {_EXPECTED}") from None


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The lines with their numbers from 1, each as soon as it is there. Raises DataError before a long one is read whole."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise DataError(f"line {number} has more than {MAX_LINE_BYTES:,} bytes: shorten or drop it")
        yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line


def _object(line: bytes, where: str) -> dict[str, object]:
    if not line.strip():
        raise DataError(f"{where} is empty: expected {_EXPECTED}, drop it")
    try:
        row = json.loads(line.decode(), object_pairs_hook=_without_doubles, parse_constant=_refused, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is not UTF-8 (byte {error.start + 1}, {error.reason}): convert the file") from None
    except ValueError as error:  # also integers of 5,000 digits
        raise DataError(f"{where} is not JSON ({error}): expected {_EXPECTED}") from None
    if not isinstance(row, dict):
        raise DataError(f"{where} holds a JSON {type(row).__name__}: expected {_EXPECTED}")
    return row


def _without_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made: dict[str, object] = {}
    for name, value in pairs:
        if name in made:
            raise ValueError(f"field {name!r:.60} appears twice")
        made[name] = value
    return made


def _refused(text: str) -> NoReturn:
    raise ValueError(f"{text:.40} is not a finite number")


def _finite(text: str) -> float:
    value = float(text)
    return value if abs(value) < float("inf") else _refused(text)


def _complain(message: str) -> None:
    from qthink_core.pipeline.stage import printable

    if sys.stderr is not None:
        print(f"qthink: {printable(message)}", file=sys.stderr, flush=True)


def _end(code: int) -> NoReturn:
    # What the closing interpreter would still flush has no reader any more, or none that can take it.
    latex_equality.close()
    os._exit(code)


def main() -> None:
    """Runs the program on the command line's arguments."""
    app()


if __name__ == "__main__":
    main()
