"""The page of an audit: one HTML file that opens without a network, in the look of the pipeline's report.

Model text is hostile, so everything that the template prints goes through `display.visible` and autoescape, and the page's
policy (CSP) forbids everything but its styles; there is no script. Times are not on it, so equal answers give equal bytes.
"""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from qthink_core.artifacts.conditions import TRAINED
from qthink_core.evidence import verdicts
from qthink_core.evidence.findings import Conditions
from qthink_core.inference.evaluation.evaluate import MODEL
from qthink_core.inference.evaluation.findings import BASE, BASE_DIRECT, CONTROL, Audit
from qthink_core.inference.evaluation.verdict_file import VERDICTS, Key
from qthink_core.report import display, plots
from qthink_core.report import page as report_page

TEMPLATES = Path(__file__).with_name("templates")
MAX_QUESTIONS = 20  # as many as the report shows of a benchmark
OTHERS = {
    CONTROL: "control: the same targets, without latents",
    BASE: "base model, with thinking",
    BASE_DIRECT: "base model, without thinking",
}
# The conditions of a question's answers; the numbers of latent steps have the plot.
SHOWN = (TRAINED, verdicts.NONE, *verdicts.SUBSTITUTES)


def page(audit: Audit) -> bytes:
    """The page as UTF-8: a pure function of the findings and of the templates."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=display.visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {one.__name__: one for one in report_page.FILTERS}
    css = (report_page.TEMPLATES / "page.css").read_text(encoding="utf-8")
    answers = {line.key: line for line in audit.lines}
    systems = [(MODEL, condition) for condition in SHOWN] + [(name, TRAINED) for name in audit.others]
    text = environment.get_template("audit.html.j2").render(
        a=audit,
        css=Markup(css),
        benchmark=report_page.BENCHMARKS[audit.task],
        headline=audit.verdict.sentence.partition(":")[0],
        rows={row.against: row for row in audit.verdict.rows},
        names={**{name: report_page.CONDITIONS[name] for name in SHOWN}, **OTHERS},
        shown=SHOWN,
        control=verdicts.ANSWER_ONLY,
        others=OTHERS,
        plot=_sweep(audit),
        glyphs=report_page.GLYPHS,
        questions=[
            (name, [(key, answers[Key(*key, name)]) for key in systems]) for name in sorted(audit.golds)[:MAX_QUESTIONS]
        ],
        verdict_file=VERDICTS,
        max_shown=display.MAX_SHOWN_CHARS,
    )
    return text.encode()


def _sweep(audit: Audit) -> Markup | None:
    """Accuracy by number of latent steps, if there was a sweep."""
    if len(audit.swept) <= 2:  # none, and the trained number
        return None
    cells = Conditions({f"K={steps}": cell for steps, cell in audit.swept.items()}, audit.verdict.word, "")
    about = "accuracy by number of latent steps taken; the figures are in the table"
    return Markup(plots.sweep("sweep", about, {MODEL: cells}, {MODEL: 4}, [audit.K], audit.others.get(CONTROL)))
