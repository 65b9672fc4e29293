"""The findings of a run as plain values: everything that the report shows. Shares and p-values are in [0, 1]."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from qthink_core.evidence.power import Scatter


class System(NamedTuple):
    """A row of the tables: its displayed name, whether it takes latent steps, and how it differs from the other rows.

    `K` and `distance` are None where the row uses the values that the run's rows share.
    """

    name: str
    latent: bool = False
    marks: Sequence[str] = ()
    K: int | None = None
    distance: str | None = None


class Cell(NamedTuple):
    """A system on a benchmark: accuracy with standard error and 95 % interval over `n` questions.

    `spread` is the standard deviation of the accuracies of several seeds, None with one seed; `hit_limit` is the share of
    answers that ran into the token limit; `latents` counts the passes before the first token, each as costly as a token.
    """

    accuracy: float
    standard_error: float
    low: float
    high: float
    n: int
    seeds: int
    spread: float | None
    mean_tokens: float
    hit_limit: float
    latents: int = 0


class Comparison(NamedTuple):
    """Accuracy of `left` minus that of `right` on the same questions, with 95 % interval; p before and after correction.

    `trainings` counts the trainings of the trained side, or of the side with fewer; None between two base rows.
    """

    task: str
    left: str
    right: str
    difference: float
    low: float
    high: float
    p: float
    adjusted_p: float
    trainings: int | None = None


class Power(NamedTuple):
    """The smallest difference that `n` questions and `seeds` trainings detect with 80 % power, or None.

    `scatter` was measured between the latent `system` and the control. `alone` has no correction for several comparisons;
    `corrected` has the one for the smallest p-value in the table.
    """

    system: str
    n: int
    seeds: int
    scatter: Scatter
    alone: float | None
    corrected: float | None


class Conditions(NamedTuple):
    """A trained latent system under each evaluation condition, in order, and the verdict: a word and a sentence.

    `trained` changes nothing; `K=0`, `K=1`, ... take that many steps; any other name is what replaces the latents.
    """

    cells: Mapping[str, Cell]
    word: str
    sentence: str


class Claim(NamedTuple):
    """A published claim and our run of it; differences are shares, or in `unit` if that is not points; None if missing."""

    words: str
    benchmark: str
    published: float | None
    ours: float | None
    low: float | None
    high: float | None
    seeds: int
    verdict: str
    note: str = ""
    unit: str = "points"


class Answered(NamedTuple):
    """A system's answer to one question; `readout` holds the likeliest (token, probability) pairs of each latent step."""

    text: str
    verdict: str
    extracted: str | None
    n_tokens: int
    finish: str
    readout: Sequence[Sequence[tuple[str, float]]] = ()


class Question(NamedTuple):
    """One question and its answers by system."""

    task: str
    id: str
    prompt: str
    gold: str
    answers: Mapping[str, Answered]


class Findings(NamedTuple):
    """A whole run; mappings are in the order of display.

    `setting` completes "This run is of ..." in words; `repeats_published`: whether model and problems are those of the
    published results; `K` and `distance` are what the latent rows share; `control` is the system without latents that the
    latent ones must beat, `direct` the base that does not think. `cells` and `curves` are by task, then system; `curves`
    holds a mapping for each optimiser step with `step`, `cross_entropy` (nats a token) and, of latent systems,
    `distillation` and `distance` (at each latent step); `power` is by task, `conditions` by task and latent system,
    `further` by task, system and scorer, `test_sets` by task, test set and system.
    """

    scale: str
    setting: str
    made_with: Mapping[str, Any]
    K: int
    systems: Mapping[str, System]
    cells: Mapping[str, Mapping[str, Cell]]
    control: str | None = None
    direct: str | None = None
    repeats_published: bool = False
    distance: str = "l1"
    comparisons: Sequence[Comparison] = ()
    power: Mapping[str, Power] = {}
    curves: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]] = {}
    conditions: Mapping[str, Mapping[str, Conditions]] = {}
    claims: Sequence[Claim] = ()
    questions: Sequence[Question] = ()
    further: Mapping[str, Mapping[str, Mapping[str, float]]] = {}
    test_sets: Mapping[str, Mapping[str, Mapping[str, Cell]]] = {}
