"""Base networks, each safe under second-order gradients through `torch.func.vmap`.

`torch.nn.LayerNorm` is not: torch 2.13 gives silently wrong second-order gradients for it under vmap, so the
normalisation here is written in elementary operations. A test compares every network here with a plain loop.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis (Ba et al. 2016, eq. 4), from operations that vmap differentiates well."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred * (centred.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * self.weight + self.bias


class MLP(nn.Module):
    """A multi-layer perceptron with ReLU; `head` is its last, linear layer.

    Args:
        context: width of a learned constant that is appended to the input: with it a single gradient step can shift
            every first-layer unit at once (the bias transformation of Finn et al. 2017, "One-Shot Visual Imitation
            Learning via Meta-Learning", section 4.1).
        normalise: put a `LayerNorm` before each ReLU.
    """

    def __init__(
        self, inputs: int, outputs: int, hidden: Sequence[int], context: int = 0, normalise: bool = False
    ) -> None:
        super().__init__()
        self.context = nn.Parameter(torch.zeros(context)) if context else None
        widths = [inputs + context, *hidden]
        layers: list[nn.Module] = []
        for wide, narrow in pairwise(widths):
            layers += [nn.Linear(wide, narrow), *([LayerNorm(narrow)] if normalise else []), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        if self.context is not None:
            x = torch.cat([x, self.context.expand(*x.shape[:-1], -1)], -1)
        return self.head(self.body(x))
