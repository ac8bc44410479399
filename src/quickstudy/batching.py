"""Batching over tasks: learners are written for one task, and this is the one place that runs them on many.

There is no single best way. Small networks want `vmap` (one call for all tasks), large ones a few tasks at a time,
whose temporaries stay in the processor's cache, convolutions one; compilation pays on long runs only, and then threads
share what is not gone through at once. `OuterStep` offers each way and chooses one by shape and length of run;
`benchmarks/speed_outer_step.py` measures the choices.
"""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.utils._pytree import tree_map

from quickstudy.compilation.background import Compilation, CompilationError
from quickstudy.compilation.written_out import Part, WrittenOutPass, one_pass
from quickstudy.data import Batch, SupportQuery
from quickstudy.errors import QuickstudyError
from quickstudy.io.interrupts import abandonable
from quickstudy.io.progress import console
from quickstudy.learner import MetaLearner, Metrics, Skill

How = Literal["auto", "vmap", "loop", "chunk"]

_CACHE_FLOATS = 4 * 2**20
"""Numbers (16 MB of float32) that the tasks of one chunk of an outer step may hold at once, by `_floats`."""

_EVALUATION_FLOATS = 32 * 2**20
"""The same for adaptation without an outer gradient, where only memory is at stake."""

_ACCELERATOR_FLOATS = 256 * 2**20
"""The same for an outer step on an accelerator, which wants as much as it can hold: starting a kernel is what costs."""

_SMALL = 2e7
"""Tasks x points x parameters below which a second thread gains less than it costs to wake; on a machine that is busy
with other things, threads that wait for each other make small products a hundred times slower."""

_BY_AUTOGRAD, _SHORT = 10, 100
"""Steps that are made before one is written out, which takes a second or two; a training of less steps than the other
number never gets that back."""

_COMPILE_SECONDS, _OTHER_SECONDS = 25.0, 6e-4
"""What compilation takes, at about, on a machine that makes uncompiled steps as fast as `WrittenOutPass.seconds` says,
and what a step takes besides: drawing the meta-batch, clipping, the optimiser.
The step at which compiled ones take over follows from that, and from nothing that is measured: what a training computes
must not depend on the clock."""

_WORTH_IT = 1.5
"""Times the steps until then that a training must have to be compiled at all."""

_SHAPES = 8
"""A learner whose meta-batches come in more shapes than this would do little but compile."""


def usable(device: str) -> torch.device:
    """The device of this name: 'cpu', or 'cuda' or 'cuda:1' where torch sees such an accelerator.

    Raises:
        QuickstudyError: there is none.
    """
    try:
        torch.zeros(1, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError) as error:  # a name that torch does not know, or a device that is not there
        seen = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise QuickstudyError(f"There is no device '{device}' to train on; torch sees {', '.join(seen)}.") from error


@dataclass(frozen=True)
class Plan:
    """How an outer step goes through its tasks: `at_once` in one `vmap` (1: a plain loop), compiled or not."""

    at_once: int
    compiled: bool


class Outer(NamedTuple):
    """What an outer step found out, besides the gradient that it left in the parameters.

    Attributes:
        losses: outer loss of each task, [task].
        metrics: what `MetaLearner.loss` logs, each [task, ...].
        finite: [task], False where a task's loss or gradient is not finite; such a task is left out of the gradient.
        compiled: whether compiled code made it.
    """

    losses: Tensor
    metrics: Metrics
    finite: Tensor
    compiled: bool = False


class Sums(NamedTuple):
    """What some tasks add to an outer step, before it is divided by their number.

    Attributes:
        gradient: the sum of the gradients of the finite tasks, one for each trained parameter; None where no loss
            depends on it.
        losses, metrics, finite, compiled: as in `Outer`.
    """

    gradient: Sequence[Tensor | None]
    losses: Tensor
    metrics: Metrics
    finite: Tensor
    compiled: bool


@dataclass
class _Stage:
    """The pass for one shape of tasks, written out, and compiled from step `change_over` on if it is to be at all."""

    run: WrittenOutPass
    compilation: Compilation | None = None
    change_over: int = 0
    compiled: bool = False

    def change(self) -> None:
        """To what was compiled; waits for it."""
        assert self.compilation is not None
        self.run.run, self.compilation, self.compiled = self.compilation.result(), None, True


class OuterStep:
    """Leaves the meta-gradient in `p.grad` of a learner's parameters: the mean over the tasks whose own is finite.

    A parameter that no loss depends on gets `p.grad = None`, and so do all of them where no task was finite.

    Args:
        how: all tasks in one 'vmap', one after the other in a 'loop', a few at a time in a 'chunk', or 'auto'.
        steps: outer steps of the whole run, from which it is decided whether compilation pays. A resumed run gives
            the number of the run that it resumes, and so computes the same.
        compiled: True or False instead of that decision. A compiled step keeps what Python code did in its first call
            for that shape; it sees changed parameters and buffers, not changed attributes of the learner.
        matmul: 'bf16' rounds the factors and the result of every float32 matrix product to bfloat16, which is faster
            on processors that know the format and changes the gradient by some per cent; always compiled.
    """

    def __init__(
        self,
        learner: MetaLearner,
        how: How = "auto",
        steps: int = 0,
        compiled: bool | None = None,
        matmul: Literal["float32", "bf16"] = "float32",
    ) -> None:
        if how not in ("auto", "vmap", "loop", "chunk"):
            raise QuickstudyError(f"how must be 'auto', 'vmap', 'loop' or 'chunk'; got '{how}'.")
        if matmul not in ("float32", "bf16"):
            raise QuickstudyError(f"matmul must be 'float32' or 'bf16'; got '{matmul}'.")
        if matmul == "bf16" and compiled is False:
            raise QuickstudyError("matmul='bf16' is made by compilation, so compiled must not be False with it.")
        self.learner, self.how, self.steps, self.matmul = learner, how, steps, matmul
        self.compiled = True if matmul == "bf16" else compiled
        self.trained = [p for p in learner.parameters() if p.requires_grad]
        self._size = sum(p.numel() for p in learner.parameters())
        convolves = any(isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) for module in learner.modules())
        self._convolves_alone = convolves and learner.adapts_weights
        self._passes: dict[Any, _Stage] = {}
        self._can_be_written_out, self._number = not learner.scans, 0
        self._compiled, self.compiling = False, 0.0

    def __call__(self, meta_batch: SupportQuery, number: int | None = None) -> Outer:
        """One pass over a meta-batch [task, ...]; what the parameters held as gradient is replaced.

        Args:
            number: of this step in the training, from 1, which decides how it is made, so that a resumed training goes
                on as one without a break; by default the steps of this object are counted.

        Raises:
            QuickstudyError: a task has no support or no query point, or compilation was asked for and is not possible.
        """
        return self.leave(self.sums(meta_batch, number))

    def leave(self, sums: Sums) -> Outer:
        """Leaves the mean gradient of these tasks, all of the meta-batch, in the parameters."""
        gradients, count = [g for g in sums.gradient if g is not None], float(sums.finite.sum())
        means = iter(torch._foreach_div(gradients, count) if gradients else ())
        for p, g in zip(self.trained, sums.gradient, strict=True):
            p.grad = None if g is None else next(means)
        return Outer(*sums[1:])

    def sums(self, meta_batch: SupportQuery, number: int | None = None) -> Sums:
        """What `__call__` divides by the number of tasks; the parameters' gradients stay as they are.

        Raises:
            QuickstudyError: as `__call__`.
        """
        self._number = self._number + 1 if number is None else number
        if not self._writes_out:
            _check_points(meta_batch)
        plan = self.plan(meta_batch)
        parts = _split(meta_batch, plan.at_once)
        total = _add_up(self._through(plan, parts, _points(meta_batch) * self._size))
        gradient, finite = total.gradient, torch.ones_like(total.losses, dtype=torch.bool)
        if not math.isfinite(total.check):
            _check_points(meta_batch)
            gradient, finite = self._without_broken_tasks(meta_batch)
        return Sums(gradient, total.losses, total.metrics, finite, self._compiled)

    def plan(self, meta_batch: SupportQuery) -> Plan:
        """How this meta-batch will be gone through."""
        tasks = len(meta_batch.query.x)
        points = _points(meta_batch)
        if self.how == "auto" and meta_batch.query.x.device.type != "cpu":
            fitting = max(1, _ACCELERATOR_FLOATS // _floats(self._size, points // tasks, self.learner.copies))
            return Plan(_even(tasks, fitting), bool(self.compiled))
        compiled = self.compiled if self.compiled is not None else self.steps > _SHORT and not self.learner.scans
        if self.how == "vmap" or (self.how == "auto" and self.learner.scans):
            return Plan(tasks, compiled)
        if self.how == "loop" or (self.how == "auto" and self._convolves_alone):
            return Plan(1, compiled)
        return Plan(
            _even(tasks, max(1, _CACHE_FLOATS // _floats(self._size, points // tasks, self.learner.copies))), compiled
        )

    def _through(self, plan: Plan, parts: Sequence[SupportQuery], work: float) -> list[Part]:
        """Each part: by autograd at first, then written out, then compiled."""
        batched = plan.at_once > 1
        try:
            stages = self._stages(plan, parts, work) if self._writes_out else []
            self._compiled = bool(stages) and all(stage.compiled for stage in stages)
            # One part after the other, each by all threads: torch runs compiled code with Python's lock held.
            with threads_for(work):
                if not stages:
                    return [one_pass(self.learner.loss, batched, tasks, self.trained) for tasks in parts]
                return [stage.run(tasks) for stage, tasks in zip(stages, parts, strict=True)]
        except Exception as error:
            if not self._writes_out:
                raise
            self._go_on_without(error)
            return self._through(Plan(plan.at_once, False), parts, work)

    @property
    def _writes_out(self) -> bool:
        """Whether the step at hand is written out, rather than left to autograd."""
        if self.compiled:
            return True
        worth_it = self.steps == 0 or self.steps > _SHORT
        return worth_it and self._can_be_written_out and self._number > _BY_AUTOGRAD

    def _stages(self, plan: Plan, parts: Sequence[SupportQuery], work: float) -> list["_Stage"]:
        """The pass for the shape of each part, made at the first meeting of that shape."""
        started, made = time.monotonic(), []
        for tasks in parts:
            tensors = (*tasks.support, *tasks.query)
            shape = plan.at_once > 1, self.learner.training, *((t.shape, t.dtype, t.device) for t in tensors)
            if shape not in self._passes:
                if len(self._passes) == _SHAPES:
                    raise CompilationError(f"meta-batches come in more than {_SHAPES} shapes")
                self._passes[shape] = self._stage(plan, parts, tasks, work)
            stage = self._passes[shape]
            if stage.compilation is not None and self._number >= stage.change_over:
                stage.change()
            made.append(stage)
        self.compiling += time.monotonic() - started
        return made

    def _stage(self, plan: Plan, parts: Sequence[SupportQuery], tasks: SupportQuery, work: float) -> "_Stage":
        """One shape's pass, written out; its compilation is begun where this run is long enough."""
        with abandonable(), threads_for(work):
            run = WrittenOutPass(self.learner, plan.at_once > 1, tasks, self.matmul)
            change_over = (
                1 if self.compiled else math.ceil(_COMPILE_SECONDS / (_OTHER_SECONDS + len(parts) * run.seconds()))
            )
            if not plan.compiled or (not self.compiled and self.steps < _WORTH_IT * change_over):
                return _Stage(run)
            compilation = Compilation(run.graph, run.inputs(tasks), torch.get_num_threads())
        if not compilation.done and not self._passes:
            when = "" if self._number >= change_over else f" in the background, for step {change_over} and on"
            console.print(f"compiling the step{when}, about a minute", highlight=False)
        return _Stage(run, compilation, change_over)

    def _go_on_without(self, error: Exception) -> None:
        """Gives up what failed for this run, where it was not asked for."""
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no reason'}"
        if self.compiled:
            raise QuickstudyError(f"The outer step could not be compiled here ({reason}).") from error
        if self.compiled is None and self.steps > _SHORT:
            warnings.warn(
                f"The outer step runs uncompiled, which is slower but computes the same, because it could not be "
                f"compiled here ({reason}).",
                stacklevel=5,
            )
        # Where compiling failed, what was written out for it is good; where writing out failed, there is nothing.
        self._can_be_written_out = isinstance(error, CompilationError) and self._can_be_written_out
        self.compiled = False
        self._passes = {shape: _Stage(stage.run) for shape, stage in self._passes.items() if not stage.compiled}

    def _without_broken_tasks(self, meta_batch: SupportQuery) -> tuple[Sequence[Tensor | None], Tensor]:
        """The sum of those tasks' gradients that are finite, and which those are; one task at a time."""
        parts = (one_pass(self.learner.loss, False, task, self.trained) for task in _split(meta_batch, 1))
        good, finite = [], []
        for part in parts:
            finite.append(math.isfinite(part.check))
            good += [part] if finite[-1] else []
        gradient = _add_up(good).gradient if good else [None] * len(self.trained)
        return gradient, torch.tensor(finite, device=meta_batch.query.x.device)


def over_tasks(function: Callable[..., Any], *trees: Any, chunk: int | None = None) -> Any:
    """`function` of each task's part of `trees` (tensors [task, ...]), without gradients; a tree of [task, ...].

    Runs `chunk` tasks at once (all where not given), so that memory stays bounded.
    """
    with torch.no_grad():
        return vmap(function, randomness="different", chunk_size=chunk)(*trees)


def adapt_tasks(learner: MetaLearner, support: Batch) -> Skill:
    """The skills [task, ...] after each task's support [task, shot, step, ...], without an outer gradient."""
    size = sum(p.numel() for p in learner.parameters())
    chunk = max(1, _EVALUATION_FLOATS // _floats(size, support.mask[0].numel(), learner.copies))
    with threads_for(support.mask.numel() * size):
        return over_tasks(learner.adapt, support, chunk=chunk)


@contextmanager
def threads_for(work: float) -> Iterator[None]:
    """One thread for small work (tasks x points x parameters), as many as torch may use for other work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if work < _SMALL else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _check_points(meta_batch: SupportQuery) -> None:
    for name, part in (("support", meta_batch.support), ("query", meta_batch.query)):
        empty = part.mask.flatten(1).sum(1) == 0
        if empty.any():
            raise QuickstudyError(
                f"Task {int(empty.int().argmax())} of the meta-batch has an empty {name}: no real step."
            )


def _points(meta_batch: SupportQuery) -> int:
    """Support and query points of all tasks, padding included."""
    return meta_batch.support.mask.numel() + meta_batch.query.mask.numel()


def _split(meta_batch: SupportQuery, at_once: int) -> list[SupportQuery]:
    """The meta-batch in parts of `at_once` tasks; the last may be smaller."""
    tasks = len(meta_batch.query.x)
    if at_once >= tasks:
        return [meta_batch]
    return [tree_map(lambda t, i=i: t[i : i + at_once], meta_batch) for i in range(0, tasks, at_once)]


def _add_up(parts: Sequence[Part]) -> Part:
    """One part of several: gradients summed, tasks one after the other."""
    if len(parts) == 1:
        return parts[0]
    gradient = [_sum(g) for g in zip(*(part.gradient for part in parts), strict=True)]
    metrics = tree_map(lambda *m: torch.cat(m), *(part.metrics for part in parts))
    return Part(gradient, torch.cat([p.losses for p in parts]), metrics, torch.stack([p.check for p in parts]).sum())


def _sum(gradients: Sequence[Tensor | None]) -> Tensor | None:
    there = [g for g in gradients if g is not None]
    return sum(there[1:], start=there[0]) if there else None


def _floats(parameters: int, points: int, copies: int) -> int:
    """Roughly how many numbers the work on one task holds: copies of the parameters, and activations at each point.

    A network of p parameters is about sqrt(p) wide.
    """
    return 1 + int(copies * parameters + 4 * points * parameters**0.5)


def _even(tasks: int, fitting: int) -> int:
    """How many tasks at once: at most `fitting`, in equal parts where that takes less than twice as many parts."""
    fewest = -(-tasks // fitting)
    parts = next((n for n in range(fewest, 2 * fewest) if tasks % n == 0), fewest)
    return -(-tasks // parts)
