"""A robot is one file: the Panda and the example's gantry do the same tasks as the Sawyer, nothing else changed."""

import importlib.util
from pathlib import Path

import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from quickstudy import families
from quickstudy.errors import QuickstudyError
from quickstudy.families.grasping import panda as grasping_panda
from quickstudy.families.grasping import scene
from quickstudy.families.grasping.arm import TABLE_CENTRE, Arm
from quickstudy.families.grasping.family import WIDTHS, Grasping
from quickstudy.families.grasping.panda import GraspingPanda
from quickstudy.families.grasping.sawyer import SAWYER
from quickstudy.families.grasping.scene import build
from quickstudy.families.grasping.vector_env import HORIZON, GraspingVectorEnv, expert
from quickstudy.simulation import rendering
from quickstudy.simulation.vector_env import StepResult

needs_panda = pytest.mark.skipif(importlib.util.find_spec("gym_hil") is None, reason="gym-hil is not installed")
EXAMPLE = Path(__file__).parents[2] / "examples/own_robot.py"


def own_robot():
    spec = importlib.util.spec_from_file_location("own_robot", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def families_of_arms() -> list:
    made = [pytest.param(Grasping, id="sawyer"), pytest.param(own_robot().GraspingGantry, id="gantry")]
    return [*made, pytest.param(GraspingPanda, id="panda", marks=needs_panda)]


@pytest.fixture(scope="module", params=families_of_arms())
def family(request: pytest.FixtureRequest) -> Grasping:
    return request.param(threads=2)


@pytest.fixture(scope="module")
def arm(family: Grasping) -> Arm:
    return family.arm


@pytest.fixture
def env(family: Grasping, arm: Arm) -> GraspingVectorEnv:
    made = GraspingVectorEnv([family.task("train", 0)], 1, arm, 1)
    made.reset([np.random.default_rng(0)])
    return made


def act(env: GraspingVectorEnv, action: np.ndarray) -> StepResult:
    return env.step(np.broadcast_to(action, (*env.shape, 5)), np.ones(env.shape, bool))


def test_the_hand_is_placed_anywhere_that_an_episode_starts(family: Grasping, arm: Arm):
    model = build(family.task("train", 0), arm=arm)
    data = mujoco.MjData(model)
    for x, y, z, yaw in [(0.06, -0.06, 0.12, 0.3), (-0.06, 0.06, 0.20, -0.3), (0.0, 0.0, 0.15, 0.0)]:
        mujoco.mj_resetData(model, data)
        target = TABLE_CENTRE + [x, y, z]
        arm.place_hand(model, data, target, yaw)
        mujoco.mj_forward(model, data)
        assert np.allclose(data.site("tool").xpos, target, atol=1e-5)
        closing = data.site("tool").xmat.reshape(3, 3)[:, 1]
        assert np.allclose(closing, [-np.sin(yaw), np.cos(yaw), 0.0], atol=1e-5)
        low, high = model.jnt_range[: arm.joints].T
        limited = model.jnt_limited[: arm.joints].astype(bool)
        places = data.qpos[: arm.joints]
        assert np.all((places > low + 0.05) & (places < high - 0.05) | ~limited)


def test_the_hand_stays_where_it_was_placed(env: GraspingVectorEnv):
    start = env.read("tool")[0].copy()
    env.noise[:] = 0.0
    for _ in range(10):
        act(env, np.array([0.0, 0.0, 0.0, 0.0, -1.0]))
    assert np.linalg.norm(env.read("tool")[0] - start) < 0.002


def test_what_the_joints_say_of_the_opening_is_where_the_fingers_are(env: GraspingVectorEnv, arm: Arm):
    """The observed opening against the distance between the touch sites, while the fingers close on nothing."""
    data = env.worlds.data[0]
    places = data.site("right_touch").xpos, data.site("left_touch").xpos
    shut = np.linalg.norm(places[0] - places[1]) - arm.widest
    for grip, opening in ((1.0, arm.narrowest), (-1.0, arm.widest)):
        for _ in range(20):
            seen = act(env, np.array([0.0, 0.0, 1.0, 0.0, grip])).observations[0, 0]
            assert 0.1 * seen[4] == pytest.approx(np.linalg.norm(places[0] - places[1]) - shut, abs=2.5e-3)
        assert 0.1 * seen[4] == pytest.approx(opening, abs=3e-3)
        assert abs(0.2 * seen[5]) < 0.02
    travel, speed = np.array([[0.021, 0.021]]), np.array([[0.3, 0.3]])
    (now,), (rate,) = arm.opening(travel, speed)
    (later,), _ = arm.opening(travel + 1e-6 * speed, speed)
    assert rate == pytest.approx((later - now) / 1e-6, rel=1e-4)


def test_light_and_visual_scene_move_alike(family: Grasping, arm: Arm):
    task = family.task("train", 3)
    light, visual = (GraspingVectorEnv([task], 1, arm, 1, look) for look in (False, True))
    seen, over = [made.reset([task.generator(0, 0, 0)]) for made in (light, visual)], False
    while not over:
        assert np.array_equal(*seen)
        results = [act(made, made.expert_action()) for made in (light, visual)]
        seen, over = [result.observations for result in results], results[0].over.all()
    assert light.success[0]
    assert visual.success[0]


def test_the_expert_succeeds_with_every_arm(family: Grasping):
    tasks = family.tasks("train", 30)
    result = family.run_expert(tasks, 1, seed=0)
    assert result["success"].mean() >= 0.93
    assert np.median(result["steps"]) <= 75


def test_doing_nothing_never_succeeds(family: Grasping):
    result = family.run(family.tasks("train", 2), 1, lambda seen: np.zeros((*seen.shape[:2], 5)), seed=0)
    assert not result["success"].any()
    assert np.all(result["steps"] == HORIZON)


def test_check_env(family: Grasping):
    check_env(family.make(family.task("train", 0)), skip_render_check=True)


def test_every_arm_has_the_same_learning_problem(family: Grasping):
    assert family.observation_size == Grasping.observation_size
    assert family.sizes == Grasping.sizes
    for split in ("train", "sizes"):
        widths = [task.parameters["grip_width"] for task in family.tasks(split, 200)]
        assert all(any(low <= width < high for low, high in WIDTHS[split]) for width in widths)
        assert max(widths) < family.arm.widest


def test_demonstrations_are_clean_and_repeatable(family: Grasping):
    tasks = family.tasks("validation", 2)
    one, other = (family.demonstrate(tasks, 1, seed=1) for _ in range(2))
    for task, (a,), (b,) in zip(tasks, one, other, strict=True):
        assert np.array_equal(a.observations, b.observations)
        assert np.array_equal(a.actions, expert(a.observations, family.hidden(task)))
        assert a.observations[-1, 7] > 0.8


@pytest.mark.skipif(not rendering.available(), reason="nothing here can draw")
def test_a_picture_shows_something(family: Grasping):
    picture = family.snapshot(family.task("train", 0), width=64, height=48)
    assert picture.shape == (48, 64, 3)
    assert picture.std() > 10


# ---- the Panda alone


@needs_panda
def test_the_tips_of_the_linkage_go_down_as_they_close():
    family = GraspingPanda()
    model = build(family.task("train", 0), arm=family.arm)
    data = mujoco.MjData(model)
    assert family.arm.tips(np.array([family.arm.widest]))[0] == pytest.approx(family.arm.tip_below_tool, abs=2e-4)
    for grip in (-1.0, 1.0):
        mujoco.mj_resetData(model, data)
        family.arm.place_hand(model, data, TABLE_CENTRE + [0.0, 0.0, 0.3], 0.0)
        data.mocap_pos[0], data.mocap_quat[0] = family.arm.mocap(TABLE_CENTRE + [0.0, 0.0, 0.3], np.array(0.0))
        data.ctrl[:] = family.arm.control(np.array([grip]))[0]
        mujoco.mj_step(model, data, 600)
        pad = data.geom("right_pad1")
        corners = np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1]), -1).reshape(-1, 3) * model.geom("right_pad1").size
        lowest = (corners @ pad.xmat.reshape(3, 3).T + pad.xpos)[:, 2].min()
        travel = data.sensordata[scene.SENSORS["fingers"]][None]
        opening, _ = family.arm.opening(travel, np.zeros((1, 2)))
        assert data.site("tool").xpos[2] - lowest == pytest.approx(family.arm.tips(opening)[0], abs=1e-3)


@needs_panda
def test_only_the_gripper_is_driven_by_actuators():
    model = build(GraspingPanda().task("train", 0), arm=GraspingPanda.arm)
    assert (model.nu, model.nmesh, model.nmocap) == (1, 0, 1)


@needs_panda
def test_the_command_line_knows_it_and_trains_it_like_the_sawyer():
    assert isinstance(families.get("grasping-panda"), GraspingPanda)
    assert GraspingPanda.method_settings is Grasping.method_settings
    assert GraspingPanda.default_method == Grasping.default_method == "meta-sgd"


def test_without_the_package_one_sentence_says_what_to_run(monkeypatch: pytest.MonkeyPatch):
    grasping_panda.model_file.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(QuickstudyError, match="gym-hil, which is not installed: run 'pip install --no-deps gym-hil'"):
        GraspingPanda()


# ---- a robot of one's own


def test_a_sliding_gripper_needs_no_formula_of_its_own():
    travel, speed = np.array([[0.01, 0.02]]), np.array([[0.1, 0.3]])
    opening, change = SAWYER.opening(travel, speed)
    assert opening == pytest.approx([SAWYER.widest - 0.03])
    assert change == pytest.approx([-0.4])


def test_the_example_is_short_and_lifts_unseen_objects():
    code = [line for line in EXAMPLE.read_text().splitlines() if line.strip()]
    assert len(code) <= 80
    assert own_robot().main(tasks=16) >= 0.8
