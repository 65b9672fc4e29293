"""The student: a base model with LoRA adapters and a projection head, and the outputs that its loss is computed from."""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from jaxtyping import Float, Int
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from qthink_core.errors import ParamError
from qthink_core.method.fast_training.answer_tokens import negative_log_likelihood
from qthink_core.method.fast_training.merged_lora import merged_weights
from qthink_core.method.fast_training.norms import own_gradients, rms_norms
from qthink_core.method.fast_training.one_row import can_read
from qthink_core.method.fast_training.passes import after_latents, after_prompts
from qthink_core.method.hidden_states import last_hidden, pad
from qthink_core.method.latent_steps import answer_states, project, read_prompts
from qthink_core.method.losses import Outputs
from qthink_core.method.projection_head import ProjectionHead


def check_targets(model: PreTrainedModel, targets: str | Sequence[str]) -> None:
    """Raises ParamError naming the projections that a model does not have: PEFT would leave them out."""
    if isinstance(targets, str):
        return  # a rule of PEFT, such as all-linear
    found = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    missing = [one for one in targets if one.rpartition(".")[2] not in found]
    if missing:
        raise ParamError(
            f"train.lora.targets names {', '.join(missing)}, which a {type(model).__name__} does not have: "
            f"choose from {', '.join(sorted(found))}"
        )


class Student(nn.Module):
    """The base model with LoRA adapters in float32 on the given projections, and for K > 0 a projection head in float32.

    A micro-batch is read as one row without padding (fast_training/one_row.py), if the model's attention allows it. `merged`
    adds the adapters to the weights once per micro-batch (fast_training/merged_lora.py). Both change only rounding. With
    `one_step`, no gradient flows from a latent input into the state that it was computed from (decision 8). Gradient
    checkpointing is off, because transformers would then disable the cache, and latent steps would not see the prompt
    (decision 15).
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
        check_targets(model, targets)
        self.adapted = get_peft_model(model, config)
        self._model = (model,)  # PEFT adds the adapters in place; the tuple hides the weights from nn.Module's registry
        self.K = K
        self.one_step = one_step
        self.merged = merged
        self._norms = rms_norms(model)
        self.head = ProjectionHead(model.config.hidden_size).to(model.device) if K else None

    def forward(self, prompts: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], pad_id: int) -> Outputs:
        """The outputs of a micro-batch of prompts and target tokens; a target may be empty."""
        with merged_weights(self.adapted) if self.merged else nullcontext(), own_gradients(self._norms):
            return self._in_one_row(prompts, targets) if self.fast else self._outputs(prompts, targets, pad_id)

    @property
    def fast(self) -> bool:
        """Whether micro-batches are read as one row without padding; else prompts and answers are padded."""
        return can_read(self.model)

    def _in_one_row(self, prompts: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> Outputs:
        model, head = self.model, self.head

        def latent(hidden: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
            assert head is not None, "latent steps need a projection head"
            return project(model, head, hidden.detach() if self.one_step else hidden)[:, 0]

        read = after_latents(model, latent, prompts, targets, self.K) if head else after_prompts(model, prompts, targets)
        nats = negative_log_likelihood(model, read.hidden, read.labels)
        return Outputs(nats, read.labels, read.lengths, read.latents)

    def _outputs(self, prompts: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], pad_id: int) -> Outputs:
        model, latents = self.model, list[Float[Tensor, "B D"]]()
        labels, kept = pad([list(target) or [pad_id] for target in targets], pad_id, "right", model.device)
        kept[torch.tensor([not target for target in targets])] = 0
        if self.head is None:
            hidden = self._read_plainly(model, prompts, labels, kept, pad_id)
        else:
            context = read_prompts(model, prompts, pad_id)
            hidden, latents = answer_states(model, self.head, context, self.K, labels, kept, self.one_step)
        chosen = kept.bool()
        lengths = kept.sum(dim=1, keepdim=True).expand_as(kept)[chosen]
        nats = negative_log_likelihood(model, hidden[chosen], labels[chosen])
        return Outputs(nats, labels[chosen], lengths, latents)

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

    @property
    def model(self) -> PreTrainedModel:
        """The base model, which contains the adapters."""
        return self._model[0]

    def trained(self) -> dict[str, nn.Parameter]:
        """The trained parameters by name: those of the adapters and of the head."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}
