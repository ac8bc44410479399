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
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from quickstudy.data import Batch, SupportQuery
from quickstudy.errors import QuickstudyError
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

_COMPILE_SECONDS = 30.0
"""What compilation costs, at about; it has to be earned back by the run."""

_SHAPES = 8
"""A learner whose meta-batches come in more shapes than this would do little but compile."""

_INDUCTOR: dict[str, str | int | bool | Callable[..., Any]] = {"cpp_wrapper": True, "cpp.min_chunk_size": 32768}
"""No Python between the kernels; and loops too short to be worth waking a second thread stay on one."""


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
    """

    losses: Tensor
    metrics: Metrics
    finite: Tensor


class Sums(NamedTuple):
    """What some tasks add to an outer step, before it is divided by their number.

    Attributes:
        gradient: the sum of the gradients of the finite tasks, one for each trained parameter; None where no loss
            depends on it.
        losses, metrics, finite: as in `Outer`.
    """

    gradient: Sequence[Tensor | None]
    losses: Tensor
    metrics: Metrics
    finite: Tensor


class Part(NamedTuple):
    """One pass over some tasks.

    Attributes:
        gradient: of the sum of the losses, one for each trained parameter; None where no loss depends on it.
        losses: [task].
        metrics: each [task, ...].
        check: the sum of all losses and gradients, finite only if each of them is.
    """

    gradient: Sequence[Tensor | None]
    losses: Tensor
    metrics: Metrics
    check: Tensor


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
        self._passes: dict[Any, _CompiledPass] = {}
        self.compiling = 0.0
        self._workers: ThreadPoolExecutor | None = None

    def __call__(self, meta_batch: SupportQuery) -> Outer:
        """One pass over a meta-batch [task, ...]; what the parameters held as gradient is replaced.

        Raises:
            QuickstudyError: a task has no support or no query point, or compilation was asked for and is not possible.
        """
        return self.leave(self.sums(meta_batch))

    def leave(self, sums: Sums) -> Outer:
        """Leaves the mean gradient of these tasks, all of the meta-batch, in the parameters."""
        count = int(sums.finite.sum())
        for p, g in zip(self.trained, sums.gradient, strict=True):
            p.grad = None if g is None else g / count
        return Outer(*sums[1:])

    def sums(self, meta_batch: SupportQuery) -> Sums:
        """What `__call__` divides by the number of tasks; the parameters' gradients stay as they are.

        Raises:
            QuickstudyError: as `__call__`.
        """
        _check_points(meta_batch)
        plan = self.plan(meta_batch)
        parts = _split(meta_batch, plan.at_once)
        sharing = plan.compiled and len(parts) > 1 and meta_batch.query.x.device.type == "cpu"
        workers = min(len(parts), torch.get_num_threads()) if sharing else 1
        with threads_for(0 if workers > 1 else _points(meta_batch) * self._size):
            total = _add_up(self._through(plan, parts, workers))
        gradient, finite = total.gradient, torch.ones_like(total.losses, dtype=torch.bool)
        if not math.isfinite(total.check):
            gradient, finite = self._without_broken_tasks(meta_batch)
        return Sums(gradient, total.losses, total.metrics, finite)

    def plan(self, meta_batch: SupportQuery) -> Plan:
        """How this meta-batch will be gone through."""
        tasks = len(meta_batch.query.x)
        points = _points(meta_batch)
        if self.how == "auto" and meta_batch.query.x.device.type != "cpu":
            fitting = max(1, _ACCELERATOR_FLOATS // _floats(self._size, points // tasks, self.learner.copies))
            return Plan(_even(tasks, fitting), bool(self.compiled))
        compiled = self.compiled if self.compiled is not None else self._pays(points)
        if self.how == "vmap" or (self.how == "auto" and self.learner.scans):
            return Plan(tasks, compiled)
        if self.how == "loop" or (self.how == "auto" and self._convolves_alone):
            return Plan(1, compiled)
        return Plan(
            _even(tasks, max(1, _CACHE_FLOATS // _floats(self._size, points // tasks, self.learner.copies))), compiled
        )

    def _pays(self, points: int) -> bool:
        """Whether a compiled run earns its compilation back; the seconds saved a step are a fit to measurements."""
        saved = 3e-3 + 4e-11 * points * self._size
        return not self.learner.scans and self.steps * saved > _COMPILE_SECONDS

    def _through(self, plan: Plan, parts: Sequence[SupportQuery], workers: int) -> list[Part]:
        """Each part; compiled ones `workers` at a time, because compiled code does without Python's lock."""
        batched = plan.at_once > 1
        if not plan.compiled:
            return [_pass(self.learner.loss, batched, tasks, self.trained) for tasks in parts]
        try:
            known, started = len(self._passes), time.monotonic()
            passes = [self._compiled(batched, tasks) for tasks in parts]
            if workers == 1 or len(self._passes) > known:  # the first call of a pass compiles it
                found = [run(tasks) for run, tasks in zip(passes, parts, strict=True)]
                self.compiling += time.monotonic() - started if len(self._passes) > known else 0.0
                return found
            if self._workers is None:
                self._workers = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
            return list(self._workers.map(lambda run, tasks: run(tasks), passes, parts))
        except Exception as error:
            return self._uncompiled(error, plan, parts)

    def _compiled(self, batched: bool, tasks: SupportQuery) -> "_CompiledPass":
        """The pass for the shape of these tasks, made at their first meeting."""
        tensors = (*tasks.support, *tasks.query)
        shape = (batched, self.learner.training, *((t.shape, t.dtype, t.device) for t in tensors))
        if shape not in self._passes:
            if len(self._passes) == _SHAPES:
                raise QuickstudyError(f"meta-batches come in more than {_SHAPES} shapes")
            if not self._passes:
                console.print("compiling the step, about a minute", highlight=False)
            self._passes[shape] = _CompiledPass(self.learner, batched, tasks, self.matmul)
        return self._passes[shape]

    def _uncompiled(self, error: Exception, plan: Plan, parts: Sequence[SupportQuery]) -> list[Part]:
        """Goes on without compilation where it was chosen, and raises where it was asked for."""
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no reason'}"
        if self.compiled:
            raise QuickstudyError(f"The outer step could not be compiled here ({reason}).") from error
        warnings.warn(
            f"The outer step runs uncompiled, which is slower but computes the same, because it could not be compiled "
            f"here ({reason}).",
            stacklevel=4,
        )
        self.compiled = False
        return self._through(Plan(plan.at_once, False), parts, 1)

    def _without_broken_tasks(self, meta_batch: SupportQuery) -> tuple[Sequence[Tensor | None], Tensor]:
        """The sum of those tasks' gradients that are finite, and which those are; one task at a time."""
        parts = (_pass(self.learner.loss, False, task, self.trained) for task in _split(meta_batch, 1))
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


def _pass(
    loss: Callable[[SupportQuery], tuple[Tensor, Metrics]],
    batched: bool,
    tasks: SupportQuery,
    trained: Sequence[Tensor],
) -> Part:
    """One pass over `tasks` [task, ...]; not batched: over the only one."""
    if batched:
        losses, metrics = vmap(loss, randomness="different")(tasks)
    else:
        losses, metrics = tree_map(lambda t: t[None], loss(tree_map(lambda t: t[0], tasks)))
    gradient = torch.autograd.grad(losses.sum(), trained, allow_unused=True)
    losses, metrics = losses.detach(), tree_map(Tensor.detach, metrics)
    check = losses.sum() + sum(g.sum() for g in gradient if g is not None)
    return Part(gradient, losses, metrics, check)


class _Loss(nn.Module):
    """A learner's loss as a module, so that `functional_call` can lend it other parameters."""

    def __init__(self, learner: MetaLearner) -> None:
        super().__init__()
        self.learner = learner

    def forward(self, task: SupportQuery) -> tuple[Tensor, Metrics]:
        return self.learner.loss(task)


class _CompiledPass:
    """`_pass` for one shape, compiled: all derivatives are first written out into one graph of tensor operations.

    Because nothing is left to differentiate, second order is no different from first to the compiler.

    Attributes:
        graph: what was compiled, from all parameters, all buffers and the tensors of the tasks to those of a `Part`.
    """

    def __init__(self, learner: MetaLearner, batched: bool, tasks: SupportQuery, matmul: str) -> None:
        module = _Loss(learner)
        named, buffers = dict(module.named_parameters()), [name for name, _ in module.named_buffers()]
        self._parameters = list(named.values())
        # A buffer is looked up anew in every call, because moving a module to a device replaces it.
        self._buffers = [(module.get_submodule(path), leaf) for path, _, leaf in (n.rpartition(".") for n in buffers)]
        names = [*named, *buffers]

        def flat(*tensors: Tensor) -> list[Tensor | None]:
            """State and tasks to gradients, losses, check and metrics."""
            lent = dict(zip(names, tensors, strict=False))
            tasks = tensors[len(names) :]
            part = _pass(
                lambda task: functional_call(module, lent, (task,)),
                batched,
                SupportQuery(Batch(*tasks[: len(tasks) // 2]), Batch(*tasks[len(tasks) // 2 :])),
                [lent[name] for name, p in named.items() if p.requires_grad],
            )
            metrics, self._metrics = tree_flatten(part.metrics)
            return [*part.gradient, part.losses, part.check, *metrics]

        state = [t.detach().requires_grad_(t.requires_grad) for t in self._state()]
        self.graph = make_fx(flat)(*state, *tasks.support, *tasks.query)
        if matmul == "bf16":
            _round_factors(self.graph)
        self.trained = sum(p.requires_grad for p in self._parameters)
        self._run = torch.compile(self.graph, fullgraph=True, dynamic=False, options=_INDUCTOR)

    def __call__(self, tasks: SupportQuery) -> Part:
        with torch.no_grad():
            outputs = self._run(*self._state(), *tasks.support, *tasks.query)
        gradient, (losses, check, *metrics) = outputs[: self.trained], outputs[self.trained :]
        return Part(gradient, losses, tree_unflatten(metrics, self._metrics), check)

    def _state(self) -> list[Tensor]:
        return [*self._parameters, *(getattr(module, name) for module, name in self._buffers)]


def _round_factors(graph: GraphModule) -> None:
    """Takes every matrix product of a float32 graph in bfloat16; everything between them stays in float32."""
    aten, cast = torch.ops.aten, torch.ops.prims.convert_element_type.default
    for node in graph.graph.find_nodes(op="call_function", target=aten.addmm.default):
        with graph.graph.inserting_before(node):
            product = graph.graph.call_function(aten.mm.default, node.args[1:])
            node.replace_all_uses_with(graph.graph.call_function(aten.add.Tensor, (product, node.args[0])))
        graph.graph.erase_node(node)
    for target in (aten.mm.default, aten.bmm.default):
        for node in graph.graph.find_nodes(op="call_function", target=target):
            with graph.graph.inserting_before(node):
                node.args = tuple(graph.graph.call_function(cast, (factor, torch.bfloat16)) for factor in node.args)
            with graph.graph.inserting_after(node):
                product = graph.graph.call_function(cast, (node, torch.float32))
            node.replace_all_uses_with(product, delete_user_cb=lambda user, product=product: user is not product)
    graph.recompile()


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
