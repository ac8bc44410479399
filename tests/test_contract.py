"""The contract that every method keeps, run over all of them: adding a method means adding a line here.

The tasks are 2D point navigation, because they cost nothing. Everything exact is checked in float64.
"""

import functools

import numpy as np
import pytest
import torch
from torch.func import vmap
from torch.utils._pytree import tree_leaves, tree_map

from quickstudy import checkpoint
from quickstudy.batching import OuterStep
from quickstudy.data import Batch, DemonstrationSet, SupportQuery
from quickstudy.evaluate import SkillPolicy, skills_after
from quickstudy.learner import MetaLearner, imitation_loss
from quickstudy.learners.baselines import FineTuneConfig
from quickstudy.learners.maml import MAMLConfig
from quickstudy.methods import METHODS, UNTRAINED, NetworkConfig, Settings, build
from quickstudy.skills.classic import PointNavigation
from quickstudy.train import TrainConfig, meta_train

ADAPTS = ["maml", "fomaml", "anil", "meta-sgd", "transfer", "scratch", "oracle", "nearest"]
"""Methods that a demonstration of the very task must help."""
ORDER_DEPENDENT = ["replay"]
TRAINS = sorted(METHODS.keys() - UNTRAINED)
FAMILY = PointNavigation()


def settings(method: str, normalise: bool = True) -> Settings:
    return Settings(
        "point-navigation",
        method,
        network=NetworkConfig((32, 32), context=4, normalise=normalise),
        maml=MAMLConfig(inner_steps=3, inner_rate=0.05),
        fine_tune=FineTuneConfig(30, 3e-3),
    )


@functools.cache
def recorded() -> DemonstrationSet:
    return DemonstrationSet.record(FAMILY, FAMILY.tasks("train", 100), 6, seed=0)


@functools.cache
def meta_batch(tasks: int = 5, shots: int = 2, queries: int = 2) -> SupportQuery:
    """Held-out tasks in float64, their demonstrations scaled so that the loss is not tiny."""
    held_out = DemonstrationSet.record(FAMILY, FAMILY.tasks("validation", 60), shots + queries, seed=3)
    batch = held_out.sample(torch.Generator().manual_seed(0), tasks, shots, queries)
    return tree_map(lambda t: t.double(), batch)


def fresh(method: str) -> MetaLearner:
    learner = build(settings(method), FAMILY)
    learner.standardise(recorded().batch)
    return learner.double()


@functools.cache
def trained(method: str) -> MetaLearner:
    """Trained for some seconds; shared by the tests, which must not change it."""
    learner = build(settings(method), FAMILY)
    learner.standardise(recorded().batch)
    if method not in UNTRAINED:
        meta_train(learner, recorded(), TrainConfig(steps=400, meta_batch=16, rate=3e-3, batching="vmap"))
    return learner.double()


def query_losses(learner: MetaLearner, batch: SupportQuery, skills) -> torch.Tensor:
    """Imitation error on the query, [task]."""
    return vmap(lambda skill, query: imitation_loss(learner.predict(skill, query.x), query))(skills, batch.query)


@pytest.mark.parametrize("method", METHODS)
def test_vmap_equals_a_plain_loop_at_second_order(method):
    learner, batch = fresh(method), meta_batch()
    parameters = [p for p in learner.parameters() if p.requires_grad]
    batched = vmap(learner.loss)(batch)[0]
    looped = torch.stack([learner.loss(tree_map(lambda t, i=i: t[i], batch))[0] for i in range(len(batched))])
    torch.testing.assert_close(batched, looped, rtol=1e-12, atol=1e-14)
    if method in TRAINS:
        gradients = [torch.autograd.grad(losses.mean(), parameters, allow_unused=True) for losses in (batched, looped)]
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("method", [m for m in TRAINS if m != "fomaml"])
def test_the_meta_gradient_agrees_with_finite_differences(method):
    learner, batch = fresh(method), meta_batch()
    OuterStep(learner, "vmap")(batch)
    parameters = [p for p in learner.parameters() if p.grad is not None]
    rng = torch.Generator().manual_seed(1)
    directions = [torch.randn(p.shape, generator=rng, dtype=p.dtype) for p in parameters]
    expected = sum((p.grad * d).sum() for p, d in zip(parameters, directions, strict=True))

    def moved(by: float) -> torch.Tensor:
        with torch.no_grad():
            for p, d in zip(parameters, directions, strict=True):
                p += by * d
            value = vmap(learner.loss)(batch)[0].mean()
            for p, d in zip(parameters, directions, strict=True):
                p -= by * d
        return value

    h = 1e-6
    torch.testing.assert_close((moved(h) - moved(-h)) / (2 * h), expected, rtol=2e-4, atol=1e-7)


@pytest.mark.parametrize("method", METHODS)
def test_padding_changes_nothing(method):
    learner, batch = fresh(method), meta_batch()

    def padded(b: Batch) -> Batch:
        junk = (
            torch.full_like(b.x[:, :, :7], 3.0),
            torch.full_like(b.y[:, :, :7], -5.0),
            torch.zeros_like(b.mask[:, :, :7]),
        )
        return Batch(*(torch.cat([t, j], 2) for t, j in zip(b[:3], junk, strict=True)), b.hidden)

    plain = vmap(learner.loss)(batch)[0]
    torch.testing.assert_close(vmap(learner.loss)(SupportQuery(*map(padded, batch)))[0], plain, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ORDER_DEPENDENT])
def test_the_order_of_demonstrations_does_not_matter(method):
    learner, (support, query) = fresh(method), meta_batch()
    flipped = Batch(support.x.flip(1), support.y.flip(1), support.mask.flip(1), support.hidden)
    one, other = (vmap(learner.loss)(SupportQuery(s, query))[0] for s in (support, flipped))
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_only_the_oracle_sees_what_is_hidden(method):
    learner, (support, query) = fresh(method), meta_batch()
    other = SupportQuery(support._replace(hidden=support.hidden + 1.0), query)
    same = torch.equal(vmap(learner.loss)(SupportQuery(support, query))[0], vmap(learner.loss)(other)[0])
    assert same == (method != "oracle")


@pytest.mark.parametrize("method", ADAPTS)
def test_adaptation_improves_the_error_on_held_out_tasks(method):
    learner, batch = trained(method), meta_batch(60)
    before = query_losses(learner, batch, skills_after(learner, batch.support, 0))
    after = query_losses(learner, batch, skills_after(learner, batch.support, 2))
    assert sign_flip_p_value((before - after).detach().numpy()) < 0.01


@pytest.mark.parametrize("method", ADAPTS)
def test_a_demonstration_of_another_task_is_no_help(method):
    learner, batch = trained(method), meta_batch(60)
    support = tree_map(lambda t: t.roll(1, 0), batch.support)
    own, other = (query_losses(learner, batch, skills_after(learner, s, 2)) for s in (batch.support, support))
    assert sign_flip_p_value((other - own).detach().numpy()) < 0.01
    if method != "scratch":  # which learns from any demonstration to walk somewhere
        pooled = trained("no-adaptation")
        none = query_losses(pooled, batch, skills_after(pooled, batch.support, 0))
        assert other.mean() > 0.95 * none.mean()


def sign_flip_p_value(gains: np.ndarray) -> float:
    """Of the hypothesis that gains are as likely up as down, by a permutation test on their mean."""
    rng = np.random.default_rng(0)
    flipped = rng.choice([-1.0, 1.0], (2000, len(gains))) @ gains
    return float((flipped >= gains.sum()).mean())


@pytest.mark.parametrize("method", METHODS)
def test_a_saved_learner_acts_the_same(method, tmp_path):
    learner, batch = trained(method).float(), tree_map(lambda t: t.float(), meta_batch())
    checkpoint.save(tmp_path / "it", learner.state_dict(), {})
    loaded = build(settings(method), FAMILY)
    checkpoint.load_into(loaded, checkpoint.load(tmp_path / "it").tensors, "it")
    observations = np.random.default_rng(0).normal(size=(5, 3, 2)).astype("f4")
    actions = [SkillPolicy(one, skills_after(one, batch.support, 2))(observations) for one in (learner, loaded)]
    trained(method).double()
    np.testing.assert_array_equal(*actions)


@pytest.mark.parametrize("method", METHODS)
def test_a_skill_is_a_tree_of_finite_tensors_and_gives_actions(method):
    learner, batch = fresh(method), meta_batch()
    one = tree_map(lambda t: t[0], batch.support)
    for skill in (learner.begin(), learner.adapt(one)):
        assert all(isinstance(leaf, torch.Tensor) and leaf.isfinite().all() for leaf in tree_leaves(skill))
        action, following = learner.act(skill, one.x[0, 0])
        assert action.shape == (2,)
        assert [leaf.shape for leaf in tree_leaves(following)] == [leaf.shape for leaf in tree_leaves(skill)]
