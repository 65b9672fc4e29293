"""The report: what a run found, as the paper's table, as one page, and as the files that DVC compares and plots."""

import itertools
import json
import math
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from qthink_core.artifacts import completions, prepared, readout
from qthink_core.artifacts.completions import TRAINED, Answer
from qthink_core.artifacts.grades import read_grades
from qthink_core.artifacts.store import write_file
from qthink_core.errors import DataError
from qthink_core.evidence import claims, published, scatter, scores, verdicts
from qthink_core.evidence.fairness import marks
from qthink_core.evidence.findings import Answered, Claim, Comparison, Conditions, Findings, Power, Question, System
from qthink_core.evidence.power import smallest_difference
from qthink_core.evidence.statistics import compare, holm
from qthink_core.pipeline.recipe import Distilled, Finetuned
from qthink_core.report.files import losses_csv, metrics_json, place, tokens_csv, verdicts_csv
from qthink_core.report.html_page import page
from qthink_core.report.params import ReportParams
from qthink_core.report.table import markdown

SYSTEM_NAMES = {
    "base": "Base, thinking",
    "base_direct": "Base, not thinking",
    "sft": "SFT on think + answer",
    "answer_only": "SFT on the answer only",
    "uniform": "QThink uniform per-step",
    "reward_weighted": "QThink reward-weighted per-step",
    "undistilled": "Latents without distillation (gamma 0)",
    "final_step": "Reward-weighted final-step (CODI)",
}


class Folders(NamedTuple):
    """Where one benchmark's artifacts lie: one folder of problems and grades, the others by system (adapters by seed)."""

    problems: Path
    grades: Path
    adapters: Mapping[str, Mapping[int, Path]]
    answers: Mapping[str, Path]
    probes: Mapping[str, Path]


class Plan(NamedTuple):
    """What the report shows: `settings` of each system for the fair comparison, those of the run, and what is browsed."""

    settings: Mapping[str, Mapping[str, Any]]
    made_with: Mapping[str, Any]
    setting: str
    repeats_published: bool
    K: int
    control: str
    direct: str | None
    split: str
    questions: int
    distance: str

    def steps(self, system: str) -> int:
        """The latent steps of a row that takes some: its own number or the shared one."""
        return int(self.settings.get(system, {}).get("K", self.K))


def plan(params: ReportParams) -> Plan:
    """What the parameters of the report stage ask for."""
    shared: dict[str, Any] = {"max_new_tokens": params.evaluate.max_new_tokens}
    train, distance = params.train, params.distil.distance
    trained = shared | {"answer_max_tokens": train.answer_max_tokens, "epochs": train.epochs, "target": train.target}
    latent = {"gamma": params.gamma, "K": params.K, "positions": params.extract.positions, "distance": distance}
    own = {
        **{name: shared for name in params.systems.baseline},
        **{name: trained | _own(one) for name, one in params.systems.finetuned.items()},
        **{name: trained | latent | _own(one) for name, one in params.systems.distilled.items()},
    }
    made_with = {
        "scale": params.scale,
        "problems": params.prepare.source,
        "split": params.split,
        "seed": params.seed,
        "training seeds": ", ".join(map(str, params.seeds)),
        "K": params.K,
        "G": params.rollout.G,
        "gamma": params.gamma,
        "epochs": params.train.epochs,
        "target": params.train.target,
        "training answers of at most": params.train.answer_max_tokens,
        "cross-entropy mean over": params.train.cross_entropy,
        "evaluated answers of at most": params.evaluate.max_new_tokens,
        "rows that think decoded": params.evaluate.thinking,
        "positions": params.extract.positions,
        "latent prompt": params.distil.prompt,
        "gradient through": params.distil.gradient.replace("_", " "),
        "reduction": params.distil.reduction,
        "distance": params.distil.distance,
    }
    problems = "generated problems" if params.prepare.source == "generated" else "the published problems"
    hub = params.base.hub
    return Plan(
        {name: own[name] for name in (*params.systems.baseline, *params.systems.trained)},
        made_with,
        f"{params.base.words} on {problems}",
        hub is not None and hub.repo.endswith(f"/{published.MODEL}") and params.prepare.source != "generated",
        params.K,
        params.report.control,
        next((name for name, one in params.systems.baseline.items() if not one.thinking), None),
        params.split,
        params.report.questions,
        distance,
    )


def _own(system: Finetuned | Distilled) -> dict[str, Any]:
    """The settings in which a row should not differ from the others."""
    return system.model_dump(include={"gamma", "answer_max_tokens", "K", "positions", "distance"}, exclude_none=True)


def find(folders: Mapping[str, Folders], plan: Plan) -> Findings:
    """All findings of a run, by task; raises DataError where something that was to be made is missing."""
    systems = list(plan.settings)
    tasks = {task: scores.read(one.grades, systems) for task, one in folders.items()}
    differs, latent = marks(plan.settings), {system for one in folders.values() for system in one.probes}
    compared = comparisons(tasks)
    return Findings(
        scale=plan.made_with["scale"],
        setting=plan.setting,
        made_with=plan.made_with,
        K=plan.K,
        distance=plan.distance,
        systems={
            name: System(SYSTEM_NAMES.get(name, name), name in latent, differs[name], own.get("K"), own.get("distance"))
            for name, own in plan.settings.items()
        },
        cells={
            task: {
                name: scores.cell(found.scores[name][TRAINED], plan.steps(name) if name in latent else 0) for name in systems
            }
            for task, found in tasks.items()
        },
        control=plan.control if plan.control in systems else None,
        direct=plan.direct if plan.direct in systems else None,
        repeats_published=plan.repeats_published,
        comparisons=compared,
        power=power(tasks, latent, plan.control, len(compared)),
        curves={
            task: {name: read_losses(by_seed[min(by_seed)]) for name, by_seed in one.adapters.items()}
            for task, one in folders.items()
        },
        conditions={
            task: {name: conditions(found, name, plan.steps(name), plan.control) for name in folders[task].probes}
            for task, found in tasks.items()
            if folders[task].probes
        },
        claims=claimed(tasks, plan),
        questions=[
            row for task, one in folders.items() for row in browsed(task, one, tasks[task], plan.split, plan.questions)
        ],
        further=further(tasks),
    )


def comparisons(tasks: Mapping[str, scores.Task]) -> list[Comparison]:
    """Every pair of systems of every benchmark, the lower row of the table less the higher one; Holm over all of them."""
    pairs = [(task, left, right) for task, found in tasks.items() for right, left in itertools.combinations(found.scores, 2)]
    compared = [
        compare(tasks[task].scores[left][TRAINED].right, tasks[task].scores[right][TRAINED].right)
        for task, left, right in pairs
    ]
    adjusted = holm([one.p_method for one in compared])
    return [
        Comparison(task, left, right, one.difference, one.low, one.high, one.p_method, p, tasks[task].trainings(left, right))
        for (task, left, right), one, p in zip(pairs, compared, adjusted, strict=True)
    ]


def power(tasks: Mapping[str, scores.Task], latent: Collection[str], control: str, compared: int) -> dict[str, Power]:
    """What each benchmark could have found, from the scatter between a latent system and the control (power.py).

    Of the latent systems the one whose smallest difference is the largest: pairs scatter too differently for a mean.
    """
    found = {}
    for task, one in tasks.items():
        if control not in one.scores:
            continue
        pairs = [_pair_power(one, name, control, compared) for name in one.scores if name in latent]
        if pairs:
            found[task] = max(pairs, key=lambda pair: math.inf if pair.alone is None else pair.alone)
    return found


def _pair_power(task: scores.Task, system: str, control: str, compared: int) -> Power:
    left, right = task.scores[system][TRAINED].right, task.scores[control][TRAINED].right
    measured, n, seeds = scatter.measured(left, right), len(task.ids), min(len(left), len(right))
    smallest = partial(smallest_difference, n, seeds, measured)
    return Power(system, n, seeds, measured, smallest(), smallest(level=verdicts.LEVEL / compared))


def conditions(task: scores.Task, system: str, K: int, control: str) -> Conditions:
    """A latent system's cells by condition, in order, and the verdict on its latents (verdicts.py).

    Raises DataError when the control is not among the systems.
    """
    found = task.scores[system]
    if control not in task.scores:
        raise DataError(f"the verdict on {system} needs the control {control}: add it to systems.finetuned in params.yaml")
    judged = verdicts.judge({name: one.right for name, one in found.items()}, K, task.scores[control][TRAINED].right)
    return Conditions({name: scores.cell(found[name]) for name in sorted(found, key=place)}, judged.word, judged.sentence)


def claimed(tasks: Mapping[str, scores.Task], plan: Plan) -> list[Claim]:
    """The paper's claims on this run's answers (claims.py)."""
    right = {task: {name: one[TRAINED].right for name, one in found.scores.items()} for task, found in tasks.items()}
    tokens = {task: {name: one[TRAINED].tokens for name, one in found.scores.items()} for task, found in tasks.items()}
    return [_claim(row, plan.steps(row.claim.left)) for row in claims.verdicts(claims.CLAIMS, right, tokens)]


def _claim(row: claims.Row, K: int) -> Claim:
    """claims.py counts in per cent points, as the card does; findings hold shares."""
    scale = 100 if row.claim.unit == claims.POINTS else 1
    published, ours, low, high = (
        None if one is None else one / scale for one in (row.published, row.difference, row.low, row.high)
    )
    note = "; ".join(filter(None, (row.note, row.claim.caveat.format(K=K))))
    return Claim(
        row.claim.words, row.task, published, ours, low, high, row.seeds, row.verdict, note=note, unit=row.claim.unit
    )


def further(tasks: Mapping[str, scores.Task]) -> dict[str, dict[str, dict[str, float]]]:
    """The further scores of a benchmark that has some, as shares of all answers, by benchmark, system and scorer."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for task, one in tasks.items():
        rows = {name: list(itertools.chain(*by[TRAINED].details)) for name, by in one.scores.items()}
        keys = sorted({key for held in rows.values() for detail in held for key in detail})
        if keys:
            found[task] = {
                name: {key: sum(detail.get(key, False) for detail in held) / len(held) for key in keys}
                for name, held in rows.items()
            }
    return found


def browsed(task: str, folders: Folders, found: scores.Task, split: str, count: int) -> list[Question]:
    """The first questions by id with every system's answer of its lowest seed, and what each latent step says."""
    ids = found.ids[:count]
    problems = {row["id"]: row for row in prepared.read(folders.problems, split)}
    said: dict[str, dict[str, Answer]] = {}
    verdict: dict[tuple[str, str], tuple[str, str | None]] = {}
    for system, folder in folders.answers.items():
        rows = completions.read(folder)
        said[system] = {row.problem_id: row for row in rows if row.seed == rows[0].seed}
    for row in read_grades(folders.grades):
        if row.condition == TRAINED and row.seed == found.seeds[row.system][0]:
            verdict[row.system, row.problem_id] = row.verdict, row.extracted
    readouts = {system: readout.read(folder, found.first_seed(system)) for system, folder in folders.probes.items()}
    return [
        Question(
            task,
            one,
            problems[one]["question"],
            problems[one]["gold"],
            {
                system: Answered(
                    rows[one].text,
                    *verdict[system, one],
                    len(rows[one].tokens),
                    rows[one].finish,
                    readouts.get(system, {}).get(one, ()),
                )
                for system, rows in said.items()
            },
        )
        for one in ids
    ]


def read_losses(adapter: Path) -> list[dict[str, Any]]:
    """The losses of every step of a training."""
    return json.loads((adapter / "losses.json").read_bytes())


def write(folder: Path, findings: Findings, folders: Mapping[str, Folders]) -> list[Path]:
    """Writes the table, the page, the metrics, the plots and every verdict, and returns their paths, the table first."""
    files = {
        "table.md": markdown(findings).encode(),
        "report.html": page(findings),
        "accuracy.json": metrics_json(findings.cells),
        "tokens.csv": tokens_csv(findings.cells),
    }
    for task, one in folders.items():
        files[f"verdicts/{task}.csv"] = verdicts_csv(scores.read(one.grades, list(findings.systems)))
        for system, by_seed in one.adapters.items():
            for seed, adapter in by_seed.items():
                files[f"losses/{task}-{system}-{seed}.csv"] = losses_csv(read_losses(adapter))
    for name, content in files.items():
        write_file(folder / name, content)
    return [folder / name for name in files]
