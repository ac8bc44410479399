"""Reads a LeRobotDataset v3.0, one episode at a time."""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from quickstudy.datasets import videos
from quickstudy.datasets.episodes import About, Episode, Recording, check_times, numbered
from quickstudy.datasets.lerobot.layout import IMAGES, INFO, REWARD, ROWS, SUCCESS, VERSION, is_camera
from quickstudy.errors import QuickstudyError, one_line
from quickstudy.settings import ReadingConfig


@dataclass(frozen=True)
class _Place:
    """Where an episode is.

    Attributes:
        file: of its rows.
        first: its first row, counted over all files.
        cameras: for each camera the file of its frames, and the second at which they begin.
    """

    number: int
    task: str
    length: int
    file: Path
    first: int
    cameras: Mapping[str, tuple[Path, float]]


def is_one(path: Path) -> bool:
    """Whether this is the folder of such a data set."""
    return (path / INFO).is_file()


def load(folder: Path, reading: ReadingConfig) -> Recording:
    """A data set; of its data only the list of episodes is read now.

    Raises:
        QuickstudyError: not such a folder, a file or a feature missing, or one that is damaged.
    """
    info = _info(folder)
    features: dict[str, Any] = info["features"]
    vectors = [key for key in features if key.startswith("observation.") and _is_numbers(features[key])]
    if "action" not in features or not vectors:
        raise QuickstudyError(
            f"'{folder / INFO}' has the features {', '.join(features)}; to learn from it needs 'action' and at least "
            "one 'observation.…' of numbers."
        )
    cameras = {key.removeprefix(IMAGES): key for key in features if is_camera(features[key])}
    places = _places(folder, info, cameras)
    about = About(
        float(info["fps"]),
        tuple(name for key in vectors for name in _names(key, features[key], len(vectors) > 1)),
        tuple(_names("action", features["action"], False)),
        tuple(cameras),
    )

    def read(images: bool) -> Iterator[Episode]:
        return _read(info, vectors, cameras if images else {}, places)

    return Recording(folder, "LeRobotDataset v3.0", about, [place.task for place in places], read)


def _info(folder: Path) -> dict[str, Any]:
    path = folder / INFO
    try:
        info = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise QuickstudyError(f"'{folder}' is not a LeRobot data set: it has no {INFO}.") from error
    except (OSError, ValueError) as error:
        raise QuickstudyError(f"'{path}' is not readable JSON ({error}).") from error
    needed = ("codebase_version", "fps", "features", "data_path")
    missing = [key for key in needed if not isinstance(info, dict) or key not in info]
    if missing:
        raise QuickstudyError(f"'{path}' lacks '{missing[0]}'; it needs {', '.join(needed)}.")
    if not str(info["codebase_version"]).startswith("v3."):
        raise QuickstudyError(
            f"'{path}' says version '{info['codebase_version']}'; {VERSION} is read, and LeRobot converts older ones "
            "by 'python -m lerobot.datasets.v30.convert_dataset_v21_to_v30'."
        )
    if not isinstance(info["fps"], int | float) or not info["fps"] > 0:
        raise QuickstudyError(f"'{path}' says fps {info['fps']!r}; it must be a positive number of steps a second.")
    return info


def _is_numbers(feature: Mapping[str, Any]) -> bool:
    return feature["dtype"].startswith(("float", "int", "uint", "bool"))


def _names(key: str, feature: Mapping[str, Any], prefix: bool) -> Sequence[str]:
    """Names of a feature's channels; where there are several features, with the feature's before them."""
    width, named = int(np.prod(feature["shape"])), feature.get("names")
    if isinstance(named, Mapping):  # {"motors": [...]}, as older recordings have it
        named = [name for some in named.values() for name in (some if isinstance(some, list) else [some])]
    if not isinstance(named, list) or len(named) != width:
        return numbered(key.removeprefix("observation."), width) if width > 1 else [key.removeprefix("observation.")]
    return [f"{key.removeprefix('observation.')}.{name}" if prefix else str(name) for name in named]


def _places(folder: Path, info: Mapping[str, Any], cameras: Mapping[str, str]) -> list[_Place]:
    """Where the episodes are, in the order of their rows."""
    paths = sorted((folder / "meta/episodes").glob("*/*.parquet"))
    if not paths:
        raise QuickstudyError(f"'{folder}' has no meta/episodes/*/*.parquet, which lists its episodes.")
    films = [key for key in cameras.values() if info["features"][key]["dtype"] == "video"]
    wanted = ["episode_index", "tasks", "length", "data/chunk_index", "data/file_index", "dataset_from_index"]
    wanted += [f"videos/{key}/{what}" for key in films for what in ("chunk_index", "file_index", "from_timestamp")]
    places = []
    for path in paths:
        for row, one in enumerate(_table(path, wanted).to_pylist()):
            if one["tasks"] is None or len(one["tasks"]) != 1:
                raise QuickstudyError(
                    f"'{path}', row {row}: episode {one['episode_index']} has the tasks {one['tasks']}; each episode "
                    "needs exactly one."
                )
            if not one["length"] or one["length"] < 1:
                raise QuickstudyError(
                    f"'{path}', row {row}: episode {one['episode_index']} has length {one['length']}; each needs at "
                    "least one step."
                )
            films_of = {
                key: (
                    folder
                    / info["video_path"].format(
                        video_key=key, **{n: one[f"videos/{key}/{n}"] for n in ("chunk_index", "file_index")}
                    ),
                    one[f"videos/{key}/from_timestamp"],
                )
                for key in films
            }
            file = info["data_path"].format(chunk_index=one["data/chunk_index"], file_index=one["data/file_index"])
            numbers = (one["episode_index"], one["tasks"][0], one["length"], folder / file, one["dataset_from_index"])
            places.append(_Place(*numbers, films_of))
    return sorted(places, key=lambda place: place.first)


def _table(path: Path, wanted: Sequence[str]) -> pa.Table:
    with _opened(path, wanted) as file:
        try:
            return file.read(columns=list(wanted))
        except (pa.ArrowException, OSError) as error:
            raise _damaged(path, error) from error


def _opened(path: Path, wanted: Sequence[str]) -> pq.ParquetFile:
    if not path.is_file():
        raise QuickstudyError(f"There is no file '{path}', which the data set's list of episodes names.")
    try:
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error
    missing = [name for name in wanted if name not in file.schema_arrow.names]
    if missing:
        file.close()
        raise QuickstudyError(f"'{path}' lacks the column '{missing[0]}'; it needs {', '.join(wanted)}.")
    return file


def _damaged(path: Path, error: Exception) -> QuickstudyError:
    return QuickstudyError(f"'{path}' is not a whole parquet file ({one_line(error)}); fetch or record it again.")


class _Rows:
    """Goes through the rows of a parquet file, so many at a time as an episode has."""

    def __init__(self, path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> None:
        self._path, self._file = path, _opened(path, columns)
        there = [*columns, *(name for name in optional if name in self._file.schema_arrow.names)]
        self._batches = self._file.iter_batches(ROWS, columns=there, use_threads=False)
        self._kept: list[pa.RecordBatch] = []

    def take(self, count: int) -> pa.Table:
        while sum(map(len, self._kept)) < count:
            try:
                batch = next(self._batches, None)
            except (pa.ArrowException, OSError) as error:
                raise _damaged(self._path, error) from error
            if batch is None:
                missing = count - sum(map(len, self._kept))
                raise QuickstudyError(
                    f"'{self._path}' ends within an episode, {missing} rows too early; fetch or record it again."
                )
            self._kept.append(batch)
        table = pa.Table.from_batches(self._kept) if self._kept else pa.table({})
        self._kept = table.slice(count).to_batches()
        return table.slice(0, count)

    def close(self) -> None:
        self._file.close()


def _read(
    info: Mapping[str, Any], vectors: Sequence[str], cameras: Mapping[str, str], places: Sequence[_Place]
) -> Iterator[Episode]:
    features, rate = info["features"], float(info["fps"])
    stored = {name: key for name, key in cameras.items() if features[key]["dtype"] == "image"}
    wanted = ["episode_index", *vectors, "action", *stored.values()]
    with ExitStack() as stack:
        films = {name: videos.Frames(rate) for name in cameras.keys() - stored.keys()}
        for film in films.values():
            stack.callback(film.close)
        for path, group in groupby(places, key=lambda place: place.file):
            with closing(_Rows(path, wanted, ("timestamp", REWARD, SUCCESS))) as rows:
                first = None
                for place in group:
                    first = place.first if first is None else first
                    part = _Part(path, place, place.first - first, rows.take(place.length))
                    part.check(rate)
                    yield Episode(
                        place.task,
                        np.concatenate([part.matrix(key, features) for key in vectors], 1),
                        part.matrix("action", features),
                        part.column(REWARD),
                        part.column(SUCCESS),
                        {name: part.pictures(key) for name, key in stored.items()}
                        | {n: film.take(*place.cameras[cameras[n]], place.length) for n, film in films.items()},
                        part.where,
                    )


@dataclass(frozen=True)
class _Part:
    """The rows of one episode.

    Attributes:
        row: the first of them, counted within the file.
    """

    path: Path
    place: _Place
    row: int
    table: pa.Table

    @property
    def where(self) -> str:
        return f"'{self.path}', episode {self.place.number} (from row {self.row})"

    def check(self, rate: float) -> None:
        """Raises QuickstudyError where these are rows of another episode, or of another frame rate."""
        numbers = self.table["episode_index"].to_numpy()
        bad = np.flatnonzero(numbers != self.place.number)
        if len(bad):
            raise QuickstudyError(
                f"'{self.path}', row {self.row + bad[0]}: it is of episode {numbers[bad[0]]} where meta/episodes says "
                f"{self.place.number}."
            )
        times = self.column("timestamp")
        if times is not None:
            check_times(times, rate, f"'{self.path}', row", self.row)

    def matrix(self, key: str, features: Mapping[str, Any]) -> np.ndarray:
        """A feature, [step, number]."""
        column, width = self.table[key].combine_chunks(), int(np.prod(features[key]["shape"]))
        flat = column
        while pa.types.is_nested(flat.type) or isinstance(flat.type, pa.ExtensionType):
            flat = flat.storage if isinstance(flat.type, pa.ExtensionType) else flat.flatten()
        if not (pa.types.is_integer(flat.type) or pa.types.is_floating(flat.type) or pa.types.is_boolean(flat.type)):
            raise QuickstudyError(f"'{self.path}': column '{key}' holds {flat.type}; numbers are accepted.")
        if len(flat) != len(column) * width:
            lengths = pc.list_value_length(column).fill_null(0).to_numpy()
            bad = np.flatnonzero(lengths != width)
            row, found = (bad[0], lengths[bad[0]]) if len(bad) else (0, len(flat) // len(column))
            raise QuickstudyError(
                f"'{self.path}', row {self.row + row}: '{key}' has {found} numbers; all rows need {width}, as {INFO} "
                "says."
            )
        return flat.to_numpy(zero_copy_only=False).reshape(len(column), width)

    def column(self, key: str) -> np.ndarray | None:
        """A feature of one number, [step], where there is such a column."""
        if key not in self.table.column_names:
            return None
        return self.table[key].to_numpy().reshape(len(self.table))

    def pictures(self, key: str) -> np.ndarray:
        """Images that are kept in the table itself, uint8 [step, height, width, 3]."""
        try:
            pngs = [io.BytesIO(one["bytes"]) for one in self.table[key].to_pylist()]
            return np.stack([np.asarray(Image.open(png).convert("RGB")) for png in pngs])
        except (OSError, TypeError, KeyError, ValueError) as error:
            raise QuickstudyError(f"{self.where}: '{key}' holds no readable images ({error}).") from error
