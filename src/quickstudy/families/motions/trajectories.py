"""Arithmetic of recorded motions: a common number of steps, orientations as rotation vectors, time warps, distances.

A trajectory is a position, or a position and an orientation, at evenly spaced phases from 0 to 1.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from quickstudy.families.motions.recordings import Motion

STEPS = 50
"""Phases of a trajectory."""
WAVES = (1, 2, 3, 5, 8, 12)
"""Half periods of the cosines and sines that an observation describes the phase by, beside the phase itself."""
OBSERVATION = 1 + 2 * len(WAVES) + 8
"""Width of an observation."""
SHARES = np.linspace(0.0, 0.5, 11)
"""Shares of its own pace that may be taken out of a demonstration that is shown."""


def phases(steps: int) -> np.ndarray:
    """Phases from 0 to 1, [step]."""
    return np.linspace(0.0, 1.0, steps)


def at_phases(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Values [..., step, width] read at phases `where` ([n] for all, or [..., n] for each), linear in between."""
    place = np.clip(where, 0.0, 1.0) * (values.shape[-2] - 1)
    before = np.minimum(place.astype(int), values.shape[-2] - 2)
    shape = np.broadcast_shapes(before.shape[:-1], values.shape[:-2])
    index = np.broadcast_to(before[..., None], (*shape, before.shape[-1], 1))
    spread = np.broadcast_to(values, (*shape, *values.shape[-2:]))
    low, high = (np.take_along_axis(spread, index + k, -2) for k in (0, 1))
    return low + (place - before)[..., None] * (high - low)


def turns(quaternions: np.ndarray) -> np.ndarray:
    """Orientations as rotation vectors from that at the first step of the first demonstration.

    Args:
        quaternions: w, x, y, z of unit length, [demonstration, step, 4].

    Returns:
        rotation vectors in the frame of the world, radians, [demonstration, step, 3]. Each is the one nearest to the
        step before, so that a wrist that goes on turning beyond pi does not jump.
    """
    shape = quaternions.shape[:-1]
    rotations = Rotation.from_quat(quaternions.reshape(-1, 4), scalar_first=True)
    frame = Rotation.from_quat(quaternions[0, 0], scalar_first=True)
    vectors = (rotations * frame.inv()).as_rotvec().reshape(*shape, 3)
    # The same orientation is any vector v + 2 pi n v/|v|.
    for step in range(1, shape[-1]):
        before, here = vectors[..., step - 1, :], vectors[..., step, :]
        length = np.linalg.norm(here, axis=-1, keepdims=True)
        axis = np.where(length > 1e-9, here, before)  # a whole turn has no axis of its own
        axis = axis / np.maximum(np.linalg.norm(axis, axis=-1, keepdims=True), 1e-9)
        along = (before * axis).sum(-1, keepdims=True)
        vectors[..., step, :] = here + 2 * np.pi * np.round((along - length) / (2 * np.pi)) * axis
    return vectors


def unit_quaternions(vectors: np.ndarray) -> np.ndarray:
    """Rotation vectors [..., 3] as quaternions w, x, y, z, [..., 4]."""
    half = np.linalg.norm(vectors, axis=-1, keepdims=True) / 2
    return np.concatenate([np.cos(half), vectors * np.sinc(half / np.pi) / 2], -1)


def angles_between(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The angle, radians within 0..pi, between orientations given as unit quaternions [..., 4]."""
    # Not the arc cosine of the product alone, which cannot tell small angles from none.
    apart = np.minimum(np.linalg.norm(one - other, axis=-1), np.linalg.norm(one + other, axis=-1))
    return 4 * np.arcsin(np.clip(apart / 2, 0.0, 1.0))


def warped_phases(steps: int, strength: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random monotone maps of phase onto itself, [n, step], for strengths [n]; 0 leaves phase as it is.

    The logarithm of its speed is a sum of three cosines with random amplitudes.
    """
    phase = phases(steps)
    waves = np.cos(np.pi * np.arange(1, 4)[:, None] * phase) / np.arange(1, 4)[:, None]
    speed = np.exp((strength[:, None] * rng.normal(size=(len(strength), 3))) @ waves)
    passed = np.concatenate([np.zeros((len(strength), 1)), np.cumsum((speed[:, 1:] + speed[:, :-1]) / 2, axis=1)], 1)
    return passed / passed[:, -1:]


def dynamic_time_warping(distances: np.ndarray) -> np.ndarray:
    """Mean distance along the best alignment of two trajectories (Sakoe & Chiba 1978, symmetric steps).

    Args:
        distances: between every step of the one and every step of the other, [..., step, step].

    Returns:
        the sum along the path of least sum, divided by the number of steps of the path that attains it, [...].
    """
    rows, columns = distances.shape[-2:]
    lead = distances.shape[:-2]
    total = np.full((*lead, rows + 1, columns + 1), np.inf)
    total[..., 0, 0] = 0.0
    length = np.zeros_like(total)
    for diagonal in range(2, rows + columns + 1):
        i = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        j = diagonal - i
        ways = np.stack([total[..., i - 1, j - 1], total[..., i - 1, j], total[..., i, j - 1]])
        best = ways.argmin(0)
        lengths = np.stack([length[..., i - 1, j - 1], length[..., i - 1, j], length[..., i, j - 1]])
        total[..., i, j] = distances[..., i - 1, j - 1] + np.take_along_axis(ways, best[None], 0)[0]
        length[..., i, j] = 1.0 + np.take_along_axis(lengths, best[None], 0)[0]
    return total[..., -1, -1] / length[..., -1, -1]


class Curves(NamedTuple):
    """Demonstrations of one task at `STEPS` phases.

    Attributes:
        positions: seen from their end, in units of the task, [demonstration, step, 3].
        turns: orientations as rotation vectors in the task's frame, radians, [demonstration, step, 3].
    """

    positions: np.ndarray
    turns: np.ndarray

    def some(self, chosen: np.ndarray | slice) -> "Curves":
        return Curves(self.positions[chosen], self.turns[chosen])

    @property
    def poses(self) -> np.ndarray:
        """Positions and turns, [demonstration, step, 6]."""
        return np.concatenate([self.positions, self.turns], -1)


def curves(motion: Motion) -> Curves:
    """A recorded motion at evenly spaced phases; flat ones lie in the plane of x and y."""
    where = phases(STEPS)
    at = np.stack([at_phases(one, where) for one in motion.demonstrations])
    positions = np.zeros((len(at), STEPS, 3))
    width = min(3, at.shape[-1])
    positions[..., :width] = (at[..., :width] - at[:, -1:, :width]) / motion.unit
    if not motion.has_orientation:
        return Curves(positions, np.zeros_like(positions))
    return Curves(positions, turns(at[..., 3:] / np.linalg.norm(at[..., 3:], axis=-1, keepdims=True)))


def time_normalised(given: Curves, share: float) -> Curves:
    """Demonstrations with a share of their own pace taken out: phase is time and, by this share, the way gone."""
    poses, time = given.poses, phases(STEPS)
    gone = np.pad(np.linalg.norm(np.diff(poses, axis=1), axis=-1).cumsum(1), ((0, 0), (1, 0)))
    whole = gone[:, -1:]
    clocks = (1.0 - share) * time + share * np.where(whole > 0, gone / np.where(whole > 0, whole, 1.0), time)
    even = at_phases(poses, np.stack([np.interp(time, clock, time) for clock in clocks]))
    return Curves(even[..., :3], even[..., 3:])


def best_share(motions: Sequence[Curves]) -> float:
    """The one of `SHARES` of their pace to take out of demonstrations: best for the motion that it is worst for.

    How good it is for a motion: every demonstration, time-normalised and moved to the other's start, predicts every
    other one as it is; their mean error, relative to that at its own pace. The motion it is worst for decides, since
    the next one may be of any kind.
    """
    worst = np.zeros(len(SHARES))
    for motion in motions:
        others = ~np.eye(len(motion.positions), dtype=bool)
        away = [actions(time_normalised(motion, share))[:, None] - actions(motion) for share in SHARES]
        missed = np.array([np.sqrt(np.square(one).sum(-1).mean(-1))[others].mean() for one in away])
        worst = np.maximum(worst, missed / max(missed[0], 1e-9))
    return float(SHARES[worst.argmin()])


def observe(given: Curves) -> np.ndarray:
    """What a learner sees at each phase, [demonstration, step, obs], float32.

    The phase, the start pose, and how far from the end and how much turned that is.
    """
    phase = phases(STEPS)
    waves = np.pi * np.array(WAVES) * phase[:, None]
    clock = np.concatenate([2 * phase[:, None] - 1, np.cos(waves), np.sin(waves)], 1)
    start = given.poses[:, :1]
    away = np.linalg.norm(start.reshape(-1, 1, 2, 3), axis=-1)
    shape = (len(start), STEPS)
    parts = [np.broadcast_to(part, (*shape, part.shape[-1])) for part in (clock, start, away)]
    return np.concatenate(parts, -1).astype("f4")


def start_offset(start: np.ndarray) -> np.ndarray:
    """What is left of start poses [demonstration, 6] at each phase, [demonstration, step, 6]: all, less, then none."""
    return (1.0 - phases(STEPS))[:, None] * start[:, None]


def actions(given: Curves) -> np.ndarray:
    """What a learner has to give at each phase, [demonstration, step, 6], float32: the pose less `start_offset`."""
    return (given.poses - start_offset(given.poses[:, 0])).astype("f4")


def errors(true: Curves, poses: np.ndarray, unit: float) -> dict[str, np.ndarray]:
    """How far predicted poses [demonstration, step, 6] are from the recorded ones, each [demonstration].

    Returns:
        'rmse': the root of the mean over phases of the squared distance (in units of the task) plus the squared angle
        (radians); 'position' and 'position_dtw' in recorded units, 'orientation' and 'orientation_dtw' in degrees: root
        mean square over phases, and mean along the best alignment in time.
    """
    positions, turned = poses[..., :3], poses[..., 3:]
    apart = np.linalg.norm(positions - true.positions, axis=-1)
    given, wanted = unit_quaternions(turned), unit_quaternions(true.turns)
    turns_count = true.turns.any()  # flat motions have no orientation
    angle = angles_between(given, wanted) * turns_count
    between = np.linalg.norm(positions[:, :, None] - true.positions[:, None], axis=-1)
    around = angles_between(given[:, :, None], wanted[:, None]) * turns_count
    return {
        "rmse": np.sqrt((apart**2 + angle**2).mean(-1)),
        "position": unit * np.sqrt((apart**2).mean(-1)),
        "position_dtw": unit * dynamic_time_warping(between),
        "orientation": np.degrees(np.sqrt((angle**2).mean(-1))),
        "orientation_dtw": np.degrees(dynamic_time_warping(around)),
    }
