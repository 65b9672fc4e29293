"""Problems: three sources, their checks, stable choices, prompts."""

import hashlib
import json
import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from entries import ENTRIES, gather
from worlds import STYLE, WORLD

from qthink_core.artifacts import prepared
from qthink_core.benchmarks import problems, published_files, rendering
from qthink_core.benchmarks.graders import BENCHMARKS, grade, grader
from qthink_core.benchmarks.graders.contract import Problem
from qthink_core.benchmarks.problems import check_disjoint, generated, published, select, split_validation
from qthink_core.errors import DataError, ParamError

DATA = Path(__file__).parents[2] / "../shared/data"
with_data = pytest.mark.skipif(not DATA.is_dir(), reason="the published files are not in ../shared/data")
COMMIT = "740312add88f781978c0658806c59bc2815b9866"


def write_lines(folder: Path, rows: list[object], name: str = "tooluse/train.json") -> Path:
    """A data folder with one file; Tooluse's training file has no digest on record."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def tool_rows(n: int) -> list[dict[str, object]]:
    call = [{"Action": "look", "Action_Input": "{}"}]
    return [{"prompt": f"Look at {i}.", "answer": json.dumps(call)} for i in range(n)]


def numbered(n: int) -> list[Problem]:
    return [Problem(f"p-{i:05d}", f"What is {i}?", str(i), None) for i in range(n)]


@pytest.mark.slow
@with_data
@pytest.mark.parametrize(
    ("task", "split", "n"),
    [("gsm8k", "train", 7473), ("gsm8k", "test", 1319), ("math500", "test", 500), ("tooluse", "test", 68)],
)
def test_the_published_files_are_whole_and_every_gold_matches_itself(task: str, split: str, n: int) -> None:
    found = published(task, split, DATA)
    assert len(found) == len({problem.id for problem in found}) == n
    wrong = [p.id for p in found if grade(task, p.gold, grader(task).gold_answer(p)).verdict != "right"]
    assert wrong == []


@pytest.mark.slow
@with_data
def test_gsm8k_asks_no_test_question_in_training() -> None:
    check_disjoint(published("gsm8k", "train", DATA), published("gsm8k", "test", DATA))


@pytest.mark.parametrize("task", BENCHMARKS)
def test_generated_problems_pass_the_checks_of_published_ones(task: str) -> None:
    train, test = generated(task, "train", 60, seed=3, world=WORLD), generated(task, "test", 40, seed=3, world=WORLD)
    check_disjoint(train, test)
    assert all(grade(task, p.gold, grader(task).gold_answer(p)).verdict == "right" for p in train + test)
    assert generated(task, "train", 60, seed=3, world=WORLD) == train


@with_data
def test_a_changed_digit_in_a_published_file_is_found(tmp_path: Path) -> None:
    text = (DATA / "gsm8k/test.jsonl").read_text()
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k/test.jsonl").write_text(text.replace("16 eggs", "17 eggs", 1))
    with pytest.raises(DataError, match=r"gsm8k/test\.jsonl has sha256 \w{64}, the published file 3730d3"):
        published("gsm8k", "test", tmp_path)


@with_data
def test_a_published_file_that_lost_its_last_line_is_found(tmp_path: Path) -> None:
    lines = (DATA / "tooluse/test.json").read_bytes().splitlines(keepends=True)
    (tmp_path / "tooluse").mkdir()
    (tmp_path / "tooluse/test.json").write_bytes(b"".join(lines[:-1]))
    with pytest.raises(DataError, match="has 67 problems, the published file 68"):
        published("tooluse", "test", tmp_path)


def test_a_missing_file_names_its_publisher(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tooluse/test\.json is missing.*github\.com/lasgroup/SDPO"):
        published("tooluse", "test", tmp_path)


def test_a_question_in_train_and_test_is_refused_whatever_its_spaces() -> None:
    train = [*numbered(3), Problem("t-1", "How  many\neggs?", "4", None)]
    with pytest.raises(DataError, match=r"t-1 of the training set is e-9 of the test set \(row 1\)"):
        check_disjoint(train, [Problem("e-9", "How many eggs?", "4", None)])


def test_an_id_in_train_and_test_is_refused() -> None:
    with pytest.raises(DataError, match="p-00002 of the training set is p-00002 of the test set"):
        check_disjoint(numbered(3), [Problem("p-00002", "Another?", "4", None)])


def test_a_test_question_in_other_case_or_punctuation_is_counted_and_kept() -> None:
    def asked(*questions: str) -> list[Problem]:
        return [Problem(question, question, "4", None) for question in questions]

    splits = {
        "train": asked("How many eggs?", "Add 1+1."),
        "validation": asked("Who?"),
        "test": asked("how many eggs", "Add 1-1.", "WHO ?", "How many  eggs?"),
    }
    assert problems.overlap(splits) == {"overlap": 1, "near_overlap": 3}


MATH_ROWS = [
    {
        "problem": f"What is ${i}+{i}$?",
        "solution": rf"${i}+{i}=\boxed{{{2 * i}}}$.",
        "answer": str(2 * i),
        "unique_id": f"train/a/{i}",
    }
    for i in range(6)
]


@with_data
@pytest.mark.parametrize(
    ("task", "name", "rows", "first_id"),
    [
        ("math500", "math500/train.jsonl", MATH_ROWS, "train/a/0"),
        ("tooluse", "tooluse/train.json", tool_rows(6), "tooluse-train-00000"),
    ],
)
def test_a_users_own_training_set_goes_with_the_published_test_set(
    tmp_path: Path, task: str, name: str, rows: list[object], first_id: str
) -> None:
    test = Path(grader(task).FILES["test"].path)
    stolen = json.loads((DATA / test).read_text().splitlines()[3]) | {"unique_id": "train/a/6"}
    write_lines(tmp_path, [*rows, stolen], name)
    (tmp_path / test).write_bytes((DATA / test).read_bytes())
    found = gather(task, "folder", tmp_path, n_validation=2)
    assert [len(one) for one in found.splits.values()] == [4, 2, grader(task).FILES["test"].records]
    assert min(problem.id for problem in found.splits["train"] + found.splits["validation"]) == first_id
    assert problems.overlap(found.splits) == {"overlap": 0, "near_overlap": 0}
    assert found.about["splits"]["train"]["left_out"] == {"in the test set": 1}
    assert [found.about["splits"][split]["published"] for split in ("train", "test")] == [False, True]
    assert found.about["benchmark"] == task
    assert "1 of 7 train rows left out (1 in the test set; line 7 (" in found.said
    assert ("has 7 rows in place of the 12000 published ones, and is used as yours" in found.said) == (task == "math500")
    assert found == gather(task, "folder", tmp_path, n_validation=2)
    with pytest.raises(DataError, match=rf"0 problems of {task} are left for training: .* has 6 that can be used"):
        gather(task, "folder", tmp_path, n_validation=6)


def test_the_data_page_and_the_params_name_every_file_with_its_records_and_digest() -> None:
    text = (Path(__file__).parents[2] / "docs/data.md").read_text()
    for task in BENCHMARKS:
        for split, file in grader(task).FILES.items():
            place = ENTRIES[task].place(split)
            assert (place.file, place.rows, place.sha256) == (file.path, file.records, file.sha256)
            (row,) = [line for line in text.splitlines() if line.startswith(f"| `{file.path}`")]
            assert f"| {file.records:,} |" in row
            assert file.sha256 in row
    for (task, split), one in published_files.HUB_FILES.items():
        place = ENTRIES[task].place(split)
        assert (place.repo, place.revision) == (one.repo, one.revision)
        assert all(fact in text for fact in (one.repo, one.revision))
    for place in published_files.PUBLISHED_IN.values():
        assert place.partition(" of ")[0] in text


def test_a_choice_does_not_depend_on_the_order_of_the_problems() -> None:
    shuffled = numbered(50)
    random.Random(1).shuffle(shuffled)
    assert select(numbered(50), 10, seed=4) == select(shuffled, 10, seed=4)
    assert split_validation(numbered(50), 10, seed=4) == split_validation(shuffled, 10, seed=4)


def test_another_seed_makes_another_choice() -> None:
    assert select(numbered(50), 10, seed=4) != select(numbered(50), 10, seed=5)


def test_an_added_problem_displaces_at_most_one() -> None:
    for n in range(50, 90):
        before, after = (set(split_validation(numbered(size), 10, seed=4)[1]) for size in (n, n + 1))
        assert len(before - after) <= 1


def test_validation_and_training_share_nothing_and_lose_nothing() -> None:
    train, validation = split_validation(numbered(50), 10, seed=4)
    assert len(validation) == 10
    assert sorted(train + validation) == numbered(50)


def test_more_problems_than_there_are_cannot_be_chosen() -> None:
    with pytest.raises(ParamError, match="51 problems are asked for but the source has 50"):
        select(numbered(50), 51, seed=4)


@pytest.fixture(scope="module")
def tokenizer():
    from qthink_core.models import tiny_tokenizer

    return tiny_tokenizer.build(WORLD, STYLE.opening)


@pytest.mark.parametrize("thinking", [True, False])
def test_a_prompt_is_the_rendered_template_token_by_token(tokenizer, thinking: bool) -> None:
    ids = rendering.render(tokenizer, "What is 1 + 1?", thinking)
    block = "" if thinking else "<think>\n\n</think>\n\n"
    assert tokenizer.decode(ids) == f"<|im_start|>user\nWhat is 1 + 1?<|im_end|>\n<|im_start|>assistant\n{block}"
    assert all(type(token) is int for token in ids)


@pytest.mark.parametrize("task", BENCHMARKS)
def test_a_prepared_split_is_read_back_as_it_was_written(tokenizer, task: str, tmp_path: Path) -> None:
    items = generated(task, "train", 5, seed=0, world=WORLD)
    rows = rendering.prompted(task, items, tokenizer)
    prepared.writer(rows)(tmp_path / "train.parquet")
    assert prepared.read(tmp_path, "train") == rows
    assert [Problem(r["id"], r["question"], r["gold"], r["rationale"]) for r in rows] == items
    assert [r["target_gold"] for r in rows] == [grader(task).gold_answer(item) for item in items]
    assert rows[0]["prompt_direct"] == rendering.render(tokenizer, items[0].question, thinking=False)


@pytest.mark.parametrize("task", BENCHMARKS)
def test_gathered_generated_splits_have_the_sizes_asked_for_and_share_no_question(task: str) -> None:
    splits = gather(task, "generated", n_train=30, n_validation=10, n_test=20).splits
    assert {name: len(found) for name, found in splits.items()} == {"train": 30, "validation": 10, "test": 20}
    assert len({problem.question for found in splits.values() for problem in found}) == 60


def test_generated_problems_have_no_end() -> None:
    with pytest.raises(ParamError, match="`all` generated problems, which have no limit"):
        gather("gsm8k", "generated")


@pytest.mark.slow
@with_data
def test_all_of_gsm8k_is_its_training_file_less_the_validation_split() -> None:
    found = gather("gsm8k", "folder", DATA, n_validation=500)
    assert {name: len(one) for name, one in found.splits.items()} == {"train": 6973, "validation": 500, "test": 1319}
    assert sorted(found.splits["train"] + found.splits["validation"]) == published("gsm8k", "train", DATA)
    assert found.said == ""
    assert all(one["published"] and one["rows"] == one["used"] for one in found.about["splits"].values())


def cached(hub_cache: Path, repo: str, commit: str, file: str) -> Path:
    path = hub_cache / f"datasets--{repo.replace('/', '--')}" / "snapshots" / commit / file
    path.parent.mkdir(parents=True)
    return path


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache of a machine that is offline."""
    from huggingface_hub import constants, file_download

    for module in (constants, file_download):
        monkeypatch.setattr(module, "HF_HUB_CACHE", str(tmp_path), raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


@with_data
def test_math500_comes_from_the_hub_cache_without_network(hub_cache: Path) -> None:
    record = published_files.HUB_FILES["math500", "test"]
    file = cached(hub_cache, record.repo, record.revision, record.file)
    file.write_bytes((DATA / "math500/test.jsonl").read_bytes())
    assert published("math500", "test", None) == published("math500", "test", DATA)


@pytest.mark.slow
@with_data
def test_a_parquet_copy_gives_the_problems_of_the_published_lines(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [json.loads(line) for line in (DATA / "gsm8k/test.jsonl").read_bytes().splitlines()]
    file = cached(hub_cache, "openai/gsm8k", COMMIT, "main/test-00000-of-00001.parquet")
    pq.write_table(pa.Table.from_pylist(rows), file)
    # Another writer's Parquet file of the same rows has another digest.
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    record = published_files.HUB_FILES["gsm8k", "test"]._replace(sha256=digest)
    monkeypatch.setitem(published_files.HUB_FILES, ("gsm8k", "test"), record)
    assert published("gsm8k", "test", None) == published("gsm8k", "test", DATA)


@with_data
def test_a_hub_file_with_another_digest_is_refused(hub_cache: Path) -> None:
    rows = [json.loads(line) for line in (DATA / "gsm8k/test.jsonl").read_bytes().splitlines()]
    file = cached(hub_cache, "openai/gsm8k", COMMIT, "main/test-00000-of-00001.parquet")
    pq.write_table(pa.Table.from_pylist(rows), file)
    with pytest.raises(DataError, match="the published file ee7b8da9"):
        published("gsm8k", "test", None)


def test_a_torn_parquet_file_is_named(hub_cache: Path) -> None:
    file = cached(hub_cache, "openai/gsm8k", COMMIT, "main/test-00000-of-00001.parquet")
    file.write_bytes(b"PAR1 torn")
    with pytest.raises(DataError, match="is not a whole Parquet file"):
        published("gsm8k", "test", None)


def test_a_benchmark_that_the_hub_does_not_hold_names_its_publisher() -> None:
    with pytest.raises(DataError, match=r"tooluse test is not on the hub.*github\.com/lasgroup/SDPO"):
        published("tooluse", "test", None)


@pytest.mark.slow
def test_problems_need_no_torch() -> None:
    code = "import sys, qthink_core.benchmarks.problems; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
