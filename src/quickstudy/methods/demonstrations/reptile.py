"""Reptile: move the initial parameters towards what a few steps of training on each task turn them into.

Nichol, Achiam, Schulman: On First-Order Meta-Learning Algorithms, 2018 (Algorithm 1, serial; Algorithm 2, batched), and
the authors' code, supervised-reptile.

The outer step is not the gradient of a query loss, it is phi <- phi + epsilon mean(phi~ - phi), where phi~ is what the
inner loop makes of the initial parameters phi. As everywhere in this package the initial parameters are called theta
here, and the result of the inner loop phi. `Reptile.loss` has the value of an inner loss and the gradient theta - phi.
With plain gradient descent of rate epsilon as outer optimiser, unclipped, that is exactly Algorithm 1 for a meta-batch
of one task and Algorithm 2 for more. Reptile needs no split, so support and query are used together.

What deviates from the authors' code:
- Its Adam (beta_1 = 0) is never reset, so that a task starts with the squared gradients of all tasks before. Here that
  memory is part of theta and moves by the same rule: with one task a step and epsilon = 1 that is the same, otherwise
  it is interpolated and averaged over tasks like the parameters. Divided by its age, it is unbiased in any case.
- Nothing is drawn at random. The mini-batches of an epoch are the same in every epoch, and hold each point once: their
  sizes differ by one at most, where the authors shuffle and let a mini-batch go on into the next epoch.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import grad
from torch.utils._pytree import tree_leaves, tree_map

from quickstudy.data import Batch, SupportQuery
from quickstudy.errors import QuickstudyError
from quickstudy.learner import BaseLearner, MetaLearner, Metrics, Parameters
from quickstudy.method import Method
from quickstudy.methods.demonstrations.base_network import base_learner
from quickstudy.methods.demonstrations.baselines import pooled
from quickstudy.methods.scanning import is_exporting, scan
from quickstudy.settings import Config, PositiveFloat, PositiveInt, Settings
from quickstudy.task import TaskFamily

_BETA_2, _EPSILON = 0.999, 1e-8


@dataclass(frozen=True)
class ReptileConfig(Config):
    """Settings of Reptile.

    Attributes:
        inner_steps: k, steps of the inner loop in training.
        test_steps: steps of adaptation.
        inner_rate: learning rate of the inner loop.
        batch: the most points (steps of demonstrations) in a mini-batch of the inner loop.
        inner_optimiser: 'adam' with beta_1 = 0 as in the authors' code, or 'sgd'; Algorithm 1 allows both.
    """

    inner_steps: PositiveInt = 5
    test_steps: PositiveInt = 50
    inner_rate: PositiveFloat = 1e-3
    batch: PositiveInt = 10
    inner_optimiser: Literal["adam", "sgd"] = "adam"


class Inner(NamedTuple):
    """What the inner loop moves, and the outer loop after it.

    Attributes:
        parameters: by name.
        second: Adam's running sum of squared gradients, by name; empty for 'sgd'.
        age: the sum of the weights in it, 1 - beta_2^t after t steps from nothing.
    """

    parameters: Parameters
    second: Parameters
    age: Tensor


class Reptile(MetaLearner):
    """Skill: the adapted parameters phi, by name."""

    order_matters = True
    follows_gradient = False

    def __init__(self, base: BaseLearner, config: ReptileConfig = ReptileConfig()) -> None:
        super().__init__(base)
        self.config = config
        moved = base.initial() if config.inner_optimiser == "adam" else {}
        self.second = nn.ParameterDict({n.replace(".", "/"): torch.zeros_like(p) for n, p in moved.items()})
        self.age = nn.Parameter(torch.zeros(()))

    def begin(self) -> Parameters:
        return self.base.initial()

    def adapt(self, support: Batch, steps: int | None = None) -> Parameters:
        """phi after `steps` steps (`test_steps` where not given)."""
        return self.descend(support, self.config.test_steps if steps is None else steps).parameters

    def theta(self) -> Inner:
        """What the inner loop starts from."""
        return Inner(self.base.initial(), {n.replace("/", "."): v for n, v in self.second.items()}, self.age)

    def descend(self, data: Batch, steps: int) -> Inner:
        """U^k of the paper: the inner loop on mini-batches. Nothing here is differentiated by the outer loop."""
        now = tree_map(Tensor.detach, self.theta())
        times = torch.arange(steps, device=data.x.device)
        return scan(self._descended, now, times, real_first(data))[0]

    def _descended(self, now: Inner, t: Tensor, points: Batch) -> tuple[Inner, Any]:
        # Algorithm 1: phi = U^k(theta), k steps of SGD or Adam
        gradient = grad(self.base.loss)(now.parameters, mini_batch(points, t, self.config.batch))
        return self._sgd(now, gradient) if self.config.inner_optimiser == "sgd" else self._adam(now, gradient), ()

    def loss(self, task: SupportQuery) -> tuple[Tensor, Metrics]:
        """The loss on the task after its inner loop, as a number; its gradient is theta - phi."""
        data, theta = pooled(task), self.theta()
        phi = self.descend(data, self.config.inner_steps)
        value = self.base.loss(phi.parameters, data).detach()
        # Algorithm 2: theta <- theta + epsilon mean(phi - theta), as the gradient theta - phi of gradient descent
        pull = sum(tree_leaves(tree_map(lambda t, p: (t * (t - p).detach()).sum(), theta, phi)))
        return value + (pull - pull.detach()), {}

    def predict(self, skill: Parameters, x: Tensor) -> Tensor:
        return self.base.predict(skill, x)

    def _sgd(self, now: Inner, gradient: Parameters) -> Inner:
        rate = self.config.inner_rate
        return now._replace(parameters={n: p - rate * gradient[n] for n, p in now.parameters.items()})

    def _adam(self, now: Inner, gradient: Parameters) -> Inner:
        """Adam (Kingma & Ba 2015, Algorithm 1) with beta_1 = 0: the gradient over its root mean square so far."""
        # v_t = beta_2 v_{t-1} + (1 - beta_2) g_t^2, and the age is what the bias correction divides it by
        age = _BETA_2 * now.age + (1 - _BETA_2)
        second = {n: _BETA_2 * v + (1 - _BETA_2) * gradient[n].square() for n, v in now.second.items()}
        # theta_t = theta_{t-1} - rate g_t / (sqrt(v^_t) + epsilon)
        step = {n: g / ((second[n] / age).sqrt() + _EPSILON) for n, g in gradient.items()}
        return Inner({n: p - self.config.inner_rate * step[n] for n, p in now.parameters.items()}, second, age)


def real_first(data: Batch) -> Batch:
    """The steps of all demonstrations as points, [point, ...], padding at the end."""
    mask = data.mask.flatten()
    # A stable sort by (1 - mask), spelt so that it can be a graph: no two numbers are equal.
    n = mask.shape[0]
    order = ((1 - mask) * n + torch.arange(n, device=mask.device)).argsort()
    return Batch(data.x.flatten(0, 1)[order], data.y.flatten(0, 1)[order], mask[order], data.hidden)


def mini_batch(points: Batch, t: Tensor | int, size: int) -> Batch:
    """The mini-batch of step t: of the M that an epoch needs, every M-th real point, the first being t modulo M.

    Consecutive steps of a demonstration are alike, so a mini-batch is spread over all of them. Where there are fewer
    than `size`, points that do not count fill it up.
    """
    n = points.mask.sum().long().clamp(min=1)
    stride = (n + size - 1) // size
    most = size if is_exporting() else min(size, len(points.mask))
    index = t % stride + stride * torch.arange(most, device=n.device)
    chosen, exists = index % n, (index < n).to(points.mask.dtype)
    return Batch(points.x[chosen], points.y[chosen], points.mask[chosen] * exists, points.hidden)


def _build(s: Settings, family: TaskFamily) -> Reptile:
    if s.training.optimiser != "sgd":
        raise QuickstudyError(
            f"Reptile's outer optimiser must be 'sgd', whose step is Reptile's; got '{s.training.optimiser}'."
        )
    return Reptile(base_learner(s, family), s.algorithm)


METHODS = (
    Method(
        "reptile",
        "moves the initial parameters towards where training on each task leads",
        _build,
        paper="Nichol, Achiam, Schulman 2018, On First-Order Meta-Learning Algorithms, arXiv",
        settings=ReptileConfig,
        # the outer step is theta + epsilon mean(phi - theta), epsilon falling to zero; nothing else would be Reptile
        changes={"training": {"optimiser": "sgd", "rate": 1.0, "schedule": "linear", "clip": 1e9}},
    ),
)
