"""Decoder layers in fewer calls: with few tokens, to call a layer's small operations takes longer than to compute them.

A layer is computed like this only if it has the parts of Llama or Qwen3 and gives the states of its own code. That is tried
once for each layer.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from qthink_core.numerics.products import ROUNDING, chosen_for_speed

PARTS = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
PROJECTIONS, NORMS = {"q_proj", "k_proj", "v_proj", "o_proj"}, {"q_norm", "k_norm"}
TRIED = 5  # tokens


class ShortLayers:
    """The layers of a model that does not change any more for which a short way gives the states of their own code.

    There are none where sums are not `chosen_for_speed`, or the model is not in float32 on the processor.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.layers: list[tuple[nn.Module, _Short]] = []
        if model.device.type != "cpu" or model.dtype != torch.float32 or not chosen_for_speed():
            return
        body: Any = model.get_decoder()
        known = [layer for layer in getattr(body, "layers", []) if _has_parts(layer)]
        turn = getattr(body, "rotary_emb", None)
        if not known or turn is None:
            return
        with torch.inference_mode():
            positions = torch.arange(TRIED)[None]
            hidden = model.get_input_embeddings()(positions % model.config.vocab_size)
            try:
                turned = turn(hidden, positions)
            except TypeError:  # a rotation of several kinds, which has an argument more
                return
            tried = [(layer, _Short(layer)) for layer in known]
            self.layers = [(layer, short) for layer, short in tried if short.agrees(hidden, positions, turned)]

    @contextmanager
    def used(self) -> Iterator[None]:
        """A context in which these layers compute in the short way, without autograd."""
        with ExitStack() as undo:
            for layer, short in self.layers:
                undo.enter_context(_computing(layer, short.states))
            yield


@contextmanager
def _computing(layer: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    layer.forward = forward
    try:
        yield
    finally:
        del layer.forward


def _has_parts(layer: nn.Module) -> bool:
    """Whether a layer has the parts of Llama, or of Qwen3 with its norms of each head, and their code is its class's own."""
    if "forward" in vars(layer) or {name for name, _ in layer.named_children()} != PARTS:
        return False
    attention: Any = layer.self_attn
    norms: list[Any] = [layer.input_layernorm, layer.post_attention_layernorm]
    names = {name for name, _ in attention.named_children()}
    if names - PROJECTIONS == NORMS:
        norms += [attention.q_norm, attention.k_norm]
    elif names != PROJECTIONS:
        return False
    linear = all(isinstance(getattr(attention, name), nn.Linear) for name in PROJECTIONS)
    known = all(
        {name for name, _ in one.named_parameters()} == {"weight"} and hasattr(one, "variance_epsilon") for one in norms
    )
    by_head = all(one.weight.shape == (attention.head_dim,) for one in norms[2:])
    return linear and known and by_head and hasattr(attention, "scaling")


class _Short:
    """One layer: its norms by one operation each, and the heads of queries and keys turned together."""

    def __init__(self, layer: Any) -> None:
        attention = layer.self_attn
        self.plain, self.attention, self.mlp = layer.forward, attention, layer.mlp
        self.before, self.behind = layer.input_layernorm, layer.post_attention_layernorm
        self.E = attention.head_dim
        self.heads = [attention.q_proj.out_features // self.E, attention.k_proj.out_features // self.E]
        self.by_head: Tensor | None = None
        if hasattr(attention, "q_norm"):
            norms = attention.q_norm, attention.k_norm
            weights = [norm.weight.detach().expand(n, -1) for norm, n in zip(norms, self.heads, strict=True)]
            self.by_head, self.eps = torch.cat(weights), norms[0].variance_epsilon

    def agrees(self, hidden: Float[Tensor, "1 T D"], positions: Tensor, turned: tuple[Tensor, Tensor]) -> bool:
        """Whether the short way gives the states of the layer's own code."""
        if any(one.shape[-1] != self.E for one in turned):
            return False
        try:
            expected = self.plain(hidden, attention_mask=None, position_ids=positions, position_embeddings=turned)
        except TypeError:  # a layer with other arguments
            return False
        found = self.states(hidden, position_embeddings=turned)
        return isinstance(expected, Tensor) and bool((found - expected).abs().max() <= ROUNDING * expected.abs().max())

    def states(
        self,
        hidden_states: Float[Tensor, "B T D"],
        attention_mask: Tensor | None = None,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        past_key_values: Any = None,
        **others: Any,
    ) -> Float[Tensor, "B T D"]:
        """The states behind the layer; with a cache of transformers, its own code computes them."""
        if past_key_values is not None or position_embeddings is None:
            given = {"attention_mask": attention_mask, "position_embeddings": position_embeddings}
            return self.plain(hidden_states, past_key_values=past_key_values, **given, **others)
        attention, (B, T, D) = self.attention, hidden_states.shape
        x = functional.rms_norm(hidden_states, (D,), self.before.weight, self.before.variance_epsilon)
        q, k, v = (part(x).view(B, T, -1, self.E) for part in (attention.q_proj, attention.k_proj, attention.v_proj))
        query, key = self._turned(torch.cat([q, k], dim=2), *position_embeddings).transpose(1, 2).split(self.heads, dim=1)
        attend = ALL_ATTENTION_FUNCTIONS[attention.config._attn_implementation]
        out, _ = attend(attention, query, key, v.transpose(1, 2), attention_mask, dropout=0.0, scaling=attention.scaling)
        hidden = attention.o_proj(out.reshape(B, T, -1)).add_(hidden_states)
        x = functional.rms_norm(hidden, (D,), self.behind.weight, self.behind.variance_epsilon)
        return hidden.add_(self.mlp(x))

    def _turned(self, both: Float[Tensor, "B T A E"], cos: Tensor, sin: Tensor) -> Float[Tensor, "B T A E"]:
        """Queries and keys after their norms and the rotation by position, of each head's first half against its second."""
        if self.by_head is not None:
            both = functional.rms_norm(both, (self.E,), None, self.eps).mul_(self.by_head)
        turned = both * cos[:, :, None]
        (a, b), (first, second) = both.chunk(2, dim=-1), turned.chunk(2, dim=-1)
        of_first, of_second = sin[:, :, None].chunk(2, dim=-1)
        first.addcmul_(b, of_first, value=-1)
        second.addcmul_(a, of_second)
        return turned
