"""Is the skill of the most similar known task a good start for a new one? Fine-tuning from it, from any, from none.

    python -m benchmarks.match

A matcher ranks the training tasks of grasping by similarity to one demonstration of a held-out object. The pre-trained
network is fine-tuned to the known task on all its demonstrations, and from there, for a few steps, to the held-out
object on that one. The rate of these steps is chosen on validation tasks, for each start and number of steps alone.
Writes benchmarks/results/match.json.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import tyro

from quickstudy.data import DemonstrationSet
from quickstudy.experiment import Experiment
from quickstudy.io.progress import console
from quickstudy.methods.demonstrations.baselines import FineTuneConfig, Transfer
from quickstudy.methods.demonstrations.task_similarity import STEPS, TaskSiamese, starting_skills, train_matcher
from quickstudy.results.evidence import Cell, Row
from quickstudy.results.rows import figures, is_share
from quickstudy.results.tables import print_table
from quickstudy.results.task_similarity import compare_starts

STARTS = ("matched", "random", "pre-trained")
Configs = dict[tuple[str, int], FineTuneConfig]


@dataclass(frozen=True)
class Starts:
    """What to run."""

    family: str = "grasping"
    splits: tuple[str, ...] = ("sizes", "shapes")
    seeds: int = 1
    tasks: int = 100
    episodes: int = 3
    steps: tuple[int, ...] = (0, 5, 20)
    """Of fine-tuning on the one demonstration."""
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    """Of these steps, one of which is chosen on validation tasks."""
    known: FineTuneConfig = field(default_factory=lambda: FineTuneConfig(200, 1e-3))
    """How a known task's skill is made."""
    tuning_tasks: int = 30
    tuning_episodes: int = 2
    matcher_steps: int = STEPS
    training_steps: int | None = None
    """Of the pre-training; the family's default where not given."""
    output_dir: Path = Path("runs/match")
    results: Path = Path("benchmarks/results/match.json")


class Bench:
    """The family, its known tasks, and what one seed learns from them."""

    def __init__(self, what: Starts, known: DemonstrationSet, experiment: Experiment) -> None:
        self.what, self.known, self.seed = what, known, experiment.settings.seed
        self.family = experiment.family
        learner = experiment.train(what.output_dir / f"transfer-seed{self.seed}", source=known)
        assert isinstance(learner, Transfer)
        self.learner: Transfer = learner
        self.matcher: TaskSiamese = train_matcher(known, what.matcher_steps, self.seed)

    def measure(self, split: str, tasks: int, episodes: int, several: list[Configs]) -> list[dict]:
        """For each of `several` ways to fine-tune the metric [task] by start and number of steps."""
        chosen = self.family.tasks(split, tasks)
        support = DemonstrationSet.record(self.family, chosen, 1, self.seed).batch
        starts = starting_skills(self.learner, self.matcher, self.known, support, self.what.known, self.seed)
        return [
            compare_starts(self.learner, self.family, chosen, support, starts, configs, episodes, self.seed)
            for configs in several
        ]

    def tune(self) -> Configs:
        """The best rate of each start and number of steps on validation tasks."""
        what = self.what
        grid = [{(s, k): FineTuneConfig(k, rate) for s in STARTS for k in what.steps if k} for rate in what.rates]
        figures = self.measure("validation", what.tuning_tasks, what.tuning_episodes, grid)
        sign = 1.0 if self.family.higher_is_better else -1.0
        best: Configs = {(s, 0): FineTuneConfig(0) for s in STARTS if 0 in what.steps}
        for key in grid[0]:
            best[key] = grid[int(np.argmax([sign * found[key].mean() for found in figures]))][key]
            console.print(f"{key[0]}, {key[1]} steps: rate {best[key].rate}, chosen on validation tasks")
        return dict(sorted(best.items(), key=lambda item: (STARTS.index(item[0][0]), item[0][1])))


def experiment_of(what: Starts, seed: int) -> Experiment:
    changes = {} if what.training_steps is None else {"training": {"steps": what.training_steps}}
    return Experiment.of(what.family, "transfer", seed, changes)


def measure(what: Starts) -> list[Row]:
    """A row for each split, start and number of steps."""
    known = experiment_of(what, 0).source()
    if not isinstance(known, DemonstrationSet):
        raise TypeError(f"'{what.family}' has no recorded training tasks to match with.")
    found: list[dict[str, dict]] = []
    for seed in range(what.seeds):
        bench = Bench(what, known, experiment_of(what, seed))
        configs = bench.tune()
        found.append({split: bench.measure(split, what.tasks, what.episodes, [configs])[0] for split in what.splits})
    rows, family = [], experiment_of(what, 0).family
    keys = {split: [family.task_key(task) for task in family.tasks(split, what.tasks)] for split in what.splits}
    for split in what.splits:
        for start, steps in found[0][split]:
            values = np.stack([by_split[split][start, steps] for by_split in found])
            rows.append(
                Row(
                    f"from {start}",
                    1,
                    episodes=what.episodes,
                    steps=steps,
                    workload=split,
                    **figures(values, keys[split], is_share(family.metric)),
                )
            )
    return rows


def main(what: Starts) -> None:
    started = time.perf_counter()
    family, rows = experiment_of(what, 0).family, measure(what)
    cell = Cell.measured_here(
        cell="match",
        metric=family.metric,
        unit="fraction" if family.metric == "success" else "",
        protocol=(
            f"Fine-tuning to a held-out task of '{family.name}' from one demonstration and few steps, starting from "
            "the skill of the known training task that is most similar to that demonstration, of a random known task, "
            f"or from the pre-trained network; a known task's skill is {what.known.steps} steps on all its "
            f"demonstrations; {family.protocol}; mean {family.metric} with a 95 % interval over distinct tasks and "
            "seeds."
        ),
        command="python -m benchmarks.match",
        seconds=time.perf_counter() - started,
        rows=rows,
    )
    cell.write(what.results)
    print_table(cell)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(tyro.cli(Starts))
