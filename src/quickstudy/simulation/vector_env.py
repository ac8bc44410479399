"""The one way into a simulation: many environments of several tasks, stepped together.

A `VectorEnv` holds `episodes_per_task` environments of each of its tasks. Demonstrations, episodes, films, Gymnasium
environments and trials are all made from it (`quickstudy.families.base`). Environments whose episode is over wait for
the others: they are no longer stepped, and what they would say is never read.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np

from quickstudy.errors import QuickstudyError
from quickstudy.task import Task


class StepResult(NamedTuple):
    """What a step led to; an episode that is over by nothing goes on.

    Attributes:
        observations: [task, episode, obs].
        rewards: [task, episode].
        terminated: [task, episode], the episode is over by the task's own rule.
        truncated: [task, episode], it is over by time, or by another rule that says nothing about the task; what would
            have followed still has a value.
        success: [task, episode], of this step.
        broken: [task, episode], the environment failed and was made anew: this step did not happen.
    """

    observations: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    success: np.ndarray
    broken: np.ndarray

    @property
    def over(self) -> np.ndarray:
        """[task, episode], whether nothing follows."""
        return np.asarray(self.terminated | self.truncated | self.broken)


class VectorEnv(ABC):
    """Environments of some tasks; actions reach from -1 to 1 and are clipped to it.

    Attributes:
        tasks, episodes_per_task: which, and how many environments each has.
        horizon: the most steps of an episode, after which it is truncated.
        action_size: width of an action.
        faults: failures so far, of environments and of rewards that are no numbers.
    """

    tasks: Sequence[Task]
    episodes_per_task: int
    horizon: int
    action_size: int
    faults: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        """Tasks, and environments of each."""
        return len(self.tasks), self.episodes_per_task

    @property
    def size(self) -> int:
        """Environments in all; index i is episode i % episodes_per_task of task i // episodes_per_task."""
        return len(self.tasks) * self.episodes_per_task

    @abstractmethod
    def reset(
        self,
        generators: Sequence[np.random.Generator],
        chosen: np.ndarray | None = None,
        disturbance: float = 0.0,
    ) -> np.ndarray:
        """Begins an episode in the chosen environments (indices; all by default).

        Args:
            generators: one for each of them, which draws its start and all its noise.
            disturbance: strength of what pushes an expert off its way while it demonstrates, of an action's range.

        Returns:
            observations [task, episode, obs] of all environments.
        """

    def reset_all(self, rng: np.random.Generator) -> np.ndarray:
        """Begins an episode in every environment, drawn from generators that come from one."""
        return self.reset(rng.spawn(self.size))

    @abstractmethod
    def step(self, actions: np.ndarray, active: np.ndarray) -> StepResult:
        """One step of the environments that are `active` [task, episode] with actions [task, episode, act]."""

    def expert_action(self) -> np.ndarray:
        """What an expert who knows what is hidden would do now, [task, episode, act]; NaN where that does not matter.

        Only where the family says that it `has_expert`.
        """
        raise QuickstudyError(f"The environments of '{self.tasks[0].family}' have no expert.")

    def measures(self) -> dict[str, np.ndarray]:
        """What else there is to say of the last episodes, by name, [task, episode]."""
        return {}

    def render(self, index: int, width: int | None = None, height: int | None = None) -> np.ndarray:
        """A picture of one environment, uint8 [height, width, 3]; in pixels of the family's own choice by default.

        Raises:
            QuickstudyError: the family draws no pictures, these were made without what a picture needs, or nothing on
                this machine can draw.
        """
        raise QuickstudyError(f"The environments of '{self.tasks[0].family}' draw no pictures.")

    def close(self) -> None:  # noqa: B027, most have nothing to free
        """Frees what the environments hold."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SimulatedVectorEnv(VectorEnv):
    """What the simulations of this package share: steps are counted, and an episode is truncated after the horizon.

    Attributes:
        steps: of each episode so far, [env].
        observations: the last ones, [task, episode, obs].
        noise: of the actions, [env, step, act], where `_begin` draws it.
    """

    observations: np.ndarray
    noise: np.ndarray

    def __init__(self, tasks: Sequence[Task], episodes_per_task: int, horizon: int) -> None:
        self.tasks, self.episodes_per_task, self.horizon = list(tasks), episodes_per_task, horizon
        self.steps = np.zeros(self.size, int)

    @abstractmethod
    def _begin(self, chosen: np.ndarray, generators: Sequence[np.random.Generator], disturbance: float) -> None:
        """Begins an episode in each of the environments `chosen`, see `reset`."""

    @abstractmethod
    def _observe(self) -> np.ndarray:
        """Observations [task, episode, obs] of all environments, in an array of their own."""

    def reset(
        self, generators: Sequence[np.random.Generator], chosen: np.ndarray | None = None, disturbance: float = 0.0
    ) -> np.ndarray:
        chosen = as_indices(chosen, self.size)
        self.steps[chosen] = 0
        self._begin(chosen, generators, disturbance)
        self.observations = self._observe()
        return self.observations

    def _noisy(self, actions: np.ndarray) -> np.ndarray:
        """Actions [env, act] with the noise of this step; beyond the horizon with the last noise again."""
        noise = self.noise[np.arange(self.size), np.minimum(self.steps, self.horizon - 1)]
        return np.clip(np.clip(actions.reshape(self.size, -1), -1.0, 1.0) + noise, -1.0, 1.0)

    def _after_step(
        self,
        active: np.ndarray,
        rewards: np.ndarray,
        success: np.ndarray,
        terminated: np.ndarray | None = None,
        broken: np.ndarray | None = None,
    ) -> StepResult:
        """Counts the step and observes; what is not given happened nowhere. All arrays are [task, episode]."""
        self.steps += active.ravel()
        never = np.zeros(self.shape, bool)
        terminated, broken = (never if flags is None else flags for flags in (terminated, broken))
        truncated = (self.steps >= self.horizon).reshape(self.shape) & ~terminated
        self.observations = self._observe()
        return StepResult(self.observations, rewards, terminated, truncated, success, broken)


def as_indices(chosen: np.ndarray | None, size: int) -> np.ndarray:
    """The chosen environments, or all."""
    return np.arange(size) if chosen is None else np.asarray(chosen)


def pushes(
    rng: np.random.Generator,
    strength: float,
    shape: tuple[int, ...],
    starts: tuple[int, int],
    width: int,
    push: float,
    times: int = 1,
) -> np.ndarray:
    """Noise [step, act] that pushes an expert off its way: small at every step, and `times` large for a few steps.

    Args:
        shape: of the noise.
        starts: pushes begin in these steps, half-open.
        width: how many of an action's numbers, from the first on, a push changes.
        push: its length, relative to `strength`.
    """
    noise = strength * rng.normal(size=shape)
    for _ in range(times):
        start, length = rng.integers(*starts), rng.integers(2, 6)
        direction = rng.normal(size=width)
        noise[start : start + length, :width] += push * strength * direction / np.linalg.norm(direction)
    return noise
