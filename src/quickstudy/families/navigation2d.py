"""2D point navigation by trial (Finn, Abbeel, Levine 2017, section 5.3): reach a goal that only the reward tells of."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from quickstudy.demonstration import Demonstration
from quickstudy.simulation.vector_env import StepResult, TrialFamily, VectorEnv
from quickstudy.task import Task

STEP = 0.1
"""The longest displacement of a step along each axis."""
REACHED = 0.01
"""An episode ends where both coordinates are this close to the goal."""
RADIUS = 0.2
"""How near the goal the sparse reward begins."""


class PointVectorEnv(VectorEnv):
    """Points that start at the origin; all episodes_per_task of all tasks are one array."""

    action_size = 2

    def __init__(self, tasks: Sequence[Task], episodes_per_task: int, horizon: int, sparse: bool) -> None:
        self.tasks, self.episodes_per_task, self.horizon, self._sparse = list(tasks), episodes_per_task, horizon, sparse
        self._goals = np.array([task.parameters["goal"] for task in tasks])[:, None]

    def reset(self, rng: np.random.Generator) -> np.ndarray:
        self._positions = np.zeros((len(self.tasks), self.episodes_per_task, 2))
        return self._positions.copy()

    def step(self, actions: np.ndarray, alive: np.ndarray) -> StepResult:
        self._positions = self._positions + alive[..., None] * STEP * np.clip(actions, -1.0, 1.0)
        away = self._positions - self._goals
        distance, reached = np.linalg.norm(away, axis=-1), (np.abs(away) < REACHED).all(-1)
        never = np.zeros_like(reached)
        if self._sparse:
            rewards = np.maximum(0.0, 1.0 - distance / RADIUS)
            return StepResult(self._positions.copy(), rewards, never, distance < RADIUS / 4, never)
        return StepResult(self._positions.copy(), -distance, reached, reached, never)

    def expert_action(self) -> np.ndarray:
        """Straight to the goal."""
        return np.clip((self._goals - self._positions) / STEP, -1.0, 1.0)


class Navigation2D(TrialFamily):
    """The goal is uniform in [-0.5, 0.5]^2, the start the origin, an action a displacement of at most 0.1 an axis.

    The reward is minus the distance to the goal: the paper's text says its square, but its figures (-40.4 before
    adaptation) are those of its code, which takes the distance; a point that stays at the origin gets -38.3 on average
    by the distance and -16.7 by the square. An episode ends within 0.01 of the goal or is truncated after 100 steps.
    """

    name = "navigation2d"
    sizes: Mapping[str, int] = {"train": 10**9, "validation": 100_000, "test": 100_000}
    protocol = "the goal is hidden, the reward is minus the distance to it, an episode has at most 100 steps"
    observation_size, action_size, hidden_size, horizon = 2, 2, 2, 100
    observation_unit = 0.25
    has_expert = True
    sparse = False

    def sample(self, split: str, rng: np.random.Generator) -> Mapping[str, Any]:
        return {"goal": rng.uniform(-0.5, 0.5, 2).tolist()}

    def hidden(self, task: Task) -> np.ndarray:
        return np.asarray(task.parameters["goal"], "f4")

    def vector_env(self, tasks: Sequence[Task], episodes_per_task: int) -> VectorEnv:
        return PointVectorEnv(tasks, episodes_per_task, self.horizon, self.sparse)

    def demonstrate(self, tasks: Sequence[Task], count: int, seed: int) -> list[list[Demonstration]]:
        """The expert walks straight to the goal, and is pushed about a little so that demonstrations differ."""
        made = []
        for task in tasks:
            push = task.generator(seed, 2).normal(0.0, 0.02, (count, 20, 2))
            made.append([self._walk(np.asarray(task.parameters["goal"]), some) for some in push])
        return made

    def caption(self, task: Task) -> str:
        x, y = task.parameters["goal"]
        return f"goal {x:.2f}, {y:.2f}"

    @staticmethod
    def _walk(goal: np.ndarray, push: np.ndarray) -> Demonstration:
        position, seen, done = np.zeros(2), [], []
        for pushed in push:
            wanted = np.clip((goal - position) / STEP, -1.0, 1.0)
            seen.append(position)
            done.append(wanted)
            position = position + STEP * wanted + pushed
        return Demonstration(np.stack(seen), np.stack(done))


class SparseNavigation2D(Navigation2D):
    """The same square with a reward only near the goal: 1 at the goal, falling to 0 at 0.2 from it.

    An episode always has 100 steps: one that ended at the goal would be punished for reaching it.
    """

    name = "navigation2d-sparse"
    protocol = "the goal is hidden, the reward is 0 but within 0.2 of it, every episode has 100 steps"
    sparse = True
