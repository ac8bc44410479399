"""Evidence: a table is a file that the command which measured it wrote, and documents are filled from these files.

    python -m quickstudy.results.evidence README.md docs/*.md            fills the blocks below
    python -m quickstudy.results.evidence --check README.md docs/*.md    only says whether they agree

A block of a document is what stands between two comments, the first of which names a cell and, where a page is not
about all of them, the methods to show:

    <!-- results: grasping-sizes mann mann-raw -->
    <!-- /results -->
"""

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table as RichTable

from quickstudy.errors import QuickstudyError, unknown
from quickstudy.io import files
from quickstudy.io.progress import console
from quickstudy.io.provenance import commit, machine, versions

FOLDER = Path("benchmarks/results")
"""Where the committed cells are, from the root of the repository."""

BASELINES = (
    "replay",
    "nearest",
    "warp",
    "no-adaptation",
    "scratch",
    "transfer",
    "transfer-equal-time",
    "oracle",
    "expert",
)
"""Methods that are there to be compared with: floors, opponents and ceilings."""

_EXTRAS = {
    "transductive": "transductive",
    "ms": "ms",
    "ratio": "ratio",
    "steps_per_second": "steps/s",
    "memory_mb": "MB",
    "act_ms": "ms to act",
    "training_s": "s to train",
    "parameters": "parameters",
    "train_tasks": "training tasks",
    "demonstrations": "training demos",
    "env_steps": "training env steps",
}
"""Columns that a table has beside its metric, where some row has them."""

_SIGNED = ("value", "iqm", "at")
_NUMBERS = (
    *_SIGNED,
    "ms",
    "ratio",
    "steps_per_second",
    "memory_mb",
    "transductive",
    "training_s",
    "improvement",
    "act_ms",
)
"""Fields of a row that are finite numbers; only the signed ones may be negative."""

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Row:
    """One measurement of one method.

    Attributes:
        method: as on the command line.
        shots: demonstrations (or labelled examples) that it adapted from.
        value: the mean of the cell's metric; None in a table of speeds.
        ci95: 95 % confidence interval of `value`.
        seeds, tasks, episodes: training seeds; tasks of each; episodes of each task.
        note: what a reader must know about this row.
        steps: adaptation steps, where they vary within the cell.
        workload: what was timed, such as 'W1'.
        threads: processor threads, where they vary.
        ms: median milliseconds: of one adaptation, or of the workload.
        ratio: speed relative to the peer that the protocol names; higher is faster.
        steps_per_second: simulation steps.
        memory_mb: peak memory above what the imports took.
        transductive: the metric where the learner sees all queries of a task together.
        parameters: numbers that the method learns in meta-training.
        training_s: seconds of meta-training, the mean over seeds.
        iqm, iqm_ci95: interquartile mean over seeds and tasks, see `quickstudy.results.statistics`.
        improvement, improvement_ci95: probability of improvement over the method that the protocol names.
        train_tasks, demonstrations, env_steps: what meta-training used: tasks, demonstrations of them all, and the
            environment steps in those.
        act_ms: median milliseconds of one action.
        at: where along the cell's `against`, in a cell that varies a number.
        beside: means of other measures than the cell's metric, each with its unit in its name: 'return', say.
    """

    method: str
    shots: int | None = None
    value: float | None = None
    ci95: Sequence[float] | None = None
    seeds: int | None = None
    tasks: int | None = None
    episodes: int | None = None
    note: str = ""
    steps: int | None = None
    workload: str = ""
    threads: int | None = None
    ms: float | None = None
    ratio: float | None = None
    steps_per_second: float | None = None
    memory_mb: float | None = None
    transductive: float | None = None
    parameters: int | None = None
    training_s: float | None = None
    iqm: float | None = None
    iqm_ci95: Sequence[float] | None = None
    improvement: float | None = None
    improvement_ci95: Sequence[float] | None = None
    train_tasks: int | None = None
    demonstrations: int | None = None
    env_steps: int | None = None
    act_ms: float | None = None
    at: float | None = None
    secondary_metrics: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        for name in ("method", "note", "workload"):
            if not isinstance(getattr(self, name), str) or (name == "method" and not self.method):
                raise QuickstudyError(f"A row's {name} must be a text; got {getattr(self, name)!r}.")
        for name, least in {
            "shots": 0,
            "steps": 0,
            "seeds": 1,
            "tasks": 1,
            "episodes": 1,
            "threads": 1,
            "parameters": 1,
            "train_tasks": 1,
            "demonstrations": 1,
            "env_steps": 1,
        }.items():
            count = getattr(self, name)
            if count is not None and (type(count) is not int or count < least):
                raise self._wrong(name, f"a whole number of at least {least}", count)
        for name in _NUMBERS:
            number = getattr(self, name)
            if number is not None and not (_finite(number) and (name in _SIGNED or number >= 0)):
                raise self._wrong(name, "a finite number", number)
        if self.secondary_metrics is not None and not (
            isinstance(self.secondary_metrics, Mapping) and all(map(_finite, self.secondary_metrics.values()))
        ):
            raise self._wrong("beside", "finite numbers by name", self.secondary_metrics)
        for name in ("ci95", "iqm_ci95", "improvement_ci95"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, self._bounds(name))

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells this row from the others of its cell."""
        return self.method, self.shots, self.steps, self.workload, self.threads, self.at

    def _bounds(self, name: str) -> tuple[float, float]:
        bounds = getattr(self, name)
        if not (isinstance(bounds, list | tuple) and len(bounds) == 2 and all(map(_finite, bounds))):
            raise self._wrong(name, "two finite numbers", bounds)
        if bounds[0] > bounds[1]:
            raise self._wrong(name, "a lower and then an upper bound", bounds)
        return bounds[0], bounds[1]

    def _wrong(self, name: str, wanted: str, got: object) -> QuickstudyError:
        return QuickstudyError(f"Row '{self.method}': {name} must be {wanted}; got {got!r}.")


@dataclass(frozen=True)
class Cell:
    """One table of evidence; DESIGN.md of the project lists the cells.

    Attributes:
        cell: its name, lower case words and digits joined by hyphens; its file is `<cell>.json`.
        metric: what `value` measures, such as 'success'.
        unit: of `value`; a 'fraction' is shown in per cent.
        protocol: one sentence: what is hidden, what varies, what counts as success.
        command: what to run to measure it again.
        seconds: how long that took.
        commit, versions, machine: where it ran, see `quickstudy.io.provenance`.
        against: what the rows' `at` counts, such as 'training tasks'; empty where nothing is varied.
        reference: the method that the rows' `improvement` is over.
    """

    cell: str
    metric: str
    unit: str
    protocol: str
    command: str
    seconds: float
    commit: str
    versions: Mapping[str, str]
    machine: str
    rows: Sequence[Row]
    against: str = ""
    reference: str = ""

    def __post_init__(self) -> None:
        for name in ("cell", "metric", "unit", "protocol", "command", "commit", "machine", "against", "reference"):
            if not isinstance(getattr(self, name), str):
                raise QuickstudyError(f"A cell's {name} must be a text; got {getattr(self, name)!r}.")
        if not _NAME.fullmatch(self.cell):
            raise QuickstudyError(f"A cell's name is words and digits joined by hyphens; got '{self.cell}'.")
        if not _finite(self.seconds) or self.seconds < 0:
            raise QuickstudyError(f"Cell '{self.cell}': seconds must be a finite number; got {self.seconds!r}.")
        if not isinstance(self.versions, Mapping):
            raise QuickstudyError(f"Cell '{self.cell}': versions must map packages to versions.")
        object.__setattr__(self, "rows", tuple(self.rows))
        if not self.rows:
            raise QuickstudyError(f"Cell '{self.cell}' has no row.")
        seen = set()
        for row in self.rows:
            if row.key in seen:
                raise QuickstudyError(f"Cell '{self.cell}' has two rows for {_words(row)}.")
            seen.add(row.key)
            for number in (row.value, row.iqm):
                if self.unit == "fraction" and number is not None and not 0 <= number <= 1:
                    raise QuickstudyError(f"Cell '{self.cell}', {_words(row)}: {number} is no fraction.")

    @classmethod
    def measured_here(
        cls,
        *,
        cell: str,
        metric: str,
        unit: str,
        protocol: str,
        command: str,
        seconds: float,
        rows: Sequence[Row],
        against: str = "",
        reference: str = "",
    ) -> "Cell":
        """A cell that this process measured: commit, versions and machine are what they are here."""
        here = commit(), versions(), machine()
        return cls(cell, metric, unit, protocol, command, round(seconds, 1), *here, rows, against, reference)

    def write(self, path: Path) -> None:
        """Writes the cell as JSON, one row a line; the file appears whole or not at all."""
        about = {
            key: value
            for key, value in asdict(self).items()
            if key != "rows" and (value or key not in ("against", "reference"))
        }
        head = json.dumps({**about, "versions": dict(self.versions)}, indent=1, ensure_ascii=False)
        rows = ",\n".join("  " + json.dumps(_short(row), ensure_ascii=False) for row in self.rows)
        files.write(path, f'{head[:-2]},\n "rows": [\n{rows}\n ]\n}}\n')

    @classmethod
    def read(cls, path: Path) -> "Cell":
        """Reads what `write` wrote.

        Raises:
            QuickstudyError: no such file, not JSON, or not a cell.
        """
        path = Path(path)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise QuickstudyError(f"There is no results file '{path}'.") from error
        except (OSError, ValueError) as error:
            raise QuickstudyError(f"'{path}' is not a readable JSON file ({error}).") from error
        try:
            _match(cls, content, "a cell")
            if not isinstance(content["rows"], list):
                raise QuickstudyError(f"rows must be a list; got {content['rows']!r}.")
            for row in content["rows"]:
                _match(Row, row, "a row")
            return cls(**{**content, "rows": [Row(**row) for row in content["rows"]]})
        except QuickstudyError as error:
            raise QuickstudyError(f"'{path}': {error}") from error


# ---- tables


@dataclass(frozen=True)
class Table:
    """A cell as text, ready to print.

    Attributes:
        headers: one for each column.
        rows: [row][column]; the first `labels` columns are words, the others are figures.
        labels: how many columns of words come first; notes, if any, are the last column and are words too.
    """

    headers: list[str]
    rows: list[list[str]]
    labels: int
    notes: bool


def table(cell: Cell) -> Table:
    """The cell with a line for each method and a column for each number of shots and steps."""
    rows = cell.rows
    groups: dict[tuple[str, str, int | None, float | None], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.workload, row.method, row.threads, row.at), []).append(row)
    conditions = {(row.shots, row.steps) for row in rows if row.value is not None}
    columns = sorted(conditions, key=lambda column: [-1 if part is None else part for part in column])
    labels = [name for name in ("workload", "method", "threads", "at") if _any(rows, name)]
    last = columns[-1] if columns else (None, None)
    likely = [name for name in ("iqm", "improvement") if _any(rows, name)]
    secondary_metrics = list(dict.fromkeys(name for row in rows for name in row.secondary_metrics or ()))
    extras = [name for name, header in _EXTRAS.items() if _any(rows, name) and header != cell.against]
    notes = _any(rows, "note")
    headers = [cell.against or "at" if name == "at" else name for name in labels]
    headers += [_column(cell, *column) for column in columns]
    headers += [_likely(cell, name, last[0]) for name in likely]
    headers += [_after(name, *last) for name in secondary_metrics] + [_EXTRAS[name] for name in extras]
    if "workload" not in labels:
        headers = ["ms to adapt" if header == "ms" else header for header in headers]
    lines = []
    for group in groups.values():
        by_condition = {(row.shots, row.steps): _value(cell, row) for row in group}
        line = [_label(getattr(group[0], name)) for name in labels]
        line += [by_condition.get(column, "–") for column in columns]
        of_last = next((row for row in group if (row.shots, row.steps) == last), None)
        line += [_bounded(cell, of_last, name) for name in likely]
        line += [_figure(((of_last and of_last.secondary_metrics) or {}).get(name)) for name in secondary_metrics]
        line += [_extra(cell, name, _largest(group, name)) for name in extras]
        line += [" ".join(dict.fromkeys(row.note for row in group if row.note))] * notes
        lines.append(line)
    return Table(headers + ["note"] * notes, lines, len(labels), notes)


def measured(cell: Cell) -> str:
    """One sentence on the sizes, the machine and the commit behind a cell."""
    sizes = []
    for name in ("tasks", "episodes", "seeds"):
        found = sorted({getattr(row, name) for row in cell.rows} - {None})
        if found:
            span = str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"
            word = {"tasks": "task", "episodes": "episode", "seeds": "training seed"}[name]
            sizes.append(f"{span} {word}{'' if found == [1] else 's'}")
    torch = f", torch {cell.versions['torch']}" if "torch" in cell.versions else ""
    commit = f", commit {cell.commit}" if cell.commit else ""
    start = " × ".join(sizes) + "; measured" if sizes else "Measured"
    return f"{start} in {_duration(cell.seconds)} on {cell.machine}{torch}{commit}."


def print_table(cell: Cell, to: Console = console) -> None:
    """Prints the cell for a terminal."""
    made = table(cell)
    caption = _escape(f"{cell.protocol} {measured(cell)}")
    printed = RichTable(title=cell.cell, caption=caption, title_justify="left", caption_justify="left")
    for place, header in enumerate(made.headers):
        words = place < made.labels or (made.notes and place == len(made.headers) - 1)
        printed.add_column(_escape(header), justify="left" if words else "right")
    for row in made.rows:
        baseline = row[made.headers.index("method")] in BASELINES
        printed.add_row(*(_escape(part) for part in row), style="dim" if baseline else None)
    to.print(printed)


def to_markdown(cell: Cell) -> str:
    """The cell as a Markdown table with its protocol and its command below."""
    made = table(cell)
    last = len(made.headers) - 1
    words = [place < made.labels or (made.notes and place == last) for place in range(last + 1)]
    lines = [made.headers, [":--" if word else "--:" for word in words], *made.rows]
    text = "\n".join("| " + " | ".join(part.replace("|", "\\|") for part in line) + " |" for line in lines)
    return f"{text}\n\n{cell.protocol}\n{measured(cell)} Again: `{cell.command}`\n"


def fill(text: str, folder: Path, where: str) -> str:
    """`text` with every results block filled from the cells of `folder`.

    Raises:
        QuickstudyError: a block names a cell that has no file or a method that is not in it, or has no end.
    """
    opening = re.compile(r"^<!-- results: *(.*?) *-->$", re.MULTILINE)
    closing = "<!-- /results -->"
    made, done = "", 0
    while match := opening.search(text, done):
        name, *methods = match[1].split() or [""]
        end, following = text.find(closing, match.end()), opening.search(text, match.end())
        if end < 0 or (following is not None and following.start() < end):
            raise QuickstudyError(f"'{where}': the block 'results: {name}' has no end; close it by '{closing}'.")
        path = folder / f"{name}.json"
        if not _NAME.fullmatch(name) or not path.is_file():
            known = unknown("cell", name, [file.stem for file in folder.glob("*.json")])
            raise QuickstudyError(f"'{where}': {known}")
        made += f"{text[done : match.end()]}\n{to_markdown(_only(Cell.read(path), methods))}"
        done = end
    return made + text[done:]


def _only(cell: Cell, methods: Sequence[str]) -> Cell:
    """The rows of these methods; all where none is named."""
    there = {row.method for row in cell.rows}
    for method in methods:
        if method not in there:
            raise unknown(f"method in '{cell.cell}'", method, there)
    return replace(cell, rows=[row for row in cell.rows if row.method in methods]) if methods else cell


def main(
    documents: Annotated[tuple[Path, ...], tyro.conf.Positional], check: bool = False, folder: Path = FOLDER
) -> int:
    """Fills the tables of Markdown documents from the measured cells.

    Args:
        documents: Markdown files.
        check: write nothing, only say which documents disagree with the cells.
        folder: where the cells are.
    """
    status = 0
    for path in documents:
        if not path.is_file():
            raise QuickstudyError(f"There is no document '{path}'.")
        old = path.read_text(encoding="utf-8")
        new = fill(old, folder, str(path))
        if new == old:
            continue
        if check:
            console.print(f"{path} disagrees with {folder}; run 'make results'.", soft_wrap=True)
            status = 1
        else:
            files.write(path, new)
            console.print(f"{path} filled.", soft_wrap=True)
    return status


# ---- figures and words


def _value(cell: Cell, row: Row) -> str:
    return _with_bounds(row.value, row.ci95, cell.unit == "fraction")


def _bounded(cell: Cell, row: Row | None, name: str) -> str:
    """A figure beside the mean, with its interval."""
    if row is None:
        return "–"
    return _with_bounds(
        getattr(row, name), getattr(row, f"{name}_ci95"), name == "improvement" or cell.unit == "fraction"
    )


def _with_bounds(value: float | None, ci95: Sequence[float] | None, percent: bool) -> str:
    if value is None:
        return "–"
    show = (lambda number: f"{100 * number:.1f}") if percent else _figure
    bounds = "" if ci95 is None else f" [{show(ci95[0])}, {show(ci95[1])}]"
    return show(value) + bounds


def _likely(cell: Cell, name: str, shots: int | None) -> str:
    after = "" if shots is None else f" after {shots} shot{'' if shots == 1 else 's'}"
    if name == "iqm":
        return f"IQM{', %' if cell.unit == 'fraction' else ''}{after}"
    return f"better than {cell.reference}, %{after}" if cell.reference else f"probability of improvement, %{after}"


def _label(value: object) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _extra(cell: Cell, name: str, number: float | None) -> str:
    """A figure of a column beside the metric, which alone may be a fraction too."""
    if name == "transductive" and number is not None and cell.unit == "fraction":
        return f"{100 * number:.1f}"
    return _figure(number)


def _figure(number: float | None) -> str:
    """A whole number in full, others with three significant digits; never in powers of ten."""
    if number is None:
        return "–"
    if isinstance(number, int):
        return f"{number:,}"
    if number == 0 or not math.isfinite(number):
        return f"{number:.0f}"
    decimals = max(0, 2 - math.floor(math.log10(abs(number))))
    return f"{number:,.{min(decimals, 6)}f}"


def _column(cell: Cell, shots: int | None, steps: int | None) -> str:
    unit = "%" if cell.unit == "fraction" else cell.unit
    return _after(f"{cell.metric}, {unit}" if unit and unit != cell.metric else cell.metric, shots, steps)


def _after(measure: str, shots: int | None, steps: int | None) -> str:
    counts = {"shot": shots, "step": steps}
    after = [f"{n} {word}{'' if n == 1 else 's'}" for word, n in counts.items() if n is not None]
    return f"{measure} after {', '.join(after)}" if after else measure


def _words(row: Row) -> str:
    named = {"shots": row.shots, "steps": row.steps, "workload": row.workload or None, "threads": row.threads}
    return f"'{row.method}'" + "".join(f", {name} {value}" for name, value in named.items() if value is not None)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _escape(text: str) -> str:
    return text.replace("[", r"\[")


def _largest(rows: Sequence[Row], name: str) -> float | None:
    """Of the conditions of one method the dearest: adapting to more demonstrations takes longer."""
    return max((getattr(row, name) for row in rows if getattr(row, name) is not None), default=None)


def _any(rows: Sequence[Row], name: str) -> bool:
    return any(getattr(row, name) not in (None, "") for row in rows)


def _short(row: Row) -> dict[str, Any]:
    """The row without what it does not say."""
    return {name: value for name, value in asdict(row).items() if value not in (None, "")}


def _match(kind: type, content: Any, what: str) -> None:
    """Raises QuickstudyError unless `content` is an object with the fields of the dataclass `kind`."""
    if not isinstance(content, dict):
        raise QuickstudyError(f"{what} must be a JSON object; got {content!r}.")
    names = [f.name for f in fields(kind)]
    for name in content:
        if name not in names:
            raise unknown(f"field of {what}", name, names)
    missing = [f.name for f in fields(kind) if f.default is MISSING and f.name not in content]
    if missing:
        raise QuickstudyError(f"{what} lacks {', '.join(missing)}.")


def _finite(number: object) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)


if __name__ == "__main__":
    try:
        sys.exit(tyro.cli(main))
    except QuickstudyError as problem:
        console.print(f"[red]{_escape(str(problem))}[/]", soft_wrap=True)
        sys.exit(2)
