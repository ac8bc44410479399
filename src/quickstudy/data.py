"""Tensors of demonstrations: padding, masks, support and query, and the sets that meta-batches are drawn from."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.io.progress import progress
from quickstudy.task import Task, TaskFamily

_TASKS_AT_ONCE = 50


class Batch(NamedTuple):
    """Demonstrations of one task, padded to one length; with leading axes, of many tasks.

    A named tuple is a tree of tensors to `torch.func`, so a batch goes through `vmap` as it is.

    Attributes:
        x: observations [..., shot, step, obs].
        y: actions [..., shot, step, act].
        mask: [..., shot, step], 1 for a real step and 0 for padding. Padding must change no result.
        hidden: [..., hidden], what the demonstrations reveal; for the oracle's eyes only.
    """

    x: Tensor
    y: Tensor
    mask: Tensor
    hidden: Tensor

    def to(self, device: torch.device | str) -> "Batch":
        return Batch(*(tensor.to(device) for tensor in self))


class SupportQuery(NamedTuple):
    """What a learner adapts to, and what it is judged by; with a leading axis, a meta-batch of tasks."""

    support: Batch
    query: Batch

    def to(self, device: torch.device | str) -> "SupportQuery":
        return SupportQuery(self.support.to(device), self.query.to(device))


def collate(demonstrations: Sequence[Sequence[Demonstration]], hidden: np.ndarray) -> Batch:
    """Demonstrations [task][shot] to one padded batch [task, shot, step, ...].

    Args:
        hidden: [task, hidden].

    Raises:
        QuickstudyError: no demonstration, a different number for different tasks, or different widths.
    """
    counts = {len(shots) for shots in demonstrations}
    if len(counts) != 1 or counts == {0}:
        raise QuickstudyError(
            f"Every task needs the same number of demonstrations, at least one; got {sorted(counts) or 'no task'}."
        )
    widths = {(d.observations.shape[1], d.actions.shape[1]) for shots in demonstrations for d in shots}
    if len(widths) != 1:
        raise QuickstudyError(
            f"Demonstrations to be learned from together need equal widths; got (observation, action) widths "
            f"{sorted(widths)}."
        )
    ((obs, act),) = widths
    steps = max(len(d) for shots in demonstrations for d in shots)
    shape = (len(demonstrations), counts.pop(), steps)
    x, y, mask = np.zeros((*shape, obs), "f4"), np.zeros((*shape, act), "f4"), np.zeros(shape, "f4")
    for i, shots in enumerate(demonstrations):
        for j, d in enumerate(shots):
            x[i, j, : len(d)], y[i, j, : len(d)], mask[i, j, : len(d)] = d.observations, d.actions, 1.0
    return Batch(*(torch.from_numpy(np.asarray(a, "f4")) for a in (x, y, mask, hidden)))


class Source(Protocol):
    """Where the outer loop gets its meta-batches from.

    Attributes:
        batch: training demonstrations [task, shot, step, ...] that learners take the mean and deviation of observations
            from; None where observations stay as they are.
    """

    @property
    def batch(self) -> Batch | None: ...

    def sample(self, rng: torch.Generator, tasks: int, shots: int, queries: int) -> SupportQuery:
        """A meta-batch: `tasks` tasks, each with `shots` support and `queries` other demonstrations as query."""
        ...

    def names(self) -> list[str]:
        """The tasks of the last meta-batch, so that a failure can be named."""
        ...


@runtime_checkable
class DrawsFresh(Protocol):
    """A family whose meta-batches cost nothing, so that every one holds tasks that were never seen before."""

    def fresh(self) -> Source: ...


def check_shots(shots: int, queries: int, fewest: int, what: str) -> None:
    """Raises QuickstudyError unless `fewest`, the least that any has of `what`, are enough for both."""
    if shots < 1 or queries < 1 or shots + queries > fewest:
        raise QuickstudyError(
            f"Asked for {shots} support and {queries} query {what}; the one with the fewest has {fewest}, and both "
            "need at least one."
        )


class DemonstrationSet:
    """Recorded demonstrations of some tasks, the usual source of a robot's meta-batches.

    Attributes:
        tasks: the recorded tasks.
        batch: all demonstrations, [task, demonstration, step, ...].
    """

    def __init__(self, tasks: Sequence[Task], batch: Batch) -> None:
        self.tasks, self._batch, self._last = list(tasks), batch, torch.arange(0)

    @classmethod
    def record(cls, family: TaskFamily, tasks: Sequence[Task], count: int, seed: int) -> "DemonstrationSet":
        """Asks the family's expert for `count` demonstrations of each task."""
        hidden = np.stack([family.hidden(task) for task in tasks])
        demonstrations: list[list[Demonstration]] = []
        with progress(f"{len(tasks)} tasks x {count} demonstrations", len(tasks)) as advance:
            for start in range(0, len(tasks), _TASKS_AT_ONCE):
                some = tasks[start : start + _TASKS_AT_ONCE]
                demonstrations += family.demonstrate(some, count, seed)
                advance(len(some))
        return cls(tasks, collate(demonstrations, hidden))

    @property
    def batch(self) -> Batch:
        return self._batch

    def __len__(self) -> int:
        return len(self.tasks)

    def check(self, tasks: int, shots: int, queries: int) -> None:
        """Raises QuickstudyError where `sample` with these numbers could not be answered."""
        check_shots(shots, queries, self.batch.x.shape[1], "demonstrations a task")
        if not 1 <= tasks <= len(self):
            raise QuickstudyError(f"Asked for a meta-batch of {tasks} tasks; {len(self)} were recorded.")

    def sample(self, rng: torch.Generator, tasks: int, shots: int, queries: int) -> SupportQuery:
        self.check(tasks, shots, queries)
        chosen = torch.randperm(len(self), generator=rng)[:tasks]
        order = torch.rand(tasks, self.batch.x.shape[1], generator=rng).argsort(1)
        self._last = chosen
        return SupportQuery(
            self._pick(chosen, order[:, :shots]),
            self._pick(chosen, order[:, shots : shots + queries]),
        )

    def names(self) -> list[str]:
        return [self.tasks[i].name for i in self._last.tolist()]

    def _pick(self, tasks: Tensor, shots: Tensor) -> Batch:
        x, y, mask = (tensor[tasks[:, None], shots] for tensor in self.batch[:3])
        return Batch(x, y, mask, self.batch.hidden[tasks])
