"""`generate` with latent steps, for `AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)`.

Before the first token of an answer, the projection head turns the last hidden state into the next input embedding, K times.
The `generate` of transformers chooses the tokens. K and what the prompt ends in are those of `qthink.json`.
"""

import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, DynamicCache, GenerationConfig, GenerationMixin
from transformers.utils import cached_file, logging

CHAT: list[dict[str, str]] = [{"role": "user", "content": "Hello"}]
# They read the prompt again or need a cache of their own, without the latent steps.
REFUSED = (
    *("assistant_model", "assistant_early_exit", "prompt_lookup_num_tokens", "use_mtp", "dola_layers", "guidance_scale"),
    *("negative_prompt_ids", "token_healing", "prefill_chunk_size", "cache_implementation", "custom_generate"),
    *("inputs_embeds", "past_key_values", "position_ids"),
)


def generate(
    inputs: Tensor | None = None,
    generation_config: GenerationConfig | None = None,
    *,
    model: Any,
    latent_steps: int | None = None,
    **kwargs: Any,
) -> Any:
    """As `model.generate`: the prompt with its new tokens. `latent_steps` replaces K; 0 leaves the latent steps out."""
    K, head, end = read_folder(model, latent_steps)
    if not K:
        return type(model).generate(model, inputs, generation_config, **kwargs)

    def setting(name: str) -> Any:
        found = kwargs.get(name), getattr(generation_config, name, None), getattr(model.generation_config, name, None)
        return next((value for value in found if value is not None), None)

    if refused := [name for name in REFUSED if setting(name) is not None and setting(name) is not False]:
        raise ValueError(f"latent steps do not work with {', '.join(refused)}: leave it out, or pass latent_steps=0")
    ids = kwargs.pop("input_ids", None) if inputs is None else inputs
    if ids is None or not ids.shape[1]:
        raise ValueError("latent steps follow a prompt: pass input_ids")
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions and ids.shape[1] + K >= positions:  # else a server would compute such a prompt for hours
        raise ValueError(f"{ids.shape[1]} tokens and {K} latent steps fill the {positions} positions: shorten the prompt")
    ids, mask = ids.to(model.device), kwargs.pop("attention_mask", None)
    if mask is None:  # as transformers: padding is recognised, unless its token also ends an answer
        pad, ends = setting("pad_token_id"), torch.tensor([setting("eos_token_id") or []]).flatten().tolist()
        mask = torch.ones_like(ids) if pad is None or pad in ends else (ids != pad).long()
    if not mask[:, -1].all():
        raise ValueError("latent steps follow the last token, and a prompt is padded after it: set padding_side='left'")
    if end and not torch.equal(ids[:, -len(end) :], ids.new_tensor(end).expand(len(ids), -1)):
        text = "A prompt does not end in an empty think block, after which the latent steps were trained"
        logging.get_logger(__name__).warning_once(f"{text}: render the chat with enable_thinking=False.")
    for total, new in (("max_length", "max_new_tokens"), ("min_length", "min_new_tokens")):
        if setting(new) is None and setting(total):  # latent steps do not count
            kwargs[new] = max(setting(total) - ids.shape[1], 0)
        kwargs.pop(total, None)
    embeddings, mask, cache = think(model, head, K, ids, mask.to(model.device))
    if (copies := max(setting("num_beams") or 1, setting("num_return_sequences") or 1)) > 1:
        cache.batch_repeat_interleave(copies)
    kwargs |= {"inputs_embeds": embeddings, "attention_mask": mask, "past_key_values": cache}
    return type(model).generate(model, ids, generation_config, **kwargs)


@torch.no_grad()
def think(model: Any, head: nn.Module, K: int, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, DynamicCache]:
    """The input embeddings of prompt and latent steps, their mask, and a cache of all but the last of them."""
    inputs, cache = [model.get_input_embeddings()(ids)], DynamicCache(config=model.config)
    for _ in range(K):
        at = (mask.cumsum(1) - 1).clamp(min=0)[:, -inputs[-1].shape[1] :]
        options = {"attention_mask": mask, "position_ids": at, "past_key_values": cache, "use_cache": True}
        hidden = model.get_decoder()(inputs_embeds=inputs[-1], **options).last_hidden_state[:, -1:]
        inputs.append(head.to(hidden.device, hidden.dtype)(hidden))
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
    return torch.cat(inputs, dim=1), mask, cache


def read_folder(model: Any, latent_steps: int | None) -> tuple[int, Any, list[int]]:
    """K, the projection head and the token ids that a prompt ends in, read once from the model's folder or repository."""
    found = model.__dict__.setdefault("_qthink", {})
    # transformers copy this file into a module that is named after its commit; other files are read from the same one
    commit = next(iter(re.findall(r"\.([0-9a-f]{40})\.", __name__)), None)
    place = {"path_or_repo_id": model.name_or_path, "revision": commit}
    if "K" not in found:
        about = cached_file(filename="qthink.json", _raise_exceptions_for_missing_entries=False, **place)
        if about is None and latent_steps is None:
            raise ValueError(f"{model.name_or_path} has no qthink.json: pass the number of latent steps as latent_steps")
        found |= json.loads(Path(about).read_bytes()) if about else {}
    K, name = (found.get("K"), "K in qthink.json") if latent_steps is None else (latent_steps, "latent_steps")
    if type(K) is not int or K < 0:
        raise ValueError(f"{name} is {K!r}: a whole number is expected, 0 or more")
    if K and "head" not in found:
        D = model.config.get_text_config().hidden_size
        head = nn.ModuleDict({"mlp": nn.Sequential(nn.Linear(D, D), nn.GELU(), nn.Linear(D, D), nn.LayerNorm(D))})
        file = str(cached_file(filename="projection_head.pt", **place))
        head.load_state_dict(weights := torch.load(file, map_location="cpu", weights_only=True))
        if not all(weight.isfinite().all() for weight in weights.values()):
            raise ValueError(f"projection_head.pt of {model.name_or_path} holds a NaN or an infinity: fetch it again")
        tokenizer = AutoTokenizer.from_pretrained(place["path_or_repo_id"], revision=commit)
        block = ""
        if not found.get("thinking"):  # the empty block is the template's own
            options: Any = {"add_generation_prompt": True, "enable_thinking": False}
            block = "".join(str(tokenizer.apply_chat_template(CHAT, tokenize=False, **options)).rpartition("<think>")[1:])
        found |= {"end": tokenizer.encode(block, add_special_tokens=False), "head": head["mlp"].eval()}
    return K, found.get("head"), found.get("end", [])


def refuse_continuous_batching() -> None:
    """Raises an error where transformers would decode without `generate`, and so without latent steps."""
    start = GenerationMixin.init_continuous_batching

    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(getattr(self, "generate", None), "func", None) is generate:
            raise ValueError("continuous batching would leave the latent steps out: start without --continuous-batching")
        return start(self, *args, **kwargs)

    GenerationMixin.init_continuous_batching = checked  # type: ignore[method-assign]


refuse_continuous_batching()
