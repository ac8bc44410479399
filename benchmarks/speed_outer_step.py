"""How fast an outer step of second-order MAML is, beside learn2learn, JAX and the bare matrix products of that step.

    python -m benchmarks.speed_outer_step

Everything that is compared runs in one process, turn by turn, so that a busy machine disturbs all alike; each pair of
workload and number of threads has a process of its own. Every gradient is checked against learn2learn's, or where that
is not there against a plain loop, before anything is timed. benchmarks/README.md says how to get the peers.
"""

import importlib
import multiprocessing
import os
import re
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from quickstudy.batching import OuterStep, _points, _split, threads_for
from quickstudy.compilation.written_out import WrittenOutPass
from quickstudy.data import Batch, SupportQuery
from quickstudy.learner import BaseLearner
from quickstudy.methods.demonstrations.maml import MAML, MAMLConfig
from quickstudy.nets import MLP
from quickstudy.results.evidence import Cell, Row
from quickstudy.results.tables import print_table

PEERS = Path("build/peers")
ROUNDS = 25
SECONDS_A_TURN = 0.02
"""A turn repeats what is timed until about this long has passed."""

AFTER_THE_START = 100
"""A step that is written out already, and not compiled yet."""

LONG_RUN = 10**9
"""Steps: enough for 'auto' to compile."""

RATE = 0.01


@dataclass(frozen=True)
class Workload:
    """One outer step: `tasks` tasks of `points` support and `points` query pairs, one inner step, squared error."""

    name: str
    inputs: int
    hidden: tuple[int, ...]
    outputs: int
    tasks: int
    points: int

    def learner(self) -> MAML:
        torch.manual_seed(0)
        return MAML(BaseLearner(MLP(self.inputs, self.outputs, self.hidden), self.inputs), MAMLConfig(1, RATE))

    def meta_batch(self) -> SupportQuery:
        rng = torch.Generator().manual_seed(1)
        return SupportQuery(self._set(rng), self._set(rng))

    def _set(self, rng: torch.Generator) -> Batch:
        shape = (self.tasks, 1, self.points)
        x = torch.randn(*shape, self.inputs, generator=rng)
        y = torch.randn(*shape, self.outputs, generator=rng)
        return Batch(x, y, torch.ones(shape), torch.zeros(self.tasks, 0))


W1 = Workload("W1", 39, (256, 256), 4, 32, 250)
W2 = Workload("W2", 1, (40, 40), 1, 25, 10)
CONDITIONS = ((W1, 2), (W2, 2), (W2, 1))

Step = Callable[[], Sequence[Tensor] | None]
"""One outer step; the mean meta-gradient in the order of the learner's parameters."""


# ---- what is compared


def quickstudy(workload: Workload, number: int = 1, **options: Any) -> Step:
    """The step that a training makes as its `number`-th; the first ones are left to autograd."""
    learner, batch = workload.learner(), workload.meta_batch()
    outer = OuterStep(learner, **options)

    def step() -> list[Tensor]:
        outer(batch, number)
        return [p.grad for p in learner.parameters()]

    return step


def bare_products(workload: Workload, at_once: int) -> Step:
    """The matrix products of the step with `at_once` tasks in one pass, nothing else, into memory that is there.

    They get as many threads as the step itself.
    """
    learner, batch = workload.learner(), workload.meta_batch()
    part, *others = _split(batch, at_once)
    graph = WrittenOutPass(learner, at_once > 1, part).graph
    work = _points(batch) * sum(p.numel() for p in learner.parameters())
    products = []
    for node in graph.graph.nodes:
        name = getattr(node.target, "__name__", "")
        if name in ("mm.default", "addmm.default", "bmm.default"):
            left, right = (_like(factor.meta["tensor_meta"]) for factor in node.args[-2:])
            multiply = torch.bmm if name == "bmm.default" else torch.mm
            products.append((multiply, left, right, torch.matmul(left, right)))

    def step() -> None:
        with threads_for(work):
            for _ in range(1 + len(others)):
                for multiply, left, right, out in products:
                    multiply(left, right, out=out)

    return step


def _like(meta: Any) -> Tensor:
    return torch.empty_strided(meta.shape, meta.stride).normal_()


def learn2learn(workload: Workload) -> Step:
    """The MAML of learn2learn 0.2.0 as its documentation uses it, on a plain `nn.Sequential`."""
    learner, batch = workload.learner(), workload.meta_batch()
    layers = [m for m in learner.base.network.modules() if isinstance(m, nn.Linear | nn.ReLU)]
    maml = from_learn2learn("algorithms.maml", "MAML")(nn.Sequential(*layers), lr=RATE)
    support, query = ((part.x[:, 0], part.y[:, 0]) for part in batch)
    mse = nn.functional.mse_loss

    def step() -> list[Tensor]:
        maml.zero_grad()
        for xs, ys, xq, yq in zip(*support, *query, strict=True):
            task = maml.clone()
            task.adapt(mse(task(xs), ys))
            (mse(task(xq), yq) / workload.tasks).backward()
        return [p.grad for p in maml.parameters()]

    return step


def from_learn2learn(module: str, name: str) -> Any:
    """One class of it alone: the package's own start imports vision data sets, whose dependencies fit no other here."""
    for package in ("learn2learn", "learn2learn.algorithms", "learn2learn.nn"):
        found = types.ModuleType(package)
        found.__path__ = [str(PEERS / package.replace(".", "/"))]
        sys.modules.setdefault(package, found)
    return getattr(importlib.import_module(f"learn2learn.{module}"), name)


def jax_step(workload: Workload, batching: str) -> Step:
    """The same step in JAX, jitted: tasks in one `vmap`, or one after the other in a `scan`."""
    import jax
    import jax.numpy as jnp

    learner, batch = workload.learner(), workload.meta_batch()
    parameters = [jnp.asarray(p.detach().numpy()) for p in learner.parameters()]
    tasks = tuple(jnp.asarray(t[:, 0].numpy()) for part in batch for t in part[:2])

    def loss(p: list[Any], x: Any, y: Any) -> Any:
        for weight, bias in zip(p[:-2:2], p[1:-2:2], strict=True):
            x = jax.nn.relu(x @ weight.T + bias)
        return jnp.mean((x @ p[-2].T + p[-1] - y) ** 2)

    def outer(p: list[Any], task: Any) -> Any:
        xs, ys, xq, yq = task
        return loss([a - RATE * g for a, g in zip(p, jax.grad(loss)(p, xs, ys), strict=True)], xq, yq)

    def in_vmap(p: list[Any], tasks: Any) -> Any:
        return jax.grad(lambda p: jax.vmap(outer, (None, 0))(p, tasks).mean())(p)

    def in_scan(p: list[Any], tasks: Any) -> Any:
        def add(total: Any, task: Any) -> Any:
            return jax.tree.map(jnp.add, total, jax.grad(outer)(p, task)), None

        total, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, p), tasks)
        return [g / workload.tasks for g in total]

    compiled = jax.jit({"vmap": in_vmap, "scan": in_scan}[batching])
    return lambda: [_Later(g) for g in jax.block_until_ready(compiled(parameters, tasks))]


class _Later(list):
    """A JAX array that becomes a tensor only where a gradient is checked."""

    def __init__(self, array: Any) -> None:
        super().__init__()
        self.array = array


def candidates(workload: Workload) -> dict[str, Callable[[], Step]]:
    """What is compared, by name; the first is what `ratio` refers to, if it is there."""
    found: dict[str, Callable[[], Step]] = {}
    if (PEERS / "learn2learn").is_dir():
        found["learn2learn 0.2.0"] = lambda: learn2learn(workload)
    if (PEERS / "jax").is_dir():
        found |= {f"JAX, {way}": lambda way=way: jax_step(workload, way) for way in ("vmap", "scan")}
    found["loop"] = lambda: quickstudy(workload, how="loop")
    found["vmap"] = lambda: quickstudy(workload, how="vmap")
    found["loop, compiled"] = lambda: quickstudy(workload, how="loop", compiled=True)
    found["vmap, compiled"] = lambda: quickstudy(workload, how="vmap", compiled=True)
    found["auto, first steps"] = lambda: quickstudy(workload)
    found["auto, short run"] = lambda: quickstudy(workload, AFTER_THE_START)
    found["auto, long run"] = lambda: quickstudy(workload, LONG_RUN, steps=LONG_RUN)
    found["auto, bf16 products"] = lambda: quickstudy(workload, matmul="bf16")
    chosen = OuterStep(workload.learner()).plan(workload.meta_batch()).at_once
    for at_once in sorted({1, chosen, workload.tasks}):
        found[f"bare products, {at_once} at once"] = lambda at_once=at_once: bare_products(workload, at_once)
    return found


# ---- measuring


def measure(workload: Workload, threads: int) -> list[Row]:
    """The rows of one workload; run in a fresh process, because thread pools keep the size that they start with."""
    os.environ["NPROC"] = str(threads)  # the size of JAX's thread pool
    torch.set_num_threads(threads)
    sys.path.append(str(PEERS.resolve()))
    print(f"{workload.name}, {threads} threads: compiling and checking ...", flush=True)
    steps = {name: make() for name, make in candidates(workload).items()}
    errors = check(steps)
    print(f"{workload.name}, {threads} threads: timing ...", flush=True)
    turns: dict[str, list[float]] = {name: [] for name in steps}
    repeats = {name: max(1, round(SECONDS_A_TURN / timed(step, 1))) for name, step in steps.items()}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            turns[name].append(timed(step, repeats[name]))
    return [to_row(workload, threads, name, turns, errors) for name in steps]


def timed(step: Step, repeats: int) -> float:
    """Seconds of one of `repeats` calls."""
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    return (time.perf_counter() - start) / repeats


def check(steps: dict[str, Step]) -> dict[str, float]:
    """Relative error of each gradient; the first call of each, so that nothing is compiled afterwards."""
    gradients = {name: step() for name, step in steps.items()}
    flat = {name: torch.cat([_tensor(g).flatten() for g in found]) for name, found in gradients.items() if found}
    reference = next(iter(flat.values()))
    errors = {name: ((g - reference).norm() / reference.norm()).item() for name, g in flat.items()}
    wrong = {name: error for name, error in errors.items() if error > (0.2 if "bf16" in name else 1e-4)}
    if wrong:
        raise RuntimeError(f"Gradients differ from the first one's: {wrong}.")
    return errors


def _tensor(gradient: Any) -> Tensor:
    return torch.tensor(gradient.array.tolist()) if isinstance(gradient, _Later) else gradient.detach().clone()


def to_row(workload: Workload, threads: int, name: str, turns: dict[str, list[float]], errors: dict[str, float]) -> Row:
    """Medians; `ratio` is the median over rounds of what the two took in the same round."""

    def ratio(other: str) -> float:
        return statistics.median(a / b for a, b in zip(turns[other], turns[name], strict=True))

    peer = next((n for n in turns if n.startswith("learn2learn")), None)
    notes = []
    if name.startswith("auto"):
        bound = min((n for n in turns if n.startswith("bare")), key=lambda n: statistics.median(turns[n]))
        notes.append(f"{1 / ratio(bound):.2f} x the time of the fastest bare products")
    if "bf16" in name:
        notes.append(f"gradient off by {100 * errors[name]:.1f} %")
    return Row(
        name,
        workload=workload.name,
        threads=threads,
        ms=round(1e3 * statistics.median(turns[name]), 4),
        ratio=round(ratio(peer), 3) if peer else None,
        note="; ".join(notes),
    )


def peak_memory(workload: Workload, threads: int, name: str) -> tuple[float, float] | None:
    """Peak resident memory of three steps above that after all imports, and what the late imports took; in MB.

    Compilers, and parts of torch.func, are imported at first use: one step of W2 has them all in. None where it is
    not Linux.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    torch.set_num_threads(threads)
    sys.path.append(str(PEERS.resolve()))
    start = _megabytes(status, "VmRSS")
    candidates(W2)[name]()()
    imported = _megabytes(status, "VmRSS")
    step = candidates(workload)[name]()
    for _ in range(3):
        step()
    return _megabytes(status, "VmHWM") - imported, imported - start


def _megabytes(status: Path, field: str) -> float:
    found = re.search(rf"{field}:\s+(\d+) kB", status.read_text())
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def starts(workload: Workload, threads: int) -> list[Row]:
    """How long the compiled step is in coming: to a first training, and to one that finds it in the cache."""
    torch.set_num_threads(threads)
    quickstudy(workload, AFTER_THE_START)()  # late imports
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        seconds = [timed(quickstudy(workload, compiled=True), 1) for _ in range(2)]
    return [
        Row(
            name,
            workload=f"{workload.name}, compiling",
            threads=threads,
            ms=round(1e3 * s),
            ratio=_three(seconds[0] / s),
        )
        for name, s in zip(("first training", "later training"), seconds, strict=True)
    ]


def _three(value: float) -> float:
    return float(f"{value:.3g}")


def with_memory(rows: Sequence[Row]) -> list[Row]:
    """The rows of W1 with their peak memory; the bare products hold none of what a step holds."""
    found = []
    for row in rows:
        used = None if row.method.startswith("bare") else in_fresh_process(peak_memory, W1, row.threads, row.method)
        if used is None:
            found.append(row)
            continue
        memory, late = used
        notes = [row.note] * bool(row.note) + [f"late imports take {late:.0f} MB"]
        found.append(replace(row, memory_mb=round(memory, 1), note="; ".join(notes)))
    return found


def main() -> None:
    start = time.time()
    for peer, what in (("learn2learn", "no ratio is given"), ("jax", "JAX is left out")):
        if not (PEERS / peer).is_dir():
            print(f"There is no '{PEERS / peer}', so {what}; benchmarks/README.md says how to put it there.")
    rows: list[Row] = []
    for workload, threads in CONDITIONS:
        measured = in_fresh_process(measure, workload, threads)
        rows += with_memory(measured) if workload is W1 else measured
        rows += in_fresh_process(starts, workload, threads)
    cell = Cell.measured_here(
        cell="speed-outer-step",
        metric="time of one outer step",
        unit="ms",
        protocol=(
            "Mean meta-gradient of second-order MAML, one inner step, squared error. W1: 39-256-256-4, 32 tasks, "
            "250 + 250 pairs. W2: 1-40-40-1, 25 tasks, 10 + 10 pairs. Everything of one workload runs in one process, "
            f"turn by turn: median of {ROUNDS} turns; ratio: speed relative to learn2learn 0.2.0, median over turns; "
            "MB: peak above imports, those at first use (compilers) included."
        ),
        command="python -m benchmarks.speed_outer_step",
        seconds=time.time() - start,
        rows=rows,
    )
    cell.write(Path("benchmarks/results/speed-outer-step.json"))
    print_table(cell)


if __name__ == "__main__":
    main()
