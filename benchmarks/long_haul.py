"""Whether memory grows over hours: training, evaluation, demonstrations streamed from disk, rendering environments.

    python -m benchmarks.long_haul                  # an hour of training, 10,000 tasks, 1,000,000 steps
    python -m benchmarks.long_haul --minutes 3      # the same in so much less

Each is a process of its own, which does a tenth of the work before, to be warm. Growth is that of the resident memory
from a tenth of the work on to its end, each the median of a tenth of the readings.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

HOUR = 60.0
TASKS, STEPS, EACH, ENVIRONMENTS = 10_000, 1_000_000, 200, 50
LIMIT = 2.0
"""Per cent that memory may grow by."""
CELL = Path(__file__).parent / "results/long-haul.json"


def resident() -> float:
    """MB of this process in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


class Watch:
    """Reads the resident memory while work is done."""

    def __init__(self, every: float) -> None:
        self.readings: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(every,), daemon=True)

    def _read(self, every: float) -> None:
        while not self._over.wait(every):
            self.readings.append(resident())

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def growth(self) -> tuple[float, float]:
        """Per cent from a tenth of the work on, and MB at the end."""
        tenth = max(1, len(self.readings) // 10)
        begin, end = np.median(self.readings[tenth : 2 * tenth]), np.median(self.readings[-tenth:])
        return 100 * float(end / begin - 1), float(end)


def training(share: float, folder: Path) -> str:
    from quickstudy.experiment import Experiment
    from quickstudy.io.budget import Budget, OutOfTime

    changes = {"training": {"steps": 2000, "batching": "vmap", "validate_every": 200}, "data": {"tasks": 100}}
    experiment, done, budget = Experiment.of("point-navigation", "maml", changes=changes), 0, Budget(60 * HOUR * share)
    source = experiment.source()
    for number in itertools.count():
        with suppress(OutOfTime):
            experiment.train(folder / f"run{number}", source=source, budget=budget)
        done += json.loads((folder / f"run{number}/checkpoints/last/config.json").read_text())["step"]
        if budget.over():
            break
    return f"{done:,} outer steps in {HOUR * share:.3g} minutes, with checkpoints and looks at validation tasks"


def evaluation(share: float, folder: Path) -> str:
    from quickstudy.experiment import Experiment

    experiment, count = Experiment.of("point-navigation", "maml"), max(100, int(TASKS * share))
    result = experiment.evaluate(experiment.build(), "train", shots=[1], tasks=count, episodes=1)
    return f"{len(result.tasks):,} tasks adapted to and run"


def streaming(share: float, folder: Path) -> str:
    from quickstudy import datasets

    steps = max(20_000, int(STEPS * share))

    def episodes() -> Iterator[datasets.Episode]:
        rng = np.random.default_rng(0)
        for i in range(steps // EACH):
            x = rng.normal(size=(EACH, 24)).astype("f4")
            yield datasets.Episode(f"task {i // 20}", x[:, :20], x[:, 20:])

    if not (folder / "set").exists():
        datasets.save(folder / "set", episodes(), datasets.About(20.0), "lerobot")
    seen = sum(len(episode) for episode in datasets.load(folder / "set"))
    return f"{seen:,} steps of a LeRobot data set written and read back"


def rendering(share: float, folder: Path) -> str:
    from quickstudy import families

    family = families.get("grasping")
    tasks = family.tasks("train", 2)
    for _ in range(ENVIRONMENTS):
        env = family.vector_env(tasks, 1, visual=True)
        env.reset([np.random.default_rng(i) for i in range(2)])
        env.render(0, 160, 120)
        env.close()
    return f"{ENVIRONMENTS} environments with a camera made, drawn and closed"


WORK: dict[str, tuple[Callable[[float, Path], str], float]] = {
    "training": (training, 0.5), "evaluation": (evaluation, 0.05), "streaming": (streaming, 0.05),
    "rendering": (rendering, 0.1),
}  # fmt: skip
"""By name: what is done, and the seconds from one reading of the memory to the next."""


def one(name: str, share: float) -> None:
    """Does one kind of work and prints what came of it as a line of JSON."""
    work, every = WORK[name]
    with tempfile.TemporaryDirectory() as warm:
        work(share / 10, Path(warm))
    with tempfile.TemporaryDirectory() as folder, Watch(every) as watch:
        started = time.perf_counter()
        said = work(share, Path(folder))
        seconds = time.perf_counter() - started
    growth, memory = watch.growth()
    print(json.dumps({"said": said, "growth": growth, "memory": memory, "seconds": seconds}))


def main() -> int:
    from quickstudy.results import tables
    from quickstudy.results.evidence import Cell, Row

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=HOUR, help="of training; the other work shrinks by as much")
    parser.add_argument("--only", choices=list(WORK), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    share = chosen.minutes / HOUR
    if chosen.only:
        one(chosen.only, share)
        return 0
    rows, started = [], time.perf_counter()
    for name in WORK:
        words = [sys.executable, "-m", "benchmarks.long_haul", "--minutes", str(chosen.minutes), "--only", name]
        printed = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout
        found = json.loads(printed.strip().splitlines()[-1])
        print(f"{name}: {found['said']}; {found['growth']:+.2f} % to {found['memory']:.0f} MB", flush=True)
        rows.append(
            Row(name, value=round(found["growth"], 2), memory_mb=round(found["memory"], 1), note=f"{found['said']}.")
        )
    cell = Cell.measured_here(
        cell="long-haul", metric="growth", unit="%", rows=rows, seconds=time.perf_counter() - started,
        protocol=(
            "Growth of the resident memory of a process from a tenth of its work on to its end, when all is loaded; "
            f"each kind of work is a process of its own, and at most {LIMIT:g} % is allowed."
        ),
        command=f"python -m benchmarks.long_haul --minutes {chosen.minutes:g}",
        higher_is_better=False,
    )  # fmt: skip
    cell.write(CELL)
    tables.print_table(cell)
    return 1 if any(row.value > LIMIT for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
