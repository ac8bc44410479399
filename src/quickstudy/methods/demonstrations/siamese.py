"""Siamese networks: learn whether two examples are of the same kind, then recognise by the most similar example.

Koch, Zemel, Salakhutdinov: Siamese Neural Networks for One-shot Image Recognition, ICML Deep Learning Workshop 2015.
Section 3.1: twin embeddings h end in a sigmoid, p(same) = sigmoid(b + sum_j alpha_j |h1_j - h2_j|). Section 3.2: the
twins learn by verification, the cross-entropy of p over pairs plus an L2 penalty of the weights. Section 4.3: a query
is of the class of that example for which p is largest.

Deviations. The bias b is ours: without it no p is above 1/2 unless some alpha_j is positive. An outer step takes every
pair of a query and a support example, and gives the pairs that are the same and those that are not half of the weight
each, where the paper draws as many of the one as of the other. The twin is this library's base network. The L2 penalty
has one factor, 0 unless it is set, where the paper chooses one for each layer, as it does rates and momenta; there are
no affine distortions.

Skills are our extension, the paper has classification only. Two steps of a task are the same if the expert did nearly
the same in both. An action is the mean of the actions of all demonstrated steps, weighted by the softmax of their
log-odds. Alone it cannot leave what was demonstrated, so each action is corrected for the difference between the
current and the demonstrated step, by a network that learns by imitation.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from quickstudy.data import Batch, SupportQuery
from quickstudy.learner import BaseLearner, MetaLearner, Metrics, masked_mean
from quickstudy.method import Method
from quickstudy.methods.demonstrations.base_network import embedder
from quickstudy.nets import MLP, masked_softmax
from quickstudy.settings import Config, NonNegativeFloat, PositiveFloat, PositiveInt, Settings
from quickstudy.task import TaskFamily

_NEVER = -1e4
"""The log-odds that a query is of a class of which there is no example."""

_ALPHA, _BIAS = -2.0, 6.0
"""Initial values: the smaller the difference the likelier the same, and equal embeddings are surely the same. Starting
from zero the bias hardly moves (0.1 in 250 steps on Omniglot), and while it is small no pair counts as the same."""


@dataclass(frozen=True)
class SiameseConfig(Config):
    """Settings of Siamese networks.

    Attributes:
        tolerance: skills only: two steps are the same if their actions differ by less, root mean square over
            components, in units of the deviation of the training demonstrations' actions.
        width: skills only: hidden units of the correction.
        l2_penalty: lambda of section 3.2, for all weights (no biases) of the twin and of the comparison.
    """

    tolerance: PositiveFloat = 0.3
    width: PositiveInt = 64
    l2_penalty: NonNegativeFloat = 0.0


class Similarity(nn.Module):
    """The log-odds that two embeddings are of the same kind."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.alpha, self.bias = nn.Parameter(torch.full((width,), _ALPHA)), nn.Parameter(torch.tensor(_BIAS))

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Embeddings [..., E], broadcast, to [...]."""
        # Section 3.1: p = sigmoid(sum_j alpha_j |h1_j - h2_j|), here with a bias and before the sigmoid
        return self.bias + (one - other).abs() @ self.alpha


class Examples(NamedTuple):
    """The skill: every demonstrated step, embedded.

    Attributes:
        embeddings: [point, E].
        targets: the actions of these steps, [point, act].
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
        if not labelled:
            self.correction = Correction(embedding_size, action_size, config.width)

    def standardise(self, batch: Batch) -> None:
        super().standardise(batch)
        if not self.labelled:
            spread = batch.y[batch.mask.bool()].std(0)
            self.spread.copy_(torch.where(spread > 1e-6, spread, 1.0))

    def begin(self) -> Examples:
        """One example that is not real: it has no weight and belongs to no class."""
        zeros = self.base.mean.new_zeros
        return Examples(zeros(1, self.widths[0]), zeros(1, self.widths[1]), zeros(1))

    def adapt(self, support: Batch) -> Examples:
        return Examples(self.embed(support.x).flatten(0, 1), support.y.flatten(0, 1), support.mask.flatten())

    def predict(self, skill: Examples, x: Tensor) -> Tensor:
        return self._answer(skill, self.embed(x))[0]

    def loss(self, task: SupportQuery) -> tuple[Tensor, Metrics]:
        """Verification of all pairs of a query and a support step; for skills the imitation loss too."""
        skill, query = self.adapt(task.support), task.query
        answer, log_odds = self._answer(skill, self.embed(query.x))
        same = self.same(query.y.unsqueeze(-2), skill.targets)
        verification = verification_loss(log_odds, same, query.mask.unsqueeze(-1) * skill.real)
        loss, metrics = verification, {"verification": verification}
        if not self.labelled:
            # in units of the actions' deviation, which makes it comparable with a cross-entropy
            imitation = self.base.criterion(answer / self.spread, query._replace(y=query.y / self.spread))
            loss, metrics = loss + imitation, {**metrics, "imitation": imitation}
        if self.config.l2_penalty:
            # Section 3.2: the cross-entropy plus lambda |w|^2
            penalty = self.config.l2_penalty * self._weight_norm()
            loss, metrics = loss + penalty, {**metrics, "l2-penalty": penalty}
        return loss, metrics

    def embed(self, x: Tensor) -> Tensor:
        """The twin: observations [..., obs] to embeddings [..., E] within 0..1."""
        return self.base(x).sigmoid()

    def same(self, one: Tensor, other: Tensor) -> Tensor:
        """1 where two steps, by their actions [..., act], are the same, else 0."""
        if self.labelled:
            return (one * other).sum(-1)
        return (((one - other) / self.spread).square().mean(-1).sqrt() < self.config.tolerance).to(one.dtype)

    def _weight_norm(self) -> Tensor:
        """The sum of the squared weights of the twin and of the comparison, without biases."""
        named = [*self.base.named_parameters(), ("alpha", self.similarity.alpha)]
        return torch.stack([p.square().sum() for name, p in named if not name.endswith("bias")]).sum()

    def _answer(self, skill: Examples, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Logits or actions [..., act] at embeddings [..., E], and the log-odds [..., point] that they came from."""
        log_odds = self.similarity(embedding.unsqueeze(-2), skill.embeddings)
        if self.labelled:
            # Section 4.3: C* = argmax_c p(query, example of class c)
            of_class = (skill.targets * skill.real.unsqueeze(-1)).T > 0
            return torch.where(of_class, log_odds.unsqueeze(-2), _NEVER).amax(-1), log_odds
        weights = masked_softmax(log_odds, skill.real)
        assert self.correction is not None  # all skills have one
        done = skill.targets / self.spread
        correction = self.correction(embedding, weights, skill.embeddings, done)
        return weights @ skill.targets + self.spread * correction, log_odds


class Correction(nn.Module):
    """By how much an action differs from that of a demonstrated step: g(h, h_i, y_i) - g(h_i, h_i, y_i).

    It is zero at the demonstrated step itself. g is a network with one hidden layer for pairs, whose second input is
    made from (h_i, y_i) by one more layer.
    """

    def __init__(self, embedding_size: int, action_size: int, width: int) -> None:
        super().__init__()
        self.place = nn.Linear(embedding_size, width, bias=False)
        self.shown = MLP(embedding_size + action_size, width, [width])
        self.head = nn.Linear(width, action_size, bias=False)

    def forward(self, embedding: Tensor, weights: Tensor, demonstrated: Tensor, done: Tensor) -> Tensor:
        """The weighted correction [..., act] of all demonstrated steps.

        Args:
            embedding: of the current step, [..., E].
            weights: [..., point].
            demonstrated, done: embeddings [point, E] and actions [point, act] of the demonstrated steps.
        """
        shown = self.shown(torch.cat([demonstrated, done], -1))
        moved = (self.place(embedding).unsqueeze(-2) + shown).relu()
        unmoved = (self.place(demonstrated) + shown).relu()
        # the head is linear, so that it can follow the sum over steps
        return self.head((weights.unsqueeze(-2) @ (moved - unmoved)).squeeze(-2))


def verification_loss(log_odds: Tensor, same: Tensor, real: Tensor) -> Tensor:
    """Cross-entropy of pairs [...]; the pairs that are the same and those that are not have half of the weight each."""
    # Section 3.2: -y log p - (1 - y) log(1 - p), of log-odds
    positive = masked_mean(nn.functional.softplus(-log_odds), real * same)
    negative = masked_mean(nn.functional.softplus(log_odds), real * (1.0 - same))
    return (positive + negative) / 2


def _build(s: Settings, family: TaskFamily) -> Siamese:
    return Siamese(*embedder(s, family), family.action_size, family.labelled, s.algorithm)


METHODS = (
    Method(
        "siamese",
        "learns whether two examples are of the same kind, and answers by the most similar ones",
        _build,
        paper="Koch, Zemel, Salakhutdinov 2015, Siamese Neural Networks for One-shot Image Recognition, ICML Deep "
        "Learning Workshop",
        settings=SiameseConfig,
    ),
)
