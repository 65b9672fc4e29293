"""`qthink grade`: grades the answers of any system."""

import sys
from typing import Annotated, Literal

import typer

from qthink_core.benchmarks import graded_lines
from qthink_core.benchmarks.graders import latex_equality
from qthink_core.benchmarks.json_lines import lines
from qthink_core.cli.program import app, complain, one_line
from qthink_core.errors import DataError


@app.command()
def grade(
    benchmark: Annotated[
        Literal["gsm8k", "math500", "tooluse"],
        typer.Option(help="The benchmark with the rules of extraction and equality."),
    ],
) -> None:
    """Grades JSON lines `{"gold": ..., "answer": ...}` from standard input: a JSON line on standard output for each.

    ```
    echo '{"id": 1, "gold": "18", "answer": "<think>2 * 9</think>It is 18."}' | qthink grade --benchmark gsm8k
    {"id": 1, "verdict": "right", "extracted": "18", "details": {}}
    ```

    **answer** is the whole text that a system generated. If it has a think block, only the text after the last `</think>` is
    graded, and nothing of a block that was never closed. If the prompt ended in `<think>`, put that tag in front.

    **gold** is the published answer. gsm8k: the solution with its `#### 18`, or the number alone. math500: the LaTeX
    of the field `answer`. tooluse: the calls in the field `answer`, as JSON text or as a list.

    Other fields, such as an id, are passed on. `verdict`, `extracted` and `details` are replaced:

    * **verdict**: `right`, `wrong`, `unparsable` (nothing to compare), `over_limit` (too long or too deep to read),
      `timeout` (computer algebra ran out of time); all but `right` count as wrong in a score.
    * **extracted**: the text that was graded, or null.
    * **details**: further scores. tooluse: `strict_exact` (the verdict), `strict_action`, `published_exact`,
      `published_action`.

    A line of another form, or with more than 8 MiB, ends the program with exit code 65 and a message with its number and
    the reason; the verdicts on the lines before it are written. No code in an answer is executed.
    """
    with one_line():
        _grade(benchmark)


def _grade(benchmark: str) -> None:
    if sys.stdin is None or sys.stdout is None:
        raise DataError("standard input or output is closed: send JSON lines to the first, read verdicts from the second")
    if sys.stdin.isatty():
        complain("reading JSON lines from the terminal; Ctrl-D ends the input, `qthink grade --help` shows an example")
    if benchmark == "math500":
        latex_equality.start()
    for number, line in lines(sys.stdin.buffer):
        sys.stdout.write(graded_lines.graded(benchmark, line, f"line {number}") + "\n")
        sys.stdout.flush()
