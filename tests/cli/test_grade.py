"""`qthink grade` as its users run it: a process, lines in, lines out, whatever the lines hold."""

import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any, get_args

import forked
import pytest

from qthink_core.benchmarks.graders import BENCHMARKS
from qthink_core.benchmarks.json_lines import MAX_LINE_BYTES
from qthink_core.cli import __main__ as cli

ROOT = Path(__file__).parents[2]
DATA = ROOT / "../shared/data"
with_data = pytest.mark.skipif(not DATA.is_dir(), reason="the published files are not in ../shared/data")
PROGRAM = [sys.executable, "-m", "qthink_core.cli"]
CALLS = [{"Action": "f", "Action_Input": '{"a": 1}'}]
# A fresh process took 0.2 s of processor time.
MAX_START_S = 1.0
# Elapsed time has the slack of a machine that runs other tests at the same time.
MAX_ELAPSED_S = 12.0
TWO_GOOD = b'{"gold": "18", "answer": "It is 18"}\n{"gold": "18", "answer": "It is 17"}\n'


def run(benchmark: str, text: bytes, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """A fork of this process, or with options a process of its own."""
    if not options:
        return forked.qthink("grade", "--benchmark", benchmark, given=text, cwd=ROOT)
    return subprocess.run(
        [*PROGRAM, "grade", "--benchmark", benchmark], input=text, capture_output=True, timeout=200, cwd=ROOT, **options
    )


def lines(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def graded(benchmark: str, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    done = run(benchmark, lines(*rows))
    assert done.returncode == 0
    assert done.stderr.startswith(f"qthink: {len(rows):,} ".encode())
    assert done.stderr.count(b"\n") == 1
    return [json.loads(line) for line in done.stdout.splitlines()]


def started(benchmark: str) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    command = [*PROGRAM, "grade", "--benchmark", benchmark]
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, cwd=ROOT, process_group=0)


def test_every_line_gets_its_verdict_in_order_and_keeps_its_other_fields() -> None:
    rows = [
        {"id": "a", "gold": "18", "answer": "<think>17</think>It is 18.", "note": {"x": [1, None]}},
        {"id": "b", "gold": 18, "answer": r"\boxed{17}"},
        {"gold": "#### 18", "id": "c", "answer": "no idea"},
        {"id": "d", "gold": "18", "answer": "1" * 101, "verdict": "?"},
        {"id": "e", "gold": "18", "answer": "<think>18"},
    ]
    assert graded("gsm8k", *rows) == [
        {"id": "a", "note": {"x": [1, None]}, "verdict": "right", "extracted": "18", "details": {}},
        {"id": "b", "verdict": "wrong", "extracted": "17", "details": {}},
        {"id": "c", "verdict": "unparsable", "extracted": None, "details": {}},
        {"id": "d", "verdict": "over_limit", "extracted": None, "details": {}},
        {"id": "e", "verdict": "unparsable", "extracted": None, "details": {}},
    ]


@pytest.mark.slow
def test_the_last_line_has_the_accuracy_with_its_interval_and_a_count_of_every_verdict() -> None:
    rows = [("18", "18"), ("18", "It is 18."), ("18", "17"), ("18", "no idea"), ("18", "1" * 101)]
    done = run("gsm8k", lines(*({"gold": gold, "answer": answer} for gold, answer in rows)))
    # Wilson's interval of 2 of 5, z = 1.96: (0.4 + 0.384 -+ 1.96 sqrt(0.048 + 0.0384)) / 1.768
    said = b"qthink: 5 answers: 40.0 % right (95 % interval 11.8 to 76.9); 2 right, 1 wrong, 1 unparsable, 1 over_limit\n"
    assert done.stderr == said
    assert run("gsm8k", lines({"gold": "1", "answer": "1"})).stderr.startswith(b"qthink: 1 answer: 100.0 % right (95 % ")
    assert run("gsm8k", b"").stderr == b"qthink: no answers were graded: the input is empty\n"


@pytest.mark.slow
def test_a_file_is_graded_as_standard_input_is_and_its_name_is_in_a_message(tmp_path: Path) -> None:
    (tmp_path / "out puts.jsonl").write_bytes(TWO_GOOD)
    command = [*PROGRAM, "grade", "--benchmark", "gsm8k", "--input", str(tmp_path / "out puts.jsonl")]
    done = subprocess.run(command, capture_output=True, cwd=ROOT, stdin=subprocess.DEVNULL)
    expected = run("gsm8k", TWO_GOOD)
    assert (done.returncode, done.stdout, done.stderr) == (0, expected.stdout, expected.stderr)
    (tmp_path / "out puts.jsonl").write_bytes(TWO_GOOD + b"{}\n")
    done = subprocess.run(command, capture_output=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (65, expected.stdout)
    assert done.stderr.startswith(f"qthink: {tmp_path}/out puts.jsonl line 3 has no field 'gold'".encode())
    assert done.stderr.count(b"\n") == 1, "the score of a part of a file could be taken for that of the file"


@pytest.mark.parametrize(("name", "reason"), [("none.jsonl", "No such file or directory"), (".", "Is a directory")])
def test_a_file_that_cannot_be_opened_is_one_line(tmp_path: Path, name: str, reason: str) -> None:
    command = [*PROGRAM, "grade", "--benchmark", "gsm8k", "--input", str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    expected = f"--input is '{tmp_path / name}' ({reason}): expected a file of JSON lines, or -"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"qthink: {expected}\n")


def test_tooluse_scores_by_both_scorers_and_takes_calls_as_text_or_as_a_list() -> None:
    answer = 'Action: f\nAction Input: {"a": 1}'
    details = dict.fromkeys(("strict_exact", "strict_action", "published_exact", "published_action"), True)
    found = graded("tooluse", *({"gold": gold, "answer": answer} for gold in (json.dumps(CALLS), CALLS)))
    assert [(row["verdict"], row["details"]) for row in found] == [("right", details)] * 2


@pytest.mark.slow
def test_math500_times_out_one_answer_and_grades_the_next() -> None:
    rows = [{"gold": "x^2", "answer": rf"\boxed{{{text}}}"} for text in (r"x \cdot x", r"(10^8)!", "x^3")]
    assert [row["verdict"] for row in graded("math500", *rows)] == ["right", "timeout", "wrong"]


@pytest.mark.slow
@with_data
def test_the_published_fields_of_all_three_test_sets_are_golds_as_they_stand() -> None:
    def rows(name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (DATA / name).read_text().splitlines()]

    def as_asked(calls: str) -> str:
        return "\n".join(
            f"Action: {call['Action'].removeprefix('[Optional]')}\nAction Input: {call['Action_Input']}"
            for call in json.loads(calls)
        )

    asked = {
        "gsm8k": [{"gold": row["answer"], "answer": row["answer"]} for row in rows("gsm8k/test.jsonl")],
        "math500": [{"gold": row["answer"], "answer": row["solution"]} for row in rows("math500/test.jsonl")],
        "tooluse": [{"gold": row["answer"], "answer": as_asked(row["answer"])} for row in rows("tooluse/test.json")],
    }
    right = {name: sum(row["verdict"] == "right" for row in graded(name, *given)) for name, given in asked.items()}
    assert right == {"gsm8k": 1319, "math500": 500, "tooluse": 68}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"", "line 3 is empty"),
        (b"18", "line 3 holds a JSON int"),
        (b'["gold"]', "line 3 holds a JSON list"),
        (b'{"gold": "18", "answer": "x"', "line 3 is not JSON"),
        (b'{"gold": "18", "answer": "\xff"}', "line 3 is not UTF-8 (byte 27"),
        (b'{"gold": "18", "answer": "x", "gold": "19"}', "field 'gold' appears twice"),
        (b'{"gold": NaN, "answer": "x"}', "NaN is not a finite number"),
        (b'{"gold": "1", "answer": "1", "weight": 1e999}', "1e999 is not a finite number"),
        (b'{"gold": "1", "answer": "1", "n": ' + b"9" * 5000 + b"}", "line 3 is not JSON"),
        (b"[" * 100_000, "line 3 is nested too deep"),
        (b'{"gold": "1", "answer": "1", "x": ' + b"[" * 900 + b"]" * 900 + b"}", None),
        (b'{"answer": "18"}', "line 3 has no field 'gold'"),
        (b'{"gold": "18"}', "line 3 has no field 'answer'"),
        (b'{"gold": "18", "answer": 18}', "line 3 has int 18 in field 'answer', expected text"),
        (b'{"gold": true, "answer": "18"}', "line 3 has bool True in field 'gold'"),
        (b'{"gold": "", "answer": "18"}', "line 3 has str '' in field 'gold'"),
        (b'{"gold": "\\ud800", "answer": "18"}', "line 3 has a lone surrogate at character 0 of field 'gold'"),
        (b'{"gold": "eighteen", "answer": "18"}', "line 3 has the gold 'eighteen', expected one number"),
        (b'{"gold": "1 2", "answer": "18"}', "expected one number"),
        (b'{"gold": "1/0", "answer": "18"}', "expected one number"),
        (b'{"gold": "\\u001b[31m\\u202e", "answer": "18"}', r"line 3 has the gold '\x1b[31m\u202e'"),
        (b'{"gold": "18", "answer": "' + b"1" * MAX_LINE_BYTES + b'"}', "line 3 has more than 8,388,608 bytes"),
    ],
)
def test_a_faulty_line_is_named_after_the_verdicts_on_those_before_it(line: bytes, said: str | None) -> None:
    done = run("gsm8k", TWO_GOOD + line + b"\n" + TWO_GOOD)
    verdicts = [json.loads(one)["verdict"] for one in done.stdout.splitlines()]
    if said is None:
        assert (done.returncode, verdicts) == (0, ["right", "wrong", "right", "right", "wrong"])
        return
    assert (done.returncode, verdicts) == (65, ["right", "wrong"])
    message = done.stderr.decode()
    assert message.startswith("qthink: line 3 ")
    assert said in message
    assert message.count("\n") == 1
    assert message.rstrip("\n").isprintable()
    assert len(message) < 300


@pytest.mark.slow
@pytest.mark.parametrize(
    ("benchmark", "gold"),
    [
        ("math500", r"\frac{1"),
        ("math500", r"\boxed{1}"),
        ("math500", "1" * 501),
        ("math500", [1]),
        ("tooluse", "f"),
        ("tooluse", []),
        ("tooluse", [{"Action": "f"}]),
        ("tooluse", [{"Action": "two words", "Action_Input": "{}"}]),
        ("tooluse", {"Action": "f", "Action_Input": "{}"}),
    ],
)
def test_a_gold_that_no_answer_could_match_is_refused(benchmark: str, gold: object) -> None:
    done = run(benchmark, lines({"gold": gold, "answer": r"\boxed{1}"}))
    assert (done.returncode, done.stdout) == (65, b"")
    assert done.stderr.startswith(b"qthink: line 1 has ")


def test_what_a_model_writes_reaches_no_terminal_raw() -> None:
    answer = "Action: f\nAction Input: " + json.dumps({"a": "\x1b[2J\x7f\x9b\u202e\ud800"}, ensure_ascii=False)
    text = json.dumps({"\x1b": "\u202e", "gold": CALLS, "answer": answer}).encode()
    done = run("tooluse", text)
    assert done.returncode == 0
    assert all(0x20 <= byte < 0x7F for byte in done.stdout.rstrip(b"\n"))
    assert json.loads(done.stdout)["\x1b"] == "\u202e"


def test_a_byte_order_mark_a_missing_last_line_break_and_windows_line_ends_are_read() -> None:
    done = run("gsm8k", b"\xef\xbb\xbf" + TWO_GOOD.replace(b"\n", b"\r\n").removesuffix(b"\r\n"))
    assert [json.loads(line)["verdict"] for line in done.stdout.splitlines()] == ["right", "wrong"]
    assert run("gsm8k", b"").stdout == b""


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_a_verdict_is_there_before_the_next_line_comes(benchmark: str) -> None:
    gold: Any = CALLS if benchmark == "tooluse" else "18"
    with started(benchmark) as process:
        assert process.stdin
        assert process.stdout
        for index in range(3):
            process.stdin.write(lines({"id": index, "gold": gold, "answer": "?"}))
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["id"] == index
        process.stdin.close()
        assert process.wait(timeout=MAX_ELAPSED_S) == 0


def test_memory_is_bounded_on_a_line_without_an_end() -> None:
    bound = 512 << 20
    flood = subprocess.Popen(["head", "-c", "200000000", "/dev/zero"], stdout=subprocess.PIPE)
    done = subprocess.run(
        [*PROGRAM, "grade", "--benchmark", "gsm8k"],
        stdin=flood.stdout,
        capture_output=True,
        cwd=ROOT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (bound, bound)),
    )
    flood.stdout.close()  # type: ignore[union-attr]
    flood.wait()
    assert done.returncode == 65
    assert b"line 1 has more than 8,388,608 bytes" in done.stderr


@pytest.mark.parametrize("benchmark", ["gsm8k", "math500"])
def test_ctrl_c_ends_it_with_a_word_and_the_code_of_a_shell(benchmark: str) -> None:
    with started(benchmark) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(lines({"gold": "18", "answer": r"\boxed{18}"}))
        process.stdin.flush()
        process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does; the process for LaTeX is still importing
        assert process.wait(timeout=MAX_ELAPSED_S) == 130
        assert process.stderr
        assert process.stderr.read() == b"\nqthink: stopped\n"


def test_a_reader_that_has_enough_ends_it_quietly() -> None:
    with started("gsm8k") as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(TWO_GOOD)
        process.stdin.flush()
        process.stdout.readline()
        process.stdout.close()
        try:
            process.stdin.write(TWO_GOOD)
            process.stdin.close()
        except BrokenPipeError:
            process.stdin = None
        assert process.wait(timeout=MAX_ELAPSED_S) == 0
        assert process.stderr.read() == b""


@pytest.mark.parametrize(("shell", "code"), [("> /dev/full", 74), (">&-", 65), ("<&-", 65)])
def test_a_disk_that_is_full_and_an_end_that_is_closed_are_said_in_one_line(shell: str, code: int) -> None:
    command = f"{shlex.join(PROGRAM)} grade --benchmark gsm8k {shell}"
    done = subprocess.run(["bash", "-c", command], input=TWO_GOOD, capture_output=True, cwd=ROOT)
    assert done.returncode == code
    assert re.match(rb"qthink: (reading or writing failed|standard (output|input) is closed)", done.stderr)
    assert done.stderr.count(b"\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [[], ["grade", "--benchmark", "gsm9k"], ["grade"], ["grade", "x"]])
def test_a_wrong_command_line_is_exit_code_2(arguments: list[str]) -> None:
    done = subprocess.run([*PROGRAM, *arguments], capture_output=True, cwd=ROOT, stdin=subprocess.DEVNULL)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


def test_it_starts_at_once_without_torch_and_offers_every_benchmark() -> None:
    program = "import sys, qthink_core.cli.__main__; assert not {'torch', 'numpy', 'pydantic', 'sympy'} & set(sys.modules)"
    before = os.times()
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
    after = os.times()
    assert after.children_user + after.children_system - before.children_user - before.children_system < MAX_START_S
    option = cli.grade.grade.__annotations__["benchmark"]
    assert get_args(get_args(option)[0]) == BENCHMARKS


def said_by(shell: str, folder: Path) -> str:
    """What a command prints where `qthink` is the installed script."""
    script = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["qthink"]
    module, _, function = script.partition(":")
    shim = folder / "qthink"
    shim.write_text(f"#!{sys.executable}\nfrom {module} import {function}\n{function}()\n")
    shim.chmod(0o755)
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    return subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True, env=environment).stdout


def test_the_example_of_the_help_prints_what_it_says(tmp_path: Path) -> None:
    command, said = (line.strip() for line in (cli.grade.grade.__doc__ or "").split("```")[1].strip().splitlines())
    assert said_by(command, tmp_path) == said + "\n"


@pytest.mark.slow
def test_the_commands_of_the_page_on_use_print_what_it_says(tmp_path: Path) -> None:
    page = (ROOT / "docs/use/command-line.md").read_text().partition("## Grade")[2]
    command, said, shell, summary = re.findall(r"^```(?:sh|text)\n(.*?)\n```$", page, re.MULTILINE | re.DOTALL)
    assert said_by(command, tmp_path) == said + "\n"
    answers = ["18"] * 223 + ["17"] * 170 + ["none"] * 7
    (tmp_path / "outputs.jsonl").write_bytes(lines(*({"gold": "18", "answer": answer} for answer in answers)))
    assert said_by(f"cd {shlex.quote(str(tmp_path))} && ({shell}) 2>&1", tmp_path) == summary + "\n"
    assert (tmp_path / "verdicts.jsonl").read_text().count("\n") == len(answers)


HOSTILE = [
    "9" * 7_000_000,
    "{" * 100_000,
    "\\boxed{" * 100_000,
    "<think>" * 500_000,
    "</think>" * 500_000,
    "Action: f\n" * 100_000,
    'Action Input: {"a":' * 100_000 + "}",
    "Action Input: {" + "[" * 1_000_000 + "}",
    "\u202e" * 100_000,
    "\x00" * 100_000,
    "\ud800" * 50_000,
    "1,000" * 19_000,
    "1e" * 45_000,
    "1e999999999",
    r"\boxed{1e99999999}",
    r"\boxed{\frac{" + "9" * 400 + "}{7}}",
    r"\boxed{9\times10^{999}}",
    r"\boxed{0." + "9" * 200 + r"\overline{" + "9" * 200 + "}}",
    r"\boxed{" + "√(" * 200 + "}",
]


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_no_answer_delays_or_changes_the_next(benchmark: str) -> None:
    gold: Any = CALLS if benchmark == "tooluse" else "18"
    right = 'Action: f\nAction Input: {"a": 1}' if benchmark == "tooluse" else r"\boxed{18}"
    with started(benchmark) as process:
        assert process.stdin
        assert process.stdout
        for answer in HOSTILE:
            begun = time.monotonic()
            process.stdin.write(lines({"gold": gold, "answer": answer}, {"gold": gold, "answer": right}))
            process.stdin.flush()
            verdicts = [json.loads(process.stdout.readline())["verdict"] for _ in range(2)]
            assert verdicts[0] != "right", answer[:40]
            assert verdicts[1] == "right", answer[:40]
            assert time.monotonic() - begun < MAX_ELAPSED_S, answer[:40]
        process.stdin.close()
        assert process.wait(timeout=MAX_ELAPSED_S) == 0
