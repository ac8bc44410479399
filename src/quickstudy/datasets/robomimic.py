"""HDF5 files of robomimic, robosuite, MimicGen, LIBERO, RoboCasa and Isaac Lab.

    data                    attribute 'env_args': JSON of the environment, its name and how often it acts
    data/demo_0             attributes 'num_samples', perhaps 'success'; a group a demonstration
    data/demo_0/obs/<key>   the observation by key, [step, ...]; in Isaac Lab sometimes obs/policy/<key>
    data/demo_0/actions     [step, act]; Isaac Lab has processed_actions beside them
    mask/<name>             names of demonstrations, such as those of 'train' and 'valid'

A demonstration's task is what its file or itself says in words; without that it is the file's name where a folder of
several files is read, and the environment's name in a single one.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from pydantic import BaseModel, PositiveFloat, PositiveInt

from quickstudy.datasets import hdf5, selection
from quickstudy.datasets.episodes import About, Episode, Recording, numbered
from quickstudy.errors import QuickstudyError, listed, sound
from quickstudy.io.files import checked, parse_json
from quickstudy.settings import ReadingConfig

ENDINGS = (".hdf5", ".h5")

_LABELS = ("task", "language_instruction", "language", "lang", "instruction", "task_description")
"""Attributes, and keys of JSON in attributes, that say the task in words."""


class _Simulation(BaseModel):
    dt: PositiveFloat
    decimation: PositiveInt


class _Kwargs(BaseModel):
    control_freq: PositiveFloat | None = None


class _Environment(BaseModel):
    """What 'env_args' says: of robomimic, or of Isaac Lab, which has 'sim_args'."""

    env_name: str | None = None
    env_kwargs: _Kwargs | None = None
    sim_args: _Simulation | None = None

    @property
    def rate(self) -> float | None:
        if self.sim_args:
            return round(1 / (self.sim_args.dt * self.sim_args.decimation), 6)
        return self.env_kwargs.control_freq if self.env_kwargs else None


def is_one(path: Path) -> bool:
    """Whether a folder holds such files."""
    return bool(_files(path))


def load(path: Path, reading: ReadingConfig) -> Recording:
    """Such a file, or a folder of several.

    Args:
        reading: its observation names keys of 'obs', or arrays beside it such as 'states'; by default all keys that are
            numbers, in alphabetical order. Its action names arrays of a demonstration; by default 'actions'.

    Raises:
        QuickstudyError: a damaged file, or one that is not such, keys that are not there, or files with other channels.
    """
    places = _files(path) if path.is_dir() else [path]
    parts = [selection.at_rate(_load(place, reading, len(places) == 1), reading) for place in places]
    return selection.joined(path, parts, [(place.relative_to(path).parent / place.stem).as_posix() for place in places])


def _files(folder: Path) -> list[Path]:
    found = (one for ending in ENDINGS for depth in ("*", "*/*") for one in folder.glob(depth + ending))
    return sorted(one for one in found if not one.name.startswith("."))


def _load(path: Path, reading: ReadingConfig, alone: bool) -> Recording:
    hdf5.check(path)
    with hdf5.opened(path) as file:
        names = _demonstrations(path, file)
        data = file["data"]
        args = parse_json(data.attrs.get("env_args", "{}"), f"'{path}': env_args")
        environment = checked(_Environment, args, f"'{path}': env_args")
        of_file = _label(data) or (environment.env_name if alone else "") or path.stem
        tasks = [_label(data[name]) or of_file for name in names]
        judged = all("success" in data[name].attrs for name in names)
        masks = {key: _members(one, names) for key, one in file.get("mask", {}).items() if _is_list(one)}
        seen, beside = _arrays(data[names[0]])
        forms = {key: (one.shape[1:], one.dtype) for key, one in (seen | beside).items()}
    where = f"'{path}', {names[0]}"
    numbers = [key for key in seen if forms[key][1].kind in "fiub" and not selection.is_picture(key, *forms[key])]
    cameras = tuple(key for key in seen if key not in numbers and selection.is_film(*forms[key]))
    wanted = selection.picked(reading.observation, list(seen | beside), where, "observation") or numbers
    did = selection.picked(reading.action or ("actions",), list(beside), where, "action")
    if not wanted:
        raise QuickstudyError(
            f"{where}: it has no 'obs' of numbers; robomimic's dataset_states_to_obs.py makes them, or --observation "
            f"names others of {listed(list(beside), 12)}."
        )
    for key in (*wanted, *did):
        if forms[key][1].kind not in "fiub" or selection.is_picture(key, *forms[key]):
            raise QuickstudyError(f"{where}: '{key}' is {forms[key][1]} of shape {forms[key][0]}; numbers are read.")
    shapes = [{key: forms[key][0] for key in keys} for keys in (wanted, did)]
    channels = [tuple(n for key, shape in some.items() for n in _channels(key, shape)) for some in shapes]

    def read(images: bool) -> Iterator[Episode]:
        with hdf5.opened(path) as file:
            for name, task in zip(names, tasks, strict=True):
                group = file["data"][name]
                yield _episode(group, task, shapes, cameras if images else (), judged, f"'{path}', {name}")

    left = [key for key in seen if key not in (*numbers, *cameras, *wanted)]
    notes = (f"of 'obs' {listed(left)} are not read: they are not numbers, or images of another kind.",) if left else ()
    about = About(environment.rate, channels[0], channels[1], cameras)
    return Recording(path, "robomimic", about, tasks, read, masks=masks, notes=notes)


def _demonstrations(path: Path, file: h5py.File) -> list[str]:
    data = file.get("data")
    names = [name for name, one in data.items() if isinstance(one, h5py.Group)] if isinstance(data, h5py.Group) else []
    if not names:
        raise QuickstudyError(
            f"'{path}' is not a robomimic or Isaac Lab file, which has demonstrations data/demo_0, data/demo_1 and so "
            f"on; it holds {listed(list(file)) or 'nothing'}."
        )
    return sorted(names, key=lambda name: [(part.isdigit(), part.zfill(12)) for part in re.split(r"(\d+)", name)])


def _arrays(group: h5py.Group) -> tuple[dict[str, h5py.Dataset], dict[str, h5py.Dataset]]:
    """The arrays of a demonstration by key: those of its observation, and those beside it."""
    found: dict[str, h5py.Dataset] = {}

    def visit(key: str, one: h5py.HLObject) -> None:
        if isinstance(one, h5py.Dataset) and one.ndim:
            found[key.replace("/", ".")] = one

    group.visititems(visit)
    seen = {key.removeprefix("obs."): one for key, one in found.items() if key == "obs" or key.startswith("obs.")}
    policy = {key.removeprefix("policy."): one for key, one in seen.items() if key.startswith("policy.")}
    plain = {key: one for key, one in seen.items() if not key.startswith("datagen_info.")}  # Isaac Lab's, privileged
    beside = {key: one for key, one in found.items() if not key.startswith(("obs.", "next_obs.")) and key != "obs"}
    return policy or plain, beside


def _episode(
    group: h5py.Group, task: str, shapes: list[dict[str, Any]], cameras: tuple[str, ...], judged: bool, where: str
) -> Episode:
    seen, beside = _arrays(group)
    for key in cameras:
        if key not in seen:
            raise QuickstudyError(f"{where}: it has no camera '{key}', which demonstrations before it have.")
    arrays = [beside | seen, beside]
    with sound(f"{where} is not whole"):
        x, y = (
            selection.side_by_side({key: found[key][()] for key in some if key in found}, some, where)
            for found, some in zip(arrays, shapes, strict=True)
        )
        rewards = beside["rewards"][()].ravel() if "rewards" in beside else None
        images = {key: seen[key][()] for key in cameras}
        stated = int(group.attrs.get("num_samples", len(y)))
    lengths = [len(x), len(y), stated, *(len(one) for one in (rewards, *images.values()) if one is not None)]
    if len(set(lengths)) > 1:
        raise QuickstudyError(
            f"{where}: it has {len(x)} observations and {len(y)} actions and says num_samples {stated}; all arrays "
            "need as many steps."
        )
    success = np.arange(len(y)) == (len(y) - 1 if bool(group.attrs["success"]) else -1) if judged else None
    return Episode(task, x, y, rewards, success, images, where)


def _channels(key: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    return numbered(key, int(np.prod(shape)))


def _label(group: h5py.Group) -> str:
    """What its attributes, or JSON within them, say of the task in words."""
    said = dict(group.attrs)
    for name in ("problem_info", "ep_meta"):
        if name in said:
            inner = parse_json(said[name], f"'{group.file.filename}', {group.name}: {name}")
            said |= inner if isinstance(inner, dict) else {}
    for name in _LABELS:
        text = said.get(name, "")
        text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        if isinstance(text, list | np.ndarray):
            text = " ".join(map(str, text))
        if isinstance(text, str) and text.strip(' "'):
            return text.strip(' "')
    return ""


def _is_list(one: Any) -> bool:
    return isinstance(one, h5py.Dataset) and one.ndim == 1


def _members(mask: h5py.Dataset, names: list[str]) -> tuple[int, ...]:
    """The numbers of the demonstrations that a mask names; it may name some that were deleted."""
    places = {name: i for i, name in enumerate(names)}
    said = [one.decode() if isinstance(one, bytes) else str(one) for one in mask[()]]
    return tuple(sorted(places[name] for name in said if name in places))
