"""What each stage of the graph costs, box by box, by the formulas of cost.py; in the order of dvc.yaml. No torch."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from qthink_core.pipeline.graph import Box
from qthink_core.planning import cost
from qthink_core.planning.cost import EXTRACTION, SAMPLING, TRAINING, Shape, Work
from qthink_core.planning.rows import conditions, latent_steps, positions

WIDTH = {"float32": 4, "bfloat16": 2, "float16": 2}

# Seconds a graded answer: text and numbers, or, for real LaTeX, computer algebra now and then.
GRADING_S, LATEX_S = 3e-5, 3e-3
DISK_BPS, DOWNLOAD_BPS = 3e8, 5e7
# Token ids and text of one generated token in Parquet.
TOKEN_BYTES = 4
# The longest row of a batch against the mean: it decides how often a batch is launched.
LONGEST = 1.7
# The engine that replays captured passes and keeps its cache in pages: rows that find no room wait, so one must fit. It
# takes a share of the memory that is free when it starts, and a smaller one beside the latent steps of transformers.
PAGED, PAGED_SHARE, PAGED_SHARE_BESIDE_LATENTS = "vllm", 0.85, 0.6
# Vectors of D and of the MLP that reading keeps of each token, no backward pass to follow.
READING_VECTORS = 8, 3
PRETRAIN_CHUNK = 16
# A trained weight, its gradient and AdamW's two moments.
OPTIMISED = 4


class Lengths(NamedTuple):
    """Mean tokens: prompt, thought, the answer after it, and what answers to the scored questions take."""

    prompt: float
    thought: float
    answer: float
    thinking: float
    direct: float


# The recipe's own estimate, and the generated tokens of the model card: base with thinking, QThink.
PAPER = Lengths(prompt=120, thought=1000, answer=200, thinking=1399, direct=1025)
# Published prompts that are longer: the 68 of Tooluse's test set list their tools in 481 to 1,300 tokens, 779 on average (by
# SmolLM2's tokenizer); the chat template adds some ten.
PUBLISHED_PROMPTS = {"tooluse": 790.0}
# The three generated tasks together, by the base model of the committed run.
GENERATED = Lengths(prompt=30, thought=12, answer=7, thinking=19, direct=7)


class Run(NamedTuple):
    """What is planned: the checked parameters, the model's shape, lengths and problems by task, and means generated.

    `problems` has None where a size is on no record; `generated` holds mean tokens of answers by (task, system), `counted`
    the tasks whose lengths come from rollouts made here.
    """

    tree: Mapping[str, Any]
    shape: Shape
    lengths: Mapping[str, Lengths]
    problems: Mapping[tuple[str, str], int | None]
    generated: Mapping[tuple[str, str], float]
    counted: frozenset[str] = frozenset()

    @property
    def width(self) -> int:
        """Bytes of a weight and of a number in the cache."""
        return WIDTH[self.tree["dtype"]]

    def n(self, at: Box, split: str) -> int:
        """Problems of a split; 0 where nobody knows."""
        return self.problems[at.task, split] or 0


class BoxCost(NamedTuple):
    """What one box of the graph costs: work at an efficiency, other seconds, bytes on disk and in the device's memory.

    `gpu`: whether it runs on the device that params name; `light`: whether it loads no torch; `units`: among how many
    workers it can be dealt, 0 where there is nothing to deal.
    """

    work: Work = Work()
    efficiency: float = 1.0
    other_s: float = 0.0
    disk: float = 0.0
    memory: float = 0.0
    gpu: bool = False
    light: bool = False
    units: int = 1


def fingerprint(run: Run, at: Box) -> BoxCost:
    """The sources read, a file of digests for each stage."""
    return BoxCost(disk=3e4, light=True)


def base(run: Run, at: Box) -> BoxCost:
    """A pre-training here, or a download; a folder or wheel is copied."""
    size = cost.parameters(run.shape) * run.width
    one = run.tree["base"].get("pretrain")
    if one is None:
        return BoxCost(other_s=size / (DOWNLOAD_BPS if "hub" in run.tree["base"] else DISK_BPS), disk=size)
    length = sum(GENERATED[:3])
    passes = one["steps"] * -(-one["batch"] // PRETRAIN_CHUNK)
    work = cost.training(run.shape, one["steps"] * one["batch"], length, passes)
    return BoxCost(work, TRAINING, disk=cost.parameters(run.shape) * WIDTH["float32"])


def prepare(run: Run, at: Box) -> BoxCost:
    """Every prompt twice, as token ids."""
    n = sum(run.n(at, split) for split in ("train", "validation", "test"))
    return BoxCost(disk=n * 2 * run.lengths[at.task].prompt * TOKEN_BYTES)


def sample(run: Run, at: Box) -> BoxCost:
    """G rollouts a problem, in blocks; `hf` launches each block until its longest row ends."""
    how, lengths, G = run.tree["sample"], run.lengths[at.task], run.tree["rollout"]["G"]
    N, S = run.n(at, "train"), lengths.thought + lengths.answer
    blocks, limit = -(-N // how["block_problems"]), how["max_new_tokens"]
    paged = how["engine"] == PAGED
    steps = blocks * min(limit, LONGEST * S)
    work = cost.decoding(run.shape, N * G, lengths.prompt, S, run.width, steps, launched=0 if paged else steps)
    if paged:
        memory = decoding_memory(run, 1, lengths.prompt + limit) / PAGED_SHARE
    else:
        memory = decoding_memory(run, how["block_problems"] * G, lengths.prompt + limit)
    return BoxCost(work, SAMPLING, disk=work.tokens * TOKEN_BYTES, memory=memory, gpu=True, units=blocks)


def reward(run: Run, at: Box) -> BoxCost:
    """Every rollout graded once."""
    rows = run.n(at, "train") * run.tree["rollout"]["G"]
    return BoxCost(other_s=rows * grading_s(run, at.task), disk=rows, light=True)


def grading_s(run: Run, task: str) -> float:
    """Seconds a graded answer; the generated problems of MATH have numbers alone."""
    return LATEX_S if task == "math500" and run.tree["prepare"]["source"] != "generated" else GRADING_S


def extract(run: Run, at: Box) -> BoxCost:
    """Prompt and thought of every rollout read once; its states at the positions of all pairs are kept."""
    how, lengths, G, K = run.tree["extract"], run.lengths[at.task], run.tree["rollout"]["G"], positions(run.tree)
    N, length = run.n(at, "train"), lengths.prompt + lengths.thought
    blocks = -(-N // run.tree["sample"]["block_problems"])
    passes = max(blocks, N * G * length / how["batch_tokens"])
    work = cost.reading(run.shape, N * G, length, passes)
    disk = cost.hidden_bytes(N, G, K, run.shape.hidden, WIDTH[how["store"]])
    memory = cost.parameters(run.shape) * run.width + reading_memory(run, how["batch_tokens"])
    return BoxCost(work, EXTRACTION, disk=disk, memory=memory, gpu=True, units=blocks)


def average(run: Run, at: Box) -> BoxCost:
    """Every state read twice, once for each kind of teacher."""
    N, G, K, D = run.n(at, "train"), run.tree["rollout"]["G"], positions(run.tree), run.shape.hidden
    read = cost.hidden_bytes(N, G, K, D, WIDTH[run.tree["extract"]["store"]])
    return BoxCost(other_s=2 * read / DISK_BPS, disk=2 * cost.hidden_bytes(N, 1, K, D, WIDTH["float32"]), light=True)


def finetune(run: Run, at: Box) -> BoxCost:
    """[prompt; target] in one pass a micro-batch."""
    lengths, target = run.lengths[at.task], run.tree["systems"]["finetuned"][at.system]
    thought = lengths.thought if target["target"] == "think_and_answer" else 0.0
    longest = run.tree["sample"]["max_new_tokens"] if thought else 0
    return trained(run, at, target, thought, longest, K=0, chain=1)


def train(run: Run, at: Box) -> BoxCost:
    """Prompt, K - 1 latent steps, then the last one and the answer in one pass."""
    K = latent_steps(run.tree, at.system)
    return trained(run, at, run.tree["systems"]["distilled"][at.system], 0.0, 0, K=K, chain=K + 1)


def trained(run: Run, at: Box, system: Mapping[str, Any], thought: float, longest: int, K: int, chain: int) -> BoxCost:
    """A training whose micro-batches take `chain` passes each, one after the other."""
    recipe, lengths = run.tree["train"], run.lengths[at.task]
    limit = system.get("answer_max_tokens") or recipe["answer_max_tokens"]
    # longer prompts are left out of training
    length = min(lengths.prompt, recipe["prompt_max_tokens"]) + thought + K + min(lengths.answer, limit)
    N = run.n(at, "train")
    steps, left = divmod(N, recipe["batch"])
    passes = steps * -(-recipe["batch"] // recipe["micro_batch"]) + -(-left // recipe["micro_batch"])
    work = cost.training(run.shape, recipe["epochs"] * N, length, recipe["epochs"] * passes * chain)
    written, lora = max(longest, limit), recipe["lora"]
    memory = cost.parameters(run.shape) * run.width + OPTIMISED * adapter_bytes(run, K)
    if lora["merged"]:  # the weights once more, and their gradient
        memory += 2 * cost.body(run.shape) * run.width
    memory += cost.training_memory(
        run.shape,
        recipe["micro_batch"],
        recipe["prompt_max_tokens"],
        written,
        K,
        logits=written,
        r=lora["r"],
        targets=lora["targets"],
        width=run.width,
    )
    units = -(-min(N, recipe["batch"]) // recipe["micro_batch"])
    return BoxCost(work, TRAINING, disk=adapter_bytes(run, K), memory=memory, gpu=True, units=units)


def adapter_bytes(run: Run, K: int) -> float:
    """Adapters, and a projection head where there are latent steps, in float32."""
    lora = run.tree["train"]["lora"]
    head = cost.projection_parameters(run.shape.hidden) if K else 0
    return (cost.lora_parameters(run.shape, lora["r"], lora["targets"]) + head) * WIDTH["float32"]


def merge(run: Run, at: Box) -> BoxCost:
    """A checkpoint for each seed: the base read in float32, the merged weights written."""
    size, seeds = cost.parameters(run.shape), len(run.tree["seeds"])
    written = size * run.width + (
        cost.projection_parameters(run.shape.hidden) * 4 if latent_steps(run.tree, at.system) else 0
    )
    return BoxCost(other_s=seeds * (size * WIDTH["float32"] + written) / DISK_BPS, disk=seeds * written)


def baseline(run: Run, at: Box) -> BoxCost:
    """One greedy answer of the base model to each question."""
    return answers(run, at, times=1, paged=run.tree["evaluate"]["engine"] == PAGED)


def evaluate(run: Run, at: Box) -> BoxCost:
    """One greedy answer to each question, for each training seed."""
    return answers(run, at, times=len(run.tree["seeds"]), paged=run.tree["evaluate"]["engine"] == PAGED)


def probe(run: Run, at: Box) -> BoxCost:
    """An answer under each condition, after K steps and after each other number of the sweep, for each training seed."""
    return answers(run, at, times=conditions(run.tree, at.system) * len(run.tree["seeds"]))


def answers(run: Run, at: Box, times: int, paged: bool = False) -> BoxCost:
    """Greedy answers in batches that are launched until their longest row ends; latent steps are as many launches more.

    A `paged` engine decodes without launches, one batch after the other as well; the latent steps before it are
    transformers', with weights of their own. These are loaded first, so the memory is the least of which the engine's share
    of what is then free holds its weights and a row, and the rest a batch of latent steps.
    """
    how, lengths = run.tree["evaluate"], run.lengths[at.task]
    n, limit, K = run.n(at, run.tree["split"]), how["max_new_tokens"], latent_steps(run.tree, at.system)
    S = min(limit, run.generated.get((at.task, at.system), lengths.thinking if thinks(run, at) else lengths.direct))
    batches, rows = -(-n // how["batch"]), min(n, how["batch"])
    latents, tokens = batches * K, batches * min(limit, LONGEST * S)
    launched = latents + (0 if paged else tokens)
    work = cost.decoding(run.shape, n, lengths.prompt + K, S, run.width, latents + tokens, launched).times(times)
    if paged:
        read = rows * LONGEST * lengths.prompt if K else 0.0
        beside = (read + rows * K) * cost.kv_bytes(run.shape, run.width) + reading_memory(run, read)
        engine = decoding_memory(run, 1, lengths.prompt + K + limit)
        share = PAGED_SHARE_BESIDE_LATENTS if K else PAGED_SHARE
        memory = cost.parameters(run.shape) * run.width + max(engine / share, beside / (1 - share))
    else:
        memory = decoding_memory(run, rows, lengths.prompt + K + limit)
    disk, units = work.tokens * TOKEN_BYTES, batches * len(run.tree["seeds"] if at.stage == "evaluate" else [0])
    return BoxCost(work, SAMPLING, disk=disk, memory=memory, gpu=True, units=units)


def thinks(run: Run, at: Box) -> bool:
    """Whether a system writes its thoughts down."""
    systems = run.tree["systems"]
    if at.system in systems["baseline"]:
        return bool(systems["baseline"][at.system]["thinking"])
    return systems["finetuned"].get(at.system, {}).get("target") == "think_and_answer"


def grade(run: Run, at: Box) -> BoxCost:
    """Every answer of every row and condition graded once."""
    systems = run.tree["systems"]
    per_seed = len(systems["trained"]) + sum(conditions(run.tree, name) for name in systems["distilled"])
    rows = run.n(at, run.tree["split"]) * (len(systems["baseline"]) + per_seed * len(run.tree["seeds"]))
    return BoxCost(other_s=rows * grading_s(run, at.task), disk=rows, light=True)


def report(run: Run, at: Box) -> BoxCost:
    """Tables, plots and a page, from files that are small."""
    return BoxCost(disk=5e6, light=True)


COSTS: dict[str, Callable[[Run, Box], BoxCost]] = {
    one.__name__: one
    for one in (
        *(fingerprint, base, prepare, sample, reward, extract, average, finetune, train, merge, baseline, evaluate, probe),
        *(grade, report),
    )
}


def decoding_memory(run: Run, rows: float, length: float) -> float:
    """Bytes of weights, keys and values of full rows, and their logits in float32."""
    cache = rows * length * cost.kv_bytes(run.shape, run.width)
    return cost.parameters(run.shape) * run.width + cache + rows * run.shape.vocabulary * WIDTH["float32"]


def reading_memory(run: Run, tokens: float) -> float:
    """Bytes that one layer keeps of a batch while it is read."""
    return tokens * (READING_VECTORS[0] * run.shape.hidden + READING_VECTORS[1] * run.shape.intermediate) * run.width
