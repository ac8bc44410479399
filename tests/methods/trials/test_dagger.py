"""Learning to learn from an informed expert: its loss by hand, what experts say, and that it really learns."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from quickstudy.errors import QuickstudyError
from quickstudy.families.grasping.tries import GraspingTries, right
from quickstudy.families.half_cheetah import CheetahDirection
from quickstudy.families.metaworld.fixed_start import ml1
from quickstudy.families.navigation.trials import NavigationTrials
from quickstudy.families.navigation2d import Navigation2D
from quickstudy.methods.trials.catalogue import FAMILIES, TrialSettings, build, family
from quickstudy.methods.trials.dagger import DAgger, DAggerConfig, LabelledTrial, reordered
from quickstudy.methods.trials.evaluation import evaluate_trials
from quickstudy.methods.trials.outer_loop import TrialConfig, train_by_trial
from quickstudy.simulation.vector_env import Symmetry


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_loss_is_the_mean_over_what_was_advised_in_trials_of_any_length() -> None:
    torch.manual_seed(0)
    learner = DAgger(2, 1, 1.0, DAggerConfig(width=4))
    trials = [
        LabelledTrial(torch.randn(3, 5), torch.tensor([[0.1], [0.0], [-0.5]]), torch.tensor([1.0, 0.0, 1.0])),
        LabelledTrial(torch.randn(1, 5), torch.tensor([[0.7]]), torch.tensor([1.0])),
    ]
    said = []
    for trial in trials:
        state = learner.core.begin(1)
        for x, wanted, told in zip(*trial, strict=True):
            features, state = learner.core.advance(state, x[None])
            if told:
                gaussian = learner.believe(features)
                std = gaussian.log_std.exp()
                density = torch.exp(-0.5 * ((wanted - gaussian.mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))
                said.append(density.log())
    torch.testing.assert_close(learner.loss(trials), -torch.cat(said).mean())


def test_the_critic_s_error_is_that_of_what_each_advised_step_earned() -> None:
    """The action and the reward of a step are the last numbers but one of the next step's inputs: (o, a, r, done)."""
    torch.manual_seed(0)
    plain = DAgger(2, 1, 1.0, DAggerConfig(width=4))
    learner = DAgger(2, 1, 1.0, DAggerConfig(width=4, candidates=3))
    learner.load_state_dict({**learner.state_dict(), **plain.state_dict()})
    inputs = torch.rand(4, 5)
    trials = [
        LabelledTrial(inputs, torch.zeros(4, 1), torch.tensor([1.0, 0.0, 1.0, 1.0])),
        LabelledTrial(inputs[:1], torch.zeros(1, 1), torch.ones(1)),  # what this one earned is not seen any more
    ]
    features = learner.core.unroll(inputs[None])[0]
    wrong = []
    for t in (0, 2):  # advised, and what it earned is seen
        predicted, reward = learner.predicted_reward(features[t], inputs[t + 1, 2:3]).sigmoid(), inputs[t + 1, 3]
        wrong.append(-reward * predicted.log() - (1 - reward) * (1 - predicted).log())
    torch.testing.assert_close(learner.loss(trials) - plain.loss(trials), (wrong[0] + wrong[1]) / 2)
    inputs[2, 3] = 1.5
    with pytest.raises(QuickstudyError, match=r"rewards must be between 0 and 1; got 1\.5"):
        learner.loss(trials)


def test_of_its_candidates_it_takes_the_one_that_promises_most() -> None:
    torch.manual_seed(0)
    learner = DAgger(2, 2, 1.0, DAggerConfig(width=4, candidates=50, spread=1.0))
    learner.predicted_reward = lambda features, actions: actions[..., 0] - actions[..., 1].abs()  # type: ignore[method-assign]
    features = torch.randn(3, 4)
    with torch.no_grad():
        belief, chosen = learner.believe(features), learner.act(features).mean
    drawn = (belief.mean[:, None] + belief.log_std.exp()[:, None] * learner.offsets).clamp(-1, 1)
    for options, one in zip(drawn, chosen, strict=True):
        assert one.tolist() in options.tolist()
        assert float(one[0] - one[1].abs()) == float((options[:, 0] - options[:, 1].abs()).max())
    assert (drawn[:, 0] == belief.mean.clamp(-1, 1)).all()


def test_tries_in_another_order_leave_out_nothing_that_was_known_and_add_nothing() -> None:
    told = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0])  # three tries; two steps show what came of the second
    inputs, advice = torch.arange(7.0)[:, None], torch.full((7, 2), 9.0)
    seen = set()
    for seed in range(40):
        again = reordered(LabelledTrial(inputs, advice, told), torch.Generator().manual_seed(seed))
        seen.add(tuple(again.inputs.flatten().tolist()))
        assert again.told.sum() == 1
        assert len(again.inputs) == len(again.advice) == len(again.told)
        assert float(again.inputs[again.told.bool()]) in (0.0, 2.0, 5.0)
    as_lived = {(0, 1), (0, 1, 2, 3, 4), (0, 1, 2, 3, 4, 5, 6)}
    assert seen == as_lived | {(0, 3, 4, 2, 1, 5, 6)}
    empty = LabelledTrial(inputs[:0], advice[:0], told[:0])
    assert reordered(empty, torch.Generator()) is empty


def test_a_trial_is_seen_and_advised_as_each_symmetry_makes_it_with_probability_one_half() -> None:
    swap, turn = np.array([[0.0, 1.0], [1.0, 0.0]]), np.diag([1.0, -1.0])
    symmetries = [Symmetry(swap, np.array([[-1.0]])), Symmetry(turn, np.array([[1.0]]))]
    learner = DAgger(2, 1, [1.0, 10.0], DAggerConfig(width=4), symmetries)
    # The core sees observation 3, 40 as 3, 4, then action, reward and done.
    trial = LabelledTrial(torch.tensor([[3.0, 4.0, 0.5, 0.7, 1.0]]), torch.tensor([[0.2]]), torch.ones(1))
    draws, seen = torch.Generator().manual_seed(0), Counter[tuple[float, ...]]()
    for _ in range(400):
        inputs, advice, told = learner.transformed(trial, draws)
        assert told is trial.told
        seen[tuple(round(number, 4) for number in (*inputs[0].tolist(), float(advice)))] += 1
    assert set(seen) == {
        (3.0, 4.0, 0.5, 0.7, 1.0, 0.2),
        (3.0, -4.0, 0.5, 0.7, 1.0, 0.2),
        (40.0, 0.3, -0.5, 0.7, 1.0, -0.2),
        (40.0, -0.3, -0.5, 0.7, 1.0, -0.2),
    }
    assert min(seen.values()) > 70
    sentence = r"matrices \(2, 2\) of observations and \(1, 1\) of actions; got \(2, 2\) and \(2, 2\)"
    with pytest.raises(QuickstudyError, match=sentence):
        DAgger(2, 1, 1.0, DAggerConfig(width=4), [Symmetry(swap, turn)])


def test_the_point_is_told_to_go_straight_to_the_goal() -> None:
    of = Navigation2D()
    env = of.vector_env(of.tasks("test", 3), 2)
    env.reset(rng())
    for _ in range(6):
        env.step(env.expert_action(), np.ones((3, 2), bool))
    goals = np.array([task.parameters["goal"] for task in env.tasks])
    np.testing.assert_allclose(env._positions, np.repeat(goals[:, None], 2, 1), atol=1e-9)


def test_the_robot_in_a_building_is_told_the_way() -> None:
    of = NavigationTrials()
    env, alive = of.vector_env(of.tasks("validation", 2), 2), np.ones((2, 2), bool)
    env.reset(rng())
    reached = np.zeros((2, 2), bool)
    for _ in range(of.horizon):
        outcome = env.step(env.expert_action(), alive)
        reached |= outcome.success & alive
        alive &= ~outcome.terminated
    env.close()
    assert reached.all()


def test_meta_world_s_own_experts_are_asked() -> None:
    of = ml1("reach", horizon=60)
    env, alive = of.vector_env(of.tasks("validation", 3), 1), np.ones((3, 1), bool)
    env.reset(rng())
    success = np.zeros((3, 1), bool)
    for _ in range(of.horizon):
        success |= env.step(env.expert_action(), alive).success
    env.close()
    assert success.all()


def test_a_grasp_is_advised_before_the_try_and_nothing_after_it() -> None:
    of = GraspingTries()
    env = of.vector_env(of.tasks("validation", 2), 1)
    env.reset(rng())
    np.testing.assert_array_equal(env.expert_action()[:, 0], right(env.tasks))
    env.step(env.expert_action(), np.ones((2, 1), bool))
    assert np.isnan(env.expert_action()).all()
    env.close()


def test_without_an_expert_it_says_so() -> None:
    sentence = "asks an expert during its trials, and 'cheetah-direction' has none. These have: navigation2d, "
    with pytest.raises(QuickstudyError, match=sentence):
        build(TrialSettings("cheetah-direction", "rl2-dagger"), CheetahDirection())


def test_who_advises_can_be_asked() -> None:
    for name in FAMILIES:
        of = family(name)
        env = of.vector_env(of.tasks("train", 1), 1)
        env.reset(rng())
        if of.has_expert:
            assert env.expert_action().shape == (1, 1, of.action_size)
        else:
            with pytest.raises(NotImplementedError):
                env.expert_action()
        env.close()


def test_it_learns_where_the_goal_is_from_rewards_alone() -> None:
    class Short(Navigation2D):
        horizon = 15

    of, settings = Short(), TrialSettings("navigation2d", "rl2-dagger")
    learner = build(replace(settings, dagger=DAggerConfig(width=64, batch=32, rate=3e-3)), of)
    before = evaluate_trials(learner, of, "test", 1, 30, 4).metrics["return"].mean((1, 2))
    train_by_trial(learner, of, TrialConfig(steps=100, meta_batch=20, episodes_per_task=4, validate_every=100))
    after = evaluate_trials(learner, of, "test", 1, 30, 4).metrics["return"].mean((1, 2))
    assert after[1] > 0.6 * before[1]  # minus the summed distances
    assert after[1] > after[0]
