"""Rows of a table from evaluations, alike for methods that learn from demonstrations and by trial."""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quickstudy.errors import QuickstudyError
from quickstudy.evaluation import Evaluation, is_share
from quickstudy.method import Method
from quickstudy.results import statistics
from quickstudy.results.evidence import Cell, Row
from quickstudy.task import TaskFamily

UNITS = {"mse": "squared error", "error": "squared error"}
"""What a metric counts in, where its name does not say it all."""

_TITLES = {"success": "success at any step, %", "success_last": "success at the last step, %"}
"""Secondary metrics in words, with their units."""


def rows(
    method: Method,
    family: TaskFamily,
    evaluations: Sequence[Evaluation],
    reference: Sequence[Evaluation] | None = None,
) -> list[Row]:
    """One row for each number of shots.

    Args:
        evaluations: one for each seed.
        reference: of the opponent that probabilities of improvement are over.
    """
    note = " ".join(dict.fromkeys(e.note for e in evaluations if e.note))
    evaluations, reference = in_common(evaluations, reference)
    first, made = evaluations[0], []
    episodes = first.metrics[family.metric].shape[2]
    groups = [family.task_key(task) for task in first.drawn(family)]
    for i, shots in enumerate(first.shots):
        values = scores(evaluations, family.metric, i)
        likely: dict[str, Any] = {}
        if reference is not None and shots in reference[0].shots and reference[0].learns_from == first.learns_from:
            other = scores(reference, family.metric, reference[0].shots.index(shots))
            likely = improvement(values, other, groups, family.higher_is_better)
        made.append(
            Row(
                method=method.name,
                role=method.role,
                learns_from=method.learns_from,
                shots=shots,
                steps=None if first.steps is None else first.steps[i],
                **figures(values, groups, is_share(family.metric), least=0.0 if family.metric == "error" else None),
                **likely,
                episodes=episodes,
                ms=round(float(np.median([e.adaptation_ms[i] for e in evaluations])), 2) or None,
                secondary_metrics=_secondary(method, family, evaluations, i) or None,
                note=note,
            )
        )
    return made


def in_common(
    evaluations: Sequence[Evaluation], others: Sequence[Evaluation] | None
) -> tuple[Sequence[Evaluation], Sequence[Evaluation] | None]:
    """Evaluations, and others that they are compared with, of the tasks that none of them had to leave out."""
    every = [*evaluations, *(others or ())]
    if all(e.tasks == every[0].tasks for e in every):
        return evaluations, others
    shared = [name for name in every[0].tasks if all(name in e.tasks for e in every)]
    if not shared:
        raise QuickstudyError(f"The evaluations of split '{every[0].split}' have no task in common.")
    return [e.only(shared) for e in evaluations], others and [e.only(shared) for e in others]


def figures(
    values: np.ndarray, groups: Sequence[Hashable] | None = None, shares: bool = True, least: float | None = None
) -> dict[str, Any]:
    """Fields of a row that say what scores [seed, task] come to, how sure that is, and the scores themselves.

    Args:
        groups: [task], equal where two tasks are the same; all are distinct where not given.
        shares: whether scores lie between 0 and 1 by their nature.
        least: what scores cannot be below by their nature, such as 0 of squared errors; no interval reaches below it.
    """
    seeds, tasks = values.shape
    kept = np.round(values, 4)
    numbers = {key: i for i, key in enumerate(dict.fromkeys(range(tasks) if groups is None else groups))}
    apart = len(numbers) == tasks
    return {
        "value": round(float(kept.mean()), 4),
        "ci95": _rounded(statistics.bootstrap(kept, groups=groups, shares=shares), least),
        "iqm": round(float(statistics.iqm(kept)), 4),
        "iqm_ci95": _rounded(statistics.iqm_interval(kept, groups=groups, shares=shares), least),
        "seeds": seeds,
        "tasks": tasks,
        "distinct_tasks": len(numbers),
        "scores": kept.tolist(),
        "groups": None if apart or groups is None else [numbers[key] for key in groups],
    }


def improvement(
    values: np.ndarray, other: np.ndarray, groups: Sequence[Hashable] | None, higher_is_better: bool
) -> dict[str, Any]:
    """Fields of a row that say how probably its method beats another on a task, from scores [seed, task] of both."""
    better, worse = (values, other) if higher_is_better else (other, values)
    return {
        "improvement": round(statistics.improvement(better, worse), 4),
        "improvement_ci95": _rounded(statistics.improvement_interval(better, worse, groups=groups)),
    }


def _secondary(method: Method, family: TaskFamily, evaluations: Sequence[Evaluation], place: int) -> dict[str, float]:
    """The means over seeds, tasks and episodes of what a table shows beside the metric; by trial the return too."""
    names = [*family.secondary_metrics, *(["return"] if method.learns_from == "trials" else [])]
    means = {}
    for name in dict.fromkeys(name for name in names if name != family.metric):
        mean = float(np.mean([e.metrics[name][place] for e in evaluations]))
        title = _TITLES.get(name, name)
        means[title] = round(100 * mean if "%" in title else mean, 4)
    return means


def scores(evaluations: Sequence[Evaluation], metric: str, place: int) -> np.ndarray:
    """[seed, task], each the mean over the task's episodes, after the number of shots at `place`."""
    return np.stack([e.metrics[metric][place].mean(-1) for e in evaluations])


def rows_by_task(method: Method, family: TaskFamily, evaluations: Sequence[Evaluation]) -> list[Row]:
    """One row for each task, named by its caption, and number of shots: the mean over seeds and episodes."""
    evaluations, _ = in_common(evaluations, None)
    first = evaluations[0]
    captions = [family.caption(task) for task in first.drawn(family)]
    values = np.stack([e.metrics[family.metric] for e in evaluations])
    return [
        Row(
            method.name,
            shots,
            round(float(values[:, i, j].mean()), 4),
            seeds=len(evaluations),
            episodes=values.shape[-1],
            workload=caption,
            role=method.role,
            learns_from=method.learns_from,
        )
        for j, caption in enumerate(captions)
        for i, shots in enumerate(first.shots)
    ]


def write_cell(
    family: TaskFamily,
    split: str,
    made: Sequence[Row],
    seconds: float,
    folder: Path,
    command: str,
    reference: str = "",
) -> Cell:
    """The table of one split, also written to `folder/results/<family>-<split>.json`."""
    cell = Cell.measured_here(
        cell=f"{family.name}-{split}",
        metric=family.metric,
        unit="fraction" if is_share(family.metric) else UNITS.get(family.metric, ""),
        protocol=describe(family, split, {row.learns_from for row in made}),
        command=command,
        seconds=seconds,
        rows=list(made),
        reference=reference,
        higher_is_better=family.higher_is_better,
    )
    cell.write(folder / "results" / f"{cell.cell}.json")
    return cell


def describe(family: TaskFamily, split: str, experience: set[str]) -> str:
    """The protocol in one sentence.

    Args:
        experience: what the table's methods learn from.
    """
    whose = "Held-out tasks" if family.holds_out_tasks else "Tasks that training has too, new episodes of them,"
    words = []
    if "demonstrations" in experience:
        words.append("each learner adapts to a task from its demonstrations alone, every episode of the quota counts")
    if "trials" in experience:
        words.append(
            "a learner by trial adapts to its own episodes with their rewards and sees no demonstration, every episode "
            "counts, exploration included"
        )
    what = {"return": "undiscounted return"}.get(family.metric, family.metric)
    return (
        f"{whose} of split '{split}'; {family.protocol}; {'; '.join(words)}; mean {what} with a 95 % interval over "
        "distinct tasks and seeds."
    )


def _rounded(bounds: Sequence[float] | None, least: float | None = None) -> list[float] | None:
    least = -np.inf if least is None else least
    return None if bounds is None else [round(max(bound, least), 4) for bound in bounds]
