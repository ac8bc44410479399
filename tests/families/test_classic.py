"""The two classic families, by hand-computed numbers, and what every family must keep."""

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from quickstudy import families
from quickstudy.errors import QuickstudyError
from quickstudy.families.classic import PointNavigation, Sinusoid
from quickstudy.families.classic.point_navigation import REACH
from quickstudy.task import Task

CLASSIC = [Sinusoid(), PointNavigation()]


def sine(amplitude: float, phase: float) -> Task:
    return Task("sinusoid", "test", 0, {"amplitude": amplitude, "phase": phase})


def test_a_sinusoid_by_hand():
    """Predicting zero for 2 sin(x - 0) costs 4 sin^2(x): 2 on average over whole periods, and the points say so."""
    family, task = Sinusoid(), sine(2.0, 0.0)
    (points,) = family.demonstrate([task], 50, seed=0)
    x, y = (np.concatenate([getattr(d, name) for d in points]) for name in ("observations", "actions"))
    np.testing.assert_allclose(y, 2 * np.sin(x), atol=1e-6)
    assert np.abs(x).max() <= 5.0
    mse = family.run([task], 4000, lambda seen: np.zeros((1, 4000, 1)), seed=0)["mse"]
    assert mse.shape == (1, 4000)
    exact = 2 - np.sin(10.0) / 5  # the mean of 4 sin^2 over [-5, 5]
    assert mse.mean() == pytest.approx(exact, abs=0.1)
    perfect = family.run([task], 10, lambda seen: 2 * np.sin(seen), seed=0)["mse"]
    assert perfect.max() < 1e-10


def test_fresh_sinusoids_are_within_the_papers_ranges():
    source = Sinusoid().fresh()
    support, query = source.sample(torch.Generator().manual_seed(0), 500, 5, 10)
    assert support.x.shape == (500, 5, 1, 1)
    assert query.x.shape == (500, 10, 1, 1)
    amplitude, phase = support.hidden.unbind(-1)
    assert 0.1 <= amplitude.min() < 0.3
    assert 4.8 < amplitude.max() <= 5.0
    assert 0.0 <= phase.min() < 0.1
    assert 3.0 < phase.max() <= np.pi
    expected = amplitude[:, None, None, None] * torch.sin(query.x - phase[:, None, None, None])
    torch.testing.assert_close(query.y, expected)
    assert len(source.names()) == 500


def test_the_point_moves_as_in_the_paper():
    """Displacements are clipped to 0.1, and the reward is minus the squared distance to the goal."""
    env = PointNavigation().make(Task("point-navigation", "test", 0, {"goal": [0.2, 0.0]}))
    start, _ = env.reset(seed=0)
    position, reward, terminated, truncated, info = env.step(np.array([0.5, -0.05]))
    np.testing.assert_allclose(position, start + [0.1, -0.05], atol=1e-6)
    assert reward == pytest.approx(-float(np.square(position - [0.2, 0.0]).sum()), abs=1e-6)
    assert not terminated
    assert not truncated
    assert info["success"] is False
    assert [env.step(np.zeros(2))[3] for _ in range(19)] == [False] * 18 + [True]


def test_the_environment_is_a_gymnasium_environment():
    family = PointNavigation()
    env = family.make(family.tasks("test", 1)[0])
    check_env(env, skip_render_check=True)
    assert env.action_space.high.tolist() == pytest.approx([REACH] * 2)
    assert env.observation_space.high.tolist() == [2.5] * 2


def test_the_expert_arrives_and_doing_nothing_does_not():
    family = PointNavigation()
    tasks = family.tasks("test", 30)
    goals = np.array([task.parameters["goal"] for task in tasks])[:, None]
    expert = family.run(tasks, 3, lambda x: goals - x, seed=0)
    assert expert["success"].shape == (30, 3)
    assert (expert["success"] == 1).all()
    assert family.run(tasks, 3, np.zeros_like, seed=0)["success"].mean() < 0.1
    for name, values in family.run_expert(tasks, 3, seed=0).items():
        np.testing.assert_allclose(values, expert[name], atol=1e-6)


def test_points_are_learned_by_trial_too():
    family = PointNavigation()
    assert family.learned_from == ("demonstrations", "trials")
    env = family.vector_env(family.tasks("train", 2), 3)
    seen = env.reset_all(np.random.default_rng(0))
    assert len(np.unique(seen[..., 0])) == 6
    active = np.ones((2, 3), bool)
    active[0, 0] = False
    one = env.step(env.expert_action(), active)
    assert np.array_equal(one.observations[0, 0], seen[0, 0])
    np.testing.assert_allclose(one.rewards, -np.square(env.measures()["distance"]))
    for _ in range(19):
        assert not one.truncated[active].any()
        one = env.step(env.expert_action(), active)
    assert one.truncated.tolist() == one.success.tolist() == active.tolist()
    assert not one.terminated.any()
    pushed = env.reset([np.random.default_rng(i) for i in range(2)], np.array([1, 4]), disturbance=0.2)
    nowhere = env.step(np.zeros((2, 3, 2)), np.ones((2, 3), bool)).observations
    moved = np.abs(nowhere - pushed).reshape(6, 2).max(1)
    assert (moved[[1, 4]] > 0).all()
    assert (moved[[0, 2, 3, 5]] == 0).all()


@pytest.mark.parametrize("family", CLASSIC, ids=lambda family: family.name)
class TestEveryClassicFamily:
    def test_the_same_call_gives_the_same_tasks_and_demonstrations(self, family):
        one, other = ([family.tasks("train", 5), family.demonstrate(family.tasks("train", 5), 2, 7)] for _ in range(2))
        assert one[0] == other[0]
        for a, b in zip(one[1], other[1], strict=True):
            for c, d in zip(a, b, strict=True):
                np.testing.assert_array_equal(c.observations, d.observations)
                np.testing.assert_array_equal(c.actions, d.actions)

    def test_a_task_does_not_depend_on_its_neighbours(self, family):
        alone = family.demonstrate(family.tasks("test", 1, first=3), 1, 0)[0][0]
        among = family.demonstrate(family.tasks("test", 6), 1, 0)[3][0]
        np.testing.assert_array_equal(alone.observations, among.observations)

    def test_splits_share_no_task(self, family):
        drawn = [
            tuple(np.concatenate([np.ravel(v) for v in task.parameters.values()]))
            for split in family.sizes
            for task in family.tasks(split, 300)
        ]
        assert len(set(drawn)) == 300 * len(family.sizes)

    def test_demonstrations_start_anew_and_never_where_an_episode_does(self, family):
        tasks, seen = family.tasks("test", 4), []

        def policy(x):
            seen.append(x[:, :, 0].copy())
            return np.zeros((*x.shape[:2], family.action_size))

        family.run(tasks, 3, policy, seed=0)
        starts = [d.observations[0, 0] for row in family.demonstrate(tasks, 3, 0) for d in row]
        assert len({float(s) for s in [*starts, *seen[0].ravel()]}) == 24

    def test_asking_for_what_is_not_there(self, family):
        with pytest.raises(QuickstudyError, match="Did you mean 'train'"):
            family.tasks("trian", 1)
        with pytest.raises(QuickstudyError, match=f"which holds {family.sizes['test']}"):
            family.tasks("test", 1, first=family.sizes["test"])
        with pytest.raises(QuickstudyError, match="Asked for tasks 0 to 0"):
            family.tasks("test", 0)


def test_a_family_without_an_environment_says_so():
    with pytest.raises(QuickstudyError, match="'sinusoid' has no environment"):
        Sinusoid().make(sine(1.0, 0.0))


@settings(max_examples=20, deadline=None)
@given(st.text(max_size=12))
def test_an_unknown_family_gets_one_sentence(name):
    assume(name not in families.records() and not {"/", ":"} & set(name) and not name.startswith(("ml1-", ".")))
    assume(not name.endswith((".npz", ".csv")))  # what may be a path is read as one
    with pytest.raises(QuickstudyError) as error:
        families.get(name)
    assert all(known in str(error.value) for known in families.records())
