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


def as_indices(chosen: np.ndarray | None, size: int) -> np.ndarray:
    """The chosen environments, or all."""
    return np.arange(size) if chosen is None else np.asarray(chosen)
