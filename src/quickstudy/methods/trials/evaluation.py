"""Evaluation by trial: how well a learner does in tasks it never saw, before and after its own episodes."""

import time
from collections.abc import Sequence

import torch

from quickstudy.evaluation import Evaluation
from quickstudy.families.base import SimulatedFamily
from quickstudy.methods.trials.learner import TrialLearner


def evaluate_trials(
    learner: TrialLearner,
    family: SimulatedFamily,
    split: str,
    shots: Sequence[int],
    tasks: int,
    episodes: int,
    seed: int = 0,
) -> Evaluation:
    """Lets the learner act and adapt in turn on the first `tasks` tasks of a split.

    Every episode of every round counts, exploration included; nothing is left out for being cut short.

    Args:
        shots: the rounds to report: after so many adaptations, or for a learner with a memory after so many own
            episodes. As many rounds are run as the largest says, and one round has the same numbers whichever others
            are reported.
        episodes: of each task in a round.

    Returns:
        metrics [shots, task, episode]: 'return', 'success' at any step, 'success_last' at the last one, and what the
        environments measure. Its `shots` are the own episodes that each round could learn from: `episodes` for each
        adaptation where all of a task's episodes go into one (its `steps` then say how many adaptations), else one. Its
        times are those of everything up to that round, simulation included, divided by the tasks.

    Raises:
        QuickstudyError: an unknown or empty split, or too many tasks.
    """
    rounds, rng = max(shots), torch.Generator().manual_seed(seed)
    with family.vector_env(family.tasks(split, tasks), episodes) as env:
        started = time.perf_counter()
        every = learner.trial(env, rounds, rng)
        milliseconds = (time.perf_counter() - started) * 1e3 / tasks
    reported = [every[k] for k in shots]
    metrics = {
        "return": [e.returns for e in reported],
        "success": [e.success for e in reported],
        "success_last": [e.success_last for e in reported],
        **{name: [e.measures[name] for e in reported] for name in reported[0].measures},
    }
    return Evaluation(
        split,
        [task.name for task in env.tasks],
        [k * (episodes if learner.shares_experience else 1) for k in shots],
        {name: torch.stack(values).double().numpy() for name, values in metrics.items()},
        [milliseconds * k / max(1, rounds) for k in shots],
        "trials",
        list(shots) if learner.shares_experience else None,
    )
