"""Meta-learner LSTM: learn the optimiser itself, as an LSTM whose cell state is the parameters of the base learner.

Ravi, Larochelle: Optimization as a Model for Few-Shot Learning, ICLR 2017 (section 3, eq. 2, Algorithm 1).

One LSTM is shared by all coordinates of theta (section 3.2); each has a state of its own. As in the paper's
experiments there are two layers: a plain LSTM reads the preprocessed gradient and loss, and its output is what the
gates of the second, the update itself, see in place of the raw pair. Gradient and loss count as constants in the outer
gradient (the gradient independence assumption of section 3.3), so nothing here is of second order.

What deviates: every step sees the whole support set; the gate biases begin at fixed values, not random ones; the base
network has no batch normalisation, so the paper's choice between its statistics has no counterpart. The gates remember
their own last values as in the paper (at first 0), where the authors' code remembers them before the sigmoid.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import grad_and_value, vjp

from quickstudy.data import Batch, SupportQuery
from quickstudy.errors import QuickstudyError
from quickstudy.learner import BaseLearner, MetaLearner, Metrics, Parameters


@dataclass(frozen=True)
class MetaLSTMConfig:
    """Settings of the meta-learner LSTM.

    Attributes:
        inner_steps: updates of the base learner in training (T of Algorithm 1).
        test_steps: updates at test; as many as in training where not given.
        hidden: width of the first LSTM layer.
        initial_rate: value of the input gate i before training, the learning rate that learning begins with.
        checkpoint: keep only the operands of each update for the backward pass and compute its gates once more there:
            2 hidden + 8 numbers a coordinate and update instead of 8 hidden + 8. Saves nothing where compiled.
    """

    inner_steps: int = 5
    test_steps: int | None = None
    hidden: int = 20
    initial_rate: float = 0.01
    checkpoint: bool = False

    def __post_init__(self) -> None:
        for name in ("inner_steps", "test_steps", "hidden"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise QuickstudyError(f"{name} must be at least 1; got {value}.")
        if not 0 < self.initial_rate < 1:
            raise QuickstudyError(f"initial_rate must be between 0 and 1, as a gate is; got {self.initial_rate}.")


class Weights(NamedTuple):
    """Theta, capital: what the cell has learned, shared by all coordinates. H is `MetaLSTMConfig.hidden`.

    Attributes:
        lstm: [4 H, 4 + H], of the first layer's input, forget and output gates and candidate, from [input, h].
        lstm_bias: [4 H, 1].
        gates: [2, H], of the input gate i and the forget gate f of the second layer, from h.
        theta: [2, 1], the same from the parameter itself.
        previous: [2, 1], the same from the gate's own last value.
        bias: [2, 1].
    """

    lstm: Tensor
    lstm_bias: Tensor
    gates: Tensor
    theta: Tensor
    previous: Tensor
    bias: Tensor


class State(NamedTuple):
    """What the cell remembers of each of the P coordinates. They lie last, so that every gate is one block of memory.

    Attributes:
        h: output of the first layer [H, P].
        c: cell of the first layer [H, P].
        gates: i and f of the second layer [2, P].
        theta: cell of the second layer [P], the parameters of the base learner.
    """

    h: Tensor
    c: Tensor
    gates: Tensor
    theta: Tensor


class MetaLSTM(MetaLearner):
    """Skill: the parameters theta_T, by name."""

    def __init__(self, base: BaseLearner, config: MetaLSTMConfig = MetaLSTMConfig()) -> None:
        super().__init__(base)
        self.config = config
        hidden = config.hidden
        self.copies = 14 * hidden + config.inner_steps * (8 * hidden + 8)
        initial = initial_weights(hidden, config.initial_rate)
        self.weights = nn.ParameterDict({n: nn.Parameter(w) for n, w in initial._asdict().items()})

    def begin(self) -> Parameters:
        """c_0, the learned initial cell state."""
        return self.base.initial()

    def adapt(self, support: Batch, steps: int | None = None) -> Parameters:
        """Lines 5 to 12 of Algorithm 1, `steps` times (as configured where not given)."""
        if steps is None:
            steps = self.config.test_steps or self.config.inner_steps
        theta = _flatten(self.begin())
        nothing = theta.new_zeros(1, len(theta))
        wide = nothing.expand(self.config.hidden, -1)
        weights, state = Weights(**self.weights), State(wide, wide, nothing.expand(2, -1), theta)
        for _ in range(steps):
            learner = self._unflatten(state.theta.detach())
            gradient, loss = grad_and_value(lambda parameters: self.base.loss(parameters, support))(learner)
            flat = _flatten(gradient).detach()
            x = torch.cat([preprocess(flat), preprocess(loss.detach()).unsqueeze(-1).expand(-1, len(flat))])
            operands = (flat, x, *weights, *state)
            state = State(*(_Recomputed.apply(*operands) if self.config.checkpoint else update(*operands)))
        return self._unflatten(state.theta)

    def predict(self, skill: Parameters, x: Tensor) -> Tensor:
        return self.base.predict(skill, x)

    def loss(self, task: SupportQuery) -> tuple[Tensor, Metrics]:
        """Lines 14 and 15 of Algorithm 1."""
        skill = self.adapt(task.support, self.config.inner_steps)
        return self.base.loss(skill, task.query), {}

    def _unflatten(self, theta: Tensor) -> Parameters:
        shapes = {name: p.shape for name, p in self.base.named_parameters()}
        parts = theta.split([shape.numel() for shape in shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


_FORGET_BIAS = 5.0


def initial_weights(hidden: int, rate: float) -> Weights:
    """At first almost gradient descent: i is the wanted rate and f nearly 1."""
    sizes = [(4 * hidden, 4 + hidden), (4 * hidden, 1), (2, hidden), (2, 1), (2, 1), (2, 1)]
    initial = Weights(*(torch.empty(size).uniform_(-0.01, 0.01) for size in sizes))
    initial.bias.copy_(torch.tensor([[math.log(rate / (1 - rate))], [_FORGET_BIAS]]))
    return initial


_P = 10.0
"""p of the preprocessing; numbers below e^-p count as small."""


def preprocess(x: Tensor) -> Tensor:
    """Size and sign of numbers of any scale [2, ...] (section 3.2; Andrychowicz et al. 2016, appendix A).

    (log|x| / p, sign x) where |x| >= e^-p and (-1, e^p x) elsewhere: two clamped functions, without a case.
    """
    return torch.stack([x.abs().clamp(min=math.exp(-_P)).log() / _P, (math.exp(_P) * x).clamp(-1.0, 1.0)])


def update(gradient: Tensor, x: Tensor, *tensors: Tensor) -> State:
    """One step of both layers for all coordinates: the equations of section 3.1.

    Args:
        gradient: [P].
        x: preprocessed gradient and loss [4, P].
        tensors: those of `Weights`, then those of `State`.
    """
    w, state = Weights(*tensors[: len(Weights._fields)]), State(*tensors[len(Weights._fields) :])
    lstm = _product(w.lstm, torch.cat([x, state.h])) + w.lstm_bias
    hidden = len(state.h)
    ifo, candidate = lstm.split([3 * hidden, hidden])
    i, f, o = ifo.sigmoid().split(hidden)
    c = f * state.c + i * _tanh(candidate)
    h = o * _tanh(c)
    gates = (_product(w.gates, h) + w.theta * state.theta + w.previous * state.gates + w.bias).sigmoid()
    return State(h, c, gates, gates[1] * state.theta - gates[0] * gradient)


def _tanh(x: Tensor) -> Tensor:
    """By way of the sigmoid, which compiled code keeps for the backward pass where it would compute tanh once more."""
    return 2.0 * (2.0 * x).sigmoid() - 1.0


def _product(weight: Tensor, x: Tensor) -> Tensor:
    """`weight @ x`, as a batch of one: under vmap a plain product would copy and transpose x [task, feature, P]."""
    return (weight.unsqueeze(0) @ x.unsqueeze(0)).squeeze(0)


class _Recomputed(torch.autograd.Function):
    """`update`, keeping its operands and nothing between; `torch.utils.checkpoint` does not work under vmap."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*operands: Tensor) -> tuple[Tensor, ...]:
        return tuple(update(*operands))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        gradient, x, *tensors = ctx.saved_tensors
        pull = vjp(lambda *tensors: tuple(update(gradient, x, *tensors)), *tensors)[1]
        return None, None, *pull(cotangents)


def _flatten(parameters: Parameters) -> Tensor:
    return torch.cat([p.flatten() for p in parameters.values()])
