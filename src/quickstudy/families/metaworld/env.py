"""The vector environment of Meta-World: what a task hides and draws, on the batched simulation of `worlds`."""

from collections.abc import Mapping, Sequence
from typing import Any

import mujoco
import numpy as np

from quickstudy.families.metaworld import official
from quickstudy.families.metaworld.catalogue import TASKS
from quickstudy.families.metaworld.port import Tool
from quickstudy.families.metaworld.worlds import ACTION, OBSERVATION, PORTS, MetaWorlds
from quickstudy.simulation.vector_env import SimulatedVectorEnv, StepResult, pushes
from quickstudy.task import Task

GOAL = slice(36, 39)
"""Where the goal is in an observation."""
FINGER_TIPS = 0.045
"""Metres from the hand down to the finger tips."""


class MetaWorldEnv(SimulatedVectorEnv):
    """Meta-World's tasks with v2 rewards; an environment whose physics became unstable is broken until its reset.

    The parameters of a task are its name in Meta-World ('task') and either the 'vector' that all its episodes begin
    with, or the 'goal' that they share (None if that is drawn anew too); perhaps the 'length' and 'width' of its tool,
    and the 'order' of the numbers in an observation.

    Args:
        horizon: steps of an episode here, each of which is `repeat` of Meta-World's.
        goal_visible: if not, the goal's three numbers are zero in every observation.
        noise: standard deviation of the noise on every action, of its range of -1..1.
        repeat: for how many of Meta-World's steps an action is held; they count as one step with their mean reward,
            which succeeds where any of them does.
        tail: an episode is a demonstration: it goes on for so many steps after its first success, which stays a
            success. None: it goes on to the horizon.
        threads: that step the simulation; by default one for each core. Results do not depend on it.
    """

    action_size = ACTION

    def __init__(
        self,
        tasks: Sequence[Task],
        episodes_per_task: int,
        horizon: int,
        *,
        goal_visible: bool = False,
        noise: float = 0.0,
        repeat: int = 1,
        tail: int | None = None,
        threads: int | None = None,
    ) -> None:
        super().__init__(tasks, episodes_per_task, horizon)
        self._goal_visible, self._noise_strength, self._repeat, self._tail = goal_visible, noise, repeat, tail
        self._parameters = [task.parameters for task in self.tasks for _ in range(episodes_per_task)]
        first = self._parameters[0]
        tools = [Tool(p["length"], p["width"]) for p in self._parameters] if "length" in first else None
        self._names = np.array([p["task"] for p in self._parameters])
        self._order = np.array([p["order"] for p in self._parameters]) if "order" in first else None
        self._shift = np.array([_shift(p, corrected=tail is None) for p in self._parameters])
        self._sims = MetaWorlds(self._names.tolist(), threads, tools)
        self.noise = np.zeros((self.size, horizon, ACTION))
        self._steps_after_success = np.zeros(self.shape, int)
        self.observations = np.zeros((*self.shape, OBSERVATION), np.float32)
        self._running, self._succeeded = np.zeros(self.shape, bool), np.zeros(self.shape, bool)

    def _begin(self, chosen: np.ndarray, generators: Sequence[np.random.Generator], disturbance: float) -> None:
        vectors = []
        for i, rng in zip(chosen, generators, strict=True):
            vectors.append(_vector(self._parameters[i], rng))
            if self._noise_strength or disturbance:
                self.noise[i] = self._noise_strength * rng.normal(size=self.noise[i].shape)
            if disturbance:
                # Not of the gripper: to let go of an object is no disturbance that an expert recovers from.
                self.noise[i, :, :3] += pushes(rng, disturbance, (self.horizon, 3), (2, 60), width=3, push=6.0)
        self._steps_after_success.flat[chosen], self._succeeded.flat[chosen] = 0, False
        self._running.flat[chosen] = True
        self._sims.reset(vectors, chosen)

    def step(self, actions: np.ndarray, active: np.ndarray) -> StepResult:
        noisy, chosen = self._noisy(actions), None if active.all() else np.flatnonzero(active)
        rewards, success = np.zeros(self.shape), np.zeros(self.shape, bool)
        for _ in range(self._repeat):
            self._sims.step(noisy, chosen)
            rewards += self._sims.reward.reshape(self.shape) / self._repeat
            success |= self._sims.success.reshape(self.shape)
        broken, terminated = active & ~self._sound().reshape(self.shape), None
        self.faults += int(broken.sum())
        if self._tail is not None:
            self._steps_after_success += active & self._succeeded
            self._succeeded |= active & success & ~broken
            success = self._succeeded.copy()
            terminated = self._succeeded & (self._steps_after_success >= self._tail)
        result = self._after_step(active, rewards, success, terminated, broken)
        self._running = active & ~result.over
        return result

    def expert_action(self) -> np.ndarray:
        """The package's experts, who see the goal; NaN where an episode is over.

        Two corrections: with a tool of another length the hand seems to be elsewhere, so that an expert that knows
        Meta-World's own tool uses this one. And, but for demonstrations, the expert of reaching brings the finger tips
        to the goal and not the hand: reaching is judged by the finger tips, which with the hand at the goal are 4.4 cm
        from it where 5 are allowed, so that a learner that does almost the same fails.
        """
        running = self._running.ravel()
        actions = np.full((self.size, ACTION), np.nan, np.float32)
        seen = self._sims.observations + self._shift
        for name in set(self._names[running].tolist()):
            here = np.flatnonzero(running & (self._names == name))
            actions[here] = official.expert(name)(seen[here])
        return actions.reshape(*self.shape, ACTION)

    def render(self, index: int, width: int | None = None, height: int | None = None) -> np.ndarray:
        from quickstudy.simulation.rendering import frame

        camera = mujoco.MjvCamera()
        camera.lookat[:], camera.distance, camera.azimuth, camera.elevation = [0.0, 0.65, 0.12], 1.25, 55.0, -30.0
        return frame(*self._sims.picture(index), camera=camera, width=width or 480, height=height or 360)

    def close(self) -> None:
        self._sims.close()

    def _sound(self) -> np.ndarray:
        """Whether what is observed is finite, [env]."""
        return np.asarray(np.isfinite(self._sims.observations.astype(np.float32)).all(1))

    def _observe(self) -> np.ndarray:
        """What is observed; of an environment that is broken, what was."""
        seen = self._sims.observations.astype(np.float32)
        if not self._goal_visible:
            seen[:, GOAL] = 0.0
        if self._order is not None:
            seen = np.take_along_axis(seen, self._order, axis=1)
        return np.where(self._sound()[:, None], seen, self.observations.reshape(seen.shape)).reshape(*self.shape, -1)


def _vector(parameters: Mapping[str, Any], rng: np.random.Generator) -> np.ndarray:
    """The random vector of an episode: the task's own, or drawn, with the task's goal if it has one."""
    if "vector" in parameters:
        return np.array(parameters["vector"])
    goal = parameters["goal"]
    return TASKS[parameters["task"]].vector(rng, None if goal is None else np.array(goal))


def _shift(parameters: Mapping[str, Any], corrected: bool) -> np.ndarray:
    """What is added to an observation before an expert sees it, [39]; see `MetaWorldEnv.expert_action`."""
    shift, name = np.zeros(OBSERVATION), parameters["task"]
    if "length" in parameters:
        shift[0] = shift[4] = PORTS[name].tool_length * (parameters["length"] - 1.0)
    if corrected and name == "reach-v3":
        shift[2] = -FINGER_TIPS
    return shift
