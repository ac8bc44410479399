"""Siamese networks by hand and in closed form, and batched against a plain loop, in float64."""

import math

import pytest
import torch
from torch import nn
from torch.func import vmap
from torch.utils._pytree import tree_map

from quickstudy.data import Batch, DemonstrationSet, SupportQuery
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation import evaluate
from quickstudy.families.classic import PointNavigation
from quickstudy.learner import BaseLearner, imitation_loss, recognition_loss
from quickstudy.methods.demonstrations.siamese import (
    Correction,
    Examples,
    Siamese,
    SiameseConfig,
    Similarity,
    masked_softmax,
    verification_loss,
)
from quickstudy.nets import MLP
from quickstudy.settings import TrainConfig
from quickstudy.train import meta_train


def tensor(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def by_hand(labelled: bool, actions: int = 2, tolerance: float = 0.3) -> Siamese:
    """The twin is a sigmoid of x alone, the log-odds are 3 - 10 |h1 - h2|, and no action is corrected."""
    config, criterion = SiameseConfig(tolerance), recognition_loss if labelled else imitation_loss
    learner = Siamese(BaseLearner(nn.Identity(), 1, criterion), 1, actions, labelled, config).double()
    with torch.no_grad():
        if learner.correction is not None:
            learner.correction.head.weight.zero_()
        learner.similarity.alpha.fill_(-10.0)
        learner.similarity.bias.fill_(3.0)
    return learner


def seen(*h: float) -> torch.Tensor:
    """Observations [shot, step, 1] that the twin of `by_hand` embeds at h; one shot."""
    return tensor(*(logit(p) for p in h))[None, :, None]


def batch(x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor | None = None) -> Batch:
    return Batch(x, y, torch.ones_like(x[..., 0]) if mask is None else mask, x.new_zeros(0))


def random_task(actions: int, labelled: bool, tasks: int = 4, seed: int = 0) -> SupportQuery:
    """Tasks [task, 2 shots, 5 steps]; the last step of the support's second shot is padding."""
    rng = torch.Generator().manual_seed(seed)

    def one() -> Batch:
        x = torch.randn(tasks, 2, 5, 3, generator=rng, dtype=torch.float64)
        y = torch.randn(tasks, 2, 5, actions, generator=rng, dtype=torch.float64)
        if labelled:
            y = torch.eye(actions, dtype=torch.float64)[torch.randint(actions, (tasks, 2, 5), generator=rng)]
        mask = torch.ones(tasks, 2, 5, dtype=torch.float64)
        mask[:, 1, 4] = 0.0
        return Batch(x, y, mask, torch.zeros(tasks, 0, dtype=torch.float64))

    return SupportQuery(one(), one())


def random_learner(labelled: bool, l2_penalty: float = 0.0) -> Siamese:
    torch.manual_seed(0)
    criterion = recognition_loss if labelled else imitation_loss
    base = BaseLearner(MLP(3, 6, (8,)), 3, criterion)
    return Siamese(base, 6, 3, labelled, SiameseConfig(1.0, 7, l2_penalty)).double()


def test_log_odds_by_hand():
    """0.5 - 2 |1 - 4| + 3 |5 - 3| = 0.5."""
    similarity = Similarity(2).double()
    with torch.no_grad():
        similarity.alpha.copy_(tensor(-2.0, 3.0))
        similarity.bias.fill_(0.5)
    assert similarity(tensor(1.0, 5.0), tensor(4.0, 3.0)).item() == pytest.approx(0.5, abs=1e-15)


def test_verification_weighs_the_same_and_the_others_half_each():
    """One positive pair of p = 0.8, two negative ones of p = 0.1 and 0.5, and a pair of padding."""
    log_odds = tensor(logit(0.8), logit(0.1), logit(0.5), 7.0)
    same, real = tensor(1.0, 0.0, 0.0, 1.0), tensor(1.0, 1.0, 1.0, 0.0)
    expected = (-math.log(0.8) + (-math.log(0.9) - math.log(0.5)) / 2) / 2
    assert verification_loss(log_odds, same, real).item() == pytest.approx(expected, abs=1e-14)


def test_verification_without_a_positive_pair_is_half_of_the_negatives():
    assert verification_loss(tensor(0.0, 0.0), tensor(0.0, 0.0), tensor(1.0, 1.0)).item() == pytest.approx(
        math.log(2) / 2, abs=1e-15
    )


def test_a_masked_softmax_has_finite_gradients_where_all_is_masked():
    values = tensor(1.0, 2.0, 900.0).requires_grad_()
    weights = masked_softmax(values, tensor(1.0, 1.0, 0.0))
    torch.testing.assert_close(weights, tensor(1 / (1 + math.e), math.e / (1 + math.e), 0.0), rtol=1e-14, atol=0)
    nothing = masked_softmax(values, tensor(0.0, 0.0, 0.0))
    (gradient,) = torch.autograd.grad(nothing.square().sum(), values)
    assert nothing.tolist() == [0.0, 0.0, 0.0]
    assert gradient.tolist() == [0.0, 0.0, 0.0]


def test_a_class_is_as_likely_as_its_most_similar_example():
    """Query at 0.5; class 0 has examples at 0.2 and 0.6, class 1 at 0.1: log-odds 3 - 10 * 0.1 = 2 and 3 - 10 * 0.4."""
    learner = by_hand(labelled=True, actions=3)
    support = batch(seen(0.2, 0.6, 0.1), tensor([1.0, 0, 0], [1.0, 0, 0], [0.0, 1, 0])[None])
    logits = learner.predict(learner.adapt(support), seen(0.5)[0, 0])
    torch.testing.assert_close(logits, tensor(2.0, -1.0, -1e4), rtol=1e-12, atol=1e-12)


def test_recognition_is_verified_by_hand():
    """Query of class 0 at 0.5; log-odds 0 with its class at 0.2, 2 with the other at 0.6."""
    learner = by_hand(labelled=True)
    support = batch(seen(0.2, 0.6), tensor([1.0, 0.0], [0.0, 1.0])[None])
    query = batch(seen(0.5), tensor([1.0, 0.0])[None, None])
    loss, metrics = learner.loss(SupportQuery(support, query))
    expected = (math.log(2) + math.log1p(math.exp(2))) / 2
    assert loss.item() == pytest.approx(expected, abs=1e-12)
    assert metrics.keys() == {"verification"}


def test_the_weighted_mean_of_actions_by_hand():
    """Log-odds 2 and 0 make weights sigmoid(2) and 1 - sigmoid(2); a padded step has no weight."""
    learner = by_hand(labelled=False, actions=1)
    support = batch(seen(0.6, 0.2, 0.5), tensor([1.0], [-1.0], [50.0])[None], tensor([1.0, 1.0, 0.0]))
    action = learner.predict(learner.adapt(support), seen(0.5)[0, 0])
    assert action.item() == pytest.approx(math.tanh(1.0), abs=1e-12)


def test_steps_are_the_same_within_the_tolerance_of_the_spread():
    """Deviations 1 and 10: the root mean square of differences (0.3, 4) in their units is sqrt(0.125) = 0.354."""
    for tolerance, same in ((0.35, 0.0), (0.36, 1.0)):
        learner = by_hand(labelled=False, tolerance=tolerance)
        learner.spread.copy_(tensor(1.0, 10.0))
        assert learner.same(tensor(0.3, 0.0), tensor(0.0, 4.0)).item() == same


def test_the_spread_is_that_of_the_real_training_actions():
    learner = by_hand(labelled=False)
    y = tensor([0.0, 5.0], [2.0, 5.0], [99.0, 99.0])[None]
    learner.standardise(batch(seen(0.2, 0.4, 0.5), y, tensor(1.0, 1.0, 0.0)[None]))
    torch.testing.assert_close(learner.spread, tensor(math.sqrt(2.0), 1.0))


def test_a_correction_is_the_weighted_difference_of_g():
    torch.manual_seed(0)
    correction = Correction(3, 2, 5).double()
    here, there, done = torch.randn(4, 3).double(), torch.randn(6, 3).double(), torch.randn(6, 2).double()
    weights = torch.rand(4, 6).double()

    def g(h: torch.Tensor, i: int) -> torch.Tensor:
        shown = correction.shown(torch.cat([there[i], done[i]]))
        return correction.head((correction.place(h) + shown).relu())

    expected = torch.stack(
        [sum(weights[q, i] * (g(here[q], i) - g(there[i], i)) for i in range(6)) for q in range(4)]  # type: ignore
    )
    torch.testing.assert_close(correction(here, weights, there, done), expected, rtol=1e-12, atol=1e-13)


def test_at_the_only_demonstrated_step_the_action_is_the_demonstrated_one():
    learner = random_learner(labelled=False)
    x, y = torch.randn(1, 1, 3, dtype=torch.float64), torch.randn(1, 1, 3, dtype=torch.float64)
    skill = learner.adapt(batch(x, y))
    torch.testing.assert_close(learner.predict(skill, x[0]), y[0], rtol=1e-12, atol=1e-13)
    assert not torch.allclose(learner.predict(skill, x[0] + 1.0), y[0], atol=1e-3)


def test_before_any_demonstration_nothing_is_done_and_no_class_is_preferred():
    x = torch.randn(4, 3, dtype=torch.float64)
    learner = random_learner(labelled=False)
    assert not learner.predict(learner.begin(), x).any()
    learner = random_learner(labelled=True)
    probabilities = learner.predict(learner.begin(), x).softmax(-1)
    torch.testing.assert_close(probabilities, torch.full_like(probabilities, 1 / 3))


@pytest.mark.parametrize("labelled", [True, False])
def test_vmap_equals_a_plain_loop_at_second_order(labelled):
    learner, tasks = random_learner(labelled), random_task(3, labelled)
    parameters = list(learner.parameters())
    batched = vmap(learner.loss)(tasks)[0]
    looped = torch.stack([learner.loss(tree_map(lambda t, i=i: t[i], tasks))[0] for i in range(4)])
    torch.testing.assert_close(batched, looped, rtol=1e-12, atol=1e-14)
    second = []
    for losses in (batched, looped):
        first = torch.autograd.grad(losses.mean(), parameters, create_graph=True, allow_unused=True)
        squares = sum(g.square().sum() for g in first if g is not None)
        second.append((first, torch.autograd.grad(squares, parameters, allow_unused=True)))
    torch.testing.assert_close(*second, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("labelled", [True, False])
def test_padding_and_padded_shots_change_nothing(labelled):
    learner, tasks = random_learner(labelled), tree_map(lambda t: t[0], random_task(3, labelled))

    def padded(b: Batch, junk: float) -> Batch:
        x, y, mask = (
            nn.functional.pad(t, pad, value=value)
            for t, pad, value in (
                (b.x, (0, 0, 0, 2, 0, 1), junk),
                (b.y, (0, 0, 0, 2, 0, 1), junk),
                (b.mask, (0, 2, 0, 1), 0.0),
            )
        )
        return Batch(x, y, mask, b.hidden)

    plain = learner.loss(tasks)[0]
    for junk in (-3.0, 100.0):
        other = learner.loss(SupportQuery(padded(tasks.support, junk), padded(tasks.query, junk)))[0]
        torch.testing.assert_close(other, plain, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("labelled", [True, False])
def test_gradients_are_finite_where_nothing_was_demonstrated(labelled):
    learner, tasks = random_learner(labelled), tree_map(lambda t: t[0], random_task(3, labelled))
    support = tasks.support._replace(mask=torch.zeros_like(tasks.support.mask))
    loss, _ = learner.loss(SupportQuery(support, tasks.query))
    gradients = torch.autograd.grad(loss, list(learner.parameters()), allow_unused=True)
    assert loss.isfinite()
    assert all(g is None or g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("labelled", [True, False])
def test_the_l2_penalty_is_that_of_section_3_2(labelled):
    """lambda times the squares of all weights of the twin and of the comparison, for every task of a batch."""
    plain, penalised, tasks = random_learner(labelled), random_learner(labelled, 0.1), random_task(3, labelled)
    twin = plain.base.network
    weights = [layer.weight for layer in (twin.body[0], twin.head)] + [plain.similarity.alpha]
    expected = 0.1 * sum((w * w).sum() for w in weights)
    without, (found, metrics) = vmap(plain.loss)(tasks)[0], vmap(penalised.loss)(tasks)
    torch.testing.assert_close(found, without + expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(metrics["l2-penalty"].mean(), expected, rtol=1e-12, atol=1e-14)


def test_any_leading_shape_is_predicted():
    learner, tasks = random_learner(labelled=False), random_task(3, labelled=False)
    skill = learner.adapt(tree_map(lambda t: t[0], tasks.support))
    assert isinstance(skill, Examples)
    x = tasks.query.x
    answers = learner.predict(skill, x)
    assert answers.shape == (4, 2, 5, 3)
    torch.testing.assert_close(learner.predict(skill, x[1, 0, 2]), answers[1, 0, 2])


@pytest.mark.parametrize("bad", [{"tolerance": 0.0}, {"width": 0}, {"l2_penalty": -1.0}])
def test_settings_are_checked(bad):
    with pytest.raises(QuickstudyError, match=next(iter(bad))):
        SiameseConfig(**bad)


def test_it_learns_to_navigate_from_one_demonstration():
    family = PointNavigation()
    source = DemonstrationSet.record(family, family.tasks("train", 60), 4, seed=0)
    torch.manual_seed(0)
    learner = Siamese(BaseLearner(MLP(2, 32, (32,)), 2), 32, 2, False, SiameseConfig(width=32))
    learner.standardise(source.batch)
    meta_train(learner, source, TrainConfig(steps=150, meta_batch=16, queries=1, rate=3e-3, batching="vmap"))
    result = evaluate(learner, family, "validation", shots=[0, 1], tasks=50, episodes=2)
    nothing, one = result.metrics["success"].mean((1, 2))
    assert one > nothing + 0.6
