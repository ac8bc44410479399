"""Model-Agnostic Meta-Learning: learn the parameters from which a few gradient steps solve a new task.

Finn, Abbeel, Levine: Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks, ICML 2017 (Algorithm 1).

Options of the same algorithm:
- `first_order`: FOMAML, section 5.2 of the paper; the inner gradient counts as a constant in the outer one.
- `adapt_only`: ANIL (Raghu et al. 2020), the inner loop moves only the head.
- `every_step`: the multi-step loss of MAML++ (Antoniou et al. 2019, Eq. 4) with equal weights.
- `shared_head`: UNICORN-MAML (Ye & Chao 2022, section 5), all classes start from one row of the head.
- `learn_rates`: Meta-SGD (Li et al. 2017), one learned rate for each parameter, or for each parameter and step.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import grad

from quickstudy.data import Batch, SupportQuery
from quickstudy.errors import QuickstudyError
from quickstudy.learner import BaseLearner, MetaLearner, Metrics, Parameters
from quickstudy.method import Method
from quickstudy.methods.demonstrations.base_network import base_learner
from quickstudy.settings import Config, PositiveFloat, PositiveInt, Settings
from quickstudy.task import TaskFamily

_HEAD = "network.head."


@dataclass(frozen=True)
class MAMLConfig(Config):
    """Settings of MAML.

    Attributes:
        inner_steps: gradient steps of the inner loop.
        inner_rate: alpha of Algorithm 1; with learned rates, their initial value.
        first_order: drop the second derivatives (FOMAML).
        adapt_only: 'all' parameters, or those of the 'head' (ANIL).
        learn_rates: 'no', one for each 'parameter' (Meta-SGD), or one for each 'parameter-step'.
        every_step: the outer loss is the mean of the query losses after each inner step, not the one after the last.
        shared_head: every row of the head starts as the mean of all rows. Classes are then interchangeable before the
            first step, and what was learned fits any number of classes. For recognition.
    """

    inner_steps: PositiveInt = 5
    inner_rate: PositiveFloat = 0.1
    first_order: bool = False
    adapt_only: Literal["all", "head"] = "all"
    learn_rates: Literal["no", "parameter", "parameter-step"] = "no"
    every_step: bool = False
    shared_head: bool = False


class MAML(MetaLearner):
    """Skill: the adapted parameters phi, by name."""

    def __init__(self, base: BaseLearner, config: MAMLConfig = MAMLConfig()) -> None:
        super().__init__(base)
        self.config = config
        moved = [n for n in base.initial() if config.adapt_only == "all" or n.startswith(_HEAD)]
        if not moved:
            raise QuickstudyError("adapt_only='head' needs a base network whose last layer is named 'head'.")
        self._moved = frozenset(moved)
        self.adapts_weights = any(not name.startswith(_HEAD) for name in moved)
        self.follows_gradient = not config.first_order
        copies = config.inner_steps if config.learn_rates == "parameter-step" else 1
        rates = {n: torch.full((copies, *p.shape), config.inner_rate) for n, p in base.initial().items() if n in moved}
        self.rates = nn.ParameterDict(
            {n.replace(".", "/"): nn.Parameter(r) for n, r in rates.items()} if config.learn_rates != "no" else {}
        )

    def begin(self) -> Parameters:
        initial = self.base.initial()
        if not self.config.shared_head:
            return initial
        return {n: p.mean(0, keepdim=True).expand_as(p) if n.startswith(_HEAD) else p for n, p in initial.items()}

    def adapt(self, support: Batch, steps: int | None = None) -> Parameters:
        """phi after `steps` inner steps (as many as in training where not given)."""
        return self.path(support, self.config.inner_steps if steps is None else steps)[-1]

    def path(self, support: Batch, steps: int) -> list[Parameters]:
        """The parameters before the first inner step and after each."""
        path = [self.begin()]
        for k in range(steps):
            phi = path[-1]
            fixed = {n: p for n, p in phi.items() if n not in self._moved}
            moved = {n: p for n, p in phi.items() if n in self._moved}
            # Algorithm 1, line 5: the gradient of L(phi) on the K demonstrations of the task
            gradient = grad(lambda m, fixed=fixed: self.base.loss({**fixed, **m}, support))(moved)
            if self.config.first_order:
                # Section 5.2: without second derivatives the inner gradient is a constant
                gradient = {n: g.detach() for n, g in gradient.items()}
            # Algorithm 1, line 6: phi <- phi - alpha grad L(phi); Meta-SGD (Li et al. 2017, Eq. 2): alpha is a vector
            path.append({n: p - self._rate(n, k) * gradient[n] if n in gradient else p for n, p in phi.items()})
        return path

    def loss(self, task: SupportQuery) -> tuple[Tensor, Metrics]:
        """The query loss after the last inner step, or its mean over all inner steps."""
        path = self.path(task.support, self.config.inner_steps)[1:]
        # MAML++ (Antoniou et al. 2019, Eq. 4): the loss after every step, here with equal weights
        judged = path if self.config.every_step else path[-1:]
        # Eq. 1 (Algorithm 1, line 8): L(phi) on new examples of the task, whose mean over tasks theta descends
        return torch.stack([self.base.loss(phi, task.query) for phi in judged]).mean(), {}

    def predict(self, skill: Parameters, x: Tensor) -> Tensor:
        return self.base.predict(skill, x)

    def _rate(self, name: str, step: int) -> Tensor | float:
        """alpha; beyond the steps of training, the rate of the last one."""
        if self.config.learn_rates == "no":
            return self.config.inner_rate
        rates = self.rates[name.replace(".", "/")]
        return rates[min(step, len(rates) - 1)]


def _build(s: Settings, family: TaskFamily) -> MAML:
    return MAML(base_learner(s, family), s.algorithm)


METHODS = (
    Method(
        "maml",
        "initial parameters from which a few gradient steps solve a task",
        _build,
        paper="Finn, Abbeel, Levine 2017, Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks, ICML",
        settings=MAMLConfig,
        gradient_based=True,
    ),
    Method(
        "fomaml",
        "MAML without second derivatives",
        _build,
        paper="Finn, Abbeel, Levine 2017, Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks, ICML",
        settings=MAMLConfig,
        fixed={"first_order": True},
        gradient_based=True,
        compared=False,
    ),
    Method(
        "anil",
        "MAML whose inner loop adapts only the last layer",
        _build,
        paper="Raghu, Raghu, Bengio, Vinyals 2020, Rapid Learning or Feature Reuse? Towards Understanding the "
        "Effectiveness of MAML, ICLR",
        settings=MAMLConfig,
        fixed={"adapt_only": "head"},
        gradient_based=True,
        compared=False,
    ),
    Method(
        "meta-sgd",
        "MAML that also learns the learning rate of each parameter and step",
        _build,
        paper="Li, Zhou, Chen, Li 2017, Meta-SGD: Learning to Learn Quickly for Few-Shot Learning, arXiv",
        settings=MAMLConfig,
        fixed={"learn_rates": "parameter-step"},
        gradient_based=True,
    ),
)
