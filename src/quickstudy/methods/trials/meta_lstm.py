"""The meta-learner LSTM as the learned update rule of a policy.

Ravi, Larochelle: Optimization as a Model for Few-Shot Learning, ICLR 2017, with policy gradients. The cell is that of
`quickstudy.methods.demonstrations.meta_lstm`: its state is the policy's parameters, and since all coordinates share it,
those of all tasks go through it as one long row. As there, gradients and losses count as constants in the outer
gradient, which is that of PPO's clipped objective after every update.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from quickstudy.learner import Parameters
from quickstudy.method import Method
from quickstudy.methods.demonstrations.meta_lstm import State, Weights, initial_weights, preprocess, update
from quickstudy.methods.trials.advantages import AdvantageBatch, ReturnsConfig, estimate_advantages
from quickstudy.methods.trials.learner import Figures, TrialLearner, returns_by_round
from quickstudy.methods.trials.maml import inner_loss
from quickstudy.methods.trials.policy import GaussianPolicy, gaussian_policy
from quickstudy.methods.trials.ppo import clipped_loss
from quickstudy.methods.trials.rollout import Episodes, collect, memoryless
from quickstudy.settings import Config, OpenFraction, PositiveFloat, PositiveInt
from quickstudy.simulation.vector_env import VectorEnv
from quickstudy.task import Task


@dataclass(frozen=True)
class LearnedRuleConfig(Config):
    """Settings of the learned update rule.

    Attributes:
        inner_steps: updates in training, each after episodes of its own.
        hidden: width of the first LSTM layer.
        initial_rate: value of the input gate before training: the step size that learning begins with.
        rate, epochs, clip: of the outer loop: Adam's rate, its passes over one meta-batch, PPO's epsilon.
        returns: advantages.
    """

    inner_steps: PositiveInt = 2
    hidden: PositiveInt = 10
    initial_rate: OpenFraction = 0.05
    rate: PositiveFloat = 1e-3
    epochs: PositiveInt = 3
    clip: PositiveFloat = 0.3
    returns: ReturnsConfig = field(default_factory=ReturnsConfig)


class Signal(NamedTuple):
    """What an update sees of the episodes before it.

    Attributes:
        gradient: of the inner loss, flat [task * P].
        x: gradient and loss, preprocessed, [4, task * P].
    """

    gradient: Tensor
    x: Tensor

    def by_task(self, tasks: int) -> "Signal":
        """The same as [task, P] and [task, 4, P]."""
        return Signal(self.gradient.view(tasks, -1), self.x.view(len(self.x), tasks, -1).transpose(0, 1))

    def flat(self) -> "Signal":
        """What `by_task` was made of."""
        return Signal(self.gradient.flatten(), self.x.transpose(0, 1).flatten(1))


Experience = tuple[list[Episodes], list[AdvantageBatch], list[Signal]]
"""The episodes and advantages of each round, and the signal of each update by task."""


class LearnedRule(TrialLearner):
    """Skill: the state of the cell, whose `theta` are the parameters of all tasks, one after the other."""

    def __init__(self, policy: GaussianPolicy, config: LearnedRuleConfig = LearnedRuleConfig()) -> None:
        super().__init__()
        self.policy, self.config = policy, config
        initial = initial_weights(config.hidden, config.initial_rate)
        self.weights = nn.ParameterDict({n: nn.Parameter(w) for n, w in initial._asdict().items()})
        self.optimiser = torch.optim.Adam(self.parameters(), config.rate)

    def experience(self, env: VectorEnv, rng: torch.Generator) -> Experience:
        episodes, stages, signals = self._act_and_update(env, self.config.inner_steps, rng)
        return episodes, stages, [signal.by_task(len(env.tasks)) for signal in signals]

    def improve(self, experience: Experience, tasks: Sequence[Task], rng: torch.Generator) -> Figures:
        episodes, stages, by_task = experience
        signals = [signal.flat() for signal in by_task]
        figures: Figures = {}
        for _ in range(self.config.epochs):
            loss = self.outer_loss(stages, signals)
            figures = {"loss": float(loss.detach()), "gradient-norm": self.gradient_step(loss, 1.0)}
        return returns_by_round(episodes) | figures

    def trial(self, env: VectorEnv, rounds: int, rng: torch.Generator) -> list[Episodes]:
        return self._act_and_update(env, rounds, rng)[0]

    def outer_loss(self, stages: Sequence[AdvantageBatch], signals: Sequence[Signal]) -> Tensor:
        """The clipped objective after each update, their mean; the signals are constants."""
        tasks = len(stages[0].mask)
        state, losses = self._begin(tasks), []
        for batch, signal in zip(stages[1:], signals, strict=True):
            # Eq. 2 of Ravi & Larochelle: theta_t = f theta_{t-1} - i gradient, its gates f and i by the LSTM.
            state = update(signal.gradient, signal.x, self._cell(), state)
            now = self.policy.predict(self._unflatten(state.theta, tasks), batch.observations)
            # Eq. 7 of PPO on the episodes that the updated policy made.
            losses.append(clipped_loss(batch.ratio(now), batch, self.config.clip).mean())
        return torch.stack(losses).mean()

    @torch.no_grad()
    def _act_and_update(
        self, env: VectorEnv, rounds: int, rng: torch.Generator
    ) -> tuple[list[Episodes], list[AdvantageBatch], list[Signal]]:
        """Acts and updates in turn: the episodes and advantages of each round, and the signal of each update."""
        tasks, episodes, stages, signals = len(env.tasks), [], [], []
        state = self._begin(tasks)
        for k in range(rounds + 1):
            phi = self._unflatten(state.theta, tasks)
            episodes.append(collect(env, memoryless(self.policy, phi), rng))
            stages.append(estimate_advantages(episodes[-1], self.config.returns))
            if k < rounds:
                signals.append(self._signal(phi, stages[-1]))
                state = update(signals[-1].gradient, signals[-1].x, self._cell(), state)
        return episodes, stages, signals

    def _signal(self, phi: Parameters, batch: AdvantageBatch) -> Signal:
        with torch.enable_grad():
            at = {n: p.detach().requires_grad_() for n, p in phi.items()}
            losses = inner_loss(self.policy, at, batch, "likelihood")
            gradient = torch.autograd.grad(losses.sum(), list(at.values()))
        # Section 3.2: each coordinate sees its gradient and the loss, both preprocessed.
        flat = torch.cat([g.flatten(1) for g in gradient], 1)
        loss = losses.detach()[:, None].expand_as(flat).flatten()
        return Signal(flat.flatten(), torch.cat([preprocess(flat.flatten()), preprocess(loss)]))

    def _begin(self, tasks: int) -> State:
        theta = torch.cat([p.flatten() for p in self.policy.parameters()]).repeat(tasks)
        zeros = theta.new_zeros(1, len(theta))
        wide = zeros.expand(self.config.hidden, -1)
        return State(wide, wide, zeros.expand(2, -1), theta)

    def _cell(self) -> Weights:
        return Weights(**self.weights)

    def _unflatten(self, theta: Tensor, tasks: int) -> Parameters:
        shapes = {name: p.shape for name, p in self.policy.named_parameters()}
        parts = theta.view(tasks, -1).split([shape.numel() for shape in shapes.values()], 1)
        return {name: part.view(tasks, *shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


METHODS = (
    Method(
        "meta-lstm-ppo",
        "an LSTM that has learned how to update a policy; outer steps by PPO",
        lambda s, f: LearnedRule(gaussian_policy(s, f), s.algorithm),
        paper="Ravi, Larochelle: Optimization as a Model for Few-Shot Learning, ICLR 2017",
        settings=LearnedRuleConfig,
        learns_from="trials",
    ),
)
