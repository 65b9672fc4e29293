"""The folder of a verdict file: one process at a time, from the moment the folder is made."""

from pathlib import Path
from typing import Any

import pytest

from qthink_core.errors import DataError, StoppedError
from qthink_core.inference.evaluation import verdict_file
from qthink_core.inference.evaluation.verdict_file import Key, Line, VerdictFile

SETTINGS = {"benchmark": "gsm8k"}
PLAN = {"model-0": [Key("model", "trained", "a")]}
LINE = Line("model", "trained", "a", "right", "7", "7", "It is 7.", 4, "stop", {})


def test_a_run_that_starts_while_another_makes_the_folder_is_told_to_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, refused = verdict_file.write_file, []

    def meanwhile(path: Path, content: Any) -> None:
        (path.parent / ".settings.json.tmp").write_text("{")
        with (
            pytest.raises(StoppedError, match=r"^another process is writing to .*/run: wait for it") as found,
            VerdictFile.opened(tmp_path / "run", SETTINGS, PLAN),
        ):
            pass
        refused.append(found)
        written(path, content)

    monkeypatch.setattr(verdict_file, "write_file", meanwhile)
    with VerdictFile.opened(tmp_path / "run", SETTINGS, PLAN) as file:
        file.add("model-0", [LINE], 1.0)
    assert len(refused) == 1
    with VerdictFile.opened(tmp_path / "run", SETTINGS, PLAN) as file:
        assert file.lines == [LINE]


def test_a_run_that_was_killed_while_it_wrote_its_settings_is_continued(tmp_path: Path) -> None:
    for name in (".lock", ".settings.json.tmp"):
        (tmp_path / name).write_text("")
    with VerdictFile.opened(tmp_path, SETTINGS, PLAN) as file:
        assert file.missing == ["model-0"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "settings.json"]


@pytest.mark.parametrize("name", ["verdicts.jsonl", "seconds.jsonl"])
def test_a_damaged_batch_is_named_before_it_counts(tmp_path: Path, name: str) -> None:
    plan = {f"model-{number}": [Key("model", "trained", str(number))] for number in range(3)}
    with VerdictFile.opened(tmp_path, SETTINGS, plan) as file:
        for unit, keys in plan.items():
            file.add(unit, [LINE._replace(id=keys[0].id)], 1.0)
    path = tmp_path / name
    content = path.read_bytes()
    first, second, third = content.splitlines(keepends=True)
    for word in (b'"sha256": "', b'"answer": "', b'"verdict": "', b'"id": "', b'"finish": "'):
        if word in second:
            damaged = bytearray(second)
            damaged[second.find(word) + len(word)] ^= 1
            path.write_bytes(first + damaged + third)
            with (
                pytest.raises(DataError, match=r"verdicts\.jsonl, lines? 2 .*: delete .* and run again, or name another"),
                VerdictFile.opened(tmp_path, SETTINGS, plan),
            ):
                pass
            assert path.read_bytes() == first + damaged + third
    path.write_bytes(content)
    with VerdictFile.opened(tmp_path, SETTINGS, plan) as file:
        assert len(file.lines) == 3


def test_a_record_that_a_kill_has_cut_is_written_again_with_its_batch(tmp_path: Path) -> None:
    plan = PLAN | {"model-1": [Key("model", "trained", "b")]}
    with VerdictFile.opened(tmp_path, SETTINGS, plan) as file:
        file.add("model-0", [LINE], 1.0)
    with (tmp_path / "seconds.jsonl").open("ab") as torn:
        torn.write(b'{"unit": "model-1", "answ')
    with VerdictFile.opened(tmp_path, SETTINGS, plan) as file:
        assert file.missing == ["model-1"]
        file.add("model-1", [LINE._replace(id="b")], 3.0)
    with VerdictFile.opened(tmp_path, SETTINGS, plan) as file:
        assert file.missing == []
        assert file.seconds() == 2.0


QUESTIONS = {"number": 400, "source": "a.jsonl", "digest": "1" * 64}
RUN = {"command": "evaluate", "benchmark": "gsm8k", "batch": 8, "model files": "a" * 64, "questions": QUESTIONS}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"command": "audit", "batch": 9}, r"/run holds an evaluation, not an audit: name another folder with --out$"),
        ({"batch": 9}, r"/run holds a run with batch 8, now 9: name another folder with --out, or delete this one$"),
        ({"batch": None}, r"/run holds a run with batch 8, now none: name"),
        ({"model files": "b" * 64}, r"/run holds a run with other model files: name"),
        (
            {"questions": {"number": 1, "source": "b.jsonl", "digest": "2" * 64}, "batch": 9},
            r"/run holds a run with 400 questions of a\.jsonl, now 1 of b\.jsonl: name",
        ),
    ],
)
def test_a_folder_of_another_run_says_in_words_how_it_differs(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with VerdictFile.opened(tmp_path / "run", RUN, PLAN):
        pass
    with pytest.raises(DataError, match=message), VerdictFile.opened(tmp_path / "run", RUN | changes, PLAN):
        pass


def test_the_same_questions_from_another_place_continue_a_run(tmp_path: Path) -> None:
    for source in ("a.jsonl", "b.jsonl"):
        with VerdictFile.opened(tmp_path / "run", RUN | {"questions": QUESTIONS | {"source": source}}, PLAN):
            pass


@pytest.mark.parametrize("name", ["notes.txt", "verdicts.jsonl"])
def test_a_folder_of_other_files_is_refused_and_left_as_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with (
        pytest.raises(DataError, match=r"holds other files and no settings\.json"),
        VerdictFile.opened(tmp_path, SETTINGS, PLAN),
    ):
        pass
    assert (tmp_path / name).read_text() == "mine"
    assert not (tmp_path / "settings.json").exists()
