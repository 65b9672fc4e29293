"""LatentReasoner: the answers of the engine and of the model card's loop, whatever is asked together, and how they end."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import plain, published
from engines import answer

from qthink_core import LatentReasoner
from qthink_core.errors import DataError, NumericError, ParamError
from qthink_core.generation.hf_engine import HFEngine
from qthink_core.inference import checkpoint
from qthink_core.inference.evaluation import contestants
from qthink_core.inference.evaluation.contestants import How

LIMIT = 12
QUESTIONS = [
    "Tom has 8 apples, buys 3, loses half. How many apples does Tom have?",
    "Who?",
    "Compute (((2+3)-1)+4).",
    "Say nothing, or something else, but say it at some length so that this prompt is longer than the others.",
    "Why?",
]


def by_the_card(reasoner: LatentReasoner, question: str, K: int, limit: int) -> tuple[list[int], list[Any], list[Any]]:
    """The loop of the published usage snippet for one question: tokens, latent inputs, hidden states."""
    model, head, tokenizer = reasoner.system.model, reasoner.system.head, reasoner.system.tokenizer
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    latents, states = [], []
    with torch.no_grad():
        out = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True, use_cache=True)
        for _ in range(K):
            latents.append(head(out.hidden_states[-1][:, -1]))
            out = model(
                inputs_embeds=latents[-1][:, None],
                past_key_values=out.past_key_values,
                output_hidden_states=True,
                use_cache=True,
            )
            states.append(out.hidden_states[-1][:, -1])
        tokens = [int(out.logits[:, -1].argmax(-1))]
        while tokens[-1] != tokenizer.eos_token_id and len(tokens) < limit:
            out = model(input_ids=torch.tensor([tokens[-1:]]), past_key_values=out.past_key_values, use_cache=True)
            tokens.append(int(out.logits[:, -1].argmax(-1)))
    return tokens, latents, states


@pytest.mark.slow
@pytest.mark.parametrize("K", [0, 1, 6])
@pytest.mark.parametrize("batch", [1, 2, 16])
def test_tokens_and_latents_are_those_of_the_model_cards_loop_for_each_question_alone(
    folder: Path, K: int, batch: int
) -> None:
    reasoner = LatentReasoner.from_pretrained(folder, K)
    found = reasoner.generate(QUESTIONS, max_new_tokens=LIMIT, batch=batch)
    for question, response in zip(QUESTIONS, found, strict=True):
        tokens, latents, _ = by_the_card(reasoner, question, K, LIMIT)
        assert response.token_ids == tokens
        assert response.text == reasoner.system.tokenizer.decode(tokens, skip_special_tokens=True)
        assert response.latents.shape == (K, 32)
        for z_D, expected_1D in zip(response.latents, latents, strict=True):
            np.testing.assert_allclose(z_D, expected_1D[0], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_the_latents_change_the_answers(shared_folder: Path) -> None:
    """Otherwise the parity above would hold for a loop without latent steps."""
    found = [LatentReasoner.from_pretrained(shared_folder, K).generate(QUESTIONS, max_new_tokens=LIMIT) for K in (6, 0)]
    assert all(one.token_ids != other.token_ids for one, other in zip(*found, strict=True))


@pytest.mark.slow
def test_the_engine_of_the_pipeline_gives_the_same_tokens(reasoner: LatentReasoner) -> None:
    prompts = {question: reasoner.prompt(question) for question in QUESTIONS}
    expected = {row.problem_id: row for row in answer(HFEngine(reasoner.system, LIMIT), prompts)}
    found = reasoner.generate(QUESTIONS, max_new_tokens=LIMIT)
    assert [one.token_ids for one in found] == [expected[question].tokens for question in QUESTIONS]
    assert [one.finish for one in found] == [expected[question].finish for question in QUESTIONS]


def test_a_readout_is_the_output_heads_softmax_of_the_hidden_state(reasoner: LatentReasoner) -> None:
    response = reasoner.generate(QUESTIONS[0], max_new_tokens=1, top=3)
    _, _, states = by_the_card(reasoner, QUESTIONS[0], 6, 1)
    assert len(response.readout) == 6
    for step, state in zip(response.readout, states, strict=True):
        probability_V = reasoner.system.model.lm_head(state)[0].softmax(-1).detach()
        for (token, value), rank in zip(step, probability_V.argsort(descending=True)[:3], strict=True):
            assert token == reasoner.system.tokenizer.decode([int(rank)])
            assert value == pytest.approx(float(probability_V[rank]), rel=1e-5)


@pytest.mark.slow
def test_streamed_pieces_join_to_the_text_of_the_response(reasoner: LatentReasoner) -> None:
    for question in QUESTIONS:
        stream = reasoner.stream(question, max_new_tokens=LIMIT)
        with pytest.raises(ParamError, match="read all its pieces first"):
            _ = stream.response
        pieces = list(stream)
        whole = reasoner.generate(question, max_new_tokens=LIMIT)
        assert "".join(pieces) == whole.text == stream.response.text
        assert stream.response.token_ids == whole.token_ids
        assert len(pieces) > 1


@pytest.mark.slow
def test_a_sampled_answer_depends_on_seed_and_place_not_on_the_batch(reasoner: LatentReasoner) -> None:
    settings = {"max_new_tokens": LIMIT, "temperature": 1.5}
    together, in_pairs = (reasoner.generate(QUESTIONS, batch=batch, seed=1, **settings) for batch in (16, 2))
    assert [one.token_ids for one in together] == [one.token_ids for one in in_pairs]
    other = reasoner.generate(QUESTIONS, seed=2, **settings)
    assert [one.token_ids for one in together] != [one.token_ids for one in other]
    same = reasoner.generate([QUESTIONS[0]] * 4, seed=1, **settings)
    assert len({tuple(one.token_ids) for one in same}) > 1


def test_top_k_of_one_is_greedy(reasoner: LatentReasoner) -> None:
    found, expected = (
        reasoner.generate(QUESTIONS, max_new_tokens=LIMIT, **how) for how in ({"temperature": 2.0, "top_k": 1}, {})
    )
    assert [one.token_ids for one in found] == [one.token_ids for one in expected]


def test_a_stop_string_ends_one_answer_and_no_other(reasoner: LatentReasoner) -> None:
    plain = reasoner.generate(QUESTIONS, max_new_tokens=LIMIT)
    stop = plain[0].text[5:8]
    found = reasoner.generate(QUESTIONS, max_new_tokens=LIMIT, stop=(stop,))
    for one, before in zip(found, plain, strict=True):
        assert one.text == before.text.split(stop)[0]
        assert one.token_ids == before.token_ids[: len(one.token_ids)]
        assert one.finish == ("stop" if stop in before.text else before.finish)
    assert len(found[0].token_ids) < len(plain[0].token_ids)
    assert "".join(reasoner.stream(QUESTIONS[0], max_new_tokens=LIMIT, stop=(stop,))) == found[0].text


@pytest.mark.slow
def test_messages_are_rendered_by_the_chat_template(reasoner: LatentReasoner) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}]
    one = reasoner.generate(messages, max_new_tokens=LIMIT)
    assert one.prompt_tokens > reasoner.generate("Who?", max_new_tokens=LIMIT).prompt_tokens
    assert [one.token_ids] == [row.token_ids for row in reasoner.generate([messages], max_new_tokens=LIMIT)]
    asked = [{"role": "user", "content": "Who?"}]
    assert reasoner.prompt(asked) == reasoner.prompt("Who?")


@pytest.mark.slow
def test_without_a_limit_an_answer_may_fill_the_positions_that_are_left(qwen3: Any, tokenizer: Any, tmp_path: Path) -> None:
    """Long and short prompts in one batch: each has a limit of its own."""
    model = qwen3("float64", max_position_embeddings=64)
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] = 0  # it never ends by itself, except at negative logits alone
    reasoner = LatentReasoner.from_pretrained(plain(tmp_path / "plain", model, tokenizer), thinking=False)
    for response in reasoner.generate(QUESTIONS[:3]):
        assert response.finish == "length"
        assert response.prompt_tokens + response.new_tokens == 64


def test_a_prompt_that_does_not_fit_is_refused_before_anything_is_answered(
    qwen3: Any, tokenizer: Any, tmp_path: Path
) -> None:
    folder = plain(tmp_path / "plain", qwen3(max_position_embeddings=64), tokenizer)
    reasoner = LatentReasoner.from_pretrained(folder)
    with pytest.raises(DataError, match=r"^question 2 has a prompt of \d+ tokens, .* only 64 positions: shorten"):
        reasoner.generate(["Who?", "word " * 80])
    with pytest.raises(ParamError, match=r"positions left for an answer: allow no more new tokens than that"):
        reasoner.generate("Who?", max_new_tokens=64)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0: give a number above 0"),
        ({"max_new_tokens": -3}, "max_new_tokens is -3"),
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": 1e-40}, r"temperature is 1e-40: give 0 \(greedy\), or a number from 0.001 on"),
        ({"max_new_tokens": "5"}, "max_new_tokens is '5': give a whole number"),
        ({"seed": 1.5}, "seed is 1.5: give a whole number"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"top_k": -1}, "top_k is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"stop": ("",)}, "stop has an empty text"),
        ({"stop": "half"}, "stop is 'half': give a tuple of strings"),
        ({"stop": (3,)}, r"stop is \(3,\): give a tuple of strings"),
        ({"stop": 3}, "stop is 3: give a tuple of strings"),
        ({"top_p": 0.5}, "^top_p is 0.5 but temperature is 0, which takes the most likely token: give a temperature"),
        ({"top_k": 5}, "^top_k is 5 but temperature is 0"),
        ({"seed": 1}, "^seed is 1 but temperature is 0"),
        (
            {"max_tokens": 3},
            "^max_tokens is not a setting: give some of max_new_tokens, temperature, top_p, top_k, seed, stop",
        ),
        ({"batch": "3"}, "batch is '3': give a whole number above 0"),
        ({"top": -1}, "top is -1"),
        ({"batch": 0}, "batch is 0"),
    ],
)
def test_a_setting_out_of_range_is_named(reasoner: LatentReasoner, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamError, match=message):
        reasoner.generate("Who?", **settings)
    if "batch" not in settings:
        with pytest.raises(ParamError, match=message):
            reasoner.stream("Who?", **settings)


@pytest.mark.parametrize(
    ("questions", "kind", "message"),
    [
        (3, ParamError, r"^questions is 3 \(int\): give a text, or a list of messages such as .*, or a list of these$"),
        (b"x", ParamError, r"^questions is b'x' \(bytes\): give a text"),
        (None, ParamError, r"^questions is None \(NoneType\)"),
        ({"role": "user", "content": "a"}, ParamError, r"^questions is \{'role': .* \(dict\): give a text"),
        ((text for text in "ab"), ParamError, r"^questions is <generator .* \(generator\): give a text"),
        (["a", 3], ParamError, r"^question 2 is 3 \(int\): give a text, or a list of messages"),
        ([["a"]], ParamError, r"^question 1 is \['a'\] \(list\)"),
        (["a", []], ParamError, r"^question 2 is \[\] \(list\)"),
        ([{"role": "user", "content": "a"}, "b"], ParamError, r"^the question is \[\{'role'"),
        ("", DataError, "^the question is empty: give its text$"),
        ([" \n"], DataError, "^question 1 is empty"),
        (
            [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " "}],
            DataError,
            "^the question is empty",
        ),
        ("abc\ud800", DataError, r"^the question is not valid Unicode \(character 4\): give it as UTF-8 text$"),
        (["a", "\udfff"], DataError, r"^question 2 is not valid Unicode \(character 1\)"),
        ([{"role": "user", "content": "ab\ud800"}], DataError, r"^the question is not valid Unicode \(character 3\)"),
    ],
)
def test_what_is_no_question_is_named_with_what_is_expected(
    reasoner: LatentReasoner, questions: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        reasoner.generate(questions)


def test_no_questions_have_no_answers(reasoner: LatentReasoner) -> None:
    assert reasoner.generate([]) == []


def test_messages_that_the_template_does_not_take_are_one_line(reasoner: LatentReasoner) -> None:
    with pytest.raises(DataError, match=r"^the chat template of .* does not take these messages"):
        reasoner.generate([{"role": "user"}])


def test_a_hidden_state_that_is_not_finite_names_the_question_and_the_step(folder: Path) -> None:
    reasoner = LatentReasoner.from_pretrained(folder)
    assert reasoner.system.head is not None
    with torch.no_grad():
        reasoner.system.head.mlp[3].bias[0] = float("inf")
    with pytest.raises(NumericError, match=r"^question 1 has a hidden state that is not finite at latent step 1"):
        reasoner.generate("Who?")


@pytest.mark.slow
def test_the_thinking_prompt_of_a_plain_model_is_the_default_and_can_be_switched_off(
    qwen3: Any, tokenizer: Any, tmp_path: Path
) -> None:
    folder = plain(tmp_path / "plain", qwen3(), tokenizer)
    thinking, direct = (LatentReasoner.from_pretrained(folder, thinking=flag).prompt("Who?") for flag in (None, False))
    end = tokenizer.encode("<think>\n\n</think>\n\n", add_special_tokens=False)
    assert direct == [*thinking, *end]


@pytest.mark.slow
def test_the_published_layout_needs_k_and_then_answers_like_an_export(
    folder: Path, qwen3: Any, tokenizer: Any, random_head: Any, tmp_path: Path
) -> None:
    bare = published(tmp_path / "published", qwen3("float64"), tokenizer, random_head(dtype="float64"))
    with pytest.raises(ParamError, match=r"would say the number of latent steps: give it \(K=6 in Python, --latents 6"):
        LatentReasoner.from_pretrained(bare)
    found, expected = (
        one.generate(QUESTIONS, max_new_tokens=LIMIT)
        for one in (LatentReasoner.from_pretrained(bare, K=6), LatentReasoner.from_pretrained(folder))
    )
    assert [one.token_ids for one in found] == [one.token_ids for one in expected]


@pytest.mark.slow
@pytest.mark.parametrize("listed", [True, False])
def test_every_end_token_of_the_generation_config_ends_an_answer_here_and_in_an_evaluation(
    folder: Path, listed: bool
) -> None:
    """Where there is no generation config, transformers takes the end tokens of config.json."""
    whole = LatentReasoner.from_pretrained(folder).generate(QUESTIONS, max_new_tokens=LIMIT)
    other = whole[0].token_ids[4]
    config = folder / ("generation_config.json" if listed else "config.json")
    if not listed:
        (folder / "generation_config.json").unlink()
    ends = [json.loads(config.read_text())["eos_token_id"], other]
    config.write_text(json.dumps(json.loads(config.read_text()) | {"eos_token_id": ends}))
    reasoner = LatentReasoner.from_pretrained(folder)
    found = reasoner.generate(QUESTIONS, max_new_tokens=LIMIT)
    for one, before in zip(found, whole, strict=True):
        last = next((i for i, token in enumerate(before.token_ids, 1) if token in ends), LIMIT)
        assert one.token_ids == before.token_ids[:last]
        assert one.finish == ("stop" if before.token_ids[last - 1] in ends else "length")
    assert len(found[0].token_ids) < len(whole[0].token_ids)
    prompts = {question: reasoner.prompt(question) for question in QUESTIONS}
    measured = contestants.load(checkpoint.find(folder), How())
    rows = {row.problem_id: row for row in answer(HFEngine(measured, LIMIT), prompts)}
    assert [(rows[q].tokens, rows[q].finish) for q in QUESTIONS] == [(one.token_ids, one.finish) for one in found]


@pytest.mark.parametrize("ends", ["x", [[3]], [True], 2.5])
def test_end_tokens_that_are_not_tokens_are_one_line(folder: Path, ends: Any) -> None:
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": ends}))
    with pytest.raises(DataError, match=r"generation_config\.json has the eos_token_id|cannot be loaded") as caught:
        LatentReasoner.from_pretrained(folder)
    assert "\n" not in str(caught.value)


def test_a_readout_of_more_tokens_than_there_are_has_them_all(reasoner: LatentReasoner) -> None:
    response = reasoner.generate("Who?", max_new_tokens=1, top=10**6)
    assert {len(step) for step in response.readout} == {len(reasoner.system.tokenizer)}
