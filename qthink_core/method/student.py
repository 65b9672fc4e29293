"""The student: a model with LoRA adapters and a projection head, and the parts of its loss on a micro-batch."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from qthink_core.method.hidden_states import last_hidden, logits, pad
from qthink_core.method.latent_steps import latent_steps, project, read_prompts
from qthink_core.method.losses import answer_cross_entropy, step_distances
from qthink_core.method.merged_lora import merged_weights
from qthink_core.method.projection_head import ProjectionHead


class Parts(NamedTuple):
    """Summed cross-entropy (nats) of target tokens, or of problems' means, and the distance of each problem and step."""

    cross_entropy: Float[Tensor, ""]
    distances: Float[Tensor, "B K"] | None


class Student(nn.Module):
    """Base model with LoRA on the named projections (float32 adapters), and, for K > 0, a float32 projection head.

    `merged` adds the adapters to the weights once a micro-batch (merged_lora.py): the same function, rounded otherwise.
    Gradient checkpointing stays off: transformers would then switch the cache off and every latent step would be blind to
    the prompt (decision 15).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        K: int,
        seed: int,
        lora_r: int,
        lora_alpha: int,
        lora_targets: str | Sequence[str],
        one_step: bool = False,
        merged: bool = False,
    ) -> None:
        super().__init__()
        torch.manual_seed(seed)
        targets = lora_targets if isinstance(lora_targets, str) else list(lora_targets)
        config = LoraConfig(r=lora_r, lora_alpha=lora_alpha, lora_dropout=0.0, bias="none", target_modules=targets)
        self.adapted = get_peft_model(model, config)
        self._model = (model,)  # PEFT puts the adapters into it; a tuple, lest its weights be registered twice
        self.K = K
        self.one_step = one_step
        self.merged = merged
        self.head = ProjectionHead(model.config.hidden_size).to(model.device) if K else None

    def forward(
        self,
        prompts: Sequence[Sequence[int]],
        targets: Sequence[Sequence[int]],
        teachers: Float[Tensor, "B K D"] | None,
        pad_id: int,
        per_problem: bool = False,
    ) -> Parts:
        """The parts of the loss; an empty target adds no cross-entropy. `per_problem`: each target's mean (decision 20)."""
        with merged_weights(self.adapted) if self.merged else nullcontext():
            return self._parts(prompts, targets, teachers, pad_id, per_problem)

    def _parts(
        self,
        prompts: Sequence[Sequence[int]],
        targets: Sequence[Sequence[int]],
        teachers: Float[Tensor, "B K D"] | None,
        pad_id: int,
        per_problem: bool,
    ) -> Parts:
        model = self.model
        labels, kept = pad([list(target) or [pad_id] for target in targets], pad_id, "right", model.device)
        kept[torch.tensor([not target for target in targets])] = 0
        if self.K == 0:
            hidden = self._read_plainly(model, prompts, labels, kept, pad_id)
            distances = None
        else:
            hidden, steps = self._read_latently(model, prompts, labels, kept, pad_id)
            distances = None if teachers is None else step_distances(steps, teachers)
        chosen = kept.bool()
        scores = logits(model, hidden[chosen])
        lengths = kept.sum(dim=1, keepdim=True).expand_as(kept)[chosen] if per_problem else None
        return Parts(answer_cross_entropy(scores, labels[chosen], lengths), distances)

    @staticmethod
    def _read_plainly(
        model: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        labels: Int[Tensor, "B T"],
        kept: Int[Tensor, "B T"],
        pad_id: int,
    ) -> Float[Tensor, "B T D"]:
        """The states that predict each target token: [prompt; target] in one pass."""
        ids, mask = pad(prompts, pad_id, "left", model.device)
        both, both_mask = torch.cat([ids, labels], dim=1), torch.cat([mask, kept], dim=1)
        return last_hidden(model, input_ids=both, mask=both_mask, read=labels.shape[1] + 1)[:, :-1]

    def _read_latently(
        self,
        model: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        labels: Int[Tensor, "B T"],
        kept: Int[Tensor, "B T"],
        pad_id: int,
    ) -> tuple[Float[Tensor, "B T D"], list[Float[Tensor, "B D"]]]:
        """The same after K latent steps, and h_1..h_K; the last latent and the target share one pass, which is exact."""
        assert self.head is not None, "K > 0 has a head"
        context = read_prompts(model, prompts, pad_id)
        context, steps = latent_steps(model, self.head, context, self.K - 1, self.one_step)
        latent = project(model, self.head, context.hidden.detach() if self.one_step else context.hidden)
        embedded = model.get_input_embeddings()(labels[:, :-1])
        mask = torch.cat([context.mask, context.mask.new_ones(len(labels), 1), kept[:, :-1]], dim=1)
        inputs = torch.cat([latent, embedded], dim=1)
        hidden = last_hidden(model, inputs_embeds=inputs, mask=mask, cache=context.cache)
        return hidden, [*steps, hidden[:, 0]]

    @property
    def model(self) -> PreTrainedModel:
        """The base model with the adapters in it."""
        return self._model[0]

    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that training changes, by name: adapters and head."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}
