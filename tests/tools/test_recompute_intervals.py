"""Intervals of older cells become as wide as their distinct tasks ask for; where scores were kept, they decide."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quickstudy.results.evidence import Cell, Row
from quickstudy.results.rows import figures

ROOT = Path(__file__).parents[2]
if not (ROOT / "tools/recompute_intervals.py").exists():
    pytest.skip("a source distribution does not have the tool", allow_module_level=True)
sys.path.insert(0, str(ROOT / "tools"))
import recompute_intervals as tool  # noqa: E402

OLD = "Held-out tasks; mean success with a 95 % bootstrap interval over tasks and seeds."
CELL = Cell(
    "ml10-imitation-test", "success", "fraction", OLD, "quickstudy compare ml10-imitation", 1, "", {}, "m",
    [
        Row("maml", 1, 1.0, (1.0, 1.0), 2, 50, 4, iqm=1.0, iqm_ci95=(1.0, 1.0), improvement=0.9,
            improvement_ci95=(0.8, 1.0)),
        Row("replay", 1, 0.5, (0.4, 0.6), 2, 50, 4, iqm=0.5, iqm_ci95=(0.4, 0.6)),
        Row("maml-paper", 1, 0.4),
    ],
)  # fmt: skip


def test_five_kinds_of_task_are_five_however_often_they_are_drawn() -> None:
    made = tool.recomputed(CELL)
    maml, replay, paper = made.rows
    assert maml.distinct_tasks == replay.distinct_tasks == 5
    assert maml.ci95 == pytest.approx((0.4782, 1.0))
    assert maml.iqm_ci95 == pytest.approx((0.4564, 1.0))
    assert maml.improvement_ci95 is not None
    assert maml.improvement_ci95[0] < 0.45
    assert replay.ci95 is not None
    assert replay.ci95[0] < 0.12
    assert replay.ci95[1] > 0.88
    assert made.reference == "replay", "the one method without a probability is what the others are compared with"
    assert paper == CELL.rows[2]
    assert (
        "over distinct tasks and seeds; scores were not kept: the interval is the widest that 5 distinct"
        in made.protocol
    )
    assert tool.recomputed(made) == made


def test_distinct_tasks_leave_intervals_as_wide_as_they_were_or_wider() -> None:
    made = tool.recomputed(replace(CELL, command="quickstudy compare grasping", cell="grasping-sizes"))
    assert made.rows[0].ci95 == pytest.approx((0.9289, 1.0))
    assert made.rows[1].ci95 == (0.4, 0.6)
    assert "never narrower than so many distinct tasks allow" in made.protocol


def test_returns_of_two_directions_have_no_interval() -> None:
    rows = [Row("maml-trpo", 0, 500.0, (400.0, 600.0), 3, 40, 20)]
    command = "python -m benchmarks.rl --family cheetah-direction --seeds 3"
    made = tool.recomputed(replace(CELL, cell="rl-cheetah-direction", unit="", command=command, rows=rows))
    assert (made.rows[0].ci95, made.rows[0].distinct_tasks) == (None, 2)
    assert made.protocol.startswith("Tasks that training has too")
    few = replace(rows[0], tasks=4)
    made = tool.recomputed(replace(CELL, cell="motions", unit="", command="python -m benchmarks.motions", rows=[few]))
    assert made.rows[0].ci95 is not None
    assert made.rows[0].ci95[0] == pytest.approx(500 - 100 * 3.1824 / 1.96 * np.sqrt(4 / 3), abs=0.1)


def test_scores_decide_where_there_are_any() -> None:
    scores = np.random.default_rng(0).integers(0, 2, (2, 50)).astype(float)
    kinds = list(np.arange(50) % 5)
    known = Row("replay", 1, episodes=4, **figures(scores, kinds))
    cell = tool.merged(CELL, replace(CELL, rows=[known]))
    wrong = replace(cell, rows=[replace(cell.rows[1], ci95=(0.1, 0.2)), cell.rows[0]])
    made = tool.recomputed(wrong)
    assert made.rows[0].ci95 == known.ci95
    assert made.rows[0].groups == kinds
    assert "not kept but of replay" in made.protocol
    likely = replace(known, method="maml", improvement=0.8, improvement_ci95=(0.78, 0.82))
    (made_likely, _) = tool.recomputed(replace(CELL, rows=[likely, CELL.rows[1]], reference="replay")).rows
    assert made_likely.improvement_ci95 == pytest.approx((0.2836, 0.9949), abs=1e-3), "the other's scores were not kept"


def test_an_improvement_over_nobody_knows_whom_is_none() -> None:
    rows = [*CELL.rows, Row("nearest", 1, 0.5, (0.4, 0.6), 2, 50, 4)]
    made = tool.recomputed(replace(CELL, rows=rows))
    assert made.reference == ""
    assert made.rows[0].improvement is None


@pytest.mark.parametrize("path", sorted(tool.RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_our_cells_are_recomputed(path: Path) -> None:
    cell = Cell.read(path)
    for row, again in zip(cell.rows, tool.recomputed(cell).rows, strict=True):
        kept = again if row.iqm is not None else replace(again, iqm=None, iqm_ci95=None)  # not every table shows it
        assert kept == row
    for row in cell.rows:
        if row.ci95 and row.tasks and cell.unit == "fraction":
            assert row.distinct_tasks is not None
            assert row.ci95[0] < row.ci95[1]
