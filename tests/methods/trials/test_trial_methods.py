"""The mathematics of methods by trial that have no file of their own: RL^2, PEARL, Reptile, the learned rule."""

import math

import numpy as np
import torch

from quickstudy.families.navigation2d import Navigation2D
from quickstudy.methods.demonstrations.mann import MANNConfig
from quickstudy.methods.demonstrations.meta_lstm import update
from quickstudy.methods.trials.meta_lstm import LearnedRule, LearnedRuleConfig
from quickstudy.methods.trials.pearl import PEARL, PEARLConfig, Squashed
from quickstudy.methods.trials.policy import GaussianPolicy
from quickstudy.methods.trials.replay_buffer import Transitions
from quickstudy.methods.trials.reptile import ReptilePolicy, ReptilePolicyConfig
from quickstudy.methods.trials.rl2 import RL2, RL2Config
from quickstudy.simulation.vector_env import StepResult, VectorEnv

MEMORY = MANNConfig(slots=4, width=3, heads=1, controller=5)


class Short(Navigation2D):
    horizon = 6


class Ending(VectorEnv):
    """Episodes that terminate after three to eight steps, each after a number of its own."""

    action_size, horizon = 2, 8

    def __init__(self, tasks, episodes_per_task) -> None:
        self.tasks, self.episodes_per_task = tasks, episodes_per_task

    def reset(self, generators, chosen=None, disturbance=0.0):
        self.ends, self.count = np.array([rng.integers(3, 9) for rng in generators]).reshape(self.shape), 0
        return np.zeros((*self.shape, 2))

    def step(self, actions, active) -> StepResult:
        self.count += 1
        no = np.zeros(active.shape, bool)
        return StepResult(0.1 * actions, actions.sum(-1), self.count >= self.ends, no, no, no)


def test_recurrent_training_sees_what_acting_saw() -> None:
    """Along padded, joined episodes the core must come by the very distributions that the actions were drawn from."""

    for core in ("lstm", "mann"):
        torch.manual_seed(0)
        learner = RL2(2, 2, 0.25, RL2Config(core=core, width=6, memory=MEMORY))
        env = Ending(Short().tasks("train", 3), 5)
        episodes, inputs = learner.collect_trial(env, 2, torch.Generator().manual_seed(0))
        lengths = sum(e.mask.sum(-1) for e in episodes)
        assert len(set(lengths.flatten().tolist())) > 3  # or there would be no padding to test
        trial = learner._estimate_advantages(episodes, inputs)
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
    env = Short().vector_env(Short().tasks("train", 2), 4)
    _, phi = learner._act_and_adapt(env, 1, torch.Generator().manual_seed(3))
    learner.outer_step(env, torch.Generator().manual_seed(3))
    for name, p in policy.named_parameters():
        torch.testing.assert_close(p, before[name] + 0.25 * (phi[name].mean(0) - before[name]))


def test_learned_rule_begins_as_gradient_descent_and_is_the_same_for_every_task() -> None:
    torch.manual_seed(0)
    policy = GaussianPolicy(2, 2, (4,))
    learner = LearnedRule(policy, LearnedRuleConfig(inner_steps=1, initial_rate=0.05))
    env = Short().vector_env(Short().tasks("train", 2), 4)
    _, _, signals = learner._act_and_update(env, 1, torch.Generator().manual_seed(0))
    state = learner._begin(2)
    after = update(signals[0].gradient, signals[0].x, learner._cell(), state)
    forget = 1 / (1 + math.exp(-5.0))
    torch.testing.assert_close(after.theta, forget * state.theta - 0.05 * signals[0].gradient, atol=2e-3, rtol=0.05)
    swapped = [
        type(s)(*(torch.stack(list(t.view(*t.shape[:-1], 2, -1).unbind(-2))[::-1], -2).flatten(-2) for t in s))
        for s in signals
    ]
    other = update(swapped[0].gradient, swapped[0].x, learner._cell(), state).theta.view(2, -1).flip(0).flatten()
    torch.testing.assert_close(other, after.theta)
