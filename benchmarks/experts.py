"""How often the grasping expert succeeds, by arm and shape: what a demonstration can be had of.

    python -m benchmarks.experts

Writes benchmarks/results/grasping-experts.json.
"""

import itertools
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from quickstudy import families
from quickstudy.families.grasping.family import HELD_OUT_SHAPES, TRAIN_SHAPES, Grasping
from quickstudy.results.evidence import Cell, Row
from quickstudy.results.rows import figures
from quickstudy.results.tables import print_table
from quickstudy.task import Task

SPLITS = {"train": TRAIN_SHAPES, "sizes": TRAIN_SHAPES, "shapes": HELD_OUT_SHAPES}


@dataclass(frozen=True)
class Experts:
    """What to run."""

    arms: tuple[str, ...] = ("grasping", "grasping-panda")
    tasks: int = 60
    """Of each shape and split."""
    results: Path = Path("benchmarks/results/grasping-experts.json")


def of_shape(family: Grasping, split: str, shape: str, count: int) -> list[Task]:
    """The first tasks of a split with this shape."""
    drawn = (family.task(split, index) for index in range(family.sizes[split]))
    return list(itertools.islice((task for task in drawn if task.parameters["shape"] == shape), count))


def measure(family: Grasping, what: Experts) -> list[Row]:
    rows = []
    for split, shapes in SPLITS.items():
        for shape in shapes:
            tasks = of_shape(family, split, shape, what.tasks)
            success = family.run_expert(tasks, 1, seed=0)["success"]
            found = figures(success.T)
            names = ("value", "ci95", "tasks", "distinct_tasks", "scores")
            where = f"{shape.replace('_', ' ')}, {split}"
            rows.append(Row(family.name, episodes=1, workload=where, **{name: found[name] for name in names}))
    return rows


def main(what: Experts) -> None:
    started, rows = time.perf_counter(), []
    for name in what.arms:
        family = families.get(name)
        assert isinstance(family, Grasping)
        rows += measure(family, what)
        protocol = family.protocol
    cell = Cell.measured_here(
        cell="grasping-experts",
        metric="success",
        unit="fraction",
        protocol=(
            "The scripted expert, which knows what is hidden, with each arm and shape of object; "
            f"{protocol}; 'sizes' and 'shapes' are the held-out splits."
        ),
        command="python -m benchmarks.experts",
        seconds=time.perf_counter() - started,
        rows=rows,
    )
    cell.write(what.results)
    print_table(cell)


if __name__ == "__main__":
    main(tyro.cli(Experts))
