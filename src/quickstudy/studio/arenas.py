"""The arenas of all families that the studio has, among them Meta-World's and that of grasping by tries."""

from collections.abc import Mapping, Sequence
from typing import Any

import mujoco
import numpy as np

from quickstudy.errors import QuickstudyError
from quickstudy.families.base import SimulatedFamily
from quickstudy.families.grasping.tries import TriesEnv
from quickstudy.families.metaworld.env import MetaWorldEnv
from quickstudy.simulation.vector_env import StepResult
from quickstudy.studio.arena import LEARNER, Arena, GraspingArena, Handle, NavigationArena, Said
from quickstudy.task import Task

_GAIN = 10.0
"""Of Meta-World's actions: full speed towards what is 10 cm away, as its experts have it."""


class ManipulationArena(Arena):
    """Meta-World's arm and what it works on; a try ends with its success."""

    name, grips, turns, speed, show_speed, apart = "manipulation", True, False, 0.6, 0.4, (1.3, 0.0, 0.0)
    eye, centre, handle_size, label_at = (0.75, 1.55, 0.85), (0.0, 0.62, 0.12), 0.2, (0.0, 0.6, 0.75)
    wide_eye, wide_centre = (0.95, 2.2, 1.1), (0.6, 0.6, 0.1)
    env: MetaWorldEnv

    def __init__(self, family: SimulatedFamily, task: Task) -> None:
        super().__init__(family, task)
        self._done, self._demonstrating = np.zeros(2, bool), False
        goal = task.parameters.get("goal")
        self.mark = None if goal is None else np.array(goal)

    @property
    def model(self) -> mujoco.MjModel:
        found: mujoco.MjModel = self.env._sims.picture(LEARNER)[0]
        return found

    def reset(self, seed: Sequence[int], demonstrating: bool = False, disturbance: float = 0.0) -> np.ndarray:
        self.env._tail = getattr(self.family, "tail", 0) if demonstrating else None
        self._done[:], self._demonstrating = False, demonstrating
        return super().reset(seed, demonstrating, disturbance)

    def step(self, actions: np.ndarray, active: np.ndarray) -> StepResult:
        result = super().step(actions, active)
        self._done |= result.success[0] & active
        return result if self._demonstrating else result._replace(terminated=result.terminated | self._done[None])

    def success(self, robot: int) -> bool:
        return bool(self._done[robot])

    def poses(self) -> tuple[np.ndarray, np.ndarray]:
        every = [self.env._sims.picture(robot)[1] for robot in range(2)]
        return np.stack([data.xpos for data in every]), np.stack([data.xquat for data in every])

    def handle(self) -> Handle:
        return Handle(self.observations[LEARNER, :3].astype(float))

    def follow(self, handle: Handle) -> np.ndarray:
        way = _GAIN * (handle.place - self.observations[LEARNER, :3])
        return np.array([*np.clip(way, -1.0, 1.0), handle.grip], dtype=np.float32)

    def limits(self) -> tuple[tuple[float, float], ...]:
        return ((-0.45, 0.45), (0.42, 0.92), (0.05, 0.45))

    def shown_at(self, observations: np.ndarray) -> np.ndarray:
        return np.asarray(observations[:, :3], float)

    def faults(self, success: bool, observations: np.ndarray, actions: np.ndarray) -> list[Said]:
        found: list[Said] = [] if success else [("not_done", {})]
        changes = int((np.diff(np.sign(actions[:, 3])) != 0).sum())
        return [*found, ("gripper_twice", {"times": changes})] if changes > 1 else found

    @staticmethod
    def sliders() -> Mapping[str, tuple[float, float, float, float]]:
        return {}

    @staticmethod
    def kinds() -> tuple[str, ...]:
        return ()

    @staticmethod
    def made(kind: str, values: Mapping[str, float], rng: np.random.Generator) -> Mapping[str, Any]:
        raise QuickstudyError("There is nothing to choose in tasks of this family.")


class TriesArena(GraspingArena):
    """Objects that are grasped by trial: a step is a whole try, whose motion is kept to be shown."""

    speed = 1.5
    env: TriesEnv  # type: ignore[assignment]

    def __init__(self, family: SimulatedFamily, task: Task) -> None:
        self.family, self.task = family, task
        self._way: list[tuple[np.ndarray, np.ndarray]] = []
        self.env = TriesEnv([family.check(task)], 2, visual=True, watch=lambda: self._way.append(self.poses()))

    @property
    def model(self) -> mujoco.MjModel:
        found: mujoco.MjModel = self.env._env.worlds.models[LEARNER]
        return found

    def step(self, actions: np.ndarray, active: np.ndarray) -> StepResult:
        self._way.clear()
        return super().step(actions, active)

    def passed(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return self._way or [self.poses()]

    def poses(self) -> tuple[np.ndarray, np.ndarray]:
        data = self.env._env.worlds.data
        return np.stack([d.xpos for d in data]), np.stack([d.xquat for d in data])

    def success(self, robot: int) -> bool:
        return bool(self.env._env.success[robot])

    def handle(self) -> Handle:
        return Handle(np.zeros(3))


ARENAS: Mapping[str, type[Arena]] = {
    "grasping": GraspingArena,
    "navigation": NavigationArena,
    "ml1-pick-place": ManipulationArena,
    "ml1-push": ManipulationArena,
    "ml1-reach": ManipulationArena,
    "grasping-tries": TriesArena,
}
"""By the name of the family."""
