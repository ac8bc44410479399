"""The two levels: a base learner solves one task; a meta-learner learns what the base learner starts from.

Everything here is written for ONE task. Batching over tasks (`quickstudy.batching`) is the caller's choice.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from quickstudy.data import Batch, Scaling, Seen, SupportQuery

Skill = Any
"""What `adapt` returns for one task: a plain tree (tensors, dicts, tuples) that the method's base learner acts with."""

Parameters = Mapping[str, Tensor]
"""Of a network, by name."""
Metrics = dict[str, Tensor]
"""What is logged beside the loss, by name."""


def imitation_loss(prediction: Tensor, batch: Batch) -> Tensor:
    """Mean squared error over real steps and action components, a scalar; padding does not count."""
    return masked_mean((prediction - batch.y).square().mean(-1), batch.mask)


def root_imitation_loss(prediction: Tensor, batch: Batch) -> Tensor:
    """The root of `imitation_loss`, smooth at zero: a task whose demonstrations hardly vary counts as others do."""
    return (imitation_loss(prediction, batch) + 1e-6).sqrt()


def recognition_loss(prediction: Tensor, batch: Batch) -> Tensor:
    """Mean cross-entropy of logits against one-hot labels over real steps, a scalar; padding does not count."""
    return masked_mean(-(batch.y * prediction.log_softmax(-1)).sum(-1), batch.mask)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of `values` where `mask` is 1; zero if it is 1 nowhere."""
    return (values * mask).sum() / mask.sum().clamp(min=1.0)


class BaseLearner(nn.Module):
    """Solves one task: a network from observations to actions, and the loss that it descends.

    Observations are standardised by the mean and deviation of the training demonstrations, which are saved with the
    network, so that a skill needs nothing else.

    Args:
        network: from standardised observations [..., obs] to actions [..., act].
        criterion: the loss of predictions [..., act] on a batch, a scalar: `imitation_loss`, or `recognition_loss`
            where actions are one-hot labels and predictions are logits.
        whole: one mean and one deviation for all numbers of an observation, as for the pixels of an image.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        network: nn.Module,
        observation_size: int,
        criterion: Callable[[Tensor, Batch], Tensor] = imitation_loss,
        whole: bool = False,
    ) -> None:
        super().__init__()
        self.network, self.criterion, self.whole = network, criterion, whole
        self.register_buffer("mean", torch.zeros(observation_size))
        self.register_buffer("deviation", torch.ones(observation_size))

    def standardise(self, batch: Batch) -> None:
        """Takes mean and deviation from the real steps of `batch`; a number that is constant is only centred."""
        real = batch.x[batch.mask.bool()]
        if self.whole:
            real = real.reshape(-1, 1)
        self.mean.copy_(real.mean(0).expand_as(self.mean))
        deviation = real.std(0)
        self.deviation.copy_(torch.where(deviation > 1e-6, deviation, 1.0))

    def forward(self, x: Tensor) -> Tensor:
        """Observations [..., obs] to actions [..., act]."""
        return self.network((x - self.mean) / self.deviation)

    def initial(self) -> dict[str, Tensor]:
        """The network's own parameters by name."""
        return dict(self.named_parameters())

    def predict(self, parameters: Parameters, x: Tensor) -> Tensor:
        """Actions [..., act] of the network with these parameters in place of its own."""
        return functional_call(self, dict(parameters), (x,))

    def loss(self, parameters: Parameters, batch: Batch) -> Tensor:
        """The loss of the network with these parameters on demonstrations, a scalar."""
        return self.criterion(self.predict(parameters, batch.x), batch)


class MetaLearner(nn.Module, ABC):
    """Learns how to learn: its parameters are the meta-parameters theta.

    A method says what a skill is (`begin`), how a support set makes one (`adapt`) and how to act with it (`predict`).
    All three are pure, for one task, and safe under `torch.func.vmap`. Their numbers are those that the learner learns
    in: what comes from a family that scales goes through `scaling` before, and its actions after (`collate` and
    `quickstudy.evaluation.SkillPolicy` do).
    """

    base: BaseLearner
    scaling: Scaling | None
    """Where the units of demonstrations are not those that it learns in; saved with it."""
    seen: Seen | None = None
    """What training showed it, by which it is told what lies far outside; not saved with it, but with its run."""
    adapts_weights: bool = True
    """Whether each skill has network weights of its own. If not, the convolutions of many tasks are one large batch."""
    scans: bool = False
    """Whether a demonstration is gone through step by step. That is many small operations, which are slow to do twice
    and take minutes to compile."""
    copies: int = 4
    """Roughly how many numbers the work on one task holds for each parameter; it limits how many tasks run at once."""
    order_matters: bool = False
    """Whether a skill may depend on the order of the demonstrations."""
    follows_gradient: bool = True
    """Whether the outer step follows the exact gradient of the loss that is reported; a first-order method does not."""

    def __init__(self, base: BaseLearner) -> None:
        super().__init__()
        self.base, self.scaling = base, None

    def standardise(self, batch: Batch) -> None:
        """Called once before training with all training demonstrations, [task, shot, step, ...]."""
        self.base.standardise(batch)

    @abstractmethod
    def begin(self) -> Skill:
        """The skill before any demonstration: the 0-shot point of every adaptation curve."""

    @abstractmethod
    def adapt(self, support: Batch) -> Skill:
        """The inner loop: the skill after `support` ([shot, step, ...], at least one shot)."""

    @abstractmethod
    def predict(self, skill: Skill, x: Tensor) -> Tensor:
        """The adapted base learner: observations [..., obs] to actions [..., act]."""

    def act(self, skill: Skill, x: Tensor) -> tuple[Tensor, Skill]:
        """One step of one episode: the action [act] for x [obs], and the skill for the next step.

        Override it only where a skill changes while acting (a recurrent state, a clock).
        """
        return self.predict(skill, x), skill

    def loss(self, task: SupportQuery) -> tuple[Tensor, Metrics]:
        """The outer loss of one task, and what to log about it.

        By default the loss of the adapted base learner on the query.
        """
        return self.base.criterion(self.predict(self.adapt(task.support), task.query.x), task.query), {}
