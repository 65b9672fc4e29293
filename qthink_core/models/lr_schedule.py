"""The learning-rate schedule of pre-training and training."""

import math


def warmup_cosine(step: int, steps: int, n_warmup: int, last: float = 0.0) -> float:
    """The learning rate at a step 0..steps-1 as a share of its peak: linear warm-up, then a cosine down to `last`."""
    if step < n_warmup:
        return (step + 1) / n_warmup
    return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * (step - n_warmup) / max(steps - n_warmup, 1)))
