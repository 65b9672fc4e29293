"""A model folder from someone hostile: refused in one line that names the file, and nothing in it runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints import exported, plain
from hostile import folders as hostile

from qthink_core import LatentReasoner
from qthink_core.benchmarks import bounded_rendering
from qthink_core.errors import DataError
from qthink_core.inference import checkpoint
from qthink_core.models import sources
from qthink_core.models.acceptance import folders
from qthink_core.models.base_params import Base
from qthink_core.planning import source_checks

# In `make test`: those that cost no seconds.
QUICK = sorted(
    {*hostile.READ}
    - {"a template that never ends", "a template of 10 GB", "a tokenizer that grows", "a pattern without end"}
)
good, folder = hostile.good, hostile.folder


def refused(said: str, load: Callable[[], Any]) -> None:
    with pytest.raises(DataError, match=said) as error:
        load()
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000


@pytest.mark.slow
def test_the_good_folder_is_taken(folder: Path, tmp_path: Path) -> None:
    folders.check(folder)
    folders.check_memory(folder)
    sources.from_folder(folder, tmp_path / "base")
    assert LatentReasoner.from_pretrained(folder).K == 0


@pytest.mark.parametrize("case", hostile.FOLDERS)
def test_a_folder_is_refused_before_transformers_read_it(case: str, folder: Path) -> None:
    spoil, said = hostile.FOLDERS[case]
    spoil(folder)
    refused(said, lambda: folders.check(folder))


def test_every_command_that_loads_a_folder_looks_at_it_first(folder: Path, tmp_path: Path) -> None:
    spoil, said = hostile.FOLDERS["a kernel"]
    spoil(folder)
    refused(said, lambda: sources.from_folder(folder, tmp_path / "base"))
    refused(said, lambda: checkpoint.find(folder))  # ask, answer, demo, evaluate and audit with either engine
    (check,) = source_checks.base_model(Base(folder=str(folder), thinking="added"))  # preflight
    assert not check.passed
    assert "evil/kernel" in check.text  # type: ignore[union-attr]


def test_more_weights_than_memory_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sysconf", lambda _: 32)
    refused(r"bytes of weights, and this machine has 1,024 bytes of memory", lambda: LatentReasoner.from_pretrained(folder))


@pytest.mark.parametrize("case", QUICK)
def test_what_a_folder_holds_is_refused_where_it_is_read(case: str, folder: Path, tmp_path: Path) -> None:
    spoil, said = hostile.READ[case]
    spoil(folder)
    refused(said, lambda: LatentReasoner.from_pretrained(folder))
    assert not (Path.cwd() / "CANARY").exists()


@pytest.mark.parametrize("case", hostile.HEADS)
def test_a_head_is_refused_and_nothing_in_it_runs(
    case: str, qwen3: Any, tokenizer: Any, random_head: Any, tmp_path: Path
) -> None:
    spoil, said = hostile.HEADS[case]
    made = exported(tmp_path / "model", qwen3(), tokenizer, random_head())
    spoil(made)
    refused(said, lambda: LatentReasoner.from_pretrained(made))
    assert not (tmp_path / "canary").exists()


@pytest.mark.slow
def test_a_template_that_never_ends_for_one_question_is_refused_at_that_question(
    qwen3: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plain(tmp_path / "model", qwen3(), tokenizer)
    hostile.bomb_for("messages[0].content == 'Why?'")(made)
    monkeypatch.setattr(bounded_rendering, "SECONDS", 1)
    reasoner = LatentReasoner.from_pretrained(made)
    assert reasoner.generate("How?", max_new_tokens=1).new_tokens == 1
    said = r"^the chat template of .*/model takes more than 1 s, 1 GiB of memory or 64 MiB of text for a short conversation"
    refused(said, lambda: reasoner.generate("Why?"))
