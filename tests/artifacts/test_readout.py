"""What latents say on disk: by question and step, likeliest first, each training seed in its own file."""

import random
from pathlib import Path

from artifact_folders import published

from qthink_core.artifacts import readout
from qthink_core.artifacts.readout import Read

ROWS = [
    Read("p0", 3, 1, 1, " 12", 0.5),
    Read("p0", 3, 1, 2, "\n", 0.25),
    Read("p0", 3, 2, 1, "<b>", 0.75),
    Read("p0", 3, 2, 2, "\u202e", 0.125),
    Read("p1", 3, 1, 1, "", 1.0),
    Read("p1", 3, 1, 2, "a", 0.0),
    Read("p1", 3, 2, 1, "b", 0.5),
    Read("p1", 3, 2, 2, "c", 0.5),
]


def test_tokens_come_back_by_question_and_step_likeliest_first_whatever_their_order_was(tmp_path: Path) -> None:
    mixed = random.Random(0).sample(ROWS, len(ROWS))
    folder = published(tmp_path, "probes", {readout.name(3): {f"{readout.name(3)}.parquet": readout.writer(mixed)}})
    assert readout.read(folder, 3) == {
        "p0": [[(" 12", 0.5), ("\n", 0.25)], [("<b>", 0.75), ("\u202e", 0.125)]],
        "p1": [[("", 1.0), ("a", 0.0)], [("b", 0.5), ("c", 0.5)]],
    }


def test_the_bytes_do_not_depend_on_the_order_of_the_rows(tmp_path: Path) -> None:
    readout.writer(ROWS)(tmp_path / "one")
    readout.writer(ROWS[::-1])(tmp_path / "other")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_each_training_seed_has_its_own_file(tmp_path: Path) -> None:
    units = {
        readout.name(seed): {f"{readout.name(seed)}.parquet": readout.writer([Read("p", seed, 1, 1, str(seed), 1.0)])}
        for seed in (0, 10)
    }
    folder = published(tmp_path, "probes", units)
    assert [readout.read(folder, seed) for seed in (0, 10)] == [{"p": [[("0", 1.0)]]}, {"p": [[("10", 1.0)]]}]
