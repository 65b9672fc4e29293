"""Tooluse: a question with the tools that may answer it, to be answered by calls of these tools.

Source: lasgroup/SDPO, `datasets/tooluse/test.json` at commit 0e6d510 (68 items made from tangqiaoyu/ToolAlpaca); training
problems: `train.json` in the same folder. Licence: Apache-2.0.
Prompt: the published prompt, verbatim; it lists the tools and asks for `Action:` and `Action Input:` lines.
Gold: the published JSON list of `{"Action", "Action_Input"}`.
Extraction and equality, in two scorers that are never mixed:
- `published` is SDPO's own `verl/utils/reward_score/feedback/tooluse.py`: names by `Action:\\s*(\\w+)`, inputs by the
  shortest `{.*?}`; inputs that cannot be parsed are skipped, and the thought counts too. 66 of 68 golds can be reached: the
  shortest match cuts the nested inputs of items 26 and 33, and `\\w+` never equals the name `[Optional]updateUserProfile`.
- `strict`, the headline: the thought is removed, inputs are whole JSON objects read within limits, text inside them is not
  an action, and an input that cannot be read makes the answer unparsable; a name may contain `-` and `.`, so that
  `get-user` is not `get`; decimals are compared exactly. 68 of 68 golds can be reached.
In both, action accuracy is equality of the multisets of names, and exact match also requires equality of the inputs, merged
in order. `[Optional]` in a gold is an annotator's remark (the prompt lists the tool without it): `strict` drops it on both
sides, and still requires the call.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from qthink_core.artifacts.files import once
from qthink_core.benchmarks.graders.contract import (
    MAX_ANSWER_CHARS,
    Grade,
    Problem,
    PublishedFile,
    Verdict,
    require_right,
    text_field,
    text_of,
)
from qthink_core.benchmarks.graders.json_text import OverLimitError, UnreadableError, read_object, same
from qthink_core.benchmarks.graders.text import without_thought
from qthink_core.benchmarks.prompts import message
from qthink_core.errors import DataError

FIELDS: tuple[str, ...] = ("prompt", "answer")
NEEDED: tuple[tuple[str, ...], ...] = (("prompt",), ("answer",))
FILES = {
    "test": PublishedFile(
        "tooluse/test.json",
        68,
        "947dbf5d93a79448dbf41f00c6701402e5f2c8324936e89ed5623c553675e438",
        "68ce6b8b5d2d811d8b02a43609fb252d8809653f49668c89e22b30da15e0a829",
    ),
}

_LINE = re.compile(r"Action(?: Input:\s*(?P<input>)|:\s*(?:\[Optional\]\s*)?(?P<name>\w+(?:[-.]\w+)*))")
_OPTIONAL = re.compile(r"^\[Optional\]\s*")


class Calls(NamedTuple):
    """The names of the actions in order, and their inputs merged, later ones over earlier ones."""

    names: list[str]
    inputs: dict[str, object]


def problem(row: Mapping[str, object], index: int, split: str, task: str = "tooluse") -> Problem:
    """The problem of one row. Raises DataError where a text is missing or the gold has no calls."""
    where = f"{task} {split} row {index}"
    text_field(row, "prompt", where)
    calls = gold(text_field(row, "answer", where), where)
    return Problem(f"{task}-{split}-{index:05d}", message("tooluse", row), calls, None)


def gold(given: object, where: str) -> str:
    """The calls of a gold as JSON text, as in the published field; a JSON list of such calls is accepted too.

    Raises DataError where they are not calls, or calls that an answer cannot express.
    """
    text = json.dumps(given) if isinstance(given, list) else text_of(given, "gold", where)
    try:
        calls = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError):
        calls = None
    if not isinstance(calls, list) or not calls or not all(_is_call(call) for call in calls):
        raise DataError(
            f"{where} has the gold {text!r:.60}, expected a JSON list of "
            '{"Action": name, "Action_Input": JSON object as text}: fix or drop it'
        )
    require_right(grade(text, gold_answer(Problem("", "", text, None))), text, where)
    return text


def gold_answer(problem: Problem) -> str:
    """The answer of a perfect system: the gold's calls in the form that the prompt asks for."""
    return "\n".join(
        f"Action: {_OPTIONAL.sub('', call['Action'])}\nAction Input: {call['Action_Input']}"
        for call in json.loads(problem.gold)
    )


def extract(answer: str) -> str | None:
    """The calls that the strict scorer reads, as canonical JSON text, or None where it finds none."""
    calls, fault = _read(without_thought(answer))
    return None if fault else _canonical(calls)


def grade(gold: str, answer: str) -> Grade:
    """The strict verdict, with exact match and action accuracy of both scorers as details."""
    wanted = _gold_calls(gold)
    strict_wanted = Calls([_OPTIONAL.sub("", name) for name in wanted.names], wanted.inputs)
    text = without_thought(answer)
    calls, fault = _read(text) if len(text) <= MAX_ANSWER_CHARS else (Calls([], {}), "over_limit")
    published = _read_published(answer)

    strict_action = Counter(calls.names) == Counter(strict_wanted.names)
    published_action = Counter(published.names) == Counter(wanted.names)
    exact = fault is None and strict_action and same(calls.inputs, wanted.inputs)
    details = {
        "strict_exact": exact,
        "strict_action": strict_action,
        "published_exact": published_action and published.inputs == _merged(gold),
        "published_action": published_action,
    }
    return Grade(fault or ("right" if exact else "wrong"), None if fault else _canonical(calls), details)


def _read(text: str) -> tuple[Calls, Verdict | None]:
    """The calls of a text, and the verdict where they cannot be compared."""
    names: list[str] = []
    inputs: dict[str, object] = {}
    fault: Verdict | None = None
    position = 0
    while line := _LINE.search(text, position):
        position = line.end()
        if line["name"]:
            names.append(line["name"])
        elif fault is None:  # after a fault no further input is read, so that ten thousand open braces take one pass
            try:
                merged, position = read_object(text, position)
                inputs |= merged
            except UnreadableError:
                fault = "unparsable"
            except OverLimitError:
                fault = "over_limit"
    return Calls(names, inputs), fault or (None if names else "unparsable")


def _read_published(text: str) -> Calls:
    """The calls as SDPO's scorer reads them."""
    names = re.findall(r"Action:\s*(\w+)", text)
    inputs: dict[str, object] = {}
    # no match ends after the last brace; without the cut, every "Action Input: {" would search to the end of the text
    for block in re.findall(r"Action Input:\s*({.*?})", text[: text.rfind("}") + 1], re.DOTALL):
        try:
            inputs.update(json.loads(block))
        except (ValueError, RecursionError):  # SDPO's scorer would crash on deep nesting or 4,300 digits; skipped here
            continue
    return Calls(names, inputs)


def _gold_calls(gold: str) -> Calls:
    calls = json.loads(gold)
    inputs: dict[str, object] = {}
    for call in calls:
        inputs |= read_object(call["Action_Input"].strip(), 0)[0]
    return Calls([call["Action"] for call in calls], inputs)


def _merged(gold: str) -> dict[str, object]:
    """The inputs of a gold as SDPO's scorer compares them, in binary floating point."""
    return {key: value for call in json.loads(gold) for key, value in json.loads(call["Action_Input"]).items()}


def _is_call(call: object) -> bool:
    if not isinstance(call, dict) or not isinstance(call.get("Action"), str):
        return False
    text = call.get("Action_Input")
    try:
        return isinstance(text, str) and read_object(text.strip(), 0)[1] == len(text.strip())
    except (UnreadableError, OverLimitError):
        return False


def _canonical(calls: Calls) -> str:
    return json.dumps({"actions": calls.names, "inputs": calls.inputs}, sort_keys=True, default=float)
