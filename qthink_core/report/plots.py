"""The report's plots as SVG inside the page: in the page's colours, with real text, and the same bytes every time.

Colours are the page's CSS variables, so that a plot follows the theme: a figure is drawn in placeholder colours, which are
then replaced. Nothing is placed by the measured width of a text, which would depend on the fonts of the machine.
"""

import re
from collections.abc import Mapping, Sequence
from html import escape
from io import StringIO
from typing import Any, NamedTuple

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter, ScalarFormatter

from qthink_core.evidence.findings import Cell, Conditions

# Placeholder colours and their replacements. Series also differ in marker and dashes, for readers who cannot see colours.
INK, FAINT = "#010101", "#020202"
SERIES = [f"#0300{number:02x}" for number in range(8)]
STEPS = [f"#0400{number:02x}" for number in range(12)]
KEYS = ("line", "marker")
MARKERS = ["o", "s", "^", "v", "D", "P", "X", "p"]
DASHES: list[Any] = ["-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), "-", (0, (3, 1)), (0, (1, 2)), (0, (6, 2))]
VARIABLES = (
    {INK: "var(--ink)", FAINT: "var(--line)"}
    | {colour: f"var(--s{number})" for number, colour in enumerate(SERIES)}
    | {colour: f"var(--k{number})" for number, colour in enumerate(STEPS)}
)
# Longer trainings are shown as means of equally many neighbouring steps, because a plot has no more pixels.
MAX_POINTS = 150
LOOK: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "qthink",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "ytick.major.size": 0,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "lines.linewidth": 1.6,
}


class Plot(NamedTuple):
    """A panel: its heading, and its SVG element."""

    title: str
    svg: str


def accuracy_by_tokens(name: str, about: str, cells: Sequence[Cell], numbers: Sequence[int]) -> str:
    """Accuracy (per cent, 95 % interval) against mean tokens and latent passes, a point per cell; `numbers` are series."""
    with style.context(["default", LOOK]):
        figure, axes = _panel("mean generated tokens + latent passes", "accuracy (%)")
        xs = spread_out([cell.mean_tokens + cell.latents for cell in cells])
        for x, cell, number in zip(xs, cells, numbers, strict=True):
            _interval(axes, x, cell, number, 5.5)
        axes.set_xlim(0, 1.06 * max(*xs, 1.0))
        _in_per_cent(axes, 102)
        return _svg(figure, name, about)


def accuracy_panels(name: str, about: str, cells: Mapping[str, Mapping[str, Cell]], names: Mapping[str, str]) -> str:
    """Accuracy against mean tokens and latent passes, a panel for each benchmark side by side, with one legend below."""
    with style.context(["default", LOOK]):
        figure = Figure(figsize=(11.6, 4.4), dpi=72)
        for place, (benchmark, row) in enumerate(cells.items()):
            axes = figure.add_axes((0.055 + 0.95 * place / len(cells), 0.33, 0.95 / len(cells) - 0.045, 0.58))
            axes.set_title(benchmark, fontsize=11)
            axes.set_xlabel("mean generated tokens + latent passes")
            if place == 0:
                axes.set_ylabel("accuracy (%)")
            xs = spread_out([cell.mean_tokens + cell.latents for cell in row.values()])
            for x, (system, cell) in zip(xs, row.items(), strict=True):
                _interval(axes, x, cell, [*names].index(system), 6.5)
            axes.set_xlim(0, 1.06 * max(*xs, 1.0))
            _in_per_cent(axes, 103)
        legend = figure.add_axes((0, 0, 1, 0.17))
        legend.set_axis_off()
        legend.set(xlim=(0, 4), ylim=(-(-len(names) // 4), 0))
        for number, system in enumerate(names.values()):
            column, row_ = number % 4, number // 4 + 0.5
            legend.plot([column + 0.08], [row_], color=SERIES[number % 8], marker=MARKERS[number % 8], markersize=6.5)
            legend.text(column + 0.13, row_, system, va="center_baseline", fontsize=9)
        return _svg(figure, name, about)


def spread_out(values: Sequence[float]) -> list[float]:
    """The values in their order; those closer than 2.2 % of the largest are moved apart, so that no point hides another.

    Moved values are spread around the mean of their group.
    """
    gap = 0.022 * max(*values, 1.0)
    order = sorted(range(len(values)), key=lambda index: values[index])
    groups: list[list[int]] = []
    for index in order:
        near = bool(groups) and values[index] - values[groups[-1][-1]] < gap
        groups = [*groups[:-1], [*groups[-1], index]] if near else [*groups, [index]]
    moved = list(values)
    for group in groups:
        middle = sum(values[index] for index in group) / len(group)
        for place, index in enumerate(sorted(group)):
            moved[index] = middle + gap * (place - (len(group) - 1) / 2)
    return moved


def losses(
    name: str,
    about: str,
    systems: Mapping[str, Sequence[Mapping[str, Any]]],
    numbers: Mapping[str, int],
    key: str,
    label: str,
) -> str:
    """One loss of every system that has it, against the optimiser step."""
    with style.context(["default", LOOK]):
        figure, axes = _panel("optimiser step", label)
        for system, steps in systems.items():
            if steps and key in steps[0]:
                xs, ys = thinned([step["step"] for step in steps]), thinned([step[key] for step in steps])
                number = numbers[system]
                axes.plot(xs, ys, color=SERIES[number % 8], linestyle=DASHES[number % 8])
        _from_zero(axes)
        return _svg(figure, name, about)


def distances(name: str, about: str, steps: Sequence[Mapping[str, Any]], distance: str) -> str:
    """The distance to the teacher at each latent step, against the optimiser step; the first step is lightest."""
    with style.context(["default", LOOK]):
        figure, axes = _panel("optimiser step", f"mean {distance}")
        xs = thinned([step["step"] for step in steps])
        K = len(steps[0]["distance"])
        for k in range(K):
            axes.plot(xs, thinned([step["distance"][k] for step in steps]), color=STEPS[shade(k, K)])
        _from_zero(axes)
        return _svg(figure, name, about)


def shade(k: int, K: int) -> int:
    """The shade of latent step k + 1 of K, as an index into STEPS; the last step always has the strongest."""
    return len(STEPS) - 1 if K == 1 else round(k * (len(STEPS) - 1) / (K - 1))


def sweep(
    name: str,
    about: str,
    systems: Mapping[str, Conditions],
    numbers: Mapping[str, int],
    trained: Sequence[int],
    control: Cell | None,
) -> str:
    """Accuracy (per cent, 95 % interval) against the number of latent steps taken; a band for the control without any."""
    with style.context(["default", LOOK]):
        figure, axes = _panel("latent steps taken", "accuracy (%)")
        if control is not None:
            axes.axhspan(100 * control.low, 100 * control.high, color=FAINT, alpha=0.45, linewidth=0)
            axes.axhline(100 * control.accuracy, color=INK, linewidth=1, linestyle=(0, (4, 2)))
        for place, (system, conditions) in enumerate(systems.items()):
            number = numbers[system]
            points = {k + 0.14 * (place - (len(systems) - 1) / 2): cell for k, cell in swept(conditions).items()}
            ys = [100 * cell.accuracy for cell in points.values()]
            axes.plot([*points], ys, color=SERIES[number % 8], linestyle=DASHES[number % 8], linewidth=1.2)
            for x, cell in points.items():
                _interval(axes, x, cell, number, 4)
        for K in trained:
            axes.axvline(K, color=FAINT, linewidth=1, zorder=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        shown = [cell for one in systems.values() for cell in swept(one).values()] + ([control] if control else [])
        _in_per_cent(axes, min(102, max(10, *(115 * cell.high for cell in shown))))
        return _svg(figure, name, about)


def swept(conditions: Conditions) -> dict[int, Cell]:
    """The cell at each number of latent steps, in order."""
    found = {int(name[2:]): cell for name, cell in conditions.cells.items() if re.fullmatch(r"K=\d+", name)}
    return dict(sorted(found.items()))


def thinned(values: Sequence[float]) -> list[float]:
    """The means of equally many neighbouring values, with the smallest blocks that leave at most MAX_POINTS."""
    size = -(-len(values) // MAX_POINTS)
    blocks = [values[start : start + size] for start in range(0, len(values), max(size, 1))]
    return [sum(block) / len(block) for block in blocks]


def key(number: int, kind: str) -> str:
    """A symbol for legends, `key-<kind>-<number>`: the series' line in its dashes, or its marker on a line."""
    with style.context(["default", LOOK]):
        figure = Figure(figsize=(0.36, 0.16), dpi=72)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        line, shape = ("-", MARKERS[number % 8]) if kind == "marker" else (DASHES[number % 8], "")
        axes.plot([0, 1, 2], [0, 0, 0], color=SERIES[number % 8], linestyle=line, marker=shape, markersize=6, markevery=[1])
        drawn = _svg(figure, f"key-{kind}-{number}", "")
        return drawn.replace("<svg", f'<symbol id="key-{kind}-{number}"').replace("</svg>", "</symbol>")


def _panel(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(3.9, 2.9), dpi=72)
    axes = figure.add_axes((0.15, 0.17, 0.83, 0.80))
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.tick_params(axis="y", pad=3)
    return figure, axes


def _interval(axes: Axes, x: float, cell: Cell, number: int, size: float) -> None:
    colour, marker = SERIES[number % 8], MARKERS[number % 8]
    axes.plot([x, x], [100 * cell.low, 100 * cell.high], color=colour, linewidth=1.4)
    axes.plot([x], [100 * cell.accuracy], color=colour, marker=marker, markersize=size, linestyle="none")


def _in_per_cent(axes: Axes, top: float) -> None:
    axes.set_ylim(0, top)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(PercentFormatter(symbol="", decimals=0))


def _from_zero(axes: Axes) -> None:
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))


def _svg(figure: Figure, name: str, about: str) -> str:
    """The figure as one element whose ids begin with `name`, described by `about`; decorative if that is empty."""
    file = StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->\n?|<metadata>.*?</metadata>\n?|<style[^>]*>.*?</style>\n?", "", text, flags=re.DOTALL)
    # The ids of several figures on one page could clash; groups need none.
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'xlink:href="#', f'href="#{name}-', text).replace("url(#", f"url(#{name}-")
    for placeholder, variable in VARIABLES.items():
        text = text.replace(placeholder, variable)
    text = re.sub(r" font-family: [^;\"]*;", "", text)
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None
    label = f'role="img" aria-labelledby="{name}-about"' if about else 'aria-hidden="true"'
    described = f'<title id="{name}-about">{escape(about)}</title>' if about else ""
    return re.sub(r"<svg[^>]*>", lambda _: f"<svg {box[0]} {label}>{described}", text, count=1).strip()
