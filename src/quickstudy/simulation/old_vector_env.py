"""Many environments stepped together, and what happens when one of them breaks.

A `VectorEnv` holds `episodes_per_task` environments of each of several tasks. All episodes_per_task begin an episode together; one whose episode
is over waits for the others, and what it would say is never read.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, NamedTuple

import gymnasium
import numpy as np
import torch

from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.io.progress import console
from quickstudy.task import Policy, Task, TaskFamily

Unit = float | Sequence[float]
"""What a policy divides observations by: one number for all, or one for each."""


class StepResult(NamedTuple):
    """What a step led to.

    Attributes:
        observations: [task, lane, obs].
        rewards: [task, lane].
        terminated: [task, lane], the episode is over by the task's own rule; being out of time is not that.
        success: [task, lane].
        broken: [task, lane], the environment failed and was made anew: this step did not happen.
    """

    observations: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    success: np.ndarray
    broken: np.ndarray


class Symmetry(NamedTuple):
    """What turns a trial of a family into another one, such as a mirror: rewards stay, observations and actions change.

    Attributes:
        observation: matrix [obs, obs] from an observation to that of the other trial.
        action: matrix [act, act], likewise.
    """

    observation: np.ndarray
    action: np.ndarray


class VectorEnv(ABC):
    """Environments of some tasks.

    Attributes:
        tasks, episodes_per_task: which, and how many environments each has.
        horizon: the most steps of an episode; a longer one is truncated.
        action_size: width of an action.
        faults: failures so far, of environments and of rewards that are no numbers.
    """

    tasks: Sequence[Task]
    episodes_per_task: int
    horizon: int
    action_size: int
    faults: int = 0

    @abstractmethod
    def reset(self, rng: np.random.Generator) -> np.ndarray:
        """Begins an episode in every lane: observations [task, lane, obs]."""

    @abstractmethod
    def step(self, actions: np.ndarray, alive: np.ndarray) -> StepResult:
        """One step of the episodes_per_task that are `alive` [task, lane]; actions [task, lane, act] reach from -1 to 1."""

    def expert_action(self) -> np.ndarray:
        """What an expert who knows what is hidden would do now, [task, lane, act]; NaN where that does not matter.

        Only where the family says that it `has_expert`.
        """
        raise NotImplementedError

    def measures(self) -> dict[str, np.ndarray]:
        """What else there is to say of the last episode of every lane, by name, [task, lane]."""
        return {}

    def close(self) -> None:  # noqa: B027, most have nothing to free
        """Frees what the environments hold."""


class TrialFamily(TaskFamily):
    """A family that is learned by trial: its tasks give rewards. Actions reach from -1 to 1 and are clipped to it."""

    metric = "return"
    secondary_metrics: ClassVar[tuple[str, ...]] = ()
    """What a table shows beside the metric, of 'return', 'success', 'success_last' and what its worlds measure."""
    observation_unit: Unit = 1.0
    episodes: int = 20
    """Of each task between two adaptations, where nobody says otherwise."""
    has_expert: ClassVar[bool] = False
    """Whether its worlds have an expert who can be asked during a trial, `VectorEnv.expert_action`."""
    symmetries: ClassVar[Sequence[Symmetry]] = ()
    """Of its trials; some of them one after the other are one as well."""

    @abstractmethod
    def vector_env(self, tasks: Sequence[Task], episodes_per_task: int) -> VectorEnv:
        """`episodes_per_task` environments of each task."""

    def draw(self, count: int, rng: torch.Generator) -> list[Task]:
        """Training tasks for one step of the outer loop: neighbours, as there are always more that nobody has met."""
        places = self.sizes["train"] - count + 1
        return self.tasks("train", count, int(torch.randint(max(1, places), (), generator=rng)))

    def demonstrate(self, tasks: Sequence[Task], count: int, seed: int) -> list[list[Demonstration]]:
        raise QuickstudyError(f"Family '{self.name}' has no expert: it is learned by trial and reward.")

    def run(self, tasks: Sequence[Task], episodes: int, policy: Policy, seed: int) -> dict[str, np.ndarray]:
        worlds = self.vector_env(tasks, episodes)
        observations = worlds.reset(np.random.default_rng(seed))
        alive = np.ones((len(tasks), episodes), bool)
        total, success, last = (np.zeros(alive.shape) for _ in range(3))
        for _ in range(worlds.horizon):
            outcome = worlds.step(policy(observations.astype("f4")), alive)
            total += np.where(alive & ~outcome.broken, outcome.rewards, 0.0)
            last = np.where(alive, outcome.success, last)
            success = np.maximum(success, last)
            alive, observations = alive & ~outcome.terminated & ~outcome.broken, outcome.observations
        measures = worlds.measures()
        worlds.close()
        return {"return": total, "success": success, "success_last": last, **measures}


class TrialsOf(TrialFamily):
    """The tasks of a family of demonstrations, learned by trial."""

    def __init__(self, same: TaskFamily) -> None:
        self._same = same

    def sample(self, split: str, rng: np.random.Generator) -> Mapping[str, Any]:
        return self._same.sample(split, rng)

    def hidden(self, task: Task) -> np.ndarray:
        return self._same.hidden(task)

    def caption(self, task: Task) -> str:
        return self._same.caption(task)

    def snapshot(self, task: Task) -> np.ndarray:
        return self._same.snapshot(task)


_FAULTS = 20
"""Environments that may break before it is given up."""


class GymVectorEnv(VectorEnv):
    """Gymnasium environments, each in Python; one that raises is named, made anew and counted.

    Args:
        make: an environment of a task. Its actions are a box, to whose bounds -1 and 1 are mapped.
        horizon: of an episode; an environment's own truncation ends it earlier.
        threads: environments stepped at the same time; worth it where a step frees the interpreter.

    Raises:
        QuickstudyError: from `step` or `reset`, after `faults` environments in all broke.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        episodes_per_task: int,
        make: Callable[[Task], gymnasium.Env],
        horizon: int,
        threads: int = 1,
        faults: int = _FAULTS,
    ) -> None:
        self.tasks, self.episodes_per_task, self.horizon = list(tasks), episodes_per_task, horizon
        self._make, self._limit = make, faults
        self._envs = [make(task) for task in self.tasks for _ in range(episodes_per_task)]
        box = self._envs[0].action_space
        if not isinstance(box, gymnasium.spaces.Box):
            raise QuickstudyError(f"Learning by trial needs actions in a box; '{self.tasks[0].family}' has {box}.")
        self.action_size = box.shape[0]
        self._middle, self._half = (box.high + box.low) / 2, (box.high - box.low) / 2
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def reset(self, rng: np.random.Generator) -> np.ndarray:
        seeds = rng.integers(2**31, size=len(self._envs))
        self._observations = [self._begin(i, int(seed)) for i, seed in enumerate(seeds)]
        return self._grid(self._observations)

    def step(self, actions: np.ndarray, alive: np.ndarray) -> StepResult:
        flat, episodes_per_task = actions.reshape(len(self._envs), -1), np.flatnonzero(alive).tolist()
        scaled = self._middle + self._half * np.clip(flat, -1.0, 1.0)
        tried = list((self._pool.map if self._pool else map)(lambda i: self._try(i, scaled[i]), episodes_per_task))
        rewards, flags = np.zeros(len(flat)), np.zeros((3, len(flat)), bool)
        for i, result in zip(episodes_per_task, tried, strict=True):
            if isinstance(result, Exception):
                self._restart(i, result)
                flags[2, i] = True
            else:
                self._observations[i], rewards[i], flags[0, i], flags[1, i] = result
        return StepResult(self._grid(self._observations), *(self._grid(a) for a in (rewards, *flags)))

    def close(self) -> None:
        for env in self._envs:
            env.close()
        if self._pool is not None:
            self._pool.shutdown()

    def _try(self, i: int, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool] | Exception:
        try:
            observation, reward, terminated, _, info = self._envs[i].step(action.astype("f4"))
        except Exception as error:  # any failure of a user's environment is the user's to hear of, by name
            return error
        return observation, float(reward), terminated, bool(info.get("success", False))

    def _begin(self, i: int, seed: int) -> np.ndarray:
        while True:
            try:
                return np.asarray(self._envs[i].reset(seed=seed)[0])
            except Exception as error:
                self._restart(i, error)

    def _restart(self, i: int, error: Exception) -> None:
        self.faults += 1
        task = self.tasks[i // self.episodes_per_task]
        said = f"The environment of {task.name} failed ({type(error).__name__}: {error})"
        if self.faults >= self._limit:
            raise QuickstudyError(
                f"{said}; that was failure {self.faults}, and {self._limit} are the limit."
            ) from error
        console.print(f"{said}; it was made anew (failure {self.faults} of at most {self._limit}).")
        self._envs[i] = self._make(task)

    def _grid(self, values: Sequence | np.ndarray) -> np.ndarray:
        return np.stack([np.asarray(v) for v in values]).reshape(
            len(self.tasks), self.episodes_per_task, *np.shape(values[0])
        )
