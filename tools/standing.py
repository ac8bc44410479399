"""Where speed stands: every measured row of ours beside its peer and its bound, in one table.

    python tools/standing.py           of benchmarks/results/speed-*.json
    python tools/standing.py W2 ML10   only workloads, methods or files with one of these words in their names

The peer is the row of the same workload that `ratio` refers to, and 'fastest other' the best among those that are not
quickstudy's own; the bound is the fastest of the bare operations that no way of doing the same can go below.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table

from quickstudy.io.progress import console
from quickstudy.results.evidence import Cell, Row

RESULTS = Path(__file__).parents[1] / "benchmarks/results"
OTHERS = ("learn2learn", "JAX", "metaworld", "import torch", "PyTorch")
BOUND = "bare"

Line = tuple[str, str, str, str, str]
"""Workload; method; speed relative to the peer; to the fastest other; time relative to the bound."""


def lines(cell: Cell) -> Iterator[Line]:
    """Those of one cell."""
    groups: dict[tuple[str | None, int | None], list[Row]] = {}
    for row in cell.rows:
        groups.setdefault((row.workload, row.threads), []).append(row)
    for (workload, threads), rows in groups.items():
        bounds = [row for row in rows if row.method.startswith(BOUND)]
        others = [row for row in rows if _of_others(row)]
        for row in rows:
            if row in bounds or row in others or row.ratio is None:
                continue
            peer = _peer(row, rows)
            if row is peer:
                continue
            same = [other for other in others if _subject(other) in ("", _subject(row))]
            where = f"{workload}, {threads} thread{'s' * (threads != 1)}" if threads else str(workload)
            yield (
                where,
                row.method,
                "–" if peer is None else f"{row.ratio:.3g} x {_short(peer)}",
                _beside(row, same, 1.0),
                _beside(row, bounds, -1.0),
            )


def _of_others(row: Row) -> bool:
    return row.method.removeprefix(f"{_subject(row)}, ").removeprefix(f"{_subject(row)}: ").startswith(OTHERS)


def _subject(row: Row) -> str:
    """The method of meta-learning that a row is about, where one cell has many: 'maml' of 'maml, loop'."""
    subject, found, rest = row.method.replace(":", ",", 1).partition(", ")
    return subject if found and (rest.startswith(("loop", "short", "long", "runtime", *OTHERS))) else ""


def _short(row: Row) -> str:
    return row.method.removeprefix(f"{_subject(row)}, ").removeprefix(f"{_subject(row)}: ")


def _peer(row: Row, rows: Sequence[Row]) -> Row | None:
    """The row of ratio 1 that is of the same method of meta-learning."""
    ones = [other for other in rows if other.ratio == 1.0 and _subject(other) in ("", _subject(row))]
    return next((one for one in ones if _of_others(one) or one.method.startswith(BOUND)), next(iter(ones), None))


def _beside(row: Row, others: Sequence[Row], sign: float) -> str:
    """The factor between a row and the fastest of others: of speed, or with sign -1 of time."""
    rated = [other for other in others if other.ratio]
    if not rated or not row.ratio:
        return "–"
    best = max(rated, key=lambda other: other.ratio or 0.0)
    return f"{(row.ratio / (best.ratio or 1.0)) ** sign:.3g} x {_short(best)}"


def table(cells: Sequence[Cell], words: Sequence[str]) -> Table:
    """All of them; those with one of the words, where there are any."""
    made = Table("workload", "method", "speed beside its peer", "beside the fastest other", "time beside its bound")
    for cell in cells:
        for line in lines(cell):
            if not words or any(word in text for word in words for text in (cell.cell, *line[:2])):
                made.add_row(*line)
        made.add_section()
    return made


if __name__ == "__main__":
    console.print(table([Cell.read(path) for path in sorted(RESULTS.glob("speed-*.json"))], sys.argv[1:]))
