"""Grasping with a second robot: a Franka Panda with a Robotiq 2F-85, from the gym-hil wheel (Apache licence).

Same tasks, same learners; this file is all that the library knows about the robot, and so the model for one's own.
"""

import functools
import importlib.util
from pathlib import Path

import mujoco
import numpy as np
from mujoco import mjtGeom

from quickstudy.errors import QuickstudyError
from quickstudy.families.grasping.arm import TABLE_CENTRE, Arm, carry_by_mocap, furnish
from quickstudy.families.grasping.family import Grasping

_LINK, _OPEN_ANGLE = float(np.hypot(0.037, 0.044)), float(np.arctan2(0.037, 0.044))
"""Each finger is a parallelogram: the length of its link, metres, and the link's angle to the hand's axis when open."""
_PIVOT_TO_PAD = 0.0056
"""How much farther from the hand's axis a pad's surface is than the end of its link, metres."""
_TOOL, _OPEN_TIP = 0.14, 0.1497
"""The tool, and the tips of the open gripper, from the gripper's base along the hand, metres."""
_TORQUE, _SPEED = 5.0, 1.5
"""Of the two fingers together, newton metres, and radians a second: about 50 N at each pad, and the real 150 mm/s."""


class Panda(Arm):
    """Carried like the Sawyer by a mocap body; its gripper is the real linkage, whose tips go down as they close."""

    home = np.array([0.0, 0.1929, 0.0, -2.3306, 0.0, 2.5235, -0.7854])
    widest = 0.085
    tip_below_tool = _OPEN_TIP - _TOOL
    clearance = 0.045
    finger = (0.02, 0.022)
    finger_joints = ("right_driver_joint", "left_driver_joint")

    def check(self) -> None:
        model_file()

    def spec(self, visual: bool) -> mujoco.MjSpec:
        spec = mujoco.MjSpec.from_file(str(model_file()))
        _remove_extras(spec, visual)
        spec.body("link0").pos = TABLE_CENTRE - [0.0, 0.5, 0.0]
        spec.body("link0").quat = [np.sqrt(0.5), 0.0, 0.0, np.sqrt(0.5)]
        _add_touch(spec)
        carry_by_mocap(spec)
        if visual:
            furnish(spec)
        return spec

    def control(self, grip: np.ndarray) -> np.ndarray:
        return grip[:, None]

    def opening(self, travel: np.ndarray, speed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        angle = _OPEN_ANGLE - travel
        half, change = _PIVOT_TO_PAD + _LINK * np.sin(angle), -_LINK * np.cos(angle) * speed
        return half.sum(axis=1), change.sum(axis=1)

    def tips(self, opening: np.ndarray) -> np.ndarray:
        """The tips go down by 13 mm as they close, because a parallelogram's end moves on a circle."""
        aside = np.clip((opening / 2 - _PIVOT_TO_PAD) / _LINK, -1.0, 1.0)
        return self.tip_below_tool + _LINK * (np.sqrt(1.0 - aside**2) - np.cos(_OPEN_ANGLE))


class GraspingPanda(Grasping):
    """The family of grasping tasks with the Panda."""

    name = "grasping-panda"
    arm = Panda()


@functools.cache
def model_file() -> Path:
    """The robot's MJCF file; the package that holds it is never imported, because that needs a game pad's drivers."""
    found = importlib.util.find_spec("gym_hil")
    if found is None or found.origin is None:
        raise QuickstudyError(
            "The Panda's model comes with the package gym-hil, which is not installed: run "
            "'pip install --no-deps gym-hil' (its other dependencies are for game pads)."
        )
    return Path(found.origin).parent / "assets/panda.xml"


def _remove_extras(spec: mujoco.MjSpec, visual: bool) -> None:
    """Removes the arm's motors, all sensors, cameras and hulls; the light variant keeps nothing but the pads."""
    for element in [*spec.sensors, *spec.cameras, *spec.sites]:
        element.delete()
    for actuator in list(spec.actuators):
        if actuator.name != "fingers_actuator":
            actuator.delete()
    fingers = spec.actuator("fingers_actuator")
    fingers.ctrlrange, fingers.gainprm[0] = [-1, 1], _TORQUE
    fingers.biasprm[1], fingers.biasprm[2] = 0.0, -_TORQUE / _SPEED
    for exclude in list(spec.excludes):
        exclude.delete()
    for body in spec.bodies:
        if not body.explicitinertial and body.name != "world":
            body.explicitinertial, body.mass, body.inertia = True, 0.01, [1e-6] * 3
            body.ipos = [0, 0, 0]
    for geom in list(spec.geoms):
        if geom.type == mjtGeom.mjGEOM_BOX:
            continue
        geom.contype = geom.conaffinity = 0
        if not visual or geom.group == 3:
            geom.delete()
    if not visual:
        for element in [*spec.meshes, *spec.materials, *spec.textures]:
            element.delete()


def _add_touch(spec: mujoco.MjSpec) -> None:
    """The tool, the palm, and pads that touch objects as the Sawyer's do: the object's friction decides."""
    base = spec.body("base")
    base.add_site(name="tool", pos=[0, 0, _TOOL], quat=[0, 0, 1, 0], size=[0.004] * 3, rgba=[0, 0, 0, 0])
    base.add_geom(
        name="palm", type=mjtGeom.mjGEOM_BOX, size=[0.03, 0.045, 0.03], pos=[0, 0, 0.064], contype=0, conaffinity=1,
        group=3,
    )  # fmt: skip
    for side in ("right", "left"):
        for name in (f"{side}_pad1", f"{side}_pad2"):
            pad = spec.geom(name)
            pad.contype, pad.conaffinity, pad.condim, pad.priority = 0, 1, 4, 0
            pad.friction, pad.solref, pad.solimp = [0.7, 0.004, 0.002], [0.006, 1.0], [0.95, 0.99, 0.001, 0.5, 2.0]
        spec.body(f"{side}_pad").add_site(
            name=f"{side}_touch", type=mjtGeom.mjGEOM_BOX, pos=[0, -0.0026, 0.01875], size=[0.014, 0.007, 0.022],
            rgba=[0, 0, 0, 0],
        )  # fmt: skip
