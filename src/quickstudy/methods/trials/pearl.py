"""PEARL: infer the task from own transitions, and act as if that belief were right; learned off-policy.

Rakelly, Zhou, Quillen, Finn, Levine: Efficient Off-Policy Meta-Reinforcement Learning via Probabilistic Context
Variables, ICML 2019 (Algorithms 1 and 2), on soft actor-critic (SAC; Haarnoja, Zhou, Abbeel, Levine, ICML 2018).

Deviations: two critics with slow targets instead of a separate value network; a decoder that predicts rewards from z
trains the encoder too (section 4.1 names that as another choice), because the critic's own targets say little for a
long time; and the encoder's transitions are those of the first episodes of one trial, where the paper draws the latest
ones of whatever trials, which do not tell what can be inferred from one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from quickstudy.method import Method
from quickstudy.methods.trials.learner import Figures, TrialLearner, returns_by_round
from quickstudy.methods.trials.policy import Gaussian, Unit
from quickstudy.methods.trials.replay_buffer import ReplayBuffer, Transitions, transitions
from quickstudy.methods.trials.rollout import Actor, Episodes, PolicyInput, collect
from quickstudy.nets import MLP
from quickstudy.settings import Config, Fraction, NonNegativeFloat, PositiveFloat, PositiveInt, Widths
from quickstudy.simulation.vector_env import VectorEnv
from quickstudy.task import Task


@dataclass(frozen=True)
class PEARLConfig(Config):
    """Settings of PEARL.

    Attributes:
        latent: width of z.
        hidden: widths of all networks.
        episodes: of each trial in training; z comes from the prior in the first.
        kept: tasks whose transitions the replay buffer holds, the latest ones.
        steps: transitions of each that it holds, the latest ones.
        updates: gradient steps after each meta-batch of trials.
        tasks, context, batch: tasks of a gradient step, and transitions of each for the encoder and for the critic.
        rate: of Adam.
        discount: gamma.
        temperature: weight of the policy's entropy (the inverse of the paper's reward scale).
        divergence: weight of KL(q(z | c) || N(0, 1)).
        reconstruction: weight of the squared error of rewards as they are predicted from z.
        target: fraction by which the target critics follow.
    """

    latent: PositiveInt = 5
    hidden: Widths = (64, 64)
    episodes: PositiveInt = 2
    kept: PositiveInt = 400
    steps: PositiveInt = 4000
    updates: PositiveInt = 50
    tasks: PositiveInt = 16
    context: PositiveInt = 64
    batch: PositiveInt = 64
    rate: PositiveFloat = 1e-3
    discount: Fraction = 0.99
    temperature: NonNegativeFloat = 0.02
    divergence: NonNegativeFloat = 0.1
    reconstruction: NonNegativeFloat = 1.0
    target: Fraction = 0.005


class Squashed(Gaussian):
    """A normal distribution passed through tanh; mean and deviation are those before it."""

    def sample(self, rng: torch.Generator) -> Tensor:
        return super().sample(rng).tanh()

    def draw(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The action that standard normal noise makes, differentiable, and its log probability (SAC, eq. 21)."""
        # Eq. 21 of SAC: log pi(a | s) = log mu(u | s) - sum log(1 - tanh(u)^2), a = tanh(u).
        raw = self.mean + self.log_std.exp() * noise
        log_slope = 2 * (torch.log(torch.tensor(2.0)) - raw - softplus(-2 * raw))
        return raw.tanh(), self.log_prob(raw) - log_slope.sum(-1)


class PEARL(TrialLearner):
    """Skill: the belief about z, one for each trial; each environment of a task has a trial of its own."""

    shares_experience = False

    def __init__(
        self, observation_size: int, action_size: int, unit: Unit, config: PEARLConfig = PEARLConfig()
    ) -> None:
        super().__init__()
        self.config, self.unit = config, torch.as_tensor(unit)
        both = observation_size + action_size
        self.encoder = MLP(both + 1, 2 * config.latent, config.hidden)
        self.actor = MLP(observation_size + config.latent, 2 * action_size, config.hidden)
        self.decoder = MLP(both + config.latent, 1, config.hidden)
        critics = [MLP(both + config.latent, 1, config.hidden) for _ in range(4)]
        self.critics, self.targets = nn.ModuleList(critics[:2]), nn.ModuleList(critics[2:])
        self.targets.load_state_dict(self.critics.state_dict())
        self.targets.requires_grad_(False)
        learned = (self.encoder, self.decoder, self.critics, self.actor)
        trained = [p for part in learned for p in part.parameters()]
        self.optimiser = torch.optim.Adam(trained, config.rate)
        self.replay = ReplayBuffer(config.kept, config.steps)

    def experience(self, env: VectorEnv, rng: torch.Generator) -> list[Episodes]:
        """Algorithm 1, data collection: z from the posterior, act by pi(a | s, z)."""
        return self._collect_trial(env, self.config.episodes - 1, rng)

    def improve(self, experience: list[Episodes], tasks: Sequence[Task], rng: torch.Generator) -> Figures:
        """Algorithm 1: add trials to the buffer of the task, then `updates` gradient steps on tasks of the buffer."""
        episodes = experience
        self.replay.add([task.name for task in tasks], [transitions(e) for e in episodes])
        figures: Figures = {}
        for _ in range(self.config.updates):  # Algorithm 1, training steps
            figures = self._update(rng)
        return returns_by_round(episodes) | figures

    def trial(self, env: VectorEnv, rounds: int, rng: torch.Generator) -> list[Episodes]:
        """Algorithm 2: act with z from the prior, then from the posterior after all episodes before."""
        return self._collect_trial(env, rounds, rng)

    def belief(self, context: Transitions) -> Gaussian:
        """q(z | c) [..., latent] of contexts [..., n, ...]: eq. 2, the prior being one of the factors."""
        seen = torch.cat([context.observations / self.unit, context.actions, context.rewards], -1)
        mean, spread = self.encoder(seen).chunk(2, -1)
        # Eq. 2: q(z | c) ~ prod_n N(m_n, v_n), with the prior N(0, 1): precisions add up, means by their precisions.
        precision = context.mask / softplus(spread).clamp(min=1e-4)
        total = 1 + precision.sum(-2)
        return Gaussian((precision * mean).sum(-2) / total, -0.5 * total.log())

    def policy(self, observations: Tensor, z: Tensor) -> Squashed:
        """pi(a | s, z)."""
        mean, log_std = self.actor(torch.cat([observations / self.unit, z], -1)).chunk(2, -1)
        return Squashed(mean, log_std.clamp(-5.0, 1.0))

    def state(self) -> dict[str, Any]:
        return super().state() | {"replay": self.replay.state()}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.replay.restore(state["replay"])

    @torch.no_grad()
    def _collect_trial(self, env: VectorEnv, rounds: int, rng: torch.Generator) -> list[Episodes]:
        episodes: list[Episodes] = []
        for _ in range(rounds + 1):
            episodes.append(collect(env, self._actor_after(episodes, env, rng), rng))
        return episodes

    def _actor_after(self, before: list[Episodes], env: VectorEnv, rng: torch.Generator) -> Actor:
        """Acts for one episode with a z that is drawn from the belief after the episodes before."""
        zeros = torch.zeros(*env.shape, self.config.latent)
        belief = Gaussian(zeros, zeros)
        if before:
            parts = zip(*(transitions(e) for e in before), strict=True)
            belief = self.belief(Transitions(*(torch.cat(part, 2) for part in parts)))
        z = belief.sample(rng)

        def act(seen: PolicyInput) -> Gaussian:
            return self.policy(seen.observation, z)

        return act

    def _update(self, rng: torch.Generator) -> Figures:
        c = self.config
        tasks = torch.randint(len(self.replay), (c.tasks,), generator=rng).tolist()
        belief = self.belief(self.replay.draw_context(tasks, c.context, rng))
        batch = self.replay.draw(tasks, c.batch, rng)
        z = belief.sample(rng)[:, None].expand(-1, c.batch, -1)
        critic = self._critic_loss(batch, z, rng)
        zeros = torch.zeros_like(belief.mean)
        divergence = belief.kl(Gaussian(zeros, zeros)).mean()
        actor, entropy = self._actor_loss(batch.observations, z.detach(), rng)
        reward = self._reward_loss(batch, z)
        # Eq. 1 of PEARL: the task loss of z and beta KL(q(z | c) || p(z)); the actor's loss does not reach the encoder.
        loss = critic + c.divergence * divergence + c.reconstruction * reward + actor
        self.gradient_step(loss, math.inf)
        with torch.no_grad():
            for slow, fast in zip(self.targets.parameters(), self.critics.parameters(), strict=True):
                slow.lerp_(fast, c.target)
        return {
            "critic-loss": float(critic.detach()),
            "reward-loss": float(reward.detach()),
            "divergence": float(divergence.detach()),
            "entropy": float(entropy),
        }

    def _reward_loss(self, batch: Transitions, z: Tensor) -> Tensor:
        """The mean squared error of rewards as the decoder predicts them; its gradient reaches the encoder."""
        predicted = self.decoder(torch.cat([batch.observations / self.unit, batch.actions, z], -1))
        return (predicted - batch.rewards).square().mean()

    def _critic_loss(self, batch: Transitions, z: Tensor, rng: torch.Generator) -> Tensor:
        """SAC's soft Bellman error, whose gradient reaches the encoder through z."""
        with torch.no_grad():
            action, log_prob = self._draw_action(batch.following, z, rng)
            # Eq. 3 of SAC: V(s') = min Q(s', a') - alpha log pi(a' | s'), by the slow targets.
            ahead = self._value(self.targets, batch.following, action, z) - self.config.temperature * log_prob
            # Eq. 8 of SAC: r + gamma V(s'); nothing follows where an episode terminated.
            target = batch.rewards[..., 0] + self.config.discount * (1 - batch.ended[..., 0]) * ahead
        inputs = torch.cat([batch.observations / self.unit, batch.actions, z], -1)
        # Eq. 7 of SAC: E[(Q(s, a) - target)^2].
        errors = [(critic(inputs)[..., 0] - target).square().mean() for critic in self.critics]
        return errors[0] + errors[1]

    def _actor_loss(self, observations: Tensor, z: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """The actor's loss, with fixed critics, and the policy's entropy."""
        action, log_prob = self._draw_action(observations, z, rng)
        self.critics.requires_grad_(False)
        value = self._value(self.critics, observations, action, z)
        self.critics.requires_grad_(True)
        # Eq. 12 of SAC: E[alpha log pi(a | s) - Q(s, a)], a drawn by reparametrisation.
        return (self.config.temperature * log_prob - value).mean(), -log_prob.mean().detach()

    def _draw_action(self, observations: Tensor, z: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Actions of the policy and their log probabilities."""
        policy = self.policy(observations, z)
        return policy.draw(torch.randn(policy.mean.shape, generator=rng))

    def _value(self, critics: nn.ModuleList, observations: Tensor, action: Tensor, z: Tensor) -> Tensor:
        """The smaller value of both critics."""
        inputs = torch.cat([observations / self.unit, action, z], -1)
        return torch.minimum(*(critic(inputs)[..., 0] for critic in critics))


METHODS = (
    Method(
        "pearl",
        "infers the task from its transitions, off-policy by soft actor-critic",
        lambda s, f: PEARL(f.observation_size, f.action_size, f.observation_unit, s.algorithm),
        paper="Rakelly, Zhou, Quillen, Finn, Levine: Efficient Off-Policy Meta-Reinforcement Learning via "
        "Probabilistic Context Variables, ICML 2019",
        settings=PEARLConfig,
        learns_from="trials",
        changes={"training": {"meta_batch": 20, "episodes_per_task": 2}},
    ),
)
