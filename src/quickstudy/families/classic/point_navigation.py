"""2D point navigation, taught by demonstration (after Finn, Abbeel, Levine 2017, section 5.3)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from quickstudy.demonstration import Demonstration
from quickstudy.families.base import SimulatedFamily, TaskEnv
from quickstudy.families.classic.drawing import plot
from quickstudy.settings import Changes
from quickstudy.simulation.vector_env import StepResult, VectorEnv, as_indices
from quickstudy.task import Task, check_count, check_run

REACH = 0.1
"""The longest displacement of a step along each axis."""
PUSH = 0.02
"""Standard deviation of what pushes the expert about, along each axis."""
TOLERANCE = 0.05
"""How near the goal an episode has to end."""


class PointVectorEnv(VectorEnv):
    """Points that have to reach a goal they do not see, in the square [-0.5, 0.5]^2.

    Observation: the position [2]. Action: the displacement [2], clipped to `REACH`. Reward: minus the squared distance
    to the goal. The start is drawn anew in every episode (the paper starts at the origin).
    """

    action_size = 2

    def __init__(self, tasks: Sequence[Task], episodes_per_task: int, horizon: int) -> None:
        self.tasks, self.episodes_per_task, self.horizon = list(tasks), episodes_per_task, horizon
        self._goals = np.array([task.parameters["goal"] for task in tasks])[:, None]
        self._positions, self._steps = np.zeros((*self.shape, 2)), np.zeros(self.shape, int)
        self._noise: dict[int, np.random.Generator] = {}
        self._disturbance = 0.0

    def reset(
        self,
        generators: Sequence[np.random.Generator],
        chosen: np.ndarray | None = None,
        disturbance: float = 0.0,
    ) -> np.ndarray:
        self._noise = dict(zip(as_indices(chosen, self.size).tolist(), generators, strict=True))
        self._disturbance = disturbance * REACH
        for i, rng in self._noise.items():
            self._positions.reshape(-1, 2)[i], self._steps.flat[i] = rng.uniform(-0.5, 0.5, 2), 0
        return self._positions.astype("f4")

    def step(self, actions: np.ndarray, active: np.ndarray) -> StepResult:
        if self._disturbance:
            pushes = np.zeros((self.size, 2))
            for i, rng in self._noise.items():
                pushes[i] = rng.normal(0.0, self._disturbance, 2)
            actions = actions + pushes.reshape(self._positions.shape)
        self._positions = self._positions + active[..., None] * np.clip(actions, -REACH, REACH)
        self._steps += active
        rewards, over = -np.square(self._positions - self._goals).sum(-1), self._steps >= self.horizon
        success, never = over & (self.measures()["distance"] < TOLERANCE), np.zeros_like(over)
        return StepResult(self._positions.astype("f4"), rewards, never, over, success, never)

    def expert_action(self) -> np.ndarray:
        """Straight to the goal."""
        return np.clip(self._goals - self._positions, -REACH, REACH)

    def measures(self) -> dict[str, np.ndarray]:
        return {"distance": np.linalg.norm(self._positions - self._goals, axis=-1)}


class PointNavigation(SimulatedFamily):
    """Reach a hidden goal in the unit square, having seen one demonstration from another start.

    Success: at the last step the point is within `TOLERANCE` of the goal.
    """

    name = "point-navigation"
    sizes: Mapping[str, int] = {"train": 100_000, "validation": 10_000, "test": 10_000}
    protocol = "the goal is hidden, the start is drawn anew, success is to end within 0.05 of the goal"
    metric = "success"
    observation_size, action_size, hidden_size, horizon = 2, 2, 2, 20
    observation_limit = 0.5 + REACH * horizon
    observation_unit = 0.25
    disturbance = PUSH / REACH
    method_settings: Mapping[str, Changes] = {
        "demonstrations": {
            "network": {"hidden": (64, 64), "context": 8},
            "training": {"steps": 2000, "validate_every": 500},
        },
        "trials": {"network": {"std": 0.07}},  # of actions that reach from -0.1 to 0.1
    }

    def sample(self, split: str, rng: np.random.Generator) -> Mapping[str, Any]:
        return {"goal": rng.uniform(-0.5, 0.5, 2).tolist()}

    def hidden(self, task: Task) -> np.ndarray:
        return np.asarray(task.parameters["goal"], "f4")

    def vector_env(
        self, tasks: Sequence[Task], episodes_per_task: int, *, demonstrating: bool = False, visual: bool = False
    ) -> PointVectorEnv:
        check_run(tasks, episodes_per_task)
        return PointVectorEnv([self.check(task) for task in tasks], episodes_per_task, self.horizon)

    def make(self, task: Task, render_mode: str | None = None) -> TaskEnv:
        env = TaskEnv(self, task, render_mode)
        env.action_space = spaces.Box(-REACH, REACH, (2,), np.float32)
        return env

    def demonstrate(self, tasks: Sequence[Task], count: int, seed: int) -> list[list[Demonstration]]:
        """The expert walks straight to the goal; it is pushed about a little, and what it wanted is recorded."""
        check_count(count)
        env, everywhere = self.vector_env(tasks, count), np.ones((len(tasks), count), bool)
        observations = env.reset(_generators(tasks, count, seed, 0))
        shape = (self.horizon, count, 2)
        pushes = np.stack([task.generator(seed, 2).normal(0.0, PUSH, shape) for task in tasks], 1)
        seen, done = [], []
        for push in pushes:
            seen.append(observations)
            done.append(env.expert_action())
            observations = env.step(done[-1] + push, everywhere).observations
        x, y = np.stack(seen, 2), np.stack(done, 2)
        return [[Demonstration(x[i, j], y[i, j]) for j in range(count)] for i in range(len(tasks))]

    def _run(
        self, tasks: Sequence[Task], episodes: int, act: Callable[[VectorEnv, np.ndarray], np.ndarray], seed: int
    ) -> dict[str, np.ndarray]:
        env, everywhere = self.vector_env(tasks, episodes), np.ones((len(tasks), episodes), bool)
        observations, total = env.reset(_generators(tasks, episodes, seed, 1)), np.zeros(everywhere.shape)
        for _ in range(self.horizon):
            result = env.step(act(env, observations), everywhere)
            observations, total = result.observations, total + result.rewards
        return {"success": result.success.astype("f8"), "return": total, **env.measures()}

    def caption(self, task: Task) -> str:
        x, y = task.parameters["goal"]
        return f"goal {x:.2f}, {y:.2f}"

    def snapshot(self, task: Task, width: int = 240, height: int = 180) -> np.ndarray:
        """The goal and the expert's way to it."""
        way = self.demonstrate([task], 1, seed=0)[0][0].observations
        return plot(way[:, 0], way[:, 1], (-0.6, 0.6), task.parameters["goal"])


def _generators(tasks: Sequence[Task], episodes: int, seed: int, purpose: int) -> list[np.random.Generator]:
    """One for each episode; those of a task draw from one stream, one after the other."""
    return [rng for task in tasks for rng in [task.generator(seed, purpose)] * episodes]
