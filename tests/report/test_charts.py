"""What charts show, by hand: for demonstrations and own episodes, for figures of which more is better or worse."""

from dataclasses import replace
from typing import Any

import numpy as np

from quickstudy.evaluation import Evaluation
from quickstudy.report import charts
from quickstudy.results.evidence import Cell, Row


def row(method: str, shots: int, value: float, **of: Any) -> Row:
    return Row(method, shots, value, **{"role": "meta-learner", **of})


CELL = Cell(
    cell="grasping-sizes",
    metric="success",
    unit="fraction",
    protocol="Hidden: size.",
    command="quickstudy compare grasping",
    seconds=60,
    commit="abc",
    versions={},
    machine="2 cores",
    rows=[row("maml", 1, 0.9)],
)
BOTH = replace(CELL, rows=[
    row("maml", 0, 0.1), row("maml", 1, 0.9), row("replay", 1, 0.2, role="floor"),
    row("pearl", 0, 0.2, learns_from="trials"), row("pearl", 20, 0.6, steps=1, learns_from="trials"),
])  # fmt: skip


def outcomes(success: list[float], lifted: list[float], slipped: list[float]) -> Evaluation:
    metrics = {"success": success, "lifted": lifted, "slipped": slipped}
    return Evaluation("test", ["a", "b"], [1], {n: np.array(v).reshape(1, 2, 2) for n, v in metrics.items()}, [1.0])


def test_failures_are_sorted_by_how_by_hand() -> None:
    one = outcomes([1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0])
    assert charts.failures(one) == {"never lifted it": [(1, 0), (1, 1)], "lifted it, then lost it": [(0, 1)]}
    assert charts.failure_of({"success": 0.0, "steps": 9.0}) == charts.OTHERWISE
    assert charts.failure_of({"success": 0.0, "collisions": 2.0}) == "ran into something"
    assert charts.failure_of({"success": 1.0, "collisions": 2.0}) == ""
    chart = charts.failure_chart(CELL, {"maml": [one, outcomes([1, 1, 1, 1], [1] * 4, [0] * 4)]}, "t")
    assert chart is not None
    assert {s.name: s.y for s in chart.series} == {
        "succeeded": [0.625], "never lifted it": [0.25], "lifted it, then lost it": [0.125],
    }  # fmt: skip
    assert charts.failures(Evaluation("test", ["a"], [1], {"mse": np.ones((1, 1, 1))}, [1.0])) == {}


def test_a_performance_profile_falls_in_steps() -> None:
    chart = charts.performance_profile(CELL, {"maml": [outcomes([1, 0, 1, 1], [1] * 4, [0] * 4)]}, "t")
    assert chart is not None
    assert list(zip(chart.series[0].x, chart.series[0].y, strict=True)) == [(0.5, 0.5), (1.0, 0.5), (1.0, 0.0)]


def test_charts_of_a_cell() -> None:
    cell = replace(CELL, rows=[
        row("maml", 0, 0.1), row("maml", 5, 0.9, ms=4.0), row("replay", 1, 0.2, ms=0.0, role="floor"),
        row("mann", 5, 0.8, ms=2.0),
    ])  # fmt: skip
    bars = charts.after_adaptation(cell, "t")
    assert [(s.name, s.y, s.baseline) for s in bars.series] == [
        ("maml", [0.9], False), ("replay", [0.2], True), ("mann", [0.8], False),
    ]  # fmt: skip
    assert bars.caption.startswith("After the most demonstrations of each method")
    (curve,) = charts.adaptation(cell, "t")
    assert (curve.title, curve.x, curve.series[0].x) == ("t", "demonstrations", [0.0, 5.0])
    points = charts.against(cell, "ms", "ms", "t", "c")
    assert points is not None
    assert (points.kind, [s.name for s in points.series]) == ("points", ["maml", "mann"]), "zero has no logarithm"
    varied = replace(cell, against="tasks", rows=[row("maml", 1, 0.1 * n, at=float(n)) for n in (3, 0, 1)])
    line = charts.against(varied, "at", "tasks", "t", "c", log=False)
    assert line is not None
    assert (line.kind, line.series[0].x) == ("lines", [0.0, 1.0, 3.0])
    assert charts.probabilities(cell, "t") is None


def test_both_kinds_of_experience_are_labelled() -> None:
    bars = charts.after_adaptation(BOTH, "t")
    assert [s.name for s in bars.series] == [
        "maml, one demonstration",
        "replay, one demonstration",
        "pearl, 20 own episodes",
    ]
    assert "the most demonstrations or own episodes" in bars.caption
    by_demonstration, by_trial = charts.adaptation(BOTH, "Adaptation")
    assert (by_demonstration.title, by_demonstration.x) == ("Adaptation, by demonstrations", "demonstrations")
    assert (by_trial.title, by_trial.x, by_trial.series[0].x) == (
        "Adaptation, by own episodes",
        "own episodes",
        [0.0, 20.0],
    )
    assert [s.name for s in by_trial.series] == ["pearl"]
    assert charts.adaptation(replace(BOTH, rows=BOTH.rows[1:3]), "t") == [], "one number of shots makes no curve"


def test_less_may_be_better() -> None:
    cell = replace(CELL, metric="mse", unit="", higher_is_better=False)
    assert "Less is better." in charts.after_adaptation(cell, "t").caption
    one = Evaluation("test", ["a", "b"], [1], {"mse": np.array([[[1.0], [2.0]]])}, [1.0])
    profile = charts.performance_profile(cell, {"maml": [one]}, "t")
    assert profile is not None
    assert "the lower a curve lies" in profile.caption


def test_learning_curves_of_both_kinds() -> None:
    history = [
        {"step": 100, "train/loss": 0.3, "validation/success": 0.1},
        {"step": 200, "train/loss": 0.1, "validation/success": float("nan")},
    ]
    by_trial = [
        {"step": 5.0, "train/return-0": -9.0, "train/return-2": -4.0, "validation/success-0": 0.1,
         "validation/success-1": 0.2, "validation/success-2": 0.6, "train/faults": 0.0},
    ]  # fmt: skip
    shorter = [{"step": 5.0, "validation/success-0": 0.3, "validation/success-1": 0.4}]
    found = charts.training(
        {"maml, seed 0": history, "pearl, seed 0": by_trial, "scratch, seed 1": shorter}, "success", True, {"scratch"}
    )
    assert {chart.title: [(s.name, s.x, s.y) for s in chart.series] for chart in found} == {
        "Training loss": [("maml, seed 0", (100, 200), (0.3, 0.1))],
        "Validation success": [("maml, seed 0", (100,), (0.1,))],
        "Return in training, before adaptation": [("pearl, seed 0", (5.0,), (-9.0,))],
        "Return in training, after the last adaptation": [("pearl, seed 0", (5.0,), (-4.0,))],
        "Validation success, before adaptation": [
            ("pearl, seed 0", (5.0,), (0.1,)), ("scratch, seed 1", (5.0,), (0.3,)),
        ],
        "Validation success, after the last adaptation": [
            ("pearl, seed 0", (5.0,), (0.6,)), ("scratch, seed 1", (5.0,), (0.4,)),
        ],
    }  # fmt: skip
    assert [s.baseline for s in found[-1].series] == [False, True]
    assert charts.training({"maml": []}, "success", True) == []
