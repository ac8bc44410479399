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
XZ = slice(None, None, 2)
_OUTWARD = np.array([1.0, -1.0])


def length(vector: np.ndarray) -> np.ndarray:
    """Euclidean length along the last axis."""
    return np.sqrt(np.vecdot(vector, vector))


def outside(
    x: np.ndarray,
    upper: np.ndarray | float,
    margin: np.ndarray | float,
    lower: np.ndarray | float | None = None,
) -> np.ndarray:
    """How far x, which is not negative, is from the range lower to upper, in margins; lower is 0 if not given."""
    away = x - upper if lower is None else np.maximum(lower - x, x - upper)
    return np.maximum(away, 0.0) / np.maximum(margin, _TINY)


def tolerance(
    x: np.ndarray,
    upper: float,
    margin: np.ndarray | float,
    falls: Literal["long tail", "gaussian"] = "long tail",
) -> np.ndarray:
    """1 where x <= upper, falling to 0.1 at the distance `margin` outside; x is not negative."""
    away = outside(x, upper, margin)
    return np.exp(_GAUSSIAN * away * away) if falls == "gaussian" else long_tail(away * away)


def long_tail(squares: np.ndarray) -> np.ndarray:
    """The tolerance of a squared distance outside, in margins.

    Of a sum of squares it is all their tolerances taken together by `both`: 1 / tolerance - 1 is 9 squares, and what
    `both` does is to add these.
    """
    return 1.0 / (9.0 * squares + 1.0)


def both(a: np.ndarray | float, b: np.ndarray | float) -> np.ndarray:
    """The Hamacher product of two fractions: a soft 'and'."""
    product = np.multiply(a, b)
    return product / np.maximum(a + b - product, _TINY)


def in_prism(point: np.ndarray, zero: np.ndarray, one: np.ndarray) -> np.ndarray:
    """1 outside of the box between the corners `zero` and `one` [world, 3], and inside of it 0 to 1 between them."""
    inside = ((np.minimum(zero, one) <= point) & (point <= np.maximum(zero, one))).all(-1)
    return np.where(inside, ((point - zero) / (one - zero)).prod(-1), 1.0)


def closing(action: np.ndarray) -> np.ndarray:
    """How much the gripper is told to close, 0 to 1."""
    return np.minimum(np.maximum(action[:, 3], 0.0), 1.0)


def pads_outside(
    pads: np.ndarray,
    start: np.ndarray,
    thing: np.ndarray,
    radius: np.ndarray | float,
    pad_reach: np.ndarray | float,
    one_sided: np.ndarray | bool,
    closer: float | None = None,
) -> np.ndarray:
    """How far the pads are from `radius` to `pad_reach`, or `closer`, away from a thing along y, in margins [world, 2].

    Args:
        pads: y of the left and the right pad, [world, 2].
        start, thing: where the thing was at first and where it is, [world, 3].
        one_sided: each pad must be on its own side of the thing. The package then means the margins to be taken from
            where the pads were at the start, but keeps a view of where they are.
    """
    aside = pads - thing[:, 1:2]
    distance = np.abs(aside)
    away = np.where(one_sided, aside * _OUTWARD, distance)
    margin = np.abs(np.where(one_sided, distance, np.abs(pads - start[:, 1:2])) - pad_reach)
    return outside(away, pad_reach if closer is None else closer, margin, lower=radius)


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


def grasping(cage: np.ndarray, closed: np.ndarray) -> np.ndarray | float:
    """Caging, and gripping once the thing is well caged."""
    caged = cage > CAGED
    return both(cage, np.where(caged, closed, 0.0)) if caged.any() else 0.0


def secured(held: np.ndarray, cage: np.ndarray, closed: np.ndarray) -> np.ndarray:
    """1 where a thing is held, else half of caging and half of `grasping`."""
    return np.where(held, 1.0, (grasping(cage, closed) + cage) / 2.0)


def closes_caged(cage: np.ndarray, action: np.ndarray) -> np.ndarray:
    """Where the gripper closes on a thing that is well caged: there `grasping` is in 32 bits, see `rounded`."""
    caged = cage > CAGED
    return caged & closes(action) if caged.any() else caged
