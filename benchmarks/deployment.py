"""A learner's last metres: success through library, runtime and socket, episode by episode; latency beside PyTorch.

    python -m benchmarks.deployment --steps 600

Trains short runs of grasping and navigation into build/deployment, exports them, and writes
benchmarks/results/deployment.json (success, and how many episodes end alike) and speed-runtime.json (one thread, the
runtime's checks included, beside eager PyTorch in the same run).
"""

import os
import shlex
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

import quickstudy
import quickstudy_runtime as runtime
from quickstudy.experiment import Experiment
from quickstudy.export.bundle import Precision, export
from quickstudy.results import runs
from quickstudy.results.evidence import Cell, Row
from quickstudy.results.tables import print_table
from quickstudy_runtime import server
from quickstudy_runtime.client import Remote

METHODS = {"grasping": ("maml", "matching", "hypernet"), "navigation": ("matching",)}
SPLITS = {"grasping": "sizes", "navigation": "procedural"}
GUARD = runtime.Guard(margin=100.0)  # nothing is held: the runs are compared, not the guard


@dataclass(frozen=True)
class What:
    """What is measured."""

    steps: int = 600
    """Outer steps of each training."""
    tasks: int = 10
    """Held-out tasks."""
    episodes: int = 3
    """Episodes of each."""
    calls: int = 5000
    """Actions that are timed."""
    results: Path = Path("benchmarks/results")
    """Where the tables go."""


def trained(family: str, method: str, steps: int) -> Path:
    """A short run; one that is there already is taken."""
    folder = Path("build/deployment") / f"{family}-{method}-{steps}"
    if not runs.begun(folder) or not runs.is_finished(folder):
        changes = {
            "training": {"steps": steps, "validate_every": steps},
            "data": {"tasks": 200, "demonstrations": 4, "validation_tasks": 10, "validation_episodes": 1},
        }
        experiment = Experiment.of(family, method, 0, changes)
        runs.train_run(experiment, folder, runs.begun(folder), "python -m benchmarks.deployment")
    return folder


def exported(folder: Path, precision: Precision) -> Path:
    """A bundle of the run, made anew."""
    bundle = folder / f"robot-{precision}.quickstudy"
    bundle.unlink(missing_ok=True)
    return export(folder, bundle, precision).path


def success(family, split: str, what: What, act: Callable[[int], Callable]) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Of each episode [task, episode], where every robot acts for itself."""
    tasks = family.tasks(split, what.tasks)
    robots = [[act(i) for _ in range(what.episodes)] for i in range(what.tasks)]

    def policy(observations: np.ndarray) -> np.ndarray:
        return np.array([[robots[i][j](x) for j, x in enumerate(row)] for i, row in enumerate(observations)])

    return np.asarray(family.run(tasks, what.episodes, policy, seed=0)["success"])


def compared(folder: Path, bundle: Path, name: str, method: str, what: What) -> list[Row]:
    robot, there = quickstudy.load(folder), runtime.load(bundle, GUARD)
    small = runtime.load(exported(folder, "int8"), GUARD)
    family, split = robot.family, SPLITS[name]
    shown = [
        (one.observations, one.actions) for (one,) in family.demonstrate(family.tasks(split, what.tasks), 1, seed=0)
    ]
    served = server.start(there, port=0)
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    address = f"ws://127.0.0.1:{served.socket.getsockname()[1]}"

    def over_the_wire(i: int) -> Callable:
        remote = Remote(address, rest=np.zeros(family.action_size), deadline=5.0)
        remote.adapt([{"observations": shown[i][0], "actions": shown[i][1]}])
        return lambda x: remote.act({"observation": x})

    ways: dict[str, Callable[[int], Callable]] = {
        "library": lambda i: robot.adapt([shown[i]]).act,
        "runtime": lambda i: there.adapt([shown[i]]).act,
        "runtime, weights of 8 bits": lambda i: small.adapt([shown[i]]).act,
        "socket": over_the_wire,
    }
    found = {way: success(family, split, what, act) for way, act in ways.items()}
    served.shutdown()
    thread.join()
    return [
        Row(
            f"{name}, {method}: {way}",
            shots=1,
            value=round(float(values.mean()), 4),
            seeds=1,
            tasks=what.tasks,
            episodes=what.episodes,
            secondary_metrics={
                "as in the library, % of episodes": round(100 * float((values == found["library"]).mean()), 2)
            },
        )
        for way, values in found.items()
    ]


def timed(call: Callable[[], object], times: int) -> np.ndarray:
    """Milliseconds of each call."""
    made = np.zeros(times)
    for i in range(times):
        started = time.perf_counter()
        call()
        made[i] = 1e3 * (time.perf_counter() - started)
    return made


def latency(folder: Path, bundle: Path, name: str, method: str, what: What) -> list[Row]:
    """`act` with all checks, and `adapt` from five demonstrations, beside eager PyTorch."""
    torch.set_num_threads(1)
    robot, there = quickstudy.load(folder), runtime.load(bundle, GUARD)
    family = robot.family
    shown = [(d.observations, d.actions) for d in family.demonstrate(family.tasks(SPLITS[name], 1), 5, seed=0)[0]]
    x = shown[0][0][3]
    ours, theirs = robot.adapt(shown), there.adapt(shown)
    for skill in (ours, theirs):
        timed(lambda skill=skill: skill.act(x), 200)
    calls = {
        "act": (timed(lambda: theirs.act(x), what.calls), timed(lambda: ours.act(x), what.calls // 10)),
        "adapt, 5 demonstrations": (timed(lambda: there.adapt(shown), 50), timed(lambda: robot.adapt(shown), 10)),
    }
    rows = []
    for workload, (fast, eager) in calls.items():
        rows += [
            Row(
                f"{method}: runtime", workload=workload, threads=1, ms=round(float(np.median(fast)), 4),
                ratio=round(float(np.median(eager) / np.median(fast)), 1),
                secondary_metrics={"99.9th percentile, ms": round(float(np.quantile(fast, 0.999)), 3),
                                   "bundle, MB": round(bundle.stat().st_size / 1e6, 2)},
            ),
            Row(f"{method}: PyTorch", workload=workload, threads=1, ms=round(float(np.median(eager)), 4), ratio=1.0),
        ]  # fmt: skip
    return rows


def main(what: What) -> None:
    started, alike, fast = time.perf_counter(), [], []
    for family, methods in METHODS.items():
        for method in methods:
            folder = trained(family, method, what.steps)
            bundle = exported(folder, "float32")
            alike += compared(folder, bundle, family, method, what)
            if family == "grasping":
                fast += latency(folder, bundle, family, method, what)
    command = shlex.join(["python", "-m", "benchmarks.deployment", *sys.argv[1:]])
    seconds = time.perf_counter() - started
    cells = [
        Cell.measured_here(
            cell="deployment",
            metric="success",
            unit="fraction",
            protocol=(
                f"After one demonstration of {what.tasks} held-out tasks, the same starts and noise through the library"
                ", through quickstudy-runtime, with weights of eight bits as well, and through a WebSocket; learners "
                "of a short training of one seed, so that the figures say how alike these are, not how good a learner "
                "gets."
            ),
            command=command,
            seconds=seconds,
            rows=alike,
        ),
        Cell.measured_here(
            cell="speed-runtime",
            metric="milliseconds a call",
            unit="ms",
            protocol=(
                f"One thread; median of {what.calls} actions with all of the runtime's checks and of 50 adaptations "
                "from five demonstrations; the ratio is to eager PyTorch in the same run, higher is faster."
            ),
            command=command,
            seconds=seconds,
            rows=fast,
        ),
    ]
    for cell in cells:
        cell.write(what.results / f"{cell.cell}.json")
        print_table(cell)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(tyro.cli(What))
