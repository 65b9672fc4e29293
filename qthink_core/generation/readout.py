"""The readout of hidden states: what they mean to the output head."""

from jaxtyping import Float
from torch import Tensor

from qthink_core.method.hidden_states import logits
from qthink_core.models.loading import System


def likely_tokens(system: System, hidden: Float[Tensor, "B D"], top: int) -> list[list[tuple[str, float]]]:
    """The `top` most likely tokens of each hidden state by the output head, with their probabilities, most likely first."""
    probability = logits(system.model, hidden).softmax(dim=-1)
    likely = probability.topk(min(top, probability.shape[-1]), dim=-1)
    return [
        list(zip(system.tokenizer.batch_decode([[token] for token in tokens]), values, strict=True))
        for values, tokens in zip(likely.values.tolist(), likely.indices.tolist(), strict=True)
    ]
