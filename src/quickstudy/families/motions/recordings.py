"""Recorded motions in files: kinesthetic demonstrations, drawn shapes, motion capture, or a user's own.

A file is an .npz of plain arrays in one of two forms.

- A user's own: `points` [row, width], all demonstrations one below the other; `start` [demonstration + 1], the row
  where each begins and, last, the number of rows; `task` [demonstration], the task of each, a text or a whole number;
  and, if wanted, `unit`, how many of the recorded units of length count as 1 (the root mean square distance from the
  end where not given). Demonstrations that are all equally long may come as `points` [demonstration, step, width]
  without `start`.
- The collection of public recordings that the benchmark is measured on, see `_COLLECTION`.

`width` is 2 or 3 for positions x, y[, z], or 7 for a pose: x, y, z and a unit quaternion w, x, y, z.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quickstudy.datasets.arrays import cache, split
from quickstudy.errors import QuickstudyError, within
from quickstudy.io import files

VARIABLE = "QUICKSTUDY_MOTIONS"
"""Environment variable with the path of the file of motions."""

_COLLECTION = (
    "robotasks9", "robotasks9_names", # manipulation on a Franka arm, [task, demonstration, step, 7], cm
    "helloworld", "helloworld_letters", # letters that a Franka arm was guided through, [task, demonstration, step, 2]
    "lair_points", "lair_names", "lair_start", "lair_task", # LAIR: hand-drawn shapes, [row, 2]
    "hammer_points", "hammer_start", # hammering, recorded by motion capture, [row, 3]
)  # fmt: skip
"""Arrays of the collection: Auddy et al. 2023 (clfd, clfd-snode) and Perez-Dattari and Kober 2023 (Stable Motion
Primitives), all under the MIT licence."""

_UNITS = {"robotasks9": 20.0, "helloworld": 10.0, "lair_points": 150.0, "hammer_points": 0.5}
FEWEST = 4
"""Demonstrations of a task, at least: some are shown, the others are judged by."""


@dataclass(frozen=True)
class Motion:
    """The demonstrations of one task.

    Attributes:
        name: of the task.
        demonstrations: each [step, width], recorded units; see the module's text for the width.
        unit: how many of the recorded units of length count as 1.
    """

    name: str
    demonstrations: Sequence[np.ndarray]
    unit: float

    @property
    def has_orientation(self) -> bool:
        return self.demonstrations[0].shape[1] == 7


def default_path() -> Path:
    """$QUICKSTUDY_MOTIONS, or robot_demos.npz in the cache."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else cache() / "robot_demos.npz"


def are_in(path: Path) -> bool:
    """Whether a file is one of motions, by the names of its arrays alone; False where none can be read."""
    return files.holds(path, "points") or files.holds(path, "robotasks9")


def load(path: Path | None = None) -> list[Motion]:
    """The motions of a file, checked.

    Raises:
        QuickstudyError: no such file, or not one of the two forms.
    """
    where = default_path() if path is None else Path(path)
    if not where.is_file():
        raise QuickstudyError(
            f"There is no file of motions '{where}'; set {VARIABLE} to one, docs/motions.md says what it holds."
        )
    collected = files.holds(where, "robotasks9")
    arrays = files.load_arrays(where, *(_COLLECTION if collected else ("points", "task")))
    with within(f"'{where}'"):
        return _collection(arrays) if collected else _own(arrays)


def from_arrays(demonstrations: Sequence[np.ndarray], tasks: Sequence[str | int], unit: float = 0.0) -> list[Motion]:
    """Motions from arrays [step, 2, 3 or 7] and the task of each.

    Args:
        unit: how many of the recorded units of length count as 1; the root mean square distance from the end where 0.

    Raises:
        QuickstudyError: arrays or labels that are not such, widths that differ, or too few demonstrations of a task.
    """
    if len(demonstrations) != len(tasks) or not len(tasks):
        raise QuickstudyError(
            f"Motions need a task for each demonstration; got {len(demonstrations)} and {len(tasks)} tasks."
        )
    checked = [_checked(np.asarray(one), f"demonstration {i}") for i, one in enumerate(demonstrations)]
    widths = sorted({one.shape[1] for one in checked})
    if len(widths) > 1:
        raise QuickstudyError(f"All demonstrations of a file need one width; got {widths}.")
    if not np.isfinite(unit) or unit < 0:
        raise QuickstudyError(f"The unit of length must be positive; got {unit}.")
    if unit == 0:
        away = np.concatenate([(one - one[-1])[:, : min(widths[0], 3)] for one in checked])
        unit = float(np.sqrt(np.square(away).sum(-1).mean()))
        if unit == 0:
            raise QuickstudyError("None of the motions moves: every position is that of its end.")
    names = [str(task) for task in tasks]
    return [
        _motion(name, [one for one, of in zip(checked, names, strict=True) if of == name], unit)
        for name in dict.fromkeys(names)
    ]


def _own(arrays: Mapping[str, np.ndarray]) -> list[Motion]:
    points, task = arrays["points"], arrays["task"]
    if task.ndim != 1 or task.dtype.kind not in "iuU":
        raise QuickstudyError(
            f"'task' must be one text or whole number a demonstration; got {task.shape} {task.dtype}."
        )
    start = None if points.ndim == 3 else arrays.get("start")
    if points.ndim != 3 and start is None:
        raise QuickstudyError("'points' in the form [row, width] needs 'start'; it is missing.")
    unit = arrays.get("unit", np.array(0.0))
    if unit.shape != () or unit.dtype.kind not in "iuf":
        raise QuickstudyError(f"'unit' must be one number; got {unit.shape} {unit.dtype}.")
    return from_arrays(split(points, start, "points"), task.tolist(), float(unit))


def _collection(arrays: Mapping[str, np.ndarray]) -> list[Motion]:
    motions = []
    for key, names, kind in (("robotasks9", "robotasks9_names", ""), ("helloworld", "helloworld_letters", "letter ")):
        pairs = zip(arrays[names], arrays[key], strict=True)
        motions += [_motion(f"{kind}{name}", list(some), _UNITS[key]) for name, some in pairs]
    drawn, of = split(arrays["lair_points"], arrays["lair_start"], "lair_points"), arrays["lair_task"]
    for i, name in enumerate(arrays["lair_names"]):
        # One of the drawings broke off after some pixels; it shows nothing.
        whole = [one for one, task in zip(drawn, of, strict=True) if task == i and len(one) >= 100]
        motions.append(_motion(f"shape {name}", whole, _UNITS["lair_points"]))
    hammering = split(arrays["hammer_points"], arrays["hammer_start"], "hammer_points")
    return [*motions, _motion("hammer", hammering, _UNITS["hammer_points"])]


def _motion(name: str, demonstrations: Sequence[np.ndarray], unit: float) -> Motion:
    if len(demonstrations) < FEWEST:
        raise QuickstudyError(f"Task '{name}' has {len(demonstrations)} demonstrations; {FEWEST} are needed.")
    return Motion(name, [_checked(one, f"task '{name}'") for one in demonstrations], unit)


def _checked(points: np.ndarray, what: str) -> np.ndarray:
    """A demonstration as float64."""
    if points.ndim != 2 or points.shape[1] not in (2, 3, 7) or points.dtype.kind not in "iuf" or len(points) < 2:
        raise QuickstudyError(
            f"A motion is at least two rows of x, y[, z] or x, y, z and a quaternion w, x, y, z; {what} has the shape "
            f"{points.shape} of {points.dtype}."
        )
    points = points.astype(np.float64)
    if not np.isfinite(points).all():
        raise QuickstudyError(
            f"A motion must be finite; {what} is not in row {np.argwhere(~np.isfinite(points))[0, 0]}."
        )
    if points.shape[1] == 7:
        length = np.linalg.norm(points[:, 3:], axis=1)
        wrong = np.flatnonzero(np.abs(length - 1.0) > 1e-3)
        if len(wrong):
            raise QuickstudyError(
                f"Quaternions must have length 1; {what} has one of {length[wrong[0]]:.3f} in row {wrong[0]}."
            )
    return points
