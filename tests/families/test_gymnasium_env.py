"""The vector environment of Gymnasium environments: what ends an episode, and what happens when one of them fails."""

import threading

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

from quickstudy import families
from quickstudy.errors import QuickstudyError
from quickstudy.families.gymnasium.vector_env import Flat, GymVectorEnv
from quickstudy.methods.trials.policy import Gaussian
from quickstudy.methods.trials.rollout import PolicyInput, collect
from quickstudy.task import Task

TASK = Task("counting", "train", 0, {})
EVERYWHERE = np.ones((1, 2), bool)


class Counting(gymnasium.Env):
    """Observes the steps so far, terminates after `ends` of them, and may fail or see nonsense in its second."""

    action_space = spaces.Box(-2.0, 4.0, (1,), np.float64)
    observation_space = spaces.Box(-10, 10, (1,), np.float64)

    def __init__(self, ends: int = 99, fails: str = "") -> None:
        self.ends, self.fails, self.count, self.actions, self.threads = ends, fails, 0, [], set()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if self.fails == "reset":
            raise RuntimeError("no power")
        self.count = 0
        return np.zeros(1), {}

    def step(self, action):
        self.count += 1
        self.actions.append(float(action[0]))
        self.threads.add(threading.get_ident())
        if self.count == 2 and self.fails == "step":
            raise RuntimeError("a joint came off")
        seen = np.full(1, np.nan if self.count == 2 and self.fails == "sight" else self.count)
        return seen, 1.0, self.count == self.ends, False, {"success": self.count == self.ends}


def vector_env(*envs: gymnasium.Env, horizon: int = 3, **options) -> GymVectorEnv:
    """Environments of one task: these, and sound ones instead of those that fail."""
    waiting = list(envs)

    def make(task: Task) -> Flat:
        return Flat(waiting.pop(0) if waiting else Counting(), horizon)

    judge = options.pop("judge", lambda info, total: bool(info["success"]))
    return GymVectorEnv([TASK], len(envs), make, horizon, judge, **options)


def generators(count: int = 2) -> list[np.random.Generator]:
    return np.random.default_rng(0).spawn(count)


def rolled(env: GymVectorEnv, action: float = 0.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps, and whether episodes were terminated and whether truncated, [episode]."""
    env.reset(generators(env.size))
    active, steps, ended, cut = np.ones(env.shape, bool), *(np.zeros(env.shape, int) for _ in range(3))
    while active.any():
        result = env.step(np.full((*env.shape, 1), action), active)
        steps, ended, cut = steps + active, ended + result.terminated, cut + result.truncated
        active &= ~result.over
    return steps[0], ended[0], cut[0]


def test_every_way_in_which_an_episode_ends():
    """By the task's own rule, by the environment's time limit, and by the horizon; the first of them counts."""
    env = vector_env(Counting(ends=2), TimeLimit(Counting(), 4), Counting(), TimeLimit(Counting(ends=4), 4), horizon=6)
    steps, terminated, truncated = rolled(env)
    assert steps.tolist() == [2, 4, 6, 4]
    assert terminated.tolist() == [1, 0, 0, 1]
    assert truncated.tolist() == [0, 1, 1, 1]


def test_a_time_limit_ends_the_episodes_of_a_family_there_and_then():
    made = families.from_gymnasium(
        lambda ends: TimeLimit(Counting(ends), 4), {"ends": [7]}, {s: {"ends": [n]} for s, n in
        (("train", 3), ("validation", 6), ("test", 7))}, horizon=20, name="counting",
    )  # fmt: skip
    found = {split: made.run(made.tasks(split, 1), 2, lambda x: np.zeros((1, 2, 1)), 0) for split in made.sizes}
    assert {split: one["steps"].tolist() for split, one in found.items()} == {
        "train": [[3, 3]], "validation": [[4, 4]], "test": [[4, 4]],
    }  # fmt: skip
    assert found["train"]["success"].all()
    assert not found["test"]["success"].any()
    assert found["test"]["return"].tolist() == [[4.0, 4.0]]


def test_actions_are_scaled_and_an_episode_that_is_over_waits():
    first, second = Counting(ends=1), Counting()
    env = vector_env(first, second)
    observations = env.reset(generators())
    assert (observations.dtype, observations.shape) == (np.float32, (1, 2, 1))
    for _ in range(2):
        result = env.step(np.array([[[0.5], [7.0]]]), EVERYWHERE)
    assert first.actions == [2.5]  # half way from the middle, 1, to 4
    assert second.actions == [4.0, 4.0]
    assert result.observations[0, :, 0].tolist() == [1.0, 2.0]
    assert result.rewards.tolist() == [[0.0, 1.0]]
    env.step(np.zeros((1, 2, 1)), np.array([[True, False]]))
    assert len(second.actions) == 2
    assert env.reset(generators(1), np.array([0]))[0, :, 0].tolist() == [0.0, 2.0]


def test_success_is_that_of_the_last_step():
    env = vector_env(Counting(), Counting(ends=2), judge=lambda info, total: total >= 2)
    env.reset(generators())
    told = [env.step(np.zeros((1, 2, 1)), EVERYWHERE).success.tolist() for _ in range(3)]
    assert told == [[[False, False]], [[False, True]], [[True, False]]]


def test_the_expert_is_asked_in_its_own_words_and_only_while_an_episode_goes_on():
    asked = []

    def expert(env: Counting, seen: np.ndarray) -> list[float]:
        asked.append((env, float(seen[0])))
        return [4.0]

    first, second = Counting(ends=1), Counting()
    env = vector_env(first, second, expert=expert)
    env.reset(generators())
    np.testing.assert_array_equal(env.expert_action(), [[[1.0], [1.0]]])
    env.step(np.zeros((1, 2, 1)), EVERYWHERE)
    np.testing.assert_array_equal(env.expert_action(), [[[np.nan], [1.0]]])
    assert asked == [(first, 0.0), (second, 0.0), (second, 1.0)]
    with pytest.raises(QuickstudyError, match="have no expert"):
        vector_env(Counting()).expert_action()


def test_noise_is_drawn_by_each_environments_own_generator():
    env = vector_env(Counting(), Counting())
    env.reset([np.random.default_rng(3), np.random.default_rng(3)], disturbance=0.1)
    env.step(np.zeros((1, 2, 1)), np.array([[True, False]]))
    env.step(np.zeros((1, 2, 1)), EVERYWHERE)
    one, other = (flat.env.actions for flat in env._envs)
    assert len(one) == 2
    assert one[0] == other[0] != 1.0


@pytest.mark.parametrize(
    ("fails", "said"),
    [
        ("step", "counting/train/0 failed (RuntimeError: a joint came off)"),
        ("sight", "counting/train/0 failed (ValueError: an observation is not finite)"),
    ],
)
def test_an_environment_that_fails_is_named_and_made_anew(capsys, fails, said):
    env = vector_env(Counting(fails=fails), Counting())
    env.reset(generators())
    results = [env.step(np.full((1, 2, 1), 0.5), EVERYWHERE) for _ in range(3)]
    assert [one.broken.tolist() for one in results] == [[[False, False]], [[True, False]], [[False, False]]]
    assert results[1].observations[0, :, 0].tolist() == [1.0, 2.0]  # the step did not happen
    assert results[1].rewards.tolist() == [[0.0, 1.0]]
    assert results[1].over.tolist() == [[True, False]]
    assert env.faults == 1
    assert said in " ".join(capsys.readouterr().out.split())
    assert rolled(env)[0].tolist() == [3, 3]


def test_too_many_failures_stop():
    env = vector_env(*[Counting(fails="step") for _ in range(2)], most_faults=2)
    env.reset(generators())
    env.step(np.zeros((1, 2, 1)), EVERYWHERE)
    with pytest.raises(QuickstudyError, match=r"a joint came off.*failure 2, and 2 are the limit"):
        env.step(np.zeros((1, 2, 1)), EVERYWHERE)


def test_a_reset_that_fails_is_tried_anew(capsys):
    env = vector_env(Counting(fails="reset"), Counting())
    assert env.reset(generators()).tolist() == [[[0.0], [0.0]]]
    assert "no power" in capsys.readouterr().out
    made = families.from_gymnasium(
        lambda ends: Counting(ends, "reset"), {"ends": (1, 2)}, success=1.0, horizon=3, name="counting"
    )
    with pytest.raises(QuickstudyError, match=r"no power\); that was failure 20, and 20 are the limit"):
        made.run(made.tasks("test", 1), 1, lambda x: np.zeros((1, 1, 1)), 0)


def test_an_episode_that_breaks_counts_as_it_is(capsys):
    made = families.from_gymnasium(
        lambda ends: Counting(ends, "step"), {"ends": (1, 2)}, success=1.0, horizon=3, name="counting"
    )
    found = made.run(made.tasks("test", 1), 2, lambda x: np.zeros((1, 2, 1)), 0)
    assert found["success"].tolist() == [[0.0, 0.0]]
    assert found["return"].tolist() == [[1.0, 1.0]]
    assert "failure 2 of at most 20" in " ".join(capsys.readouterr().out.split())


def test_a_learner_by_trial_sees_what_ended_an_episode(capsys):
    env = vector_env(Counting(ends=2), TimeLimit(Counting(), 2), Counting(fails="step"), Counting(), horizon=3)
    made = collect(env, _does_nothing, torch.Generator().manual_seed(0))
    assert made.mask.tolist() == [[[1, 1, 0], [1, 1, 0], [1, 0, 0], [1, 1, 1]]]
    assert made.terminated.tolist() == [[True, False, False, False]]
    assert made.broken.tolist() == [[False, False, True, False]]
    assert made.last[0, :, 0].tolist() == [2.0, 2.0, 1.0, 3.0]
    assert "cut short" in capsys.readouterr().out


def _does_nothing(seen: PolicyInput) -> Gaussian:
    mean = torch.zeros(*seen.observation.shape[:2], 1)
    return Gaussian(mean, mean)


def test_threads_change_nothing():
    alone, together = (vector_env(*[Counting(ends=2 + i) for i in range(6)], horizon=5, threads=n) for n in (1, 3))
    for a, b in zip(rolled(alone), rolled(together), strict=True):
        np.testing.assert_array_equal(a, b)
    assert {ident for flat in alone._envs for ident in flat.env.threads} == {threading.get_ident()}
    assert threading.get_ident() not in {ident for flat in together._envs for ident in flat.env.threads}
    together.close()
