"""How long a command takes to answer, as a fresh process, beside bare `import torch`.

    python -m benchmarks.speed_startup

Commands take turns; medians count. Writes benchmarks/results/speed-startup.json.
"""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from quickstudy.results.evidence import Cell, Row
from quickstudy.results.tables import print_table

PEER = "import torch"
COMMANDS = {
    PEER: ["-c", "import torch"],
    "import quickstudy": ["-c", "import quickstudy"],
    "quickstudy --help": ["-m", "quickstudy", "--help"],
    "an unknown command": ["-m", "quickstudy", "trian"],
    "quickstudy families": ["-m", "quickstudy", "families"],
    "quickstudy train grasping --help": ["-m", "quickstudy", "train", "grasping", "--help"],
}


@dataclass(frozen=True)
class What:
    """What is timed."""

    turns: int = 3
    """Turns that count; one more goes before."""


def seconds(arguments: list[str]) -> float:
    """Of one process from its start to its end."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
    return time.perf_counter() - started


def main() -> None:
    what, started = tyro.cli(What), time.perf_counter()
    turns = [{name: seconds(arguments) for name, arguments in COMMANDS.items()} for _ in range(what.turns + 1)][1:]
    rows = [
        Row(
            method=name,
            workload="start-up",
            ms=round(1e3 * float(np.median([turn[name] for turn in turns])), 1),
            ratio=round(float(np.median([turn[PEER] / turn[name] for turn in turns])), 2),
        )
        for name in COMMANDS
    ]
    cell = Cell.measured_here(
        cell="speed-startup",
        metric="seconds to answer",
        unit="",
        protocol=f"A fresh process from its start to its end; median of {what.turns} turns; the ratio is to bare "
        "`import torch` within a turn, higher is faster.",
        command="python -m benchmarks.speed_startup",
        seconds=time.perf_counter() - started,
        rows=rows,
    )
    cell.write(Path("benchmarks/results/speed-startup.json"))
    print_table(cell)


if __name__ == "__main__":
    main()
