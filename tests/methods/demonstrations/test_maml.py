"""MAML against closed forms and against a plain loop, in float64."""

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_map

from quickstudy.batching import OuterStep
from quickstudy.data import Batch, SupportQuery
from quickstudy.errors import QuickstudyError
from quickstudy.learner import BaseLearner
from quickstudy.methods.demonstrations.maml import MAML, MAMLConfig
from quickstudy.nets import MLP


class Linear(nn.Module):
    """y = x w, whose squared error is a quadratic in w."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.linspace(-1.0, 1.0, width, dtype=torch.float64)[:, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.w


def linear_tasks(tasks: int, points: int, width: int, seed: int = 0) -> Batch:
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(tasks, 1, points, width, generator=rng, dtype=torch.float64)
    y = torch.randn(tasks, 1, points, 1, generator=rng, dtype=torch.float64)
    return Batch(x, y, torch.ones(tasks, 1, points, dtype=torch.float64), torch.zeros(tasks, 0, dtype=torch.float64))


def linear_learner(config: MAMLConfig, width: int = 3) -> MAML:
    return MAML(BaseLearner(Linear(width), width).double(), config)


def quadratic(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """H and b of the gradient H w - b of the mean squared error |x w - y|^2 / n."""
    return 2 * x.T @ x / len(x), 2 * x.T @ y / len(x)


@pytest.mark.parametrize("inner_steps", [1, 3])
@pytest.mark.parametrize("first_order", [False, True])
def test_the_meta_gradient_of_a_quadratic_in_closed_form(inner_steps, first_order):
    """phi = A^k theta + const with A = I - alpha H, so the meta-gradient is (A^k)^T g(phi); first order: g(phi)."""
    alpha = 0.07
    support, query = linear_tasks(4, 6, 3, seed=1), linear_tasks(4, 6, 3, seed=2)
    learner = linear_learner(MAMLConfig(inner_steps, alpha, first_order))
    theta = learner.base.network.w.detach().clone()
    expected = torch.zeros_like(theta)
    for t in range(4):
        (h, b), (hq, bq) = quadratic(support.x[t, 0], support.y[t, 0]), quadratic(query.x[t, 0], query.y[t, 0])
        a = torch.eye(3, dtype=torch.float64) - alpha * h
        phi = theta
        for _ in range(inner_steps):
            phi = a @ phi + alpha * b
        outer = hq @ phi - bq
        expected += (outer if first_order else torch.linalg.matrix_power(a, inner_steps).T @ outer) / 4
    OuterStep(learner, "vmap")(SupportQuery(support, query))
    torch.testing.assert_close(learner.base.network.w.grad, expected, rtol=1e-12, atol=1e-12)


def test_one_inner_step_by_hand():
    """w = 1, one point x = 2, y = 0: loss 4 w^2, gradient 8 w, so phi = 1 - 0.1 * 8 = 0.2."""
    learner = linear_learner(MAMLConfig(1, 0.1), width=1)
    with torch.no_grad():
        learner.base.network.w.fill_(1.0)
    ones = torch.ones(1, 1, dtype=torch.float64)
    support = Batch(2 * ones[None], 0 * ones[None], ones, torch.zeros(0, dtype=torch.float64))
    phi = learner.adapt(support)
    assert phi["network.w"].item() == pytest.approx(0.2, abs=1e-15)
    assert learner.predict(phi, torch.tensor([[3.0]], dtype=torch.float64)).item() == pytest.approx(0.6, abs=1e-15)


def test_meta_sgd_has_a_rate_for_each_parameter_and_step():
    """Rates 0.1 then 0 on the quadratic 4 w^2: the second step moves nothing, a third uses the last rate."""
    learner = linear_learner(MAMLConfig(2, 0.1, learn_rates="parameter-step"), width=1).double()
    rates = learner.rates["network/w"]
    assert rates.shape == (2, 1, 1)
    with torch.no_grad():
        learner.base.network.w.fill_(1.0)
        rates[1] = 0.0
    ones = torch.ones(1, 1, dtype=torch.float64)
    support = Batch(2 * ones[None], 0 * ones[None], ones, torch.zeros(0, dtype=torch.float64))
    for steps in (1, 2, 3):
        assert learner.adapt(support, steps)["network.w"].item() == pytest.approx(0.2, abs=1e-7)


def test_anil_moves_only_the_head():
    learner = MAML(BaseLearner(MLP(3, 2, [8]), 3), MAMLConfig(adapt_only="head"))
    support = tree_map(lambda t: t[0].float(), linear_tasks(1, 5, 3))._replace(y=torch.randn(1, 5, 2))
    before, after = learner.begin(), learner.adapt(support)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"network.head.weight", "network.head.bias"}


def test_anil_needs_a_head():
    with pytest.raises(QuickstudyError, match="named 'head'"):
        MAML(BaseLearner(Linear(2), 2), MAMLConfig(adapt_only="head"))


@pytest.mark.parametrize("bad", [{"inner_steps": 0}, {"inner_rate": 0.0}])
def test_settings_are_checked(bad):
    with pytest.raises(QuickstudyError, match=next(iter(bad))):
        MAMLConfig(**bad)


def test_every_step_averages_the_query_losses_along_the_path():
    """w = 1 on 4 w^2 at rate 0.1: w goes to 0.2, then to 0.04; the query point x = 1, y = 0 costs w^2."""
    learner = linear_learner(MAMLConfig(2, 0.1, every_step=True), width=1)
    with torch.no_grad():
        learner.base.network.w.fill_(1.0)
    ones, nothing = torch.ones(1, 1, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
    support, query = (Batch(x * ones[None], 0 * ones[None], ones, nothing) for x in (2, 1))
    assert learner.loss(SupportQuery(support, query))[0].item() == pytest.approx((0.04 + 0.0016) / 2, abs=1e-15)
