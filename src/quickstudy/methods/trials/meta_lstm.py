"""The meta-learner LSTM as the learned update rule of a policy.

Ravi, Larochelle: Optimization as a Model for Few-Shot Learning, ICLR 2017, with a policy gradient in place of the
gradient of a classification loss. The cell is that of `quickstudy.methods.demonstrations.meta_lstm`: its state is the policy's
parameters, and since all coordinates share it, those of all tasks go through it as one long row. As there, gradients
and losses count as constants in the outer gradient, which is that of PPO's clipped objective after every update.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from quickstudy.errors import QuickstudyError
from quickstudy.learner import Parameters
from quickstudy.methods.demonstrations.meta_lstm import State, Weights, initial_weights, preprocess, update
from quickstudy.methods.trials.advantages import AdvantageBatch, ReturnsConfig, judge
from quickstudy.methods.trials.learner import Figures, TrialLearner, finite_step, returns_by_round
from quickstudy.methods.trials.maml import inner_loss
from quickstudy.methods.trials.policy import GaussianPolicy
from quickstudy.methods.trials.ppo import clipped
from quickstudy.methods.trials.rollout import Episodes, collect, parametric
from quickstudy.simulation.vector_env import VectorEnv


@dataclass(frozen=True)
class LearnedRuleConfig:
    """Settings of the learned update rule.

    Attributes:
        inner_steps: updates in training, each after episodes of its own.
        hidden: width of the first LSTM layer.
        initial_rate: value of the input gate before training: the step size that learning begins with.
        rate, epochs, clip: of the outer loop: Adam's rate, its passes over one meta-batch, PPO's epsilon.
        returns: advantages.
    """

    inner_steps: int = 2
    hidden: int = 10
    initial_rate: float = 0.05
    rate: float = 1e-3
    epochs: int = 3
    clip: float = 0.3
    returns: ReturnsConfig = field(default_factory=ReturnsConfig)

    def __post_init__(self) -> None:
        for name in ("inner_steps", "hidden", "rate", "epochs", "clip"):
            if not getattr(self, name) > 0:
                raise QuickstudyError(f"{name} must be positive; got {getattr(self, name)}.")
        if not 0 < self.initial_rate < 1:
            raise QuickstudyError(f"initial_rate must be between 0 and 1, as a gate is; got {self.initial_rate}.")


class Signal(NamedTuple):
    """What an update sees of the episodes before it.

    Attributes:
        gradient: of the inner loss, flat [task * P].
        x: gradient and loss, preprocessed, [4, task * P].
    """

    gradient: Tensor
    x: Tensor


class LearnedRule(TrialLearner):
    """Skill: the state of the cell, whose `theta` are the parameters of all tasks, one after the other."""

    def __init__(self, policy: GaussianPolicy, config: LearnedRuleConfig = LearnedRuleConfig()) -> None:
        super().__init__()
        self.policy, self.config = policy, config
        initial = initial_weights(config.hidden, config.initial_rate)
        self.weights = nn.ParameterDict({n: nn.Parameter(w) for n, w in initial._asdict().items()})
        self.optimiser = torch.optim.Adam(self.parameters(), config.rate)

    def outer_step(self, env: VectorEnv, rng: torch.Generator) -> Figures:
        episodes, stages, signals = self._learn(env, self.config.inner_steps, rng)
        figures: Figures = {}
        for _ in range(self.config.epochs):
            loss = self.outer_loss(stages, signals)
            assert self.optimiser is not None
            figures = {"loss": float(loss.detach()), "gradient-norm": finite_step(self.optimiser, self, loss, 1.0)}
        return returns_by_round(episodes) | figures

    def trial(self, env: VectorEnv, rounds: int, rng: torch.Generator) -> list[Episodes]:
        return self._learn(env, rounds, rng)[0]

    def outer_loss(self, stages: Sequence[AdvantageBatch], signals: Sequence[Signal]) -> Tensor:
        """The clipped objective after each update, their mean; the signals are constants."""
        tasks = len(stages[0].mask)
        state, losses = self._begin(tasks), []
        for seen, signal in zip(stages[1:], signals, strict=True):
            state = update(*signal, *self._cell(), *state)
            now = self.policy.predict(self._unflatten(state.theta, tasks), seen.observations)
            ratio = (now.log_prob(seen.actions) - seen.log_prob).exp()
            losses.append(clipped(ratio, seen, self.config.clip).mean())
        return torch.stack(losses).mean()

    @torch.no_grad()
    def _learn(
        self, env: VectorEnv, rounds: int, rng: torch.Generator
    ) -> tuple[list[Episodes], list[AdvantageBatch], list[Signal]]:
        """Acts and updates in turn; also what was judged in each round, and the signal of each update."""
        tasks, made, stages, signals = len(env.tasks), [], [], []
        state = self._begin(tasks)
        for k in range(rounds + 1):
            phi = self._unflatten(state.theta, tasks)
            made.append(collect(env, parametric(self.policy, phi), rng))
            stages.append(judge(made[-1], self.config.returns))
            if k < rounds:
                signals.append(self._signal(phi, stages[-1]))
                state = update(*signals[-1], *self._cell(), *state)
        return made, stages, signals

    def _signal(self, phi: Parameters, seen: AdvantageBatch) -> Signal:
        with torch.enable_grad():
            at = {n: p.detach().requires_grad_() for n, p in phi.items()}
            losses = inner_loss(self.policy, at, seen, "likelihood")
            gradient = torch.autograd.grad(losses.sum(), list(at.values()))
        flat = torch.cat([g.flatten(1) for g in gradient], 1)
        loss = losses.detach()[:, None].expand_as(flat).flatten()
        return Signal(flat.flatten(), torch.cat([preprocess(flat.flatten()), preprocess(loss)]))

    def _begin(self, tasks: int) -> State:
        theta = torch.cat([p.flatten() for p in self.policy.parameters()]).repeat(tasks)
        nothing = theta.new_zeros(1, len(theta))
        wide = nothing.expand(self.config.hidden, -1)
        return State(wide, wide, nothing.expand(2, -1), theta)

    def _cell(self) -> Weights:
        return Weights(**self.weights)

    def _unflatten(self, theta: Tensor, tasks: int) -> Parameters:
        shapes = {name: p.shape for name, p in self.policy.named_parameters()}
        parts = theta.view(tasks, -1).split([shape.numel() for shape in shapes.values()], 1)
        return {name: part.view(tasks, *shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
