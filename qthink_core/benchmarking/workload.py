"""Workloads: models of random weights and problems of random tokens, the same for the same seed on every machine."""

from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from qthink_core.artifacts.rollouts import Rollout
from qthink_core.benchmarking.timing import Device
from qthink_core.method.extraction import Row
from qthink_core.method.positions import evenly
from qthink_core.method.projection_head import ProjectionHead
from qthink_core.method.targets import Example
from qthink_core.planning.cost import Shape

PAD, EOS = 0, 1
FIRST = 2  # the first token that is neither
# The ratio of output head to body is Qwen3-1.7B's at a vocabulary of 4,096; 10.2 million parameters.
SMALL = Shape(4, 384, 6, 3, 64, 1152, 4096, tied=False)
# Of params/tiny.yaml.
TINY = Shape(2, 96, 3, 3, 32, 192, 320)
USUAL_STD = 0.02
# Weights of models that answer are drawn wide, so that greedy text neither repeats one token nor depends on rounding. The
# end token's row of the output head is longer than the others, so that answers end, each after its own length.
SPREAD, EOS_LENGTH = 1.13, 1.5
MAX_POSITIONS = 8192
CPU = Device()


class Sizes(NamedTuple):
    """How much is computed, and where.

    `problems` of `G` rollouts each; mean tokens of `prompt`, `thought` and `answer`; K latent steps; `batch_tokens` of
    extraction; `micro_batch` of training; `questions` to answer and to probe; the largest number of tokens in an answer.
    Lengths are all those means unless they are `varied`. The model is `on` a device.
    """

    problems: int
    G: int
    prompt: int
    thought: int
    answer: int
    K: int
    batch_tokens: int
    micro_batch: int
    questions: int
    max_new_tokens: int
    seed: int = 0
    varied: bool = True
    on: Device = CPU


class Problem(NamedTuple):
    """A prompt, the thoughts of its rollouts, and an answer, as token ids."""

    prompt: list[int]
    thoughts: list[list[int]]
    answer: list[int]


class NoText:
    """A tokenizer that writes no text, so that what is measured is the model; it knows the ids that end and pad."""

    eos_token_id, pad_token_id = EOS, PAD

    def decode(self, tokens: Any, skip_special_tokens: bool = False) -> str:
        """Nothing."""
        return ""

    def batch_decode(self, rows: Any) -> list[str]:
        """Nothing for each row."""
        return [""] * len(rows)


def model_of(shape: Shape, seed: int = 0, on: Device = CPU, lively: bool = True) -> Qwen3ForCausalLM:
    """A Qwen3 of a shape with random weights, in evaluation mode; `lively` gives varied answers that end.

    A chain of latent steps of a lively model amplifies rounding, so a model that is trained has the usual weights.
    """
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(config_of(shape, SPREAD / shape.hidden**0.5 if lively else USUAL_STD))
    if lively:
        with torch.no_grad():
            model.lm_head.weight[EOS] *= EOS_LENGTH
    return on.put(model.eval())


def config_of(shape: Shape, std: float = USUAL_STD) -> Qwen3Config:
    """The config of a Qwen3 of a shape; `std` is that of its random weights."""
    return Qwen3Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=MAX_POSITIONS,
        initializer_range=std,
        bos_token_id=None,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )


def head_of(shape: Shape, seed: int = 0, on: Device = CPU) -> ProjectionHead:
    """A projection head with random weights, in evaluation mode."""
    torch.manual_seed(seed + 1)
    return on.put(ProjectionHead(shape.hidden).eval())


def problems_of(shape: Shape, sizes: Sizes) -> list[Problem]:
    """Problems of random tokens.

    Lengths of prompts and answers are uniform between half and one and a half of their mean. Those of thoughts are
    log-normal with a standard deviation of 0.5 in the logarithm, at most four times their mean.
    """
    rng = np.random.default_rng([sizes.seed, 1])

    def tokens(n: int) -> list[int]:
        return rng.integers(FIRST, shape.vocabulary, n).tolist()

    def even(mean: int) -> int:
        if not sizes.varied:
            return mean
        return int(rng.integers(max(mean // 2, 1), mean + mean // 2 + 1))

    def long(mean: int) -> int:
        if not sizes.varied:
            return mean
        return int(np.clip(rng.lognormal(np.log(mean) - 0.125, 0.5), sizes.K, 4 * mean))

    def thoughts() -> list[list[int]]:
        return [tokens(long(sizes.thought)) for _ in range(sizes.G)]

    return [Problem(tokens(even(sizes.prompt)), thoughts(), tokens(even(sizes.answer))) for _ in range(sizes.problems)]


def rows_of(problems: list[Problem], K: int) -> list[Row]:
    """Every rollout with its K even positions, as `extraction.select` gives them."""
    return [
        Row(
            Rollout(thought, "", "stop", problem_id=f"p{number:05d}", rollout=index),
            len(thought),
            [*one.prompt, *thought],
            [len(one.prompt) + at for at in evenly(len(thought), K)],
            len(one.prompt),
        )
        for number, one in enumerate(problems)
        for index, thought in enumerate(one.thoughts)
    ]


def examples_of(problems: list[Problem]) -> list[Example]:
    """Every problem as a training example."""
    return [Example(f"p{number:05d}", one.prompt, one.answer) for number, one in enumerate(problems)]


def prompts_of(shape: Shape, sizes: Sizes, n: int) -> dict[str, list[int]]:
    """n prompts by name, the shortest first, as `evaluate` batches them."""
    asked = problems_of(shape, sizes._replace(problems=n, G=0))
    return {f"q{number:05d}": one for number, one in enumerate(sorted((one.prompt for one in asked), key=len))}
