"""The paths of artifacts, relative to the repository; a test compares them with dvc.yaml."""

from pathlib import Path

ARTIFACTS = Path("artifacts")
BASE = ARTIFACTS / "base"
RESULTS = Path("results")
CODE = ARTIFACTS / "code"


def code(stage: str) -> Path:
    """The code of a stage: a digest of each module that it reaches."""
    return CODE / f"{stage}.json"


def problems(task: str) -> Path:
    """Problems of a task in one schema, by split."""
    return ARTIFACTS / "problems" / task


def test_sets(task: str) -> Path:
    """Further questions of a task, for testing alone, by set."""
    return ARTIFACTS / "test_sets" / task


def rollouts(task: str) -> Path:
    """G sampled completions of each training problem."""
    return ARTIFACTS / "rollouts" / task


def rewards(task: str) -> Path:
    """The verdict on each rollout."""
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
    """The exported model in the published layout: that of the first training seed, with the others in subfolders."""
    return Path("models") / task / system


def answers(task: str, system: str) -> Path:
    """The answers of a system to the test questions."""
    return ARTIFACTS / "answers" / task / system


def probes(task: str, system: str) -> Path:
    """A latent system's answers with its latents replaced, left out or extended, and the likeliest tokens of each latent."""
    return ARTIFACTS / "probes" / task / system


def grades(task: str) -> Path:
    """The verdict on every answer of every system."""
    return ARTIFACTS / "grades" / task
