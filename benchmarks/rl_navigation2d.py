"""2D point navigation by trial and reward: every method, trained and tested on goals that it never saw.

    python -m benchmarks.rl_navigation2d
    python -m benchmarks.rl_navigation2d --methods maml-trpo rl2 --seeds 1

Each learner is what training ended with, not the best of what it went through. What is finished is never run again and
what was interrupted goes on, so the same command may be given again and again, with more methods or seeds. Writes
benchmarks/results/rl-navigation2d.json.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro

from quickstudy import checkpoint
from quickstudy.compare import TRAINING_SECONDS, clock, seconds_so_far
from quickstudy.evaluate import Evaluation
from quickstudy.progress import console
from quickstudy.results import Row, print_table
from quickstudy.rl import runs
from quickstudy.rl.evaluate import evaluate_trials
from quickstudy.rl.methods import METHODS, PRETRAINED_AS, UNTRAINED, build, defaults, family

ROUNDS = {
    "scratch": (0, 1, 3, 10, 30),
    "transfer": (0, 1, 3, 10, 30),
    "reptile-ppo": (0, 1, 3, 10),
    "matched": (0, 1, 3, 10),
    "domain-randomisation": (0,),
    "oracle": (0,),
}
"""The rounds that the table shows, for methods other than 0 to 3."""


@dataclass(frozen=True)
class Navigation:
    """What to run."""

    methods: tuple[str, ...] = tuple(METHODS)
    family: str = "navigation2d"
    seeds: int = 3
    tasks: int = 40
    """Held-out tasks."""
    lanes: int = 20
    """Episodes of each task in a round: the paper's 20 trajectories an update."""
    steps: int | None = None
    """Outer steps of every training; the method's default where not given."""
    output_dir: Path = Path("runs/rl-navigation2d")
    results: Path = Path("benchmarks/results/rl-navigation2d.json")


def evaluation(what: Navigation, method: str, seed: int) -> Evaluation:
    """Of one method and seed; trains it first where that is still to do."""
    path = what.output_dir / f"{method}-seed{seed}" / f"test-{what.tasks}x{what.lanes}.json"
    if path.exists():
        return Evaluation.load(path)
    of = family(what.family)
    parent = PRETRAINED_AS.get(method, method)
    settings = defaults(what.family, parent, seed)
    if what.steps is not None:
        settings = replace(settings, training=replace(settings.training, steps=what.steps))
    folder = what.output_dir / f"{parent}-seed{seed}"
    if runs.train(settings, of, folder).interrupted:
        raise KeyboardInterrupt
    learner = build(replace(settings, method=method), of)
    last = folder / "checkpoints/last"
    checkpoint.load_into(learner, checkpoint.load(last).tensors, str(last))
    result = evaluate_trials(learner, of, "test", max(ROUNDS.get(method, (3,))), what.tasks, what.lanes, seed)
    result.save(path)
    by_round = result.metrics[of.metric].mean((1, 2))
    console.print(f"{method}, seed {seed}: " + ", ".join(f"{value:.2f}" for value in by_round))
    return result


def rows(what: Navigation, method: str) -> list[Row]:
    """The table's lines of one method."""
    evaluations = [evaluation(what, method, seed) for seed in range(what.seeds)]
    of, parent = family(what.family), PRETRAINED_AS.get(method, method)
    learner = build(defaults(what.family, method), of)
    made = runs.trial_rows(method, of, evaluations, learner.pools)
    folders = [what.output_dir / f"{parent}-seed{seed}" for seed in range(what.seeds)]
    trained = float(np.mean([seconds_so_far(folder / TRAINING_SECONDS) for folder in folders]))
    shown = ROUNDS.get(method, tuple(range(len(made))))
    effort = {
        "training_s": round(trained, 1) or None,
        "parameters": None if method in UNTRAINED else sum(p.numel() for p in learner.parameters() if p.requires_grad),
    }
    return [replace(row, **effort) for k, row in enumerate(made) if k in shown]


def main(what: Navigation) -> None:
    started = what.output_dir / "seconds.json"
    with clock(started):
        made = [row for method in what.methods for row in rows(what, method)]
    words = " ".join(what.methods)
    cell = runs.table(
        family(what.family),
        "test",
        made,
        seconds_so_far(started),
        f"python -m benchmarks.rl_navigation2d --seeds {what.seeds} --methods {words}"
        + (f" --steps {what.steps}" if what.steps is not None else ""),
    )
    cell.write(what.results)
    print_table(cell)


if __name__ == "__main__":
    main(tyro.cli(Navigation))
