"""Meta-World by trial with one start and goal a task: the package's numbers, its splits and both successes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from quickstudy import families, methods
from quickstudy.errors import QuickstudyError
from quickstudy.families.metaworld import FAMILIES, official
from quickstudy.families.metaworld import family as drawn_anew
from quickstudy.families.metaworld.catalogue import ML10, TASKS
from quickstudy.families.metaworld.fixed_start import FixedStart, ml1, ml10
from quickstudy.families.navigation2d import Navigation2D
from quickstudy.methods.trials.outer_loop import TrialSteps, validate
from quickstudy.methods.trials.policy import Gaussian
from quickstudy.methods.trials.rollout import PolicyInput, collect
from quickstudy.settings import TrialConfig
from quickstudy.simulation.vector_env import VectorEnv

FIXED = [record.name for record in FAMILIES if record.name.endswith("-fixed-start")]
ALL = np.ones((1, 1), bool)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def begin(env: VectorEnv, seed: int = 0) -> np.ndarray:
    return env.reset_all(np.random.default_rng(seed))


def test_numbers_are_the_packages() -> None:
    """Twenty steps towards and onto the object of an ML1 task: the package with its goal hidden says the same."""
    family = ml1("push", threads=1)
    task = family.task("test", 3)
    package = official.environment("push-v3", visible=False)
    official.fix(package, np.array(task.parameters["vector"]))
    expected, _ = package.reset()
    env = family.vector_env([family.task("test", 0), task], 2)
    seen = begin(env)
    np.testing.assert_allclose(seen[1, 1], expected, atol=1e-6)
    actions = np.random.default_rng(1).uniform(-2.0, 2.0, (20, 4))
    actions[:, 1:3] = [0.3, -1.0]
    for action in actions:
        outcome = env.step(np.broadcast_to(action, (2, 2, 4)), np.ones((2, 2), bool))
        expected, reward, _, _, info = package.step(np.clip(action, -1.0, 1.0).astype(np.float32))
        np.testing.assert_allclose(outcome.observations[1, 1], expected, atol=1e-6)
        np.testing.assert_allclose(outcome.rewards[1, 1], reward, atol=1e-6)
        assert outcome.success[1, 1] == bool(info["success"])
        assert not outcome.terminated.any()
    env.close()
    assert np.abs(outcome.observations[0, 0] - outcome.observations[1, 0]).max() > 1e-3  # another task


def test_numbers_are_those_with_starts_drawn_anew() -> None:
    """The same vector and no noise: rewards, both successes and observations of whole short episodes."""
    family, other = ml1("reach", horizon=60, threads=1), drawn_anew.ml1("reach", horizon=60, noise=0.0, threads=1)
    task = other.task("train", 0)
    with other.vector_env([task], 1) as drawn:
        begin(drawn)
        seen = drawn._sims.observations  # with the goal
        vector = TASKS["reach-v3"].vector(np.random.default_rng(0).spawn(1)[0], np.array(task.parameters["goal"]))
        same = replace(family.task("train", 0), parameters={"task": "reach-v3", "vector": vector.tolist()})
        with family.vector_env([same], 1) as env:
            begin(env, seed=9)
            successes = []
            for _ in range(60):  # straight to the goal, which only this test knows, and past it
                way = np.array([0.0, 0.0, 1.0]) if successes and any(successes) else 10.0 * (vector[3:] - seen[0, :3])
                action = np.append(np.clip(way, -1.0, 1.0), 0.0)[None, None]
                one, expected = env.step(action, ALL), drawn.step(action, ALL)
                for part, wanted in zip(one, expected, strict=True):
                    np.testing.assert_array_equal(part, wanted)
                successes.append(bool(one.success[0, 0]))
    assert any(successes)
    assert not successes[-1]
    assert one.truncated.all()


def test_the_goal_is_hidden_and_all_episodes_of_a_task_begin_alike() -> None:
    family = ml1("pick-place", horizon=3, threads=1)
    tasks = family.tasks("train", 2)
    env = family.vector_env(tasks, 3)
    first, again = begin(env), begin(env, seed=9)
    env.close()
    assert not first[..., 36:].any()
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, np.repeat(first[:, :1], 3, 1))
    for task, seen in zip(tasks, first[:, 0], strict=True):
        np.testing.assert_allclose(seen[4:6], task.parameters["vector"][:2], atol=0.02)


def test_splits_are_the_official_ones() -> None:
    family = ml10()
    splits = ML10
    for split, classes in splits.items():
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
    assert [names.count(name) for name in ML10["train"]] == [2] * 10
    assert [task.name for task in drawn] == [task.name for task in family.draw(20, rng())]
    assert {task.split for task in drawn} == {"train"}
    few = [{task.parameters["task"] for task in family.draw(3, rng(seed))} for seed in range(20)]
    assert set().union(*few) == set(ML10["train"])
    everything = ml1("push").draw(50, rng())
    assert sorted(task.index for task in everything) == list(range(50))


def test_the_oracle_sees_the_goal_and_the_task() -> None:
    family = ml10()
    for index, split in ((0, "train"), (9, "train"), (4, "test")):
        task = family.task(split, index)
        hidden = family.hidden(task)
        assert hidden.shape == (family.hidden_size,)
        assert np.flatnonzero(hidden[3:]).tolist() == [family._all.index(task.parameters["task"])]
        assert np.abs(hidden[:3]).max() <= 1.0
    push = ml1("push")
    assert push.hidden(push.task("train", 0)).shape == (push.hidden_size,) == (3,)
    low, high = np.array(TASKS["push-v3"].low[3:5]), np.array(TASKS["push-v3"].high[3:5])
    hidden = push.hidden(push.task("train", 0))[:2]
    np.testing.assert_allclose(
        low + (hidden + 1) / 2 * (high - low), push.task("train", 0).parameters["vector"][3:5], atol=1e-6
    )


class Towards(Gaussian):
    def sample(self, rng: torch.Generator) -> torch.Tensor:
        return self.mean


def test_every_episode_is_truncated_at_the_horizon() -> None:
    family = ml1("reach", horizon=4, threads=1)
    env = family.vector_env(family.tasks("train", 1), 2)
    made = collect(env, lambda seen: Towards(torch.ones(1, 2, 4), torch.zeros(1, 2, 4)), rng())
    env.close()
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
        env = family.vector_env([task], 1)
        way = np.array(task.parameters["vector"])[3:] - begin(env)[0, 0, :3]
        action = np.append(way / np.abs(way).max(), 0.0)
        held = [env.step(action[None, None], np.ones((1, 1), bool)) for _ in range(env.horizon)]
        env.close()
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


def test_validation_has_both_successes_and_the_return() -> None:
    record, config = methods.get("promp"), TrialConfig(steps=1, meta_batch=2, episodes_per_task=2, validation_tasks=2)
    figures = []
    for _ in range(2):
        family = ml1("push", horizon=3, threads=1)
        settings = record.defaults(family.name, family).changed({"network": {"hidden": (4,)}})
        torch.manual_seed(0)
        learner = record.build(settings, family)
        TrialSteps(learner, family, config).step(rng(), 1)
        figures.append(validate(learner, family, config)[1])
    assert figures[0] == figures[1]
    assert set(figures[0]) == {
        f"validation/{what}-{k}" for what in ("success", "success_last", "return") for k in range(2)
    }
    assert figures[0]["validation/return-0"] > 0


def test_an_unstable_world_ends_its_episode_alone(monkeypatch, capsys) -> None:
    family = ml1("reach", horizon=3, threads=1)
    env = family.vector_env(family.tasks("train", 1), 2)
    step, calls = env._sims.step, []

    def unstable(actions, chosen):
        step(actions, chosen)
        calls.append(None if chosen is None else chosen.tolist())
        if len(calls) == 2:
            env._sims.observations[1] = np.nan

    monkeypatch.setattr(env._sims, "step", unstable)

    def still(seen: PolicyInput) -> Gaussian:
        return Towards(torch.zeros(1, 2, 4), torch.zeros(1, 2, 4))

    made = collect(env, still, rng())
    assert made.mask.tolist() == [[[1, 1, 1], [1, 0, 0]]]
    assert calls == [None, None, [0]]
    assert env.faults == 1
    assert "ml1-reach/train/0 (1)" in capsys.readouterr().out
    assert collect(env, still, rng()).mask.all()  # sound again
    env.close()


@pytest.mark.parametrize("name", FIXED)
def test_the_protocol_names_reward_horizon_and_success(name: str) -> None:
    protocol, steps = families.get(name).protocol, 500 if name.startswith("ml10") else 200
    for said in ("Meta-World v3 with v2 rewards", "goal is hidden", f"{steps} steps", "at any step"):
        assert said in protocol


@pytest.mark.parametrize("method", methods.names("trials"))
def test_default_settings_fit_the_families(method: str) -> None:
    for name in FIXED:
        family = families.get(name)
        training = methods.get(method).defaults(name, family).training
        assert training.meta_batch <= family.sizes["train"]
        assert training.validation_tasks <= family.sizes["validation"]


def test_who_reaches_as_the_expert_says_has_room_for_error() -> None:
    """5 cm from the finger tips to the goal are allowed: as it says they end within 2, so 2 off still is within 4."""
    family = ml1("reach", horizon=200, repeat=5, threads=1)
    with family.vector_env(family.tasks("test", 10), 1) as env:
        begin(env)
        for _ in range(family.horizon):
            env.step(np.nan_to_num(env.expert_action()), np.ones((10, 1), bool))
        reach = env._sims._groups[0][0]
        assert np.linalg.norm(reach.tcp - reach.target, axis=1).max() < 0.02


def test_tasks_are_named_and_seeded_as_before_and_belong_to_one_family_alone() -> None:
    fixed, drawn = families.get("ml1-push-fixed-start"), families.get("ml1-push")
    assert fixed.name == "ml1-push-fixed-start"
    assert fixed.task("test", 3).name == "ml1-push/test/3"
    np.testing.assert_allclose(fixed.task("test", 0).parameters["vector"][:2], [0.0478636632, 0.6039562842], atol=1e-9)
    assert fixed.learned_from == ("trials",)
    assert fixed.horizon * fixed.repeat == 200
    assert (fixed.rate, fixed.film_every) == (16.0, 1)
    with pytest.raises(QuickstudyError, match="ml1-push/train/0 is not of the family 'ml1-push-fixed-start'"):
        fixed.vector_env(drawn.tasks("train", 1), 1)
    with pytest.raises(QuickstudyError, match="ml1-push/train/0 is not of the family 'ml1-push'"):
        drawn.vector_env(fixed.tasks("train", 1), 1)
    assert families.get("ml1-door-open-fixed-start").task("train", 0).family == "ml1-door-open"


def test_mistakes_are_one_sentence() -> None:
    with pytest.raises(QuickstudyError, match="Did you mean 'push'"):
        families.get("ml1-pushh-fixed-start")
    with pytest.raises(QuickstudyError, match="Did you mean 'push'"):
        FixedStart("mine", {"train": ["push-v2"]})
    with pytest.raises(QuickstudyError, match="horizon and vectors must be positive; got 0 and 50"):
        ml10(horizon=0)
    with pytest.raises(QuickstudyError, match="repeat must divide the horizon, 200; got 3"):
        ml1("push", horizon=200, repeat=3)
    with pytest.raises(QuickstudyError, match="0 to 51 of split 'train' of 'ml1-push-fixed-start', which holds 50"):
        ml1("push").draw(51, rng())
    with pytest.raises(QuickstudyError, match="split 'train' of 'navigation2d'"):
        Navigation2D().draw(10**9 + 1, rng())
    with pytest.raises(QuickstudyError, match="got 0 tasks"):
        ml1("push").vector_env([], 1)
