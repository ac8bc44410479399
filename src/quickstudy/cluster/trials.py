"""Trials of a meta-batch of tasks, collected by several processes; the learner improves by all of them in one.

The weights are sent once an update. Each process has a share of the tasks and random numbers of its own, drawn from the
training's, so that a share that is collected again is the same.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import ray
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from quickstudy.cluster.pool import Hand, Pool
from quickstudy.cluster.reduction import share
from quickstudy.families.base import SimulatedFamily
from quickstudy.io.progress import console
from quickstudy.methods.trials.learner import TrialLearner
from quickstudy.methods.trials.outer_loop import TrialSteps
from quickstudy.settings import TrialConfig
from quickstudy.task import Task


class Collector(Hand):
    """Collects a share of a meta-batch; an actor of Ray."""

    def __init__(self, learner: TrialLearner, family: SimulatedFamily, episodes_per_task: int) -> None:
        self.learner, self.family, self.episodes_per_task = learner, family, episodes_per_task

    def collect(self, weights: dict[str, Tensor], tasks: Sequence[Task], seed: int) -> tuple[Any, int, str]:
        """Experience as a tree of arrays [task, ...], faults, and what was said."""
        self.learner.load_state_dict(weights)
        env = self.family.vector_env(tasks, self.episodes_per_task)
        try:
            with console.capture() as said:
                experience = self.learner.experience(env, torch.Generator().manual_seed(seed))
            return tree_map(lambda t: t.detach().numpy(), experience), env.faults, said.get()
        finally:
            env.close()


class ClusterTrialSteps(TrialSteps):
    """Outer steps by trial whose experience is collected on a cluster.

    Args:
        pool: of `Collector`.
        size: parts that a meta-batch is split into.
    """

    def __init__(
        self, learner: TrialLearner, family: SimulatedFamily, config: TrialConfig, pool: Pool, size: int
    ) -> None:
        super().__init__(learner, family, config, self._collected)
        self.pool, self.size = pool, size

    def close(self) -> None:
        """Ends the processes."""
        self.pool.close()

    def _collected(self, learner: TrialLearner, tasks: Sequence[Task], rng: torch.Generator) -> tuple[Any, int]:
        weights = ray.put(learner.state_dict())
        shares = [tasks[share(len(tasks), i, self.size)] for i in range(self.size)]
        seeds = torch.randint(2**62, (self.size,), generator=rng).tolist()
        titles = [f"the trials of {some[0].name} to {some[-1].name}" for some in shares]
        parts = [(weights, some, seed) for some, seed in zip(shares, seeds, strict=True)]
        found: list[Any] = [None] * self.size
        faults = 0
        for place, (experience, failed, said) in self.pool.map("collect", parts, titles):
            found[place] = experience
            faults += failed
            if said:
                console.print(said.rstrip(), markup=False, highlight=False, soft_wrap=True)
        return joined(found), faults


def joined(parts: Sequence[Any]) -> Any:
    """One tree of tensors [task, ...] of several of arrays, whose third axis is padded with zeros to one length."""
    spec = tree_flatten(parts[0])[1]
    leaves = [_joined(some) for some in zip(*(tree_flatten(part)[0] for part in parts), strict=True)]
    return tree_unflatten(leaves, spec)


def _joined(some: Sequence[np.ndarray]) -> Tensor:
    if some[0].ndim > 2:
        longest = max(array.shape[2] for array in some)
        some = [np.pad(a, [(0, longest - a.shape[2] if axis == 2 else 0) for axis in range(a.ndim)]) for a in some]
    return torch.from_numpy(np.concatenate(some))
