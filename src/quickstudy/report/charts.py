"""What a report's charts show, as plain data: the page's own script draws them to the width of the screen at hand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from quickstudy.evaluate import Evaluation
from quickstudy.results import statistics
from quickstudy.results.evidence import BASELINES, Cell, Row

Evaluations = Mapping[str, Sequence[Evaluation]]
"""Of one split, by method: one for each seed."""

_OUTCOMES: tuple[tuple[str, bool, str], ...] = (
    ("collisions", True, "ran into something"),
    ("slipped", True, "lifted it, then lost it"),
    ("lifted", False, "never lifted it"),
)
"""Metrics that tell how an episode failed, whether they must be there, and what to call it; the first that fits."""

_STEPS = 61
"""Most steps of a performance profile."""

OTHERWISE = "did not get there in time"


@dataclass(frozen=True)
class Series:
    """Points of one method (or of one kind); `low` and `high` bound `y`, where they are known."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    baseline: bool = False


@dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes:
        title, caption: what it shows, and what to see in it.
        kind: 'lines'; 'points', which no line joins; 'bars', one for each series; or 'stack', the series of a category
            in one bar, whose names are `categories`.
        x, y: what the axes count. With `percent`, y is a fraction; `log` is about x; `even` marks a half.
    """

    title: str
    caption: str
    kind: Literal["lines", "points", "bars", "stack"]
    x: str
    y: str
    series: Sequence[Series]
    percent: bool = False
    log: bool = False
    even: bool = False
    categories: Sequence[str] = ()


def after_demonstrations(cell: Cell, title: str) -> Chart:
    """A bar for each method after its most demonstrations, in the order of the cell."""
    rows = _last(cell)
    return Chart(
        title,
        "After the most demonstrations of each method; whiskers are 95 % intervals of the mean over tasks and seeds.",
        "bars",
        "",
        cell.metric,
        [Series(row.method, [0], [row.value or 0.0], *_interval([row]), row.method in BASELINES) for row in rows],
        cell.unit == "fraction",
    )


def adaptation(cell: Cell, title: str) -> Chart | None:
    """The metric against the number of demonstrations; None where only one number was tried."""
    known = [row for row in cell.rows if row.value is not None and row.shots is not None]
    if len({row.shots for row in known}) < 2:
        return None
    return Chart(
        title,
        "Adaptation curves: what one more demonstration is worth. Bands are 95 % intervals.",
        "lines",
        "demonstrations",
        cell.metric,
        [_series(method, rows, "shots") for method, rows in _by_method(known).items()],
        cell.unit == "fraction",
    )


def against(cell: Cell, name: str, label: str, title: str, caption: str, log: bool = True) -> Chart | None:
    """The metric against another figure of each row, such as 'ms' or 'parameters'; None where fewer than two have it.

    Rows of one method are joined where they stand for steps along the cell's `against` or for numbers of steps.
    """

    def has(row: Row) -> bool:
        x = getattr(row, name)
        return row.value is not None and x is not None and (x > 0 or not log)

    known = [row for row in cell.rows if has(row)]
    if not cell.against and not any(row.steps for row in known):
        known = [row for row in _last(cell) if has(row)]
    if len(known) < 2:
        return None
    methods = _by_method(known)
    joined = any(len(rows) > 1 for rows in methods.values())
    series = [_series(method, rows, name) for method, rows in methods.items()]
    return Chart(
        title, caption, "lines" if joined else "points", label, cell.metric, series, cell.unit == "fraction", log
    )


def performance_profile(evaluations: Evaluations, metric: str, title: str, higher_is_better: bool) -> Chart | None:
    """The share of (seed, task) pairs that reach more than a score, for every score."""
    all_scores = {method: _scores(found, metric) for method, found in evaluations.items()}
    known = np.unique(np.concatenate([s.ravel() for s in all_scores.values()])) if all_scores else np.zeros(0)
    if len(known) < 2:
        return None
    thresholds = known if len(known) <= _STEPS else np.linspace(known[0], known[-1], _STEPS)
    x = np.repeat(thresholds, 2)[1:].tolist()  # a share falls at a score and holds to the next
    series = []
    for method, s in all_scores.items():
        y = np.repeat(statistics.profile(s, thresholds), 2)[:-1].tolist()
        series.append(Series(method, x, y, baseline=method in BASELINES))
    better = "higher" if higher_is_better else "lower"
    caption = f"Performance profile after the most demonstrations: the {better} a curve lies, the better."
    return Chart(title, caption, "lines", f"{metric} of a task", "share of tasks above", series, True)


def probabilities(cell: Cell, title: str) -> Chart | None:
    """How probably each method beats the reference on a task."""
    rows = [row for row in _last(cell) if row.improvement is not None]
    if not rows:
        return None
    series = []
    for row in rows:
        low, high = row.improvement_ci95 or (row.improvement or 0.0,) * 2
        series.append(Series(row.method, [0], [row.improvement or 0.0], [low], [high], row.method in BASELINES))
    caption = f"How probably a method does better than {cell.reference} on one task; 50 % is no difference."
    return Chart(title, caption, "bars", "", f"better than {cell.reference}", series, True, even=True)


def training(histories: Mapping[str, Sequence[Mapping[str, float]]], metric: str, percent: bool) -> list[Chart]:
    """Training loss and validation figure against outer steps; labels such as 'maml, seed 1' name each history."""
    charts = []
    for key, name, share in (
        ("train/loss", "training loss", False),
        (f"validation/{metric}", f"validation {metric}", percent),
    ):
        series = []
        for label, history in histories.items():
            points = [(f["step"], f[key]) for f in history if key in f and np.isfinite(f[key])]
            if points:
                x, y = zip(*points, strict=True)
                series.append(Series(label, x, y, baseline=label.split(",")[0] in BASELINES))
        if series:
            charts.append(Chart(name.capitalize(), "While meta-training.", "lines", "outer steps", name, series, share))
    return charts


def failure_of(metrics: Mapping[str, float]) -> str:
    """How an episode failed, in words; empty where it succeeded."""
    if metrics["success"] >= 0.5:
        return ""
    for name, wanted, words in _OUTCOMES:
        if name in metrics and (metrics[name] >= 0.5) == wanted:
            return words
    return OTHERWISE


def failures(evaluation: Evaluation, place: int = -1) -> dict[str, list[tuple[int, int]]]:
    """The failed (task, episode) pairs of one number of demonstrations by how they failed, the most frequent first."""
    found: dict[str, list[tuple[int, int]]] = {}
    if "success" not in evaluation.metrics:
        return found
    outcomes = {name: values[place] for name, values in evaluation.metrics.items()}
    for task, episode in np.ndindex(outcomes["success"].shape):
        words = failure_of({name: float(values[task, episode]) for name, values in outcomes.items()})
        if words:
            found.setdefault(words, []).append((task, episode))
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def failure_chart(evaluations: Evaluations, title: str) -> Chart | None:
    """What became of all episodes, a stacked bar for each method."""
    counts: dict[str, dict[str, float]] = {}
    for method, found in evaluations.items():
        if any("success" not in e.metrics for e in found):
            return None
        total = sum(e.metrics["success"][-1].size for e in found)
        shares: dict[str, float] = {}
        for one in found:
            for words, where in failures(one).items():
                shares[words] = shares.get(words, 0.0) + len(where) / total
        counts[method] = {"succeeded": 1.0 - sum(shares.values()), **shares}
    kinds = list(dict.fromkeys(["succeeded", *(kind for shares in counts.values() for kind in shares)]))
    if len(kinds) < 2:
        return None
    series = [
        Series(kind, list(range(len(counts))), [s.get(kind, 0.0) for s in counts.values()], baseline=False)
        for kind in kinds
    ]
    caption = "What became of every episode after the most demonstrations."
    return Chart(title, caption, "stack", "", "share of episodes", series, True, categories=list(counts))


# ---- parts


def _last(cell: Cell) -> list[Row]:
    """The row of each method with the most demonstrations."""
    last: dict[str, Row] = {}
    for row in cell.rows:
        if row.value is not None and (row.method not in last or (row.shots or 0) >= (last[row.method].shots or 0)):
            last[row.method] = row
    return list(last.values())


def _by_method(rows: Sequence[Row]) -> dict[str, list[Row]]:
    methods: dict[str, list[Row]] = {}
    for row in rows:
        methods.setdefault(row.method, []).append(row)
    return methods


def _series(method: str, rows: Sequence[Row], name: str) -> Series:
    rows = sorted(rows, key=lambda row: getattr(row, name))
    x = [float(getattr(row, name)) for row in rows]
    return Series(method, x, [row.value or 0.0 for row in rows], *_interval(rows), method in BASELINES)


def _interval(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    if any(row.ci95 is None for row in rows):
        return [], []
    return [row.ci95[0] for row in rows if row.ci95], [row.ci95[1] for row in rows if row.ci95]


def _scores(found: Sequence[Evaluation], metric: str) -> np.ndarray:
    return np.stack([e.metrics[metric][-1].mean(-1) for e in found])
