"""A worker: makes outer steps of demonstrations, each together with the other workers of its group.

Every worker holds the learner, its optimiser and the demonstrations. As all draw by the same random numbers and step
by the same gradient, they stay alike without parameters being sent; `look` makes sure of that.
"""

import os
from typing import Any, NamedTuple

import numpy as np
import ray
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._pytree import tree_leaves

from quickstudy.batching import OuterStep
from quickstudy.cluster.meeting import enter, opened, together
from quickstudy.cluster.reduction import Parts, ReducedGradient
from quickstudy.data import Source
from quickstudy.io.progress import console
from quickstudy.learner import MetaLearner
from quickstudy.settings import TrainConfig
from quickstudy.train import DemonstrationSteps


class Done(NamedTuple):
    """What came of an outer step: its figures, the random state after it, and what was said meanwhile."""

    figures: dict[str, float]
    rng: np.ndarray
    note: str
    once: float
    said: str


class Look(NamedTuple):
    """Where a training is: the learner's state_dict on the CPU, and `DemonstrationSteps.state`."""

    summary: dict[str, float]
    note: str
    tensors: dict[str, Tensor]
    steps: dict[str, Any]


class Worker:
    """One process of a group; an actor of Ray.

    Args:
        device: 'cuda' where it has an accelerator of its own.
    """

    def __init__(self, learner: MetaLearner, source: Source, config: TrainConfig, device: str) -> None:
        self.learner, self.source, self.config = learner.to(device), source, config
        self.number = 0

    def about(self) -> str:
        """Who this is, for a sentence."""
        return f"process {os.getpid()} on {ray.util.get_node_ip_address()}"

    def meet(self, size: int, patience: float) -> tuple[str, int]:
        """Opens the place where the workers of a group find each other; asked of the first one."""
        self._meeting, host, port = opened(size, patience)
        return host, port

    def join(self, rank: int, size: int, host: str, port: int, patience: float) -> None:
        """Becomes worker `rank` of `size`."""
        on_cpu = next(self.learner.parameters()).device.type == "cpu"
        enter(self._meeting if rank == 0 else None, rank, size, host, port, patience, on_cpu)
        self.rank, self.size = rank, size
        local = OuterStep(self.learner, self.config.batching, self.config.steps)
        self.gradient = ReducedGradient(local, rank, size)
        self.steps = DemonstrationSteps(self.learner, self.source, self.config, self.gradient)

    def restore(self, tensors: dict[str, Tensor], steps: dict[str, Any] | None) -> None:
        """Goes on from there."""
        self.learner.load_state_dict(tensors)
        if steps is not None:
            self.steps.restore(steps, finished=False)

    def step(self, rng: np.ndarray, number: int) -> Done:
        """Outer step `number` from a random state."""
        self.number = number
        generator = torch.Generator()
        generator.set_state(torch.from_numpy(rng.copy()))
        with console.capture() as said:
            figures = dict(self.steps.step(generator, number))
        return Done(figures, generator.get_state().numpy(), self.steps.note(), self.steps.once(), said.get())

    def look(self, summarise: bool) -> Look | None:
        """Where the training is; of the first worker alone, which the others are made to agree with bit for bit."""
        summary = self.steps.summary() if summarise else {}
        state = self.steps.state()
        tensors = self.learner.state_dict()
        if self.size > 1:
            with together():
                for leaf in (*tensors.values(), *tree_leaves(state)):
                    if isinstance(leaf, Tensor):
                        dist.broadcast(leaf, 0)
        if self.rank:
            return None
        return Look(summary, self.steps.note(), {name: t.detach().cpu() for name, t in tensors.items()}, state)

    def parts(self) -> Parts:
        """Where the time of the steps since the last call went."""
        found, self.gradient.parts = self.gradient.parts, Parts()
        return found

    @ray.method(concurrency_group="watch")
    def computing(self) -> int:
        """The step whose share is being computed here, or 0; answered while a step is being made."""
        return self.number if self.gradient.computing else 0
