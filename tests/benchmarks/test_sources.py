"""The recipe is data: every value that shapes a run of the paper says where it comes from, on its own line."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from graph import tree_of
from imports import ROOT
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from qthink_core.pipeline import parameters

DECISIONS = set(map(int, re.findall(r"^\| (\d+) \|", (ROOT / "docs/decisions/method.md").read_text(), re.MULTILINE)))
SOURCE = re.compile(r"\b(?:sister )?card\b|\bdecision (?P<decision>\d+)\b|\bours: \S")
FILES = ["params.yaml", "params/paper.yaml"]
# Which of the scales: no value of the recipe.
SWITCH = "scale"


def leaves(tree: CommentedMap, above: str = "") -> Iterator[tuple[str, int]]:
    """(dotted key, line from 0) of every value that is not a block of keys; a row in braces is one value."""
    for key, value in tree.items():
        if isinstance(value, CommentedMap) and not value.fa.flow_style():
            yield from leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", tree.lc.key(key)[0]


def comments(file: Path) -> dict[str, str]:
    """What is behind the # of each value's line, by dotted key."""
    text = file.read_text()
    return {key: text.splitlines()[line].partition("#")[2] for key, line in leaves(YAML().load(text))}


@pytest.mark.parametrize("file", FILES)
def test_every_value_names_its_source(file: str) -> None:
    bare = [key for key, said in comments(ROOT / file).items() if key != SWITCH and not SOURCE.search(said)]
    assert not bare, f"{file}: no card, sister card, decision or `ours: reason` behind {bare}"


@pytest.mark.parametrize("file", FILES)
def test_a_decision_that_is_named_exists(file: str) -> None:
    named = {
        int(found["decision"])
        for said in comments(ROOT / file).values()
        for found in SOURCE.finditer(said)
        if found["decision"]
    }
    assert named <= DECISIONS
    assert set(range(1, 21)) == DECISIONS


def test_a_value_without_a_source_would_be_found(tmp_path: Path) -> None:
    text = "a: 1  # card\nb:\n  c: 2  # ours:\n  d: {e: 3}  # decision 7\n  f: [4]\n"
    (tmp_path / "x.yaml").write_text(text)
    found = comments(tmp_path / "x.yaml")
    assert {key: SOURCE.search(said) is not None for key, said in found.items()} == {
        "a": True,
        "b.c": False,
        "b.d": True,
        "b.f": False,
    }


# The model card's table of details, its usage snippet, and LoRA's layers by a sister card.
CARD = {
    "base.hub.repo": "Qwen/Qwen3-1.7B",
    "dtype": "bfloat16",
    "K": 6,
    "gamma": 2.0,
    "rollout.G": 16,
    "train.lr": 2e-4,
    "train.lr_multiplier": 1,
    "train.epochs": 3,
    "train.batch": 1 * 16 * 8,
    "train.answer_max_tokens": 256,
    "train.lora.r": 32,
    "train.lora.alpha": 16,
    "train.lora.targets": "all-linear",
    "prepare.n_train": "all",
    "prepare.n_test": "all",
    "evaluate.max_new_tokens": 2048,
    "systems.distilled.uniform": {"teacher": "uniform", "supervision": "per_step"},
    "systems.distilled.reward_weighted": {"teacher": "reward_weighted", "supervision": "per_step"},
    "systems.distilled.final_step": {"teacher": "reward_weighted", "supervision": "final_step"},
}


@pytest.mark.parametrize("key", CARD)
def test_the_values_of_the_paper_are_those_of_the_card(key: str) -> None:
    assert parameters.value(tree_of("paper")[0], key) == CARD[key]
