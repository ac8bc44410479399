"""Episodes: what ends them, what padding holds, and what happens when an environment breaks."""

from collections.abc import Sequence

import gymnasium
import numpy as np
import pytest
import torch

from quickstudy.errors import QuickstudyError
from quickstudy.families.navigation2d import Navigation2D, SparseNavigation2D
from quickstudy.methods.trials.policy import Gaussian
from quickstudy.methods.trials.rollout import PolicyInput, collect
from quickstudy.simulation.vector_env import GymVectorEnv, StepResult, VectorEnv
from quickstudy.task import Task


def goal(*positions: Sequence[float]) -> list[Task]:
    return [Task("navigation2d", "train", i, {"goal": list(p)}) for i, p in enumerate(positions)]


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


class Straight(Gaussian):
    def sample(self, rng: torch.Generator) -> torch.Tensor:
        return self.mean


def going(x: float, y: float):
    def act(seen: PolicyInput) -> Gaussian:
        mean = torch.tensor([x, y]).expand(*seen.observation.shape[:2], 2)
        return Straight(mean, torch.zeros_like(mean))

    return act


def one(x: float):
    def act(seen: PolicyInput) -> Gaussian:
        mean = torch.full((*seen.observation.shape[:2], 1), x)
        return Straight(mean, torch.zeros_like(mean))

    return act


def test_reaching_terminates_and_being_out_of_time_does_not() -> None:
    """Along x at 0.1 a step: the goal at 0.3 is reached by the third step, the one at -0.3 never."""
    env = Navigation2D().env(goal([0.3, 0.0], [-0.3, 0.0]), 1)
    made = collect(env, going(1.0, 0.0), rng())
    assert made.terminated.tolist() == [[True], [False]]
    assert made.success.tolist() == [[True], [False]]
    assert made.mask.sum(-1).tolist() == [[3.0], [100.0]]
    torch.testing.assert_close(made.returns[0, 0], torch.tensor(-0.2 - 0.1))
    torch.testing.assert_close(made.last[:, 0, 0], torch.tensor([0.3, 10.0]))
    assert not made.broken.any()


def test_actions_are_clipped_by_the_environment_alone() -> None:
    env = Navigation2D().env(goal([0.3, 0.0]), 1)
    made = collect(env, going(5.0, 0.0), rng())
    assert (made.actions[..., 0] == 5.0).all()
    torch.testing.assert_close(made.observations[0, 0, :3, 0], torch.tensor([0.0, 0.1, 0.2]))


def test_the_sparse_reward_begins_at_a_fifth() -> None:
    env = SparseNavigation2D().env(goal([0.3, 0.0]), 1)
    made = collect(env, going(1.0, 0.0), rng())
    expected = torch.tensor([0.0, 0.5, 1.0, 0.5, 0.0])  # at 0.1, 0.2, 0.3, 0.4, 0.5
    torch.testing.assert_close(made.rewards[0, 0, :5], expected, atol=1e-5, rtol=0)
    assert not made.terminated.any()


class Lottery(VectorEnv):
    """Rewards of 1, but in lane 1 one that is no number at step 2."""

    tasks, episodes_per_task, horizon, action_size = goal([0.0, 0.0]), 2, 4, 2

    def reset(self, rng: np.random.Generator) -> np.ndarray:
        self.step_count = 0
        return np.zeros((1, 2, 2))

    def step(self, actions: np.ndarray, alive: np.ndarray) -> StepResult:
        self.step_count += 1
        rewards, no = np.ones((1, 2)), np.zeros((1, 2), bool)
        if self.step_count == 2:
            rewards[0, 1] = np.nan
        return StepResult(np.full((1, 2, 2), float(self.step_count)), rewards, no, no, no)


def test_a_reward_that_is_no_number_cuts_the_episode_short(capsys) -> None:
    env = Lottery()
    made = collect(env, going(0.0, 0.0), rng())
    assert made.mask.tolist() == [[[1, 1, 1, 1], [1, 0, 0, 0]]]
    assert made.broken.tolist() == [[False, True]]
    assert made.returns.tolist() == [[4.0, 1.0]]
    assert made.last[0, :, 0].tolist() == [4.0, 1.0]
    assert env.faults == 1
    assert "navigation2d/train/0 (1)" in capsys.readouterr().out


class Fragile(gymnasium.Env):
    """Fails in its second step, if it is the first of its task."""

    action_space = gymnasium.spaces.Box(-2.0, 4.0, (1,), np.float64)
    observation_space = gymnasium.spaces.Box(-10, 10, (1,), np.float64)

    def __init__(self, sound: bool) -> None:
        self.sound, self.count = sound, 0

    def reset(self, *, seed=None, options=None):
        self.count = 0
        return np.zeros(1), {}

    def step(self, action):
        self.count += 1
        if self.count == 2 and not self.sound:
            raise RuntimeError("a joint came off")
        return np.asarray(action), 1.0, False, False, {}


def test_an_environment_that_raises_is_named_and_made_anew(capsys) -> None:
    made = []

    def make(task: Task) -> gymnasium.Env:
        made.append(Fragile(sound=bool(made)))
        return made[-1]

    env = GymVectorEnv(goal([0.0, 0.0]), 2, make, horizon=3)
    episodes = collect(env, one(0.5), rng())
    assert episodes.mask.tolist() == [[[1, 0, 0], [1, 1, 1]]]
    assert episodes.observations[0, 1, 1].tolist() == [2.5]  # 0.5 of the way from the middle, 1, to 4
    assert (env.faults, len(made)) == (1, 3)
    said = capsys.readouterr().out
    assert "navigation2d/train/0 failed (RuntimeError: a joint came off)" in said.replace("\n", " ")
    assert collect(env, one(0.5), rng()).mask.all()


def test_too_many_failures_stop() -> None:
    env = GymVectorEnv(goal([0.0, 0.0]), 1, lambda task: Fragile(sound=False), horizon=3, faults=2)
    collect(env, one(0.0), rng())
    with pytest.raises(QuickstudyError, match=r"a joint came off.*failure 2, and 2 are the limit"):
        collect(env, one(0.0), rng())
