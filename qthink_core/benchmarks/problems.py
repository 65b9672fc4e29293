"""Problems of a benchmark in one schema from three sources: generated, a folder of published files, the hub.

Whatever the source, the benchmark's page in `answers` turns a row into a problem and checks it, so a gold that
does not match itself never gets past here. Choices among problems follow a rank that depends on (seed, id)
alone: neither the order of the rows nor an added row reshuffles them. No torch.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

from qthink_core import hub
from qthink_core.artifacts.files import sha256
from qthink_core.artifacts.prepared import TEST, TRAIN, VALIDATION, Prompted
from qthink_core.benchmarks.graders import Problem, grader
from qthink_core.benchmarks.synthetic import Show, worked
from qthink_core.benchmarks.world import World
from qthink_core.errors import DataError, ParamError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class HubFile(NamedTuple):
    """A file of a dataset repository at a commit, with its sha256."""

    repo: str
    revision: str
    file: str
    sha256: str


_GSM8K = ("openai/gsm8k", "740312add88f781978c0658806c59bc2815b9866")
_MATH500 = ("HuggingFaceH4/MATH-500", "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be")
HUB_FILES = {
    ("gsm8k", "train"): HubFile(
        *_GSM8K,
        "main/train-00000-of-00001.parquet",
        "ea82612ea9582142387730c793eb67d3b12849002bc0b7fa6f8efafa7351419d",
    ),
    ("gsm8k", "test"): HubFile(
        *_GSM8K,
        "main/test-00000-of-00001.parquet",
        "ee7b8da9e381df27b9e3f7758a159ab2bdaa4dbaa910546cbbc47e0cb44e4f59",
    ),
    ("math500", "test"): HubFile(
        *_MATH500, "test.jsonl", "35dc41080a3680858b27fa7e0533d2d547825316fc5dafe5d316f4ccc5a06132"
    ),
}

# Where each benchmark's files are published in the form that a data folder holds.
PUBLISHED_IN = {
    "gsm8k": "grade_school_math/data of github.com/openai/grade-school-math",
    "math500": "prm800k/math_splits of github.com/openai/prm800k",
    "tooluse": "datasets/tooluse of github.com/lasgroup/SDPO",
}


def gather(
    task: str,
    source: Literal["generated", "folder", "hub"],
    n_train: int | Literal["all"],
    n_validation: int,
    n_test: int | Literal["all"],
    seed: int,
    folder: Path | None,
    world: World | None,
    show: Show | None = None,
) -> dict[str, list[Problem]]:
    """The problems of each split, sorted by id, no question of the test set in the two others; `show` as in `worked`.

    Published benchmarks have no validation split: it is taken out of the training file before `n_train` are chosen.
    Raises ParamError when a source has fewer problems than asked for, DataError as `published` does and where none is left
    to train on.
    """
    if source == "generated":
        if n_train == "all" or n_test == "all":
            raise ParamError("prepare asks for `all` generated problems, which have no end: give n_train and n_test")
        if world is None:
            raise ParamError("prepare.source is generated: give `world` in the params file of the scale")
        splits = {
            TRAIN: generated(task, TRAIN, n_train, seed, world, show),
            VALIDATION: generated(task, VALIDATION, n_validation, seed, world, show),
            TEST: generated(task, TEST, n_test, seed, world, show),
        }
        check_disjoint(splits[TRAIN] + splits[VALIDATION], splits[TEST])
        return splits
    if source == "folder" and folder is None:
        raise ParamError("prepare takes its problems from a folder: name it, as in `export QTHINK_DATA=path`")
    place = folder if source == "folder" else None
    whole, test = published(task, TRAIN, place), published(task, TEST, place)
    check_disjoint(whole, test)
    train, validation = split_validation(whole, n_validation, seed)
    if not train:
        raise DataError(
            f"0 problems of {task} are left for training: its training file holds {len(whole)}, and the validation split "
            f"takes {n_validation} of them: lower prepare.n_validation, or put more problems into the file"
        )
    return {
        TRAIN: select(train, len(train) if n_train == "all" else n_train, seed),
        VALIDATION: validation,
        TEST: select(test, len(test) if n_test == "all" else n_test, seed),
    }


def generated(task: str, split: str, n: int, seed: int, world: World, show: Show | None = None) -> list[Problem]:
    """n generated problems of a split."""
    rows = [item.row for item in worked(task, split, n, seed, world, show)]
    return _problems(task, split, rows, f"generated {task} {split}", "problem")


def published(task: str, split: str, folder: Path | None) -> list[Problem]:
    """All problems of a published split in file order, from a folder or, if None, from the hub.

    The folder holds gsm8k/{train,test}.jsonl, math500/{train,test}.jsonl and tooluse/{train,test}.json, all with
    one JSON object a line. Files whose digest is on record must have it. Raises DataError naming file, line and
    id for a row that is unreadable, has no answer, a doubled id or a gold that does not match itself, and for a
    file that is missing or another one.
    """
    if folder is None:
        record = on_hub(task, split)
        path = hub.dataset_file(record.repo, record.revision, record.file)
        expected: str | None = record.sha256
    else:
        path, expected = in_folder(task, split, folder)
    known = grader(task).FILES.get(split)
    unit = "row" if path.suffix == ".parquet" else "line"
    problems = _problems(task, split, _rows(path), str(path), unit)
    if known is not None and len(problems) != known.records:
        raise DataError(f"{path} has {len(problems)} problems, the published file {known.records}: fetch it again")
    check_digest(path, expected)
    return problems


def in_folder(task: str, split: str, folder: Path) -> tuple[Path, str | None]:
    """A split's file in a data folder, and its sha256 where that is on record; raises DataError where there is no file."""
    path, known = folder / _published_name(task, split), grader(task).FILES.get(split)
    if not path.is_file():
        raise DataError(f"{path} is missing: put the file there, it is in {PUBLISHED_IN[task]}")
    return path, known.sha256 if known else None


def on_hub(task: str, split: str) -> HubFile:
    """Where the hub has a split; raises DataError where it has none in its published form."""
    if (task, split) not in HUB_FILES:
        raise DataError(
            f"{task} {split} is not on the hub in its published form: take it from {PUBLISHED_IN[task]}, put it "
            f"into a folder as {_published_name(task, split)}, name that folder in QTHINK_DATA "
            "and set prepare.source to folder"
        )
    return HUB_FILES[task, split]


def check_digest(path: Path, expected: str | None) -> None:
    """Raises DataError where a sha256 is expected and the file has another."""
    if expected is not None and (found := sha256(path)) != expected:
        raise DataError(f"{path} has sha256 {found}, the published file {expected}: fetch it again")


def check_disjoint(train: Sequence[Problem], test: Sequence[Problem]) -> None:
    """Raises DataError naming both when an id or a question (whitespace aside) is in train and in test."""
    ids = {problem.id for problem in train}
    rows = {_squeezed(problem.question): row for row, problem in enumerate(train, 1)}
    for row, problem in enumerate(test, 1):
        if problem.id in ids:
            raise DataError(
                f"id {problem.id} is in the training set and, as row {row}, in the test set: drop it from training"
            )
        twin = rows.get(_squeezed(problem.question))
        if twin is not None:
            raise DataError(
                f"{train[twin - 1].id} (row {twin} of the training set) asks the question of {problem.id} "
                f"(row {row} of the test set): drop it from training"
            )


def overlap(splits: Mapping[str, Sequence[Problem]]) -> dict[str, int]:
    """How many test questions the other splits ask too: `overlap` word for word, `near_overlap` but for case and stops.

    `gather` refuses the first among all that a source holds; the second is counted among what was kept.
    """
    others = [problem.question for split, found in splits.items() if split != TEST for problem in found]
    tests = [problem.question for problem in splits[TEST]]
    exact, near = ({same(question) for question in others} for same in (_squeezed, _letters))
    return {
        "overlap": sum(_squeezed(question) in exact for question in tests),
        "near_overlap": sum(_letters(question) in near for question in tests),
    }


def select(problems: Sequence[Problem], n: int, seed: int) -> list[Problem]:
    """n of the problems by their rank under the seed, sorted by id; raises ParamError when there are fewer."""
    return _lowest(problems, n, f"select {seed}")[0]


def split_validation(train: Sequence[Problem], n_validation: int, seed: int) -> tuple[list[Problem], list[Problem]]:
    """(the other problems, n_validation of them by rank), sorted by id; raises ParamError like `select`."""
    validation, rest = _lowest(train, n_validation, f"validation {seed}")
    return rest, validation


def render(tokenizer: "PreTrainedTokenizerBase", question: str, thinking: bool) -> list[int]:
    """The prompt of a question as token ids, by the model's own chat template (decision 13 of docs/decisions/method.md)."""
    encoding = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        # As `chat_template_kwargs` it would be ignored without a word and thinking stay on.
        enable_thinking=thinking,
    )
    return cast("list[int]", cast("Mapping[str, object]", encoding)["input_ids"])


def prompted(task: str, problems: Iterable[Problem], tokenizer: "PreTrainedTokenizerBase") -> list[Prompted]:
    """The problems with gold answer and prompts, in their order."""
    return [
        Prompted(
            id=problem.id,
            question=problem.question,
            gold=problem.gold,
            rationale=problem.rationale,
            target_gold=grader(task).gold_answer(problem),
            prompt_thinking=render(tokenizer, problem.question, thinking=True),
            prompt_direct=render(tokenizer, problem.question, thinking=False),
        )
        for problem in problems
    ]


def longest_prompt(rows: Iterable[Prompted]) -> int:
    """The tokens of the longest of all prompts; 0 of none."""
    return max((len(prompt) for row in rows for prompt in (row["prompt_thinking"], row["prompt_direct"])), default=0)


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer of a model folder."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def _problems(task: str, split: str, rows: Iterable[Mapping[str, object]], source: str, unit: str) -> list[Problem]:
    problems: list[Problem] = []
    seen: dict[str, int] = {}
    for index, row in enumerate(rows):
        place = f"{source}, {unit} {index + 1}"
        try:
            problem = grader(task).problem(row, index, split)
        except DataError as error:
            raise DataError(f"{place}: {error}") from None
        if problem.id in seen:
            raise DataError(f"{place}: id {problem.id} is that of {unit} {seen[problem.id]} too: drop one of them")
        seen[problem.id] = index + 1
        problems.append(problem)
    return problems


def _published_name(task: str, split: str) -> Path:
    """A split's file in the data folder: as the page records it, else beside the test file."""
    files = grader(task).FILES
    if split in files:
        return Path(files[split].path)
    test = Path(files["test"].path)
    return test.with_name(split + test.suffix)


def _rows(path: Path) -> Iterator[Mapping[str, object]]:
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            yield from pq.read_table(path).to_pylist()
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{path} is not a whole Parquet file ({error}): fetch it again") from None
    else:  # tooluse/test.json is JSON lines too
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield _object(line, f"{path}, line {number}")


def _object(line: bytes, place: str) -> Mapping[str, object]:
    try:
        value = json.loads(line.decode())
    except (ValueError, RecursionError) as error:  # ValueError: also bad UTF-8 and integers of 5,000 digits
        raise DataError(f"{place} is not JSON ({error}): fix the line or fetch the file again") from None
    if not isinstance(value, dict):
        raise DataError(f"{place} holds a JSON {type(value).__name__} where an object is expected: fix or drop it")
    return value


def _squeezed(question: str) -> str:
    return " ".join(question.split())


def _letters(question: str) -> str:
    """Without case and the punctuation of prose; operators stay, 1+1 is not 1-1."""
    return "".join(re.findall(r"[^\s.,;:!?'\"’“”$]", question.casefold()))


def _lowest(problems: Sequence[Problem], n: int, label: str) -> tuple[list[Problem], list[Problem]]:
    """(the n problems of lowest rank, the others), both sorted by id."""
    if n > len(problems):
        raise ParamError(f"{n} problems are asked for but there are {len(problems)}: lower the number")
    ranked = sorted(problems, key=lambda problem: hashlib.sha256(f"{label} {problem.id}".encode()).digest())
    by_id = [sorted(part, key=lambda problem: problem.id) for part in (ranked[:n], ranked[n:])]
    return by_id[0], by_id[1]
