"""Grasping by tries: its rewards, what is seen of a try, that the tasks can be solved and not by chance."""

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from quickstudy.errors import QuickstudyError
from quickstudy.families.grasping import tries as grasping_tries
from quickstudy.families.grasping import vector_env as grasping_env
from quickstudy.families.grasping.family import Grasping
from quickstudy.families.grasping.scene import rotate
from quickstudy.families.grasping.tries import DECISION, OBSERVATION, REACH, GraspingTries, expert_decisions
from quickstudy.methods import records
from quickstudy.simulation import rendering
from quickstudy.simulation.vector_env import VectorEnv
from quickstudy.task import Task


@pytest.fixture(scope="module")
def of() -> GraspingTries:
    return GraspingTries(threads=1)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def everywhere(env: VectorEnv) -> np.ndarray:
    return np.ones(env.shape, bool)


def test_a_seed_repeats_on_any_number_of_threads() -> None:
    """What an environment says has the family's form, and depends on the seed alone."""
    said = []
    for threads, seed in ((1, 0), (2, 0), (1, 1)):
        of = GraspingTries(threads=threads)
        tasks = of.tasks("train", 1)
        assert of.hidden(tasks[0]).shape == (of.hidden_size,)
        with of.vector_env(tasks, 2) as env:
            first = env.reset_all(np.random.default_rng(seed))
            result = env.step(np.full((1, 2, of.action_size), 0.3), everywhere(env))
            assert first.shape == result.observations.shape == (1, 2, of.observation_size)
            assert (env.action_size, env.horizon) == (of.action_size, of.horizon)
            assert {values.shape for values in env.measures().values()} == {(1, 2)}
        said.append([first, result.observations, result.rewards])
    for one, other in zip(said[0], said[1], strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(said[0][1], said[2][1])


def test_its_tasks_are_those_of_grasping(of: GraspingTries) -> None:
    assert of.name == "grasping-tries"
    assert of.tasks("sizes", 3, first=2) == Grasping().tasks("sizes", 3, first=2)
    assert of.learned_from == ("trials",)
    assert of.has_expert
    with pytest.raises(QuickstudyError, match="Family 'grasping-tries' has no expert to demonstrate it"):
        of.demonstrate(of.tasks("train", 1), 1, 0)


def test_what_cannot_be_run_is_said(of: GraspingTries) -> None:
    with pytest.raises(QuickstudyError, match="needs tasks and episodes; got 0 tasks, 2 episodes"):
        of.vector_env([], 2)
    with pytest.raises(QuickstudyError, match="is not of the family 'grasping-tries'"):
        of.vector_env([replace(of.task("train", 0), family="cooking")], 1)
    with pytest.raises(QuickstudyError, match="Unknown split"):
        of.tasks("kitchen", 1)


def test_settings_of_every_method(of: GraspingTries) -> None:
    """A trial has five tries, and validation counts after the last of them."""
    for method in (record for record in records().values() if not record.why_not(of)):
        settings = method.defaults(of.name, of)
        assert (settings.family, settings.method) == (of.name, method.name)
        if method.name in ("rl2", "rl2-mann", "rl2-dagger", "pearl"):
            assert settings.algorithm.episodes == 5
            assert settings.training.validation_rounds == 4
        if method.name in ("maml-trpo", "promp"):
            assert (settings.algorithm.returns.gae_lambda, settings.algorithm.returns.discount) == (1.0, 0.99)
            assert settings.algorithm.trpo.fisher_every == 1


def test_grasping_numbers_by_hand() -> None:
    np.testing.assert_allclose(grasping_tries.grasp(np.array([1.0, -0.5, 0.0, 7.0])), [0.06, -0.03, 0.045, 1.0])
    rewards = grasping_tries.reward(
        np.array([False, True, True, True]), np.array([0.0, 0.0, 0.5, 1.2]), np.array([False, False, False, True])
    )
    np.testing.assert_allclose(rewards, [0.0, 0.2, 0.35, 1.0])


def test_who_knows_the_object_grasps_it_and_who_does_not_fails_often(of: GraspingTries) -> None:
    for split, least in (("sizes", 0.8), ("shapes", 0.6)):
        tasks = of.tasks(split, 10)
        right = expert_decisions(tasks)[:, None]
        knowing, blind = (of.run(tasks, 1, lambda _, d=d: d, 0) for d in (right, np.zeros_like(right)))
        assert knowing["success"].mean() >= least
        assert blind["success"].mean() <= knowing["success"].mean() - 0.3
    noise = rng()
    chance = of.run(tasks, 1, lambda seen: noise.uniform(-1, 1, (*seen.shape[:2], 4)), 0)
    assert chance["success"].mean() <= 0.3
    np.testing.assert_array_equal(knowing["success"], knowing["success-by-try"])
    np.testing.assert_array_equal(knowing["success"], of.run_expert(tasks, 1, 0)["success"])


def test_an_episode_is_a_try_and_a_look_at_it(of: GraspingTries) -> None:
    """Nothing is seen before; the second action does nothing, and what was seen of a try is gone with the next."""
    tasks = of.tasks("train", 2)
    right = np.repeat(expert_decisions(tasks)[:, None], 2, 1)
    env = of.vector_env(tasks, 2)
    assert not env.reset_all(rng()).any()
    np.testing.assert_array_equal(env.expert_action(), right)
    tried = env.step(right, everywhere(env))
    assert not tried.terminated.any()
    assert (tried.observations[..., OBSERVATION.index("tried")] == 1.0).all()
    assert np.isnan(env.expert_action()).all()
    looked = env.step(-right, everywhere(env))
    assert looked.terminated.all()
    assert not looked.rewards.any()
    np.testing.assert_array_equal(looked.observations, tried.observations)
    np.testing.assert_array_equal(looked.success, tried.success)
    won = tried.success
    assert won.any()
    assert (tried.rewards[won] > 0.99).all()
    closed = tried.observations[..., [OBSERVATION.index(f"closed_{name}") for name in DECISION]]
    np.testing.assert_allclose(closed[won], right[won], atol=0.25)  # it was held where it was to be held
    assert not env.reset_all(rng()).any()
    high_and_aside = env.step(np.broadcast_to([1.0, 1.0, 1.0, 1.0], right.shape), everywhere(env))
    assert not high_and_aside.success.any()
    assert np.abs(high_and_aside.observations[..., OBSERVATION.index("pushed_x") :]).max() < 0.01  # nothing was touched
    np.testing.assert_array_equal(env.measures()["success-by-try"], won)  # what succeeded once stays
    env.close()


def test_it_is_seen_how_the_object_was_pushed(of: GraspingTries) -> None:
    """The hand is where it was sent; seen from the tag it is off by as much as the tag moved."""
    tasks = of.tasks("train", 12)
    env = of.vector_env(tasks, 1)
    env.reset_all(rng())
    decisions = np.clip(expert_decisions(tasks)[:, None] + [0.25, 0.25, 0.0, 0.2], -1.0, 1.0)
    seen = env.step(decisions, everywhere(env)).observations[:, 0]
    env.close()
    closed, (pushed, turn, tipped) = seen[:, 1:5], (seen[:, 13:16], seen[:, 16], seen[:, 17:])
    stands = np.linalg.norm(tipped, axis=1) < 0.03
    assert stands.sum() >= 4
    wanted, place = grasping_tries.grasp(decisions[:, 0])[:, :2], closed[:, :2] * REACH[:2]
    expected = rotate(wanted - pushed[:, :2] * REACH[:2], -turn)
    np.testing.assert_allclose(place[stands], expected[stands], atol=0.004)
    assert np.abs(pushed[stands, :2] * REACH[:2]).max() > 0.005


@pytest.mark.parametrize("axis", ["x", "y"])
def test_in_the_mirror_the_mirrored_object_is_tried_with_the_mirrored_decision(
    monkeypatch: pytest.MonkeyPatch, of: GraspingTries, axis: Literal["x", "y"]
) -> None:
    monkeypatch.setattr(grasping_env, "ACTION_NOISE", 0.0)  # it is not mirrored
    mirror = grasping_tries.mirror(axis)
    tasks = [task for task in of.tasks("train", 40) if task.parameters["shape"] not in ("l_shape", "t_shape")][:16]
    other_sign = {f"grasp_{axis}", "grasp_yaw"}
    mirrored = [
        replace(task, parameters={k: -v if k in other_sign else v for k, v in task.parameters.items()})
        for task in tasks
    ]
    decisions = expert_decisions(tasks) + np.random.default_rng(0).normal(size=(16, 4)) * [0.25, 0.25, 0.1, 0.2]

    def seen(tasks: list[Task], decisions: np.ndarray) -> np.ndarray:
        with of.vector_env(tasks, 1) as env:
            env.reset_all(rng())
            result = env.step(np.clip(decisions, -1, 1)[:, None], everywhere(env))
        return result.observations[:, 0]

    as_it_was, in_the_mirror = seen(tasks, decisions), seen(mirrored, decisions @ mirror.action.T)
    off = np.abs(as_it_was @ mirror.observation.T - in_the_mirror).max(1)
    assert (off < 0.15).sum() >= 13  # a finger that just touches or just misses is the rest
    assert (np.abs(as_it_was - in_the_mirror).max(1) > 0.15).sum() >= 14


def test_environments_that_are_not_active_stay_as_they_are(of: GraspingTries) -> None:
    env = of.vector_env(of.tasks("train", 1), 2)
    env.reset_all(rng())
    result = env.step(np.zeros((1, 2, 4)), np.array([[True, False]]))
    assert result.observations[0, 0].any()
    assert not result.observations[0, 1].any()
    assert result.rewards[0, 1] == 0.0
    env.close()


def test_a_success_counts_for_all_tries_after_it(of: GraspingTries) -> None:
    env = of.vector_env(of.tasks("train", 2), 2)
    stream, noise, so_far = rng(), np.random.default_rng(1), np.zeros((2, 2), bool)
    for attempt in range(3):
        env.reset_all(stream)
        action = env.expert_action() if attempt == 1 else noise.uniform(-1, 1, (2, 2, 4))
        so_far |= env.step(action, everywhere(env)).success
        np.testing.assert_array_equal(env.measures()["success-by-try"], so_far)
    assert so_far.any()
    env.close()


def test_a_part_of_the_environments_begins_anew(of: GraspingTries) -> None:
    env = of.vector_env(of.tasks("train", 1), 2)
    env.reset_all(rng())
    env.step(np.zeros((1, 2, 4)), everywhere(env))
    seen = env.reset([rng()], np.array([1]))
    assert seen[0, 0].any()
    assert not seen[0, 1].any()
    assert np.isnan(env.expert_action()).all(-1).tolist() == [[True, False]]
    result = env.step(np.zeros((1, 2, 4)), everywhere(env))
    assert result.terminated.tolist() == [[True, False]]
    assert result.observations[0, 1].any()
    env.close()


@pytest.mark.skipif(not rendering.available(), reason="nothing here can draw")
def test_a_film_shows_the_control_steps_of_a_try(of: GraspingTries) -> None:
    task = of.task("train", 0)
    film = of.film(task, lambda seen: expert_decisions([task])[:, None], 0, width=64, height=48)
    assert film.shape[1:] == (48, 64, 3)
    assert len(film) > grasping_tries.DOWN + grasping_tries.CLOSE
    assert np.abs(film[0].astype(float) - film[-1]).mean() > 1.0
    assert of.snapshot(task, width=64, height=48).std() > 10
