"""Environments of the navigation family: a square of cells, free or occupied, drawn or cut out of a map.

A grid is bool [CELLS, CELLS], True where it is occupied; row 0 is the top, and the origin of the metres is the middle.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

CELLS = 100
CELL = 0.1
"""Metres: an environment is 10 x 10 m."""
HALF = CELLS * CELL / 2


class Wall(NamedTuple):
    """A block of occupied cells: its first row and column, and how many of both."""

    row: int
    column: int
    rows: int
    columns: int


def place(cells: np.ndarray) -> np.ndarray:
    """Metres (x, y) [..., 2] of rows and columns [..., 2], where (0, 0) is the upper left corner of the first cell."""
    return np.stack([cells[..., 1] * CELL - HALF, HALF - cells[..., 0] * CELL], axis=-1)


def cell(places: np.ndarray) -> np.ndarray:
    """Rows and columns [..., 2], fractions included, of metres (x, y) [..., 2]; the inverse of `place`."""
    return np.stack([(HALF - places[..., 1]) / CELL, (places[..., 0] + HALF) / CELL], axis=-1)


def walls(grid: np.ndarray) -> list[Wall]:
    """The occupied cells as blocks that do not overlap: the largest of two greedy merges, by rows or by columns."""
    by_rows = _merged(grid)
    by_columns = [Wall(column, row, columns, rows) for row, column, rows, columns in _merged(grid.T)]
    return min(by_rows, by_columns, key=len)


def _merged(grid: np.ndarray) -> list[Wall]:
    """Runs of each row, and equal runs of neighbouring rows as one block."""
    done: list[Wall] = []
    growing: dict[tuple[int, int], int] = {}  # run -> the row that it began in
    for row in range(len(grid) + 1):
        runs = _runs(grid[row]) if row < len(grid) else []
        for ended in [run for run in growing if run not in runs]:
            first = growing.pop(ended)
            done.append(Wall(first, ended[0], row - first, ended[1]))
        for run in runs:
            growing.setdefault(run, row)
    return done


def _runs(line: np.ndarray) -> list[tuple[int, int]]:
    """First cell and length of each run of occupied cells."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(np.int8), [0]])))
    return [(int(first), int(end - first)) for first, end in edges.reshape(-1, 2)]


def fill(blocks: Iterable[Sequence[int]]) -> np.ndarray:
    """The grid of which `walls` made these blocks."""
    grid = np.zeros((CELLS, CELLS), dtype=bool)
    for row, column, rows, columns in blocks:
        grid[row : row + rows, column : column + columns] = True
    return grid


# ---- procedural environments


def rooms(rng: np.random.Generator) -> np.ndarray:
    """A flat: rectangles cut in two again and again, a door in each cut, and some furniture."""
    height, width = rng.integers(70, CELLS + 1, 2)
    inside = np.zeros((height, width), dtype=bool)
    shortest = int(rng.integers(18, 30))

    def split(top: int, left: int, rows: int, columns: int, depth: int) -> None:
        across = columns > rows  # the cut is at right angles to the longer side
        long, short = (columns, rows) if across else (rows, columns)
        if depth == 0 or long < 2 * shortest + 2 or short < 14:
            return
        cut, door = int(rng.integers(shortest, long - shortest)), int(rng.integers(9, 14))
        first = int(rng.integers(1, short - door)) if short - door > 1 else 0
        wall = np.ones(short, dtype=bool)
        wall[first : first + door] = False
        if rng.uniform() < 0.25 and short > 2 * door + 8:
            second = int(rng.integers(0, short - door))
            wall[second : second + door] = False
        if across:
            inside[top : top + rows, left + cut] |= wall
            split(top, left, rows, cut, depth - 1)
            split(top, left + cut + 1, rows, columns - cut - 1, depth - 1)
        else:
            inside[top + cut, left : left + columns] |= wall
            split(top, left, cut, columns, depth - 1)
            split(top + cut + 1, left, rows - cut - 1, columns, depth - 1)

    split(0, 0, int(height), int(width), int(rng.integers(2, 5)))
    inside = _thickened(inside, int(rng.integers(1, 3)))
    for _ in range(int(rng.integers(0, 10))):
        _box(inside, rng, 2, 9)
    for _ in range(int(rng.integers(0, 12))):
        _box(inside, rng, 1, 2)  # the legs of tables and chairs
    return _enclosed(inside)


def maze(rng: np.random.Generator) -> np.ndarray:
    """Corridors of a spanning tree of square cells, by a depth-first walk, with a few walls less."""
    pitch, thick = int(rng.integers(13, 21)), int(rng.integers(1, 4))
    count = (CELLS - thick) // pitch
    side = count * pitch + thick
    inside = np.zeros((side, side), dtype=bool)
    for line in range(count + 1):
        inside[line * pitch : line * pitch + thick, :] = True
        inside[:, line * pitch : line * pitch + thick] = True

    def open_between(one: tuple[int, int], other: tuple[int, int]) -> None:
        (r, c), (down, right) = np.minimum(one, other), np.abs(np.subtract(one, other))
        top, left = r * pitch + thick, c * pitch + thick
        reach = pitch - thick
        inside[top : top + reach + down * pitch, left : left + reach + right * pitch] = False

    here = (int(rng.integers(count)), int(rng.integers(count)))
    seen, trail = {here}, [here]
    while trail:
        r, c = trail[-1]
        around = [(r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)]
        new = [n for n in around if n not in seen and 0 <= n[0] < count and 0 <= n[1] < count]
        if not new:
            trail.pop()
            continue
        following = new[int(rng.integers(len(new)))]
        open_between(trail[-1], following)
        seen.add(following)
        trail.append(following)
    for _ in range(int(rng.integers(0, count))):
        r, c = int(rng.integers(count - 1)), int(rng.integers(count - 1))
        open_between((r, c), (r + 1, c) if rng.uniform() < 0.5 else (r, c + 1))
    return _enclosed(inside)


def hall(rng: np.random.Generator) -> np.ndarray:
    """One large room with blocks at any angle and pillars."""
    inside = np.zeros(rng.integers(80, CELLS + 1, 2), dtype=bool)
    at = np.stack(np.meshgrid(*(np.arange(n) for n in inside.shape), indexing="ij"), axis=-1)
    for _ in range(int(rng.integers(6, 16))):
        centre, turn = rng.uniform(0, inside.shape), rng.uniform(0, np.pi)
        away = (at - centre) @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        if rng.uniform() < 0.3:
            inside |= np.linalg.norm(away, axis=-1) < rng.uniform(1, 5)
        else:
            half = rng.uniform([1, 1], [14, 6])
            inside |= np.all(np.abs(away) < half, axis=-1)
    return _enclosed(inside)


STYLES: dict[str, Callable[[np.random.Generator], np.ndarray]] = {"rooms": rooms, "maze": maze, "hall": hall}


def _enclosed(inside: np.ndarray) -> np.ndarray:
    """In the middle of a grid, everything around it occupied."""
    grid = np.ones((CELLS, CELLS), dtype=bool)
    top, left = (CELLS - inside.shape[0]) // 2, (CELLS - inside.shape[1]) // 2
    grid[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    grid[[0, -1]] = grid[:, [0, -1]] = True
    return grid


def _thickened(grid: np.ndarray, cells: int) -> np.ndarray:
    """Walls of one cell made this many cells thick, downwards and to the right."""
    thick = grid.copy()
    for by in range(1, cells):
        thick[by:] |= grid[:-by]
        thick[:, by:] |= grid[:, :-by]
    return thick


def _box(grid: np.ndarray, rng: np.random.Generator, least: int, most: int) -> None:
    rows, columns = rng.integers(least, most + 1, 2)
    top, left = int(rng.integers(grid.shape[0] - rows)), int(rng.integers(grid.shape[1] - columns))
    grid[top : top + rows, left : left + columns] = True
