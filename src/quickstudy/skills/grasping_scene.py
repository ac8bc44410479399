"""The scene of the grasping family: a Sawyer arm with a parallel gripper, a table and one object.

The arm comes from the metaworld wheel (MIT licence); the gripper, the contacts, the sensors and the object are ours.
Two variants of the same physics: a light one without meshes or textures for learning, and one with visuals for film.

Frames: the body 'object' has its origin at the bottom of the object, straight below the right grasp point, and its
x axis along the right grasp's fingers (they close along y). The site 'tag' is a marker fixed to the object.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from metaworld.asset_path_utils import full_V3_path_for
from mujoco import mjtGeom, mjtObj, mjtSensor

from quickstudy.errors import unknown

Parameters = Mapping[str, Any]
SHAPES = ("box", "cylinder", "sphere", "capsule", "ellipsoid", "l_shape", "t_shape", "mesh")


@dataclass(frozen=True)
class Gripper:
    """Lengths in metres; the fingers point down and close along the hand's y axis."""

    widest: float = 0.105
    narrowest: float = 0.012
    finger_length: float = 0.06
    finger_width: float = 0.024
    finger_thickness: float = 0.01
    tip: float = 0.045
    """How far the finger tips reach below the hand's origin."""
    tip_below_tool: float = 0.008
    """How far the finger tips reach below the tool centre point."""
    force: float = 20.0
    """Newton, each finger, at full command."""
    damping: float = 100.0
    """Newton seconds a metre, each finger: a free finger moves at force / damping."""
    armature: float = 0.5


GRIPPER = Gripper()
TIMESTEP = 0.0025
TABLE_CENTRE = np.array([0.0, 0.6, 0.0])
HOME_JOINTS = np.array([0.9113, -1.2127, 0.5874, 1.887, -0.2384, 0.9661, -2.9317])
"""Elbow up, hand over the middle of the table, every joint far from its limits; radians."""

SENSORS = {
    "tool": slice(0, 3),
    "tag": slice(3, 6),
    "tag_x": slice(6, 9),
    "hand_y": slice(9, 12),
    "object_in_hand": slice(12, 15),
    "fingers": slice(15, 17),
    "finger_speeds": slice(17, 19),
    "pads": slice(19, 21),
    "centre": slice(21, 24),
    "object_z": slice(24, 27),
}
"""Where each reading lies in `sensordata`; metres, metres a second, newton."""


def build(parameters: Parameters, visual: bool = False, colour: tuple[float, float, float] = (0.8, 0.3, 0.2)) -> Any:
    """Compiles the model of one task.

    Args:
        parameters: of the task, see `quickstudy.skills.grasping`.
        visual: with meshes, textures and cameras; the dynamics are the same.
        colour: of the object, red, green, blue in 0..1.
    """
    spec = _base(visual).copy()
    body = spec.worldbody.add_body(name="object")
    body.add_freejoint(name="object")
    tag_pos, tag_yaw = tag_in_object(parameters)
    body.add_site(name="tag", pos=[*tag_pos, 0.0], quat=_yaw_quat(tag_yaw), size=[0.004] * 3, rgba=[0, 0, 0, 0])
    body.add_site(name="centre", pos=[0, 0, parameters["grasp_height"]], size=[0.004] * 3, rgba=[0, 0, 0, 0])
    _add_shape(spec, body, parameters)
    for geom in body.geoms:
        geom.rgba = [*colour, 1.0]
        geom.contype, geom.conaffinity, geom.condim = 1, 1, 4
        geom.friction = [parameters["friction"], 0.004, 0.002]
        geom.solref, geom.solimp = [0.006, 1.0], [0.95, 0.99, 0.001, 0.5, 2.0]
    _add_sensors(spec)
    return spec.compile()


def tag_in_object(parameters: Parameters) -> tuple[np.ndarray, float]:
    """The tag's place [2] and yaw in the object's frame: the inverse of the grasp in the tag's frame."""
    yaw = -parameters["grasp_yaw"]
    return -rotate(np.array([parameters["grasp_x"], parameters["grasp_y"]]), np.array(yaw)), yaw


def rotate(points: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Rotates points [..., 2] by angles [...] counter-clockwise."""
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([c * points[..., 0] - s * points[..., 1], s * points[..., 0] + c * points[..., 1]], -1)


def hand_quat(yaw: np.ndarray) -> np.ndarray:
    """The hand's orientation [..., 4], fingers down, turned by yaw [...] about the vertical."""
    c, s = np.cos(yaw / 2), np.sin(yaw / 2)
    return np.stack([c, -s, c, s], axis=-1) * np.sqrt(0.5)


def object_pose(model: mujoco.MjModel, tag: np.ndarray) -> np.ndarray:
    """Place and orientation [7] of the object that put its tag at [x, y, yaw], x and y from the table's centre."""
    site = model.site("tag")
    yaw = tag[2] - 2.0 * np.arctan2(site.quat[3], site.quat[0])
    place = TABLE_CENTRE[:2] + tag[:2] - rotate(site.pos[:2], np.array(yaw))
    return np.array([*place, 0.0, *_yaw_quat(yaw)])


def place_hand(model: mujoco.MjModel, data: mujoco.MjData, target: np.ndarray, yaw: float) -> None:
    """Sets the arm's joints so that the tool is at `target` [3] with a yaw, by damped least squares from home."""
    site, arm = model.site("tool").id, len(HOME_JOINTS)
    low, high = model.jnt_range[:arm].T
    data.qpos[:arm] = HOME_JOINTS
    place, turn, rotation = np.empty((3, model.nv)), np.empty((3, model.nv)), np.empty(4)
    wanted, error = hand_quat(np.array(yaw)), np.empty(6)
    for _ in range(20):
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_jacSite(model, data, place, turn, site)
        mujoco.mju_mat2Quat(rotation, data.site_xmat[site])
        mujoco.mju_negQuat(rotation, rotation)
        mujoco.mju_mulQuat(rotation, wanted, rotation)
        mujoco.mju_quat2Vel(error[3:], rotation, 1.0)
        error[:3] = target - data.site_xpos[site]
        if np.abs(error).max() < 1e-6:
            break
        jacobian = np.concatenate([place, turn])[:, :arm]
        step = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + 1e-4 * np.eye(6), error)
        data.qpos[:arm] = np.clip(data.qpos[:arm] + step, low, high)


def _yaw_quat(yaw: float) -> list[float]:
    return [float(np.cos(yaw / 2)), 0.0, 0.0, float(np.sin(yaw / 2))]


@functools.cache
def _base(visual: bool) -> mujoco.MjSpec:
    """Arm, gripper and table without the object; parsed once for each variant."""
    spec = mujoco.MjSpec.from_file(full_V3_path_for("sawyer_xyz/sawyer_pick_place_v3.xml"))
    _remove_scenery(spec, visual)
    _set_options(spec)
    _calm_arm(spec)
    _own_gripper(spec)
    spec.worldbody.add_geom(
        name="table", type=mjtGeom.mjGEOM_PLANE, size=[0.7, 0.4, 0.1], pos=TABLE_CENTRE, group=3, contype=1,
        conaffinity=0, condim=6, friction=[0.6, 0.004, 0.002],
    )  # fmt: skip
    if visual:
        _add_camera(spec, "film", position=(0.40, 1.05, 0.36), target=(0.0, 0.6, 0.085), fovy=38.0)
        _add_camera(spec, "close", position=(0.24, 0.92, 0.24), target=(0.0, 0.6, 0.05), fovy=42.0)
    return spec


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


def _set_options(spec: mujoco.MjSpec) -> None:
    spec.option.timestep = TIMESTEP
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.impratio = 50.0  # stiff friction: a held object does not creep out of the fingers
    spec.option.iterations, spec.option.tolerance = 20, 1e-8
    # An unstable world must be reported, not quietly set back to its beginning.
    spec.option.disableflags = mujoco.mjtDisableBit.mjDSBL_AUTORESET
    spec.compiler.inertiagrouprange = [0, 5]
    spec.memory = 1 << 18  # bytes of scratch memory for each world: about 100 contacts
    # Software rendering is ten times slower with shadows and antialiasing.
    spec.visual.quality.shadowsize = spec.visual.quality.offsamples = 0


def _calm_arm(spec: mujoco.MjSpec) -> None:
    """The arm's controller carries its own weight, as the real one's does, so that the hand does not sag."""
    for body in spec.bodies:
        if body.name != "world":
            body.gravcomp = 1.0


def _own_gripper(spec: mujoco.MjSpec) -> None:
    """Two coupled fingers with force motors, a touch sensor in each, a palm, and the weld that carries the hand."""
    for actuator in list(spec.actuators):
        actuator.delete()
    hand = spec.body("hand")
    hand.explicitinertial, hand.mass, hand.inertia = True, 0.3, [3e-4] * 3
    half = [GRIPPER.finger_length / 2, GRIPPER.finger_thickness / 2, GRIPPER.finger_width / 2]
    hand.add_site(name="tool", pos=[GRIPPER.tip - GRIPPER.tip_below_tool, 0, 0], size=[0.004] * 3, rgba=[0, 0, 0, 0])
    palm = GRIPPER.tip - GRIPPER.finger_length
    hand.add_geom(
        name="palm", type=mjtGeom.mjGEOM_BOX, size=[0.018, 0.065, 0.016], pos=[palm - 0.018, 0, 0], contype=0,
        conaffinity=1, rgba=[0.25, 0.25, 0.28, 1],
    )  # fmt: skip
    for name, side in (("right", -1.0), ("left", 1.0)):
        spec.detach_body(spec.body(f"{name}pad"))
        finger = spec.body(f"{name}claw")
        finger.pos = [0, side * GRIPPER.widest / 2, 0]
        finger.explicitinertial, finger.mass, finger.inertia = True, 0.1, [5e-5] * 3
        finger.ipos = [0, 0, 0]
        joint = finger.first_joint()
        joint.axis, joint.damping, joint.armature = [0, -side, 0], GRIPPER.damping, GRIPPER.armature
        joint.range = [0, (GRIPPER.widest - GRIPPER.narrowest) / 2]
        centre = [GRIPPER.tip - half[0], side * half[1]]
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
        motor.gainprm[0] = GRIPPER.force
    couple = spec.add_equality(name="couple", type=mujoco.mjtEq.mjEQ_JOINT, objtype=mjtObj.mjOBJ_JOINT)
    couple.name1, couple.name2, couple.data[:2] = "r_close", "l_close", [0.0, 1.0]
    weld = spec.equalities[0]
    weld.solref = [0.03, 1.0]
    weld.data = [0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 5.0]


def _add_camera(spec: mujoco.MjSpec, name: str, position: tuple, target: tuple, fovy: float) -> None:
    back = np.subtract(position, target)
    back /= np.linalg.norm(back)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    matrix = np.stack([right, np.cross(back, right), back], axis=1)
    quat = np.empty(4)
    mujoco.mju_mat2Quat(quat, matrix.ravel())
    spec.worldbody.add_camera(name=name, pos=position, quat=quat, fovy=fovy)


def _add_sensors(spec: mujoco.MjSpec) -> None:
    """In the order of `SENSORS`."""
    site = mjtObj.mjOBJ_SITE
    spec.add_sensor(name="tool", type=mjtSensor.mjSENS_FRAMEPOS, objtype=site, objname="tool")
    spec.add_sensor(name="tag", type=mjtSensor.mjSENS_FRAMEPOS, objtype=site, objname="tag")
    spec.add_sensor(name="tag_x", type=mjtSensor.mjSENS_FRAMEXAXIS, objtype=site, objname="tag")
    spec.add_sensor(name="hand_y", type=mjtSensor.mjSENS_FRAMEYAXIS, objtype=site, objname="tool")
    relative = spec.add_sensor(name="held", type=mjtSensor.mjSENS_FRAMEPOS, objtype=site, objname="centre")
    relative.reftype, relative.refname = site, "tool"
    for kind, label in ((mjtSensor.mjSENS_JOINTPOS, "pos"), (mjtSensor.mjSENS_JOINTVEL, "vel")):
        for joint in ("r_close", "l_close"):
            spec.add_sensor(name=f"{joint}_{label}", type=kind, objtype=mjtObj.mjOBJ_JOINT, objname=joint)
    for name in ("right", "left"):
        spec.add_sensor(name=f"{name}_touch", type=mjtSensor.mjSENS_TOUCH, objtype=site, objname=f"{name}_touch")
    spec.add_sensor(name="centre", type=mjtSensor.mjSENS_FRAMEPOS, objtype=site, objname="centre")
    spec.add_sensor(name="object_z", type=mjtSensor.mjSENS_FRAMEZAXIS, objtype=site, objname="centre")


def _add_shape(spec: mujoco.MjSpec, body: Any, p: Parameters) -> None:
    """Adds the object's geoms; the body's origin is below the grasp point, at the bottom."""
    shape, width, length, height, mass = p["shape"], p["grip_width"], p["length"], p["height"], p["mass"]
    half = [length / 2, width / 2, height / 2]
    if shape == "box":
        body.add_geom(type=mjtGeom.mjGEOM_BOX, size=half, pos=[0, 0, height / 2], mass=mass)
    elif shape == "cylinder":
        body.add_geom(type=mjtGeom.mjGEOM_CYLINDER, size=[width / 2, height / 2, 0], pos=[0, 0, height / 2], mass=mass)
    elif shape == "sphere":
        body.add_geom(type=mjtGeom.mjGEOM_SPHERE, size=[width / 2, 0, 0], pos=[0, 0, width / 2], mass=mass)
    elif shape == "capsule":
        body.add_geom(
            type=mjtGeom.mjGEOM_CAPSULE, size=[width / 2, (length - width) / 2, 0], pos=[0, 0, width / 2],
            quat=[np.sqrt(0.5), 0, np.sqrt(0.5), 0], mass=mass,
        )  # fmt: skip
    elif shape == "ellipsoid":
        body.add_geom(type=mjtGeom.mjGEOM_ELLIPSOID, size=half, pos=[0, 0, height / 2], mass=mass)
    elif shape in ("l_shape", "t_shape"):
        _add_two_bars(body, p)
    elif shape == "mesh":
        mesh = spec.add_mesh(name="object")
        mesh.uservert = mesh_vertices(p).ravel().tolist()
        mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_CONVEX
        body.add_geom(type=mjtGeom.mjGEOM_MESH, meshname="object", mass=mass)
    else:
        raise unknown("shape", shape, SHAPES)


def _add_two_bars(body: Any, p: Parameters) -> None:
    """A bar to be held in its middle, and a bar across its end: to one side for an L, to both for a T."""
    width, length, height, across = p["grip_width"], p["length"], p["height"], p["across"]
    thick = 0.02
    volume = np.array([length * width, thick * across])
    masses = p["mass"] * volume / volume.sum()
    body.add_geom(
        type=mjtGeom.mjGEOM_BOX, size=[length / 2, width / 2, height / 2], pos=[0, 0, height / 2], mass=masses[0]
    )
    y = (across - width) / 2 if p["shape"] == "l_shape" else 0.0
    body.add_geom(
        type=mjtGeom.mjGEOM_BOX, size=[thick / 2, across / 2, height / 2], pos=[(length + thick) / 2, y, height / 2],
        mass=masses[1],
    )  # fmt: skip


def mesh_vertices(p: Parameters) -> np.ndarray:
    """The corners [vertex, 3] of a random convex stone with a flat foot and two flat flanks `grip_width` apart.

    Every corner has a partner half a turn about the vertical away, so that the stone is balanced over its grasp.
    """
    rng = np.random.default_rng(p["mesh_seed"])
    points = rng.normal(size=(14, 3))
    points = np.clip(1.35 * points / np.linalg.norm(points, axis=1, keepdims=True), -1.0, 1.0)
    foot, flank = np.array([[-1, 1], [1, 1]]), np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
    foot, flank = foot * rng.uniform(0.35, 0.6, size=(2, 2)), flank * rng.uniform(0.35, 0.6, size=(4, 2))
    foot = np.column_stack([foot, -np.ones(2)])
    flank = np.column_stack([flank[:, 0], np.ones(4), flank[:, 1]])
    half = np.concatenate([points, foot, flank])
    unit = np.concatenate([half, half * [-1.0, -1.0, 1.0]])
    return (unit + [0.0, 0.0, 1.0]) * [p["length"] / 2, p["grip_width"] / 2, p["height"] / 2]
