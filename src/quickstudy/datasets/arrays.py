"""Plain files: arrays in an .npz, and the cache that they may be kept in."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from quickstudy.datasets import timing
from quickstudy.datasets.episodes import About, Episode, Recording, to_write
from quickstudy.errors import QuickstudyError, within
from quickstudy.io import files
from quickstudy.settings import ReadingConfig

NPZ = (
    "An .npz of demonstrations holds 'observations' [row, obs] and 'actions' [row, act], all episodes one below the "
    "other; 'start' [episode + 1], the row where each begins and, last, the number of rows; and 'task' [episode]. "
    "Without 'start', arrays are [episode, step, ...]. It may hold 'rewards' and 'success' [row], 'rate' (steps a "
    "second) or 'times' [row] in seconds, 'observation_names', 'action_names', 'observation_units' and 'action_units'."
)


def cache() -> Path:
    """Where data sets are kept: $QUICKSTUDY_CACHE, or the usual cache folder of the user."""
    chosen = os.environ.get("QUICKSTUDY_CACHE")
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "quickstudy"


def load(path: Path, reading: ReadingConfig) -> Recording:
    """The demonstrations of an .npz file, see `NPZ`; unlike the other formats it is held in memory whole.

    Raises:
        QuickstudyError: no such file, an array missing, or arrays that do not fit together.
    """
    arrays = files.load_arrays(path, "observations", "actions", "task")
    with within(f"'{path}'"):
        return _recording(path, arrays, reading)


def _recording(path: Path, arrays: Mapping[str, np.ndarray], reading: ReadingConfig) -> Recording:
    _check_forms(arrays)
    tasks = [
        task.decode(errors="replace") if isinstance(task, bytes) else str(task) for task in np.ravel(arrays["task"])
    ]
    without = [i for i, task in enumerate(tasks) if not task.strip() or task in ("nan", "NaT")]
    if without:
        raise QuickstudyError(f"Episode {without[0]} has no task; each needs a label.")
    columns = {key: split(arrays[key], arrays.get("start"), key) for key in _COLUMNS if key in arrays}
    for key, parts in columns.items():
        if len(parts) != len(columns["observations"]):
            raise QuickstudyError(
                f"Got {len(columns['observations'])} episodes of observations and {len(parts)} of '{key}'."
            )
    if len(columns["observations"]) != len(tasks):
        raise QuickstudyError(f"Got {len(columns['observations'])} episodes and the task of {len(tasks)}.")
    rate = arrays.get("rate")
    if rate is not None and not rate > 0:
        raise QuickstudyError(f"'rate' must be one positive number of steps a second; got {rate}.")
    texts = {
        f"{kind}{ending}": tuple(map(str, np.ravel(arrays.get(f"{kind}_{name}", ()))))
        for kind in ("observation", "action")
        for name, ending in (("names", "s"), ("units", "_units"))
    }
    about = About(None if rate is None else float(rate), **texts)  # type: ignore[arg-type]
    stamps = _stamps(columns.get("times"), about.rate, columns["observations"], reading)
    if stamps is not None and about.rate is None:
        found = timing.rate_of(stamps, "its times")
        about = replace(about, rate=found.value if found else None, jitter=found.jitter if found else 0.0)
    if reading.rate:
        about = replace(about, rate=reading.rate, jitter=0.0)
    first = np.concatenate([[0], np.cumsum([len(part) for part in columns["observations"]])])

    def read(images: bool) -> Iterator[Episode]:
        for i, task in enumerate(tasks):
            mine = {key: parts[i] for key, parts in columns.items()}
            success = mine["success"].astype(bool) if "success" in mine else None
            where = f"'{path}', episode {i} (from row {first[i]})"
            times = None if stamps is None else stamps[i]
            one = Episode(
                task, mine["observations"], mine["actions"], mine.get("rewards"), success, where=where, times=times
            )
            if times is not None and reading.rate:
                one = timing.resampled(one, times, reading.rate, about)
            elif "times" in columns and times is not None and about.rate:
                timing.check_steady(times, about.rate, f"'{path}', row", int(first[i]))
            yield one

    widths = (columns[key][0].shape[1] if tasks else 0 for key in ("observations", "actions"))
    return Recording(path, "npz", about.named(*widths), tasks, read)


_COLUMNS = ("observations", "actions", "rewards", "success", "times")
_KINDS = {"f": "numbers", "i": "whole numbers", "U": "texts"}
_FORMS = {
    "observations": (2, "fiub"), "actions": (2, "fiub"), "rewards": (1, "fiub"), "success": (1, "fiub"),
    "times": (1, "fiu"), "start": (1, "iu"), "task": (1, "USiufM"), "rate": (0, "fiu"), "observation_names": (1, "US"),
    "action_names": (1, "US"), "observation_units": (1, "US"), "action_units": (1, "US"),
}  # fmt: skip
"""Of the arrays of an .npz: dimensions where all episodes lie one below the other, and kinds of what they hold."""


def _check_forms(arrays: Mapping[str, np.ndarray]) -> None:
    """Raises QuickstudyError where an array is not of the form that it must have."""
    for key, (dimensions, kinds) in _FORMS.items():
        if key not in arrays:
            continue
        found, apart = arrays[key], "start" not in arrays and key in _COLUMNS
        if found.ndim != dimensions + apart or found.dtype.kind not in kinds:
            first = next(kind for name, kind in _KINDS.items() if name in kinds)
            wanted = f"{first} with {dimensions + apart} dimensions" if dimensions else "one positive number"
            raise QuickstudyError(
                f"'{key}' has shape {found.shape} of {found.dtype}; it must be {wanted}"
                f"{' where there is no array start' * apart}."
            )


def _stamps(
    written: list[np.ndarray] | None, rate: float | None, episodes: list[np.ndarray], reading: ReadingConfig
) -> list[np.ndarray] | None:
    """The time of each step in seconds, by episode; None where the file says neither times nor rate."""
    if written is not None:
        longest = max(written, key=len)
        if len(longest) > 1:
            timing.seconds(longest, reading.time_unit, "its times")  # asks for the unit where it is open
        times = [timing.seconds(one, reading.time_unit or "s", "its times") for one in written]
        for i, one in enumerate(times):
            timing.check_rising(one, f"episode {i}, step", 0)
        return times
    return None if rate is None else [np.arange(len(one)) / rate for one in episodes]


def split(rows: np.ndarray, start: np.ndarray | None, name: str) -> list[np.ndarray]:
    """The episodes of the array `name`, as views into it: cut before the rows `start`, or at its first axis if None.

    Raises:
        QuickstudyError: `start` is not such.
    """
    if start is None:
        return list(rows)
    whole = start.ndim == 1 and start.dtype.kind in "iu" and len(start) > 1 and start[0] == 0
    if not whole or (np.diff(start.astype(int)) < 1).any() or start[-1] != len(rows):
        raise QuickstudyError(f"'start' must be whole numbers that rise from 0 to the {len(rows)} rows of '{name}'.")
    return np.split(rows, start[1:-1])


def save(path: Path, episodes: Iterable[Episode], about: About) -> None:
    """Writes an .npz file, see `NPZ`, whole or not at all; images are left out.

    Raises:
        QuickstudyError: no episode, one that is not fit to learn from, ones that differ, or the disk refuses.
    """
    first, every = to_write(episodes)
    about = about.named(first.observations.shape[1], first.actions.shape[1])
    kept = list(every)
    arrays = {
        "task": np.array([episode.task for episode in kept]),
        "start": np.concatenate([[0], np.cumsum([len(episode) for episode in kept])]),
        "observation_names": np.array(about.observations),
        "action_names": np.array(about.actions),
    }
    if about.rate is not None:
        arrays["rate"] = np.array(about.rate)
    for kind, units in (("observation", about.observation_units), ("action", about.action_units)):
        if units:
            arrays[f"{kind}_units"] = np.array(units)
    for key in ("observations", "actions", "rewards", "success"):
        if getattr(first, key) is not None:
            arrays[key] = np.concatenate([getattr(episode, key) for episode in kept])
    with files.partial(path) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)
