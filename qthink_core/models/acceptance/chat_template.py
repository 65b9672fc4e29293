"""Chat templates that follow the think convention, and what is added to a template that does not.

A prompt that asks for thinking ends where the model's turn begins, or in an open block. The direct prompt is the same text
with an empty block in that place, and is what the template renders with `enable_thinking=False`. What is between the marks
of an empty block is the model's own affair: newlines or nothing.
"""

import json
import re
from datetime import date
from typing import Any

from qthink_core.benchmarks.bounded_rendering import Conversation, rendered
from qthink_core.errors import DataError

THINK, END_THINK = "<think>", "</think>"
EMPTY_BLOCK = f"{THINK}\n\n{END_THINK}\n\n"  # Qwen3's, and what is written where a template has none of its own
# A model that was never trained to think does not open a block itself, so its prompt opens one.
OPEN_BLOCK = f"{THINK}\n"
DIRECT = "enable_thinking is defined and enable_thinking is false"
ADDED_TEMPLATE = (
    "{%- if add_generation_prompt %}{%- if " + DIRECT + " %}"
    "{{- " + json.dumps(EMPTY_BLOCK) + " }}"
    "{%- else %}"
    "{{- " + json.dumps(OPEN_BLOCK) + " }}"
    "{%- endif %}{%- endif %}"
)
OPEN, EMPTY = re.compile(rf"{THINK}\n*\Z"), re.compile(rf"{THINK}\n*{END_THINK}\n*\Z")
# Templates of Llama 3 and Granite write today's date into the prompt, and each run would be another experiment. This is the
# day that Llama 3's template takes where it cannot read a clock.
DAY = date(2024, 7, 26)
CLOCK = re.compile(r"strftime_now\s*\(\s*(['\"])([^'\"]*)\1\s*\)")
NAMED = re.compile(r"\bstrftime_now\b(?!\s+is\s+(?:not\s+)?defined\b)")
DATED = "{%- macro strftime_now(form) %}{{- "
RANDOM = re.compile(r"\|\s*random\b|\blipsum\b")
TURNS = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Goodbye"}]
FIX = "set thinking to `added`, or take a model that thinks"


def following(tokenizer: Any, thinking: str, origin: str) -> tuple[str, list[str]]:
    """The chat template of a tokenizer, extended where that makes it follow the convention, and a sentence for each change.

    A template that always opens a block closes it for the direct prompt. A template that never writes one gets both blocks
    with `added`. Raises DataError naming `origin` when the template cannot be used, when it changes more than the block, and
    with `native` when it shows no sign of thinking.
    """
    template = _without_clock(tokenizer.chat_template, origin)
    changes = [] if template == tokenizer.chat_template else [f"the chat template writes {DAY} in place of today's date"]
    tokenizer.chat_template = template
    direct, thoughtful = prompts(tokenizer, origin)
    if _is_convention(direct, thoughtful):
        return template, changes
    if direct != thoughtful and EMPTY.search(direct):
        raise DataError(f"{origin} changes more with enable_thinking than the think block: take another model")
    opened, tail = OPEN.search(direct), direct.rpartition("Hello")[2]
    if direct == thoughtful and not opened and (THINK in tail or END_THINK in tail):
        raise DataError(f"{origin} ends every prompt in {tail[-30:]!r}, where no thought can begin: take another model")
    if direct == thoughtful and opened:
        rest = EMPTY_BLOCK[len(opened[0]) :] if EMPTY_BLOCK.startswith(opened[0]) else f"{END_THINK}\n\n"
        changes.append("the chat template closes its think block where it is asked not to think")
        addition = "{%- if add_generation_prompt and " + DIRECT + " %}{{- " + json.dumps(rest) + " }}{%- endif %}"
    elif direct == thoughtful and thinking == "added":
        changes.append("the chat template opens a think block, or writes an empty one where it is asked not to think")
        addition, thoughtful = ADDED_TEMPLATE, thoughtful + OPEN_BLOCK
    else:
        raise DataError(
            f"{origin} ends the prompt of enable_thinking=False in {direct[-20:]!r} where an "
            f"empty think block ({EMPTY_BLOCK!r}) is expected: {FIX}"
        )
    before = conversation(tokenizer, origin)
    tokenizer.chat_template = template + addition
    found = prompts(tokenizer, origin)
    if found[1] != thoughtful or not _is_convention(*found) or conversation(tokenizer, origin) != before:
        raise DataError(f"{origin} has no place for a think block at its end: take another model")
    return template + addition, changes


def prompts(tokenizer: Any, origin: str) -> tuple[str, str]:
    """The direct prompt of a short question and the one that asks for thinking; raises DataError as `rendered` does."""
    options = [{"add_generation_prompt": True, "enable_thinking": thinking} for thinking in (False, True)]
    direct, thoughtful = rendered(tokenizer, origin, [Conversation(TURNS[:1], one) for one in options])
    return direct, thoughtful


def conversation(tokenizer: Any, origin: str) -> str:
    """A question and its answer, `Goodbye`; raises DataError as `rendered` does."""
    return rendered(tokenizer, origin, [Conversation(TURNS, {})])[0]


def empty_block(tokenizer: Any, origin: str) -> str:
    """The empty block in which the direct prompt ends; raises DataError naming `origin` when it does not end in one."""
    text, _ = prompts(tokenizer, origin)
    found = EMPTY.search(text)
    if found is None:
        raise DataError(
            f"{origin} ends a prompt of enable_thinking=False in {text[-20:]!r} where latent steps follow an empty think "
            f"block ({EMPTY_BLOCK!r}): take the template of the model that was trained"
        )
    return found[0]


def _is_convention(direct: str, thoughtful: str) -> bool:
    empty = EMPTY.search(direct)
    return empty is not None and direct[: empty.start()] == OPEN.sub("", thoughtful)


def _without_clock(template: str, origin: str) -> str:
    """The template with the date of `DAY` in place of today's.

    Raises DataError when it asks for a date in another way, or for something random.
    """
    if RANDOM.search(template):
        raise DataError(f"{origin} writes something random into the prompt: take another model")
    formats = [match[2] for match in CLOCK.finditer(template)]
    if template.startswith(DATED) or not NAMED.search(template):
        return template
    if len(NAMED.findall(template)) != len(formats):
        raise DataError(
            f"{origin} writes today's date in a form that is not known here, and results would depend on it: fix the date"
        )
    dates = json.dumps({form: DAY.strftime(form) for form in sorted(set(formats))})
    return DATED + dates + "[form] }}{%- endmacro %}" + template
