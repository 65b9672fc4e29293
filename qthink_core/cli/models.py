"""The commands that answer questions with a checkpoint: ask, answer."""

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qthink_core.cli.program import MODEL, app, complain, one_line
from qthink_core.errors import DataError, ParamError

if TYPE_CHECKING:
    from qthink_core.inference.reasoner import LatentReasoner
    from qthink_core.inference.settings import Settings

Model = Annotated[str, typer.Argument(help="A model's folder, or a repository of the hub as owner/name.")]
Latents = Annotated[
    int | None,
    typer.Option(help="Latent steps K, for a checkpoint that does not record them (the published ones: 6); 0 for none."),
]
Thinking = Annotated[
    bool | None,
    typer.Option("--thinking/--no-thinking", help="Ask for a think block; by default if the model has no latent steps."),
]
MaxNewTokens = Annotated[int | None, typer.Option(help="Limit of generated tokens; by default 2,048, or what fits.")]
Temperature = Annotated[float, typer.Option(help="0 takes the most likely token; above 0, tokens are sampled.")]
TopP = Annotated[float, typer.Option(help="Sample from the most likely tokens that make up this probability.")]
TopK = Annotated[int, typer.Option(help="Sample from that many most likely tokens; 0 for all.")]
Seed = Annotated[int, typer.Option(help="Seed for sampling.")]
Stop = Annotated[list[str] | None, typer.Option(help="End the answer before this text; repeatable.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...; `auto` takes a GPU if torch sees one.")]
Dtype = Annotated[str, typer.Option(help="auto (that of the weights), float32, bfloat16 or float16.")]
Revision = Annotated[str | None, typer.Option(help="A branch, tag or commit of the hub's repository.")]


@app.command(rich_help_panel=MODEL)
def ask(
    model: Model,
    question: Annotated[str, typer.Argument(help="The question; `-` reads it from standard input.")],
    latents: Latents = None,
    show_latents: Annotated[
        bool, typer.Option("--show-latents", help="Show what each latent step reads as: its most likely tokens.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the response as JSON at its end.")] = False,
    thinking: Thinking = None,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    top_k: TopK = 0,
    seed: Seed = 0,
    stop: Stop = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
) -> None:
    """Answers one question with a checkpoint, and prints the text as it is generated.

    ```
    qthink ask models/gsm8k/uniform "Ida has 5 shells, buys 4, buys 3, sells 4, sells 4. How many shells does Ida have now?"
    qthink ask models/gsm8k/uniform --show-latents - < question.txt
    qthink ask LakshyAAAgrawal/QThink-Qwen3-1.7B-GSM8k --latents 6 "What is 2 + 3 * 4?"
    ```

    A line on standard error counts latent steps, tokens and seconds. Compare with `--latents 0`, the same weights without
    latent steps.
    """
    with one_line():
        from qthink_core.inference.settings import Settings

        how = Settings(max_new_tokens, temperature, top_p, top_k, seed, tuple(stop or ())).checked(option)
        text = _question(question)
        _ask(text, loaded(model, latents, thinking, device, dtype, revision), how, show_latents, as_json)


@app.command(rich_help_panel=MODEL)
def answer(
    model: Model,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write the answers to this file, in a folder that exists; a second run of the same command answers what is "
            "missing in it."
        ),
    ] = None,
    latents: Latents = None,
    thinking: Thinking = None,
    batch: Annotated[int, typer.Option(min=1, help="Questions answered together.")] = 16,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    top_k: TopK = 0,
    seed: Seed = 0,
    stop: Stop = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
) -> None:
    """Answers JSON lines `{"question": ...}` or `{"messages": [...]}` from standard input, one JSON line for each.

    ```
    qthink answer models/gsm8k/uniform < questions.jsonl > answers.jsonl
    qthink answer models/gsm8k/uniform --out answers.jsonl < questions.jsonl
    ```

    Each line is passed on with `answer` (the text), `finish`, `tokens`, `latent_steps`, `prompt_tokens` and `seconds` (those
    of its batch, divided by its questions). Answers come in the order of the questions. A line that is not such a JSON
    object, or too long for the model, ends the program with exit code 65 and its number; the answers before it are written.

    Standard error has the number of questions, and at the end that of the answers, how many of them the token limit cut, and
    the seconds.

    With `--out`, the file is kept whole: if the program is stopped, the same command continues after the last whole line.
    """
    with one_line(continues=out is not None):
        from qthink_core.inference.settings import Settings

        how = Settings(max_new_tokens, temperature, top_p, top_k, seed, tuple(stop or ()), top=0).checked(option)
        _answer(model, out, batch, how, lambda: loaded(model, latents, thinking, device, dtype, revision))


def option(setting: str) -> str:
    """The option of a setting: `--top-p` of `top_p`."""
    return "--" + setting.replace("_", "-")


def _question(text: str) -> str:
    from qthink_core.inference.question import check_unicode

    if text != "-":
        check_unicode(text, "the question")
        if not text.strip():
            raise ParamError("the question is empty: give its text, or `-` to read it from standard input")
        return text
    if sys.stdin is None:
        raise DataError("standard input is closed: give the question as an argument")
    try:
        text = sys.stdin.buffer.read().decode().strip()
    except UnicodeDecodeError as error:
        raise DataError(f"standard input is not UTF-8 (byte {error.start + 1}): give the question as UTF-8 text") from None
    if not text:
        raise DataError("standard input has no question: send its text, or give the question as an argument")
    return text


def loaded(
    model: str, latents: int | None, thinking: bool | None, device: str, dtype: str, revision: str | None = None
) -> "LatentReasoner":
    """The checkpoint of a command line; raises what `LatentReasoner.from_pretrained` raises."""
    import torch
    import transformers

    from qthink_core.inference.reasoner import LatentReasoner

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return LatentReasoner.from_pretrained(
        model, latents, dtype=dtype, device_map=device, thinking=thinking, revision=revision
    )


def _ask(question: str, reasoner: "LatentReasoner", how: "Settings", show_latents: bool, as_json: bool) -> None:
    from qthink_core.inference import shown

    stream = reasoner.stream(question, **how._asdict())
    for piece in stream:
        if not as_json:
            print(shown.inert(piece), end="", flush=True)
    if as_json:
        print(shown.as_json(stream.response))
        return
    print()
    if show_latents:
        print(shown.latents(stream.response), file=sys.stderr)
    print(shown.counts(stream.response), file=sys.stderr)


def _answer(model: str, out: Path | None, batch: int, how: "Settings", load: "Callable[[], LatentReasoner]") -> None:
    import time

    from tqdm import tqdm

    from qthink_core.benchmarks.json_lines import lines
    from qthink_core.inference import answered_lines, shown

    if sys.stdin is None or (out is None and sys.stdout is None):
        raise DataError("standard input or output is closed: send JSON lines to the first, read answers from the second")
    if sys.stdin.isatty():
        complain("reading JSON lines from the terminal; Ctrl-D ends the input, `qthink answer --help` shows an example")
    with answered_lines.opened(out) if out is not None else contextlib.nullcontext(sys.stdout.buffer) as file:
        reasoner = load()
        asked, done = answered_lines.number_of_lines(sys.stdin.buffer), 0
        source = lines(sys.stdin.buffer)
        if out is not None:
            done = answered_lines.resume(out, {"model": model, "batch": batch, **_made_with(reasoner), **how._asdict()})
            source = answered_lines.continued(source, out, done) if done else source
        number = "questions from standard input" if asked is None else shown.count(asked, "question")
        complain(f"{number}, {done:,} already answered")
        started, new, cut = time.perf_counter(), 0, 0
        with tqdm(desc="answer", total=asked, unit="answer", initial=done, disable=None) as bar:
            for line, over in answered_lines.answered(reasoner, source, how, batch):
                file.write(line.encode() + b"\n")
                file.flush()
                bar.update()
                new, cut = new + 1, cut + over
    seconds = time.perf_counter() - started
    complain(f"{shown.count(new, 'answer')}, {cut:,} cut at the token limit, {seconds:.1f} s")


def _made_with(reasoner: "LatentReasoner") -> dict[str, Any]:
    """What an answer depends on, apart from the question and the settings."""
    from qthink_core.inference.evaluation.contestants import digest

    system = reasoner.system
    return {
        "model files": digest(reasoner.folder),
        "latents": system.K,
        "thinking": system.thinking,
        "dtype": str(system.model.dtype),
        "device": str(system.model.device),
    }
