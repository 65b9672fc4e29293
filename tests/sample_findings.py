"""A run as the report page might get it: seven systems, three benchmarks, several seeds, and hostile text in every place."""

import math
import random
from collections.abc import Sequence
from typing import Any

from qthink_core.evidence.findings import Answered, Cell, Claim, Comparison, Conditions, Findings, Power, Question, System
from qthink_core.evidence.power import Scatter

K = 6
HOSTILE = [
    "</script></style></pre><img src=x onerror=alert(1)><script>alert(1)</script>",
    "price \u202egnp.exe\u202c and zero\u200bwidth\ufeff, \x00null, \x1b[31mred, \x07bell, tab\there",
    "\"quotes\" 'both' & &amp; &lt;b&gt; {{ 7 * 7 }} {% raw %} ${x} <!-- --> ]]>",
    "lone \ud800 surrogate, tag \U000e0041, private \ue000, noncharacter \uffff, line\u2028sep, nbsp\u00a0, filler\u3164",
    "Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f\u0334\u0319\u0324\u031e\u0349\u035aalgo and \u05e9\u05dc\u05d5\u05dd",
    "javascript:alert(1)//http://example.org/x.js\nline two\r\nline three",
]
SYSTEMS = {
    "base": System("Base, thinking"),
    "base_direct": System("Base, not thinking"),
    "sft": System("SFT on think + answer"),
    "answer_only": System("SFT on the answer only"),
    "uniform": System("QThink uniform per-step", True),
    "reward_weighted": System("QThink reward-weighted per-step", True),
    "final_step": System(
        "Reward-weighted final-step (CODI)",
        True,
        ["trained with answers of at most 128 tokens, the others 256", "gamma 1.0, the others 2.0"],
    ),
}
ACCURACIES = {
    "gsm8k": [0.955, 0.09, 0.96, 0.312, 0.384, 0.351, 0.275],
    "math500": [0.985, 0.07, 0.975, 0.08, 0.07, 0.1, 0.075],
    "tooluse": [0.915, 0.1, 0.955, 0.07, 0.105, 0.095, 0.08],
}
TOKENS = [32.2, 6.0, 32.4, 6.0, 6.1, 6.0, 6.0]


def cell(accuracy: float, tokens: float = 6.0, n: int = 200, seeds: int = 3) -> Cell:
    error = math.sqrt(accuracy * (1 - accuracy) / n)
    middle, half = (accuracy + 1.92 / n) / (1 + 3.84 / n), 1.96 * math.sqrt(error**2 + 0.96 / n**2) / (1 + 3.84 / n)
    return Cell(accuracy, error, middle - half, middle + half, n, seeds, 0.013 if seeds > 1 else None, tokens, 0.015)


def losses(latent: bool, chance: random.Random, steps: int = 80) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for step in range(steps):
        row: dict[str, Any] = {"step": step, "cross_entropy": 0.4 + 1.7 * math.exp(-step / 12) + 0.05 * chance.random()}
        if latent:
            distance = [0.5 + 0.08 * k + 0.9 * math.exp(-step / (10 + 3 * k)) + 0.04 * chance.random() for k in range(K)]
            row |= {"distillation": sum(distance) / K, "distance": distance}
        found.append(row)
    return found


def conditions(at: float, word: str, sentence: str) -> Conditions:
    names = {"trained": at, "K=0": 0.5 * at, "zeros": 0.4 * at, "noise": 0.3 * at, "other": 0.6 * at, "mean": 0.7 * at}
    names |= {"teacher": 0.9 * at} | {f"K={k}": at * (1 - abs(k - K) / 12) for k in range(1, 2 * K + 1)}
    return Conditions({name: cell(value) for name, value in names.items()}, word, sentence)


def questions(n: int, chance: random.Random, systems: Sequence[str]) -> list[Question]:
    found = []
    for task in ACCURACIES:
        for number in range(n):
            hostile = HOSTILE[number % len(HOSTILE)]
            answers = {}
            for system in systems:
                verdict = chance.choice(["right", "wrong", "wrong", "unparsable", "over_limit", "timeout"])
                readout = []
                if SYSTEMS[system].latent:
                    shares = [0.61, 0.2, 0.1, 0.05, 0.01]
                    texts = [" 12", "\n", "<b>", "\u202e", "answer"]
                    readout = [[(text, share) for text, share in zip(texts, shares, strict=True)] for _ in range(K)]
                text = hostile if number < 6 else f"The answer is {chance.randint(2, 30)}.\n#### 20"
                extracted = None if verdict == "unparsable" else hostile[:12]
                finish = "length" if number % 5 == 0 else "stop"
                answers[system] = Answered(text, verdict, extracted, chance.randint(3, 40), finish, readout)
            name = f"{task}-test-{number:05d}{'<i>' if number == 2 else ''}"
            prompt = f"Tom has {number} apples and buys 4 more each day.\n{hostile if number == 1 else 'How many?'}"
            found.append(Question(task, name, prompt, hostile if number == 3 else "20", answers))
    return found


def sample(per_task: int = 8) -> Findings:
    chance = random.Random(0)
    pairs = [("uniform", "answer_only"), ("uniform", "final_step"), ("uniform", "reward_weighted"), ("uniform", "sft")]
    pairs += [("reward_weighted", "answer_only"), ("final_step", "answer_only"), ("sft", "base")]
    pairs += [(system, "base_direct") for system in ("uniform", "reward_weighted", "final_step")]
    comparisons = []
    for task, row in ACCURACIES.items():
        by = dict(zip(SYSTEMS, row, strict=True))
        for left, right in pairs:
            difference = by[left] - by[right]
            p = math.exp(-90 * abs(difference))
            low, high = difference - 0.06, difference + 0.06
            comparisons.append(Comparison(task, left, right, difference, low, high, p, min(1, 5 * p), 3))
    sentence = (
        "The latents of this system carry information about the question (38.4 % as trained, 23.0 % with another "
        "question's, p < 0.001), and it answers better than the answer-only control (+7.2 points [+1.2, +13.2], p 0.008)."
    )
    return Findings(
        scale="tiny",
        setting="a 0.2 M parameter Qwen3 pre-trained on the spot, on problems generated here",
        made_with={"scale": "tiny", "problems": "generated", "seeds": "0, 1, 2", "K": K, "G": 16, "gamma": 2.0, "epochs": 8},
        K=K,
        systems=SYSTEMS,
        cells={
            task: {
                key: cell(at, tokens)._replace(latents=K if SYSTEMS[key].latent else 0)
                for key, at, tokens in zip(SYSTEMS, row, TOKENS, strict=True)
            }
            for task, row in ACCURACIES.items()
        },
        test_sets={
            "gsm8k": {
                "gsm_hard": {key: cell(at / 2, n=1319) for key, at in zip(SYSTEMS, ACCURACIES["gsm8k"], strict=True)},
                "svamp": {key: cell(at, n=300, seeds=1) for key, at in zip(SYSTEMS, ACCURACIES["math500"], strict=True)},
            }
        },
        control="answer_only",
        direct="base_direct",
        comparisons=comparisons,
        power={task: Power("uniform", 200, 3, Scatter(0.125, 0.5, 0.02), 0.0934, 0.18) for task in ACCURACIES},
        curves={task: {key: losses(SYSTEMS[key].latent, chance) for key in list(SYSTEMS)[2:]} for task in ACCURACIES},
        conditions={
            task: {
                "uniform": conditions(row[4], "earns", sentence),
                "reward_weighted": conditions(row[5], "idle", "Not distinguishable from K = 0: the latents are idle."),
                "final_step": conditions(row[6], "harmful", "Worse than K = 0: <b>the latents do harm</b>."),
            }
            for task, row in ACCURACIES.items()
        },
        claims=[
            Claim("Per-step supervision is better than final-step", "gsm8k", 0.023, 0.109, 0.05, 0.168, 3, "holds"),
            Claim(
                "All rollouts averaged are better than the right ones", "gsm8k", 0.005, -0.033, -0.09, 0.027, 3, "undecided"
            ),
            Claim(
                "256 answer tokens are better than 128", "gsm8k", 0.03, None, None, None, 0, "undecided", "not in this run"
            ),
            Claim("Latents are better than SFT on think + answer", "gsm8k", 0.025, -0.576, -0.64, -0.51, 3, "opposite"),
            Claim("Tokens saved against the base", "gsm8k", 374.0, 26.1, 25.4, 26.9, 3, "holds", "", "tokens"),
        ],
        questions=questions(per_task, chance, list(SYSTEMS)),
        further={
            "tooluse": {
                key: {"published_action": 0.85, "published_exact": at, "strict_action": 0.86, "strict_exact": at}
                for key, at in zip(SYSTEMS, ACCURACIES["tooluse"], strict=True)
            }
        },
    )
