"""A policy with a memory that learns to learn from an expert who receives the hidden parameters.

Ross, Gordon, Bagnell: A Reduction of Imitation Learning and Structured Prediction to No-Regret Online Learning,
AISTATS 2011 (DAgger, Algorithm 3.1). In training tasks the learner acts, an expert who knows the task says what to do
at each of its steps, and it is trained on its own trials to give the same actions. The likeliest policy gives the
expert's actions weighted by how probable each task is after the trial so far; the learner acts by drawing from about
that distribution (posterior sampling). At test there is no expert.

Deviations. The learner acts from the beginning (the paper's beta is 0 throughout): a memory that sees the expert's
actions among its own would read the task off them. The data set holds the last trials, and a gradient step takes some
of them. The critic is ours, for episodes of one decision, in which an expert never shows a try that is made to find
out: it predicts what a decision earns after the trial so far, and of some `candidates` drawn from its belief the
learner takes the best.
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
from quickstudy.method import Method, needs_expert
from quickstudy.methods.trials.learner import Figures, returns_by_round
from quickstudy.methods.trials.policy import Gaussian, Unit
from quickstudy.methods.trials.recurrent import CoreConfig, JoinedEpisodes, Recurrent
from quickstudy.methods.trials.rl2 import TRIALS
from quickstudy.methods.trials.rollout import Episodes
from quickstudy.settings import PositiveFloat, PositiveInt
from quickstudy.simulation.vector_env import VectorEnv
from quickstudy.task import Symmetry, Task

_LEAST_STD, _MOST_STD = 0.05, 1.0
_STD_OF_CHOICE = 0.02
"""Deviation of an action that the critic chose."""


@dataclass(frozen=True)
class DAggerConfig(CoreConfig):
    """Settings of learning from an expert who receives the hidden parameters.

    Attributes:
        episodes: of a trial in training.
        kept: trials that the data set holds, the latest ones.
        updates: gradient steps after each meta-batch of trials.
        batch: trials of a gradient step.
        rate: of Adam.
        norm: largest norm of a gradient.
        spread: factor of the deviation when it acts. At 1 it draws from what it believes the expert would do, at 0 it
            does the likeliest.
        candidates: actions that it draws, of which it takes the one with the largest predicted reward; rewards must be
            between 0 and 1 then. With 1 there is no critic.
    """

    width: PositiveInt = 128
    episodes: PositiveInt = 2
    kept: PositiveInt = 2000
    updates: PositiveInt = 20
    batch: PositiveInt = 64
    rate: PositiveFloat = 1e-3
    norm: PositiveFloat = 1.0
    spread: PositiveFloat = 0.5
    candidates: PositiveInt = 1


class LabelledTrial(NamedTuple):
    """A trial of the learner, and the expert's actions in it.

    Attributes:
        inputs: what the core saw, [step, in].
        expert_actions: [step, act]; 0 where the expert gave none.
        labelled: [step], 1 where the expert gave one.
    """

    inputs: Tensor
    expert_actions: Tensor
    labelled: Tensor


Labelled = tuple[list[Episodes], list[Tensor], list[Tensor]]
"""Of each episode of the trials: itself, what the core saw, and what the expert would have done [task, trial, step]."""


class DAgger(Recurrent):
    """Skill: the state of the core, one for each trial.

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
            # Fixed, so that an action depends on the belief alone. The first candidate is the likeliest action.
            offsets = torch.randn(config.candidates - 1, action_size, generator=torch.Generator().manual_seed(0))
            self.register_buffer("offsets", torch.cat([torch.zeros(1, action_size), offsets]), persistent=False)
        self.optimiser = torch.optim.Adam(self.parameters(), config.rate)
        self.trials: list[LabelledTrial] = []

    def belief(self, features: Tensor) -> Gaussian:
        """What the expert would do, as far as the core's features [..., width] tell."""
        mean, spread = self.actor(features).chunk(2, -1)
        std = _LEAST_STD + (_MOST_STD - _LEAST_STD) * spread.sigmoid()
        return Gaussian(mean, std.log())

    def act(self, features: Tensor) -> Gaussian:
        belief = self.belief(features)
        if self.config.candidates == 1:
            # Posterior sampling: N(mean, (spread std)^2).
            return Gaussian(belief.mean, belief.log_std + math.log(self.config.spread))
        # Candidates a_i = mean + spread std offset_i; the one with the largest predicted reward is taken.
        away = self.config.spread * belief.log_std.exp()[..., None, :] * self.offsets
        candidates = (belief.mean[..., None, :] + away).clamp(-1.0, 1.0)
        predicted = self.predicted_reward(features[..., None, :].expand(*candidates.shape[:-1], -1), candidates)
        best = candidates.take_along_dim(predicted.argmax(-1)[..., None, None], -2).squeeze(-2)
        return Gaussian(best, torch.full_like(best, math.log(_STD_OF_CHOICE)))

    def predicted_reward(self, features: Tensor, actions: Tensor) -> Tensor:
        """The logit [...] of the next reward that the critic expects of actions [..., act]."""
        return self.critic(torch.cat([features, actions], -1)).squeeze(-1)

    def experience(self, env: VectorEnv, rng: torch.Generator) -> Labelled:
        """The first lines of an iteration of Algorithm 3.1: act, and ask the expert."""
        expert_actions: list[Tensor] = []

        def ask() -> None:
            expert_actions.append(torch.tensor(env.expert_action(), dtype=torch.float32))

        # Algorithm 3.1: sample trajectories by the learner itself (beta = 0), label their states by the expert.
        episodes, inputs = self.collect_trial(env, self.config.episodes - 1, rng, ask)
        labels = torch.stack(expert_actions, 2).split([e.mask.shape[2] for e in episodes], 2)
        return episodes, inputs, list(labels)

    def improve(self, experience: Labelled, tasks: Sequence[Task], rng: torch.Generator) -> Figures:
        """The other lines of Algorithm 3.1: add to the data set, and train on it."""
        episodes = experience[0]
        self._add(*experience)
        figures: Figures = {}
        for _ in range(self.config.updates):
            # Algorithm 3.1: train the policy on the aggregated data set.
            chosen = torch.randint(len(self.trials), (self.config.batch,), generator=rng).tolist()
            batch = [self.transformed(self.trials[i], rng) for i in chosen]
            loss = self.loss(batch if self.config.candidates == 1 else [reordered(trial, rng) for trial in batch])
            norm = self.gradient_step(loss, self.config.norm)
            figures = {"loss": float(loss.detach()), "gradient-norm": norm}
        return returns_by_round(episodes) | figures

    def _add(self, episodes: Sequence[Episodes], inputs: Sequence[Tensor], labels: Sequence[Tensor]) -> None:
        """Algorithm 3.1: D <- D + D_i, of which the last `kept` trials stay."""
        joined = JoinedEpisodes([e.mask for e in episodes])
        sequences = joined(inputs), joined(labels)
        for x, wanted, length in zip(*sequences, joined.mask.sum(1).int().tolist(), strict=True):
            labelled = wanted[:length].isfinite().all(-1).float()
            self.trials.append(LabelledTrial(x[:length].clone(), wanted[:length].nan_to_num(), labelled))
        self.trials = self.trials[-self.config.kept :]

    def transformed(self, trial: LabelledTrial, rng: torch.Generator) -> LabelledTrial:
        """The trial as some of the symmetries make it, each with probability one half."""
        inputs, expert_actions, labelled = trial
        for of_inputs, of_actions in self._symmetries:
            if torch.rand((), generator=rng) < 0.5:
                inputs, expert_actions = inputs @ of_inputs.T, expert_actions @ of_actions.T
        return LabelledTrial(inputs, expert_actions, labelled)

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
        """Minus the mean log probability of the expert's actions, in trials of any lengths.

        With a critic, the cross-entropy of the rewards that it predicted is added. Squared errors are too small beside
        the other part of the gradient: in grasping they made no difference.

        Raises:
            QuickstudyError: there is a critic, and a reward that is not between 0 and 1.
        """
        padded = (pad_sequence(list(part), batch_first=True) for part in zip(*trials, strict=True))
        inputs, expert_actions, labelled = padded
        features = self.core.unroll(inputs)
        # -E[log q(a* | trial so far)], over the steps at which the expert gave an action a*.
        loss = -masked_mean(self.belief(features).log_prob(expert_actions), labelled)
        if self.config.candidates > 1:
            # What a step did and what came of it are among the next step's inputs.
            size = expert_actions.shape[-1]
            actions, rewards = inputs[:, 1:, -2 - size : -2], inputs[:, 1:, -2]
            real = pad_sequence([torch.ones(len(trial.labelled)) for trial in trials], batch_first=True)[:, 1:]
            outside = rewards[(rewards < 0) | (rewards > 1)]
            if len(outside):
                raise QuickstudyError(
                    f"With more than one candidate, rewards must be between 0 and 1; got {float(outside[0]):g}."
                )
            predicted = self.predicted_reward(features[:, :-1], actions)
            # Cross-entropy of the predicted reward: -r log p - (1 - r) log(1 - p).
            cross_entropy = binary_cross_entropy_with_logits(predicted, rewards, reduction="none")
            loss = loss + masked_mean(cross_entropy, labelled[:, :-1] * real)
        return loss

    def state(self) -> dict[str, Any]:
        return super().state() | {"trials": [list(trial) for trial in self.trials]}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.trials = [LabelledTrial(*trial) for trial in state["trials"]]


def reordered(trial: LabelledTrial, rng: torch.Generator) -> LabelledTrial:
    """The first tries of a trial in another order, with the expert's action in the last of them alone.

    An episode here is one decision, for which the expert gives an action, and then its outcome. A memory that is shown
    tries in many orders does not learn trials by heart. A decision tells of the tries that it was made after, so all
    these are shown, and earlier decisions, which were made knowing less, are not trained on.
    """
    if not trial.labelled.any():  # the environment failed in the first step
        return trial
    begins = [*trial.labelled.nonzero().flatten().tolist(), len(trial.labelled)]
    last = int(torch.randint(len(begins) - 1, (), generator=rng))
    outcomes = [trial.inputs[begin + 1 : end] for begin, end in pairwise(begins[: last + 1])]
    order = torch.randperm(last, generator=rng).tolist()
    shown = [part for k, j in enumerate(order) for part in (trial.inputs[begins[k]][None], outcomes[j])]
    inputs = torch.cat([*shown, trial.inputs[begins[last] : begins[last + 1]]])
    labelled = torch.zeros(len(inputs))
    labelled[begins[last]] = 1.0
    return LabelledTrial(inputs, trial.expert_actions[: len(inputs)], labelled)


METHODS = (
    Method(
        "rl2-dagger",
        "rl2 trained by an expert who receives the hidden parameters; at test, rewards alone",
        lambda s, f: DAgger(f.observation_size, f.action_size, f.observation_unit, s.algorithm, f.symmetries),
        paper="Ross, Gordon, Bagnell: A Reduction of Imitation Learning and Structured Prediction to No-Regret Online "
        "Learning, AISTATS 2011",
        settings=DAggerConfig,
        learns_from="trials",
        changes=TRIALS,
        unsuited=needs_expert("rl2-dagger"),
    ),
)
