"""A comparison as one table over all splits: for a terminal, as CSV, as JSON and as LaTeX."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table as RichTable

from quickstudy.io import files
from quickstudy.io.progress import console
from quickstudy.results.evidence import BASELINES, Cell, Row, Table, measured, table

COLUMNS = (
    "method",
    "shots",
    "value",
    "ci95",
    "iqm",
    "iqm_ci95",
    "improvement",
    "improvement_ci95",
    "seeds",
    "tasks",
    "episodes",
    "ms",
    "training_s",
    "parameters",
    "train_tasks",
    "demonstrations",
    "env_steps",
    "note",
)
"""Fields of a row that CSV has, after the split; an interval takes two columns."""

COSTS = (
    "ms to adapt",
    "ms to act",
    "s to train",
    "parameters",
    "training tasks",
    "training demos",
    "training env steps",
)
"""Headers of what a method costs, which is the same for every split but for the times."""

_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "×": r"$\times$"}


def write(folder: Path, cells: Sequence[Cell]) -> None:
    """Writes comparison.csv, comparison.json and comparison.tex into `folder`."""
    files.write(folder / "comparison.csv", to_csv(cells))
    files.write(folder / "comparison.json", to_json(cells))
    files.write(folder / "comparison.tex", to_latex(cells))


def split_of(cell: Cell, cells: Sequence[Cell]) -> str:
    """The split that a cell of a comparison is about: what its name has beside the family's, which all share."""
    names = [one.cell.split("-") for one in cells]
    shared = 0
    while all(len(name) > shared + 1 and name[shared] == names[0][shared] for name in names):
        shared += 1
    return "-".join(cell.cell.split("-")[shared:])


def to_csv(cells: Sequence[Cell]) -> str:
    """One line for each split, method and number of shots, all figures in full; fractions are not per cent."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["split", *(part for name in COLUMNS for part in _names(name))])
    for cell in cells:
        split = split_of(cell, cells)
        for row in cell.rows:
            lines.writerow([split, *(part for name in COLUMNS for part in _parts(row, name))])
    return text.getvalue()


def to_json(cells: Sequence[Cell]) -> str:
    """The cells by split, as `Cell.write` writes each."""
    plain = {split_of(cell, cells): _plain(cell) for cell in cells}
    return json.dumps(plain, indent=1, ensure_ascii=False) + "\n"


def to_latex(cells: Sequence[Cell]) -> str:
    """A `table` of the booktabs package: methods below each other, split by split."""
    made, splits = together(cells)
    columns = "l" * (made.labels - 1) + "r" * (len(made.headers) - made.labels - made.notes) + "l" * made.notes
    width = len(columns)
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        f"\\caption{{{_tex(cells[0].protocol)} {_tex(measured(cells[0]))}}}",
        "\\centering\\small",
        f"\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        " & ".join(_tex(header) for header in made.headers[1:]) + r" \\",
    ]
    for split in splits:
        lines += ["\\midrule", f"\\multicolumn{{{width}}}{{l}}{{\\emph{{{_tex(split)}}}}} \\\\"]
        lines += [" & ".join(_tex(part) for part in row[1:]) + r" \\" for row in made.rows if row[0] == split]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}", ""])


def print_comparison(cells: Sequence[Cell], to: Console = console) -> None:
    """One table for a terminal; where it is too wide, the costs follow in a second one, intervals below figures."""
    made, splits = together(cells)
    title = cells[0].cell.removesuffix(f"-{splits[0]}")
    caption = f"{cells[0].protocol} {measured(cells[0])}"
    whole = _rich(made, range(len(made.headers)), title, caption, below=False)
    if Measurement.get(to, to.options.update(max_width=10_000), whole).maximum <= to.width:
        to.print(whole)
        return
    costs = [place for place, header in enumerate(made.headers) if header in COSTS]
    to.print(_rich(made, [p for p in range(len(made.headers)) if p not in costs], title, caption, below=True))
    if costs:
        once = replace(made, rows=[row for row in made.rows if row[0] == splits[0]])
        to.print(_rich(once, [made.headers.index("method"), *costs], f"{title}: costs", "", below=False))


def together(cells: Sequence[Cell]) -> tuple[Table, list[str]]:
    """The cells, less their rows of single tasks, as one table whose first column is the split; and the splits."""
    splits = [split_of(cell, cells) for cell in cells]
    rows = [
        replace(row, workload=split)
        for cell, split in zip(cells, splits, strict=True)
        for row in cell.rows
        if not row.workload
    ]
    made = table(replace(cells[0], rows=rows))
    names = {"workload": "split", "ms": "ms to adapt"}
    return replace(made, headers=[names.get(header, header) for header in made.headers]), splits


def _rich(made: Table, places: Sequence[int], title: str, caption: str, below: bool) -> RichTable:
    """Some columns of a table for a terminal."""
    printed = RichTable(title=title, caption=escape(caption), title_justify="left", caption_justify="left")
    label = made.headers.index("method")
    for place in places:
        words = place < made.labels or (made.notes and place == len(made.headers) - 1)
        printed.add_column(escape(made.headers[place]), justify="left" if words else "right", no_wrap=place == label)
    last = None
    for row in made.rows:
        if last is not None and row[0] != last:
            printed.add_section()
        shown = ["" if row[0] == last else row[0], *row[1:]]
        last = row[0]
        parts = [escape(shown[place].replace(" [", "\n[") if below else shown[place]) for place in places]
        printed.add_row(*parts, style="dim" if row[label] in BASELINES else None)
    return printed


def _names(name: str) -> list[str]:
    return [f"{name}_low", f"{name}_high"] if name.endswith("ci95") else [name]


def _parts(row: Row, name: str) -> list[Any]:
    value = getattr(row, name)
    if name.endswith("ci95"):
        return list(value) if value is not None else ["", ""]
    return ["" if value is None else value]


def _plain(cell: Cell) -> dict[str, Any]:
    rows = [{name: value for name, value in asdict(row).items() if value not in (None, "")} for row in cell.rows]
    return {**asdict(cell), "rows": rows}


def _tex(text: str) -> str:
    return "".join(_LATEX.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)
