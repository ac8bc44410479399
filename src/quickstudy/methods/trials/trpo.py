"""Trust region policy optimisation: the step of the natural gradient whose KL divergence is what is allowed.

Schulman, Levine, Moritz, Jordan, Abbeel: Trust Region Policy Optimization, ICML 2015 (section 6, appendix C).

Written for any function from parameters to distributions, so that the policies whose divergence counts may be those
that an inner loop makes of the parameters.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from quickstudy.learner import Parameters
from quickstudy.methods.trials.policy import Gaussian
from quickstudy.settings import Config, NonNegativeFloat, OpenFraction, PositiveFloat, PositiveInt


@dataclass(frozen=True)
class TRPOConfig(Config):
    """Settings of a step.

    Attributes:
        max_kl: delta, the mean KL divergence that a step may cause.
        cg_steps: iterations of conjugate gradient.
        damping: added to the Fisher matrix's diagonal.
        backtracks: shorter steps that are tried where the first is not accepted.
        shrink: factor of each.
        fisher_every: the Fisher matrix is that of every n-th step of an episode (appendix C uses a tenth of the data);
            the line search looks at all of them.
    """

    max_kl: PositiveFloat = 0.02
    cg_steps: PositiveInt = 6
    damping: NonNegativeFloat = 1e-5
    backtracks: PositiveInt = 15
    shrink: OpenFraction = 0.8
    fisher_every: PositiveInt = 8


class Fisher:
    """Products with the Fisher matrix of the distributions that parameters lead to.

    With z the means and log deviations, it is J^T M J, where J = dz / dtheta and M is the Hessian of the KL divergence
    in z: 1 / variance for a mean, 2 for a log deviation. Where the divergence is zero this is its whole Hessian, as
    what is left out is multiplied by the divergence's gradient. The graph of z is built once for all products.

    Args:
        theta: by name; what `gaussian` was computed from.
        weights: of each distribution [...], in the mean divergence.
    """

    def __init__(self, theta: Parameters, gaussian: Gaussian, weights: Tensor, damping: float) -> None:
        self._theta, self._z, self._damping = list(theta.values()), list(gaussian), damping
        w = weights.detach().unsqueeze(-1)
        self._metric = (w * (-2 * gaussian.log_std.detach()).exp(), 2 * w)
        self._dummy = [torch.zeros_like(z, requires_grad=True) for z in self._z]
        # J^T u is linear in u, so its derivative by u, applied to v, is J v (forward mode by two backward passes).
        self._pulled = torch.autograd.grad(self._z, self._theta, self._dummy, create_graph=True)

    def __call__(self, v: Tensor) -> Tensor:
        """(F + damping) v, flat as v."""
        # Appendix C.1: F v = J^T M (J v).
        pushed = torch.autograd.grad(self._pulled, self._dummy, unflatten(v, self._theta), retain_graph=True)
        weighted = [m * p for m, p in zip(self._metric, pushed, strict=True)]
        return flatten(torch.autograd.grad(self._z, self._theta, weighted, retain_graph=True)) + self._damping * v


def conjugate_gradient(product: Callable[[Tensor], Tensor], b: Tensor, steps: int, tolerance: float = 1e-10) -> Tensor:
    """x with product(x) = b, for a symmetric positive definite matrix (Hestenes & Stiefel 1952)."""
    x, residual = torch.zeros_like(b), b.clone()
    direction, square = residual.clone(), residual @ residual
    for _ in range(steps):
        if square < tolerance:
            break
        # Hestenes & Stiefel: alpha = r^T r / p^T A p, x <- x + alpha p, r <- r - alpha A p, p <- r + beta p.
        image = product(direction)
        length = square / (direction @ image)
        x, residual = x + length * direction, residual - length * image
        previous, square = square, residual @ residual
        direction = residual + (square / previous) * direction
    return x


def trust_region_step(
    theta: Parameters,
    loss_and_kl: Callable[[Parameters], tuple[Tensor, Tensor]],
    gradient: Tensor,
    fisher: Fisher,
    config: TRPOConfig,
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """theta after one step, or theta itself where no step is both within the region and better.

    Args:
        loss_and_kl: loss and mean KL divergence of parameters, scalars.
        gradient: of the loss at theta, flat.

    Returns:
        also what to log: 'kl', 'improvement' of the loss, 'step' (the fraction of the longest one; 0: none accepted).
    """
    values = list(theta.values())
    # Appendix C: the direction s solves F s = g, by conjugate gradient.
    direction = conjugate_gradient(fisher, gradient, config.cg_steps)
    curvature = direction @ fisher(direction)
    # The longest step within the region: beta = sqrt(2 delta / s^T F s).
    longest = (2 * config.max_kl / curvature.clamp(min=1e-12)).sqrt() * direction
    with torch.no_grad():
        before, _ = loss_and_kl(theta)
        # The line search: shorter steps until the loss falls and the divergence is within delta.
        fraction = 1.0
        for _ in range(config.backtracks):
            moved = [p - fraction * d for p, d in zip(values, unflatten(longest, values), strict=True)]
            tried = dict(zip(theta, moved, strict=True))
            loss, kl = loss_and_kl(tried)
            if loss < before and kl <= config.max_kl:  # a NaN is neither
                return tried, {"kl": float(kl), "improvement": float(before - loss), "step": fraction}
            fraction *= config.shrink
    return dict(theta), {"kl": 0.0, "improvement": 0.0, "step": 0.0}


def flatten(tensors: tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    """All numbers of the tensors, one after the other."""
    return torch.cat([t.reshape(-1) for t in tensors])


def unflatten(flat: Tensor, like: list[Tensor]) -> list[Tensor]:
    """What `flatten` made flat, in the shapes of `like`."""
    parts = flat.split([t.numel() for t in like])
    return [part.view_as(t) for part, t in zip(parts, like, strict=True)]
