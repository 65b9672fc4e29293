"""Progress: what takes long at large settings shows how far it is, and makes what it makes without being watched."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from entries import gather
from worlds import STYLE, WORLD

from qthink_core.models.base_model import pretrain_into


class Bars:
    """Takes down what would be shown: a list for each bar, its total and then the items that went through."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []

    def __call__(self, items: Iterable[int], total: int) -> Iterator[int]:
        self.seen.append(bar := [total])
        for item in items:
            bar.append(item)
            yield item


@pytest.mark.parametrize("task", ["gsm8k", "math500", "tooluse"])
def test_generation_shows_every_problem_and_makes_the_same_ones_unseen(task: str) -> None:
    show = Bars()
    shown = gather(task, "generated", n_train=5, n_test=3, show=show)
    assert shown == gather(task, "generated", n_train=5, n_test=3)
    assert show.seen == [[5, 0, 1, 2, 3, 4], [0], [3, 0, 1, 2]]


def test_a_pre_training_shows_its_problems_and_then_its_steps(tmp_path: Path) -> None:
    sizes = {"hidden_size": 8, "layers": 1, "heads": 1, "kv_heads": 1, "head_dim": 4, "intermediate_size": 8}
    course = {"steps": 3, "batch": 2, "lr": 1e-3, "warmup": 0.0, "weight_decay": 0.0}
    steps, generated = Bars(), Bars()

    def show(items: Iterable[int], total: int) -> Iterator[int]:
        assert len(generated.seen) == 3
        return steps(items, total)

    pretrain_into(tmp_path, sizes | course | STYLE._asdict(), WORLD, 0, show, generated)
    assert generated.seen == [[2, 0, 1]] * 3
    assert steps.seen == [[3, 0, 1, 2]]
