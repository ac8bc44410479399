"""One step again and again: a Python loop, but one node of the graph where a learner is being exported.

A graph that is written for a robot has to take demonstrations of any length, and fifty inner steps written out would be
thousands of nodes. So whoever goes through something step by step says so by `scan`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_unflatten

_exported: nn.Module | None = None  # a plain global, which torch.compile can see through


def scan(step: Callable[..., tuple[Any, Any]], state: Any, rows: Any, *shared: Any) -> tuple[Any, Any]:
    """Goes through `rows` step by step.

    Args:
        step: of a state, a row and what is shared to the next state and what it gives beside, trees of tensors; the
            state keeps its shapes. Of tensors it may use these and its learner's own parameters and buffers, no others.
        state: before the first step.
        rows: a tree of tensors [step, ...].
        shared: the same for every step.

    Returns:
        the state after the last step, and what all steps gave, stacked, a tree of [step, ...]; None without a step.
    """
    if _exported is not None:
        return _as_node(_exported, step, state, rows, shared)
    leaves, spec = tree_flatten(rows)
    given = []
    for row in zip(*(leaf.unbind() for leaf in leaves), strict=True):
        state, one = step(state, tree_unflatten(row, spec), *shared)
        given.append(one)
    if not given:
        return state, None
    # What steps give may be an empty tree.
    columns, beside = [tree_flatten(one)[0] for one in given], tree_flatten(given[0])[1]
    return state, tree_unflatten([torch.stack(each) for each in zip(*columns, strict=True)], beside)


def is_exporting() -> bool:
    """Whether a graph is being written, whose sizes are not those of the tensors at hand."""
    return _exported is not None


@contextmanager
def exporting(learner: nn.Module) -> Iterator[None]:
    """Within it `scan` is one node; `learner` holds the parameters that steps use."""
    global _exported
    _exported = learner
    try:
        yield
    finally:
        _exported = None


class Bound(nn.Module):
    """Calls functions that use a learner's parameters, so that `functional_call` can replace these."""

    def __init__(self, learner: nn.Module) -> None:
        super().__init__()
        self.learner = learner

    def forward(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)


class PlainProducts(TorchFunctionMode):
    """Linear layers of many rows as products: how torch flattens them first fixes how many rows there are."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.linear and args[0].ndim > 2:
            x, weight, *rest = args
            bias = rest[0] if rest else (kwargs or {}).get("bias")
            product = x @ weight.mT
            return product if bias is None else product + bias
        return func(*args, **(kwargs or {}))


def _as_node(learner: nn.Module, step: Any, state: Any, rows: Any, shared: Sequence[Any]) -> tuple[Any, Any]:
    from torch._higher_order_ops.scan import scan_op

    bound = Bound(learner)
    tensors = dict(bound.named_parameters()) | dict(bound.named_buffers())
    trees = [tree_flatten(tree) for tree in (state, rows, tuple(shared), tensors)]
    sizes = [len(leaves) for leaves, _ in trees]
    specs: list[Any] = []  # of what a step gives beside, known once it was called

    def flat(*leaves: Tensor) -> list[Tensor]:
        places = iter(leaves)
        now, row, same, own = (
            tree_unflatten([next(places) for _ in range(size)], spec)
            for size, (_, spec) in zip(sizes, trees, strict=True)
        )
        with PlainProducts():
            following, given = functional_call(bound, own, (step, now, row, *same))
        specs.append(tree_flatten(given)[1])
        # a node of the graph may not hand on what it was given
        return [leaf.clone() for tree in (following, given) for leaf in tree_flatten(tree)[0]]

    # A node may not be given one tensor twice, nor two views of one: what it starts from may be parameters.
    before, each, same = ([leaf.clone() for leaf in leaves] for leaves, _ in trees[:3])
    made = scan_op(flat, before, each, (*same, *trees[3][0]))
    return tree_unflatten(list(made[: sizes[0]]), trees[0][1]), tree_unflatten(list(made[sizes[0] :]), specs[-1])
