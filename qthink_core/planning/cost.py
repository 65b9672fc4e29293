"""Cost: what a stage computes, moves and stores, from shapes and counts alone, and how long a device takes for it.

The formulas, the default efficiencies and what they were compared with are in docs/decisions/cost-model.md.
Counts are floats: they are estimates. Letters as everywhere: N sequences, G rollouts, K latent steps, D hidden size.
"""

from collections.abc import Collection
from typing import NamedTuple

# Shares of the floor's speed that a good implementation reaches, before anything was measured.
SAMPLING, EXTRACTION, TRAINING = 0.35, 0.50, 0.30

# Python issues the kernels of one layer in this time, on a fast host as on a slow one: the least that a pass takes.
LAYER_PASS_S = 3e-4
# A backward pass issues two kernels for each of the forward one's.
TRAINING_PASSES = 3
FLOAT32_BYTES = 4


class Shape(NamedTuple):
    """A decoder of the Llama and Qwen3 families: gated MLP, grouped-query attention; `tied`: one matrix for both ends."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool = True


class Device(NamedTuple):
    """Peak dense matrix products in FLOP/s by dtype, memory bandwidth in bytes/s, memory in bytes."""

    peak: dict[str, float]
    bandwidth: float
    memory: float


# NVIDIA's data sheets: H100 SXM, A100 80 GB SXM, RTX 4090 (bfloat16 with float32 sums, no sparsity; float32 without TF32).
GPUS = {
    "h100": Device({"bfloat16": 989e12, "float32": 67e12}, 3.35e12, 80e9),
    "a100": Device({"bfloat16": 312e12, "float32": 19.5e12}, 2.039e12, 80e9),
    "4090": Device({"bfloat16": 165e12, "float32": 82.6e12}, 1.008e12, 24e9),
}
# One thread with AVX2 at 2.8 GHz, always in float32; an AMD EPYC measured 96 GFLOP/s and 17 GB/s, alone on its machine.
THREAD_FLOPS = 90e9
CPU_BANDWIDTH = 10e9


class Work(NamedTuple):
    """Tokens read or generated, FLOPs, bytes of keys and values read, and what batches of a certain size add to them:
    bytes of weights read, and passes through one layer.
    """

    tokens: float = 0.0
    flops: float = 0.0
    moved: float = 0.0
    weights: float = 0.0
    passes: float = 0.0

    def __add__(self, other: "Work") -> "Work":  # type: ignore[override]
        return Work(*(mine + its for mine, its in zip(self, other, strict=True)))

    def times(self, n: float) -> "Work":
        """The same work n times."""
        return Work(*(part * n for part in self))


def cpu(threads: int, memory: float) -> Device:
    """A processor with AVX2 that computes on some threads."""
    return Device(dict.fromkeys(("bfloat16", "float32"), threads * THREAD_FLOPS), CPU_BANDWIDTH, memory)


def body(shape: Shape) -> int:
    """The weights of all layers, without norms, embedding and output head."""
    attention = 2 * shape.hidden * shape.head_dim * (shape.heads + shape.kv_heads)
    return shape.layers * (attention + 3 * shape.hidden * shape.intermediate)


def output_head(shape: Shape) -> int:
    """The weights of the output head, V * D."""
    return shape.vocabulary * shape.hidden


def parameters(shape: Shape) -> int:
    """All weights, the embedding once more where the output head has a matrix of its own."""
    return body(shape) + output_head(shape) * (1 if shape.tied else 2)


def kv_bytes(shape: Shape, width: int) -> int:
    """Bytes of keys and values that one token leaves in the cache; `width` is the bytes of a number."""
    return shape.layers * 2 * shape.kv_heads * shape.head_dim * width


def attention_flops(shape: Shape, context: float) -> float:
    """FLOPs of one token's attention to `context` others: scores and weighted sum, 2 * 2 * heads * head_dim each layer."""
    return 4.0 * shape.layers * shape.heads * shape.head_dim * context


def decoding(
    shape: Shape, rows: float, prompt: float, generated: float, width: int, steps: float = 0.0, launched: float = 0.0
) -> Work:
    """Work of generating tokens behind prompts that were read: rows * S tokens through body and output head.

    Token i reads the keys and values of prompt + i tokens, so S tokens read S * (P + S/2) of them. `steps` counts the
    passes of all batches, each of which reads all weights (0: batches without end); `launched` those of them that Python
    launches layer by layer, where no engine replays captured ones.
    """
    tokens = rows * generated
    return Work(
        tokens,
        2.0 * (body(shape) + output_head(shape)) * tokens,
        tokens * (prompt + generated / 2) * kv_bytes(shape, width),
        steps * parameters(shape) * width,
        launched * shape.layers,
    )


def reading(shape: Shape, sequences: float, length: float, passes: float) -> Work:
    """Work of reading sequences through the body alone, in `passes` batches: 2 FLOPs a weight and token, and attention."""
    tokens = sequences * length
    flops = tokens * (2.0 * body(shape) + attention_flops(shape, length / 2))
    return Work(tokens, flops, passes=passes * shape.layers)


def training(shape: Shape, sequences: float, length: float, passes: float) -> Work:
    """Work of training steps on sequences, in `passes` forward passes: 6 FLOPs a weight of the body and token.

    The output head on the answers (a tenth) is left out, and the gradients of frozen weights (a third) are not taken off.
    """
    tokens = sequences * length
    return Work(tokens, 6.0 * body(shape) * tokens, passes=passes * TRAINING_PASSES * shape.layers)


def hidden_bytes(N: float, G: int, K: int, D: int, width: int) -> float:
    """Bytes of K hidden states of each rollout."""
    return N * G * K * D * width


def adapted(shape: Shape, targets: str | Collection[str]) -> Collection[str]:
    """The names of the linear layers that get an adapter; as text the targets are PEFT's `all-linear`."""
    return list(adapted_inputs(shape)) if isinstance(targets, str) else targets


def lora_parameters(shape: Shape, r: int, targets: str | Collection[str]) -> int:
    """Weights of the LoRA adapters: r * (inputs + outputs) of every linear layer that gets one."""
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    outputs = {
        "q_proj": queries,
        "k_proj": keys,
        "v_proj": keys,
        "o_proj": shape.hidden,
        "gate_proj": shape.intermediate,
        "up_proj": shape.intermediate,
        "down_proj": shape.hidden,
    }
    inputs = adapted_inputs(shape)
    return shape.layers * r * sum(inputs[name] + outputs[name] for name in adapted(shape, targets))


def adapted_inputs(shape: Shape) -> dict[str, int]:
    """The width of what each linear layer reads that may get an adapter."""
    before = dict.fromkeys(("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"), shape.hidden)
    return before | {"o_proj": shape.heads * shape.head_dim, "down_proj": shape.intermediate}


def projection_parameters(D: int) -> int:
    """Weights of the projection head: two linear layers with bias and a norm."""
    return 2 * (D * D + D) + 2 * D


def kept_bytes(shape: Shape, r: int, targets: str | Collection[str], width: int) -> int:
    """Bytes that reading a token leaves of one layer for the backward pass, in a batch with padding.

    In the model's type: queries, the keys and values that attention repeats for every head, its output, three vectors of
    the MLP. In float32: what the norms read (Qwen3's of queries and keys too), and r numbers of each adapter. PEFT casts
    the input of each adapter to float32 for it alone; where it is float32, adapters of one input share it.
    """
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    inputs, names = adapted_inputs(shape), set(adapted(shape, targets))
    if width < FLOAT32_BYTES:
        cast = sum(inputs[name] for name in names)
    else:
        # what the output projection reads is attention's output, which is counted
        shared = ({"q_proj", "k_proj", "v_proj"}, {"gate_proj", "up_proj"}, {"down_proj"})
        cast = sum(inputs[min(alike)] for alike in shared if alike & names)
    normed = 2 * shape.hidden + queries + keys
    return (4 * queries + 3 * shape.intermediate) * width + (normed + cast + r * len(names)) * FLOAT32_BYTES


def training_memory(
    shape: Shape,
    rows: int,
    prompt: int,
    written: int,
    K: int,
    logits: int,
    r: int,
    targets: str | Collection[str],
    width: int,
) -> float:
    """Bytes that a micro-batch of rows of `prompt + K + written` tokens takes when its backward pass begins.

    Each layer keeps its tokens, a number for each pair of them (the mask that attention is given), and, since every latent
    step reads a longer copy of keys and values, K copies more. The last layer, which keeps little of the prompt, is counted
    as the others. The logits of `logits` target tokens are there three times in
    float32: log-probabilities, their gradient, and that of the logits.
    """
    length = prompt + K + written
    copied = K * (prompt + (K - 1) / 2) * 2 * shape.heads * shape.head_dim
    layer = length * kept_bytes(shape, r, targets, width) + (length**2 + copied) * width
    return rows * (shape.layers * layer + logits * shape.vocabulary * 3 * FLOAT32_BYTES)


def floor_s(work: Work, device: Device, dtype: str) -> float:
    """Seconds at the device's peak in batches without end: matrix products and the reading of keys and values one after
    the other, as the parts of a layer run.
    """
    return work.flops / device.peak[dtype] + work.moved / device.bandwidth


def seconds(work: Work, device: Device, dtype: str, efficiency: float) -> float:
    """Seconds at a share of that speed, and what batches add: the weights of each pass, and launching it.

    The host waits for every token that is decoded, so that launches do not hide behind the device's work.
    """
    return floor_s(work, device, dtype) / efficiency + work.weights / device.bandwidth + work.passes * LAYER_PASS_S
