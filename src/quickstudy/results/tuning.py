"""Fine-tuning that is tuned on validation tasks, so that learning without a second level is a strong opponent."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quickstudy.evaluation import evaluate
from quickstudy.experiment import on_validation
from quickstudy.io import files
from quickstudy.io.budget import Budget
from quickstudy.io.progress import progress
from quickstudy.methods.demonstrations.baselines import FineTuneConfig, Transfer
from quickstudy.settings import Config, PositiveInt
from quickstudy.task import TaskFamily


@dataclass(frozen=True)
class Tuning(Config):
    """What is tried, on how many validation tasks.

    Attributes:
        tasks, episodes: validation tasks, and episodes of each.
        steps, rates: the fine-tuning steps and rates that are tried there.
    """

    tasks: PositiveInt = 40
    episodes: PositiveInt = 2
    steps: tuple[int, ...] = (20, 100, 300)
    rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3)


def tune(
    learner: Transfer,
    family: TaskFamily,
    tuning: Tuning,
    shots: int,
    milliseconds: float | None = None,
    record: Path | None = None,
    budget: Budget | None = None,
) -> FineTuneConfig:
    """Chooses the fine-tuning steps and rate by the family's metric on validation tasks.

    Args:
        milliseconds: the time that adaptation may take; the number of steps is then what fits into it.
        record: a file of the figures so far, so that no setting is ever tried twice.

    Raises:
        OutOfTime: the budget ended first.
    """
    budget = budget or Budget()
    known: list[list[float | None]] = json.loads(record.read_text()) if record is not None and record.exists() else []
    if milliseconds is not None and known:
        grid = [FineTuneConfig(int(known[0][0] or 0), rate) for rate in tuning.rates]  # timed once, not each time
        return _tuned(learner, family, tuning, shots, grid, known, record, budget)
    steps = tuning.steps if milliseconds is None else (_steps_within(learner, family, milliseconds),)
    grid = [FineTuneConfig(s, r) for s in steps for r in tuning.rates]
    return _tuned(learner, family, tuning, shots, grid, known, record, budget)


def _tuned(
    learner: Transfer,
    family: TaskFamily,
    tuning: Tuning,
    shots: int,
    grid: Sequence[FineTuneConfig],
    known: list[list[float | None]],
    record: Path | None,
    budget: Budget,
) -> FineTuneConfig:
    figures = []
    with progress("tuning the fine-tuning", len(grid)) as advance:
        for config in grid:
            found = next((f for steps, rate, f in known if (steps, rate) == (config.steps, config.rate)), None)
            if found is None:
                with budget.part("tuning"):
                    learner.config = config
                    value = on_validation(learner, family, shots, tuning.tasks, tuning.episodes)
                    found = value if math.isfinite(value) else None  # such a setting is never chosen
                known.append([config.steps, config.rate, found])
                if record is not None:
                    files.write_json(record, known)
            value = -math.inf if found is None else found if family.higher_is_better else -found
            figures.append(value)
            advance(1, f"best {max(figures):.3f}")
    learner.config = grid[int(np.argmax(figures))]
    return learner.config


def _steps_within(learner: Transfer, family: TaskFamily, milliseconds: float) -> int:
    """How many fine-tuning steps fit into this time, at least one."""
    learner.config = FineTuneConfig(steps=20)
    result = evaluate(learner, family, "validation", shots=[1], tasks=1, episodes=1)
    return max(1, round(20 * milliseconds / result.adaptation_ms[0]))
