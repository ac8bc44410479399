"""LeRobotDataset v3.0, read and written without LeRobot.

    meta/info.json                               what the data set holds: frame rate, features, where the files are
    meta/stats.json                              mean, deviation, range and quantiles of each feature
    meta/tasks.parquet                           the task labels; the label is the pandas index
    meta/episodes/chunk-000/file-000.parquet     one row an episode: its task, its length, its files, its statistics
    data/chunk-000/file-000.parquet              one row a step, many episodes in a file
    videos/<camera>/chunk-000/file-000.mp4       the cameras' frames, many episodes in a file

Observations are all numeric features 'observation.…' one after another, in the order of info.json; what we write has
one, 'observation.state'. The format is Hugging Face's (Cadene et al., LeRobot, 2024; codebase version 3.0).
"""

import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from quickstudy.datasets.episodes import About, Episode, Recording, numbered, to_write
from quickstudy.errors import QuickstudyError
from quickstudy.io import files

VERSION = "v3.0"
INFO = "meta/info.json"

_CHUNK = "chunk-{chunk_index:03d}/file-{file_index:03d}"
_DATA = f"data/{_CHUNK}.parquet"
_EPISODES = f"meta/episodes/{_CHUNK}.parquet"
_VIDEO = f"videos/{{video_key}}/{_CHUNK}.mp4"
_FILES_IN_A_CHUNK = 1000
_FILE_BYTES = 100 * 2**20
_VIDEO_BYTES = 200 * 2**20
_ROWS = 8192
"""Steps that are kept before they are written, and read at once."""
_LISTED = 100
"""The same of the list of episodes, whose rows have many columns."""

_IMAGES = "observation.images."
_BOOKKEEPING: dict[str, Any] = {
    "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    **{
        k: {"dtype": "int64", "shape": [1], "names": None}
        for k in ("frame_index", "episode_index", "index", "task_index")
    },
}
_QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
_REWARD, _SUCCESS = "next.reward", "next.success"
_FRAMES = 100
"""Frames of an episode that image statistics are taken from."""

_JITTER = 0.1
"""How far a time stamp may be off, in steps."""


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


def load(folder: Path) -> Recording:
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
    cameras = {key.removeprefix(_IMAGES): key for key in features if _is_camera(features[key])}
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


def _is_camera(feature: Mapping[str, Any]) -> bool:
    return feature["dtype"] in ("video", "image")


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
    said = " ".join(str(error).split())
    return QuickstudyError(f"'{path}' is not a whole parquet file ({said}); fetch or record it again.")


class _Rows:
    """Goes through the rows of a parquet file, so many at a time as an episode has."""

    def __init__(self, path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> None:
        self._path, self._file = path, _opened(path, columns)
        there = [*columns, *(name for name in optional if name in self._file.schema_arrow.names)]
        self._batches = self._file.iter_batches(_ROWS, columns=there, use_threads=False)
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
            with closing(_Rows(path, wanted, ("timestamp", _REWARD, _SUCCESS))) as rows:
                first = None
                for place in group:
                    first = place.first if first is None else first
                    part = _Part(path, place, place.first - first, rows.take(place.length))
                    part.check(rate)
                    yield Episode(
                        place.task,
                        np.concatenate([part.matrix(key, features) for key in vectors], 1),
                        part.matrix("action", features),
                        part.column(_REWARD),
                        part.column(_SUCCESS),
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
        if times is None:
            return
        expected = times[0] + np.arange(len(times)) / rate
        bad = np.flatnonzero(~(np.abs(times - expected) <= _JITTER / rate))
        if len(bad):
            raise QuickstudyError(
                f"'{self.path}', row {self.row + bad[0]}: time stamp {times[bad[0]]:g} s where {rate:g} steps a "
                f"second, the frame rate in {INFO}, give {expected[bad[0]]:g} s; all episodes need that frame rate."
            )

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


def save(folder: Path, episodes: Iterable[Episode], about: About) -> None:
    """Writes a data set, whole or not at all; images become H.264 videos.

    Raises:
        QuickstudyError: the folder is there already, no frame rate, no episode, one that is not fit to learn from, ones
            that differ, or the disk refuses.
    """
    rate = about.rate
    if rate is None:
        raise QuickstudyError("A LeRobot data set needs a frame rate, the steps a second; got none.")
    with files.partial_folder(folder) as root:
        first, every = to_write(episodes)
        about = about.named(first.observations.shape[1], first.actions.shape[1])
        features = _features(first, about)
        with _Writer(root, features, rate) as writer:
            for episode in every:
                writer.add(episode)
        for name, content in writer.summary().items():
            (root / name).write_text(json.dumps(content, indent=4))
        _write_tasks(root / "meta/tasks.parquet", list(writer.tasks))


def _features(first: Episode, about: About) -> dict[str, Any]:
    """What info.json says of each column."""
    features: dict[str, Any] = {
        "observation.state": {
            "dtype": "float32",
            "shape": [len(about.observations)],
            "names": list(about.observations),
        },
        "action": {"dtype": "float32", "shape": [len(about.actions)], "names": list(about.actions)},
    }
    for key, kind, values in ((_REWARD, "float32", first.rewards), (_SUCCESS, "bool", first.success)):
        if values is not None:
            features[key] = {"dtype": kind, "shape": [1], "names": None}
    for name, images in first.images.items():
        height, width = images.shape[1:3]
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or height % 2 or width % 2:
            raise QuickstudyError(
                f"Images must be uint8 [step, height, width, 3] with an even height and width; '{name}' has shape "
                f"{images.shape} of {images.dtype}."
            )
        features[f"{_IMAGES}{name}"] = {
            "dtype": "video",
            "shape": [height, width, 3],
            "names": ["height", "width", "channels"],
            "info": {
                "video.height": height,
                "video.width": width,
                "video.codec": videos.CODEC,
                "video.pix_fmt": videos.PIXELS,
                "video.is_depth_map": False,
                "video.fps": _plain(about.rate or 0.0),
                "video.channels": 3,
                "has_audio": False,
            },
        }
    return features | _BOOKKEEPING


class _Writer:
    """Appends episodes to the files of a data set; use it as a context."""

    def __init__(self, root: Path, features: dict[str, Any], rate: float) -> None:
        self.tasks: dict[str, int] = {}
        self._features, self._rate, self._root = features, rate, root
        self._films: dict[str, videos.Film] = {}
        self._filmed: Counter[str] = Counter()
        self._data, self._list = _Tables(root, _DATA, _ROWS), _Tables(root, _EPISODES, _LISTED)
        self._episodes = self._steps = 0
        self._stats: dict[str, Any] = {}

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self._data.close()
        self._list.close()
        for film in self._films.values():
            film.close()

    def add(self, episode: Episode) -> None:
        columns = self._columns(episode)
        chunk, file = self._data.add(_to_table(columns, self._features))
        stats = {key: _statistics(values) for key, values in columns.items()}
        stats |= {f"{_IMAGES}{name}": _image_statistics(images) for name, images in episode.images.items()}
        for key, one in stats.items():
            self._stats[key] = _merged(self._stats[key], one) if key in self._stats else one
        row: dict[str, Any] = {
            "episode_index": self._episodes,
            "tasks": [episode.task],
            "length": len(episode),
            "data/chunk_index": chunk,
            "data/file_index": file,
            "dataset_from_index": self._steps,
            "dataset_to_index": self._steps + len(episode),
        }
        for name, images in episode.images.items():
            row |= self._film(f"{_IMAGES}{name}", images)
        row |= {f"stats/{key}/{what}": v.tolist() for key, one in stats.items() for what, v in one.items()}
        chunk, file = self._list.place
        self._list.add(
            pa.Table.from_pylist([row | {"meta/episodes/chunk_index": chunk, "meta/episodes/file_index": file}])
        )
        self._episodes, self._steps = self._episodes + 1, self._steps + len(episode)

    def _columns(self, episode: Episode) -> dict[str, np.ndarray]:
        """The columns of the data files, [step, number] each."""
        steps = np.arange(len(episode))
        found = {
            "observation.state": episode.observations,
            "action": episode.actions,
            _REWARD: episode.rewards,
            _SUCCESS: episode.success,
            "timestamp": steps / self._rate,
            "frame_index": steps,
            "episode_index": np.full(len(episode), self._episodes),
            "index": self._steps + steps,
            "task_index": np.full(len(episode), self.tasks.setdefault(episode.task, len(self.tasks))),
        }
        return {
            key: np.asarray(found[key], feature["dtype"]).reshape(len(episode), -1)
            for key, feature in self._features.items()
            if not _is_camera(feature)
        }

    def _film(self, key: str, images: np.ndarray) -> dict[str, Any]:
        """Appends frames to a camera's video, a new one where that is large enough, and says where they are."""
        film = self._films.get(key)
        if film is None or film.bytes > _VIDEO_BYTES:
            if film is not None:
                film.close()
            self._filmed[key] += 1
        chunk, file = divmod(self._filmed[key] - 1, _FILES_IN_A_CHUNK)
        path = self._root / _VIDEO.format(video_key=key, chunk_index=chunk, file_index=file)
        if film is None or film.path != path:
            film = self._films[key] = videos.Film(path, self._rate, (images.shape[1], images.shape[2]))
        begin, end = film.add(images)
        where = {"chunk_index": chunk, "file_index": file, "from_timestamp": begin, "to_timestamp": end}
        return {f"videos/{key}/{what}": value for what, value in where.items()}

    def summary(self) -> dict[str, Any]:
        """The contents of the JSON files by name."""
        info = {
            "codebase_version": VERSION,
            "robot_type": None,
            "total_episodes": self._episodes,
            "total_frames": self._steps,
            "total_tasks": len(self.tasks),
            "chunks_size": _FILES_IN_A_CHUNK,
            "data_files_size_in_mb": _FILE_BYTES >> 20,
            "video_files_size_in_mb": _VIDEO_BYTES >> 20,
            "fps": _plain(self._rate),
            "splits": {"train": f"0:{self._episodes}"},
            "data_path": _DATA,
            "video_path": _VIDEO if self._films else None,
            "features": self._features,
        }
        stats = {key: {what: v.tolist() for what, v in one.items()} for key, one in self._stats.items()}
        return {INFO: info, "meta/stats.json": stats}


class _Tables:
    """Rows in one parquet file after another, each of limited size.

    Args:
        rows: how many are kept before they are written.

    Attributes:
        place: chunk and file that rows go to.
    """

    def __init__(self, root: Path, pattern: str, rows: int) -> None:
        self._root, self._pattern, self._rows, self._number, self._bytes = root, pattern, rows, 0, 0
        self._kept: list[pa.Table] = []
        self._file: pq.ParquetWriter | None = None

    @property
    def place(self) -> tuple[int, int]:
        return divmod(self._number, _FILES_IN_A_CHUNK)

    def add(self, table: pa.Table) -> tuple[int, int]:
        """Appends rows, and returns the chunk and file that they are in; a file takes no more once it is large."""
        where = self.place
        self._kept.append(table)
        self._bytes += table.nbytes
        if sum(map(len, self._kept)) >= self._rows or self._bytes >= _FILE_BYTES:
            self._flush()
        if self._bytes >= _FILE_BYTES:
            self.close()
            self._number, self._bytes, self._file = self._number + 1, 0, None
        return where

    def close(self) -> None:
        self._flush()
        if self._file is not None:
            self._file.close()

    def _flush(self) -> None:
        if not self._kept:
            return
        table, self._kept = pa.concat_tables(self._kept).combine_chunks(), []
        if self._file is None:
            chunk, file = self.place
            path = self._root / self._pattern.format(chunk_index=chunk, file_index=file)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = pq.ParquetWriter(path, table.schema, compression="snappy")
        self._file.write_table(table, row_group_size=len(table))


def _to_table(columns: Mapping[str, np.ndarray], features: Mapping[str, Any]) -> pa.Table:
    """Columns as Hugging Face's `datasets` reads them: what says so is in the schema's metadata."""
    arrays, said = {}, {}
    for key, values in columns.items():
        kind, width = features[key]["dtype"], values.shape[1]
        flat = pa.array(values.ravel())
        arrays[key] = flat if width == 1 else pa.FixedSizeListArray.from_arrays(flat, width)
        one = {"dtype": kind, "_type": "Value"}
        said[key] = one if width == 1 else {"feature": one, "length": width, "_type": "List"}
    return pa.table(arrays).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": said}})})


def _write_tasks(path: Path, tasks: Sequence[str]) -> None:
    """The labels, as the pandas index that LeRobot looks them up by."""
    index = "__index_level_0__"
    said = {
        "index_columns": [index],
        "column_indexes": [
            {
                "name": None,
                "field_name": None,
                "pandas_type": "unicode",
                "numpy_type": "object",
                "metadata": {"encoding": "UTF-8"},
            }
        ],
        "columns": [
            {"name": name, "field_name": field, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
            for name, field, kind, numpy in (
                ("task_index", "task_index", "int64", "int64"),
                (None, index, "unicode", "object"),
            )
        ],
        "pandas_version": "2.2.0",
    }
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), index: pa.array(tasks, pa.string())})
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(said)}), path)


def _statistics(values: np.ndarray) -> dict[str, np.ndarray]:
    """LeRobot's statistics of a feature [step, number] in one episode."""
    numbers = values.astype(np.float64)
    quantiles = np.quantile(numbers, list(_QUANTILES.values()), axis=0)
    return {
        "min": numbers.min(0),
        "max": numbers.max(0),
        "mean": numbers.mean(0),
        "std": numbers.std(0),
        "count": np.array([len(numbers)]),
        **dict(zip(_QUANTILES, quantiles, strict=True)),
    }


def _image_statistics(images: np.ndarray) -> dict[str, np.ndarray]:
    """The same for images, by colour over the pixels of some frames, from 0 to 1, in LeRobot's shape [3, 1, 1]."""
    some = images[np.linspace(0, len(images) - 1, min(len(images), _FRAMES)).astype(int)]
    found = _statistics(some.reshape(-1, 3) / 255)
    return {what: np.array([len(some)]) if what == "count" else value.reshape(3, 1, 1) for what, value in found.items()}


def _merged(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Statistics of two sets together (Chan et al. 1979); of quantiles the weighted mean, as LeRobot has it."""
    total = a["count"] + b["count"]
    share = b["count"] / total
    away = b["mean"] - a["mean"]
    variance = (1 - share) * a["std"] ** 2 + share * b["std"] ** 2 + share * (1 - share) * away**2
    return {
        "min": np.minimum(a["min"], b["min"]),
        "max": np.maximum(a["max"], b["max"]),
        "mean": a["mean"] + share * away,
        "std": np.sqrt(variance),
        "count": total,
        **{q: (1 - share) * a[q] + share * b[q] for q in _QUANTILES},
    }


def _plain(rate: float) -> float | int:
    """A whole rate as the integer that LeRobot writes."""
    return int(rate) if float(rate).is_integer() else rate
