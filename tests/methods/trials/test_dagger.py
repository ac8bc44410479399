"""Learning to learn from an expert who receives the hidden parameters: its loss by hand, and that it really learns."""

import math
from collections import Counter

import numpy as np
import pytest
import torch

from quickstudy import families, methods
from quickstudy.errors import QuickstudyError
from quickstudy.families.navigation2d import Navigation2D
from quickstudy.methods.trials.dagger import DAgger, DAggerConfig, LabelledTrial, reordered
from quickstudy.methods.trials.evaluation import evaluate_trials
from quickstudy.methods.trials.outer_loop import TrialSteps
from quickstudy.settings import TrialConfig
from quickstudy.task import Symmetry


def test_loss_is_the_mean_over_labelled_steps_of_trials_of_any_length() -> None:
    torch.manual_seed(0)
    learner = DAgger(2, 1, 1.0, DAggerConfig(width=4))
    trials = [
        LabelledTrial(torch.randn(3, 5), torch.tensor([[0.1], [0.0], [-0.5]]), torch.tensor([1.0, 0.0, 1.0])),
        LabelledTrial(torch.randn(1, 5), torch.tensor([[0.7]]), torch.tensor([1.0])),
    ]
    said = []
    for trial in trials:
        state = learner.core.begin(1)
        for x, wanted, labelled in zip(*trial, strict=True):
            features, state = learner.core.advance(state, x[None])
            if labelled:
                gaussian = learner.belief(features)
                std = gaussian.log_std.exp()
                density = torch.exp(-0.5 * ((wanted - gaussian.mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))
                said.append(density.log())
    torch.testing.assert_close(learner.loss(trials), -torch.cat(said).mean())


def test_the_critic_s_error_is_that_of_what_each_labelled_step_earned() -> None:
    """The action and the reward of a step are the last numbers but one of the next step's inputs: (o, a, r, done)."""
    torch.manual_seed(0)
    plain = DAgger(2, 1, 1.0, DAggerConfig(width=4))
    learner = DAgger(2, 1, 1.0, DAggerConfig(width=4, candidates=3))
    learner.load_state_dict({**learner.state_dict(), **plain.state_dict()})
    inputs = torch.rand(4, 5)
    trials = [
        LabelledTrial(inputs, torch.zeros(4, 1), torch.tensor([1.0, 0.0, 1.0, 1.0])),
        LabelledTrial(inputs[:1], torch.zeros(1, 1), torch.ones(1)),  # its reward would come in the next step
    ]
    features = learner.core.unroll(inputs[None])[0]
    wrong = []
    for t in (0, 2):  # labelled, and followed by a step that shows the reward
        predicted, reward = learner.predicted_reward(features[t], inputs[t + 1, 2:3]).sigmoid(), inputs[t + 1, 3]
        wrong.append(-reward * predicted.log() - (1 - reward) * (1 - predicted).log())
    torch.testing.assert_close(learner.loss(trials) - plain.loss(trials), (wrong[0] + wrong[1]) / 2)
    inputs[2, 3] = 1.5
    with pytest.raises(QuickstudyError, match=r"rewards must be between 0 and 1; got 1\.5"):
        learner.loss(trials)


def test_of_its_candidates_it_takes_the_one_with_the_largest_predicted_reward() -> None:
    torch.manual_seed(0)
    learner = DAgger(2, 2, 1.0, DAggerConfig(width=4, candidates=50, spread=1.0))
    learner.predicted_reward = lambda features, actions: actions[..., 0] - actions[..., 1].abs()  # type: ignore[method-assign]
    features = torch.randn(3, 4)
    with torch.no_grad():
        belief, chosen = learner.belief(features), learner.act(features).mean
    drawn = (belief.mean[:, None] + belief.log_std.exp()[:, None] * learner.offsets).clamp(-1, 1)
    for options, one in zip(drawn, chosen, strict=True):
        assert one.tolist() in options.tolist()
        assert float(one[0] - one[1].abs()) == float((options[:, 0] - options[:, 1].abs()).max())
    assert (drawn[:, 0] == belief.mean.clamp(-1, 1)).all()


def test_tries_in_another_order_leave_out_nothing_that_was_known_and_add_nothing() -> None:
    labelled = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0])  # three tries; two steps show what came of the second
    inputs, actions = torch.arange(7.0)[:, None], torch.full((7, 2), 9.0)
    seen = set()
    for seed in range(40):
        again = reordered(LabelledTrial(inputs, actions, labelled), torch.Generator().manual_seed(seed))
        seen.add(tuple(again.inputs.flatten().tolist()))
        assert again.labelled.sum() == 1
        assert len(again.inputs) == len(again.expert_actions) == len(again.labelled)
        assert float(again.inputs[again.labelled.bool()]) in (0.0, 2.0, 5.0)
    as_made = {(0, 1), (0, 1, 2, 3, 4), (0, 1, 2, 3, 4, 5, 6)}
    assert seen == as_made | {(0, 3, 4, 2, 1, 5, 6)}
    empty = LabelledTrial(inputs[:0], actions[:0], labelled[:0])
    assert reordered(empty, torch.Generator()) is empty


def test_each_symmetry_changes_a_trial_with_probability_one_half() -> None:
    swap, turn = np.array([[0.0, 1.0], [1.0, 0.0]]), np.diag([1.0, -1.0])
    symmetries = [Symmetry(swap, np.array([[-1.0]])), Symmetry(turn, np.array([[1.0]]))]
    learner = DAgger(2, 1, [1.0, 10.0], DAggerConfig(width=4), symmetries)
    # The core sees observation 3, 40 as 3, 4, then action, reward and done.
    trial = LabelledTrial(torch.tensor([[3.0, 4.0, 0.5, 0.7, 1.0]]), torch.tensor([[0.2]]), torch.ones(1))
    draws, seen = torch.Generator().manual_seed(0), Counter[tuple[float, ...]]()
    for _ in range(400):
        inputs, actions, labelled = learner.transformed(trial, draws)
        assert labelled is trial.labelled
        seen[tuple(round(number, 4) for number in (*inputs[0].tolist(), float(actions)))] += 1
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


def test_families_that_say_so_have_an_expert() -> None:
    for record in families.records().values():
        try:
            of = record.build()
        except QuickstudyError:  # its data or its robot is not here
            continue
        if "trials" not in of.learned_from:
            continue
        with of.vector_env(of.tasks("train", 1), 1) as env:
            env.reset_all(np.random.default_rng(0))
            if of.has_expert:
                assert env.expert_action().shape == (1, 1, of.action_size)
            else:
                with pytest.raises(QuickstudyError, match="no expert"):
                    env.expert_action()


def test_it_learns_where_the_goal_is_from_rewards_alone() -> None:
    class Short(Navigation2D):
        horizon = 10

    of, method = Short(), methods.get("rl2-dagger")
    settings = method.defaults("navigation2d", of).changed({"algorithm": {"width": 64, "batch": 32, "rate": 6e-3}})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        learner = method.build(settings, of)
    before = evaluate_trials(learner, of, "test", (0, 1), 30, 4).metrics["return"].mean((1, 2))
    steps, rng = TrialSteps(learner, of, TrialConfig(40, 20, 4)), torch.Generator().manual_seed(0)
    for number in range(1, 41):
        steps.step(rng, number)
    after = evaluate_trials(learner, of, "test", (0, 1), 30, 4).metrics["return"].mean((1, 2))
    assert after[1] > 0.6 * before[1]  # minus the summed distances
    assert after[1] > after[0]
