"""Chat template and tokenizer in one process with limits: the line blames the one that failed."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from qthink_core.benchmarks import bounded_rendering
from qthink_core.benchmarks.bounded_rendering import Conversation, TemplateError, TokenizerError, encoded
from qthink_core.errors import DataError

MOST = 1000
ASKED = [Conversation([{"role": "user", "content": "Why?"}], {})] * 2
LIMITS = r"takes more than 1 s, 1 GiB of memory or 0 MiB of text for a short conversation: take another model$"


class Model:
    """A tokenizer of transformers, as far as prompts need it."""

    def __init__(
        self, template: Callable[[], str], tokens: Callable[[str], list[int]] = lambda text: [*text.encode()]
    ) -> None:
        self.template, self.tokens = template, tokens

    def apply_chat_template(self, messages: list[dict[str, str]], tokenize: bool) -> str:
        assert not tokenize
        return f"{messages[0]['content']}{self.template()}"

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        assert not add_special_tokens
        return {"input_ids": self.tokens(text)}


def fails(*_: object) -> Any:
    raise KeyError("no\nway")


def works(*_: object) -> Any:
    while True:
        pass


def takes(*_: object) -> Any:
    return len(bytes(2 << 30))


def busy(seconds: float) -> str:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return "!"


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_rendering, "SECONDS", 1)
    monkeypatch.setattr(bounded_rendering, "MAX_REPLY_BYTES", MOST)


def test_a_prompt_is_the_tokens_of_what_the_template_writes() -> None:
    assert encoded(Model(lambda: "!"), "m", ASKED) == [[*b"Why?!"]] * 2


@pytest.mark.parametrize(
    ("model", "error", "said"),
    [
        (Model(fails), TemplateError, r"^the chat template of m cannot be used \('no"),
        (Model(lambda: "!", fails), TokenizerError, r"^the tokenizer of m cannot be used \('no"),
        (Model(lambda: "\ud800"), TemplateError, r"^the chat template of m cannot be used \('utf-8' codec"),
        (Model(takes), DataError, f"^the chat template of m {LIMITS}"),
        (Model(lambda: "!", takes), DataError, f"^the tokenizer of m {LIMITS}"),
        (Model(lambda: "a" * MOST, lambda _: []), DataError, f"^the chat template of m {LIMITS}"),
        (Model(lambda: "!", lambda _: [7] * MOST), DataError, f"^the tokenizer of m {LIMITS}"),
        pytest.param(Model(lambda: "!", works), DataError, f"^the tokenizer of m {LIMITS}", marks=pytest.mark.slow),
    ],
    ids=[
        "raises",
        "raises in the tokenizer",
        "a surrogate",
        "memory",
        "memory of the tokenizer",
        "text",
        "ids",
        "its time",
    ],
)
def test_the_line_blames_what_failed(model: Model, error: type[DataError], said: str) -> None:
    with pytest.raises(error, match=said) as found:
        encoded(model, "m", ASKED)
    assert type(found.value) is error
    assert "\n" not in str(found.value)


@pytest.mark.slow
def test_a_tokenizer_has_its_own_time_after_a_slow_template() -> None:
    model = Model(lambda: busy(0.35), lambda text: [len(text + busy(0.35))])
    assert encoded(model, "m", ASKED) == [[6]] * 2
