"""The kinds of values that parameters have: numbers within bounds, names, paths, lists without doubles."""

import re
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field

Value = TypeVar("Value", int, str)
# Above these a run cannot be meant: numbers must fit into 32-bit columns, tokens into the context of a model.
MAX_COUNT, MAX_TOKENS, MAX_BATCH, MAX_STEPS, MAX_THREADS = 2**31 - 1, 2**20, 2**20, 4096, 1024
Amount = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Count = Annotated[int, Field(ge=1, le=MAX_COUNT)]
Tokens = Annotated[int, Field(ge=1, le=MAX_TOKENS)]
Batch = Annotated[int, Field(ge=1, le=MAX_BATCH)]
LatentSteps = Annotated[int, Field(ge=1, le=MAX_STEPS)]
Threads = Annotated[int, Field(ge=1, le=MAX_THREADS)]
# A weight of a loss or of the decay, and a learning rate; far smaller rates would be rounded to 0.
Weight = Annotated[float, Field(ge=0, le=1e6)]
Rate = Annotated[float, Field(ge=1e-12, le=10)]
# Messages print names and paths in commands for a shell, and DVC fills `${...}` in.
SHELL = "$`;|&<>\\"
MAX_TEXT, MAX_PART = 1000, 255
REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,95})?")


def harmless(text: str) -> str:
    """The text as it is; raises ValueError where a shell or a terminal would take a part of it for a command."""
    for one in text:
        if one in SHELL or not one.isprintable():
            raise ValueError(f"expected a name without {one!a}: rename it")
    return text


def fit(path: str) -> str:
    """The path or name as it is; raises ValueError where no file system has it, or its ends cannot be seen."""
    if path != path.strip():
        raise ValueError("expected a name without spaces at its ends: rename it")
    if any(len(part.encode()) > MAX_PART for part in path.split("/")):
        raise ValueError(f"expected names of at most {MAX_PART} bytes between slashes: rename it")
    return path


def unique(values: list[Value]) -> list[Value]:
    """The values as they are; raises ValueError when one appears twice."""
    if len(set(values)) < len(values):
        raise ValueError("each must appear once")
    return values


Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT), AfterValidator(harmless), AfterValidator(fit)]


def of_hub(repo: str) -> str:
    """The name as it is; raises ValueError where the hub has no such names, and its libraries might look for a folder."""
    if not REPO.fullmatch(repo) or ".." in repo or "--" in repo:
        raise ValueError("expected a repository of the hub, as in openai/gsm8k")
    return repo


Repo = Annotated[Text, AfterValidator(of_hub)]
