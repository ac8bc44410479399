"""Episodes of the grasping family: how an action moves the hand, what is observed, and what counts as success.

Everything is written for many worlds at once, [world, ...]; a Gymnasium environment is the case of one world.
"""

from collections.abc import Sequence

import mujoco
import numpy as np

from quickstudy.families.grasping import scene
from quickstudy.families.grasping.arm import TABLE_CENTRE, Arm
from quickstudy.families.grasping.sawyer import SAWYER
from quickstudy.families.grasping.scene import SENSORS, rotate, wrapped
from quickstudy.simulation.worlds import Worlds

SUBSTEPS = 20  # of 2.5 ms: control at 20 Hz
HORIZON = 100
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
ACTION = ("x", "y", "z", "yaw", "grip")

LIFT = 0.10  # metres: lifted
KEEP = 0.09  # metres: below this a lifted object counts as dropped
SLIP = 0.02  # metres that a lifted object may move in the hand
TILT = 0.4  # radians that a lifted object may lean: one that was taken far from its middle turns in the fingers
HOLD_STEPS = 20  # one second
LIFT_GOAL = 0.14
SAFE_HEIGHT = 0.125  # of the tool: above every object

_TOUCH_FORCE = 10.0  # newton that count as a firm touch
_REACH_LOW = TABLE_CENTRE + [-0.18, -0.18, 0.002]  # of the finger tips; all else is of the tool
_REACH_HIGH = TABLE_CENTRE + [0.18, 0.18, 0.32]
_YAW_REACH = 1.6
_LEAD, _LEAD_YAW = 0.05, 0.4
"""How far the commanded pose may run ahead of the hand: a hand that is blocked builds up no more force than this."""


class Episodes:
    """The worlds of many episodes at once, each with its own model, start and noise.

    Attributes:
        active: [world], false once an episode has ended.
        steps, lifted, slipped, success: [world], what became of it.
    """

    def __init__(self, models: Sequence[mujoco.MjModel], threads: int | None = None, arm: Arm = SAWYER):
        self.arm = arm
        self.worlds = Worlds(models, reads=("sensordata",), threads=threads)
        n = len(models)
        self._object = [int(model.joint("object").qposadr[0]) for model in models]
        self.target, self.target_yaw, self.grip = np.zeros((n, 3)), np.zeros(n), np.zeros(n)
        self.start_height, self.start_centre, self.held_at = np.zeros(n), np.zeros(n), np.zeros((n, 3))
        self.noise = np.zeros((n, HORIZON, len(ACTION)))
        self.steps, self.held = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        self.active, self.lifted, self.slipped, self.success = (np.zeros(n, dtype=bool) for _ in range(4))

    def reset(self, generators: Sequence[np.random.Generator], chosen: np.ndarray | None = None) -> np.ndarray:
        """Starts a new episode in the chosen worlds (all by default), each drawn from its generator.

        Returns:
            observations [world, obs] of all worlds.
        """
        chosen = np.arange(len(self.worlds)) if chosen is None else np.asarray(chosen)
        tags = np.zeros((len(self.worlds), 3))
        for i, rng in zip(chosen, generators, strict=True):
            tags[i] = rng.uniform([-0.08, -0.08, -0.6], [0.08, 0.08, 0.6])
            self.target[i] = TABLE_CENTRE + rng.uniform([-0.06, -0.06, 0.12], [0.06, 0.06, 0.20])
            self.target_yaw[i] = rng.uniform(-0.3, 0.3)
            self.noise[i] = ACTION_NOISE * rng.normal(size=self.noise[i].shape)

        def place(index: int, model: mujoco.MjModel, data: mujoco.MjData) -> None:
            mujoco.mj_resetData(model, data)
            adr, pose = self._object[index], scene.object_pose(model, tags[index])
            data.qpos[adr : adr + 7] = pose
            self.arm.place_hand(model, data, self.target[index], self.target_yaw[index])
            data.mocap_pos[0], data.mocap_quat[0] = self.arm.mocap(self.target[index], self.target_yaw[index])
            data.ctrl[:] = self.arm.control(-np.ones(1))[0]

        self.worlds.each(place, chosen)
        self.grip[chosen] = -1.0
        self.start_height[chosen] = self._read("tag")[chosen, 2]
        self.start_centre[chosen] = self._read("centre")[chosen, 2]
        for array in (self.steps, self.held, self.lifted, self.slipped, self.success):
            array[chosen] = 0
        self.active[chosen] = True
        return self.observe()

    def step(self, actions: np.ndarray) -> np.ndarray:
        """One control step of the active worlds; the actions [world, 5] of the others are ignored.

        Returns:
            observations [world, obs] of all worlds.
        """
        now = np.flatnonzero(self.active)
        noise = self.noise[np.arange(len(self.worlds)), np.minimum(self.steps, HORIZON - 1)]
        actions = np.clip(np.clip(actions, -1.0, 1.0) + noise, -1.0, 1.0)
        self._move_target(actions, now)
        self.grip[now] = actions[now, 4]
        # The command saturates early, so that a half-hearted "close" still holds.
        force = np.clip(3.0 * self.grip, -1.0, 1.0)
        place, turn = self.arm.mocap(self.target, self.target_yaw)
        carrier = {"mocap_pos": place[:, None], "mocap_quat": turn[:, None]}
        self.worlds.step({"ctrl": self.arm.control(force), **carrier}, SUBSTEPS, now)
        self._judge(now)
        return self.observe()

    def observe(self) -> np.ndarray:
        """Observations [world, obs], float32, see `OBSERVATION`."""
        tag, tool, fingers = self._read("tag"), self._read("tool"), self._read("fingers")
        tag_yaw = self._tag_yaw()
        place = tool - tag
        place[:, :2] = rotate(place[:, :2], -tag_yaw)
        yaw = wrapped(self._hand_yaw() - tag_yaw)
        opening, speed = self.arm.opening(fingers, self._read("finger_speeds"))
        touch = np.tanh(self._read("pads").min(axis=1) / _TOUCH_FORCE)
        lift = tag[:, 2] - self.start_height
        raw = np.column_stack([place, yaw, opening, speed, touch, lift, self.grip])
        return np.clip(raw / OBSERVATION_SCALE, -OBSERVATION_LIMIT, OBSERVATION_LIMIT).astype(np.float32)

    def _move_target(self, actions: np.ndarray, now: np.ndarray) -> None:
        step = actions[now, :3] * MAX_STEP
        step[:, :2] = rotate(step[:, :2], self._tag_yaw()[now])
        tool, yaw = self._read("tool")[now], self._hand_yaw()[now]
        target = np.clip(self.target[now] + step, tool - _LEAD, tool + _LEAD)
        opening, _ = self.arm.opening(self._read("fingers"), self._read("finger_speeds"))
        low = np.tile(_REACH_LOW, (len(now), 1))
        low[:, 2] += self.arm.tips(opening[now])
        self.target[now] = np.clip(target, low, _REACH_HIGH)
        turned = np.clip(self.target_yaw[now] + actions[now, 3] * MAX_TURN, yaw - _LEAD_YAW, yaw + _LEAD_YAW)
        self.target_yaw[now] = np.clip(turned, -_YAW_REACH, _YAW_REACH)

    def _judge(self, now: np.ndarray) -> None:
        """Advances the active episodes' records; an episode ends by success, by losing a lifted object, or by time."""
        lift = (self._read("centre")[:, 2] - self.start_centre)[now]
        in_hand = self._read("object_in_hand")[now]
        self.steps[now] += 1
        first = now[(lift >= LIFT) & ~self.lifted[now]]
        self.held_at[first] = self._read("object_in_hand")[first]
        self.held[now] += self.lifted[now]
        self.lifted[first] = True
        moved = np.linalg.norm(in_hand - self.held_at[now], axis=1) > SLIP
        lost = (lift < KEEP) | moved | (self._read("object_z")[now, 2] < np.cos(TILT))
        self.slipped[now] = self.lifted[now] & lost
        self.success[now] = self.lifted[now] & ~lost & (self.held[now] >= HOLD_STEPS)
        self.active[now] = ~(self.slipped[now] | self.success[now]) & (self.steps[now] < HORIZON)

    def _read(self, name: str) -> np.ndarray:
        return self.worlds.readings["sensordata"][:, SENSORS[name]]

    def _tag_yaw(self) -> np.ndarray:
        axis = self._read("tag_x")
        return np.arctan2(axis[:, 1], axis[:, 0])

    def _hand_yaw(self) -> np.ndarray:
        axis = self._read("hand_y")
        return np.arctan2(-axis[:, 0], axis[:, 1])
