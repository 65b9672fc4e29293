"""Bad data: rows that cannot be used, files with fewer problems than asked for, and think blocks that are not one block.

A row is left out with its reason up to `prepare.max_left_out`, and refused above it with file, row, id and remedy. Files
that cannot be read at all are in tests/benchmarks/test_source_rows.py, and published files in test_problems.py.
"""

import datetime
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from entries import MINE, ROWS, TEST, gather, lines, mine

from qthink_core.artifacts.pairs import Pair
from qthink_core.artifacts.rollouts import Rollout
from qthink_core.benchmarks import rendering
from qthink_core.benchmarks.data_entries import Entry
from qthink_core.benchmarks.graders.contract import Problem
from qthink_core.errors import DataError
from qthink_core.method import extraction, targets, think

NOUGHT = '{"question": "a\\u0000b?", "answer": "1"}'


def asked(answer: str) -> bytes:
    """A row with this JSON text for its answer."""
    return b'{"question": "How many?", "answer": ' + answer.encode() + b"}"


def said_once(question: str) -> bytes:
    return json.dumps({"question": question, "answer": "1"}).encode()


LEFT_OUT = [
    (b'{"question": "x", "answer"', "not JSON", "the line is not JSON"),
    (b'{"question": "x", "answer": "1",}', "not JSON", "the line is not JSON"),
    (b'{"question": "x", "answer": "1"} {"question": "y", "answer": "1"}', "not JSON", "the line is not JSON"),
    (b'{"question": "x", "answer": "1"}\r{"question": "y", "answer": "1"}', "not JSON", "the line is not JSON"),
    (b'\xef\xbb\xbf{"question": "x", "answer": "1"}', "not JSON", "the line is not JSON"),
    (b"// a comment", "not JSON", "the line is not JSON"),
    (b'["question"]', "not JSON", "holds a JSON list where an object is expected"),
    (b"3", "not JSON", "holds a JSON int where an object is expected"),
    (b"null", "not JSON", "holds a JSON NoneType where an object is expected"),
    (b'{"question": "x", "question": "y", "answer": "1"}', "not JSON", "field 'question' appears twice"),
    (b'{"question": "x\x00", "answer": "1"}', "not JSON", "the line is not JSON"),
    (NOUGHT.encode(), "not text", "has a NUL character in field 'question'"),
    (b'{"question": "\xff", "answer": "1"}', "not UTF-8", "the line is not UTF-8 (byte 15"),
    (b'{"question": "\xc0\x80", "answer": "1"}', "not UTF-8", "the line is not UTF-8"),
    (b'{"question": "\xed\xa0\x80", "answer": "1"}', "not UTF-8", "the line is not UTF-8"),
    (b'{"question": "x\xe2\x82', "not UTF-8", "the line is not UTF-8"),
    (b"[" * 100_000, "not JSON", "nested too deep"),
    (b'{"answer": ' + b"9" * 5_000 + b"}", "not JSON", "the line is not JSON"),
    (asked("1e999"), "not JSON", "1e999 is not a finite number"),
    (asked("NaN"), "not JSON", "NaN is not a finite number"),
    (b"", "empty line", "the line is empty"),
    (b" \t", "empty line", "the line is empty"),
    (b'{"question": "' + b"x" * (8 << 20) + b'"}', "too long", "more than 8,388,608 bytes"),
    (b"{}", "missing field", "nothing in field 'question'"),
    (b'{"question": "x"}', "missing field", "nothing in field 'answer'"),
    (b'{"question": " ", "answer": "1"}', "missing field", "has str ' ' in field 'question'"),
    (said_once("\u00a0\u200b\u2060"), "missing field", "has nothing that can be seen in field 'question'"),
    (b'{"question": "x", "answer": null}', "missing field", "nothing in field 'answer'"),
    (asked('""'), "missing field", "has str '' in field 'answer'"),
    (b'{"question": 3, "answer": "1"}', "not text", "has int 3 in field 'question'"),
    (b'{"question": ["x"], "answer": "1"}', "not text", "has list ['x'] in field 'question'"),
    (b'{"question": "x", "answer": true}', "not text", "has bool True in field 'answer'"),
    (b'{"question": "x", "answer": ["1"]}', "not text", "has list ['1'] in field 'answer'"),
    (b'{"question": "\\ud800", "answer": "1"}', "not text", "lone surrogate"),
    (b'{"question": "x", "answer": "one"}', "no gold", "has the gold 'one', expected one number"),
    (asked('"inf"'), "no gold", "has the gold 'inf', expected one number"),
    (asked('"1/0"'), "no gold", "has the gold '1/0', expected one number"),
    (asked('"' + "9" * 5_000 + '"'), "no gold", "expected one number"),
    (asked('"#### 1,23"'), "no gold", "has the gold '1,23', expected one number"),
    (asked('"#### "'), "no gold", "has the gold '', expected one number"),
    (b'{"question": "x", "answer": "#### 1 #### 2"}', "no gold", "has 2 '####'"),
    (b'{"question": "x", "answer": "\\\\boxed{3} #### 2"}', "gold does not match its answer", "extracted '3'"),
    (b'{"question": "x", "answer": {"value": 1}}', "not text", "has dict {'value': 1} in field 'answer'"),
    (lines(ROWS[:1]).strip(), "doubled question", "asks the question of line 1"),
    (said_once(" What  is 0\nand 0? "), "doubled question", "asks the question of line 1"),
    (lines(TEST[:1]).strip(), "in the test set", "is mine-test-00000 of the test set (line 1)"),
    (said_once("What is 0\ttimes 7?"), "in the test set", "is mine-test-00000 of the test set (line 1)"),
]


@pytest.mark.parametrize(("line", "reason", "said"), LEFT_OUT)
def test_a_row_that_cannot_be_used_is_left_out_with_its_reason_up_to_the_limit(
    tmp_path: Path, line: bytes, reason: str, said: str
) -> None:
    text = lines(ROWS[:2]) + line + b"\n" + lines(ROWS[2:])
    found = mine(tmp_path, text, max_left_out=1)
    # A row's id is its place in the file, whatever is left out before it.
    assert [one.id for one in found.splits["train"]] == [f"mine-train-0000{n}" for n in (0, 1, 3, 4, 5, 6)]
    assert found.about["splits"]["train"] | {"rows": 7, "used": 6, "left_out": {reason: 1}} == found.about["splits"]["train"]
    assert f"1 of 7 train rows left out (1 {reason}; line 3 (mine-train-00002): {reason})" in found.said
    with pytest.raises(
        DataError, match=r"train\.jsonl, line 3 \(mine-train-00002\): .*raise prepare\.max_left_out \(0\)$"
    ) as refusal:
        mine(tmp_path, text, max_left_out=0)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert refusal.value.exit_code == 65


KEPT = ["a\u2028b", "a\u001b[31mb", "a\u202eb", "١٢ and １２?", "x" * 100_000, "What is 0 AND 0?", "a\ufeffb"]


@pytest.mark.parametrize("question", KEPT, ids=lambda one: ascii(one)[:20])
def test_a_row_of_odd_but_whole_text_is_used_as_it_is(tmp_path: Path, question: str) -> None:
    found = mine(tmp_path, lines(ROWS) + said_once(question) + b"\n", max_left_out=0)
    assert found.splits["train"][-1].question == question


CALLS = [{"Action": "look", "Action_Input": "{}"}]
# A row of another benchmark, in place of one that is right.
OTHER = {
    "math500": ({"problem": "What is $1+1$?", "answer": "2", "unique_id": "mine/1"}, "mine/1"),
    "tooluse": ({"prompt": "Look.", "answer": json.dumps(CALLS)}, "mine-train-00000"),
}


def calls(**changed: Any) -> dict[str, str]:
    return {"answer": json.dumps([CALLS[0] | changed])}


@pytest.mark.parametrize(
    ("benchmark", "changed", "reason", "said"),
    [
        ("math500", {"unique_id": 5}, "not text", "has int 5 in field 'unique_id'"),
        ("math500", {"unique_id": ""}, "missing field", "has str '' in field 'unique_id'"),
        ("math500", {"unique_id": ["a"]}, "not text", "has list ['a'] in field 'unique_id'"),
        ("math500", {"unique_id": "a\nb"}, "not text", "expected an id of at most 200 characters in one line"),
        ("math500", {"unique_id": "a\x1b[31m"}, "not text", "expected an id of at most 200 characters in one line"),
        ("math500", {"unique_id": "a\0"}, "not text", "has a NUL character in field 'unique_id'"),
        ("math500", {"unique_id": "\ud800"}, "not text", "lone surrogate"),
        ("math500", {"unique_id": "x" * 201}, "not text", "expected an id of at most 200 characters in one line"),
        ("math500", {"unique_id": "mine/1"}, "doubled id", "id mine/1 is also that of line 1: drop one of them"),
        ("math500", {"unique_id": "test/1"}, "in the test set", "is test/1 of the test set (line 1): drop it from training"),
        ("math500", {"answer": "{"}, "no gold", r"has the gold '{', expected the content of a \boxed{}"),
        ("math500", {"answer": r"\boxed{1}"}, "no gold", r"expected the content of a \boxed{}"),
        ("math500", {"answer": "1" * 501}, "no gold", "at most 500 characters"),
        ("math500", {"answer": None}, "missing field", "has nothing in field 'solution'"),
        ("math500", {"solution": "It is 2."}, "no box", "has no box with the answer in its solution"),
        ("math500", {"solution": r"\boxed{3}"}, "gold does not match its answer", "extracted '3'"),
        ("tooluse", {"answer": "look"}, "no gold", "has the gold 'look', expected a JSON list"),
        ("tooluse", {"answer": "[]"}, "no gold", "expected a JSON list"),
        ("tooluse", {"answer": "[" * 100_000}, "no gold", "expected a JSON list"),
        ("tooluse", {"answer": json.dumps([{"Action_Input": "{}"}])}, "no gold", "expected a JSON list"),
        ("tooluse", {"answer": '[{"Action": "a", "Action": "b", "Action_Input": "{}"}]'}, "no gold", "expected a JSON list"),
        ("tooluse", calls(Action_Input={}), "no gold", "expected a JSON list"),
        ("tooluse", calls(Action_Input="{"), "no gold", "expected a JSON list"),
        ("tooluse", calls(Action_Input='{"x": NaN}'), "no gold", "expected a JSON list"),
        ("tooluse", calls(Action_Input='{"x": 1e999}'), "no gold", "expected a JSON list"),
        ("tooluse", calls(Action_Input='{"x": ' + "9" * 5_000 + "}"), "no gold", "expected a JSON list"),
        ("tooluse", calls(Action=""), "gold does not match its answer", "which its own answer does not match"),
        ("tooluse", calls(Action="a\nb"), "gold does not match its answer", "which its own answer does not match"),
    ],
)
def test_a_row_of_another_benchmark_is_left_out_with_its_reason(
    tmp_path: Path, benchmark: str, changed: dict[str, Any], reason: str, said: str
) -> None:
    right, first_id = OTHER[benchmark]
    text = next(name for name in right if name in ("problem", "prompt"))
    entry = Entry.model_validate(MINE.model_dump(exclude_none=True) | {"benchmark": benchmark})
    own = {"unique_id": "mine/2"} if benchmark == "math500" else {}
    (tmp_path / "train.jsonl").write_bytes(lines([right, right | {text: "Another?"} | own | changed]))
    tests = [right | {text: f"Test {n}?"} | ({"unique_id": f"test/{n}"} if own else {}) for n in (1, 2)]
    (tmp_path / "test.jsonl").write_bytes(lines(tests))
    found = gather("mine", "folder", tmp_path, entry, max_left_out=1)
    assert [one.id for one in found.splits["train"]] == [first_id]
    assert found.about["splits"]["train"]["left_out"] == {reason: 1}
    with pytest.raises(DataError, match=r"train\.jsonl, line 2 \(.*\): .*raise prepare\.max_left_out \(0\)$") as refusal:
        gather("mine", "folder", tmp_path, entry, max_left_out=0)
    assert said in str(refusal.value)


QUESTIONS = ["What is 1 and 1?", "What is 2 and 2?"]
BINARY = pa.array([b"1", b"\xff"], pa.binary())


@pytest.mark.parametrize(
    ("column", "reasons"),
    [
        (pa.array([1, 2]), {}),
        (pa.array(["1", None]), {"missing field": 1}),
        (pa.array([1.5, float("nan")]), {"no gold": 1}),
        (BINARY.view(pa.string()), {"not UTF-8": 1}),
        (pa.array([["1"], ["2"]]), {"not text": 2}),
        (pa.array([{"value": 1}] * 2), {"not text": 2}),
        (pa.array([True, False]), {"not text": 2}),
        (pa.array([Decimal("1.5")] * 2), {"not text": 2}),
        (pa.array([datetime.date(2026, 1, 31)] * 2), {"not text": 2}),
        (BINARY, {"not text": 2}),
        (pa.nulls(2), {"missing field": 2}),
    ],
    ids=lambda one: str(one.type) if isinstance(one, pa.Array) else "",
)
def test_a_column_of_parquet_of_another_type_is_counted_or_refused_with_its_first_row(
    tmp_path: Path, column: pa.Array, reasons: dict[str, int]
) -> None:
    pq.write_table(pa.table({"question": pa.array(QUESTIONS), "answer": column}), tmp_path / "train.parquet")
    entry = MINE.model_copy(update={"train": MINE.train.model_copy(update={"file": "train.parquet"})})
    if sum(reasons.values()) == 2:
        with pytest.raises(DataError, match=r"2 of 2 rows of .*train\.parquet cannot be used .* row 1 \(mine-train-00000\)"):
            mine(tmp_path, b"", entry)
        return
    assert mine(tmp_path, b"", entry).about["splits"]["train"]["left_out"] == reasons


@pytest.mark.parametrize(
    ("asked_for", "said"),
    [
        (
            {"n_train": 7},
            r"train\.jsonl has 6 problems .*, 0 of validation taken out, and prepare\.n_train asks for 7",
        ),
        (
            {"n_train": 5, "n_validation": 2},
            r"has 4 problems .*, 2 of validation taken out, and prepare.n_train asks for 5",
        ),
        ({"n_validation": 7}, r"train\.jsonl has 6 problems that can be used, and prepare\.n_validation asks for 7"),
        ({"n_validation": 6}, r"0 problems of mine are left for training"),
        ({"n_test": 4}, r"test\.jsonl has 3 problems that can be used, and prepare\.n_test asks for 4"),
    ],
)
def test_fewer_problems_than_asked_for_are_refused_with_the_file_and_the_parameter(
    tmp_path: Path, asked_for: dict[str, int], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        mine(tmp_path, lines(ROWS), **asked_for)


@pytest.mark.parametrize("field", ["question", "gold", "rationale"])
@pytest.mark.parametrize("mark", ["<think>", "</think>", "<|im_start|>", "<|im_end|>"])
def test_a_problem_with_a_special_token_of_the_model_in_its_text_is_refused_by_its_id(
    tokenizer: Any, mark: str, field: str
) -> None:
    problem = Problem("mine-train-00007", "What is 1 + 1?", "2", "1 + 1 = 2")
    assert len(rendering.prompted("gsm8k", [problem], tokenizer)) == 1
    text = f"{getattr(problem, field)} {mark}"
    with pytest.raises(DataError, match=r"problem mine-train-00007 has '.*' in its text, a special token of the base model"):
        rendering.prompted("gsm8k", [problem._replace(**{field: text})], tokenizer)


THINK, END, N, EOS, IM = 1, 2, 3, 5, 6
MARKS = think.Marks(THINK, END, frozenset({N}), EOS)
K = 3
# A completion, what is counted of its block, the thought that is read, and whether a right one can be a target.
BLOCKS: dict[str, tuple[list[int], dict[str, int], list[int], bool]] = {
    "whole": ([THINK, N, 10, 11, 12, N, END, N, 20, EOS], {"whole": 1, "usable": 1}, [10, 11, 12], True),
    "of one line": ([THINK, 10, 11, 12, END, 20, EOS], {"whole": 1, "usable": 1}, [10, 11, 12], True),
    "shorter than K": ([THINK, 10, END, 20, EOS], {"whole": 1, "usable": 1, "shorter_than_K": 1}, [10, 10, 10], True),
    "empty": ([THINK, N, END, N, 20, EOS], {"empty": 1}, [], True),
    "empty and cut": ([THINK, N], {"empty": 1}, [], False),
    "cut": ([THINK, N, 10, 11, 12], {"cut": 1, "usable": 1}, [10, 11, 12], False),
    "never closed": ([THINK, 10, 11, 12, EOS], {"ended_inside": 1, "usable": 1}, [10, 11, 12], False),
    "never opened": ([20, 21, EOS], {"never_opened": 1}, [], False),
    "closed alone": ([10, END, 20, EOS], {"never_opened": 1}, [], False),
    "opened late": ([20, THINK, 10, END, 21, EOS], {"never_opened": 1}, [], False),
    "no token": ([], {"never_opened": 1}, [], False),
    "the end alone": ([EOS], {"never_opened": 1}, [], False),
    "closed twice": (
        [THINK, 10, 11, 12, END, 20, END, 21, EOS],
        {"whole": 1, "usable": 1, "marked_again": 1},
        [10, 11, 12],
        False,
    ),
    "closed twice at once": (
        [THINK, 10, 11, 12, END, END, 20, EOS],
        {"whole": 1, "usable": 1, "marked_again": 1},
        [10, 11, 12],
        False,
    ),
    "doubled": (
        [THINK, 10, 11, 12, END, THINK, 13, END, 20, EOS],
        {"whole": 1, "usable": 1, "marked_again": 1},
        [10, 11, 12],
        False,
    ),
    "a second that stays open": (
        [THINK, 10, 11, 12, END, 20, THINK, 13],
        {"whole": 1, "usable": 1, "marked_again": 1},
        [10, 11, 12],
        False,
    ),
    "opened twice": (
        [THINK, THINK, 10, 11, END, 20, EOS],
        {"whole": 1, "usable": 1, "marked_again": 1},
        [THINK, 10, 11],
        False,
    ),
    "nested": (
        [THINK, 10, THINK, 11, END, 12, END, 20, EOS],
        {"whole": 1, "usable": 1, "marked_again": 1},
        [10, THINK, 11],
        False,
    ),
    "with another special token": ([THINK, 10, IM, 12, END, 20, EOS], {"whole": 1, "usable": 1}, [10, IM, 12], True),
}


@pytest.mark.parametrize("block", BLOCKS)
def test_a_think_block_of_any_form_is_read_or_left_out_with_exact_counts(block: str) -> None:
    tokens, counted, read, target = BLOCKS[block]
    prompts = {"p": [90, 91]}
    row = Rollout(tokens, "", "stop" if tokens[-1:] == [EOS] else "length", problem_id="p", rollout=0)
    rows, counts = extraction.select([row], prompts, MARKS, [Pair(K, "even")], "use")
    assert {name: n for name, n in counts.items() if n} == counted
    assert [one.tokens[at] for one in rows for at in one.positions] == read
    chosen, missed = targets.from_rollouts(
        {"p": {"prompt_thinking": prompts["p"]}},
        {"p": [row]},
        {"p": [1]},
        MARKS,
        kind=targets.ANSWER,
        seed=0,
        limit=targets.Limit(100, "only_if_whole"),
    )
    assert (chosen, missed["target_missing"]) == (({"p": [20, EOS]}, 0) if target else ({}, 1))
