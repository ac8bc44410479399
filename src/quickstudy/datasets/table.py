"""Demonstrations in a .csv file, one line a step."""

import codecs
import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from quickstudy.datasets import timing
from quickstudy.datasets.episodes import About, Episode, Recording, to_write
from quickstudy.errors import QuickstudyError, listed, one_line, unknown
from quickstudy.io import files
from quickstudy.settings import ReadingConfig

CSV = "Each line is a step: episode, task, observation.…, action.…, perhaps timestamp, reward, success."
"""What a .csv of demonstrations has, in short. 'episode' is a whole number, and the lines of an episode stand together;
'timestamp' is seconds, or dates; 'timestamp_ms' and so on say another unit; 'success' is 0 or 1, or true or false.
Columns stand between commas, semicolons or tabs."""

_BLOCK = 4 << 20
"""Bytes that are parsed at once."""
_SAMPLE = 300
"""Lines that tell how numbers and dates are written; what is written otherwise further down is refused there."""
_STAMP = re.compile(r"(?:time_?stamps?|time)(?:[ _.(\[]+(s|ms|us|ns)[)\]]?)?")
_UNIT = re.compile(r".*(?:\[([^\]]+)\]|\(([^)]+)\)|[._](rad|deg))", re.DOTALL)
_DECIMAL_COMMA = re.compile(r"[-+]?\d*,\d+(?:[eE][-+]?\d+)?")
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(?:,\d{3})+")
_NUMBER = re.compile(r"[-+]?(?:[\d.,]+(?:e[-+]?\d+)?|nan|inf)?", re.IGNORECASE)


@dataclass(frozen=True)
class _Table:
    """How a file is written, and which of its columns are read.

    Attributes:
        columns: by what they hold, 'episode', 'task' and perhaps 'timestamp', 'reward' and 'success', their names.
        observation, action: the names of the channels' columns, in order.
        stamps: the type of time stamps, and their unit.
    """

    path: Path
    encoding: str
    delimiter: str
    decimal: str
    columns: Mapping[str, str]
    observation: tuple[str, ...]
    action: tuple[str, ...]
    stamps: pa.DataType
    flags: pa.DataType
    unit: str

    def has(self, what: str) -> bool:
        return what in self.columns


def load(path: Path, reading: ReadingConfig) -> Recording:
    """The demonstrations of a .csv file, see `CSV`.

    Raises:
        QuickstudyError: no such file, a column missing, or something that is not a number.
    """
    table = _table(path, reading)
    tasks, rate = _first_look(table)
    seen, did = (tuple(map(_channel, some)) for some in (table.observation, table.action))
    about = About(
        reading.rate or (rate.value if rate else None),
        seen,
        did,
        observation_units=_units(seen),
        action_units=_units(did),
        jitter=rate.jitter if rate and not reading.rate else 0.0,
    )

    def read(images: bool) -> Iterator[Episode]:
        for episode, row in _episodes(table):
            if episode.times is None or about.rate is None:
                yield episode
            elif reading.rate:
                yield timing.resampled(episode, episode.times, reading.rate, about)
            else:
                timing.check_steady(episode.times, about.rate, f"'{path}', line", row + 2)
                yield episode

    return Recording(path, "csv", about, tasks, read)


def save(path: Path, episodes: Iterable[Episode], about: About) -> None:
    """Writes a .csv file, see `CSV`, whole or not at all; images are left out.

    Raises:
        QuickstudyError: no episode, one that is not fit to learn from, ones that differ, or the disk refuses.
    """
    first, every = to_write(episodes)
    about = about.named(first.observations.shape[1], first.actions.shape[1])
    names = [f"observation.{n}" for n in about.observations] + [f"action.{n}" for n in about.actions]
    extra = [key for key, values in (("reward", first.rewards), ("success", first.success)) if values is not None]
    # From a second a step on, numbers alone do not tell seconds from milliseconds.
    timed = [] if about.rate is None else ["timestamp" if about.rate > 1 else "timestamp_s"]
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


def _table(path: Path, reading: ReadingConfig) -> _Table:
    if not path.is_file():
        raise QuickstudyError(f"There is no file '{path}'.")
    encoding = _encoding(path)
    try:
        with path.open(newline="", encoding=encoding.replace("utf8", "utf-8-sig")) as file:
            delimiter = _delimiter(file.read(1 << 16))
            file.seek(0)
            rows = (row for row in csv.reader(file, delimiter=delimiter) if any(row))
            names = next(rows, [])
            sample = list(islice(rows, _SAMPLE))
    except (UnicodeError, csv.Error) as error:
        raise QuickstudyError(f"'{path}' is not a .csv file of text ({error}). {CSV}") from error
    columns = _columns(path, names)
    seen = _channels(path, names, "observation", reading.observation)
    did = _channels(path, names, "action", reading.action)
    numbers = {*seen, *did, *(columns[kind] for kind in ("reward", "success") if kind in columns)}
    cells = {
        name: [row[i].strip() for row in sample if i < len(row)] for i, name in enumerate(names) if name in numbers
    }
    said = {cell.casefold() for cell in cells.get(columns.get("success", ""), [])}
    flags = pa.bool_() if said and said <= {"true", "false"} else pa.float64()
    stamps, unit = pa.float64(), ""
    if "timestamp" in columns:
        found = _STAMP.fullmatch(_plain(columns["timestamp"]))
        unit = reading.time_unit or (found and found[1]) or ""
        place = names.index(columns["timestamp"])
        written = [row[place].strip() for row in sample if place < len(row) and row[place].strip()]
        if written and not _NUMBER.fullmatch(written[0]):
            zoned = re.search(r"(?:Z|[-+]\d\d:?\d\d)$", written[0]) and ":" in written[0]
            stamps = pa.timestamp("ns", tz="UTC" if zoned else None)
        else:
            cells[columns["timestamp"]] = written
    return _Table(path, encoding, delimiter, _decimal(path, delimiter, cells), columns, seen, did, stamps, flags, unit)


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        begin = file.read(4)
    return "utf-16" if begin.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf8"


def _delimiter(text: str) -> str:
    """What stands between the names of the first line; a comma where that is no such table."""
    line = next((line for line in text.splitlines() if line.strip()), "")
    for delimiter in ",;\t|":
        names = [_plain(name) for name in next(csv.reader([line], delimiter=delimiter), [])]
        if {"episode", "task"} <= set(names):
            return delimiter
    return ","


def _plain(name: str) -> str:
    """A column's name without what people do not mean by it: case, and blanks at the ends and beside its dots."""
    return re.sub(r"\s*\.\s*", ".", " ".join(name.casefold().split()))


def _columns(path: Path, names: Sequence[str]) -> dict[str, str]:
    """The columns that are not channels, by what they hold."""
    alike = {plain: count for plain, count in Counter(map(_plain, names)).items() if count > 1 and plain}
    for plain in alike:
        if plain.startswith(("observation.", "action.")) or plain in ("episode", "task", "reward", "success"):
            same = [name for name in names if _plain(name) == plain]
            and_so = f"'{same[0]}' twice" if same[0] == same[1] else f"'{same[0]}' and '{same[1]}', which say the same"
            raise QuickstudyError(f"'{path}' has the column {and_so}; each needs a name of its own.")
    found = {_plain(name): name for name in names}
    columns = {kind: found[kind] for kind in ("episode", "task", "reward", "success") if kind in found}
    for kind in ("episode", "task"):
        if kind not in columns:
            raise QuickstudyError(f"'{path}' lacks the column '{kind}'. {CSV}")
    stamps = [name for name in names if _STAMP.fullmatch(_plain(name))]
    if len(stamps) > 1:
        exact = [name for name in stamps if _plain(name) == "timestamp"]
        if len(exact) != 1:
            raise QuickstudyError(f"'{path}' has the time stamps {listed(stamps)} of each step; leave one.")
        stamps = exact
    return columns | ({"timestamp": stamps[0]} if stamps else {})


def _channels(path: Path, names: Sequence[str], kind: str, wanted: Sequence[str]) -> tuple[str, ...]:
    """The columns of observations or actions: those that are named so, or those that were asked for, in that order."""
    own = {_channel(name): name for name in names if _plain(name).startswith(f"{kind}.")}
    if not wanted:
        if not own:
            raise QuickstudyError(f"'{path}' has no column '{kind}.…'. {CSV}")
        return tuple(own.values())
    known = {name.strip(): name for name in names} | own
    for name in wanted:
        if name not in known:
            raise unknown(f"column for --{kind} of '{path}'", name, known)
    return tuple(known[name] for name in wanted)


def _channel(name: str) -> str:
    """The name of a channel from that of its column."""
    kind, _, rest = name.strip().partition(".")
    return rest.strip() if kind.lower() in ("observation", "action") and rest.strip() else name.strip()


def _units(channels: Sequence[str]) -> tuple[str, ...]:
    """The units that the names of channels end with, as in 'pan [deg]' or 'pan_rad'; none where no name has any."""
    found = [_UNIT.fullmatch(channel) for channel in channels]
    units = tuple(next(filter(None, one.groups()), "").strip() if one else "" for one in found)
    return units if any(units) else ()


def _decimal(path: Path, delimiter: str, cells: Mapping[str, Sequence[str]]) -> str:
    """The decimal point or comma of the numbers of the columns."""
    comma = [(name, cell) for name, some in cells.items() for cell in some if _DECIMAL_COMMA.fullmatch(cell)]
    point = [(name, cell) for name, some in cells.items() for cell in some if "." in cell]
    if comma and point:
        (one, cell), (other, another) = comma[0], point[0]
        raise QuickstudyError(
            f"'{path}' has numbers with a comma ('{cell}' of '{one.strip()}') and with a point ('{another}' of "
            f"'{other.strip()}'); write all with one decimal sign and nothing between thousands."
        )
    if delimiter == "," and comma and all(_THOUSANDS.fullmatch(cell) for _, cell in comma):
        raise QuickstudyError(
            f"'{path}' has '{comma[0][1]}' in '{comma[0][0].strip()}', which may be a decimal comma or one between "
            "thousands; write numbers with a decimal point and nothing between thousands."
        )
    return "," if comma else "."


def _first_look(table: _Table) -> tuple[list[str], timing.Rate | None]:
    """The label of each episode, and the rate that the time stamps of all of them tell."""
    tasks, seen, stamps, rows = [], set(), [], []
    timed = table.has("timestamp")
    for part, row in _parts(table, ["episode", "task", *(["timestamp"] if timed else [])]):
        number = part["episode"][0].as_py()
        if number in seen:
            raise QuickstudyError(
                f"'{table.path}', line {row + 2}: episode {number} goes on after another one began; the lines of an "
                "episode must stand together."
            )
        seen.add(number)
        labels = [label.strip() for label in part["task"].unique().to_pylist()]
        if "" in labels:
            at = [label.strip() for label in part["task"].to_pylist()].index("")
            raise QuickstudyError(
                f"'{table.path}', episode {number} (line {row + 2 + at}): it has no task; each step needs a label."
            )
        tasks.append(labels[0])
        if timed:
            stamps.append(part["timestamp"].to_numpy())
            rows.append(row)
    if not stamps:
        return tasks, None
    longest = max(stamps, key=len)
    if len(longest) > 1:
        timing.seconds(longest, table.unit, f"'{table.path}'")  # asks for the unit where it is open
    times = [timing.seconds(one, table.unit or "s", f"'{table.path}'") for one in stamps]
    for one, row in zip(times, rows, strict=True):
        timing.check_rising(one, f"'{table.path}', line", row + 2)
    return tasks, timing.rate_of(times, f"'{table.path}'")


def _episodes(table: _Table) -> Iterator[tuple[Episode, int]]:
    kinds = [kind for kind in ("timestamp", "reward", "success") if table.has(kind)]
    for part, row in _parts(table, ["episode", "task", *kinds, *table.observation, *table.action]):
        number = part["episode"][0].as_py()
        labels = list(dict.fromkeys(label.strip() for label in part["task"].unique().to_pylist()))
        where = f"'{table.path}', episode {number} (from line {row + 2})"
        if len(labels) > 1:
            raise QuickstudyError(f"{where}: it has the tasks {labels[0]!r} and {labels[1]!r}; each episode has one.")
        observations, actions = (
            np.stack([part[name].to_numpy() for name in some], 1) for some in (table.observation, table.action)
        )
        rewards, success = (
            part[kind].cast(pa.float64()).to_numpy() if table.has(kind) else None for kind in ("reward", "success")
        )
        for kind, values, known in (("reward", rewards, np.isfinite), ("success", success, _is_flag)):
            if values is not None and not known(values).all():
                at = int(np.flatnonzero(~known(values))[0])
                fit = "a number" if kind == "reward" else "0 or 1"
                raise QuickstudyError(
                    f"'{table.path}', line {row + 2 + at}: {kind} must be {fit}; it is {values[at]:g}."
                )
        times = timing.seconds(part["timestamp"].to_numpy(), table.unit or "s", "") if table.has("timestamp") else None
        judged = None if success is None else success > 0.5
        yield Episode(labels[0], observations, actions, rewards, judged, where=where, times=times), row


def _is_flag(values: np.ndarray) -> np.ndarray:
    return np.asarray((values == 0) | (values == 1))


def _parts(table: _Table, wanted: list[str]) -> Iterator[tuple[pa.Table, int]]:
    """The lines of each episode, as they stand together, and the number of lines of data before it."""
    kept: list[pa.RecordBatch] = []
    row = 0
    for batch in _batches(table, wanted):
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


def _batches(table: _Table, wanted: list[str]) -> Iterator[pa.RecordBatch]:
    """The columns `wanted`, by what they hold or, for channels, by name."""
    wanted = list(dict.fromkeys(wanted))
    columns = [table.columns.get(name, name) for name in wanted]
    special = {"episode": pa.int64(), "task": pa.string(), "timestamp": table.stamps, "success": table.flags}
    types = {column: special.get(name, pa.float64()) for name, column in zip(wanted, columns, strict=True)}
    try:
        with pa.csv.open_csv(
            table.path,
            read_options=pa.csv.ReadOptions(block_size=_BLOCK, use_threads=False, encoding=table.encoding),
            parse_options=pa.csv.ParseOptions(newlines_in_values=True, delimiter=table.delimiter),
            convert_options=pa.csv.ConvertOptions(
                column_types=types,
                include_columns=columns,
                strings_can_be_null=False,
                decimal_point=table.decimal,
            ),
        ) as reader:
            for batch in reader:
                named = pa.RecordBatch.from_arrays(batch.columns, names=wanted)
                if named["episode"].null_count:
                    raise QuickstudyError(f"'{table.path}': a line has no episode number. {CSV}")
                if len(named):
                    yield named
    except (pa.ArrowInvalid, UnicodeError) as error:
        raise QuickstudyError(f"'{table.path}' is not such a table ({one_line(error)}). {CSV}") from error
