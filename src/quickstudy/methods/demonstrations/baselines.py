"""What meta-learning is measured against: learning without a second level, knowing everything, and not learning at all.

`NoAdaptation` and `Transfer` are pre-trained on the pooled demonstrations of all training tasks. `FromScratch` starts
from a random network. `Oracle` receives the hidden parameters of a task, which a demonstration would have to reveal.
`Replay` and `NearestNeighbour` are floors: they learn nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import grad

from quickstudy.data import Batch, SupportQuery
from quickstudy.learner import BaseLearner, MetaLearner, Metrics, Parameters
from quickstudy.method import Method, needs_skills
from quickstudy.methods.demonstrations.base_network import base_learner
from quickstudy.methods.scanning import scan
from quickstudy.settings import Config, NonNegativeInt, PositiveFloat, Settings
from quickstudy.task import TaskFamily


@dataclass(frozen=True)
class FineTuneConfig(Config):
    """How a new task is learned without meta-learning; a comparison tunes both on validation tasks.

    Attributes:
        steps: full-batch steps of Adam.
        rate: its learning rate.
    """

    steps: NonNegativeInt = 50
    rate: PositiveFloat = 1e-3


def fine_tune(
    loss: Callable[..., Tensor], start: Parameters, config: FineTuneConfig, *given: Batch
) -> dict[str, Tensor]:
    """Adam (Kingma & Ba 2015, Algorithm 1, default betas) as a pure function, so that it can be batched over tasks.

    Args:
        loss: of parameters, and what is `given`, a scalar.
        start: parameters before the first step.

    Returns:
        the parameters after the last one.
    """
    parameters = {n: p.detach() for n, p in start.items()}
    if not config.steps:
        return parameters

    def step(state: tuple[Parameters, ...], unbias: Tensor, *given: Batch) -> tuple[tuple[Parameters, ...], Any]:
        parameters, first, second = state
        gradient = grad(loss)(parameters, *given)
        # m_t = beta_1 m_{t-1} + (1 - beta_1) g_t, v_t = beta_2 v_{t-1} + (1 - beta_2) g_t^2
        first = {n: 0.9 * first[n] + 0.1 * g for n, g in gradient.items()}
        second = {n: 0.999 * second[n] + 0.001 * g.square() for n, g in gradient.items()}
        # m^ = m_t / (1 - beta_1^t), v^ = v_t / (1 - beta_2^t), theta_t = theta_{t-1} - rate m^ / (sqrt(v^) + eps)
        moved = {
            n: p - config.rate * (first[n] / unbias[0]) / ((second[n] / unbias[1]).sqrt() + 1e-8)
            for n, p in parameters.items()
        }
        return (moved, first, second), ()

    nothing = {n: torch.zeros_like(p) for n, p in parameters.items()}
    like = next(iter(parameters.values()))
    unbias = [[1 - 0.9**t, 1 - 0.999**t] for t in range(1, config.steps + 1)]
    rows = torch.tensor(unbias, dtype=like.dtype, device=like.device)
    return scan(step, (parameters, nothing, {n: z.clone() for n, z in nothing.items()}), rows, *given)[0][0]


def pooled(task: SupportQuery) -> Batch:
    """Support and query of a task as one batch, for learning that makes no difference between them."""
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

    A comparison chooses its steps and rate on validation tasks, so that it is a strong opponent.
    """

    def __init__(self, base: BaseLearner, config: FineTuneConfig = FineTuneConfig()) -> None:
        super().__init__(base)
        self.config = config

    def adapt(self, support: Batch) -> Parameters:
        return fine_tune(self.base.loss, self.begin(), self.config, support)


class FromScratch(Transfer):
    """Fine-tuning from a random network: what the demonstrations alone teach. Its outer loss trains nothing."""

    def loss(self, task: SupportQuery) -> tuple[Tensor, Metrics]:
        """The loss on the query after fine-tuning; its gradient is zero."""
        query = self.predict(self.adapt(task.support), task.query.x)
        return self.base.criterion(query, task.query).detach() + 0.0 * self.base.loss(self.begin(), task.query), {}


class Oracle(MetaLearner):
    """Receives the hidden parameters of a task in place of its demonstrations.

    The best that any learner with this base network could do. Its network takes [observation, hidden]; before any
    demonstration it knows only the mean of the hidden parameters. Skill: the hidden parameters [hidden].
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
    """The skill of the floors: the demonstrations themselves, and how far a replay has come.

    Attributes:
        x: observations [shot, step, obs].
        y: actions [shot, step, act].
        mask: [shot, step], 1 for a real step.
        clock: the step of the demonstration that is played next.
        shot: the demonstration that is played.
    """

    x: Tensor
    y: Tensor
    mask: Tensor
    clock: Tensor
    shot: Tensor


class Replay(MetaLearner):
    """Floor: plays the actions of a demonstration, whatever is observed, and then repeats the last one.

    Of several demonstrations it plays the one whose first observation is nearest to the episode's first.
    """

    order_matters = True

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
        """The action at the step of the clock, for any observation: [..., obs] to [..., act]."""
        mask, actions = (row(part, skill.shot) for part in (skill.mask, skill.y))
        action = row(actions, torch.minimum(skill.clock, mask.sum().long() - 1))
        return action.expand(*x.shape[:-1], -1)

    def act(self, skill: Recorded, x: Tensor) -> tuple[Tensor, Recorded]:
        nearest = self._distance(skill.x[:, 0], x).argmin()
        skill = skill._replace(shot=torch.where(skill.clock == 0, nearest, skill.shot))
        return self.predict(skill, x), skill._replace(clock=skill.clock + 1)

    def loss(self, task: SupportQuery) -> tuple[Tensor, Metrics]:
        """The error of the replayed actions against the query's, step by step; it trains nothing."""
        skill = self.adapt(task.support)
        steps = torch.arange(task.query.x.shape[1], device=task.query.x.device)
        actions = torch.stack([self.predict(skill._replace(clock=t), task.query.x[:, 0]) for t in steps], 1)
        return self.base.criterion(actions, task.query), {}

    def _distance(self, recorded: Tensor, x: Tensor) -> Tensor:
        """Squared distance, each number in units of its deviation over the training demonstrations."""
        return ((recorded - x) / self.base.deviation).square().sum(-1)


def row(table: Tensor, place: Tensor) -> Tensor:
    """A row of a table [row, ...] whose place is a tensor [], spelt so that it can be a graph."""
    return table.index_select(0, place.reshape(1))[0]


class NearestNeighbour(Replay):
    """Floor: repeats the action of the demonstrated step whose standardised observation is nearest."""

    order_matters = False

    def predict(self, skill: Recorded, x: Tensor) -> Tensor:
        steps, actions, real = skill.x.flatten(0, 1), skill.y.flatten(0, 1), skill.mask.flatten()
        distance = self._distance(steps, x.unsqueeze(-2))
        nearest = torch.where(real > 0, distance, torch.inf).argmin(-1)
        return (
            actions.index_select(0, nearest.flatten()).unflatten(0, nearest.shape)
            if nearest.ndim
            else row(actions, nearest)
        )

    def act(self, skill: Recorded, x: Tensor) -> tuple[Tensor, Recorded]:
        return self.predict(skill, x), skill

    def loss(self, task: SupportQuery) -> tuple[Tensor, Metrics]:
        return MetaLearner.loss(self, task)


def recorded_base(observation_size: int) -> BaseLearner:
    """A base learner without a network, for floors: they need only its standardisation."""
    return BaseLearner(nn.Identity(), observation_size)


def _floor(kind: type[Replay]) -> Callable[[Settings, TaskFamily], MetaLearner]:
    return lambda s, family: kind(recorded_base(family.observation_size), family.action_size)


def _transfer(s: Settings, family: TaskFamily) -> Transfer:
    return Transfer(base_learner(s, family), s.algorithm)


METHODS = (
    Method(
        "transfer",
        "one network pre-trained on all tasks, then fine-tuned",
        _transfer,
        settings=FineTuneConfig,
        role="baseline",
        tuned="freely",
        opponent=1,
    ),
    Method(
        "transfer-equal-time",
        "transfer, fine-tuned no longer than the slowest gradient-based meta-learner adapts",
        _transfer,
        settings=FineTuneConfig,
        role="baseline",
        pretrained_as="transfer",
        tuned="equal-time",
        always_adapted=True,
    ),
    Method(
        "scratch",
        "a random network, fine-tuned",
        lambda s, family: FromScratch(base_learner(s, family), s.algorithm),
        settings=FineTuneConfig,
        role="baseline",
        uses="scale",
        tuned="freely",
        opponent=2,
        always_adapted=True,
    ),
    Method(
        "no-adaptation",
        "one network pre-trained on all tasks, never changed",
        lambda s, family: NoAdaptation(base_learner(s, family)),
        role="baseline",
        pretrained_as="transfer",
        opponent=3,
    ),
    Method(
        "oracle",
        "a network that receives the hidden parameters of a task",
        lambda s, family: Oracle(base_learner(s, family, extra=family.hidden_size), family.hidden_size),
        role="oracle",
        unsuited=needs_skills("oracle"),
        always_adapted=True,
    ),
    Method(
        "replay",
        "plays the actions of a demonstration again",
        _floor(Replay),
        role="floor",
        unsuited=needs_skills("replay"),
        uses="scale",
        always_adapted=True,
    ),
    Method(
        "nearest",
        "repeats the action of the nearest demonstrated step",
        _floor(NearestNeighbour),
        role="floor",
        uses="scale",
        always_adapted=True,
    ),
)
