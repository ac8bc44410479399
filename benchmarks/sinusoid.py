"""5-shot sinusoid regression by every method, MAML's after 1, 5 and 10 inner steps beside Finn et al. 2017.

    python -m benchmarks.sinusoid            # 3 seeds of each; resumes where it was stopped
    python -m benchmarks.sinusoid --methods maml meta-sgd

Writes benchmarks/results/sinusoid.json.
"""

import shlex
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import tyro

from quickstudy.batching import over_tasks
from quickstudy.data import DemonstrationSet
from quickstudy.evaluation import run_tasks
from quickstudy.experiment import Experiment, clock, seconds_so_far
from quickstudy.families.classic import Sinusoid
from quickstudy.learner import MetaLearner
from quickstudy.results.evidence import Cell, Row
from quickstudy.results.rows import figures
from quickstudy.results.tables import print_table

PAPER = {1: 0.67, 5: 0.38, 10: 0.35}
STEPS: dict[str, tuple[int | None, ...]] = {
    "maml": (1, 5, 10),
    "meta-sgd": (1, 2),
    "reptile": (10, 50),
    "meta-lstm": (5, 10),
    "mann": (None,),
    "siamese": (None,),
    "matching": (None,),
    "matching-convex": (None,),
    "hypernet": (None,),
}
"""Inner steps at test, where a method takes any.

Meta-SGD has learned its rates for the two steps of its training; more steps with the last of them diverge.
"""


@dataclass(frozen=True)
class Sinusoids:
    """What to run."""

    methods: tuple[str, ...] = tuple(STEPS)
    seeds: int = 3
    tasks: int = 600
    points: int = 100
    output_dir: Path = Path("runs/sinusoid")


def errors_after(learner: MetaLearner, family: Sinusoid, steps: int | None, seed: int, what: Sinusoids) -> np.ndarray:
    """Mean squared error of each test task, [task]."""
    tasks = family.tasks("test", what.tasks)
    support = DemonstrationSet.record(family, tasks, 5, seed).batch
    adapt = learner.adapt if steps is None else partial(learner.adapt, steps=steps)
    skills = over_tasks(adapt, support, chunk=100)
    return run_tasks(family, tasks, what.points, learner, skills, seed)["mse"].mean(-1)


def measure(what: Sinusoids) -> list[Row]:
    """A row for each method and number of inner steps."""
    family, rows = Sinusoid(), []
    for method in what.methods:
        learners = []
        for seed in range(what.seeds):
            folder = what.output_dir / f"{method}-seed{seed}"
            learners.append(Experiment.of(family, method, seed).train(folder))
        for steps in STEPS[method]:
            values = np.stack([errors_after(one, family, steps, seed, what) for seed, one in enumerate(learners)])
            rows.append(Row(method, 5, episodes=what.points, steps=steps, **figures(values, shares=False)))
    return rows


def main(what: Sinusoids) -> None:
    seconds = what.output_dir / "seconds.json"
    with clock(seconds):
        rows = measure(what)
    rows += [Row("maml-paper", 5, value, steps=steps, note="Finn et al. 2017") for steps, value in PAPER.items()]
    cell = Cell.measured_here(
        cell="sinusoid",
        metric="mean squared error",
        unit="",
        protocol=(
            "5-shot sinusoid regression, 40-40 ReLU networks, MAML with two training steps of rate 0.01 that count "
            "alike, defaults of the other methods, "
            f"{what.tasks} unseen sinusoids, {what.points} query points each; amplitude and phase are hidden."
        ),
        higher_is_better=False,
        command=shlex.join(["python", "-m", "benchmarks.sinusoid", *sys.argv[1:]]),
        seconds=seconds_so_far(seconds),
        rows=rows,
    )
    cell.write(Path("benchmarks/results/sinusoid.json"))
    print_table(cell)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(tyro.cli(Sinusoids))
