"""A made-up family that says where hand, object and goal are observed, for the methods that need to be told."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from quickstudy.demonstration import Demonstration
from quickstudy.task import ObservationLayout, Policy, Task, TaskFamily, check_run


class Carrying(TaskFamily):
    """Go to a hidden spot beside an object, wait there until the gripper has closed, carry the object to a goal.

    Observation: hand, gripper (1 open, 0 closed; it closes by itself at the spot), object, goal. Action: the hand's
    velocity and the gripper's, each of -1..1; a step at full speed is 2 cm.
    """

    name = "carrying"
    sizes: Mapping[str, int] = {"train": 1000, "validation": 1000, "test": 1000}
    protocol = "the spot is hidden"
    metric: ClassVar[str] = "success"
    observation_size, action_size, hidden_size, horizon = 10, 4, 3, 80
    observation_layout = ObservationLayout(slice(0, 3), slice(4, 7), slice(7, 10), slice(3, 4))

    def sample(self, split: str, rng: np.random.Generator) -> Mapping[str, Any]:
        return {"spot": rng.uniform(-0.2, 0.2, 3).tolist()}

    def hidden(self, task: Task) -> np.ndarray:
        return np.array(task.parameters["spot"], "f4")

    def demonstrate(self, tasks: Sequence[Task], count: int, seed: int) -> list[list[Demonstration]]:
        made = []
        for task in tasks:
            shots = []
            for shot in range(count):
                x = self._start(task.generator(1, seed, shot))
                seen, done = [], []
                for _ in range(self.horizon):
                    seen.append(x)
                    done.append(self._expert(task, x))
                    x = self._step(task, x, done[-1])
                shots.append(Demonstration(np.array(seen, "f4"), np.array(done, "f4")))
            made.append(shots)
        return made

    def run(self, tasks: Sequence[Task], episodes: int, policy: Policy, seed: int) -> dict[str, np.ndarray]:
        check_run(tasks, episodes)
        x = np.array([[self._start(task.generator(0, seed, i)) for i in range(episodes)] for task in tasks])
        for _ in range(2 * self.horizon):
            actions = policy(x.astype("f4"))
            for i, task in enumerate(tasks):
                x[i] = [self._step(task, *pair) for pair in zip(x[i], actions[i], strict=True)]
        return {"success": (np.linalg.norm(x[..., 4:7] - x[..., 7:10], axis=-1) < 0.05).astype(float)}

    @staticmethod
    def _start(rng: np.random.Generator) -> np.ndarray:
        hand, thing, goal = rng.uniform(-0.3, 0.3, (3, 3))
        return np.concatenate([hand, [1.0], thing, goal])

    @staticmethod
    def _expert(task: Task, x: np.ndarray) -> np.ndarray:
        spot = np.array(task.parameters["spot"])
        target = x[4:7] + spot if x[3] > 0 else x[7:10] + spot
        return np.append(np.clip(25.0 * (target - x[:3]), -1.0, 1.0), 0.0)

    @staticmethod
    def _step(task: Task, x: np.ndarray, action: np.ndarray) -> np.ndarray:
        hand, x = x[:3] + 0.02 * np.clip(action[:3], -1.0, 1.0), x.copy()
        if x[3] == 0.0:
            x[4:7] += hand - x[:3]
        x[:3] = hand
        if np.linalg.norm(x[4:7] + np.array(task.parameters["spot"]) - hand) < 0.03:
            x[3] = max(0.0, x[3] - 0.2)
        return x
