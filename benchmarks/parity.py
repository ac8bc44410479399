"""Every method as graphs: how far from PyTorch, how large, how fast.

    python -m benchmarks.parity

Trains each method that a robot can use for a few outer steps, exports it as `quickstudy export` does, and writes
benchmarks/results/parity.json. How good the learners are does not matter here.
"""

import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import tyro

from quickstudy import families, methods
from quickstudy.data import Source
from quickstudy.errors import QuickstudyError
from quickstudy.experiment import Experiment
from quickstudy.export.bundle import export
from quickstudy.method import Method
from quickstudy.results import runs
from quickstudy.results.evidence import Cell, Row
from quickstudy.results.tables import print_table

FAMILIES = ("grasping", "ml1-push")
"""Where a method is tried: the first of these that it suits."""
DEMONSTRATED = {
    "training": {"steps": 20, "validate_every": 20},
    "data": {"tasks": 40, "demonstrations": 4, "validation_tasks": 2, "validation_episodes": 1},
}
BY_TRIAL = {
    "training": {"steps": 1, "validate_every": 1, "meta_batch": 2, "episodes_per_task": 2, "validation_tasks": 2}
}


@dataclass(frozen=True)
class What:
    """What is measured."""

    methods: tuple[str, ...] = ()
    """All that can be exported by default."""
    results: Path = Path("benchmarks/results")
    """Where the table goes."""


def measured(record: Method, sources: dict[tuple[str, str], Source | None]) -> Row | None:
    """One method's row; None where it cannot be exported, which is said."""
    name = next((name for name in FAMILIES if not record.why_not(families.get(name))), None)
    if name is None:
        print(f"{record.name}: suits neither of {', '.join(FAMILIES)}")
        return None
    by_trial = record.learns_from == "trials"
    experiment = Experiment.of(name, record, 0, BY_TRIAL if by_trial else DEMONSTRATED)
    with TemporaryDirectory() as place:
        folder = Path(place) / record.name
        key = (name, record.uses)
        if not by_trial and key not in sources:
            sources[key] = experiment.source()
        experiment.train(folder, source=None if by_trial else sources[key])
        if not by_trial:
            runs.save_example(experiment.family, folder)
        try:
            made = export(folder, folder / "it.quickstudy")
        except QuickstudyError as error:
            print(error)
            return None
    found = made.parity
    beside = {} if found.adapt is None else {"skill off by, 1e-6": round(1e6 * found.adapt, 3)}
    return Row(
        record.name,
        ms=None if found.adapt_ms is None else round(found.adapt_ms, 3),
        act_ms=round(found.act_ms, 4),
        secondary_metrics=beside
        | {"actions off by, 1e-6": round(1e6 * found.act, 3), "bundle, MB": round(made.size / 1e6, 3)},
        learns_from=record.learns_from,
        note="" if name == FAMILIES[0] else f"on {name}",
    )


def main(what: What) -> None:
    started, sources = time.perf_counter(), {}
    named = [methods.get(name) for name in what.methods or methods.names()]
    rows = [row for record in named if (row := measured(record, sources)) is not None]
    cell = Cell.measured_here(
        cell="parity",
        metric="milliseconds to adapt",
        unit="ms",
        protocol=(
            "Each method that can be exported, with its default settings on grasping unless a row says otherwise, "
            "after a few outer steps: the largest difference between ONNX Runtime and PyTorch in a skill adapted to "
            "one demonstration and to three, and in 1,000 actions one after the other, in units of the largest number "
            "of a tensor, at least 1; milliseconds to adapt to three demonstrations and to act, one thread, the "
            "graphs alone."
        ),
        command=shlex.join(["python", "-m", "benchmarks.parity", *sys.argv[1:]]),
        seconds=time.perf_counter() - started,
        rows=rows,
    )
    cell.write(what.results / f"{cell.cell}.json")
    print_table(cell)


if __name__ == "__main__":
    main(tyro.cli(What))
