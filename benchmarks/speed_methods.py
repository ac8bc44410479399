"""How fast an outer step of each method is: batched over tasks as a user gets it, beside a plain loop over the tasks.

    python -m benchmarks.speed_methods

For each method and each way of going through the tasks, turn by turn in one process: `loop` is the readable reference,
one task after the other, uncompiled; `short run` and `long run` are what `meta_train` chooses by itself. MAML and
prototypical networks are in learn2learn too, whose step is timed beside them where benchmarks/README.md was followed.
Each gradient is checked against the loop's before anything is timed: of images in double precision, because in single
precision rounding at a kink of ReLU or max-pooling alone can change a gradient by half a percent.
"""

import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.speed_outer_step import AFTER_THE_START, LONG_RUN, PEERS, Step, check, from_learn2learn, timed
from quickstudy import methods
from quickstudy.batching import OuterStep
from quickstudy.data import Batch, SupportQuery
from quickstudy.experiment import Experiment
from quickstudy.families.classic import PointNavigation
from quickstudy.families.own import from_arrays
from quickstudy.io.progress import progress
from quickstudy.learner import MetaLearner
from quickstudy.results.evidence import Cell, Row
from quickstudy.results.tables import print_table
from quickstudy.task import TaskFamily

ROUNDS = 9
TASKS = (25, 4)
"""The sizes of meta-batch: the usual one of small tasks, and one so small that a loop could win."""


NETWORK = {"hidden": (40, 40), "context": 0, "channels": (32, 32, 64, 64), "embedding": 40}


def recognition(size: int = 16, image: tuple[int, int] | None = None) -> TaskFamily:
    """5-way tasks of so many numbers, which may be images."""
    rng = torch.Generator().manual_seed(0)
    centres, y = torch.randn(60, size, generator=rng), torch.arange(60).repeat_interleave(12)
    x = (centres[y] + 0.3 * torch.randn(len(y), size, generator=rng)).numpy()
    return from_arrays(x, y.numpy(), image=image, name="images" if image else "numbers")


def meta_batch(family: TaskFamily, tasks: int, precision: torch.dtype) -> SupportQuery:
    """Random numbers: one demonstration of 10 steps, or a 5-way 1-shot support, and twice that as query."""
    rng = torch.Generator().manual_seed(1)

    def some(shots: int) -> Batch:
        steps = family.action_size if family.labelled else 10
        x = torch.randn(tasks, shots, steps, family.observation_size, generator=rng)
        y = torch.randn(tasks, shots, steps, family.action_size, generator=rng)
        if family.labelled:
            y = torch.eye(steps).expand(tasks, shots, -1, -1)
        drawn = Batch(x, y, torch.ones(x.shape[:-1]), torch.zeros(tasks, family.hidden_size))
        return Batch(*(t.to(precision) for t in drawn))

    return SupportQuery(some(1), some(2))


def ways(method: str, family: TaskFamily, tasks: int, precision: torch.dtype = torch.float32) -> dict[str, Step]:
    """The outer step in each way, by name."""
    experiment = Experiment.of(family, method, changes={"network": NETWORK})
    batch = meta_batch(family, tasks, precision)

    def step(number: int = 1, **options) -> Step:
        learner = experiment.build().to(precision)
        outer = OuterStep(learner, **options)

        def once():
            outer(batch, number)
            return gradients(learner)

        return once

    found = {"loop": step(how="loop", compiled=False), "short run": step(AFTER_THE_START)}
    if family.image is None:
        found["long run"] = step(LONG_RUN, steps=LONG_RUN)
    if method in PEER and (PEERS / "learn2learn").is_dir():
        found["learn2learn 0.2.0"] = PEER[method](experiment.build().to(precision), batch)
    return found


def gradients(module: nn.Module) -> list[Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in module.parameters()]


def maml_of_learn2learn(learner: MetaLearner, batch: SupportQuery) -> Step:
    maml = from_learn2learn("algorithms.maml", "MAML")(learner.base, lr=learner.config.inner_rate)

    def once() -> Sequence[Tensor]:
        maml.zero_grad()
        for support, query in zip(each_task(batch.support), each_task(batch.query), strict=True):
            clone = maml.clone()
            for _ in range(learner.config.inner_steps):
                clone.adapt(learner.base.criterion(clone(support.x), support))
            (learner.base.criterion(clone(query.x), query) / len(batch.query.x)).backward()
        return gradients(learner)

    return once


def prototypes_of_learn2learn(learner: MetaLearner, batch: SupportQuery) -> Step:
    classifier = from_learn2learn("nn.protonet", "PrototypicalClassifier")()

    def once() -> Sequence[Tensor]:
        learner.zero_grad()
        for support, query in zip(each_task(batch.support), each_task(batch.query), strict=True):
            classifier.fit_(learner.base(support.x).flatten(0, -2), support.y.argmax(-1).flatten())
            logits = classifier(learner.base(query.x).flatten(0, -2)).reshape(query.y.shape)
            (learner.base.criterion(logits, query) / len(batch.query.x)).backward()
        return gradients(learner)

    return once


def each_task(batch: Batch) -> list[Batch]:
    return [Batch(*(t[i] for t in batch)) for i in range(len(batch.x))]


PEER = {"maml": maml_of_learn2learn, "prototypical": prototypes_of_learn2learn}


def measure(method: str, family: TaskFamily, tasks: int) -> list[Row]:
    steps = ways(method, family, tasks)
    check(steps if family.image is None else ways(method, family, tasks, torch.float64))
    turns: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            turns[name].append(timed(step, 3 if "run" in name else 1))
    kind = family.name if family.labelled else "skills"
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
    sizes: list[tuple[TaskFamily, int]] = [
        *((family, tasks) for family in (PointNavigation(), recognition()) for tasks in TASKS),
        (recognition(28 * 28, (28, 28)), 4),
    ]
    cases = [
        (method, family, tasks)
        for family, tasks in sizes
        for method, record in methods.records().items()
        if record.uses == "all" and record.tuned != "equal-time"
        if record.learns_from == "demonstrations" and not record.why_not(family)
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
            "One outer step with a 40-40 network (images: 28 x 28, a convolutional one of 32-32-64-64 channels): one "
            "demonstration of 10 steps (2-2) or a 5-way 1-shot support (numbers: 16 of each example), twice that as "
            "query, defaults of each method. All ways of one method run in one process, turn by turn: median of "
            f"{ROUNDS} turns; ratio: speed relative to the plain loop."
        ),
        command="python -m benchmarks.speed_methods",
        seconds=time.time() - start,
        rows=rows,
    )
    cell.write(Path("benchmarks/results/speed-methods.json"))
    print_table(cell)


if __name__ == "__main__":
    sys.path.append(str(PEERS.resolve()))
    main()
