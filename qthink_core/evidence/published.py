"""The published results that the report shows next to ours: Qwen3-1.7B, from the model card of QThink-Qwen3-1.7B-GSM8k.

Exact match on Tooluse is from "Cross-Benchmark Results" of the same card, action accuracy from the author's Tooluse card.
The cards give no intervals: the Wilson intervals are ours, from the accuracy and the size of the test set.
"""

from typing import NamedTuple


class Published(NamedTuple):
    """A published accuracy in [0, 1] with its 95 % Wilson interval and number of questions, and mean generated tokens."""

    accuracy: float
    low: float
    high: float
    n: int
    mean_tokens: int | None = None
    tokens_of: str | None = None


MODEL = "Qwen3-1.7B"
SOURCE = "model card of QThink-Qwen3-1.7B-GSM8k"

RESULTS: dict[str, dict[str, Published]] = {
    "gsm8k": {
        "base": Published(0.773, 0.750, 0.795, 1319, 1399, "think + answer"),
        "sft": Published(0.807, 0.785, 0.827, 1319, 1279, "think + answer"),
        "uniform": Published(0.832, 0.811, 0.851, 1319, 1025, "answer only"),
        "reward_weighted": Published(0.827, 0.806, 0.847, 1319),
        "final_step": Published(0.804, 0.781, 0.824, 1319),
    },
    "math500": {
        "base": Published(0.336, 0.296, 0.379, 500),
        "sft": Published(0.382, 0.340, 0.425, 500),
        "uniform": Published(0.436, 0.393, 0.480, 500),
        "final_step": Published(0.280, 0.242, 0.321, 500),
    },
    "tooluse": {
        "base": Published(0.471, 0.357, 0.588, 68),
        "sft": Published(0.456, 0.343, 0.573, 68),
        "uniform": Published(0.485, 0.370, 0.602, 68),
        "final_step": Published(0.426, 0.316, 0.545, 68),
    },
}

# Further scores by benchmark and scorer, shares of all questions.
FURTHER: dict[str, dict[str, dict[str, float]]] = {
    "tooluse": {
        "published_action": {"base": 0.750, "sft": 0.735, "uniform": 0.676, "final_step": 0.676},
        "published_exact": {name: row.accuracy for name, row in RESULTS["tooluse"].items()},
    }
}
