"""The planner and the expert of the navigation family.

A plan is made of Dijkstra's shortest paths from every cell of the inflated grid to the goal at once, so that the expert
is a function of where the robot believes to be: a field of headings, followed by a proportional law. A network has to
imitate it, so headings look a little ahead and are smoothed.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import distance_transform_edt, uniform_filter
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from quickstudy.families.navigation.layouts import CELL, CELLS, cell, fill, place
from quickstudy.families.navigation.scene import MAX_SPEED, MAX_TURN, RAY_ANGLES, ROBOT, Body, pose, ranges

MARGIN = 0.08
"""Metres that a planned route keeps from walls, in addition to the robot's radius."""
COMFORT, AVERSION = 0.35, 3.0
"""Metres of further room that a route prefers, and how much more a metre costs where there is none."""
_AHEAD = (2, 7)
"""The heading of a cell leads to the mean of its successors of these numbers on the way to the goal."""
_STEPS = ((0, 1), (1, 0), (1, 1), (1, -1), (1, 2), (1, -2), (2, 1), (2, -1))
"""Half of the 16 neighbours of a cell: paths are at most 2.7 % longer than straight lines."""


class Plan(NamedTuple):
    """The way to one goal from everywhere.

    Attributes:
        distance: [row, column] metres of the shortest path of a robot that may graze walls; infinite if there is none.
        route: [row, column] metres along the route that the expert takes; infinite if it takes none.
        heading: [row, column, 2] unit vector (x, y) in which the route goes on; defined everywhere.
        successor: [cell] the next cell of the route, by flat index; the goal's is itself.
    """

    distance: np.ndarray
    route: np.ndarray
    heading: np.ndarray
    successor: np.ndarray

    def at(self, where: Sequence[float] | np.ndarray) -> tuple[int, int]:
        """Row and column of a place [2] in metres."""
        row, column = np.clip(cell(np.asarray(where, dtype=float)).astype(int), 0, CELLS - 1)
        return int(row), int(column)

    def waypoints(self, start: Sequence[float], count: int) -> np.ndarray:
        """`count` places [count, 2] at equal distances on the route from `start`; the last is the goal's cell."""
        here = int(np.ravel_multi_index(self.at(start), (CELLS, CELLS)))
        cells = [here]
        while self.successor[here] != here and self.successor[here] >= 0:
            here = int(self.successor[here])
            cells.append(here)
        points = place(np.stack(np.unravel_index(cells, (CELLS, CELLS)), axis=-1) + 0.5)
        along = np.concatenate([[0.0], np.linalg.norm(np.diff(points, axis=0), axis=1).cumsum()])
        wanted = np.linspace(0.0, along[-1], count + 1)[1:]
        return np.stack([np.interp(wanted, along, points[:, k]) for k in (0, 1)], axis=-1)


def clearance(grid: np.ndarray) -> np.ndarray:
    """Metres from the middle of each cell to the nearest occupied cell, [row, column]; not positive in walls."""
    return np.asarray((distance_transform_edt(~grid) - 0.5) * CELL)


def plan(walls: Sequence[Sequence[int]], goal: Sequence[float] | np.ndarray) -> Plan:
    """The plan for an environment and a goal [2]; recent ones are kept."""
    return _plan(tuple(tuple(wall) for wall in walls), (float(goal[0]), float(goal[1])))


@functools.lru_cache(maxsize=256)
def _plan(walls: tuple[tuple[int, ...], ...], goal: tuple[float, float]) -> Plan:
    room = clearance(fill(walls))
    row, column = np.clip(cell(np.array(goal)).astype(int), 0, CELLS - 1)
    source = int(row * CELLS + column)
    distance, _ = shortest(room >= ROBOT.radius - 0.5 * CELL, np.ones_like(room), source)
    spare = np.clip((room - ROBOT.radius - MARGIN) / COMFORT, 0.0, 1.0)
    route, successor = shortest(room >= ROBOT.radius + MARGIN, 1.0 + AVERSION * (1.0 - spare) ** 2, source)
    return Plan(distance, route, _headings(route, successor, source), successor)


def shortest(free: np.ndarray, price: np.ndarray, source: int) -> tuple[np.ndarray, np.ndarray]:
    """Cost [row, column] of the cheapest path from each free cell to the cell `source`, and successors [cell].

    Args:
        price: [row, column] of a metre.
    """
    weights, pairs = [], []
    for one, other, between, length in _edges():
        open_ = free.ravel()[one] & free.ravel()[other]
        for passed in between:
            open_ &= free.ravel()[passed]
        one, other = one[open_], other[open_]
        weights.append(length * CELL * (price.ravel()[one] + price.ravel()[other]) / 2)
        pairs.append(np.stack([one, other]))
    graph = csr_array((np.concatenate(weights), np.concatenate(pairs, axis=1)), shape=(CELLS**2, CELLS**2))
    cost, successor = dijkstra(graph, directed=False, indices=source, return_predecessors=True)
    successor[source] = source
    return cost.reshape(CELLS, CELLS), successor


@functools.cache
def _edges() -> list[tuple[np.ndarray, np.ndarray, list[np.ndarray], float]]:
    """For each of `_STEPS` all pairs of cells, the cells that such a step passes, and its length in cells."""
    index = np.arange(CELLS**2).reshape(CELLS, CELLS)
    rows, columns = np.indices((CELLS, CELLS))
    edges = []
    for down, right in _STEPS:
        to_row, to_column = rows + down, columns + right
        inside = (to_row < CELLS) & (to_column >= 0) & (to_column < CELLS)
        side = int(np.sign(right))
        passed = {
            (1, 1): [(0, side), (1, 0)],
            (1, 2): [(0, side), (1, side)],
            (2, 1): [(1, 0), (1, side)],
        }.get((down, abs(right)), [])
        between = [index[rows[inside] + r, columns[inside] + c] for r, c in passed]
        edges.append((index[inside], index[to_row[inside], to_column[inside]], between, float(np.hypot(down, right))))
    return edges


def _headings(route: np.ndarray, successor: np.ndarray, source: int) -> np.ndarray:
    reached = np.isfinite(route)
    middles = place(np.stack(tuple(np.indices((CELLS, CELLS))), axis=-1) + 0.5).reshape(-1, 2)
    after = np.where(successor >= 0, successor, source)
    ahead, target = np.arange(CELLS**2), np.zeros_like(middles)
    for jump in range(_AHEAD[1]):
        ahead = after[ahead]
        if jump >= _AHEAD[0] - 1:
            target += middles[ahead] / (_AHEAD[1] - _AHEAD[0] + 1)
    heading = _unit(target - middles).reshape(CELLS, CELLS, 2) * reached[..., None]
    heading = _unit(np.stack([uniform_filter(heading[..., k], 3) for k in (0, 1)], axis=-1)) * reached[..., None]
    # Where no route passes, out to the nearest cell where one does, and on from there.
    nearest = distance_transform_edt(~reached, return_distances=False, return_indices=True)
    out = place(np.stack(nearest, axis=-1) + 0.5) - middles.reshape(CELLS, CELLS, 2)
    return np.asarray(_unit(heading[nearest[0], nearest[1]] + 10.0 * out), dtype=np.float32)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors [..., 2] at length 1; zeros stay zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


# ---- the expert

FULL_TURN = 2.0
"""Radians a second that the expert turns at most."""
TURN_GAIN = 2.0
"""Radians a second for each radian that the heading is off."""
SLOW_WITHIN = 1.2
"""Metres from the goal from which on the expert slows down."""
REPELLED_WITHIN, REPULSION = 0.45, 0.6
"""Metres from the lidar within which walls repel the expert, and how strongly a ray that touches one does."""
_RAYS = np.stack([np.cos(RAY_ANGLES), np.sin(RAY_ANGLES)], axis=-1)
_AHEAD_RAYS = np.flatnonzero(np.cos(RAY_ANGLES) > 0.85)


class Expert:
    """A policy that knows map, goal and body of each task: [task, episode, obs] to [task, episode, act].

    It has no memory, and sees the robot's own idea of its pose, errors included.
    """

    def __init__(self, plans: Sequence[Plan], goals: Sequence[Sequence[float]], bodies: Sequence[Body]) -> None:
        self._heading = np.stack([plan.heading for plan in plans])
        self._goal = np.asarray(goals, dtype=float)[:, None]
        motors = np.array([[body.left, body.right] for body in bodies])
        self._left, self._right = motors.T[..., None]

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        at, yaw = pose(observations)
        heading = self._headings(at)
        away = np.linalg.norm(self._goal - at, axis=-1)
        # Close by, straight to the goal: cells are too coarse.
        near = np.clip((0.5 - away) / 0.2, 0.0, 1.0)[..., None]
        heading = (1.0 - near) * heading + near * _unit(self._goal - at)
        # In the robot's own frame, where the lidar is.
        c, s = np.cos(yaw), np.sin(yaw)
        wanted = np.stack([c * heading[..., 0] + s * heading[..., 1], c * heading[..., 1] - s * heading[..., 0]], -1)
        seen = ranges(observations)
        close = np.clip((REPELLED_WITHIN - seen) / (REPELLED_WITHIN - ROBOT.radius), 0.0, 1.0) ** 2
        wanted = wanted - REPULSION * close @ _RAYS
        error = np.arctan2(wanted[..., 1], wanted[..., 0])
        turn = np.clip(TURN_GAIN * error, -FULL_TURN, FULL_TURN)
        clear = np.clip((seen[..., _AHEAD_RAYS].min(-1) - ROBOT.radius - 0.02) / 0.25, 0.0, 1.0)
        ahead = np.clip(np.cos(error), 0.0, 1.0) ** 2 * np.clip(away / SLOW_WITHIN, 0.2, 1.0) * clear
        return self._command(MAX_SPEED * ahead, turn)

    def _headings(self, at: np.ndarray) -> np.ndarray:
        """Bilinear between the middles of cells, [task, episode, 2]."""
        corner = np.clip(cell(at) - 0.5, 0.0, CELLS - 1.001)
        low = corner.astype(int)
        part = corner - low
        task, total = np.arange(len(at))[:, None], np.zeros((*at.shape[:2], 2))
        for down in (0, 1):
            for right in (0, 1):
                weight = np.abs(1 - down - part[..., 0]) * np.abs(1 - right - part[..., 1])
                total += weight[..., None] * self._heading[task, low[..., 0] + down, low[..., 1] + right]
        return total

    def _command(self, speed: np.ndarray, turn: np.ndarray) -> np.ndarray:
        """The action that gives speed and turn with these motors; both less where a motor is too weak for them."""
        left = (speed - turn * ROBOT.half_track) / self._left
        right = (speed + turn * ROBOT.half_track) / self._right
        action = np.stack([(left + right) / (2 * MAX_SPEED), (right - left) / (2 * ROBOT.half_track * MAX_TURN)], -1)
        return (action / np.maximum(np.abs(action).max(-1, keepdims=True), 1.0)).astype(np.float32)
