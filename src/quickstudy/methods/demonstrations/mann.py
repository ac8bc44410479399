"""Memory-Augmented Neural Network: write what is shown into an external memory, and read it back by content.

Santoro, Bartunov, Botvinick, Wierstra, Lillicrap: Meta-Learning with Memory-Augmented Neural Networks, ICML 2016
(section 3, Eqs. 2 to 8; labels come one step late, section 2).

The support is one long sequence. At step t an LSTM sees (x_t, y_{t-1}) and what was read at step t - 1; its keys k_t
look up the memory, from which y_t is predicted, and are then written. A query is the reading half of one more step.

Deviations, and what the paper leaves open:
- The similarity of Eq. 3 is multiplied by a strength, learned and positive as in the Neural Turing Machine (Graves et
  al. 2014, Eq. 5): a softmax over 128 slots of numbers in [-1, 1] alone reads little but the mean of the memory.
- A step reads before it writes, so that a key cannot find itself.
- Each head has its own key, strength and gate. All write to the n slots that Eq. 6 marks, once these are erased.
- The memory begins empty. Usage begins as a short ramp, because Eq. 6 marks all slots of equal usage.
- Keys pass through tanh. Embeddings are standardised as they are before training (`calibrate`), and labels or actions
  go in, in units of their deviation.
- Predictions of the support's own steps count less than the query's, not alike (`support_loss`).
"""

import math
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn
from torch.nn.functional import softplus

from quickstudy.data import Batch, SupportQuery
from quickstudy.errors import QuickstudyError
from quickstudy.learner import BaseLearner, MetaLearner, Metrics
from quickstudy.method import Method
from quickstudy.methods.demonstrations.base_network import embedder, raw_learner
from quickstudy.methods.scanning import scan
from quickstudy.settings import Config, NonNegativeFloat, PositiveFloat, PositiveInt, Settings
from quickstudy.task import TaskFamily


@dataclass(frozen=True)
class MANNConfig(Config):
    """Settings of a memory-augmented neural network.

    Attributes:
        slots: rows of the memory.
        width: of a row, and so of a key.
        heads: reads of one step (n of Eq. 6).
        controller: width of the LSTM.
        decay: gamma of Eq. 5.
        strength: factor of the similarity before training; it is learned.
        support_loss: weight of the mean loss of the support's own steps, each predicted before its label is shown,
            beside that of the query. It helps learning to begin; in the paper every presentation counts alike.
    """

    slots: PositiveInt = 128
    width: PositiveInt = 40
    heads: PositiveInt = 4
    controller: PositiveInt = 200
    decay: Annotated[float, Ge(0), Lt(1)] = 0.99
    strength: PositiveFloat = 10.0
    support_loss: NonNegativeFloat = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.slots < self.heads:
            raise QuickstudyError(f"slots must be at least heads, {self.heads}; got {self.slots}.")


class Memory(NamedTuple):
    """The skill: everything that one step passes to the next.

    Attributes:
        rows: M, [slots, width].
        usage: w^u, [slots].
        weights: w^r of each head, [heads, slots].
        read: r of all heads, [heads * width].
        hidden, cell: of the controller.
        label: y of the last step, in units of its deviation.
    """

    rows: Tensor
    usage: Tensor
    weights: Tensor
    read: Tensor
    hidden: Tensor
    cell: Tensor
    label: Tensor


def cosine(keys: Tensor, rows: Tensor) -> Tensor:
    """The similarity of keys [..., heads, width] and rows [..., slots, width]; zero where either is zero."""
    # Eq. 2: K(k, M(i)) = k . M(i) / (|k| |M(i)|)
    squares = keys.square().sum(-1)[..., :, None] * rows.square().sum(-1)[..., None, :]
    return keys @ rows.mT * (squares + 1e-8).rsqrt()


def least_used(usage: Tensor, count: int) -> Tensor:
    """1 for each slot whose usage [..., slots] is at most the `count`-th smallest, else 0."""
    # Eq. 6: w^lu(i) = 1 where w^u(i) <= m(w^u, n), the n-th smallest, and 0 elsewhere
    return (usage <= usage.topk(count, largest=False).values[..., -1:]).to(usage.dtype)


def _deviation(rows: Tensor) -> Tensor:
    """Of each column; 1 for a constant one."""
    deviation = rows.std(0)
    return torch.where(deviation > 1e-6, deviation, 1.0)


def _where(real: Tensor, new: Memory, old: Memory) -> Memory:
    """`new` where the step was `real` [...], `old` where it was padding."""
    chosen = [
        torch.where(real.reshape(*real.shape, *[1] * (n.ndim - real.ndim)), n, o) for n, o in zip(new, old, strict=True)
    ]
    return Memory(*chosen)


class MANN(MetaLearner):
    """Skill: a `Memory`. The network of the base learner embeds observations (`nn.Identity` does not change them)."""

    adapts_weights = False
    scans = True
    order_matters = True
    action_deviation: Tensor

    def __init__(
        self, base: BaseLearner, embedding_size: int, action_size: int, config: MANNConfig = MANNConfig()
    ) -> None:
        super().__init__(base)
        self.config = config
        read = config.heads * config.width
        self.inputs = nn.Linear(embedding_size, 4 * config.controller)
        self.recurrent = nn.Linear(config.controller + read + action_size, 4 * config.controller, bias=False)
        self.keys = nn.Linear(config.controller, read)
        self.strengths = nn.Linear(config.controller, config.heads)
        self.gates = nn.Linear(config.controller, config.heads)
        self.output = nn.Linear(config.controller + read, action_size)
        self.register_buffer("action_deviation", torch.ones(action_size))
        with torch.no_grad():
            self.inputs.bias.zero_()[: config.controller] = 1.0  # an LSTM that forgets at first learns late
            self.strengths.bias.fill_(config.strength + math.log(-math.expm1(-config.strength)))  # softplus inverted

    def standardise(self, batch: Batch) -> None:
        super().standardise(batch)
        self.calibrate(batch)

    @torch.no_grad()
    def calibrate(self, batch: Batch) -> None:
        """Scales the inputs of the controller once before training: actions, and embeddings through its input weights.

        An untrained network embeds any two images nearly alike, and a controller that cannot tell them apart learns to
        read nothing.
        """
        real = batch.mask.bool()
        self.action_deviation.copy_(_deviation(batch.y[real]))
        x = batch.x[real]
        embeddings = self.base(x[:: max(1, len(x) // 1000)])
        self.inputs.weight.div_(_deviation(embeddings))
        self.inputs.bias.sub_(self.inputs.weight @ embeddings.mean(0))

    def begin(self) -> Memory:
        c, zeros = self.config, self.base.mean.new_zeros
        return Memory(
            zeros(c.slots, c.width),
            torch.linspace(0.0, 1e-3, c.slots, dtype=self.base.mean.dtype, device=self.base.mean.device),
            zeros(c.heads, c.slots),
            zeros(c.heads * c.width),
            zeros(c.controller),
            zeros(c.controller),
            zeros(len(self.action_deviation)),
        )

    def adapt(self, support: Batch) -> Memory:
        return self._adapt(support)[0]

    def predict(self, skill: Memory, x: Tensor) -> Tensor:
        return self._read(skill, self.inputs(self.base(x)))[0]

    def write(self, skill: Memory, x: Tensor) -> tuple[Tensor, Memory]:
        """One step of a sequence: what is predicted for x [..., obs], and the memory after it was written."""
        return self._step(skill, self.inputs(self.base(x)))

    def loss(self, task: SupportQuery) -> tuple[Tensor, Metrics]:
        """The query's loss, and `support_loss` times that of the support."""
        skill, shown = self._adapt(task.support)
        query = self.base.criterion(self.predict(skill, task.query.x), task.query)
        support = self.base.criterion(shown, task.support)
        return query + self.config.support_loss * support, {"query": query, "support": support}

    def _adapt(self, support: Batch) -> tuple[Memory, Tensor]:
        """The skill, and what was predicted for the support [shot, step, act] while it was shown."""
        x, y, mask = (t.flatten(0, 1) for t in support[:3])
        skill, predictions = self._present(self.begin(), x, y, mask)
        return skill, predictions.reshape(support.y.shape)

    def _present(self, skill: Memory, x: Tensor, y: Tensor, mask: Tensor) -> tuple[Memory, Tensor]:
        """Shows a sequence x [step, ..., obs]: the skill, and what was predicted for each y [step, ..., act]."""
        rows = self.inputs(self.base(x)), y / self.action_deviation, mask.bool()
        return scan(self._shown, skill, rows)

    def _shown(self, skill: Memory, row: tuple[Tensor, Tensor, Tensor]) -> tuple[Memory, Tensor]:
        inputs, label, real = row
        prediction, following = self._step(skill, inputs)
        return _where(real, following._replace(label=label), skill), prediction

    def _step(self, skill: Memory, inputs: Tensor) -> tuple[Tensor, Memory]:
        """Reads, then writes."""
        prediction, keys, gates, following = self._read(skill, inputs)
        least = least_used(skill.usage, self.config.heads)
        # Eq. 7: w^w_t = sigmoid(alpha) w^r_{t-1} + (1 - sigmoid(alpha)) w^lu_{t-1}
        writing = gates * skill.weights + (1 - gates) * least[..., None, :]
        # Eq. 8: M_t(i) = M_{t-1}(i) + w^w_t(i) k_t, after the least used slots were set to zero
        rows = skill.rows * (1 - least)[..., None] + writing.mT @ keys
        # Eq. 5: w^u_t = gamma w^u_{t-1} + w^r_t + w^w_t
        usage = self.config.decay * skill.usage + following.weights.sum(-2) + writing.sum(-2)
        return prediction, following._replace(rows=rows, usage=usage)

    def _read(self, skill: Memory, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Memory]:
        """The controller and what it reads: prediction, keys [..., heads, width], gates [..., heads, 1], skill.

        Args:
            inputs: what the observation adds to the controller's gates, [..., 4 * controller].
        """
        # The controller, an LSTM that sees x_t, y_{t-1} and r_{t-1}
        gates = inputs + self.recurrent(torch.cat([skill.hidden, skill.read, skill.label], -1))
        forget, admit, show, new = gates.chunk(4, -1)
        cell = forget.sigmoid() * skill.cell + admit.sigmoid() * new.tanh()
        hidden = show.sigmoid() * cell.tanh()
        # Eq. 3: w^r_t = softmax of the similarities, here times the strength
        keys = self.keys(hidden).tanh().unflatten(-1, (self.config.heads, -1))
        weights = (softplus(self.strengths(hidden))[..., None] * cosine(keys, skill.rows)).softmax(-1)
        # Eq. 4: r_t = sum_i w^r_t(i) M_t(i)
        read = (weights @ skill.rows).flatten(-2)
        prediction = self.output(torch.cat([hidden, read], -1))
        following = skill._replace(weights=weights, read=read, hidden=hidden, cell=cell)
        return prediction, keys, self.gates(hidden).sigmoid()[..., None], following


def _build(s: Settings, family: TaskFamily) -> MANN:
    return MANN(*embedder(s, family), family.action_size, s.algorithm)


def _build_raw(s: Settings, family: TaskFamily) -> MANN:
    return MANN(raw_learner(family), family.observation_size, family.action_size, s.algorithm)


_PAPER = (
    "Santoro, Bartunov, Botvinick, Wierstra, Lillicrap 2016, Meta-Learning with Memory-Augmented Neural Networks, ICML"
)

METHODS = (
    Method(
        "mann",
        "writes demonstrations into an external memory and reads them by content",
        _build,
        paper=_PAPER,
        settings=MANNConfig,
    ),
    Method(
        "mann-raw",
        "MANN that stores observations without embedding them first",
        _build_raw,
        paper=_PAPER,
        settings=MANNConfig,
        compared=False,
    ),
)
