"""An attention of ours in place of the one that a model calls through the interface of transformers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

# The names by which transformers know an attention of ours and the one that it replaces.
OURS, PLAIN = "qthink", "sdpa"


@contextmanager
def in_place_of_plain(model: PreTrainedModel, attend: Callable[..., tuple[Tensor, None]]) -> Iterator[None]:
    """A context in which a model attends by a function in place of torch's; nothing refers to the function after it."""
    ALL_ATTENTION_FUNCTIONS[OURS] = attend
    model.config._attn_implementation = OURS
    try:
        yield
    finally:
        model.config._attn_implementation = PLAIN
        del ALL_ATTENTION_FUNCTIONS[OURS]  # the keys and values would live on with it
