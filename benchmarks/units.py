"""Do degrees and radians train alike? The same recordings in two units, and somewhere on Earth.

    python -m benchmarks.units

An arm's three joints go towards a hidden goal of each task, by joint targets, as LeRobot's arms record them. Errors are
in degrees squared whatever the data came in; 'as recorded' learns in the units of the data, as before they were scaled.
Writes benchmarks/results/units.json.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from quickstudy import families
from quickstudy.data import DemonstrationSet
from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.experiment import Experiment
from quickstudy.io.progress import console
from quickstudy.results.evidence import Cell, Row
from quickstudy.results.rows import figures
from quickstudy.results.tables import print_table

_DEGREE = math.pi / 180

UNITS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "degrees": lambda x: x,
    "radians": lambda x: _DEGREE * x,
    "degrees from a far origin": lambda x: x + 5572094.0,
}
"""What becomes of degrees."""


@dataclass(frozen=True)
class Units:
    """What to run."""

    methods: tuple[str, ...] = ("maml", "meta-sgd", "reptile", "hypernet", "matching")
    tasks: int = 60
    """Of all splits together."""
    demonstrations: int = 6
    steps: int = 300
    seeds: int = 3
    output: Path = Path("benchmarks/results/units.json")


def recordings(what: Units) -> tuple[list[np.ndarray], list[np.ndarray], list[str]]:
    """Joint angles and targets in degrees of all demonstrations, and the task of each."""
    rng = np.random.default_rng(0)
    seen, did, labels = [], [], []
    for task in range(what.tasks):
        goal = rng.uniform(-60, 60, 3)
        for _ in range(what.demonstrations):
            now, x, y = rng.uniform(-60, 60, 3), [], []
            for _ in range(20):
                target = now + 0.3 * (goal - now)
                x.append(now)
                y.append(target)
                now = target + rng.normal(0, 0.3, 3)
            seen.append(np.array(x))
            did.append(np.array(y))
            labels.append(f"reach {task}")
    return seen, did, labels


def measure(what: Units, method: str, unit: str, scaled: bool = True) -> np.ndarray:
    """Errors after one demonstration, in degrees squared, [seed, task]."""
    seen, did, labels = recordings(what)
    convert = UNITS[unit]
    shown = [Demonstration(convert(x), convert(y)) for x, y in zip(seen, did, strict=True)]
    family = families.from_demonstrations(shown, labels, name="arm")
    changes = {"training": {"steps": what.steps, "validate_every": what.steps, "batching": "vmap"}}
    found = []
    for seed in range(what.seeds):
        experiment = Experiment.of(family, method, seed, changes)
        source = experiment.source()
        assert isinstance(source, DemonstrationSet)
        learner = experiment.train(source=source if scaled else source.unscaled())
        result = experiment.evaluate(learner, "test", shots=[1], seed=seed)
        found.append(result.metrics["error"][0].mean(-1))
    return np.stack(found) / (_DEGREE**2 if unit == "radians" else 1.0)


def rows_of(what: Units) -> Iterator[Row]:
    """A row for each method and unit, scaled and as recorded."""
    for method in what.methods:
        for unit in UNITS:
            console.print(f"{method}, {unit}")
            yield Row(method, 1, **figures(measure(what, method, unit), shares=False), episodes=2, workload=unit)
        for unit in ("degrees", "radians"):
            workload = f"{unit}, as recorded"
            try:
                values = figures(measure(what, method, unit, scaled=False), shares=False)
                yield Row(method, 1, **values, episodes=2, workload=workload)
            except QuickstudyError as error:
                yield Row(method, 1, workload=workload, note=str(error).split(":")[0] + ": not finite")


def main(what: Units) -> None:
    started = time.perf_counter()
    rows = list(rows_of(what))
    cell = Cell.measured_here(
        cell="units",
        metric="error",
        unit="degrees squared",
        protocol=(
            f"{what.tasks} tasks of an arm of three joints that goes towards a hidden goal, {what.demonstrations} "
            "demonstrations each, recorded in degrees, in radians, and in degrees from an origin 5,572,094 away; the "
            "mean squared error of joint targets on held-out tasks after one demonstration, in degrees squared "
            f"whatever the unit, with a 95 % interval over tasks and seeds; {what.steps} outer steps; 'as recorded' is "
            "without the scale of the training demonstrations"
        ),
        command="python -m benchmarks.units",
        seconds=time.perf_counter() - started,
        rows=rows,
        higher_is_better=False,
    )
    cell.write(what.output)
    print_table(cell)


if __name__ == "__main__":
    main(tyro.cli(Units))
