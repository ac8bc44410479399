"""Meta-learner LSTM: learn the optimiser itself, as an LSTM whose cell state is the parameters of the base learner.

Ravi, Larochelle: Optimization as a Model for Few-Shot Learning, ICLR 2017 (section 3, Eq. 2, Algorithm 1).

One LSTM is shared by all coordinates of theta (section 3.2); each has a state of its own. As in the paper's
experiments there are two layers: a plain LSTM reads the preprocessed gradient and loss, and the gates of the second
layer, which is the update itself, see its output in place of the raw pair. Gradient and loss count as constants in the
outer gradient (the gradient independence assumption of section 3.3), so nothing here is of second order.

What deviates: every step sees the whole support set; the biases of the gates begin at fixed values, not random ones;
the base network has no batch normalisation, so the paper's choice between its statistics has no counterpart. The gates
remember their own last values as in the paper (at first 0); the authors' code remembers them before the sigmoid.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import grad_and_value

from quickstudy.data import Batch, SupportQuery
from quickstudy.errors import QuickstudyError
from quickstudy.learner import BaseLearner, MetaLearner, Metrics, Parameters
from quickstudy.method import Method
from quickstudy.methods.demonstrations.base_network import base_learner
from quickstudy.methods.scanning import scan
from quickstudy.settings import Config, OpenFraction, PositiveInt


@dataclass(frozen=True)
class MetaLSTMConfig(Config):
    """Settings of the meta-learner LSTM.

    Attributes:
        inner_steps: updates of the base learner in training (T of Algorithm 1).
        test_steps: updates at test; as many as in training where not given.
        hidden: width of the first LSTM layer.
        initial_rate: value of the input gate i before training, the learning rate that learning begins with.
    """

    inner_steps: PositiveInt = 5
    test_steps: PositiveInt | None = None
    hidden: PositiveInt = 20
    initial_rate: OpenFraction = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.test_steps is not None and self.test_steps < 1:
            raise QuickstudyError(f"test_steps must be positive; got {self.test_steps}.")


class Weights(NamedTuple):
    """Theta (capital) of the paper: the weights of the cell, shared by all coordinates. H is `MetaLSTMConfig.hidden`.

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
    """What the cell remembers of each of the P coordinates, the last axis, so that every gate is one block of memory.

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

    follows_gradient = False

    def __init__(self, base: BaseLearner, config: MetaLSTMConfig = MetaLSTMConfig()) -> None:
        super().__init__(base)
        self.config = config
        hidden = config.hidden
        self.copies = 14 * hidden + config.inner_steps * (8 * hidden + 8)
        initial = initial_weights(hidden, config.initial_rate)
        self.weights = nn.ParameterDict({n: nn.Parameter(w) for n, w in initial._asdict().items()})

    def begin(self) -> Parameters:
        """c_0, the learned initial cell state (Algorithm 1, line 5)."""
        return self.base.initial()

    def adapt(self, support: Batch, steps: int | None = None) -> Parameters:
        """Lines 5 to 12 of Algorithm 1: theta after `steps` updates (as many as the settings say where not given)."""
        if steps is None:
            steps = self.config.test_steps or self.config.inner_steps
        theta = _flatten(self.begin())
        nothing = theta.new_zeros(1, len(theta))
        wide = nothing.expand(self.config.hidden, -1)
        state = State(wide, wide, nothing.expand(2, -1), theta)
        times = torch.arange(steps, device=theta.device)
        return self._unflatten(scan(self._updated, state, times, support)[0].theta)

    def _updated(self, state: State, t: Tensor, support: Batch) -> tuple[State, Any]:
        # Algorithm 1, lines 8 and 9: loss and gradient on the support; constants for the outer loop (section 3.3)
        learner = self._unflatten(state.theta.detach())
        gradient, loss = grad_and_value(self.base.loss)(learner, support)
        flat = _flatten(gradient).detach()
        x = torch.cat([preprocess(flat), preprocess(loss.detach()).unsqueeze(-1).expand(-1, len(flat))])
        # Algorithm 1, lines 10 and 11: the cell's next state, which is the updated theta
        return update(flat, x, Weights(**self.weights), state), ()

    def predict(self, skill: Parameters, x: Tensor) -> Tensor:
        return self.base.predict(skill, x)

    def loss(self, task: SupportQuery) -> tuple[Tensor, Metrics]:
        # Algorithm 1, lines 14 and 15: the loss of theta_T on the query
        skill = self.adapt(task.support, self.config.inner_steps)
        return self.base.loss(skill, task.query), {}

    def _unflatten(self, theta: Tensor) -> Parameters:
        shapes = {name: p.shape for name, p in self.base.named_parameters()}
        parts = theta.split([shape.numel() for shape in shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


_FORGET_BIAS = 5.0


def initial_weights(hidden: int, rate: float) -> Weights:
    """At first nearly gradient descent: i is the given rate, and f is nearly 1."""
    sizes = [(4 * hidden, 4 + hidden), (4 * hidden, 1), (2, hidden), (2, 1), (2, 1), (2, 1)]
    initial = Weights(*(torch.empty(size).uniform_(-0.01, 0.01) for size in sizes))
    initial.bias.copy_(torch.tensor([[math.log(rate / (1 - rate))], [_FORGET_BIAS]]))
    return initial


_P = 10.0
"""p of the preprocessing; numbers below e^-p count as small."""


def preprocess(x: Tensor) -> Tensor:
    """Size and sign of numbers of any scale [2, ...] (section 3.2; Andrychowicz et al. 2016, appendix A).

    (log|x| / p, sign x) where |x| >= e^-p and (-1, e^p x) elsewhere, written as two clamped functions.
    """
    return torch.stack([x.abs().clamp(min=math.exp(-_P)).log() / _P, (math.exp(_P) * x).clamp(-1.0, 1.0)])


def update(gradient: Tensor, x: Tensor, w: Weights, state: State) -> State:
    """One step of both layers for all coordinates: the equations of section 3.1.

    Args:
        gradient: [P].
        x: preprocessed gradient and loss [4, P].
    """
    # The first layer is a plain LSTM, as in the paper's experiments; the gates of the second see its output h
    lstm = _product(w.lstm, torch.cat([x, state.h])) + w.lstm_bias
    hidden = len(state.h)
    ifo, candidate = lstm.split([3 * hidden, hidden])
    i, f, o = ifo.sigmoid().split(hidden)
    c = f * state.c + i * _tanh(candidate)
    h = o * _tanh(c)
    # Section 3.1: i_t = sigmoid(W_I [grad L, L, theta, i] + b_I), f_t = sigmoid(W_F [grad L, L, theta, f] + b_F)
    gates = (_product(w.gates, h) + w.theta * state.theta + w.previous * state.gates + w.bias).sigmoid()
    # Eq. 2 with c = theta and the candidate -grad L: theta_t = f_t theta_{t-1} - i_t grad L
    return State(h, c, gates, gates[1] * state.theta - gates[0] * gradient)


def _tanh(x: Tensor) -> Tensor:
    """By the sigmoid, which compiled code keeps for the backward pass; it would compute tanh itself a second time."""
    return 2.0 * (2.0 * x).sigmoid() - 1.0


def _product(weight: Tensor, x: Tensor) -> Tensor:
    """`weight @ x`, as a batch of one: under vmap a plain product would copy and transpose x [task, feature, P]."""
    return (weight.unsqueeze(0) @ x.unsqueeze(0)).squeeze(0)


def _flatten(parameters: Parameters) -> Tensor:
    return torch.cat([p.flatten() for p in parameters.values()])


METHODS = (
    Method(
        "meta-lstm",
        "an LSTM learned as the optimiser of the base network",
        lambda s, family: MetaLSTM(base_learner(s, family), s.algorithm),
        paper="Ravi, Larochelle 2017, Optimization as a Model for Few-Shot Learning, ICLR",
        settings=MetaLSTMConfig,
    ),
)
