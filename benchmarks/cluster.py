"""What sharing work over processes costs and gains, and a model of it for 1 to 1,000 workers.

    python -m benchmarks.cluster            some minutes on idle cores
    python -m benchmarks.cluster --short    the same with few turns, to see that it runs

Starts a Ray cluster of this machine's cores. What is compared takes turns, so that a busy machine disturbs all alike.
Writes benchmarks/results/cluster.json.
"""

import functools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
import tyro

from benchmarks.speed_outer_step import W1
from quickstudy.cluster.connection import ClusterConfig, connected
from quickstudy.cluster.meeting import enter, opened
from quickstudy.cluster.pool import Hand
from quickstudy.cluster.recording import recorded_by
from quickstudy.data import SupportQuery, recorded
from quickstudy.experiment import Experiment
from quickstudy.methods.trials.outer_loop import TrialSteps
from quickstudy.results.compare import compare
from quickstudy.results.evidence import Cell, Row
from quickstudy.results.tables import print_table
from quickstudy.settings import TrainConfig
from quickstudy.train import DemonstrationSteps

SIZES = (1, 2, 4)
MODEL = (1, 2, 4, 8, 16, 32, 100, 1000)
MESSAGES = (2**10, 2**20, 2**24)
"""Bytes of the all-reduces that latency and bandwidth are fitted to."""


@dataclass(frozen=True)
class What:
    """How much is measured."""

    short: bool = False
    """Few turns of small work."""


class Fixed:
    """A source that always gives the meta-batch of W1."""

    batch = None

    def __init__(self) -> None:
        self.meta_batch = W1.meta_batch()

    def sample(self, rng: torch.Generator, tasks: int, shots: int, queries: int) -> SupportQuery:
        return self.meta_batch

    def names(self) -> list[str]:
        return [f"task {i}" for i in range(W1.tasks)]


class Member:
    """A process that does nothing but all-reduces."""

    def meet(self, size: int) -> tuple[str, int]:
        self.store, host, port = opened(size, 300.0)
        return host, port

    def join(self, rank: int, size: int, host: str, port: int) -> None:
        enter(self.store if rank == 0 else None, rank, size, host, port, 300.0)

    def reduce(self, size: int, turns: int) -> float:
        """Median seconds of an all-reduce of so many bytes."""
        flat, times = torch.zeros(size // 4), []
        for _ in range(turns):
            started = time.perf_counter()
            torch.distributed.all_reduce(flat)
            times.append(time.perf_counter() - started)
        return statistics.median(times)

    def take(self, weights: Any) -> int:
        return len(weights)


@contextmanager
def cores(count: int) -> Iterator[None]:
    """This process on so many cores, with as many threads."""
    before, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, sorted(before)[:count])
    torch.set_num_threads(count)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
        torch.set_num_threads(threads)


def seconds(action: Callable[[], Any]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def rows_of(workload: str, ways: dict[str, Callable[[], float]], turns: int, note: str = "") -> list[Row]:
    """A row for each way, which gives seconds; the ratio is to the first one within a turn."""
    measured = [{name: way() for name, way in ways.items()} for _ in range(turns)]
    first = next(iter(ways))
    return [
        Row(
            method=name,
            workload=workload,
            ms=round(1e3 * statistics.median(turn[name] for turn in measured), 3),
            ratio=round(statistics.median(turn[first] / turn[name] for turn in measured), 3),
            note=note,
        )
        for name in ways
    ]


def outer_steps(turns: int) -> tuple[list[Row], dict[int, dict[str, float]]]:
    """W1 in this process, and on 1, 2 and 4 workers; and where the time of a worker's step went."""
    config = TrainConfig(steps=100, meta_batch=W1.tasks, validate_every=1000)
    rng, plain = torch.Generator().manual_seed(0), DemonstrationSteps(W1.learner(), Fixed(), config)
    number, each = iter(range(1, 10**6)), turns

    def some(steps: Any, threads: int) -> float:
        with cores(threads):
            return seconds(lambda: [steps.step(rng, next(number)) for _ in range(each)]) / each

    ways: dict[str, Callable[[], float]] = {"one process, 1 thread": lambda: some(plain, 1)}
    if (os.cpu_count() or 1) > 1:
        ways["one process, 2 threads"] = lambda: some(plain, 2)
    groups: dict[int, Any] = {}
    with connected(ClusterConfig()) as cluster:
        for size in SIZES:
            steps = cluster.demonstration_steps(W1.learner(), Fixed(), config)
            steps.group.wanted = size
            groups[size] = steps
            name = f"{size} worker{'s' if size > 1 else ''}"
            ways[name] = functools.partial(some, steps, os.cpu_count() or 1)
        for way in ways.values():
            way()
        for steps in groups.values():
            steps.group.call("parts", what="the parts")
        rows = rows_of("W1 step", ways, turns)
        parts = {}
        for size, steps in groups.items():
            found = steps.group.call("parts", what="the parts")
            done = turns * each
            parts[size] = {
                "compute": statistics.mean(p.compute_s for p in found) / done,
                "reduce": statistics.mean(p.reduce_s for p in found) / done,
                "bytes": found[0].bytes / done,
            }
    return rows, parts


def messages(turns: int) -> tuple[list[Row], float, float]:
    """All-reduces of 2 and 4 workers, the broadcast of weights, an empty call; and the latency and bandwidth."""
    rows, latency, bandwidth = [], [], []
    members = [ray.remote(num_cpus=0)(Member).remote() for _ in range(4)]
    weights = W1.learner().state_dict()

    def broadcast() -> None:
        sent = ray.put(weights)
        ray.get([one.take.remote(sent) for one in members])

    for _ in range(2):
        broadcast()
    rows.append(
        _row(
            "an empty call of a worker",
            [seconds(lambda: ray.get(members[0].take.remote(()))) for _ in range(10 * turns)],
        )
    )
    size = sum(t.numel() * t.element_size() for t in weights.values())
    rows.append(
        _row(f"broadcast of {size / 1e3:.0f} kB of weights to 4", [seconds(broadcast) for _ in range(3 * turns)])
    )
    for count in (2, 4):
        host, port = ray.get(members[0].meet.remote(count))
        ray.get([one.join.remote(i, count, host, port) for i, one in enumerate(members[:count])])
        for message in MESSAGES:
            taken = max(ray.get([one.reduce.remote(message, 5 * turns) for one in members[:count]]))
            rows.append(_row(f"all-reduce of {message / 1024:.0f} KiB over {count}", [taken]))
            if message == MESSAGES[0]:
                latency.append(taken / (2 * (count - 1)))
            if message == MESSAGES[-1]:
                bandwidth.append(2 * (count - 1) * message / count / taken)
    for one in members:
        ray.kill(one)
    return rows, statistics.mean(latency), statistics.mean(bandwidth)


def _row(name: str, times: Sequence[float]) -> Row:
    return Row(method=name, workload="parts", ms=round(1e3 * statistics.median(times), 3))


def reduce_s(size: int, bytes_: float, latency: float, bandwidth: float) -> float:
    """A ring all-reduce: 2 (n - 1) messages one after the other, each of 1 / n of the bytes."""
    return 2 * (size - 1) * (latency + bytes_ / size / bandwidth)


def model(
    compute: float,
    fixed: float,
    call: float,
    bytes_: float,
    latency: float,
    bandwidth: float,
    tasks: int,
    have: int | None = None,
) -> Callable[[int], float]:
    """Seconds of a step with n workers, each on a core of its own, or all on `have` cores.

    The largest share of the tasks, what every worker does (sampling, the optimiser), a call for each worker, and the
    all-reduce.
    """

    def step(size: int) -> float:
        largest = -(-tasks // size) / tasks * compute * (1 if have is None else max(1.0, size / have))
        return largest + fixed + call * size + (reduce_s(size, bytes_, latency, bandwidth) if size > 1 else 0.0)

    return step


def modelled(
    rows: Sequence[Row], parts: dict[int, dict[str, float]], pieces: Sequence[Row], latency: float, bandwidth: float
) -> list[Row]:
    """What the model says beside what was measured, and for more workers than there are here."""
    measured = {row.method: row.ms / 1e3 for row in rows if row.ms is not None}
    one, call = measured["1 worker"], (pieces[0].ms or 0.0) / 1e3
    compute = parts[1]["compute"]
    args = compute, max(0.0, one - compute - call), call, parts[2]["bytes"], latency, bandwidth
    here = model(*args, tasks=W1.tasks, have=os.cpu_count() or 1)
    made = []
    for size in (2, 4):
        said, was = here(size), measured[f"{size} workers"]
        note = f"measured {1e3 * was:.1f} ms, off by {100 * (said / was - 1):+.0f} %"
        made.append(Row(method=f"{size} workers, on these cores", workload="model", ms=round(1e3 * said, 2), note=note))
    for tasks in (W1.tasks, 1000):
        scaled = compute * tasks / W1.tasks, *args[1:]
        far = model(*scaled, tasks=tasks)
        for size in MODEL:
            if size <= tasks:
                note = f"efficiency {100 * far(1) / size / far(size):.0f} %"
                name = f"{size} workers, a core each, {tasks} tasks"
                made.append(
                    Row(
                        method=name,
                        workload="model",
                        ms=round(1e3 * far(size), 2),
                        ratio=round(far(1) / far(size), 2),
                        note=note,
                    )
                )
    return made


def recording(cluster: Any, tasks: int, turns: int) -> list[Row]:
    """Demonstrations of grasping."""
    family = Experiment.of("grasping", "maml").family
    chosen = family.tasks("train", tasks)

    def alone(count: int) -> float:
        with cores(count):
            return seconds(lambda: recorded(family, chosen, 2, 0))

    def shared() -> float:
        return seconds(lambda: recorded_by(pool, 2, family, chosen, 2, 0))

    pool = cluster.pool(Hand)
    shared()
    rows = rows_of("recording", _ways(alone, shared), turns)
    pool.close()
    return rows


def trials(cluster: Any, tasks: int, turns: int) -> list[Row]:
    """The experience of MAML's outer step in grasping."""
    made = Experiment.of("grasping", "maml-trpo", 0, {"training": {"meta_batch": tasks, "episodes_per_task": 10}})
    training, learner = made.settings.training, made.build()
    shared, rng = cluster.trial_steps(made.build(), made.family, training), torch.Generator().manual_seed(0)
    chosen = made.family.tasks("train", tasks)

    def alone(count: int) -> float:
        with cores(count), made.family.vector_env(chosen, training.episodes_per_task) as env:
            return seconds(lambda: learner.experience(env, rng))

    def elsewhere() -> float:
        return seconds(lambda: shared._collected(learner, chosen, rng))

    elsewhere()
    rows = rows_of("trials", _ways(alone, elsewhere), turns)
    whole = TrialSteps(learner, made.family, training)
    number = iter(range(1, 10**6))

    def step(count: int) -> float:
        with cores(count):
            return seconds(lambda: whole.step(rng, next(number)))

    rows += rows_of("outer step by trial", _ways(step, lambda: seconds(lambda: shared.step(rng, next(number)))), turns)
    shared.close()
    return rows


def comparison(cluster: Any, steps: int) -> list[Row]:
    """Two trainings with their evaluations, of two seeds each; the start of processes is a part of it."""
    changes = {"training": {"steps": steps, "validate_every": steps}}

    def experiment_for(method: Any, seed: int) -> Experiment:
        return Experiment.of("sinusoid", method, seed, changes)

    def whole(machines: Any, count: int) -> float:
        def run() -> None:
            where = Path(folder) / "c"
            asked = {"seeds": 2, "shots": (1,), "tasks": 100, "experiment_for": experiment_for, "machines": machines}
            compare("sinusoid", ("maml", "fomaml"), folder=where, **asked)

        with tempfile.TemporaryDirectory() as folder, cores(count):
            return seconds(run)

    return rows_of(
        "comparison", _ways(lambda count: whole(None, count), lambda: whole(cluster, os.cpu_count() or 1)), 1
    )


def _ways(alone: Callable[[int], float], shared: Callable[[], float]) -> dict[str, Callable[[], float]]:
    return {
        "one process, 1 core": lambda: alone(1),
        "one process, 2 cores": lambda: alone(2),
        "2 workers": shared,
    }


def main() -> None:
    what, started = tyro.cli(What), time.perf_counter()
    turns = 2 if what.short else 7
    load = os.getloadavg()[0]
    # Room for all groups at once, which take turns.
    ray.init(address="local", num_cpus=16, include_dashboard=False, log_to_driver=False, logging_level="CRITICAL")
    steps, parts = outer_steps(turns)
    pieces, latency, bandwidth = messages(turns)
    rows = [*steps, *pieces]
    for size, found in parts.items():
        note = f"{found['bytes'] / 1e3:.0f} kB reduced" if size > 1 else ""
        for name in ("compute", "reduce"):
            row = Row(method=f"{name}, a worker of {size}", workload="parts", ms=round(1e3 * found[name], 3), note=note)
            rows.append(row)
    rows += modelled(steps, parts, pieces, latency, bandwidth)
    busy = (
        f" Other work kept {load:.0f} cores busy when it began: to be measured again on idle ones." if load > 1 else ""
    )

    def write() -> None:
        """What is measured so far, so that a benchmark that is stopped leaves it."""
        cell = Cell.measured_here(
            cell="cluster",
            metric="ms",
            unit="",
            protocol=f"Medians of {turns} turns; the ratio is to one process on one core in a turn, higher is faster. "
            f"Latency {1e6 * latency:.0f} us a message, bandwidth {bandwidth / 1e9:.2f} GB/s, both of loopback.{busy}",
            command="python -m benchmarks.cluster" + (" --short" if what.short else ""),
            seconds=time.perf_counter() - started,
            rows=rows,
        )
        cell.write(Path("benchmarks/results/cluster.json"))
        print_table(cell)

    write()
    with connected(ClusterConfig(workers=2)) as cluster:
        rows += recording(cluster, 16 if what.short else 100, turns)
        write()
        rows += trials(cluster, 4 if what.short else 20, turns)
        write()
        rows += comparison(cluster, 100 if what.short else 3000)
        write()
    ray.shutdown()


if __name__ == "__main__":
    main()
