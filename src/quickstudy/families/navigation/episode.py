"""Episodes of the navigation family: what an action does, what is observed, and what counts as success.

Everything is written for many worlds at once, [world, ...]; a Gymnasium environment is the case of one world.
"""

from collections.abc import Sequence

import mujoco
import numpy as np

from quickstudy.families.navigation.layouts import HALF
from quickstudy.families.navigation.scene import LIDAR_RANGE, RAYS, ROBOT, Body, scan
from quickstudy.simulation.worlds import Worlds

SUBSTEPS = 20  # of 10 ms: control at 5 Hz
HORIZON = 160
MAX_SPEED = 0.7  # metres a second at full action
MAX_TURN = 2.5  # radians a second at full action
ACTION_NOISE = 0.05  # standard deviation, of the action's range of -1..1

ACTION = ("forward", "turn")
WAVES = (1, 2, 4)
"""Of the place code: how often sine and cosine of either coordinate repeat on the way across an environment."""
_POSE = ("x", "y", "cos_yaw", "sin_yaw")
_CODE = tuple(f"{wave}_{part}_{axis}" for part in ("sin", "cos") for axis in "xy" for wave in WAVES)
OBSERVATION = (*_POSE, *(f"range_{ray}" for ray in range(RAYS)), *_CODE)
"""Pose by odometry in units of `HALF` metres; ranges in units of `LIDAR_RANGE`, counter-clockwise from ahead; the place
once more as sines and cosines (Fourier features, Tancik et al. 2020), because a network blurs what is a few per cent
of its input's range."""
OBSERVATION_LIMIT = 2.0

REACHED = 0.3
"""Metres from the goal within which it counts as reached."""
BELIEVED = 0.1
"""Metres from the goal at which a demonstration ends, by the robot's own odometry."""

START_PLACE, START_YAW = 0.02, 0.006
"""Standard deviations of what the robot knows of its start: metres, radians."""
SCALE_ERROR = 0.01
"""Standard deviation, drawn once an episode, of the part by which odometry misjudges every way."""
YAW_PER_METRE, YAW_PER_RADIAN = 0.004, 0.006
"""Standard deviations of the walk of the heading's error: radians after one metre, and after one radian of turning."""
RANGE_NOISE = 0.01
"""Metres, standard deviation of a lidar's reading."""


def pose(observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the robot believes to be: place [..., 2] in metres and yaw [...]."""
    seen = np.asarray(observations, dtype=np.float64)
    return seen[..., :2] * HALF, np.arctan2(seen[..., 3], seen[..., 2])


def ranges(observations: np.ndarray) -> np.ndarray:
    """What the lidar read, [..., ray] metres."""
    return np.asarray(observations, dtype=np.float64)[..., len(_POSE) : len(_POSE) + RAYS] * LIDAR_RANGE


def place_code(places: np.ndarray) -> np.ndarray:
    """Sines, then cosines, of places [..., 2] in metres, [..., 4 * len(WAVES)]."""
    angles = (np.asarray(places)[..., None] * (np.pi / HALF) * np.array(WAVES)).reshape(*np.shape(places)[:-1], -1)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)


class Episodes:
    """The worlds of many episodes at once, each with its own model, goal, start and noise.

    Odometry is that of a robot that matches scans or has a good gyroscope: its error grows with the true motion, by a
    scale error and a random walk of the heading, and is never corrected. Wheels that slip do not add to it.

    Args:
        goals: [world, 2] metres.
        bodies: of each world.
        believing: end an episode when the robot believes to be at the goal; by default when it is.

    Attributes:
        active: [world], false once an episode has ended.
        steps, success, collisions: [world], what became of it; a collision is a touch of a wall that lasted to the
            end of a control step, counted when it begins.
        path: [world], metres driven.
    """

    def __init__(
        self,
        models: Sequence[mujoco.MjModel],
        goals: np.ndarray,
        bodies: Sequence[Body],
        threads: int | None = None,
        believing: bool = False,
    ) -> None:
        self.worlds = Worlds(models, reads=("qpos",), threads=threads)
        n = len(models)
        self.goals, self.believing = np.asarray(goals, dtype=float), believing
        self._motors = np.array([[body.left, body.right] for body in bodies])
        self._hull = [int(model.geom("body").id) for model in models]
        self.noise = np.zeros((n, HORIZON, len(ACTION)))
        self._range_noise, self._yaw_noise = np.zeros((n, HORIZON + 1, RAYS)), np.zeros((n, HORIZON))
        self._scale = np.ones(n)
        self.believed = np.zeros((n, 3))
        """[world], x, y and yaw by odometry."""
        self.ranges, self.touching = np.zeros((n, RAYS)), np.zeros(n, dtype=bool)
        self.steps, self.collisions, self.path = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64), np.zeros(n)
        self.active, self.success = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)

    def reset(
        self, starts: np.ndarray, generators: Sequence[np.random.Generator], chosen: np.ndarray | None = None
    ) -> np.ndarray:
        """Starts a new episode in the chosen worlds (all by default).

        Args:
            starts: [chosen, 3], x, y and yaw of each.
            generators: draw the noise of each.

        Returns:
            observations [world, obs] of all worlds.
        """
        chosen = np.arange(len(self.worlds)) if chosen is None else np.asarray(chosen)
        at = np.zeros((len(self.worlds), 3))
        for i, start, rng in zip(chosen, starts, generators, strict=True):
            at[i] = start
            self.noise[i] = ACTION_NOISE * rng.normal(size=self.noise[i].shape)
            self._range_noise[i] = RANGE_NOISE * rng.normal(size=self._range_noise[i].shape)
            self._yaw_noise[i] = rng.normal(size=HORIZON)
            self._scale[i] = 1.0 + SCALE_ERROR * rng.normal()
            self.believed[i] = start + rng.normal(size=3) * [START_PLACE, START_PLACE, START_YAW]

        def put(index: int, model: mujoco.MjModel, data: mujoco.MjData) -> None:
            mujoco.mj_resetData(model, data)
            x, y, yaw = at[index]
            data.qpos[:7] = [x, y, ROBOT.wheel_radius, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]

        self.worlds.each(put, chosen)
        self.worlds.each(self._sense, chosen)
        for array in (self.steps, self.collisions, self.path, self.success):
            array[chosen] = 0
        self.active[chosen] = True
        return self.observe()

    def step(self, actions: np.ndarray) -> np.ndarray:
        """One control step of the active worlds; the actions [world, 2] of the others are ignored.

        Returns:
            observations [world, obs] of all worlds.
        """
        now = np.flatnonzero(self.active)
        noise = self.noise[np.arange(len(self.worlds)), np.minimum(self.steps, HORIZON - 1)]
        forward, turn = np.clip(np.clip(actions, -1.0, 1.0) + noise, -1.0, 1.0).T
        apart = turn * MAX_TURN * ROBOT.half_track
        wheels = np.stack([forward * MAX_SPEED - apart, forward * MAX_SPEED + apart], axis=1) / ROBOT.wheel_radius
        before, touched = self.pose(), self.touching.copy()
        self.worlds.step({"ctrl": wheels * self._motors}, SUBSTEPS, now)
        self.worlds.each(self._sense, now)
        self._reckon(before, now)
        self.collisions[now] += self.touching[now] & ~touched[now]
        self._judge(now)
        return self.observe()

    def pose(self) -> np.ndarray:
        """Where the robots are, [world, 3]: x, y and yaw."""
        q = self.worlds.readings["qpos"]
        w, x, y, z = q[:, 3:7].T
        return np.column_stack([q[:, :2], np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))])

    def observe(self) -> np.ndarray:
        """Observations [world, obs], float32, see `OBSERVATION`."""
        places, yaw = self.believed[:, :2], self.believed[:, 2]
        noise = self._range_noise[np.arange(len(self.worlds)), self.steps]
        seen = np.clip(self.ranges + noise, 0.0, LIDAR_RANGE) / LIDAR_RANGE
        raw = np.column_stack([places / HALF, np.cos(yaw), np.sin(yaw), seen, place_code(places)])
        return np.clip(raw, -OBSERVATION_LIMIT, OBSERVATION_LIMIT).astype(np.float32)

    def _sense(self, index: int, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        qw, qz = data.qpos[3], data.qpos[6]
        self.ranges[index] = scan(model, data, data.qpos[:2], 2.0 * np.arctan2(qz, qw))
        self.touching[index] = bool((data.contact.geom == self._hull[index]).any())

    def _reckon(self, before: np.ndarray, now: np.ndarray) -> None:
        """Moves the believed poses by the true motion, as seen from the robot, and its errors."""
        after = self.pose()
        moved, turned = after[now, :2] - before[now, :2], after[now, 2] - before[now, 2]
        turned = (turned + np.pi) % (2 * np.pi) - np.pi
        way = np.linalg.norm(moved, axis=1)
        self.path[now] += way
        off = self.believed[now, 2] - before[now, 2]
        c, s = np.cos(off), np.sin(off)
        self.believed[now, 0] += self._scale[now] * (c * moved[:, 0] - s * moved[:, 1])
        self.believed[now, 1] += self._scale[now] * (s * moved[:, 0] + c * moved[:, 1])
        deviation = np.sqrt(YAW_PER_METRE**2 * way + YAW_PER_RADIAN**2 * np.abs(turned))
        self.believed[now, 2] += turned + deviation * self._yaw_noise[now, self.steps[now]]

    def _judge(self, now: np.ndarray) -> None:
        self.steps[now] += 1
        reached = np.linalg.norm(self.pose()[:, :2] - self.goals, axis=1)[now] <= REACHED
        ended = reached
        if self.believing:
            ended = np.linalg.norm(self.believed[:, :2] - self.goals, axis=1)[now] <= BELIEVED
        self.success[now] = reached & ended
        self.active[now] = ~ended & (self.steps[now] < HORIZON)
