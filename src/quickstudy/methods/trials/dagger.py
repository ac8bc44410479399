"""A policy with a memory that learns to learn from an expert who is told what is hidden.

Ross, Gordon, Bagnell: A Reduction of Imitation Learning and Structured Prediction to No-Regret Online Learning, AISTATS
2011 (DAgger, Algorithm 3.1). The learner acts in training tasks; at each of its steps an expert who knows the task says
what he would do; and the learner learns to say the same from what it has lived through. As it cannot know what the
expert knows, it learns to find out: the likeliest policy gives the expert's actions weighted by how probable each task
is after the trial so far. It acts by drawing from about that distribution (posterior sampling), so it tries what may be
right until it knows. At test there is no expert: it learns from trial and reward alone, as RL^2 does.

Where an episode is one decision, an expert who is told the right one never shows a try that is made to find out. There
the rewards of its own trials teach a critic what a decision earns after the trial so far, and of some `candidates` that
it drew from its belief it takes the one that promises most. Such tries say the same in whatever order, see `reordered`.

This puts the two ways of acquiring a skill together: demonstrations in meta-training, trials at test. A table must say
so, because the other methods of learning by trial are told nothing in meta-training.

Deviations. The learner acts from the beginning (the paper's beta is 0 throughout): a memory that sees the expert's
actions among its own would read the task off them. The data set holds the last trials, and a step takes some of them.
The critic is ours; it predicts the next reward alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.utils.rnn import pad_sequence

from quickstudy.errors import QuickstudyError
from quickstudy.learner import masked_mean
from quickstudy.methods.trials.learner import Figures, finite_step, returns_by_round
from quickstudy.methods.trials.policy import Gaussian
from quickstudy.methods.trials.recurrent import CoreConfig, Joined, Recurrent
from quickstudy.simulation.vector_env import Symmetry, Unit, VectorEnv

_LEAST_STD, _MOST_STD = 0.05, 1.0
_STEADY = 0.02
"""Deviation of an action that the critic chose."""


@dataclass(frozen=True)
class DAggerConfig(CoreConfig):
    """Settings of learning from an informed expert.

    Attributes:
        episodes: of a trial in training.
        kept: trials that the data set holds, the last ones lived through.
        updates: gradient steps after each meta-batch of trials.
        batch: trials of a gradient step.
        rate: of Adam.
        norm: largest norm of a gradient.
        spread: factor of the deviation when it acts. At 1 it draws from what it believes the expert would do, at 0 it
            does the likeliest.
        candidates: actions that it draws, of which it takes the one that promises the largest next reward; rewards must
            be between 0 and 1 then. With 1 there is no critic.
    """

    width: int = 128
    episodes: int = 2
    kept: int = 2000
    updates: int = 20
    batch: int = 64
    rate: float = 1e-3
    norm: float = 1.0
    spread: float = 0.5
    candidates: int = 1

    def __post_init__(self) -> None:
        for name in ("width", "episodes", "kept", "updates", "batch", "rate", "norm", "spread", "candidates"):
            if not getattr(self, name) > 0:
                raise QuickstudyError(f"{name} must be positive; got {getattr(self, name)}.")


class LabelledTrial(NamedTuple):
    """A trial, and what the expert said to it.

    Attributes:
        inputs: what the core saw, [step, in].
        advice: the expert's actions, [step, act]; 0 where he said nothing.
        told: [step], 1 where he said something.
    """

    inputs: Tensor
    advice: Tensor
    told: Tensor


class DAgger(Recurrent):
    """Skill: the state of the core, one for each lane.

    Args:
        symmetries: of the family; a trial is learned from as it was, or as some of them change it.

    Raises:
        QuickstudyError: a symmetry whose matrices do not fit observations and actions.
    """

    offsets: Tensor

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        unit: Unit,
        config: DAggerConfig = DAggerConfig(),
        symmetries: Sequence[Symmetry] = (),
    ) -> None:
        super().__init__(observation_size, action_size, unit, config)
        self.config = config
        self._symmetries = [self._of_inputs(symmetry, observation_size, action_size) for symmetry in symmetries]
        self.actor = nn.Sequential(
            nn.Linear(config.width, config.width), nn.ReLU(), nn.Linear(config.width, 2 * action_size)
        )
        if config.candidates > 1:
            self.critic = nn.Sequential(
                nn.Linear(config.width + action_size, 2 * config.width),
                nn.ReLU(),
                nn.Linear(2 * config.width, 2 * config.width),
                nn.ReLU(),
                nn.Linear(2 * config.width, 1),
            )
            # The same for ever: what it does then depends on its belief alone. The first is what it thinks likeliest.
            offsets = torch.randn(config.candidates - 1, action_size, generator=torch.Generator().manual_seed(0))
            self.register_buffer("offsets", torch.cat([torch.zeros(1, action_size), offsets]), persistent=False)
        self.optimiser = torch.optim.Adam(self.parameters(), config.rate)
        self.trials: list[LabelledTrial] = []

    def believe(self, features: Tensor) -> Gaussian:
        """What the expert would do, as far as can be told from the core's features [..., width]."""
        mean, spread = self.actor(features).chunk(2, -1)
        std = _LEAST_STD + (_MOST_STD - _LEAST_STD) * spread.sigmoid()
        return Gaussian(mean, std.log())

    def act(self, features: Tensor) -> Gaussian:
        belief = self.believe(features)
        if self.config.candidates == 1:
            return Gaussian(belief.mean, belief.log_std + math.log(self.config.spread))
        away = self.config.spread * belief.log_std.exp()[..., None, :] * self.offsets
        drawn = (belief.mean[..., None, :] + away).clamp(-1.0, 1.0)
        predicted = self.predicted_reward(features[..., None, :].expand(*drawn.shape[:-1], -1), drawn)
        best = drawn.take_along_dim(predicted.argmax(-1)[..., None, None], -2).squeeze(-2)
        return Gaussian(best, torch.full_like(best, math.log(_STEADY)))

    def predicted_reward(self, features: Tensor, actions: Tensor) -> Tensor:
        """The logit [...] of the next reward that the critic expects of actions [..., act]."""
        return self.critic(torch.cat([features, actions], -1)).squeeze(-1)

    def outer_step(self, env: VectorEnv, rng: torch.Generator) -> Figures:
        advice: list[Tensor] = []

        def ask() -> None:
            advice.append(torch.tensor(env.expert_action(), dtype=torch.float32))

        episodes, inputs = self.live(env, self.config.episodes - 1, rng, ask)
        joined, said = Joined([e.mask for e in episodes]), torch.stack(advice, 2)
        sequences = joined(inputs), joined(said.split([e.mask.shape[2] for e in episodes], 2))
        for x, wanted, length in zip(*sequences, joined.mask.sum(1).int().tolist(), strict=True):
            told = wanted[:length].isfinite().all(-1).float()
            self.trials.append(LabelledTrial(x[:length].clone(), wanted[:length].nan_to_num(), told))
        self.trials = self.trials[-self.config.kept :]
        figures: Figures = {}
        for _ in range(self.config.updates):
            chosen = torch.randint(len(self.trials), (self.config.batch,), generator=rng).tolist()
            some = [self.transformed(self.trials[i], rng) for i in chosen]
            loss = self.loss(some if self.config.candidates == 1 else [reordered(trial, rng) for trial in some])
            assert self.optimiser is not None
            norm = finite_step(self.optimiser, self, loss, self.config.norm)
            figures = {"loss": float(loss.detach()), "gradient-norm": norm}
        return returns_by_round(episodes) | figures

    def transformed(self, trial: LabelledTrial, rng: torch.Generator) -> LabelledTrial:
        """The trial as some of the symmetries make it, each with probability one half."""
        inputs, advice, told = trial
        for of_inputs, of_actions in self._symmetries:
            if torch.rand((), generator=rng) < 0.5:
                inputs, advice = inputs @ of_inputs.T, advice @ of_actions.T
        return LabelledTrial(inputs, advice, told)

    def _of_inputs(self, symmetry: Symmetry, *sizes: int) -> tuple[Tensor, Tensor]:
        """What a symmetry makes of the core's inputs, and of actions, as matrices."""
        observation, action = (torch.as_tensor(matrix, dtype=torch.float32) for matrix in symmetry)
        shapes, wanted = [tuple(matrix.shape) for matrix in (observation, action)], [(size, size) for size in sizes]
        if shapes != wanted:
            raise QuickstudyError(
                f"A symmetry of this family holds matrices {wanted[0]} of observations and {wanted[1]} of actions; got "
                f"{shapes[0]} and {shapes[1]}."
            )
        unit = self.unit.expand(len(observation))
        return torch.block_diag(observation / unit[:, None] * unit, action, torch.eye(2)), action

    def loss(self, trials: Sequence[LabelledTrial]) -> Tensor:
        """Minus the mean log probability of what the expert would have done, in trials of any lengths.

        With a critic, the cross-entropy of the rewards that it predicted is added. Squared errors are too small beside
        the other part of the gradient: in grasping they made no difference.

        Raises:
            QuickstudyError: there is a critic, and a reward that is not between 0 and 1.
        """
        inputs, advice, told = (pad_sequence(list(part), batch_first=True) for part in zip(*trials, strict=True))
        features = self.core.unroll(inputs)
        loss = -masked_mean(self.believe(features).log_prob(advice), told)
        if self.config.candidates > 1:
            # What a step did and what came of it are among the next step's inputs.
            size = advice.shape[-1]
            actions, rewards = inputs[:, 1:, -2 - size : -2], inputs[:, 1:, -2]
            seen = pad_sequence([torch.ones(len(trial.told)) for trial in trials], batch_first=True)[:, 1:]
            outside = rewards[(rewards < 0) | (rewards > 1)]
            if len(outside):
                raise QuickstudyError(
                    f"With more than one candidate, rewards must be between 0 and 1; got {float(outside[0]):g}."
                )
            predicted = self.predicted_reward(features[:, :-1], actions)
            wrong = binary_cross_entropy_with_logits(predicted, rewards, reduction="none")
            loss = loss + masked_mean(wrong, told[:, :-1] * seen)
        return loss

    def state(self) -> dict[str, Any]:
        return super().state() | {"trials": [list(trial) for trial in self.trials]}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.trials = [LabelledTrial(*trial) for trial in state["trials"]]


def reordered(trial: LabelledTrial, rng: torch.Generator) -> LabelledTrial:
    """The first tries of a trial in another order, and of what was decided the last one alone to learn from.

    An episode here is one decision, on which the expert speaks, and then what came of it. That says the same of a task
    in whatever order the tries are shown, so a memory that is shown many orders learns what tries tell, and not trials
    by heart. A decision was made knowing the tries before it; were one of them missing, or one of those after it
    shown, the decision itself would tell of an outcome that is not there. So all that came before are shown, and what
    was decided on the way, by who knew less, is not asked for.
    """
    if not trial.told.any():  # its world failed in the first step
        return trial
    begins = [*trial.told.nonzero().flatten().tolist(), len(trial.told)]
    last = int(torch.randint(len(begins) - 1, (), generator=rng))
    outcomes = [trial.inputs[begin + 1 : end] for begin, end in pairwise(begins[: last + 1])]
    order = torch.randperm(last, generator=rng).tolist()
    shown = [part for k, j in enumerate(order) for part in (trial.inputs[begins[k]][None], outcomes[j])]
    inputs = torch.cat([*shown, trial.inputs[begins[last] : begins[last + 1]]])
    told = torch.zeros(len(inputs))
    told[begins[last]] = 1.0
    return LabelledTrial(inputs, trial.advice[: len(inputs)], told)
