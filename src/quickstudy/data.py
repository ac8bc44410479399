"""Tensors of demonstrations: scale, padding, masks, support and query, and the sets that meta-batches come from."""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

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


class Spread(NamedTuple):
    """How the channels of training data lie, each [channel] in float64.

    Attributes:
        mean, deviation: over all steps; the deviation of a channel that is constant but for rounding is 0.
        low, high: the smallest and the largest value.
    """

    mean: np.ndarray
    deviation: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, parts: Sequence[np.ndarray], whole: bool = False) -> Self:
        """Of all steps of `parts`, each [step, channel].

        Args:
            whole: the channels are alike, as the pixels of an image are, so that all have what they have together.
        """
        low, high = np.min([p.min(0) for p in parts], 0), np.max([p.max(0) for p in parts], 0)
        steps = sum(map(len, parts))
        # One part at a time: all steps once more would double the memory that a large data set takes.
        mean = sum((p.sum(0, dtype=np.float64) for p in parts), np.zeros(len(low))) / steps
        squares = sum((np.square(p - mean).sum(0) for p in parts), np.zeros(len(low))) / steps
        if whole:
            squares = np.full_like(squares, (squares + np.square(mean - mean.mean())).mean())
            mean, low, high = (np.full(len(low), v) for v in (mean.mean(), low.min(), high.max()))
        deviation, rounding = np.sqrt(squares), 4 * np.finfo(np.result_type(*parts)).eps
        still = deviation <= rounding * np.maximum(np.abs(low), np.abs(high))
        return cls(mean, np.where(still, 0.0, deviation), low.astype(np.float64), high.astype(np.float64))


class Seen(NamedTuple):
    """What training showed a learner, in the units of the demonstrations."""

    observations: Spread
    actions: Spread

    @classmethod
    def of(cls, demonstrations: Sequence[Sequence[Demonstration]], whole: bool = False) -> Self:
        """Of demonstrations [task][shot].

        Args:
            whole: the numbers of an observation are alike, as the pixels of an image are.
        """
        every = list(chain.from_iterable(demonstrations))
        return cls(Spread.of([d.observations for d in every], whole), Spread.of([d.actions for d in every]))


class Scaling(nn.Module):
    """From the units that demonstrations come in to those that a learner learns in, and back, channel by channel.

    A channel has mean 0 and deviation 1 in training then, so that degrees and radians are learned alike; one that is
    constant there is only centred. The mean is taken off in float64, before a value becomes float32: a position on
    Earth has no room for centimetres there.
    """

    mean: Tensor
    deviation: Tensor
    action_mean: Tensor
    action_deviation: Tensor

    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__()
        for name, width in (("", observation_size), ("action_", action_size)):
            self.register_buffer(f"{name}mean", torch.zeros(width, dtype=torch.float64))
            self.register_buffer(f"{name}deviation", torch.ones(width, dtype=torch.float64))

    @classmethod
    def of(cls, seen: Seen) -> Self:
        """That of what training showed."""
        made = cls(len(seen.observations.mean), len(seen.actions.mean))
        for name, spread in (("", seen.observations), ("action_", seen.actions)):
            getattr(made, f"{name}mean").copy_(torch.from_numpy(spread.mean))
            known = np.where(spread.deviation > 0, spread.deviation, 1.0)
            getattr(made, f"{name}deviation").copy_(torch.from_numpy(known))
        return made

    def observations(self, x: np.ndarray) -> np.ndarray:
        """[..., obs] as the learner sees them, float32."""
        return ((x - self.mean.numpy()) / self.deviation.numpy()).astype(np.float32)

    def actions(self, y: np.ndarray) -> np.ndarray:
        """[..., act] as the learner gives them, float32."""
        return ((y - self.action_mean.numpy()) / self.action_deviation.numpy()).astype(np.float32)

    def restored(self, y: np.ndarray) -> np.ndarray:
        """Actions [..., act] of the learner in the units of the demonstrations, float64."""
        return y * self.action_deviation.numpy() + self.action_mean.numpy()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Stays in float64 on the processor, wherever the learner goes: values are scaled before they are tensors."""
        return self


def collate(
    demonstrations: Sequence[Sequence[Demonstration]], hidden: np.ndarray, scaling: Scaling | None = None
) -> Batch:
    """Demonstrations [task][shot] to one padded batch [task, shot, step, ...].

    Args:
        hidden: [task, hidden].
        scaling: of the learner that the batch is for; the values stay as they are where it has none.

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
            seen, done = d.observations, d.actions
            if scaling is not None:
                seen, done = scaling.observations(seen), scaling.actions(done)
            x[i, j, : len(d)], y[i, j, : len(d)], mask[i, j, : len(d)] = seen, done, 1.0
    return Batch(*(torch.from_numpy(np.asarray(a, "f4")) for a in (x, y, mask, hidden)))


Recorder = Callable[[TaskFamily, Sequence[Task], int, int], list[list[Demonstration]]]
"""What `recorded` is: of a family, tasks, demonstrations of each, and a seed."""


def recorded(family: TaskFamily, tasks: Sequence[Task], count: int, seed: int) -> list[list[Demonstration]]:
    """`count` demonstrations of each task by the family's expert, some tasks at a time, [task][shot]."""
    made: list[list[Demonstration]] = []
    with progress(f"{len(tasks)} tasks x {count} demonstrations", len(tasks)) as advance:
        for start in range(0, len(tasks), _TASKS_AT_ONCE):
            some = tasks[start : start + _TASKS_AT_ONCE]
            made += family.demonstrate(some, count, seed)
            advance(len(some))
    return made


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
        seen: how their channels lie, before they were scaled; None where that was not asked for.
        scaling: how they were scaled for learners; None where they are as they came.
    """

    def __init__(
        self, tasks: Sequence[Task], batch: Batch, seen: Seen | None = None, scaling: Scaling | None = None
    ) -> None:
        self.tasks, self._batch, self._last = list(tasks), batch, torch.arange(0)
        self.seen, self.scaling = seen, scaling

    @classmethod
    def record(
        cls,
        family: TaskFamily,
        tasks: Sequence[Task],
        count: int,
        seed: int,
        scaling: Scaling | None = None,
        for_training: bool = False,
        recorder: Recorder | None = None,
    ) -> "DemonstrationSet":
        """Asks the family's expert for `count` demonstrations of each task.

        Args:
            scaling: of the learner that they are for, if it has one.
            for_training: notes how their channels lie, and scales them by that where the family says so
                (`TaskFamily.scales_actions`); the learner must be given this scaling.
            recorder: how they are recorded; by `recorded` where not given.
        """
        hidden = np.stack([family.hidden(task) for task in tasks])
        demonstrations = (recorder or recorded)(family, tasks, count, seed)
        seen = Seen.of(demonstrations, whole=family.image is not None) if for_training else None
        if seen is not None and family.scales_actions:
            scaling = Scaling.of(seen)
        return cls(tasks, collate(demonstrations, hidden, scaling), seen, scaling)

    @property
    def batch(self) -> Batch:
        return self._batch

    def __len__(self) -> int:
        return len(self.tasks)

    def unscaled(self) -> "DemonstrationSet":
        """The same, as it came, for a learner without scaling."""
        if self.scaling is None:
            return self
        s, (x, y, mask, _) = self.scaling, self._batch
        x, y = x * s.deviation + s.mean, y * s.action_deviation + s.action_mean
        x, y = (values.float() * mask[..., None] for values in (x, y))
        return DemonstrationSet(self.tasks, self._batch._replace(x=x, y=y), self.seen)

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
