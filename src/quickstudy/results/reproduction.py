"""Whether a run that was repeated gave the same: bits of the learner, and figures within their intervals."""

from dataclasses import dataclass
from pathlib import Path

import torch

from quickstudy.io import checkpoint, files
from quickstudy.results.evidence import Cell


@dataclass(frozen=True)
class Figure:
    """One figure of a run and of its repetition.

    Attributes:
        what: table, and after how many shots.
        before, now: the two values.
        interval: that of the first one, where it has one.
    """

    what: str
    before: float
    now: float
    interval: tuple[float, float] | None

    @property
    def agrees(self) -> bool:
        """Whether the repetition lies within the interval; without one, whether it is the same."""
        if self.interval is None:
            return self.before == self.now
        return self.interval[0] <= self.now <= self.interval[1]


def same_bits(run: Path, again: Path) -> bool:
    """Whether the best learners of two runs are equal, bit for bit."""
    one, other = (checkpoint.load(folder / "checkpoints/best").tensors for folder in (run, again))
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def figures(run: Path, again: Path) -> list[Figure]:
    """The figures of all tables that both runs have."""
    found = []
    for path in sorted((run / "results").glob("*.json")):
        if not (again / "results" / path.name).exists():
            continue
        one, other = Cell.read(path), Cell.read(again / "results" / path.name)
        now = {(row.method, row.shots): row.value for row in other.rows}
        for row in one.rows:
            value = now.get((row.method, row.shots))
            if row.value is not None and value is not None:
                interval = None if row.ci95 is None else (row.ci95[0], row.ci95[1])
                found.append(Figure(f"{one.cell} after {row.shots} shots", row.value, value, interval))
    return found


def commands(run: Path) -> list[str]:
    """The evaluations that a run's tables came of, as they were typed, each once."""
    paths = sorted((run / "results").glob("*.json"))
    return list(dict.fromkeys(str(files.read_json(path)["command"]) for path in paths))
