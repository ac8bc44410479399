"""Recomputes the intervals of measured cells by the rules of `quickstudy.results.statistics`.

    python tools/recompute_intervals.py                            all cells in benchmarks/results
    python tools/recompute_intervals.py --measured PATH            takes rows of that cell, which has scores, into ours

Where a row has its scores, its figures come from these. Older rows do not: their intervals were of the percentile
bootstrap, which took every draw of a task for another task. What such a row says (value, distinct tasks) bounds what is
right, and its interval becomes at least as wide; the cell's protocol says so. A row that says how many of its tasks are
distinct is done, so that nothing is widened twice.
"""

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import tyro
from scipy.stats import norm, t

from quickstudy import families
from quickstudy.errors import QuickstudyError
from quickstudy.io.progress import console
from quickstudy.results.evidence import Cell, Row
from quickstudy.results.rows import figures, improvement
from quickstudy.results.statistics import Interval, all_or_nothing, widest
from quickstudy.task import TaskFamily

RESULTS = Path(__file__).parents[1] / "benchmarks/results"
KNOWN = {"omniglot-within-alphabet": 20}
"""Distinct tasks of cells whose families need data that is not here: the evaluation alphabets."""
OLD = re.compile(r"with a 95 % bootstrap interval over (tasks and seeds|tasks)")
SEEDS_FIRST = "a 95 % interval over training seeds and distinct tasks"


def family_of(cell: Cell) -> tuple[TaskFamily, str] | None:
    """The family and split of a comparison; None where another benchmark chose the tasks, each of them distinct."""
    found = re.search(r"^quickstudy compare (\S+)|benchmarks\.rl(?:.*?--family (\S+))?", cell.command)
    if found is None:
        return None
    family = families.get(found[1] or found[2] or "navigation2d")
    split = next((split for split in family.test_splits if cell.cell.endswith(f"-{split}")), family.test_splits[0])
    return family, split


def distinct_tasks(cell: Cell, row: Row) -> int:
    """How many of a row's tasks are distinct."""
    assert row.tasks is not None
    if cell.cell in KNOWN:
        return KNOWN[cell.cell]
    found = family_of(cell)
    if found is None:
        return row.tasks
    family, split = found
    return len({family.task_key(task) for task in family.tasks(split, row.tasks)})


def bounded(row: Row, cell: Cell, distinct: int) -> Row:
    """The row with intervals at least as wide as its distinct tasks allow."""
    assert row.tasks is not None
    shares, few = cell.unit == "fraction", distinct < row.tasks
    bound = widest if few else all_or_nothing

    def mended(
        value: float | None, old: Interval | None, middle: bool = False, share: bool = shares
    ) -> Interval | None:
        if value is None or old is None:
            return None
        if not share:
            return None if few else _as_student(value, old, distinct)
        low, high = bound(value, distinct)
        if middle and few:  # of scores of 0 and 1, as `widest` takes them, the middle half is steeper than the mean
            low, high = (min(1.0, max(0.0, 2 * end - 0.5)) for end in widest(row.value or 0.0, distinct))
        return _around(old, (low, high))

    return replace(
        row,
        ci95=mended(row.value, row.ci95),
        iqm_ci95=mended(row.iqm, row.iqm_ci95, middle=True),
        improvement_ci95=mended(row.improvement, row.improvement_ci95, share=True),
        distinct_tasks=distinct,
    )


def _around(one: Interval, other: Interval) -> Interval:
    return round(min(one[0], other[0]), 4), round(max(one[1], other[1]), 4)


def _as_student(value: float, old: Interval, tasks: int) -> Interval:
    """An interval of the percentile bootstrap, widened for few tasks."""
    more = t.ppf(0.975, tasks - 1) / norm.ppf(0.975) * np.sqrt(tasks / (tasks - 1))
    return round(float(value + more * (old[0] - value)), 4), round(float(value + more * (old[1] - value)), 4)


def from_scores(cell: Cell) -> Cell:
    """The cell with what its rows' scores come to, where they have any."""
    by_condition = {(row.method, row.shots, row.steps): row for row in cell.rows}
    made = []
    for row in cell.rows:
        if row.scores is not None:
            scores = np.array(row.scores)
            row = replace(row, **figures(scores, row.groups, cell.unit == "fraction"))
            other = by_condition.get((cell.reference, row.shots, row.steps))
            if row.improvement is not None and other is not None and other.scores is not None:
                row = replace(row, **improvement(scores, np.array(other.scores), row.groups, cell.higher_is_better))
            elif row.improvement is not None and row.improvement_ci95 is not None and row.distinct_tasks is not None:
                bound = widest if row.groups else all_or_nothing
                wider = _around(row.improvement_ci95, bound(row.improvement, row.distinct_tasks))
                row = replace(row, improvement_ci95=wider)
        made.append(row)
    return replace(cell, rows=made)


def referenced(cell: Cell) -> Cell:
    """The cell without probabilities of improvement over nobody knows whom.

    Where the cell does not say it, the reference is the one method that has no probability where the others do.
    """
    compared = {row.shots for row in cell.rows if row.improvement is not None}
    if cell.reference or not compared:
        return cell
    methods = {row.method for row in cell.rows if row.shots in compared and row.value is not None and row.ci95}
    without = methods - {row.method for row in cell.rows if row.improvement is not None}
    if len(without) == 1:
        return replace(cell, reference=without.pop())
    return replace(cell, rows=[replace(row, improvement=None, improvement_ci95=None) for row in cell.rows])


def recomputed(cell: Cell) -> Cell:
    """The cell by today's rules, its protocol saying which of them."""
    cell = from_scores(referenced(cell))
    old = {row.key for row in cell.rows if row.ci95 and row.tasks and row.distinct_tasks is None}
    if not old:
        return cell
    rows = [bounded(row, cell, distinct_tasks(cell, row)) if row.key in old else row for row in cell.rows]
    mended = [row for row in rows if row.key in old]
    number = max(row.distinct_tasks or 0 for row in mended)
    if all(row.distinct_tasks == row.tasks for row in mended):
        how = "never narrower than so many distinct tasks allow"
        how = how if cell.unit == "fraction" else "widened for few tasks as Student's t is"
    elif cell.unit == "fraction":
        how = f"the widest that {number} distinct task{'' if number == 1 else 's'} allow{'s' if number == 1 else ''}"
    else:
        how = f"not given: {number} distinct tasks are too few without them"
    kept = sorted({row.method for row in rows if row.scores is not None})
    but = f" but of {', '.join(kept)}" if kept else ""
    over = {"tasks": "distinct tasks", "tasks and seeds": "distinct tasks and seeds"}
    protocol = OLD.sub(lambda found: f"with a 95 % interval over {over[found[1]]}", cell.protocol).rstrip(".")
    protocol = protocol.replace("with a 95 % bootstrap interval over training seeds and tasks", f"with {SEEDS_FIRST}")
    found = family_of(cell)
    if found is not None and not found[0].holds_out_tasks:
        protocol = protocol.replace("Held-out tasks", "Tasks that training has too, new episodes of them,", 1)
    return replace(cell, rows=rows, protocol=f"{protocol}; scores were not kept{but}: the interval is {how}.")


def merged(cell: Cell, measured: Cell) -> Cell:
    """The cell with the figures of those rows that were measured again."""
    new = {row.key: row for row in measured.rows}
    names = ("value", "ci95", "iqm", "iqm_ci95", "scores", "groups", "seeds", "tasks", "distinct_tasks", "episodes")
    rows = [
        replace(row, **{name: getattr(new[row.key], name) for name in names}) if row.key in new else row
        for row in cell.rows
    ]
    return replace(cell, rows=rows)


def main(measured: tuple[Path, ...] = (), results: Path = RESULTS) -> None:
    """Recomputes the intervals of the cells in a folder.

    Args:
        measured: cells of the same names that hold some of the rows with their scores.
        results: where the cells are.
    """
    again = {cell.cell: cell for cell in map(Cell.read, measured)}
    for path in sorted(results.glob("*.json")):
        cell = Cell.read(path)
        new = recomputed(merged(cell, again[cell.cell]) if cell.cell in again else cell)
        if new != cell:
            new.write(path)
            console.print(f"{path.name} recomputed.", soft_wrap=True)


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except QuickstudyError as problem:
        console.print(str(problem), style="red", markup=False, soft_wrap=True)
        sys.exit(2)
