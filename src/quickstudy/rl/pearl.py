"""PEARL: infer from own transitions which task it is, and act as one who believes that; learned off-policy.

Rakelly, Zhou, Quillen, Finn, Levine: Efficient Off-Policy Meta-Reinforcement Learning via Probabilistic Context
Variables, ICML 2019 (Algorithms 1 and 2), on soft actor-critic (Haarnoja et al. 2018).

q(z | c) is a product of Gaussians, one for each transition c_n and the prior (eq. 2 of the paper); z is drawn once an
episode (posterior sampling). The critic's gradient trains the encoder, the actor takes z as given.

Deviations: two critics with slow targets instead of a separate value network; tasks are drawn anew all the time, and
the replay holds those last met, where the paper has a fixed set; context is drawn from all of a task's transitions.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from quickstudy.errors import QuickstudyError
from quickstudy.nets import MLP
from quickstudy.rl.learner import Figures, TrialLearner, returns_by_round
from quickstudy.rl.policy import Gaussian
from quickstudy.rl.rollouts import Actor, Episodes, Seen, collect
from quickstudy.rl.worlds import Worlds


@dataclass(frozen=True)
class PEARLConfig:
    """Settings of PEARL.

    Attributes:
        latent: width of z.
        hidden: widths of all networks.
        episodes: of each task when it is met; z comes from the prior in the first.
        kept: tasks whose transitions the replay holds, the last ones met.
        updates: gradient steps after each meeting.
        tasks, context, batch: tasks of a gradient step, and transitions of each for the encoder and for the critic.
        rate: of Adam.
        discount: gamma.
        temperature: weight of the policy's entropy (the inverse of the paper's reward scale).
        divergence: weight of KL(q(z | c) || N(0, 1)).
        target: fraction by which the target critics follow.
    """

    latent: int = 5
    hidden: tuple[int, ...] = (64, 64)
    episodes: int = 2
    kept: int = 400
    updates: int = 50
    tasks: int = 16
    context: int = 64
    batch: int = 64
    rate: float = 1e-3
    discount: float = 0.99
    temperature: float = 0.02
    divergence: float = 0.1
    target: float = 0.005

    def __post_init__(self) -> None:
        for name in ("latent", "episodes", "kept", "updates", "tasks", "context", "batch", "rate"):
            if not getattr(self, name) > 0:
                raise QuickstudyError(f"{name} must be positive; got {getattr(self, name)}.")


class Transitions(NamedTuple):
    """Steps and what they led to, [task, n, ...].

    Attributes:
        observations, actions, rewards: as in `Episodes`, rewards with a last axis of one.
        following: the observation after.
        ended: [task, n, 1], terminated there; being truncated is no end.
        mask: [task, n, 1], 1 for a real step.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    following: Tensor
    ended: Tensor
    mask: Tensor


def transitions(episodes: Episodes) -> Transitions:
    """All steps of each lane, [task, lane, step, ...]."""
    mask = episodes.mask[..., None]
    after = torch.cat([episodes.observations[:, :, 1:], episodes.last[:, :, None]], 2)
    final = episodes.mask * (1 - torch.cat([episodes.mask[..., 1:], 0 * episodes.mask[..., :1]], -1))
    following = torch.where(final[..., None] > 0, episodes.last[:, :, None], after)
    ended = (final * episodes.terminated[..., None])[..., None]
    actions = episodes.actions.clamp(-1, 1)
    return Transitions(episodes.observations, actions, episodes.rewards[..., None], following, ended, mask)


class Squashed(Gaussian):
    """A normal distribution passed through tanh; mean and deviation are those before it."""

    def sample(self, rng: torch.Generator) -> Tensor:
        return super().sample(rng).tanh()

    def draw(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The action that standard normal noise makes, differentiable, and its log probability (SAC, eq. 21)."""
        raw = self.mean + self.log_std.exp() * noise
        log_slope = 2 * (torch.log(torch.tensor(2.0)) - raw - softplus(-2 * raw))
        return raw.tanh(), self.log_prob(raw) - log_slope.sum(-1)


class PEARL(TrialLearner):
    """Skill: the belief about z, one for each lane."""

    pools = False

    def __init__(self, observation_size: int, action_size: int, unit: float, config: PEARLConfig = PEARLConfig()):
        super().__init__()
        self.config, self.unit = config, unit
        both = observation_size + action_size
        self.encoder = MLP(both + 1, 2 * config.latent, config.hidden)
        self.actor = MLP(observation_size + config.latent, 2 * action_size, config.hidden)
        critics = [MLP(both + config.latent, 1, config.hidden) for _ in range(4)]
        self.critics, self.targets = nn.ModuleList(critics[:2]), nn.ModuleList(critics[2:])
        self.targets.load_state_dict(self.critics.state_dict())
        self.targets.requires_grad_(False)
        trained = [*self.encoder.parameters(), *self.critics.parameters(), *self.actor.parameters()]
        self.optimiser = torch.optim.Adam(trained, config.rate)
        self.replay: Transitions | None = None

    def outer_step(self, worlds: Worlds, rng: torch.Generator) -> Figures:
        """Algorithm 1: meet tasks, then `updates` gradient steps on tasks of the replay."""
        episodes = self._live(worlds, self.config.episodes - 1, rng)
        self._keep(episodes)
        figures: Figures = {}
        for _ in range(self.config.updates):
            figures = self._update(rng)
        return returns_by_round(episodes) | figures

    def trial(self, worlds: Worlds, rounds: int, rng: torch.Generator) -> list[Episodes]:
        """Algorithm 2."""
        return self._live(worlds, rounds, rng)

    def belief(self, context: Transitions) -> Gaussian:
        """q(z | c) [..., latent] of contexts [..., n, ...]: eq. 2, the prior being one of the factors."""
        seen = torch.cat([context.observations / self.unit, context.actions, context.rewards], -1)
        mean, spread = self.encoder(seen).chunk(2, -1)
        precision = context.mask / softplus(spread).clamp(min=1e-4)
        total = 1 + precision.sum(-2)
        return Gaussian((precision * mean).sum(-2) / total, -0.5 * total.log())

    def policy(self, observations: Tensor, z: Tensor) -> Squashed:
        mean, log_std = self.actor(torch.cat([observations / self.unit, z], -1)).chunk(2, -1)
        return Squashed(mean, log_std.clamp(-5.0, 1.0))

    def state(self) -> dict[str, Any]:
        return super().state() | {"replay": None if self.replay is None else list(self.replay)}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.replay = None if state["replay"] is None else Transitions(*state["replay"])

    @torch.no_grad()
    def _live(self, worlds: Worlds, rounds: int, rng: torch.Generator) -> list[Episodes]:
        made: list[Episodes] = []
        for _ in range(rounds + 1):
            made.append(collect(worlds, self._believing(made, worlds, rng), rng))
        return made

    def _believing(self, before: list[Episodes], worlds: Worlds, rng: torch.Generator) -> Actor:
        """Acts for one episode with a z that is drawn from the belief after the episodes before."""
        nothing = torch.zeros(len(worlds.tasks), worlds.lanes, self.config.latent)
        belief = Gaussian(nothing, nothing)
        if before:
            parts = zip(*(transitions(e) for e in before), strict=True)
            belief = self.belief(Transitions(*(torch.cat(part, 2) for part in parts)))
        z = belief.sample(rng)

        def act(seen: Seen) -> Gaussian:
            return self.policy(seen.observation, z)

        return act

    def _keep(self, episodes: list[Episodes]) -> None:
        """Adds the tasks to the replay, each padded to the longest; the oldest go."""
        parts = zip(*(transitions(e) for e in episodes), strict=True)
        new = [torch.cat(part, 2).flatten(1, 2) for part in parts]
        if self.replay is not None:
            new = [torch.cat(_alike(old, fresh)) for old, fresh in zip(self.replay, new, strict=True)]
        self.replay = Transitions(*(part[-self.config.kept :] for part in new))

    def _draw(self, rng: torch.Generator, tasks: Tensor, count: int) -> Transitions:
        """`count` real transitions of each of the tasks, with replacement."""
        assert self.replay is not None
        weights = self.replay.mask[tasks, :, 0]
        index = torch.multinomial(weights, count, replacement=True, generator=rng)
        return Transitions(*(part[tasks[:, None], index] for part in self.replay))

    def _update(self, rng: torch.Generator) -> Figures:
        assert self.replay is not None
        assert self.optimiser is not None
        c = self.config
        tasks = torch.randint(len(self.replay.mask), (c.tasks,), generator=rng)
        belief = self.belief(self._draw(rng, tasks, c.context))
        batch = self._draw(rng, tasks, c.batch)
        z = belief.sample(rng)[:, None].expand(-1, c.batch, -1)
        critic = self._critic_loss(batch, z, rng)
        nothing = torch.zeros_like(belief.mean)
        divergence = belief.kl(Gaussian(nothing, nothing)).mean()
        actor, entropy = self._actor_loss(batch.observations, z.detach(), rng)
        loss = critic + c.divergence * divergence + actor
        trained = [p for p in self.parameters() if p.requires_grad]
        gradient = torch.autograd.grad(loss, trained)
        if not all(g.isfinite().all() for g in gradient):
            raise FloatingPointError("the gradient is not finite")
        for p, g in zip(trained, gradient, strict=True):
            p.grad = g
        self.optimiser.step()
        with torch.no_grad():
            for slow, fast in zip(self.targets.parameters(), self.critics.parameters(), strict=True):
                slow.lerp_(fast, c.target)
        return {
            "critic-loss": float(critic.detach()),
            "divergence": float(divergence.detach()),
            "entropy": float(entropy),
        }

    def _critic_loss(self, batch: Transitions, z: Tensor, rng: torch.Generator) -> Tensor:
        """SAC's soft Bellman error (eqs. 7 and 8 of Haarnoja et al.), whose gradient reaches the encoder through z."""
        with torch.no_grad():
            action, log_prob = self._acted(batch.following, z, rng)
            ahead = self._value(self.targets, batch.following, action, z) - self.config.temperature * log_prob
            target = batch.rewards[..., 0] + self.config.discount * (1 - batch.ended[..., 0]) * ahead
        inputs = torch.cat([batch.observations / self.unit, batch.actions, z], -1)
        errors = [(critic(inputs)[..., 0] - target).square().mean() for critic in self.critics]
        return errors[0] + errors[1]

    def _actor_loss(self, observations: Tensor, z: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Eq. 9 of Haarnoja et al., the critics held fast, and the policy's entropy."""
        action, log_prob = self._acted(observations, z, rng)
        self.critics.requires_grad_(False)
        value = self._value(self.critics, observations, action, z)
        self.critics.requires_grad_(True)
        return (self.config.temperature * log_prob - value).mean(), -log_prob.mean().detach()

    def _acted(self, observations: Tensor, z: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        policy = self.policy(observations, z)
        return policy.draw(torch.randn(policy.mean.shape, generator=rng))

    def _value(self, critics: nn.ModuleList, observations: Tensor, action: Tensor, z: Tensor) -> Tensor:
        """The smaller of both."""
        inputs = torch.cat([observations / self.unit, action, z], -1)
        return torch.minimum(*(critic(inputs)[..., 0] for critic in critics))


def _alike(old: Tensor, fresh: Tensor) -> tuple[Tensor, Tensor]:
    """Both padded to the longer one, along the transitions."""
    longest = max(old.shape[1], fresh.shape[1])
    padded = [nn.functional.pad(part, (0, 0, 0, longest - part.shape[1])) for part in (old, fresh)]
    return padded[0], padded[1]
