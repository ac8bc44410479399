"""Reads a LeRobotDataset v2.0, v2.1 or v3, one episode at a time."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from quickstudy.datasets import timing, videos
from quickstudy.datasets.episodes import About, Episode, Recording, numbered
from quickstudy.datasets.lerobot.layout import IMAGES, INFO, REWARD, ROWS, SUCCESS, is_camera
from quickstudy.datasets.lerobot.listing import Feature, Info, Place, chosen, opened, places, read_info
from quickstudy.errors import QuickstudyError, listed, sound
from quickstudy.settings import ReadingConfig


def is_one(path: Path) -> bool:
    """Whether this is the folder of such a data set."""
    return (path / INFO).is_file()


def load(folder: Path, reading: ReadingConfig) -> Recording:
    """A data set; of its data only the list of episodes is read now.

    Raises:
        QuickstudyError: not such a folder, a file or a feature missing, or one that is damaged.
    """
    info, where = read_info(folder), f"'{folder / INFO}'"
    observed, pictures = chosen(info, reading.observation, False, where)
    acted, _ = chosen(info, reading.action, True, where)
    cameras = {key.removeprefix(IMAGES): key for key, one in info.features.items() if is_camera(one.dtype)}
    listing = places(folder, info, cameras.values())
    names, units = zip(*(_named(keys, info.features) for keys in (observed, acted)), strict=True)
    about = About(reading.rate or float(info.fps), names[0], names[1], tuple(cameras), units[0], units[1])
    notes = (f"{listed(pictures)} are pictures kept as numbers, which are left out.",) if pictures else ()

    def read(images: bool) -> Iterator[Episode]:
        for episode in _read(info, (observed, acted), cameras if images else {}, listing, reading, about):
            if reading.rate is None:
                yield episode
            else:
                times = np.arange(len(episode)) / info.fps if episode.times is None else episode.times
                yield timing.resampled(episode, times, reading.rate, about)

    tasks = [place.task for place in listing]
    return Recording(folder, f"LeRobotDataset {info.codebase_version}", about, tasks, read, notes=notes)


def _named(keys: Sequence[str], features: Mapping[str, Feature]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and units of the channels of some features; where there are several, with the feature's name before."""
    names: list[str] = []
    units: list[str] = []
    for key in keys:
        feature, short = features[key], key.removeprefix("observation.")
        found = _texts(feature.names, feature.width)
        if found is None:
            names += numbered(short, feature.width) if feature.width > 1 else [short]
        else:
            names += [f"{short}.{name}" for name in found] if len(keys) > 1 else found
        units += _texts(feature.units, feature.width) or [""] * feature.width
    return tuple(names), tuple(units) if any(units) else ()


def _texts(said: object, width: int) -> list[str] | None:
    """One text for each channel; None where there are others than that."""
    if isinstance(said, Mapping):  # {"motors": [...]}, as older recordings have it
        said = [name for some in said.values() for name in (some if isinstance(some, list) else [some])]
    good = isinstance(said, list) and len(said) == width and all(isinstance(one, str | int) for one in said)
    found = [str(one) for one in said] if good else []  # type: ignore[attr-defined]
    return found if good and len(set(found)) == width else None


class _Rows:
    """Goes through the rows of a parquet file, so many at a time as an episode has."""

    def __init__(self, path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> None:
        self._path, self._file = path, opened(path, columns)
        there = [*columns, *(name for name in optional if name in self._file.schema_arrow.names)]
        self._batches = self._file.iter_batches(ROWS, columns=there, use_threads=False)
        self._kept: list[pa.RecordBatch] = []
        self.row = 0
        """The next row."""

    def skip_to(self, episode: int) -> None:
        """Passes over the rows of episodes that the list does not have: deleted or filtered ones."""
        while self._kept or self._more():
            numbers = self._kept[0]["episode_index"].to_numpy(zero_copy_only=False)
            wanted = np.flatnonzero(numbers == episode)
            passed = int(wanted[0]) if len(wanted) else len(numbers)
            self.row += passed
            rest = self._kept[0].slice(passed)
            self._kept = [rest, *self._kept[1:]] if len(rest) else self._kept[1:]
            if len(wanted):
                return
        raise QuickstudyError(f"'{self._path}' has no rows of episode {episode}, which the list of episodes says.")

    def take(self, episode: int, count: int) -> pa.Table:
        while sum(map(len, self._kept)) < count:
            if not self._more():
                missing = count - sum(map(len, self._kept))
                raise QuickstudyError(
                    f"'{self._path}' ends within an episode, {missing} rows too early; fetch or record it again."
                )
        table = pa.Table.from_batches(self._kept)
        self._kept = [batch for batch in table.slice(count).to_batches() if len(batch)]
        taken = table.slice(0, count)
        numbers = taken["episode_index"].to_numpy()
        bad = np.flatnonzero(numbers != episode)
        if len(bad):
            raise QuickstudyError(
                f"'{self._path}', row {self.row + bad[0]}: it is of episode {numbers[bad[0]]} where the list of "
                f"episodes says {episode}."
            )
        if (self._kept or self._more()) and self._kept[0]["episode_index"][0].as_py() == episode:
            raise QuickstudyError(
                f"'{self._path}', row {self.row + count}: episode {episode} goes on after the {count} steps that the "
                "list of episodes says."
            )
        self.row += count
        return taken

    def _more(self) -> bool:
        with sound(f"'{self._path}' is not a whole parquet file; fetch or record it again"):
            batch = next(self._batches, None)
        if batch is not None and len(batch):
            self._kept.append(batch)
        return batch is not None and bool(self._kept)

    def close(self) -> None:
        self._file.close()


def _read(
    info: Info,
    keys: tuple[Sequence[str], Sequence[str]],
    cameras: Mapping[str, str],
    listing: Sequence[Place],
    reading: ReadingConfig,
    about: About,
) -> Iterator[Episode]:
    features, rate = info.features, float(info.fps)
    stored = {name: key for name, key in cameras.items() if features[key].dtype == "image"}
    wanted = list(dict.fromkeys(["episode_index", *keys[0], *keys[1], *stored.values()]))
    with ExitStack() as stack:
        films = {name: videos.Frames(rate) for name in cameras.keys() - stored.keys()}
        for film in films.values():
            stack.callback(film.close)
        for path, group in groupby(listing, key=lambda place: place.file):
            with closing(_Rows(path, wanted, ("timestamp", REWARD, SUCCESS))) as rows:
                for place in group:
                    rows.skip_to(place.number)
                    part = _Part(path, place, rows.row, rows.take(place.number, place.length))
                    observations, actions = (
                        np.concatenate([part.matrix(key, features[key].width) for key in some], 1) for some in keys
                    )
                    images = {name: part.pictures(key) for name, key in stored.items()}
                    images |= {n: f.take(*place.cameras[cameras[n]], place.length) for n, f in films.items()}
                    yield Episode(
                        place.task, observations, actions, part.column(REWARD), part.success(), images, part.where,
                        part.times(rate, reading),
                    )  # fmt: skip


@dataclass(frozen=True)
class _Part:
    """The rows of one episode.

    Attributes:
        row: the first of them, counted within the file.
    """

    path: Path
    place: Place
    row: int
    table: pa.Table

    @property
    def where(self) -> str:
        return f"'{self.path}', episode {self.place.number} (from row {self.row})"

    def times(self, rate: float, reading: ReadingConfig) -> np.ndarray | None:
        """Time stamps [step], seconds; those of a data set that is not resampled must have its rate."""
        stamps = self.column("timestamp")
        if stamps is None:
            return None
        times = timing.seconds(stamps, reading.time_unit or "s", f"'{self.path}'")
        if reading.rate is None:
            timing.check_steady(times, rate, f"'{self.path}', row", self.row)
        return times

    def matrix(self, key: str, width: int) -> np.ndarray:
        """A feature, [step, number]."""
        column = self.table[key].combine_chunks()
        flat = column
        while pa.types.is_nested(flat.type) or isinstance(flat.type, pa.ExtensionType):
            flat = flat.storage if isinstance(flat.type, pa.ExtensionType) else flat.flatten()
            if isinstance(flat, list):  # the fields of a struct
                raise QuickstudyError(f"'{self.path}': column '{key}' holds {column.type}; numbers are accepted.")
        if not (pa.types.is_integer(flat.type) or pa.types.is_floating(flat.type) or pa.types.is_boolean(flat.type)):
            raise QuickstudyError(f"'{self.path}': column '{key}' holds {flat.type}; numbers are accepted.")
        if len(flat) != len(column) * width:
            lengths = np.zeros(0) if flat is column else pc.list_value_length(column).fill_null(0).to_numpy()
            bad = np.flatnonzero(lengths != width)
            row, found = (bad[0], lengths[bad[0]]) if len(bad) else (0, len(flat) // len(column))
            raise QuickstudyError(
                f"'{self.path}', row {self.row + row}: '{key}' has {found} numbers; all rows need {width}, as {INFO} "
                "says."
            )
        if pa.types.is_boolean(flat.type):
            flat = flat.cast(pa.uint8())
        return flat.to_numpy(zero_copy_only=False).reshape(len(column), width)

    def column(self, key: str) -> np.ndarray | None:
        """A feature of one number, [step], where there is such a column."""
        return self.matrix(key, 1)[:, 0] if key in self.table.column_names else None

    def success(self) -> np.ndarray | None:
        """Whether the task is done, [step] bool, where there is such a column; unknown is not."""
        found = self.column(SUCCESS)
        return None if found is None else np.nan_to_num(found.astype(float)) > 0

    def pictures(self, key: str) -> np.ndarray:
        """Images that are kept in the table itself, uint8 [step, height, width, 3]."""
        try:
            pngs = [io.BytesIO(one["bytes"]) for one in self.table[key].to_pylist()]
            return np.stack([np.asarray(Image.open(png).convert("RGB")) for png in pngs])
        except (OSError, TypeError, KeyError, ValueError) as error:
            raise QuickstudyError(f"{self.where}: '{key}' holds no readable images ({error}).") from error
