"""Evaluation by trial: on tasks it never saw, what a learner's return is before and after its own episodes."""

import time

import torch

from quickstudy.evaluate import Evaluation
from quickstudy.methods.trials.learner import TrialLearner
from quickstudy.simulation.vector_env import TrialFamily


def evaluate_trials(
    learner: TrialLearner,
    family: TrialFamily,
    split: str,
    rounds: int,
    tasks: int,
    episodes_per_task: int,
    seed: int = 0,
) -> Evaluation:
    """Lets the learner act and adapt in turn on the first `tasks` tasks of a split.

    Every episode of every round counts, exploration included; nothing is left out for being cut short.

    Args:
        episodes_per_task: episodes of a task in each round.

    Returns:
        metrics [round, task, lane]: 'return', 'success' at any step, 'success_last' at the last one, and what the
        env measure. Its `shots` are the own episodes that each round could learn from, and its times are those of
        everything up to that round, simulation included, divided by the tasks.
    """
    rng = torch.Generator().manual_seed(seed)
    env = family.vector_env(family.tasks(split, tasks), episodes_per_task)
    started = time.perf_counter()
    episodes = learner.trial(env, rounds, rng)
    milliseconds = (time.perf_counter() - started) * 1e3 / tasks
    env.close()
    return Evaluation(
        split,
        [task.name for task in env.tasks],
        [k * (episodes_per_task if learner.shares_experience else 1) for k in range(len(episodes))],
        {
            "return": torch.stack([e.returns for e in episodes]).double().numpy(),
            "success": torch.stack([e.success for e in episodes]).double().numpy(),
            "success_last": torch.stack([e.success_last for e in episodes]).double().numpy(),
            **{n: torch.stack([e.measures[n] for e in episodes]).double().numpy() for n in episodes[0].measures},
        },
        [milliseconds * k / max(1, rounds) for k in range(len(episodes))],
    )
