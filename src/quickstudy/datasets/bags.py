"""ROS 1 and ROS 2 bags and MCAP files, read by the package `rosbags` (the extra 'ros').

A bag is an episode. Its task is the sub-folder that it lies in or, without one, its name without its number or date.
Observation and action are fields of topics, '/joint_states.position' or '/cmd_vel.linear.x'; a topic, or a part of a
message, stands for all its numbers. The values of a JointState, and of whatever else has names beside them, are told
apart by name and not by place, so that two nodes may publish some of the joints each, in any order.

All of it is brought to one rate. States are interpolated, angles and quaternions the short way round; commands hold
until the next one, and so does what is written in whole numbers. A command that comes steadily may not stop to come;
one that is sent now and then holds as long as it takes. The time is that of the header where it goes with the bag's.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quickstudy.datasets import angles, selection, timing
from quickstudy.datasets.episodes import About, Episode, Recording
from quickstudy.errors import LONGEST, QuickstudyError, listed, sound
from quickstudy.settings import ReadingConfig

ENDINGS = (".bag", ".db3", ".mcap")

_TOGETHER = 1.0
"""Seconds that a header's time may differ from the bag's, to be of the same clock."""
_GAP = 3
"""Steps, of a topic or of the rate that is asked for, whichever are longer, that it may be silent for."""
_STEADY = 0.5
"""How far the steps of a steady topic are at most from the usual one, as a share of it, in 95 of 100."""
_FEW = 5
"""Messages that it takes to tell whether a topic is steady."""
_BYTES = 64
"""Bytes in an array from which on they are a picture's or other encoded data, no channels."""
_NAMES = ("name", "names", "joint_names")
"""Fields that name the values beside them."""
_OTHERS = ("protobuf", "jsonschema", "flatbuffer", "ros1msg")
"""How messages in an MCAP file may be written, too."""
_NUMBER = re.compile(r"[-_. ]*\d[-_.\d Tt:]*$")


@dataclass(frozen=True)
class _Block:
    """What one node publishes on a topic, of one field that is asked for.

    Attributes:
        names: [channel].
        times: [message], seconds, rising.
        values: [message, channel].
        whole: [channel], whether they are whole numbers or truth values.
    """

    topic: str
    names: tuple[str, ...]
    times: np.ndarray
    values: np.ndarray
    whole: np.ndarray

    @property
    def step(self) -> float:
        """Seconds from one message to the next, usually; infinite where they come now and then."""
        if len(self.times) < _FEW:
            return np.inf
        steps = np.diff(self.times)
        usual = float(np.median(steps))
        return usual if np.quantile(np.abs(steps - usual), 0.95) <= _STEADY * usual else np.inf


def is_one(path: Path) -> bool:
    """Whether this folder is a bag or holds some."""
    return bool(_bags(path))


def load(path: Path, reading: ReadingConfig) -> Recording:
    """A bag, or a folder of bags.

    Args:
        reading: its observation and action, which have to be said; its rate, by default that of the slowest topic.

    Raises:
        QuickstudyError: without the extra 'ros'; a damaged bag; topics or fields that are not named or not there, are
            no numbers or have gaps; or bags that differ in their channels.
    """
    places, wanted = _bags(path), (reading.observation, reading.action)
    if not all(wanted):
        raise QuickstudyError(
            f"'{path}' is read by topic, and --{'action' if wanted[0] else 'observation'} does not say which: name "
            "them as in --observation /joint_states.position --action /cmd_vel.linear; the first bag has "
            f"{_topics(places[0])}.",
            LONGEST,
        )
    names: list[tuple[str, ...]] = []
    times: dict[str, list[np.ndarray]] = {}
    for place in places:
        both = [_read(place, some, kind) for kind, some in zip(("observation", "action"), wanted, strict=True)]
        found = [tuple(name for block in blocks for name in block.names) for blocks in both]
        names = names or found
        for kind, mine, first in zip(("observation", "action"), found, names, strict=True):
            if sorted(mine) != sorted(first):
                raise QuickstudyError(
                    f"'{place}' has the {kind} channels {listed(mine, 12)}, '{places[0]}' {listed(first, 12)}; all "
                    "bags need the same."
                )
        for block in {block.topic: block for blocks in both for block in blocks if np.isfinite(block.step)}.values():
            times.setdefault(block.topic, []).append(block.times)
    rate, topic = (reading.rate, "") if reading.rate else _slowest(times, f"'{path}'")
    tasks = [_task(place, path) for place in places]

    def read(images: bool) -> Iterator[Episode]:
        for place, task in zip(places, tasks, strict=True):
            seen, did = (_read(place, some, kind) for kind, some in zip(("observation", "action"), wanted, strict=True))
            yield _episode(task, seen, did, names, rate, f"'{place}'")

    notes = (f"no --rate was given, so that there are {rate:g} steps a second, as on {topic}.",) if topic else ()
    return Recording(path, "ROS bags", About(rate, names[0], names[1]), tasks, read, notes=notes)


def _bags(path: Path, deep: int = 3) -> list[Path]:
    """The bags that a folder has, in at most three folders within each other, or the one that this is."""
    if path.is_file():
        return [path]
    about = path / "metadata.yaml"
    if about.is_file() and b"rosbag2_bagfile_information" in about.read_bytes()[:4096]:
        return [path]
    found: list[Path] = []
    for one in sorted(path.iterdir()) if path.is_dir() and os.access(path, os.R_OK | os.X_OK) else ():
        if not one.name.startswith(".") and ((one.is_dir() and deep) or one.suffix in ENDINGS):
            found += _bags(one, deep - 1)
    return found


def _task(place: Path, path: Path) -> str:
    """What the folder says, or the bag's name without its number."""
    folder = place.relative_to(path).parent.as_posix() if place != path else "."
    if folder != ".":
        return folder
    name = place.absolute().stem if place.is_file() else place.absolute().name
    return _NUMBER.sub("", name) or _NUMBER.sub("", path.absolute().name) or name


@contextmanager
def _opened(place: Path) -> Iterator[Any]:
    try:
        from rosbags.highlevel import AnyReader
        from rosbags.typesys import Stores, get_typestore
    except ImportError:
        raise QuickstudyError(f"'{place}' is read by the extra 'ros': pip install 'quickstudy[ros]'.") from None
    if place.is_file() and place.suffix not in ENDINGS:
        raise QuickstudyError(f"'{place}' seems to be a bag; give its name one of the endings {', '.join(ENDINGS)}.")
    store = get_typestore(Stores.LATEST)  # for ROS 2 bags without definitions
    with sound(f"'{place}' is not a whole bag of ROS messages"):
        bag = AnyReader([place], default_typestore=store)
        try:
            bag.open()
        except KeyError as error:
            if error.args[0] not in _OTHERS:
                raise
            raise QuickstudyError(f"'{place}' has messages in {error.args[0]}; those of ROS bags are read.") from None
        with ExitStack() as stack:
            stack.callback(bag.close)
            for one in bag.connections:
                if (form := getattr(one.ext, "serialization_format", "cdr")) != "cdr":
                    raise QuickstudyError(f"'{place}' has messages in {form}; those of ROS bags are read.")
            yield bag


def _topics(place: Path) -> str:
    with _opened(place) as bag:
        said = [f"{topic} ({one.msgtype}, {one.msgcount} messages)" for topic, one in bag.topics.items()]
    return listed(said, 30) or "none"


def _read(place: Path, wanted: Sequence[str], kind: str) -> list[_Block]:
    """What is published on the topics, by what is asked for, in the order of the wish.

    Raises:
        QuickstudyError: a damaged bag, or a topic or field that is not there or no number.
    """
    blocks: list[_Block] = []
    with _opened(place) as bag:
        for wish in wanted:
            topic, _, field = wish.partition(".")
            topic = f"/{topic.lstrip('/')}"
            if topic not in bag.topics or not bag.topics[topic].msgcount:
                raise QuickstudyError(
                    f"'{place}' has no message on '{topic}' for --{kind}; it has {listed(list(bag.topics), 30)}."
                )
            name = f"{topic}.{field}" if field else topic
            blocks += _blocks(bag, topic, name, f"'{place}'", kind)
    names = [name for block in blocks for name in block.names]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise QuickstudyError(
            f"'{place}': '{min(twice)}' comes in messages of different fields, or --{kind} names it twice; one source "
            "of each channel is read."
        )
    return blocks


def _blocks(bag: Any, topic: str, wish: str, where: str, kind: str) -> Iterator[_Block]:
    stamps: dict[frozenset[str], list[tuple[int, int | None]]] = {}
    values: dict[frozenset[str], list[dict[str, Any]]] = {}
    known: dict[str, None] = {}
    for connection, time, raw in bag.messages([c for c in bag.connections if c.topic == topic]):
        message = bag.deserialize(raw, connection.msgtype)
        every = dict(_numbers(message, topic, ()))
        known |= dict.fromkeys(every)
        mine = {key: one for key, one in every.items() if key == wish or key.startswith(f"{wish}.")}
        if mine:
            stamp = getattr(getattr(message, "header", None), "stamp", None)
            own = stamp.sec * 1_000_000_000 + stamp.nanosec if stamp is not None else None
            stamps.setdefault(frozenset(mine), []).append((time, own))
            values.setdefault(frozenset(mine), []).append(mine)
    if not values:
        has = listed(list(known), 30) or f"none ({bag.topics[topic].msgtype})"
        raise QuickstudyError(f"{where} has no numbers '{wish}' for --{kind}; those of the topic are {has}.")
    for key, rows in values.items():
        names = tuple(rows[0])
        times, kept = _times(stamps[key])
        whole = np.array([isinstance(rows[0][name], bool | int | np.integer | np.bool_) for name in names])
        block = np.array([[float(row[name]) for name in names] for row in rows])
        yield _Block(topic, names, times, block[kept], whole)


def _numbers(value: Any, path: str, labels: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """The numbers in a message, by field; those in a list by the name beside it, or by place."""
    if is_dataclass(value):
        labels = next(
            (list(getattr(value, name)) for name in _NAMES if isinstance(getattr(value, name, 0), list)), labels
        )
        dims = [int(one.size) for one in getattr(getattr(value, "layout", None), "dim", ())]
        if selection.is_picture("", dims, float):
            return
        for field in fields(value):
            if field.name not in ("header", "layout", "stamp"):
                yield from _numbers(getattr(value, field.name), f"{path}.{field.name}", labels)
    elif isinstance(value, list | tuple | np.ndarray):
        if isinstance(value, np.ndarray) and value.dtype.itemsize == 1 and value.size >= _BYTES:
            return
        ends = labels if len(labels) == len(value) and len(set(labels)) == len(labels) else range(len(value))
        for end, one in zip(ends, value, strict=True):
            yield from _numbers(one, f"{path}.{end}", labels)
    elif isinstance(value, bool | int | float | np.number | np.bool_):
        yield path, value


def _times(stamps: list[tuple[int, int | None]]) -> tuple[np.ndarray, np.ndarray]:
    """Seconds [message], rising, and which messages these are: of several at one time the last.

    The header's, where every message has one, it is near the time at which it came, and they rise.
    """
    came = np.array([one for one, _ in stamps], np.int64)
    own = np.array([came_at if said is None else said for came_at, said in stamps], np.int64)
    headed = all(said is not None for _, said in stamps)
    near = (np.abs(own - came) < _TOGETHER * 1e9).all()
    chosen = own if headed and near and (np.diff(own) > 0).all() else came
    order = np.argsort(chosen, kind="stable")
    kept = order[np.append(np.diff(chosen[order]) > 0, True)]
    return chosen[kept] / 1e9, kept


def _slowest(times: dict[str, list[np.ndarray]], where: str) -> tuple[float, str]:
    """The rate of the slowest of the topics that are steady, and which that is."""
    rates = {topic: rate.value for topic, some in times.items() if (rate := timing.rate_of(some, f"{where}, {topic}"))}
    if not rates:
        raise QuickstudyError(f"{where}: no topic comes steadily enough to tell a rate; say steps a second by --rate.")
    topic = min(rates, key=rates.__getitem__)
    return rates[topic], topic


def _episode(
    task: str, seen: list[_Block], did: list[_Block], names: list[tuple[str, ...]], rate: float, where: str
) -> Episode:
    """The topics at even times, from when all are there until the first one of a steady topic ends."""
    steady = [*seen, *(block for block in did if np.isfinite(block.step))]
    start = max(block.times[0] for block in (*seen, *did))
    end = min(block.times[-1] + (block.step if block in did else 0.0) for block in steady)
    end = min(end, min(block.times[-1] for block in seen))
    if end <= start:
        raise QuickstudyError(f"{where}: {listed([one.topic for one in steady])} never come at the same time.")
    for block in steady:
        usual = block.step if np.isfinite(block.step) else float(np.median(np.diff(block.times)))
        longest = _GAP * max(usual, 1 / rate)
        gaps = np.flatnonzero((np.diff(block.times) > longest) & (block.times[1:] > start) & (block.times[:-1] < end))
        if len(gaps):
            begun, ended = block.times[gaps[0] : gaps[0] + 2]
            raise QuickstudyError(
                f"{where}: nothing came on {block.topic} between {begun - start:.3f} and {ended - start:.3f} s from "
                f"its start; a gap of more than {longest:.3g} s is not filled: cut the bag there."
            )
    new = start + np.arange(int((end - start) * rate * (1 + 1e-9) + 1e-3) + 1) / rate
    columns = [
        {name: column for block in blocks for name, column in zip(block.names, _at(block, new, held).T, strict=True)}
        for blocks, held in ((seen, False), (did, True))
    ]
    x, y = (np.stack([some[name] for name in order], 1) for some, order in zip(columns, names, strict=True))
    return Episode(task, x, y, where=where, times=new)


def _at(block: _Block, new: np.ndarray, held: bool) -> np.ndarray:
    """The values at other times [step], [step, channel]: those of the message before, or interpolated."""
    last = block.values[np.maximum(np.searchsorted(block.times, new + 1e-9, side="right") - 1, 0)]
    if held:
        return last
    wraps = angles.find([block.values], block.names)
    smooth = wraps.continuous(block.values)
    between = np.stack([np.interp(new, block.times, channel) for channel in smooth.T], 1)
    held_too = block.whole | [len(np.unique(channel)) <= 2 for channel in block.values.T]  # a gripper, open or shut
    return np.where(held_too, last, wraps.as_written(between, last))
