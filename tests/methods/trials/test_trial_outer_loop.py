"""Outer steps by trial: decay of the rate, faults, steps that are not finite; evaluation round by round."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from quickstudy import methods
from quickstudy.errors import QuickstudyError
from quickstudy.families.navigation2d import Navigation2D
from quickstudy.methods.trials.evaluation import evaluate_trials
from quickstudy.methods.trials.learner import TrialLearner, returns_by_round
from quickstudy.methods.trials.outer_loop import TrialSteps, validate
from quickstudy.methods.trials.policy import GaussianPolicy
from quickstudy.methods.trials.rollout import collect, memoryless
from quickstudy.methods.trials.wrapper import VectorWrapper
from quickstudy.settings import TrialConfig

CONFIG = TrialConfig(steps=4, meta_batch=2, episodes_per_task=3, validation_tasks=2)


class Short(Navigation2D):
    horizon = 6


class Fixed(TrialLearner):
    """Acts by a random policy and does not learn; its optimiser's rate is 1."""

    def __init__(self, shares_experience: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.policy, self.shares_experience = GaussianPolicy(2, 2, (4,)), shares_experience
        self.optimiser = torch.optim.SGD(self.parameters(), 1.0)
        self.fails = False

    def outer_step(self, env, rng):
        figures = returns_by_round(self.trial(env, 0, rng))
        if self.fails:
            raise FloatingPointError("the gradient is not finite")
        return figures

    def trial(self, env, rounds, rng):
        return [collect(env, memoryless(self.policy, self.policy.initial()), rng) for _ in range(rounds + 1)]


@pytest.mark.parametrize(("fraction", "rates"), [(0.5, [1, 1, 1, 0.5]), (1.0, [1, 0.75, 0.5, 0.25]), (0.0, [1] * 4)])
def test_the_rate_falls_over_the_last_steps(fraction: float, rates: list[float]) -> None:
    learner = Fixed()
    steps, rng = TrialSteps(learner, Short(), replace(CONFIG, lr_decay_fraction=fraction)), torch.Generator()
    seen = []
    for number in range(1, 5):
        steps.step(rng, number)
        seen.append(learner.optimiser.param_groups[0]["lr"])
    assert seen == rates
    with pytest.raises(QuickstudyError, match=r"lr_decay_fraction must be between 0 and 1; got 1\.5"):
        TrialConfig(lr_decay_fraction=1.5)


def test_a_step_that_is_not_finite_is_left_out_said_and_counted(capsys) -> None:
    learner = Fixed()
    steps, rng = TrialSteps(learner, Short(), CONFIG), torch.Generator()
    assert steps.step(rng, 1).keys() == {"return-0", "faults"}
    learner.fails = True
    assert steps.step(rng, 2) == {"faults": 1.0}
    assert "Step 2: the gradient is not finite; left out." in capsys.readouterr().out
    assert steps.summary() == {"train/faults": 1.0}
    other = TrialSteps(Fixed(), Short(), CONFIG)
    other.restore(steps.state())
    assert other.faults == 1


class Poisoned(Short):
    """The reward of each task's first environment is never a number."""

    def vector_env(self, tasks, episodes_per_task, *, demonstrating=False, visual=False):
        return _Poisoned(super().vector_env(tasks, episodes_per_task))


class _Poisoned(VectorWrapper):
    def step(self, actions, active):
        result = super().step(actions, active)
        result.rewards[:, 0] = np.nan
        return result


def test_rewards_that_are_no_numbers_are_counted_up_to_a_limit() -> None:
    for method in ("maml-trpo", "oracle-ppo"):  # that of the oracle acts in environments around these
        made = methods.get(method)
        learner = made.build(made.defaults("navigation2d", Short()), Short())
        steps, rng = TrialSteps(learner, Poisoned(), CONFIG), torch.Generator()
        steps.step(rng, 1)
        rounds = 2 if method == "maml-trpo" else 1
        assert steps.faults == 2 * rounds  # of one environment of each task
        assert all(p.isfinite().all() for p in learner.parameters())
        strict = TrialSteps(learner, Poisoned(), replace(CONFIG, most_faults=1))
        with pytest.raises(QuickstudyError, match=r"failures by step 3, the last among navigation2d/train/.*1 are the"):
            strict.step(rng, 3)


def test_validation_says_the_metric_and_what_is_beside_it_round_by_round() -> None:
    class Beside(Short):
        secondary_metrics = ("success", "success_last")

    value, figures = validate(Fixed(), Beside(), replace(CONFIG, validation_rounds=2))
    names = [f"validation/{name}-{k}" for name in ("return", "success", "success_last") for k in range(3)]
    assert list(figures) == names
    assert value == figures["validation/return-2"]


@pytest.mark.parametrize(
    ("shares_experience", "episodes", "steps"), [(True, [0, 6, 12], [0, 2, 4]), (False, [0, 2, 4], None)]
)
def test_some_rounds_of_many_are_reported_as_they_were(
    shares_experience: bool, episodes: list[int], steps: list[int] | None
) -> None:
    learner = Fixed(shares_experience)
    whole = evaluate_trials(learner, Short(), "test", range(5), 2, 3, seed=7)
    part = evaluate_trials(learner, Short(), "test", (0, 2, 4), 2, 3, seed=7)
    assert (part.shots, part.steps, part.learns_from) == (episodes, steps, "trials")
    assert part.tasks == ["navigation2d/test/0", "navigation2d/test/1"]
    for name, values in whole.metrics.items():
        np.testing.assert_array_equal(part.metrics[name], values[[0, 2, 4]])
    assert part.adaptation_ms[0] == 0.0 < part.adaptation_ms[1] < part.adaptation_ms[2]
