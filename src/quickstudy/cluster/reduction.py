"""The gradient of a meta-batch, of which each worker computes a share, and an all-reduce the sum.

The meta-gradient is a mean over tasks, so that it is the sum of what the workers have, divided by the number of tasks
whose own gradient is finite, of all workers together. Losses and metrics take the same way, each worker's in places of
its own: one all-reduce of one tensor a step.
"""

import time
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._pytree import tree_map

from quickstudy.batching import Outer, OuterStep, Sums
from quickstudy.cluster.meeting import together
from quickstudy.data import SupportQuery


@dataclass
class Parts:
    """Where the time of steps went.

    Attributes:
        compute_s: seconds of computing the own share.
        reduce_s: of the all-reduce, waiting for slower workers included.
        bytes: that were reduced.
    """

    compute_s: float = 0.0
    reduce_s: float = 0.0
    bytes: int = 0


def share(tasks: int, rank: int, size: int) -> slice:
    """The tasks of a meta-batch that worker `rank` of `size` takes; shares differ by one task at most."""
    return slice(tasks * rank // size, tasks * (rank + 1) // size)


class ReducedGradient:
    """Leaves the meta-gradient of a whole meta-batch in the parameters of every worker; an `OuterGradient`.

    Args:
        local: computes a share.
        rank, size: which of how many workers this is; each must get the same meta-batches, of `size` tasks or more.

    Attributes:
        computing: whether the own share is being computed, and not waited for others.
        parts: where the time went.
    """

    def __init__(self, local: OuterStep, rank: int, size: int) -> None:
        self.local, self.rank, self.size = local, rank, size
        self.computing = False
        self.parts = Parts()

    @property
    def compiling(self) -> float:
        """As of the `OuterStep`."""
        return self.local.compiling

    @compiling.setter
    def compiling(self, seconds: float) -> None:
        self.local.compiling = seconds

    def __call__(self, meta_batch: SupportQuery, number: int | None = None) -> Outer:
        """As `OuterStep`.

        Raises:
            PeerLostError: another worker is gone.
        """
        tasks = len(meta_batch.query.x)
        own = share(tasks, self.rank, self.size)
        started, self.computing = time.perf_counter(), True
        try:
            part = tree_map(lambda t: t[own], meta_batch) if self.size > 1 else meta_batch
            sums = self.local.sums(part, number)
        finally:
            self.computing = False
        computed = time.perf_counter()
        if self.size > 1:
            sums = self._reduced(sums, own, tasks)
        self.parts.compute_s += computed - started
        self.parts.reduce_s += time.perf_counter() - computed
        return self.local.leave(sums)

    def _reduced(self, sums: Sums, own: slice, tasks: int) -> Sums:
        """The sums of all workers, the same on each."""
        trained = self.local.trained
        there = trained[0].new_tensor([g is not None for g in sums.gradient])
        gradient = [torch.zeros_like(p) if g is None else g for p, g in zip(trained, sums.gradient, strict=True)]
        placed = []
        for value in (sums.losses, sums.finite, *sums.metrics.values()):
            placed.append(there.new_zeros(tasks, *value.shape[1:]))
            placed[-1][own] = value.to(there.dtype)
        compiled = there.new_tensor([sums.compiled])  # workers change over to compiled steps at different times
        pieces = [there, *gradient, *placed, compiled]
        flat = torch.cat([piece.flatten() for piece in pieces])
        self._all_reduce(flat)
        parts = zip(flat.split([piece.numel() for piece in pieces]), pieces, strict=True)
        anywhere, *found = (part.view(piece.shape) for part, piece in parts)
        reduced = [g if some else None for g, some in zip(found, anywhere.tolist(), strict=False)]
        losses, finite, *metrics, compiled = found[len(trained) :]
        by_name = dict(zip(sums.metrics, metrics, strict=True))
        return Sums(reduced, losses, by_name, finite > 0, bool(compiled == self.size))

    def _all_reduce(self, flat: Tensor) -> None:
        self.parts.bytes += flat.numel() * flat.element_size()
        with together():
            dist.all_reduce(flat)
