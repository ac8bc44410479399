"""Returns, the linear feature baseline and generalised advantages.

Schulman, Moritz, Levine, Jordan, Abbeel: High-Dimensional Continuous Control Using Generalized Advantage Estimation,
ICLR 2016. The baseline is that of Duan et al. 2016 (Benchmarking Deep RL, supplementary 2).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from quickstudy.methods.trials.policy import Gaussian
from quickstudy.methods.trials.rollout import Episodes
from quickstudy.settings import Config, Fraction


@dataclass(frozen=True)
class ReturnsConfig(Config):
    """How advantages are estimated.

    Attributes:
        discount: gamma.
        gae_lambda: lambda of GAE; 1 is the return minus the baseline, 0 the one-step temporal difference.
    """

    discount: Fraction = 0.99
    gae_lambda: Fraction = 1.0


class AdvantageBatch(NamedTuple):
    """Steps and how good they turned out, [task, episode, step, ...].

    Attributes:
        observations, actions, mask: as in `Episodes`.
        advantages: zero mean and unit variance over the real steps of each task; 0 for padding.
        log_prob: of the actions when they were drawn.
        old: what they were drawn from.
        returns: undiscounted, [task, episode]; standardised advantages do not tell them.
    """

    observations: Tensor
    actions: Tensor
    mask: Tensor
    advantages: Tensor
    log_prob: Tensor
    old: Gaussian
    returns: Tensor

    def mean(self, values: Tensor) -> Tensor:
        """The mean of values [task, episode, step] over each task's real steps, [task]."""
        return (values * self.mask).sum((1, 2)) / self.mask.sum((1, 2)).clamp(min=1.0)

    def ratio(self, now: Gaussian) -> Tensor:
        """How much more probable the actions are now than when they were drawn, [task, episode, step]."""
        # Eq. 6 of PPO: r(theta) = pi_theta(a | s) / pi_old(a | s).
        return (now.log_prob(self.actions) - self.log_prob).exp()


def estimate_advantages(episodes: Episodes, config: ReturnsConfig) -> AdvantageBatch:
    """Fits each task's baseline to its episodes and compares what happened with it."""
    returns = discounted(episodes.rewards, episodes.mask, config.discount)
    now = features(episodes.observations, torch.arange(episodes.mask.shape[-1]).expand(episodes.mask.shape))
    after = features(episodes.last, episodes.mask.sum(-1))
    weights = fit_baseline(now, returns, episodes.mask)
    values = (now @ weights[:, None, :, None]).squeeze(-1)
    last = (after @ weights[:, :, None]).squeeze(-1)
    advantages = gae(
        episodes.rewards, values, last, episodes.terminated, episodes.mask, config.discount, config.gae_lambda
    ).float()
    return AdvantageBatch(
        episodes.observations,
        episodes.actions,
        episodes.mask,
        standardise(advantages, episodes.mask),
        episodes.old.log_prob(episodes.actions),
        episodes.old,
        episodes.returns,
    )


def discounted(rewards: Tensor, mask: Tensor, discount: float) -> Tensor:
    """Discounted rewards to go, [..., step]; padding is worth nothing."""
    ahead, returns = torch.zeros_like(rewards[..., 0]), []
    for reward in (rewards * mask).flip(-1).unbind(-1):
        # R_t = r_t + gamma R_{t+1}.
        ahead = reward + discount * ahead
        returns.append(ahead)
    return torch.stack(returns[::-1], -1)


def gae(
    rewards: Tensor,
    values: Tensor,
    last: Tensor,
    terminated: Tensor,
    mask: Tensor,
    discount: float,
    gae_lambda: float,
) -> Tensor:
    """Advantages [..., step], eq. 16.

    Args:
        values: of the observations, [..., step].
        last: value of the observation after the last real step, [...]. It counts where an episode was truncated, and
            is nothing where it terminated.
        mask: [..., step]; padding comes last.
    """
    following, advantage = torch.where(terminated, 0.0, last), torch.zeros_like(last)
    advantages = []
    for t in reversed(range(rewards.shape[-1])):
        real = mask[..., t] > 0
        # The temporal difference: delta_t = r_t + gamma V(s_{t+1}) - V(s_t).
        delta = rewards[..., t] + discount * following - values[..., t]
        # Eq. 16: A_t = sum_l (gamma lambda)^l delta_{t+l}, backwards: A_t = delta_t + gamma lambda A_{t+1}.
        advantage = torch.where(real, delta + discount * gae_lambda * advantage, 0.0)
        following = torch.where(real, values[..., t], following)
        advantages.append(advantage)
    return torch.stack(advantages[::-1], -1)


def features(observations: Tensor, times: Tensor) -> Tensor:
    """[..., feature], of observations [..., obs] and how many steps came before them [...].

    Observation, its square, time in hundreds of steps to the third power, and 1. Time makes the baseline right for a
    horizon: what is left of a truncated episode's return tends to nothing towards it.
    """
    x, t = observations.double().clamp(-10, 10), times.double().unsqueeze(-1) / 100
    return torch.cat([x, x.square(), t, t.square(), t**3, torch.ones_like(t)], -1)


def fit_baseline(features: Tensor, returns: Tensor, mask: Tensor, ridge: float = 1e-5) -> Tensor:
    """Weights [task, feature] of the least squares of returns [task, episode, step] on features [..., feature]."""
    x, y, w = features.flatten(1, 2), returns.double().flatten(1, 2), mask.double().flatten(1, 2)
    weighted = x * w[..., None]
    # The normal equations: (X^T W X + ridge I) weights = X^T W y.
    gram = weighted.mT @ x + ridge * torch.eye(x.shape[-1], dtype=x.dtype)
    return torch.linalg.solve(gram, (weighted.mT @ y[..., None]).squeeze(-1))


def standardise(advantages: Tensor, mask: Tensor) -> Tensor:
    """Each task's advantages [task, episode, step] at zero mean and unit variance over its real steps; padding 0."""
    count = mask.sum((1, 2), keepdim=True).clamp(min=1.0)
    centred = (advantages - (advantages * mask).sum((1, 2), keepdim=True) / count) * mask
    return centred / (centred.square().sum((1, 2), keepdim=True) / count).sqrt().clamp(min=1e-8)
