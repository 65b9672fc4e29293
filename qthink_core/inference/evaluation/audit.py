"""The audit of a latent checkpoint: its answers as trained, and with its latents left out, replaced or changed in number.

It is the pipeline's necessity suite (`generation/interventions.py`, `evidence/verdicts.py`) for any checkpoint in the
published layout, and needs nothing of a training: no problems of the training set, no teachers.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from qthink_core.artifacts.conditions import JUDGED, TRAINED, steps_condition
from qthink_core.artifacts.files import canonical_json, write_file
from qthink_core.errors import DataError, ParamError
from qthink_core.generation.hf_engine import HFEngine
from qthink_core.generation.interventions import Latents, intervene, read_latents
from qthink_core.generation.requests import Request
from qthink_core.inference import checkpoint
from qthink_core.inference.checkpoint import Checkpoint
from qthink_core.inference.evaluation import contestants
from qthink_core.inference.evaluation.contestants import Contestant, How, Progress, Say
from qthink_core.inference.evaluation.evaluate import MODEL
from qthink_core.inference.evaluation.findings import BASE, BASE_DIRECT, CONTROL, Audit, findings
from qthink_core.inference.evaluation.page import page
from qthink_core.inference.evaluation.questions import SEED, Questions
from qthink_core.inference.evaluation.verdict_file import VerdictFile
from qthink_core.inference.shown import count
from qthink_core.models.loading import CONFIG, HEAD, System
from qthink_core.planning.progress import about

FINDINGS, PAGE = "audit.json", "audit.html"
ROWS = 256  # answers generated at once, whatever their conditions, if a batch is not larger
TOP = 1  # tokens in the readout of a latent, which an audit does not use


class Others(NamedTuple):
    """The checkpoints beside the audited one, if given: a control without latents, and the base that thinks."""

    control: str | None = None
    base: str | None = None


def conditions(K: int, sweep: int) -> list[str]:
    """The conditions of an audit in the order of the answers; K steps are `trained`, 0 for `sweep` leaves the others out."""
    steps = [TRAINED if k == K else steps_condition(k) for k in range(1, max(sweep, 1) * K + 1)]
    return [*JUDGED, *(steps if sweep else [TRAINED])]


def latent_passes(K: int, sweep: int) -> int:
    """The latent inputs of one question under all conditions: K to read them, four times K replaced ones, and the sweep."""
    return K + 4 * K + max(sweep, 1) * K


def audit(
    model: str,
    asked: Questions,
    how: How,
    out: Path,
    *,
    K: int | None = None,
    sweep: int = 1,
    others: Others = Others(),  # noqa: B008 - a tuple does not change
    revision: str | None = None,
    say: Say = lambda _: None,
) -> Audit:
    """The audit of a checkpoint, after answering what the verdict file in `out` lacks and writing the findings and the page.

    `say` gets what the audit costs before it starts. Prompts ask for thinking if `qthink.json` says so. Raises ParamError
    and DataError for bad input (also for a checkpoint without latent steps, a control with a projection head or with other
    prompts, a base that cannot switch its thoughts off, and fewer than two questions), and NumericError when a number in a
    model is not finite. Finished batches are kept.
    """
    how.check()
    check_sweep(sweep)
    if len(asked.problems) < 2:
        raise ParamError("an audit on one question has no errors to compare: ask at least two")
    systems = _systems(checkpoint.find(model, K, revision=revision), asked, how, sweep, others)
    one = systems[0]
    names = conditions(one.checkpoint.K, sweep)
    plan = contestants.keys(one, how.batch, names)
    for other in systems[1:]:
        plan |= contestants.keys(other, how.batch)
    settings = {
        "command": "audit",
        "model": model,
        "benchmark": asked.task,
        "questions": asked.about(),
        "sweep": sweep,
        "seed": SEED,
        **{name: value for name, value in vars(how).items() if name != "max_new_tokens"},
        **{f"{system.name} {name}": value for system in systems for name, value in system.about().items()},
    }
    with VerdictFile.opened(out, settings, plan) as file:
        say(_cost(model, asked, how.device, systems, names, sweep, file))
        if file.missing:
            _answer(systems, asked, how, sweep, file, say)
        done = findings(file.lines, model, asked, one.checkpoint.K, one.max_new_tokens, others._asdict(), settings)
        write_file(out / FINDINGS, canonical_json(done.as_json()))
        write_file(out / PAGE, page(done))
    return done


def check_sweep(sweep: int) -> None:
    """Raises ParamError for a negative sweep."""
    if sweep < 0:
        raise ParamError(f"--sweep is {sweep}: give 0 (no sweep) or a multiple of the trained number of latent steps")


def _systems(found: Checkpoint, asked: Questions, how: How, sweep: int, others: Others) -> list[Contestant]:
    if not found.K:
        raise DataError(f"{found.folder} takes no latent steps, so there is nothing to audit: name a latent checkpoint")
    if found.trained_K not in (None, found.K):
        raise ParamError(
            f"{found.folder / CONFIG} says {count(found.trained_K or 0, 'latent step')}, and --latents {found.K}: leave "
            "--latents out; --sweep covers other numbers of steps"
        )
    systems = [contestants.contestant(MODEL, found, asked, how, max(sweep, 1) * found.K)]
    if others.control is not None:
        control = _without_latents(others.control)
        if control.trained_K is not None and control.thinking != found.thinking:
            said = "ask for thinking" if control.thinking else "do not ask for thinking"
            raise DataError(
                f"{control.folder / CONFIG} says that its prompts {said}, unlike those of {found.folder}: name a control "
                "that was trained on the same targets"
            )
        control = control._replace(thinking=found.thinking)
        systems.append(contestants.contestant(CONTROL, control, asked, how))
    if others.base is not None:
        thinks, direct = (
            contestants.contestant(name, _without_latents(others.base, thinking), asked, how)
            for name, thinking in ((BASE, True), (BASE_DIRECT, False))
        )
        if thinks.prompts == direct.prompts:
            raise DataError(
                f"the chat template of {others.base} gives the same prompts with and without thinking: name a base that "
                "thinks, or leave --base out"
            )
        systems += [thinks, direct]
    return systems


def _without_latents(model: str, thinking: bool | None = None) -> Checkpoint:
    found = checkpoint.find(model, 0, thinking)
    if (found.folder / HEAD).is_file():
        raise DataError(f"{found.folder} has a projection head ({HEAD}): name a checkpoint without latent steps here")
    return found


def _cost(
    model: str,
    asked: Questions,
    device: str,
    systems: Sequence[Contestant],
    names: Sequence[str],
    sweep: int,
    file: VerdictFile,
) -> str:
    """What the audit costs, in answers, tokens and latent passes; a line each."""
    Q, K = len(asked.problems), systems[0].checkpoint.K
    counts = {one.name: Q * (len(names) if one.name == MODEL else 1) for one in systems}
    most = sum(counts[one.name] * one.max_new_tokens for one in systems)
    rows = [
        f"audit of {model} ({count(K, 'latent step')}) on {Q:,} questions of {asked.task} from {asked.source}, on {device}, "
        f"to {file.folder}",
        *(f"  {one.name}: {counts[one.name]:,} answers of at most {count(one.max_new_tokens, 'token')}" for one in systems),
        f"  together {sum(counts.values()):,} answers, at most {most:,} tokens, and "
        f"{Q * latent_passes(K, sweep):,} latent passes; conditions of the latents: {', '.join(names)}",
    ]
    if file.lines:
        rows.append(f"  kept from an earlier run: {count(len(file.lines), 'answer')}")
    return "\n".join(rows)


def _answer(systems: Sequence[Contestant], asked: Questions, how: How, sweep: int, file: VerdictFile, say: Say) -> None:
    one, rest = systems[0], systems[1:]
    batches = one.batches(how.batch)
    missing = [name for name in file.missing if name in batches]
    show: Progress | None = None
    try:
        if missing:
            system = contestants.load(one.checkpoint, how)
            say(_measured(system, one, batches, systems, file))
            show = Progress("audit", contestants.counted(file.plan), len(file.lines))
            latents, _ = read_latents(system, one.prompts, how.batch, TOP, SEED)
            for name in missing:
                _answer_unit(system, one, name, batches[name], latents, asked, sweep, file)
                show(len(file.plan[name]))
            del system
        show = show or Progress("audit", contestants.counted(file.plan), len(file.lines))
        for other in rest:
            contestants.answer_missing(other, asked, how, file, show)
    finally:
        if show is not None:
            show.close()


def _answer_unit(
    system: System,
    one: Contestant,
    unit: str,
    ids: Sequence[str],
    latents: Latents,
    asked: Questions,
    sweep: int,
    file: VerdictFile,
) -> None:
    started, trained = time.perf_counter(), steps_condition(system.K)
    answers = intervene(
        system,
        {name: one.prompts[name] for name in ids},
        latents,
        {},
        conditions=JUDGED,
        sweep=sweep,
        rows=ROWS,
        max_new_tokens=one.max_new_tokens,
        seed=SEED,
    )
    spent = time.perf_counter() - started
    rows = [replace(row, condition=TRAINED) if row.condition == trained else row for row in answers]
    file.add(unit, contestants.lines(one.name, asked, ids, rows), spent)


def _measured(
    system: System,
    one: Contestant,
    batches: dict[str, list[str]],
    systems: Sequence[Contestant],
    file: VerdictFile,
) -> str:
    """The time that the rest should take: a batch of middle length is answered as trained, and its answers are not kept."""
    engine = HFEngine(system, one.max_new_tokens)
    ids = list(batches.values())[(len(batches) - 1) // 2]
    requests = [Request(name, one.prompts[name]) for name in ids]
    HFEngine(system, 1).generate(requests[:2])  # what is loaded or compiled at the first call is not counted
    started = time.perf_counter()
    done = engine.generate(requests)
    spent = time.perf_counter() - started
    lengths = [len(row.tokens) for (row,) in done]
    left = {each.name: contestants.counted(file.plan, _units(file, each)) for each in systems}
    usual = sum(left.values()) * spent / len(ids)
    # a batch takes as many passes as its longest row has tokens
    pass_s = spent / (max(lengths) + one.checkpoint.K)
    longest = sum(pass_s * each.max_new_tokens * left[each.name] / len(ids) for each in systems)
    tokens = sum(lengths) / len(lengths)
    return (
        f"  a batch of {len(ids)} took {spent:.3g} s, {tokens:,.1f} tokens an answer: the {sum(left.values()):,} answers "
        f"left take {about(usual)} if they are as long, and at most {about(longest)} if all run into the limit"
    )


def _units(file: VerdictFile, one: Contestant) -> list[str]:
    return [name for name in file.missing if file.plan[name][0].system == one.name]
