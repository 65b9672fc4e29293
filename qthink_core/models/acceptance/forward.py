"""A computed check of a loaded model: what this project computes of it equals the model's own forward.

No list of architectures is needed for that, and a new one is found out as well as an old one. Each part is compared that
one architecture or another does in its own way: what follows the output head, inputs that are embeddings, a cache, padding
on the left, a last layer that is computed for one position, and sequences in a pack.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from qthink_core.errors import DataError, first_line
from qthink_core.method.hidden_states import last_hidden, logits, read_positions
from qthink_core.method.latent_steps import read_prompts
from qthink_core.models.loading import pretrained

LENGTHS = (7, 11)
NEW = 3
# A state that sums up all earlier tokens cannot leave out the padding, nor be read again from an earlier place.
KEYS_AND_VALUES = (DynamicLayer, DynamicSlidingWindowLayer)
# The largest |logit| in the check. Real models reach it, and a cap of 30 changes it, which it does not where weights are
# small: tanh(x) is x.
LARGEST_LOGIT = 60.0
# Of the norm. In 16 bits, sums in another order differ by some percent after many layers; a wrong mask, position, scale or
# cap changes more than that.
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
TOLERANCE_16_BITS = 0.1


def check(folder: Path) -> None:
    """Raises DataError naming the architecture and the part in which its own forward differs from what is computed here."""
    model = pretrained(folder, dtype="auto")
    check_logits(model, folder)
    _compare(model, folder, "the last hidden states", last_states)
    _compare(model, folder, "inputs that are embeddings", from_embeddings)
    _compare(model, folder, "a cache behind prompts that are padded on the left", from_cache)
    _compare(model, folder, "rollouts that share a prompt", from_pack)


def check_logits(model: Any, folder: Path) -> None:
    """Raises DataError as `check` does, for the logits of a model that is loaded already."""
    _compare(model, folder, "the logits after its output head", after_head)


def _compare(model: Any, folder: Path, what: str, compute: Callable[[Any], tuple[Tensor, Tensor]]) -> None:
    kind = type(model).__name__
    try:
        with torch.inference_mode():
            ours, own = compute(model)
    except Exception as error:  # noqa: BLE001 - an architecture that is built in another way fails in its own way
        raise DataError(
            f"{folder} holds a {kind}, of which {what} cannot be computed here ({first_line(error)}): take another model"
        ) from None
    if not same(ours, own):
        raise DataError(f"{folder} holds a {kind}, of which {what} would be computed wrongly here: take another model")


def after_head(model: Any) -> tuple[Tensor, Tensor]:
    """Logits by this project and by the model's own forward, both from logits of the head that are as large as real ones."""
    ids = _rows(model)[1][None]
    hidden = _plain(model, ids)
    scale = LARGEST_LOGIT / model.get_output_embeddings()(hidden).float().abs().max().item()
    with _scaled(model.get_output_embeddings(), scale):
        return logits(model, hidden), model(input_ids=ids).logits


def last_states(model: Any) -> tuple[Tensor, Tensor]:
    """The last hidden states of the body, and those that the model's own forward gives out."""
    ids = _rows(model)[1][None]
    return _plain(model, ids), model(input_ids=ids, output_hidden_states=True).hidden_states[-1]


def from_embeddings(model: Any) -> tuple[Tensor, Tensor]:
    """The last hidden states from embeddings and from token ids; after both comes an embedding that is no token's."""
    ids = _rows(model)[1][None]
    tokens = model.get_input_embeddings()(ids)
    latent = tokens.mean(dim=1, keepdim=True)
    ours = last_hidden(model, inputs_embeds=torch.cat([tokens, latent], dim=1), mask=ids.new_ones(1, ids.shape[1] + 1))
    cache = DynamicCache(config=model.config)
    model(input_ids=ids, past_key_values=cache, use_cache=True)
    own = model(inputs_embeds=latent, past_key_values=cache, use_cache=True, output_hidden_states=True).hidden_states[-1]
    return ours, torch.cat([_plain(model, ids), own], dim=1)


def from_cache(model: Any) -> tuple[Tensor, Tensor]:
    """States of two rows of unequal length: prompts padded on the left and then new tokens, and each row whole and alone."""
    rows = _rows(model)
    context = read_prompts(model, [row[:-NEW].tolist() for row in rows], 0)
    if others := {type(layer).__name__ for layer in context.cache.layers if type(layer) not in KEYS_AND_VALUES}:
        raise ValueError(f"it keeps more than keys and values: {', '.join(sorted(others))}")
    mask = torch.cat([context.mask, context.mask.new_ones(len(rows), NEW)], dim=1)
    new = last_hidden(model, input_ids=torch.stack([row[-NEW:] for row in rows]), mask=mask, cache=context.cache)
    whole = torch.cat([_plain(model, row[None])[:, -NEW - 1 :] for row in rows])
    return torch.cat([context.hidden[:, None], new], dim=1), whole


def from_pack(model: Any) -> tuple[Tensor, Tensor]:
    """States of three sequences, of which two share a prompt, as extraction reads them, and of each whole and alone.

    None fits into one pass.
    """
    first, second = (row.tolist() for row in _rows(model))
    prompt = len(first) - NEW
    rows = [_Sequence(tokens, prompt, NEW) for tokens in (first, [*first[:prompt], *second[-2 * NEW :]], second)]
    ours = read_positions(model, rows, NEW, len(first) // 2 + 1, "float32")
    whole = [_plain(model, torch.tensor([row.tokens], device=model.device))[0, row.positions] for row in rows]
    return torch.from_numpy(ours).to(whole[0]), torch.stack(whole)


class _Sequence:
    """A sequence whose last tokens' states are read."""

    name = "a row of the check"

    def __init__(self, tokens: list[int], prompt: int, read: int) -> None:
        self.tokens, self.prompt, self.positions = tokens, prompt, list(range(len(tokens) - read, len(tokens)))


def same(ours: Tensor, own: Tensor) -> bool:
    """Whether two results are equal up to rounding."""
    allowed = TOLERANCE.get(own.dtype, TOLERANCE_16_BITS)
    difference = (ours.double() - own.double()).norm()
    return bool(torch.isfinite(difference)) and bool(difference <= allowed * own.double().norm())


def _rows(model: Any) -> list[Tensor]:
    """Two rows of token ids that are the same in each call."""
    n_rows = model.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(n_rows, (length,), generator=generator).to(model.device) for length in LENGTHS]


def _plain(model: Any, ids: Tensor) -> Tensor:
    return last_hidden(model, input_ids=ids, mask=torch.ones_like(ids))


@contextmanager
def _scaled(head: Any, scale: float) -> Iterator[None]:
    """A context in which an output head gives `scale` times its logits."""
    hook = head.register_forward_hook(lambda _, __, out: out * scale)
    try:
        yield
    finally:
        hook.remove()
