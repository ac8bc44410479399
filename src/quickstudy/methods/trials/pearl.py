"""PEARL: infer from own transitions which task it is, and act as one who believes that; learned off-policy.

Rakelly, Zhou, Quillen, Finn, Levine: Efficient Off-Policy Meta-Reinforcement Learning via Probabilistic Context
Variables, ICML 2019 (Algorithms 1 and 2), on soft actor-critic (Haarnoja et al. 2018).

q(z | c) is a product of Gaussians, one for each transition c_n and the prior (eq. 2 of the paper); z is drawn once an
episode (posterior sampling). The critic's gradient trains the encoder, the actor takes z as given.

Deviations: two critics with slow targets instead of a separate value network; a decoder that predicts rewards from z
trains the encoder too (the paper, section 4.1, names that as another choice), because the critic's own targets say
little for long; and the encoder's transitions are those of the first episodes of one trial. The paper draws the latest
ones, of whatever trials: what is inferred from them, one trial alone does not tell.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from quickstudy.errors import QuickstudyError
from quickstudy.methods.trials.learner import Figures, TrialLearner, returns_by_round
from quickstudy.methods.trials.policy import Gaussian
from quickstudy.methods.trials.replay_buffer import Replay, Transitions, transitions
from quickstudy.methods.trials.rollout import Actor, Episodes, PolicyInput, collect
from quickstudy.nets import MLP, check_widths
from quickstudy.simulation.vector_env import Unit, VectorEnv


@dataclass(frozen=True)
class PEARLConfig:
    """Settings of PEARL.

    Attributes:
        latent: width of z.
        hidden: widths of all networks.
        episodes: of each task when it is met; z comes from the prior in the first.
        kept: tasks whose transitions the replay holds, the last ones met.
        steps: transitions of each that it holds, the last ones.
        updates: gradient steps after each meeting.
        tasks, context, batch: tasks of a gradient step, and transitions of each for the encoder and for the critic.
        rate: of Adam.
        discount: gamma.
        temperature: weight of the policy's entropy (the inverse of the paper's reward scale).
        divergence: weight of KL(q(z | c) || N(0, 1)).
        reconstruction: weight of the squared error of rewards as they are predicted from z.
        target: fraction by which the target critics follow.
    """

    latent: int = 5
    hidden: tuple[int, ...] = (64, 64)
    episodes: int = 2
    kept: int = 400
    steps: int = 4000
    updates: int = 50
    tasks: int = 16
    context: int = 64
    batch: int = 64
    rate: float = 1e-3
    discount: float = 0.99
    temperature: float = 0.02
    divergence: float = 0.1
    reconstruction: float = 1.0
    target: float = 0.005

    def __post_init__(self) -> None:
        check_widths(hidden=self.hidden)
        for name in ("latent", "episodes", "kept", "steps", "updates", "tasks", "context", "batch", "rate"):
            if not getattr(self, name) > 0:
                raise QuickstudyError(f"{name} must be positive; got {getattr(self, name)}.")


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

    shares_experience = False

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        unit: Unit,
        config: PEARLConfig = PEARLConfig(),
    ):
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
        self.replay = Replay(config.kept, config.steps)

    def outer_step(self, env: VectorEnv, rng: torch.Generator) -> Figures:
        """Algorithm 1: meet tasks, then `updates` gradient steps on tasks of the replay."""
        episodes = self._live(env, self.config.episodes - 1, rng)
        self.replay.add([task.name for task in env.tasks], [transitions(e) for e in episodes])
        figures: Figures = {}
        for _ in range(self.config.updates):
            figures = self._update(rng)
        return returns_by_round(episodes) | figures

    def trial(self, env: VectorEnv, rounds: int, rng: torch.Generator) -> list[Episodes]:
        """Algorithm 2."""
        return self._live(env, rounds, rng)

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
        return super().state() | {"replay": self.replay.state()}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.replay.restore(state["replay"])

    @torch.no_grad()
    def _live(self, env: VectorEnv, rounds: int, rng: torch.Generator) -> list[Episodes]:
        made: list[Episodes] = []
        for _ in range(rounds + 1):
            made.append(collect(env, self._believing(made, env, rng), rng))
        return made

    def _believing(self, before: list[Episodes], env: VectorEnv, rng: torch.Generator) -> Actor:
        """Acts for one episode with a z that is drawn from the belief after the episodes before."""
        nothing = torch.zeros(len(env.tasks), env.episodes_per_task, self.config.latent)
        belief = Gaussian(nothing, nothing)
        if before:
            parts = zip(*(transitions(e) for e in before), strict=True)
            belief = self.belief(Transitions(*(torch.cat(part, 2) for part in parts)))
        z = belief.sample(rng)

        def act(seen: PolicyInput) -> Gaussian:
            return self.policy(seen.observation, z)

        return act

    def _update(self, rng: torch.Generator) -> Figures:
        assert self.optimiser is not None
        c = self.config
        tasks = torch.randint(len(self.replay), (c.tasks,), generator=rng).tolist()
        belief = self.belief(self.replay.draw_context(tasks, c.context, rng))
        batch = self.replay.draw(tasks, c.batch, rng)
        z = belief.sample(rng)[:, None].expand(-1, c.batch, -1)
        critic = self._critic_loss(batch, z, rng)
        nothing = torch.zeros_like(belief.mean)
        divergence = belief.kl(Gaussian(nothing, nothing)).mean()
        actor, entropy = self._actor_loss(batch.observations, z.detach(), rng)
        reward = self._reward_loss(batch, z)
        loss = critic + c.divergence * divergence + c.reconstruction * reward + actor
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
            "reward-loss": float(reward.detach()),
            "divergence": float(divergence.detach()),
            "entropy": float(entropy),
        }

    def _reward_loss(self, batch: Transitions, z: Tensor) -> Tensor:
        """The mean squared error of rewards as the decoder predicts them; its gradient reaches the encoder."""
        predicted = self.decoder(torch.cat([batch.observations / self.unit, batch.actions, z], -1))
        return (predicted - batch.rewards).square().mean()

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
