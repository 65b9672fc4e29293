"""The levels of all tests and intervals, and how many trainings a statement about the method takes."""

ALPHA = 0.05  # of every test, after Holm's correction where several are made together
CONFIDENCE = 1 - ALPHA  # of every interval
POWER = 0.8  # the chance with which the smallest difference of power.py is found
# With fewer trainings a claim stays undecided, and praise and blame are about these weights only.
MIN_SEEDS = 3
THESE_WEIGHTS = "these weights only"
