"""Every method of learning by trial: the same seed gives the same, a break changes nothing, and its own mathematics."""

import math
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch

from quickstudy.errors import QuickstudyError
from quickstudy.families.half_cheetah import CheetahDirection, CheetahVelocity
from quickstudy.families.navigation2d import Navigation2D
from quickstudy.methods.demonstrations.mann import MANNConfig
from quickstudy.methods.trials.catalogue import METHODS, PolicyConfig, TrialSettings, build
from quickstudy.methods.trials.dagger import DAggerConfig
from quickstudy.methods.trials.maml import MetaPolicyConfig
from quickstudy.methods.trials.matched import MatchedConfig
from quickstudy.methods.trials.meta_lstm import LearnedRule, LearnedRuleConfig
from quickstudy.methods.trials.outer_loop import TrialConfig, train_by_trial
from quickstudy.methods.trials.pearl import PEARL, PEARLConfig, Squashed
from quickstudy.methods.trials.policy import GaussianPolicy
from quickstudy.methods.trials.replay_buffer import Transitions
from quickstudy.methods.trials.reptile import ReptilePolicy, ReptilePolicyConfig
from quickstudy.methods.trials.rl2 import RL2, RL2Config
from quickstudy.methods.trials.trpo import TRPOConfig
from quickstudy.simulation.vector_env import StepResult, VectorEnv


class Short(Navigation2D):
    horizon = 6


TRAINING = TrialConfig(
    steps=3, meta_batch=2, episodes_per_task=4, validate_every=2, validation_tasks=2, lr_decay_fraction=0.5
)
MEMORY = MANNConfig(slots=4, width=3, heads=1, controller=5)


def settings(method: str, **training) -> TrialSettings:
    return TrialSettings(
        "navigation2d",
        method,
        policy=PolicyConfig(hidden=(8,)),
        maml=MetaPolicyConfig(epochs=2, trpo=TRPOConfig(cg_steps=3, fisher_every=2)),
        rl2=RL2Config(width=6, memory=MEMORY, epochs=2),
        dagger=DAggerConfig(width=6, kept=12, updates=2, batch=4),
        pearl=PEARLConfig(hidden=(8,), updates=3, tasks=2, context=4, batch=4, kept=3),
        matched=MatchedConfig(known=3, known_rounds=1, hidden=(8,)),
        training=replace(TRAINING, **training),
    )


def trained(method: str, folder=None, **training):
    given = settings(method, **training)
    learner = build(given, Short())
    return learner, train_by_trial(learner, Short(), given.training, folder=folder, resume=True)


def same(a, b) -> None:
    for (name, one), other in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize("method", METHODS)
def test_a_seed_repeats_and_a_break_changes_nothing(method: str, tmp_path) -> None:
    whole, first = trained(method, tmp_path / "a", validate_every=1)
    again, second = trained(method, validate_every=1)
    assert first.history == second.history
    same(whole, again)

    class Stops(Short):
        asked = 0

        def env(self, tasks, episodes_per_task):
            if tasks[0].split == "train" and len(tasks) == TRAINING.meta_batch:  # and not those that are known
                Stops.asked += 1
                if Stops.asked == 3:
                    raise QuickstudyError("the power failed")
            return super().env(tasks, episodes_per_task)

    given = settings(method, validate_every=1)
    with pytest.raises(QuickstudyError, match="power"):
        train_by_trial(build(given, Short()), Stops(), given.training, folder=tmp_path / "b")
    resumed, third = trained(method, tmp_path / "b", validate_every=1)
    assert third.history == first.history
    same(whole, resumed)


@pytest.mark.parametrize(
    ("steps", "lr_decay_fraction", "share"), [(4, 0.5, 0.5), (4, 1.0, 0.25), (4, 0.25, 1.0), (4, 0.0, 1.0)]
)
def test_the_rate_falls_over_the_last_steps(steps: int, lr_decay_fraction: float, share: float) -> None:
    """Of four steps the last one begins when three quarters are over."""
    learner, _ = trained("rl2-dagger", steps=steps, lr_decay_fraction=lr_decay_fraction)
    assert learner.optimiser.param_groups[0]["lr"] == share * learner.config.rate
    with pytest.raises(QuickstudyError, match=r"lr_decay_fraction must be between 0 and 1; got 1\.5"):
        TrialConfig(lr_decay_fraction=1.5)


def test_settings_may_not_change_on_the_way(tmp_path) -> None:
    trained("promp", tmp_path)
    with pytest.raises(QuickstudyError, match=r"other settings \(meta_batch\)"):
        trained("promp", tmp_path, meta_batch=3)


@pytest.mark.parametrize(
    ("config", "bad"),
    [
        (PolicyConfig, {"hidden": (8, -1)}),
        (PolicyConfig, {"std": 0.0}),
        (PolicyConfig, {"activation": "gelu"}),
        (PEARLConfig, {"hidden": (0,)}),
        (MatchedConfig, {"hidden": (0,)}),
    ],
)
def test_settings_that_make_no_sense_are_refused(config, bad) -> None:
    with pytest.raises(QuickstudyError, match=next(iter(bad))):
        config(**bad)


class Poisoned(Short):
    """No reward is ever a number."""

    class VectorEnv(VectorEnv):
        action_size = 2

        def __init__(self, tasks, episodes_per_task) -> None:
            self.tasks, self.episodes_per_task, self.horizon = tasks, episodes_per_task, 6

        def reset(self, rng):
            return np.zeros((len(self.tasks), self.episodes_per_task, 2))

        def step(self, actions, alive) -> StepResult:
            no = np.zeros(alive.shape, bool)
            rewards = np.where(np.arange(alive.shape[1]) == 0, np.nan, 1.0) * np.ones(alive.shape)
            return StepResult(np.zeros((*alive.shape, 2)), rewards, no, no, no)

    def env(self, tasks, episodes_per_task):
        return self.Worlds(tasks, episodes_per_task)


def test_rewards_that_are_no_numbers_are_survived_and_counted() -> None:
    given = settings("maml-trpo")
    learner = build(given, Short())
    done = train_by_trial(learner, Poisoned(), replace(given.training, steps=2, most_faults=100))
    assert done.history[-1]["faults"] == 2 * 2 * 2  # one lane of each task, before and after adaptation, twice
    assert all(p.isfinite().all() for p in learner.parameters())
    with pytest.raises(QuickstudyError, match=r"4 failures by step 1.*3 are the limit"):
        train_by_trial(build(given, Short()), Poisoned(), replace(given.training, most_faults=3))


class Ending(VectorEnv):
    """Episodes that terminate after three to eight steps, each lane's after its own number."""

    action_size, horizon = 2, 8

    def __init__(self, tasks, episodes_per_task) -> None:
        self.tasks, self.episodes_per_task = tasks, episodes_per_task

    def reset(self, rng):
        self.ends, self.count = rng.integers(3, 9, (len(self.tasks), self.episodes_per_task)), 0
        return np.zeros((*self.ends.shape, 2))

    def step(self, actions, alive) -> StepResult:
        self.count += 1
        no = np.zeros(alive.shape, bool)
        return StepResult(0.1 * actions, actions.sum(-1), self.count >= self.ends, no, no)


def test_recurrent_training_sees_what_acting_saw() -> None:
    """Along padded, joined episodes the core must come by the very distributions that the actions were drawn from."""

    for core in ("lstm", "mann"):
        torch.manual_seed(0)
        learner = RL2(2, 2, 0.25, RL2Config(core=core, width=6, memory=MEMORY))
        env = Ending(Short().tasks("train", 3), 5)
        episodes, inputs = learner.live(env, 2, torch.Generator().manual_seed(0))
        lengths = sum(e.mask.sum(-1) for e in episodes)
        assert len(set(lengths.flatten().tolist())) > 3  # or there would be no padding to test
        trial = learner._judge(episodes, inputs)
        drawn = torch.cat([e.old.log_prob(e.actions) for e in episodes], 2)
        mask = torch.cat([e.mask for e in episodes], 2) > 0
        torch.testing.assert_close(trial.log_prob[trial.mask > 0], drawn.flatten(0, 1)[mask.flatten(0, 1)])
        done = [x[..., -1].sum(-1) for x in inputs]
        assert [d.unique().tolist() for d in done] == [[0.0], [1.0], [1.0]]


def test_belief_is_the_product_of_its_factors() -> None:
    """Prior N(0, 1) times N(m, v) for each transition: precision 1 + sum 1/v, mean sum m/v over it; padding is none."""
    torch.manual_seed(0)
    learner = PEARL(2, 2, 1.0, PEARLConfig(latent=1, hidden=(8,)))
    c = Transitions(*(torch.randn(1, 4, n) for n in (2, 2, 1, 2, 1)), torch.tensor([1.0, 1.0, 1.0, 0.0]).view(1, 4, 1))
    seen = torch.cat([c.observations, c.actions, c.rewards], -1)
    mean, spread = learner.encoder(seen)[0, :3].chunk(2, -1)
    v = torch.nn.functional.softplus(spread)
    made = learner.belief(c)
    torch.testing.assert_close(made.mean[0], ((mean / v).sum(0)) / (1 + (1 / v).sum(0)))
    torch.testing.assert_close((2 * made.log_std[0]).exp(), 1 / (1 + (1 / v).sum(0)))
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(learner.belief(Transitions(*(t[:, order] for t in c))).mean, made.mean)


def test_squashed_density_integrates_to_one() -> None:
    policy = Squashed(torch.tensor([0.3]), torch.tensor([-0.4]))
    noise = torch.linspace(-6, 6, 20001)[:, None]
    action, log_prob = policy.draw(noise)
    area = torch.trapezoid(log_prob.exp(), action[:, 0])
    torch.testing.assert_close(area, torch.tensor(1.0), atol=1e-3, rtol=0)


def test_reptile_moves_by_epsilon_towards_the_mean_of_what_ppo_makes() -> None:
    torch.manual_seed(0)
    policy = GaussianPolicy(2, 2, (4,))
    learner = ReptilePolicy(policy, ReptilePolicyConfig(inner_steps=1, outer_rate=0.25))
    before = {n: p.detach().clone() for n, p in policy.named_parameters()}
    env = Short().env(Short().tasks("train", 2), 4)
    _, phi = learner._learn(env, 1, torch.Generator().manual_seed(3))
    learner.outer_step(env, torch.Generator().manual_seed(3))
    for name, p in policy.named_parameters():
        torch.testing.assert_close(p, before[name] + 0.25 * (phi[name].mean(0) - before[name]))


def test_learned_rule_begins_as_gradient_descent_and_is_the_same_for_every_task() -> None:
    torch.manual_seed(0)
    policy = GaussianPolicy(2, 2, (4,))
    learner = LearnedRule(policy, LearnedRuleConfig(inner_steps=1, initial_rate=0.05))
    env = Short().env(Short().tasks("train", 2), 4)
    _, _, signals = learner._learn(env, 1, torch.Generator().manual_seed(0))
    state = learner._begin(2)
    from quickstudy.methods.demonstrations.meta_lstm import update

    after = update(*signals[0], *learner._cell(), *state)
    forget = 1 / (1 + math.exp(-5.0))
    torch.testing.assert_close(after.theta, forget * state.theta - 0.05 * signals[0].gradient, atol=2e-3, rtol=0.05)
    swapped = [
        type(s)(*(torch.stack(list(t.view(*t.shape[:-1], 2, -1).unbind(-2))[::-1], -2).flatten(-2) for t in s))
        for s in signals
    ]
    other = update(*swapped[0], *learner._cell(), *state).theta.view(2, -1).flip(0).flatten()
    torch.testing.assert_close(other, after.theta)


def test_cheetah_is_gymnasiums() -> None:
    """Ten steps from the same state: observations as in HalfCheetah-v5, and the reward of the paper's code."""
    for family, wanted in ((CheetahDirection(), -1.0), (CheetahVelocity(), 1.3)):
        task = replace(family.task("train", 0), parameters={family.key: wanted})
        env = family.vector_env([task], 2)
        observations = env.reset(np.random.default_rng(0))
        env = gymnasium.make("HalfCheetah-v5").unwrapped
        env.reset(seed=0)
        env.set_state(env._position[1].copy(), env._velocity[1].copy())
        np.testing.assert_allclose(env._get_obs(), observations[0, 1])
        for action in np.random.default_rng(1).uniform(-1, 1, (10, 6)):
            outcome = env.step(np.broadcast_to(action, (1, 2, 6)), np.ones((1, 2), bool))
            expected, _, _, _, info = env.step(action)
            np.testing.assert_allclose(outcome.observations[0, 1], expected, atol=1e-8)
            speed = info["x_velocity"]
            gain = -abs(speed - wanted) if family.speeds else wanted * speed
            np.testing.assert_allclose(outcome.rewards[0, 1], gain - 0.05 * np.square(action).sum(), atol=1e-8)
        env.close()
        env.close()


def test_cheetahs_directions_take_turns() -> None:
    directions = [task.parameters["direction"] for task in CheetahDirection().draw(8, torch.Generator().manual_seed(0))]
    assert sorted(directions) == [-1.0] * 4 + [1.0] * 4
