"""Bad parameters: every key with every kind of wrong value, files that are no plain YAML, settings of the command line.

All are refused before anything is loaded or written, in lines that name the file and the key. The kinds are tried on each
key that a params file has, so a new key is tried, too.
"""

import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from graph import copy_repository, tree_of
from imports import ROOT

from qthink_core.errors import ParamError
from qthink_core.pipeline import checks, graph, parameters
from qthink_core.pipeline.parameters import Path_
from qthink_core.planning.settings import checked_with

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


def doubling(first: bytes, of_aliases: Callable[[bytes], bytes]) -> bytes:
    """Anchors a to i, each of which holds the one before ten times."""
    return b"a: &a " + first + b"\n" + b"".join(b"%c: &%c %s\n" % (n, n, of_aliases(b"*%c" % (n - 1))) for n in b"bcdefghi")


BOMB = doubling(b"{x: 1}", lambda one: b"{" + b",".join(b"k%d: %s" % (n, one) for n in range(10)) + b"}")
MERGES = doubling(b"{x: 1}", lambda one: b"{<<: [" + b",".join([one] * 10) + b"]}")
LISTS = doubling(b"[x]", lambda one: b"[" + b",".join([one] * 10) + b"]")
Edit = Callable[[bytes], bytes]


def more(line: bytes) -> Edit:
    return lambda text: text + line + b"\n"


def instead(old: bytes, new: bytes) -> Edit:
    def edit(text: bytes) -> bytes:
        assert text.count(old) == 1, f"{old!r} is in params.yaml {text.count(old)} times"
        return text.replace(old, new)

    return edit


K = b"\nK: 6  "
# What is done to params.yaml, and what is said.
FILES: dict[str, tuple[Edit, str]] = {
    "nothing": (lambda _: b"", "must hold `key: value` lines, found nothing"),
    "blank lines": (lambda _: b"\n \n", "found nothing"),
    "comments alone": (lambda _: b"# seed: 0\n", "found nothing"),
    "a list": (lambda _: b"- seed\n", "found list"),
    "a word": (lambda _: b"seed\n", "found str"),
    "a number": (lambda _: b"3\n", "found int"),
    "null": (lambda _: b"null\n", "found nothing"),
    "UTF-16": (
        lambda text: text.decode().encode("utf-16"),
        "is not UTF-8 at line 1 (byte 0xff): save it as UTF-8",
    ),
    "Latin-1": (more("zz: ü".encode("latin-1")), "is not UTF-8 at line"),
    "a NUL": (more(b"zz: \0"), "has the control character U+0000: remove it"),
    "a bell": (more(b"zz: a\x07b"), "has the control character U+0007: remove it"),
    "the end of a file of DOS": (more(b"\x1a"), "has the control character U+001A: remove it"),
    "a tab before a key": (instead(K, b"\n\tK: 6  "), "found character '\\t' that cannot start any token"),
    "a tab before a value": (instead(K, b"\nK:\t6"), "found character '\\t' that cannot start any token"),
    "a space that is none": (instead(K, "\nK:\u00a06".encode()), "is not valid YAML at line"),
    "a second document": (more(b"---\nK: 7"), "a second document begins: keep one"),
    "another version of YAML": (lambda text: b"%YAML 1.1\n---\n" + text, "begins with a directive (%)"),
    "a version that is none": (lambda text: b"%YAML 9.9\n---\n" + text, "found incompatible YAML document"),
    "a prefix of tags": (lambda text: b"%TAG ! tag:x,2000:\n---\n" + text, "begins with a directive (%)"),
    "a bracket that stays open": (more(b"zz: [1"), "expected ',' or ']'"),
    "a quote that stays open": (more(b"zz: 'x"), "found unexpected end of stream"),
    "an escape beyond Unicode": (more(b'zz: "\\UFFFFFFFF"'), "is not valid YAML"),
    "a wrong indent": (instead(b"  G: 16 ", b" G: 16 "), "expected <block end>"),
    "two colons": (instead(K, b"\nK: 6: 7 "), "mapping values are not allowed here"),
    "a percent sign": (more(b"zz: %x"), "cannot start any token"),
    "an at sign": (more(b"zz: @x"), "cannot start any token"),
    "a backtick": (more(b"zz: `touch canary`"), "cannot start any token"),
    "an alias of nothing": (more(b"zz: *nope"), "*nope is not the name of a whole value before it"),
    "an alias in its own list": (more(b"zz: &a [*a]"), "*a is not the name of a whole value before it"),
    "an alias in its own mapping": (more(b"zz: &a {b: *a}"), "*a is not the name of a whole value before it"),
    "aliases of aliases": (more(BOMB), "holds more than 8,000 values, those of aliases included: shorten it"),
    "lists of lists of aliases": (more(LISTS), "holds more than 8,000 values"),
    "merge keys of merge keys": (more(MERGES), "has a merge key (<<) at line"),
    "a merge key": (instead(K, b"\n<<: {K: 6} "), "has a merge key (<<) at line 37: write the keys out"),
    "a merge of a number": (more(b"<<: 3"), "has a merge key (<<) at line"),
    "a function of Python": (more(b"zz: !!python/name:os.system"), "has the tag !!python/name:os.system at line"),
    "a call of Python": (
        more(b"zz: !!python/object/apply:os.system ['touch canary']"),
        "has the tag !!python/object/apply:os.system",
    ),
    "a module of Python": (more(b"zz: !!python/module:subprocess"), "has the tag !!python/module:subprocess"),
    "a tag of one's own": (more(b"zz: !mine 1"), "has the tag !mine at line"),
    "a tagged number": (instead(K, b"\nK: !!int '6' "), "has the tag !!int at line 37: write a plain value without it"),
    "a tagged word for a number": (instead(K, b"\nK: !!int x "), "has the tag !!int"),
    "a tagged null": (instead(K, b"\nK: !!null x "), "has the tag !!null"),
    "a set": (more(b"zz: !!set {a, b}"), "has the tag !!set"),
    "binary": (more(b"zz: !!binary aGVsbG8="), "has the tag !!binary"),
    "many brackets": (more(b"zz: " + b"[" * 20_000), "is nested deeper than 20 levels"),
    "many braces": (more(b"zz: " + b"{a: " * 5_000), "is nested deeper than 20 levels"),
    "many levels": (more(b"zz:\n" + b"".join(b" " * n + b"a:\n" for n in range(1, 300))), "is nested deeper than 20 levels"),
    "a long list": (more(b"zz: [" + b"1," * 100_000 + b"]"), "holds more than 8,000 values"),
    "many keys": (more(b"".join(b"k%d: 1\n" % n for n in range(9_000))), "holds more than 8,000 values"),
    "hundreds of keys": (
        more(b"".join(b"k%d: 1\n" % n for n in range(300))),
        "params: no stage reads 250 more keys: remove them",
    ),
    "a long file": (more(b"# x\n" * 100_000), "has more than 262,144 bytes: shorten it"),
    "a long key": (more(b"x" * 100_000 + b": 1"), "could not find expected ':'"),
    "a doubled key": (more(b"K: 7"), "has a doubled key at line 103: 'K' (the first is at line 37): keep one"),
    "a doubled key below": (instead(b"  G: 16 ", b"  G: 16\n  G: 16 "), "has a doubled key at line 42: 'rollout.G'"),
    "a doubled key in braces": (
        instead(b"{thinking: true}", b"{thinking: true, thinking: true}"),
        "'systems.baseline.base.thinking'",
    ),
    "a doubled section": (more(b"rollout: {G: 1}"), "has a doubled key at line 103: 'rollout'"),
    "a list for a key": (more(b"? [a, b]\n: 1"), "has a list for a key at line 103: expected a name"),
    "a mapping for a key": (more(b"? {a: b}\n: 1"), "has a mapping for a key at line 103: expected a name"),
    "a number for a key": (more(b"1: 2"), "no stage reads 1: remove it"),
    "null for a key": (more(b"~: 2"), "no stage reads None: remove it"),
    "yes for a key": (more(b"true: 2"), "no stage reads True: remove it"),
    "nothing for a key": (more(b"'': 2"), "no stage reads '': remove it"),
    "a date for a key": (more(b"2026-01-31: 2"), "no stage reads 2026-01-31: remove it"),
    "a date that is none": (instead(K, b"\nK: 2026-13-45 "), "K is '2026-13-45': input should be a valid integer"),
    "a key with a dot": (more(b"train.lr: 2"), "no stage reads 'train.lr': write the keys one below the other"),
    "a key in two lines": (more(b'"a\\nb": 1'), "no stage reads 'a\\nb': remove it"),
    "a key that colours a terminal": (more(b'"\\e[31mred": 1'), "no stage reads '\\x1b[31mred': remove it"),
    "a key of hidden direction": (more("\u202eK: 1".encode()), "no stage reads '\\u202eK': did you mean K?"),
    "a key of Cyrillic letters": (instead(K, "\nК: 6  ".encode()), "no stage reads '\\u041a': remove it"),
    "a digit of another script": (instead(K, "\nK: ６ ".encode()), "K is '６': input should be a valid integer"),
    "an invisible character": (instead(K, "\nK: 6\u200b ".encode()), "K is '6\\u200b': input should be a valid integer"),
    "minutes and seconds": (instead(K, b"\nK: 1:30 "), "K is '1:30': input should be a valid integer"),
    "5,000 digits": (instead(K, b"\nK: " + b"9" * 5_000 + b" "), "K is '99999999"),
    "a fraction in quotes": (
        instead(b"  lr: 2.0e-4", b"  lr: '1e-05'"),
        "train.lr is '1e-05': input should be a valid number",
    ),
    "a misspelt key": (instead(b"\ngamma: 2.0", b"\ngama: 2.0"), "no stage reads gama: did you mean gamma?"),
    "a misspelt key of a place": (
        instead(b"{file: tooluse/train.json}", b"{fil: tooluse/train.json}"),
        "extra inputs are not permitted: did you mean file?",
    ),
    "no scale": (instead(b"\nscale: tiny  ", b"\n# "), "params.yaml has scale: None: expected one of the files in params/"),
    "a misspelt scale": (
        instead(b"scale: tiny", b"scale: tinny"),
        "has scale: 'tinny': expected one of the files in params/",
    ),
    "a scale elsewhere": (instead(b"scale: tiny", b"scale: ../params/tiny"), "has scale: '../params/tiny': expected"),
    "a list for a scale": (instead(b"scale: tiny", b"scale: [tiny]"), "has scale: ['tiny']: expected"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the params files alone."""
    root = tmp_path_factory.mktemp("params")
    shutil.copytree(ROOT / "params", root / "params")
    return root


def refusal(root: Path, text: bytes) -> list[str]:
    (root / "params.yaml").write_bytes(text)
    with pytest.raises(ParamError) as found:
        graph.checked_parameters(root)
    return str(found.value).split("\n")


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_no_plain_yaml_or_has_odd_keys_is_refused_with_the_line_or_the_key(folder: Path, case: str) -> None:
    edit, said = FILES[case]
    found = refusal(folder, edit((ROOT / "params.yaml").read_bytes()))
    assert any(said in one for one in found), found[:5]
    assert all("params" in one for one in found)
    assert len(found) <= 60


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text + b"...\n",
        instead(K, b"\nK: +6 "),
        instead(K, b"\nK: 0x6 "),
        instead(K, b"\nK: &six 6 "),
        lambda text: instead(b"  G: 16 ", b"  G: *six ")(instead(b"\nseed: 0 ", b"\nseed: &six 6 ")(text)),
        instead(b"  lr: 2.0e-4", b"  lr: 1e-05"),
        instead(b"\ngamma: 2.0", b"\ngamma: 2"),
    ],
    ids=["BOM", "CRLF", "end of document", "+6", "0x6", "anchor", "alias", "1e-05", "2 for 2.0"],
)
def test_other_spellings_of_right_values_are_read(folder: Path, edit: Edit) -> None:
    (folder / "params.yaml").write_bytes(edit((ROOT / "params.yaml").read_bytes()))
    assert graph.checked_parameters(folder)["K"] == 6


def test_faults_of_reading_and_of_values_in_both_files_are_listed_at_once(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "params", tmp_path / "params")
    common, tiny = instead(K, b"\nK: 0 ")((ROOT / "params.yaml").read_bytes()), tmp_path / "params/tiny.yaml"
    lines = tiny.read_bytes().count(b"\n")
    tiny.write_bytes(instead(b"device: cpu", b"device: gpu")(tiny.read_bytes()) + b"seed: 3\ndtype: float32\n")
    found = refusal(tmp_path, common + b"gamma: 1.0\ncpu_kernels: avx2\n")
    assert [one.removeprefix(f"{tmp_path}/") for one in found] == [
        "params.yaml has a doubled key at line 103: 'gamma' (the first is at line 38): keep one",
        f"params/tiny.yaml has a doubled key at line {lines + 2}: 'dtype' (the first is at line 6): keep one",
        "cpu_kernels is in params.yaml and in params/tiny.yaml: keep one of them",
        "seed is in params.yaml and in params/tiny.yaml: keep one of them",
        "params/tiny.yaml: device is 'gpu': input should be 'cpu' or 'cuda'",
        "params.yaml: K is 0: input should be greater than or equal to 1",
    ]
    tiny.write_bytes(b"prepare: [\n")
    assert [one.removeprefix(f"{tmp_path}/") for one in refusal(tmp_path, common)] == [
        "params/tiny.yaml is not valid YAML at line 2, column 1: expected the node content, but found '<stream end>'",
        "params.yaml: K is 0: input should be greater than or equal to 1",
    ]


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("make", [Path.unlink, as_folder, as_pipe])
@pytest.mark.parametrize("name", ["params.yaml", "params/tiny.yaml"])
def test_what_is_no_file_is_refused_with_the_command_that_restores_it_or_the_files_there_are(
    tmp_path: Path, name: str, make: Callable[[Path], None]
) -> None:
    shutil.copytree(ROOT / "params", tmp_path / "params")
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    make(tmp_path / name)
    with pytest.raises(ParamError, match=r"git checkout .*/params|scale: 'tiny': expected one of the files in params/"):
        graph.checked_parameters(tmp_path)


SETTINGS = [
    (["K=$(touch canary)"], ["K is '$(touch canary)': input should be a valid integer"]),
    (["K=`touch canary`"], ["the value is not valid YAML at line 1, column 1: found character '`'"]),
    (["K=!!python/object/apply:os.system [touch canary]"], ["the value has the tag !!python/object/apply:os.system"]),
    (["K=" + "[" * 5_000], ["the value is nested deeper than 20 levels"]),
    (["K=" + "9" * 5_000], ["K is '999"]),
    (["K='6'"], ["K is '6': input should be a valid integer"]),
    (["K="], ["K is None: input should be a valid integer"]),
    (["K=1\nseed: 2"], ["is not a setting: expected key=value"]),
    (["K=\udcff"], ["the value is not UTF-8 at line 1 (byte 0xff)"]),
    (["K.x=1"], ["K.x is missing from the params files"]),
    (["+K.x=1"], ["K is {'x': 1}: input should be a valid integer"]),
    (["+.x=1"], ["no stage reads ''.x: remove it"]),
    (["К=6"], ["-S 'К=6': К is missing from the params files"]),
    (["gama=1"], ["gama is missing from the params files; did you mean gamma?"]),
    (["rollout={G: 1, G: 2}"], ["the value has a doubled key at line 1: 'G'"]),
    (["rollout={<<: {G: 1}}"], ["the value has a merge key (<<)"]),
    (["train.lr='1e-05'"], ["train.lr is '1e-05': input should be a valid number"]),
    (["scale=../tiny"], ["--scale is '../tiny': expected one of the files in params/", "scale has the name '../tiny'"]),
    (["scale=smol", "scale=tiny", "params/smol.yaml:device=cpu"], ["device is in params/tiny.yaml"]),
    (["tasks=[gsm8k, gsm8k]"], ["tasks is ['gsm8k', 'gsm8k']: each must appear once"]),
    (["prepare.folder=$(touch canary)"], ["prepare.folder is '$(touch canary)': expected a name without '$': rename it"]),
    (
        ["~K", "gamma=.nan", "lr=2", "params/tiny.yaml:device=gpu"],
        ["K is missing", "gamma is nan", "lr is missing", "device is"],
    ),
]


@pytest.mark.parametrize(("settings", "said"), SETTINGS, ids=lambda one: " ".join(one)[:40])
def test_wrong_settings_of_the_command_line_are_refused_at_once(settings: list[str], said: list[str]) -> None:
    with pytest.raises(ParamError) as found:
        checked_with(ROOT, None, settings)
    lines = str(found.value).split("\n") if "\n" not in settings[0] else [str(found.value)]
    assert len(lines) == len(said)
    assert [part for part in said if not any(part in one for one in lines)] == []


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository in which torch and all that is as heavy end the process that imports them."""
    root = copy_repository(tmp_path_factory.mktemp("bad") / "repository")
    (root.parent / "traps").mkdir()
    for heavy in ("torch", "transformers", "peft", "accelerate", "datasets"):
        (root.parent / "traps" / f"{heavy}.py").write_text(f"raise SystemExit('{heavy} was imported')\n")
    return root


COMMANDS = {
    "qthink run": ["run", "--seeds", "3,4"],
    "qthink plan": ["plan", "-S", "K=$(touch canary)"],
    "qthink preflight": ["preflight"],
}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_refuses_bad_parameters_before_torch_and_writes_and_runs_nothing(repository: Path, command: str) -> None:
    words = [sys.executable, "-m", "qthink_core.cli", *COMMANDS[command]]
    text = (ROOT / "params.yaml").read_bytes()
    text = instead(b"\ngamma: 2.0", b"\ngama: 2.0")(instead(b"  folder: data ", b"  folder: $(touch canary) ")(text))
    (repository / "params.yaml").write_bytes(text)
    before = {path: path.stat().st_mtime_ns for path in repository.rglob("*") if "__pycache__" not in path.parts}
    environment = os.environ | {"PYTHONPATH": str(repository.parent / "traps")}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    done = subprocess.run(words, cwd=repository, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == ParamError.exit_code == 2
    assert done.stdout == ""
    own = [line for line in done.stderr.splitlines() if "this program uses the code in" not in line]
    assert all(line.startswith("qthink: ") for line in own)
    for part in ("no stage reads gama: did you mean gamma?", "prepare.folder is '$(touch canary)'", "gamma is missing"):
        assert part in done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in repository.rglob("*") if "__pycache__" not in path.parts}
