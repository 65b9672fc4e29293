"""What a box of each stage costs, by the formulas of cost.py; stages are in the order of dvc.yaml. No torch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from qthink_core.models.vllm_memory import GPU_SHARE, GPU_SHARE_BESIDE_LATENTS
from qthink_core.pipeline.graph import Box
from qthink_core.planning import cost
from qthink_core.planning.cost import EXTRACTION, SAMPLING, TRAINING, Compute
from qthink_core.planning.workload import (
    GENERATED,
    WIDTH,
    Workload,
    batches_of,
    block_steps,
    latent_steps,
    n_conditions,
    n_positions,
    shares_prompts,
)

# Seconds for a graded answer: text and numbers, or, for published LaTeX, sometimes computer algebra.
GRADING_S, LATEX_S = 3e-5, 3e-3
DISK_BPS, DOWNLOAD_BPS = 3e8, 5e7
# Token ids and text of one generated token in Parquet.
TOKEN_BYTES = 4
# The longest row of a batch as a multiple of the mean: it decides how often a batch is launched.
LONGEST = 1.7
# The engine that replays captured passes and has a paged cache: rows that do not fit wait, so only one must fit.
PAGED = "vllm"
# A report on three tasks, with its plots and the imports of matplotlib and scipy; measured on one thread.
REPORT_S = 3.4
# Vectors of the hidden size and of the MLP's size that a forward pass without a backward pass keeps for each token.
READING_VECTORS = 8, 3
PRETRAIN_CHUNK = 16
# A trained weight, its gradient and AdamW's two moments.
OPTIMISED = 4


class BoxCost(NamedTuple):
    """What one box of the graph costs: compute at an efficiency, other seconds, bytes on disk and in the device's memory.

    `gpu`: whether it runs on the device that params name; `light`: whether it loads no torch; `units`: how many
    units its work has, which is the most workers that can share it; 0 where there is no work.
    """

    compute: Compute = Compute()
    efficiency: float = 1.0
    other_s: float = 0.0
    disk: float = 0.0
    memory: float = 0.0
    gpu: bool = False
    light: bool = False
    units: int = 1


def fingerprint(load: Workload, at: Box) -> BoxCost:
    """All sources are read, and a file of digests is written for each stage."""
    return BoxCost(disk=3e4, light=True)


def base(load: Workload, at: Box) -> BoxCost:
    """A pre-training, or a download; a folder or wheel is copied."""
    size = cost.parameters(load.shape) * load.width
    one = load.tree["base"].get("pretrain")
    if one is None:
        return BoxCost(other_s=size / (DOWNLOAD_BPS if "hub" in load.tree["base"] else DISK_BPS), disk=size)
    length = sum(GENERATED[:3])
    passes = one["steps"] * -(-one["batch"] // PRETRAIN_CHUNK)
    compute = cost.training(load.shape, one["steps"] * one["batch"], length, passes)
    return BoxCost(compute, TRAINING, disk=cost.parameters(load.shape) * WIDTH["float32"])


def prepare(load: Workload, at: Box) -> BoxCost:
    """Every prompt is written twice, as token ids."""
    n = sum((*(load.n(at, split) for split in ("train", "validation", "test")), *load.further(at)))
    return BoxCost(disk=n * 2 * load.lengths[at.task].prompt * TOKEN_BYTES)


def sample(load: Workload, at: Box) -> BoxCost:
    """G rollouts for each problem, in blocks; `hf` launches each block until its longest row ends.

    A `paged` engine decodes as many rows at once as it has places for, and none of the next block before a block has ended.
    """
    how, lengths, G = load.tree["sample"], load.lengths[at.task], load.tree["rollout"]["G"]
    N, S = load.n(at, "train"), lengths.thought + lengths.answer
    blocks, limit = -(-N // how["block_problems"]), how["max_new_tokens"]
    paged = how["engine"] == PAGED
    if paged:
        places, sizes = places_of(load, at.task), batches_of(N, how["block_problems"])
        steps = sum(times * block_steps(n * G, places, S, limit) for n, times in sizes.items())
        compute = cost.decoding(load.shape, N * G, lengths.prompt, S, load.width, replayed=steps)
        memory = decoding_memory(load, 1, lengths.prompt + limit) / GPU_SHARE
    else:
        steps = blocks * min(limit, LONGEST * S)
        compute = cost.decoding(load.shape, N * G, lengths.prompt, S, load.width, launched=steps)
        memory = decoding_memory(load, how["block_problems"] * G, lengths.prompt + limit)
    return BoxCost(compute, SAMPLING, disk=compute.tokens * TOKEN_BYTES, memory=memory, gpu=True, units=blocks)


def reward(load: Workload, at: Box) -> BoxCost:
    """Every rollout is graded once."""
    rows = load.n(at, "train") * load.tree["rollout"]["G"]
    return BoxCost(other_s=rows * grading_s(load, at.task), disk=rows, light=True)


def grading_s(load: Workload, task: str) -> float:
    """Seconds for a graded answer; answers to the generated problems of MATH are plain numbers."""
    latex = load.tree["data"][task]["benchmark"] == "math500" and load.tree["prepare"]["source"] != "generated"
    return LATEX_S if latex else GRADING_S


def extract(load: Workload, at: Box) -> BoxCost:
    """Each prompt and all thoughts read once; the states of each rollout at the positions of all pairs are kept.

    The memory is that of a pass, and of the keys and values of a rollout that goes on in the next.
    """
    how, lengths, G, K = load.tree["extract"], load.lengths[at.task], load.tree["rollout"]["G"], n_positions(load.tree)
    N, batch = load.n(at, "train"), how["batch_tokens"]
    blocks = -(-N // load.tree["sample"]["block_problems"])
    passes = max(blocks, N * (lengths.prompt + G * lengths.thought) / batch)
    compute = cost.extraction(load.shape, N, G, lengths.prompt, lengths.thought, K, passes)
    disk = cost.hidden_bytes(N, G, K, load.shape.hidden, WIDTH[how["store"]])
    kept = (lengths.prompt + load.tree["sample"]["max_new_tokens"]) * cost.kv_bytes(load.shape, load.width)
    memory = cost.parameters(load.shape) * load.width + reading_memory(load, batch) + kept
    return BoxCost(compute, EXTRACTION, disk=disk, memory=memory, gpu=True, units=blocks)


def average(load: Workload, at: Box) -> BoxCost:
    """Every state read twice, once for each kind of teacher."""
    N, G, K, D = load.n(at, "train"), load.tree["rollout"]["G"], n_positions(load.tree), load.shape.hidden
    read = cost.hidden_bytes(N, G, K, D, WIDTH[load.tree["extract"]["store"]])
    return BoxCost(other_s=2 * read / DISK_BPS, disk=2 * cost.hidden_bytes(N, 1, K, D, WIDTH["float32"]), light=True)


def finetune(load: Workload, at: Box) -> BoxCost:
    """The cost of a training that reads [prompt; target] in one pass for each micro-batch."""
    lengths, target = load.lengths[at.task], load.tree["systems"]["finetuned"][at.system]
    thought = lengths.thought if target["target"] == "think_and_answer" else 0.0
    longest = load.tree["sample"]["max_new_tokens"] if thought else 0
    return trained(load, at, target, thought, longest, K=0, chain=1)


def train(load: Workload, at: Box) -> BoxCost:
    """The cost of a training that reads the prompt, takes K - 1 latent steps, and reads the last step with the answer."""
    K = latent_steps(load.tree, at.system)
    return trained(load, at, load.tree["systems"]["distilled"][at.system], 0.0, 0, K=K, chain=K + 1)


def trained(load: Workload, at: Box, system: Mapping[str, Any], thought: float, longest: int, K: int, chain: int) -> BoxCost:
    """The cost of a training in which each micro-batch takes `chain` passes, one after another."""
    recipe, lengths = load.tree["train"], load.lengths[at.task]
    limit = system.get("answer_max_tokens") or recipe["answer_max_tokens"]
    # training leaves longer prompts out
    length = min(lengths.prompt, recipe["prompt_max_tokens"]) + thought + K + min(lengths.answer, limit)
    N = load.n(at, "train")
    steps, left = divmod(N, recipe["batch"])
    passes = steps * -(-recipe["batch"] // recipe["micro_batch"]) + -(-left // recipe["micro_batch"])
    compute = cost.training(load.shape, recipe["epochs"] * N, length, recipe["epochs"] * passes * chain)
    written, lora = max(longest, limit), recipe["lora"]
    memory = cost.parameters(load.shape) * load.width + OPTIMISED * adapter_bytes(load, K)
    if lora["merged"]:  # the merged weights, for the forward and for the backward pass
        memory += 2 * cost.body(load.shape) * load.width
    memory += cost.training_memory(
        load.shape,
        recipe["micro_batch"],
        recipe["prompt_max_tokens"],
        written,
        K,
        logits=written,
        r=lora["r"],
        targets=lora["targets"],
        width=load.width,
    )
    units = -(-min(N, recipe["batch"]) // recipe["micro_batch"])
    return BoxCost(compute, TRAINING, disk=adapter_bytes(load, K), memory=memory, gpu=True, units=units)


def adapter_bytes(load: Workload, K: int) -> float:
    """Bytes of the adapters, and of a projection head where there are latent steps, in float32."""
    lora = load.tree["train"]["lora"]
    head = cost.projection_parameters(load.shape.hidden) if K else 0
    return (cost.lora_parameters(load.shape, lora["r"], lora["targets"]) + head) * WIDTH["float32"]


def merge(load: Workload, at: Box) -> BoxCost:
    """A checkpoint for each seed: the base read in float32, the merged weights written."""
    size, seeds = cost.parameters(load.shape), len(load.tree["seeds"])
    written = size * load.width + (
        cost.projection_parameters(load.shape.hidden) * 4 if latent_steps(load.tree, at.system) else 0
    )
    return BoxCost(other_s=seeds * (size * WIDTH["float32"] + written) / DISK_BPS, disk=seeds * written)


def baseline(load: Workload, at: Box) -> BoxCost:
    """One greedy answer of the base model to each question, those of further test sets included."""
    return answers(load, at, times=1, paged=load.tree["evaluate"]["engine"] == PAGED, further=load.further(at))


def evaluate(load: Workload, at: Box) -> BoxCost:
    """One greedy answer to each question, for each training seed; those of further test sets are included."""
    paged = load.tree["evaluate"]["engine"] == PAGED
    return answers(load, at, times=len(load.tree["seeds"]), paged=paged, further=load.further(at))


def probe(load: Workload, at: Box) -> BoxCost:
    """An answer under each condition, after K steps and after each other number of the sweep, for each training seed.

    Whole conditions are decoded together, at most `probe.rows` answers at once. In half precision each is decoded alone, as
    `generation.reading.read` decides, and the prompts are kept for the conditions that follow.
    """
    how, K, conditions = load.tree["probe"], latent_steps(load.tree, at.system), n_conditions(load.tree, at.system)
    limit, S, prompt = load.tree["evaluate"]["max_new_tokens"], load.answer(at), load.lengths[at.task].prompt
    n, shared = load.n(at, load.tree["split"]), shares_prompts(load.tree)
    steps, most, largest = 0.0, 1, 0
    for rows, times in batches_of(n, load.tree["evaluate"]["batch"]).items():
        together = min(max(how["rows"] // rows, 1), conditions) if shared else 1
        # each condition is read in one pass, and latent steps are taken twice: for the states, and to answer
        fed = len(how["conditions"]) + (max(how["sweep"], 1) + 1) * K
        steps += times * (fed + -(-conditions // together) * min(limit, LONGEST * S))
        most, largest = max(most, together * rows), max(largest, rows)
    compute = cost.decoding(load.shape, n * conditions, prompt + K, S, load.width, launched=steps)
    compute = compute.times(len(load.tree["seeds"]))
    kept = largest * prompt * (1 if shared else 2) * cost.kv_bytes(load.shape, load.width)
    memory = decoding_memory(load, most, K + limit) + kept
    return BoxCost(compute, SAMPLING, disk=compute.tokens * TOKEN_BYTES, memory=memory, gpu=True)


def answers(load: Workload, at: Box, times: int, paged: bool, further: Sequence[int]) -> BoxCost:
    """The cost of greedy answers in batches, each launched for every token of its longest row and for every latent step.

    `further` are the sizes of test sets that are answered, too, in batches of their own.

    The latent steps of a `paged` engine run in transformers before it, with a second copy of the weights, which is loaded
    first. The memory is therefore the smallest for which the engine's share of what is then free holds its weights and one
    row, and the rest holds a batch of latent steps.
    """
    how, lengths = load.tree["evaluate"], load.lengths[at.task]
    asked, limit, K = [load.n(at, load.tree["split"]), *further], how["max_new_tokens"], latent_steps(load.tree, at.system)
    n, S = sum(asked), load.answer(at)
    batches, rows = sum(-(-one // how["batch"]) for one in asked), min(max(asked), how["batch"])
    latents, tokens = batches * K, batches * min(limit, LONGEST * S)
    launched, replayed = latents + (0 if paged else tokens), tokens if paged else 0
    compute = cost.decoding(load.shape, n, lengths.prompt + K, S, load.width, launched, replayed).times(times)
    if paged:
        read = rows * LONGEST * lengths.prompt if K else 0.0
        beside = (read + rows * K) * cost.kv_bytes(load.shape, load.width) + reading_memory(load, read)
        engine = decoding_memory(load, 1, lengths.prompt + K + limit)
        share = GPU_SHARE_BESIDE_LATENTS if K else GPU_SHARE
        memory = cost.parameters(load.shape) * load.width + max(engine / share, beside / (1 - share))
    else:
        memory = decoding_memory(load, rows, lengths.prompt + K + limit)
    disk, units = compute.tokens * TOKEN_BYTES, batches * len(load.tree["seeds"] if at.stage == "evaluate" else [0])
    return BoxCost(compute, SAMPLING, disk=disk, memory=memory, gpu=True, units=units)


def grade(load: Workload, at: Box) -> BoxCost:
    """Every answer of every row and condition graded once; no condition is tried on a further test set."""
    systems = load.tree["systems"]
    per_seed = len(systems["trained"]) + sum(n_conditions(load.tree, name) for name in systems["distilled"])
    rows = load.n(at, load.tree["split"]) * (len(systems["baseline"]) + per_seed * len(load.tree["seeds"]))
    rows += sum(load.further(at)) * (len(systems["baseline"]) + len(systems["trained"]) * len(load.tree["seeds"]))
    return BoxCost(other_s=rows * grading_s(load, at.task), disk=rows, light=True)


def report(load: Workload, at: Box) -> BoxCost:
    """Tables, plots and an HTML page, from small files."""
    return BoxCost(other_s=REPORT_S, disk=5e6, light=True)


COSTS: dict[str, Callable[[Workload, Box], BoxCost]] = {
    one.__name__: one
    for one in (
        *(fingerprint, base, prepare, sample, reward, extract, average, finetune, train, merge, baseline, evaluate, probe),
        *(grade, report),
    )
}


def places_of(load: Workload, task: str) -> float:
    """How many rollouts of mean length vLLM decodes at once: those that its cache holds beside the weights; at least one."""
    lengths = load.lengths[task]
    cache = load.room * GPU_SHARE - cost.parameters(load.shape) * load.width
    length = lengths.prompt + (lengths.thought + lengths.answer) / 2
    return min(max(cache / (length * cost.kv_bytes(load.shape, load.width)), 1.0), load.seats)


def decoding_memory(load: Workload, rows: float, length: float) -> float:
    """Bytes of the weights, and of the keys, values and float32 logits of rows of this length."""
    cache = rows * length * cost.kv_bytes(load.shape, load.width)
    return cost.parameters(load.shape) * load.width + cache + rows * load.shape.vocabulary * WIDTH["float32"]


def reading_memory(load: Workload, tokens: float) -> float:
    """Bytes that one layer keeps of a batch while the model reads it."""
    return tokens * (READING_VECTORS[0] * load.shape.hidden + READING_VECTORS[1] * load.shape.intermediate) * load.width
