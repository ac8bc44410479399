"""RL squared: a recurrent policy whose memory, carried from episode to episode, is what it learned of the task.

Duan, Schulman, Chen, Bartlett, Sutskever, Abbeel: RL^2: Fast Reinforcement Learning via Slow Reinforcement Learning,
2016; Wang et al.: Learning to Reinforcement Learn, 2016. What the policy of `quickstudy.methods.trials.recurrent` maximises is the
return of the whole trial, episodes' ends or not. The outer algorithm is PPO.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from quickstudy.errors import QuickstudyError
from quickstudy.methods.trials.advantages import gae
from quickstudy.methods.trials.learner import Figures, finite_step, returns_by_round
from quickstudy.methods.trials.policy import Gaussian, clamped_log_std
from quickstudy.methods.trials.recurrent import CoreConfig, Joined, Recurrent
from quickstudy.methods.trials.rollout import Episodes
from quickstudy.simulation.vector_env import Unit, VectorEnv


@dataclass(frozen=True)
class RL2Config(CoreConfig):
    """Settings of RL squared.

    Attributes:
        episodes: of a trial in training.
        std: deviation of actions before training.
        rate, epochs, minibatches, clip, norm: of PPO; a minibatch is made of whole trials.
        discount, gae_lambda: of the advantages, over the whole trial.
        value: weight of the value's loss.
        entropy: weight of the entropy bonus.
    """

    episodes: int = 2
    std: float = 0.7
    rate: float = 1e-3
    epochs: int = 5
    minibatches: int = 2
    clip: float = 0.2
    norm: float = 1.0
    discount: float = 0.99
    gae_lambda: float = 0.95
    value: float = 0.5
    entropy: float = 0.0

    def __post_init__(self) -> None:
        for name in ("width", "episodes", "std", "rate", "epochs", "minibatches", "clip", "norm"):
            if not getattr(self, name) > 0:
                raise QuickstudyError(f"{name} must be positive; got {getattr(self, name)}.")


class Trial(NamedTuple):
    """Trials as sequences, their episodes one after the other, [lane, step, ...]; padding comes last.

    Attributes:
        inputs: what the core sees.
        actions, rewards, mask: as in `Episodes`.
        log_prob: of the actions when they were drawn.
        advantages, targets: of policy and value.
    """

    inputs: Tensor
    actions: Tensor
    rewards: Tensor
    mask: Tensor
    log_prob: Tensor
    advantages: Tensor
    targets: Tensor


class RL2(Recurrent):
    """Skill: the state of the core, one for each lane."""

    scale: Tensor

    def __init__(self, observation_size: int, action_size: int, unit: Unit, config: RL2Config = RL2Config()) -> None:
        super().__init__(observation_size, action_size, unit, config)
        self.config = config
        head = nn.Linear(config.width, action_size)
        with torch.no_grad():
            head.weight.mul_(0.01)
        self.actor = nn.Sequential(nn.Linear(config.width, config.width), nn.ReLU(), head)
        self.critic = nn.Sequential(nn.Linear(config.width, config.width), nn.ReLU(), nn.Linear(config.width, 1))
        self.log_std = nn.Parameter(torch.full((action_size,), config.std).log())
        self.register_buffer("scale", torch.zeros(()))
        self.optimiser = torch.optim.Adam(self.parameters(), config.rate)

    def outer_step(self, env: VectorEnv, rng: torch.Generator) -> Figures:
        episodes, inputs = self.live(env, self.config.episodes - 1, rng)
        trial = self._judge(episodes, inputs)
        figures: Figures = {}
        for _ in range(self.config.epochs):
            for some in torch.randperm(len(trial.mask), generator=rng).chunk(self.config.minibatches):
                figures = self._improve(Trial(*(t[some] for t in trial)))
        return returns_by_round(episodes) | figures

    def unroll(self, inputs: Tensor) -> tuple[Gaussian, Tensor]:
        """Actions' distributions [lane, step, act] and values [lane, step] along sequences of inputs."""
        features = self.core.unroll(inputs)
        return self.act(features), self.critic(features).squeeze(-1)

    def act(self, features: Tensor) -> Gaussian:
        mean = self.actor(features)
        return Gaussian(mean, clamped_log_std(self.log_std).expand_as(mean))

    def loss(self, trial: Trial) -> tuple[Tensor, Figures]:
        """PPO's clipped objective, the value's squared error in units of its scale, and the entropy bonus."""
        gaussian, values = self.unroll(trial.inputs)
        count = trial.mask.sum()
        ratio = (gaussian.log_prob(trial.actions) - trial.log_prob).exp()
        bounded = ratio.clamp(1 - self.config.clip, 1 + self.config.clip)
        gain = torch.minimum(ratio * trial.advantages, bounded * trial.advantages)
        policy = -(gain * trial.mask).sum() / count
        value = ((values - trial.targets / self.scale).square() * trial.mask).sum() / count
        entropy = (gaussian.entropy() * trial.mask).sum() / count
        loss = policy + self.config.value * value - self.config.entropy * entropy
        return loss, {
            "loss": float(policy.detach()),
            "value-loss": float(value.detach()),
            "entropy": float(entropy.detach()),
        }

    def _improve(self, trial: Trial) -> Figures:
        loss, figures = self.loss(trial)
        assert self.optimiser is not None
        return figures | {"gradient-norm": finite_step(self.optimiser, self, loss, self.config.norm)}

    @torch.no_grad()
    def _judge(self, episodes: Sequence[Episodes], inputs: Sequence[Tensor]) -> Trial:
        """Advantages over whole trials; with the trial all is over, so nothing is worth anything after it."""
        joined = Joined([e.mask for e in episodes])
        mask, x = joined.mask, joined(inputs)
        rewards, actions = joined([e.rewards for e in episodes]), joined([e.actions for e in episodes])
        gaussian, values = self.unroll(x)
        if self.scale == 0:
            self.scale.copy_((rewards * mask).sum(1).std().clamp(min=1e-3) / 4)
        values = values * self.scale
        nothing = torch.zeros(len(mask))
        over = torch.ones(len(mask), dtype=torch.bool)
        advantages = gae(rewards, values, nothing, over, mask, self.config.discount, self.config.gae_lambda)
        real = mask.bool()
        standard = (advantages - advantages[real].mean()) / advantages[real].std().clamp(min=1e-8) * mask
        return Trial(x, actions, rewards, mask, gaussian.log_prob(actions), standard, advantages + values)
