"""Where artifacts lie, relative to the repository; dvc.yaml says the same, and a test holds the two together."""

from pathlib import Path

ARTIFACTS = Path("artifacts")
BASE = ARTIFACTS / "base"
RESULTS = Path("results")
CODE = ARTIFACTS / "code"


def code(stage: str) -> Path:
    """What the code of a stage says: a digest of each module that it reaches."""
    return CODE / f"{stage}.json"


def problems(task: str) -> Path:
    """Problems of a task in one schema, by split."""
    return ARTIFACTS / "problems" / task


def rollouts(task: str) -> Path:
    """G sampled completions of each training problem."""
    return ARTIFACTS / "rollouts" / task


def rewards(task: str) -> Path:
    """Right or wrong, for each rollout."""
    return ARTIFACTS / "rewards" / task


def hidden_states(task: str) -> Path:
    """K hidden states of each usable rollout."""
    return ARTIFACTS / "hidden_states" / task


def teachers(task: str, kind: str) -> Path:
    """The averaged states of each problem."""
    return ARTIFACTS / "teachers" / task / kind


def adapters(task: str, system: str, seed: int) -> Path:
    """LoRA adapter, projection head and loss curve of a training."""
    return ARTIFACTS / "adapters" / task / system / str(seed)


def model(task: str, system: str) -> Path:
    """The exported model in the published checkpoint layout: the first training seed's, the others' in folders inside."""
    return Path("models") / task / system


def answers(task: str, system: str) -> Path:
    """What a system answered to the test questions."""
    return ARTIFACTS / "answers" / task / system


def probes(task: str, system: str) -> Path:
    """What a latent system answers when its latents are replaced, left out or lengthened, and what each one says."""
    return ARTIFACTS / "probes" / task / system


def grades(task: str) -> Path:
    """The verdict on every answer of every system."""
    return ARTIFACTS / "grades" / task
