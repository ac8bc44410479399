"""Writes a LeRobotDataset v3.0, one episode at a time."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from quickstudy.datasets import videos
from quickstudy.datasets.episodes import About, Episode, to_write
from quickstudy.datasets.lerobot.layout import (
    DATA,
    EPISODES,
    IMAGES,
    INFO,
    REWARD,
    ROWS,
    SUCCESS,
    VERSION,
    VIDEO,
    is_camera,
)
from quickstudy.errors import QuickstudyError
from quickstudy.io import files

_FILES_IN_A_CHUNK = 1000
_FILE_BYTES = 100 * 2**20
_VIDEO_BYTES = 200 * 2**20
_LISTED = 100
"""Rows of the list of episodes that are kept before they are written; each has many columns."""

_BOOKKEEPING: dict[str, Any] = {
    "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    **{
        k: {"dtype": "int64", "shape": [1], "names": None}
        for k in ("frame_index", "episode_index", "index", "task_index")
    },
}
_QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
_FRAMES = 100
"""Frames of an episode that image statistics are taken from."""


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
        "observation.state": _vector(first.observations, about.observations, about.observation_units),
        "action": _vector(first.actions, about.actions, about.action_units),
    }
    for key, kind, values in ((REWARD, "float32", first.rewards), (SUCCESS, "bool", first.success)):
        if values is not None:
            features[key] = {"dtype": kind, "shape": [1], "names": None}
    for name, images in first.images.items():
        height, width = images.shape[1:3]
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or height % 2 or width % 2:
            raise QuickstudyError(
                f"Images must be uint8 [step, height, width, 3] with an even height and width; '{name}' has shape "
                f"{images.shape} of {images.dtype}."
            )
        features[f"{IMAGES}{name}"] = {
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


def _vector(values: np.ndarray, names: Sequence[str], units: Sequence[str]) -> dict[str, Any]:
    """float64 where float32 would lose what changes, as `Demonstration` says."""
    kind = "float64" if values.dtype == np.float64 else "float32"
    return {"dtype": kind, "shape": [len(names)], "names": list(names)} | ({"units": list(units)} if any(units) else {})


class _Writer:
    """Appends episodes to the files of a data set; use it as a context."""

    def __init__(self, root: Path, features: dict[str, Any], rate: float) -> None:
        self.tasks: dict[str, int] = {}
        self._features, self._rate, self._root = features, rate, root
        self._films: dict[str, videos.Film] = {}
        self._filmed: Counter[str] = Counter()
        self._data, self._list = _Tables(root, DATA, ROWS), _Tables(root, EPISODES, _LISTED)
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
        stats |= {f"{IMAGES}{name}": _image_statistics(images) for name, images in episode.images.items()}
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
            row |= self._film(f"{IMAGES}{name}", images)
        row |= {f"stats/{key}/{what}": v.tolist() for key, one in stats.items() for what, v in one.items()}
        chunk, file = self._list.place
        self._list.add(
            pa.Table.from_pylist([row | {"meta/episodes/chunk_index": chunk, "meta/episodes/file_index": file}])
        )
        self._episodes, self._steps = self._episodes + 1, self._steps + len(episode)

    def _columns(self, episode: Episode) -> dict[str, np.ndarray]:
        """The columns of the data files, [step, number] each."""
        steps = np.arange(len(episode))
        found: dict[str, Any] = {
            "observation.state": episode.observations,
            "action": episode.actions,
            REWARD: episode.rewards,
            SUCCESS: episode.success,
            "timestamp": steps / self._rate,
            "frame_index": steps,
            "episode_index": np.full(len(episode), self._episodes),
            "index": self._steps + steps,
            "task_index": np.full(len(episode), self.tasks.setdefault(episode.task, len(self.tasks))),
        }
        for key in ("observation.state", "action"):
            if found[key].dtype == np.float64 and self._features[key]["dtype"] == "float32":
                raise QuickstudyError(
                    f"{episode.where}: its numbers need double precision, which those of the first episode did not; "
                    "put an episode that does first, or take off a common offset."
                )
        return {
            key: np.asarray(found[key], feature["dtype"]).reshape(len(episode), -1)
            for key, feature in self._features.items()
            if not is_camera(feature["dtype"])
        }

    def _film(self, key: str, images: np.ndarray) -> dict[str, Any]:
        """Appends frames to a camera's video, a new one where that is large enough, and says where they are."""
        film = self._films.get(key)
        if film is None or film.bytes > _VIDEO_BYTES:
            if film is not None:
                film.close()
            self._filmed[key] += 1
        chunk, file = divmod(self._filmed[key] - 1, _FILES_IN_A_CHUNK)
        path = self._root / VIDEO.format(video_key=key, chunk_index=chunk, file_index=file)
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
            "data_path": DATA,
            "video_path": VIDEO if self._films else None,
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
