"""Reptile with PPO as its inner loop: move the policy towards what PPO turns it into on each task.

Nichol, Achiam, Schulman: On First-Order Meta-Learning Algorithms, 2018 (Algorithm 2): theta <- theta + epsilon
mean(phi - theta), where phi is what `inner_steps` rounds of PPO make of theta. At test the same PPO goes on from theta.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from quickstudy.method import Method
from quickstudy.methods.trials.advantages import ReturnsConfig
from quickstudy.methods.trials.learner import Figures, TrialLearner, returns_by_round
from quickstudy.methods.trials.policy import GaussianPolicy, gaussian_policy, stack
from quickstudy.methods.trials.ppo import PPOConfig, adapt_by_ppo
from quickstudy.methods.trials.rollout import Episodes
from quickstudy.settings import Config, PositiveFloat, PositiveInt
from quickstudy.simulation.vector_env import VectorEnv
from quickstudy.task import Task


@dataclass(frozen=True)
class ReptilePolicyConfig(Config):
    """Settings of Reptile on rewards.

    Attributes:
        inner_steps: rounds of PPO on each task, each on episodes of its own.
        outer_rate: epsilon.
        ppo: of the inner loop, in training and at test.
        returns: advantages.
    """

    inner_steps: PositiveInt = 2
    outer_rate: PositiveFloat = 0.5
    ppo: PPOConfig = field(default_factory=PPOConfig)
    returns: ReturnsConfig = field(default_factory=ReturnsConfig)


class ReptilePolicy(TrialLearner):
    """Skill: the parameters phi of each task, stacked [task, ...]."""

    def __init__(self, policy: GaussianPolicy, config: ReptilePolicyConfig = ReptilePolicyConfig()) -> None:
        super().__init__()
        self.policy, self.config = policy, config

    def experience(self, env: VectorEnv, rng: torch.Generator) -> tuple[list[Episodes], dict[str, Tensor]]:
        """Algorithm 2: phi_i = U(theta), k rounds of PPO on task i."""
        return self._act_and_adapt(env, self.config.inner_steps, rng)

    @torch.no_grad()
    def improve(
        self, experience: tuple[list[Episodes], dict[str, Tensor]], tasks: Sequence[Task], rng: torch.Generator
    ) -> Figures:
        episodes, phi = experience
        pulls = {n: phi[n].mean(0) - p for n, p in self.policy.named_parameters()}
        if not all(pull.isfinite().all() for pull in pulls.values()):
            raise FloatingPointError("what the inner loop made of theta is not finite")
        for name, p in self.policy.named_parameters():
            # Algorithm 2: theta <- theta + epsilon mean(phi_i - theta).
            p.add_(self.config.outer_rate * pulls[name])
        length = torch.stack([pull.square().sum() for pull in pulls.values()]).sum().sqrt()
        return returns_by_round(episodes) | {"pull": float(length)}

    def trial(self, env: VectorEnv, rounds: int, rng: torch.Generator) -> list[Episodes]:
        return self._act_and_adapt(env, rounds, rng)[0]

    def _act_and_adapt(
        self, env: VectorEnv, rounds: int, rng: torch.Generator
    ) -> tuple[list[Episodes], dict[str, Tensor]]:
        start = stack(self.policy.initial(), len(env.tasks))
        with torch.enable_grad():
            return adapt_by_ppo(self.policy, start, env, rounds, rng, self.config.ppo, self.config.returns)


METHODS = (
    Method(
        "reptile-ppo",
        "moves a policy towards what PPO makes of it on each task",
        lambda s, f: ReptilePolicy(gaussian_policy(s, f), s.algorithm),
        paper="Nichol, Achiam, Schulman: On First-Order Meta-Learning Algorithms, 2018",
        settings=ReptilePolicyConfig,
        learns_from="trials",
    ),
)
