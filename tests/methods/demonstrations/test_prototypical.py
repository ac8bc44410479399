"""Prototypical networks against numbers computed by hand, in float64."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from quickstudy.batching import OuterStep
from quickstudy.data import Batch, SupportQuery
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation import evaluate
from quickstudy.families.recognition.family import Recognition
from quickstudy.learner import BaseLearner, recognition_loss
from quickstudy.methods.demonstrations.prototypical import PrototypicalConfig, PrototypicalNetworks, unit
from quickstudy.nets import MLP
from quickstudy.settings import TrainConfig
from quickstudy.train import meta_train

EUCLIDEAN, COSINE = PrototypicalConfig(), PrototypicalConfig("cosine", scale=2.0)


def plain(config: PrototypicalConfig = EUCLIDEAN, classes: int = 3) -> PrototypicalNetworks:
    """Observations in the plane are their own embeddings."""
    return PrototypicalNetworks(BaseLearner(nn.Identity(), 2, recognition_loss), 2, classes, True, config).double()


def embedding(config: PrototypicalConfig = EUCLIDEAN) -> PrototypicalNetworks:
    torch.manual_seed(0)
    base = BaseLearner(MLP(4, 6, (8,), normalise=True), 4, recognition_loss)
    return PrototypicalNetworks(base, 6, 3, True, config).double()


def shots(x: list[list[list[float]]], labels: list[list[int]], classes: int = 3) -> Batch:
    """x [shot][look][obs], labels [shot][look]."""
    y = torch.eye(classes).double()[torch.tensor(labels)]
    return Batch(torch.tensor(x).double(), y, torch.ones(y.shape[:2]).double(), torch.zeros(0).double())


def two_shots() -> Batch:
    """Means: class 0 (1, 0), class 1 (0, 3), class 2 (-2, -1)."""
    return shots([[[2, 0], [0, 2], [-2, -2]], [[0, 4], [-2, 0], [0, 0]]], [[0, 1, 2], [1, 2, 0]])


def looks(tasks: int, count: int, seed: int) -> Batch:
    """Each shot one look at each of three classes, in random order."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(tasks, count, 3, 4, generator=rng, dtype=torch.float64)
    y = torch.eye(3).double()[torch.rand(tasks, count, 3, generator=rng).argsort(-1)]
    return Batch(x, y, torch.ones(tasks, count, 3).double(), torch.zeros(tasks, 0).double())


def test_a_prototype_is_the_mean_of_its_examples():
    skill = plain().adapt(two_shots())
    assert skill.means.tolist() == [[1, 0], [0, 3], [-2, -1]]
    assert skill.seen.tolist() == [1, 1, 1]


def test_logits_are_squared_distances_by_hand():
    """From (1, 1) to the means: 0 + 1, 1 + 4, 9 + 4."""
    learner = plain()
    skill, x = learner.adapt(two_shots()), torch.tensor([1.0, 1.0]).double()
    assert learner.predict(skill, x).tolist() == [-1, -5, -13]
    assert learner.predict(skill, x.expand(2, 5, 2)).shape == (2, 5, 3)


def test_the_loss_is_that_of_algorithm_1_by_hand():
    """d(x, c) + log sum exp(-d), for a query (1, 1) of class 0 and a query (0, 0) of class 2 at distances 1, 9, 5."""
    query = shots([[[1, 1], [0, 0]]], [[0, 2]])
    one = 1 + math.log(math.exp(-1) + math.exp(-5) + math.exp(-13))
    other = 5 + math.log(math.exp(-1) + math.exp(-9) + math.exp(-5))
    loss, _ = plain().loss(SupportQuery(two_shots(), query))
    assert loss.item() == pytest.approx((one + other) / 2, rel=1e-12)


def test_cosine_distances_by_hand():
    """(3, 4) against (1, 0), (0, 3) and (-2, -1): cosines 0.6, 0.8 and -10 / (5 sqrt 5); the scale is 2."""
    learner = plain(COSINE)
    logits = learner.predict(learner.adapt(two_shots()), torch.tensor([3.0, 4.0]).double())
    expected = torch.tensor([-2 * 0.4, -2 * 0.2, -2 * (1 + 2 / math.sqrt(5))]).double()
    torch.testing.assert_close(logits, expected, rtol=1e-6, atol=0)


def test_only_the_cosine_distance_has_a_scale():
    assert [name for name, _ in plain().named_parameters()] == []
    assert [name for name, _ in plain(COSINE).named_parameters()] == ["log_scale"]


def test_a_vector_of_zeros_has_a_finite_gradient():
    z = torch.zeros(2, 3).double().requires_grad_()
    assert torch.autograd.grad(unit(z).sum(), z)[0].isfinite().all()
    assert unit(torch.tensor([3.0, 4.0])).tolist() == pytest.approx([0.6, 0.8])


@pytest.mark.parametrize("config", [EUCLIDEAN, COSINE], ids=["euclidean", "cosine"])
def test_a_class_without_an_example_is_never_the_answer(config):
    """Class 1 is only in padding; the others are as if it did not exist, and nothing is lost to infinity."""
    learner, support = plain(config), two_shots()
    support = support._replace(mask=1 - support.y[..., 1])
    skill = learner.adapt(support)
    assert skill.seen.tolist() == [1, 0, 1]
    x = torch.tensor([0.1, 3.0]).double().requires_grad_()
    logits = learner.predict(skill, x)
    assert logits.isfinite().all()
    probabilities = logits.softmax(-1)
    assert probabilities[1] == 0
    torch.testing.assert_close(
        probabilities[[0, 2]], learner.predict(learner.adapt(two_shots()), x)[[0, 2]].softmax(-1)
    )
    assert torch.autograd.grad(probabilities[0], x)[0].isfinite().all()


@pytest.mark.parametrize("config", [EUCLIDEAN, COSINE], ids=["euclidean", "cosine"])
def test_before_any_example_every_class_is_as_likely(config):
    learner = embedding(config)
    logits = learner.predict(learner.begin(), torch.randn(5, 4).double())
    torch.testing.assert_close(logits.softmax(-1), torch.full((5, 3), 1 / 3).double())
    shapes = [[leaf.shape for leaf in skill] for skill in (learner.begin(), learner.adapt(first(looks(1, 2, 0))))]
    assert shapes[0] == shapes[1]


def first(batch: Batch) -> Batch:
    return tree_map(lambda t: t[0], batch)


def test_a_task_may_have_more_classes_than_those_of_test():
    learner = plain(classes=2)
    assert learner.predict(learner.adapt(two_shots()), torch.zeros(2).double()).shape == (3,)


@pytest.mark.parametrize("config", [EUCLIDEAN, COSINE], ids=["euclidean", "cosine"])
def test_neither_padding_nor_order_changes_anything(config):
    learner, task = embedding(config), SupportQuery(first(looks(1, 2, 0)), first(looks(1, 3, 1)))

    def padded(b: Batch) -> Batch:
        x, y, mask = (
            torch.full((len(b.x) + 1, 7, *t.shape[2:]), v).double() for t, v in zip(b, (3, 1, 0), strict=False)
        )
        x[1:, 2:5], y[1:, 2:5], mask[1:, 2:5] = b.x, b.y, b.mask
        return Batch(x, y, mask, b.hidden)

    def flipped(b: Batch) -> Batch:
        return Batch(*(t.flip(0, 1) for t in b[:3]), b.hidden)

    loss = learner.loss(task)[0]
    for change in (padded, flipped):
        torch.testing.assert_close(learner.loss(SupportQuery(*map(change, task)))[0], loss, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("config", [EUCLIDEAN, COSINE], ids=["euclidean", "cosine"])
def test_vmap_equals_a_plain_loop(config):
    """The gradient, and its product with a direction differentiated once more."""
    learner, meta_batch = embedding(config), SupportQuery(looks(4, 2, 0), looks(4, 3, 1))
    meta_batch.support.mask[1, 0, 2] = 0.0
    parameters = list(learner.parameters())
    rng = torch.Generator().manual_seed(0)
    directions = [torch.randn(p.shape, generator=rng, dtype=p.dtype) for p in parameters]

    def both(losses: Tensor) -> list[Tensor]:
        gradient = torch.autograd.grad(losses.mean(), parameters, create_graph=True)
        along = sum((g * d).sum() for g, d in zip(gradient, directions, strict=True))
        return [losses, *gradient, *torch.autograd.grad(along, parameters)]

    looped = torch.stack([learner.loss(tree_map(lambda t, i=i: t[i], meta_batch))[0] for i in range(4)])
    batched = torch.func.vmap(lambda task: learner.loss(task)[0])(meta_batch)
    for one, other in zip(both(batched), both(looped), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_the_gradient_agrees_with_finite_differences():
    learner, meta_batch = embedding(COSINE), SupportQuery(looks(3, 2, 0), looks(3, 3, 1))
    OuterStep(learner, "vmap")(meta_batch)
    gradient, h = learner.log_scale.grad.item(), 1e-6
    values = []
    for by in (h, -2 * h):
        with torch.no_grad():
            learner.log_scale += by
        values.append(OuterStep(learner, "vmap")(meta_batch).losses.mean().item())
    assert gradient == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-6)


def test_continuous_actions_are_refused():
    with pytest.raises(QuickstudyError, match="continuous actions"):
        PrototypicalNetworks(BaseLearner(nn.Identity(), 2), 2, 3, labelled=False)


@pytest.mark.parametrize("bad", [{"distance": "manhattan"}, {"scale": 0.0}])
def test_settings_are_checked(bad):
    with pytest.raises(QuickstudyError, match=next(iter(bad))):
        PrototypicalConfig(**bad)


@pytest.mark.parametrize("config", [EUCLIDEAN, PrototypicalConfig("cosine")], ids=["euclidean", "cosine"])
def test_it_learns_to_recognise_where_most_of_what_it_sees_is_noise(config):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(80, 1, 4)) + 0.2 * rng.normal(size=(80, 10, 4))
    examples = np.concatenate([centres, 2.0 * rng.normal(size=(80, 10, 12))], -1).astype("f4").reshape(800, 16)
    rows = np.arange(800).reshape(80, 10)
    family = Recognition("noisy", examples, {"train": rows[:60], "validation": rows[60:]}, queries=5)
    torch.manual_seed(0)
    learner = PrototypicalNetworks(BaseLearner(MLP(16, 8, (32,)), 16, recognition_loss), 8, 5, True, config)

    def accuracy() -> float:
        result = evaluate(learner, family, "validation", shots=[1], tasks=60, episodes=25)
        return float(result.metrics["accuracy"].mean())

    before = accuracy()
    meta_train(learner, family.fresh(), TrainConfig(300, shots=1, queries=3, rate=3e-3, batching="vmap"))
    assert before < 0.5
    assert accuracy() > before + 0.3
