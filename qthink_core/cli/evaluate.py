"""`qthink evaluate` and `qthink audit`: any checkpoint on a benchmark."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from qthink_core.benchmarks.graders import latex_equality
from qthink_core.cli.models import Device, Dtype, Latents, MaxNewTokens, Model, Revision, Thinking
from qthink_core.cli.program import MODEL, app, complain, one_line

if TYPE_CHECKING:
    from qthink_core.inference.evaluation.contestants import How

Benchmark = Annotated[
    Literal["gsm8k", "math500", "tooluse"], typer.Option(help="The benchmark, with its prompts and rules of grading.")
]
Data = Annotated[
    Path | None,
    typer.Option(
        help="A folder of published files, the prepared problems of a run (artifacts/problems/gsm8k), or a file of rows as "
        "the benchmark publishes them; by default the hub.",
    ),
]
Column = Annotated[
    list[str] | None,
    typer.Option(
        help="FIELD=NAME: the column of a file for a field of the benchmark, or several, as in question=Body,Question."
    ),
]
Limit = Annotated[int | None, typer.Option(help="Ask only so many questions, chosen by a hash of their ids.")]
Batch = Annotated[int, typer.Option(help="Questions that are answered together.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text.")]


@app.command(rich_help_panel=MODEL)
def evaluate(
    model: Model,
    benchmark: Benchmark,
    data: Data = None,
    column: Column = None,
    limit: Limit = None,
    engine: Annotated[str, typer.Option(help="hf (transformers) or vllm.")] = "hf",
    latents: Latents = None,
    thinking: Thinking = None,
    max_new_tokens: MaxNewTokens = None,
    batch: Batch = 32,
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder of the verdict file; by default evaluations/BENCHMARK-MODEL.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measures a checkpoint on a benchmark: accuracy with its 95 % interval, tokens, and seconds per answer.

    ```
    qthink evaluate models/gsm8k/uniform --benchmark gsm8k --data artifacts/problems/gsm8k
    qthink evaluate LakshyAAAgrawal/QThink-Qwen3-1.7B-GSM8k --latents 6 --benchmark gsm8k
    qthink evaluate Qwen/Qwen3-1.7B --benchmark gsm8k --limit 100   # a model that thinks
    ```

    Answers are greedy. The folder gets **verdicts.jsonl**, a line for each answer with verdict, extracted text, gold, whole
    answer, tokens, and how it ended (`stop`, or `length` at the limit). It is written batch by batch: the same command
    continues a run that was stopped. A folder of another run is refused.
    """
    with one_line(continues=True):
        from qthink_core.inference.evaluation import questions
        from qthink_core.inference.evaluation.evaluate import evaluate

        how = _how(max_new_tokens, batch, device, dtype, engine)
        _check(how, latents, limit, (data, out))
        asked = questions.read(benchmark, data, limit, column or ())
        folder = out or _named("evaluations", benchmark, model)
        done = evaluate(model, asked, how, folder, K=latents, thinking=thinking, revision=revision, say=_say)
        print(json.dumps(done.as_json(), indent=1) if as_json else done.text())
        latex_equality.close()


@app.command(rich_help_panel=MODEL)
def audit(
    model: Model,
    benchmark: Benchmark,
    data: Data = None,
    column: Column = None,
    limit: Limit = None,
    latents: Latents = None,
    base: Annotated[str | None, typer.Option(help="The base model: it also answers with and without thinking.")] = None,
    control: Annotated[
        str | None, typer.Option(help="A checkpoint trained on the same targets without latents, for the whole verdict.")
    ] = None,
    sweep: Annotated[int, typer.Option(help="Also answer with 1 .. SWEEP times K latent steps; 0: only with K.")] = 1,
    max_new_tokens: MaxNewTokens = None,
    batch: Batch = 32,
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder of verdict file and page; by default audits/BENCHMARK-MODEL.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Do the latents of a checkpoint do anything? Answers with them left out, replaced and swept, and ends in a verdict.

    ```
    qthink audit models/gsm8k/uniform --benchmark gsm8k --data artifacts/problems/gsm8k --control models/gsm8k/answer_only
    qthink audit LakshyAAAgrawal/QThink-Qwen3-1.7B-GSM8k --latents 6 --benchmark gsm8k --base Qwen/Qwen3-1.7B
    ```

    The same weights answer the same questions **as trained**, with no latents (**K=0**), with **zeros**, **noise** of the
    same scale, those of **other** questions or their **mean** in place of the latents, and with other numbers of steps. The
    verdict follows from exact paired tests by a rule that was written before any results. What it costs is said before it
    starts. Without `--control`, only what the latents contain is judged, not whether they are worth it.

    The folder gets **verdicts.jsonl** (a line for each answer; the verdict follows from it alone), **audit.json** and the
    page **audit.html**. The same command continues an audit that was stopped. A folder of another run is refused.
    """
    with one_line(continues=True):
        from qthink_core.inference.evaluation import audit as auditing
        from qthink_core.inference.evaluation import questions

        how = _how(max_new_tokens, batch, device, dtype)
        _check(how, latents, limit, (data, out))
        auditing.check_sweep(sweep)
        asked = questions.read(benchmark, data, limit, column or ())
        folder = out or _named("audits", benchmark, model)
        others = auditing.Others(control, base)
        done = auditing.audit(model, asked, how, folder, K=latents, sweep=sweep, others=others, revision=revision, say=_say)
        print(json.dumps(done.as_json(), indent=1) if as_json else f"{done.text()}\n\npage: {folder / auditing.PAGE}")
        latex_equality.close()


def _how(max_new_tokens: int | None, batch: int, device: str, dtype: str, engine: str = "hf") -> "How":
    import torch
    import transformers

    from qthink_core.inference.evaluation.contestants import How

    transformers.utils.logging.set_verbosity_error()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return How(max_new_tokens, batch, device, dtype, engine)


def _check(how: "How", latents: int | None, limit: int | None, paths: Sequence[Path | None]) -> None:
    """Raises ParamError for a wrong option before data and model are read, which may take minutes."""
    from qthink_core.inference import checkpoint
    from qthink_core.inference.evaluation import questions
    from qthink_core.inference.question import check_unicode

    how.check()
    for path in paths:  # they become part of the results, which are UTF-8
        check_unicode(str(path), "the name of a folder or file")
    checkpoint.check_steps(latents)
    questions.check_limit(limit)


def _named(kind: str, benchmark: str, model: str) -> Path:
    return Path(kind) / f"{benchmark}-{Path(model).resolve().name if Path(model).exists() else Path(model).name}"


def _say(message: str) -> None:
    for line in message.split("\n"):
        complain(line)
