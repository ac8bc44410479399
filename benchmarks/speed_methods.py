"""How fast an outer step of each method is: batched over tasks as a user gets it, beside a plain loop over the tasks.

    python -m benchmarks.speed_methods

For each method and each way of going through the tasks, turn by turn in one process: `loop` is the readable reference,
one task after the other, uncompiled; `short run` and `long run` are what `meta_train` chooses by itself. Each gradient
is checked against the loop's before anything is timed. MAML beside learn2learn: benchmarks/speed_outer_step.py.
"""

import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.speed_outer_step import LONG_RUN, Step, check, timed
from quickstudy.batching import OuterStep
from quickstudy.data import Batch, SupportQuery
from quickstudy.families import from_arrays
from quickstudy.methods import METHODS, UNTRAINED, NetworkConfig, build, defaults, suits
from quickstudy.progress import progress
from quickstudy.results import Cell, Row, print_table
from quickstudy.skills.classic import PointNavigation
from quickstudy.task import TaskFamily

ROUNDS = 9
TASKS = (25, 4)
"""The sizes of meta-batch: the usual one of small tasks, and one so small that a loop could win."""


def recognition() -> TaskFamily:
    """5-way tasks of 16 numbers."""
    rng = torch.Generator().manual_seed(0)
    centres, y = torch.randn(60, 16, generator=rng), torch.arange(60).repeat_interleave(12)
    return from_arrays((centres[y] + 0.3 * torch.randn(len(y), 16, generator=rng)).numpy(), y.numpy())


def meta_batch(family: TaskFamily, tasks: int) -> SupportQuery:
    """Random numbers: one demonstration of 10 steps, or a 5-way 1-shot support, and twice that as query."""
    rng = torch.Generator().manual_seed(1)

    def some(shots: int) -> Batch:
        steps = family.action_size if family.labelled else 10
        x = torch.randn(tasks, shots, steps, family.observation_size, generator=rng)
        y = torch.randn(tasks, shots, steps, family.action_size, generator=rng)
        if family.labelled:
            y = torch.eye(steps).expand(tasks, shots, -1, -1)
        return Batch(x, y, torch.ones(x.shape[:-1]), torch.zeros(tasks, family.hidden_size))

    return SupportQuery(some(1), some(2))


def ways(method: str, family: TaskFamily, tasks: int) -> dict[str, Step]:
    """The outer step in each way, by name."""
    settings = replace(defaults(family.name, method), network=NetworkConfig((40, 40), context=0, embedding=40))
    batch = meta_batch(family, tasks)

    def step(**options) -> Step:
        learner = build(settings, family)
        outer = OuterStep(learner, **options)

        def once():
            outer(batch)
            return [p.grad if p.grad is not None else torch.zeros_like(p) for p in learner.parameters()]

        return once

    return {
        "loop": step(how="loop", compiled=False),
        "short run": step(),
        "long run": step(steps=LONG_RUN),
    }


def measure(method: str, family: TaskFamily, tasks: int) -> list[Row]:
    steps = ways(method, family, tasks)
    check(steps)
    turns: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            turns[name].append(timed(step, 1 if name == "loop" else 3))
    kind = "recognition" if family.labelled else "skills"
    return [
        Row(
            f"{method}, {name}",
            workload=f"{kind}, {tasks} tasks",
            ms=round(1e3 * statistics.median(turns[name]), 3),
            ratio=round(statistics.median(a / b for a, b in zip(turns["loop"], turns[name], strict=True)), 2),
        )
        for name in steps
    ]


def main() -> None:
    start, rows = time.time(), []
    families = (PointNavigation(), recognition())
    cases = [
        (method, family, tasks)
        for family in families
        for tasks in TASKS
        for method in METHODS
        if method not in UNTRAINED and suits(method, family)
    ]
    with progress("timing the methods", len(cases)) as advance:
        for method, family, tasks in cases:
            rows += measure(method, family, tasks)
            advance(1, f"{method}, {tasks} tasks")
    cell = Cell.measured_here(
        cell="speed-methods",
        metric="time of one outer step",
        unit="ms",
        protocol=(
            "One outer step with a 40-40 network: one demonstration of 10 steps (2-2) or a 5-way 1-shot support (16 "
            "numbers), twice that as query, defaults of each method. All ways of one method run in one process, turn "
            f"by turn: median of {ROUNDS} turns; ratio: speed relative to the plain loop."
        ),
        command="python -m benchmarks.speed_methods",
        seconds=time.time() - start,
        rows=rows,
    )
    cell.write(Path("benchmarks/results/speed-methods.json"))
    print_table(cell)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
