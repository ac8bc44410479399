"""A point of the contract: what is exported for robots without PyTorch does what PyTorch does."""

from collections.abc import Sequence

import torch
from torch import Tensor

from quickstudy.check.points import BrokenError, SkippedError
from quickstudy.data import Batch
from quickstudy.errors import QuickstudyError
from quickstudy.export.parity import ACTIONS, needs_packages, parity
from quickstudy.export.policies import of_demonstrations
from quickstudy.learner import MetaLearner


def graphs_do_the_same(learner: MetaLearner, supports: Sequence[Batch]) -> str:
    """Exports a learner, adapts to each of the supports ([shot, step, ...]), and acts a thousand times.

    Raises:
        BrokenError: it cannot be written as graphs, or they are farther from PyTorch than rounding is.
        SkippedError: the packages that exporting needs are not installed.
    """
    if missing := needs_packages():
        raise SkippedError(f"the package {missing} is not installed: pip install 'quickstudy[export]'")
    seen, done = supports[0].x.shape[-1], supports[0].y.shape[-1]
    joined = [torch.cat([s.x, s.y, s.mask[..., None]], -1).float() for s in supports]
    try:
        made = of_demonstrations(learner.eval(), seen, done)
        found = parity(made, made.graphs, joined, _observations(joined, seen))
    except QuickstudyError as error:
        raise BrokenError(
            f"{error} Loops over steps go through quickstudy.methods.scanning.scan, and no size of what is given may "
            "be written down as a number."
        ) from error
    if found.fault:
        raise BrokenError(f"Its graphs {found.fault}: does it ask for the length of what it is given by len or int?")
    return f"skills and {ACTIONS} actions are at most {max(found.adapt or 0.0, found.act):.1e} from PyTorch's"


def _observations(joined: Sequence[Tensor], seen: int) -> Tensor:
    """Those of the demonstrations, over and over, each moved a little: [`ACTIONS`, obs]."""
    real = torch.cat([one[one[..., -1] > 0][:, :seen] for one in joined])
    rng = torch.Generator().manual_seed(0)
    drawn = real[torch.randint(len(real), (ACTIONS,), generator=rng)]
    return drawn + 0.1 * real.std(0, correction=0) * torch.randn(drawn.shape, generator=rng)
