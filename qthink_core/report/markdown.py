"""The report as Markdown: headline, table, verdicts on the latents, claims, differences; then all of it in detail."""

from collections.abc import Mapping, Sequence

from qthink_core.evidence import claims
from qthink_core.evidence.fairness import footnotes
from qthink_core.evidence.findings import Cell, Claim, Findings
from qthink_core.evidence.significance import ALPHA
from qthink_core.pipeline.seconds import Measured
from qthink_core.report import overview
from qthink_core.report.overview import claim_lines, matrix
from qthink_core.report.sentences import SECONDS, TEST_SETS, power, scope, summary

NOT_PUBLISHED = "not published"
DETAIL = "## In detail\n"


def markdown(findings: Findings) -> str:
    """The whole report: first what most readers look for, then the details, folded where Markdown is rendered."""
    first = [
        f"{summary(findings)}\n",
        table(findings),
        _section("Other test sets", test_sets_tables(findings)),
        _section("Do the latents do anything?", verdicts_table(findings)),
        _section("The claims of the model card", claims_table(findings)),
        _section("What differs", differences(findings)),
        _line(power(findings)),
        _made_with(findings),
    ]
    details = [
        _folded("The verdicts on the latents", conditions_table(findings)),
        _folded("The claims on every benchmark", every_claim(findings)),
        _folded("Further scores", further_scores(findings)),
    ]
    return "\n".join(part for part in [*first, DETAIL * any(details), *details] if part)


def short(text: str) -> str:
    """The part of the report before the details, for a terminal."""
    return text.partition(f"\n{DETAIL}")[0]


def table(findings: Findings) -> str:
    """A row per system and a column per benchmark, with marks on settings that the rows do not share (decision 18)."""
    tasks = list(findings.cells)
    signs, notes = footnotes({name: system.marks for name, system in findings.systems.items()})
    head = ["system", *(f"{task} (n={next(iter(row.values())).n})" for task, row in findings.cells.items())]
    rows = [
        [system.name + signs.get(name, ""), *(_show(findings.cells[task][name]) for task in tasks)]
        for name, system in findings.systems.items()
    ]
    spread = " (standard deviation over training seeds)" if _several_seeds(findings) else ""
    latent = any(cell.latents for row in findings.cells.values() for cell in row.values())
    passes = " + latent passes, each of which costs as much as a token" if latent else ""
    explained = (
        f"Accuracy in per cent ± standard error [95 % interval]{spread}; mean tokens{passes}; share of answers at the limit."
    )
    return "\n".join([_table(head, rows), *notes, *([""] if notes else []), f"{explained} {SECONDS}", ""])


def test_sets_tables(findings: Findings) -> str:
    """A table for each task with further test sets: a row per system, a column per set."""
    parts = []
    for task, sets in findings.test_sets.items():
        head = [f"{task}, other test sets", *(f"{name} (n={next(iter(row.values())).n})" for name, row in sets.items())]
        rows = [[system.name, *(_accuracy(row[name]) for row in sets.values())] for name, system in findings.systems.items()]
        parts.append(_table(head, rows))
    return "\n".join([*parts, f"{TEST_SETS}\n"]) if parts else ""


def _accuracy(one: Cell) -> str:
    accuracy = f"{100 * one.accuracy:.1f} ± {100 * one.standard_error:.1f} [{100 * one.low:.1f}, {100 * one.high:.1f}]"
    return accuracy + ("" if one.spread is None else f" ({100 * one.spread:.1f})")


def _show(one: Cell) -> str:
    latents = f" + {one.latents} latent" if one.latents else ""
    return f"{_accuracy(one)}; {one.mean_tokens:.0f} tokens{latents}; {100 * one.hit_limit:.1f} %"


def _several_seeds(findings: Findings) -> bool:
    return any(cell.seeds > 1 for row in findings.cells.values() for cell in row.values())


def verdicts_table(findings: Findings) -> str:
    """The verdict on the latents of each system on each benchmark, in a word."""
    found = findings.conditions
    latent = [name for name in findings.systems if any(name in systems for systems in found.values())]
    rows = [
        [findings.systems[name].name, *(systems[name].word if name in systems else "" for systems in found.values())]
        for name in latent
    ]
    return _table(["verdict on the latents", *found], rows) if rows else ""


def claims_table(findings: Findings) -> str:
    """A line per claim and a column per benchmark: the verdict and our difference; decided claims first."""
    tasks = list(dict.fromkeys(row.benchmark for row in findings.claims))
    rows = []
    for line in claim_lines(findings.claims):
        by_task = {row.benchmark: row for row in line.rows}
        rows.append([line.words, *(_verdict(by_task[task]) if task in by_task else "" for task in tasks)])
    few = claims.on_seeds(row.seeds for row in findings.claims)
    explained = f"Verdict and our difference, in points unless a unit is named. {few}".strip()
    return f"{_table(['claim', *tasks], rows)}\n{explained}\n" if rows else ""


def _verdict(row: Claim) -> str:
    unit = "" if row.unit == claims.POINTS else f" {row.unit}"
    return f"{row.verdict}, " + ("not run" if row.ours is None else f"{_amount(row, row.ours)}{unit}")


def _amount(row: Claim, value: float) -> str:
    return f"{100 * value:+.1f}" if row.unit == claims.POINTS else f"{value:+.1f}"


def differences(findings: Findings) -> str:
    """A matrix for each benchmark: the accuracy of the row's system minus that of the column's, if distinguishable."""
    if not findings.comparisons:
        return ""
    tests = "exact paired tests"
    if _several_seeds(findings):
        tests += "; for several seeds, a test that counts the trainings"
    about = scope(findings.comparisons)
    parts = [
        f"Accuracy of the row less that of the column, in points, on the same questions. A dot: not distinguishable from "
        f"zero ({tests}; Holm's correction over all {len(findings.comparisons)} pairs, {ALPHA})."
        + f" This is about {about}." * bool(about)
        + "\n"
    ]
    for task in findings.cells:
        systems, found = matrix(findings, task)
        rows = []
        for row in systems:
            cells = [found.get((row, column)) for column in systems]
            shown = ["" if one is None else f"{100 * one.difference:+.1f}" if one.distinguishable else "·" for one in cells]
            rows.append([f"{findings.systems[row].name} ({row})", *shown])
        parts.append(_table([task, *systems], rows) if rows else "")
    return "\n".join(part for part in parts if part)


def _made_with(findings: Findings) -> str:
    return "Made with " + ", ".join(f"{name} {value}" for name, value in findings.made_with.items()) + ".\n"


def conditions_table(findings: Findings) -> str:
    """The sentence of each verdict, and the accuracy under each condition next to both controls."""
    parts, wanted = [], {"control": findings.control, "not thinking": findings.direct}
    controls = {title: name for title, name in wanted.items() if name is not None}
    for task, systems in findings.conditions.items():
        names = overview.conditions(systems)
        rows = [
            [
                findings.systems[name].name,
                *(f"{100 * one.cells[key].accuracy:.1f}" if key in one.cells else "" for key in names),
                *(f"{100 * findings.cells[task][control].accuracy:.1f}" for control in controls.values()),
            ]
            for name, one in systems.items()
        ]
        parts.append(_table([f"{task}, latents replaced", *names, *controls], rows))
        parts += [f"- {findings.systems[name].name}: **{one.word}**. {one.sentence}" for name, one in systems.items()]
        parts.append("")
    return "\n".join(parts)


def every_claim(findings: Findings) -> str:
    """The model card's claims on every benchmark: published differences and ours (points or tokens), verdicts and notes."""
    rows = []
    for row in [row for line in claim_lines(findings.claims) for row in line.rows]:
        published, ours, low, high = (
            "" if one is None else _amount(row, one) for one in (row.published, row.ours, row.low, row.high)
        )
        interval = f"{ours} [{low}, {high}]" if ours else "not run"
        rows.append(
            [row.words, row.benchmark, row.unit, published or NOT_PUBLISHED, interval, str(row.seeds), row.verdict, row.note]
        )
    head = ["claim", "benchmark", "unit", "published", "ours [95 %]", "seeds", "verdict", "note"]
    return _table(head, rows) if rows else ""


def further_scores(findings: Findings) -> str:
    """A small table for each benchmark with several scorers (Tooluse), in per cent of all questions."""
    parts = []
    for task, systems in findings.further.items():
        keys = list(next(iter(systems.values())))
        rows = [
            [system.name, *(f"{100 * systems[name][key]:.1f}" for key in keys)] for name, system in findings.systems.items()
        ]
        parts.append(_table([f"{task}, all scorers", *(key.replace("_", " ") for key in keys)], rows))
    return "\n".join(parts)


def seconds_table(findings: Findings, measured: Mapping[tuple[str, str], Measured]) -> str:
    """Seconds per answer next to tokens and latent passes; none for a system whose answers were not generated here."""
    tasks = list(findings.cells)
    rows = [
        [system.name, *(_took(findings.cells[task][name], measured.get((task, name))) for task in tasks)]
        for name, system in findings.systems.items()
    ]
    devices = ", ".join(dict.fromkeys(one.device for one in measured.values()))
    about = f"Measured on {devices}, without the time to load the model; the answers of a batch share its time."
    nothing = "No answer was generated here: all of them came from DVC's cache."
    return f"{_table(['seconds per answer', *tasks], rows)}\n{about if measured else nothing}\n"


def _took(cell: Cell, measured: Measured | None) -> str:
    passes = f"{cell.mean_tokens:.0f} tokens" + f" + {cell.latents} latent" * bool(cell.latents)
    return f"{'not measured here' if measured is None else f'{measured.each:.3g}'} ({passes})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text}" if text else ""


def _folded(title: str, text: str) -> str:
    return f"<details>\n<summary>{title}</summary>\n\n{text}\n</details>\n" if text else ""


def _line(text: str) -> str:
    return f"{text}\n" if text else ""
