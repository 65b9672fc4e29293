"""average: the teachers of each problem, which are averages of its rollouts' hidden states, uniform and by reward."""

from typing import Literal

from qthink_core.artifacts.store import Work
from qthink_core.pipeline import layout, stage
from qthink_core.pipeline.kinds import Threads
from qthink_core.pipeline.parameters import Section


class Average(Section):
    """The reward-weighted teacher of a problem without a right rollout: the uniform one, or none."""

    no_right_rollout: Literal["uniform", "skip"]


class Params(Section):
    """The parameters that determine the teachers."""

    cpu_threads: Threads
    cpu_kernels: Literal["avx2", "native"]
    average: Average


def run(params: Params, at: stage.Box, work: Work) -> str:
    """Makes both kinds of teachers, each an artifact of its own."""
    from qthink_core.artifacts import grades, hidden_states, prepared
    from qthink_core.artifacts import teachers as stored
    from qthink_core.method import teachers

    ids = [row["id"] for row in prepared.read(layout.problems(at.task), "train")]
    rewards = grades.read_rewards(layout.rewards(at.task))
    folder, made_of = layout.hidden_states(at.task), []
    for kind in (teachers.UNIFORM, teachers.REWARD_WEIGHTED):
        units, counts = [], dict[str, int]()
        for pair in hidden_states.pair_folders(folder):
            states = hidden_states.read(folder, pair)
            made, found = teachers.all_teachers(states, rewards, sorted(ids), kind, params.average.no_right_rollout)
            units.append("-".join(filter(None, (kind, pair))))
            work.commit(units[-1], stored.writers(made, pair), {} if counts else found)  # the same for each pair
            counts = counts or found
        work.require(units, "teachers", "set average.no_right_rollout to uniform, or sample more rollouts")
        work.publish(layout.teachers(at.task, kind), "teachers", units, {"kind": kind})
        made_of.append(f"{counts['teachers']} {kind}")
    return f"teachers of {len(ids)} problems: {', '.join(made_of)}"


if __name__ == "__main__":
    stage.main("average", run)
