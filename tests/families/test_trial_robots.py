"""Robots that learn by trial: their rewards, what ends an episode, that the tasks can be solved and not by chance."""

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch

from quickstudy.errors import QuickstudyError
from quickstudy.families.grasping import episode as grasping_episode
from quickstudy.families.grasping import tries as grasping_tries
from quickstudy.families.grasping.scene import rotate
from quickstudy.families.grasping.tries import DECISION, OBSERVATION, REACH, GraspingTries
from quickstudy.families.navigation import episode as navigation_episode
from quickstudy.families.navigation import layouts
from quickstudy.families.navigation import trials as navigation_robot
from quickstudy.families.navigation.family import Navigation
from quickstudy.families.navigation.layouts import CELL, CELLS, HALF, place
from quickstudy.families.navigation.trials import NavigationDynamicsTrials, NavigationTrials
from quickstudy.methods.trials import runs
from quickstudy.methods.trials.catalogue import METHODS, build, defaults, family
from quickstudy.methods.trials.evaluation import evaluate_trials
from quickstudy.methods.trials.rl2 import RL2Config
from quickstudy.simulation.vector_env import TrialFamily
from quickstudy.task import Task

ROBOTS = (NavigationTrials, NavigationDynamicsTrials, GraspingTries)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("made", ROBOTS)
def test_a_seed_repeats_on_any_number_of_threads(made: type[TrialFamily]) -> None:
    """What a world says has the family's form, and depends on the seed alone."""
    said = []
    for threads, seed in ((1, 0), (2, 0), (1, 1)):
        of = made(threads=threads)
        tasks = of.tasks("train", 1)
        assert of.hidden(tasks[0]).shape == (of.hidden_size,)
        worlds = of.vector_env(tasks, 2)
        first = worlds.reset(np.random.default_rng(seed))
        outcome = worlds.step(np.full((1, 2, of.action_size), 0.3), np.ones((1, 2), bool))
        assert first.shape == outcome.observations.shape == (1, 2, of.observation_size)
        assert worlds.action_size == of.action_size
        assert worlds.horizon == of.horizon
        assert {values.shape for values in worlds.measures().values()} == {(1, 2)}
        said.append([first, outcome.observations, outcome.rewards])
        worlds.close()
    for one, other in zip(said[0], said[1], strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(said[0][1], said[2][1])


@pytest.mark.parametrize("made", ROBOTS)
def test_what_cannot_be_run_is_said(made: type[TrialFamily]) -> None:
    of = made()
    with pytest.raises(QuickstudyError, match="need tasks and episodes_per_task; got 0 tasks, 2 episodes_per_task"):
        of.vector_env([], 2)
    with pytest.raises(QuickstudyError, match=f"is not of the family '{of.name}'"):
        of.vector_env([replace(of.task("train", 0), family="cooking")], 1)
    with pytest.raises(QuickstudyError, match="Unknown split"):
        of.tasks("kitchen", 1)


@pytest.mark.parametrize("name", ["navigation", "navigation-dynamics", "grasping"])
@pytest.mark.parametrize("method", METHODS)
def test_settings_of_every_method(name: str, method: str) -> None:
    settings = defaults(name, method)
    assert (settings.family, settings.method) == (name, method)
    tries = 5 if name == "grasping" else 3
    assert settings.rl2.episodes == (tries if method in ("rl2", "rl2-mann") else RL2Config().episodes)


# ---- navigation


def test_navigation_rewards_by_hand() -> None:
    """A metre nearer; 0.2 m nearer and there; 0.1 m back, along a wall."""
    rewards = navigation_robot.reward(
        np.array([1.0, 0.2, -0.1]), np.array([False, True, False]), np.array([False, False, True])
    )
    np.testing.assert_allclose(rewards, [1.0, 2.2, -0.15])


def test_ways_between_and_beyond_the_cells_that_have_one() -> None:
    """The way to the left edge of an empty environment is x; in a column without ways it goes out and on."""
    columns = np.indices((CELLS, CELLS))[1]
    distance = columns * CELL
    there = place(np.array([[10.0, 20.25], [50.5, 50.5]]) + [0.5, 0.0])
    looked = navigation_robot.look_up(np.stack([distance, 2 * distance]), np.stack([there, there]))
    np.testing.assert_allclose(looked, [[19.75 * CELL, 50.0 * CELL], [39.5 * CELL, 100.0 * CELL]])
    np.testing.assert_allclose(navigation_robot.look_up(distance[None], np.array([[[-HALF, 0.0]]])), 0.0)
    walled = np.where(columns >= 97, np.inf, distance)
    np.testing.assert_allclose(navigation_robot.everywhere(walled), np.where(columns >= 97, columns * CELL, distance))


def test_an_expert_solves_navigation_and_its_rewards_add_up() -> None:
    of = NavigationTrials(threads=1)
    tasks = of.tasks("train", 2)
    expert, worlds = Navigation(threads=1).expert_policy(tasks), of.vector_env(tasks, 1)
    observations, alive = worlds.reset(rng()), np.ones((2, 1), bool)
    away, total, touched = worlds._away.copy(), np.zeros((2, 1)), np.zeros((2, 1))
    assert (away > 2.5).all()
    for _ in range(worlds.horizon):
        outcome = worlds.step(expert(observations), alive)
        total += np.where(alive, outcome.rewards, 0.0)
        touched += alive & worlds._state.touching.reshape(2, 1)
        observations, alive = outcome.observations, alive & ~outcome.terminated
        if not alive.any():
            break
    assert outcome.success.all()
    np.testing.assert_allclose(total, away - worlds._away + 2.0 - 0.05 * touched)
    assert (worlds._away < 0.5).all()
    measures = worlds.measures()
    assert ((measures["spl"] > 0.5) & (measures["spl"] <= 1.0)).all()
    pose = worlds._state.pose()
    worlds.reset(np.random.default_rng(1))
    assert not np.allclose(worlds._state.pose(), pose)  # another start, the same goal
    assert not worlds.measures()["spl"].any()
    worlds.close()


def test_chance_does_not_find_the_goal() -> None:
    of, noise = NavigationTrials(threads=1), rng()
    tasks = of.tasks("procedural", 2)
    result = of.run(tasks, 1, lambda seen: noise.uniform(-1, 1, (*seen.shape[:2], 2)), 0)
    assert set(result) == {"return", "success", "success_last", "spl", "collisions"}
    assert not result["success"].any()
    assert (result["return"] < 2.0).all()


def test_tasks_are_those_of_the_demonstrations() -> None:
    assert NavigationTrials().task("validation", 3) == Navigation().task("validation", 3)
    body = NavigationDynamicsTrials().task("train", 0).parameters["body"]
    assert set(body) == {"left", "right", "grip", "payload", "payload_x", "payload_y"}


@pytest.mark.parametrize("which", [0, 1, 2])
def test_in_a_turned_building_a_robot_that_moves_alike_sees_what_the_symmetry_says(
    monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    noises = "ACTION_NOISE", "RANGE_NOISE", "SCALE_ERROR", "YAW_PER_METRE", "YAW_PER_RADIAN", "START_PLACE", "START_YAW"
    for noise in noises:  # they are not turned
        monkeypatch.setattr(navigation_episode, noise, 0.0)
    of, symmetry = NavigationTrials(threads=1), NavigationTrials.symmetries[which]
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
        worlds = of.vector_env(tasks, 1)
        assert isinstance(worlds, navigation_robot.NavigationVectorEnv)
        worlds.reset(rng())
        seen = [worlds._state.reset(np.column_stack([homes, yaw]), [rng()] * 4)]
        worlds._away = worlds._to_goal()
        rewards = [np.zeros((4, 1))]
        for action in actions:
            outcome = worlds.step(action[:, None], np.ones((4, 1), bool))
            seen.append(outcome.observations[:, 0])
            rewards.append(outcome.rewards)
        worlds.close()
        return [np.stack(seen), np.stack(rewards)]

    seen, earned = driven(tasks, homes, yaw, actions)
    turned_yaw = np.arctan2(toward[:, 1], toward[:, 0])
    other, earned_there = driven([turned(t) for t in tasks], homes @ turn.T, turned_yaw, actions * [1.0, side])
    np.testing.assert_allclose(seen @ symmetry.observation.T, other, atol=0.01)
    np.testing.assert_allclose(earned, earned_there, atol=0.02)
    assert np.abs(seen - other).max() > 0.5


# ---- grasping by tries


def test_grasping_numbers_by_hand() -> None:
    np.testing.assert_allclose(grasping_tries.grasp(np.array([1.0, -0.5, 0.0, 7.0])), [0.06, -0.03, 0.045, 1.0])
    rewards = grasping_tries.reward(
        np.array([False, True, True, True]), np.array([0.0, 0.0, 0.5, 1.2]), np.array([False, False, False, True])
    )
    np.testing.assert_allclose(rewards, [0.0, 0.2, 0.35, 1.0])


def test_who_knows_the_object_grasps_it_and_who_does_not_fails_often() -> None:
    of = GraspingTries(threads=1)
    for split, least in (("sizes", 0.8), ("shapes", 0.6)):
        tasks = of.tasks(split, 10)
        right = grasping_tries.right(tasks)[:, None]
        knowing, blind = (of.run(tasks, 1, lambda _, d=d: d, 0) for d in (right, np.zeros_like(right)))
        assert knowing["success"].mean() >= least
        assert blind["success"].mean() <= knowing["success"].mean() - 0.3
    noise = rng()
    chance = of.run(tasks, 1, lambda seen: noise.uniform(-1, 1, (*seen.shape[:2], 4)), 0)
    assert chance["success"].mean() <= 0.3
    np.testing.assert_array_equal(knowing["success"], knowing["success-by-try"])


def test_an_episode_is_a_try_and_a_look_at_it() -> None:
    """Nothing is seen before; the second action does nothing, and what was seen of a try is gone with the next."""
    of = GraspingTries(threads=1)
    tasks = of.tasks("train", 2)
    right = np.repeat(grasping_tries.right(tasks)[:, None], 2, 1)
    worlds, all_alive = of.vector_env(tasks, 2), np.ones((2, 2), bool)
    assert not worlds.reset(rng()).any()
    tried = worlds.step(right, all_alive)
    assert not tried.terminated.any()
    assert (tried.observations[..., OBSERVATION.index("tried")] == 1.0).all()
    looked = worlds.step(-right, all_alive)
    assert looked.terminated.all()
    assert not looked.rewards.any()
    np.testing.assert_array_equal(looked.observations, tried.observations)
    np.testing.assert_array_equal(looked.success, tried.success)
    won = tried.success
    assert won.any()
    assert (tried.rewards[won] > 0.99).all()
    closed = tried.observations[..., [OBSERVATION.index(f"closed_{name}") for name in DECISION]]
    np.testing.assert_allclose(closed[won], right[won], atol=0.25)  # it was held where it was to be held
    assert not worlds.reset(rng()).any()
    high_and_aside = worlds.step(np.broadcast_to([1.0, 1.0, 1.0, 1.0], right.shape), all_alive)
    assert not high_and_aside.success.any()
    assert np.abs(high_and_aside.observations[..., OBSERVATION.index("pushed_x") :]).max() < 0.01  # nothing was touched
    np.testing.assert_array_equal(worlds.measures()["success-by-try"], won)  # what succeeded once stays
    worlds.close()


def test_it_is_seen_how_the_object_was_pushed() -> None:
    """The hand is where it was sent; seen from the tag it is off by as much as the tag moved."""
    of = GraspingTries(threads=1)
    tasks = of.tasks("train", 12)
    worlds = of.vector_env(tasks, 1)
    worlds.reset(rng())
    decisions = np.clip(grasping_tries.right(tasks)[:, None] + [0.25, 0.25, 0.0, 0.2], -1.0, 1.0)
    seen = worlds.step(decisions, np.ones((12, 1), bool)).observations[:, 0]
    worlds.close()
    closed, (pushed, turn, tipped) = seen[:, 1:5], (seen[:, 13:16], seen[:, 16], seen[:, 17:])
    stands = np.linalg.norm(tipped, axis=1) < 0.03
    assert stands.sum() >= 4
    wanted, place = grasping_tries.grasp(decisions[:, 0])[:, :2], closed[:, :2] * REACH[:2]
    expected = rotate(wanted - pushed[:, :2] * REACH[:2], -turn)
    np.testing.assert_allclose(place[stands], expected[stands], atol=0.004)
    assert np.abs(pushed[stands, :2] * REACH[:2]).max() > 0.005


@pytest.mark.parametrize("axis", ["x", "y"])
def test_in_the_mirror_the_mirrored_object_is_tried_with_the_mirrored_decision(
    monkeypatch: pytest.MonkeyPatch, axis: Literal["x", "y"]
) -> None:
    monkeypatch.setattr(grasping_episode, "ACTION_NOISE", 0.0)  # it is not mirrored
    of, mirror = GraspingTries(threads=1), grasping_tries.mirror(axis)
    tasks = [task for task in of.tasks("train", 40) if task.parameters["shape"] not in ("l_shape", "t_shape")][:16]
    other_sign = {f"grasp_{axis}", "grasp_yaw"}
    mirrored = [
        replace(task, parameters={k: -v if k in other_sign else v for k, v in task.parameters.items()})
        for task in tasks
    ]
    decisions = grasping_tries.right(tasks) + np.random.default_rng(0).normal(size=(16, 4)) * [0.25, 0.25, 0.1, 0.2]

    def seen(tasks: list[Task], decisions: np.ndarray) -> np.ndarray:
        worlds = of.vector_env(tasks, 1)
        worlds.reset(np.random.default_rng(0))
        outcome = worlds.step(np.clip(decisions, -1, 1)[:, None], np.ones((len(tasks), 1), bool))
        worlds.close()
        return outcome.observations[:, 0]

    as_it_was, in_the_mirror = seen(tasks, decisions), seen(mirrored, decisions @ mirror.action.T)
    off = np.abs(as_it_was @ mirror.observation.T - in_the_mirror).max(1)
    assert (off < 0.15).sum() >= 13  # a finger that just touches or just misses is the rest
    assert (np.abs(as_it_was - in_the_mirror).max(1) > 0.15).sum() >= 14


def test_lanes_that_are_not_alive_stay_as_they_are() -> None:
    of = GraspingTries(threads=1)
    worlds = of.vector_env(of.tasks("train", 1), 2)
    worlds.reset(rng())
    outcome = worlds.step(np.zeros((1, 2, 4)), np.array([[True, False]]))
    assert outcome.observations[0, 0].any()
    assert not outcome.observations[0, 1].any()
    assert outcome.rewards[0, 1] == 0.0
    worlds.close()


def test_there_is_nobody_who_demonstrates_tries() -> None:
    with pytest.raises(QuickstudyError, match="has no demonstrations"):
        GraspingTries().demonstrate(GraspingTries().tasks("train", 1), 1, 0)


# ---- what is measured, up to a table


def test_tries_add_up_through_training_and_evaluation() -> None:
    of = family("grasping")
    settings = defaults("grasping", "rl2")
    learner = build(replace(settings, rl2=replace(settings.rl2, width=8, episodes=2)), of)
    figures = learner.outer_step(of.vector_env(of.tasks("train", 2), 2), torch.Generator().manual_seed(0))
    assert {"return-0", "return-1", "gradient-norm"} <= set(figures)
    result = evaluate_trials(learner, of, "sizes", 1, 2, 2)
    np.testing.assert_array_equal(
        result.metrics["success-by-try"][1], result.metrics["success"].any(0).astype(np.float64)
    )
    made = runs.trial_rows("rl2", of, [result], learner.shares_experience)
    assert [row.shots for row in made] == [0, 1]
    assert made[1].value == result.metrics["success-by-try"][1].mean()
    assert made[1].beside is not None
    assert made[1].beside["return"] == pytest.approx(result.metrics["return"][1].mean(), abs=1e-4)
    cell = runs.table(of, "sizes", made, 1.0, "quickstudy rl-evaluate x")
    assert (cell.cell, cell.metric, cell.unit) == ("rl-grasping", "success-by-try", "fraction")
    assert runs.table(of, "shapes", made, 1.0, "quickstudy rl-evaluate x").cell == "rl-grasping-shapes"
