"""A robot of one's own that cannot grasp is told why before anything runs: what a hand needs, and what is at fault."""

import importlib.util
from pathlib import Path

import mujoco
import numpy as np
import pytest

from quickstudy import families
from quickstudy.errors import QuickstudyError
from quickstudy.families.grasping.arm import Arm, carry_by_mocap
from quickstudy.families.grasping.family import Grasping
from quickstudy.families.grasping.robot_check import NEEDS, check_robot
from quickstudy.families.grasping.sawyer import SAWYER

_SPEC = importlib.util.spec_from_file_location("own_robot", Path(__file__).parents[2] / "examples/own_robot.py")
own_robot = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(own_robot)


def gantry(changes: dict[str, str] | None = None, carried: bool = True, **states) -> Arm:
    """The example's robot with parts of its MJCF replaced, and other statements."""
    text = own_robot.MJCF
    for part, other in (changes or {}).items():
        assert text.count(part) == 1, part
        text = text.replace(part, other)

    class Changed(own_robot.Gantry):
        def spec(self, visual: bool) -> mujoco.MjSpec:
            spec = mujoco.MjSpec.from_string(text)
            if carried:
                carry_by_mocap(spec)
            return spec

    for name, value in states.items():
        setattr(Changed, name, value)
    return Changed()


@pytest.mark.parametrize("arm", [SAWYER, own_robot.Gantry(), gantry()], ids=["sawyer", "gantry", "changed by nothing"])
def test_robots_that_grasp_pass(arm: Arm):
    check_robot(arm)


YAW = '<joint type="hinge" axis="0 0 1" damping="1"/>'
Z = '<joint axis="0 0 1"/>'
Y = '<joint axis="0 1 0"/>'
TOOL = '<site name="tool"/>'


@pytest.mark.parametrize(
    ("changes", "states", "said"),
    [
        (
            {YAW: ""}, {"home": np.array([0.0, 0.6, 0.15]), "joints": 3},
            "cannot move its hand about the vertical .yaw.: none of the joint of body 'x', .*body 'z' moves it so",
        ),
        ({Z: '<joint name="lift" axis="0 1 0"/>'}, {}, "cannot move its hand along z: none of .*'lift' of body 'z'"),
        ({Z: '<joint axis="0 0 1" limited="true" range="0 1e-9"/>'}, {}, "along z: .*body 'z' has a range of no width"),
        ({YAW: '<joint type="hinge" axis="1 0 0" damping="1"/>'}, {}, "cannot move its hand about the vertical"),
        (
            {YAW: '<joint type="hinge" axis="0 0.8 1" damping="1"/>'}, {},
            "about the vertical .yaw.: the joint of body 'hand' would move it aside or tilt it",
        ),
        (
            {Y: '<joint name="way" axis="0 1 0" limited="true" range="0 0.62"/>'}, {},
            "does not bring its hand to .* from the table's middle.*'way' of body 'y' is at the end of its range",
        ),
        ({TOOL: '<site name="tool" euler="0 90 0"/>'}, {}, "1.57 rad off; no joint is at its end: mind home"),
        ({TOOL: '<site name="tip"/>'}, {}, "has no site named 'tool'"),
        ({'name="left_touch"': 'name="left_pad"'}, {}, "has no site named 'left_touch'"),
        ({}, {"finger_joints": ("right", "links")}, "has no joint named 'links'"),
        ({}, {"joints": 9}, "places its hand by 9 joints and states 4 positions for home, but its model has 6"),
        ({}, {"home": np.zeros(5), "joints": 5}, "by joint 'right' of body 'right', which the site 'tool'"),
        ({'<motor joint="right" gear="20" ctrlrange="-1 1"/>': ""}, {}, "has 1 actuators, but its control gives 2"),
        (
            {Z: '<joint name="lift" axis="0 0 1"/>', '<motor joint="right"': '<motor joint="lift"'}, {},
            "drives joint 'lift' of body 'z' by the actuator '0'",
        ),
        ({'<geom name="palm"': '<geom name="shell" size="0.1 0.1 0.1" pos="0 0 0.2" mass="0.3" contype="1"/> '
          '<geom name="palm"', "<worldbody>": '<worldbody> <body name="shelf" pos="0 0.6 0.475"> '
          '<geom size="0.3 0.3 0.005" contype="1"/> </body>'}, {},
         "does not follow when its hand is carried along .*: body 'shelf' touches body 'hand'"),
        (
            {Z: '<joint name="lift" axis="0 0 1" damping="1e6"/>'}, {},
            "does not follow when its hand is carried along z: joint 'lift' of body 'z' has damping 1e.06",
        ),
        (
            {'pos="0 -0.05 0.02"': 'pos="-0.05 0 0.02"', 'pos="0 0.05 0.02"': 'pos="0.05 0 0.02"'},
            {}, "must close its fingers along the y axis of the site 'tool'",
        ),
        ({}, {"control": lambda self, grip: -np.repeat(grip[:, None], 2, axis=1)}, "opens its fingers to .*grip of -1"),
        ({}, {"widest": 0.2}, "a widest opening of 0.2 m, but its touch sites are 0.110 m apart"),
        ({'contype="0" conaffinity="1" condim="4"': 'contype="0" conaffinity="0" condim="4"'}, {},
         "has no geom that objects touch in body 'right'"),
    ],
)  # fmt: skip
def test_what_a_robot_lacks_is_named(changes: dict[str, str], states: dict, said: str):
    with pytest.raises(QuickstudyError, match=said) as error:
        check_robot(gantry(changes, **states))
    assert str(error.value).endswith(NEEDS) or "cannot be made" in str(error.value)


def test_a_hand_that_nothing_carries():
    with pytest.raises(QuickstudyError, match="carried by one mocap body, see carry_by_mocap; it has 0"):
        check_robot(gantry(carried=False))


def test_a_robot_that_states_too_little():
    class Bare(Arm):
        home = np.zeros(4)

        def spec(self, visual: bool) -> mujoco.MjSpec:
            return mujoco.MjSpec()

        def control(self, grip: np.ndarray) -> np.ndarray:
            return grip[:, None]

    with pytest.raises(QuickstudyError, match="The robot Bare does not state its widest"):
        check_robot(Bare())


def test_a_family_of_such_a_robot_is_not_made():
    class Unfit(Grasping):
        name, arm = "grasping-unfit", gantry({YAW: ""}, home=np.array([0.0, 0.6, 0.15]), joints=3)

    with pytest.raises(QuickstudyError, match=r"free in x, y, z and yaw"):
        Unfit()


def test_a_model_in_a_folder_of_its_own_with_includes_and_meshes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trimesh = pytest.importorskip("trimesh")
    folder = tmp_path / "mein roboter"
    (folder / "assets/visual").mkdir(parents=True)
    palm = trimesh.creation.box((0.04, 0.12, 0.03))
    (folder / "assets/visual/palm.stl").write_bytes(palm.export(file_type="stl"))
    text = own_robot.MJCF.replace(
        '<geom name="palm" size="0.02 0.06 0.015"', '<geom name="palm" type="mesh" mesh="palm"'
    ).replace(
        "<mujoco>",
        '<mujoco><compiler meshdir="assets" autolimits="true"/>'
        '<asset><mesh name="palm" file="visual/palm.stl"/></asset>',
    )
    (folder / "gantry.xml").write_text(text)
    (folder / "robot.xml").write_text('<mujoco model="outer"><include file="gantry.xml"/></mujoco>')

    class Mine(own_robot.Gantry):
        def spec(self, visual: bool) -> mujoco.MjSpec:
            spec = mujoco.MjSpec.from_file(str(folder / "robot.xml"))
            carry_by_mocap(spec)
            return spec

    class Family(Grasping):
        name, arm = "grasping-mine", Mine()

    monkeypatch.chdir("/")
    family = Family(threads=1)
    tasks = family.tasks("shapes", 8)
    assert family.run_expert(tasks, 1, seed=0)["success"].mean() == 1.0
    (folder / "assets/visual/palm.stl").unlink()

    class Lost(Mine):
        pass

    with pytest.raises(QuickstudyError, match=r"The model of the robot Lost cannot be made .*palm\.stl"):
        check_robot(Lost())


def test_check_of_a_robot_says_it_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = own_robot.__loader__.get_source("own_robot").replace(Z, '<joint axis="0 1 0"/>')
    (tmp_path / "bent_robot.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(QuickstudyError, match=r"The robot Gantry cannot move its hand along z: none of .*body 'z'"):
        families.get("bent_robot:GraspingGantry")
