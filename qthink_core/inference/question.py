"""Questions as a user gives them, a text or a conversation, checked before a chat template sees them."""

from collections.abc import Mapping, Sequence
from typing import Any

from qthink_core.errors import DataError, ParamError

Message = Mapping[str, str]
Question = str | Sequence[Message]
EXPECTED = 'a text, or a list of messages such as {"role": "user", "content": "..."}'


def messages(question: Any, name: str) -> list[Message]:
    """The messages of one question, which is a text or a list of messages; errors begin with its `name`.

    Raises ParamError for another type, and DataError for a question that is empty or holds a lone surrogate, which no
    tokenizer can read.
    """
    if isinstance(question, str):
        found: list[Message] = [{"role": "user", "content": question}]
    elif _is_list(question) and question and all(isinstance(one, Mapping) for one in question):
        found = list(question)
    else:
        raise ParamError(f"{name} is {question!r:.40} ({type(question).__name__}): give {EXPECTED}")
    for message in found:
        for text in message.values():
            if isinstance(text, str):
                check_unicode(text, name)
    last = found[-1].get("content")
    if isinstance(last, str) and not last.strip():
        raise DataError(f"{name} is empty: give its text")
    return found


def several(questions: Any) -> list[Any] | None:
    """The questions of a list of them; None for a single question. Raises ParamError for what is neither."""
    if isinstance(questions, str):
        return None
    if not _is_list(questions):
        kind = type(questions).__name__
        raise ParamError(f"questions is {questions!r:.40} ({kind}): give {EXPECTED}, or a list of these")
    return None if questions and isinstance(questions[0], Mapping) else list(questions)


def check_unicode(text: str, name: str) -> None:
    """Raises DataError with the place of a lone surrogate: bad UTF-8 in an argument, or half a pair in JSON."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{name} is not valid Unicode (character {error.start + 1}): give it as UTF-8 text") from None


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray)
