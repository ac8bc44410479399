"""Prototypical networks: a class is the mean of its embedded examples, and the nearest class is the answer.

Snell, Swersky, Zemel: Prototypical Networks for Few-shot Learning, NIPS 2017 (Eqs. 1 and 2, Algorithm 1). Recognition
only. Nothing descends: a skill is the prototypes, and the outer loop learns to embed. The tasks of training may have
more classes than those of test, as the paper recommends.

What the paper does not have: with `distance='cosine'` distances are multiplied by a learned positive scale, because a
softmax of distances between 0 and 2 is never certain of a class.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from quickstudy.data import Batch
from quickstudy.errors import QuickstudyError
from quickstudy.learner import BaseLearner, MetaLearner
from quickstudy.method import Method, needs_classes
from quickstudy.methods.demonstrations.base_network import embedder
from quickstudy.nets import unit
from quickstudy.settings import Config, PositiveFloat, Settings
from quickstudy.task import TaskFamily

_NEVER = -1e9
"""The logit of a class without an example; finite, so that no gradient is lost."""


@dataclass(frozen=True)
class PrototypicalConfig(Config):
    """Settings of prototypical networks.

    Attributes:
        distance: between an embedding and a prototype: the squared 'euclidean' one, as in the paper, or the 'cosine'
            one, with which the paper compares it.
        scale: initial factor of the cosine distance; learned.
    """

    distance: Literal["euclidean", "cosine"] = "euclidean"
    scale: PositiveFloat = 10.0


class Prototypes(NamedTuple):
    """The skill.

    Attributes:
        means: c_k of Eq. 1, [class, embedding].
        seen: [class], 1 where a class has an example and 0 elsewhere.
    """

    means: Tensor
    seen: Tensor


class PrototypicalNetworks(MetaLearner):
    """Skill: `Prototypes`.

    Args:
        base: its network embeds an observation, f of the paper.
        embedding_size: what it outputs.
        classes: of a task at test.
        labelled: actions are one-hot labels; nothing else has prototypes.
    """

    adapts_weights = False

    def __init__(
        self,
        base: BaseLearner,
        embedding_size: int,
        classes: int,
        labelled: bool,
        config: PrototypicalConfig = PrototypicalConfig(),
    ) -> None:
        if not labelled:
            raise QuickstudyError("Prototypical networks recognise classes; a skill's continuous actions have none.")
        super().__init__(base)
        self.config, self.shape = config, (classes, embedding_size)
        if config.distance == "cosine":
            self.log_scale = nn.Parameter(torch.tensor(math.log(config.scale)))

    def begin(self) -> Prototypes:
        """No class has an example, so all are equally likely."""
        zeros = self.base.mean.new_zeros
        return Prototypes(zeros(self.shape), zeros(self.shape[0]))

    def adapt(self, support: Batch) -> Prototypes:
        # Eq. 1: c_k = the mean of f(x_i) over the examples of class k
        member = (support.y * support.mask[..., None]).flatten(0, 1)
        count = member.sum(0)
        total = member.mT @ self.base(support.x).flatten(0, 1)
        return Prototypes(total / count.clamp(min=1.0)[:, None], (count > 0).to(count.dtype))

    def predict(self, skill: Prototypes, x: Tensor) -> Tensor:
        """Logits [..., class], whose cross-entropy on the query is the loss of Algorithm 1."""
        # Eq. 2: p(y = k | x) = softmax of -d(f(x), c_k)
        return torch.where(skill.seen > 0, -self._distance(self.base(x), skill.means), _NEVER)

    def _distance(self, embedding: Tensor, means: Tensor) -> Tensor:
        """Distances of [..., embedding] from [class, embedding], [..., class]."""
        if self.config.distance == "cosine":
            return self.log_scale.exp() * (1 - unit(embedding) @ unit(means).mT)
        return (embedding.unsqueeze(-2) - means).square().sum(-1)


def _build(s: Settings, family: TaskFamily) -> PrototypicalNetworks:
    return PrototypicalNetworks(*embedder(s, family), family.action_size, family.labelled, s.algorithm)


METHODS = (
    Method(
        "prototypical",
        "answers with the class whose mean embedded example is nearest",
        _build,
        paper="Snell, Swersky, Zemel 2017, Prototypical Networks for Few-shot Learning, NIPS",
        settings=PrototypicalConfig,
        unsuited=needs_classes("prototypical"),
        compared=False,
    ),
)
