"""A vector environment around another one, which changes or watches a part of what passes through."""

from typing import Any

import numpy as np

from quickstudy.simulation.vector_env import StepResult, VectorEnv


class VectorWrapper(VectorEnv):
    """Passes everything on to `env`, its count of faults too; a subclass overrides what it changes."""

    def __init__(self, env: VectorEnv) -> None:
        self.env = env
        self.tasks, self.episodes_per_task, self.horizon = env.tasks, env.episodes_per_task, env.horizon
        self.action_size = env.action_size

    @property
    def faults(self) -> int:
        return self.env.faults

    @faults.setter
    def faults(self, count: int) -> None:
        self.env.faults = count

    def reset(self, *args: Any, **kwargs: Any) -> np.ndarray:
        return self.env.reset(*args, **kwargs)

    def step(self, actions: np.ndarray, active: np.ndarray) -> StepResult:
        return self.env.step(actions, active)

    def expert_action(self) -> np.ndarray:
        return self.env.expert_action()

    def measures(self) -> dict[str, np.ndarray]:
        return self.env.measures()

    def render(self, *args: Any, **kwargs: Any) -> np.ndarray:
        return self.env.render(*args, **kwargs)

    def close(self) -> None:
        self.env.close()
