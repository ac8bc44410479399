"""Arithmetic of recorded motions: a common number of steps, orientations as rotation vectors, time warps, distances.

A trajectory is a position, or a position and an orientation, at evenly spaced phases from 0 to 1.
"""

import numpy as np
from scipy.spatial.transform import Rotation


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
