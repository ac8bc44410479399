"""Learning by trial and reward: methods trained and tested on unseen tasks, family by family.

    python -m benchmarks.rl
    python -m benchmarks.rl --methods maml-trpo rl2 --seeds 1
    python -m benchmarks.rl --family grasping-tries --methods rl2-dagger --tasks 100 --episodes-per-task 4

Each learner is what training ended with, not the best of what it went through. What is finished is never run again and
what was interrupted goes on, so the same command may be given again and again, with more methods or seeds. Writes
benchmarks/results/rl-<family>.json, and one more for every other split to test on.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro

from quickstudy import families, methods
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation import Evaluation
from quickstudy.experiment import TRAINING_SECONDS, Experiment, clock, seconds_so_far
from quickstudy.io import checkpoint
from quickstudy.io.progress import console
from quickstudy.results.evidence import Cell, Row
from quickstudy.results.rows import describe, rows
from quickstudy.results.tables import print_table

ROUNDS = {
    "scratch-ppo": (0, 1, 3, 10, 30),
    "transfer-ppo": (0, 1, 3, 10, 30),
    "reptile-ppo": (0, 1, 3, 10),
    "matched": (0, 1, 3, 10),
    "domain-randomisation": (0,),
    "oracle-ppo": (0,),
}
"""The rounds that a table of 2D navigation shows, for methods other than 0 to 3."""
ROUNDS_OF_FAMILY = {
    "grasping-tries": (0, 1, 2, 3, 4),
    "navigation": (0, 1, 2),
    "navigation-dynamics": (0, 1, 2),
    **dict.fromkeys((f"ml1-{task}-fixed-start" for task in ("reach", "push", "pick-place")), (0, 1, 2, 3)),
}
"""The rounds that a table of another family shows."""


@dataclass(frozen=True)
class Benchmark:
    """What to run."""

    methods: tuple[str, ...] = tuple(methods.names("trials"))
    family: str = "navigation2d"
    seeds: int = 3
    tasks: int = 40
    """Tasks of each test split."""
    episodes_per_task: int = 20
    """Episodes of each task in a round: the paper's 20 trajectories an update. For a memory, trials of each task."""
    steps: int | None = None
    """Outer steps of every training; the method's default where not given."""
    output_dir: Path = Path("runs/rl")
    results: Path = Path("benchmarks/results")

    def folder(self, method: str, seed: int) -> Path:
        return self.output_dir / self.family / f"{methods.get(method).pretrained_as or method}-seed{seed}"

    def rounds(self, method: str) -> tuple[int, ...]:
        return ROUNDS_OF_FAMILY.get(self.family) or ROUNDS.get(method, (0, 1, 2, 3))


def evaluation(what: Benchmark, method: str, seed: int, split: str) -> Evaluation:
    """Of one method and seed; trains it first where that is still to do."""
    folder = what.folder(method, seed)
    path = folder / f"{method}-{split}-{what.tasks}x{what.episodes_per_task}.json"
    if path.exists():
        return Evaluation.load(path)
    changes = {} if what.steps is None else {"training": {"steps": what.steps}}
    experiment = Experiment.of(what.family, method, seed, changes)
    parent = experiment.method.pretrained_as or method
    Experiment.of(what.family, parent, seed, changes).train(folder)
    learner = experiment.build()
    last = folder / "checkpoints" / ("last" if experiment.method.uses == "all" else "best")
    checkpoint.load_into(learner, checkpoint.load(last).tensors, str(last))
    result = experiment.evaluate(
        learner,
        split,
        shots=what.rounds(method),
        tasks=what.tasks,
        episodes=what.episodes_per_task,
        seed=seed,
    )
    result.save(path)
    by_round = result.metrics[experiment.family.metric].mean((1, 2))
    console.print(f"{method}, seed {seed}, {split}: " + ", ".join(f"{value:.2f}" for value in by_round))
    return result


def rows_of(what: Benchmark, method: str, split: str) -> list[Row]:
    """The table's lines of one method."""
    evaluations = [evaluation(what, method, seed, split) for seed in range(what.seeds)]
    experiment = Experiment.of(what.family, method)
    seconds = [seconds_so_far(what.folder(method, seed) / TRAINING_SECONDS) for seed in range(what.seeds)]
    trained, parameters = round(float(np.mean(seconds)), 1) or None, experiment.parameters()
    made = rows(experiment.method, experiment.family, evaluations)
    return [replace(row, training_s=trained, parameters=parameters) for row in made]


def table(what: Benchmark, split: str) -> Cell:
    """All methods on one split, written to the results."""
    family, started = families.get(what.family), what.output_dir / what.family / "seconds.json"
    with clock(started):
        made = [row for method in what.methods for row in rows_of(what, method, split)]
    words = [
        "" if what.family == "navigation2d" else f"--family {what.family}",
        f"--seeds {what.seeds} --tasks {what.tasks} --episodes-per-task {what.episodes_per_task}",
        f"--methods {' '.join(what.methods)}",
        "" if what.steps is None else f"--steps {what.steps}",
    ]
    cell = Cell.measured_here(
        cell=f"rl-{family.seed_name or family.name}" + ("" if split == family.test_splits[0] else f"-{split}"),
        metric=family.metric,
        unit="fraction" if family.metric.startswith("success") else "",
        protocol=describe(family, split, {"trials"}),
        command=" ".join(["python -m benchmarks.rl", *filter(None, words)]),
        seconds=seconds_so_far(started),
        rows=made,
    )
    cell.write(what.results / f"{cell.cell}.json")
    return cell


def main(what: Benchmark) -> None:
    for split in families.get(what.family).test_splits:
        print_table(table(what, split))


if __name__ == "__main__":
    try:
        main(tyro.cli(Benchmark))
    except QuickstudyError as problem:
        console.print(f"[red]{problem}[/]")
        sys.exit(2)
