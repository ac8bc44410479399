"""RL squared: a recurrent policy whose memory, kept from episode to episode, is what it learned of the task.

Duan, Schulman, Chen, Bartlett, Sutskever, Abbeel: RL^2: Fast Reinforcement Learning via Slow Reinforcement Learning,
2016; Wang et al.: Learning to Reinforcement Learn, 2016. The policy (`quickstudy.methods.trials.recurrent`) maximises
the return of the whole trial, across episodes' ends. The outer algorithm is PPO.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from quickstudy.learner import masked_mean
from quickstudy.method import Method
from quickstudy.methods.trials.advantages import gae
from quickstudy.methods.trials.learner import Figures, returns_by_round
from quickstudy.methods.trials.policy import Gaussian, Unit, clamped_log_std
from quickstudy.methods.trials.ppo import clipped_gain
from quickstudy.methods.trials.recurrent import CoreConfig, JoinedEpisodes, Recurrent
from quickstudy.methods.trials.rollout import Episodes
from quickstudy.settings import Changes, Fraction, PositiveFloat, PositiveInt
from quickstudy.simulation.vector_env import VectorEnv
from quickstudy.task import Task


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

    episodes: PositiveInt = 2
    std: PositiveFloat = 0.7
    rate: PositiveFloat = 1e-3
    epochs: PositiveInt = 5
    minibatches: PositiveInt = 2
    clip: PositiveFloat = 0.2
    norm: PositiveFloat = 1.0
    discount: Fraction = 0.99
    gae_lambda: Fraction = 0.95
    value: float = 0.5
    entropy: float = 0.0


class TrialBatch(NamedTuple):
    """Trials as sequences, their episodes one after the other, [trial, step, ...]; padding comes last.

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
    """Skill: the state of the core, one for each trial."""

    scale: Tensor  # unit of the critic's values, a quarter of the deviation of the first trials' returns

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

    def experience(self, env: VectorEnv, rng: torch.Generator) -> tuple[list[Episodes], list[Tensor]]:
        """Section 2.2 of RL^2: trials of tasks just drawn."""
        return self.collect_trial(env, self.config.episodes - 1, rng)

    def improve(
        self, experience: tuple[list[Episodes], list[Tensor]], tasks: Sequence[Task], rng: torch.Generator
    ) -> Figures:
        """Section 2.2 of RL^2: PPO on the whole returns of trials."""
        episodes, inputs = experience
        batch = self._estimate_advantages(episodes, inputs)
        figures: Figures = {}
        for _ in range(self.config.epochs):
            for chosen in torch.randperm(len(batch.mask), generator=rng).chunk(self.config.minibatches):
                figures = self._improve(TrialBatch(*(t[chosen] for t in batch)))
        return returns_by_round(episodes) | figures

    def unroll(self, inputs: Tensor) -> tuple[Gaussian, Tensor]:
        """Actions' distributions [trial, step, act] and values [trial, step] along sequences of inputs."""
        features = self.core.unroll(inputs)
        return self.act(features), self.critic(features).squeeze(-1)

    def act(self, features: Tensor) -> Gaussian:
        mean = self.actor(features)
        return Gaussian(mean, clamped_log_std(self.log_std).expand_as(mean))

    def loss(self, batch: TrialBatch) -> tuple[Tensor, Figures]:
        """PPO's clipped objective, the value's squared error in units of its scale, and the entropy bonus."""
        gaussian, values = self.unroll(batch.inputs)
        ratio = (gaussian.log_prob(batch.actions) - batch.log_prob).exp()
        # Eq. 7 of PPO, over all real steps.
        policy = -masked_mean(clipped_gain(ratio, batch.advantages, self.config.clip), batch.mask)
        value = masked_mean((values - batch.targets / self.scale).square(), batch.mask)
        entropy = masked_mean(gaussian.entropy(), batch.mask)
        # Eq. 9 of PPO, as a loss: -L_clip + c_1 L_value - c_2 S.
        loss = policy + self.config.value * value - self.config.entropy * entropy
        return loss, {
            "loss": float(policy.detach()),
            "value-loss": float(value.detach()),
            "entropy": float(entropy.detach()),
        }

    def _improve(self, batch: TrialBatch) -> Figures:
        loss, figures = self.loss(batch)
        return figures | {"gradient-norm": self.gradient_step(loss, self.config.norm)}

    @torch.no_grad()
    def _estimate_advantages(self, episodes: Sequence[Episodes], inputs: Sequence[Tensor]) -> TrialBatch:
        """Advantages over whole trials: an episode's end does not cut the return, and after a trial nothing follows."""
        joined = JoinedEpisodes([e.mask for e in episodes])
        mask, x = joined.mask, joined(inputs)
        rewards, actions = joined([e.rewards for e in episodes]), joined([e.actions for e in episodes])
        gaussian, values = self.unroll(x)
        if self.scale == 0:
            self.scale.copy_((rewards * mask).sum(1).std().clamp(min=1e-3) / 4)
        values = values * self.scale
        after = torch.zeros(len(mask))
        over = torch.ones(len(mask), dtype=torch.bool)
        # Eq. 16 of GAE, with the trial in place of the episode.
        advantages = gae(rewards, values, after, over, mask, self.config.discount, self.config.gae_lambda)
        real = mask.bool()
        standard = (advantages - advantages[real].mean()) / advantages[real].std().clamp(min=1e-8) * mask
        return TrialBatch(x, actions, rewards, mask, gaussian.log_prob(actions), standard, advantages + values)


TRIALS: Changes = {"training": {"meta_batch": 40, "episodes_per_task": 2}}
"""What a method with a memory needs: many tasks with few trials each."""

_variant = partial(
    Method,
    build=lambda s, f: RL2(f.observation_size, f.action_size, f.observation_unit, s.algorithm),
    settings=RL2Config,
    learns_from="trials",
    changes=TRIALS,
)

METHODS = (
    _variant(
        "rl2",
        "an LSTM that learns a task by acting in it",
        paper="Duan, Schulman, Chen, Bartlett, Sutskever, Abbeel: RL^2: Fast Reinforcement Learning via Slow "
        "Reinforcement Learning, 2016",
        fixed={"core": "lstm"},
    ),
    _variant(
        "rl2-mann",
        "rl2 with the external memory of MANN in place of the LSTM",
        paper="Santoro, Bartunov, Botvinick, Wierstra, Lillicrap: Meta-Learning with Memory-Augmented Neural "
        "Networks, ICML 2016",
        fixed={"core": "mann"},
    ),
)
