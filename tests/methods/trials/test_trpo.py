"""Conjugate gradient, Fisher products and the step against closed forms and whole Hessians."""

import torch

from quickstudy.methods.trials.policy import Gaussian, GaussianPolicy
from quickstudy.methods.trials.trpo import Fisher, TRPOConfig, conjugate_gradient, flatten, trust_region_step

DOUBLE = torch.float64


def test_conjugate_gradient_solves() -> None:
    a = torch.tensor([[4.0, 1.0, 0.0], [1.0, 3.0, 1.0], [0.0, 1.0, 2.0]], dtype=DOUBLE)
    b = torch.tensor([1.0, 2.0, -1.0], dtype=DOUBLE)
    torch.testing.assert_close(conjugate_gradient(lambda v: a @ v, b, 3), torch.linalg.solve(a, b))


def test_fisher_is_the_hessian_of_the_divergence() -> None:
    torch.manual_seed(0)
    policy = GaussianPolicy(2, 2, (4,), activation="tanh", std=0.5).double()
    x, w = torch.randn(7, 2, dtype=DOUBLE), torch.rand(7, dtype=DOUBLE)
    theta = {n: p.detach().clone().requires_grad_() for n, p in policy.initial().items()}
    names, shapes = list(theta), [p.shape for p in theta.values()]
    old = Gaussian(*(t.detach() for t in policy.predict(theta, x)))

    def divergence(flat: torch.Tensor) -> torch.Tensor:
        parts = flat.split([shape.numel() for shape in shapes])
        there = {n: p.view(s) for n, p, s in zip(names, parts, shapes, strict=True)}
        return (w * old.kl(policy.predict(there, x))).sum()

    flat = flatten([p.detach() for p in theta.values()])
    hessian = torch.autograd.functional.hessian(divergence, flat)
    fisher = Fisher(theta, policy.predict(theta, x), w, damping=0.0)
    for v in torch.randn(3, len(flat), dtype=DOUBLE):
        torch.testing.assert_close(fisher(v), hessian @ v)


def test_divergence_by_hand() -> None:
    """KL(N(0, 1) || N(1, 2^2)) = ln 2 + (1 + 1) / 8 - 1/2."""
    zero, one = torch.zeros(1, dtype=DOUBLE), torch.ones(1, dtype=DOUBLE)
    made = Gaussian(zero, zero).kl(Gaussian(one, one * torch.log(torch.tensor(2.0, dtype=DOUBLE))))
    torch.testing.assert_close(made, torch.log(torch.tensor(2.0, dtype=DOUBLE)) + 0.25 - 0.5)


def step(slope: float, wall: float = torch.inf) -> tuple[float, dict[str, float]]:
    """One step of the mean m of N(m, 1) down `slope * m`, which becomes infinite below `-wall`."""
    theta = {"m": torch.zeros(1, dtype=DOUBLE, requires_grad=True)}

    def loss_and_kl(t):
        m = t["m"]
        loss = slope * m.sum() if float(m) > -wall else torch.tensor(torch.nan)
        return loss, 0.5 * m.square().sum()

    m = theta["m"]
    fisher = Fisher(
        theta, Gaussian(m[None], 0 * m[None]), torch.ones(1, dtype=DOUBLE), damping=1e-9
    )  # or rounding decides
    config = TRPOConfig(max_kl=0.02, shrink=0.5)
    moved, figures = trust_region_step(theta, loss_and_kl, torch.tensor([slope], dtype=DOUBLE), fisher, config)
    return float(moved["m"].detach()), figures


def test_step_is_as_long_as_the_region_allows() -> None:
    """0.5 m^2 = 0.02 where m = -0.2, whatever the slope."""
    for slope in (0.3, 30.0):
        m, figures = step(slope)
        assert abs(m + 0.2) < 1e-9
        assert figures["step"] == 1.0
        assert abs(figures["kl"] - 0.02) < 1e-9


def test_line_search_turns_back_from_what_is_no_number() -> None:
    m, figures = step(1.0, wall=0.06)
    assert abs(m + 0.05) < 1e-9
    assert figures["step"] == 0.25
    m, figures = step(1.0, wall=1e-9)
    assert (m, figures["step"]) == (0.0, 0.0)
