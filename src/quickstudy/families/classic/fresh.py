"""Sinusoids that were never seen before, as the paper trains."""

import torch
from torch import Tensor

from quickstudy.data import Batch, SupportQuery


class FreshSinusoids:
    """Meta-batches of newly drawn sinusoids: a `quickstudy.data.Source`."""

    batch = None

    def __init__(self) -> None:
        self._last = torch.zeros(0, 2)

    def sample(self, rng: torch.Generator, tasks: int, shots: int, queries: int) -> SupportQuery:
        drawn = torch.rand(tasks, 2, generator=rng)
        self._last = torch.stack([0.1 + 4.9 * drawn[:, 0], torch.pi * drawn[:, 1]], 1)
        x = torch.rand(tasks, shots + queries, 1, 1, generator=rng) * 10.0 - 5.0
        amplitude, phase = self._last[:, :, None, None, None].unbind(1)
        y = amplitude * torch.sin(x - phase)
        return SupportQuery(self._batch(x[:, :shots], y[:, :shots]), self._batch(x[:, shots:], y[:, shots:]))

    def names(self) -> list[str]:
        return [f"sinusoid with amplitude {a:.3f}, phase {p:.3f}" for a, p in self._last.tolist()]

    def _batch(self, x: Tensor, y: Tensor) -> Batch:
        return Batch(x, y, torch.ones(x.shape[:-1]), self._last)
