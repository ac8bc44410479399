"""The vector environment of navigation: what an action does, what is observed and rewarded, and what counts as success.

The reward of a step of 0.2 s is
    metres of progress towards the goal, along the shortest way that there is (not as the crow flies),
    + 2 in the step that comes within 0.3 m of the goal, where the episode terminates,
    - 0.05 if the robot touches a wall at the end of the step.
So the reward says whether the last move was a good one, as a signal from the goal that comes through the doors would.
Neither a detour nor driving to and fro gains anything, and where the goal is remains to be found out.
"""

from collections.abc import Sequence

import mujoco
import numpy as np
from scipy.ndimage import distance_transform_edt, map_coordinates

from quickstudy.families.navigation import scene
from quickstudy.families.navigation.layouts import CELL, HALF, cell
from quickstudy.families.navigation.planner import Expert, Plan, plan
from quickstudy.families.navigation.scene import (
    ACTION,
    ACTION_NOISE,
    HORIZON,
    LIDAR_RANGE,
    MAX_SPEED,
    MAX_TURN,
    OBSERVATION_LIMIT,
    RAYS,
    ROBOT,
    SUBSTEPS,
    Body,
    place_code,
    scan,
)
from quickstudy.families.navigation.tasks import draw_start
from quickstudy.simulation.vector_env import SimulatedVectorEnv, StepResult, pushes
from quickstudy.simulation.worlds import Worlds
from quickstudy.task import Task

REACHED = 0.3
"""Metres from the goal within which it counts as reached."""
BELIEVED = 0.1
"""Metres from the goal at which a demonstration ends, by the robot's own odometry."""
ARRIVAL = 2.0
"""The reward of reaching the goal, in addition to that of progress, which is 1 a metre."""
TOUCH = 0.05
"""The cost of a step that ends in touch with a wall."""

START_PLACE, START_YAW = 0.02, 0.006
"""Standard deviations of what the robot knows of its start: metres, radians."""
SCALE_ERROR = 0.01
"""Standard deviation, drawn once an episode, of the part by which odometry misjudges every way."""
YAW_PER_METRE, YAW_PER_RADIAN = 0.004, 0.006
"""Standard deviations of the walk of the heading's error: radians after one metre, and after one radian of turning."""
RANGE_NOISE = 0.01
"""Metres, standard deviation of a lidar's reading."""


class NavigationVectorEnv(SimulatedVectorEnv):
    """Robots in the environments of some tasks; the arrays of its attributes are flat, [env, ...].

    Odometry is that of a robot that matches scans or has a good gyroscope: its error grows with the true motion, by a
    scale error and a random walk of the heading, and is never corrected. Wheels that slip do not add to it.

    Args:
        threads: that step the worlds; by default one for each core. Results do not depend on it.
        demonstrating: an episode ends when the robot believes to be at the goal; otherwise when it is.
        visual: with what a picture needs; the dynamics are the same.

    Attributes:
        worlds: one for each environment; those of a task share its model.
        believed: x, y and yaw by odometry.
        success, touching: whether the goal was reached, and whether the robot touches a wall now.
        collisions: touches of a wall that lasted to the end of a control step, counted when they begin.
        path: metres driven.
    """

    action_size = len(ACTION)

    def __init__(
        self,
        tasks: Sequence[Task],
        episodes_per_task: int,
        threads: int | None = None,
        demonstrating: bool = False,
        visual: bool = False,
    ) -> None:
        super().__init__(tasks, episodes_per_task, HORIZON)
        self.demonstrating = demonstrating
        models = [model for task in tasks for model in [build(task, visual)] * episodes_per_task]
        self.worlds = Worlds(models, reads=("qpos",), threads=threads)
        self._hull = [int(model.geom("body").id) for model in models]
        n = self.size
        self._goals = np.repeat([task.parameters["goal"] for task in tasks], episodes_per_task, axis=0)
        bodies = [body(task) for task in tasks]
        self._motors = np.repeat([[each.left, each.right] for each in bodies], episodes_per_task, axis=0)
        self._plans = [plan(task.parameters["walls"], task.parameters["goal"]) for task in tasks]
        self._distances = np.stack([everywhere(way.distance) for way in self._plans])
        self._expert = expert_of(tasks)
        self.noise = np.zeros((n, HORIZON, len(ACTION)))
        self._range_noise, self._yaw_noise = np.zeros((n, HORIZON + 1, RAYS)), np.zeros((n, HORIZON))
        self._scale, self._shortest = np.ones(n), np.ones(n)
        self.believed, self.ranges = np.zeros((n, 3)), np.zeros((n, RAYS))
        self.collisions, self.path = np.zeros(n, dtype=np.int64), np.zeros(n)
        self.touching, self.success = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)

    def _begin(self, chosen: np.ndarray, generators: Sequence[np.random.Generator], disturbance: float) -> None:
        starts = np.zeros((self.size, 3))
        for i, rng in zip(chosen, generators, strict=True):
            start = starts[i] = draw_start(self.tasks[i // self.episodes_per_task].parameters, rng)
            self.noise[i] = ACTION_NOISE * rng.normal(size=self.noise[i].shape)
            self._range_noise[i] = RANGE_NOISE * rng.normal(size=self._range_noise[i].shape)
            self._yaw_noise[i] = rng.normal(size=HORIZON)
            self._scale[i] = 1.0 + SCALE_ERROR * rng.normal()
            self.believed[i] = start + rng.normal(size=3) * [START_PLACE, START_PLACE, START_YAW]
            self._shortest[i] = shortest_way(self._plans[i // self.episodes_per_task], start)
            if disturbance:
                # All along the way, so that a demonstration shows how to come back to a goal that was missed, too.
                self.noise[i] += pushes(rng, disturbance, self.noise[i].shape, (0, 80), width=2, push=5.0, times=4)

        def put(index: int, model: mujoco.MjModel, data: mujoco.MjData) -> None:
            mujoco.mj_resetData(model, data)
            x, y, yaw = starts[index]
            data.qpos[:7] = [x, y, ROBOT.wheel_radius, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]

        self.worlds.each(put, chosen)
        self.worlds.each(self._sense, chosen)
        for array in (self.collisions, self.path, self.success):
            array[chosen] = 0
        self._to_goal = self._distance_to_goal()

    def step(self, actions: np.ndarray, active: np.ndarray) -> StepResult:
        now = np.flatnonzero(active)
        forward, turn = self._noisy(actions).T
        apart = turn * MAX_TURN * ROBOT.half_track
        wheels = np.stack([forward * MAX_SPEED - apart, forward * MAX_SPEED + apart], axis=1) / ROBOT.wheel_radius
        before, touched = self.pose(), self.touching.copy()
        self.worlds.step({"ctrl": wheels * self._motors}, SUBSTEPS, now)
        self.worlds.each(self._sense, now)
        self._reckon(before, now)
        self.collisions[now] += self.touching[now] & ~touched[now]

        reached = np.linalg.norm(self.pose()[:, :2] - self._goals, axis=1) <= REACHED
        believed = np.linalg.norm(self.believed[:, :2] - self._goals, axis=1) <= BELIEVED
        ended = believed if self.demonstrating else reached
        self.success[now] = (reached & ended)[now]
        was_away, self._to_goal = self._to_goal, self._distance_to_goal()
        success, touching, terminated = (
            flags.reshape(self.shape).copy() for flags in (self.success, self.touching, ended)
        )
        rewards = np.where(active, reward(was_away - self._to_goal, success, touching), 0.0)
        return self._after_step(active, rewards, success, terminated)

    def expert_action(self) -> np.ndarray:
        """What a planner does that knows map, goal and body."""
        return self._expert(self.observations)

    def measures(self) -> dict[str, np.ndarray]:
        """What became of the episodes, each [task, episode].

        'spl', success weighted by path length (Anderson et al. 2018, eq. 1); 'collisions', how often the robot began to
        touch a wall; 'detour', metres driven over those of the shortest way to the goal, whether it was reached or not.
        """
        found = {
            "spl": spl(self.success, self.path, self._shortest),
            "collisions": self.collisions,
            "detour": self.path / self._shortest,
        }
        return {name: values.reshape(self.shape).astype(np.float64) for name, values in found.items()}

    def render(self, index: int, width: int | None = None, height: int | None = None) -> np.ndarray:
        """From above."""
        from quickstudy.simulation.rendering import frame

        return frame(self.worlds.models[index], self.worlds.data[index], "top", width or 400, height or 400)

    def close(self) -> None:
        self.worlds.close()

    def pose(self) -> np.ndarray:
        """Where the robots are, [env, 3]: x, y and yaw."""
        q = self.worlds.readings["qpos"]
        w, x, y, z = q[:, 3:7].T
        return np.column_stack([q[:, :2], np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))])

    def _observe(self) -> np.ndarray:
        places, yaw = self.believed[:, :2], self.believed[:, 2]
        noise = self._range_noise[np.arange(self.size), np.minimum(self.steps, HORIZON)]
        seen = np.clip(self.ranges + noise, 0.0, LIDAR_RANGE) / LIDAR_RANGE
        raw = np.column_stack([places / HALF, np.cos(yaw), np.sin(yaw), seen, place_code(places)])
        return np.clip(raw, -OBSERVATION_LIMIT, OBSERVATION_LIMIT).astype(np.float32).reshape(*self.shape, -1)

    def _distance_to_goal(self) -> np.ndarray:
        """Metres of the shortest way, [task, episode]."""
        return look_up(self._distances, self.pose()[:, :2].reshape(*self.shape, 2))

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
        noise = self._yaw_noise[now, np.minimum(self.steps[now], HORIZON - 1)]
        self.believed[now, 2] += turned + deviation * noise


def build(task: Task, visual: bool = False) -> mujoco.MjModel:
    """The MuJoCo model of a task; `visual` adds what a picture needs."""
    p = task.parameters
    return scene.build(p["walls"], body(task), p["goal"] if visual else None)


def body(task: Task) -> Body:
    """The robot's body in a task; healthy where the task does not say."""
    return Body(**task.parameters.get("body", {}))


def expert_of(tasks: Sequence[Task]) -> Expert:
    """The expert who knows map, goal and body of each of the tasks: a policy for them."""
    plans = [plan(task.parameters["walls"], task.parameters["goal"]) for task in tasks]
    return Expert(plans, [task.parameters["goal"] for task in tasks], [body(task) for task in tasks])


def shortest_way(way: Plan, start: np.ndarray) -> float:
    """Metres from a start [2 or more] to where the goal counts as reached, for a robot that may graze walls."""
    return max(float(way.distance[way.at(start[:2])]) - REACHED, 0.1)


def spl(success: np.ndarray, path: np.ndarray, shortest: np.ndarray) -> np.ndarray:
    """Success weighted by path length, of each episode (Anderson et al. 2018, eq. 1)."""
    return success * shortest / np.maximum(path, shortest)


def reward(progress: np.ndarray, reached: np.ndarray, touching: np.ndarray) -> np.ndarray:
    """The rewards of steps that came `progress` metres nearer to the goal, all [...]."""
    return progress + ARRIVAL * reached - TOUCH * touching


def everywhere(distance: np.ndarray) -> np.ndarray:
    """A plan's metres to the goal [row, column], also of cells without a way: out to the nearest with one, and on."""
    off, nearest = distance_transform_edt(~np.isfinite(distance), return_indices=True)
    return np.asarray(distance[nearest[0], nearest[1]] + CELL * off)


def look_up(distances: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Metres to the goal [task, episode] from places [task, episode, 2]; bilinear between the middles of cells.

    Args:
        distances: from the middle of every cell, [task, row, column].
    """
    rows, columns = np.moveaxis(cell(places) - 0.5, -1, 0)
    task = np.broadcast_to(np.arange(len(distances))[:, None], rows.shape)
    return np.asarray(map_coordinates(distances, [task, rows, columns], order=1, mode="nearest"))
