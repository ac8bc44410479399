"""The vector environment of grasping: how an action moves the hand, what is observed, and what counts as success."""

from collections.abc import Sequence

import mujoco
import numpy as np

from quickstudy.families.grasping import scene
from quickstudy.families.grasping.arm import TABLE_CENTRE, Arm
from quickstudy.families.grasping.expert import expert
from quickstudy.families.grasping.sawyer import SAWYER
from quickstudy.families.grasping.scene import SENSORS, rotate, wrapped
from quickstudy.families.grasping.spaces import (
    ACTION,
    ACTION_NOISE,
    HORIZON,
    MAX_STEP,
    MAX_TURN,
    OBSERVATION_LIMIT,
    OBSERVATION_SCALE,
    SUBSTEPS,
    hidden,
)
from quickstudy.simulation.vector_env import StepResult, VectorEnv, as_indices
from quickstudy.simulation.worlds import Worlds
from quickstudy.task import Task

LIFT = 0.10  # metres: lifted
KEEP = 0.09  # metres: below this a lifted object counts as dropped
SLIP = 0.02  # metres that a lifted object may move in the hand
TILT = 0.4  # radians that a lifted object may lean: one that was taken far from its middle turns in the fingers
HOLD_STEPS = 20  # one second

_TOUCH_FORCE = 10.0  # newton that count as a firm touch
_REACH_LOW = TABLE_CENTRE + [-0.18, -0.18, 0.002]  # of the finger tips; all else is of the tool
_REACH_HIGH = TABLE_CENTRE + [0.18, 0.18, 0.32]
_YAW_REACH = 1.6
_LEAD, _LEAD_YAW = 0.05, 0.4
"""How far the commanded pose may run ahead of the hand: a hand that is blocked builds up no more force than this."""


class GraspingVectorEnv(VectorEnv):
    """Arms with an object each; the arrays of its attributes are flat, [env, ...].

    The reward is 1 in the step that completes a grasp and 0 elsewhere. An episode terminates with success, or when a
    lifted object is lost.

    Args:
        threads: that step the worlds; by default one for each core. Results do not depend on it.
        visual: with all that a picture needs; the dynamics are the same.

    Attributes:
        worlds: one for each environment.
        target, target_yaw: the commanded pose of the tool, metres and radians.
        start_height: of the tag when the episode began, metres.
        noise: of the actions, [env, step, act].
        lifted, slipped, success: whether the object was ever 10 cm up, lost after that, held for a second.
    """

    action_size, horizon = len(ACTION), HORIZON

    def __init__(
        self,
        tasks: Sequence[Task],
        episodes_per_task: int,
        arm: Arm = SAWYER,
        threads: int | None = None,
        visual: bool = False,
    ) -> None:
        self.tasks, self.episodes_per_task, self.arm = list(tasks), episodes_per_task, arm
        models = [model for task in tasks for model in [scene.build(task, visual, arm)] * episodes_per_task]
        self.worlds = Worlds(models, reads=("sensordata",), threads=threads)
        self._hidden = np.stack([hidden(task.parameters) for task in tasks])[:, None]
        self._object = [int(model.joint("object").qposadr[0]) for model in models]
        n = self.size
        self.target, self.target_yaw, self.grip = np.zeros((n, 3)), np.zeros(n), np.zeros(n)
        self.start_height, self.start_centre, self.held_at = np.zeros(n), np.zeros(n), np.zeros((n, 3))
        self.noise = np.zeros((n, HORIZON, len(ACTION)))
        self.steps, self.held = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        self.lifted, self.slipped, self.success = (np.zeros(n, dtype=bool) for _ in range(3))

    def reset(
        self,
        generators: Sequence[np.random.Generator],
        chosen: np.ndarray | None = None,
        disturbance: float = 0.0,
    ) -> np.ndarray:
        chosen = as_indices(chosen, self.size)
        tags = np.zeros((self.size, 3))
        for i, rng in zip(chosen, generators, strict=True):
            tags[i] = rng.uniform([-0.08, -0.08, -0.6], [0.08, 0.08, 0.6])
            self.target[i] = TABLE_CENTRE + rng.uniform([-0.06, -0.06, 0.12], [0.06, 0.06, 0.20])
            self.target_yaw[i] = rng.uniform(-0.3, 0.3)
            self.noise[i] = ACTION_NOISE * rng.normal(size=self.noise[i].shape)
            if disturbance:
                self.noise[i] += _disturb(rng, disturbance)

        def place(index: int, model: mujoco.MjModel, data: mujoco.MjData) -> None:
            mujoco.mj_resetData(model, data)
            adr, pose = self._object[index], scene.object_pose(model, tags[index])
            data.qpos[adr : adr + 7] = pose
            self.place_hand(index, model, data)
            data.ctrl[:] = self.arm.control(-np.ones(1))[0]

        self.worlds.each(place, chosen)
        self.grip[chosen] = -1.0
        self.start_height[chosen] = self.read("tag")[chosen, 2]
        self.start_centre[chosen] = self.read("centre")[chosen, 2]
        for array in (self.steps, self.held, self.lifted, self.slipped, self.success):
            array[chosen] = 0
        return self._look()

    def step(self, actions: np.ndarray, active: np.ndarray) -> StepResult:
        now = np.flatnonzero(active)
        noise = self.noise[np.arange(self.size), np.minimum(self.steps, HORIZON - 1)]
        noisy = np.clip(np.clip(actions.reshape(self.size, -1), -1.0, 1.0) + noise, -1.0, 1.0)
        self._move_target(noisy, now)
        self.grip[now] = noisy[now, 4]
        # The command saturates early, so that a half-hearted "close" still holds.
        force = np.clip(3.0 * self.grip, -1.0, 1.0)
        place, turn = self.arm.mocap(self.target, self.target_yaw)
        carrier = {"mocap_pos": place[:, None], "mocap_quat": turn[:, None]}
        self.worlds.step({"ctrl": self.arm.control(force), **carrier}, SUBSTEPS, now)
        self._judge(now)
        success, slipped = self.success.reshape(self.shape).copy(), self.slipped.reshape(self.shape)
        terminated, out_of_time = success | slipped, (self.steps >= HORIZON).reshape(self.shape)
        rewards = (success & active).astype(np.float64)
        return StepResult(
            self._look(), rewards, terminated, out_of_time & ~terminated, success, np.zeros(self.shape, bool)
        )

    def expert_action(self) -> np.ndarray:
        return expert(self._observations, self._hidden)

    def measures(self) -> dict[str, np.ndarray]:
        """'lifted', whether the object was ever 10 cm up; 'slipped', whether it was lost after that."""
        ends = {"lifted": self.lifted, "slipped": self.slipped}
        return {name: flags.reshape(self.shape).astype(np.float64) for name, flags in ends.items()}

    def render(
        self, index: int, width: int | None = None, height: int | None = None, camera: str = "film"
    ) -> np.ndarray:
        from quickstudy.simulation.rendering import frame

        return frame(self.worlds.models[index], self.worlds.data[index], camera, width or 480, height or 360)

    def close(self) -> None:
        self.worlds.close()

    def place_hand(self, index: int, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Puts the hand of a world where its target is."""
        target, yaw = self.target[index], self.target_yaw[index]
        self.arm.place_hand(model, data, target, yaw)
        data.mocap_pos[0], data.mocap_quat[0] = self.arm.mocap(target, yaw)

    def observe(self) -> np.ndarray:
        """Observations [env, obs], float32, see `OBSERVATION`."""
        tag, tool, fingers = self.read("tag"), self.read("tool"), self.read("fingers")
        tag_yaw = self.tag_yaw()
        place = tool - tag
        place[:, :2] = rotate(place[:, :2], -tag_yaw)
        yaw = wrapped(self._hand_yaw() - tag_yaw)
        opening, speed = self.arm.opening(fingers, self.read("finger_speeds"))
        touch = np.tanh(self.read("pads").min(axis=1) / _TOUCH_FORCE)
        lift = tag[:, 2] - self.start_height
        raw = np.column_stack([place, yaw, opening, speed, touch, lift, self.grip])
        return np.clip(raw / OBSERVATION_SCALE, -OBSERVATION_LIMIT, OBSERVATION_LIMIT).astype(np.float32)

    def read(self, name: str) -> np.ndarray:
        """What a sensor says in every world, [env, ...], see `scene.SENSORS`."""
        return self.worlds.readings["sensordata"][:, SENSORS[name]]

    def tag_yaw(self) -> np.ndarray:
        """How the tags are turned about the vertical, [env] radians."""
        axis = self.read("tag_x")
        return np.arctan2(axis[:, 1], axis[:, 0])

    def _look(self) -> np.ndarray:
        self._observations = self.observe().reshape(*self.shape, -1)
        return self._observations

    def _hand_yaw(self) -> np.ndarray:
        axis = self.read("hand_y")
        return np.arctan2(-axis[:, 0], axis[:, 1])

    def _move_target(self, actions: np.ndarray, now: np.ndarray) -> None:
        step = actions[now, :3] * MAX_STEP
        step[:, :2] = rotate(step[:, :2], self.tag_yaw()[now])
        tool, yaw = self.read("tool")[now], self._hand_yaw()[now]
        target = np.clip(self.target[now] + step, tool - _LEAD, tool + _LEAD)
        opening, _ = self.arm.opening(self.read("fingers"), self.read("finger_speeds"))
        low = np.tile(_REACH_LOW, (len(now), 1))
        low[:, 2] += self.arm.tips(opening[now])
        self.target[now] = np.clip(target, low, _REACH_HIGH)
        turned = np.clip(self.target_yaw[now] + actions[now, 3] * MAX_TURN, yaw - _LEAD_YAW, yaw + _LEAD_YAW)
        self.target_yaw[now] = np.clip(turned, -_YAW_REACH, _YAW_REACH)

    def _judge(self, now: np.ndarray) -> None:
        """Counts the step, and notes whether the object was lifted, lost, or held for long enough."""
        lift = (self.read("centre")[:, 2] - self.start_centre)[now]
        in_hand = self.read("object_in_hand")[now]
        self.steps[now] += 1
        first = now[(lift >= LIFT) & ~self.lifted[now]]
        self.held_at[first] = self.read("object_in_hand")[first]
        self.held[now] += self.lifted[now]
        self.lifted[first] = True
        moved = np.linalg.norm(in_hand - self.held_at[now], axis=1) > SLIP
        lost = (lift < KEEP) | moved | (self.read("object_z")[now, 2] < np.cos(TILT))
        self.slipped[now] = self.lifted[now] & lost
        self.success[now] = self.lifted[now] & ~lost & (self.held[now] >= HOLD_STEPS)


def _disturb(rng: np.random.Generator, strength: float) -> np.ndarray:
    """Noise [step, act] that pushes an expert off its way: small at every step, and one large push of a few steps."""
    noise = strength * rng.normal(size=(HORIZON, len(ACTION)))
    start, length = rng.integers(2, 45), rng.integers(2, 6)
    push = rng.normal(size=4)
    noise[start : start + length, :4] += 6.0 * strength * push / np.linalg.norm(push)
    return noise
