"""Whatever a model writes: a verdict, in bounded time, and nothing changed around it."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qthink_core.benchmarks.graders import BENCHMARKS, grade, grader, latex_equality
from qthink_core.errors import ParamError

GOLDS = {
    "gsm8k": "18",
    "math500": r"3\sqrt{13}",
    "tooluse": '[{"Action": "f", "Action_Input": "{\\"a\\": 1}"}]',
}
VERDICTS = {"right", "wrong", "unparsable", "over_limit", "timeout"}

# Processor time of one comparison: the limit of the worker, and its own start and clean-up.
COST_LIMIT_S = 2.5
# A limit for what would run for minutes anyway; what is quick takes 0.1 s.
SMALL_LIMIT_S = 0.3
# Elapsed time has the slack of a machine that runs other tests at the same time.
ELAPSED_LIMIT_S = 12.0

SECRET = "qthink-was-here"
HOSTILE = [
    r"\boxed{(10^8)!}",
    r"\boxed{9^{9^{9^{9}}}}",
    r"\boxed{" + "(" * 200 + "1" + ")" * 200 + "}",
    r"\boxed{" + "7" * 10**5 + "}",
    r"\boxed{" + "x+" * 200 + "7" * 90 + "}",
    r"\boxed{" * 14_000,
    "\\boxed{\ud800+1}",
    rf"\boxed{{__import__('os').system('touch {SECRET}')}}",
    rf"\boxed{{\text{{exec(open('{SECRET}','w').write('x'))}}}}",
    '\\boxed{1\n["right"]\n\0}',
    r"\boxed{" + "^" * 499 + "}",
    r"\boxed{" + r"\bm" * 166 + "}",
    r"\boxed{" + "{" * 249 + "}" * 249 + "}",
    r"\boxed{" + r"\frac" * 99 + "}",
    r"\boxed{" + r"\text{m}" * 71 + "}",
    r"\boxed{" + ",".join("x" * 100) + "}",
    r"\boxed x" * 12_000,
    r"\boxed" + " " * 90_000,
    "{" * 10**5,
    "1," * 50_000,
    r"\frac{" * 15_000,
    "-$" * 50_000,
    "####" * 25_000,
    "Action Input: {" * 6_000,
    'Action Input: {"' * 6_000,
    'Action Input: {"' + '\\"' * 49_000,
    "<think>" * 10_000,
]


@pytest.mark.slow
@pytest.mark.parametrize("task", BENCHMARKS)
def test_a_hostile_answer_costs_little_and_changes_nothing_around_it(task, tmp_path, monkeypatch):
    latex_equality.close()  # a worker keeps the folder and the limit of its start
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(latex_equality, "CPU_LIMIT_S", SMALL_LIMIT_S)
    signals = [signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGPROF, signal.SIGINT)]
    limits = resource.getrlimit(resource.RLIMIT_AS)
    for answer in HOSTILE:
        started = time.monotonic()
        result = grade(task, GOLDS[task], answer)
        assert time.monotonic() - started < ELAPSED_LIMIT_S, answer[:40]
        assert result.verdict in VERDICTS - {"right"}, answer[:40]
        (result.extracted or "").encode()
    assert [signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGPROF, signal.SIGINT)] == signals
    assert resource.getrlimit(resource.RLIMIT_AS) == limits
    assert list(tmp_path.iterdir()) == []
    if task == "math500":
        assert grade(task, GOLDS[task], r"\boxed{\sqrt{117}}").verdict == "right"
        latex_equality.close()


# Each grew with the square of the length before its pattern was bounded.
GROWING = [
    "\\",
    "#### (",
    "-",
    "^ ",
    "1²",
    "not 5 ",
    "answer is not 5 ",
    ") ",
    "1" + ") " * 39,
    "\\frac{",
    "1 = x ",
    "是1",
    "eighteen and ",
]


@pytest.mark.slow
@pytest.mark.parametrize("piece", GROWING)
def test_a_text_of_100_000_characters_takes_linear_time(piece):
    text = f"#### {piece * (100_000 // len(piece))}"[:100_000]
    started = time.process_time()
    grade("gsm8k", "18", text)
    assert time.process_time() - started < 5


@pytest.mark.slow
def test_a_factorial_that_would_run_for_minutes_is_ended_by_its_processor_time():
    latex_equality.close()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert grade("math500", GOLDS["math500"], r"\boxed{(10^8)!}").verdict == "timeout"
    latex_equality.close()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert spent_s < COST_LIMIT_S


@pytest.mark.parametrize("task", BENCHMARKS)
@given(answer=st.text(st.characters(exclude_categories=[]), max_size=60))
@example(answer="\ud800</think>\udfff")
def test_no_text_at_all_makes_grading_raise(task, answer):
    result = grade(task, GOLDS[task], answer)
    assert result.verdict in VERDICTS
    assert grade(task, GOLDS[task], f"<think>{answer}").verdict in VERDICTS


@given(thought=st.text(max_size=40), answer=st.sampled_from(["18", r"\boxed{18}", "17", ""]))
def test_a_thought_never_changes_the_verdict(thought, answer):
    graded = grade("gsm8k", "18", f"<think>\n{thought}18\n</think>\n\n{answer}")
    assert graded == grade("gsm8k", "18", answer)


@pytest.mark.slow
def test_grading_works_off_the_main_thread_and_in_a_forked_child():
    verdicts = []
    thread = threading.Thread(target=lambda: verdicts.append(grade("math500", "2", r"\boxed{\sqrt{4}}").verdict))
    thread.start()
    thread.join()
    assert verdicts == ["right"]
    child = os.fork()
    if child == 0:
        right = grade("math500", "2", r"\boxed{\sqrt{4}}").verdict == "right"
        latex_equality.close()
        os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert grade("math500", "2", r"\boxed{\sqrt{9}}").verdict == "wrong"


@pytest.mark.slow
def test_a_worker_that_was_killed_from_outside_is_replaced():
    assert grade("math500", "2", r"\boxed{\sqrt{4}}").verdict == "right"
    worker = latex_equality.process_id()
    os.kill(worker, signal.SIGKILL)
    os.waitid(os.P_PID, worker, os.WEXITED | os.WNOWAIT)  # its end of the pipe is closed
    assert grade("math500", "2", r"\boxed{\sqrt{4}}").verdict == "right"


@pytest.mark.slow
def test_the_worker_dies_with_a_parent_that_was_killed():
    program = (
        "from qthink_core.benchmarks.graders import grade, latex_equality; import time;"
        r"grade('math500', '2', r'\boxed{\sqrt{4}}'); print(latex_equality.process_id(), flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        worker = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + ELAPSED_LIMIT_S
    while _is_running(worker):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_importing_the_pages_imports_no_torch_and_no_computer_algebra():
    program = (
        "import sys, qthink_core.benchmarks.graders; "
        "print([name for name in ('torch', 'sympy', 'math_verify', 'numpy', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_an_unknown_benchmark_is_refused_with_the_names_of_the_known():
    with pytest.raises(ParamError, match=r"'gsm9k'.*gsm8k, math500, tooluse"):
        grader("gsm9k")
