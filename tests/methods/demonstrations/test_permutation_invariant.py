"""A policy that does not know the order of an observation's numbers: equivariance, hand-computed numbers, learning."""

from collections.abc import Mapping, Sequence
from math import log
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._pytree import tree_map

from quickstudy.data import Batch, DemonstrationSet
from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation import evaluate
from quickstudy.experiment import Experiment
from quickstudy.families.classic import PointNavigation
from quickstudy.methods.demonstrations.hypernet import HypernetConfig
from quickstudy.methods.demonstrations.permutation_invariant import (
    PermutationInvariantConfig,
    PermutationInvariantHypernet,
    Reader,
    _histories,
    sinkhorn,
)
from quickstudy.nets import MLP
from quickstudy.settings import TrainConfig
from quickstudy.task import Policy, Task
from quickstudy.train import meta_train

CHANNELS = 5


class ScrambledPoints(PointNavigation):
    """Point navigation whose two coordinates stand somewhere among three numbers that are noise."""

    name = "scrambled-points"
    observation_size = CHANNELS

    def sample(self, split: str, rng: np.random.Generator) -> Mapping[str, Any]:
        return {**super().sample(split, rng), "order": rng.permutation(CHANNELS).tolist()}

    def demonstrate(self, tasks: Sequence[Task], count: int, seed: int) -> list[list[Demonstration]]:
        made = super().demonstrate(tasks, count, seed)
        seen = self._seen(tasks, np.array([[d.observations for d in shots] for shots in made]), seed)
        return [
            [Demonstration(x, d.actions) for x, d in zip(some, shots, strict=True)]
            for some, shots in zip(seen, made, strict=True)
        ]

    def run(self, tasks: Sequence[Task], episodes: int, policy: Policy, seed: int) -> dict[str, np.ndarray]:
        return super().run(tasks, episodes, lambda x: policy(self._seen(tasks, x, seed).astype("f4")), seed)

    @staticmethod
    def _seen(tasks: Sequence[Task], positions: np.ndarray, seed: int) -> np.ndarray:
        noise = np.random.default_rng(seed).uniform(-0.5, 0.5, (*positions.shape[:-1], CHANNELS - 2))
        both = np.concatenate([positions, noise], -1)
        return np.stack([x[..., task.parameters["order"]] for task, x in zip(tasks, both, strict=True)])


def learner() -> PermutationInvariantHypernet:
    torch.manual_seed(0)
    network = MLP(CHANNELS, 2, (6, 5))
    config = PermutationInvariantConfig(8, hypernet=HypernetConfig(8, 2, 4))
    made = PermutationInvariantHypernet(network, CHANNELS, 2, config).double()
    for parameter in made.parameters():  # so that no part is at the zeros that it begins with
        parameter.data += 0.3 * torch.randn_like(parameter)
    return made


def shown(shots: int = 2) -> Batch:
    rng = torch.Generator().manual_seed(1)
    x, y = (torch.randn(shots, 6, width, generator=rng, dtype=torch.float64) for width in (CHANNELS, 2))
    mask = (torch.arange(6) < torch.tensor([[6], [4]])[:shots]).double()
    return Batch(x, y, mask, torch.zeros(1))


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(CHANNELS)))
def test_the_order_of_the_channels_changes_no_action(order: list[int]) -> None:
    it, support = learner(), shown()
    it.standardise(tree_map(lambda t: t[None], support))
    plain = it.predict(it.adapt(support), support.x)
    scrambled = it.predict(it.adapt(support._replace(x=support.x[..., order])), support.x[..., order])
    torch.testing.assert_close(plain, scrambled, rtol=1e-9, atol=1e-9)


def test_what_a_channel_did_matters() -> None:
    it, support = learner(), shown()
    other = support._replace(x=support.x.flip(1))
    assert not torch.allclose(it.predict(it.adapt(support), support.x), it.predict(it.adapt(other), support.x))


def test_roles_are_weighted_channels() -> None:
    reader = Reader(3)
    reader.gain.data = torch.tensor([2.0, 1.0, 1.0])
    played = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5], [0.5, 0.0, 0.5]])
    torch.testing.assert_close(reader.read(torch.tensor([1.0, 2.0, 3.0]), played), torch.tensor([4.0, 2.0, 2.0]))
    torch.testing.assert_close(reader(torch.tensor([1.0, 2.0, 3.0])), torch.tensor([4.0, 2.0, 2.0]))  # all alike


def test_each_role_is_played_by_something_and_before_any_demonstration_by_all_alike() -> None:
    it = learner()
    played = it.adapt(shown())["network.body.0.played"]
    torch.testing.assert_close(played.sum(-1), torch.ones(CHANNELS, dtype=torch.float64))
    assert played.std() > 1e-3
    torch.testing.assert_close(it.begin()["network.body.0.played"], torch.full((CHANNELS, CHANNELS), 0.2).double())


def test_histories_by_hand() -> None:
    x = torch.tensor([[[1.0, 5.0], [1.5, 5.0], [9.0, 9.0]]])
    y = torch.tensor([[[7.0], [8.0], [9.0]]])
    seen = _histories(x, y, torch.tensor([[1.0, 1.0, 0.0]]))
    # value; way since the beginning and ten times the last change in units of what it moves; this unit's logarithm;
    # time since the beginning and until the end; action. The first moves by 0.25 to either side of its mean.
    moves, still = (0.25**2 + 0.01**2) ** 0.5, 0.01
    torch.testing.assert_close(
        seen[0, 0], torch.tensor([[1.0, 0, 0, 1 + log(moves) / 3, 0, 1, 7], [5.0, 0, 0, 1 + log(still) / 3, 0, 1, 7]])
    )
    torch.testing.assert_close(
        seen[0, 1],
        torch.tensor(
            [
                [1.5, 0.5 / moves, 5 / moves, 1 + log(moves) / 3, 0.5, 0.5, 8],
                [5.0, 0, 0, 1 + log(still) / 3, 0.5, 0.5, 8],
            ]
        ),
    )


def test_the_sinkhorn_operator_by_hand() -> None:
    """Of two rows that both want the first column, the one that wants it more gets most of it."""
    once = sinkhorn(torch.tensor([[2.0, 1.0], [4.0, 1.0]]).log(), 1)  # columns [1/3, 2/3] and [1/2, 1/2], then rows
    torch.testing.assert_close(once, torch.tensor([[0.4, 0.6], [4 / 7, 3 / 7]]))
    often = sinkhorn(torch.randn(7, 7, generator=torch.Generator().manual_seed(0)), 50)
    torch.testing.assert_close(often.sum(0), torch.ones(7))
    torch.testing.assert_close(often.sum(1), torch.ones(7))
    wanted = torch.eye(5)[[2, 0, 1, 4, 3]]
    torch.testing.assert_close(sinkhorn(30.0 * wanted, 5), wanted)


def test_bad_settings() -> None:
    with pytest.raises(QuickstudyError, match="sinkhorn_iterations must be positive; got 0"):
        PermutationInvariantConfig(sinkhorn_iterations=0)


def test_it_learns_where_numbers_have_no_fixed_place() -> None:
    family = ScrambledPoints()
    source = DemonstrationSet.record(family, family.tasks("train", 200), 4, 0)
    hypernet = {"hidden": 64, "heads": 4, "task": 32}
    own = {"hypernet": hypernet, "hypernet-roles": {"hidden": 32, "hypernet": HypernetConfig(**hypernet)}}
    success = {}
    for method, algorithm in own.items():
        changes = {"network": {"hidden": (64, 64)}, "algorithm": algorithm}
        it = Experiment.of(family, method, changes=changes).build()
        it.standardise(source.batch)
        meta_train(it, source, TrainConfig(1500, queries=1, rate=3e-3, clip=1.0, batching="vmap"))
        result = evaluate(it, family, "test", shots=(1,), tasks=50, episodes=4)
        success[method] = float(result.metrics["success"].mean())
    assert success["hypernet-roles"] > 0.5
    assert success["hypernet"] < 0.2
