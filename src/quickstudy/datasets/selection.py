"""Which of a recording's arrays are read, and several recordings as one; formats that have keys share it."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np

from quickstudy.datasets import timing
from quickstudy.datasets.episodes import Episode, Recording
from quickstudy.errors import QuickstudyError, listed
from quickstudy.settings import ReadingConfig

_PICTURE = re.compile("image|rgb|depth|camera|pixels|frame|segmentation", re.IGNORECASE)
_SIDE = 8
"""Pixels that the sides of a picture have at least."""


def is_picture(name: str, shape: Sequence[int], dtype: np.dtype | type) -> bool:
    """Whether an array of this shape, that of one step, is a picture or a map of depths, which are no channels.

    It is where it has two sides of 8 or more, three dimensions, bytes in two, or two and the name of a picture; a
    matrix of a rotation or a few stacked states is not.
    """
    sides = sorted(length for length in shape if length != 1)
    if len(sides) < 2:
        return False
    return len(sides) > 2 or sides[-2] >= _SIDE or np.dtype(dtype) == np.uint8 or bool(_PICTURE.search(name))


def is_film(shape: Sequence[int], dtype: np.dtype | type) -> bool:
    """Whether pictures of this shape, of one step, are frames [height, width, 3] of bytes that can be shown."""
    return len(shape) == 3 and shape[2] == 3 and np.dtype(dtype) == np.uint8


def picked(wanted: Iterable[str], known: Sequence[str], where: str, option: str) -> list[str]:
    """Those of the known keys that are wanted, in the order of the wish; a key with parts stands for all of them.

    Args:
        known: with a full stop between a key and its parts.

    Raises:
        QuickstudyError: there is none of that name, or one is wanted twice.
    """
    found: list[str] = []
    for wish in wanted:
        plain = wish.replace("/", ".")
        some = [key for key in known if key == plain or key.startswith(f"{plain}.")]
        if not some:
            raise QuickstudyError(f"{where} has no '{wish}' for --{option}; it has {listed(known, 20)}.")
        found += some
    if len(set(found)) < len(found):
        raise QuickstudyError(f"--{option} names '{next(key for key in found if found.count(key) > 1)}' twice.")
    return found


def _without_ones(shape: Sequence[int]) -> list[int]:
    return [length for length in shape if length != 1]


def side_by_side(parts: Mapping[str, np.ndarray], shapes: Mapping[str, Sequence[int]], where: str) -> np.ndarray:
    """The numbers of an episode's arrays [step, ...], [step, channel].

    Args:
        shapes: the keys that are read, in order, and the shape that one step has.

    Raises:
        QuickstudyError: one is missing, is of another shape or longer than another.
    """
    for key, shape in shapes.items():
        found = np.shape(parts[key])[1:] if key in parts else None
        if found is None or (np.size(parts[key]) and _without_ones(found) != _without_ones(shape)):
            said = "is missing" if found is None else f"has the shape {found}"
            raise QuickstudyError(f"{where}: '{key}' {said}; that of a step is {tuple(shape)} in this data set.")
    arrays = [np.reshape(parts[key], (len(parts[key]), int(np.prod(shape)))) for key, shape in shapes.items()]
    lengths = {key: len(array) for key, array in zip(shapes, arrays, strict=True)}
    longest, shortest = max(lengths, key=lengths.__getitem__), min(lengths, key=lengths.__getitem__)
    if lengths[longest] != lengths[shortest]:
        raise QuickstudyError(
            f"{where}: '{longest}' has {lengths[longest]} steps, '{shortest}' {lengths[shortest]}; all need as many."
        )
    return np.concatenate(arrays, 1)


def at_rate(recording: Recording, reading: ReadingConfig) -> Recording:
    """Episodes without stamps of their own, brought to the rate that is asked for; it is theirs where nobody said."""
    rate, own = reading.rate, recording.about.rate
    if rate is None or rate == own:
        return recording
    about = replace(recording.about, rate=rate)
    if own is None:
        return replace(recording, about=about)

    def read(images: bool) -> Iterator[Episode]:
        for episode in recording.read(images):
            yield timing.resampled(episode, np.arange(len(episode)) / own, rate, about)

    return replace(recording, about=about, read=read)


def joined(path: Path, parts: Sequence[Recording], names: Sequence[str]) -> Recording:
    """Several recordings as one: channels are matched by name, and the first one's order counts.

    Where all have the one same label, it tells no tasks apart, and `names` do.

    Args:
        names: what each part is called.

    Raises:
        QuickstudyError: they have other channels, units or rates.
    """
    first = parts[0]
    if len(parts) == 1:
        return replace(first, path=path)
    for part in parts:
        for kind in ("observation", "action"):
            mine, theirs = (getattr(one.about, f"{kind}s") for one in (part, first))
            if sorted(mine) != sorted(theirs) or (len(set(mine)) < len(mine) and mine != theirs):
                raise QuickstudyError(
                    f"'{part.path}' has the {kind} channels {listed(mine, 12)}, '{first.path}' {listed(theirs, 12)}; "
                    f"all need the same: name those that all have by --{kind}."
                )
        if part.about.rate != first.about.rate:
            raise QuickstudyError(
                f"'{part.path}' has the frame rate {part.about.rate}, '{first.path}' {first.about.rate}; all need the "
                "same, which --rate brings them to."
            )
    matched = [_like(part, first) for part in parts]
    for part in matched:
        for kind in ("observation_units", "action_units"):
            if getattr(part.about, kind) != getattr(first.about, kind):
                raise QuickstudyError(
                    f"'{part.path}' has the {kind.replace('_', ' ')} {_units(part, kind)}, '{first.path}' "
                    f"{_units(first, kind)}; all need the same."
                )
    labels = {task for part in parts for task in part.tasks}
    same = len(labels) == 1
    renamed = [_called(part, name) if same else part for part, name in zip(matched, names, strict=True)]
    cameras = tuple(name for name in first.about.cameras if all(name in part.about.cameras for part in parts))

    def read(images: bool) -> Iterator[Episode]:
        for episode in chain.from_iterable(part.read(images) for part in renamed):
            yield replace(episode, images={name: episode.images[name] for name in cameras}) if images else episode

    notes = dict.fromkeys(note for part in parts for note in part.notes)
    if same:
        notes[f"all episodes have the label '{min(labels)}', so that the place of each part is its task."] = None
    starts = np.cumsum([0, *(len(part) for part in parts)])
    masks: dict[str, tuple[int, ...]] = {}
    for part, start in zip(parts, starts, strict=False):
        for name, episodes in part.masks.items():
            masks[name] = (*masks.get(name, ()), *(int(start) + i for i in episodes))
    return replace(
        first,
        path=path,
        about=replace(first.about, cameras=cameras, jitter=max(part.about.jitter for part in parts)),
        tasks=[task for part in renamed for task in part.tasks],
        read=read,
        notes=tuple(notes),
        masks=masks,
    )


def _like(part: Recording, first: Recording) -> Recording:
    names = (first.about.observations, first.about.actions)
    return part if (part.about.observations, part.about.actions) == names else part.in_order(*names)


def _units(part: Recording, kind: str) -> str:
    return listed([unit or "?" for unit in getattr(part.about, kind)], 12) or "not said"


def _called(part: Recording, task: str) -> Recording:
    def read(images: bool) -> Iterator[Episode]:
        return (replace(episode, task=task) for episode in part.read(images))

    return replace(part, tasks=[task] * len(part), read=read)


def masked(recording: Recording, mask: str) -> Recording:
    """The episodes of one of its masks alone.

    Raises:
        QuickstudyError: it has no such mask.
    """
    if mask not in recording.masks:
        known = listed(list(recording.masks), 20) or "none"
        raise QuickstudyError(f"'{recording.path}' has no mask '{mask}'; its masks are {known}.")
    kept = set(recording.masks[mask])

    def read(images: bool) -> Iterator[Episode]:
        return (episode for i, episode in enumerate(recording.read(images)) if i in kept)

    return replace(recording, tasks=[recording.tasks[i] for i in sorted(kept)], read=read, masks={})


def splits(recording: Recording) -> dict[str, list[str]] | None:
    """The tasks of each split, where the masks 'train', 'valid' and perhaps 'test' of a recording part its tasks.

    Returns:
        None where they do not: without such masks, or where a task is in two of them, as robomimic's own files have it.
        Where there is no mask 'test', 'valid' is the test split, and validation has no task.
    """
    called = {"train": "train", "valid": "validation", "validation": "validation", "val": "validation", "test": "test"}
    found = {called[name]: episodes for name, episodes in recording.masks.items() if name in called}
    if "test" not in found and "validation" in found:
        found["test"], found["validation"] = found["validation"], ()
    tasks = {split: sorted({recording.tasks[i] for i in episodes}) for split, episodes in found.items()}
    every = [task for some in tasks.values() for task in some]
    covered = sorted(i for episodes in found.values() for i in episodes) == list(range(len(recording)))
    if not covered or len(set(every)) < len(every) or not {"train", "test"} <= tasks.keys():
        return None
    return {"train": [], "validation": [], "test": []} | tasks
