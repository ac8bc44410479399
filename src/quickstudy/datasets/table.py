"""Demonstrations in a .csv file, one line a step."""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from quickstudy.datasets.episodes import About, Episode, Recording, check_times, to_write
from quickstudy.errors import QuickstudyError, one_line
from quickstudy.io import files
from quickstudy.settings import ReadingConfig

CSV = (
    "A .csv of demonstrations has a line of names and then one line a step: 'episode' (a whole number; the lines of an "
    "episode stand together), 'task' (its label), columns 'observation.…' and 'action.…', and perhaps 'timestamp' "
    "(seconds), 'reward' and 'success' (0 or 1)."
)

_BLOCK = 4 << 20
"""Bytes that are parsed at once."""


@dataclass(frozen=True)
class _Columns:
    """The names of the columns by what they hold."""

    every: list[str]

    def of(self, kind: str) -> list[str]:
        return [name for name in self.every if name.startswith(f"{kind}.")]

    @property
    def wanted(self) -> list[str]:
        """Those that are read; a file may have others beside them."""
        known = ("episode", "task", "timestamp", "reward", "success")
        return [name for name in self.every if name in known or name.startswith(("observation.", "action."))]


def load(path: Path, reading: ReadingConfig) -> Recording:
    """The demonstrations of a .csv file, see `CSV`.

    Raises:
        QuickstudyError: no such file, a column missing, or something that is not a number.
    """
    columns = _header(path)
    tasks, rate = _first_look(path, columns)
    names = (tuple(name.split(".", 1)[1] for name in columns.of(kind)) for kind in ("observation", "action"))

    def read(images: bool) -> Iterator[Episode]:
        return (episode for episode, _ in _episodes(path, columns, rate))

    return Recording(path, "csv", About(rate, *names), tasks, read)


def save(path: Path, episodes: Iterable[Episode], about: About) -> None:
    """Writes a .csv file, see `CSV`, whole or not at all; images are left out.

    Raises:
        QuickstudyError: no episode, one that is not fit to learn from, ones that differ, or the disk refuses.
    """
    first, every = to_write(episodes)
    about = about.named(first.observations.shape[1], first.actions.shape[1])
    names = [f"observation.{n}" for n in about.observations] + [f"action.{n}" for n in about.actions]
    extra = [key for key, values in (("reward", first.rewards), ("success", first.success)) if values is not None]
    timed = ["timestamp"] if about.rate else []
    with files.partial(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["episode", "task", *timed, *names, *extra])
        for number, episode in enumerate(every):
            block = [np.concatenate([episode.observations, episode.actions], 1).astype(str)]
            if about.rate:
                block.insert(0, (np.arange(len(episode)) / about.rate)[:, None].astype(str))
            if episode.rewards is not None:
                block.append(np.asarray(episode.rewards, "f4")[:, None].astype(str))
            if episode.success is not None:
                block.append(np.asarray(episode.success, int)[:, None].astype(str))
            writer.writerows([number, episode.task, *row] for row in np.concatenate(block, 1))


def _header(path: Path) -> _Columns:
    if not path.is_file():
        raise QuickstudyError(f"There is no file '{path}'.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            columns = _Columns(next(csv.reader(file), []))
    except (UnicodeDecodeError, csv.Error) as error:
        raise QuickstudyError(f"'{path}' is not a .csv file of text ({error}). {CSV}") from error
    for name in ("episode", "task"):
        if name not in columns.every:
            raise QuickstudyError(f"'{path}' lacks the column '{name}'. {CSV}")
    for kind in ("observation", "action"):
        if not columns.of(kind):
            raise QuickstudyError(f"'{path}' has no column '{kind}.…'. {CSV}")
    twice = {name for name in columns.every if columns.every.count(name) > 1}
    if twice:
        raise QuickstudyError(f"'{path}' has the column '{min(twice)}' twice; each needs a name of its own.")
    return columns


def _first_look(path: Path, columns: _Columns) -> tuple[list[str], float | None]:
    """The label of each episode, and the rate that the time stamps of the first one with two steps tell."""
    wanted = ["episode", "task", *(["timestamp"] if "timestamp" in columns.every else [])]
    tasks, rate, seen = [], None, set()
    for part, row in _parts(path, wanted):
        number = part["episode"][0].as_py()
        if number in seen:
            raise QuickstudyError(
                f"'{path}', line {row + 2}: episode {number} goes on after another one began; the lines of an episode "
                "must stand together."
            )
        seen.add(number)
        tasks.append(part["task"][0].as_py())
        if rate is None and "timestamp" in wanted and len(part) > 1:
            step = np.diff(part["timestamp"].to_numpy()[:2])[0]
            if not np.isfinite(step) or step <= 0:
                raise QuickstudyError(f"'{path}', line {row + 3}: time stamps must rise; this one is {step} s later.")
            rate = float(np.round(1 / step, 6))
    return tasks, rate


def _episodes(path: Path, columns: _Columns, rate: float | None) -> Iterator[tuple[Episode, int]]:
    for part, row in _parts(path, columns.wanted):
        number, labels = part["episode"][0].as_py(), part["task"].unique().to_pylist()
        where = f"'{path}', episode {number} (from line {row + 2})"
        if len(labels) > 1:
            raise QuickstudyError(f"{where}: it has the tasks {labels[0]!r} and {labels[1]!r}; each episode has one.")
        if rate is not None:
            check_times(part["timestamp"].to_numpy(), rate, f"'{path}', line", row + 2)
        observations, actions = (
            np.stack([part[name].to_numpy() for name in columns.of(kind)], 1) for kind in ("observation", "action")
        )
        rewards = part["reward"].to_numpy() if "reward" in columns.every else None
        success = part["success"].to_numpy() > 0.5 if "success" in columns.every else None
        yield Episode(labels[0], observations, actions, rewards, success, where=where), row


def _parts(path: Path, wanted: list[str]) -> Iterator[tuple[pa.Table, int]]:
    """The lines of each episode, as they stand together, and the number of lines of data before it."""
    kept: list[pa.RecordBatch] = []
    row = 0
    for batch in _batches(path, wanted):
        numbers = batch["episode"].to_numpy()
        ends = [*(np.flatnonzero(np.diff(numbers)) + 1), len(numbers)]
        for begin, end in zip([0, *ends[:-1]], ends, strict=True):
            if begin == 0 and kept and kept[-1]["episode"][0].as_py() != numbers[0]:
                yield pa.Table.from_batches(kept), row
                row, kept = row + sum(map(len, kept)), []
            kept.append(batch.slice(begin, end - begin))
            if end < len(numbers):
                yield pa.Table.from_batches(kept), row
                row, kept = row + sum(map(len, kept)), []
    if kept:
        yield pa.Table.from_batches(kept), row


def _batches(path: Path, wanted: list[str]) -> Iterator[pa.RecordBatch]:
    types = {name: pa.float64() for name in wanted} | {"episode": pa.int64(), "task": pa.string()}
    try:
        with pa.csv.open_csv(
            path,
            read_options=pa.csv.ReadOptions(block_size=_BLOCK, use_threads=False),
            parse_options=pa.csv.ParseOptions(newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(
                column_types=types, include_columns=wanted, strings_can_be_null=False
            ),
        ) as reader:
            for batch in reader:
                if batch["episode"].null_count:
                    raise QuickstudyError(f"'{path}': a line has no episode number. {CSV}")
                if len(batch):
                    yield batch
    except pa.ArrowInvalid as error:
        raise QuickstudyError(f"'{path}' is not such a table ({one_line(error)}). {CSV}") from error
