"""Data sets in and out: demonstrations as LeRobotDataset v3, Minari, .npz and .csv, and Omniglot.

`load` reads any of the formats, `save` writes them; both go through one form, `Episode`, one episode at a time.
"""

import importlib
from collections.abc import Iterable
from pathlib import Path

from quickstudy.datasets.arrays import cache
from quickstudy.datasets.episodes import About, Episode, Recording
from quickstudy.datasets.omniglot import OmniglotImages, fetch_omniglot, load_omniglot
from quickstudy.errors import QuickstudyError, unknown
from quickstudy.io.files import holds, load_arrays
from quickstudy.settings import ReadingConfig

FORMATS = {"lerobot": "lerobot", "minari": "minari", "npz": "arrays", "csv": "table"}
"""The formats, and the modules that read and write them; imported when needed, because their libraries are large."""

__all__ = [
    "FORMATS", "About", "Episode", "OmniglotImages", "Recording", "cache", "chosen_format", "fetch_omniglot", "holds",
    "load", "load_arrays", "load_omniglot", "save",
]  # fmt: skip


def load(path: Path, reading: ReadingConfig | None = None) -> Recording:
    """Demonstrations in any of the formats.

    Args:
        reading: what of the recordings is read, and how, where they leave it open.

    Raises:
        QuickstudyError: nothing is there, or it is not whole, empty or not such a data set.
    """
    path = Path(path)
    if path.suffix in (".npz", ".csv") and not path.is_dir():
        format = path.suffix[1:]
    else:
        format = next((name for name in ("lerobot", "minari") if path.is_dir() and _module(name).is_one(path)), "")
    if not format:
        begin = (
            f"'{path}' is not a data set that is read, which"
            if path.exists()
            else f"There is no '{path}'; what is read"
        )
        raise QuickstudyError(
            f"{begin} is a folder that is a LeRobotDataset v3 or a Minari data set, or a .npz or .csv file of "
            "demonstrations."
        )
    found: Recording = _module(format).load(path, reading or ReadingConfig())
    if not len(found):
        raise QuickstudyError(f"'{path}' holds no episode; at least one is needed.")
    return found


def save(path: Path, episodes: Iterable[Episode], about: About, format: str | None = None) -> None:
    """Writes demonstrations, whole or not at all; they may be drawn while they are written.

    Args:
        path: a folder or file that is not there yet.
        format: one of `FORMATS`; by default what the ending of `path` says, and 'lerobot' without one.

    Raises:
        QuickstudyError: the place is taken, an unknown format or one that does not fit the ending, no episode, one that
            is not fit to learn from, ones that differ, or the disk refuses.
    """
    path, chosen = Path(path), chosen_format(Path(path), format)
    if path.exists():
        raise QuickstudyError(f"'{path}' is there already; name a place that is not.")
    if chosen in ("npz", "csv") and path.suffix != f".{chosen}":
        raise QuickstudyError(f"A file of the format '{chosen}' must end with .{chosen}; got '{path}'.")
    _module(chosen).save(path, episodes, about)


def chosen_format(path: Path, format: str | None) -> str:
    """The format that `save` would write.

    Raises:
        QuickstudyError: an unknown format.
    """
    chosen = format or (path.suffix[1:] if path.suffix in (".npz", ".csv") else "lerobot")
    if chosen not in FORMATS:
        raise unknown("format", chosen, FORMATS)
    return chosen


def _module(name: str):  # type: ignore[no-untyped-def]
    return importlib.import_module(f"quickstudy.datasets.{FORMATS[name]}")
