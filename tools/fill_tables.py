"""Fills the tables of Markdown documents from the measured cells in benchmarks/results.

    python tools/fill_tables.py                     fills README.md, README.zh-CN.md, benchmarks/README.md and docs
    python tools/fill_tables.py --check             only says whether they agree
    python tools/fill_tables.py docs/navigation.md  one document

A block of a document is what stands between two comments, the first of which names a cell and, where a page is not
about all of them, the numbers of shots and the methods to show, and fields of a row to leave out:

    <!-- results: grasping-sizes shots=0,1 without=iqm,parameters mann mann-raw -->
    <!-- /results -->
"""

import dataclasses
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from quickstudy.errors import QuickstudyError, unknown
from quickstudy.io import files
from quickstudy.io.progress import console
from quickstudy.results.evidence import Cell, Row
from quickstudy.results.tables import to_markdown

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"

_OPENING = re.compile(r"^<!-- results: *(.*?) *-->$", re.MULTILINE)
_CLOSING = "<!-- /results -->"
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def documents() -> list[Path]:
    """The documents that have tables, or may have."""
    readmes = [ROOT / "README.md", ROOT / "README.zh-CN.md", ROOT / "benchmarks/README.md"]
    return [path for path in [*readmes, *sorted((ROOT / "docs").rglob("*.md"))] if path.is_file()]


def fill(text: str, results: Path, where: str) -> str:
    """`text` with every results block filled from the cells in the folder `results`.

    Raises:
        QuickstudyError: a block names a cell that has no file or a method that is not in it, or has no end.
    """
    filled, done = "", 0
    while match := _opening(text, done):
        name, *words = match[1].split() or [""]
        end, following = text.find(_CLOSING, match.end()), _opening(text, match.end())
        if end < 0 or (following is not None and following.start() < end):
            raise QuickstudyError(f"'{where}': the block 'results: {name}' has no end; close it by '{_CLOSING}'.")
        cells = {path.stem: path for path in results.glob("*.json")}
        if name not in cells:
            raise QuickstudyError(f"'{where}': {unknown('cell', name, cells)}")
        filled += f"{text[done : match.end()]}\n{to_markdown(_only(Cell.read(cells[name]), words))}"
        done = end
    return filled + text[done:]


def _opening(text: str, start: int) -> re.Match[str] | None:
    """The next beginning of a block that is not an example in a fence of code."""
    fences = [fence.span() for fence in _FENCE.finditer(text)]
    blocks = _OPENING.finditer(text, start)
    return next((b for b in blocks if not any(first < b.start() < last for first, last in fences)), None)


def _only(cell: Cell, words: Sequence[str]) -> Cell:
    """What the words ask for: `shots=0,1`, `without=iqm,parameters`, and methods; all where nothing is named."""
    options = dict(word.split("=", 1) for word in words if "=" in word)
    methods = [word for word in words if "=" not in word]
    known = {row.method for row in cell.rows}
    for method in methods:
        if method not in known:
            raise unknown(f"method in '{cell.cell}'", method, known)
    for option in options:
        if option not in ("shots", "without"):
            raise unknown("option of a results block", option, ("shots", "without"))
    rows = [row for row in cell.rows if row.method in methods] if methods else list(cell.rows)
    if "shots" in options:
        rows = [row for row in rows if str(row.shots) in options["shots"].split(",")]
    left_out = options["without"].split(",") if "without" in options else []
    fields = {field.name for field in dataclasses.fields(Row) if field.default is None}
    for name in left_out:
        if name not in fields:
            raise unknown("field to leave out", name, fields)
    return dataclasses.replace(cell, rows=[dataclasses.replace(row, **dict.fromkeys(left_out)) for row in rows])


def main(
    paths: Annotated[tuple[Path, ...], tyro.conf.Positional] = (), check: bool = False, results: Path = RESULTS
) -> int:
    """Fills the tables of Markdown documents from the measured cells.

    Args:
        paths: Markdown files; by default all of the project.
        check: write nothing, only say which documents disagree with the cells.
        results: where the cells are.
    """
    status = 0
    for path in paths or documents():
        if not path.is_file():
            raise QuickstudyError(f"There is no document '{path}'.")
        old = path.read_text(encoding="utf-8")
        new = fill(old, results, str(path))
        if new == old:
            continue
        if check:
            console.print(f"{path} disagrees with {results}; run 'make results'.", soft_wrap=True)
            status = 1
        else:
            files.write(path, new)
            console.print(f"{path} filled.", soft_wrap=True)
    return status


if __name__ == "__main__":
    try:
        sys.exit(tyro.cli(main))
    except QuickstudyError as problem:
        console.print(str(problem), style="red", markup=False, soft_wrap=True)
        sys.exit(2)
