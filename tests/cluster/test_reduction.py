"""The mathematics does not change: however many workers share a meta-batch, its gradient is the same."""

import sys

import pytest
import torch
from torch import nn

from quickstudy.batching import OuterStep
from quickstudy.data import Batch, SupportQuery
from quickstudy.learner import BaseLearner
from quickstudy.methods.demonstrations.maml import MAML, MAMLConfig
from quickstudy.nets import MLP

ray = pytest.importorskip("ray", reason="the extra 'cluster' is not installed")
from quickstudy.cluster.meeting import enter, opened  # noqa: E402
from quickstudy.cluster.reduction import ReducedGradient, share  # noqa: E402

WORKERS = 4


class Member:
    """A worker without a training: it computes gradients that it is asked for."""

    def meet(self, size):
        self.store, host, port = opened(size, 60.0)
        return host, port

    def join(self, rank, size, host, port):
        enter(self.store if rank == 0 else None, rank, size, host, port, 60.0)
        self.rank, self.size = rank, size

    def gradient(self, learner, meta_batch):
        outer = ReducedGradient(OuterStep(learner), self.rank, self.size)(meta_batch)
        return [p.grad for p in learner.parameters()], outer


@pytest.fixture(scope="module")
def members(nodes):
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    made = [ray.remote(num_cpus=1, scheduling_strategy="SPREAD")(Member).remote() for _ in range(WORKERS)]
    yield made
    for one in made:
        ray.kill(one)


def learner(**options) -> MAML:
    torch.manual_seed(0)
    made = MAML(BaseLearner(MLP(3, 2, (16, 16)), 3), MAMLConfig(2, 0.05, **options))
    made.unused = nn.Parameter(torch.ones(3))  # no loss depends on it
    return made


def meta_batch(tasks: int, broken: tuple[int, ...] = ()) -> SupportQuery:
    rng = torch.Generator().manual_seed(1)

    def part(shots: int) -> Batch:
        x, y = torch.randn(tasks, shots, 6, 3, generator=rng), torch.randn(tasks, shots, 6, 2, generator=rng)
        y[list(broken)] = 1e30
        mask = (torch.arange(6) < torch.randint(2, 7, (tasks, shots, 1), generator=rng)).float()
        return Batch(x, y, mask, torch.zeros(tasks, 1))

    return SupportQuery(part(2), part(3))


CASES = {
    "even": (learner(), meta_batch(8)),
    "uneven": (learner(learn_rates="parameter"), meta_batch(7)),
    "first order": (learner(first_order=True), meta_batch(5)),
    "a task left out": (learner(), meta_batch(8, broken=(3,))),
    "a worker whose tasks are all left out": (learner(), meta_batch(8, broken=(0, 1))),
    "no task finite": (learner(), meta_batch(4, broken=(0, 1, 2, 3))),
}


@pytest.fixture(scope="module")
def found(members):
    """What each worker of a group of each size has, by case."""
    every = {}
    for size in (1, 2, 3, 4):
        some = members[:size]
        host, port = ray.get(some[0].meet.remote(size))
        ray.get([one.join.remote(rank, size, host, port) for rank, one in enumerate(some)])
        for name, case in CASES.items():
            every[name, size] = ray.get([one.gradient.remote(*case) for one in some])
    return every


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("name", CASES)
def test_any_number_of_workers_has_the_gradient_of_one_process(found, name, size):
    own, batch = CASES[name]
    outer = OuterStep(own)(batch)
    expected = [p.grad for p in own.parameters()]
    for gradient, said in found[name, size]:
        for ours, theirs in zip(expected, gradient, strict=True):
            assert (ours is None) == (theirs is None)
            if ours is not None:
                torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-5)
        assert torch.equal(said.finite, outer.finite)
        torch.testing.assert_close(said.losses, outer.losses, equal_nan=True)
        assert said.metrics.keys() == outer.metrics.keys()
        for metric, values in outer.metrics.items():
            torch.testing.assert_close(said.metrics[metric], values, equal_nan=True)


@pytest.mark.parametrize("name", CASES)
def test_all_workers_of_a_group_have_the_same_bits(found, name):
    first, *others = (gradient for gradient, _ in found[name, 4])
    for other in others:
        assert all(a is b is None or torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("tasks", [4, 5, 16, 31])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_shares_are_a_partition_that_is_even_but_for_one_task(tasks, size):
    taken = [list(range(tasks))[share(tasks, rank, size)] for rank in range(size)]
    assert [task for part in taken for task in part] == list(range(tasks))
    assert max(map(len, taken)) - min(map(len, taken)) <= 1
