"""Micro models of several families: their own architecture at small size, with random weights, and their chat template.

The templates are written from memory, short but with what matters here: the marks, where BOS is written, what ends a turn,
and how dates, thoughts and the system's turn are treated.
The tokenizer is a byte-level one with the family's special tokens.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast

from qthink_core.models.tiny_tokenizer import CHAT_TEMPLATE as QWEN3

TURN = "'<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n'"
QWEN3_THINKING = (
    "{%- for message in messages %}{{- " + TURN + " }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}"
)
QWEN25 = (
    "{%- if messages[0]['role'] != 'system' %}"
    "{{- '<|im_start|>system\\nPlease reason step by step.<|im_end|>\\n' }}{%- endif %}"
    "{%- for message in messages %}{{- " + TURN + " }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}\n"
)
LLAMA32 = """\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
DEEPSEEK = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
    "{% set ns = namespace(system_prompt='') %}{%- for message in messages %}{%- if message['role'] == 'system' %}"
    "{% set ns.system_prompt = message['content'] %}{%- endif %}{%- endfor %}{{bos_token}}{{ns.system_prompt}}"
    "{%- for message in messages %}{%- if message['role'] == 'user' %}{{'<｜User｜>' + message['content']}}{%- endif %}"
    "{%- if message['role'] == 'assistant' %}{% set content = message['content'] %}{% if '</think>' in content %}"
    "{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{'<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>'}}{%- endif %}{%- endfor %}"
    "{% if add_generation_prompt %}{{'<｜Assistant｜><think>\\n'}}{% endif %}"
)
GRANITE = """\
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set system_message = "Knowledge Cutoff Date: April 2024.\\nToday's Date: " + strftime_now('%B %d, %Y')
        + ".\\nYou are Granite." %}
    {%- if thinking %}
        {%- set system_message = system_message + " Respond to every user query in a comprehensive and detailed way." %}
    {%- endif %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- '<|start_of_role|>system<|end_of_role|>' + system_message + '<|end_of_text|>\\n' }}
{%- for message in loop_messages %}
    {{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + message['content'] + '<|end_of_text|>\\n' }}
    {%- if loop.last and add_generation_prompt %}
        {{- '<|start_of_role|>assistant<|end_of_role|>' }}
    {%- endif %}
{%- endfor %}
"""
GEMMA2 = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}"
)
COHERE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '<|START_OF_TURN_TOKEN|><|USER_TOKEN|>' + message['content'].strip() + '<|END_OF_TURN_TOKEN|>' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' + message['content'].strip() + '<|END_OF_TURN_TOKEN|>' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}"
)
IM = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


class Family(NamedTuple):
    """A model type with what its config adds, its template, its special tokens, and what its files say of them."""

    kind: str
    template: str
    special: tuple[str, ...]
    eos: str
    thinking: str
    turn_end: str
    config: dict[str, Any] = {}  # noqa: RUF012 - never changed
    bos: str | None = None
    pad: str | None = None
    marks: bool = False  # the tokenizer has the think tokens


FAMILIES = {
    "Qwen3": Family("qwen3", QWEN3, IM, IM[2], "native", IM[2], {"tie_word_embeddings": True}, pad=IM[0], marks=True),
    "Qwen3-Thinking": Family("qwen3", QWEN3_THINKING, IM, IM[2], "native", IM[2], pad=IM[0], marks=True),
    "Qwen2.5-Math": Family("qwen2", QWEN25, IM, IM[0], "added", IM[2], {"tie_word_embeddings": True}, pad=IM[0]),
    "Llama-3.2": Family(
        "llama",
        LLAMA32,
        ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|eot_id|>",
        "added",
        "<|eot_id|>",
        {
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 32.0,
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 128,
            },
        },
        bos="<|begin_of_text|>",
    ),
    "DeepSeek-R1-Distill-Qwen": Family(
        "qwen2",
        DEEPSEEK,
        ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"),
        "<｜end▁of▁sentence｜>",
        "native",
        "<｜end▁of▁sentence｜>",
        bos="<｜begin▁of▁sentence｜>",
        pad="<｜end▁of▁sentence｜>",
        marks=True,
    ),
    "Granite-3": Family(
        "granite",
        GRANITE,
        ("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"),
        "<|end_of_text|>",
        "added",
        "<|end_of_text|>",
        {
            "logits_scaling": 8.0,
            "embedding_multiplier": 12.0,
            "residual_multiplier": 0.22,
            "attention_multiplier": 0.125,
            "tie_word_embeddings": True,
        },
        bos="<|end_of_text|>",
        pad="<|end_of_text|>",
    ),
    "Gemma-2": Family(
        "gemma2",
        GEMMA2,
        ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
        "<eos>",
        "added",
        "<end_of_turn>",
        {"query_pre_attn_scalar": 16, "sliding_window": 16, "final_logit_softcapping": 30.0, "attn_logit_softcapping": 2.0},
        bos="<bos>",
        pad="<pad>",
    ),
    "Command-R": Family(
        "cohere",
        COHERE,
        ("<PAD>", "<BOS_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>"),
        "<|END_OF_TURN_TOKEN|>",
        "added",
        "<|END_OF_TURN_TOKEN|>",
        {"logit_scale": 0.0625, "use_qk_norm": False},
        bos="<BOS_TOKEN>",
        pad="<PAD>",
    ),
}
SIZE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 1024,
    "initializer_range": 0.2,
}
# Qwen2's, since transformers read any tokenizer of that model type by this rule.
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def tokenizer(family: Family) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with the family's special tokens and template."""
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "th", "in", "thin", "think", "</"]
    merges = [("t", "h"), ("i", "n"), ("th", "in"), ("thin", "k"), ("<", "/")]
    made = Tokenizer(models.BPE(vocab={piece: number for number, piece in enumerate(pieces)}, merges=merges))
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in family.special])
    if family.marks:
        made.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in ("<think>", "</think>")])
    if family.bos is not None and "bos_token" in family.template:  # both write it, so text that is rendered must not get it
        made.post_processor = processors.TemplateProcessing(
            single=f"{family.bos}:0 $A:0", special_tokens=[(family.bos, made.token_to_id(family.bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token=family.bos,
        eos_token=family.eos,
        pad_token=family.pad,
        chat_template=family.template,
        model_max_length=1024,
    )


def save(folder: Path, family: Family, **config: Any) -> Any:
    """Saves a micro model of a family with its tokenizer, with spare rows of embeddings as real ones have; returns it."""
    torch.manual_seed(0)
    made = tokenizer(family)
    ends = {"bos_token_id": made.bos_token_id, "eos_token_id": made.eos_token_id, "pad_token_id": made.pad_token_id}
    known = CONFIG_MAPPING[family.kind]
    settings = SIZE | {"vocab_size": len(made) + 1} | ends | family.config | config
    model = AutoModelForCausalLM.from_config(known(**settings)).eval()
    model.save_pretrained(folder)
    made.save_pretrained(folder)
    return model
