"""Whatever a model writes gets a verdict, and a worker that dies is replaced; tests/hostile has the answers on record."""

import os
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

# Elapsed time has the slack of a machine that runs other tests at the same time.
ELAPSED_LIMIT_S = 12.0


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
