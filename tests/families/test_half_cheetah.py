"""Half-cheetahs: Gymnasium's robot and the paper's rewards, and which tasks are held out."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from quickstudy.errors import QuickstudyError
from quickstudy.families.half_cheetah import Cheetah, CheetahDirection, CheetahVelocity


@pytest.mark.parametrize(("family", "wanted"), [(CheetahDirection(), -1.0), (CheetahVelocity(), 1.3)])
def test_cheetah_is_gymnasiums(family: Cheetah, wanted: float) -> None:
    """Ten steps from the same state: observations as in HalfCheetah-v5, and the reward of the paper's code."""
    task = replace(family.task("train", 0), parameters={family.key: wanted})
    theirs = gymnasium.make("HalfCheetah-v5").unwrapped
    theirs.reset(seed=0)
    with family.vector_env([task], 2) as env:
        observations = env.reset_all(np.random.default_rng(0))
        theirs.set_state(env._position[1].copy(), env._velocity[1].copy())
        np.testing.assert_allclose(theirs._get_obs(), observations[0, 1])
        for action in np.random.default_rng(1).uniform(-1, 1, (10, 6)):
            result = env.step(np.broadcast_to(action, (1, 2, 6)), np.ones((1, 2), bool))
            expected, _, _, _, info = theirs.step(action)
            np.testing.assert_allclose(result.observations[0, 1], expected, atol=1e-8)
            speed = info["x_velocity"]
            gain = -abs(speed - wanted) if family.speeds else wanted * speed
            np.testing.assert_allclose(result.rewards[0, 1], gain - 0.05 * np.square(action).sum(), atol=1e-8)
    theirs.close()


def test_every_environment_begins_by_its_own_generator() -> None:
    family = CheetahVelocity()
    with family.vector_env(family.tasks("train", 2), 2) as env:
        first = env.reset([np.random.default_rng(seed) for seed in range(4)])
        env.step(np.ones((2, 2, 6)), np.ones((2, 2), bool))
        again = env.reset([np.random.default_rng(3)], np.array([3]))
    np.testing.assert_array_equal(again[1, 1], first[1, 1])
    assert not np.allclose(again[0, 0], first[0, 0])
    assert np.abs(first[..., :8]).max() <= 0.1
    assert len(np.unique(first[..., 0])) == 4


def test_an_episode_is_truncated_at_the_horizon_and_never_terminated() -> None:
    family = CheetahDirection()
    found = family.run(family.tasks("test", 2), 1, lambda seen: np.zeros((2, 1, 6)), 0)
    assert found["steps"].max() <= family.horizon
    family.horizon = 3
    with family.vector_env(family.tasks("test", 2), 1) as env:
        env.reset_all(np.random.default_rng(0))
        results = [env.step(np.zeros((2, 1, 6)), np.ones((2, 1), bool)) for _ in range(3)]
    assert [result.truncated.all() for result in results] == [False, False, True]
    assert not any(result.terminated.any() for result in results)


def test_directions_take_turns_and_none_is_held_out() -> None:
    family = CheetahDirection()
    directions = [task.parameters["direction"] for task in family.draw(8, torch.Generator().manual_seed(0))]
    assert sorted(directions) == [-1.0] * 4 + [1.0] * 4
    assert not family.holds_out_tasks
    assert "training has both" in family.protocol
    assert CheetahVelocity().holds_out_tasks


@pytest.mark.filterwarnings("ignore:.*A Box observation space")
def test_it_is_learned_by_trial_alone_and_an_environment_of_gymnasiums() -> None:
    family = CheetahVelocity()
    tasks = family.tasks("test", 1)
    assert family.learned_from == ("trials",)
    with pytest.raises(QuickstudyError, match="has no expert"):
        family.demonstrate(tasks, 1, 0)
    with pytest.raises(QuickstudyError, match="got 0 tasks"):
        family.vector_env([], 1)
    with pytest.raises(QuickstudyError, match="is not of the family 'cheetah-velocity'"):
        family.vector_env(CheetahDirection().tasks("test", 1), 1)
    check_env(family.make(tasks[0]), skip_render_check=True)
