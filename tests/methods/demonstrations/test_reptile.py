"""Reptile against closed forms, against torch's own optimisers and against mini-batches written down, in float64."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.utils._pytree import tree_map

from quickstudy.batching import OuterStep, over_tasks
from quickstudy.data import Batch, SupportQuery
from quickstudy.errors import QuickstudyError
from quickstudy.families.classic.fresh import FreshSinusoids
from quickstudy.learner import BaseLearner
from quickstudy.methods.demonstrations.reptile import Reptile, ReptileConfig, mini_batch, real_first
from quickstudy.nets import MLP
from quickstudy.settings import TrainConfig
from quickstudy.train import meta_train


class Linear(nn.Module):
    """y = x w, whose squared error is a quadratic in w."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.linspace(-1.0, 1.0, width, dtype=torch.float64)[:, None])

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.w


def linear(config: ReptileConfig, width: int = 3) -> Reptile:
    return Reptile(BaseLearner(Linear(width), width), config).double()


def network(config: ReptileConfig) -> Reptile:
    torch.manual_seed(0)
    return Reptile(BaseLearner(MLP(3, 2, (8,), context=2, normalise=True), 3), config).double()


def sets(tasks: int, shots: int, steps: int, seed: int, act: int = 1) -> Batch:
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(tasks, shots, steps, 3, generator=rng, dtype=torch.float64)
    y = torch.randn(tasks, shots, steps, act, generator=rng, dtype=torch.float64)
    return Batch(x, y, torch.ones(tasks, shots, steps).double(), torch.zeros(tasks, 0).double())


def task_of(meta_batch: SupportQuery, i: int) -> SupportQuery:
    return tree_map(lambda t: t[i], meta_batch)


def numbered(count: int, mask: Tensor) -> Batch:
    """One demonstration whose step i has x = i."""
    x = torch.arange(count).double()[None, :, None]
    return Batch(x, -x, mask[None].double(), torch.zeros(0).double())


def after_full_batches(theta: Tensor, support: Batch, query: Batch, steps: int, rate: float) -> Tensor:
    """phi = A^k theta + rate (A^(k-1) + ... + 1) b with A = 1 - rate H, for the mean squared error of x w on all."""
    x, y = (torch.cat([s.flatten(0, 1), q.flatten(0, 1)]) for s, q in zip(support[:2], query[:2], strict=True))
    h, b = 2 * x.T @ x / len(x), 2 * x.T @ y / len(x)
    a = torch.eye(3).double() - rate * h
    powers = [torch.linalg.matrix_power(a, i) for i in range(steps + 1)]
    return powers[-1] @ theta + rate * sum(powers[:-1]) @ b


@pytest.mark.parametrize("tasks", [1, 4])
def test_an_outer_step_of_a_quadratic_in_closed_form(tasks):
    """Serial for one task, batched for more: the gradient is theta - mean phi, the step epsilon (mean phi - theta)."""
    rate, epsilon, steps = 0.07, 0.3, 3
    learner = linear(ReptileConfig(steps, 1, rate, batch=100, inner_optimiser="sgd"))
    meta_batch = SupportQuery(sets(tasks, 2, 3, 1), sets(tasks, 1, 3, 2))
    theta = learner.base.network.w.detach().clone()
    phi = torch.stack([after_full_batches(theta, *task_of(meta_batch, i), steps, rate) for i in range(tasks)])
    OuterStep(learner, "vmap")(meta_batch)
    torch.testing.assert_close(learner.base.network.w.grad, theta - phi.mean(0), rtol=1e-12, atol=1e-13)
    torch.optim.SGD(learner.parameters(), lr=epsilon).step()
    expected = theta + epsilon * (phi.mean(0) - theta)
    torch.testing.assert_close(learner.base.network.w.detach(), expected, rtol=1e-12, atol=1e-13)


def test_the_value_of_the_loss_is_the_one_after_the_inner_loop():
    learner = linear(ReptileConfig(2, 1, 0.07, batch=100, inner_optimiser="sgd"))
    task = task_of(SupportQuery(sets(1, 2, 3, 1), sets(1, 1, 3, 2)), 0)
    phi = after_full_batches(learner.base.network.w.detach(), *task, 2, 0.07)
    x, y = (
        torch.cat([s.flatten(0, 1), q.flatten(0, 1)]) for s, q in zip(task.support[:2], task.query[:2], strict=True)
    )
    torch.testing.assert_close(learner.loss(task)[0].detach(), (x @ phi - y).square().mean(), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("kind", "rate"), [("adam", 0.01), ("sgd", 0.05)])
def test_the_inner_loop_is_that_of_torchs_own_optimiser(kind, rate):
    learner, support = network(ReptileConfig(5, 7, rate, 100, kind)), sets(1, 2, 4, 3, act=2)
    support = tree_map(lambda t: t[0], support)
    phi = learner.adapt(support)
    copy = network(ReptileConfig(5, 7, rate, 100, kind)).base
    optimiser = (
        torch.optim.Adam(copy.parameters(), lr=rate, betas=(0.0, 0.999))
        if kind == "adam"
        else torch.optim.SGD(copy.parameters(), lr=rate)
    )
    for _ in range(7):
        optimiser.zero_grad()
        copy.loss(copy.initial(), support).backward()
        optimiser.step()
    for name, expected in copy.initial().items():
        torch.testing.assert_close(phi[name], expected.detach(), rtol=1e-9, atol=1e-12)


def test_adam_by_hand():
    """w = 1 on (2 w)^2: the gradient is 8 w. From nothing the first step is the rate, as g / sqrt(g^2); the second
    gradient is 7.2, and its mean square (0.999 * 0.001 * 64 + 0.001 * 51.84) / (1 - 0.999^2)."""
    learner = linear(ReptileConfig(1, 2, 0.1), width=1)
    with torch.no_grad():
        learner.base.network.w.fill_(1.0)
    support = Batch(*(torch.full((1, 1, 1), v).double() for v in (2.0, 0.0)), torch.ones(1, 1).double(), torch.zeros(0))
    assert learner.adapt(support, 1)["network.w"].item() == pytest.approx(0.9, abs=1e-9)
    second = 0.9 - 0.1 * 7.2 / math.sqrt((0.999 * 0.001 * 64 + 0.001 * 51.84) / (1 - 0.999**2))
    assert learner.adapt(support)["network.w"].item() == pytest.approx(second, abs=1e-8)
    inner = learner.descend(support, 2)
    assert inner.age.item() == pytest.approx(1 - 0.999**2, rel=1e-6)
    assert inner.second["network.w"].item() == pytest.approx(0.999 * 0.064 + 0.05184, rel=1e-6)


def test_serial_with_epsilon_1_is_one_adam_that_is_never_reset():
    """The authors' code: the parameters go on from phi, and Adam's memory goes on from task to task."""
    config = ReptileConfig(3, 1, 0.01, batch=100)
    learner, copy = network(config), network(config).base
    serial = torch.optim.SGD(learner.parameters(), lr=1.0)
    adam = torch.optim.Adam(copy.parameters(), lr=0.01, betas=(0.0, 0.999))
    for seed in range(4):
        meta_batch = SupportQuery(sets(1, 2, 3, seed, 2), sets(1, 1, 3, seed + 10, 2))
        OuterStep(learner, "loop")(meta_batch)
        serial.step()
        both = Batch(*(torch.cat([s[0], q[0]]) for s, q in zip(*meta_batch, strict=True)))
        for _ in range(3):
            adam.zero_grad()
            copy.loss(copy.initial(), both).backward()
            adam.step()
    for name, expected in copy.initial().items():
        torch.testing.assert_close(learner.base.initial()[name], expected, rtol=1e-9, atol=1e-11)
    assert learner.age.item() == pytest.approx(1 - 0.999**12, rel=1e-12)


def test_batched_memory_is_the_mean_over_tasks_and_stays_unbiased():
    learner, meta_batch = network(ReptileConfig(3, 1, 0.01, 4)), SupportQuery(sets(3, 2, 3, 1, 2), sets(3, 1, 3, 2, 2))
    both = [Batch(*(torch.cat([s[i], q[i]]) for s, q in zip(*meta_batch, strict=True))) for i in range(3)]
    alone = [learner.descend(data, 3) for data in both]
    OuterStep(learner, "vmap")(meta_batch)
    torch.optim.SGD(learner.parameters(), lr=0.5).step()
    for name, second in learner.second.items():
        mean = torch.stack([one.second[name.replace("/", ".")] for one in alone]).mean(0)
        torch.testing.assert_close(second.detach(), 0.5 * mean, rtol=1e-12, atol=1e-14)
    assert learner.age.item() == pytest.approx(0.5 * (1 - 0.999**3), rel=1e-12)


def test_mini_batches_written_down():
    """5 points, 2 at a time: 3 mini-batches an epoch, every third point, and the last has one point only."""
    points = real_first(numbered(5, torch.ones(5)))
    drawn = [mini_batch(points, t, 2) for t in range(4)]
    assert [b.x[b.mask > 0, 0].tolist() for b in drawn] == [[0, 3], [1, 4], [2], [0, 3]]
    assert [b.mask.sum().item() for b in drawn] == [2, 2, 1, 2]
    assert [b.y[b.mask > 0, 0].tolist() for b in drawn][1] == [-1, -4]


@pytest.mark.parametrize("size", [5, 6, 100])
def test_a_mini_batch_that_holds_everything_counts_every_real_point_once(size):
    points = real_first(numbered(8, torch.tensor([1, 0, 1, 1, 0, 1, 1, 0])))
    for t in range(3):
        batch = mini_batch(points, t, size)
        assert batch.x[batch.mask > 0, 0].tolist() == [0, 2, 3, 5, 6]


def test_padding_is_passed_over():
    """Real points 1, 2, 4, 6, 7, two at a time."""
    points = real_first(numbered(8, torch.tensor([0, 1, 1, 0, 1, 0, 1, 1])))
    drawn = [mini_batch(points, t, 2) for t in range(3)]
    assert [b.x[b.mask > 0, 0].tolist() for b in drawn] == [[1, 6], [2, 7], [4]]


@pytest.mark.parametrize("size", [2, 4, 100])
def test_an_epoch_holds_every_point_once_whatever_their_number(size):
    """Under vmap, so with a number of points that differs from task to task."""
    masks = torch.tril(torch.ones(9, 9))[:, None]
    every = Batch(*(t.expand(9, *t.shape) for t in numbered(9, torch.ones(9))))._replace(mask=masks.double())
    for n in range(1, 10):
        epoch = -(-n // size)
        drawn = [vmap(lambda b, t=t: mini_batch(real_first(b), t, size))(every) for t in range(epoch)]
        seen = torch.cat([b.x[n - 1, b.mask[n - 1] > 0, 0] for b in drawn])
        assert sorted(seen.tolist()) == list(range(n))
        sizes = [b.mask[n - 1].sum().item() for b in drawn]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_padding_changes_nothing(kind):
    learner = network(ReptileConfig(4, 4, 0.01, 4, kind))
    task = task_of(SupportQuery(sets(1, 2, 5, 1, 2), sets(1, 1, 5, 2, 2)), 0)

    def padded(b: Batch) -> Batch:
        """Two junk steps before, three after, and a whole shot of junk."""
        x, y, mask = (
            torch.full((len(b.x) + 1, 10, *t.shape[2:]), v).double() for t, v in zip(b, (3, -5, 0), strict=False)
        )
        x[:-1, 2:7], y[:-1, 2:7], mask[:-1, 2:7] = b.x, b.y, b.mask
        return Batch(x, y, mask, b.hidden)

    plain, other = (gradients(learner, [t]) for t in (task, SupportQuery(*map(padded, task))))
    for one, two in zip(plain, other, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-14)


def gradients(learner: Reptile, tasks: list[SupportQuery]) -> list[Tensor]:
    loss = torch.stack([learner.loss(task)[0] for task in tasks]).mean()
    return [loss, *torch.autograd.grad(loss, list(learner.parameters()))]


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_vmap_equals_a_plain_loop(kind):
    learner = network(ReptileConfig(4, 4, 0.01, 4, kind))
    meta_batch = SupportQuery(sets(5, 2, 4, 1, 2), sets(5, 1, 4, 2, 2))
    lengths = torch.tensor([[1, 4], [2, 3], [4, 4], [3, 0], [0, 2]])
    mask = (torch.arange(4) < lengths[..., None]).double()
    meta_batch = meta_batch._replace(support=meta_batch.support._replace(mask=mask))
    looped = gradients(learner, [task_of(meta_batch, i) for i in range(5)])
    outer = OuterStep(learner, "vmap")(meta_batch)
    torch.testing.assert_close(outer.losses.mean(), looped[0], rtol=1e-12, atol=1e-14)
    for p, expected in zip(learner.parameters(), looped[1:], strict=True):
        torch.testing.assert_close(p.grad, expected, rtol=1e-10, atol=1e-13)


def test_adaptation_leaves_no_graph_and_takes_the_steps_of_test():
    learner = network(ReptileConfig(2, 5, 0.01, 4))
    support = tree_map(lambda t: t[0], sets(1, 2, 4, 1, 2))
    phi, five, two = learner.adapt(support), learner.adapt(support, 5), learner.adapt(support, 2)
    assert not any(p.requires_grad for p in phi.values())
    assert all(torch.equal(phi[n], five[n]) for n in phi)
    assert not torch.equal(phi["network.head.weight"], two["network.head.weight"])


@pytest.mark.parametrize(
    "bad", [{"inner_steps": 0}, {"test_steps": 0}, {"inner_rate": 0.0}, {"batch": 0}, {"inner_optimiser": "rmsprop"}]
)
def test_settings_are_checked(bad):
    with pytest.raises(QuickstudyError, match=next(iter(bad))):
        ReptileConfig(**bad)


def test_it_learns_to_fit_a_sinusoid_from_ten_points():
    torch.manual_seed(0)
    learner = Reptile(BaseLearner(MLP(1, 1, (40, 40)), 1), ReptileConfig(5, 32, 0.02))
    source, rng = FreshSinusoids(), torch.Generator().manual_seed(1)
    tasks = source.sample(rng, 100, 10, 50)

    def error() -> float:
        skills = over_tasks(learner.adapt, tasks.support)
        predicted = over_tasks(learner.predict, skills, tasks.query.x)
        return float((predicted - tasks.query.y).square().mean())

    before = error()
    config = TrainConfig(
        150,
        meta_batch=10,
        shots=10,
        queries=15,
        rate=1.0,
        optimiser="sgd",
        schedule="linear",
        clip=1e9,
        batching="vmap",
    )
    meta_train(learner, source, config)
    assert before > 2.5
    assert error() < 1.2
