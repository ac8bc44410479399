"""A family of one's own: a rod of hidden mass, to be held at an angle. Learned from demonstrations and by trial.

Whoever does not know the mass pushes too hard or too little, and the rod comes to rest elsewhere. One demonstration
tells the mass; so do the rewards of a trial.

    cd examples
    quickstudy check pendulum:Pendulum
    quickstudy train pendulum:Pendulum --method cavia:CAVIA --inner-steps 3     # from demonstrations
    quickstudy train pendulum:Pendulum --method rl2-dagger                      # by trial
    quickstudy compare pendulum:Pendulum --methods maml nearest no-adaptation --seeds 1 --tasks 20
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from quickstudy.families.base import SimulatedFamily
from quickstudy.settings import Changes
from quickstudy.simulation.vector_env import StepResult, VectorEnv, as_indices
from quickstudy.task import Task

GOAL, TOLERANCE = 1.0, 0.04
"""The wanted angle from hanging down, and how near counts as success, in radians."""
TORQUE, GRAVITY, FRICTION, DT = 20.0, 9.81, 2.0, 0.05
"""Newton metres of a full action; the rod is one metre long and its mass is at its end."""
STIFFNESS, DAMPING = 18.0, 5.0
"""Of the expert."""


class PendulumEnv(VectorEnv):
    """Rods of many tasks as one array, stepped by NumPy."""

    horizon, action_size = 60, 1

    def __init__(self, tasks: Sequence[Task], episodes_per_task: int) -> None:
        self.tasks, self.episodes_per_task = list(tasks), episodes_per_task
        self._mass = np.repeat([task.parameters["mass"] for task in tasks], episodes_per_task)
        self._angle, self._speed = np.zeros(self.size), np.zeros(self.size)
        self._steps, self._noise = np.zeros(self.size, int), np.zeros((self.size, self.horizon))

    def reset(
        self, generators: Sequence[np.random.Generator], chosen: np.ndarray | None = None, disturbance: float = 0.0
    ) -> np.ndarray:
        for i, rng in zip(as_indices(chosen, self.size), generators, strict=True):
            self._angle[i], self._speed[i] = rng.uniform(-0.5, 0.5), rng.uniform(-1.0, 1.0)
            self._noise[i] = disturbance * rng.normal(size=self.horizon)
            self._steps[i] = 0
        return self._observe()

    def step(self, actions: np.ndarray, active: np.ndarray) -> StepResult:
        now = active.ravel()
        pushed = actions.reshape(self.size) + self._noise[np.arange(self.size), np.minimum(self._steps, 59)]
        torque = TORQUE * np.clip(pushed, -1.0, 1.0)
        weight = self._mass * GRAVITY * np.sin(self._angle)
        speed = self._speed + DT * (torque - weight - FRICTION * self._speed) / self._mass
        self._angle = np.where(now, self._angle + DT * speed, self._angle)
        self._speed = np.where(now, speed, self._speed)
        self._steps += now
        away = np.abs(self._angle - GOAL)
        over = self._steps >= self.horizon
        success = over & (away < TOLERANCE) & (np.abs(self._speed) < 0.2)
        flags = [flag.reshape(self.shape) for flag in (over & False, over, success, over & False)]
        return StepResult(self._observe(), -away.reshape(self.shape), *flags)

    def expert_action(self) -> np.ndarray:
        """Carries the weight, which it knows, and adds what brings the rod to its goal."""
        weight = self._mass * GRAVITY * np.sin(self._angle)
        wanted = weight + self._mass * (STIFFNESS * (GOAL - self._angle) - DAMPING * self._speed)
        return np.clip(wanted / TORQUE, -1.0, 1.0).reshape(*self.shape, 1)

    def _observe(self) -> np.ndarray:
        seen = np.stack([np.sin(self._angle), np.cos(self._angle), self._speed / 5.0], -1)
        return seen.reshape(*self.shape, -1).astype("f4")


class Pendulum(SimulatedFamily):
    """Each task is a mass; those of the test split 'heavy' are heavier than any in training."""

    name = "pendulum"
    sizes: Mapping[str, int] = {"train": 100_000, "validation": 1000, "test": 1000, "heavy": 1000}
    protocol = "the mass is hidden, the start is drawn anew, success is to rest within 0.04 rad of the goal"
    metric = "success"
    observation_size, action_size, hidden_size, horizon = 3, 1, 1, 60
    rate = 1 / DT
    disturbance = 0.05
    method_settings: Mapping[str, Changes] = {
        "demonstrations": {"network": {"hidden": (64, 64)}, "training": {"steps": 1000, "validate_every": 250}},
        "trials": {"training": {"steps": 60, "episodes_per_task": 4, "validate_every": 20}},
    }

    def sample(self, split: str, rng: np.random.Generator) -> Mapping[str, Any]:
        low, high = (1.4, 1.6) if split == "heavy" else (0.5, 1.4)
        return {"mass": float(rng.uniform(low, high))}

    def hidden(self, task: Task) -> np.ndarray:
        return np.array([task.parameters["mass"] - 1.0], "f4")

    def vector_env(
        self, tasks: Sequence[Task], episodes_per_task: int, *, demonstrating: bool = False, visual: bool = False
    ) -> VectorEnv:
        return PendulumEnv([self.check(task) for task in tasks], episodes_per_task)

    def caption(self, task: Task) -> str:
        return f"{task.parameters['mass']:.2f} kg"
