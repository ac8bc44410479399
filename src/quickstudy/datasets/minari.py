"""Minari data sets (Farama Foundation, Minari 0.4 and 0.5), read and written without Minari.

    <id>/data/metadata.json        spaces, numbers of episodes and steps, in which of the three ways the data is kept
    <id>/data/main_data.hdf5       'hdf5': a group an episode
    <id>/data/<episode>/*          'arrow' and 'parquet': a folder an episode

Minari knows no tasks: an episode's is its attribute 'task' or, without one, the id of its data set. So a folder of
several data sets is one whose tasks are these. An episode has one observation more than actions; the last is left out
when read, and repeated when written, since a demonstration does not tell what came after its last action.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.dataset

from quickstudy.datasets.episodes import About, Episode, Recording, numbered, to_write
from quickstudy.errors import QuickstudyError, one_line
from quickstudy.io import files
from quickstudy.settings import ReadingConfig

METADATA = "metadata.json"
HDF5 = "main_data.hdf5"
WRITTEN_AS = "0.5.4"
"""The version of Minari whose files these are."""

_OURS = "quickstudy"
"""Key of the metadata for what Minari has no place for."""

_Raw = Mapping[str, Any]
"""'observations' and 'actions' as arrays or trees of them, 'rewards', and 'infos'."""


def is_one(path: Path) -> bool:
    """Whether this is the folder of such a data set, or of several."""
    return bool(_parts(path))


def load(folder: Path, reading: ReadingConfig) -> Recording:
    """A data set, or a folder of several.

    Raises:
        QuickstudyError: not such a folder, spaces that are not numbers, or a file that is damaged.
    """
    parts = [_load(one) for one in _parts(folder)]
    if not parts:
        raise QuickstudyError(f"'{folder}' is not a Minari data set: it has no data/{METADATA}.")
    if len(parts) == 1:
        return parts[0]

    def read(images: bool) -> Iterator[Episode]:
        return chain.from_iterable(part.read(images) for part in parts)

    for part in parts:
        if part.about.rate != parts[0].about.rate:
            raise QuickstudyError(
                f"'{part.path}' has the frame rate {part.about.rate}, '{parts[0].path}' {parts[0].about.rate}; all "
                "need the same."
            )
    return Recording(folder, "Minari", parts[0].about, [task for part in parts for task in part.tasks], read)


def _parts(folder: Path) -> list[Path]:
    """The folders with metadata of a data set, or of a folder of data sets."""
    for one in (folder, folder / "data"):
        if (one / METADATA).is_file() and _says_minari(one / METADATA):
            return [one]
    return sorted(path.parent for path in folder.glob(f"*/data/{METADATA}") if _says_minari(path))


def _says_minari(path: Path) -> bool:
    try:
        return "total_episodes" in json.loads(path.read_text())
    except (OSError, ValueError, TypeError):
        return False


def _load(folder: Path) -> Recording:
    said = json.loads((folder / METADATA).read_text())
    kind = said.get("data_format", "hdf5")
    if kind not in ("hdf5", "arrow", "parquet"):
        raise QuickstudyError(f"'{folder / METADATA}' says data_format '{kind}'; hdf5, arrow and parquet are read.")
    spaces = {}
    for key in ("observation_space", "action_space"):
        if key not in said:
            raise QuickstudyError(f"'{folder / METADATA}' lacks '{key}'; Minari writes it where no env_spec says it.")
        spaces[key] = json.loads(said[key])
        _check_space(spaces[key], f"'{folder / METADATA}': {key}")
    if spaces["action_space"]["type"] != "Box":
        raise QuickstudyError(
            f"'{folder / METADATA}': actions are {spaces['action_space']['type']}; numbers in a Box are accepted."
        )
    ours = said.get(_OURS, {})
    names = (
        tuple(ours.get("observations", _names(spaces["observation_space"], "observation"))),
        tuple(ours.get("actions", _names(spaces["action_space"], "action"))),
    )
    open_, count = _hdf5 if kind == "hdf5" else _arrow(kind), said["total_episodes"]
    tasks = [task or said["dataset_id"] for task, _ in open_(folder, count, False)]

    def read(images: bool) -> Iterator[Episode]:
        for number, (_, raw) in enumerate(open_(folder, count, True)):
            where = f"'{folder}', episode {number}"
            yield _episode(raw, spaces, tasks[number], ours.get("rewards", True), where)

    return Recording(folder, f"Minari ({kind})", About(ours.get("rate"), *names), tasks, read)


def _check_space(space: Mapping[str, Any], where: str) -> None:
    kind = space["type"]
    if kind in ("Dict", "Tuple"):
        inner = space["subspaces"].values() if kind == "Dict" else space["subspaces"]
        for one in inner:
            _check_space(one, where)
    elif kind not in ("Box", "Discrete", "MultiDiscrete", "MultiBinary"):
        raise QuickstudyError(f"{where} has a {kind}; numbers are accepted.")
    elif kind == "Box" and space["dtype"] == "uint8" and len(space["shape"]) > 1:
        raise QuickstudyError(f"{where} has images of shape {space['shape']}; vectors of numbers are accepted.")


def _leaves(space: Mapping[str, Any], name: str) -> Iterator[tuple[str, int]]:
    """Names and widths of the numbers of a space, in the order that `_flat` has them."""
    if space["type"] == "Dict":
        for key in sorted(space["subspaces"]):
            yield from _leaves(space["subspaces"][key], key)
    elif space["type"] == "Tuple":
        for i, one in enumerate(space["subspaces"]):
            yield from _leaves(one, f"{name}.{i}")
    else:
        shapes = {"Box": "shape", "MultiBinary": "n"}
        shape = space[shapes[space["type"]]] if space["type"] in shapes else np.shape(space.get("nvec", 0))
        yield name, int(np.prod(shape))


def _names(space: Mapping[str, Any], what: str) -> list[str]:
    return [name for leaf, width in _leaves(space, what) for name in numbered(leaf, width)]


def _flat(values: Any, space: Mapping[str, Any], where: str) -> np.ndarray:
    """The numbers of a space, [step, number]; dictionaries in alphabetical order."""
    if space["type"] == "Dict":
        parts = [_flat(values[key], one, where) for key, one in sorted(space["subspaces"].items())]
    elif space["type"] == "Tuple":
        keys = (f"_index_{i}" for i in range(len(space["subspaces"])))
        parts = [_flat(values[key], one, where) for key, one in zip(keys, space["subspaces"], strict=True)]
    else:
        array = np.asarray(values)
        parts = [array.reshape(len(array), int(np.prod(array.shape[1:])))]
    lengths = {len(part) for part in parts}
    if len(lengths) > 1:
        raise QuickstudyError(f"{where}: its observations have {sorted(lengths)} steps; all need as many.")
    return np.concatenate(parts, 1)


def _episode(raw: _Raw, spaces: Mapping[str, Any], task: str, rewarded: bool, where: str) -> Episode:
    try:
        observations = _flat(raw["observations"], spaces["observation_space"], where)
        actions = _flat(raw["actions"], spaces["action_space"], where)
    except KeyError as error:
        raise QuickstudyError(f"{where}: it lacks {error}; its metadata says that it is there.") from error
    for key, found in (("observation_space", observations), ("action_space", actions)):
        width = sum(width for _, width in _leaves(spaces[key], ""))
        if found.shape[1] != width:
            raise QuickstudyError(
                f"{where}: it is {found.shape[1]} wide where its {key} is {width}; all must be alike."
            )
    steps = len(actions)
    if len(observations) not in (steps, steps + 1):
        raise QuickstudyError(f"{where}: it has {len(observations)} observations for {steps} actions; {steps + 1} fit.")
    said = (raw.get("infos") or {}).get("success")
    return Episode(
        task,
        observations[:steps],
        actions,
        np.asarray(raw["rewards"])[:steps] if rewarded else None,
        None if said is None else np.ravel(said)[max(0, np.size(said) - steps) :].astype(bool),  # the first is reset's
        where=where,
    )


def _hdf5(folder: Path, count: int, whole: bool) -> Iterator[tuple[str | None, _Raw]]:
    """The label of each episode and, if wanted, its arrays."""
    path = folder / HDF5
    if not path.is_file():
        raise QuickstudyError(f"There is no file '{path}', which {METADATA} asks for.")
    try:
        with h5py.File(path, "r") as file:
            for i in range(count):
                group = file[f"episode_{i}"]
                yield _text(group.attrs.get("task")), _tree(group) if whole else {}
    except (OSError, KeyError, RuntimeError) as error:
        raise QuickstudyError(f"'{path}' is not a whole HDF5 file of {count} episodes ({one_line(error)}).") from error


def _text(label: Any) -> str | None:
    return label.decode() if isinstance(label, bytes) else None if label is None else str(label)


def _tree(group: h5py.Group) -> dict[str, Any]:
    return {key: _tree(one) if isinstance(one, h5py.Group) else one[()] for key, one in group.items()}


def _arrow(kind: str) -> Callable[[Path, int, bool], Iterator[tuple[str | None, _Raw]]]:
    def read(folder: Path, count: int, whole: bool) -> Iterator[tuple[str | None, _Raw]]:
        for i in range(count):
            here = folder / str(i)
            try:
                about = json.loads((here / METADATA).read_text())
                yield _text(about.get("task")), _columns(here, kind) if whole else {}
            except (OSError, ValueError, pa.ArrowException) as error:
                raise QuickstudyError(f"'{here}' is not a whole episode ({one_line(error)}).") from error

    return read


def _columns(folder: Path, kind: str) -> dict[str, Any]:
    """The arrays of an episode's table, whose actions and rewards are padded by a last row."""
    source = pyarrow.dataset.dataset(str(folder), format=kind, ignore_prefixes=["_", ".", METADATA])
    table = source.to_table(use_threads=False)
    found = {name: _unpacked(table[name].combine_chunks()) for name in table.column_names}
    return found | {key: _cut(found[key]) for key in ("actions", "rewards")}


def _cut(values: Any) -> Any:
    return {key: _cut(one) for key, one in values.items()} if isinstance(values, dict) else values[:-1]


def _unpacked(array: pa.Array) -> Any:
    if pa.types.is_struct(array.type):
        fields = {array.type.field(i).name: array.field(i) for i in range(array.type.num_fields)}
        whole = all(name.isdigit() for name in fields)  # a Tuple's are numbered
        return {f"_index_{name}" if whole else name: _unpacked(one) for name, one in fields.items()}
    flat = array
    while pa.types.is_nested(flat.type):
        flat = flat.flatten()
    values = flat.to_numpy(zero_copy_only=False)
    return values.reshape(len(array), -1) if pa.types.is_nested(array.type) else values


def save(folder: Path, episodes: Iterable[Episode], about: About) -> None:
    """Writes a data set as HDF5, whole or not at all; images are left out.

    Raises:
        QuickstudyError: the folder is there already, no episode, one that is not fit to learn from, ones that differ,
            or the disk refuses.
    """
    with files.partial_folder(folder) as root:
        first, every = to_write(episodes)
        about = about.named(first.observations.shape[1], first.actions.shape[1])
        data, steps, count = root / "data", 0, 0
        data.mkdir()
        with h5py.File(data / HDF5, "w", track_order=True) as file:
            for episode in every:
                _write(file.create_group(f"episode_{count}"), episode, count)
                steps, count = steps + len(episode), count + 1
        said = {
            "total_episodes": count,
            "total_steps": steps,
            "data_format": "hdf5",
            "jpeg_encoding": True,
            "observation_space": json.dumps(_box(len(about.observations))),
            "action_space": json.dumps(_box(len(about.actions))),
            "dataset_id": _dataset_id(folder),
            "minari_version": WRITTEN_AS,
            "dataset_size": round((data / HDF5).stat().st_size / 1e6, 1),
            "description": "Demonstrations written by quickstudy; the task of an episode is its attribute 'task'.",
            _OURS: {
                "rate": about.rate,
                "observations": about.observations,
                "actions": about.actions,
                "rewards": first.rewards is not None,
            },
        }
        (data / METADATA).write_text(json.dumps(said, indent=1))


def _write(group: h5py.Group, episode: Episode, number: int) -> None:
    steps = len(episode)
    group.attrs.update({"id": number, "total_steps": steps, "task": episode.task})
    rewards = np.zeros(steps) if episode.rewards is None else np.asarray(episode.rewards, float)
    ends = np.arange(steps) == steps - 1
    arrays = {
        "observations": np.concatenate([episode.observations, episode.observations[-1:]]),
        "actions": episode.actions,
        "rewards": rewards,
        "terminations": np.zeros(steps, bool),
        "truncations": ends,
    }
    for name, array in arrays.items():
        group.create_dataset(name, data=array, chunks=True, maxshape=(None, *array.shape[1:]))
    infos = group.create_group("infos")
    if episode.success is not None:
        infos.create_dataset("success", data=np.concatenate([[False], episode.success]))


def _box(width: int) -> dict[str, Any]:
    """An unbounded Box as Minari writes it; its 'Infinity' is not JSON by the book, but what Minari reads."""
    bound = [float("inf")] * width
    return {"type": "Box", "dtype": "float32", "shape": [width], "low": [-b for b in bound], "high": bound}


def _dataset_id(folder: Path) -> str:
    """A name that Minari accepts, 'quickstudy/<folder>-v0'."""
    plain = "".join(c if c.isascii() and c.isalnum() else "-" for c in folder.absolute().name).strip("-")
    return f"quickstudy/{plain or 'demonstrations'}-v0"
