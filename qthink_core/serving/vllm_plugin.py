"""The plugin of vLLM: `vllm serve FOLDER` takes the latent steps of a trained model.

vLLM calls `register` in each of its processes (entry point group `vllm.general_plugins` in pyproject.toml). Models without
a projection head stay as they are. For a folder with one, the plugin changes the configuration of the engine that vLLM is
about to start: another model class (vllm_model), another scheduler (vllm_scheduler), and a check of each request
(vllm_requests). This module imports neither torch nor vLLM before `register` is called.
"""

import functools
import logging
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from qthink_core.errors import DataError, ParamError, QThinkError
from qthink_core.serving.settings import ATTRIBUTE, OPTION, Latents

TESTED = "0.32.0"
# vLLM's classes that have a subclass with latent steps (vllm_model), by the name in config.json.
ARCHITECTURES = {"Qwen3ForCausalLM": "LatentQwen3", "LlamaForCausalLM": "LatentLlama"}
log = logging.getLogger("vllm.qthink")


def register() -> None:
    """Adds the latent steps to vLLM in this process; a second call does nothing.

    Does not fail in other versions of vLLM, which would then serve no model at all; `configure` refuses them.
    """
    from vllm import ModelRegistry, __version__
    from vllm.config import VllmConfig

    if getattr(VllmConfig, ATTRIBUTE, False):
        return
    if not hasattr(VllmConfig, "try_verify_and_update_config"):
        log.warning("qthink: vLLM %s is not %s: no model gets latent steps", __version__, TESTED)
        return
    for architecture, name in ARCHITECTURES.items():
        ModelRegistry.register_model(f"QThink{architecture}", f"qthink_core.serving.vllm_model:{name}")
    verify = VllmConfig.try_verify_and_update_config

    @functools.wraps(verify)
    def verify_and_add_latents(config: Any) -> None:
        if config.model_config is not None and not getattr(config.model_config, "config_updated", False):
            configure(config, __version__)
        verify(config)

    VllmConfig.try_verify_and_update_config = verify_and_add_latents
    setattr(VllmConfig, ATTRIBUTE, True)
    sys.excepthook = functools.partial(in_one_line, sys.excepthook)


def in_one_line(otherwise: Any, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Prints an error of ours without its traceback (an excepthook); others are left to the hook that was there."""
    if isinstance(error, QThinkError):
        print(f"qthink: {error}", file=sys.stderr)
    else:
        otherwise(kind, error, trace)


def configure(config: Any, version: str) -> None:
    """Prepares a `VllmConfig` for a folder with latent steps; leaves that of any other model as it is.

    Raises DataError when the folder is incomplete or its head damaged, and ParamError when the engine was asked for
    something that the latent steps do not support.
    """
    model = config.model_config
    found = latents(model, config.additional_config)
    if found is None:
        return
    refuse_unsupported(config, version)
    from qthink_core.method import projection_head
    from qthink_core.serving import vllm_requests

    projection_head.load(Path(found.head), model.get_hidden_size())
    setattr(model.hf_config, ATTRIBUTE, found._asdict())
    model.hf_config.architectures = [f"QThink{model.architecture}"]
    model.model_arch_config = model.get_model_arch_config()
    model._architecture = model.hf_config.architectures[0]
    config.scheduler_config.scheduler_cls = "qthink_core.serving.vllm_scheduler.scheduler"
    limit_graphs(config.compilation_config)
    vllm_requests.install()
    log.warning(
        "%s: every prompt that ends in an empty think block is followed by %d latent steps; other prompts are refused, "
        "unless the request says how many it wants (%s)",
        model.model,
        found.K,
        f'"vllm_xargs": {{"{OPTION}": 0}}',
    )


def latents(model: Any, options: Any) -> Latents | None:
    """The latents of the model that vLLM is about to load; None when it has none, or when the option says 0.

    The number K is that of the option `--additional-config '{"latents": K}'`, else that of qthink.json. Raises ParamError
    when the option is not a number of steps, and DataError when the folder does not say K, or has no head.
    """
    from qthink_core.models import loading

    asked = options.get(OPTION) if isinstance(options, dict) else None
    if asked is not None and (type(asked) is not int or asked < 0):
        raise ParamError(f"the option {OPTION} is {asked!r}: pass a number of steps, as in {option(6)}")
    described, head = (file_of(model, name) for name in (loading.CONFIG, loading.HEAD))
    K, thinking = asked, False
    if described is not None:
        config = loading.read_config(described.parent)
        K, thinking = (config.K if asked is None else asked), config.thinking
    if head is None and not K:
        return None
    if K is None:
        raise DataError(
            f"{model.model} has a {loading.HEAD} but no {loading.CONFIG} that says how many latent steps it takes: "
            f"add {option(6)} with the number of its model card (0: none)"
        )
    if K == 0:
        log.warning("%s: no latent steps, as asked for", model.model)
        return None
    if head is None:
        raise DataError(f"{model.model} has no {loading.HEAD}, which {K} latent steps need: export the model again")
    return Latents(K, str(head), thinking, model.get_vocab_size())


def option(steps: int) -> str:
    """The option of `vllm serve` that sets the number of latent steps."""
    return f"--additional-config '{{\"{OPTION}\": {steps}}}'"


def file_of(model: Any, name: str) -> Path | None:
    """A file of the model's folder, or of its repository on the hub; None when it has no such file."""
    folder = Path(model.model)
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    cached = try_to_load_from_cache(model.model, name, revision=model.revision)
    if cached is not None:
        return Path(cached) if isinstance(cached, str) else None
    try:
        return Path(hf_hub_download(model.model, name, revision=model.revision))
    except LocalEntryNotFoundError:
        log.warning("%s: the hub cannot be asked for %s, so this model is served without latent steps", model.model, name)
    except EntryNotFoundError:
        pass
    return None


def refuse_unsupported(config: Any, version: str) -> None:
    """Raises ParamError, in one line, for what the latent steps do not support or were not tested with."""
    model, parallel = config.model_config, config.parallel_config
    off = f"or serve the model without latent steps: {option(0)}"
    if version != TESTED:
        raise ParamError(f"vLLM is {version}, but the latent steps were tested with {TESTED}: install vllm=={TESTED}, {off}")
    if model.architecture not in ARCHITECTURES:
        raise ParamError(f"{model.model} is a {model.architecture}, but latent steps know {', '.join(ARCHITECTURES)}: {off}")
    for what, found in {
        "a pooling model (--runner, --convert)": model.runner_type != "generate" or model.convert_type != "none",
        "--model-impl": model.model_impl not in ("auto", "vllm"),
        "--enable-prompt-embeds": model.enable_prompt_embeds,
        "--tensor-parallel-size": parallel.tensor_parallel_size > 1,
        "--pipeline-parallel-size": parallel.pipeline_parallel_size > 1,
        "context parallelism": parallel.decode_context_parallel_size > 1 or parallel.prefill_context_parallel_size > 1,
        "--api-server-count above 1": parallel._api_process_count > 1,
        "micro-batches (--enable-dbo)": parallel.use_ubatching,
        "LoRA adapters": config.lora_config is not None,
        "speculative decoding": config.speculative_config is not None,
        "a K/V connector": config.kv_transfer_config is not None,
        "a custom --scheduler-cls": config.scheduler_config.scheduler_cls is not None,
        "a --max-model-len of few positions": model.max_model_len < 2,
    }.items():
        if found:
            raise ParamError(f"the latent steps do not work with {what}: leave it out, {off}")
    from vllm.platforms import current_platform

    if not current_platform.is_cpu() and config.use_v2_model_runner:
        raise ParamError(f"latent steps were tested with vLLM's first model runner: set VLLM_USE_V2_MODEL_RUNNER=0, {off}")


def limit_graphs(compilation: Any) -> None:
    """Keeps the latent steps outside of CUDA graphs: they read what differs from batch to batch."""
    from vllm.config import CUDAGraphMode

    if compilation.cudagraph_mode is None or compilation.cudagraph_mode.has_full_cudagraphs():
        compilation.cudagraph_mode = CUDAGraphMode.PIECEWISE
