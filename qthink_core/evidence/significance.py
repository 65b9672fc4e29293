"""The levels of all tests and intervals, and the number of trainings that a statement about the method needs."""

ALPHA = 0.05  # of every test, after Holm's correction where several are made together
CONFIDENCE = 1 - ALPHA  # of every interval
POWER = 0.8  # the probability of detecting the smallest difference of power.py
# With fewer trainings a claim stays undecided, and a verdict that praises or blames is limited to these weights.
MIN_SEEDS = 3
THESE_WEIGHTS = "these weights only"
