"""Shapes: annotations name the axes that `axes` declares, and an array of another shape is refused."""

import ast
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from imports import ROOT
from jaxtyping import TypeCheckError
from shape_checks import ARRAYS, CHECKED

from qthink_core.axes import AXES
from qthink_core.evidence import statistics
from qthink_core.generation import decoding
from qthink_core.method import losses, teachers
from qthink_core.method.projection_head import ProjectionHead

CORE = sorted((ROOT / "qthink_core").rglob("*.py"))


def annotated(path: Path) -> set[str]:
    """The axes in the annotations of a module."""
    found = [
        node.slice.elts[1].value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) in ARRAYS
    ]
    return {axis.lstrip("*_") for shape in found for axis in shape.split() if not axis.isdecimal()}


def suffixes(path: Path) -> set[str]:
    """The letters behind the names of a module: B, K and D of `states_BKD`."""
    tree = ast.walk(ast.parse(path.read_text()))
    names = {node.id if isinstance(node, ast.Name) else node.arg for node in tree if isinstance(node, ast.Name | ast.arg)}
    return {letter for name in names if (found := re.fullmatch(r"[a-z][a-z0-9_]*_([A-Z]+)", name)) for letter in found[1]}


@pytest.mark.slow
def test_every_axis_that_is_named_is_declared_and_every_declared_one_is_used() -> None:
    assert set().union(*map(annotated, CORE), *map(suffixes, CORE)) == set(AXES)


@pytest.mark.slow
def test_every_module_with_annotated_arrays_is_checked() -> None:
    packages = {path.relative_to(ROOT / "qthink_core").parts[0] for path in CORE if annotated(path)}
    assert packages == set(CHECKED)


def state(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


OBJECTIVE = losses.Objective(2.0, "per_step", "mean", "l1", "tokens")
OUTPUTS = losses.Outputs(
    torch.zeros(3, 5), torch.zeros(3, dtype=torch.long), torch.ones(3, dtype=torch.long), [torch.zeros(2, 4)]
)


# Without the check each of these would be broadcast, or would fail further down with another message.
WRONG: dict[str, Callable[[], object]] = {
    "method: teachers of one problem for two": lambda: losses.loss(
        OUTPUTS, torch.zeros(1, 1, 4), torch.ones(2), OBJECTIVE, losses.Counts(3, 2)
    ),
    "method: the distances of one problem without an axis for it": lambda: losses.over_steps(torch.zeros(4), OBJECTIVE),
    "method: a state without its steps": lambda: teachers.average([state(4), state(4)], [1, 1]),
    "generation: one text's logits for two dimensions": lambda: decoding.greedy(
        torch.zeros(1, 2, 5), torch.arange(2), 0, torch.zeros(2, dtype=torch.long)
    ),
    "generation: fewer tokens than completions": lambda: decoding._distinct(
        torch.arange(3), torch.zeros(1, dtype=torch.long), 1
    ),
    "evidence: answers of one training without an axis for it": lambda: statistics.compare(
        np.ones(4, dtype=bool), np.ones(4, dtype=bool)
    ),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG)
def test_a_wrong_shape_is_refused_where_it_enters(call: Callable[[], object]) -> None:
    with pytest.raises(TypeCheckError):
        call()


def test_a_wrong_shape_is_refused_where_it_leaves() -> None:
    head = ProjectionHead(4)
    head.mlp = torch.nn.Linear(4, 3)
    with pytest.raises(TypeCheckError):
        head(torch.zeros(2, 4))
