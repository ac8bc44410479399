"""Every method by trial keeps the contract, whoever wrote it; and the contract finds what breaks it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from quickstudy import methods
from quickstudy.check.trial_methods import POINTS, check_trial_method
from quickstudy.errors import QuickstudyError
from quickstudy.families.navigation2d import Navigation2D
from quickstudy.method import Method
from quickstudy.methods.demonstrations.mann import MANNConfig
from quickstudy.methods.trials.baselines import BaselineConfig
from quickstudy.methods.trials.learner import returns_by_round
from quickstudy.methods.trials.policy import GaussianPolicy
from quickstudy.methods.trials.ppo import PPOConfig
from quickstudy.methods.trials.reptile import ReptilePolicy
from quickstudy.methods.trials.rollout import collect, memoryless
from quickstudy.settings import Settings


class Short(Navigation2D):
    horizon = 6


_PPO = PPOConfig(epochs=2)
_BASELINES = {"training": _PPO, "test": _PPO}
_MEMORY = {
    "width": 6,
    "epochs": 1,
    "minibatches": 2,
    "memory": MANNConfig(slots=4, width=3, heads=1, controller=5),
}
SMALL = {
    **dict.fromkeys(("scratch-ppo", "transfer-ppo", "domain-randomisation", "oracle-ppo"), _BASELINES),
    "reptile-ppo": {"ppo": _PPO},
    "maml-trpo": {"trpo": replace(methods.get("maml-trpo").settings().trpo, cg_steps=3, fisher_every=2)},
    "rl2": _MEMORY,
    "rl2-mann": _MEMORY,
    "rl2-dagger": {"width": 6, "kept": 12, "updates": 2, "batch": 4},
    "pearl": {"hidden": (8,), "updates": 3, "tasks": 2, "context": 4, "batch": 4, "kept": 3},
    "matched": {"known": 3, "known_rounds": 1, "hidden": (8,), "learning": BaselineConfig(_PPO, _PPO)},
}


def small(method: Method) -> Settings:
    training = {"steps": 3, "meta_batch": 2, "episodes_per_task": 4, "lr_decay_fraction": 0.5}
    settings = method.defaults("navigation2d", Short())
    return settings.changed(
        {"training": training, "network": {"hidden": (8,)}, "algorithm": SMALL.get(method.name, {})}
    )


@pytest.mark.parametrize("name", methods.names("trials"))
def test_every_method_keeps_the_contract(name: str) -> None:
    method = methods.get(name)
    points = check_trial_method(method, Short(), small(method))
    assert [point.name for point in points] == list(POINTS)
    assert not [f"{point.name}: {point.said}" for point in points if point.passed is False]
    skipped = [point.name for point in points if point.passed is None]
    assert bool(skipped) == (method.uses == "nothing")


class Forgetful(ReptilePolicy):
    """Counts its steps, and does not keep the count."""

    count = 0

    def outer_step(self, env, rng):
        figures = super().outer_step(env, rng)
        self.count += 1
        with torch.no_grad():
            self.policy.log_std.add_(0.01 * self.count)
        return figures


class Restless(ReptilePolicy):
    """Draws from torch's own generator."""

    def outer_step(self, env, rng):
        figures = super().outer_step(env, rng)
        with torch.no_grad():
            self.policy.log_std.add_(0.01 * torch.randn(2))
        return figures


class Impure(ReptilePolicy):
    """Learns at test."""

    def trial(self, env, rounds, rng):
        with torch.no_grad():
            self.policy.log_std.mul_(1.1)
        return super().trial(env, rounds, rng)


class Idle(ReptilePolicy):
    """Learns nothing, and acts once."""

    def outer_step(self, env, rng):
        return returns_by_round([collect(env, memoryless(self.policy, self.policy.initial()), rng)])

    def trial(self, env, rounds, rng):
        return super().trial(env, 0, rng)


class Careless(ReptilePolicy):
    """Reads what environments say after their episode is over."""

    def outer_step(self, env, rng):
        figures = super().outer_step(env, rng)
        active = torch.zeros(env.shape, dtype=torch.bool).numpy()
        env.reset_all(np.random.default_rng(0))
        result = env.step(torch.zeros(*env.shape, 2).numpy(), active)
        with torch.no_grad():
            self.policy.log_std.add_(1e-3 * float(result.rewards.mean()))
        return figures


class Blind(ReptilePolicy):
    """Takes numbers that are none into its parameters."""

    def outer_step(self, env, rng):
        figures = super().outer_step(env, rng)
        if env.faults:
            with torch.no_grad():
                self.policy.log_std.mul_(torch.nan)
        return figures


@pytest.mark.parametrize(
    ("kind", "broken"),
    [
        (Forgetful, {"training resumes exactly": "state"}),
        (Restless, {"an outer step is repeated by its seed": "generator"}),
        (Impure, {"a trial changes nothing": "changed the learner"}),
        (Idle, {"an outer step learns": "nothing was learned", "a trial is complete": "3 Episodes; it returned 1"}),
        (Careless, {"padding changes nothing": "use the mask"}),
        (Blind, {"faults are survived": "no finite reward"}),
    ],
)
def test_it_finds_what_breaks_it(kind: type[ReptilePolicy], broken: dict[str, str]) -> None:
    method = replace(methods.get("reptile-ppo"), build=lambda s, f: kind(GaussianPolicy(2, 2, (8,), 0.25), s.algorithm))
    torch.manual_seed(0)
    points = {point.name: point for point in check_trial_method(method, Short(), small(methods.get("reptile-ppo")))}
    for name, said in broken.items():
        assert points[name].passed is False
        assert said in points[name].said


def test_what_it_cannot_learn_is_said() -> None:
    class Alone(Short):
        has_expert = False

    with pytest.raises(QuickstudyError, match="asks an expert during its trials, and 'navigation2d' has none"):
        check_trial_method(methods.get("rl2-dagger"), Alone())
    with pytest.raises(QuickstudyError, match="Method 'maml' learns from demonstrations, not by trial"):
        check_trial_method(methods.get("maml"), Short())
    method = replace(methods.get("reptile-ppo"), build=lambda s, f: torch.nn.Linear(1, 1))
    assert "must give a TrialLearner; it gave Linear" in check_trial_method(method, Short())[0].said


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("pearl", "hidden", (0,)),
        ("matched", "hidden", (8, -1)),
        ("maml-trpo", "estimator", "exact"),
        ("rl2", "core", "gru"),
        ("meta-lstm-ppo", "initial_rate", 1.0),
        ("rl2-dagger", "candidates", 0),
    ],
)
def test_settings_that_make_no_sense_are_refused(name: str, setting: str, value) -> None:
    with pytest.raises(QuickstudyError, match=f"{setting} must be"):
        methods.get(name).settings(**{setting: value})
