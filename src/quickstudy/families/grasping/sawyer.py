"""The first robot of the grasping family: a Sawyer with a parallel gripper of our own.

The arm comes from the metaworld wheel (MIT licence); the gripper is two boxes with force motors.
"""

import mujoco
import numpy as np
from metaworld.asset_path_utils import full_V3_path_for
from mujoco import mjtGeom, mjtObj

from quickstudy.families.grasping.arm import Arm

_FINGER_LENGTH, _TIP = 0.06, 0.045
"""Metres; the finger tips reach `_TIP` below the hand's origin."""
_FORCE, _DAMPING, _ARMATURE = 20.0, 100.0, 0.5
"""Of each finger: newton at full command; newton seconds a metre, so that a free finger moves at force / damping."""


class Sawyer(Arm):
    """Its mocap body is the hand's own frame, which lies above the tool and points down."""

    home = np.array([0.9113, -1.2127, 0.5874, 1.887, -0.2384, 0.9661, -2.9317])
    widest, narrowest = 0.105, 0.012
    clearance = _FINGER_LENGTH - Arm.tip_below_tool
    finger = (0.01, 0.024)
    finger_joints = ("r_close", "l_close")

    def spec(self, visual: bool) -> mujoco.MjSpec:
        spec = mujoco.MjSpec.from_file(full_V3_path_for("sawyer_xyz/sawyer_pick_place_v3.xml"))
        _remove_scenery(spec, visual)
        _own_gripper(spec)
        return spec

    def control(self, grip: np.ndarray) -> np.ndarray:
        return np.repeat(grip[:, None], 2, axis=1)

    def tool_quat(self, yaw: np.ndarray) -> np.ndarray:
        c, s = np.cos(yaw / 2), np.sin(yaw / 2)
        return np.stack([c, -s, c, s], axis=-1) * np.sqrt(0.5)

    def mocap(self, target: np.ndarray, yaw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return target + [0.0, 0.0, _TIP - Arm.tip_below_tool], self.tool_quat(yaw)


SAWYER = Sawyer()


def _remove_scenery(spec: mujoco.MjSpec, visual: bool) -> None:
    """Removes the original object and goal and, for the light variant, everything that only a camera would see."""
    spec.detach_body(spec.body("obj"))
    for site in list(spec.sites):
        site.delete()
    for camera in list(spec.cameras):
        camera.delete()
    for geom in list(spec.geoms):
        geom.contype = geom.conaffinity = 0
        if not visual or geom.parent.name in ("hand", "rightclaw", "rightpad", "leftclaw", "leftpad"):
            geom.delete()
    if not visual:
        # Bodies stay, even those without a geom: MuJoCo's sums run over them, and both variants must round alike.
        for element in [*spec.meshes, *spec.materials, *spec.textures, *spec.lights]:
            element.delete()


def _own_gripper(spec: mujoco.MjSpec) -> None:
    """Two coupled fingers with force motors, a touch sensor in each, a palm, and the weld that carries the hand."""
    for actuator in list(spec.actuators):
        actuator.delete()
    hand = spec.body("hand")
    hand.explicitinertial, hand.mass, hand.inertia = True, 0.3, [3e-4] * 3
    thickness, width = Sawyer.finger
    half = [_FINGER_LENGTH / 2, thickness / 2, width / 2]
    hand.add_site(name="tool", pos=[_TIP - Arm.tip_below_tool, 0, 0], size=[0.004] * 3, rgba=[0, 0, 0, 0])
    palm = _TIP - _FINGER_LENGTH
    hand.add_geom(
        name="palm", type=mjtGeom.mjGEOM_BOX, size=[0.018, 0.065, 0.016], pos=[palm - 0.018, 0, 0], contype=0,
        conaffinity=1, rgba=[0.25, 0.25, 0.28, 1],
    )  # fmt: skip
    for name, side in (("right", -1.0), ("left", 1.0)):
        spec.detach_body(spec.body(f"{name}pad"))
        finger = spec.body(f"{name}claw")
        finger.pos = [0, side * Sawyer.widest / 2, 0]
        finger.explicitinertial, finger.mass, finger.inertia = True, 0.1, [5e-5] * 3
        finger.ipos = [0, 0, 0]
        joint = finger.first_joint()
        joint.axis, joint.damping, joint.armature = [0, -side, 0], _DAMPING, _ARMATURE
        joint.range = [0, (Sawyer.widest - Sawyer.narrowest) / 2]
        centre = [_TIP - half[0], side * half[1]]
        for part, z in (("front", 0.5), ("back", -0.5)):  # two pads: a stone touches them in two points at least
            finger.add_geom(
                name=f"{name}_{part}", type=mjtGeom.mjGEOM_BOX, pos=[*centre, z * half[2]],
                size=[half[0], half[1], half[2] / 2], contype=0, conaffinity=1, condim=4,
                friction=[0.3, 0.004, 0.002], solref=[0.006, 1.0], solimp=[0.95, 0.99, 0.001, 0.5, 2.0],
                rgba=[0.15, 0.15, 0.17, 1],
            )  # fmt: skip
        finger.add_site(
            name=f"{name}_touch", type=mjtGeom.mjGEOM_BOX, pos=[*centre, 0], size=[x + 0.003 for x in half],
            rgba=[0, 0, 0, 0],
        )  # fmt: skip
        motor = spec.add_actuator(name=f"{name}_motor", target=joint.name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        motor.ctrlrange, motor.ctrllimited = [-1, 1], True
        motor.gainprm[0] = _FORCE
    couple = spec.add_equality(name="couple", type=mujoco.mjtEq.mjEQ_JOINT, objtype=mjtObj.mjOBJ_JOINT)
    couple.name1, couple.name2, couple.data[:2] = "r_close", "l_close", [0.0, 1.0]
    weld = spec.equalities[0]
    weld.solref = [0.03, 1.0]
    weld.data = [0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 5.0]
