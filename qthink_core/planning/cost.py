"""Cost: what a stage computes, moves and stores, from shapes and counts alone, and how long a device takes for it.

The formulas, the default efficiencies and measurements to compare them with are in docs/decisions/cost-model.md.
Counts are floats because they are estimates. N: sequences; G: rollouts; K: latent steps; D: hidden size.
"""

from collections.abc import Collection
from typing import NamedTuple

# Shares of the peak speed that a good implementation reaches, assumed before anything was measured.
SAMPLING, EXTRACTION, TRAINING = 0.35, 0.50, 0.30

# The shortest time of a pass through one layer, in which Python launches its kernels: measured on a processor, and on GPUs
# from published speeds of transformers with one row (docs/decisions/cost-model.md).
CPU_LAYER_PASS_S, GPU_LAYER_PASS_S = 3e-4, 6e-4
# The same for an engine that replays captured passes, with its schedule and sampling (docs/decisions/cost-model.md).
GPU_REPLAY_S = 8e-5
# The most rows that vLLM 0.32 decodes at once, unless it is told otherwise: more on GPUs with 70 GiB, except an A100.
SEATS, MORE_SEATS = 256, 1024
# A backward pass launches two kernels for each kernel of the forward pass.
TRAINING_PASSES = 3
FLOAT32_BYTES = 4


class Shape(NamedTuple):
    """A decoder of the Llama and Qwen3 families: gated MLP, grouped-query attention; `tied`: the head is the embedding."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool = True


class Device(NamedTuple):
    """Peak dense matrix products in FLOP/s by dtype, memory bandwidth in bytes/s, memory in bytes, least seconds a layer.

    `replay_s`: least seconds a layer where captured passes are replayed; `seats`: the most rows that vLLM decodes at once.
    """

    peak: dict[str, float]
    bandwidth: float
    memory: float
    layer_pass_s: float
    replay_s: float
    seats: int = SEATS


def gpu(bfloat16: float, float32: float, bandwidth: float, memory: float, seats: int = SEATS) -> Device:
    """A GPU by its data sheet: TFLOP/s, GB/s, GB."""
    peak = {"bfloat16": bfloat16 * 1e12, "float32": float32 * 1e12}
    return Device(peak, bandwidth * 1e9, memory * 1e9, GPU_LAYER_PASS_S, GPU_REPLAY_S, seats)


# NVIDIA's data sheets and white papers: bfloat16 with float32 sums and without sparsity, float32 without TF32. H100 and H200
# have SXM, the A100 SXM and 80 GB; 5090, 4090 and 3090 are GeForce RTX.
GPUS = {
    "h100": gpu(989, 67, 3350, 80, MORE_SEATS),
    "h200": gpu(989, 67, 4800, 141, MORE_SEATS),
    "a100": gpu(312, 19.5, 2039, 80),
    "l40s": gpu(362, 91.6, 864, 48),
    "5090": gpu(209.5, 104.8, 1792, 32),
    "4090": gpu(165, 82.6, 1008, 24),
    "3090": gpu(71, 35.6, 936, 24),
    "a10": gpu(125, 31.2, 600, 24),
    "l4": gpu(121, 30.3, 300, 24),
}
# One thread with AVX2 at 2.8 GHz, always in float32; an otherwise idle AMD EPYC measured 96 GFLOP/s and 17 GB/s.
THREAD_FLOPS = 90e9
CPU_BANDWIDTH = 10e9


class Compute(NamedTuple):
    """Tokens read or generated, FLOPs, bytes of keys and values read, bytes of weights read, and passes through one layer.

    Passes are launched by Python or replayed by an engine. The last three depend on the size of the batches.
    """

    tokens: float = 0.0
    flops: float = 0.0
    moved: float = 0.0
    weights: float = 0.0
    passes: float = 0.0
    replays: float = 0.0

    def __add__(self, other: "Compute") -> "Compute":  # type: ignore[override]
        return Compute(*(mine + its for mine, its in zip(self, other, strict=True)))

    def times(self, n: float) -> "Compute":
        """This cost n times."""
        return Compute(*(part * n for part in self))


def cpu(threads: int, memory: float) -> Device:
    """A processor with AVX2 that computes on this many threads."""
    peak = dict.fromkeys(("bfloat16", "float32"), threads * THREAD_FLOPS)
    return Device(peak, CPU_BANDWIDTH, memory, CPU_LAYER_PASS_S, CPU_LAYER_PASS_S)  # nothing is captured there


def body(shape: Shape) -> int:
    """The weights of all layers, without norms, embedding and output head."""
    attention = 2 * shape.hidden * shape.head_dim * (shape.heads + shape.kv_heads)
    return shape.layers * (attention + 3 * shape.hidden * shape.intermediate)


def output_head(shape: Shape) -> int:
    """The weights of the output head, V * D."""
    return shape.vocabulary * shape.hidden


def parameters(shape: Shape) -> int:
    """All weights; the embedding counts twice where the output head has its own matrix."""
    return body(shape) + output_head(shape) * (1 if shape.tied else 2)


def kv_bytes(shape: Shape, width: int) -> int:
    """Bytes of keys and values that one token leaves in the cache; `width` is the bytes per number."""
    return shape.layers * 2 * shape.kv_heads * shape.head_dim * width


def attention_flops(shape: Shape, context: float) -> float:
    """FLOPs of one token's attention to `context` others: scores and weighted sum, 2 * 2 * heads * head_dim a layer."""
    return 4.0 * shape.layers * shape.heads * shape.head_dim * context


def decoding(
    shape: Shape, rows: float, prompt: float, generated: float, width: int, launched: float = 0.0, replayed: float = 0.0
) -> Compute:
    """The cost of generating tokens after the prompts: rows * S tokens through body and output head.

    Token i reads the keys and values of prompt + i tokens, so S tokens read S * (P + S/2) of them. `launched` counts the
    passes of all batches that Python launches layer by layer, and `replayed` those that an engine replays. Each reads all
    weights; none of either means batches of unlimited size.
    """
    tokens = rows * generated
    return Compute(
        tokens,
        2.0 * (body(shape) + output_head(shape)) * tokens,
        tokens * (prompt + generated / 2) * kv_bytes(shape, width),
        (launched + replayed) * parameters(shape) * width,
        launched * shape.layers,
        replayed * shape.layers,
    )


def extraction(
    shape: Shape, problems: float, rollouts: int, prompt: float, thought: float, positions: int, passes: float
) -> Compute:
    """The cost of the states at some positions of each rollout, in `passes` passes: a prompt is read once for its rollouts.

    In the last layer all tokens have keys and values, and only the positions have queries, attention and an MLP.
    """
    read = problems * rollouts * positions
    tokens = problems * (prompt + rollouts * thought)
    inner = problems * (prompt * prompt / 2 + rollouts * thought * (prompt + thought / 2))
    last = read * (prompt + thought / 2)
    beyond = 2 * shape.hidden * shape.heads * shape.head_dim + 3 * shape.hidden * shape.intermediate
    products = 2.0 * (body(shape) * tokens - beyond * (tokens - read))
    attention = attention_flops(shape._replace(layers=shape.layers - 1), inner) + attention_flops(
        shape._replace(layers=1), last
    )
    return Compute(tokens, products + attention, passes=passes * shape.layers)


def training(shape: Shape, sequences: float, length: float, passes: float) -> Compute:
    """The cost of training steps on sequences, in `passes` forward passes: 6 FLOPs per weight of the body and token.

    The output head on the answers (a tenth) is left out, and the gradients of frozen weights (a third) are not subtracted.
    """
    tokens = sequences * length
    return Compute(tokens, 6.0 * body(shape) * tokens, passes=passes * TRAINING_PASSES * shape.layers)


def hidden_bytes(N: float, G: int, K: int, D: int, width: int) -> float:
    """Bytes of K hidden states of each rollout."""
    return N * G * K * D * width


def adapted(shape: Shape, targets: str | Collection[str]) -> Collection[str]:
    """The names of the linear layers that get an adapter; a string as `targets` is PEFT's `all-linear`."""
    return list(adapted_inputs(shape)) if isinstance(targets, str) else targets


def lora_parameters(shape: Shape, r: int, targets: str | Collection[str]) -> int:
    """Weights of the LoRA adapters: r * (inputs + outputs) of every linear layer that gets one."""
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    outputs = dict.fromkeys(("k_proj", "v_proj"), keys) | dict.fromkeys(("gate_proj", "up_proj"), shape.intermediate)
    outputs |= {"q_proj": queries, "o_proj": shape.hidden, "down_proj": shape.hidden}
    inputs = adapted_inputs(shape)
    return shape.layers * r * sum(inputs[name] + outputs[name] for name in adapted(shape, targets))


def adapted_inputs(shape: Shape) -> dict[str, int]:
    """The input width of each linear layer that may get an adapter."""
    before = dict.fromkeys(("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"), shape.hidden)
    return before | {"o_proj": shape.heads * shape.head_dim, "down_proj": shape.intermediate}


def projection_parameters(D: int) -> int:
    """Weights of the projection head: two linear layers with bias and a norm."""
    return 2 * (D * D + D) + 2 * D


def kept_bytes(shape: Shape, r: int, targets: str | Collection[str], width: int) -> int:
    """Bytes that a token leaves in one layer for the backward pass, in a batch with padding.

    In the model's dtype: queries, the keys and values that attention repeats for every head, its output, three vectors of
    the MLP. In float32: what the norms read (in Qwen3 those of queries and keys too), and r numbers for each adapter. PEFT
    makes a float32 copy of the input for each adapter; an input that is already float32 is shared by its adapters.
    """
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    inputs, names = adapted_inputs(shape), set(adapted(shape, targets))
    if width < FLOAT32_BYTES:
        cast = sum(inputs[name] for name in names)
    else:
        # the input of the output projection is attention's output, which is counted already
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

    Each layer keeps `kept_bytes` for each token, a number for each pair of tokens (attention's mask), and K more copies of
    keys and values, because every latent step reads a longer copy. The last layer keeps little of the prompt but is counted
    like the others. Three float32 values are held for each logit of `logits` target tokens: log-probabilities,
    their gradient, and the gradient of the logits.
    """
    length = prompt + K + written
    copied = K * (prompt + (K - 1) / 2) * 2 * shape.heads * shape.head_dim
    layer = length * kept_bytes(shape, r, targets, width) + (length**2 + copied) * width
    return rows * (shape.layers * layer + logits * shape.vocabulary * 3 * FLOAT32_BYTES)


class Parts(NamedTuple):
    """Seconds of a box by what they are spent on.

    `matrix`: products. `bytes`: reading keys, values and weights. `launches`: starting the kernels of each pass. `start`:
    process, imports and loading. `other`: downloads, files, grading and pages.
    """

    matrix: float = 0.0
    bytes: float = 0.0
    launches: float = 0.0
    start: float = 0.0
    other: float = 0.0

    def __add__(self, other: "Parts") -> "Parts":  # type: ignore[override]
        return Parts(*(mine + its for mine, its in zip(self, other, strict=True)))

    @property
    def bound(self) -> str:
        """The name of the largest part."""
        return max(self._fields, key=lambda name: getattr(self, name))


def floor_s(compute: Compute, device: Device, dtype: str) -> float:
    """Seconds at the device's peak in batches of unlimited size.

    Matrix products and the reading of keys and values run one after the other, like the parts of a layer.
    """
    return compute.flops / device.peak[dtype] + compute.moved / device.bandwidth


def parts(compute: Compute, device: Device, dtype: str, efficiency: float) -> Parts:
    """Seconds at a share of the peak, plus the time to launch each pass and to read its weights.

    The host waits for every decoded token, so launches do not overlap with the device's work.
    """
    return Parts(
        compute.flops / device.peak[dtype] / efficiency,
        compute.moved / device.bandwidth / efficiency + compute.weights / device.bandwidth,
        compute.passes * device.layer_pass_s + compute.replays * device.replay_s,
    )


def seconds(compute: Compute, device: Device, dtype: str, efficiency: float) -> float:
    """The sum of the parts."""
    return sum(parts(compute, device, dtype, efficiency))
