"""A Gaussian policy whose parameters may be those of one task, or stacked for many."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from quickstudy.learner import Parameters
from quickstudy.settings import Settings
from quickstudy.task import TaskFamily

Unit = float | Sequence[float]
"""What observations are divided by, one number for all or one for each."""

_LEAST_LOG_STD = math.log(1e-3)
_ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh}


class Gaussian(NamedTuple):
    """Independent normal distributions over the components of an action.

    Attributes:
        mean, log_std: [..., act].
    """

    mean: Tensor
    log_std: Tensor

    def log_prob(self, action: Tensor) -> Tensor:
        """[...], the logarithm of the density at actions [..., act]."""
        z = (action - self.mean) * (-self.log_std).exp()
        return -(0.5 * z.square() + self.log_std + 0.5 * math.log(2 * math.pi)).sum(-1)

    def sample(self, rng: torch.Generator) -> Tensor:
        """Actions [..., act]."""
        return self.mean + self.log_std.exp() * torch.randn(self.mean.shape, generator=rng, dtype=self.mean.dtype)

    def entropy(self) -> Tensor:
        """In nats, [...]."""
        return (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)

    def kl(self, other: "Gaussian") -> Tensor:
        """KL(self || other), [...]."""
        ratio = (2 * (self.log_std - other.log_std)).exp()
        distance = ((self.mean - other.mean) * (-other.log_std).exp()).square()
        return (other.log_std - self.log_std + 0.5 * (ratio + distance - 1)).sum(-1)


class GaussianPolicy(nn.Module):
    """A multi-layer perceptron for the mean; the deviation is a parameter that does not depend on the observation.

    Args:
        std: the deviation before training; it is never less than a thousandth.
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        hidden: Sequence[int],
        unit: Unit = 1.0,
        std: float = 1.0,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.unit, self.activation, self.layers = torch.as_tensor(unit), activation, len(hidden) + 1
        widths = [observation_size, *hidden, action_size]
        for i, (wide, narrow) in enumerate(pairwise(widths)):
            weight = torch.empty(narrow, wide)
            nn.init.orthogonal_(weight, gain=0.01 if i == len(hidden) else math.sqrt(2))
            self.register_parameter(f"weight{i}", nn.Parameter(weight))
            self.register_parameter(f"bias{i}", nn.Parameter(torch.zeros(narrow)))
        self.log_std = nn.Parameter(torch.full((action_size,), math.log(std)))

    def initial(self) -> dict[str, Tensor]:
        """Its own parameters by name."""
        return dict(self.named_parameters())

    def predict(self, parameters: Parameters, x: Tensor) -> Gaussian:
        """The distributions of the policy with other parameters.

        Args:
            parameters: of one policy, for x [..., obs]; or stacked, [task, ...], for x [task, ..., obs]. Stacked
                products are one call for all tasks, in place of `vmap` over them.
        """
        stacked = parameters["log_std"].ndim == 2
        h = (x.flatten(1, -2) if stacked else x) / self.unit
        for i in range(self.layers):
            weight, bias = parameters[f"weight{i}"], parameters[f"bias{i}"]
            h = torch.baddbmm(bias.unsqueeze(1), h, weight.mT) if stacked else nn.functional.linear(h, weight, bias)
            if i < self.layers - 1:
                h = _ACTIVATIONS[self.activation](h)
        log_std = clamped_log_std(parameters["log_std"])
        if stacked:
            h = h.unflatten(1, x.shape[1:-1])
            log_std = log_std.reshape(len(log_std), *[1] * (x.ndim - 2), -1)
        return Gaussian(h, log_std.expand_as(h))


def gaussian_policy(settings: Settings, family: TaskFamily, more_inputs: int = 0) -> GaussianPolicy:
    """The policy that `settings.network` describes for a family.

    Args:
        more_inputs: numbers that it sees beside an observation.
    """
    return GaussianPolicy(
        family.observation_size + more_inputs,
        family.action_size,
        settings.network.hidden,
        family.observation_unit,
        settings.network.std,
        settings.network.activation,
    )


def clamped_log_std(log_std: Tensor) -> Tensor:
    """A deviation of at least a thousandth, so that no density is infinite."""
    return log_std.clamp(min=_LEAST_LOG_STD)


def stack(parameters: Parameters, tasks: int) -> dict[str, Tensor]:
    """The same parameters for every task, [task, ...]."""
    return {name: p.expand(tasks, *p.shape) for name, p in parameters.items()}
