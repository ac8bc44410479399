"""What meta-learning is measured against: learning without a second level, knowing everything, and not learning at all.

`NoAdaptation` and `Transfer` are pre-trained on the pooled demonstrations of all training tasks. `FromScratch` starts
from a random network. `Oracle` is told what the demonstration would have to reveal. `Replay` and `NearestNeighbour` are
the no-learning floors.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import grad

from quickstudy.data import Batch, SupportQuery
from quickstudy.errors import QuickstudyError
from quickstudy.learner import BaseLearner, MetaLearner, Metrics, Parameters


@dataclass(frozen=True)
class FineTuneConfig:
    """How a new task is learned without meta-learning; a comparison tunes both on validation tasks.

    Attributes:
        steps: full-batch steps of Adam.
        rate: its learning rate.
    """

    steps: int = 50
    rate: float = 1e-3

    def __post_init__(self) -> None:
        if self.steps < 0 or not self.rate > 0:
            raise QuickstudyError(f"Fine-tuning needs steps >= 0 and rate > 0; got {self.steps} and {self.rate}.")


def fine_tune(loss: Callable[[Parameters], Tensor], start: Parameters, config: FineTuneConfig) -> Parameters:
    """Adam (Kingma & Ba 2015, Algorithm 1, default betas) as a pure function, so that it can be batched over tasks."""
    parameters = {n: p.detach() for n, p in start.items()}
    first = {n: torch.zeros_like(p) for n, p in parameters.items()}
    second = dict(first)
    for t in range(1, config.steps + 1):
        gradient = grad(loss)(parameters)
        for n, g in gradient.items():
            first = {**first, n: 0.9 * first[n] + 0.1 * g}
            second = {**second, n: 0.999 * second[n] + 0.001 * g.square()}
            unbiased, scale = first[n] / (1 - 0.9**t), (second[n] / (1 - 0.999**t)).sqrt() + 1e-8
            parameters = {**parameters, n: parameters[n] - config.rate * unbiased / scale}
    return parameters


def pooled(task: SupportQuery) -> Batch:
    """All demonstrations of a task as one batch: what learning without tasks sees."""
    (x, y, mask, hidden), query = task.support, task.query
    if x.shape[1] != query.x.shape[1]:
        return query
    return Batch(torch.cat([x, query.x]), torch.cat([y, query.y]), torch.cat([mask, query.mask]), hidden)


class NoAdaptation(MetaLearner):
    """One network for all tasks, pre-trained on the pooled demonstrations and never changed. Skill: its parameters."""

    def begin(self) -> Parameters:
        return self.base.initial()

    def adapt(self, support: Batch) -> Parameters:
        return self.begin()

    def predict(self, skill: Parameters, x: Tensor) -> Tensor:
        return self.base.predict(skill, x)

    def loss(self, task: SupportQuery) -> tuple[Tensor, Metrics]:
        return self.base.loss(self.begin(), pooled(task)), {}


class Transfer(NoAdaptation):
    """The same pre-training, then fine-tuning on the support. Skill: the fine-tuned parameters.

    Its steps and rate are chosen on validation tasks (`quickstudy.results.compare.tune`), so that it is a strong opponent.
    """

    def __init__(self, base: BaseLearner, config: FineTuneConfig = FineTuneConfig()) -> None:
        super().__init__(base)
        self.config = config

    def adapt(self, support: Batch) -> Parameters:
        return fine_tune(lambda parameters: self.base.loss(parameters, support), self.begin(), self.config)


class FromScratch(Transfer):
    """Fine-tuning from a random network: what the demonstrations alone teach. Its outer loss trains nothing."""

    def loss(self, task: SupportQuery) -> tuple[Tensor, Metrics]:
        query = self.predict(self.adapt(task.support), task.query.x)
        return self.base.criterion(query, task.query).detach() + 0.0 * self.base.loss(self.begin(), task.query), {}


class Oracle(MetaLearner):
    """Reads the hidden parameters of the task from the support instead of its demonstrations.

    The best that any learner with this base network could do. Its network takes [observation, hidden]; before a
    demonstration it knows the mean of the hidden parameters only. Skill: the hidden parameters [hidden].
    """

    expected: Tensor

    def __init__(self, base: BaseLearner, hidden_size: int) -> None:
        super().__init__(base)
        self.register_buffer("expected", torch.zeros(hidden_size))

    def standardise(self, batch: Batch) -> None:
        hidden = batch.hidden[:, None, None].expand(*batch.x.shape[:-1], -1)
        self.base.standardise(batch._replace(x=torch.cat([batch.x, hidden], -1)))
        self.expected.copy_(batch.hidden.mean(0))

    def begin(self) -> Tensor:
        return self.expected

    def adapt(self, support: Batch) -> Tensor:
        return support.hidden

    def predict(self, skill: Tensor, x: Tensor) -> Tensor:
        return self.base.predict(self.base.initial(), torch.cat([x, skill.expand(*x.shape[:-1], -1)], -1))


class Recorded(NamedTuple):
    """The skill of the floors: the demonstrations themselves, and where a replay stands."""

    x: Tensor
    y: Tensor
    mask: Tensor
    clock: Tensor
    shot: Tensor


class Replay(MetaLearner):
    """Floor: plays a demonstration's actions open-loop, whatever happens, and then holds the last one.

    Of several demonstrations it plays the one whose first observation is nearest to the episode's first.
    """

    def __init__(self, base: BaseLearner, action_size: int) -> None:
        super().__init__(base)
        self.action_size = action_size

    def begin(self) -> Recorded:
        nothing = torch.zeros(1, 1, device=self.base.mean.device)
        zero = torch.zeros((), dtype=torch.long, device=nothing.device)
        return Recorded(
            nothing[..., None].expand(-1, -1, len(self.base.mean)),
            nothing[..., None].expand(-1, -1, self.action_size),
            nothing + 1.0,
            zero,
            zero,
        )

    def adapt(self, support: Batch) -> Recorded:
        zero = torch.zeros((), dtype=torch.long, device=support.x.device)
        return Recorded(support.x, support.y, support.mask, zero, zero)

    def predict(self, skill: Recorded, x: Tensor) -> Tensor:
        """The action at the clock's step, for any observation: [..., obs] to [..., act]."""
        last = skill.mask[skill.shot].sum().long() - 1
        action = skill.y[skill.shot, torch.minimum(skill.clock, last)]
        return action.expand(*x.shape[:-1], -1)

    def act(self, skill: Recorded, x: Tensor) -> tuple[Tensor, Recorded]:
        nearest = self._distance(skill.x[:, 0], x).argmin()
        skill = skill._replace(shot=torch.where(skill.clock == 0, nearest, skill.shot))
        return self.predict(skill, x), skill._replace(clock=skill.clock + 1)

    def loss(self, task: SupportQuery) -> tuple[Tensor, Metrics]:
        """The error of the replayed against the query's actions, step by step; it trains nothing."""
        skill = self.adapt(task.support)
        steps = torch.arange(task.query.x.shape[1], device=task.query.x.device)
        actions = torch.stack([self.predict(skill._replace(clock=t), task.query.x[:, 0]) for t in steps], 1)
        return self.base.criterion(actions, task.query), {}

    def _distance(self, recorded: Tensor, x: Tensor) -> Tensor:
        """Squared distance in units of the training deviation."""
        return ((recorded - x) / self.base.deviation).square().sum(-1)


class NearestNeighbour(Replay):
    """Floor: does what was done at the most similar demonstrated step (similar: standardised squared distance)."""

    def predict(self, skill: Recorded, x: Tensor) -> Tensor:
        steps, actions, real = skill.x.flatten(0, 1), skill.y.flatten(0, 1), skill.mask.flatten()
        distance = self._distance(steps, x.unsqueeze(-2))
        nearest = torch.where(real > 0, distance, torch.inf).argmin(-1)
        return actions[nearest]

    def act(self, skill: Recorded, x: Tensor) -> tuple[Tensor, Recorded]:
        return self.predict(skill, x), skill

    def loss(self, task: SupportQuery) -> tuple[Tensor, Metrics]:
        return MetaLearner.loss(self, task)


def recorded_base(observation_size: int) -> BaseLearner:
    """A base learner without a network, for the floors: they need only its standardisation."""
    return BaseLearner(nn.Identity(), observation_size)
