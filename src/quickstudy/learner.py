"""The two levels: a base learner solves one task; a meta-learner learns what the base learner starts from.

Everything here is written for ONE task. Batching over tasks (`quickstudy.batching`) is the caller's choice.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from quickstudy.data import Batch, SupportQuery

Skill = Any
"""What `adapt` returns for one task: a plain tree (tensors, dicts, tuples) that the method's base learner acts with."""

Parameters = Mapping[str, Tensor]
Metrics = dict[str, Tensor]


def imitation_loss(prediction: Tensor, batch: Batch) -> Tensor:
    """Mean squared error over real steps and action components, a scalar; padding has no part in it."""
    return masked_mean((prediction - batch.y).square().mean(-1), batch.mask)


def root_imitation_loss(prediction: Tensor, batch: Batch) -> Tensor:
    """The root of `imitation_loss`, smooth at zero: a task whose demonstrations hardly vary counts as others do."""
    return (imitation_loss(prediction, batch) + 1e-6).sqrt()


def recognition_loss(prediction: Tensor, batch: Batch) -> Tensor:
    """Mean cross-entropy of logits against one-hot labels over real steps, a scalar; padding has no part in it."""
    return masked_mean(-(batch.y * prediction.log_softmax(-1)).sum(-1), batch.mask)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of `values` where `mask` is 1; zero where it is nowhere."""
    return (values * mask).sum() / mask.sum().clamp(min=1.0)


class BaseLearner(nn.Module):
    """Solves one task: a network from observations to actions, and the loss that it descends.

    Observations are standardised by the mean and deviation of the training demonstrations, which are kept with the
    network so that a skill needs nothing else.

    Args:
        whole: observations are images, whose pixels share one mean and one deviation.
        criterion: how badly predictions [..., act] imitate a batch, a scalar: `imitation_loss`, or `recognition_loss`
            where actions are one-hot labels and predictions their logits.
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
        """Takes mean and deviation from the real steps of `batch`; a constant channel is only centred."""
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
        """Actions [..., act] of the network with these parameters instead of its own."""
        return functional_call(self, dict(parameters), (x,))

    def loss(self, parameters: Parameters, batch: Batch) -> Tensor:
        """How badly the network with these parameters imitates the demonstrations; a scalar."""
        return self.criterion(self.predict(parameters, batch.x), batch)


class MetaLearner(nn.Module, ABC):
    """Learns how to learn: its parameters are the meta-parameters theta.

    A method says what a skill is (`begin`), how a support set makes one (`adapt`) and how to act with it (`predict`).
    All three are pure, for one task, and safe under `torch.func.vmap`.
    """

    base: BaseLearner
    adapts_weights: bool = True
    """Whether a skill has network weights of its own; if not, convolutions of many tasks are one large batch."""

    scans: bool = False
    """Whether a demonstration is gone through step by step: so many small operations are dear to go through twice, and
    take minutes to compile."""
    copies: int = 4
    """About how many numbers the work on one task holds for each parameter; it bounds how many tasks go at once."""

    def __init__(self, base: BaseLearner) -> None:
        super().__init__()
        self.base = base

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
        """One step of one episode: the action [act] for x [obs], and the skill to act with next.

        Only a skill that changes while acting (a recurrent state, a clock) overrides this.
        """
        return self.predict(skill, x), skill

    def loss(self, task: SupportQuery) -> tuple[Tensor, Metrics]:
        """The outer loss of one task, and what to log about it.

        By default how badly the adapted base learner imitates the query.
        """
        return self.base.criterion(self.predict(self.adapt(task.support), task.query.x), task.query), {}
