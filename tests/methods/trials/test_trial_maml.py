"""The meta-gradient of MAML by trial: finite differences, and a bandit whose meta-gradient is known in closed form."""

import math

import pytest
import torch

from quickstudy.families.navigation2d import Navigation2D
from quickstudy.methods.trials.advantages import AdvantageBatch
from quickstudy.methods.trials.maml import MetaPolicy, MetaPolicyConfig, inner_loss
from quickstudy.methods.trials.policy import Gaussian, GaussianPolicy
from quickstudy.methods.trials.trpo import flatten

DOUBLE = torch.float64


def policy(hidden: tuple[int, ...] = (4,), size: int = 2) -> GaussianPolicy:
    torch.manual_seed(0)
    made = GaussianPolicy(size, size, hidden, activation="tanh", std=0.5).double()
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return made


def batch_of(policy: GaussianPolicy, seed: int, tasks: int = 2, episodes: int = 3, steps: int = 5) -> AdvantageBatch:
    rng = torch.Generator().manual_seed(seed)
    size = policy.weight0.shape[1]
    x = torch.randn(tasks, episodes, steps, size, generator=rng, dtype=DOUBLE)
    with torch.no_grad():
        old = policy.predict(policy.initial(), x)
        actions = old.sample(rng)
        log_prob = old.log_prob(actions)
    mask = torch.ones(tasks, episodes, steps, dtype=DOUBLE)
    mask[:, 0, -2:] = 0
    advantages = torch.randn(tasks, episodes, steps, generator=rng, dtype=DOUBLE) * mask
    return AdvantageBatch(
        x, actions, mask, advantages, log_prob, old, torch.randn(tasks, episodes, generator=rng, dtype=DOUBLE)
    )


def numeric(function, theta: dict[str, torch.Tensor], h: float = 1e-5) -> torch.Tensor:
    """Central differences of a function of theta."""
    slopes = []
    with torch.no_grad():
        for p in theta.values():
            for i in range(p.numel()):
                values = []
                for sign in (1, -1):
                    p.view(-1)[i] += sign * h
                    values.append(float(function(theta)))
                    p.view(-1)[i] -= sign * h
                slopes.append((values[0] - values[1]) / (2 * h))
    return torch.tensor(slopes, dtype=DOUBLE)


def leaves(policy: MetaPolicy) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone().requires_grad_() for n, p in policy.theta().items()}


@pytest.mark.parametrize("estimator", ["likelihood", "lvc", "dice"])
@pytest.mark.parametrize(
    ("inner_steps", "learn_rates", "by_return"), [(1, True, False), (2, False, False), (2, True, True)]
)
def test_gradient_by_finite_differences(estimator, inner_steps: int, learn_rates: bool, by_return: bool) -> None:
    made = policy()
    learner = MetaPolicy(made, MetaPolicyConfig(inner_steps, 0.3, learn_rates, by_return, estimator=estimator)).double()
    if by_return:
        learner.usual.copy_(torch.tensor([0.5, 2.0]))
    stages = [batch_of(made, seed) for seed in range(inner_steps + 1)]
    theta = leaves(learner)
    loss, _ = learner.outer_loss(theta, stages)
    gradient = flatten(torch.autograd.grad(loss, list(theta.values())))
    expected = numeric(lambda t: learner.outer_loss(t, stages)[0], theta)
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-8)


def test_first_order_leaves_the_second_derivative_out() -> None:
    made = policy()
    stages = [batch_of(made, seed) for seed in range(2)]
    gradients = []
    for first_order in (False, True):
        config = MetaPolicyConfig(inner_rate=0.3, learn_rates=False, first_order=first_order)
        learner = MetaPolicy(made, config)
        theta = leaves(learner)
        phi = {n: p.detach().requires_grad_() for n, p in learner.adapted(theta, stages).items()}
        loss, _ = learner.outer_loss(theta, stages)
        gradients.append(flatten(torch.autograd.grad(loss, list(theta.values()))))
        now = made.predict(phi, stages[1].observations)
        ratio = (now.log_prob(stages[1].actions) - stages[1].log_prob).exp()
        after = -stages[1].mean(ratio * stages[1].advantages).mean()
        summed = flatten([g.sum(0) for g in torch.autograd.grad(after, list(phi.values()))])
    torch.testing.assert_close(gradients[1], summed)
    assert not torch.allclose(gradients[0], gradients[1], rtol=1e-3)


def test_the_less_was_earned_the_longer_the_step() -> None:
    learner = MetaPolicy(policy(), MetaPolicyConfig(by_return=True))
    learner.usual.copy_(torch.tensor([-40.0, 10.0]))
    batch = batch_of(learner.policy, 0)._replace(returns=torch.tensor([[-50.0, -70.0], [-30.0, -30.0]]))
    rates = {"by_return": torch.tensor(0.4)}
    torch.testing.assert_close(learner.step_factor(batch, rates), torch.tensor([1.8, 0.6]))
    torch.testing.assert_close(
        learner.step_factor(batch._replace(returns=torch.tensor([[-10.0]])), rates), torch.zeros(1)
    )
    alike = MetaPolicy(policy(), MetaPolicyConfig())
    torch.testing.assert_close(alike.step_factor(batch, {}), torch.ones(2))


def test_mean_and_deviation_of_returns_run_over_those_before_adaptation() -> None:
    made = MetaPolicy(GaussianPolicy(2, 2, (4,)), MetaPolicyConfig(by_return=True))
    family, rng = Navigation2D(), torch.Generator().manual_seed(0)
    figures = [made.outer_step(family.vector_env(family.draw(5, rng), 3), rng)["return-0"] for _ in range(2)]
    assert made.usual[0].item() == pytest.approx(0.9 * figures[0] + 0.1 * figures[1], rel=1e-4)


def test_stacked_policies_are_those_of_a_loop() -> None:
    made = policy()
    stacked = {n: torch.stack([p, 2 * p]) for n, p in made.initial().items()}
    x = torch.randn(2, 3, 5, 2, dtype=DOUBLE)
    both = made.predict(stacked, x)
    for i in range(2):
        alone = made.predict({n: p[i] for n, p in stacked.items()}, x[i])
        for a, b in zip(both, alone, strict=True):
            torch.testing.assert_close(a[i], b)


def test_observations_are_divided_by_a_unit_of_their_own() -> None:
    torch.manual_seed(0)
    one, many = GaussianPolicy(2, 1, (3,)), GaussianPolicy(2, 1, (3,), (0.5, 4.0))
    many.load_state_dict(one.state_dict())
    x = torch.randn(5, 2)
    divided = many.predict(many.initial(), x * torch.tensor([0.5, 4.0]))
    torch.testing.assert_close(divided.mean, one.predict(one.initial(), x).mean)


def test_padding_changes_no_inner_step() -> None:
    made = policy()
    batch = batch_of(made, 0)
    other = batch._replace(actions=torch.where(batch.mask[..., None] > 0, batch.actions, 3.0))
    for estimator in ("likelihood", "lvc", "dice"):
        learner = MetaPolicy(made, MetaPolicyConfig(estimator=estimator))
        phi = {n: torch.stack([p.detach()] * 2) for n, p in made.initial().items()}
        with torch.no_grad():
            for a, b in zip(*(learner.step(phi, s, 0, {}).values() for s in (batch, other)), strict=True):
                torch.testing.assert_close(a, b)


def bandit(estimator: str, mean: float, samples: int) -> torch.Tensor:
    """Hessian in the mean of the inner objective of one-step episodes with reward -(a - g)^2 / 2 and a ~ N(mean, 1)."""
    goal = 1.0
    rng = torch.Generator().manual_seed(0)
    half = torch.randn(samples // 2, generator=rng, dtype=DOUBLE)
    noise = (
        torch.cat([half, -half]) / half.square().mean().sqrt()
    )  # the first moments of a normal distribution, exactly
    actions = (mean + noise).view(1, -1, 1, 1)
    x = torch.zeros(1, samples, 1, 1, dtype=DOUBLE)
    rewards = -0.5 * (actions[..., 0] - goal).square()
    zero = torch.zeros_like(actions)
    batch = AdvantageBatch(
        x, actions, torch.ones_like(rewards), rewards, 0 * rewards, Gaussian(zero + mean, zero), rewards.sum(2)
    )
    batch = batch._replace(log_prob=batch.old.log_prob(actions))
    model = GaussianPolicy(1, 1, (), std=1.0).double()
    phi = {n: p.detach()[None] for n, p in model.initial().items()}
    phi["weight0"] = torch.zeros_like(phi["weight0"])

    def loss(m: torch.Tensor) -> torch.Tensor:
        return inner_loss(model, {**phi, "bias0": m.view(1, 1)}, batch, estimator).sum()

    at = torch.tensor([mean], dtype=DOUBLE, requires_grad=True)
    slope = torch.autograd.grad(loss(at), at)[0][0]
    return torch.stack([slope, torch.autograd.functional.hessian(loss, at)[0, 0]])


@pytest.mark.parametrize("estimator", ["lvc", "dice"])
def test_bandit_in_closed_form(estimator: str) -> None:
    """The return of N(m, 1) is -((m - g)^2 + 1) / 2, so minus it has slope m - g and curvature 1.

    One inner step is m' = m - alpha (m - g), and the meta-gradient (1 - alpha) (m' - g).
    """
    slope, curvature = bandit(estimator, mean=0.2, samples=200_000)
    assert abs(float(slope) - (0.2 - 1.0)) < 0.02
    assert abs(float(curvature) - 1.0) < 0.06


def test_the_likelihood_gives_no_credit_for_sampling() -> None:
    """Its curvature is E[A] = -(0.8^2 + 1) / 2 with the sign of a loss, and not 1: the bias the others are for."""
    slope, curvature = bandit("likelihood", mean=0.2, samples=200_000)
    assert abs(float(slope) - (0.2 - 1.0)) < 0.02
    assert abs(float(curvature) + 0.82) < 0.02


def test_dice_credits_earlier_actions_and_lvc_does_not() -> None:
    """Two steps, reward in the second alone: d2/dm1 dm2 of the objective is E[s1 s2 A2] with s the scores."""
    model = GaussianPolicy(2, 1, (), std=1.0).double()
    x = torch.eye(2, dtype=DOUBLE).view(1, 1, 2, 2)  # each step has a mean of its own: a weight
    actions = torch.tensor([0.7, -0.4], dtype=DOUBLE).view(1, 1, 2, 1)
    zero = torch.zeros_like(actions)
    old = Gaussian(zero, zero)
    advantages = torch.tensor([[[0.0, 2.0]]], dtype=DOUBLE)
    batch = AdvantageBatch(
        x, actions, torch.ones(1, 1, 2, dtype=DOUBLE), advantages, old.log_prob(actions), old, torch.zeros(1, 1)
    )
    fixed = {"bias0": torch.zeros(1, 1, dtype=DOUBLE), "log_std": torch.zeros(1, 1, dtype=DOUBLE)}
    for estimator, expected in (("dice", -0.7 * -0.4 * 2.0 / 2), ("lvc", 0.0)):
        hessian = torch.autograd.functional.hessian(
            lambda w, e=estimator: inner_loss(model, {**fixed, "weight0": w.view(1, 1, 2)}, batch, e).sum(),
            torch.zeros(2, dtype=DOUBLE),
        )
        assert math.isclose(float(hessian[0, 1]), expected, abs_tol=1e-12)
