from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen3Config
from worlds import STYLE, WORLD

from qthink_core.benchmarks.generated import TASKS, worked
from qthink_core.benchmarks.generated.chains import thought, values
from qthink_core.benchmarks.graders import grader
from qthink_core.models.tiny_tokenizer import CHAT_TEMPLATE, SUPERWORDS, build

MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build(WORLD, STYLE.opening)


def rendered(tokenizer: PreTrainedTokenizerFast, *turns: tuple[str, str], **options: bool) -> str:
    messages = [{"role": role, "content": content} for role, content in turns]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, **options))


# Lone surrogates are not text; every other character is.
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(text=ANY_TEXT | st.lists(st.sampled_from([*SUPERWORDS, *MARKS, " 7", "\n"]) | ANY_TEXT).map("".join))
def test_any_text_comes_back_unchanged(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@settings(max_examples=100, deadline=None)
@given(question=ANY_TEXT, thinking=st.booleans())
def test_the_rendered_chat_has_the_tokens_of_the_template(
    tokenizer: PreTrainedTokenizerFast, question: str, thinking: bool
) -> None:
    messages = [{"role": "user", "content": question}]
    options = {"add_generation_prompt": True, "enable_thinking": thinking}
    direct = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, **options)["input_ids"]
    assert tokenizer(rendered(tokenizer, ("user", question), **options))["input_ids"] == direct


def test_each_mark_is_one_token_and_decoding_keeps_only_the_think_marks(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    ids = tokenizer("".join(MARKS))["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == list(MARKS)
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<think></think>"
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")


def test_without_thinking_the_prompt_ends_in_an_empty_block(tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n"
    turn = ("user", "1+1?")
    assert rendered(tokenizer, turn, add_generation_prompt=True) == prompt
    assert rendered(tokenizer, turn, add_generation_prompt=True, enable_thinking=True) == prompt
    assert rendered(tokenizer, turn, add_generation_prompt=True, enable_thinking=False) == prompt + "<think>\n\n</think>\n\n"


def test_the_thought_of_the_last_reply_stays_and_that_of_an_earlier_one_goes(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    reply = ("assistant", "<think>\n1+1=2\n</think>\n\n2")
    assert rendered(tokenizer, ("user", "a"), reply, ("user", "b"), reply) == (
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n2<|im_end|>\n"
        "<|im_start|>user\nb<|im_end|>\n<|im_start|>assistant\n<think>\n1+1=2\n</think>\n\n2<|im_end|>\n"
    )


@pytest.mark.parametrize("task", TASKS)
def test_a_generated_chat_is_whole_words_of_the_vocabulary(tokenizer: PreTrainedTokenizerFast, task: str) -> None:
    n_bytes = 256
    for index, problem in enumerate(worked(task, "test", 100, seed=5, world=WORLD)):
        question = grader(task).problem(problem.row, index, "test").question
        text = rendered(tokenizer, ("user", question), ("assistant", problem.answer(7)))
        pieces = tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])
        in_bytes = [piece for piece in pieces if tokenizer.convert_tokens_to_ids(piece) < n_bytes and piece.isalpha()]
        assert set(in_bytes) <= {"Ċ", "Ġ"}


def test_a_fixed_passage_is_one_token(tokenizer: PreTrainedTokenizerFast) -> None:
    assert [len(tokenizer(superword)["input_ids"]) for superword in SUPERWORDS] == [1] * len(SUPERWORDS)


def test_numbers_below_a_hundred_are_one_token_each(tokenizer: PreTrainedTokenizerFast) -> None:
    for number in range(100):
        assert [len(tokenizer(text)["input_ids"]) for text in (f"{number}", f" {number}")] == [1, 1]


def test_every_build_saves_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("first", "second"):
        build(WORLD, STYLE.opening).save_pretrained(tmp_path / folder)
    files = sorted(file.name for file in (tmp_path / "first").iterdir())
    assert files == ["chat_template.jinja", "tokenizer.json", "tokenizer_config.json"]
    assert all((tmp_path / "first" / f).read_bytes() == (tmp_path / "second" / f).read_bytes() for f in files)


def test_beside_a_qwen3_config_it_is_not_taken_for_the_qwen_tokenizer(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """transformers 5 swaps in the class it registers for the model type unless the saved class is a generic one."""
    tokenizer.save_pretrained(tmp_path)
    Qwen3Config(vocab_size=len(tokenizer)).save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.chat_template == CHAT_TEMPLATE
    for task in TASKS:
        for problem in worked(task, "test", 5, seed=6, world=WORLD):
            text = thought(values(problem.steps), STYLE.opening)
            assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
            answer = f"Größe 7\n{problem.answer(7)}"
            assert loaded(answer) == tokenizer(answer)


@pytest.mark.parametrize("task", TASKS)
def test_one_change_is_one_token_of_the_question_and_one_of_the_thought(
    tokenizer: PreTrainedTokenizerFast, task: str
) -> None:
    """With one change less the question has one token less, and so has the thought; the run of brackets stays one."""
    shorter = WORLD.model_copy(update={"changes": WORLD.changes - 1})
    for world, n_changes in ((WORLD, 4), (shorter, 3)):
        for index, problem in enumerate(worked(task, "test", 50, seed=5, world=world)):
            question = grader(task).problem(problem.row, index, "test").question
            pieces = [tokenizer.decode([token]) for token in tokenizer(question)["input_ids"]]
            changes = [piece for piece in pieces if piece.startswith((", ", "+", "-", "\\cdot", "\\div"))]
            assert len(changes) == n_changes
            assert len(tokenizer(thought(values(problem.steps), STYLE.opening))["input_ids"]) == n_changes + 2
