"""Learning by trial and reward: methods trained and tested on tasks that they never saw, family by family.

    python -m benchmarks.rl
    python -m benchmarks.rl --methods maml-trpo rl2 --seeds 1
    python -m benchmarks.rl --family grasping --methods rl2-dagger --tasks 100 --episodes_per_task 4

Each learner is what training ended with, not the best of what it went through. What is finished is never run again and
what was interrupted goes on, so the same command may be given again and again, with more methods or seeds. Writes
benchmarks/results/rl-<family>.json, and one more for every other split to test on.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro
from quickstudy.methods.trials.catalogue import METHODS, PRETRAINED_AS, UNTRAINED, build, defaults, family

from quickstudy.errors import QuickstudyError
from quickstudy.evaluation import Evaluation
from quickstudy.io import checkpoint
from quickstudy.io.progress import console
from quickstudy.methods.trials import runs
from quickstudy.methods.trials.evaluation import evaluate_trials
from quickstudy.results.compare import TRAINING_SECONDS, clock, seconds_so_far
from quickstudy.results.evidence import Cell, Row
from quickstudy.results.tables import print_table

ROUNDS = {
    "scratch": (0, 1, 3, 10, 30),
    "transfer": (0, 1, 3, 10, 30),
    "reptile-ppo": (0, 1, 3, 10),
    "matched": (0, 1, 3, 10),
    "domain-randomisation": (0,),
    "oracle": (0,),
}
"""The rounds that a table of 2D navigation shows, for methods other than 0 to 3."""
TRIALS = {
    "grasping": (0, 1, 2, 3, 4),
    "navigation": (0, 1, 2),
    "navigation-dynamics": (0, 1, 2),
    **dict.fromkeys(("ml1-reach", "ml1-push", "ml1-pick-place"), (0, 1, 2, 3)),
}
"""The rounds that a table of another family shows."""


@dataclass(frozen=True)
class Benchmark:
    """What to run."""

    methods: tuple[str, ...] = tuple(METHODS)
    family: str = "navigation2d"
    seeds: int = 3
    tasks: int = 40
    """Held-out tasks."""
    episodes_per_task: int = 20
    """Episodes of each task in a round: the paper's 20 trajectories an update. For a memory, trials of each task."""
    steps: int | None = None
    """Outer steps of every training; the method's default where not given."""
    output_dir: Path = Path("runs/rl")
    results: Path = Path("benchmarks/results")

    @property
    def folder(self) -> Path:
        return self.output_dir / self.family

    def rounds(self, method: str) -> tuple[int, ...]:
        return TRIALS.get(self.family) or ROUNDS.get(method, (0, 1, 2, 3))


def evaluation(what: Benchmark, method: str, seed: int, split: str) -> Evaluation:
    """Of one method and seed; trains it first where that is still to do."""
    path = what.folder / f"{method}-seed{seed}" / f"{split}-{what.tasks}x{what.episodes_per_task}.json"
    if path.exists():
        return Evaluation.load(path)
    of = family(what.family)
    parent = PRETRAINED_AS.get(method, method)
    settings = defaults(what.family, parent, seed)
    if what.steps is not None:
        settings = replace(settings, training=replace(settings.training, steps=what.steps))
    folder = what.folder / f"{parent}-seed{seed}"
    if runs.train(settings, of, folder).interrupted:
        raise KeyboardInterrupt
    learner = build(replace(settings, method=method), of)
    last = folder / "checkpoints" / ("best" if method in UNTRAINED else "last")
    checkpoint.load_into(learner, checkpoint.load(last).tensors, str(last))
    result = evaluate_trials(learner, of, split, max(what.rounds(method)), what.tasks, what.episodes_per_task, seed)
    result.save(path)
    by_round = result.metrics[of.metric].mean((1, 2))
    console.print(f"{method}, seed {seed}, {split}: " + ", ".join(f"{value:.2f}" for value in by_round))
    return result


def rows(what: Benchmark, method: str, split: str) -> list[Row]:
    """The table's lines of one method."""
    evaluations = [evaluation(what, method, seed, split) for seed in range(what.seeds)]
    of, parent = family(what.family), PRETRAINED_AS.get(method, method)
    learner = build(defaults(what.family, method), of)
    made = runs.trial_rows(method, of, evaluations, learner.shares_experience)
    folders = [what.folder / f"{parent}-seed{seed}" for seed in range(what.seeds)]
    trained = float(np.mean([seconds_so_far(folder / TRAINING_SECONDS) for folder in folders]))
    effort = {
        "training_s": round(trained, 1) or None,
        "parameters": None if method in UNTRAINED else sum(p.numel() for p in learner.parameters() if p.requires_grad),
    }
    return [replace(row, **effort) for k, row in enumerate(made) if k in what.rounds(method)]


def table(what: Benchmark, split: str) -> Cell:
    """All methods on one split, written to the results."""
    started = what.folder / "seconds.json"
    with clock(started):
        made = [row for method in what.methods for row in rows(what, method, split)]
    words = f"--seeds {what.seeds} --tasks {what.tasks} --episodes_per_task {what.episodes_per_task} --methods {' '.join(what.methods)}"
    chosen = "" if what.family == "navigation2d" else f"--family {what.family} "
    steps = "" if what.steps is None else f" --steps {what.steps}"
    command = f"python -m benchmarks.rl {chosen}{words}{steps}"
    cell = runs.table(family(what.family), split, made, seconds_so_far(started), command)
    cell.write(what.results / f"{cell.cell}.json")
    return cell


def main(what: Benchmark) -> None:
    for split in family(what.family).test_splits:
        print_table(table(what, split))


if __name__ == "__main__":
    try:
        main(tyro.cli(Benchmark))
    except QuickstudyError as problem:
        console.print(f"[red]{problem}[/]")
        sys.exit(2)
