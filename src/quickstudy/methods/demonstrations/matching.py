"""Matching networks: act at a new point as the demonstration did at the points that an embedding finds similar.

Vinyals, Blundell, Lillicrap, Kavukcuoglu, Wierstra: Matching Networks for One Shot Learning, NIPS 2016 (Eq. 1, sections
2.1.1 and 2.1.2, appendix A). Nothing descends: a skill is the embedded support, and the outer loop learns to embed.

What the paper does not have:
- the softmax of cosines is sharpened by a learned positive scale: cosines within -1..1 alone cannot single out a step.
- continuous actions: the sum of Eq. 1 cannot leave the convex hull of the demonstrated ones (`head='convex'`). Two
  heads can: a 'decoder', for which Eq. 1 sums encoded pairs of embedding and action, and 'local-linear' regression
  along one number of the embedding. For the latter each number of the embedding has a learned weight, and each number
  of an action has a scale of its own, because some need more smoothing than others.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from quickstudy.data import Batch
from quickstudy.errors import QuickstudyError
from quickstudy.learner import BaseLearner, MetaLearner
from quickstudy.method import Method, needs_skills
from quickstudy.methods.demonstrations.base_network import embedder
from quickstudy.methods.scanning import scan
from quickstudy.nets import MLP, masked_softmax, unit
from quickstudy.settings import Config, NonNegativeInt, PositiveFloat, PositiveInt, Settings, Widths
from quickstudy.task import TaskFamily


@dataclass(frozen=True)
class MatchingConfig(Config):
    """Settings of matching networks.

    Attributes:
        head: how the actions of the steps attended to become one: their 'convex' combination (Eq. 1), a 'decoder'
            network, or 'local-linear' regression. Labels are always combined as in Eq. 1.
        scale: initial factor of the cosines in the softmax; learned.
        full_context: embed each support step and each query in the light of the whole support (section 2.1.2), whose
            order then matters.
        processing_steps: K of the attention LSTM that embeds a query in full context.
        decoder: widths of its hidden layers; the encoder of its pairs has the first.
        along: which number of the embedding the regression runs along.
        ridge: initial penalty of the regression's slopes; learned.
    """

    head: Literal["convex", "decoder", "local-linear"] = "decoder"
    scale: PositiveFloat = 10.0
    full_context: bool = False
    processing_steps: PositiveInt = 5
    decoder: Widths = (128, 128)
    along: NonNegativeInt = 0
    ridge: PositiveFloat = 0.1


class Matched(NamedTuple):
    """The skill: the embedded support.

    Attributes:
        keys: g(x_i, S), [n, embedding].
        values: y_i, or for a decoder the pair of g(x_i, S) and y_i, encoded, [n, value].
        real: [n], 1 for a real step and 0 for padding.
    """

    keys: Tensor
    values: Tensor
    real: Tensor


class MatchingNetworks(MetaLearner):
    """Skill: `Matched`.

    Args:
        base: its network embeds an observation; it is both f' and g' of the paper.
        embedding_size: what it outputs.
        actions: width of an action, or number of classes.
        labelled: actions are one-hot labels, `predict` returns the logarithms of their probabilities.
    """

    adapts_weights = False

    def __init__(
        self,
        base: BaseLearner,
        embedding_size: int,
        actions: int,
        labelled: bool,
        config: MatchingConfig = MatchingConfig(),
    ) -> None:
        super().__init__(base)
        self.scans = self.order_matters = config.full_context
        self.config, self.labelled, self.head = config, labelled, "convex" if labelled else config.head
        scales = (actions, 1) if self.head == "local-linear" else ()
        self.log_scale = nn.Parameter(torch.full(scales, math.log(config.scale)))
        self.widths = (embedding_size, embedding_size if self.head == "decoder" else actions)
        if self.head == "decoder":
            self.encode = MLP(embedding_size + actions, embedding_size, config.decoder[:1])
            self.decode = MLP(2 * embedding_size, actions, config.decoder)
        elif self.head == "local-linear":
            if config.along >= embedding_size:
                raise QuickstudyError(
                    f"along must be below {embedding_size}, how many numbers the embedding has; got {config.along}."
                )
            self.log_weight = nn.Parameter(torch.zeros(embedding_size))
            self.log_ridge = nn.Parameter(torch.tensor(math.log(config.ridge)))
        if config.full_context:
            self.support_context = BidirectionalLSTM(embedding_size)
            self.query_context = AttentionLSTM(embedding_size, config.processing_steps)

    def begin(self) -> Matched:
        """One step that is not real: attention to it is zero, and so is what it reads."""
        zeros = self.base.mean.new_zeros
        return Matched(zeros(1, self.widths[0]), zeros(1, self.widths[1]), zeros(1))

    def adapt(self, support: Batch) -> Matched:
        x, y, real = support.x.flatten(0, 1), support.y.flatten(0, 1), support.mask.flatten()
        keys = self.base(x)  # g'(x_i)
        if self.config.full_context:
            keys = self.support_context(keys, real)
        return Matched(keys, self.encode(torch.cat([keys, y], -1)) if self.head == "decoder" else y, real)

    def predict(self, skill: Matched, x: Tensor) -> Tensor:
        f = self.base(x)  # f'(x)
        if self.config.full_context:
            f = self.query_context(f, skill.keys, skill.real)
        if self.head == "local-linear":
            weighed = self.log_weight.exp()
            cosines = (unit(weighed * f) @ unit(weighed * skill.keys).mT).unsqueeze(-2)
            weights = masked_softmax(self.log_scale.exp() * cosines, skill.real)  # a(x, x_i), as below
            keys, at = skill.keys[..., self.config.along], f[..., self.config.along]
            return local_linear(weights, keys, skill.values, at, self.log_ridge.exp())
        # Section 2.1.1: a(x, x_i) = softmax of cosine(f(x), g(x_i)), here times a scale
        cosines = unit(f) @ unit(skill.keys).mT
        attention = masked_softmax(self.log_scale.exp() * cosines, skill.real)
        # Eq. 1: y = sum_i a(x, x_i) y_i
        read = attention @ skill.values
        if self.head == "decoder":
            return self.decode(torch.cat([f, read], -1))
        return (read + 1e-12).log().log_softmax(-1) if self.labelled else read


class LSTMCell(nn.Module):
    """One step of a long short-term memory, from operations that vmap knows: x, h, c to the next h, c."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.gates = nn.Linear(inputs + width, 4 * width)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        enter, forget, leave, new = self.gates(torch.cat([x, h], -1)).chunk(4, -1)
        c = forget.sigmoid() * c + enter.sigmoid() * new.tanh()
        return leave.sigmoid() * c.tanh(), c


class BidirectionalLSTM(nn.Module):
    """g(x_i, S) of appendix A.2: both hidden states at step i, plus g'(x_i). Padding leaves the state as it is."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ahead, self.back = LSTMCell(width, width), LSTMCell(width, width)

    def forward(self, embedded: Tensor, real: Tensor) -> Tensor:
        """g'(x_i) [n, width] and which are real [n] to [n, width]."""
        # Appendix A.2: g(x_i, S) = h_i forward + h_i backward + g'(x_i)
        back = self._states(self.back, embedded.flip(0), real.flip(0)).flip(0)
        return self._states(self.ahead, embedded, real) + back + embedded

    @staticmethod
    def _states(cell: LSTMCell, inputs: Tensor, real: Tensor) -> Tensor:
        def step(state: tuple[Tensor, Tensor], row: tuple[Tensor, Tensor]) -> tuple[tuple[Tensor, Tensor], Tensor]:
            (h, c), (x, is_real) = state, row
            after = cell(x, h, c)
            h, c = (torch.where(is_real > 0, new, old) for new, old in zip(after, (h, c), strict=True))
            return (h, c), h

        nothing = torch.zeros_like(inputs[0])
        return scan(step, (nothing, nothing.clone()), (inputs, real))[1]


class AttentionLSTM(nn.Module):
    """f(x, S) of appendix A.1: K steps that each read the support again; the first reads all alike, as h_0 is zero."""

    def __init__(self, width: int, steps: int) -> None:
        super().__init__()
        self.steps, self.cell = steps, LSTMCell(2 * width, width)

    def forward(self, embedded: Tensor, keys: Tensor, real: Tensor) -> Tensor:
        """f'(x) [..., width], given g(x_i) [n, width], to [..., width]."""
        h = c = torch.zeros_like(embedded)
        for _ in range(self.steps):
            read = masked_softmax(h @ keys.mT, real) @ keys  # Eqs. 5 and 6: r = sum_i softmax(h . g(x_i)) g(x_i)
            output, c = self.cell(torch.cat([embedded, read], -1), h, c)  # Eq. 3: h^, c = LSTM(f'(x), [h, r], c)
            h = output + embedded  # Eq. 4: h = h^ + f'(x)
        return h


def local_linear(weights: Tensor, keys: Tensor, values: Tensor, at: Tensor, ridge: Tensor) -> Tensor:
    """Ridge regression of values [n, act] on keys [n] under weights [..., act, n], evaluated at [...].

    Locally weighted regression (Cleveland 1979) in closed form, of every value under weights of its own. The intercept
    is not penalised, so that the result is the convex combination where the steps attended to are alike.
    """
    # slope = cov(key, value) / (var(key) + ridge), and the line goes through both means
    key, value = weights @ keys, (weights * values.mT).sum(-1)
    variance = weights @ keys.square() - key.square()
    slope = ((weights * values.mT) @ keys - key * value) / (variance + ridge)
    return value + (at.unsqueeze(-1) - key) * slope


def _build(s: Settings, family: TaskFamily) -> MatchingNetworks:
    return MatchingNetworks(*embedder(s, family), family.action_size, family.labelled, s.algorithm)


_PAPER = "Vinyals, Blundell, Lillicrap, Kavukcuoglu, Wierstra 2016, Matching Networks for One Shot Learning, NIPS"

METHODS = (
    Method(
        "matching",
        "attends to the demonstrated steps that a learned embedding finds similar",
        _build,
        paper=_PAPER,
        settings=MatchingConfig,
    ),
    Method(
        "matching-fce",
        "matching networks with full context embeddings",
        _build,
        paper=_PAPER,
        settings=MatchingConfig,
        fixed={"full_context": True},
        compared=False,
    ),
    Method(
        "matching-convex",
        "matching networks that combine demonstrated actions without a decoder",
        _build,
        paper=_PAPER,
        settings=MatchingConfig,
        fixed={"head": "convex"},
        unsuited=needs_skills("matching-convex"),  # labels are always combined so
    ),
)
