"""Batching over tasks: learners are written for one task, and this is the one place that runs them on many.

There is no single best way. Small networks want `vmap` (one call for all tasks), large ones and convolutions one task
or a few at a time, whose temporaries stay in the processor's cache; compilation pays on long runs only. `OuterStep`
offers each way and chooses one by the measured shape; benchmarks/speed_outer_step.py is where the rule comes from.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_map

from quickstudy.data import Batch, SupportQuery
from quickstudy.errors import QuickstudyError
from quickstudy.learner import MetaLearner, Metrics, Skill

How = Literal["auto", "vmap", "loop", "chunk"]

Pass = tuple[Sequence[Tensor | None], Tensor, Metrics]
"""Gradient summed over some tasks (None where unused), their losses [task] and metrics [task, ...]."""

_CHUNK_FLOATS = 32 * 2**20
"""Temporaries that `over_tasks` allows itself at once, in numbers (128 MB of float32), by a rough estimate."""


@dataclass(frozen=True)
class Plan:
    """How an outer step goes through its tasks: `at_once` in one `vmap` (1: a plain loop), compiled or not."""

    at_once: int
    compiled: bool = False


class Outer(NamedTuple):
    """What an outer step found out, besides the gradient that it left in the parameters.

    Attributes:
        losses: outer loss of each task, [task].
        metrics: what `MetaLearner.loss` logs, each [task, ...].
        finite: [task], False where a task's loss or gradient is not finite; such a task is left out of the gradient.
    """

    losses: Tensor
    metrics: Metrics
    finite: Tensor


class OuterStep:
    """Leaves the meta-gradient in `p.grad` of a learner's parameters: the mean over the tasks whose own is finite.

    A parameter that no loss depends on keeps `p.grad = None`, and so do all of them where no task was finite.

    Args:
        how: all tasks in one 'vmap', one after the other in a 'loop', some at a time in a 'chunk', or 'auto'.
        steps: outer steps of the whole run, from which 'auto' decides whether compilation pays (a resumed run gives
            the same number as the run that it resumes, so that it computes the same).
        compiled: True or False instead of that decision.
    """

    def __init__(self, learner: MetaLearner, how: How = "auto", steps: int = 0, compiled: bool | None = None) -> None:
        if how not in ("auto", "vmap", "loop", "chunk"):
            raise QuickstudyError(f"how must be 'auto', 'vmap', 'loop' or 'chunk'; got '{how}'.")
        self.learner, self.how, self.steps, self.compiled = learner, how, steps, compiled

    def __call__(self, meta_batch: SupportQuery) -> Outer:
        """One pass over a meta-batch [task, ...]; what the parameters held as gradient is replaced."""
        names, parameters = zip(*((n, p) for n, p in self.learner.named_parameters() if p.requires_grad), strict=True)
        gradient, losses, metrics = self._run(self.plan(meta_batch), meta_batch, parameters)
        finite = torch.ones_like(losses, dtype=torch.bool)
        if not _all_finite([losses, *gradient]):
            gradient, finite = self._without_broken_tasks(meta_batch, parameters)
        for p, g in zip(parameters, gradient, strict=True):
            p.grad = None if g is None else g / finite.sum()
        return Outer(losses, metrics, finite)

    def plan(self, meta_batch: SupportQuery) -> Plan:
        """How this meta-batch will be gone through."""
        tasks = len(meta_batch.query.x)
        return Plan({"auto": tasks, "vmap": tasks, "loop": 1, "chunk": min(tasks, 4)}[self.how])

    def _run(self, plan: Plan, meta_batch: SupportQuery, parameters: Sequence[Tensor]) -> Pass:
        """Sum of the gradients, losses [task] and metrics [task, ...]."""
        parts = [_pass(self.learner, plan.at_once > 1, part, parameters) for part in _split(meta_batch, plan.at_once)]
        gradient = [_sum(gradients) for gradients in zip(*(part[0] for part in parts), strict=True)]
        return (
            gradient,
            torch.cat([part[1] for part in parts]),
            tree_map(lambda *m: torch.cat(m), *(p[2] for p in parts)),
        )

    def _without_broken_tasks(
        self, meta_batch: SupportQuery, parameters: Sequence[Tensor]
    ) -> tuple[list[Tensor | None], Tensor]:
        """The sum of the gradients of those tasks where it is finite, and which those are; one task at a time."""
        parts = [_pass(self.learner, False, task, parameters)[:2] for task in _split(meta_batch, 1)]
        finite = [_all_finite([losses, *gradient]) for gradient, losses in parts]
        good = [gradient for (gradient, _), fine in zip(parts, finite, strict=True) if fine]
        gradient = [_sum(g) for g in zip(*good, strict=True)] if good else [None] * len(parameters)
        return gradient, torch.tensor(finite, device=meta_batch.query.x.device)


def over_tasks(function: Callable[..., Any], *trees: Any, chunk: int | None = None) -> Any:
    """`function` of each task's part of `trees` (tensors [task, ...]), without gradients; a tree of [task, ...].

    Runs `chunk` tasks at once (all where not given), so that memory stays bounded.
    """
    with torch.no_grad():
        return vmap(function, randomness="different", chunk_size=chunk)(*trees)


def adapt_tasks(learner: MetaLearner, support: Batch) -> Skill:
    """The skills [task, ...] after each task's support [task, shot, step, ...], without an outer gradient."""
    parameters = sum(p.numel() for p in learner.parameters())
    points = support.mask[0].numel()
    floats = 8 * (parameters + points * int(4 * parameters**0.5))
    return over_tasks(learner.adapt, support, chunk=max(1, _CHUNK_FLOATS // floats))


def _pass(learner: MetaLearner, batched: bool, tasks: SupportQuery, parameters: Sequence[Tensor]) -> Pass:
    """Sum over `tasks` of the gradient, and each task's loss [task] and metrics [task, ...]; not batched: one task."""
    if batched:
        losses, metrics = vmap(learner.loss, randomness="different")(tasks)
    else:
        losses, metrics = tree_map(lambda t: t[None], learner.loss(tree_map(lambda t: t[0], tasks)))
    gradient = torch.autograd.grad(losses.sum(), parameters, allow_unused=True)
    return gradient, losses.detach(), tree_map(Tensor.detach, metrics)


def _split(meta_batch: SupportQuery, at_once: int) -> list[SupportQuery]:
    """The meta-batch in parts of `at_once` tasks; the last may be smaller."""
    tasks = len(meta_batch.query.x)
    return [tree_map(lambda t, i=i: t[i : i + at_once], meta_batch) for i in range(0, tasks, at_once)]


def _sum(gradients: Sequence[Tensor | None]) -> Tensor | None:
    """Their sum; None where no loss depends on the parameter."""
    there = [g for g in gradients if g is not None]
    return sum(there[1:], start=there[0]) if there else None


def _all_finite(tensors: Sequence[Tensor | None]) -> bool:
    """Whether no number is infinite or NaN: either would spoil the sum (a sum too large to hold counts as infinite)."""
    return bool(torch.stack([t.sum() for t in tensors if t is not None]).sum().isfinite())
