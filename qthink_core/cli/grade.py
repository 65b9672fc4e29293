"""`qthink grade`: grades the answers of any system."""

import collections
import contextlib
import sys
from collections.abc import Iterator
from typing import Annotated, BinaryIO, Literal, get_args

import typer

from qthink_core.benchmarks import graded_lines
from qthink_core.benchmarks.graders import latex_equality
from qthink_core.benchmarks.graders.contract import Verdict
from qthink_core.benchmarks.json_lines import lines
from qthink_core.cli.program import CHECK, app, complain, one_line
from qthink_core.errors import DataError, ParamError
from qthink_core.evidence import significance, wilson


@app.command(rich_help_panel=CHECK)
def grade(
    benchmark: Annotated[
        Literal["gsm8k", "math500", "tooluse"],
        typer.Option(help="The benchmark with the rules of extraction and equality."),
    ],
    file: Annotated[str, typer.Option("--input", help="A file of JSON lines; - is standard input.")] = "-",
) -> None:
    """Grades JSON lines `{"gold": ..., "answer": ...}`: a JSON line on standard output for each.

    ```
    echo '{"id": 1, "gold": "18", "answer": "<think>2 * 9</think>It is 18."}' | qthink grade --benchmark gsm8k
    {"id": 1, "verdict": "right", "extracted": "18", "details": {}}
    ```

    ```
    qthink grade --benchmark gsm8k --input answers.jsonl > graded.jsonl
    ```

    **answer** is the whole text that a system generated. If it has a think block, only the text after the last `</think>` is
    graded, and nothing of a block that was never closed. If the prompt ended in `<think>`, put that tag in front.

    **gold** is the published answer. gsm8k: the solution with its `#### 18`, or the number alone. math500: the LaTeX
    of the field `answer`. tooluse: the calls in the field `answer`, as JSON text or as a list.

    Other fields, such as an id, are passed on, without gold and answer. `verdict`, `extracted` and `details` are replaced:

    * **verdict**: `right`, `wrong`, `unparsable` (nothing to compare), `over_limit` (too long or too deep to read),
      `timeout` (computer algebra ran out of time); all but `right` count as wrong in a score.
    * **extracted**: the text that was graded, or null.
    * **details**: further scores. tooluse: `strict_exact` (the verdict), `strict_action`, `published_exact`,
      `published_action`.

    A line of another form, or with more than 8 MiB, ends the program with exit code 65 and a message with its number and
    the reason; the verdicts on the lines before it are written. No code in an answer is executed.

    At the end of the input a line on standard error has the number of answers, the accuracy with its 95 % interval
    (Wilson's), and the number of answers with each verdict.
    """
    with one_line():
        _grade(benchmark, file)


def _grade(benchmark: str, path: str) -> None:
    if sys.stdout is None:
        raise DataError("standard output is closed: the verdicts go there, so redirect it to a file or program")
    if benchmark == "math500":
        latex_equality.start()
    found: collections.Counter[str] = collections.Counter()
    with _opened(path) as file:
        named = "line" if path == "-" else f"{path} line"
        for number, line in lines(file, named):
            verdict, written = graded_lines.graded(benchmark, line, f"{named} {number}")
            sys.stdout.write(written + "\n")
            sys.stdout.flush()
            found[verdict] += 1
    complain(summary(found))


@contextlib.contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    if path != "-":
        try:
            file = open(path, "rb")  # noqa: SIM115 - an error while it is read is another one than that it is missing
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ParamError(f"--input is {path!r:.200} ({reason}): expected a file of JSON lines, or -") from None
        with file:
            yield file
        return
    if sys.stdin is None:
        raise DataError("standard input is closed: send JSON lines to it, or name a file with --input")
    if sys.stdin.isatty():
        complain("reading JSON lines from the terminal; Ctrl-D ends the input, `qthink grade --help` shows an example")
    yield sys.stdin.buffer


def summary(found: collections.Counter[str]) -> str:
    """A sentence on the graded answers: their number, the accuracy with its interval, and how many have each verdict."""
    n = found.total()
    if not n:
        return "no answers were graded: the input is empty"
    low, high = wilson.interval(found["right"], n)
    level = f"{100 * significance.CONFIDENCE:.0f} % interval {100 * low:.1f} to {100 * high:.1f}"
    each = ", ".join(f"{found[one]} {one}" for one in get_args(Verdict) if found[one])
    return f"{n:,} {'answer' if n == 1 else 'answers'}: {100 * found['right'] / n:.1f} % right ({level}); {each}"
