"""Minari data sets (Farama Foundation), read and written by the package `minari`.

    <id>/data/metadata.json        spaces, numbers of episodes and steps, in which of the three ways the data is kept
    <id>/data/main_data.hdf5       'hdf5': a group an episode
    <id>/data/<episode>/*          'arrow' and 'parquet': a folder an episode

Minari knows no tasks: an episode's is its attribute 'task' or, without one, the id of its data set. So a folder of
several data sets, such as a name space, is one whose tasks are these. An episode has one observation more than actions;
the last is left out when read, and repeated when written, since a demonstration does not tell what came after its last
action.
"""

import atexit
import gc
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, Literal

import minari
import numpy as np
import pyarrow as pa
import pyarrow.dataset
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage
from minari.serialization import deserialize_space
from PIL import Image
from pydantic import BaseModel, Field, PositiveFloat

from quickstudy.datasets import hdf5, selection
from quickstudy.datasets.episodes import About, Episode, Recording, numbered, to_write
from quickstudy.errors import QuickstudyError, listed, sound, within
from quickstudy.io import files
from quickstudy.io.files import checked, read_json
from quickstudy.settings import ReadingConfig

METADATA = "metadata.json"
HDF5 = "main_data.hdf5"
_SUCCESS = ("success", "is_success")


class _Ours(BaseModel):
    """What Minari has no place for."""

    rate: PositiveFloat | None = None
    observations: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    observation_units: tuple[str, ...] = ()
    action_units: tuple[str, ...] = ()
    rewards: bool = True


class _Metadata(BaseModel):
    total_episodes: Annotated[int, Field(ge=0, le=10_000_000)]
    dataset_id: str
    observation_space: str
    action_space: str
    data_format: Literal["hdf5", "arrow", "parquet"]
    quickstudy: _Ours = _Ours()


def is_one(path: Path) -> bool:
    """Whether this is the folder of such a data set, or of several, in name spaces or not."""
    return bool(_parts(path))


def load(folder: Path, reading: ReadingConfig) -> Recording:
    """A data set, or a folder of several.

    Args:
        reading: its observation and action are keys of a space that is a Dict; all of them by default.

    Raises:
        QuickstudyError: not such a folder, spaces that are not numbers, a file that is damaged, or data sets that do
            not have the same channels.
    """
    said = {place: _metadata(place / METADATA) for place in _parts(folder)}
    if not said:
        raise QuickstudyError(f"'{folder}' is not a Minari data set: it has no data/{METADATA}.")
    names = [one.dataset_id for one in said.values()]
    if len(set(names)) < len(names):
        names = [place.parent.relative_to(folder).as_posix() for place in said]
    parts = [selection.at_rate(_load(place, one, reading), reading) for place, one in said.items()]
    return selection.joined(folder, parts, names)


def _parts(folder: Path) -> list[Path]:
    """The folders with metadata of a data set, or of a folder of data sets, at most four name spaces deep."""
    for one in (folder, folder / "data"):
        if _is_set(one):
            return [one]
    found = (folder.glob(f"{'*/' * depth}data") for depth in range(1, 5))
    return sorted(one for some in found for one in some if _is_set(one))


def _is_set(folder: Path) -> bool:
    try:
        return (folder / HDF5).is_file() or "total_episodes" in read_json(folder / METADATA)
    except (QuickstudyError, TypeError):
        return False


def _metadata(path: Path) -> _Metadata:
    with sound(f"'{path}' is not the description of a Minari data set"):
        return checked(_Metadata, read_json(path), f"'{path}'")


def _load(folder: Path, said: _Metadata, reading: ReadingConfig) -> Recording:
    where, ours = f"'{folder / METADATA}'", said.quickstudy
    with sound(f"{where} has a space that Minari does not read"):
        seen = _leaves(deserialize_space(said.observation_space), "observation")
        did = _leaves(deserialize_space(said.action_space), "action")
    pictures = [key for key, space in seen.items() if _is_picture(key, space)]
    cameras = tuple(key for key in pictures if selection.is_film(seen[key].shape, seen[key].dtype))
    wanted = selection.picked(reading.observation, list(seen), where, "observation")
    wanted = wanted or [key for key in seen if key not in pictures] or list(seen)
    observations = {key: seen[key] for key in wanted}
    actions = {key: did[key] for key in selection.picked(reading.action, list(did), where, "action") or did}
    _check(observations, f"{where}: observation_space", "Box", "Discrete", "MultiDiscrete", "MultiBinary")
    _check(actions, f"{where}: action_space", "Box")
    about = About(ours.rate, _names(observations), _names(actions), cameras)
    if not reading.observation and ours.observations:
        about = replace(about, observations=ours.observations, observation_units=ours.observation_units)
    if not reading.action and ours.actions:
        about = replace(about, actions=ours.actions, action_units=ours.action_units)
    with within(where):
        about = about.named(len(_names(observations)), len(_names(actions)))
    if (folder / HDF5).is_file():
        hdf5.check(folder / HDF5)
    with sound(f"'{folder}' is not whole: it lacks some of {said.total_episodes} episodes"):
        storage = MinariStorage.read(folder)
        episodes = list(storage.get_episode_metadata(range(said.total_episodes)))
    tasks = [_text(one.get("task")) or said.dataset_id for one in episodes]
    shapes = [{key: space.shape for key, space in some.items()} for some in (observations, actions)]

    def read(images: bool) -> Iterator[Episode]:
        for number, task in enumerate(tasks):
            at = f"'{folder}', episode {number}"
            with sound(f"{at} is not whole"):
                (raw,) = storage.get_episodes([number]) if said.data_format == "hdf5" else [_table(storage, number)]
            parts = _leaves(raw["observations"], "observation")
            x = selection.side_by_side(parts, shapes[0], at)
            y = selection.side_by_side(_leaves(raw["actions"], "action"), shapes[1], at)
            steps, stated = len(y), episodes[number].get("total_steps", len(y))
            if len(x) not in (steps, steps + 1) or len(raw["rewards"]) != steps or stated != steps:
                raise QuickstudyError(
                    f"{at}: it has {len(x)} observations, {steps} actions and {len(raw['rewards'])} rewards, and says "
                    f"{stated} steps; as many of each fit, and one observation more."
                )
            rewards = np.asarray(raw["rewards"]) if ours.rewards else None
            shown = {key: np.asarray(parts[key])[:steps] for key in cameras if images}
            yield Episode(task, x[:steps], y, rewards, _success(raw["infos"], steps, at), shown, at)

    left = listed([key for key in pictures if key not in cameras])
    notes = (f"the observation's {left} are images that are not read.",) if left else ()
    return Recording(folder, f"Minari ({said.data_format})", about, tasks, read, notes=notes)


def _leaves(tree: Any, name: str, path: str = "") -> dict[str, Any]:
    """The parts of a space, or of values of it, by the keys that lead to them; dictionaries in alphabetical order."""
    if isinstance(tree, dict | spaces.Dict):
        inner = [(key, tree[key]) for key in sorted(tree)]
    elif isinstance(tree, tuple | spaces.Tuple):
        inner = [(f"{name}.{i}" if not path else str(i), one) for i, one in enumerate(tree)]
    else:
        return {path or name: tree}
    return {k: v for key, one in inner for k, v in _leaves(one, name, f"{path}.{key}" if path else key).items()}


def _is_picture(key: str, space: spaces.Space) -> bool:
    return isinstance(space, spaces.Box) and selection.is_picture(key, space.shape, space.dtype)


def _check(leaves: dict[str, Any], where: str, *accepted: str) -> None:
    for key, space in leaves.items():
        if _is_picture(key, space):
            raise QuickstudyError(f"{where} has images, '{key}' of shape {space.shape}; vectors are accepted.")
        if type(space).__name__ not in accepted:
            raise QuickstudyError(
                f"{where} has a {type(space).__name__}, '{key}'; numbers in a {' or '.join(accepted)} are accepted; "
                "where there are other keys beside it, name these by --observation or --action."
            )


def _names(leaves: dict[str, Any]) -> tuple[str, ...]:
    return tuple(name for key, space in leaves.items() for name in numbered(key, int(np.prod(space.shape))))


def _text(label: Any) -> str:
    return label.decode() if isinstance(label, bytes) else str(label or "")


def _table(storage: MinariStorage, number: int) -> dict[str, Any]:
    """An episode of a folder an episode, whose actions and rewards are padded by a last row.

    Minari 0.5.4 itself cuts one off at 131,072 steps and fails where 'infos' has one number a step.
    """
    ignored = ["_", ".", METADATA]
    source = pa.dataset.dataset(str(storage.data_path / str(number)), format=storage.FORMAT, ignore_prefixes=ignored)
    table = source.to_table(use_threads=False).combine_chunks()
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    infos = columns.get("infos", pa.array([], pa.struct([])))
    told = [key for key in _SUCCESS if infos.type.get_field_index(key) >= 0]
    return {
        "observations": _decoded(columns["observations"], storage.observation_space),
        "actions": _decoded(columns["actions"][:-1], storage.action_space),
        "rewards": columns["rewards"].to_numpy(zero_copy_only=False)[:-1],
        "infos": {key: _decoded(infos.field(key), spaces.Discrete(2)) for key in told},
    }


def _decoded(array: pa.Array, space: spaces.Space) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _decoded(array.field(key), one) for key, one in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_decoded(array.field(str(i)), one) for i, one in enumerate(space))
    if pa.types.is_binary(array.type):
        return np.stack([np.asarray(Image.open(BytesIO(one.as_py()))) for one in array])
    count = len(array)
    while pa.types.is_nested(array.type):
        array = array.flatten()
    return array.to_numpy(zero_copy_only=False).reshape(count, *(space.shape or ()))


def _success(infos: Any, steps: int, where: str) -> np.ndarray | None:
    """Whether each step met the goal, where 'success' or 'is_success' says it; the first of one more is the reset's."""
    said = [np.asarray(infos[key], float).ravel() for key in _SUCCESS if key in (infos or {})]
    for one in said:
        if len(one) not in (steps, steps + 1) or not np.isfinite(one).all():
            raise QuickstudyError(f"{where}: its success has {len(one)} values for {steps} steps, or some are missing.")
    return np.any([one[len(one) - steps :] > 0.5 for one in said], 0) if said else None


def save(folder: Path, episodes: Iterable[Episode], about: About) -> None:
    """Writes a data set as HDF5, whole or not at all; images are left out.

    Raises:
        QuickstudyError: the folder is there already, no episode, one that is not fit to learn from, ones that differ,
            or the disk refuses.
    """
    with files.partial_folder(folder) as root:
        first, every = to_write(episodes)
        about = about.named(first.observations.shape[1], first.actions.shape[1])
        boxes = (spaces.Box(-np.inf, np.inf, one.shape[1:], one.dtype) for one in (first.observations, first.actions))
        storage, tasks = MinariStorage.new(root / "data", *boxes), []

        def buffers() -> Iterator[EpisodeBuffer]:
            for number, episode in enumerate(every):
                tasks.append({"task": episode.task})
                yield _buffer(number, episode)

        with _told_by_hdf5():
            storage.update_episodes(buffers())
            storage.update_episode_metadata(tasks)
        ours = vars(about) | {"rewards": first.rewards is not None}
        said = "Demonstrations written by quickstudy; the task of an episode is its attribute 'task'."
        known = {"dataset_id": _dataset_id(folder), "minari_version": minari.__version__, "description": said}
        storage.update_metadata({**known, "quickstudy": {key: ours[key] for key in _Ours.model_fields}})


@contextmanager
def _told_by_hdf5() -> Iterator[None]:
    """A disk that refuses is an OSError, however HDF5 says it; that it cannot close its file either is said nowhere."""
    before, number = (sys.unraisablehook, sys.excepthook), 0
    silent: Any = lambda *_: None  # noqa: E731
    sys.unraisablehook = sys.excepthook = silent  # where Cython prints what nobody can catch
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        found = re.search(r"errno = (\d+)", str(error))
        if found is None:
            raise
        number = int(found[1])
    finally:
        gc.collect()
        sys.unraisablehook, sys.excepthook = before
    if number:  # here, so that nothing keeps HDF5's own objects
        atexit.register(_leave)
        raise OSError(number, os.strerror(number))


def _leave() -> None:
    """Ends a process that HDF5 would crash, because it cannot let go of a file that it could not write."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(2)


def _buffer(number: int, episode: Episode) -> EpisodeBuffer:
    steps = len(episode)
    return EpisodeBuffer(
        id=number,
        observations=np.concatenate([episode.observations, episode.observations[-1:]]),
        actions=episode.actions,
        rewards=np.zeros(steps) if episode.rewards is None else np.asarray(episode.rewards, float),
        terminations=np.zeros(steps, bool),
        truncations=np.arange(steps) == steps - 1,
        infos=None if episode.success is None else {"success": np.concatenate([[False], episode.success])},
    )


def _dataset_id(folder: Path) -> str:
    """A name that Minari accepts, 'quickstudy/<folder>-v0'."""
    plain = "".join(c if c.isascii() and c.isalnum() else "-" for c in folder.absolute().name).strip("-")
    return f"quickstudy/{plain or 'demonstrations'}{'' if re.search(r'-v[0-9]+$', plain) else '-v0'}"
