"""The batched Meta-World is the package, step for step, and so is what the other tasks go through."""

import hypothesis.strategies as st
import numpy as np
import pytest
from benchmarks.agreement import compare
from hypothesis import given, settings

from quickstudy.errors import QuickstudyError
from quickstudy.families.metaworld import official, rewards
from quickstudy.families.metaworld.catalogue import ML10, ML45, TASKS
from quickstudy.families.metaworld.port import Tool, load
from quickstudy.families.metaworld.worlds import PORTS, MetaWorlds


@pytest.mark.parametrize("name", PORTS)
def test_a_batched_task_is_the_packages(name):
    """A slice of `python -m benchmarks.metaworld_agreement`: one start, random and expert actions."""
    found = compare(name, episodes=1, steps=60)
    assert found.observation <= 1e-9
    assert found.reward <= 1e-6
    assert found.success == 0


def test_success_is_reached_and_agrees():
    found = compare("push-v3", episodes=1, steps=120, seed=1)
    assert found.holds
    assert found.successes > 10


@pytest.mark.parametrize("name", ["push-v3", "box-close-v3"])
def test_the_adapter_is_the_packages_though_worlds_share_one_environment(name):
    found = compare(name, episodes=1, steps=40, ported=False)
    assert (found.observation, found.reward, found.success) == (0.0, 0.0, 0)


def test_the_catalogue_has_the_packages_tasks_and_spaces():
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS, ML10_V3, ML45_V3

    assert set(TASKS) == set(ALL_V3_ENVIRONMENTS)
    for splits, official_splits in ((ML10, ML10_V3), (ML45, ML45_V3)):
        assert all(set(splits[split]) == set(official_splits[split]) for split in ("train", "test"))
    assert not {*ML10["validation"]} & {*ML10["train"], *ML10["test"]}


@pytest.mark.parametrize("name", ["push-v3", "assembly-v3", "drawer-open-v3", "sweep-into-v3", "soccer-v3"])
def test_a_draw_is_from_the_packages_space(name):
    env = official.environment(name)
    low, high = env._random_reset_space.low, env._random_reset_space.high
    np.testing.assert_allclose(TASKS[name].low, low, atol=1e-12)
    np.testing.assert_allclose(TASKS[name].high, high, atol=1e-12)
    vector = TASKS[name].vector(np.random.default_rng(0))
    official.fix(env, vector)
    env.reset()


def test_neither_company_nor_threads_change_a_world():
    names = ["push-v3", "door-open-v3", "push-v3", "handle-press-v3"]
    rng = np.random.default_rng(0)
    vectors, actions = [TASKS[name].vector(rng) for name in names], rng.uniform(-1, 1, (8, 4, 4))
    together, alone = MetaWorlds(names, threads=2), [MetaWorlds([name], threads=1) for name in names]
    together.reset(vectors)
    for worlds, vector in zip(alone, vectors, strict=True):
        worlds.reset([vector])
    for action in actions:
        seen = together.step(action)
        for i, worlds in enumerate(alone):
            np.testing.assert_array_equal(worlds.step(action[i : i + 1])[0], seen[i])
            assert worlds.reward[0] == together.reward[i]


def test_worlds_that_are_not_chosen_stay_and_a_second_reset_is_the_first():
    names = ["reach-v3", "reach-v3"]
    rng = np.random.default_rng(1)
    vectors, worlds = [TASKS["reach-v3"].vector(rng) for _ in names], MetaWorlds(names, threads=1)
    first = worlds.reset(vectors).copy()
    seen = worlds.step(np.ones((2, 4)), np.array([1]))
    np.testing.assert_array_equal(seen[0], first[0])
    assert not np.array_equal(seen[1], first[1])
    np.testing.assert_array_equal(worlds.reset([vectors[1]], np.array([1])), first)


def test_a_reset_of_one_world_leaves_what_others_are_rewarded_for():
    """What rewards need of an episode is worked out at its reset, for all worlds of its task."""
    rng = np.random.default_rng(2)
    first, second, third = (TASKS["pick-place-v3"].vector(rng) for _ in range(3))
    actions = rng.uniform(-1, 1, (6, 4))
    alone, together = MetaWorlds(["pick-place-v3"], threads=1), MetaWorlds(["pick-place-v3"] * 2, threads=1)
    alone.reset([first])
    together.reset([first, second])
    for step, action in enumerate(actions):
        if step == 3:
            together.reset([third], np.array([1]))
        alone.step(action[None])
        together.step(np.stack([action, action]))
        assert together.reward[0] == alone.reward[0]
    fresh = MetaWorlds(["pick-place-v3"], threads=1)
    fresh.reset([third])
    for action in actions[3:]:
        fresh.step(action[None])
    assert together.reward[1] == fresh.reward[0]


def test_a_vector_that_puts_object_and_goal_too_close_is_refused():
    close = np.array([0.0, 0.65, 0.02, 0.0, 0.7, 0.1])
    with pytest.raises(QuickstudyError, match=r"closer than 0\.15 m, where Meta-World's own reset never ends"):
        MetaWorlds(["reach-v3"], threads=1).reset([close])
    env = official.environment("reach-v3")
    official.fix(env, close)
    with pytest.raises(QuickstudyError, match="object and goal are too close"):
        env.reset()


def test_bad_inputs():
    with pytest.raises(QuickstudyError, match="Did you mean 'push'"):
        MetaWorlds(["pusch-v3"])
    with pytest.raises(QuickstudyError, match="got 0 worlds"):
        MetaWorlds([])
    with pytest.raises(QuickstudyError, match="has no tool to change"):
        MetaWorlds(["reach-v3"], tools=[Tool(1.1)])
    worlds = MetaWorlds(["reach-v3"], threads=1)
    with pytest.raises(QuickstudyError, match="holds 6 numbers"):
        worlds.reset([np.zeros(3)])
    with pytest.raises(QuickstudyError, match=r"needs actions \(1, 4\); got \(4,\)"):
        worlds.step(np.zeros(4))


def test_a_light_model_is_light_and_moves_alike():
    light = load(PORTS["push-v3"])
    assert light.nmesh < load(PORTS["push-v3"], visual=True).nmesh
    assert light.nv == load(PORTS["push-v3"], visual=True).nv


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 1), st.floats(0.001, 1), st.floats(0.001, 1), st.sampled_from(["long tail", "gaussian"]))
def test_tolerance_is_the_packages(x, upper, margin, falls):
    from metaworld.utils.reward_utils import tolerance

    wanted = tolerance(x, bounds=(0.0, upper), margin=margin, sigmoid=falls.replace(" ", "_"))
    assert rewards.tolerance(np.array([x]), upper, margin, falls=falls)[0] == pytest.approx(wanted, abs=1e-12)


def test_both_by_hand():
    np.testing.assert_allclose(rewards.both(np.array([1.0, 0.5, 0.0]), np.array([0.3, 0.5, 0.0])), [0.3, 1 / 3, 0.0])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 3), min_size=2, max_size=4))
def test_the_long_tail_of_a_sum_is_all_of_them_taken_together(away):
    squares = np.square(away)
    one_by_one = rewards.long_tail(squares[0])
    for square in squares[1:]:
        one_by_one = rewards.both(one_by_one, rewards.long_tail(square))
    assert rewards.long_tail(squares.sum()) == pytest.approx(one_by_one, abs=1e-12)
