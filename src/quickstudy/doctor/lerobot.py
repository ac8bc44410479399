"""What the files of a LeRobotDataset say beside its numbers: totals, indices, statistics, and what travels badly."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from quickstudy.datasets.lerobot.layout import INFO
from quickstudy.doctor.findings import Finding, plural, some
from quickstudy.errors import one_line

_NEEDED = ("codebase_version", "fps", "total_episodes", "total_frames", "features", "data_path")
_INDICES = ("frame_index", "episode_index", "index", "task_index")
_LARGE = 5 * 1024**3
"""Bytes from which on the Hub wants a file split."""
_SCALED = "Nothing here reads it, but policies of LeRobot scale by it: compute it anew."


def files(folder: Path) -> Iterator[Finding]:
    """Findings about a LeRobotDataset's metadata and tables; nothing in them is trusted, and nothing is refused."""
    try:
        info = json.loads((folder / INFO).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return  # reading says so
    if not isinstance(info, dict) or not isinstance(info.get("features"), dict):
        return
    found = [*_needed(info), *_tables(folder, info), *_statistics(folder, info), *_portable(folder, info)]
    yield from found
    if not found:
        yield Finding("files", "metadata", "good", "Totals, indices and statistics agree with the data.")


def _bad(point: str, said: str, remedy: str) -> Finding:
    return Finding("files", point, "bad", said, remedy)


def _note(point: str, said: str, remedy: str) -> Finding:
    return Finding("files", point, "note", said, remedy)


def _needed(info: Mapping[str, Any]) -> Iterator[Finding]:
    missing = [name for name in _NEEDED if name not in info]
    if missing:
        yield _note("fields", f"{INFO} lacks {some(missing)}.", "LeRobot itself needs them.")


def _tables(folder: Path, info: Mapping[str, Any]) -> Iterator[Finding]:
    columns: dict[str, pa.DataType] = {}
    differ: list[str] = []
    parts: list[pa.Table] = []
    for path in sorted((folder / "data").rglob("*.parquet")):
        try:
            with pq.ParquetFile(path) as file:
                schema = {field.name: field.type for field in file.schema_arrow}
                parts.append(file.read(columns=[name for name in _INDICES if name in schema]))
        except (OSError, pa.ArrowException) as error:
            said = f"'{path.relative_to(folder)}' is not a whole parquet file ({one_line(error)})."
            yield _bad("tables", said, "Fetch or record it anew.")
            continue
        columns = columns or schema
        differ += [f"{path.name}: {name}" for name in sorted(columns.keys() ^ schema.keys())]
        both = sorted(columns.keys() & schema.keys())
        differ += [f"{path.name}: {name} is {schema[name]}" for name in both if schema[name] != columns[name]]
    if differ:
        yield _bad("columns", f"Files have other columns than the first: {some(differ)}.", "Convert them alike.")
    stored = {name for name, one in info["features"].items() if _kind(one) != "video"}
    if columns and (missing := sorted(stored - columns.keys())):
        yield _note("features", f"{INFO} has features that no table has: {some(missing)}.", "Take them out of it.")
    if parts:
        yield from _counts(folder, info, parts)


def _kind(feature: object) -> str:
    return str(feature.get("dtype")) if isinstance(feature, dict) else ""


def _counts(folder: Path, info: Mapping[str, Any], parts: Sequence[pa.Table]) -> Iterator[Finding]:
    values = {
        name: np.concatenate([part[name].cast(pa.float64()).to_numpy().ravel() for part in parts])
        for name in _INDICES
        if all(name in part.column_names and pa.types.is_primitive(part[name].type) for part in parts)
    }
    rows = sum(map(len, parts))
    if isinstance(total := info.get("total_frames"), int) and total != rows:
        yield _bad("total_frames", f"{INFO} says {total} frames; the tables have {rows}.", "Count them anew.")
    numbers = values.get("episode_index", np.zeros(0))
    numbers = numbers[np.isfinite(numbers)]
    there = np.unique(numbers).astype(int)
    listed, labels = _lines(folder, "episodes"), _lines(folder, "tasks")
    if listed is not None and isinstance(total := info.get("total_episodes"), int) and total != listed:
        yield _bad("total_episodes", f"{INFO} says {total} episodes; {listed} are listed.", "Count them anew.")
    if listed is not None and len(there) and len(there) != listed:
        said = f"{listed} episodes are listed, the tables have rows of {len(there)}."
        yield _note("episodes", said, "Those that are not listed are passed over.")
    if labels is not None and isinstance(total := info.get("total_tasks"), int) and total != labels:
        yield _note("total_tasks", f"{INFO} says {total} tasks; meta/tasks has {labels}.", "Count them anew.")
    if labels is None and info.get("total_tasks"):
        yield _note("tasks", "There is no list of tasks in meta/ that can be read.", "LeRobot itself needs it.")
    if len(there) and (gaps := sorted(set(range(there[0], there[-1] + 1)) - set(there.tolist()))):
        yield _note("episode_index", f"Episodes {some(list(map(str, gaps)))} are missing.", "Were they deleted?")
    if "frame_index" in values and len(numbers) == rows:
        starts = np.flatnonzero(np.diff(numbers, prepend=-1))
        first = np.repeat(starts, np.diff(np.append(starts, rows)))
        off = np.unique(numbers[values["frame_index"] != np.arange(rows) - first])
        if len(off):
            where = f"in {plural(len(off), 'episode')}, the first is episode {off[0]:g}"
            said = f"frame_index does not count 0, 1, 2, ... {where}."
            yield _bad("frame_index", said, "Rows are missing, twice or in another order there.")
    if "index" in values and (values["index"] != np.arange(rows)).any():
        yield _note("index", "The column 'index' does not count 0, 1, 2, ... over all rows.", "Count it anew.")


def _lines(folder: Path, what: str) -> int | None:
    """How many episodes or tasks are listed; None where there is no list that can be read."""
    try:
        if (old := folder / f"meta/{what}.jsonl").is_file():
            return sum(bool(line.strip()) for line in old.read_text(encoding="utf-8-sig").splitlines())
        new = sorted((folder / "meta/episodes").rglob("*.parquet"))
        new = [folder / "meta/tasks.parquet"] if what == "tasks" else new
        return sum(pq.read_metadata(path).num_rows for path in new) if new else None
    except (OSError, ValueError, pa.ArrowException):
        return None


def _statistics(folder: Path, info: Mapping[str, Any]) -> Iterator[Finding]:
    paths = [folder / "meta/stats.json", folder / "meta/episodes_stats.jsonl"]
    path = next((one for one in paths if one.is_file()), None)
    if path is None:
        yield _note("statistics", "There is no meta/stats.json (v2.1: episodes_stats.jsonl).", _SCALED)
        return
    try:
        text = path.read_text(encoding="utf-8-sig")
        said = json.loads(text) if path.suffix == ".json" else json.loads(text.splitlines()[0])["stats"]
        given = {name: dict(one) for name, one in said.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        yield _note("statistics", f"meta/{path.name} cannot be read.", _SCALED)
        return
    plain = {name for name, one in info["features"].items() if _kind(one) not in ("video", "image", "string")}
    if missing := sorted(plain - given.keys() - {*_INDICES, "timestamp"}):
        yield _note("statistics", f"meta/{path.name} lacks {some(missing)}.", _SCALED)
    for name, one in given.items():
        if not name.startswith("action"):
            continue
        if lacking := [key for key in ("mean", "std") if key not in one]:
            yield _note("statistics", f"meta/{path.name} has no {some(lacking)} of '{name}'.", _SCALED)
        elif path.suffix == ".json" and 0 in np.ravel(one["std"]):
            told = f"meta/{path.name} says a deviation of 0 for some of '{name}', which other libraries divide by."
            yield _note("statistics", told, "A constant action channel may be left out.")


def _portable(folder: Path, info: Mapping[str, Any]) -> Iterator[Finding]:
    every = [path for path in folder.rglob("*") if path.is_file() or path.is_symlink()]
    names = {path: str(path.relative_to(folder)) for path in every}
    if links := [names[path] for path in every if path.is_symlink()]:
        yield _note("links", f"{len(links)} files are links: {some(links)}.", "They break on other machines.")
    if closed := [names[path] for path in every if not os.access(path, os.R_OK)]:
        yield _bad("permissions", f"{len(closed)} files cannot be read: {some(closed)}.", "Change their permissions.")
    if strange := [names[path] for path in every if names[path].startswith("data/") and path.suffix != ".parquet"]:
        yield _note("other files", f"data/ holds files that are no tables: {some(strange)}.", "Move them elsewhere.")
    sizes = {path: path.stat().st_size for path in every if path.exists()}
    if large := [names[path] for path, size in sizes.items() if size > _LARGE]:
        yield _note("size", f"Files are larger than 5 GB: {some(large)}.", "Split them.")
    if (whole := sum(sizes.values())) > 2 * _LARGE:
        yield _note("size", f"The data set has {whole / 1024**3:.0f} GB.", "Look at a part of it first.")
    for name in ("data_path", "video_path"):
        template = info.get(name)
        if isinstance(template, str) and (os.path.isabs(template) or "{" not in template):
            yield _bad(name, f"{INFO} has the {name} '{template}'.", "It must be a relative path with places to fill.")
