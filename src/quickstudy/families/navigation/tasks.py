"""Tasks of the navigation family as plain data: an environment, a goal, and a region of starts."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import label

from quickstudy.errors import QuickstudyError
from quickstudy.families.navigation.layouts import CELL, CELLS, HALF, cell, fill, place, walls
from quickstudy.families.navigation.maps import OccupancyMap
from quickstudy.families.navigation.planner import MARGIN, clearance, plan
from quickstudy.families.navigation.scene import ROBOT

SHORTEST, LONGEST = 4.0, 8.0
"""Metres of the shortest way from the middle of the start region to the goal; the longest may be less."""
SPREAD, NEAREST = 1.5, 3.0
"""Starts are at most so many metres from that middle, and at least so many from the goal; both as the robot drives."""
_ROOMY = 0.1
"""Metres that goals and starts are further from walls than a route must be."""
_TRIES = 60

_Walls = tuple[tuple[int, ...], ...]


def draw(grid: np.ndarray, rng: np.random.Generator, longest: float = LONGEST) -> dict[str, Any] | None:
    """A task's parameters in an environment, or None where no two places are far enough apart."""
    room = clearance(grid)
    parts, count = label(room >= ROBOT.radius + MARGIN, np.ones((3, 3)))
    if count == 0:
        return None
    largest = 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    free = np.argwhere((parts == largest) & (room >= ROBOT.radius + MARGIN + _ROOMY))
    if len(free) == 0:
        return None
    blocks = walls(grid)
    goal = place(free[rng.integers(len(free))] + 0.5)
    way = plan(blocks, goal)
    there = np.isfinite(way.route) & (room >= ROBOT.radius + MARGIN + _ROOMY)
    far = np.argwhere(there & (way.distance >= SHORTEST) & (way.distance <= longest))
    if len(far) == 0:
        return None
    home = place(far[rng.integers(len(far))] + 0.5)
    return parameters(blocks, home, goal)


def parameters(blocks: Sequence[Sequence[int]], home: np.ndarray, goal: np.ndarray) -> dict[str, Any]:
    return {
        "walls": [list(block) for block in blocks],
        "goal": [round(float(v), 3) for v in goal],
        "home": [round(float(v), 3) for v in home],
    }


def draw_on(chart: OccupancyMap, rng: np.random.Generator, longest: float = LONGEST) -> dict[str, Any]:
    """A task's parameters in a window of a map.

    Raises:
        QuickstudyError: no window of many that were tried has two places far enough apart.
    """
    for _ in range(_TRIES):
        found = draw(chart.window(chart.draw_centre(rng)), rng, longest)
        if found is not None:
            return {"map": chart.name, **found}
    raise QuickstudyError(
        f"Map '{chart.name}' has no task in it: a robot {2 * ROBOT.radius:.2f} m wide finds no two places "
        f"{SHORTEST:.0f} m apart, at {chart.resolution} m a cell."
    )


def task_on_map(chart: OccupancyMap, start: Sequence[float], goal: Sequence[float]) -> dict[str, Any]:
    """The parameters of the task to go from about `start` to `goal`, both [2] metres of the map.

    Raises:
        QuickstudyError: a place that is not on the map, no room for the robot there, the two in different components or
            further apart than an environment is large.
    """
    places = np.array([start, goal], dtype=float)
    if places.shape != (2, 2) or not np.isfinite(places).all():
        raise QuickstudyError(f"Start and goal must be two numbers (x, y) in metres each; got {start} and {goal}.")
    centre = places.mean(axis=0)
    grid = chart.window(centre)
    room = clearance(grid)
    cells = np.floor(cell(places - centre)).astype(int)
    for name, point, (row, column) in zip(("start", "goal"), places, cells, strict=True):
        shown = f"{name} ({point[0]:g}, {point[1]:g})"
        seen, low, high = chart.local(point), np.array(chart.origin), np.array(chart.origin) + chart.size
        if np.any(seen < 0) or np.any(seen >= chart.size):
            turned = f", turned by {chart.yaw:g} rad about its lower left corner" if chart.yaw else ""
            raise QuickstudyError(
                f"The {shown} is not on map '{chart.name}', which reaches from ({low[0]:g}, {low[1]:g}) to "
                f"({high[0]:g}, {high[1]:g}) m{turned}."
            )
        if not (0 <= row < CELLS and 0 <= column < CELLS):
            raise QuickstudyError(f"Start and goal must lie in one square of {2 * HALF:.0f} m; the {shown} does not.")
        if room[row, column] < ROBOT.radius + MARGIN:
            raise QuickstudyError(
                f"The {shown} on map '{chart.name}' has no room for the robot: {room[row, column]:.2f} m to the "
                f"nearest wall, {ROBOT.radius + MARGIN:.2f} m are needed."
            )
    blocks = walls(grid)
    way = plan(blocks, places[1] - centre)
    if not np.isfinite(way.route[tuple(cells[0])]):
        raise QuickstudyError(
            f"No way leads from start ({start[0]:g}, {start[1]:g}) to goal ({goal[0]:g}, {goal[1]:g}) on map "
            f"'{chart.name}': they lie in different components of the free space within {2 * HALF:.0f} m."
        )
    return {"map": chart.name, **parameters(blocks, places[0] - centre, places[1] - centre)}


def starts(task: Mapping[str, Any]) -> np.ndarray:
    """The middles of the cells that an episode may start in, [start, 2] metres."""
    return _starts(tuple(tuple(block) for block in task["walls"]), tuple(task["goal"]), tuple(task["home"]))


@functools.lru_cache(maxsize=1024)
def _starts(blocks: _Walls, goal: tuple[float, float], home: tuple[float, float]) -> np.ndarray:
    way, around = plan(blocks, goal), plan(blocks, home)
    room = clearance(fill(blocks))
    near = around.route <= SPREAD
    chosen = near & np.isfinite(way.route) & (way.distance >= NEAREST) & (room >= ROBOT.radius + MARGIN + _ROOMY)
    if not chosen.any():  # a user's own task may be shorter or tighter than those that are drawn
        chosen[way.at(home)] = True
    return np.asarray(place(np.argwhere(chosen) + 0.5))


def draw_start(task: Mapping[str, Any], rng: np.random.Generator) -> np.ndarray:
    """Place and yaw [3] of a new start."""
    choices = starts(task)
    x, y = choices[rng.integers(len(choices))] + rng.uniform(-CELL / 2, CELL / 2, 2)
    return np.array([x, y, rng.uniform(-np.pi, np.pi)])


def picture(task: Mapping[str, Any], size: int) -> np.ndarray:
    """The map [size, size, 3] uint8: start region light blue, the expert's route from its middle blue, goal green."""
    colours = np.full((CELLS, CELLS, 3), 255, dtype=np.uint8)
    colours[fill(task["walls"])] = (90, 98, 112)
    rows, columns = np.floor(cell(starts(task))).astype(int).T
    colours[rows, columns] = (205, 225, 250)
    image = Image.fromarray(colours).resize((size, size), Image.Resampling.NEAREST)
    pen, scale = ImageDraw.Draw(image), size / CELLS
    way = plan(task["walls"], task["goal"]).waypoints(task["home"], 60)
    points = cell(np.concatenate([[task["home"]], way]))[:, ::-1] * scale
    pen.line([tuple(point) for point in points], fill=(40, 90, 200), width=max(1, size // 100))
    for (x, y), radius, fill_ in ((points[0], 0.18, (40, 90, 200)), (points[-1], 0.3, (40, 160, 80))):
        reach = radius / CELL * scale
        pen.ellipse((x - reach, y - reach, x + reach, y + reach), fill=fill_)
    return np.asarray(image)
