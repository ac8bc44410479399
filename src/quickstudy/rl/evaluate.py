"""Evaluation by trial: on tasks it never saw, what a learner's return is before and after its own episodes."""

import time

import torch

from quickstudy.evaluate import Evaluation
from quickstudy.rl.learner import TrialLearner
from quickstudy.rl.worlds import TrialFamily


def evaluate_trials(
    learner: TrialLearner, family: TrialFamily, split: str, rounds: int, tasks: int, lanes: int, seed: int = 0
) -> Evaluation:
    """Lets the learner act and adapt in turn on the first `tasks` tasks of a split.

    Every episode of every round counts, exploration included; nothing is left out for being cut short.

    Args:
        lanes: episodes of a task in each round.

    Returns:
        metrics [round, task, lane]: 'return', 'success' at any step, 'success_last' at the last one, and what the
        worlds measure. Its `shots` are the own episodes that each round could learn from, and its times are those of
        everything up to that round, simulation included, divided by the tasks.
    """
    rng = torch.Generator().manual_seed(seed)
    worlds = family.worlds(family.tasks(split, tasks), lanes)
    started = time.perf_counter()
    episodes = learner.trial(worlds, rounds, rng)
    milliseconds = (time.perf_counter() - started) * 1e3 / tasks
    worlds.close()
    return Evaluation(
        split,
        [task.name for task in worlds.tasks],
        [k * (lanes if learner.pools else 1) for k in range(len(episodes))],
        {
            "return": torch.stack([e.returns for e in episodes]).double().numpy(),
            "success": torch.stack([e.success for e in episodes]).double().numpy(),
            "success_last": torch.stack([e.success_last for e in episodes]).double().numpy(),
            **{n: torch.stack([e.measures[n] for e in episodes]).double().numpy() for n in episodes[0].measures},
        },
        [milliseconds * k / max(1, rounds) for k in range(len(episodes))],
    )
