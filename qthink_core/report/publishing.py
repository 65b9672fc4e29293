"""The folder of a trained model as it is published: its files, its card with what was measured, its score for the hub.

Every number comes out of the run's grades. Nothing is sent anywhere.
"""

import datetime
import functools
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qthink_core.artifacts import prepared, store
from qthink_core.artifacts.conditions import TRAINED
from qthink_core.artifacts.files import sealed, write_file
from qthink_core.artifacts.grades import read_grades
from qthink_core.artifacts.store import MANIFEST, Manifest
from qthink_core.errors import DataError, ParamError
from qthink_core.evidence.findings import Findings
from qthink_core.evidence.wilson import Interval, interval
from qthink_core.models import model_card
from qthink_core.pipeline import layout
from qthink_core.pipeline.stage import check_lineage, read_params
from qthink_core.pipeline.systems import of_seed

if TYPE_CHECKING:
    from qthink_core.report.build import Folders

TEST, GENERATED = "test", "generated"
# A benchmark that the hub keeps scores of: its repository, its task there, and the number of its test questions.
REGISTERED = {"gsm8k": ("openai/gsm8k", "gsm8k", 1319)}


def export(
    root: Path, task: str, system: str, out: Path, seed: int | None = None, date: str | None = None, url: str | None = None
) -> list[str]:
    """Writes the folder `out` for a task and a system of the run, and returns lines about it for the terminal.

    Without a `seed`, the model is that of the first training seed. Raises ParamError for what the run does not have and for
    a date of another form, and DataError when an artifact is missing or damaged, when model, answers and grades are not of
    one run, when the model was merged by an older version, or when `out` is not empty.
    """
    from qthink_core.report import build, params

    settings = read_params(root, "report")
    folders = settings.folders()
    _known("task", task, folders, "params.yaml")
    _known("system", system, settings.systems.trained, "systems.trained")
    seed = settings.seeds[0] if seed is None else seed
    _known("training seed", seed, settings.seeds, "params.yaml")
    _check_date(date)
    folder = of_seed(root / layout.model(task, system), seed, settings.seeds)
    if not (folder / model_card.QTHINK).is_file():
        raise DataError(f"{folder} holds no model: run `dvc repro merge@{task}-{system}`")
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out} is not empty: name a new folder, or delete this one first")
    files = _checked(root, folders[task], task, system, folder)
    own = _below(root, folders[task])
    findings = build.find({task: own}, params.outline(settings))
    problems = prepared.about(own.problems)
    benchmark = problems["benchmark"] if prepared.published(own.problems) else None
    question = prepared.read(own.problems, settings.split)[0]["question"]
    base = store.manifest_of(root / layout.BASE).about
    about = model_card.described(folder / model_card.QTHINK)
    more = {"datasets": [REGISTERED[benchmark][0]]} if benchmark in REGISTERED else {}
    rows = [row for row in read_grades(own.grades) if (row.system, row.seed, row.condition) == (system, seed, TRAINED)]
    right, n = sum(row.right for row in rows), len(rows)
    if not n:
        raise DataError(f"{own.grades} has no grades of {system}, training seed {seed}: run `dvc repro`")
    card = model_card.card(about, base, more, question) + "\n" + measured(findings, task, system, seed, right, n, problems)
    score = scored(benchmark, right, n, about["K"], date, url) if benchmark and settings.split == TEST else None
    for name in files:
        write_file(out / name, functools.partial(shutil.copyfile, folder / name))
    write_file(out / model_card.CARD, card.encode())
    write_file(out / MANIFEST, sealed(vars(_manifest(root / layout.model(task, system), folder, files))))
    if score is not None:
        (out / ".eval_results").mkdir(exist_ok=True)
        write_file(out / f".eval_results/{task}.yaml", score)
    generated = problems["source"] == GENERATED
    why = "its questions are generated" if generated else f"{n} {settings.split} questions are not the hub's benchmark"
    said = f"with its score in .eval_results/{task}.yaml" if score else f"without .eval_results: {why}"
    wrote = f"wrote {out}: {system} on {task}, training seed {seed}, {right} of {n} right, {said}"
    unused = [] if score else [name for name, value in (("--date", date), ("--url", url)) if value is not None]
    notes = [f"{name} was not used: it belongs to the score, and none was written" for name in unused]
    return [wrote, *notes, f"hf upload NAME {out}"]


def _checked(root: Path, own: "Folders", task: str, system: str, folder: Path) -> list[str]:
    """The names of the model's files in `folder`, after a check that its numbers were measured with these bytes.

    Raises DataError when an artifact is missing, is damaged or was made from another version of its input, and when the
    model lacks what its card relies on.
    """
    model = layout.model(task, system)
    made = (model, own.answers[system], own.grades)
    for path in (*made, own.problems):
        store.digest(root / path)  # raises for a missing manifest, which check_lineage would pass over
    check_lineage(root, map(str, (*made, own.problems)))
    for path in made:
        # These inputs are also folders of several artifacts, which check_lineage does not compare.
        for source, recorded in store.manifest_of(root / path).inputs.items():
            if store.digest(root / source) != recorded:
                raise DataError(f"{path} was made from another version of {source} than the present one: run `dvc repro`")
    inside = folder.relative_to(root / model)
    listed = [name for name in map(Path, store.listed(root / model)) if name.is_relative_to(inside)]
    files = [name for name in (str(name.relative_to(inside)) for name in listed) if not name.startswith("seed-")]
    lacking = _lacking(folder, files)
    if lacking:
        fix = f"run `dvc repro merge@{task}-{system}`, then `dvc repro`"
        raise DataError(f"{folder} was merged by an older version and has no {lacking}, which its card relies on: {fix}")
    return files


def _manifest(model: Path, folder: Path, files: list[str]) -> Manifest:
    """The manifest of the written folder, by which a reader finds a damaged file; the card may be edited."""
    made = store.manifest_of(model)
    records = {name: made.files[str((folder / name).relative_to(model))] for name in files if name != model_card.CARD}
    return Manifest("export", "", made.settings, files=records)


def _lacking(folder: Path, files: list[str]) -> str | None:
    about = model_card.described(folder / model_card.QTHINK)
    if not about["K"]:
        return None
    if model_card.GENERATE not in files:
        return model_card.GENERATE
    start = model_card.WITHOUT_THINKING.encode()
    template = model_card.TEMPLATE
    if not about["thinking"] and not (template in files and (folder / template).read_bytes().startswith(start)):
        return f"{template} that turns thinking off"
    return None


def measured(findings: Findings, task: str, system: str, seed: int, right: int, n: int, problems: Mapping[str, Any]) -> str:
    """The part of the card with this model's score, the table of its benchmark and the verdict on its latents.

    `problems` is what `prepared.about` says about the questions.
    """
    lines = [
        "## Measured\n",
        f"This model (training seed {seed}) answers {right} of {n} questions correctly: {100 * right / n:.1f} %, with a "
        f"95 % interval of {_percent(interval(right, n))}. They are {_in_words(task, problems)}.\n",
        "In the table, the figures of a system are over all its trainings.\n",
        "| system | accuracy, % | 95 % interval | n | trainings | tokens | latent steps |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for name, cell in findings.cells[task].items():
        shown = f"{findings.systems[name].name} (this model's system)" if name == system else findings.systems[name].name
        limits = _percent(Interval(cell.low, cell.high))
        figures = (f"{100 * cell.accuracy:.1f}", limits, cell.n, cell.seeds, f"{cell.mean_tokens:.1f}", cell.latents)
        lines.append(f"| {shown} | {' | '.join(map(str, figures))} |")
    verdict = findings.conditions.get(task, {}).get(system)
    if verdict:
        lines += ["", f"Do its latent steps do anything? **{verdict.word}**: {verdict.sentence}"]
    return "\n".join([*lines, ""])


def _in_words(task: str, problems: Mapping[str, Any]) -> str:
    if problems["source"] == GENERATED:
        return f"problems that were generated in the form of {task}, and not the benchmark"
    published = problems["splits"][TEST]["published"]
    return task if published else f"the problems {task} of its author's own, graded by the rules of {problems['benchmark']}"


def _percent(limits: Interval) -> str:
    return f"[{100 * limits.low:.1f}, {100 * limits.high:.1f}]"


def scored(benchmark: str, right: int, n: int, K: int, date: str | None, url: str | None) -> bytes | None:
    """The file that the hub reads a score from, or None when these are not all test questions of a benchmark it keeps."""
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    from ruamel.yaml import YAML

    dataset, name, size = REGISTERED.get(benchmark, ("", "", -1))
    if n != size:
        return None
    notes = f"{K} latent steps, zero-shot, greedy; {right} of {n} right" if K else f"zero-shot; {right} of {n} right"
    entry = EvalResultEntry(
        dataset_id=dataset, task_id=name, value=round(100 * right / n, 2), date=date, source_url=url, notes=notes
    )
    return _yaml(YAML(typ="safe", pure=True), eval_result_entries_to_yaml([entry]))


def _below(root: Path, one: "Folders") -> "Folders":
    adapters = {name: {seed: root / path for seed, path in by_seed.items()} for name, by_seed in one.adapters.items()}
    answers, probes = ({name: root / path for name, path in by_name.items()} for by_name in (one.answers, one.probes))
    return one._replace(
        problems=root / one.problems, grades=root / one.grades, adapters=adapters, answers=answers, probes=probes
    )


def _yaml(writer: Any, value: Any) -> bytes:
    from io import BytesIO

    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False
    file = BytesIO()
    writer.dump(value, file)
    return file.getvalue()


def _check_date(date: str | None) -> None:
    try:  # fromisoformat also reads 20260131 and weeks
        good = date is None or datetime.date.fromisoformat(date).isoformat() == date
    except ValueError:
        good = False
    if not good:
        raise ParamError(f"--date is {date!r:.40}: give the day of the evaluation as in 2026-01-31")


def _known(what: str, name: Any, known: Mapping[str, Any] | list[Any], where: str) -> None:
    if name not in known:
        raise ParamError(f"there is no {what} {name!r:.80}: {where} has {', '.join(map(str, known))}")
