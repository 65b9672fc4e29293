"""The comparison of values of `extract.batch_tokens`: what it recommends, and what it measures."""

import re

import pytest
import torch
from imports import ROOT
from test_bench import NANO, SIZES

from qthink_core.benchmarking import batch_sizes
from qthink_core.benchmarking.batch_sizes import Choice, Tried
from qthink_core.benchmarking.scale_sizes import of_scale
from qthink_core.benchmarking.timing import Device
from qthink_core.cli.bench import values_of
from qthink_core.errors import ParamError
from qthink_core.planning.cost import Shape
from qthink_core.planning.settings import checked_with

CHOICE = Choice("nano", "cpu", [Tried(64, 1.04, 96.2, 10.0), Tried(128, 1.029, 97.2, 20.0), Tried(256, 1.0, 100.0, None)])


def test_the_smallest_value_that_is_about_as_fast_as_the_fastest_is_recommended() -> None:
    assert CHOICE.recommended == 128
    text = batch_sizes.as_text([CHOICE])
    assert "| nano | cpu | 128 | 1.03 | 97 | 20 MiB |" in text
    assert "| nano | cpu | 256 | 1 | 100 |  |" in text
    assert text.endswith("nano on cpu: extract.batch_tokens 128")
    assert batch_sizes.as_json([CHOICE])[0]["recommended"] == 128


def test_every_value_is_measured_on_the_rollouts_asked_for() -> None:
    found = batch_sizes.choose("nano", NANO, SIZES, [50, 200], 1, False)
    assert [one.batch_tokens for one in found.tried] == [50, 200]
    tokens = {round(one.seconds * one.tokens_per_second) for one in found.tried}
    assert len(tokens) == 1  # those that are needed, whatever the value


def test_a_scale_has_its_model_its_device_and_its_batches() -> None:
    tiny = of_scale("tiny", checked_with(ROOT, "tiny", ()))
    assert (tiny.shape, tiny.on) == (Shape(2, 96, 3, 3, 32, 192, 629), Device("cpu", "float32", 1))
    assert (tiny.merged, tiny.sizes) == (True, {"batch_tokens": 2048, "micro_batch": 16})
    if not torch.cuda.is_available():
        with pytest.raises(ParamError, match=r"params/paper.yaml has device: cuda, and this machine has no GPU"):
            of_scale("paper", checked_with(ROOT, "paper", ()))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("512,", ["extraction"], "", False), "is '512,': expected whole numbers of at least 1, as in 512,1024"),
        (("0", [], "", False), "is '0': expected whole numbers of at least 1, as in 512,1024"),
        (("1,2", [], "", False), "is '1,2': several values go with --only extraction"),
        (("", ["probes"], "", True), "--growth is a table of its own: leave out --only, --batch-tokens and --scale"),
        (("", [], "tiny", True), "--growth is a table of its own"),
    ],
)
def test_options_that_do_not_go_together_are_refused_in_one_line(given: tuple[str, list[str], str, bool], said: str) -> None:
    with pytest.raises(ParamError, match=re.escape(said)):
        values_of(*given)


def test_values_are_read_in_their_order_and_once() -> None:
    assert values_of("512, 128,512", ["extraction"], "smol", False) == [512, 128]
    assert values_of("64", [], "", False) == [64]
    assert values_of("", ["probes"], "", False) == []
