"""Siamese networks: learn whether two examples are of the same kind, then recognise by the most similar example.

Koch, Zemel, Salakhutdinov: Siamese Neural Networks for One-shot Image Recognition, ICML Deep Learning Workshop 2015.
Section 3.1: twin embeddings h end in a sigmoid, p(same) = sigmoid(b + sum_j alpha_j |h1_j - h2_j|). Section 3.2: the
twins learn by verification, the cross-entropy of p over pairs. Section 4.3: a query is of the class of that example for
which p is largest.

Deviations. The bias b is ours: without it no p is above 1/2 unless some alpha_j is positive. A step takes every pair of
a query and a support example and weighs those that are the same half and the others half, where the paper draws pairs
half and half. The twin is this library's base network; L2 regularisation is left to the optimiser, and there are no
rates or momenta of single layers and no affine distortions.

Skills are our extension, the paper has classification only. Two steps of a task are the same if the expert did nearly
the same in both. An action is a vote of all demonstrated steps, weighted by the softmax of their log-odds. Plain votes
cannot leave what was demonstrated, so a vote may be corrected for the difference between here and there, by a network
that learns by imitation.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from quickstudy.data import Batch, SupportQuery
from quickstudy.errors import QuickstudyError
from quickstudy.learner import BaseLearner, MetaLearner, Metrics, masked_mean
from quickstudy.nets import MLP, masked_softmax

_NEVER = -1e4
"""The log-odds that a query is of a class of which there is no example."""

_ALPHA, _BIAS = -2.0, 6.0
"""Where these start: more alike is more the same, and equal is surely the same. From zero the bias is hardly learned
(in 250 steps on Omniglot it moved by 0.1), and without a large one no pair can be told to be the same."""


@dataclass(frozen=True)
class SiameseConfig:
    """Settings of Siamese networks.

    Attributes:
        tolerance: skills only: two steps are the same if their actions differ by less, root mean square over
            components, in units of the deviation of the training demonstrations' actions.
        vote: skills only: a demonstrated step votes for its 'plain' action, or for a 'corrected' one.
        width: skills only: hidden units of the correction.
    """

    tolerance: float = 0.3
    vote: Literal["plain", "corrected"] = "corrected"
    width: int = 64

    def __post_init__(self) -> None:
        for name in ("tolerance", "width"):
            if not getattr(self, name) > 0:
                raise QuickstudyError(f"{name} must be positive; got {getattr(self, name)}.")
        if self.vote not in ("plain", "corrected"):
            raise QuickstudyError(f"vote must be 'plain' or 'corrected'; got '{self.vote}'.")


class Similarity(nn.Module):
    """The log-odds that two embeddings are of the same kind: b + sum_j alpha_j |h1_j - h2_j|."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.alpha, self.bias = nn.Parameter(torch.full((width,), _ALPHA)), nn.Parameter(torch.tensor(_BIAS))

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Embeddings [..., E], broadcast, to [...]."""
        return self.bias + (one - other).abs() @ self.alpha


class Examples(NamedTuple):
    """The skill: every demonstrated step as the twin sees it.

    Attributes:
        embeddings: [point, E].
        targets: what was done there, [point, act].
        real: [point], 0 for padding.
    """

    embeddings: Tensor
    targets: Tensor
    real: Tensor


class Siamese(MetaLearner):
    """Skill: `Examples`.

    Args:
        base: its network embeds an observation; it is the twin, less the sigmoid.
        embedding_size: what it outputs.
        action_size: width of an action, or number of classes.
        labelled: actions are one-hot labels, and `predict` returns the log-odds of each class's most similar example.
    """

    adapts_weights = False
    spread: Tensor

    def __init__(
        self,
        base: BaseLearner,
        embedding_size: int,
        action_size: int,
        labelled: bool,
        config: SiameseConfig = SiameseConfig(),
    ) -> None:
        super().__init__(base)
        self.config, self.labelled, self.widths = config, labelled, (embedding_size, action_size)
        self.similarity = Similarity(embedding_size)
        # Recognition has none, so that what was learned fits tasks of any number of classes.
        self.register_buffer("spread", torch.ones(0 if labelled else action_size))
        self.correction: Correction | None = None
        if not labelled and config.vote == "corrected":
            self.correction = Correction(embedding_size, action_size, config.width)

    def standardise(self, batch: Batch) -> None:
        super().standardise(batch)
        if not self.labelled:
            spread = batch.y[batch.mask.bool()].std(0)
            self.spread.copy_(torch.where(spread > 1e-6, spread, 1.0))

    def begin(self) -> Examples:
        """One example that is not real: it has no vote, and is of no class."""
        zeros = self.base.mean.new_zeros
        return Examples(zeros(1, self.widths[0]), zeros(1, self.widths[1]), zeros(1))

    def adapt(self, support: Batch) -> Examples:
        return Examples(self.embed(support.x).flatten(0, 1), support.y.flatten(0, 1), support.mask.flatten())

    def predict(self, skill: Examples, x: Tensor) -> Tensor:
        return self._answer(skill, self.embed(x))[0]

    def loss(self, task: SupportQuery) -> tuple[Tensor, Metrics]:
        """Verification of all pairs of a query and a support step; with corrected votes, their imitation loss too."""
        skill, query = self.adapt(task.support), task.query
        answer, log_odds = self._answer(skill, self.embed(query.x))
        same = self.same(query.y.unsqueeze(-2), skill.targets)
        verification = verification_loss(log_odds, same, query.mask.unsqueeze(-1) * skill.real)
        if self.correction is None:
            return verification, {"verification": verification}
        # In units of the actions' deviation, to be comparable with a cross-entropy.
        imitation = self.base.criterion(answer / self.spread, query._replace(y=query.y / self.spread))
        return verification + imitation, {"verification": verification, "imitation": imitation}

    def embed(self, x: Tensor) -> Tensor:
        """The twin: observations [..., obs] to embeddings [..., E] within 0..1."""
        return self.base(x).sigmoid()

    def same(self, one: Tensor, other: Tensor) -> Tensor:
        """1 where two steps, by their actions [..., act], are the same, else 0."""
        if self.labelled:
            return (one * other).sum(-1)
        return (((one - other) / self.spread).square().mean(-1).sqrt() < self.config.tolerance).to(one.dtype)

    def _answer(self, skill: Examples, here: Tensor) -> tuple[Tensor, Tensor]:
        """Logits or actions [..., act] at embeddings [..., E], and the log-odds [..., point] that they came from."""
        log_odds = self.similarity(here.unsqueeze(-2), skill.embeddings)
        if self.labelled:
            of_class = (skill.targets * skill.real.unsqueeze(-1)).T > 0
            return torch.where(of_class, log_odds.unsqueeze(-2), _NEVER).amax(-1), log_odds
        weights = masked_softmax(log_odds, skill.real)
        vote = weights @ skill.targets
        if self.correction is not None:
            vote = vote + self.spread * self.correction(here, weights, skill.embeddings, skill.targets / self.spread)
        return vote, log_odds


class Correction(nn.Module):
    """How much else to do here than there: g(h, h_i, y_i) - g(h_i, h_i, y_i), nothing at the demonstrated step itself.

    g is a network with one hidden layer for pairs, whose other input was made from (h_i, y_i) by a layer more.
    """

    def __init__(self, embedding_size: int, action_size: int, width: int) -> None:
        super().__init__()
        self.place = nn.Linear(embedding_size, width, bias=False)
        self.shown = MLP(embedding_size + action_size, width, [width])
        self.head = nn.Linear(width, action_size, bias=False)

    def forward(self, here: Tensor, weights: Tensor, there: Tensor, done: Tensor) -> Tensor:
        """The weighted correction [..., act] of all demonstrated steps.

        Args:
            here: [..., E].
            weights: [..., point].
            there, done: embeddings [point, E] and actions [point, act].
        """
        shown = self.shown(torch.cat([there, done], -1))
        moved = (self.place(here).unsqueeze(-2) + shown).relu()
        unmoved = (self.place(there) + shown).relu()
        # The head is linear, so it may come after the sum over steps.
        return self.head((weights.unsqueeze(-2) @ (moved - unmoved)).squeeze(-2))


def verification_loss(log_odds: Tensor, same: Tensor, real: Tensor) -> Tensor:
    """Cross-entropy of pairs [...], those that are the same weighing half and those that are not the other half."""
    positive = masked_mean(nn.functional.softplus(-log_odds), real * same)
    negative = masked_mean(nn.functional.softplus(log_odds), real * (1.0 - same))
    return (positive + negative) / 2
