"""What every method of learning by trial is to the loop that trains it and to the evaluation."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from quickstudy.methods.trials.rollout import Episodes
from quickstudy.simulation.vector_env import VectorEnv

Figures = dict[str, float]
"""What a step of the outer loop has to say; docs/rl.md explains each."""


class TrialLearner(nn.Module, ABC):
    """Learns to learn from trial and reward: its parameters are the meta-parameters theta.

    Attributes:
        optimiser: of the outer loop, where it has one.
    """

    optimiser: Optimizer | None = None

    @abstractmethod
    def outer_step(self, env: VectorEnv, rng: torch.Generator) -> Figures:
        """One step of meta-training on tasks that were just drawn: acts in them and improves theta.

        Raises:
            FloatingPointError: what was computed is not finite; theta is as it was.
        """

    @abstractmethod
    def trial(self, env: VectorEnv, rounds: int, rng: torch.Generator) -> list[Episodes]:
        """What it does with tasks it does not know: `rounds` times acts and adapts to what happened, then acts again.

        Returns:
            the episodes of each round, `rounds + 1` in all; the first are those without any experience. Lanes are
            trajectories of one adaptation, or trials of their own, as `shares_experience` says.
        """

    shares_experience: bool = True
    """Whether the episodes of all episodes_per_task go into one adaptation; if not, each lane is a trial by itself."""

    def state(self) -> dict[str, Any]:
        """What else an exact resumption needs, as a checkpoint holds it."""
        return {} if self.optimiser is None else {"optimiser": self.optimiser.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes what `state` gave."""
        if self.optimiser is not None:
            self.optimiser.load_state_dict(state["optimiser"])


def returns_by_round(rounds: Sequence[Episodes]) -> Figures:
    """The mean return of each round, whatever it is worth under a policy that explores."""
    return {f"return-{k}": float(episodes.returns.mean()) for k, episodes in enumerate(rounds)}


def finite_step(optimiser: Optimizer, module: nn.Module, loss: Tensor, norm: float) -> float:
    """One step down the gradient of `loss`, shortened to `norm`; returns how long the gradient was.

    Raises:
        FloatingPointError: the gradient is not finite; nothing was changed.
    """
    optimiser.zero_grad()
    loss.backward()
    length = nn.utils.clip_grad_norm_(module.parameters(), norm)
    if not torch.isfinite(length):
        raise FloatingPointError("the gradient is not finite")
    optimiser.step()
    return float(length)
