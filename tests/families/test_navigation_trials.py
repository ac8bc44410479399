"""Navigation by trial: its rewards, what ends an episode, that the tasks can be solved and not by chance."""

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest

from quickstudy.errors import QuickstudyError
from quickstudy.families.navigation import layouts
from quickstudy.families.navigation import vector_env as navigation_env
from quickstudy.families.navigation.family import Navigation, NavigationDynamics
from quickstudy.families.navigation.layouts import CELL, CELLS, HALF, place
from quickstudy.families.navigation.vector_env import NavigationVectorEnv
from quickstudy.methods import records
from quickstudy.task import Task

MEMORY = ("rl2", "rl2-mann")


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("kind", [Navigation, NavigationDynamics])
def test_a_seed_repeats_on_any_number_of_threads(kind: type[Navigation]) -> None:
    """What an environment says has the family's form, and depends on the seed alone."""
    said = []
    for threads, seed in ((1, 0), (2, 0), (1, 1)):
        of = kind(threads=threads)
        tasks = of.tasks("train", 1)
        assert of.hidden(tasks[0]).shape == (of.hidden_size,)
        with of.vector_env(tasks, 2) as env:
            first = env.reset_all(np.random.default_rng(seed))
            result = env.step(np.full((1, 2, of.action_size), 0.3), np.ones((1, 2), bool))
            assert first.shape == result.observations.shape == (1, 2, of.observation_size)
            assert (env.action_size, env.horizon) == (of.action_size, of.horizon)
            assert {values.shape for values in env.measures().values()} == {(1, 2)}
        said.append([first, result.observations, result.rewards])
    for one, other in zip(said[0], said[1], strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(said[0][1], said[2][1])


@pytest.mark.parametrize("kind", [Navigation, NavigationDynamics])
def test_what_cannot_be_run_is_said(kind: type[Navigation]) -> None:
    of = kind()
    with pytest.raises(QuickstudyError, match="needs tasks and episodes; got 0 tasks, 2 episodes"):
        of.vector_env([], 2)
    with pytest.raises(QuickstudyError, match=f"is not of the family '{of.name}'"):
        of.vector_env([replace(of.task("train", 0), family="cooking")], 1)
    with pytest.raises(QuickstudyError, match="Unknown split"):
        of.tasks("kitchen", 1)


@pytest.mark.parametrize("kind", [Navigation, NavigationDynamics])
def test_settings_of_every_method(kind: type[Navigation]) -> None:
    """A trial has three episodes, and validation counts after the last of them."""
    of = kind()
    for method in (record for record in records().values() if not record.why_not(of)):
        settings = method.defaults(of.name, of)
        assert (settings.family, settings.method) == (of.name, method.name)
        if method.name in (*MEMORY, "rl2-dagger", "pearl"):
            assert settings.algorithm.episodes == 3
            assert settings.training.validation_rounds == 2


def test_navigation_rewards_by_hand() -> None:
    """A metre nearer; 0.2 m nearer and there; 0.1 m back, along a wall."""
    rewards = navigation_env.reward(
        np.array([1.0, 0.2, -0.1]), np.array([False, True, False]), np.array([False, False, True])
    )
    np.testing.assert_allclose(rewards, [1.0, 2.2, -0.15])


def test_ways_between_and_beyond_the_cells_that_have_one() -> None:
    """The way to the left edge of an empty environment is x; in a column without ways it goes out and on."""
    columns = np.indices((CELLS, CELLS))[1]
    distance = columns * CELL
    there = place(np.array([[10.0, 20.25], [50.5, 50.5]]) + [0.5, 0.0])
    looked = navigation_env.look_up(np.stack([distance, 2 * distance]), np.stack([there, there]))
    np.testing.assert_allclose(looked, [[19.75 * CELL, 50.0 * CELL], [39.5 * CELL, 100.0 * CELL]])
    np.testing.assert_allclose(navigation_env.look_up(distance[None], np.array([[[-HALF, 0.0]]])), 0.0)
    walled = np.where(columns >= 97, np.inf, distance)
    np.testing.assert_allclose(navigation_env.everywhere(walled), np.where(columns >= 97, columns * CELL, distance))


def test_an_expert_solves_navigation_and_its_rewards_add_up() -> None:
    of = Navigation(threads=1)
    env = of.vector_env(of.tasks("train", 2), 1)
    assert isinstance(env, NavigationVectorEnv)
    env.reset_all(rng())
    active = np.ones((2, 1), bool)
    was_away, total, touched = env._to_goal.copy(), np.zeros((2, 1)), np.zeros((2, 1))
    assert (was_away > 2.5).all()
    for _ in range(env.horizon):
        result = env.step(env.expert_action(), active)
        total += np.where(active, result.rewards, 0.0)
        touched += active & env.touching.reshape(2, 1)
        active = active & ~result.over
        if not active.any():
            break
    assert result.success.all()
    np.testing.assert_allclose(total, was_away - env._to_goal + 2.0 - 0.05 * touched)
    assert (env._to_goal < 0.5).all()
    measures = env.measures()
    assert ((measures["spl"] > 0.5) & (measures["spl"] <= 1.0)).all()
    pose = env.pose()
    env.reset_all(np.random.default_rng(1))
    assert not np.allclose(env.pose(), pose)  # another start, the same goal
    assert not env.measures()["spl"].any()
    env.close()


def test_chance_does_not_find_the_goal() -> None:
    of, noise = Navigation(threads=1), rng()
    tasks = of.tasks("procedural", 2)
    result = of.run(tasks, 1, lambda seen: noise.uniform(-1, 1, (*seen.shape[:2], 2)), 0)
    assert set(result) == {"return", "success", "success_last", "steps", "spl", "collisions", "detour"}
    assert not result["success"].any()
    assert (result["return"] < 2.0).all()


def test_a_family_is_learned_both_ways_and_has_a_body_where_it_says_so() -> None:
    assert Navigation().learned_from == ("demonstrations", "trials")
    assert "body" not in Navigation().task("train", 0).parameters
    body = NavigationDynamics().task("train", 0).parameters["body"]
    assert set(body) == {"left", "right", "grip", "payload", "payload_x", "payload_y"}


@pytest.mark.parametrize("which", [0, 1, 2])
def test_in_a_turned_building_a_robot_that_moves_alike_sees_what_the_symmetry_says(
    monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    noises = "ACTION_NOISE", "RANGE_NOISE", "SCALE_ERROR", "YAW_PER_METRE", "YAW_PER_RADIAN", "START_PLACE", "START_YAW"
    for noise in noises:  # they are not turned
        monkeypatch.setattr(navigation_env, noise, 0.0)
    of, symmetry = Navigation(threads=1), Navigation.symmetries[which]
    turn, side = symmetry.observation[:2, :2], symmetry.action[1, 1]
    turn_grid = (np.rot90, lambda grid: np.rot90(grid, 2), np.flipud)[which]

    def turned(task: Task) -> Task:
        walls = [list(block) for block in layouts.walls(turn_grid(layouts.fill(task.parameters["walls"])))]
        places = {name: (turn @ task.parameters[name]).tolist() for name in ("goal", "home")}
        return replace(task, parameters={**task.parameters, "walls": walls, **places})

    tasks = of.tasks("train", 4)
    homes = np.array([task.parameters["home"] for task in tasks])
    yaw = np.array([0.3, 1.0, -2.0, 2.9])
    toward = np.column_stack([np.cos(yaw), np.sin(yaw)]) @ turn.T
    actions = np.random.default_rng(0).uniform(-1, 1, (12, 4, 2))

    def driven(tasks: list[Task], homes: np.ndarray, yaw: np.ndarray, actions: np.ndarray) -> list[np.ndarray]:
        env = of.vector_env(tasks, 1)
        assert isinstance(env, NavigationVectorEnv)
        with patch.object(navigation_env, "draw_start", side_effect=list(np.column_stack([homes, yaw]))):
            seen = [env.reset([rng()] * 4)[:, 0]]
        rewards = [np.zeros((4, 1))]
        for action in actions:
            result = env.step(action[:, None], np.ones((4, 1), bool))
            seen.append(result.observations[:, 0])
            rewards.append(result.rewards)
        env.close()
        return [np.stack(seen), np.stack(rewards)]

    seen, earned = driven(tasks, homes, yaw, actions)
    turned_yaw = np.arctan2(toward[:, 1], toward[:, 0])
    other, earned_there = driven([turned(t) for t in tasks], homes @ turn.T, turned_yaw, actions * [1.0, side])
    np.testing.assert_allclose(seen @ symmetry.observation.T, other, atol=0.01)
    np.testing.assert_allclose(earned, earned_there, atol=0.02)
    assert np.abs(seen - other).max() > 0.5
