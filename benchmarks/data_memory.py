"""Peak memory of 10,000 episodes (2,000,000 steps of 40 + 4 numbers): written, looked through, made a family.

    python -m benchmarks.data_memory                     # LeRobot; --format minari, npz or csv
    python -m benchmarks.data_memory --episodes 1000     # a shorter look

Each of the three is a process of its own; what is printed is its peak resident memory and what its imports took of it.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

STEPS, OBSERVATION, ACTION, EACH = 200, 40, 4, 20
LIMIT_MB = 2048


def episodes(count: int) -> Iterator["datasets.Episode"]:
    rng = np.random.default_rng(0)
    for i in range(count):
        x = rng.normal(size=(STEPS, OBSERVATION + ACTION)).astype("f4")
        yield datasets.Episode(f"task {i // EACH}", x[:, :OBSERVATION], x[:, OBSERVATION:])


def megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def step(what: str, path: Path, format: str, count: int) -> None:
    before, started = megabytes(), time.perf_counter()
    if what == "write":
        datasets.save(path, episodes(count), datasets.About(20.0), format)
    elif what == "inspect":
        assert len(inspect(path).lengths) == count
    else:
        assert sum(families.from_dataset(path).sizes.values()) == count // EACH
    peak, seconds = megabytes(), time.perf_counter() - started
    print(f"{format} {what}: {peak:.0f} MB ({before:.0f} of it imports), {seconds:.0f} s", flush=True)
    if peak > LIMIT_MB:
        sys.exit(f"That is more than {LIMIT_MB} MB.")


if __name__ == "__main__":
    from quickstudy import datasets, families
    from quickstudy.datasets.inspection import inspect

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--format", default="lerobot", choices=list(datasets.FORMATS))
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.step:
        step(chosen.step[0], Path(chosen.step[1]), chosen.format, chosen.episodes)
        sys.exit()
    with tempfile.TemporaryDirectory() as folder:
        place = f"{folder}/d.{chosen.format}" if chosen.format in ("npz", "csv") else f"{folder}/d"
        for what in ("write", "inspect", "family"):
            again = [sys.executable, "-m", "benchmarks.data_memory", "--step", what, place]
            subprocess.run([*again, "--format", chosen.format, "--episodes", str(chosen.episodes)], check=True)
