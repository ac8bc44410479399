"""Proximal policy optimisation for many policies at once.

Schulman, Wolski, Dhariwal, Radford, Klimov: Proximal Policy Optimization Algorithms, 2017 (eq. 7, Algorithm 1). The
linear baseline of `quickstudy.methods.trials.advantages` takes the place of a value network, as in Rothfuss et al.
2019: a few episodes fit it at once, and there is one for each task.
"""

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from quickstudy.learner import Parameters
from quickstudy.methods.trials.advantages import AdvantageBatch, ReturnsConfig, estimate_advantages
from quickstudy.methods.trials.policy import GaussianPolicy
from quickstudy.methods.trials.rollout import Episodes, collect, memoryless
from quickstudy.settings import Config, PositiveFloat, PositiveInt
from quickstudy.simulation.vector_env import VectorEnv

Tree = TypeVar("Tree")


@dataclass(frozen=True)
class PPOConfig(Config):
    """Settings of PPO.

    Attributes:
        rate: of Adam.
        epochs: passes over the collected episodes.
        minibatches: parts of the episodes that each pass goes through.
        clip: epsilon.
        entropy: weight of the entropy bonus.
        norm: largest norm of each policy's gradient.
    """

    rate: PositiveFloat = 3e-3
    epochs: PositiveInt = 10
    minibatches: PositiveInt = 1
    clip: PositiveFloat = 0.2
    entropy: float = 0.0
    norm: PositiveFloat = 1.0


def adapt_by_ppo(
    policy: GaussianPolicy,
    start: Parameters,
    env: VectorEnv,
    rounds: int,
    rng: torch.Generator,
    config: PPOConfig,
    returns: ReturnsConfig,
) -> tuple[list[Episodes], dict[str, Tensor]]:
    """PPO on each task from a start of its own, stacked [task, ...]: `rounds` times collects and improves.

    Returns:
        the episodes before each improvement and after the last, and the policies [task, ...] that came of it.
    """
    ppo = PPO(policy, {n: p.detach().clone().requires_grad_() for n, p in start.items()}, config)
    episodes = []
    for k in range(rounds + 1):
        episodes.append(collect(env, memoryless(policy, ppo.parameters), rng))
        if k < rounds:
            ppo.improve(estimate_advantages(episodes[-1], returns), rng)
    return episodes, {n: p.detach() for n, p in ppo.parameters.items()}


def clipped_gain(ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """What eq. 7 takes the mean of, for ratios [...] of the new probability of an action to the old one."""
    # Eq. 7: min(r A, clip(r, 1 - epsilon, 1 + epsilon) A).
    return torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


def clipped_loss(ratio: Tensor, batch: AdvantageBatch, clip: float) -> Tensor:
    """Minus eq. 7, [task], for ratios [task, episode, step]."""
    return -batch.mean(clipped_gain(ratio, batch.advantages, clip))


class PPO:
    """Improves the policies of many tasks, each by its own Adam: their parameters are stacked, and Adam is elementwise.

    Args:
        parameters: leaves, which are changed in place: stacked [task, ...] for a policy of each task; or one policy's,
            which all tasks then share.
    """

    def __init__(self, policy: GaussianPolicy, parameters: Parameters, config: PPOConfig) -> None:
        self.policy, self.parameters, self.config = policy, parameters, config
        self.optimiser = torch.optim.Adam(self.parameters.values(), config.rate)

    def improve(self, batch: AdvantageBatch, rng: torch.Generator) -> None:
        """All epochs on these episodes; a policy whose gradient is not finite gets a gradient of zero in that step."""
        for _ in range(self.config.epochs):
            for chosen in torch.randperm(batch.mask.shape[1], generator=rng).chunk(self.config.minibatches):
                self._step(pick_episodes(batch, chosen))

    def _step(self, batch: AdvantageBatch) -> None:
        now = self.policy.predict(self.parameters, batch.observations)
        # Eq. 9 without the value's loss: the clipped objective and the entropy bonus.
        loss = clipped_loss(batch.ratio(now), batch, self.config.clip)
        loss = loss - self.config.entropy * batch.mean(now.entropy())
        shared = self.parameters["log_std"].ndim == 1
        gradient = torch.autograd.grad(loss.mean() if shared else loss.sum(), list(self.parameters.values()))
        for p, g in zip(self.parameters.values(), shorten(gradient, self.config.norm, shared), strict=True):
            p.grad = g
        self.optimiser.step()


def shorten(gradient: tuple[Tensor, ...], norm: float, shared: bool) -> list[Tensor]:
    """Each policy's gradient, at most `norm` long; zero where it is not finite."""
    if shared:
        return [g[0] for g in shorten(tuple(g[None] for g in gradient), norm, False)]
    length = torch.stack([g.flatten(1).square().sum(1) for g in gradient]).sum(0).sqrt()
    factor = (norm / length.clamp(min=1e-12)).clamp(max=1.0)
    finite = torch.isfinite(length)
    return [
        torch.where(finite.view(-1, *[1] * (g.ndim - 1)), g * factor.view(-1, *[1] * (g.ndim - 1)), 0.0)
        for g in gradient
    ]


def pick_episodes(tree: Tree, chosen: Tensor | slice) -> Tree:
    """These episodes of every task, of a tree of tensors [task, episode, ...]."""
    picked: Tree = tree_map(lambda t: t[:, chosen], tree)
    return picked
