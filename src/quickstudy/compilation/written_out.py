"""One pass over some tasks: by autograd as it comes, or with all its derivatives written out into one graph.

In the graph nothing is left to differentiate: it is a plain list of tensor operations, those that autograd would do.
Run as it is, it saves autograd's own work, and rounds as that does but where products are taken the other way round;
and a compiler does with second order what it does with first.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten
from torch.utils.flop_counter import flop_registry

from quickstudy.data import Batch, SupportQuery
from quickstudy.learner import MetaLearner, Metrics


class Part(NamedTuple):
    """One pass over some tasks.

    Attributes:
        gradient: of the sum of the losses, one for each trained parameter; None where no loss depends on it.
        losses: [task].
        metrics: each [task, ...].
        check: the sum of all losses and gradients, finite only if each of them is, and each task has a point.
    """

    gradient: Sequence[Tensor | None]
    losses: Tensor
    metrics: Metrics
    check: Tensor


def one_pass(
    loss: Callable[[SupportQuery], tuple[Tensor, Metrics]],
    batched: bool,
    tasks: SupportQuery,
    trained: Sequence[Tensor],
) -> Part:
    """One pass over `tasks` [task, ...] by autograd; not batched: over the only one."""
    if batched:
        losses, metrics = vmap(loss, randomness="different")(tasks)
    else:
        losses, metrics = tree_map(lambda t: t[None], loss(tree_map(lambda t: t[0], tasks)))
    gradient = torch.autograd.grad(losses.sum(), trained, allow_unused=True)
    losses, metrics = losses.detach(), tree_map(Tensor.detach, metrics)
    points = torch.cat([part.mask.flatten(1).sum(1) for part in tasks])
    check = losses.sum() + sum(g.sum() for g in gradient if g is not None)
    check = torch.where(points.min() > 0, check, torch.nan)
    return Part(gradient, losses, metrics, check)


class _Loss(nn.Module):
    """A learner's loss as a module, so that `functional_call` can lend it other parameters."""

    def __init__(self, learner: MetaLearner) -> None:
        super().__init__()
        self.learner = learner

    def forward(self, task: SupportQuery) -> tuple[Tensor, Metrics]:
        return self.learner.loss(task)


class WrittenOutPass:
    """`one_pass` for tasks of one shape, written out.

    Attributes:
        graph: from `inputs` to a list: the gradients that are not None, losses, check and metrics.
        run: what goes through the tasks, from the inputs in a list to those outputs: the graph, or what it was compiled
            to.

    Raises:
        Exception: from the learner or from torch, where the loss cannot be written out: it looks at values, say.
    """

    def __init__(self, learner: MetaLearner, batched: bool, tasks: SupportQuery, matmul: str = "float32") -> None:
        module = _Loss(learner)
        named, buffers = dict(module.named_parameters()), [name for name, _ in module.named_buffers()]
        self._parameters = list(named.values())
        # A buffer is looked up anew in every call, because moving a module to a device replaces it.
        self._buffers = [(module.get_submodule(path), leaf) for path, _, leaf in (n.rpartition(".") for n in buffers)]
        names = [*named, *buffers]

        def flat(*tensors: Tensor) -> list[Tensor]:
            """State and tasks to gradients, losses, check and metrics."""
            lent = dict(zip(names, tensors, strict=False))
            tasks = tensors[len(names) :]
            part = one_pass(
                lambda task: functional_call(module, lent, (task,)),
                batched,
                SupportQuery(Batch(*tasks[: len(tasks) // 2]), Batch(*tasks[len(tasks) // 2 :])),
                [lent[name] for name, p in named.items() if p.requires_grad],
            )
            metrics, self._metrics = tree_flatten(part.metrics)
            self._has_gradient = [g is not None for g in part.gradient]
            return [*(g for g in part.gradient if g is not None), part.losses, part.check, *metrics]

        inputs = self.inputs(tasks)
        state = [t.requires_grad_(p.requires_grad) for t, p in zip(inputs, self._state(), strict=False)]
        with torch.random.fork_rng(devices=[]):  # what is drawn while writing out does not count
            self.graph = make_fx(flat)(*state, *inputs[len(state) :])
        _drop_what_does_nothing(self.graph)
        if matmul == "bf16":
            _round_factors(self.graph)
        as_it_is = _runnable(self.graph, self.inputs(tasks))
        self.run: Callable[[list[Tensor]], Sequence[Tensor]] = lambda inputs: as_it_is(*inputs)

    def __call__(self, tasks: SupportQuery) -> Part:
        with torch.no_grad():
            outputs = iter(self.run(self.inputs(tasks)))
        gradient = [next(outputs) if there else None for there in self._has_gradient]
        losses, check, *metrics = outputs
        return Part(gradient, losses, tree_unflatten(metrics, self._metrics), check)

    def seconds(self) -> float:
        """Roughly what one run of the graph as it is takes on a core, by its operations and by nothing measured."""
        made = [node for node in self.graph.graph.nodes if node.op == "call_function" and _layout(node) is not None]
        numbers = sum(_layout(node)[0].numel() for node in made)
        return 2e-6 * len(made) + 3e-10 * numbers + sum(map(_products, made)) / 3e11

    def inputs(self, tasks: SupportQuery) -> list[Tensor]:
        """All parameters, all buffers and the tensors of the tasks; the last as the graph expects them in memory."""
        return [*(t.detach() for t in self._state()), *(t.contiguous() for t in (*tasks.support, *tasks.query))]

    def _state(self) -> list[Tensor]:
        return [*self._parameters, *(getattr(module, name) for module, name in self._buffers)]


def _drop_what_does_nothing(graph: GraphModule) -> None:
    """Takes out of a graph what leaves a tensor as it is, bit for bit."""
    aten = torch.ops.aten
    views = (aten.view.default, aten.expand.default, aten._unsafe_view.default)
    swaps = {aten.t.default: (), aten.transpose.int: None}

    def source(node: Node) -> Node | None:
        """The node that gives the same tensor, if there is one."""
        if node.op != "call_function" or not node.args or not isinstance(node.args[0], Node):
            return None
        before, how = node.args[0], node.args[1:]
        if node.target == aten.detach.default:
            return before
        if node.target in views and _layout(node) is not None and _layout(node) == _layout(before):
            return before
        if node.target == aten.mul.Scalar and how == (1,) and _layout(node) == _layout(before):
            return before
        if node.target in swaps and before.target == node.target and before.args[1:] == how:
            return before.args[0] if isinstance(before.args[0], Node) else None
        return None

    for node in graph.graph.nodes:
        if (same := source(node)) is not None:
            node.replace_all_uses_with(same)
            graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _runnable(graph: GraphModule, inputs: Sequence[Tensor]) -> GraphModule:
    """The same graph for running it without a compiler; one that was compiled finds such layouts by itself.

    Gradients of gradients come out transposed, which makes each operation on them several times slower: the products
    that they come from are taken the other way round. Sums with zeros are left out.
    """
    aten, tidy = torch.ops.aten, copy.deepcopy(graph)
    for node in tidy.graph.nodes:
        first = next(iter(node.args), None)
        if not isinstance(first, Node):
            continue
        if node.target == aten.add.Tensor and first.target == aten.zeros_like.default and not node.kwargs:
            other = node.args[1]
            if isinstance(other, Node) and _layout(other) is not None and _layout(other)[:2] == _layout(node)[:2]:
                node.replace_all_uses_with(other)
        product = node.target == aten.transpose.int and first.target == aten.bmm.default and len(first.users) == 1
        if product and node.args[1:] == (1, 2):
            with tidy.graph.inserting_before(node):
                a, b = (tidy.graph.call_function(aten.transpose.int, (factor, 1, 2)) for factor in first.args)
                node.replace_all_uses_with(tidy.graph.call_function(aten.bmm.default, (b, a)))
    tidy.graph.eliminate_dead_code()
    tidy.recompile()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            tidy(*inputs)
    except RuntimeError:  # something takes the layout for granted that was there
        return graph
    return tidy


def _layout(node: Node) -> Any:
    """Shape, dtype and strides of what a node gives; None where that is no tensor."""
    meta: Any = node.meta.get("tensor_meta")
    return (meta.shape, meta.dtype, meta.stride) if hasattr(meta, "stride") else None


def _products(node: Node) -> float:
    """Operations of a matrix product or a convolution; 0 for anything else."""
    count = flop_registry.get(getattr(node.target, "overloadpacket", None))
    if count is None:
        return 0.0
    shapes = [_layout(a)[0] if isinstance(a, Node) and _layout(a) is not None else a for a in node.args]
    return float(count(*shapes, **node.kwargs, out_val=_layout(node)[0]))


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
