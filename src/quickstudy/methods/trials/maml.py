"""MAML for reinforcement learning: learn the policy from which one step of policy gradient solves a new task.

Finn, Abbeel, Levine: Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks, ICML 2017 (Algorithm 3), with
TRPO as outer step as in the paper; Rothfuss, Lee, Clavera, Asfour, Abbeel: ProMP: Proximal Meta-Policy Search, ICLR
2019 (Algorithm 1), with PPO's clipped objective instead.

The estimators of the inner objective differ in what credit the outer gradient gives theta for the trajectories that
the inner step sees (docs/methods/trials/maml.md):
- 'likelihood': sum log pi A; none (Finn et al.).
- 'lvc': sum pi / pi_old A. Low variance curvature (Rothfuss et al., eq. 5): for each action's own advantage.
- 'dice': sum_t (box_t - box_{t-1}) A_t, where box_t is the product of all ratios up to t. Loaded DiCE (Farquhar,
  Whiteson, Foerster 2019, eq. 14): for all actions before too, unbiased, and so of the largest variance.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from quickstudy.learner import Parameters
from quickstudy.method import Method
from quickstudy.methods.trials.advantages import AdvantageBatch, ReturnsConfig, estimate_advantages
from quickstudy.methods.trials.learner import Figures, TrialLearner, returns_by_round
from quickstudy.methods.trials.policy import GaussianPolicy, gaussian_policy, stack
from quickstudy.methods.trials.ppo import clipped_loss
from quickstudy.methods.trials.rollout import Episodes, collect, memoryless
from quickstudy.methods.trials.trpo import Fisher, TRPOConfig, flatten, trust_region_step
from quickstudy.settings import Config, NonNegativeFloat, PositiveFloat, PositiveInt
from quickstudy.simulation.vector_env import VectorEnv
from quickstudy.task import Task

_BY_RETURN = 0.3
"""w of `MetaPolicy.step_factor` before training."""
_FORGET = 0.1
"""How much of the running mean return and its deviation a step of the outer loop renews."""

Estimator = Literal["likelihood", "lvc", "dice"]


@dataclass(frozen=True)
class MetaPolicyConfig(Config):
    """Settings of MAML on rewards.

    Attributes:
        inner_steps: policy gradient steps in training, each on episodes of its own.
        inner_rate: alpha; with learned rates, what they begin with.
        learn_rates: learn one alpha for each parameter, as part of theta: Finn et al. (section 2.2) leave open whether
            alpha is fixed or meta-learned, Meta-SGD (Li et al. 2017) learns it so.
        by_return: make alpha larger the less a task's episodes earned, by a learned amount; see
            `MetaPolicy.step_factor`.
        later_rate: factor of alpha after the first step of adaptation (the paper halves alpha there). A policy that was
            trained for one step jumps over the goal by a second one of the same length.
        estimator: of the inner objective, see above.
        first_order: the inner gradient counts as a constant in the outer one.
        outer: 'trpo' (Finn et al.) or 'ppo' (Rothfuss et al.).
        returns: advantages of inner and outer steps.
        trpo: of the outer step.
        rate, epochs, clip, penalty: of 'ppo': Adam's rate, its passes over one meta-batch, epsilon, and eta, the
            weight of the divergence of the policy before adaptation (ProMP, eq. 11).
    """

    inner_steps: PositiveInt = 1
    inner_rate: PositiveFloat = 0.1
    learn_rates: bool = True
    by_return: bool = False
    later_rate: PositiveFloat = 0.1
    estimator: Estimator = "likelihood"
    first_order: bool = False
    outer: Literal["trpo", "ppo"] = "trpo"
    returns: ReturnsConfig = field(default_factory=lambda: ReturnsConfig(gae_lambda=0.9))
    trpo: TRPOConfig = field(default_factory=TRPOConfig)
    rate: PositiveFloat = 1e-3
    epochs: PositiveInt = 5
    clip: PositiveFloat = 0.3
    penalty: NonNegativeFloat = 5e-4


def inner_loss(policy: GaussianPolicy, phi: Parameters, batch: AdvantageBatch, estimator: Estimator) -> Tensor:
    """What the inner step descends, [task]; its gradient at the sampling parameters is that of minus the return."""
    log_prob = policy.predict(phi, batch.observations).log_prob(batch.actions)
    if estimator == "likelihood":
        # Eq. 4 of MAML with advantages for rewards: -E[log pi(a | s) A].
        return -batch.mean(log_prob * batch.advantages)
    log_ratio = (log_prob - batch.log_prob) * batch.mask
    if estimator == "lvc":
        # Eq. 5 of ProMP: -E[pi(a | s) / pi_old(a | s) A].
        return -batch.mean(log_ratio.exp() * batch.advantages)
    # Eq. 14 of loaded DiCE: box_t = prod_{t' <= t} pi / pi_old; -E[sum_t (box_t - box_{t-1}) A_t].
    up_to = log_ratio.cumsum(-1)
    return -batch.mean((up_to.exp() - (up_to - log_ratio).exp()) * batch.advantages)


class MetaPolicy(TrialLearner):
    """MAML + TRPO, MAML + PPO, ProMP. Skill: the adapted parameters phi of each task, stacked [task, ...]."""

    usual: Tensor  # mean and deviation of the returns before adaptation, running over meta-training

    def __init__(self, policy: GaussianPolicy, config: MetaPolicyConfig = MetaPolicyConfig()) -> None:
        super().__init__()
        self.policy, self.config = policy, config
        rates = {n: torch.full_like(p, config.inner_rate) for n, p in policy.initial().items()}
        self.rates = nn.ParameterDict(rates if config.learn_rates else {})
        if config.by_return:
            self.rates["by_return"] = torch.tensor(_BY_RETURN)
            self.register_buffer("usual", torch.zeros(2))
        self.optimiser = torch.optim.Adam(self.parameters(), config.rate) if config.outer == "ppo" else None

    def experience(self, env: VectorEnv, rng: torch.Generator) -> tuple[list[Episodes], list[AdvantageBatch]]:
        """Algorithm 3 of MAML, Algorithm 1 of ProMP: collect, adapt, collect."""
        episodes, stages = self._act_and_adapt(env, self.config.inner_steps, rng)
        return episodes, [*stages, estimate_advantages(episodes[-1], self.config.returns)]

    def improve(
        self, experience: tuple[list[Episodes], list[AdvantageBatch]], tasks: Sequence[Task], rng: torch.Generator
    ) -> Figures:
        """Line 10 of Algorithm 3."""
        episodes, stages = experience
        figures = returns_by_round(episodes)
        figures |= self._trust_region(stages) if self.config.outer == "trpo" else self._proximal(stages)
        if self.config.by_return:
            returns = stages[0].returns.mean(1)
            self.usual.lerp_(torch.stack([returns.mean(), returns.std()]), _FORGET if self.usual.any() else 1.0)
        return figures

    def trial(self, env: VectorEnv, rounds: int, rng: torch.Generator) -> list[Episodes]:
        return self._act_and_adapt(env, rounds, rng)[0]

    @torch.no_grad()
    def _act_and_adapt(
        self, env: VectorEnv, rounds: int, rng: torch.Generator
    ) -> tuple[list[Episodes], list[AdvantageBatch]]:
        """Acts and adapts in turn: the episodes of all rounds, and the advantages that each step was made from."""
        phi: Parameters = stack(self.policy.initial(), len(env.tasks))
        episodes, stages = [], []
        for k in range(rounds + 1):
            # Algorithm 3, lines 5 and 8: sample K trajectories of each task by pi_theta, then by pi_phi.
            episodes.append(collect(env, memoryless(self.policy, phi), rng))
            if k < rounds:
                stages.append(estimate_advantages(episodes[-1], self.config.returns))
                phi = self.step(phi, stages[-1], k, dict(self.rates))
        return episodes, stages

    def step(self, phi: Parameters, batch: AdvantageBatch, k: int, rates: Parameters) -> dict[str, Tensor]:
        """Lines 6 and 7 of Algorithm 3 for all tasks; as they share no parameter, one gradient is that of each.

        Args:
            k: how many steps came before.
            rates: alpha by name, where it is learned; else empty.
        """
        differentiated = torch.is_grad_enabled() and not self.config.first_order
        with torch.enable_grad():
            at = phi if differentiated else {n: p.detach().requires_grad_() for n, p in phi.items()}
            loss = inner_loss(self.policy, at, batch, self.config.estimator).sum()
            # Line 6: the gradient of the inner loss.
            gradient = torch.autograd.grad(loss, list(at.values()), create_graph=differentiated)
        factor = (self.config.later_rate if k else 1.0) * self.step_factor(batch, rates)
        alpha = {n: rates.get(n, self.config.inner_rate) for n in phi}
        longer = {n: factor.reshape(-1, *[1] * (p.ndim - 1)) for n, p in phi.items()}
        # Line 7: phi = theta - alpha grad L(theta), alpha of each parameter its own (Meta-SGD).
        return {n: p - longer[n] * alpha[n] * g for (n, p), g in zip(phi.items(), gradient, strict=True)}

    def step_factor(self, batch: AdvantageBatch, rates: Parameters) -> Tensor:
        """What alpha is multiplied by for each task, [task]: 1, or with `by_return` 1 + w (mean - return) / deviation.

        Advantages are standardised for each task, so their gradient has the direction to a goal and not the distance.
        What the episodes earned has it. Mean and deviation are over tasks before adaptation, running over training; w
        is learned.
        """
        if not self.config.by_return:
            return batch.returns.new_ones(len(batch.returns))
        mean, deviation = self.usual
        short = torch.where(deviation > 0, (mean - batch.returns.mean(1)) / deviation, 0.0)
        # Ours: max(0, 1 + w (mean - return) / deviation).
        return (1 + rates["by_return"] * short).clamp(min=0.0)

    def adapted(self, theta: Parameters, stages: Sequence[AdvantageBatch]) -> Parameters:
        """phi as a function of theta, on the episodes that were collected; the last of the stages is not used."""
        rates = {n.removeprefix("rates."): p for n, p in theta.items() if n.startswith("rates.")}
        phi: Parameters = stack(self._policy(theta), len(stages[0].mask))
        for k, batch in enumerate(stages[:-1]):
            phi = self.step(phi, batch, k, rates)
        return phi

    def outer_loss(self, theta: Parameters, stages: Sequence[AdvantageBatch]) -> tuple[Tensor, Tensor]:
        """The surrogate of minus the return after adaptation, and the mean divergence from the policies that acted."""
        after = stages[-1]
        now = self.policy.predict(self.adapted(theta, stages), after.observations)
        # Algorithm 3, line 10, as TRPO's surrogate: -E[pi_phi / pi_old A], and E[KL(pi_old || pi_phi)].
        return -after.mean(after.ratio(now) * after.advantages).mean(), after.mean(after.old.kl(now)).mean()

    def theta(self) -> dict[str, Tensor]:
        """The meta-parameters by name: 'policy.' and, where they are learned, 'rates.'."""
        return dict(self.named_parameters())

    def _policy(self, theta: Parameters) -> dict[str, Tensor]:
        return {n.removeprefix("policy."): p for n, p in theta.items() if n.startswith("policy.")}

    def _trust_region(self, stages: Sequence[AdvantageBatch]) -> Figures:
        """Line 10 of Algorithm 3 by a step of TRPO, whose Fisher matrix goes through the inner step."""
        theta = {n: p.detach().clone().requires_grad_() for n, p in self.theta().items()}
        loss, _ = self.outer_loss(theta, stages)
        gradient = flatten(torch.autograd.grad(loss, list(theta.values())))
        thin = [_every(stage, self.config.trpo.fisher_every) for stage in stages]
        after = thin[-1]
        gaussian = self.policy.predict(self.adapted(theta, thin), after.observations)
        weights = after.mask / after.mask.sum((1, 2), keepdim=True).clamp(min=1.0) / len(after.mask)
        fisher = Fisher(theta, gaussian, weights, self.config.trpo.damping)
        moved, figures = trust_region_step(
            theta, lambda t: self.outer_loss(t, stages), gradient, fisher, self.config.trpo
        )
        with torch.no_grad():
            for name, p in self.named_parameters():
                p.copy_(moved[name])
        return figures | {"gradient-norm": float(gradient.norm())}

    def _proximal(self, stages: Sequence[AdvantageBatch]) -> Figures:
        """The last step of ProMP's Algorithm 1, several times on one meta-batch."""
        figures: Figures = {}
        for _ in range(self.config.epochs):
            loss, figures = self.proximal_loss(self.theta(), stages)
            figures["gradient-norm"] = self.gradient_step(loss, 1.0)
        return figures

    def proximal_loss(self, theta: Parameters, stages: Sequence[AdvantageBatch]) -> tuple[Tensor, Figures]:
        """Eq. 11 of ProMP: PPO's clipped objective after adaptation, and the divergence before it."""
        after, before = stages[-1], stages[0]
        now = self.policy.predict(self.adapted(theta, stages), after.observations)
        loss = clipped_loss(after.ratio(now), after, self.config.clip).mean()
        kl = before.mean(before.old.kl(self.policy.predict(self._policy(theta), before.observations))).mean()
        # Eq. 11 of ProMP, as a loss: -J_clip(theta) + eta KL(pi_old || pi_theta).
        return loss + self.config.penalty * kl, {"kl-before": float(kl.detach()), "loss": float(loss.detach())}


def _every(batch: AdvantageBatch, n: int) -> AdvantageBatch:
    """Every n-th step of all episodes."""
    thin: AdvantageBatch = tree_map(lambda t: t[:, :, ::n] if t.ndim > 2 else t, batch)
    return thin


_FINN = "Finn, Abbeel, Levine: Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks, ICML 2017"
_ROTHFUSS = "Rothfuss, Lee, Clavera, Asfour, Abbeel: ProMP: Proximal Meta-Policy Search, ICLR 2019"

_variant = partial(
    Method,
    build=lambda s, f: MetaPolicy(gaussian_policy(s, f), s.algorithm),
    settings=MetaPolicyConfig,
    learns_from="trials",
)

METHODS = (
    _variant(
        "maml-trpo",
        "a policy that one step of policy gradient adapts; outer steps by TRPO",
        paper=_FINN,
        fixed={"outer": "trpo"},
    ),
    _variant(
        "maml-by-return",
        "maml-trpo with longer steps where a task's episodes earned less (ours)",
        fixed={"outer": "trpo", "by_return": True},
    ),
    _variant(
        "maml-ppo",
        "maml-trpo with outer steps by PPO",
        paper=_FINN,
        fixed={"outer": "ppo", "estimator": "likelihood"},
    ),
    _variant(
        "promp",
        "MAML with credit for what the inner step samples; outer steps by PPO",
        paper=_ROTHFUSS,
        fixed={"outer": "ppo", "estimator": "lvc"},
    ),
)
