"""Tables of evidence, one renderer for all: cells become a `Table`, and each format is a small function of it.

The HTML of a report is a template of `quickstudy.report`, which takes the same `Table`.
"""

import csv
import html
import io
import json
import math
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table as RichTable

from quickstudy.errors import printable
from quickstudy.io import files
from quickstudy.io.progress import console
from quickstudy.method import Experience
from quickstudy.results.evidence import Cell, Row

_CSV_COLUMNS = (
    *("method", "shots", "value", "ci95", "iqm", "iqm_ci95", "improvement", "improvement_ci95", "seeds", "tasks"),
    *(
        "distinct_tasks",
        "episodes",
        "ms",
        "training_s",
        "parameters",
        "train_tasks",
        "demonstrations",
        "env_steps",
        "note",
    ),
    *("role", "learns_from"),
)
"""Fields of a row that CSV has, after the split; an interval takes two columns."""

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

_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "×": r"$\times$"}

NOTHING = "–"
"""Stands where there is no figure."""

Condition = tuple[Experience, int | None, int | None]
"""What a method adapted from: the kind of experience, how much of it, and in how many steps."""


@dataclass(frozen=True)
class Table:
    """Cells as text, ready to print.

    Attributes:
        title: the cell's name.
        headers: one for each column.
        words: [column], whether it holds words; the others hold figures.
        rows: [row][column].
        evidence: [row], the first of the measurements in it.
        protocol: what was measured, in a sentence.
        measured: the sizes, the machine and the commit, in a sentence.
    """

    title: str
    headers: list[str]
    words: list[bool]
    rows: list[list[str]]
    evidence: list[Row]
    protocol: str
    measured: str

    @property
    def method(self) -> int:
        """The column that names the method."""
        return self.headers.index("method")

    @property
    def labels(self) -> int:
        """How many columns, from the first on, say what a row is about."""
        return [*self.words, False].index(False)

    @property
    def baselines(self) -> list[bool]:
        """[row], whether its method is there to be compared with."""
        return [row.baseline for row in self.evidence]


def table(cell: Cell, workload: str = "workload") -> Table:
    """The cell with a line for each method and a column for each amount of experience.

    Args:
        workload: the header of the column of the rows' `workload`.
    """
    rows = cell.rows
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.workload, row.method, row.threads, row.at), []).append(row)
    conditions = sorted(
        {_condition(row) for row in rows if row.value is not None},
        key=lambda condition: [-1 if part is None else part for part in condition],
    )
    last = list({condition[0]: condition for condition in conditions}.values()) or [("demonstrations", None, None)]
    both = len(cell.experiences) > 1
    labels = [name for name in ("workload", "method", "threads", "at") if _any(rows, name)]
    statistics = [(name, most) for name in ("iqm", "improvement") if _any(rows, name) for most in last]
    secondary = list(dict.fromkeys(name for row in rows for name in row.secondary_metrics or ()))
    beside = [
        (name, most)
        for name in secondary
        for most in last
        if any(name in (row.secondary_metrics or ()) for row in rows if _condition(row) == most)
    ]
    extras = [name for name, header in _EXTRAS.items() if _any(rows, name) and header != cell.against]
    titles = {"workload": workload, "at": cell.against or "at"}
    adapted = "workload" not in labels or workload != "workload"
    headers = [
        *(titles.get(name, name) for name in labels),
        *(_after(_metric(cell), condition, both) for condition in conditions),
        *(_after(_statistic(cell, name), (most[0], most[1], None), both) for name, most in statistics),
        *(_after(name, most, both) for name, most in beside),
        *("ms to adapt" if name == "ms" and adapted else _EXTRAS[name] for name in extras),
    ]
    notes = _any(rows, "note")
    lines = []
    for group in groups.values():
        by_condition = {_condition(row): row for row in group}
        lines.append([
            *(_label(getattr(group[0], name)) for name in labels),
            *(_bounded(cell, by_condition.get(condition), "value") for condition in conditions),
            *(_bounded(cell, by_condition.get(most), name) for name, most in statistics),
            *(_figure(_secondary(by_condition.get(most), name)) for name, most in beside),
            *(_extra(cell, name, _largest(group, name)) for name in extras),
            *[" ".join(dict.fromkeys(row.note for row in group if row.note))] * notes,
        ])  # fmt: skip
    figures = len(headers) - len(labels)
    return Table(
        title=cell.cell,
        headers=headers + ["note"] * notes,
        words=[True] * len(labels) + [False] * figures + [True] * notes,
        rows=lines,
        evidence=[group[0] for group in groups.values()],
        protocol=cell.protocol,
        measured=measured(cell),
    )


def together(cells: Sequence[Cell]) -> tuple[Table, list[str]]:
    """The cells, less their rows of single tasks, as one table whose first column is the split; and the splits."""
    splits = [split_of(cell, cells) for cell in cells]
    rows = [
        replace(row, workload=split)
        for cell, split in zip(cells, splits, strict=True)
        for row in cell.rows
        if not row.workload
    ]
    made = table(replace(cells[0], rows=rows), workload="split")
    return replace(made, title=cells[0].cell.removesuffix(f"-{splits[0]}"), measured=measured(cells[0])), splits


def split_of(cell: Cell, cells: Sequence[Cell]) -> str:
    """The split that a cell of a comparison is about: what its name has beside the family's, which all share."""
    names = [one.cell.split("-") for one in cells]
    shared = 0
    while all(len(name) > shared + 1 and name[shared] == names[0][shared] for name in names):
        shared += 1
    return "-".join(cell.cell.split("-")[shared:])


def measured(cell: Cell) -> str:
    """One sentence on the sizes, the machine and the commit behind a cell."""
    sizes = []
    for name, word in {"tasks": "task", "episodes": "episode", "seeds": "training seed"}.items():
        if counted := _counted(cell, name, word):
            sizes.append(counted)
    if apart := _counted(cell, "distinct_tasks", "distinct"):
        same = all(row.distinct_tasks in (None, row.tasks) for row in cell.rows)
        sizes[0] = _counted(cell, "tasks", "distinct task") if same else f"{sizes[0]} ({apart.removesuffix('s')})"
    torch = f", torch {cell.versions['torch']}" if "torch" in cell.versions else ""
    commit = f", commit {cell.commit}" if cell.commit else ""
    start = " × ".join(sizes) + "; measured" if sizes else "Measured"
    return f"{start} in {_duration(cell.seconds)} on {cell.machine}{torch}{commit}."


def _counted(cell: Cell, name: str, word: str) -> str:
    """'1 task', or '4 to 11 tasks'; empty where no row says it."""
    counts = sorted({getattr(row, name) for row in cell.rows} - {None})
    if not counts:
        return ""
    span = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{span} {word}{'' if counts == [1] else 's'}"


# ---- formats


def write(folder: Path, cells: Sequence[Cell]) -> None:
    """Writes comparison.csv, comparison.json and comparison.tex into `folder`."""
    files.write(folder / "comparison.csv", to_csv(cells))
    files.write(folder / "comparison.json", to_json(cells))
    files.write(folder / "comparison.tex", to_latex(cells))


def to_markdown(cell: Cell) -> str:
    """The cell as a Markdown table with its protocol and its command below."""
    made = table(cell)
    lines = [made.headers, [":--" if word else "--:" for word in made.words], *made.rows]
    text = "\n".join("| " + " | ".join(in_markdown(part).replace("|", "\\|") for part in line) + " |" for line in lines)
    again = in_markdown(cell.command).replace("`", "'")
    return f"{text}\n\n{in_markdown(made.protocol)}\n{in_markdown(made.measured)} Again: `{again}`\n"


def in_markdown(text: str) -> str:
    """A text of a results file as Markdown shows it: no HTML, and no link that it was not meant to be."""
    return html.escape(printable(text), quote=False).replace("](", "\\](")


def to_csv(cells: Sequence[Cell]) -> str:
    """One line for each split, method and number of shots, all figures in full; fractions are not per cent."""

    def parts(name: str, value: Any) -> list[Any]:
        if name.endswith("ci95"):
            return ["", ""] if value is None else list(value)
        if isinstance(value, str) and value.startswith(("=", "+", "-", "@")):
            value = f"'{value}"  # spreadsheets would compute it
        return ["" if value is None else printable(value) if isinstance(value, str) else value]

    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    names = [[f"{name}_low", f"{name}_high"] if name.endswith("ci95") else [name] for name in _CSV_COLUMNS]
    lines.writerow(["split", *(part for pair in names for part in pair)])
    for cell in cells:
        for row in cell.rows:
            values = [part for name in _CSV_COLUMNS for part in parts(name, getattr(row, name))]
            lines.writerow([split_of(cell, cells), *values])
    return text.getvalue()


def to_json(cells: Sequence[Cell]) -> str:
    """The cells by split, as `Cell.write` writes each."""
    plain = {split_of(cell, cells): asdict(cell) | {"rows": [row.plain() for row in cell.rows]} for cell in cells}
    return json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def to_latex(cells: Sequence[Cell]) -> str:
    """A `table` of the booktabs package: methods below each other, split by split."""
    made, splits = together(cells)
    columns = "".join("l" if word else "r" for word in made.words[1:])
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        f"\\caption{{{_tex(made.protocol)} {_tex(made.measured)}}}",
        "\\centering\\small",
        f"\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        " & ".join(_tex(header) for header in made.headers[1:]) + r" \\",
    ]
    for split in splits:
        lines += ["\\midrule", f"\\multicolumn{{{len(columns)}}}{{l}}{{\\emph{{{_tex(split)}}}}} \\\\"]
        lines += [" & ".join(_tex(part) for part in row[1:]) + r" \\" for row in made.rows if row[0] == split]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}", ""])


def print_table(cell: Cell, to: Console = console) -> None:
    """Prints the cell for a terminal."""
    _print(table(cell), to)


def print_comparison(cells: Sequence[Cell], to: Console = console) -> None:
    """Prints the cells together for a terminal."""
    made, splits = together(cells)
    alone = len(splits) == 1
    _print(replace(made, title=cells[0].cell) if alone else made, to, skip=alone)


def _print(made: Table, to: Console, skip: bool = False) -> None:
    """One table; where it is too wide, several below each other, in which no word and no figure is cut short.

    Args:
        skip: leave the first column out.
    """
    places = range(len(made.headers))[skip:]
    whole = _rich(made, places)
    if _fits(whole, to):
        pages = [whole]
    else:
        labels = [place for place in places if place < made.labels]
        pages, page = [], list(labels)
        for place in places[len(labels) :]:
            if page != labels and not _fits(_rich(made, [*page, place], narrow=True), to):
                pages.append(_rich(made, page, narrow=True))
                page = list(labels)
            page.append(place)
        pages.append(_rich(made, page, narrow=True))
    to.print(
        f"[italic]{escape(made.title)}[/]",
        *pages,
        escape(f"{made.protocol} {made.measured}"),
        sep="\n",
        highlight=False,
    )


def _fits(printed: RichTable, to: Console) -> bool:
    return Measurement.get(to, to.options.update(max_width=10_000), printed).maximum <= to.width


def _rich(made: Table, places: Sequence[int], narrow: bool = False) -> RichTable:
    """Some columns, and the rows that say something there.

    Args:
        narrow: headers are broken into short lines, and intervals stand below their figures.
    """
    printed = RichTable()
    for place in places:
        header = _broken(made.headers[place]) if narrow else made.headers[place]
        justify: Literal["left", "right"] = "left" if made.words[place] else "right"
        printed.add_column(escape(header), justify=justify, overflow="fold")
    told = [place for place in places if place >= made.labels]
    kept = [i for i, row in enumerate(made.rows) if not told or any(row[p] not in (NOTHING, "") for p in told)]
    several = places[0] != made.method and len({made.rows[i][places[0]] for i in kept}) < len(kept)
    last = None
    for i in kept:
        row = made.rows[i]
        if several and last not in (None, row[places[0]]):
            printed.add_section()
        last = row[places[0]]
        parts = [row[place].replace(" [", "\n[") if narrow else row[place] for place in places]
        printed.add_row(*map(escape, parts), style="dim" if made.baselines[i] else None)
    return printed


def _broken(header: str) -> str:
    """A header in short lines: what is measured, and below it after what."""
    measure, after_, condition = header.partition(" after ")
    parts = [measure, *(f"after {condition}".replace(", ", ",\n").split("\n") if after_ else [])]
    return "\n".join(textwrap.fill(part, 15, break_long_words=False, break_on_hyphens=False) for part in parts)


# ---- figures and words


def in_words(cell: Cell, row: Row) -> str:
    """The figure of a row: 'success 93.4 % after 1 shot'."""
    value = row.value or 0.0
    figure = f"{100 * value:.1f} %" if cell.unit == "fraction" else _figure(value)
    return _after(f"{cell.metric} {figure}", _condition(row), both=False)


def after(condition: Condition, both: bool = False) -> str:
    """What a figure was measured after, in words: '1 shot, 5 steps', or '20 own episodes, 1 update'.

    Args:
        both: there are figures after demonstrations and after own episodes beside each other.
    """
    learns_from, shots, steps = condition
    by_trial = learns_from == "trials"
    counts = {
        "own episode" if by_trial else "demonstration" if both else "shot": shots,
        "update" if by_trial else "step": steps,
    }
    return ", ".join(f"{n} {word}{'' if n == 1 else 's'}" for word, n in counts.items() if n is not None)


def _after(measure: str, condition: Condition, both: bool) -> str:
    words = after(condition, both)
    return f"{measure} after {words}" if words else measure


def _condition(row: Row) -> Condition:
    return row.learns_from, row.shots, row.steps


def _metric(cell: Cell) -> str:
    unit = "%" if cell.unit == "fraction" else cell.unit
    return f"{cell.metric}, {unit}" if unit and unit != cell.metric else cell.metric


def _statistic(cell: Cell, name: str) -> str:
    if name == "iqm":
        return "IQM, %" if cell.unit == "fraction" else "IQM"
    return f"better than {cell.reference}, %" if cell.reference else "probability of improvement, %"


def _bounded(cell: Cell, row: Row | None, name: str) -> str:
    """A figure with its interval, where it has one."""
    value = getattr(row, name, None)
    if value is None:
        return NOTHING
    bounds = getattr(row, "ci95" if name == "value" else f"{name}_ci95")
    percent = name == "improvement" or cell.unit == "fraction"
    show = (lambda number: f"{100 * number:.1f}") if percent else _figure
    return show(value) + ("" if bounds is None else f" [{show(bounds[0])}, {show(bounds[1])}]")


def _secondary(row: Row | None, name: str) -> float | None:
    return None if row is None else (row.secondary_metrics or {}).get(name)


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
        return NOTHING
    if isinstance(number, int):
        return f"{number:,}"
    if number == 0 or not math.isfinite(number):
        return f"{number:.0f}"
    decimals = max(0, 2 - math.floor(math.log10(abs(number))))
    return f"{number:,.{min(decimals, 6)}f}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _largest(rows: Sequence[Row], name: str) -> float | None:
    """Of the conditions of one method the most expensive: adapting to more demonstrations takes longer."""
    return max((getattr(row, name) for row in rows if getattr(row, name) is not None), default=None)


def _any(rows: Sequence[Row], name: str) -> bool:
    return any(getattr(row, name) not in (None, "") for row in rows)


def _tex(text: str) -> str:
    return "".join(_LATEX.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)
