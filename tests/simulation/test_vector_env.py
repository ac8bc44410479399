"""What every vector environment has, whatever it simulates."""

from collections.abc import Sequence

import numpy as np
import pytest

from quickstudy.errors import QuickstudyError
from quickstudy.simulation.vector_env import StepResult, VectorEnv, as_indices
from quickstudy.task import Task


class Noise(VectorEnv):
    """Observes a number that its generator draws; nothing else happens."""

    horizon, action_size = 3, 1
    closed = False

    def __init__(self, tasks: int, episodes_per_task: int) -> None:
        self.tasks = [Task("noise", "train", index, {}) for index in range(tasks)]
        self.episodes_per_task = episodes_per_task
        self.seen = np.zeros((*self.shape, 1))

    def reset(
        self, generators: Sequence[np.random.Generator], chosen: np.ndarray | None = None, disturbance: float = 0.0
    ) -> np.ndarray:
        for i, rng in zip(as_indices(chosen, self.size), generators, strict=True):
            self.seen.reshape(-1)[i] = rng.uniform()
        return self.seen.copy()

    def step(self, actions: np.ndarray, active: np.ndarray) -> StepResult:
        never = np.zeros(self.shape, bool)
        return StepResult(self.seen.copy(), np.zeros(self.shape), never, never, never, never)

    def close(self) -> None:
        self.closed = True


def test_an_episode_is_over_by_its_own_rule_by_time_or_by_a_failure() -> None:
    flags = np.eye(4, dtype=bool)[:, None]
    result = StepResult(np.zeros((1, 4, 1)), np.zeros((1, 4)), *flags)
    assert result.terminated.tolist() == [[True, False, False, False]]
    assert result.over.tolist() == [[True, True, False, True]]


def test_every_environment_has_a_generator_of_its_own() -> None:
    env = Noise(2, 3)
    first = env.reset_all(np.random.default_rng(0))
    assert first.shape == (2, 3, 1)
    assert len(np.unique(first)) == env.size == 6
    assert np.array_equal(first, Noise(2, 3).reset_all(np.random.default_rng(0)))
    again = env.reset([np.random.default_rng(5)], np.array([4]))
    assert np.flatnonzero(again != first).tolist() == [4]


def test_what_an_environment_does_not_have_is_said() -> None:
    with Noise(1, 1) as env:
        assert env.measures() == {}
        with pytest.raises(QuickstudyError, match="The environments of 'noise' have no expert"):
            env.expert_action()
        with pytest.raises(QuickstudyError, match="The environments of 'noise' draw no pictures"):
            env.render(0)
    assert env.closed
