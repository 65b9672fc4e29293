"""The report page: all findings of a run, as one HTML file that opens without a network, with a dark and a light theme.

Model text is hostile. Everything that the template prints goes through `display.visible` and autoescape, whether or not it
comes from a model. In addition, the page's policy (CSP) forbids everything but its styles and its one script, which is
allowed by hash. The page is complete without that script, which only filters the questions.
"""

import base64
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from qthink_core.artifacts.conditions import MEAN, NOISE, NONE, OTHER, TEACHER, TRAINED, ZEROS
from qthink_core.evidence import claims, published
from qthink_core.evidence.findings import Findings
from qthink_core.report import display, overview, plots, sentences
from qthink_core.report.display import plain

TEMPLATES = Path(__file__).with_name("templates")
BENCHMARKS = {"gsm8k": "GSM8K", "math500": "MATH-500", "tooluse": "Tooluse"}
CONDITIONS = {
    TRAINED: "as trained",
    NONE: "no latent steps",
    ZEROS: "zeros",
    NOISE: "noise of the same scale",
    OTHER: "another question's",
    MEAN: "mean latent",
    TEACHER: "teacher states",
}
DISTANCES = {"l1": "L1 distance", "l2": "squared L2 distance", "cosine": "cosine distance"}
GLYPHS = {"right": "✓", "wrong": "✗", "unparsable": "?", "over_limit": "…", "timeout": "◷"}
FILTERS = (
    display.per_cent,
    display.points,
    display.tokens,
    display.signed_tokens,
    display.p_value,
    display.token,
    display.first_words,
    display.plain,
)


def page(findings: Findings) -> bytes:
    """The page as UTF-8: a pure function of the findings and of the files in `templates/`."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=display.visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {one.__name__: one for one in FILTERS}
    css, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    systems, tasks = list(findings.systems), list(findings.cells)
    latent = [system for system in systems if findings.systems[system].latent]
    notes = list(dict.fromkeys(mark for system in findings.systems.values() for mark in system.marks))
    compared = {task: overview.of_task(findings, task) for task in tasks}
    text = environment.get_template("page.html.j2").render(
        f=findings,
        steps_taken=steps_taken(findings),
        css=Markup(css),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        tasks=tasks,
        names={task: BENCHMARKS.get(task, task) for task in tasks},
        number={system: number for number, system in enumerate(systems)},
        notes=notes,
        marks={system: [notes.index(mark) + 1 for mark in findings.systems[system].marks] for system in systems},
        latent=latent,
        controls=[name for name in (findings.control, findings.direct) if name is not None],
        summary=sentences.summary(findings),
        scope=sentences.scope(findings.comparisons),
        power=sentences.power(findings),
        few=sentences.few,
        seconds=sentences.SECONDS,
        about_test_sets=sentences.TEST_SETS,
        best={task: overview.best(findings, task) for task in tasks},
        matrix={task: overview.matrix(findings, task) for task in tasks},
        widest={task: max([0.05, *(max(abs(row.low), abs(row.high)) for row in rows)]) for task, rows in compared.items()},
        comparisons=compared,
        claim_lines=overview.claim_lines(findings.claims),
        published=published,
        on_seeds=claims.on_seeds(row.seeds for row in findings.claims),
        panels=panels(findings),
        steps_swept={
            task: sorted({number for one in found.values() for number in plots.swept(one)})
            for task, found in findings.conditions.items()
        },
        swept={
            task: {system: plots.swept(one) for system, one in found.items()} for task, found in findings.conditions.items()
        },
        replaced=replaced(findings),
        condition_names=CONDITIONS,
        glyphs=GLYPHS,
        alpha=sentences.ALPHA,
        max_shown=display.MAX_SHOWN_CHARS,
        max_points=plots.MAX_POINTS,
    )
    return text.encode()


def shared_distance(findings: Findings) -> str:
    """The name of the distance that all latent rows share, or "distance" if they differ."""
    held = {one.distance or findings.distance for one in findings.systems.values() if one.latent} or {findings.distance}
    return called(held.pop()) if len(held) == 1 else "distance"


def called(distance: str) -> str:
    """The name of a distance of the loss."""
    return DISTANCES.get(distance, f"{distance} distance")


def steps_taken(findings: Findings) -> list[int]:
    """The numbers of latent steps that rows were trained with, each once."""
    return sorted({one.K or findings.K for one in findings.systems.values() if one.latent} or {findings.K})


def replaced(findings: Findings) -> dict[str, list[str]]:
    """The conditions by benchmark, in order, without numbers of latent steps above 0, which have a plot instead."""
    found = {}
    for task, systems in findings.conditions.items():
        found[task] = [name for name in overview.conditions(systems) if not re.fullmatch(r"K=[1-9]\d*", name)]
    return found


class Panels(NamedTuple):
    """The plots by kind, each kind a list of (heading, SVG); `keys` are the legends' symbols."""

    tokens: list[plots.Plot]
    losses: list[plots.Plot]
    distances: list[plots.Plot]
    sweeps: list[plots.Plot]
    keys: list[Markup]


def panels(findings: Findings) -> Panels:
    """Every plot of the page."""
    number = {system: place for place, system in enumerate(findings.systems)}
    title = {task: BENCHMARKS.get(task, task) for task in findings.cells}
    found = Panels([], [], [], [], [Markup(plots.key(place, kind)) for place in number.values() for kind in plots.KEYS])

    def draw(to: list[plots.Plot], kind: str, title: str, about: str, plot: Callable[..., str], *given: Any) -> None:
        # These texts go into attributes and the SVG's title, which cannot contain elements.
        heading = plain(title)
        to.append(plots.Plot(heading, Markup(plot(f"{kind}-{len(to)}", f"{heading}: {about}", *given))))

    for task, row in findings.cells.items():
        about = f"accuracy against mean tokens and latent passes of {len(row)} systems; the figures are in the table"
        numbers = [number[system] for system in row]
        draw(found.tokens, "tokens", title[task], about, plots.accuracy_by_tokens, list(row.values()), numbers)
    losses = {"cross_entropy": "cross-entropy (nats per token)", "distillation": f"mean {shared_distance(findings)}"}
    for loss, label in losses.items():
        for task, curves in findings.curves.items():
            if any(steps and loss in steps[0] for steps in curves.values()):
                heading = f"{title[task]}: {loss.replace('_', '-')}"
                draw(found.losses, "loss", heading, "by optimiser step", plots.losses, curves, number, loss, label)
    for task, curves in findings.curves.items():
        for system, steps in curves.items():
            if steps and "distance" in steps[0]:
                distance = called(findings.systems[system].distance or findings.distance)
                about = f"{distance} to the teacher by optimiser step, a line for each latent step"
                heading = f"{title[task]}: {findings.systems[system].name}"
                draw(found.distances, "distance", heading, about, plots.distances, steps, distance)
    for task, conditions in findings.conditions.items():
        about = "accuracy by number of latent steps taken; the figures are in the tables below"
        control = findings.cells[task].get(findings.control) if findings.control else None
        draw(found.sweeps, "sweep", title[task], about, plots.sweep, conditions, number, steps_taken(findings), control)
    return found
