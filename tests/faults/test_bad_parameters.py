"""Bad parameters: every key with every kind of wrong value, and numbers just beyond their bounds.

All are refused in lines that name the file and the key. The kinds are tried on each key that a params file has, so a new key
is tried, too.
"""

import math
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

import pytest
from graph import tree_of

from qthink_core.pipeline import checks, graph, parameters
from qthink_core.pipeline.parameters import Path_

SECTIONS = graph.parameter_classes()
FREE = ("*.repo", "*.name", "*.split", "*.file", "*.columns.*", "prepare.folder", "base.wheel.*")
# Values that are wrong for every key but those of these patterns.
KINDS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "null": (None, ("world", "base.pretrain.opening")),
    "yes": (True, ("*.own", "*.merged", "*.thinking")),
    "empty text": ("", ()),
    "a word": ("word", (*FREE, "scale")),
    "a number in quotes": ("1e-05", FREE),
    "a command": ("$(touch canary)", ()),
    "a command in backticks": ("`touch canary`", ()),
    "a second command": ("x; touch canary", ()),
    "a place for DVC to fill": ("${scale}", ()),
    "two lines": ("a\nb", ()),
    "a NUL": ("a\0b", ()),
    "an escape of the terminal": ("\x1b[31mred", ()),
    "text from right to left": ("\u202etxt", ()),
    "a lone surrogate": ("\ud800", ()),
    "a very long word": ("x" * 10_000, ()),
    "a folder above": ("../../x", ("prepare.folder", "*.columns.*")),
    "below zero": (-1, ()),
    "a fraction below zero": (-0.5, ()),
    "a huge number": (10**30, ()),
    "a number of 400 digits": (10**399, ()),
    "a huge fraction": (1e308, ()),
    "nan": (math.nan, ()),
    "infinity": (math.inf, ()),
    "minus infinity": (-math.inf, ()),
    "a list of lists": ([[1]], ()),
    "an empty list": ([], ("*.also",)),
    "a mapping": ({"a": 1}, ()),
    "a mapping in a list": ([{"a": 1}], ()),
}


def put(tree: dict[str, Any], leaf: Path_, value: Any) -> dict[str, Any]:
    return tree | {leaf[0]: value if len(leaf) == 1 else put(tree[leaf[0]], leaf[1:], value)}


def every_key() -> Iterator[tuple[str, list[Path_]]]:
    """The keys of tiny, then those that the source of another scale's model has instead."""
    seen: set[Path_] = set()
    for scale in ("tiny", "smol", "paper"):
        found = [leaf for leaf in parameters.leaves(tree_of(scale)[0]) if leaf not in seen]
        seen.update(found)
        yield scale, found


def named(faults: list[str], leaf: Path_) -> bool:
    return any(f" {parameters.dotted(leaf)}" in one for one in faults)


@pytest.mark.parametrize("kind", KINDS)
def test_each_key_refuses_each_kind_of_wrong_value_and_all_are_listed_at_once(kind: str) -> None:
    value, but = KINDS[kind]
    tried = 0
    for scale, keys in every_key():
        tree, origin = tree_of(scale)
        wrong = [leaf for leaf in keys if not any(fnmatchcase(".".join(leaf), one) for one in but)]
        altered = tree
        for leaf in wrong:
            altered = put(altered, leaf, value)
        found = checks.faults(altered, origin, SECTIONS)
        assert all(one.isprintable() and len(one) < 700 for one in found)
        # a fault of a section as a whole is not looked for while a value in it is wrong
        hidden = [leaf for leaf in wrong if not named(found, leaf)]
        assert [leaf for leaf in hidden if not checks.faults(put(tree, leaf, value), origin, SECTIONS)] == []
        tried += len(wrong) - len(hidden)
    assert tried > 100


def test_no_key_is_without_a_wrong_value() -> None:
    """A key that may hold anything would be an option without a check."""
    for _, keys in every_key():
        for leaf in keys:
            key = ".".join(leaf)
            assert sum(not any(fnmatchcase(key, one) for one in but) for _, but in KINDS.values()) > 20, key


SCHEMAS = [section.model_json_schema() for section in SECTIONS.values()]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("prepare.folder", " ", "prepare.folder is ' ': expected a name without spaces at its ends: rename it"),
        ("prepare.folder", "x" * 256, "expected names of at most 255 bytes between slashes: rename it"),
        ("data.gsm8k.train.repo", "../mine", "data.gsm8k.train.repo is '../mine': expected a repository of the hub"),
        ("data.gsm8k.train.repo", "https://huggingface.co/a/b", "expected a repository of the hub, as in openai/gsm8k"),
        ("data.gsm8k.train.name", "../*", "data.gsm8k.train.name is '../*': string should match pattern"),
        ("test_sets.svamp.columns.question", ["Body", "Body"], "test_sets.svamp.columns.question is ['Body', 'Body']: "),
        ("train.lora.targets", ["q_proj", "q_proj"], "each must appear once"),
        ("systems.distilled.undistilled.gamma", None, "gamma is None: give a value, or leave the key out"),
        ("systems.distilled.uniform", None, "systems.distilled.uniform is None: input should be a valid dictionary"),
        ("systems.distilled", {}, "systems.distilled is {}: dictionary should have at least 1 item"),
        ("systems.baseline", {}, "systems.baseline is {}: dictionary should have at least 1 item"),
        ("rollout", 3, "rollout is 3: input should be a valid dictionary"),
        ("world", {}, "world.changes is missing from params.yaml or params/tiny.yaml"),
        ("seeds", [0, "1"], "seeds.1 is '1': input should be a valid integer"),
        ("tasks", ["gsm8k", ["x"]], "tasks.1 is ['x']: input should be a valid string"),
        ("systems.trained", ["sft"] * 3_000, "systems.trained names sft 3000 times: keep one"),
        ("systems.trained", [{"a": 1}], "systems.trained.0 is {'a': 1}: input should be a valid string"),
    ],
)
def test_a_value_that_fits_its_type_alone_is_refused_by_its_key(key: str, value: Any, said: str) -> None:
    tree, origin = tree_of("tiny")
    found = checks.faults(put(tree, tuple(key.split(".")), value), origin, SECTIONS)
    assert any(said in one for one in found), found
    assert not any("no stage reads" in one for one in found)


def limits(leaf: Path_) -> tuple[float, float] | None:
    """The smallest and the largest number that the stages accept for a key, by their schemas."""
    found = []
    for schema in SCHEMAS:
        nodes = [schema]
        for part in leaf:
            below = [one.get("properties", {}).get(part, one.get("additionalProperties")) for one in nodes]
            nodes = list(unfolded(schema, [one for one in below if isinstance(one, dict)]))
        for node in nodes:
            if node.get("type") in ("integer", "number") and "minimum" in node:
                largest = node["maximum"] if "maximum" in node else math.nextafter(node["exclusiveMaximum"], 0)
                kind = int if node["type"] == "integer" else float
                found.append((kind(node["minimum"]), kind(largest)))
    return max(found, key=lambda one: one[0], default=None)


def unfolded(schema: dict[str, Any], nodes: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The nodes of a schema with references followed, and each alternative and item on its own."""
    for node in nodes:
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
        yield node
        inner = [*node.get("anyOf", []), *([node["items"]] if "items" in node else [])]
        yield from unfolded(schema, inner)


def numbers(tree: dict[str, Any]) -> dict[Path_, Any]:
    """The values that are numbers, lists of them, or the word that stands for all rows."""

    def is_one(value: Any) -> bool:
        return type(value) in (int, float) or value == "all" or (isinstance(value, list) and type((value or [""])[0]) is int)

    return {leaf: value for leaf, value in parameters.items(tree) if is_one(value)}


def test_the_smallest_and_the_largest_number_of_each_key_are_accepted_and_the_next_ones_refused() -> None:
    tree, origin = tree_of("tiny")
    held = {leaf: (value, limits(leaf)) for leaf, value in numbers(tree).items()}
    assert len(held) > 60
    assert [leaf for leaf, (_, bounds) in held.items() if bounds is None] == []
    for at in (0, 1):
        inside, outside = tree, tree
        for leaf, (value, bounds) in held.items():
            assert bounds is not None
            bound = bounds[at]
            way = math.copysign(math.inf, at - 0.5)
            beyond = math.nextafter(bound, way) if isinstance(bound, float) else bound + 2 * at - 1
            inside = put(inside, leaf, [bound] if isinstance(value, list) else bound)
            outside = put(outside, leaf, [beyond] if isinstance(value, list) else beyond)
        assert checks.faults(inside, origin, SECTIONS) == []
        found = checks.faults(outside, origin, SECTIONS)
        assert [leaf for leaf in held if not named(found, leaf)] == []
