"""The scene of the navigation family: a robot on two driven wheels and two castors among walls, and its lidar.

The robot is a disc as large as a cleaning robot. Its wheels touch the floor and its body the walls: both are contacts
of MuJoCo. Walls are boxes. Also here: what the numbers of an action and of an observation mean, and their symmetries.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from mujoco import mjtGeom, mjtJoint, mjtTrn
from scipy.linalg import block_diag

from quickstudy.families.navigation.layouts import CELL, HALF, place
from quickstudy.task import Symmetry


@dataclass(frozen=True)
class Robot:
    """Lengths in metres, masses in kilograms."""

    radius: float = 0.18
    """Of the body, which is all that can touch a wall."""
    height: float = 0.10
    mass: float = 4.0
    wheel_radius: float = 0.05
    half_track: float = 0.14
    """From the middle to either wheel."""
    lidar_height: float = 0.2
    motor_gain: float = 0.3
    """Newton metres for each radian a second that a wheel is off its commanded speed."""
    motor_torque: float = 0.6
    """Newton metres that a motor has."""


@dataclass(frozen=True)
class Body:
    """How a robot's body responds; the default is a healthy one.

    Attributes:
        left, right: the part of its commanded speed that each motor strives for.
        grip: friction of the wheels with the floor; less slips.
        payload: kilograms on top, `payload_x` metres ahead of the middle and `payload_y` to the left of it.
    """

    left: float = 1.0
    right: float = 1.0
    grip: float = 1.0
    payload: float = 0.0
    payload_x: float = 0.0
    payload_y: float = 0.0


ROBOT = Robot()
TIMESTEP = 0.01
RAYS = 32
LIDAR_RANGE = 5.0
"""Metres; a ray that meets nothing reads this."""
WALL_HEIGHT = 0.5
_WALLS = np.array([0, 1, 0, 0, 0, 0], dtype=np.uint8)
"""The groups of geoms that the lidar sees; walls are of group 1."""
RAY_ANGLES = 2 * np.pi * np.arange(RAYS) / RAYS

SUBSTEPS = 20  # of 10 ms: control at 5 Hz
HORIZON = 160

ACTION = ("forward", "turn")
MAX_SPEED = 0.7  # metres a second at full action
MAX_TURN = 2.5  # radians a second at full action
ACTION_NOISE = 0.05  # standard deviation, of the action's range of -1..1

WAVES = (1, 2, 4)
"""Of the place code: how often sine and cosine of either coordinate repeat on the way across an environment."""
_POSE = ("x", "y", "cos_yaw", "sin_yaw")
_CODE = tuple(f"{wave}_{part}_{axis}" for part in ("sin", "cos") for axis in "xy" for wave in WAVES)
OBSERVATION = (*_POSE, *(f"range_{ray}" for ray in range(RAYS)), *_CODE)
"""Pose by odometry in units of `HALF` metres; ranges in units of `LIDAR_RANGE`, counter-clockwise from ahead; the place
once more as sines and cosines (Fourier features, Tancik et al. 2020), because a network blurs what is a few per cent
of its input's range."""
OBSERVATION_LIMIT = 2.0


def build(walls: Sequence[Sequence[int]], body: Body = Body(), goal: Sequence[float] | None = None) -> mujoco.MjModel:
    """Compiles the model of one environment and one body.

    Args:
        walls: blocks of cells, each `quickstudy.families.navigation.layouts.Wall`.
        goal: [2], with it the model has what only a picture needs: a mark there, a light and the camera 'top'. The
            dynamics are the same.
    """
    spec = mujoco.MjSpec()
    spec.option.timestep = TIMESTEP
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    # An unstable world must be reported, not quietly set back to its beginning.
    spec.option.disableflags = mujoco.mjtDisableBit.mjDSBL_AUTORESET
    spec.memory = 1 << 17  # bytes of scratch memory for each world: about 50 contacts
    # Software rendering is ten times slower with shadows and antialiasing.
    spec.visual.quality.shadowsize = spec.visual.quality.offsamples = 0
    spec.worldbody.add_geom(
        name="floor", type=mjtGeom.mjGEOM_PLANE, size=[HALF, HALF, 0.1], contype=2, conaffinity=0,
        rgba=[0.88, 0.88, 0.85, 1.0],
    )  # fmt: skip
    half = WALL_HEIGHT / 2
    for row, column, rows, columns in walls:
        x, y = place(np.array([row + rows / 2, column + columns / 2]))
        spec.worldbody.add_geom(
            type=mjtGeom.mjGEOM_BOX, pos=[x, y, half], size=[columns * CELL / 2, rows * CELL / 2, half],
            contype=1, conaffinity=0, group=1, rgba=[0.42, 0.47, 0.55, 1.0],
        )  # fmt: skip
    _add_robot(spec, body)
    if goal is not None:
        _add_visuals(spec, goal)
    return spec.compile()


def _add_robot(spec: mujoco.MjSpec, body: Body) -> None:
    base = spec.worldbody.add_body(name="base", pos=[0, 0, ROBOT.wheel_radius])
    base.add_freejoint(name="base")
    base.add_geom(
        name="body", type=mjtGeom.mjGEOM_CYLINDER, size=[ROBOT.radius, ROBOT.height / 2, 0], pos=[0, 0, 0.03],
        mass=ROBOT.mass, contype=0, conaffinity=1, friction=[0.1, 0.005, 0.0001], priority=1,
        rgba=[0.85, 0.35, 0.2, 1.0],
    )  # fmt: skip
    for ahead in (1.0, -1.0):
        # A castor hangs a millimetre above the floor, so that the wheels carry the robot unless it leans.
        base.add_geom(
            type=mjtGeom.mjGEOM_SPHERE, size=[0.02, 0, 0], pos=[0.13 * ahead, 0, 0.021 - ROBOT.wheel_radius],
            mass=0.1, contype=0, conaffinity=2, friction=[0.02, 0.001, 0.0001], priority=1,
        )  # fmt: skip
    base.add_geom(
        name="nose", type=mjtGeom.mjGEOM_BOX, size=[0.05, 0.03, 0.005], pos=[0.11, 0, 0.085], mass=0.0,
        contype=0, conaffinity=0, rgba=[0.1, 0.1, 0.1, 1.0],
    )  # fmt: skip
    if body.payload > 0.0:
        base.add_geom(
            name="payload", type=mjtGeom.mjGEOM_BOX, size=[0.05, 0.05, 0.05], mass=body.payload,
            pos=[body.payload_x, body.payload_y, 0.13], contype=0, conaffinity=0, rgba=[0.2, 0.35, 0.75, 1.0],
        )  # fmt: skip
    for name, side in (("left", 1.0), ("right", -1.0)):
        wheel = base.add_body(name=name, pos=[0, side * ROBOT.half_track, 0])
        wheel.add_joint(name=name, type=mjtJoint.mjJNT_HINGE, axis=[0, 1, 0], damping=0.01, armature=0.001)
        # A rounded tyre stands on one point; the rim of a cylinder stands on four, and chatters when it turns.
        wheel.add_geom(
            type=mjtGeom.mjGEOM_ELLIPSOID, size=[ROBOT.wheel_radius, 0.015, ROBOT.wheel_radius], mass=0.2,
            contype=0, conaffinity=2, friction=[body.grip, 0.005, 0.0001], priority=1, rgba=[0.1, 0.1, 0.1, 1.0],
        )  # fmt: skip
        motor = spec.add_actuator(name=name, target=name, trntype=mjtTrn.mjTRN_JOINT)
        motor.gainprm[0] = ROBOT.motor_gain
        motor.biastype = mujoco.mjtBias.mjBIAS_AFFINE
        motor.biasprm[2] = -ROBOT.motor_gain
        motor.forcelimited = True
        motor.forcerange = [-ROBOT.motor_torque, ROBOT.motor_torque]


def _add_visuals(spec: mujoco.MjSpec, goal: Sequence[float]) -> None:
    spec.worldbody.add_geom(
        name="goal", type=mjtGeom.mjGEOM_CYLINDER, size=[0.3, 0.002, 0], pos=[*goal, 0.002], contype=0, conaffinity=0,
        rgba=[0.2, 0.65, 0.3, 1.0],
    )  # fmt: skip
    spec.worldbody.add_light(pos=[0, 0, 12], dir=[0, 0, -1], directional=True)
    height = 14.0
    spec.worldbody.add_camera(
        name="top", pos=[0, 0, height], fovy=float(np.degrees(2 * np.arctan(1.04 * HALF / height)))
    )


def scan(model: mujoco.MjModel, data: mujoco.MjData, at: np.ndarray, yaw: float) -> np.ndarray:
    """What a level lidar at `at` [2] sees of the walls, [ray] metres, counter-clockwise from straight ahead."""
    angles = yaw + RAY_ANGLES
    directions = np.stack([np.cos(angles), np.sin(angles), np.zeros(RAYS)], axis=1)
    hit, distance = np.empty(RAYS, dtype=np.int32), np.empty(RAYS)
    start = np.array([at[0], at[1], ROBOT.lidar_height])
    mujoco.mj_multiRay(model, data, start, directions.ravel(), _WALLS, 1, -1, hit, distance, RAYS, LIDAR_RANGE)
    return np.where(distance < 0.0, LIDAR_RANGE, np.minimum(distance, LIDAR_RANGE))


# ---- actions and observations


def pose(observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the robot believes to be: place [..., 2] in metres and yaw [...]."""
    seen = np.asarray(observations, dtype=np.float64)
    return seen[..., :2] * HALF, np.arctan2(seen[..., 3], seen[..., 2])


def ranges(observations: np.ndarray) -> np.ndarray:
    """What the lidar read, [..., ray] metres."""
    return np.asarray(observations, dtype=np.float64)[..., len(_POSE) : len(_POSE) + RAYS] * LIDAR_RANGE


def place_code(places: np.ndarray) -> np.ndarray:
    """Sines, then cosines, of places [..., 2] in metres, [..., 4 * len(WAVES)]."""
    angles = (np.asarray(places)[..., None] * (np.pi / HALF) * np.array(WAVES)).reshape(*np.shape(places)[:-1], -1)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)


def turned(turn: np.ndarray) -> Symmetry:
    """Trials in a building that was turned or mirrored by a matrix [2, 2] of places."""
    side = round(np.linalg.det(turn))
    lidar = np.eye(RAYS)[side * np.arange(RAYS)]  # a mirror turns counter-clockwise into clockwise
    waves = np.eye(len(WAVES))
    observation = block_diag(turn, turn, lidar, np.kron(turn, waves), np.kron(np.abs(turn), waves))
    return Symmetry(observation, np.diag([1.0, side]))


_QUARTER = np.array([[0.0, -1.0], [1.0, 0.0]])
SYMMETRIES = (turned(_QUARTER), turned(_QUARTER @ _QUARTER), turned(np.diag([1.0, -1.0])))
