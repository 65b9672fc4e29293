"""Runs the program: `qthink` and `python -m qthink_core.cli`."""

import io
import sys

from qthink_core.cli import bench, evaluate, grade, models, page, pipeline
from qthink_core.cli.program import CHECK, MODEL, PIPELINE, app

__all__ = ["bench", "evaluate", "grade", "main", "models", "page", "pipeline"]  # their import registers the commands

# The help lists groups in the order of their first command.
app.registered_commands.sort(key=lambda one: (MODEL, PIPELINE, CHECK).index(str(one.rich_help_panel)))


def main() -> None:
    """Runs the program on the command line's arguments; what the terminal's encoding lacks is printed as an escape."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    app()


if __name__ == "__main__":
    main()
