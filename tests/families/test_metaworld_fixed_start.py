"""Meta-World by trial: the package's numbers, its splits, both successes, and where the time goes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from quickstudy.errors import QuickstudyError
from quickstudy.families.metaworld import family as manipulation
from quickstudy.families.metaworld import official as stock
from quickstudy.families.metaworld.catalogue import ML10_TEST, ML10_TRAIN, ML10_VALIDATION, TASKS
from quickstudy.families.metaworld.fixed_start import MetaWorldTrials, ml1, ml10
from quickstudy.families.navigation2d import Navigation2D
from quickstudy.methods.trials import runs
from quickstudy.methods.trials.baselines import Scratch
from quickstudy.methods.trials.catalogue import FAMILIES, METHODS, UNTRAINED, PolicyConfig, build, defaults
from quickstudy.methods.trials.evaluation import evaluate_trials
from quickstudy.methods.trials.outer_loop import TrialConfig, train_by_trial
from quickstudy.methods.trials.policy import Gaussian, GaussianPolicy
from quickstudy.methods.trials.profile import Profile, Timed, profile
from quickstudy.methods.trials.rollout import PolicyInput, collect
from quickstudy.results.evidence import Cell
from quickstudy.simulation.vector_env import StepResult, VectorEnv

NO_RNG = np.random.default_rng(0)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_numbers_are_the_packages() -> None:
    """Twenty steps towards and onto the object of an ML1 task: stock Meta-World with its goal hidden says the same."""
    family = ml1("push", threads=1)
    task = family.task("test", 3)
    env = stock.environment("push-v3", visible=False)
    stock.fix(env, np.array(task.parameters["vector"]))
    expected, _ = env.reset()
    worlds = family.vector_env([family.task("test", 0), task], 2)
    seen = worlds.reset(NO_RNG)
    np.testing.assert_allclose(seen[1, 1], expected, atol=1e-6)
    actions = np.random.default_rng(1).uniform(-2.0, 2.0, (20, 4))
    actions[:, 1:3] = [0.3, -1.0]
    for action in actions:
        outcome = worlds.step(np.broadcast_to(action, (2, 2, 4)), np.ones((2, 2), bool))
        expected, reward, _, _, info = env.step(np.clip(action, -1.0, 1.0).astype(np.float32))
        np.testing.assert_allclose(outcome.observations[1, 1], expected, atol=1e-6)
        np.testing.assert_allclose(outcome.rewards[1, 1], reward, atol=1e-6)
        assert outcome.success[1, 1] == bool(info["success"])
        assert not outcome.terminated.any()
    worlds.close()
    assert np.abs(outcome.observations[0, 0] - outcome.observations[1, 0]).max() > 1e-3  # another task


def test_numbers_are_those_of_the_imitation_family() -> None:
    """The same vector and no noise: rewards, both successes and observations of whole short episodes."""
    family, other = ml1("reach", horizon=60, threads=1), manipulation.ml1("reach", horizon=60, noise=0.0, threads=1)
    task = family.task("train", 0)
    goal = np.array(task.parameters["vector"][3:])
    same = replace(other.task("train", 0), parameters={"task": "reach-v3", "goal": goal.tolist()})
    episodes = manipulation.Episodes(other, [same])
    episodes.reset([NO_RNG])
    seen = episodes.worlds.reset([np.array(task.parameters["vector"])])
    worlds = family.vector_env([task], 1)
    worlds.reset(NO_RNG)
    succeeded, total, expected = [], 0.0, 0.0
    for _ in range(60):  # straight to the goal, which only this test knows, and past it
        action = np.clip(10.0 * (goal - seen[0, :3]), -1.0, 1.0) if not succeeded else np.array([0.0, 0.0, 1.0])
        action = np.append(action, 0.0)[None]
        shown = episodes.step(action)
        seen = episodes.worlds.observations
        outcome = worlds.step(action[None], np.ones((1, 1), bool))
        np.testing.assert_array_equal(outcome.observations[0], shown)
        assert outcome.success[0, 0] == episodes.worlds.success[0]
        succeeded += [True] * int(outcome.success[0, 0])
        total, expected = total + outcome.rewards[0, 0], expected + episodes.worlds.reward[0]
    worlds.close()
    episodes.worlds.close()
    assert succeeded
    assert not outcome.success[0, 0]
    assert total == pytest.approx(expected)


def test_the_goal_is_hidden_and_lanes_begin_alike() -> None:
    family = ml1("pick-place", horizon=3, threads=1)
    tasks = family.tasks("train", 2)
    worlds = family.vector_env(tasks, 3)
    first, again = worlds.reset(NO_RNG), worlds.reset(np.random.default_rng(9))
    worlds.close()
    assert not first[..., 36:].any()
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, np.repeat(first[:, :1], 3, 1))
    for task, seen in zip(tasks, first[:, 0], strict=True):
        np.testing.assert_allclose(seen[4:6], task.parameters["vector"][:2], atol=0.02)


def test_splits_are_the_official_ones() -> None:
    family = ml10()
    official = {"train": ML10_TRAIN, "validation": ML10_VALIDATION, "test": ML10_TEST}
    for split, classes in official.items():
        tasks = family.tasks(split, family.sizes[split])
        names = [task.parameters["task"] for task in tasks]
        assert [names.count(name) for name in classes] == [50] * len(classes)
        assert len({tuple(task.parameters["vector"]) for task in tasks}) == len(tasks)
        assert all(TASKS[task.parameters["task"]].accepts(np.array(task.parameters["vector"])) for task in tasks)
    push = ml1("push")
    vectors = [tuple(task.parameters["vector"]) for split in push.sizes for task in push.tasks(split, 50)]
    assert len(set(vectors)) == 150
    assert push.task("test", 7) == ml1("push").task("test", 7)


def test_starts_and_goals_of_training_can_be_recombined() -> None:
    plain, mixed = ml1("pick-place"), ml1("pick-place", recombine=True)
    assert mixed.sizes == {"train": 2500, "validation": 50, "test": 50}
    for split in plain.sizes:
        assert mixed.tasks(split, 50) == plain.tasks(split, 50)
    vectors = np.array([task.parameters["vector"] for task in mixed.tasks("train", 2500)])
    for part in (slice(0, 3), slice(3, 6)):
        assert {tuple(v) for v in vectors[:, part]} == {tuple(v) for v in vectors[:50, part]}
    assert len({tuple(v) for v in vectors}) > 2000
    assert all(TASKS["pick-place-v3"].accepts(vector) for vector in vectors)
    assert max(task.index for task in mixed.draw(50, rng())) >= 50


def test_a_meta_batch_has_no_task_twice_and_equal_shares() -> None:
    family = ml10()
    drawn = family.draw(20, rng())
    assert len({task.name for task in drawn}) == 20
    names = [task.parameters["task"] for task in drawn]
    assert [names.count(name) for name in ML10_TRAIN] == [2] * 10
    assert [task.name for task in drawn] == [task.name for task in family.draw(20, rng())]
    assert {task.split for task in drawn} == {"train"}
    few = [{task.parameters["task"] for task in family.draw(3, rng(seed))} for seed in range(20)]
    assert set().union(*few) == set(ML10_TRAIN)
    everything = ml1("push").draw(50, rng())
    assert sorted(task.index for task in everything) == list(range(50))


def test_the_oracle_is_told_the_goal_and_the_task() -> None:
    family = ml10()
    for index, split in ((0, "train"), (9, "train"), (4, "test")):
        task = family.task(split, index)
        told = family.hidden(task)
        assert told.shape == (family.hidden_size,)
        assert np.flatnonzero(told[3:]).tolist() == [family._all.index(task.parameters["task"])]
        assert np.abs(told[:3]).max() <= 1.0
    push = ml1("push")
    assert push.hidden(push.task("train", 0)).shape == (push.hidden_size,) == (3,)
    low, high = np.array(TASKS["push-v3"].low[3:5]), np.array(TASKS["push-v3"].high[3:5])
    told = push.hidden(push.task("train", 0))[:2]
    np.testing.assert_allclose(
        low + (told + 1) / 2 * (high - low), push.task("train", 0).parameters["vector"][3:5], atol=1e-6
    )


class Towards(Gaussian):
    def sample(self, rng: torch.Generator) -> torch.Tensor:
        return self.mean


def test_every_episode_is_truncated_at_the_horizon() -> None:
    family = ml1("reach", horizon=4, threads=1)
    worlds = family.vector_env(family.tasks("train", 1), 2)
    made = collect(worlds, lambda seen: Towards(torch.ones(1, 2, 4), torch.zeros(1, 2, 4)), rng())
    worlds.close()
    assert made.mask.shape == (1, 2, 4)
    assert made.mask.all()
    assert not made.terminated.any()
    assert ml1("reach").horizon == 500


def test_an_action_can_be_held_for_several_steps() -> None:
    """Its reward is their mean, and success at any of them counts."""
    made = {}
    for repeat in (1, 3):
        family = ml1("reach", horizon=36, repeat=repeat, threads=1)
        task = family.task("train", 0)
        worlds = family.vector_env([task], 1)
        way = np.array(task.parameters["vector"])[3:] - worlds.reset(NO_RNG)[0, 0, :3]
        action = np.append(way / np.abs(way).max(), 0.0)
        held = [worlds.step(action[None, None], np.ones((1, 1), bool)) for _ in range(worlds.horizon)]
        worlds.close()
        made[repeat] = [
            np.array([getattr(o, name)[0, 0] for o in held]) for name in ("observations", "rewards", "success")
        ]
    assert [len(part) for part in made[3]] == [12] * 3
    assert made[1][2].any()
    assert not made[1][2].all()
    np.testing.assert_array_equal(made[3][0], made[1][0][2::3])
    np.testing.assert_allclose(made[3][1], made[1][1].reshape(12, 3).mean(1))
    np.testing.assert_array_equal(made[3][2], made[1][2].reshape(12, 3).any(1))
    assert "an action is held for 3 and earns their mean reward" in family.protocol


class Passing(VectorEnv):
    """Success at step 1 alone in lane 0, at the last step alone in lane 1, never in lane 2."""

    tasks, episodes_per_task, horizon, action_size = Navigation2D().tasks("test", 1), 3, 3, 2

    def reset(self, rng: np.random.Generator) -> np.ndarray:
        self.count = 0
        return np.zeros((1, 3, 2))

    def step(self, actions: np.ndarray, alive: np.ndarray) -> StepResult:
        self.count += 1
        no = np.zeros((1, 3), bool)
        success = np.array([[self.count == 1, self.count == 3, False]])
        return StepResult(np.zeros((1, 3, 2)), np.ones((1, 3)), no, success, no)


class PassingFamily(Navigation2D):
    name, metric, secondary_metrics = "passing", "success", ("success_last", "return")

    def vector_env(self, tasks, episodes_per_task: int) -> VectorEnv:
        return Passing()


def test_both_successes_and_the_return_are_told(tmp_path) -> None:
    family = PassingFamily()
    learner = Scratch(GaussianPolicy(2, 2, ()))
    result = evaluate_trials(learner, family, "test", 0, 1, 3)
    assert result.metrics["success"].tolist() == [[[1.0, 1.0, 0.0]]]
    assert result.metrics["success_last"].tolist() == [[[0.0, 1.0, 0.0]]]
    run = family.run(family.tasks("test", 1), 3, lambda seen: np.zeros((1, 3, 2)), 0)
    assert {name: values.sum() for name, values in run.items()} == {"return": 9.0, "success": 2.0, "success_last": 1.0}
    (row,) = runs.trial_rows("scratch", family, [result], shares_experience=True)
    assert row.value == pytest.approx(2 / 3, abs=1e-4)
    assert row.secondary_metrics == {"success at the last step, %": 33.3333, "return": 3.0}
    cell = runs.table(family, "test", [row], 1.0, "here")
    assert cell.unit == "fraction"
    assert "mean success of the policy" in cell.protocol
    cell.write(tmp_path / "cell.json")
    assert Cell.read(tmp_path / "cell.json").rows[0].beside == row.secondary_metrics


def test_training_tells_success_and_return_of_validation_tasks() -> None:
    training = TrialConfig(steps=1, meta_batch=2, episodes_per_task=2, validation_tasks=2)
    settings = replace(defaults("ml1-push", "promp"), policy=PolicyConfig(hidden=(4,)), training=training)
    histories = []
    for _ in range(2):
        family = ml1("push", horizon=3, threads=1)
        histories.append(train_by_trial(build(settings, family), family, training).history)
    assert histories[0] == histories[1]
    names = {name for name in histories[0][0] if name.startswith("validation/")}
    assert names == {f"validation/{what}-{k}" for what in ("success", "success_last", "return") for k in range(2)}
    assert histories[0][0]["validation/return-0"] > 0


def test_an_unstable_world_ends_its_episode_alone(monkeypatch, capsys) -> None:
    family = ml1("reach", horizon=3, threads=1)
    worlds = family.vector_env(family.tasks("train", 1), 2)
    advance, calls = worlds._sims.advance, []

    def unstable(actions, chosen):
        advance(actions, chosen)
        calls.append(None if chosen is None else chosen.tolist())
        if len(calls) == 2:
            worlds._sims.observations[1] = np.nan

    monkeypatch.setattr(worlds._sims, "advance", unstable)

    def still(seen: PolicyInput) -> Gaussian:
        return Towards(torch.zeros(1, 2, 4), torch.zeros(1, 2, 4))

    made = collect(worlds, still, rng())
    assert made.mask.tolist() == [[[1, 1, 1], [1, 0, 0]]]
    assert calls == [None, None, [0]]
    assert worlds.faults == 1
    assert "ml1-reach/train/0 (1)" in capsys.readouterr().out
    assert collect(worlds, still, rng()).mask.all()  # sound again
    worlds.close()


@pytest.mark.parametrize("name", [name for name in FAMILIES if name.startswith("ml1")])
def test_the_protocol_names_reward_horizon_and_success(name: str) -> None:
    protocol, steps = FAMILIES[name]().protocol, 500 if name == "ml10" else 200
    for said in ("Meta-World v3 with v2 rewards", "goal is hidden", f"{steps} steps", "at any step"):
        assert said in protocol


@pytest.mark.parametrize("method", METHODS)
def test_default_settings_fit_the_families(method: str) -> None:
    for name in ("ml1-push", "ml10"):
        settings = defaults(name, method)
        assert settings.training.meta_batch <= FAMILIES[name]().sizes["train"]
        assert settings.training.validation_tasks <= FAMILIES[name]().sizes["validation"]


def test_who_reaches_as_advised_has_room_for_error() -> None:
    """5 cm from the finger tips to the goal are allowed: as advised they end within 2, so 2 off still is within 4."""
    family = ml1("reach", horizon=200, repeat=5, threads=1)
    worlds = family.vector_env(family.tasks("test", 10), 1)
    worlds.reset(NO_RNG)
    for _ in range(family.horizon):
        worlds.step(worlds.expert_action(), np.ones((10, 1), bool))
    reach = worlds._sims._groups[0].task
    assert np.linalg.norm(reach.tcp - reach.target, axis=1).max() < 0.02


def test_mistakes_are_one_sentence() -> None:
    with pytest.raises(QuickstudyError, match="Did you mean 'push'"):
        ml1("pushh")
    with pytest.raises(QuickstudyError, match="Did you mean 'push-v3'"):
        MetaWorldTrials("mine", {"train": ["push-v2"]})
    with pytest.raises(QuickstudyError, match="horizon and vectors must be positive; got 0 and 50"):
        ml10(horizon=0)
    with pytest.raises(QuickstudyError, match="repeat must divide the horizon, 200; got 3"):
        ml1("push", horizon=200, repeat=3)
    with pytest.raises(QuickstudyError, match="0 to 51 of split 'train' of 'ml1-push', which holds 50"):
        ml1("push").draw(51, rng())
    with pytest.raises(QuickstudyError, match="split 'train' of 'navigation2d'"):
        Navigation2D().draw(10**9 + 1, rng())
    with pytest.raises(QuickstudyError, match="ml1-push/train/0 is not one of 'ml1-push' by trial"):
        ml1("push").vector_env(manipulation.ml1("push").tasks("train", 1), 1)
    with pytest.raises(QuickstudyError, match="has no expert"):
        ml1("push").demonstrate(ml1("push").tasks("train", 1), 1, 0)


class Slow(Passing):
    def reset(self, rng: np.random.Generator) -> np.ndarray:
        clock.now += 2.0
        return super().reset(rng)

    def step(self, actions: np.ndarray, alive: np.ndarray) -> StepResult:
        clock.now += 3.0
        return super().step(actions, alive)


class Clock:
    now = 0.0

    def perf_counter(self) -> float:
        return self.now


clock = Clock()


def test_time_is_the_simulations_the_policys_or_the_updates(monkeypatch) -> None:
    """Two episodes by hand: making 1 s, resets 2 s, steps 3 s; 5 s before each step, 7 s before and after episodes."""
    monkeypatch.setattr("quickstudy.methods.trials.profile.time", clock)
    monkeypatch.setattr(clock, "now", 100.0)

    def make() -> VectorEnv:
        clock.now += 1.0
        return Slow()

    timed = Timed(make)
    alive = np.array([[True, True, False]])
    for _ in range(2):
        clock.now += 7.0
        timed.reset(NO_RNG)
        for _ in range(3):
            clock.now += 5.0
            timed.step(np.zeros((1, 3, 2)), alive)
    clock.now += 7.0
    timed.passed("update")
    assert timed.seconds == {"simulation": 1.0 + 2 * (2 + 9), "policy": 30.0, "update": 21.0}
    assert timed.steps == 2 * 3 * 2
    made = Profile(**timed.seconds, steps=timed.steps)
    assert made.steps_per_second == 12 / made.seconds == 12 / 74


@pytest.mark.parametrize("method", sorted(set(METHODS) - UNTRAINED - {"rl2-mann", "pearl", "matched"}))
def test_a_profile_counts_all_steps_of_the_method(method: str) -> None:
    class Short(Navigation2D):
        horizon = 4

        def vector_env(self, tasks, episodes_per_task: int) -> VectorEnv:
            worlds = super().vector_env(tasks, episodes_per_task)
            worlds._goals = worlds._goals + 9.0  # out of reach, so that no episode is shorter
            return worlds

    settings = replace(defaults("navigation2d", method), policy=PolicyConfig(hidden=(4,)))
    training = TrialConfig(meta_batch=2, episodes_per_task=3)
    found = profile(build(settings, Short()), Short(), training, 2)
    rounds = {"transfer": 1, "domain-randomisation": 1, "oracle": 1, "reptile-ppo": 3, "meta-lstm": None}.get(method, 2)
    assert len(found) == 2
    for one in found:
        assert one.steps % (2 * 3 * 4) == 0
        assert rounds is None or one.steps == rounds * 2 * 3 * 4
        assert min(one.simulation, one.policy, one.update) > 0


def test_a_profile_needs_a_step() -> None:
    family = Navigation2D()
    learner = build(defaults("navigation2d", "scratch"), family)
    with pytest.raises(QuickstudyError, match="at least one outer step; got 0"):
        profile(learner, family, TrialConfig(), 0)
    with pytest.raises(QuickstudyError, match="there is no step to profile"):
        profile(learner, family, TrialConfig(meta_batch=1, episodes_per_task=1), 1)
