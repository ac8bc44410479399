"""The grasping family keeps the contract of a family, and its tasks need their demonstration."""

import itertools
import json

import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from quickstudy.errors import QuickstudyError
from quickstudy.families.grasping import scene
from quickstudy.families.grasping.family import HELD_OUT_SHAPES, TRAIN_SHAPES, WIDTHS, Grasping
from quickstudy.families.grasping.sawyer import SAWYER
from quickstudy.families.grasping.scene import build
from quickstudy.families.grasping.vector_env import HIDDEN_SCALE, HORIZON, LIFT, TILT, GraspingVectorEnv, expert
from quickstudy.simulation import rendering
from quickstudy.simulation.vector_env import StepResult
from quickstudy.task import Policy, Task


@pytest.fixture(scope="module")
def family() -> Grasping:
    return Grasping(threads=2)


def of_every_shape(family: Grasping, each: int) -> list[Task]:
    tasks = family.tasks("train", 60 * each) + family.tasks("shapes", 20 * each)
    of = {shape: [task for task in tasks if task.parameters["shape"] == shape][:each] for shape in scene.SHAPES}
    assert all(len(found) == each for found in of.values())
    return [task for found in of.values() for task in found]


def expert_of(family: Grasping, tasks: list[Task]) -> Policy:
    hidden = np.stack([family.hidden(task) for task in tasks])[:, None]
    return lambda seen: expert(seen, hidden)


def one(task: Task, visual: bool = False) -> GraspingVectorEnv:
    return GraspingVectorEnv([task], 1, threads=1, visual=visual)


def act(env: GraspingVectorEnv, action: np.ndarray) -> StepResult:
    return env.step(np.broadcast_to(action, (*env.shape, 5)), np.ones(env.shape, bool))


def never_closes(observations: np.ndarray) -> np.ndarray:
    return np.zeros((*observations.shape[:2], 5))


# ---- tasks


def test_bands_of_training_validation_and_sizes_are_disjoint():
    bands = sorted(band for split in ("train", "validation", "sizes") for band in WIDTHS[split])
    assert all(low < high for low, high in bands)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(bands))


def test_drawn_tasks_keep_to_their_split(family: Grasping):
    for split in family.sizes:
        for task in family.tasks(split, 300):
            width, shape = task.parameters["grip_width"], task.parameters["shape"]
            assert any(low <= width < high for low, high in WIDTHS[split])
            assert shape in (HELD_OUT_SHAPES if split == "shapes" else TRAIN_SHAPES)
    assert not set(HELD_OUT_SHAPES) & set(TRAIN_SHAPES)


def test_a_task_is_plain_data_and_always_the_same(family: Grasping):
    for split in family.sizes:
        task = family.task(split, 7)
        assert Task(task.family, split, 7, json.loads(json.dumps(task.parameters))) == family.task(split, 7)


def test_what_is_hidden_is_about_unit_range_and_says_where_to_hold(family: Grasping):
    tasks = family.tasks("train", 400)
    hidden = np.stack([family.hidden(task) for task in tasks])
    assert hidden.dtype == np.float32
    assert hidden.shape == (400, family.hidden_size)
    assert np.abs(hidden).max() < 2.5
    assert np.all(hidden.std(axis=0) > 0.15)
    # A hand at the hidden place in the tag's frame is right above the object's origin and aligned with it.
    for task, (x, y, _, yaw, _) in zip(tasks[:20], hidden * HIDDEN_SCALE, strict=False):
        model = build(task)
        site = model.site("tag")
        tag_yaw = 2 * np.arctan2(site.quat[3], site.quat[0])
        assert np.allclose(site.pos[:2] + scene.rotate(np.array([x, y]), np.array(tag_yaw)), 0.0, atol=1e-6)
        assert tag_yaw + yaw == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("shape", scene.SHAPES)
def test_an_object_is_as_wide_as_its_task_says_and_rests_on_the_table(family: Grasping, shape: str):
    task = next(task for task in of_every_shape(family, 1) if task.parameters["shape"] == shape)
    model = build(task)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    low, high = _extent_along_y(model, data)
    assert high - low == pytest.approx(task.parameters["grip_width"], abs=1e-4)
    assert high == pytest.approx(-low, abs=1e-4)
    assert model.body("object").subtreemass[0] == pytest.approx(task.parameters["mass"])
    env = one(task)
    env.reset([np.random.default_rng(0)])
    start = env.worlds.data[0].qpos[-7:].copy()
    for _ in range(20):
        act(env, np.zeros(5))
    assert np.linalg.norm(env.worlds.data[0].qpos[-7:] - start) < 0.01  # it neither falls nor rolls nor explodes


def _extent_along_y(model: mujoco.MjModel, data: mujoco.MjData) -> tuple[float, float]:
    """How far the object's first geom (the one to be held) reaches along its own y axis, found by rays."""
    if model.nmesh:
        geom = model.body("object").geomadr[0]
        corners = model.mesh_vert @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom]
        return float(corners[:, 1].min()), float(corners[:, 1].max())
    centre, ends = data.site("centre").xpos, []
    for side in (-1.0, 1.0):
        hit = np.zeros(1, dtype=np.int32)
        start = np.array([0.0, 0.3 * side, centre[2]])
        distance = mujoco.mj_ray(model, data, start, np.array([0.0, -side, 0.0]), None, 1, -1, hit)
        ends.append(side * (0.3 - distance))
    return ends[0], ends[1]


def test_fingers_open_and_close_symmetrically(family: Grasping):
    env = one(family.task("train", 0))
    env.reset([np.random.default_rng(0)])
    for grip, opening in ((1.0, SAWYER.narrowest), (-1.0, SAWYER.widest)):
        for _ in range(15):
            seen = act(env, np.array([0.0, 0.0, 1.0, 0.0, grip])).observations[0, 0]
        fingers = env.read("fingers")[0]
        assert fingers[0] == pytest.approx(fingers[1], abs=1e-3)
        assert 0.1 * seen[4] == pytest.approx(opening, abs=3e-3)


# ---- the environment


def test_check_env(family: Grasping):
    check_env(family.make(family.task("train", 0)), skip_render_check=True)


def test_an_expert_solves_the_environment(family: Grasping):
    task = family.task("train", 1)
    env, hidden = family.make(task), family.hidden(task)
    observation, _ = env.reset(seed=3)
    for step in itertools.count(1):  # noqa: B007
        observation, reward, terminated, truncated, info = env.step(expert(observation, hidden))
        if terminated or truncated:
            break
    assert (reward, terminated, truncated, info["success"]) == (1.0, True, False, True)
    assert 30 < step < HORIZON


def test_a_grasp_is_rewarded_once_in_the_step_that_completes_it(family: Grasping):
    tasks = family.tasks("train", 2)
    env = family.vector_env(tasks, 2)
    env.reset_all(np.random.default_rng(0))
    active, total = np.ones((2, 2), bool), np.zeros((2, 2))
    for _ in range(HORIZON):
        result = env.step(env.expert_action(), active)
        assert np.array_equal(result.rewards, (result.success & active).astype(float))
        total, active = total + result.rewards, active & ~result.over
    assert np.array_equal(total, np.ones((2, 2)))
    assert family.learned_from == ("demonstrations", "trials")


def test_time_out_is_truncation(family: Grasping):
    env = family.make(family.task("train", 1))
    env.reset(seed=0)
    for step in range(HORIZON):
        _, _, terminated, truncated, _ = env.step(np.zeros(5, dtype=np.float32))
        assert not terminated
        assert truncated == (step == HORIZON - 1)


def test_the_visual_scene_has_the_same_dynamics(family: Grasping):
    for task in of_every_shape(family, 1)[::4]:  # the two scenes differ in the robot, whatever the object
        light, visual = (one(task, look) for look in (False, True))
        seen = [env.reset([task.generator(0, 0, 0)]) for env in (light, visual)]
        over = False
        while not over:
            assert np.array_equal(*seen)
            results = [act(env, env.expert_action()) for env in (light, visual)]
            seen, over = [result.observations for result in results], results[0].over.all()
        assert light.success[0]
        assert visual.success[0]


@pytest.mark.skipif(not rendering.available(), reason="nothing here can draw")
def test_film_and_snapshot(family: Grasping):
    task = family.task("shapes", 0)
    hidden = family.hidden(task)
    film = family.film(task, lambda seen: expert(seen, hidden), seed=0, width=64, height=48)
    steps = family.run([task], 1, lambda seen: expert(seen, hidden), 0)["steps"][0, 0]
    assert film.shape == (steps + 1, 48, 64, 3)
    assert film.dtype == np.uint8
    assert np.abs(film[0].astype(float) - film[-1]).mean() > 1.0
    assert family.snapshot(task, width=64, height=48).shape == (48, 64, 3)
    env = family.make(task, render_mode="rgb_array")
    env.reset(seed=0)
    assert env.render().shape == (360, 480, 3)


# ---- running and demonstrating


def test_the_expert_succeeds_in_every_shape(family: Grasping):
    tasks = of_every_shape(family, 4)
    result = family.run_expert(tasks, 1, seed=0)
    success = result["success"].reshape(len(scene.SHAPES), 4)
    assert success.mean() >= 0.96
    assert np.all(success.mean(axis=1) >= 0.75)
    assert 40 <= np.median(result["steps"]) <= 75


def test_doing_nothing_never_succeeds(family: Grasping):
    result = family.run(family.tasks("train", 4), 2, never_closes, seed=0)
    assert result["success"].shape == (4, 2)
    assert not result["success"].any()
    assert not result["lifted"].any()
    assert np.all(result["steps"] == HORIZON)


def test_the_demonstration_is_needed(family: Grasping):
    tasks = family.tasks("train", 12)
    average = np.mean([family.hidden(task) for task in family.tasks("train", 300)], axis=0)
    assert family.run(tasks, 1, lambda seen: expert(seen, average), seed=1)["success"].mean() < 0.25
    others = np.roll([family.hidden(task) for task in tasks], 1, axis=0)[:, None]
    assert family.run(tasks, 1, lambda seen: expert(seen, others), seed=1)["success"].mean() < 0.25


def test_the_first_observation_tells_nothing_about_what_is_hidden(family: Grasping):
    tasks = family.tasks("train", 300)
    env = GraspingVectorEnv(tasks, 1, threads=2)
    start = env.reset([task.generator(0, 0, 0) for task in tasks])[:, 0]
    hidden = np.stack([family.hidden(task) for task in tasks])
    correlation = np.corrcoef(start[:, :4].T, hidden.T)[:4, 4:]
    assert np.abs(correlation).max() < 0.2  # 0.06 is one standard error
    assert np.ptp(start[:, 4:], axis=0).max() < 0.01  # the rest is the same for all


def test_a_replayed_demonstration_mostly_fails(family: Grasping):
    tasks = family.tasks("train", 12)
    demonstrations = [found[0] for found in family.demonstrate(tasks, 1, seed=0)]
    step = iter(range(HORIZON))

    def replay(_: np.ndarray) -> np.ndarray:
        now = next(step)
        return np.stack([found.actions[min(now, len(found) - 1)] for found in demonstrations])[:, None]

    assert family.run(tasks, 1, replay, seed=1)["success"].mean() < 0.3


def test_letting_go_after_the_lift_is_a_failure(family: Grasping):
    tasks = family.tasks("train", 4)
    right = expert_of(family, tasks)

    def lets_go(seen: np.ndarray) -> np.ndarray:
        actions = right(seen)
        actions[..., 4] = np.where(seen[..., 7] > 1.3 * LIFT / 0.1, -1.0, actions[..., 4])
        return actions

    result = family.run(tasks, 1, lets_go, seed=0)
    assert result["lifted"].all()
    assert result["slipped"].all()
    assert not result["success"].any()
    assert np.all(result["steps"] < HORIZON)


def test_a_lifted_object_that_turns_or_moves_in_the_hand_counts_as_slipped(family: Grasping):
    for change in (tilt, shift):
        task = family.task("train", 1)
        env = one(task)
        env.reset([np.random.default_rng(0)])
        while not env.lifted[0]:
            act(env, env.expert_action())
        assert not env.slipped[0]
        change(env)
        env._judge(np.array([0]))
        assert env.slipped[0]
        assert not env.success[0]


def tilt(env: GraspingVectorEnv) -> None:
    env.read("object_z")[0] = [np.sin(1.1 * TILT), 0, np.cos(1.1 * TILT)]


def shift(env: GraspingVectorEnv) -> None:
    env.read("object_in_hand")[0] += [0.0, 0.0, 0.021]


def test_results_do_not_depend_on_threads_company_or_chunks():
    tasks = Grasping().tasks("train", 3)
    one, two = Grasping(threads=1), Grasping(threads=3)
    one.demonstrated_at_once = 3
    a, b = (family.run_expert(tasks, 2, seed=4)["steps"] for family in (one, two))
    alone = one.run_expert(tasks[2:], 2, seed=4)["steps"]
    assert np.array_equal(a, b)
    assert np.array_equal(a[2:], alone)
    for p, q in zip(one.demonstrate(tasks, 2, seed=4), two.demonstrate(tasks, 2, seed=4), strict=True):
        for x, y in zip(p, q, strict=True):
            assert np.array_equal(x.observations, y.observations)
            assert np.array_equal(x.actions, y.actions)


def test_demonstrations_differ_and_hold_the_clean_actions_of_the_expert(family: Grasping):
    tasks = family.tasks("validation", 3)
    for task, found in zip(tasks, family.demonstrate(tasks, 3, seed=1), strict=True):
        assert len({demonstration.observations.tobytes() for demonstration in found}) == 3
        for demonstration in found:
            assert np.array_equal(demonstration.actions, expert(demonstration.observations, family.hidden(task)))
            assert demonstration.observations[-1, 7] > 0.8  # still up at the end: it succeeded
    again = family.demonstrate(tasks, 1, seed=2)[0][0]
    assert not np.array_equal(again.observations[0], family.demonstrate(tasks, 1, seed=1)[0][0].observations[0])


def test_a_task_that_cannot_be_demonstrated_is_named(family: Grasping):
    task = family.task("train", 0)
    slippery = Task("grasping", "train", 0, {**task.parameters, "mass": 40.0})
    with pytest.raises(QuickstudyError, match="failed to demonstrate task grasping/train/0 in 8 attempts"):
        family.demonstrate([slippery], 1, seed=0)


def test_bad_input(family: Grasping):
    task = family.task("train", 0)
    with pytest.raises(QuickstudyError, match="at least one is needed"):
        family.demonstrate([task], 0, seed=0)
    with pytest.raises(QuickstudyError, match="needs tasks and episodes"):
        family.run([], 1, never_closes, seed=0)
    with pytest.raises(QuickstudyError, match=r"returns actions \(1, 1, 5\); got \(1, 1, 4\)"):
        family.run([task], 1, lambda seen: np.zeros((1, 1, 4)), seed=0)
    with pytest.raises(QuickstudyError, match="not finite"):
        family.run([task], 1, lambda seen: np.full((1, 1, 5), np.nan), seed=0)
    with pytest.raises(QuickstudyError, match="Unknown shape 'torus'"):
        scene.build(Task("grasping", "own", 0, {**task.parameters, "shape": "torus"}))
    with pytest.raises(QuickstudyError, match="render mode"):
        family.make(task, render_mode="human")
    with pytest.raises(QuickstudyError, match="sinusoid/train/0"):
        family.make(Task("sinusoid", "train", 0, {}))
