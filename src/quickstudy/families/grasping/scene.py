"""The scene of the grasping family: a robot, a table and one object, with the sensors that an episode reads.

Two variants of the same physics: a light one without meshes or textures for learning, and one with visuals for film.

Frames: the body 'object' has its origin at the bottom of the object, straight below the right grasp point, and its
x axis along the right grasp's fingers (they close along y). The site 'tag' is a marker fixed to the object.
"""

import colorsys
import functools
from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np
from mujoco import mjtGeom, mjtObj, mjtSensor

from quickstudy.errors import unknown
from quickstudy.families.grasping.arm import TABLE_CENTRE, Arm
from quickstudy.families.grasping.meshes import Solid, cached
from quickstudy.families.grasping.sawyer import SAWYER
from quickstudy.task import Task

Parameters = Mapping[str, Any]
SHAPES = ("box", "cylinder", "sphere", "capsule", "ellipsoid", "l_shape", "t_shape", "mesh")
SOLID = "solid"
"""The shape of an object from a mesh file; its convex parts are in the cache, see `meshes.cached`."""
TIMESTEP = 0.0025
_COLOUR = 2
"""Purpose of a task's random generator."""

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


def build(task: Task, visual: bool = False, arm: Arm = SAWYER) -> Any:
    """Compiles the model of one task; its object's colour belongs to the task.

    Args:
        task: of `quickstudy.families.grasping.family`.
        visual: with meshes, textures and cameras; the dynamics are the same.
        arm: the robot.
    """
    parameters = task.parameters
    colour = colorsys.hsv_to_rgb(task.generator(_COLOUR).uniform(), 0.65, 0.9)
    spec = robot_and_table(arm, visual).copy()
    body = spec.worldbody.add_body(name="object")
    body.add_freejoint(name="object")
    tag_pos, tag_yaw = tag_in_object(parameters)
    body.add_site(name="tag", pos=[*tag_pos, 0.0], quat=_yaw_quat(tag_yaw), size=[0.004] * 3, rgba=[0, 0, 0, 0])
    body.add_site(name="centre", pos=[0, 0, parameters["grasp_height"]], size=[0.004] * 3, rgba=[0, 0, 0, 0])
    surface = _add_solid(spec, body, parameters) if parameters["shape"] == SOLID else None
    if surface is None:
        _add_shape(spec, body, parameters)
    for geom in body.geoms:
        geom.rgba = [*colour, 1.0]
        geom.contype, geom.conaffinity, geom.condim = 1, 1, 4
        geom.friction = [parameters["friction"], 0.004, 0.002]
        geom.solref, geom.solimp = [0.006, 1.0], [0.95, 0.99, 0.001, 0.5, 2.0]
    if surface is not None and visual:
        _show(spec, body, surface, colour)
    _add_sensors(spec, arm)
    return spec.compile()


def tag_in_object(parameters: Parameters) -> tuple[np.ndarray, float]:
    """The tag's place [2] and yaw in the object's frame: the inverse of the grasp in the tag's frame."""
    yaw = -parameters["grasp_yaw"]
    return -rotate(np.array([parameters["grasp_x"], parameters["grasp_y"]]), np.array(yaw)), yaw


def rotate(points: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Rotates points [..., 2] by angles [...] counter-clockwise."""
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([c * points[..., 0] - s * points[..., 1], s * points[..., 0] + c * points[..., 1]], -1)


def wrapped(angle: np.ndarray) -> np.ndarray:
    """The same angles [...] within -pi..pi."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def object_pose(model: mujoco.MjModel, tag: np.ndarray) -> np.ndarray:
    """Place and orientation [7] of the object that put its tag at [x, y, yaw], x and y from the table's centre."""
    site = model.site("tag")
    yaw = tag[2] - 2.0 * np.arctan2(site.quat[3], site.quat[0])
    place = TABLE_CENTRE[:2] + tag[:2] - rotate(site.pos[:2], np.array(yaw))
    return np.array([*place, 0.0, *_yaw_quat(yaw)])


def _yaw_quat(yaw: float) -> list[float]:
    return [float(np.cos(yaw / 2)), 0.0, 0.0, float(np.sin(yaw / 2))]


@functools.cache
def robot_and_table(arm: Arm, visual: bool) -> mujoco.MjSpec:
    """Robot and table without the object; parsed once for each variant."""
    spec = arm.spec(visual)
    _set_options(spec)
    _compensate_gravity(spec)
    spec.worldbody.add_geom(
        name="table", type=mjtGeom.mjGEOM_PLANE, size=[0.7, 0.4, 0.1], pos=TABLE_CENTRE, group=3, contype=1,
        conaffinity=0, condim=6, friction=[0.6, 0.004, 0.002],
    )  # fmt: skip
    if visual:
        _add_camera(spec, "film", position=(0.40, 1.05, 0.36), target=(0.0, 0.6, 0.085), fovy=38.0)
        _add_camera(spec, "close", position=(0.24, 0.92, 0.24), target=(0.0, 0.6, 0.05), fovy=42.0)
    return spec


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


def _compensate_gravity(spec: mujoco.MjSpec) -> None:
    """Carries the arm's own weight, as a real controller does, so that the hand does not sag."""
    for body in spec.bodies:
        if body.name != "world":
            body.gravcomp = 1.0


def _add_camera(spec: mujoco.MjSpec, name: str, position: tuple, target: tuple, fovy: float) -> None:
    back = np.subtract(position, target)
    back /= np.linalg.norm(back)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    matrix = np.stack([right, np.cross(back, right), back], axis=1)
    quat = np.empty(4)
    mujoco.mju_mat2Quat(quat, matrix.ravel())
    spec.worldbody.add_camera(name=name, pos=position, quat=quat, fovy=fovy)


def _add_sensors(spec: mujoco.MjSpec, arm: Arm) -> None:
    """In the order of `SENSORS`."""
    site = mjtObj.mjOBJ_SITE
    spec.add_sensor(name="tool", type=mjtSensor.mjSENS_FRAMEPOS, objtype=site, objname="tool")
    spec.add_sensor(name="tag", type=mjtSensor.mjSENS_FRAMEPOS, objtype=site, objname="tag")
    spec.add_sensor(name="tag_x", type=mjtSensor.mjSENS_FRAMEXAXIS, objtype=site, objname="tag")
    spec.add_sensor(name="hand_y", type=mjtSensor.mjSENS_FRAMEYAXIS, objtype=site, objname="tool")
    relative = spec.add_sensor(name="held", type=mjtSensor.mjSENS_FRAMEPOS, objtype=site, objname="centre")
    relative.reftype, relative.refname = site, "tool"
    for kind, label in ((mjtSensor.mjSENS_JOINTPOS, "pos"), (mjtSensor.mjSENS_JOINTVEL, "vel")):
        for joint in arm.finger_joints:
            spec.add_sensor(name=f"{joint}_{label}", type=kind, objtype=mjtObj.mjOBJ_JOINT, objname=joint)
    for name in ("right", "left"):
        spec.add_sensor(name=f"{name}_touch", type=mjtSensor.mjSENS_TOUCH, objtype=site, objname=f"{name}_touch")
    spec.add_sensor(name="centre", type=mjtSensor.mjSENS_FRAMEPOS, objtype=site, objname="centre")
    spec.add_sensor(name="object_z", type=mjtSensor.mjSENS_FRAMEZAXIS, objtype=site, objname="centre")


def _add_shape(spec: mujoco.MjSpec, body: Any, p: Parameters) -> None:
    """Adds the object's geoms; the body's origin is below the grasp point, at the bottom."""
    shape, width, length, height, mass = p["shape"], p["grip_width"], p["length"], p["height"], p["mass"]
    half = [length / 2, width / 2, height / 2]
    solids = {
        "box": (mjtGeom.mjGEOM_BOX, half),
        "cylinder": (mjtGeom.mjGEOM_CYLINDER, [width / 2, height / 2, 0]),
        "sphere": (mjtGeom.mjGEOM_SPHERE, [width / 2, 0, 0]),
        "capsule": (mjtGeom.mjGEOM_CAPSULE, [width / 2, (length - width) / 2, 0]),
        "ellipsoid": (mjtGeom.mjGEOM_ELLIPSOID, half),
    }
    if shape in solids:
        kind, size = solids[shape]
        turn = [np.sqrt(0.5), 0, np.sqrt(0.5), 0] if shape == "capsule" else [1, 0, 0, 0]
        body.add_geom(type=kind, size=size, pos=[0, 0, height / 2], quat=turn, mass=mass)
    elif shape in ("l_shape", "t_shape"):
        _add_two_bars(body, p)
    elif shape == "mesh":
        mesh = spec.add_mesh(name="object")
        mesh.uservert = mesh_vertices(p).ravel().tolist()
        mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_CONVEX
        body.add_geom(type=mjtGeom.mjGEOM_MESH, meshname="object", mass=mass)
    else:
        raise unknown("shape", shape, (*SHAPES, SOLID))


def _add_solid(spec: mujoco.MjSpec, body: Any, p: Parameters) -> Solid:
    """Adds the convex parts of an object from a file; its inertia is that of its whole volume."""
    solid = cached(p["solid"])
    spec.memory = 1 << 21  # up to a dozen parts touch the table and the fingers
    for number, corners in enumerate(solid.parts):
        mesh = spec.add_mesh(name=f"part_{number}")
        mesh.uservert = corners.ravel().tolist()
        mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_CONVEX
        body.add_geom(type=mjtGeom.mjGEOM_MESH, meshname=mesh.name, pos=p["shift"], quat=p["quat"], mass=0.0, group=3)
    matrix = np.empty(9)
    mujoco.mju_quat2Mat(matrix, np.array(p["quat"]))
    turn = matrix.reshape(3, 3)
    inertia = p["mass"] * turn @ solid.inertia @ turn.T
    body.explicitinertial, body.mass = True, p["mass"]
    body.ipos = turn @ solid.centre + p["shift"]
    body.fullinertia = [*np.diag(inertia), inertia[0, 1], inertia[0, 2], inertia[1, 2]]
    return solid


def _show(spec: mujoco.MjSpec, body: Any, solid: Solid, colour: tuple[float, float, float]) -> None:
    """Adds the surface of an object from a file to look at, in place of its parts; nothing touches it."""
    parts = body.first_geom()
    mesh = spec.add_mesh(name="surface")
    mesh.uservert, mesh.userface = solid.vertices.ravel().tolist(), solid.faces.ravel().tolist()
    mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_CONVEX
    body.add_geom(
        type=mjtGeom.mjGEOM_MESH, meshname=mesh.name, pos=parts.pos, quat=parts.quat, mass=0.0, contype=0,
        conaffinity=0, rgba=[*colour, 1.0],
    )  # fmt: skip


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
