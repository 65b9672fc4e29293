"""What the numerics tests share: a real Qwen3 of 20,000 random weights, the tiny tokenizer, and generated questions."""

import gc
import os

# Before torch is imported: sums over threads differ in their last bits from machine to machine.
os.environ["OMP_NUM_THREADS"] = "1"

import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from lively import lively_qwen3
from shape_checks import install

# Until all tests are collected: the imports and the collection make a million objects that stay, and the collector would go
# through them again and again, which takes 40 % of that time.
gc.disable()
# Before any module of ours is imported.
install()
import unbounded  # noqa: E402

unbounded.install()
# No test cuts the power, and the waits for the disk would take a third of the time of tests that write artifacts.
os.fsync = lambda handle: None
# What tests start finds quick_start/sitecustomize.py, unless they give it a PYTHONPATH of its own.
QUICK_START = str(Path(__file__).parent / "quick_start")
if QUICK_START not in os.environ.get("PYTHONPATH", ""):
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [QUICK_START, os.environ.get("PYTHONPATH")]))
# The files that take longest, since a worker that began one of them last would keep the others waiting.
LONGEST = (
    "chain/test_chain.py",
    "pipeline/test_ranks.py",
    "running/test_warm.py",
    "running/test_runner.py",
    "chain/test_own_problems.py",
    "pipeline/test_reruns.py",
    "test_own.py",
    "test_wheel.py",
)
# Seconds of the processor, those of child processes included, from which a test is to be marked `slow`.
SLOW_S = 0.25
BEGAN, ENDED = pytest.StashKey[float](), pytest.StashKey[float]()


def pytest_configure() -> None:
    """A shell has what it starts in the background ignore Ctrl-C, and so would the stages that a test stops by it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, the others in their order; a file's tests stay together."""
    first = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: first.get(item.path, len(first)))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """From here on the garbage collector runs again, without the objects that are there by now."""
    gc.freeze()
    gc.enable()


def processor_s() -> float:
    """What this process and its ended children have taken of the processor."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Counts from here, fixtures included."""
    unbounded.choose(item.path, item.get_closest_marker("bounded") is not None)
    item.stash[BEGAN] = processor_s()
    yield


@pytest.fixture(autouse=True)
def ended(request: pytest.FixtureRequest) -> Iterator[None]:
    """Notes when the test and its own fixtures have ended, as it is set up before these; those of more tests end later."""
    yield
    request.node.stash[ENDED] = processor_s()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Notes the seconds in the test's last report, which xdist passes on.

    What ends with the last test of a module or of all, such as the servers of a fixture, counts for a marked test alone.
    """
    yield
    whole = processor_s()
    until = whole if item.get_closest_marker("slow") else item.stash.get(ENDED, whole)
    item.user_properties.append(("processor_s", until - item.stash[BEGAN]))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Names tests whose mark `slow` is missing or says too much: the mark is what `make test-fast` leaves out.

    An unmarked test may take twice as long, since a busy machine costs so much. Of a file's marked tests the sum counts,
    since the first of them pays for a fixture that all need.
    """
    spent: dict[bool, dict[str, float]] = {True: {}, False: {}}
    skipped = {report.nodeid for report in terminalreporter.getreports("skipped")}
    for report in terminalreporter.getreports(""):
        if report.nodeid in skipped:
            continue
        marked = "slow" in report.keywords
        name = report.nodeid.partition("::")[0] if marked else report.nodeid
        spent[marked][name] = spent[marked].get(name, 0.0) + dict(report.user_properties).get("processor_s", 0.0)
    for name, seconds in spent[False].items():
        if seconds > 2 * SLOW_S:
            terminalreporter.write_line(f"{name} took {seconds:.1f} s of the processor: mark it slow")
    for name, seconds in spent[True].items():
        if seconds < SLOW_S:
            terminalreporter.write_line(f"{name} has tests marked slow that took {seconds:.1f} s together: unmark them")


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """The tokenizer of the tiny scale."""
    from worlds import STYLE, WORLD

    from qthink_core.models.tiny_tokenizer import build

    return build(WORLD, STYLE.opening)


@pytest.fixture(scope="session")
def questions(tokenizer: Any) -> list[list[int]]:
    """200 prompts with an empty think block, of all tasks and many lengths, in no order.

    A world has one length a task, so these are problems of eight worlds, of 2 to 9 changes.
    """
    from worlds import WORLD

    from qthink_core.benchmarks.problems import generated
    from qthink_core.benchmarks.rendering import prompted

    sizes = {"gsm8k": 10, "math500": 10, "tooluse": 5}
    worlds = [WORLD.model_copy(update={"changes": changes}) for changes in range(2, 10)]
    rows = [
        row
        for world in worlds
        for task, n in sizes.items()
        for row in prompted(task, generated(task, "test", n, seed=3, world=world), tokenizer)
    ]
    return [row["prompt_direct"] for row in sorted(rows, key=lambda row: row["question"][::-1])]


@pytest.fixture
def qwen3(tokenizer: Any) -> Iterator[Callable[..., Any]]:
    """Makes models: `qwen3(dtype="float64", seed=0, tied=False)`."""
    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    yield partial(lively_qwen3, tokenizer)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def random_head(tokenizer: Any) -> Callable[..., Any]:
    """Makes projection heads with random weights, the norm's too: `random_head(32, dtype="float64")`."""
    import torch

    from qthink_core.method.projection_head import ProjectionHead

    def make(hidden_size: int = 32, dtype: str = "float32", seed: int = 1) -> Any:
        torch.manual_seed(seed)
        head = ProjectionHead(hidden_size)
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.3)
        return head.to(getattr(torch, dtype)).eval()

    return make


@pytest.fixture
def student(qwen3: Callable[..., Any], random_head: Callable[..., Any]) -> Callable[..., Any]:
    """Makes students whose adapters and head are as if trained, random and not 0: `student(K=6, dtype="float32")`."""
    import torch

    from qthink_core.method.student import Student

    def make(K: int, dtype: str = "float32", seed: int = 0, base: Any = None) -> Any:
        made = Student(
            base or qwen3(),
            K=K,
            seed=seed,
            lora_r=4,
            lora_alpha=8,
            lora_targets=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        )
        torch.manual_seed(seed + 1)
        with torch.no_grad():
            for name, parameter in made.trained().items():
                if "lora_B" in name:
                    parameter.normal_(std=0.1)
        if K:
            made.head.load_state_dict(random_head().state_dict())
        return made.to(getattr(torch, dtype))

    return make
