"""The vector environment of grasping: how an action moves the hand, what is observed, and what counts as success.

The expert is a memoryless function of the observation and of what is hidden. Everything in it is continuous (funnels,
gates and clipped proportional laws), because a network must imitate it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import mujoco
import numpy as np

from quickstudy.families.grasping import scene
from quickstudy.families.grasping.arm import TABLE_CENTRE, Arm
from quickstudy.families.grasping.sawyer import SAWYER
from quickstudy.families.grasping.scene import SENSORS, rotate, wrapped
from quickstudy.simulation.vector_env import SimulatedVectorEnv, StepResult, pushes
from quickstudy.simulation.worlds import Worlds
from quickstudy.task import Task

SUBSTEPS = 20  # of 2.5 ms: control at 20 Hz
HORIZON = 100

ACTION = ("x", "y", "z", "yaw", "grip")
MAX_STEP = 0.0125  # metres a step at full action
MAX_TURN = 0.12  # radians a step at full action
ACTION_NOISE = 0.05  # standard deviation, of the action's range of -1..1

OBSERVATION = ("x", "y", "z", "yaw", "opening", "opening_speed", "touch", "lift", "previous_grip")
OBSERVATION_SCALE = np.array([0.1, 0.1, 0.1, 1.0, 0.1, 0.2, 1.0, 0.1, 1.0])
"""Observations times this are metres, radians, metres a second; touch and grip are fractions."""
OBSERVATION_LIMIT = 10.0
"""Observations are clipped here, far outside what a hand near its object sees."""

HIDDEN = ("grasp_x", "grasp_y", "grasp_height", "grasp_yaw", "grip_width")
HIDDEN_SCALE = np.array([0.04, 0.04, 0.04, 0.7, 0.05])

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


class GraspingVectorEnv(SimulatedVectorEnv):
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

    action_size = len(ACTION)

    def __init__(
        self,
        tasks: Sequence[Task],
        episodes_per_task: int,
        arm: Arm = SAWYER,
        threads: int | None = None,
        visual: bool = False,
    ) -> None:
        super().__init__(tasks, episodes_per_task, HORIZON)
        self.arm = arm
        models = [model for task in tasks for model in [scene.build(task, visual, arm)] * episodes_per_task]
        self.worlds = Worlds(models, reads=("sensordata",), threads=threads)
        self._hidden = np.stack([hidden(task.parameters) for task in tasks])[:, None]
        self._object = [int(model.joint("object").qposadr[0]) for model in models]
        n = self.size
        self.target, self.target_yaw, self.grip = np.zeros((n, 3)), np.zeros(n), np.zeros(n)
        self.start_height, self.start_centre, self.held_at = np.zeros(n), np.zeros(n), np.zeros((n, 3))
        self.noise = np.zeros((n, HORIZON, len(ACTION)))
        self.held = np.zeros(n, dtype=np.int64)
        self.lifted, self.slipped, self.success = (np.zeros(n, dtype=bool) for _ in range(3))

    def _begin(self, chosen: np.ndarray, generators: Sequence[np.random.Generator], disturbance: float) -> None:
        tags = np.zeros((self.size, 3))
        for i, rng in zip(chosen, generators, strict=True):
            tags[i] = rng.uniform([-0.08, -0.08, -0.6], [0.08, 0.08, 0.6])
            self.target[i] = TABLE_CENTRE + rng.uniform([-0.06, -0.06, 0.12], [0.06, 0.06, 0.20])
            self.target_yaw[i] = rng.uniform(-0.3, 0.3)
            self.noise[i] = ACTION_NOISE * rng.normal(size=self.noise[i].shape)
            if disturbance:
                self.noise[i] += pushes(rng, disturbance, self.noise[i].shape, starts=(2, 45), width=4, push=6.0)

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
        for array in (self.held, self.lifted, self.slipped, self.success):
            array[chosen] = 0

    def step(self, actions: np.ndarray, active: np.ndarray) -> StepResult:
        now = np.flatnonzero(active)
        noisy = self._noisy(actions)
        self._move_target(noisy, now)
        self.grip[now] = noisy[now, 4]
        # The command saturates early, so that a half-hearted "close" still holds.
        force = np.clip(3.0 * self.grip, -1.0, 1.0)
        place, turn = self.arm.mocap(self.target, self.target_yaw)
        carrier = {"mocap_pos": place[:, None], "mocap_quat": turn[:, None]}
        self.worlds.step({"ctrl": self.arm.control(force), **carrier}, SUBSTEPS, now)
        self._judge(now)
        success, slipped = self.success.reshape(self.shape).copy(), self.slipped.reshape(self.shape)
        return self._after_step(active, (success & active).astype(np.float64), success, terminated=success | slipped)

    def expert_action(self) -> np.ndarray:
        return expert(self.observations, self._hidden)

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

    def read(self, name: str) -> np.ndarray:
        """What a sensor says in every world, [env, ...], see `scene.SENSORS`."""
        return self.worlds.readings["sensordata"][:, SENSORS[name]]

    def tag_yaw(self) -> np.ndarray:
        """How the tags are turned about the vertical, [env] radians."""
        axis = self.read("tag_x")
        return np.arctan2(axis[:, 1], axis[:, 0])

    def _observe(self) -> np.ndarray:
        tag, tool, fingers = self.read("tag"), self.read("tool"), self.read("fingers")
        tag_yaw = self.tag_yaw()
        place = tool - tag
        place[:, :2] = rotate(place[:, :2], -tag_yaw)
        yaw = wrapped(self._hand_yaw() - tag_yaw)
        opening, speed = self.arm.opening(fingers, self.read("finger_speeds"))
        touch = np.tanh(self.read("pads").min(axis=1) / _TOUCH_FORCE)
        lift = tag[:, 2] - self.start_height
        raw = np.column_stack([place, yaw, opening, speed, touch, lift, self.grip])
        seen = np.clip(raw / OBSERVATION_SCALE, -OBSERVATION_LIMIT, OBSERVATION_LIMIT)
        return seen.astype(np.float32).reshape(*self.shape, -1)

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
        first = now[(lift >= LIFT) & ~self.lifted[now]]
        self.held_at[first] = self.read("object_in_hand")[first]
        self.held[now] += self.lifted[now]
        self.lifted[first] = True
        moved = np.linalg.norm(in_hand - self.held_at[now], axis=1) > SLIP
        lost = (lift < KEEP) | moved | (self.read("object_z")[now, 2] < np.cos(TILT))
        self.slipped[now] = self.lifted[now] & lost
        self.success[now] = self.lifted[now] & ~lost & (self.held[now] >= HOLD_STEPS)


def hidden(parameters: Mapping[str, Any]) -> np.ndarray:
    """What a task's observations do not show, [hidden] float32, in about unit range: where and how wide to hold."""
    return (np.array([parameters[name] for name in HIDDEN]) / HIDDEN_SCALE).astype(np.float32)


# ---- the expert

SAFE_HEIGHT = 0.125
"""Of the tool above the table, metres: above every object."""
LIFT_GOAL = 0.14
"""Metres that an object is lifted."""
NEAR, FAR = 0.008, 0.035
"""Errors of place (metres) below which the hand is free to descend, and above which it stays at the safe height."""
METRES_PER_RADIAN = 0.04
"""How much an error of yaw counts as one of place."""
CLOSE_WITHIN = 0.014
"""The error (metres, height and yaw included) at which the fingers turn from opening to closing."""
GAIN = 0.22
"""Part of the remaining way that one step takes; the hand lags a little behind its target, so well below 1."""


def expert(observations: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """The expert's actions [..., 5] for observations [..., 9] and hidden parameters [..., 5], broadcast."""
    x, y, z, yaw, _, _, touch, lift, _ = np.moveaxis(observations.astype(np.float64) * OBSERVATION_SCALE, -1, 0)
    goal_x, goal_y, goal_z, goal_yaw, _ = np.moveaxis(hidden.astype(np.float64) * HIDDEN_SCALE, -1, 0)
    error = np.stack([goal_x - x, goal_y - y], axis=-1)
    turn = goal_yaw - yaw
    aside = np.hypot(np.linalg.norm(error, axis=-1), METRES_PER_RADIAN * turn)

    # The funnel: how high above the grasp point the hand must be, given how far aside it is.
    height = goal_z + (SAFE_HEIGHT - goal_z) * _smooth((aside - NEAR) / (FAR - NEAR))
    held = _smooth((touch - 0.2) / 0.4)
    reach = CLOSE_WITHIN * (1.0 + 6.0 * held)  # a held object is not let go for a small shift in the hand
    away = np.hypot(aside, 0.7 * (z - goal_z))
    grip = np.clip(3.0 * (1.0 - away / reach), -1.0, 1.0)

    carry = held * _smooth(grip / 0.5)
    up = (1.0 - carry) * GAIN * (height - z) + carry * GAIN * (LIFT_GOAL - lift)
    across = (1.0 - carry)[..., None] * GAIN * error
    action = np.concatenate(
        [across / MAX_STEP, np.stack([up / MAX_STEP, (1.0 - carry) * GAIN * turn / MAX_TURN, grip], axis=-1)], axis=-1
    )
    return np.clip(action, -1.0, 1.0).astype(np.float32)


def _smooth(x: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, smooth between."""
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3.0 - 2.0 * x)
