"""Runs the program: `qthink` and `python -m qthink_core.cli`."""

from qthink_core.cli import grade, models, page, pipeline
from qthink_core.cli.program import app

__all__ = ["grade", "main", "models", "page", "pipeline"]  # their import registers the commands


def main() -> None:
    """Runs the program on the command line's arguments."""
    app()


if __name__ == "__main__":
    main()
