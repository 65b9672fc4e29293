"""`qthink demo`: a page in the browser that asks a latent checkpoint beside other ways to answer."""

import contextlib
import os
import sys
import webbrowser
from typing import Annotated

import typer

from qthink_core.cli.models import Device, Dtype, Latents, MaxNewTokens, Model, Revision, loaded, option
from qthink_core.cli.program import MODEL, app, complain, end, one_line


@app.command(rich_help_panel=MODEL)
def demo(
    model: Model,
    latents: Latents = None,
    base: Annotated[
        str | None, typer.Option(help="A second model that answers with thinking, such as the base model of the first.")
    ] = None,
    max_new_tokens: MaxNewTokens = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port of the page; 0 takes a free one.")] = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")] = True,
) -> None:
    """Opens a page in the browser: ask a question, see what the latent steps read as, and what the answer costs.

    ```
    qthink demo models/gsm8k/uniform
    qthink demo LakshyAAAgrawal/QThink-Qwen3-1.7B-GSM8k --latents 6 --base Qwen/Qwen3-1.7B
    ```

    Each question is answered by the checkpoint with its latent steps, and for comparison by the same weights without latent
    steps, by the same weights with thinking, and with `--base` by a second model with thinking.

    The page is for this machine alone (127.0.0.1) and has no password. Ctrl-C ends it.
    """
    with one_line():
        from qthink_core.inference.page_server import PageServer
        from qthink_core.inference.settings import Settings
        from qthink_core.inference.side_by_side import warm_up, ways

        how = Settings(max_new_tokens=max_new_tokens).checked(option)
        reasoner = loaded(model, latents, None, device, dtype, revision)
        these = ways(reasoner, loaded(base, 0, True, device, dtype) if base is not None else None)
        with PageServer(these, how, model, port) as server:
            warm_up(these)
            print(server.address, flush=True)
            complain("Ctrl-C ends the page")
            if browser:
                _open(server.address)
            with contextlib.suppress(KeyboardInterrupt):
                server.serve_forever()
        end(0)  # answers in the making end with the program


def _open(address: str) -> None:
    """Opens a browser with a window; one that runs in the terminal would take it from this program."""
    if sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(address)
