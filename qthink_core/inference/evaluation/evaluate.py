"""The evaluation of a checkpoint on a benchmark: accuracy, tokens and seconds per answer, and a file of verdicts."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from qthink_core.artifacts.completions import LENGTH
from qthink_core.artifacts.files import canonical_json, write_file
from qthink_core.evidence.findings import Cell
from qthink_core.evidence.statistics import estimate
from qthink_core.inference import checkpoint
from qthink_core.inference.evaluation import contestants
from qthink_core.inference.evaluation.contestants import How, Progress, Say
from qthink_core.inference.evaluation.questions import Questions
from qthink_core.inference.evaluation.verdict_file import VERDICTS, Line, VerdictFile
from qthink_core.inference.shown import count

MODEL = "model"
SUMMARY = "summary.json"


class Evaluation(NamedTuple):
    """The figures of an evaluation; `seconds` is the mean wall-clock time per answer, None if it was not recorded."""

    model: str
    task: str
    source: str
    cell: Cell
    verdicts: dict[str, int]
    details: dict[str, float]
    max_new_tokens: int
    thinking: bool
    seconds: float | None
    batch: int
    folder: Path

    def as_json(self) -> dict[str, Any]:
        """The figures as plain values."""
        cell = self.cell
        return {
            "model": self.model,
            "benchmark": self.task,
            "data": self.source,
            "questions": cell.n,
            "accuracy": cell.accuracy,
            "interval": [cell.low, cell.high],
            "mean_tokens": cell.mean_tokens,
            "latent_steps": cell.latents,
            "thinking": self.thinking,
            "cut_at_limit": cell.hit_limit,
            "max_new_tokens": self.max_new_tokens,
            "seconds_per_answer": self.seconds,
            "batch": self.batch,
            "verdicts": self.verdicts,
            "details": self.details,
            "verdict_file": str(self.folder / VERDICTS),
        }

    def text(self) -> str:
        """The figures in words, a line each."""
        cell = self.cell
        steps = count(cell.latents, "latent step") if cell.latents else "thinking" if self.thinking else "no thinking"
        seconds = "not recorded"
        if self.seconds is not None:
            seconds = f"{self.seconds:.3g} (wall-clock, in batches of {self.batch})"
        rows = {
            "model": f"{self.model} ({steps})",
            "questions": f"{cell.n:,} of {self.task}, from {self.source}",
            "accuracy": f"{100 * cell.accuracy:.1f} % [{100 * cell.low:.1f}, {100 * cell.high:.1f}]",
            "verdicts": ", ".join(f"{count:,} {name}" for name, count in self.verdicts.items()),
            **{name.replace("_", " "): f"{100 * share:.1f} %" for name, share in self.details.items()},
            "mean tokens": f"{cell.mean_tokens:,.1f}" + (f" + {count(cell.latents, 'latent step')}" if cell.latents else ""),
            "cut at the limit": f"{100 * cell.hit_limit:.1f} % (limit of {count(self.max_new_tokens, 'token')})",
            "seconds per answer": seconds,
            "verdict file": str(self.folder / VERDICTS),
        }
        width = max(map(len, rows)) + 2
        return "\n".join(f"{name:{width}}{value}" for name, value in rows.items())


def cell(lines: Sequence[Line], latents: int) -> Cell:
    """The accuracy of answers under one condition, with its interval, mean tokens, and the share cut at the limit."""
    right = np.array([[one.verdict == "right" for one in lines]])
    tokens, cut = [one.tokens for one in lines], [one.finish == LENGTH for one in lines]
    return Cell(*estimate(right), float(np.mean(tokens)), float(np.mean(cut)), latents)


def evaluate(
    model: str,
    asked: Questions,
    how: How,
    out: Path,
    *,
    K: int | None = None,
    thinking: bool | None = None,
    revision: str | None = None,
    say: Say = lambda _: None,
) -> Evaluation:
    """The evaluation of a checkpoint, after writing the verdicts that `out` lacks; `say` gets what a user should know.

    Raises ParamError and DataError for bad input (`checkpoint.find`, `checkpoint.load`, `questions.room`,
    `VerdictFile.opened`), and NumericError when a number in the model is not finite. Finished batches are kept.
    """
    how.check()
    found = checkpoint.find(model, K, thinking, revision)
    one = contestants.contestant(MODEL, found, asked, how)
    plan = contestants.keys(one, how.batch)
    settings = {
        "command": "evaluate",
        "model": model,
        "benchmark": asked.task,
        "questions": asked.about(),
        **{name: value for name, value in vars(how).items() if name != "max_new_tokens"},
        **one.about(),
    }
    with VerdictFile.opened(out, settings, plan) as file:
        kept = f", {len(file.lines):,} of them kept from an earlier run" if file.lines else ""
        say(
            f"{count(len(asked.problems), 'question')} of {asked.task} from {asked.source}{kept}; at most "
            f"{count(one.max_new_tokens, 'new token')} for each; on {how.device}; to {out}"
        )
        show = Progress("evaluate", contestants.counted(plan), len(file.lines))
        try:
            contestants.answer_missing(one, asked, how, file, show)
        finally:
            show.close()
        scored = Counter(line.verdict for line in file.lines)
        names = sorted({name for line in file.lines for name in line.details})
        details = {name: sum(line.details.get(name, False) for line in file.lines) / len(file.lines) for name in names}
        done = Evaluation(
            model,
            asked.task,
            asked.source,
            cell(file.lines, found.K),
            dict(sorted(scored.items())),
            details,
            one.max_new_tokens,
            found.thinking,
            file.seconds(),
            how.batch,
            out,
        )
        write_file(out / SUMMARY, canonical_json(done.as_json()))
    return done
