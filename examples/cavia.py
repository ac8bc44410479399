"""A method of one's own: CAVIA, in a file outside the package.

Zintgraf, Shiarlis, Kurin, Hofmann, Whiteson: Fast Context Adaptation via Meta-Learning, ICML 2019. Of a network's
inputs some are context parameters phi. The inner loop changes phi alone; the outer loop learns all weights theta.

    cd examples
    quickstudy check point-navigation --method cavia:CAVIA
    quickstudy train point-navigation --method cavia:CAVIA --inner-steps 3
    quickstudy compare point-navigation --methods cavia:CAVIA maml no-adaptation
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad

from quickstudy import BaseLearner, Batch, MetaLearner, Method
from quickstudy.methods.demonstrations.base_network import base_learner
from quickstudy.settings import Config, PositiveFloat, PositiveInt


@dataclass(frozen=True)
class CAVIAConfig(Config):
    """Settings of CAVIA; each is an option of `quickstudy train`.

    Attributes:
        context_size: context parameters.
        inner_steps: gradient steps on them.
        inner_rate: alpha of equation 3.
    """

    context_size: PositiveInt = 8
    inner_steps: PositiveInt = 2
    inner_rate: PositiveFloat = 1.0


class CAVIA(MetaLearner):
    """Skill: the context parameters phi, [context_size].

    Args:
        base: its network takes an observation and the context parameters.
    """

    adapts_weights = False

    def __init__(self, base: BaseLearner, config: CAVIAConfig = CAVIAConfig()) -> None:
        super().__init__(base)
        self.config = config

    def standardise(self, batch: Batch) -> None:
        # Context parameters have no scale of their own: channels that are always zero are left as they are.
        nothing = batch.x.new_zeros(*batch.x.shape[:-1], self.config.context_size)
        self.base.standardise(batch._replace(x=torch.cat([batch.x, nothing], -1)))

    def begin(self) -> Tensor:
        return self.base.mean.new_zeros(self.config.context_size)  # section 3.1: phi_0 = 0

    def adapt(self, support: Batch) -> Tensor:
        phi = self.begin()
        for _ in range(self.config.inner_steps):
            # Eq. 3: phi_i = phi - alpha grad_phi (1 / M) sum of the loss of f_{phi, theta} on the support
            phi = phi - self.config.inner_rate * grad(self._support_loss)(phi, support)
        return phi

    def predict(self, skill: Tensor, x: Tensor) -> Tensor:
        context = skill.expand(*x.shape[:-1], -1)
        return self.base.predict(self.base.initial(), torch.cat([x, context], -1))

    # Eq. 4, the outer loss, is what MetaLearner.loss does: the query loss of the adapted base learner.

    def _support_loss(self, phi: Tensor, support: Batch) -> Tensor:
        return self.base.criterion(self.predict(phi, support.x), support)


CAVIA.method = Method(
    name="cavia",
    summary="gradient steps on context parameters alone",
    paper="Zintgraf et al. 2019, Fast Context Adaptation via Meta-Learning, ICML",
    settings=CAVIAConfig,
    build=lambda s, family: CAVIA(base_learner(s, family, extra=s.algorithm.context_size), s.algorithm),
    unsuited=lambda family: "CAVIA's network here takes no images." if family.image is not None else "",
    gradient_based=True,
)
