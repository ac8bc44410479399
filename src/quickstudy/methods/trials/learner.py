"""What every method that learns by trial is to the outer loop and to the evaluation."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from quickstudy.methods.trials.rollout import Episodes
from quickstudy.simulation.vector_env import VectorEnv
from quickstudy.task import Task

Figures = dict[str, float]
"""What a step of the outer loop logs, by name; the page of each method in docs/methods/trials explains them."""


class TrialLearner(nn.Module, ABC):
    """Learns to learn from trial and reward: its parameters are the meta-parameters theta.

    Attributes:
        optimiser: of the outer loop, where it has one.
        shares_experience: whether all episodes of a task go into one adaptation; if not, each environment of a task has
            a trial of its own.
    """

    optimiser: Optimizer | None = None
    shares_experience: bool = True

    def outer_step(self, env: VectorEnv, rng: torch.Generator) -> Figures:
        """One step of meta-training on tasks that were just drawn: acts in them and improves theta.

        Returns:
            what to log; 'return-k' is the mean return after k adaptations, or after k earlier episodes.

        Raises:
            FloatingPointError: a gradient is not finite; the gradient step at hand changed nothing.
        """
        return self.improve(self.experience(env, rng), env.tasks, rng)

    def experience(self, env: VectorEnv, rng: torch.Generator) -> Any:
        """The first half of `outer_step`, which several machines can do, each for some of the tasks.

        Returns:
            what `improve` learns from: a tree of tensors [task, ...], whose third axis may be longer where it is padded
            with zeros. A method that has only `outer_step` learns in one process.
        """
        raise NotImplementedError

    def improve(self, experience: Any, tasks: Sequence[Task], rng: torch.Generator) -> Figures:
        """The second half of `outer_step`: improves theta by the experience of these tasks."""
        raise NotImplementedError

    @abstractmethod
    def trial(self, env: VectorEnv, rounds: int, rng: torch.Generator) -> list[Episodes]:
        """What it does in tasks that it does not know: `rounds` times acts and adapts, then acts again.

        It learns from actions, observations and rewards alone, and theta stays as it is.

        Returns:
            the episodes of each round, `rounds + 1` in all; the first are those without any experience.
        """

    def state(self) -> dict[str, Any]:
        """What an exact resumption needs beside the parameters, as a checkpoint holds it."""
        return {} if self.optimiser is None else {"optimiser": self.optimiser.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes what `state` gave."""
        if self.optimiser is not None:
            self.optimiser.load_state_dict(state["optimiser"])

    def gradient_step(self, loss: Tensor, norm: float) -> float:
        """One step of the optimiser down the gradient of `loss`, shortened to `norm`; returns how long it was.

        Raises:
            FloatingPointError: the gradient is not finite; nothing was changed.
        """
        assert self.optimiser is not None
        self.optimiser.zero_grad()
        loss.backward()
        length = nn.utils.clip_grad_norm_([p for g in self.optimiser.param_groups for p in g["params"]], norm)
        if not torch.isfinite(length):
            raise FloatingPointError("the gradient is not finite")
        self.optimiser.step()
        return float(length)


def returns_by_round(rounds: Sequence[Episodes]) -> Figures:
    """The mean undiscounted return of each round, of the policy that explores."""
    return {f"return-{k}": float(episodes.returns.mean()) for k, episodes in enumerate(rounds)}
