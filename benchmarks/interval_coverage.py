"""How often the 95 % intervals of the tables hold the truth, by simulation: 5 to 100 tasks, true rates of 50 to 99 %.

    python -m benchmarks.interval_coverage      # some minutes on one core

Writes benchmarks/results/interval-coverage.json. The percentile bootstrap beside them is what tables had before: all
successes gave it no width at all.
"""

import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from quickstudy.results.evidence import Cell, Row
from quickstudy.results.statistics import Interval, bootstrap, improvement_interval, iqm_interval
from quickstudy.results.tables import print_table

EPISODES, SEEDS, OPPONENT = 4, 3, 0.5
"""Of the tasks whose own rates differ; and the rate of the method over which there is an improvement."""
SPREAD = 0.2
"""Tasks' own rates are Beta(rate / SPREAD, (1 - rate) / SPREAD): a sixth of the variance of single successes."""


@dataclass(frozen=True)
class Coverage:
    """What to run."""

    tasks: tuple[int, ...] = (5, 10, 20, 50, 100)
    rates: tuple[float, ...] = (0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.99)
    draws: int = 1000
    replicates: int = 500
    results: Path = Path("benchmarks/results/interval-coverage.json")


def percentile(scores: np.ndarray, replicates: int, seed: int) -> Interval:
    """The percentile bootstrap over tasks, of one seed."""
    drawn = np.random.default_rng(seed).integers(scores.shape[1], size=(replicates, scores.shape[1]))
    low, high = np.percentile(scores[0][drawn].mean(1), [2.5, 97.5])
    return float(low), float(high)


def measure(tasks: int, rate: float, what: Coverage) -> Row:
    """The share of draws whose interval holds the truth."""
    rng = np.random.default_rng([tasks, round(1000 * rate)])

    def single(chance: float = rate) -> np.ndarray:
        return (rng.random((1, tasks)) < chance).astype(float)

    def several() -> np.ndarray:
        own = rng.beta(rate / SPREAD, (1 - rate) / SPREAD, tasks)
        return rng.binomial(EPISODES, own, (SEEDS, tasks)) / EPISODES

    def held(truth: float, interval: Callable[[int], Interval | None]) -> float:
        found = [interval(i) for i in range(what.draws)]
        return float(np.mean([one is not None and one[0] <= truth <= one[1] for one in found]))

    count = what.replicates
    better = rate * (1 - OPPONENT) + (rate * OPPONENT + (1 - rate) * (1 - OPPONENT)) / 2
    beside = {
        f"{EPISODES} episodes, {SEEDS} seeds, tasks differ, %": held(
            rate, lambda i: bootstrap(several(), count, i, shares=True)
        ),
        "IQM, %": held(min(1.0, 2 * rate - 0.5), lambda i: iqm_interval(single(), count, i)),
        "improvement, %": held(better, lambda i: improvement_interval(single(), single(OPPONENT), count, i)),
        "percentile bootstrap, %": held(rate, lambda i: percentile(single(), count, i)),
    }
    return Row(
        f"{tasks} tasks",
        value=round(held(rate, lambda i: bootstrap(single(), count, i)), 4),
        tasks=tasks,
        distinct_tasks=tasks,
        at=rate,
        secondary_metrics={name: round(100 * value, 2) for name, value in beside.items()},
    )


def main(what: Coverage) -> None:
    started = time.perf_counter()
    rows = [measure(tasks, rate, what) for tasks in what.tasks for rate in what.rates]
    cell = Cell.measured_here(
        cell="interval-coverage",
        metric="coverage",
        unit="fraction",
        protocol=(
            f"How many of {what.draws} simulated tables have a 95 % interval that holds the truth, by tasks and true "
            "success rate: of the mean of one episode a task, of several episodes and seeds where tasks have rates of "
            "their own, of the interquartile mean, of the probability of improvement over a method that succeeds in "
            f"{100 * OPPONENT:.0f} % of tasks, and of the mean by the percentile bootstrap that tables had before."
        ),
        command=shlex.join(["python", "-m", "benchmarks.interval_coverage", *sys.argv[1:]]),
        seconds=time.perf_counter() - started,
        rows=rows,
        against="true rate",
    )
    cell.write(what.results)
    print_table(cell)


if __name__ == "__main__":
    main(tyro.cli(Coverage))
