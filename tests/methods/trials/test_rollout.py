"""Episodes: what ends them, what padding holds, and what happens when an environment breaks."""

from collections.abc import Sequence

import numpy as np
import torch

from quickstudy.families.navigation2d import Navigation2D
from quickstudy.methods.trials.policy import Gaussian
from quickstudy.methods.trials.rollout import PolicyInput, collect
from quickstudy.simulation.vector_env import StepResult, VectorEnv
from quickstudy.task import Task


def goal(*positions: Sequence[float]) -> list[Task]:
    return [Task("navigation2d", "train", i, {"goal": list(p)}) for i, p in enumerate(positions)]


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


class Straight(Gaussian):
    def sample(self, rng: torch.Generator) -> torch.Tensor:
        return self.mean


def always(*action: float):
    """An actor that always does the same."""

    def act(seen: PolicyInput) -> Gaussian:
        mean = torch.tensor(action).expand(*seen.observation.shape[:2], len(action))
        return Straight(mean, torch.zeros_like(mean))

    return act


def test_reaching_terminates_and_being_out_of_time_does_not() -> None:
    """Along x at 0.1 a step: the goal at 0.3 is reached by the third step, the one at -0.3 never."""
    env = Navigation2D().vector_env(goal([0.3, 0.0], [-0.3, 0.0]), 1)
    episodes = collect(env, always(1.0, 0.0), rng())
    assert episodes.terminated.tolist() == [[True], [False]]
    assert episodes.success.tolist() == [[True], [False]]
    assert episodes.mask.sum(-1).tolist() == [[3.0], [100.0]]
    torch.testing.assert_close(episodes.returns[0, 0], torch.tensor(-0.2 - 0.1))
    torch.testing.assert_close(episodes.last[:, 0, 0], torch.tensor([0.3, 10.0]))
    assert not episodes.broken.any()


def test_actions_are_clipped_by_the_environment_alone() -> None:
    env = Navigation2D().vector_env(goal([0.3, 0.0]), 1)
    episodes = collect(env, always(5.0, 0.0), rng())
    assert (episodes.actions[..., 0] == 5.0).all()
    torch.testing.assert_close(episodes.observations[0, 0, :3, 0], torch.tensor([0.0, 0.1, 0.2]))


class Counting(VectorEnv):
    """One task with two environments, which observe the number of steps so far; rewards are 1."""

    tasks, episodes_per_task, horizon, action_size = goal([0.0, 0.0]), 2, 4, 2

    def reset(self, generators, chosen=None, disturbance=0.0) -> np.ndarray:
        self.count = 0
        return np.zeros((1, 2, 2))

    def step(self, actions: np.ndarray, active: np.ndarray) -> StepResult:
        self.count += 1
        flags = [np.zeros((1, 2), bool) for _ in range(4)]
        return StepResult(np.full((1, 2, 2), float(self.count)), np.ones((1, 2)), *flags)


class Lottery(Counting):
    """The second environment's reward is no number at step 2."""

    def step(self, actions: np.ndarray, active: np.ndarray) -> StepResult:
        result = super().step(actions, active)
        if self.count == 2:
            result.rewards[0, 1] = np.nan
        return result


def test_a_reward_that_is_no_number_cuts_the_episode_short(capsys) -> None:
    env = Lottery()
    episodes = collect(env, always(0.0, 0.0), rng())
    assert episodes.mask.tolist() == [[[1, 1, 1, 1], [1, 0, 0, 0]]]
    assert episodes.broken.tolist() == [[False, True]]
    assert episodes.returns.tolist() == [[4.0, 1.0]]
    assert episodes.last[0, :, 0].tolist() == [4.0, 1.0]
    assert env.faults == 1
    assert "navigation2d/train/0 (1)" in capsys.readouterr().out


class Truncating(Counting):
    """The first environment is truncated in its second step, long before the horizon."""

    def step(self, actions: np.ndarray, active: np.ndarray) -> StepResult:
        result = super().step(actions, active)
        result.truncated[0, 0] = self.count >= 2
        return result


def test_a_truncated_episode_ends_there_and_is_not_terminated() -> None:
    episodes = collect(Truncating(), always(0.0, 0.0), rng())
    assert episodes.mask.tolist() == [[[1, 1, 0, 0], [1, 1, 1, 1]]]
    assert not episodes.terminated.any()
    assert episodes.last[0, :, 0].tolist() == [2.0, 4.0]
    assert not episodes.broken.any()
