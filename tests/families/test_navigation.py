"""The navigation families keep the contract of a family; their robot, odometry and success are as they say."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from unittest.mock import patch

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from quickstudy.errors import QuickstudyError
from quickstudy.families.navigation import bodies as navigation_bodies
from quickstudy.families.navigation import tasks as navigation_tasks
from quickstudy.families.navigation import vector_env
from quickstudy.families.navigation.family import Navigation, NavigationDynamics
from quickstudy.families.navigation.layouts import CELLS, HALF, fill, walls
from quickstudy.families.navigation.planner import plan
from quickstudy.families.navigation.scene import (
    ACTION_NOISE,
    HORIZON,
    LIDAR_RANGE,
    MAX_SPEED,
    MAX_TURN,
    OBSERVATION,
    ROBOT,
    SUBSTEPS,
    TIMESTEP,
    Body,
)
from quickstudy.families.navigation.vector_env import (
    REACHED,
    YAW_PER_METRE,
    NavigationVectorEnv,
    expert_of,
    shortest_way,
    spl,
)
from quickstudy.simulation import rendering
from quickstudy.task import Task

EMPTY = np.zeros((CELLS, CELLS), dtype=bool)
EMPTY[[0, -1]] = EMPTY[:, [0, -1]] = True
HEALTHY = Body()
SECONDS = SUBSTEPS * TIMESTEP
"""Of a control step."""


@pytest.fixture(scope="module")
def family() -> Navigation:
    return Navigation(threads=2)


@pytest.fixture(scope="module")
def dynamics() -> NavigationDynamics:
    return NavigationDynamics(threads=2)


def stands(
    x: float, y: float, yaw: float, body: Body = HEALTHY, goal: tuple[float, float] = (4.0, 4.0)
) -> NavigationVectorEnv:
    """One robot in an empty room, without any noise."""
    parameters = navigation_tasks.parameters(walls(EMPTY), np.array([x, y]), np.array(goal))
    env = NavigationVectorEnv([Task("navigation", "own", 0, {**parameters, "body": asdict(body)})], 1, threads=1)
    begin(env, [[x, y, yaw]])
    for noise in (env.noise, env._range_noise, env._yaw_noise):
        noise[:] = 0.0
    env._scale[:], env.believed[:] = 1.0, [x, y, yaw]
    return env


def begin(env: NavigationVectorEnv, starts: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
    """Begins episodes from these starts, x, y and yaw of each."""
    with patch.object(vector_env, "draw_start", side_effect=list(starts)):
        return env.reset([np.random.default_rng(0) for _ in starts])


def drive(env: NavigationVectorEnv, action: tuple[float, float], steps: int) -> np.ndarray:
    """The poses [step + 1, 3] on the way, until the episode is over."""
    poses, active = [env.pose()[0]], np.ones((1, 1), bool)
    for _ in range(steps):
        active &= ~env.step(np.array([[action]]), active).over
        poses.append(env.pose()[0])
    return np.stack(poses)


def way_to(task: Task, start: np.ndarray) -> float:
    return shortest_way(plan(task.parameters["walls"], task.parameters["goal"]), start)


def test_an_environment_is_an_episode_of_its_family(family: Navigation):
    """The expert solves it; the episode ends as it says, with the reward of arrival."""
    task = family.task("validation", 4)
    env, policy = family.make(task), expert_of([task])
    check_env(env.unwrapped, skip_render_check=True)
    seen, _ = env.reset(seed=5)
    rewards = []
    for _ in range(HORIZON):
        seen, reward, terminated, truncated, info = env.step(policy(seen[None, None])[0, 0])
        rewards.append(reward)
        if terminated or truncated:
            break
    assert terminated
    assert not truncated
    assert info["success"]
    assert rewards[-1] > 2.0 > max(rewards[:-1])
    assert sum(rewards) > 4.0  # the way, and 2 at its end
    assert 0.0 < info["spl"] <= 1.0
    assert info["collisions"] == 0.0
    for _ in range(2):
        env.reset(seed=6)
        ends = [env.step(np.zeros(2))[2:4] for _ in range(HORIZON)]
        assert ends == [(False, False)] * (HORIZON - 1) + [(False, True)]
    with pytest.raises(QuickstudyError, match="Unknown render mode of navigation 'human'"):
        family.make(task, render_mode="human")


def test_no_environment_is_in_two_splits(family: Navigation):
    """Not only is the task another one: the walls are."""
    seen: dict[str, str] = {}
    for split in family.sizes:
        for task in family.tasks(split, 15):
            assert seen.setdefault(json.dumps(task.parameters["walls"]), split) == split


@pytest.mark.parametrize("split", ["train", "validation", "procedural"])
def test_goals_are_as_far_as_said_and_starts_have_room(family: Navigation, dynamics: NavigationDynamics, split: str):
    for some, longest in ((family, 8.0), (dynamics, 6.0)):
        for task in some.tasks(split, 5):
            p = task.parameters
            assert 4.0 <= way_to(task, np.array(p["home"])) + REACHED <= longest
            grid, starts = fill(p["walls"]), navigation_tasks.starts(p)
            assert len(starts) > 5
            distances = [way_to(task, start) + REACHED for start in starts[:: max(1, len(starts) // 10)]]
            assert min(distances) >= 3.0
            assert max(distances) <= longest + 1.8
            assert not grid[tuple(np.floor(navigation_tasks.cell(starts)).astype(int).T)].any()


def test_the_oracle_receives_the_way_and_the_body(family: Navigation, dynamics: NavigationDynamics):
    task = family.task("train", 0)
    route = family.hidden(task).reshape(-1, 2) * HALF
    assert np.linalg.norm(route[-1] - task.parameters["goal"]) < 0.08  # the middle of the goal's cell
    steps = np.linalg.norm(np.diff(route, axis=0), axis=1)
    assert steps.max() < 1.3 * steps.mean()
    hidden = dynamics.hidden(Task("navigation-dynamics", "train", 0, {**task.parameters, "body": {"left": 0.5}}))
    assert np.array_equal(hidden[: len(family.hidden(task))], family.hidden(task))
    assert hidden[len(family.hidden(task)) :].tolist() == [-1.0, 0, 0, 0, 0, 0]


def test_bodies_have_defects_as_often_as_said():
    rng = np.random.default_rng(0)
    bodies = [navigation_bodies.draw(rng) for _ in range(600)]
    weak, slip, load = (
        np.array([getter(body) for body in bodies])
        for getter in (lambda b: min(b.left, b.right) < 1, lambda b: b.grip < 1, lambda b: b.payload > 0)
    )
    assert weak.mean() == pytest.approx(2 / 3, abs=0.06)
    assert slip.mean() == pytest.approx(1 / 2, abs=0.06)
    assert load.mean() == pytest.approx(1 / 2, abs=0.06)
    assert (~(weak | slip | load)).mean() == pytest.approx(1 / 12, abs=0.04)
    assert all(max(body.left, body.right) == 1 for body in bodies)
    assert min(min(body.left, body.right) for body in bodies) >= navigation_bodies.WEAK[0]
    assert navigation_bodies.caption(Body(right=0.6, grip=0.1)) == "right motor 60%, grip 0.10"
    assert navigation_bodies.caption(Body()) == "healthy"


# ---- the robot


def test_it_stands_on_its_wheels_and_stays_where_it_is():
    state = stands(0.0, 0.0, 0.3)
    poses = drive(state, (0.0, 0.0), 10)
    assert np.abs(poses - poses[0]).max() < 1e-3
    assert state.worlds.data[0].qpos[2] == pytest.approx(ROBOT.wheel_radius, abs=1e-3)
    assert not state.touching[0]


@pytest.mark.parametrize(("forward", "turn"), [(1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.5, 0.2), (0.5, -0.4)])
def test_it_moves_as_a_differential_drive(forward: float, turn: float):
    """v and w are what the action says: a step goes v t far and turns w t."""
    poses = drive(stands(0.0, 0.0, 0.0), (forward, turn), 8)
    way, turned = np.linalg.norm(np.diff(poses[:, :2], axis=0), axis=1), np.diff(np.unwrap(poses[:, 2]))
    wanted = turn * MAX_TURN * SECONDS
    assert way[-1] == pytest.approx(abs(forward) * MAX_SPEED * SECONDS, rel=0.05, abs=2e-3)
    assert turned[-1] == pytest.approx(wanted, rel=0.05, abs=0.01)


def test_a_weak_motor_bends_the_way():
    """The left wheel goes half as fast: w = (0.7 - 0.35) / 0.28 = 1.25 rad/s to the left."""
    poses = drive(stands(0.0, 0.0, 0.0, Body(left=0.5)), (1.0, 0.0), 6)
    assert np.diff(poses[:, 2])[-1] == pytest.approx(1.25 * SECONDS, rel=0.06)
    assert np.linalg.norm(np.diff(poses[:, :2], axis=0)[-1]) == pytest.approx(0.525 * SECONDS, rel=0.06)


def test_slippery_wheels_start_no_faster_than_friction_lets_them():
    """Two wheels carry the robot, friction 0.06: at most 0.06 g, 2.4 cm in 0.2 s from standing."""
    slips, grips = (drive(stands(0.0, 0.0, 0.0, body), (1.0, 0.0), 1)[-1, 0] for body in (Body(grip=0.06), Body()))
    assert slips < 0.5 * 0.06 * 9.81 * SECONDS**2 * 1.2
    assert grips > 2 * slips


def test_a_wall_stops_it_and_is_counted_once():
    state = stands(4.0, 0.0, 0.0)
    poses = drive(state, (1.0, 0.0), 12)
    assert poses[-1, 0] == pytest.approx(4.9 - ROBOT.radius, abs=0.01)
    assert state.collisions[0] == 1
    drive(state, (-1.0, 0.0), 3)
    drive(state, (1.0, 0.0), 6)
    assert state.collisions[0] == 2


# ---- odometry and success


def test_without_errors_odometry_is_the_truth_and_path_is_what_was_driven():
    state = stands(-1.0, 0.5, 0.4)
    poses = drive(state, (0.8, 0.1), 15)
    assert np.allclose(state.believed[0], state.pose()[0], atol=1e-9)
    assert state.path[0] == pytest.approx(np.linalg.norm(np.diff(poses[:, :2], axis=0), axis=1).sum())
    seen = state._observe()[0, 0]
    assert len(seen) == len(OBSERVATION)
    assert np.allclose(seen[:2] * HALF, state.pose()[0, :2], atol=1e-6)
    assert np.allclose(seen[2:4], [np.cos(state.pose()[0, 2]), np.sin(state.pose()[0, 2])], atol=1e-6)
    assert seen[4] * LIDAR_RANGE == pytest.approx(state.ranges[0, 0], rel=1e-6)


def test_a_scale_error_stretches_and_a_heading_error_turns_what_is_believed():
    """Two metres east, believed to be ten per cent longer and a right angle to the left."""
    state = stands(-1.0, 0.0, 0.0)
    state._scale[:], state.believed[0, 2] = 1.1, np.pi / 2
    moved = drive(state, (1.0, 0.0), 12)[-1] - [-1.0, 0.0, 0.0]
    assert moved[0] > 1.5
    assert np.allclose(state.believed[0, :2] - [-1.0, 0.0], [-1.1 * moved[1], 1.1 * moved[0]], atol=1e-9)
    assert state.believed[0, 2] == pytest.approx(np.pi / 2 + moved[2])


def test_the_headings_error_walks_with_the_way():
    state = stands(-4.0, 0.0, 0.0, goal=(0.0, 4.0))
    state._yaw_noise[:] = 1.0  # every step errs by one deviation
    drive(state, (1.0, 0.0), 10)
    way = state.path[0] / 10
    assert state.believed[0, 2] - state.pose()[0, 2] == pytest.approx(10 * YAW_PER_METRE * np.sqrt(way), rel=0.1)


def test_an_episode_ends_within_reach_of_the_goal_and_a_demonstration_where_it_is_believed_to_be():
    state = stands(-1.0, 0.0, 0.0, goal=(0.0, 0.0))
    poses = drive(state, (1.0, 0.0), 12)
    assert state.success[0]
    assert -REACHED <= poses[-1, 0] < -REACHED + 0.14
    assert state.steps[0] == np.flatnonzero(poses[:, 0] >= -REACHED)[0]
    assert state.steps[0] < 12
    state.demonstrating = True
    state.believed[0, 0] = -1.0  # far off, so that it does not stop, though it is there
    stands_still = np.zeros((1, 1, 2))
    result = state.step(stands_still, np.ones((1, 1), bool))
    assert not result.over.any()
    assert not result.success.any()
    state.believed[0, :2] = 0.05, 0.0
    result = state.step(stands_still, np.ones((1, 1), bool))
    assert result.terminated.all()
    assert result.success.all()


def test_spl_by_hand():
    """Anderson et al. 2018, eq. 1: S l / max(p, l)."""
    success, path, shortest = np.array([1, 1, 1, 0]), np.array([5.0, 4.0, 3.9, 4.0]), np.full(4, 4.0)
    assert spl(success, path, shortest).tolist() == [0.8, 1.0, 1.0, 0.0]


def test_the_shortest_way_ends_where_the_goal_counts_as_reached(family: Navigation):
    p = navigation_tasks.parameters(walls(EMPTY), np.array([-3.05, 0.05]), np.array([2.05, 0.05]))
    task = Task("navigation", "own", 0, p)
    assert way_to(task, np.array([-3.05, 0.05, 1.0])) == pytest.approx(5.1 - REACHED)
    result = family.run_expert([task], 3, 0)
    assert result["success"].all()
    assert np.allclose(result["spl"], 1 / np.maximum(result["detour"], 1.0))
    assert result["spl"].min() > 0.93
    assert not result["collisions"].any()


# ---- demonstrations


def test_noise_has_the_deviation_that_is_said():
    state = stands(0.0, 0.0, 0.0)
    begin(state, np.zeros((1, 3)))
    assert state.noise[0].std() == pytest.approx(ACTION_NOISE, rel=0.1)


@pytest.mark.parametrize("kind", ["family", "dynamics"])
def test_demonstrations_end_at_the_goal_and_hold_clean_actions(kind: str, request: pytest.FixtureRequest):
    some = request.getfixturevalue(kind)
    tasks = some.tasks("train", 4)
    for task, shown in zip(tasks, some.demonstrate(tasks, 2, seed=0), strict=True):
        expert = expert_of([task])
        for demonstration in shown:
            last = demonstration.observations[-1, :2] * HALF
            assert np.linalg.norm(last - task.parameters["goal"]) < 0.1 + MAX_SPEED * SECONDS
            again = expert(demonstration.observations[None])[0]
            assert np.allclose(again, demonstration.actions, atol=1e-5)


@pytest.mark.parametrize("kind", ["family", "dynamics"])
def test_the_expert_succeeds_at_a_good_path(kind: str, request: pytest.FixtureRequest):
    some = request.getfixturevalue(kind)
    tasks = some.tasks("validation", 20)
    result = some.run_expert(tasks, 2, 0)
    assert result["success"].mean() >= 0.98
    assert result["spl"].mean() > 0.85
    assert result["collisions"].mean() < 0.05


def test_results_do_not_depend_on_company_or_threads(family: Navigation):
    tasks = family.tasks("procedural", 3)
    alone = Navigation(threads=1)
    together = family.run_expert(tasks, 2, 7)
    single = alone.run_expert(tasks[2:], 2, 7)
    assert all(np.array_equal(together[name][2:], single[name]) for name in together)


# ---- pictures


def test_a_snapshot_shows_walls_way_and_goal(family: Navigation):
    task = family.task("train", 0)
    picture = family.snapshot(task, 200)
    assert picture.shape == (200, 200, 3)
    row, column = np.floor(navigation_tasks.cell(np.array(task.parameters["goal"])) * 2).astype(int)
    assert tuple(picture[row, column]) == (40, 160, 80)
    assert tuple(picture[0, 0]) == (90, 98, 112)


def test_a_film_ends_with_the_episode(family: Navigation):
    if not rendering.available():
        pytest.skip("nothing here can draw")
    task = family.task("train", 1)
    frames = family.film(task, expert_of([task]), 0, width=80, height=80)
    steps = family.run_expert([task], 1, 0)["steps"][0, 0]
    assert frames.shape == (steps + 1, 80, 80, 3)
    assert len(np.unique(frames[0].reshape(-1, 3), axis=0)) > 10
    assert not np.array_equal(frames[0], frames[-1])


# ---- what is refused, in one sentence


def test_runs_and_policies_that_are_none(family: Navigation, dynamics: NavigationDynamics):
    tasks = family.tasks("train", 2)
    with pytest.raises(QuickstudyError, match="Running needs tasks and episodes; got 2 tasks, 0 episodes"):
        family.run(tasks, 0, lambda seen: seen, 0)
    with pytest.raises(QuickstudyError, match="needs tasks and episodes; got 0 tasks"):
        family.run([], 1, lambda seen: seen, 0)
    with pytest.raises(QuickstudyError, match=r"returns actions \(2, 1, 2\); got \(2, 1, 48\)"):
        family.run(tasks, 1, lambda seen: seen, 0)
    with pytest.raises(QuickstudyError, match="The policy's actions for task navigation/train/0 are not finite"):
        family.run(tasks, 1, lambda seen: np.full((2, 1, 2), np.nan), 0)
    with pytest.raises(QuickstudyError, match="Asked for 0 demonstrations of each task"):
        family.demonstrate(tasks, 0, 0)
    with pytest.raises(QuickstudyError, match="navigation/train/0 is not of the family 'navigation-dynamics'"):
        dynamics.run(tasks, 1, lambda seen: seen, 0)


def test_a_task_without_a_way_says_that_its_expert_failed(family: Navigation, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Navigation, "attempts", 1)
    grid = EMPTY.copy()
    grid[:, 50] = True
    shut = Task(
        "navigation", "own", 0, navigation_tasks.parameters(walls(grid), np.array([-3.0, 0.0]), np.array([3.0, 0.0]))
    )
    with pytest.raises(QuickstudyError, match="The expert failed to demonstrate task navigation/own/0 in 1 attempts"):
        family.demonstrate([shut], 1, 0)
