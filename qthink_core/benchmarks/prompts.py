"""Prompts: the user message of each benchmark, from the fields of its published rows.

They are separate from the graders, so that an edit of a grading rule does not rerun the pre-training that uses them.
"""

from collections.abc import Mapping

# The advice for mathematics in the model card of Qwen/Qwen3-1.7B ("Best Practices", "Standardize Output Format").
MATH_INSTRUCTION = r"Please reason step by step, and put your final answer within \boxed{}."


def message(benchmark: str, row: Mapping[str, object]) -> str:
    """The exact user message: GSM8K's question and Tooluse's prompt verbatim, a MATH problem with MATH_INSTRUCTION."""
    if benchmark == "math500":
        return f"{row['problem']}\n{MATH_INSTRUCTION}"
    return str(row[{"gsm8k": "question", "tooluse": "prompt"}[benchmark]])
