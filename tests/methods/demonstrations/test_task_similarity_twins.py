"""Task similarity: the twins by hand, the ranking, the start from a known task's skill."""

import math

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_map

from quickstudy.data import Batch, DemonstrationSet
from quickstudy.errors import QuickstudyError
from quickstudy.families.classic import PointNavigation
from quickstudy.learner import BaseLearner
from quickstudy.methods.demonstrations.baselines import FineTuneConfig, Transfer
from quickstudy.methods.demonstrations.task_similarity import (
    TaskSiamese,
    adapt_from,
    as_support,
    log_odds,
    rank,
    starting_skills,
    train_matcher,
)
from quickstudy.nets import MLP

FAMILY = PointNavigation()


@pytest.fixture(scope="module")
def known() -> DemonstrationSet:
    return DemonstrationSet.record(FAMILY, FAMILY.tasks("train", 80), 4, seed=0)


@pytest.fixture(scope="module")
def matcher(known) -> TaskSiamese:
    return train_matcher(known, steps=250)


@pytest.fixture
def learner(known) -> Transfer:
    torch.manual_seed(0)
    learner = Transfer(BaseLearner(MLP(2, 2, (8,)), 2), FineTuneConfig(7, 1e-2))
    learner.standardise(known.batch)
    return learner


def support_of(split: str, tasks: int, seed: int = 3) -> Batch:
    return DemonstrationSet.record(FAMILY, FAMILY.tasks(split, tasks), 1, seed).batch


def goals(tasks) -> np.ndarray:
    return np.array([task.parameters["goal"] for task in tasks])


def twins() -> TaskSiamese:
    torch.manual_seed(0)
    return TaskSiamese(2, 2).double()


def test_a_demonstration_is_the_set_of_its_real_steps():
    batch = tree_map(lambda t: t.double(), support_of("train", 5))
    x, y, mask, hidden = batch
    expected = twins().embed(batch)
    assert expected.shape[:2] == (5, 1)
    assert ((expected > 0) & (expected < 1)).all()
    flipped = Batch(x.flip(2), y.flip(2), mask.flip(2), hidden)
    torch.testing.assert_close(twins().embed(flipped), expected, rtol=1e-11, atol=1e-13)
    junk = Batch(torch.cat([x, x + 9], 2), torch.cat([y, y - 9], 2), torch.cat([mask, 0 * mask], 2), hidden)
    torch.testing.assert_close(twins().embed(junk), expected, rtol=1e-11, atol=1e-13)
    empty = twins().embed(batch._replace(mask=0 * mask))
    assert empty.isfinite().all()


def test_verification_of_whole_demonstrations_in_closed_form():
    """All embeddings are equal where the last layer is zero, so every pair has the log-odds b."""
    matcher, batch = (
        twins(),
        tree_map(lambda t: t[:, 0].double(), support_of("train", 3)._replace(hidden=torch.ones(3, 1))),
    )
    with torch.no_grad():
        matcher.whole.head.weight.zero_()
        matcher.similarity.bias.fill_(2.0)
    expected = (math.log1p(math.exp(-2)) + math.log1p(math.exp(2))) / 2
    assert matcher.loss(batch, batch).item() == pytest.approx(expected, abs=1e-12)


def test_log_odds_are_the_mean_over_pairs_and_padded_shots_have_no_part():
    matcher, new = twins(), DemonstrationSet.record(FAMILY, FAMILY.tasks("validation", 3), 2, seed=1).batch
    new = tree_map(lambda t: t.double(), new)
    known = torch.rand(4, 5, 32).double()
    one = matcher.embed(new).detach()
    found = log_odds(matcher, known, new)
    expected = [[matcher.similarity(one[n][:, None], known[k][None]).mean().item() for k in range(4)] for n in range(3)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    padded = Batch(*(torch.cat([t, t + 3], 1) for t in new[:2]), torch.cat([new.mask, 0 * new.mask], 1), new.hidden)
    torch.testing.assert_close(log_odds(matcher, known, padded), found, rtol=1e-11, atol=1e-12)


def test_the_most_similar_known_task_has_a_goal_nearby(matcher, known):
    tasks = FAMILY.tasks("validation", 30)
    demonstrations = FAMILY.demonstrate(tasks, 1, seed=3)
    with torch.no_grad():
        embedded = matcher.embed(known.batch)
    rankings = [rank(matcher, known.tasks, embedded, as_support(shots)) for shots in demonstrations]
    best = goals([ranking[0][0] for ranking in rankings])
    distance = np.linalg.norm(best - goals(tasks), axis=-1).mean()
    usual = np.linalg.norm(goals(known.tasks)[None] - goals(tasks)[:, None], axis=-1).mean()
    assert distance < 0.4 * usual
    probabilities = [probability for _, probability in rankings[0]]
    assert len(probabilities) == len(known)
    assert probabilities == sorted(probabilities, reverse=True)
    assert 0.0 <= probabilities[-1] < probabilities[0] <= 1.0


def test_a_matcher_is_repeatable(known):
    one, other = (train_matcher(known, steps=3, seed=5).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_adapting_from_the_pre_trained_network_is_transfer(learner):
    support = tree_map(lambda t: t[0], support_of("validation", 1))
    expected, found = learner.adapt(support), adapt_from(learner, learner.begin(), support)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert all(torch.equal(p, found[n]) for n, p in adapt_from(learner, found, support, FineTuneConfig(0)).items())


def test_starts_are_the_skills_of_known_tasks(learner, matcher, known):
    support, config = support_of("validation", 4), FineTuneConfig(3, 1e-2)
    starts = starting_skills(learner, matcher, known, support, config, seed=2)
    matched = log_odds(matcher, matcher.embed(known.batch), support).argmax(1)
    drawn = torch.randint(len(known), (4,), generator=torch.Generator().manual_seed(2))
    for name, chosen in (("matched", matched), ("random", drawn)):
        for i, task in enumerate(chosen.tolist()):
            theirs = tree_map(lambda t, task=task: t[task], known.batch)
            expected = adapt_from(learner, learner.begin(), theirs, config)
            for key, value in expected.items():
                torch.testing.assert_close(starts[name][key][i], value, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(starts["pre-trained"][n][i], p) for n, p in learner.begin().items() for i in range(4))


@pytest.mark.parametrize(("tasks", "demonstrations", "steps"), [(1, 4, 5), (4, 1, 5), (4, 4, 0)])
def test_a_matcher_needs_something_to_tell_apart(known, tasks, demonstrations, steps):
    batch = Batch(*(t[:tasks, :demonstrations] for t in known.batch[:3]), known.batch.hidden[:tasks])
    with pytest.raises(QuickstudyError, match="two tasks and two demonstrations"):
        train_matcher(DemonstrationSet(known.tasks[:tasks], batch), steps)
