"""Half-cheetah by trial: run in the wanted direction, or at the wanted speed (Finn, Abbeel, Levine 2017, section 5.3).

The robot, its 17 observations and its resets are those of Gymnasium's HalfCheetah-v5 (its XML, frame skip 5, dt 0.05),
stepped many at once by MuJoCo's own thread pool; a test compares both step by step. Rewards are those of the paper's
code: direction times speed, or minus the distance to the wanted speed, less 0.05 times the squared action.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quickstudy.families.base import FamilyRecord, SimulatedFamily
from quickstudy.settings import Changes
from quickstudy.simulation.vector_env import SimulatedVectorEnv, StepResult, VectorEnv
from quickstudy.task import Task, check_run

_FRAME_SKIP, _NOISE, _CONTROL_COST = 5, 0.1, 0.05


class CheetahEnv(SimulatedVectorEnv):
    """Half-cheetahs with one model.

    Args:
        wanted: [task], direction -1 or 1, or speed in m/s.
        speeds: whether `wanted` are speeds.
    """

    action_size = 6

    def __init__(
        self, tasks: Sequence[Task], episodes_per_task: int, horizon: int, wanted: np.ndarray, speeds: bool
    ) -> None:
        import gymnasium.envs.mujoco  # here, so that families can be listed without MuJoCo
        import mujoco
        from mujoco import rollout

        super().__init__(tasks, episodes_per_task, horizon)
        path = Path(gymnasium.envs.mujoco.__path__[0]) / "assets/half_cheetah.xml"
        self._model = mujoco.MjModel.from_xml_path(str(path))
        self._wanted, self._speeds = wanted[:, None], speeds
        # Its own loop over substeps: the model is so light that Python between them would cost as much as the physics.
        threads = os.cpu_count() or 1
        self._pool = rollout.Rollout(nthread=threads)
        self._data = [mujoco.MjData(self._model) for _ in range(threads)]
        self._state = np.zeros((self.size, 1 + self._model.nq + self._model.nv))
        self._position, self._velocity = np.split(self._state[:, 1:], [self._model.nq], axis=1)

    def _begin(self, chosen: np.ndarray, generators: Sequence[np.random.Generator], disturbance: float) -> None:
        for i, rng in zip(chosen, generators, strict=True):
            self._position[i] = self._model.qpos0 + rng.uniform(-_NOISE, _NOISE, self._model.nq)
            self._velocity[i] = _NOISE * rng.standard_normal(self._model.nv)

    def reset_all(self, rng: np.random.Generator) -> np.ndarray:
        """As `reset`, but one generator draws for all at once."""
        self._position[:] = self._model.qpos0 + rng.uniform(-_NOISE, _NOISE, self._position.shape)
        self._velocity[:] = _NOISE * rng.standard_normal(self._velocity.shape)
        self.steps[:] = 0
        return self._observe()

    def step(self, actions: np.ndarray, active: np.ndarray) -> StepResult:
        controls = np.clip(actions, -1.0, 1.0)
        held = controls.reshape(self.size, 1, -1).repeat(_FRAME_SKIP, 1)
        states, _ = self._pool.rollout(self._model, self._data, self._state, held)
        speed = (states[:, -1, 1] - self._state[:, 1]) / (_FRAME_SKIP * self._model.opt.timestep)
        self._state[:] = np.where(active.reshape(-1, 1), states[:, -1], self._state)
        speed = speed.reshape(self.shape)
        gain = -np.abs(speed - self._wanted) if self._speeds else speed * self._wanted
        rewards = gain - _CONTROL_COST * np.square(controls).sum(-1)
        success = np.abs(speed - self._wanted) < 0.2 if self._speeds else speed * self._wanted > 0.5
        return self._after_step(active, rewards, success)

    def render(self, index: int, width: int | None = None, height: int | None = None) -> np.ndarray:
        import mujoco

        from quickstudy.simulation.rendering import frame

        mujoco.mj_setState(self._model, self._data[0], self._state[index], mujoco.mjtState.mjSTATE_FULLPHYSICS)
        mujoco.mj_forward(self._model, self._data[0])
        return frame(self._model, self._data[0], camera="track", width=width or 480, height=height or 360)

    def close(self) -> None:
        self._pool.close()

    def _observe(self) -> np.ndarray:
        return self._state[:, 2:].reshape(*self.shape, -1).copy()


class Cheetah(SimulatedFamily):
    """What both families of half-cheetahs have in common."""

    sizes: Mapping[str, int] = {"train": 10**6, "validation": 10_000, "test": 10_000}
    metric = "return"
    has_expert = False
    default_method = "maml-trpo"
    observation_size, action_size, hidden_size, horizon = 17, 6, 1, 200
    observation_unit = (1.0,) * 8 + (5.0,) * 9  # angles, then velocities
    rate = 20.0
    key: str
    speeds: bool

    def hidden(self, task: Task) -> np.ndarray:
        return np.array([task.parameters[self.key]], "f4")

    def vector_env(
        self, tasks: Sequence[Task], episodes_per_task: int, *, demonstrating: bool = False, visual: bool = False
    ) -> VectorEnv:
        check_run(tasks, episodes_per_task)
        wanted = np.array([self.check(task).parameters[self.key] for task in tasks])
        return CheetahEnv(tasks, episodes_per_task, self.horizon, wanted, self.speeds)

    def caption(self, task: Task) -> str:
        return f"{self.key} {task.parameters[self.key]:.1f}"


class CheetahDirection(Cheetah):
    """Run forwards or backwards. There are two tasks, so every split has both, as in the paper: none is held out.

    They take turns, so that neither a meta-batch nor an evaluation has more of one than of the other.
    """

    name = "cheetah-direction"
    protocol = (
        "the wanted direction is hidden, training has both, an episode has 200 steps; success is to go that way at "
        "0.5 m/s at its end"
    )
    holds_out_tasks = False
    key, speeds = "direction", False
    # To turn a gait round takes a long step of adaptation. Without credit for sampling the return rose to 380, then
    # fell.
    method_settings: Mapping[str, Changes] = {
        "maml-trpo": {
            "training": {"steps": 1400, "meta_batch": 8, "validate_every": 50},
            "algorithm": {"inner_rate": 0.5, "estimator": "lvc", "trpo": {"max_kl": 0.03}},
        }
    }

    def task(self, split: str, index: int) -> Task:
        return Task(self.name, split, index, {self.key: 1.0 if index % 2 else -1.0})

    def sample(self, split: str, rng: np.random.Generator) -> Mapping[str, Any]:
        return {self.key: float(rng.choice([-1.0, 1.0]))}


class CheetahVelocity(Cheetah):
    """Run at a speed between 0 and 2 m/s."""

    name = "cheetah-velocity"
    protocol = "the wanted speed is hidden, an episode has 200 steps; success is to be within 0.2 m/s of it at its end"
    key, speeds = "velocity", True

    def sample(self, split: str, rng: np.random.Generator) -> Mapping[str, Any]:
        return {self.key: float(rng.uniform(0.0, 2.0))}


FAMILIES = (
    FamilyRecord(
        "cheetah-direction", "run forwards or backwards, as the reward has it (Finn et al. 2017)", CheetahDirection
    ),
    FamilyRecord("cheetah-velocity", "run at a hidden speed, by reward (Finn et al. 2017)", CheetahVelocity),
)
