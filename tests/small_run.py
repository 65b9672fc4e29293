"""A finished run made of verdicts: the artifact folders of one benchmark, written by the project's own writers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from artifact_folders import published

from qthink_core.artifacts import grades, prepared, readout
from qthink_core.artifacts.answers import BATCH, Answer, writer
from qthink_core.artifacts.conditions import TRAINED
from qthink_core.artifacts.files import Writer
from qthink_core.artifacts.grades import Graded
from qthink_core.artifacts.readout import Read
from qthink_core.artifacts.store import of_set
from qthink_core.report.build import Folders
from qthink_core.report.params import Outline

K = 2
ABOUT = {"benchmark": "gsm8k", "source": "generated"}
VERDICTS = {"r": "right", "w": "wrong", "u": "unparsable", "o": "over_limit", "t": "timeout"}
SUBSTITUTED = ("K=0", "zeros", "noise", "other", "mean")
# By (system, training seed, condition), a letter per question.
Verdicts = Mapping[tuple[str, int | None, str], str]


def identifier(task: str, question: int) -> str:
    return f"{task}-test-{question:05d}"


def text(letter: str, condition: str) -> str:
    return f"{VERDICTS[letter]} {condition} | <b>"


def rows(task: str, verdicts: Verdicts, tokens: int = 3) -> list[Graded]:
    """An answer has `tokens` tokens and one more for each question before it; an unparsable one ran into the limit."""
    return [
        Graded(
            system,
            seed,
            condition,
            identifier(task, question),
            VERDICTS[letter],
            letter if letter in "rw" else None,
            "{}",
            tokens + question,
            "length" if letter == "u" else "stop",
        )
        for (system, seed, condition), letters in verdicts.items()
        for question, letter in enumerate(letters)
    ]


def graded(folder: Path, task: str, graded: Sequence[Graded], **sets: Sequence[Graded]) -> Path:
    """The grades of a task and of its further test sets."""
    files = {of_set(name, "grades"): rows for name, rows in {"": graded, **sets}.items()}
    return published(
        folder / "grades" / task,
        task,
        {name: {f"{name}.parquet": grades.grades_writer(rows)} for name, rows in files.items()},
    )


def answered(folder: Path, name: str, rows: Sequence[Graded], others: Mapping[str, Mapping[str, Writer]]) -> Path:
    letters = {verdict: letter for letter, verdict in VERDICTS.items()}
    answers = [
        Answer(
            [7] * row.n_tokens,
            text(letters[row.verdict], row.condition),
            row.finish,
            problem_id=row.problem_id,
            seed=row.seed,
            condition=row.condition,
        )
        for row in rows
    ]
    unit = f"{BATCH}00000"
    return published(folder, name, {unit: {f"{unit}.parquet": writer(answers)}, **others})


def losses(system: str, seed: int, latent: bool) -> list[dict[str, object]]:
    entropy = len(system) + seed
    distances = {"distillation": 0.5, "distance": [0.25, 0.75]} if latent else {}
    return [{"step": step, "cross_entropy": entropy / step} | distances for step in (1, 2, 3)]


def said(system: str, seed: int, ids: Sequence[str]) -> dict[str, Writer]:
    read = [
        Read(one, seed, k, rank, f"{system}{seed} {k}.{rank}", 1 / 2**rank) for one in ids for k in (1, 2) for rank in (1, 2)
    ]
    return {f"{readout.name(seed)}.parquet": readout.writer(read)}


def run(
    folder: Path, task: str, verdicts: Verdicts, made: Sequence[Graded] | None = None, about: Mapping[str, Any] = ABOUT
) -> Folders:
    """The folders of a run with these verdicts; a system with other conditions than `trained` takes latent steps."""
    found = rows(task, verdicts) if made is None else list(made)
    ids = sorted({row.problem_id for row in found})
    problems = [
        prepared.Prompted(
            id=one,
            question=f"{one}?",
            gold="7",
            rationale=None,
            target_gold="7",
            prompt_thinking=[1],
            prompt_direct=[2],
        )
        for one in ids
    ]
    systems = list(dict.fromkeys(system for system, _, _ in verdicts))
    latent = {row.system for row in found if row.condition != TRAINED}
    seeds = {
        system: sorted({row.seed for row in found if row.system == system and row.seed is not None}) for system in systems
    }
    answers, probes, adapters = {}, {}, {}
    for system in systems:
        own = [row for row in found if row.system == system]
        answers[system] = answered(folder / "answers" / task, system, [row for row in own if row.condition == TRAINED], {})
        if system in latent:
            read = {readout.name(seed): said(system, seed, ids) for seed in seeds[system]}
            probed = [row for row in own if row.condition != TRAINED]
            probes[system] = answered(folder / "probes" / task, system, probed, read)
        if seeds[system]:
            adapters[system] = {
                seed: published(
                    folder / "adapters" / task / system,
                    str(seed),
                    {f"t{seed}": {"losses.json": json.dumps(losses(system, seed, system in latent)).encode()}},
                )
                for seed in seeds[system]
            }
    return Folders(
        published(folder / "problems" / task, task, {"p": {"test.parquet": prepared.writer(problems)}}, about),
        folder / "test_sets" / task,
        graded(folder, task, found),
        adapters,
        answers,
        probes,
    )


def outline(systems: Sequence[str], *, control: str = "answer_only", questions: int = 2, **gamma: float) -> Outline:
    """The outline of a report on a run of these systems, each keyword the gamma of one."""
    direct = "base_direct" if "base_direct" in systems else None
    settings = {name: {"epochs": 3} | ({"gamma": gamma[name]} if name in gamma else {}) for name in systems}
    return Outline(
        settings, {"scale": "small", "seed": 0}, "a small model", False, K, control, direct, "test", questions, "l1"
    )


def substituted(system: str, seed: int | None, letters: str) -> dict[tuple[str, int | None, str], str]:
    """The same verdicts under each condition that the rule of the verdict on latents needs."""
    return {(system, seed, condition): letters for condition in SUBSTITUTED}
