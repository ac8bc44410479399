"""What a LeRobotDataset says about itself: its features, and where its episodes are; nothing of it is trusted."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, Field, StrictFloat, StrictInt, StrictStr

from quickstudy.datasets.lerobot.layout import IMAGES, INFO, is_camera
from quickstudy.datasets.selection import is_picture
from quickstudy.errors import QuickstudyError, listed, sound
from quickstudy.io.files import checked, parse_json, read_json

_FIELD = re.compile(r"\{(\w+)(?::0?\d{1,2}d)?\}")
_STATES = ("state", "environment_state", "observation")
"""What converters call observations, where nothing is called 'observation.…'."""
_MOST_WIDTH = 100_000


class Feature(BaseModel):
    """One column of the data set."""

    dtype: StrictStr
    shape: tuple[Annotated[int, Field(ge=1, le=_MOST_WIDTH)], ...]
    names: Any = None
    units: Any = None

    @property
    def width(self) -> int:
        return math.prod(self.shape)

    @property
    def is_number(self) -> bool:
        return self.dtype.startswith(("float", "int", "uint", "bool"))


class Info(BaseModel):
    """meta/info.json, as far as it is used."""

    codebase_version: StrictStr
    fps: Annotated[StrictFloat | StrictInt, Field(gt=0, le=1e5, allow_inf_nan=False)]
    features: Annotated[dict[str, Feature], Field(min_length=1)]
    data_path: StrictStr
    video_path: StrictStr | None = None
    chunks_size: Annotated[int, Field(ge=1)] = 1000

    @property
    def is_old(self) -> bool:
        """Whether it has a file for each episode, as until version 2.1."""
        return self.codebase_version.startswith("v2.")


@dataclass(frozen=True)
class Place:
    """Where an episode is.

    Attributes:
        file: of its rows, among those of other episodes or alone.
        cameras: for each camera the file of its frames, and the second at which they begin.
    """

    number: int
    task: str
    length: int
    file: Path
    cameras: Mapping[str, tuple[Path, float]]


def read_info(folder: Path) -> Info:
    """What a data set says about itself.

    Raises:
        QuickstudyError: there is no such file, something in it is missing or of another type, or it is of a version
            that is not read.
    """
    path = folder / INFO
    if not path.is_file():
        raise QuickstudyError(f"'{folder}' is not a LeRobot data set: it has no {INFO}.")
    info = checked(Info, read_json(path), f"'{path}'")
    if not re.match(r"v(2\.[01]|3\.)", info.codebase_version):
        raise QuickstudyError(f"'{path}' says version {info.codebase_version!r:.60}; v2.0, v2.1 and v3 are read.")
    wide = next((name for name, one in info.features.items() if one.is_number and one.width > 100 * _MOST_WIDTH), None)
    if wide is not None:
        raise QuickstudyError(f"'{path}' says that '{wide}' has {info.features[wide].width} numbers a step.")
    return info


def chosen(info: Info, wanted: Sequence[str], action: bool, where: str) -> tuple[list[str], list[str]]:
    """The features that are the observation, or the action, and the pictures that are left out of them.

    Args:
        wanted: their names, with or without 'observation.'; by default what the format says.

    Raises:
        QuickstudyError: there are none, one is not there, or one is a picture or no number.
    """
    option = "action" if action else "observation"
    known = [key for key, one in info.features.items() if one.is_number and not _is_picture(key, one)]
    if wanted:
        keys = [next((key for key in (name, f"observation.{name}") if key in info.features), name) for name in wanted]
        for key in keys:
            if key not in known:
                there = info.features.get(key)
                why = "is none of its features" if there is None else "is a picture" if there.is_number or is_camera(
                    there.dtype) else f"holds {there.dtype:.40}"  # fmt: skip
                raise QuickstudyError(f"{where}: --{option} '{key}', which {why}; it has {listed(known, 20)}.")
        if len(set(keys)) < len(keys):
            raise QuickstudyError(f"{where}: --{option} names '{max(keys, key=keys.count)}' twice.")
        return keys, []
    if action:
        keys = [key for key in known if key in ("action", "actions")][:1]
    else:
        usual = [key for key in known if key.startswith("observation.")]
        keys = usual or [key for key in _STATES if key in known]
    if not keys:
        raise QuickstudyError(
            f"{where} has the features {listed(list(info.features), 20)}; to learn from it needs 'action' and an "
            f"'observation.…' of numbers, or say which these are by --observation and --action."
        )
    pictures = [key for key, one in info.features.items() if not action and one.is_number and _is_picture(key, one)]
    return keys, pictures


def _is_picture(key: str, feature: Feature) -> bool:
    kind = np.uint8 if feature.dtype == "uint8" else np.float32
    return key.startswith(IMAGES) or is_picture(key, feature.shape, kind)


def places(folder: Path, info: Info, cameras: Iterable[str]) -> list[Place]:
    """Where the episodes are, in the order of their rows.

    Raises:
        QuickstudyError: there is no list of them, or an entry is missing, of another type or leads out of the folder.
    """
    films = [key for key in cameras if info.features[key].dtype == "video"]
    if films and info.video_path is None:
        raise QuickstudyError(
            f"'{folder / INFO}' has the video '{films[0]}' and no video_path, which says where it is."
        )
    found = list((_old if info.is_old else _new)(folder, info, films))
    numbers = [place.number for place in found]
    if len(set(numbers)) < len(numbers):
        twice = max(numbers, key=numbers.count)
        raise QuickstudyError(f"'{folder}': its list of episodes has episode {twice} twice.")
    return found


def _new(folder: Path, info: Info, films: Sequence[str]) -> Iterator[Place]:
    """Of version 3: tables of many episodes, whose files they share."""
    paths = sorted((folder / "meta/episodes").glob("*/*.parquet"))
    if not paths:
        raise QuickstudyError(f"'{folder}' has no meta/episodes/*/*.parquet, which lists its episodes.")
    wanted = ["episode_index", "tasks", "length", "data/chunk_index", "data/file_index", "dataset_from_index"]
    wanted += [f"videos/{key}/{what}" for key in films for what in ("chunk_index", "file_index", "from_timestamp")]
    found = []
    for path in paths:
        with sound(f"'{path}' is not a whole list of episodes"):
            rows = _table(path, wanted).to_pylist()
        for row, one in enumerate(rows):
            where = f"'{path}', row {row}"
            number = _whole(one["episode_index"], "episode_index", where, 0)
            file = _inside(folder, info.data_path, where, _indices(one, "data", where))
            first = _whole(one["dataset_from_index"], "dataset_from_index", where, 0)
            cameras = {}
            for key in films:
                begin = one[f"videos/{key}/from_timestamp"]
                if not isinstance(begin, int | float) or not 0 <= begin < math.inf:
                    raise QuickstudyError(f"{where}: videos/{key}/from_timestamp is {begin!r:.40}; seconds are needed.")
                names = _indices(one, f"videos/{key}", where) | {"video_key": key}
                cameras[key] = _inside(folder, info.video_path or "", where, names), float(begin)
            length = _whole(one["length"], "length", where, 1)
            found.append((first, Place(number, _task(one["tasks"], number, where), length, file, cameras)))
    yield from (place for _, place in sorted(found, key=lambda pair: pair[0]))


def _old(folder: Path, info: Info, films: Sequence[str]) -> Iterator[Place]:
    """Until version 2.1: lines of JSON, and files of one episode each."""
    path = folder / "meta/episodes.jsonl"
    if not path.is_file():
        raise QuickstudyError(f"'{folder}' has no meta/episodes.jsonl, which lists its episodes.")
    with sound(f"'{path}' is not text"):
        text = path.read_text(encoding="utf-8-sig")
    lines = [parse_json(line, f"'{path}', a line") for line in text.splitlines() if line.strip()]
    for row, one in enumerate(lines):
        where = f"'{path}', line {row + 1}"
        if not isinstance(one, dict):
            raise QuickstudyError(f"{where}: an episode must be an object; got {one!r:.40}.")
        number = _whole(one.get("episode_index"), "episode_index", where, 0)
        names = {"episode_index": number, "episode_chunk": number // info.chunks_size}
        file = _inside(folder, info.data_path, where, names)
        cameras = {
            key: (_inside(folder, info.video_path or "", where, names | {"video_key": key}), 0.0) for key in films
        }
        length = _whole(one.get("length"), "length", where, 1)
        yield Place(number, _task(one.get("tasks"), number, where), length, file, cameras)


def _indices(row: Mapping[str, Any], prefix: str, where: str) -> dict[str, Any]:
    return {
        name: _whole(row[f"{prefix}/{name}"], f"{prefix}/{name}", where, 0) for name in ("chunk_index", "file_index")
    }


def _whole(value: Any, name: str, where: str, least: int) -> int:
    """A whole number, also where it was written with a decimal point."""
    fine = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not fine or value != int(value) or value < least:
        raise QuickstudyError(f"{where}: {name} is {value!r:.40}; a whole number of at least {least} is needed.")
    return int(value)


def _task(said: object, number: int, where: str) -> str:
    tasks = [said] if isinstance(said, str) else said
    if not isinstance(tasks, list) or len(tasks) != 1 or not isinstance(tasks[0], str):
        raise QuickstudyError(f"{where}: episode {number} has the tasks {said!r:.60}; each episode needs exactly one.")
    return tasks[0]


def _inside(folder: Path, template: str, where: str, values: Mapping[str, Any]) -> Path:
    """The file that a template of info.json names, which must lie in the data set's folder."""
    unknown = [name for name in _FIELD.findall(template) if name not in values]
    rest = _FIELD.sub("", template)
    if unknown or "{" in rest or "}" in rest:
        raise QuickstudyError(
            f"'{folder / INFO}' has the path {template!r:.80}; the names in it must be {', '.join(sorted(values))}."
        )
    name = PurePosixPath(template.format(**values))
    if name.is_absolute() or ".." in name.parts or "\\" in str(name) or "\0" in str(name):
        raise QuickstudyError(f"{where}: the file {str(name)!r:.80} lies outside of the data set.")
    return folder / name


def _table(path: Path, wanted: Sequence[str]) -> pa.Table:
    with opened(path, wanted) as file:
        return file.read(columns=list(wanted))


def opened(path: Path, wanted: Sequence[str]) -> pq.ParquetFile:
    """A parquet file that has these columns.

    Raises:
        QuickstudyError: there is none, it is damaged, or it lacks a column.
    """
    if not path.is_file():
        raise QuickstudyError(f"There is no file '{path}', which the data set's list of episodes names.")
    with sound(f"'{path}' is not a whole parquet file; fetch or record it again"):
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
    missing = [name for name in wanted if name not in file.schema_arrow.names]
    if missing:
        file.close()
        raise QuickstudyError(f"'{path}' lacks the column '{missing[0]}'; it needs {', '.join(wanted)}.")
    return file
