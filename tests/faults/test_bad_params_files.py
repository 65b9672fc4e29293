"""Params files that are no plain YAML, have odd keys, or are no files: refused with the line or the key."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from faults.edits import Edit, instead, more
from imports import ROOT

from qthink_core.errors import ParamError
from qthink_core.pipeline import graph


def doubling(first: bytes, of_aliases: Callable[[bytes], bytes]) -> bytes:
    """Anchors a to i, each of which holds the one before ten times."""
    return b"a: &a " + first + b"\n" + b"".join(b"%c: &%c %s\n" % (n, n, of_aliases(b"*%c" % (n - 1))) for n in b"bcdefghi")


BOMB = doubling(b"{x: 1}", lambda one: b"{" + b",".join(b"k%d: %s" % (n, one) for n in range(10)) + b"}")
MERGES = doubling(b"{x: 1}", lambda one: b"{<<: [" + b",".join([one] * 10) + b"]}")
LISTS = doubling(b"[x]", lambda one: b"[" + b",".join([one] * 10) + b"]")

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
