"""What the numbers of an action and of an observation of the navigation family mean, and which symmetries they have."""

import numpy as np
from scipy.linalg import block_diag

from quickstudy.families.navigation.layouts import HALF
from quickstudy.families.navigation.scene import LIDAR_RANGE, RAYS
from quickstudy.task import Symmetry

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
