"""What a report's charts show, as plain data: the page's own script draws them to the width of the screen at hand."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Literal

import numpy as np

from quickstudy.evaluation import Evaluation
from quickstudy.method import Experience
from quickstudy.results import statistics
from quickstudy.results.evidence import Cell, Row
from quickstudy.results.rows import in_common

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

AMOUNTS: Mapping[Experience, str] = {"demonstrations": "demonstrations", "trials": "own episodes"}
"""What a row's shots count, in words."""


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


def amount(learns_from: Experience, shots: int) -> str:
    """So much experience in words: 'one demonstration', '20 own episodes'."""
    words = AMOUNTS[learns_from]
    return f"one {words.removesuffix('s')}" if shots == 1 else f"{shots} {words}"


def after_adaptation(cell: Cell, title: str) -> Chart:
    """A bar for each method after its most experience, in the order of the cell."""
    rows = _last(cell)
    both = len(cell.experiences) > 1
    names = [f"{row.method}, {amount(row.learns_from, row.shots or 0)}" if both else row.method for row in rows]
    return Chart(
        title,
        f"After {_the_most(cell)} of each method; whiskers are 95 % intervals over distinct tasks and seeds."
        + ("" if cell.higher_is_better else " Less is better."),
        "bars",
        "",
        cell.metric,
        [
            Series(name, [0], [row.value or 0.0], *_interval([row]), row.baseline)
            for name, row in zip(names, rows, strict=True)
        ],
        cell.unit == "fraction",
    )


def adaptation(cell: Cell, title: str) -> list[Chart]:
    """The metric against the amount of experience, a chart for each kind of it of which more than one was tried."""
    charts = []
    for kind in cell.experiences:
        rows = [r for r in cell.rows if r.value is not None and r.shots is not None and r.learns_from == kind]
        if len({row.shots for row in rows}) < 2:
            continue
        charts.append(
            Chart(
                f"{title}, by {AMOUNTS[kind]}" if len(cell.experiences) > 1 else title,
                f"Adaptation curves: what one more {AMOUNTS[kind].removesuffix('s')} is worth. "
                "Bands are 95 % intervals.",
                "lines",
                AMOUNTS[kind],
                cell.metric,
                [_series(method, of, "shots") for method, of in _by_method(rows).items()],
                cell.unit == "fraction",
            )
        )
    return charts


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


def performance_profile(cell: Cell, evaluations: Evaluations, title: str) -> Chart | None:
    """The share of (seed, task) pairs that reach more than a score, for every score."""
    scores = {
        method: np.stack([one.metrics[cell.metric][-1].mean(-1) for one in in_common(of_method, None)[0]])
        for method, of_method in evaluations.items()
    }
    known = np.unique(np.concatenate([s.ravel() for s in scores.values()])) if scores else np.zeros(0)
    if len(known) < 2:
        return None
    thresholds = known if len(known) <= _STEPS else np.linspace(known[0], known[-1], _STEPS)
    x = np.repeat(thresholds, 2)[1:].tolist()  # a share falls at a score and holds to the next
    series = []
    for method, s in scores.items():
        y = np.repeat(statistics.profile(s, thresholds), 2)[:-1].tolist()
        series.append(Series(method, x, y, baseline=method in cell.baselines))
    better = "higher" if cell.higher_is_better else "lower"
    caption = f"Performance profile after {_the_most(cell)}: the {better} a curve lies, the better."
    return Chart(title, caption, "lines", f"{cell.metric} of a task", "share of tasks above", series, True)


def probabilities(cell: Cell, title: str) -> Chart | None:
    """How probably each method beats the reference on a task."""
    rows = [row for row in _last(cell) if row.improvement is not None]
    if not rows:
        return None
    series = []
    for row in rows:
        low, high = row.improvement_ci95 or (row.improvement or 0.0,) * 2
        series.append(Series(row.method, [0], [row.improvement or 0.0], [low], [high], row.baseline))
    caption = f"How probably a method does better than {cell.reference} on one task; 50 % is no difference."
    return Chart(title, caption, "bars", "", f"better than {cell.reference}", series, True, even=True)


History = Sequence[Mapping[str, float]]
"""What a training noted, one mapping for each look at the validation tasks; 'step' is one of its keys."""


def training(
    histories: Mapping[str, History], metric: str, percent: bool, baselines: Set[str] = frozenset()
) -> list[Chart]:
    """Curves over the outer steps; labels such as 'maml, seed 1' name each history.

    A method that learns from demonstrations notes its loss and one figure on validation tasks; one that learns by
    trial notes its return and its figure on validation tasks before and after each of its adaptations.
    """
    curves: list[tuple[str, bool, Callable[[History], str]]] = [
        ("training loss", False, lambda history: "train/loss"),
        (f"validation {metric}", percent, lambda history: f"validation/{metric}"),
        ("return in training, before adaptation", False, lambda history: "train/return-0"),
        ("return in training, after the last adaptation", False, lambda history: _last_round(history, "train/return-")),
        (f"validation {metric}, before adaptation", percent, lambda history: f"validation/{metric}-0"),
        (
            f"validation {metric}, after the last adaptation",
            percent,
            lambda history: _last_round(history, f"validation/{metric}-"),
        ),
    ]
    charts = []
    for name, share, key_of in curves:
        series = []
        for label, history in histories.items():
            key = key_of(history)
            points = [(f["step"], f[key]) for f in history if f.get(key) is not None and np.isfinite(f[key])]
            if points:
                x, y = zip(*points, strict=True)
                series.append(Series(label, x, y, baseline=label.split(",")[0] in baselines))
        if series:
            title, axis = name[0].upper() + name[1:], name.split(",")[0]
            charts.append(Chart(title, "While meta-training.", "lines", "outer steps", axis, series, share))
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
    """The failed (task, episode) pairs after one amount of experience by how they failed, the most frequent first."""
    kinds: dict[str, list[tuple[int, int]]] = {}
    if "success" not in evaluation.metrics:
        return kinds
    outcomes = {name: values[place] for name, values in evaluation.metrics.items()}
    for task, episode in np.ndindex(outcomes["success"].shape):
        words = failure_of({name: float(values[task, episode]) for name, values in outcomes.items()})
        if words:
            kinds.setdefault(words, []).append((task, episode))
    return dict(sorted(kinds.items(), key=lambda item: -len(item[1])))


def failure_chart(cell: Cell, evaluations: Evaluations, title: str) -> Chart | None:
    """What became of all episodes, a stacked bar for each method."""
    counts: dict[str, dict[str, float]] = {}
    for method, of_method in evaluations.items():
        if any("success" not in one.metrics for one in of_method):
            return None
        total = sum(one.metrics["success"][-1].size for one in of_method)
        shares: dict[str, float] = {}
        for one in of_method:
            for words, where in failures(one).items():
                shares[words] = shares.get(words, 0.0) + len(where) / total
        counts[method] = {"succeeded": 1.0 - sum(shares.values()), **shares}
    kinds = list(dict.fromkeys(["succeeded", *(kind for shares in counts.values() for kind in shares)]))
    if len(kinds) < 2:
        return None
    series = [Series(kind, list(range(len(counts))), [s.get(kind, 0.0) for s in counts.values()]) for kind in kinds]
    caption = f"What became of every episode after {_the_most(cell)}."
    return Chart(title, caption, "stack", "", "share of episodes", series, True, categories=list(counts))


# ---- parts


def _the_most(cell: Cell) -> str:
    """'the most demonstrations', 'the most own episodes', or both."""
    return f"the most {' or '.join(AMOUNTS[kind] for kind in cell.experiences)}"


def _last_round(history: History, stem: str) -> str:
    """The key with the largest number at its end, of those that begin so; empty where that is 0 or there is none."""
    keys = {key for figures in history for key in figures if key.removeprefix(stem).isdecimal()}
    last = max((int(key.removeprefix(stem)) for key in keys), default=0)
    return f"{stem}{last}" if last else ""


def _last(cell: Cell) -> list[Row]:
    """The row of each method with the most experience."""
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
    return Series(method, x, [row.value or 0.0 for row in rows], *_interval(rows), rows[0].baseline)


def _interval(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    if any(row.ci95 is None for row in rows):
        return [], []
    return [row.ci95[0] for row in rows if row.ci95], [row.ci95[1] for row in rows if row.ci95]
