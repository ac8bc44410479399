"""Meta-World's reward functions for many worlds at once; every argument and result is [world, ...].

The package computes them for one world, in `metaworld.utils.reward_utils` and `SawyerXYZEnv._gripper_caging_reward`.
Where the package would raise, for a margin below zero, these return some number.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np

_TINY = 1e-30
"""Instead of a margin of zero, outside of which the package gives 0: the result is 1e-50 and less."""
CAGED = 0.97
"""The caging from which on a closing gripper is rewarded."""
_GAUSSIAN = np.log(0.1)
_XZ = [0, 2]


def length(vector: np.ndarray) -> np.ndarray:
    """Euclidean length along the last axis."""
    return np.sqrt(np.vecdot(vector, vector))


def tolerance(
    x: np.ndarray,
    upper: float,
    margin: np.ndarray | float,
    lower: float = 0.0,
    falls: Literal["long tail", "gaussian"] = "long tail",
) -> np.ndarray:
    """1 where lower <= x <= upper, falling to 0.1 at the distance `margin` outside; x is not negative."""
    outside = x - upper if lower == 0.0 else np.maximum(lower - x, x - upper)
    outside = np.maximum(outside, 0.0) / np.maximum(margin, _TINY)
    if falls == "gaussian":
        return np.exp(_GAUSSIAN * outside * outside)
    return 1.0 / (9.0 * outside * outside + 1.0)


def both(a: np.ndarray | float, b: np.ndarray | float) -> np.ndarray:
    """The Hamacher product of two fractions: a soft 'and'."""
    product = np.multiply(a, b)
    return product / np.maximum(a + b - product, _TINY)


def in_prism(point: np.ndarray, zero: np.ndarray, one: np.ndarray) -> np.ndarray:
    """1 outside of the box between the corners `zero` and `one` [world, 3], and inside of it 0 to 1 between them."""
    inside = ((np.minimum(zero, one) <= point) & (point <= np.maximum(zero, one))).all(-1)
    return np.where(inside, ((point - zero) / (one - zero)).prod(-1), 1.0)


def closing(action: np.ndarray, effort: float = 1.0) -> np.ndarray:
    """How much of `effort` the gripper is told to close with, 0 to 1."""
    return np.minimum(np.maximum(action[:, 3], 0.0), effort) / effort


def caging(
    pads: np.ndarray,
    tcp: np.ndarray,
    thing: np.ndarray,
    start: np.ndarray,
    tcp_start: np.ndarray,
    *,
    radius: float,
    pad_reach: float,
    xz_reach: float,
) -> np.ndarray:
    """How well the fingers surround a thing: its pads along y, and the point between them in x and z.

    Args:
        pads: y of the left and the right pad, [world, 2].
        tcp: the point between the finger tips, [world, 3]; `tcp_start`: where it was when the episode began.
        thing, start: the thing's position and the one that it began with, [world, 3].
    """
    away = np.abs(pads - thing[:, 1:2])
    margin = np.abs(np.abs(pads - start[:, 1:2]) - pad_reach)
    y = tolerance(away, pad_reach, margin, lower=radius)
    return both(both(y[:, 0], y[:, 1]), _caging_xz(tcp, thing, start, tcp_start, xz_reach))


def closes(action: np.ndarray) -> np.ndarray:
    """Where the gripper closes, and no more than fully."""
    return (action[:, 3] > 0) & (action[:, 3] <= 1)


def rounded(single: np.ndarray, formula: Callable[..., np.ndarray], *parts: np.ndarray) -> np.ndarray:
    """`formula(*parts)`, taken in 32 bits where `single` [world] says so.

    The package calculates with Python's floats, which become 32-bit as soon as they meet an action that closes the
    gripper, and goes on to multiply what has been rounded by up to 10.
    """
    exact = formula(*parts)
    return np.where(single, formula(*(part.astype(np.float32) for part in parts)), exact) if single.any() else exact


def grasping(cage: np.ndarray, closed: np.ndarray) -> np.ndarray:
    """Caging, and gripping once the thing is well caged."""
    return both(cage, np.where(cage > CAGED, closed, 0.0))


class OneSidedCaging:
    """The caging of pick-place, sweep and sweep-into: each pad must be on its own side of the thing.

    The package means the margins to be taken from where the pads were at the start, but keeps a view of where they are.
    """

    def __init__(
        self,
        pads: np.ndarray,
        tcp: np.ndarray,
        thing: np.ndarray,
        start: np.ndarray,
        tcp_start: np.ndarray,
        xz_reach: float,
    ):
        self._away = np.stack([pads[:, 0] - thing[:, 1], thing[:, 1] - pads[:, 1]], axis=1)
        self._margin = np.abs(np.abs(thing[:, 1:2] - pads) - 0.05)
        self._xz = _caging_xz(tcp, thing, start, tcp_start, xz_reach)

    def cage(self, radius: float) -> np.ndarray:
        return both(self.between(radius, 0.05), self._xz)

    def between(self, radius: float, reach: float) -> np.ndarray:
        """How far both pads are from `radius` to `reach` away."""
        y = tolerance(self._away, reach, self._margin, lower=radius)
        return both(y[:, 0], y[:, 1])


def _caging_xz(
    tcp: np.ndarray, thing: np.ndarray, start: np.ndarray, tcp_start: np.ndarray, reach: float
) -> np.ndarray:
    margin = length((start - tcp_start)[:, _XZ]) - reach
    return tolerance(length((tcp - thing)[:, _XZ]), reach, margin)
