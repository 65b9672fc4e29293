"""The tokenizer of the tiny scale: lossless on any text, with few tokens for the generated problems.

A regular expression splits text into pieces. A piece that the generated problems use is one token; any other piece becomes
its UTF-8 bytes (BPE without merges, `ignore_merges`). The fixed passages of the published prompts are long, so each is a
single "superword" token (arXiv 2503.13423). One change in a problem (", buys 3", "-4)", ", double it") is also one token;
docs/world.md explains why. Special tokens and chat format are those of Qwen3.
"""

from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from qthink_core.benchmarks.generated import BUCKETS, TASKS, tool_calls, worked
from qthink_core.benchmarks.generated.chains import thought, values
from qthink_core.benchmarks.prompts import MATH_INSTRUCTION
from qthink_core.benchmarks.world import World
from qthink_core.models.acceptance.chat_template import END_THINK, THINK

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

SUPERWORDS = (
    tool_calls.HEAD,
    tool_calls.ABOUT,
    tool_calls.TAIL,
    tool_calls.PARAMETERS,
    tool_calls.INTEGER,
    f"\n{MATH_INSTRUCTION}",
    "Compute ",
    "The answer is",
    " $\\boxed{",
    "}$.",
    "\n####",
    "Action:",
    '\nAction Input: {"',
    '": ',
)
N_SAMPLED = 400
LARGEST_NUMBER = 99

CHANGES = (
    r", [a-z]+ (?:[0-9]|them|half|it)(?![0-9a-z])",  # in a story or a request
    r"(?:[+\-][0-9]|\\cdot 2|\\div 2)\)",  # in an expression, with the closing bracket
    r"\$\(+",
)

# Qwen3's template for system, user and assistant turns, without tools.
CHAT_TEMPLATE = """\
{%- set ns = namespace(last_query=messages|length - 1) %}
{%- for message in messages %}
    {%- if message.role == 'user' %}{%- set ns.last_query = loop.index0 %}{%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role != 'assistant' %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- else %}
        {%- set content = message.content %}
        {%- set reasoning = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if loop.index0 > ns.last_query and (loop.last or reasoning) %}
            {{- '<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""


def build(world: World, opening: str | None) -> PreTrainedTokenizerFast:
    """The tokenizer of a world, with its chat template; `save_pretrained` writes the same bytes for every build.

    `opening` is the first word of every thought, or None.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = sorted(_pieces(world, opening) - set(alphabet))
    vocabulary = {piece: i for i, piece in enumerate(alphabet + words)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = _splitter()
    tokenizer.decoder = decoders.ByteLevel()
    marks = (END_OF_TEXT, TURN_START, TURN_END)
    tokenizer.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    tokenizer.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in (THINK, END_THINK)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )


def _splitter() -> Any:
    escape = str.maketrans({mark: "\\" + mark for mark in "\\.^$*+?()[]{}|"})
    fixed = "|".join(superword.translate(escape) for superword in SUPERWORDS)
    pieces = Regex(rf"{fixed}|{'|'.join(CHANGES)}|\\[a-z]+| ?[A-Za-z]+| ?[0-9]{{1,2}}|\n\n|[\s\S]")
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pieces, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _pieces(world: World, opening: str | None) -> set[str]:
    """The pieces of generated problems, of the superwords, and of the numbers up to 99 with and without a leading space."""
    splitter = _splitter()
    texts = [f"{space}{n}" for n in range(LARGEST_NUMBER + 1) for space in ("", " ")]
    texts += [*SUPERWORDS, "\n\n", "user\n", "assistant\n", "system\n"]
    for task in TASKS:
        for problem in worked(task, next(iter(BUCKETS)), N_SAMPLED, seed=0, world=world):
            question = problem.row.get("question") or problem.row.get("problem") or problem.row["prompt"]
            running = values(problem.steps)
            texts += [str(question), thought(running, opening), problem.answer(running[-1])]
    return {piece for text in texts for piece, _ in splitter.pre_tokenize_str(text)}
