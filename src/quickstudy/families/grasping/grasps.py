"""Where a gripper can take a solid from above: resting poses, and antipodal grasps in each, by geometry alone.

A grasp is tried at many turns, places and heights: what lies between and above the tips of the open fingers must fit
between them with room to spare, the fingers must find free space where they go down, and what the pads touch must
face them on both sides (antipodal: the line between the contacts lies within both friction cones).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from quickstudy.errors import QuickstudyError
from quickstudy.families.grasping.arm import Arm
from quickstudy.families.grasping.meshes import Solid, tool

TALLEST = 0.105
"""Metres: the hand starts, and passes over an object, just above."""
ROOM = 0.004
"""Metres that a finger needs to its left and to its right when it goes down."""
POSES = 5
"""Resting poses that are tried, the likeliest first; the file's own (z up) before all, where the solid rests so."""
TURNS = 16
_PAD = 0.03  # metres of a finger that hold an object
_CONE = np.cos(0.45)  # of the angle between a pad's normal and the surface's: inside the cone of friction 0.6
_ACROSS = 0.002  # metres: this much of an object, as seen from a pad, touches the pad
_STEP, _STEP_UP = 0.006, 0.008
_POINTS = 6000
_APART, _APART_TURN = 0.012, 0.35  # of two grasps that are worth trying both


@dataclass(frozen=True)
class Grasp:
    """One way to hold a solid.

    Attributes:
        turn: [3, 3], from the solid's frame to that of the body 'object' (bottom at z = 0, right grasp above its
            origin, fingers closing along y).
        shift: [3], added after the turn.
        height: of the tool above the table, metres.
        width: between the pads, metres.
        score: larger is better.
    """

    turn: np.ndarray
    shift: np.ndarray
    height: float
    width: float
    score: float


def candidates(solid: Solid, arm: Arm, count: int, name: str) -> list[Grasp]:
    """Up to `count` grasps that differ from one another, the most promising first.

    Args:
        name: what errors call the solid.

    Raises:
        QuickstudyError: the solid is larger than the gripper opens, too tall in every pose, or has no two sides that
            the fingers could close on.
    """
    poses = resting_poses(solid)
    narrowest = _least_width(solid)
    if narrowest > arm.widest - 2 * ROOM:
        raise QuickstudyError(
            f"'{name}' is larger than the gripper opens: {1e3 * narrowest:.0f} mm where it is narrowest, and the "
            f"fingers open {1e3 * arm.widest:.0f} mm and need {1e3 * ROOM:.0f} mm on either side."
        )
    low = [(k, pose) for k, pose in enumerate(poses) if np.ptp(solid.corners @ pose[2]) <= TALLEST]
    if not low:
        raise QuickstudyError(
            f"'{name}' is too tall: the hand passes over objects of up to {1e2 * TALLEST:.1f} cm, and it is "
            f"{1e2 * min(np.ptp(solid.corners @ pose[2]) for pose in poses):.1f} cm in its lowest resting pose."
        )
    points, normals = _surface(solid)
    found = [grasp for k, pose in low for grasp in _in_pose(solid, pose, k, points, normals, arm)]
    if not found:
        tall = len(poses) - len(low)
        why = f", and in {tall} of {len(poses)} resting poses it is too tall for the hand to pass over" if tall else ""
        raise QuickstudyError(f"'{name}' has no two sides that the fingers could close on from above{why}.")
    return _different(found, count)


def resting_poses(solid: Solid) -> list[np.ndarray]:
    """Turns [3, 3] that lay the solid on a face of its hull that it rests on."""
    trimesh = tool("trimesh")
    hull = trimesh.convex.convex_hull(solid.corners)
    turns, likelihoods = hull.compute_stable_poses(center_mass=solid.centre, n_samples=1, threshold=0.0)
    order = np.argsort(-likelihoods, kind="stable")
    as_filed = [k for k in order if turns[k][2, 2] > np.cos(0.05)][:1]
    chosen = as_filed + [k for k in order if k not in as_filed]
    return [np.eye(3) if k in as_filed else turns[k][:3, :3] for k in chosen[:POSES]]


def _least_width(solid: Solid) -> float:
    """The smallest distance between two parallel planes that hold the solid between them, over its hull's faces."""
    hull = tool("trimesh").convex.convex_hull(solid.corners)
    return float(np.ptp(hull.vertices @ hull.face_normals.T, axis=0).min())


def _surface(solid: Solid) -> tuple[np.ndarray, np.ndarray]:
    """Points [point, 3] spread evenly over the parts, and the outward normals there; the same ones every time."""
    trimesh = tool("trimesh")
    hulls = [trimesh.convex.convex_hull(part) for part in solid.parts]
    whole = trimesh.util.concatenate(hulls)
    points, faces = trimesh.sample.sample_surface(whole, _POINTS, seed=0)
    return np.asarray(points), np.asarray(whole.face_normals)[faces]


def _in_pose(
    solid: Solid, pose: np.ndarray, rank: int, points: np.ndarray, normals: np.ndarray, arm: Arm
) -> Iterator[Grasp]:
    bottom = (solid.corners @ pose[2]).min()
    for angle in np.arange(TURNS) * np.pi / TURNS:
        c, s = np.cos(angle), np.sin(angle)
        turn = np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]]) @ pose
        x, y, z = (points @ turn.T).T
        z = z - bottom
        facing = normals @ turn[1]
        centre = turn @ solid.centre
        for along in np.r_[np.arange(centre[0], x.min(), -_STEP)[:0:-1], np.arange(centre[0], x.max(), _STEP)]:
            near = np.flatnonzero(np.abs(x - along) <= arm.finger[1] / 2 + ROOM / 2)
            near = near[np.argsort(y[near])]
            beside = y[near], z[near], facing[near]
            for height in np.arange(max(arm.tip_below_tool, 0.008) + 0.003, beside[1].max(initial=0.0), _STEP_UP):
                for width, middle, quality in _closings(*beside, height, arm):
                    under = (np.abs(y - middle) < arm.widest / 2) & (np.abs(x - along) < 0.03)
                    if z[under].max() > height + arm.clearance:
                        continue
                    lever = np.hypot(along - centre[0], middle - centre[1])
                    low = max(0.0, centre[2] - bottom - height)  # held below its centre of mass, it tips over
                    score = quality - 12.0 * lever - 6.0 * low - 0.02 * rank - 2.0 * max(0.0, width - 0.06)
                    yield Grasp(turn, np.array([-along, -middle, -bottom]), float(height), float(width), float(score))


def _closings(
    y: np.ndarray, z: np.ndarray, facing: np.ndarray, height: float, arm: Arm
) -> Iterator[tuple[float, float, float]]:
    """Width, middle and quality of each way to close at this height on points in the order of their y."""
    tips = height - arm.tips(np.array([arm.widest / 2]))[0]
    above = z >= max(tips, 0.002)
    y, z, facing = y[above], z[above], facing[above]
    if len(y) < 8:
        return
    gaps = np.flatnonzero(np.diff(y) > arm.finger[0] + 2 * ROOM)
    starts, ends = np.r_[0, gaps + 1], np.r_[gaps, len(y) - 1]
    for first, last in zip(starts, ends, strict=True):
        low, high = y[first], y[last]
        width, middle = high - low, (low + high) / 2
        if not arm.narrowest + 0.002 <= width <= arm.widest - 2 * ROOM:
            continue
        reach = arm.widest / 2 + arm.finger[0] + ROOM
        if (first > 0 and y[first - 1] > middle - reach) or (last + 1 < len(y) and y[last + 1] < middle + reach):
            continue
        touched = [slice(first, np.searchsorted(y, low + _ACROSS)), slice(np.searchsorted(y, high - _ACROSS), last + 1)]
        sides = []
        for part, outwards in zip(touched, (-1.0, 1.0), strict=True):
            held = (z[part] <= tips + _PAD) & (outwards * facing[part] > 0.3)
            sides.append((outwards * facing[part][held], z[part][held]))
        if min(len(square) for square, _ in sides) < 3:
            continue
        square = min(float(squares.mean()) for squares, _ in sides)
        level = abs(float(sides[0][1].mean() - sides[1][1].mean()))
        if square < _CONE or level > 0.5 * width:
            continue
        share = min(1.0, min(len(squares) for squares, _ in sides) / 16)
        yield width, middle, 2.0 * square + 0.3 * share - 0.3 * level / width


def _different(found: Sequence[Grasp], count: int) -> list[Grasp]:
    """The best grasps, each a little away from all better ones."""
    chosen: list[Grasp] = []
    for grasp in sorted(found, key=lambda g: -g.score):
        if all(_apart(grasp, other) for other in chosen):
            chosen.append(grasp)
            if len(chosen) == count:
                break
    return chosen


def _apart(one: Grasp, other: Grasp) -> bool:
    """Whether two grasps take a solid at different places or from different directions."""
    places = [grasp.turn.T @ (np.array([0.0, 0.0, grasp.height]) - grasp.shift) for grasp in (one, other)]
    turn = np.arccos(np.clip(abs(float(one.turn[1] @ other.turn[1])), 0.0, 1.0))
    tilt = np.arccos(np.clip(float(one.turn[2] @ other.turn[2]), -1.0, 1.0))
    return bool(np.linalg.norm(places[0] - places[1]) > _APART or turn > _APART_TURN or tilt > _APART_TURN)
