"""Does `match` know a task that it does not know? How often unknown tasks are taken for known ones, and known for none.

    python -m benchmarks.match_calibration

Twins learn the training tasks of a family, but for one demonstration of each. The log-odds on the most similar known
task, from which on a task counts as known, are chosen on validation tasks and those demonstrations, as `match` does it;
test tasks, which are none of the known ones, say whether that holds. Writes benchmarks/results/match-calibration.json.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from quickstudy import families
from quickstudy.data import DemonstrationSet
from quickstudy.methods.demonstrations.task_similarity import log_odds
from quickstudy.results.evidence import Cell, Row
from quickstudy.results.rows import figures
from quickstudy.results.tables import print_table
from quickstudy.results.task_similarity import calibrated_matcher


@dataclass(frozen=True)
class Calibrations:
    """What to run."""

    families: tuple[str, ...] = ("point-navigation", "grasping", "ml1-push", "ml10-imitation")
    known: int = 200
    """Training tasks."""
    demonstrations: int = 6
    unknown: int = 40
    """Validation tasks."""
    tasks: int = 100
    """Test tasks of each split."""
    output: Path = Path("benchmarks/results/match-calibration.json")


def measure(what: Calibrations, name: str) -> Iterator[Row]:
    """A row for each test split, and one for the known tasks."""
    family = families.get(name)
    tasks = family.tasks("train", min(what.known, family.sizes["train"]))
    known = DemonstrationSet.record(family, tasks, what.demonstrations, 0, for_training=True)
    validation = family.tasks("validation", min(what.unknown, family.sizes["validation"]))
    unknown = DemonstrationSet.record(family, validation, 1, 0, known.scaling).batch
    matcher, embedded, calibration = calibrated_matcher(known, unknown)
    assert calibration is not None
    for split in family.test_splits:
        new = family.tasks(split, min(what.tasks, family.sizes[split]))
        support = DemonstrationSet.record(family, new, 1, 0, known.scaling).batch
        taken = (log_odds(matcher, embedded, support).amax(1) > calibration.threshold).numpy().astype(float)
        groups = [family.task_key(task) for task in new]
        yield Row("taken for a known task", 1, **figures(taken[None], groups), episodes=1, workload=f"{name}, {split}")
    again = DemonstrationSet.record(family, tasks, 1, 1, known.scaling).batch
    found = (log_odds(matcher, embedded, again).amax(1) > calibration.threshold).numpy().astype(float)
    yield Row("known tasks, taken for known", 1, **figures(found[None]), episodes=1, workload=f"{name}, train")


@torch.no_grad()
def main(what: Calibrations) -> None:
    started = time.perf_counter()
    rows = [row for name in what.families for row in measure(what, name)]
    cell = Cell.measured_here(
        cell="match-calibration",
        metric="taken for a known task",
        unit="fraction",
        protocol=(
            "The share of tasks that match takes for a known one after one demonstration: test tasks, of which none is "
            f"known, and new demonstrations of the {what.known} known training tasks; from where on a task counts as "
            f"known is chosen on {what.unknown} validation tasks, of which one in twenty may pass; a share with a 95 % "
            "interval over distinct tasks."
        ),
        command="python -m benchmarks.match_calibration",
        seconds=time.perf_counter() - started,
        rows=rows,
        higher_is_better=False,
    )
    cell.write(what.output)
    print_table(cell)


if __name__ == "__main__":
    main(tyro.cli(Calibrations))
