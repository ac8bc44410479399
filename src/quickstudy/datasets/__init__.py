"""Data sets in and out: demonstrations in any of `FORMATS`, and Omniglot.

`load` reads any of the formats, `save` writes some of them; both go through one form, `Episode`, one episode at a time.
"""

import importlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from quickstudy.datasets.arrays import cache
from quickstudy.datasets.episodes import About, Episode, Recording
from quickstudy.datasets.omniglot import OmniglotImages, fetch_omniglot, load_omniglot
from quickstudy.errors import QuickstudyError, sound, unknown
from quickstudy.io.files import holds, load_arrays
from quickstudy.io.progress import progress
from quickstudy.settings import ReadingConfig


@dataclass(frozen=True)
class Format:
    """A format of demonstrations.

    Attributes:
        module: that reads it, and writes it where it can; imported when needed, because its libraries are large.
        said: what it is called among those that are read.
        endings: of its files; () where it is always a folder.
        magic: the first bytes of its files.
        folder: whether a folder may be one; its module says which.
        written: whether it is written, too.
    """

    module: str
    said: str
    endings: tuple[str, ...] = ()
    magic: tuple[bytes, ...] = ()
    folder: bool = False
    written: bool = False


FORMATS = {
    "lerobot": Format("lerobot", "a LeRobotDataset", folder=True, written=True),
    "minari": Format("minari", "a Minari data set", folder=True, written=True),
    "npz": Format("arrays", "an .npz", (".npz",), (b"PK\x03\x04",), written=True),
    "csv": Format("table", "a .csv", (".csv", ".tsv"), written=True),
    "robomimic": Format("robomimic", "an HDF5 file of robomimic or Isaac Lab", (".hdf5", ".h5"), (b"\x89HDF",), True),
    "bags": Format(
        "bags",
        "a ROS 1 or 2 bag",
        (".bag", ".db3", ".mcap"),
        (b"#ROSBAG", b"SQLite format 3", b"\x89MCAP"),
        True,
    ),
}

_ENDINGS = {ending for format in FORMATS.values() for ending in format.endings}

__all__ = [
    "FORMATS", "About", "Episode", "OmniglotImages", "Recording", "cache", "chosen_format", "convert", "fetch_omniglot",
    "holds", "load", "load_arrays", "load_omniglot", "may_be", "save",
]  # fmt: skip


def may_be(name: str) -> bool:
    """Whether a word means the place of somebody's own data rather than a name that is known here."""
    return "/" in name or name.lower().endswith(tuple(_ENDINGS)) or bool(name and Path(name).exists())


def load(path: Path, reading: ReadingConfig | None = None) -> Recording:
    """Demonstrations in any of the formats.

    Args:
        reading: what of the recordings is read, and how, where they leave it open.

    Raises:
        QuickstudyError: nothing is there, or it is not whole, empty or not such a data set.
    """
    path, reading = Path(path), reading or ReadingConfig()
    with sound(f"'{path}' cannot be read"):
        format = _format_of(path)
        found: Recording = _module(format).load(path, reading)
        if format == "npz" and (reading.observation or reading.action):
            about = found.about
            found = found.in_order(reading.observation or about.observations, reading.action or about.actions)
        if reading.mask:
            from quickstudy.datasets.selection import masked

            found = masked(found, reading.mask)
    if not len(found):
        raise QuickstudyError(f"'{path}' holds no episode; at least one is needed.")
    return replace(found, read=_guarded(path, found.read))


def _guarded(path: Path, read: Callable[[bool], Iterator[Episode]]) -> Callable[[bool], Iterator[Episode]]:
    """Whatever damaged files make a reader stumble over is one sentence."""

    def guarded(images: bool) -> Iterator[Episode]:
        with sound(f"'{path}' cannot be read"):
            yield from read(images)

    return guarded


def _format_of(path: Path) -> str:
    """The format that the ending says or, where it says nothing, the content.

    Raises:
        QuickstudyError: nothing is there, or nothing that is read.
    """
    for name, format in FORMATS.items():
        if not path.is_dir() and path.suffix.lower() in format.endings:
            return name
    if path.is_dir():
        names = [name for name, format in FORMATS.items() if format.folder and _module(name).is_one(path)]
    else:
        head = _first_bytes(path)
        names = [name for name, format in FORMATS.items() if format.magic and head.startswith(format.magic)]
        line = head.lower().split(b"\n")[0]
        names += ["csv"] if b"episode" in line and b"task" in line else []
    if names:
        return names[0]
    *most, last = (format.said for format in FORMATS.values())
    begin = (
        f"'{path}' is not a data set that is read, which" if path.exists() else f"There is no '{path}'; what is read"
    )
    raise QuickstudyError(f"{begin} is a folder or file of demonstrations that is {', '.join(most)} or {last}.")


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(1 << 16)
    except OSError:
        return b""


def convert(source: Path, target: Path, format: str | None = None, reading: ReadingConfig | None = None) -> list[str]:
    """Writes a data set in any format that is read as one in any format that is written, whole or not at all.

    Args:
        target, format: as in `save`.
        reading: as in `load`.

    Returns:
        what the new data set leaves out, and what was noted when reading, each a sentence.

    Raises:
        QuickstudyError: as `load` and `save`.
    """
    chosen, recording = chosen_format(target, format), load(source, reading)
    about, films = recording.about, chosen == "lerobot"
    if films and about.rate is None:
        raise QuickstudyError(
            f"A LeRobot data set states its steps a second, and '{source}' does not say them: give --rate."
        )

    def episodes() -> Iterator[Episode]:
        with progress(f"converting {source.name}", len(recording)) as advance:
            for episode in recording.with_images() if films else recording:
                yield episode
                advance()
                del episode  # or the images of two episodes would be held at once

    save(target, episodes(), about, chosen)
    left = list(recording.notes)
    if about.cameras and not films:
        left.append(f"the cameras {', '.join(about.cameras)} are left out; --format lerobot keeps them.")
    if recording.masks:
        left.append(f"the masks {', '.join(recording.masks)} are left out; --mask takes the episodes of one.")
    return left


def save(path: Path, episodes: Iterable[Episode], about: About, format: str | None = None) -> None:
    """Writes demonstrations, whole or not at all; they may be drawn while they are written.

    Args:
        path: a folder or file that is not there yet.
        format: one of `FORMATS` that is written; by default what the ending of `path` says, and 'lerobot' without one.

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
    written = [name for name, one in FORMATS.items() if one.written]
    if chosen not in written:
        raise unknown("format", chosen, written)
    if format is None and path.suffix in _ENDINGS - {".npz", ".csv"}:
        raise QuickstudyError(
            f"Files that end with {path.suffix} are not written; {', '.join(written)} are formats that are."
        )
    return chosen


def _module(name: str):  # type: ignore[no-untyped-def]
    return importlib.import_module(f"quickstudy.datasets.{FORMATS[name].module}")
