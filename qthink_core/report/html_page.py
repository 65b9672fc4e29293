"""The report page: everything that a run found, as one HTML file that opens without network, in dark and in light.

Model text is hostile. Whatever the template prints goes through `visible` and autoescape, not only what is known to
come from a model; the page's own policy (CSP) then forbids everything but its styles and its one script, which is allowed by
hash. The page reads whole without that script: it only filters the questions.
"""

import base64
import hashlib
import re
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from qthink_core.artifacts.completions import TRAINED
from qthink_core.evidence import claims, published
from qthink_core.evidence.findings import Comparison, Findings
from qthink_core.report import plots, words
from qthink_core.report.words import ALPHA, distinguishable, few

PAGE = Path(__file__).with_name("page_files")
BENCHMARKS = {"gsm8k": "GSM8K", "math500": "MATH-500", "tooluse": "Tooluse"}
CONDITIONS = {
    TRAINED: "as trained",
    "K=0": "no latent steps",
    "zeros": "zeros",
    "noise": "noise of the same scale",
    "other": "another question's",
    "mean": "mean latent",
    "teacher": "teacher states",
}
DISTANCES = {"l1": "L1 distance", "l2": "squared L2 distance", "cosine": "cosine distance"}
GLYPHS = {"right": "✓", "wrong": "✗", "unparsable": "?", "over_limit": "…", "timeout": "◷"}
# Of one text; the files under artifacts/ have it whole. Sixty questions of runaway answers would weigh ten megabytes.
MAX_SHOWN_CHARS = 4000
ASIDE = Markup('<span class="hidden-char">{}</span>')
# Drawn as nothing although Unicode calls them printable: fillers, joiners and variation selectors.
BLANKS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | {chr(code) for code in range(0xFE00, 0xFE10)}


def page(findings: Findings) -> bytes:
    """The page as UTF-8: a pure function of the findings and of the files in `page/`."""
    environment = Environment(
        loader=FileSystemLoader(PAGE),
        autoescape=True,
        finalize=visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {one.__name__: one for one in (per_cent, points, tokens, p_value, token, plain)}
    css, script = ((PAGE / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    systems, tasks = list(findings.systems), list(findings.cells)
    latent = [system for system in systems if findings.systems[system].latent]
    notes = list(dict.fromkeys(mark for system in findings.systems.values() for mark in system.marks))
    text = environment.get_template("report.html.j2").render(
        f=findings,
        css=Markup(css),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        tasks=tasks,
        names={task: BENCHMARKS.get(task, task) for task in tasks},
        number={system: number for number, system in enumerate(systems)},
        notes=notes,
        marks={system: [notes.index(mark) + 1 for mark in findings.systems[system].marks] for system in systems},
        latent=latent,
        steps=", ".join(map(str, steps_taken(findings))),
        controls=[name for name in (findings.control, findings.direct) if name is not None],
        summary=words.summary(findings),
        scope=words.scope(findings.comparisons),
        power=words.power(findings),
        few=few,
        seconds=words.SECONDS,
        best={task: best(findings, task) for task in tasks},
        relations={task: relations(findings, task) for task in tasks},
        widest={task: max([0.05, *(max(abs(row.low), abs(row.high)) for row in of_task(findings, task))]) for task in tasks},
        comparisons={task: of_task(findings, task) for task in tasks},
        published=published,
        on_seeds=claims.on_seeds(row.seeds for row in findings.claims),
        panels=panels(findings),
        swept={
            task: {system: plots.swept(one) for system, one in found.items()} for task, found in findings.conditions.items()
        },
        replaced=replaced(findings),
        condition_names=CONDITIONS,
        glyphs=GLYPHS,
        alpha=ALPHA,
        max_shown=MAX_SHOWN_CHARS,
        max_points=plots.MAX_POINTS,
    )
    return text.encode()


def visible(value: Any) -> Any:
    """Text as escaped markup in which every character shows; numbers and finished markup as they are.

    Control and bidirectional characters, zero-width and unusual spaces, unassigned code points and lone surrogates become
    ⟨U+202E⟩ in an element of their own, so that none acts and none hides; line ends and plain spaces stay. Long texts end
    after MAX_SHOWN_CHARS with the count of what is left out.
    """
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    rest, value = len(value) - MAX_SHOWN_CHARS, value[:MAX_SHOWN_CHARS]
    shown = Markup()
    for hidden, run in groupby(value, _hides):
        piece = "".join(run)
        shown += ASIDE.format("".join(map(_name, piece))) if hidden else escape(piece)
    if rest > 0:
        shown += ASIDE.format(f"… {rest:,} more characters")
    return shown


def _hides(one: str) -> bool:
    return one != "\n" and (not one.isprintable() or one in BLANKS)


def _name(one: str) -> str:
    return f"⟨U+{ord(one):04X}⟩"


def plain(text: str) -> str:
    """The text as `visible` shows it, without markup: for attributes and other places that hold no elements."""
    return "".join(_name(one) if _hides(one) else one for one in text)


def token(text: str) -> Markup:
    """A single token with its spaces and line ends shown."""
    return Markup(visible(text.replace(" ", "␣").replace("\n", "↵")))


def per_cent(share: float) -> str:
    """A share as 95.5."""
    return f"{100 * share:.1f}"


def points(difference: float) -> str:
    """A difference of shares in percentage points as +2.5 or −2.5."""
    return f"{100 * difference:+.1f}".replace("-", "−")


def tokens(number: float) -> str:
    """A mean number of tokens as 1,025, or with a decimal below 100."""
    return f"{number:,.1f}" if abs(number) < 100 else f"{number:,.0f}"


def p_value(p: float) -> str:
    """A p-value to three decimals."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def of_task(findings: Findings, task: str) -> list[Comparison]:
    """The comparisons on one benchmark."""
    return [row for row in findings.comparisons if row.task == task]


class Relations(NamedTuple):
    """Which systems one was compared with, by outcome: names of those it is above, below, and not distinguishable from."""

    system: str
    above: list[str]
    below: list[str]
    alike: list[str]


def relations(findings: Findings, task: str) -> list[Relations]:
    """The outcome of every comparison on a benchmark, grouped by its left system."""
    names = {system: one.name for system, one in findings.systems.items()}
    found: dict[str, Relations] = {}
    for row in of_task(findings, task):
        group = found.setdefault(row.left, Relations(names[row.left], [], [], []))
        side = group.alike if not distinguishable(row) else group.above if row.difference > 0 else group.below
        side.append(names[row.right])
    return list(found.values())


def best(findings: Findings, task: str) -> str | None:
    """The system that is distinguishably above every other one on the benchmark, if there is one."""
    won: dict[str, set[str]] = {}
    for row in filter(distinguishable, of_task(findings, task)):
        winner, loser = (row.left, row.right) if row.difference > 0 else (row.right, row.left)
        won.setdefault(winner, set()).add(loser)
    others = set(findings.cells[task])
    return next((system for system, losers in won.items() if losers == others - {system}), None)


def replaced(findings: Findings) -> dict[str, list[str]]:
    """The conditions of a benchmark, in order, that are not a number of latent steps above 0: those have a plot."""
    found = {}
    for task, systems in findings.conditions.items():
        names = dict.fromkeys(name for one in systems.values() for name in one.cells)
        found[task] = [name for name in names if not re.fullmatch(r"K=[1-9]\d*", name)]
    return found


def shared_distance(findings: Findings) -> str:
    """What the distances of all latent rows are called together."""
    held = {one.distance or findings.distance for one in findings.systems.values() if one.latent} or {findings.distance}
    return called(held.pop()) if len(held) == 1 else "distance"


def called(distance: str) -> str:
    """What a distance of the loss is called."""
    return DISTANCES.get(distance, f"{distance} distance")


def steps_taken(findings: Findings) -> list[int]:
    """The numbers of latent steps that rows were trained with, each once."""
    return sorted({one.K or findings.K for one in findings.systems.values() if one.latent} or {findings.K})


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
        # These are texts of attributes and of the SVG's own title, which hold no elements.
        heading = plain(title)
        to.append(plots.Plot(heading, Markup(plot(f"{kind}-{len(to)}", f"{heading}: {about}", *given))))

    for task, row in findings.cells.items():
        about = f"accuracy against mean tokens and latent passes of {len(row)} systems; the figures are in the table"
        numbers = [number[system] for system in row]
        draw(found.tokens, "tokens", title[task], about, plots.accuracy_by_tokens, list(row.values()), numbers)
    losses = {"cross_entropy": "cross-entropy (nats a token)", "distillation": f"mean {shared_distance(findings)}"}
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
