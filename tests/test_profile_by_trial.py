"""Where the time goes: every moment of an outer step belongs to simulation, policy or update."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from quickstudy import Experiment, methods
from quickstudy.families.navigation2d import Navigation2D
from quickstudy.methods.trials.baselines import Scratch
from quickstudy.methods.trials.learner import TrialLearner
from quickstudy.methods.trials.policy import GaussianPolicy
from quickstudy.methods.trials.rollout import collect, memoryless
from quickstudy.profile import profile, profile_step


class Short(Navigation2D):
    horizon = 5


class Sleeps(TrialLearner):
    """Takes 20 ms for each action, and 200 ms for its update."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = GaussianPolicy(2, 2, ())

    def outer_step(self, env, rng):
        act = memoryless(self.policy, self.policy.initial())

        def slowly(seen):
            time.sleep(0.02)
            return act(seen)

        collect(env, slowly, rng)
        time.sleep(0.2)
        raise FloatingPointError("and then it fails")

    def trial(self, env, rounds, rng):
        return []


def test_parts_add_up_to_the_whole() -> None:
    family = Short()
    started = time.perf_counter()
    made, env = profile_step(
        Sleeps(), lambda: family.vector_env(family.tasks("train", 2), 3), torch.Generator().manual_seed(0)
    )
    whole = time.perf_counter() - started
    env.close()
    assert made.seconds["policy"] >= 5 * 0.02
    assert made.seconds["update"] >= 0.2
    assert made.seconds["simulation"] > 0
    assert made.total == pytest.approx(whole, abs=0.05)
    assert made.steps <= 2 * 3 * 5
    assert made.steps_per_second == made.steps / made.total
    experiment = Experiment.of(family, replace(methods.get("reptile-ppo"), build=lambda s, f: Sleeps()))
    assert len(profile(experiment, 2)) == 2


def test_the_clock_passes_everything_on() -> None:
    family = Short()
    with family.vector_env(family.tasks("train", 2), 3) as plain:
        _, timed = profile_step(Scratch(GaussianPolicy(2, 2, ())), lambda: plain, torch.Generator())
        np.testing.assert_array_equal(timed.reset_all(np.random.default_rng(0)), np.zeros((2, 3, 2)))
        np.testing.assert_array_equal(timed.expert_action(), plain.expert_action())
        timed.faults += 2
        assert (plain.faults, timed.shape, timed.horizon, timed.measures()) == (2, (2, 3), 5, {})
