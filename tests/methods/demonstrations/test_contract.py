"""The contract that every method keeps, run over all of them: adding a method means adding a line to METHODS.

The tasks are 2D point navigation (skills), clusters of numbers (recognition) and, for methods that must be told where
things are, made-up carrying (places), because they cost nothing. Everything exact is checked in float64.
"""

import functools
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
import torch
from quickstudy.methods.catalogue import (
    METHODS,
    NEEDS_PLACES,
    OUTER,
    UNTRAINED,
    DataConfig,
    NetworkConfig,
    Settings,
    build,
    defaults,
    suits,
)
from torch.func import vmap
from torch.utils._pytree import tree_leaves, tree_map

from carrying import Carrying
from quickstudy.batching import OuterStep
from quickstudy.data import Batch, DemonstrationSet, Source, SupportQuery
from quickstudy.evaluation import SkillPolicy, skills_after
from quickstudy.families import own as families
from quickstudy.families.classic import PointNavigation
from quickstudy.families.recognition import Recognition
from quickstudy.io import checkpoint
from quickstudy.learner import MetaLearner
from quickstudy.methods.demonstrations.baselines import FineTuneConfig
from quickstudy.methods.demonstrations.maml import MAMLConfig
from quickstudy.methods.demonstrations.mann import MANNConfig
from quickstudy.methods.demonstrations.meta_lstm import MetaLSTMConfig
from quickstudy.methods.demonstrations.reptile import ReptileConfig
from quickstudy.results.compare import source_for
from quickstudy.settings import TrainConfig
from quickstudy.train import meta_train

ORDER_DEPENDENT = ("replay", "warp", "mann", "mann-raw", "matching-fce", "reptile")
NOT_THE_LOSS_GRADIENT = ("fomaml", "reptile", "meta-lstm", "matching-frames")
"""Methods whose outer step is by definition not the gradient of the loss that they report."""


def clusters() -> Recognition:
    """Classes are directions in eight dimensions, blurred; ways are three."""
    rng = np.random.default_rng(0)
    x = 2.0 * rng.normal(size=(60, 1, 8)) + 0.5 * rng.normal(size=(60, 20, 8))
    return families.from_arrays(x.reshape(-1, 8), np.repeat(np.arange(60), 20), ways=3, name="clusters")


FAMILIES = {"skills": PointNavigation(), "recognition": clusters(), "places": Carrying()}
CASES = [
    (kind, method)
    for kind, family in FAMILIES.items()
    for method in METHODS
    if suits(method, family) and (kind != "places" or method in NEEDS_PLACES)
]
TRAINS = [case for case in CASES if case[1] not in UNTRAINED]
ADAPTS = [
    case for case in CASES if case[1] not in ("replay", "warp", "no-adaptation") and case != ("recognition", "nearest")
]
"""What a demonstration of the very task must help."""


def each(cases: Iterable[tuple[str, str]]) -> list:
    """Cases as parameters; all tests of one case go to one process, which trains its learner once."""
    return [pytest.param(kind, method, marks=pytest.mark.xdist_group(f"{kind}-{method}")) for kind, method in cases]


def settings(kind: str, method: str) -> Settings:
    return Settings(
        FAMILIES[kind].name,
        method,
        training=TrainConfig(**OUTER.get(method, {})),
        network=NetworkConfig((32, 32), context=4, normalise=True, embedding=16),
        maml=MAMLConfig(inner_steps=3, inner_rate=0.05),
        fine_tune=FineTuneConfig(30, 3e-3),
        reptile=ReptileConfig(inner_steps=4, test_steps=20, inner_rate=5e-3),
        meta_lstm=MetaLSTMConfig(inner_steps=3, test_steps=3, hidden=8, initial_rate=0.05),
        mann=MANNConfig(slots=16, width=12, heads=2, controller=32),
    )


@functools.cache
def source(kind: str) -> Source:
    family = FAMILIES[kind]
    return source_for(replace(defaults(family.name), data=DataConfig(tasks=100)), family)


@functools.cache
def meta_batch(kind: str, tasks: int = 5, shots: int = 2, queries: int = 2) -> SupportQuery:
    """Held-out tasks in float64."""
    family = FAMILIES[kind]
    held_out = DemonstrationSet.record(family, family.tasks("validation", 60), shots + queries, seed=3)
    batch = held_out.sample(torch.Generator().manual_seed(0), tasks, shots, queries)
    return tree_map(lambda t: t.double(), batch)


def fresh(kind: str, method: str) -> MetaLearner:
    learner = build(settings(kind, method), FAMILIES[kind])
    learner.standardise(source(kind).batch)
    return learner.double()


@functools.cache
def trained(kind: str, method: str) -> MetaLearner:
    """Trained for some seconds; shared by the tests, which must not change it."""
    learner = fresh(kind, method).float()
    if method not in UNTRAINED:
        queries, most = (8, 2) if kind == "recognition" else (2, 1)
        config = TrainConfig(400, 16, most_shots=most, queries=queries, rate=3e-3, batching="vmap")
        meta_train(learner, source(kind), replace(config, **OUTER.get(method, {})))
    return learner.double()


def query_losses(learner: MetaLearner, batch: SupportQuery, skills) -> torch.Tensor:
    """How badly the query is imitated, [task]."""
    return vmap(lambda skill, query: learner.base.criterion(learner.predict(skill, query.x), query))(
        skills, batch.query
    )


@pytest.mark.parametrize(("kind", "method"), each(CASES))
def test_vmap_equals_a_plain_loop_at_second_order(kind, method):
    learner, batch = fresh(kind, method), meta_batch(kind)
    parameters = [p for p in learner.parameters() if p.requires_grad]
    batched = vmap(learner.loss)(batch)[0]
    looped = torch.stack([learner.loss(tree_map(lambda t, i=i: t[i], batch))[0] for i in range(len(batched))])
    torch.testing.assert_close(batched, looped, rtol=1e-12, atol=1e-14)
    if method not in UNTRAINED:
        gradients = [torch.autograd.grad(losses.mean(), parameters, allow_unused=True) for losses in (batched, looped)]
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(("kind", "method"), each(c for c in TRAINS if c[1] not in NOT_THE_LOSS_GRADIENT))
def test_the_meta_gradient_agrees_with_finite_differences(kind, method):
    learner, batch = fresh(kind, method), meta_batch(kind)
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


@pytest.mark.parametrize(("kind", "method"), each(CASES))
def test_padding_changes_nothing(kind, method):
    learner, batch = fresh(kind, method), meta_batch(kind)

    def padded(b: Batch) -> Batch:
        junk = (
            torch.full_like(b.x[:, :, :7], 3.0),
            torch.full_like(b.y[:, :, :7], -5.0),
            torch.zeros_like(b.mask[:, :, :7]),
        )
        return Batch(*(torch.cat([t, j], 2) for t, j in zip(b[:3], junk, strict=True)), b.hidden)

    plain = vmap(learner.loss)(batch)[0]
    torch.testing.assert_close(vmap(learner.loss)(SupportQuery(*map(padded, batch)))[0], plain, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(("kind", "method"), each(c for c in CASES if c[1] not in ORDER_DEPENDENT))
def test_the_order_of_demonstrations_does_not_matter(kind, method):
    learner, (support, query) = fresh(kind, method), meta_batch(kind)
    flipped = Batch(support.x.flip(1), support.y.flip(1), support.mask.flip(1), support.hidden)
    one, other = (vmap(learner.loss)(SupportQuery(s, query))[0] for s in (support, flipped))
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("kind", "method"), each(CASES))
def test_only_the_oracle_sees_what_is_hidden(kind, method):
    learner, (support, query) = fresh(kind, method), meta_batch(kind)
    other = SupportQuery(support._replace(hidden=support.hidden + 1.0), query)
    same = torch.equal(vmap(learner.loss)(SupportQuery(support, query))[0], vmap(learner.loss)(other)[0])
    assert same == (method != "oracle")


@pytest.mark.parametrize(("kind", "method"), each(ADAPTS))
def test_adaptation_improves_the_error_on_held_out_tasks(kind, method):
    learner, batch = trained(kind, method), meta_batch(kind, 60)
    before = query_losses(learner, batch, skills_after(learner, batch.support, 0))
    after = query_losses(learner, batch, skills_after(learner, batch.support, 2))
    assert sign_flip_p_value((before - after).detach().numpy()) < 0.01


@pytest.mark.parametrize(("kind", "method"), each(ADAPTS))
def test_a_demonstration_of_another_task_is_no_help(kind, method):
    learner, batch = trained(kind, method), meta_batch(kind, 60)
    support = tree_map(lambda t: t.roll(1, 0), batch.support)
    own, other = (query_losses(learner, batch, skills_after(learner, s, 2)) for s in (batch.support, support))
    assert sign_flip_p_value((other - own).detach().numpy()) < 0.01
    if method != "scratch":  # which learns from any demonstration to walk somewhere
        pooled = trained(kind, "no-adaptation")
        none = query_losses(pooled, batch, skills_after(pooled, batch.support, 0))
        assert other.mean() > 0.95 * none.mean()


def sign_flip_p_value(gains: np.ndarray) -> float:
    """Of the hypothesis that gains are as likely up as down, by a permutation test on their mean."""
    rng = np.random.default_rng(0)
    flipped = rng.choice([-1.0, 1.0], (2000, len(gains))) @ gains
    return float((flipped >= gains.sum()).mean())


@pytest.mark.parametrize(("kind", "method"), each(CASES))
def test_a_saved_learner_acts_the_same(kind, method, tmp_path):
    learner, batch = trained(kind, method).float(), tree_map(lambda t: t.float(), meta_batch(kind))
    checkpoint.save(tmp_path / "it", learner.state_dict(), {})
    loaded = build(settings(kind, method), FAMILIES[kind])
    checkpoint.load_into(loaded, checkpoint.load(tmp_path / "it").tensors, "it")
    width = FAMILIES[kind].observation_size
    observations = np.random.default_rng(0).normal(size=(5, 3, width)).astype("f4")
    actions = [SkillPolicy(one, skills_after(one, batch.support, 2))(observations) for one in (learner, loaded)]
    trained(kind, method).double()
    np.testing.assert_array_equal(*actions)


@pytest.mark.parametrize(("kind", "method"), each(CASES))
def test_a_skill_is_a_tree_of_finite_tensors_and_gives_actions(kind, method):
    learner, batch = fresh(kind, method), meta_batch(kind)
    one = tree_map(lambda t: t[0], batch.support)
    for skill in (learner.begin(), learner.adapt(one)):
        assert all(isinstance(leaf, torch.Tensor) and leaf.isfinite().all() for leaf in tree_leaves(skill))
        action, following = learner.act(skill, one.x[0, 0])
        assert action.shape == (FAMILIES[kind].action_size,)
        assert [leaf.shape for leaf in tree_leaves(following)] == [leaf.shape for leaf in tree_leaves(skill)]
