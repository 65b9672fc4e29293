"""Bytes, as docs/decisions/engineering.md has them: fresh processes take the same steps, and addresses change no result."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from imports import ROOT

TESTS = ROOT / "tests"
# A line of optimiser_steps.py: trained tensors, their digest, that of their gradients.
LINE = re.compile(r"\d+ [0-9a-f]{32} [0-9a-f]{32}")
# What differs from one process to the next and must not be seen: the order of sets, the size of the environment and so the
# stack's place, what is in memory that nobody has written, where a large tensor lies.
SURROUNDINGS = [
    {"PYTHONHASHSEED": "1"},
    {"PYTHONHASHSEED": "2", "FILL": "x" * 10_007, "MALLOC_PERTURB_": "85"},
    {"PYTHONHASHSEED": "3", "MALLOC_PERTURB_": "170", "MALLOC_MMAP_THRESHOLD_": "4000000000"},
]
# Products of which MKL, left to itself, gave 9 of 300 other bits at other addresses, on an AMD EPYC with AVX-512.
PRODUCTS = """
import itertools, sys
from qthink_core.pipeline import process
process.pin_numerics(1, sys.argv[1])
import torch

def laid(values, offset):
    room = torch.empty(values.numel() + 32)
    start = -(room.data_ptr() // 4) % 16 + offset
    placed = room[start : start + values.numel()].view(values.shape)
    assert placed.data_ptr() % 64 == 4 * offset
    return placed.copy_(values)

torch.manual_seed(0)
for rows, inner, columns in (
    (3000, 96, 192), (3000, 192, 96), (96, 3000, 96), (192, 3000, 96), (96, 2500, 288), (32, 96, 96), (300, 32, 300),
    (7, 13, 5), (1, 96, 96), (3000, 32, 96), (96, 3000, 32), (1000, 96, 97),
):
    for left, right in itertools.product((False, True), repeat=2):
        a = torch.randn(inner, rows) if left else torch.randn(rows, inner)
        b = torch.randn(columns, inner) if right else torch.randn(inner, columns)
        found = []
        for offset in (0, 1, 2, 4, 8, 15):
            x, y = laid(a, offset), laid(b, 3 * offset % 16)
            found.append((x.T if left else x) @ (y.T if right else y))
        print(all(torch.equal(one, found[0]) for one in found))
"""


@pytest.mark.slow
def test_fresh_processes_side_by_side_take_the_same_steps(tmp_path: Path) -> None:
    """More processes than cores, so that each is interrupted; the steps of pre-training, then those with latents."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MKL_", "OMP_", "MALLOC_"))}
    running = []
    for number, surroundings in enumerate(SURROUNDINGS):
        (tmp_path / str(number)).mkdir()
        program = [sys.executable, str(TESTS / "optimiser_steps.py"), "avx2", str(tmp_path / str(number))]
        running.append(subprocess.Popen(program, env=inherited | surroundings, cwd=TESTS, stdout=subprocess.PIPE, text=True))
    first, *others = [[line for line in one.communicate()[0].splitlines() if LINE.fullmatch(line)] for one in running]
    assert [one.returncode for one in running] == [0] * len(SURROUNDINGS)
    assert len(first) == len(set(first)) == 6  # each step is one of its own: three of either training
    assert others == [first] * len(others)


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["avx2", "native"])
def test_a_product_has_the_same_bits_wherever_its_operands_lie(kernels: str) -> None:
    found = subprocess.run(
        [sys.executable, "-c", PRODUCTS, kernels], cwd=ROOT, capture_output=True, check=True, text=True
    ).stdout.split()
    assert found == ["True"] * 48
