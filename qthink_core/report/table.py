"""The report as Markdown: the paper's table and what is to be known of it, the verdicts on the latents, the claims."""

from collections.abc import Sequence

from qthink_core.evidence import claims
from qthink_core.evidence.fairness import footnotes
from qthink_core.evidence.findings import Cell, Findings
from qthink_core.evidence.significance import ALPHA
from qthink_core.report.words import SECONDS, power, scope, summary


def markdown(findings: Findings) -> str:
    """The report as Markdown: the paper's table and what is to be known of it, the latents' verdicts, the claims."""
    parts = [
        f"{summary(findings)}\n",
        table(findings),
        distinguishable(findings),
        _line(power(findings)),
        _made_with(findings),
    ]
    parts += [further_scores(findings), conditions_table(findings), claims_table(findings)]
    return "\n".join(part for part in parts if part)


def table(findings: Findings) -> str:
    """A row per system and a column per benchmark, with the marks of what is not the same in all rows (decision 18)."""
    tasks = list(findings.cells)
    signs, notes = footnotes({name: system.marks for name, system in findings.systems.items()})
    head = ["system", *(f"{task} (n={next(iter(row.values())).n})" for task, row in findings.cells.items())]
    rows = [
        [system.name + signs.get(name, ""), *(_show(findings.cells[task][name]) for task in tasks)]
        for name, system in findings.systems.items()
    ]
    several = any(cell.seeds > 1 for row in findings.cells.values() for cell in row.values())
    spread = " (standard deviation over training seeds)" if several else ""
    latent = any(cell.latents for row in findings.cells.values() for cell in row.values())
    passes = " + latent passes, each of which costs as much as a token" if latent else ""
    explained = (
        f"Accuracy in per cent ± standard error [95 % interval]{spread}; mean tokens{passes}; share of answers at the limit."
    )
    return "\n".join([_table(head, rows), *notes, *([""] if notes else []), f"{explained} {SECONDS}", ""])


def _show(one: Cell) -> str:
    accuracy = f"{100 * one.accuracy:.1f} ± {100 * one.standard_error:.1f} [{100 * one.low:.1f}, {100 * one.high:.1f}]"
    spread = "" if one.spread is None else f" ({100 * one.spread:.1f})"
    latents = f" + {one.latents} latent" if one.latents else ""
    return f"{accuracy}{spread}; {one.mean_tokens:.0f} tokens{latents}; {100 * one.hit_limit:.1f} %"


def distinguishable(findings: Findings) -> str:
    """Which differences are distinguishable from zero after correction for their number, and which are not."""
    if not findings.comparisons:
        return ""
    several = any(cell.seeds > 1 for row in findings.cells.values() for cell in row.values())
    tests = "exact paired tests, of several seeds with a test that counts the trainings" if several else "exact paired tests"
    correction = f"Holm's correction over all {len(findings.comparisons)}, {ALPHA}"
    about = scope(findings.comparisons)
    head = f"Differences on the same questions ({tests}; {correction}) that are distinguishable from zero"
    lines = [head + f", {about}" * bool(about) + ":", ""]
    for task in findings.cells:
        rows = [row for row in findings.comparisons if row.task == task]
        above: dict[str, list[str]] = {}
        level: dict[str, list[str]] = {}
        for row in rows:
            better, worse = (row.left, row.right) if row.difference > 0 else (row.right, row.left)
            if row.adjusted_p < ALPHA:
                above.setdefault(better, []).append(worse)
            else:
                level.setdefault(row.right, []).append(row.left)
        clear = "; ".join(f"{better} > {', '.join(worse)}" for better, worse in above.items()) or "none"
        rest = "; ".join(f"{one} and {', '.join(others)}" for one, others in level.items())
        lines.append(f"- {task}: {clear}." + f" Not distinguishable: {rest}." * bool(level))
    return "\n".join([*lines, ""])


def _line(text: str) -> str:
    return f"{text}\n" if text else ""


def _made_with(findings: Findings) -> str:
    return "Made with " + ", ".join(f"{name} {value}" for name, value in findings.made_with.items()) + ".\n"


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


def conditions_table(findings: Findings) -> str:
    """Do the latents do anything? Accuracy under each condition, both controls beside it, and the verdicts."""
    parts, wanted = [], {"control": findings.control, "not thinking": findings.direct}
    controls = {title: name for title, name in wanted.items() if name is not None}
    for task, systems in findings.conditions.items():
        names = list(next(iter(systems.values())).cells)
        rows = [
            [
                findings.systems[name].name,
                *(f"{100 * one.cells[key].accuracy:.1f}" for key in names),
                *(f"{100 * findings.cells[task][control].accuracy:.1f}" for control in controls.values()),
            ]
            for name, one in systems.items()
        ]
        parts.append(_table([f"{task}, latents replaced", *names, *controls], rows))
        parts += [f"- {findings.systems[name].name}: **{one.word}**. {one.sentence}" for name, one in systems.items()]
        parts.append("")
    return "\n".join(parts)


def claims_table(findings: Findings) -> str:
    """The paper's claims: published and own differences, in per cent points or tokens, and verdicts."""
    rows = []
    for row in findings.claims:
        scale = 100 if row.unit == claims.POINTS else 1
        published, ours, low, high = (
            "" if one is None else f"{scale * one:+.1f}" for one in (row.published, row.ours, row.low, row.high)
        )
        interval = f"{ours} [{low}, {high}]" if ours else ""
        rows.append(
            [row.words, row.benchmark, row.unit, published or "never", interval, str(row.seeds), row.verdict, row.note]
        )
    head = ["claim", "benchmark", "unit", "published", "ours [95 %]", "seeds", "verdict", "note"]
    few = claims.on_seeds(row.seeds for row in findings.claims)
    return _table(head, rows) + (f"\n{few}\n" if few else "") if rows else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
