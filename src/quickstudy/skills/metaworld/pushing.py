"""Tasks with one loose object: reach, push, pick-place, sweep, sweep-into, basketball, shelf-place."""

from collections.abc import Sequence
from typing import ClassVar

import mujoco
import numpy as np

from quickstudy.skills.metaworld.port import Port, Tool, put, quaternion
from quickstudy.skills.metaworld.rewards import (
    Caging,
    both,
    closes_caged,
    closing,
    grasping,
    length,
    long_tail,
    rounded,
    tolerance,
)

_RADIUS = 0.05
_TWICE_IN_HEIGHT = np.array([1.0, 1.0, 2.0])


class _LooseObject(Port):
    """A free body 'obj' with the geom 'objGeom'; it starts on the table, the goal is the vector's second half."""

    reads = ("geom_xmat",)

    def __init__(self, count: int, threads: int, tools: Sequence[Tool] | None = None):
        super().__init__(count, threads, tools)
        self._obj, self._obj_geom = self.body("obj"), self.geom("objGeom")

    def place(self, world: int, model: mujoco.MjModel, data: mujoco.MjData, vector: np.ndarray) -> None:
        self.start[world], self.target[world] = vector[:3], vector[3:]
        put(model, data, self.start[world], still=6)

    def objects(self) -> np.ndarray:
        turn = quaternion(self.readings["geom_xmat"][:, self._obj_geom])
        return np.concatenate([self.xpos[:, self._obj], turn], axis=1)


class Reach(_LooseObject):
    scene = "sawyer_reach_v3"
    goal_low, goal_high = (-0.1, 0.8, 0.05), (0.1, 0.9, 0.3)

    def prepare(self) -> None:
        self.margin = length(self.hand - self.target)

    def judge(self, seen: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        away = length(self.tcp - self.target)
        return 10.0 * tolerance(away, _RADIUS, self.margin), away <= _RADIUS


class Push(_LooseObject):
    scene = "sawyer_push_v3"
    goal_low, goal_high = (-0.1, 0.8, 0.01), (0.1, 0.9, 0.02)

    def place(self, world: int, model: mujoco.MjModel, data: mujoco.MjData, vector: np.ndarray) -> None:
        height = data.xpos[self._obj, 2]
        self.start[world], self.target[world] = [*vector[:2], height], [*vector[3:5], height]
        put(model, data, self.start[world], still=6)

    def prepare(self) -> None:
        super().prepare()
        self._caging = Caging(self.start, self.tcp_start, radius=0.015, pad_reach=0.05, xz_reach=0.005)

    def judge(self, seen: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        obj, opened = seen[:, 4:7], seen[:, 3]
        to_target = length(obj - self.target)
        in_place = tolerance(to_target, _RADIUS, self.margin)
        cage = self._caging(self.pads, self.tcp, obj)
        held = (length(obj - self.tcp) < 0.02) & (opened > 0)

        def formula(cage: np.ndarray, closed: np.ndarray, near: np.ndarray) -> np.ndarray:
            grasped = grasping(cage, closed) + cage
            return np.where(held, grasped + (1.0 + grasped + near), grasped)

        reward = rounded(closes_caged(cage, action), formula, cage, closing(action), 5.0 * in_place)
        return np.where(to_target < _RADIUS, 10.0, reward), to_target <= _RADIUS


class PickPlace(_LooseObject):
    scene = "sawyer_pick_place_v3"
    goal_low, goal_high = (-0.1, 0.8, 0.05), (0.1, 0.9, 0.3)

    def prepare(self) -> None:
        super().prepare()
        self._caging = Caging(self.start, self.tcp_start, 0.015, pad_reach=0.05, xz_reach=0.005, one_sided=True)

    def judge(self, seen: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        obj, opened = seen[:, 4:7], seen[:, 3]
        to_target = length(obj - self.target)
        in_place = tolerance(to_target, _RADIUS, self.margin)
        cage = self._caging(self.pads, self.tcp, obj)
        held = (length(obj - self.tcp) < 0.02) & (opened > 0) & (obj[:, 2] - 0.01 > self.start[:, 2])

        def formula(cage: np.ndarray, closed: np.ndarray, in_place: np.ndarray, near: np.ndarray) -> np.ndarray:
            return both((grasping(cage, closed) + cage) / 2.0, in_place) + near

        near = np.where(held, 1.0 + 5.0 * in_place, 0.0)
        reward = rounded(closes_caged(cage, action), formula, cage, closing(action), in_place, near)
        return np.where(to_target < _RADIUS, 10.0, reward), to_target <= 0.07


class _Swept(_LooseObject):
    """The reward that both sweeping tasks have: the object's radius is 2 cm, and gripping needs no closing."""

    xz_reach: ClassVar[float]
    grip_reach: ClassVar[float]

    def prepare(self) -> None:
        super().prepare()
        self._caging = Caging(self.start, self.tcp_start, 0.02, pad_reach=0.05, xz_reach=self.xz_reach, one_sided=True)

    def _judge(self, obj: np.ndarray, to_target: np.ndarray, margin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        in_place = tolerance(to_target, _RADIUS, margin)
        cage = self._caging(self.pads, self.tcp, obj)
        closer = self._caging.pads_outside(self.pads, obj, 0.02, self.grip_reach)
        grasped = (cage + np.where(cage > 0.95, long_tail(np.vecdot(closer, closer)), 0.0)) / 2.0
        reward = 2.0 * grasped + 6.0 * both(grasped, in_place)
        return np.where(to_target < _RADIUS, 10.0, reward), to_target <= _RADIUS


class Sweep(_Swept):
    scene = "sawyer_sweep_v3"
    goal_low, goal_high = (0.49, 0.6, 0.0), (0.51, 0.7, 0.02)
    reads = ("xquat",)
    xz_reach, grip_reach = 0.005, 0.03

    def place(self, world: int, model: mujoco.MjModel, data: mujoco.MjData, vector: np.ndarray) -> None:
        self.start[world], self.target[world] = [*vector[:2], 0.02], [0.5, vector[1], 0.01]
        put(model, data, self.start[world], still=6)

    def objects(self) -> np.ndarray:
        return np.concatenate([self.xpos[:, self._obj], self.readings["xquat"][:, self._obj]], axis=1)

    def judge(self, seen: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        obj = seen[:, 4:7]
        return self._judge(obj, length(obj - self.target), self.margin)


class SweepInto(_Swept):
    scene = "sawyer_table_with_hole"
    goal_low, goal_high = (-0.001, 0.8399, 0.0199), (0.001, 0.8401, 0.0201)
    xz_reach, grip_reach = 0.01, 0.025

    def place(self, world: int, model: mujoco.MjModel, data: mujoco.MjData, vector: np.ndarray) -> None:
        self.start[world], self.target[world] = [*vector[:2], data.xpos[self._obj, 2]], [0.0, 0.84, 0.02]
        put(model, data, self.start[world], still=6)

    def judge(self, seen: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        obj = seen[:, 4:7]
        above = np.column_stack([self.target[:, :2], obj[:, 2]])  # how deep it fell does not count
        return self._judge(obj, length(obj - above), length(self.start - above))


class Basketball(Port):
    scene = "sawyer_basketball"
    hand = np.array([0.0, 0.6, 0.2], np.float32)
    goal_low, goal_high = (-0.1, 0.767, 0.2499), (0.1, 0.9 + 1e-7 - 0.083, 0.2501)
    moved = "basket_goal"
    reads = ("xquat",)

    def place(self, world: int, model: mujoco.MjModel, data: mujoco.MjData, vector: np.ndarray) -> None:
        self.start[world] = [*vector[:2], np.float32(0.03)]
        put(model, data, self.start[world], still=6)
        self.target[world] = data.site_xpos[self.site("goal")]

    def __init__(self, count: int, threads: int, tools: Sequence[Tool] | None = None):
        super().__init__(count, threads, tools)
        self._ball = self.body("bsktball")

    def prepare(self) -> None:
        self._above = np.column_stack([self.target[:, :2], np.full(len(self.target), 0.3)])
        self.margin = length((self.start - self._above) * _TWICE_IN_HEIGHT)
        self._caging = Caging(self.start, self.tcp_start, radius=0.025, pad_reach=0.06, xz_reach=0.005)

    def objects(self) -> np.ndarray:
        return np.concatenate([self.xpos[:, self._ball], self.readings["xquat"][:, self._ball]], axis=1)

    def judge(self, seen: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ball, opened = seen[:, 4:7], seen[:, 3]
        to_target = length((ball - self._above) * _TWICE_IN_HEIGHT)
        in_place = tolerance(to_target, 0.08, self.margin)
        cage = self._caging(self.pads, self.tcp, ball)
        held = (length(ball - self.tcp) < 0.035) & (opened > 0) & (ball[:, 2] - 0.01 > self.start[:, 2])
        grasped = np.where(held, 1.0, (grasping(cage, closing(action)) + cage) / 2.0)
        reward = both(grasped, in_place) + np.where(held, 1.0 + 5.0 * in_place, 0.0)
        return np.where(to_target < 0.08, 10.0, reward), to_target <= 0.08


class ShelfPlace(_LooseObject):
    scene = "sawyer_shelf_placing"
    hand = np.array([0.0, 0.6, 0.2], np.float32)
    goal_low, goal_high = (-0.1, 0.8, 0.299), (0.1, 0.9, 0.301)
    moved = "shelf"

    def body_place(self, vector: np.ndarray) -> np.ndarray:
        return vector[3:] - [0.0, 0.0, 0.3]

    def place(self, world: int, model: mujoco.MjModel, data: mujoco.MjData, vector: np.ndarray) -> None:
        self.start[world] = [*vector[:2], data.xpos[self._obj, 2]]
        mujoco.mj_forward(model, data)
        self.target[world] = model.site_pos[self.site("goal")] + self._body_pos[world]
        put(model, data, self.start[world], still=6)

    def prepare(self) -> None:
        super().prepare()
        self._caging = Caging(self.start, self.tcp_start, radius=0.02, pad_reach=0.05, xz_reach=0.01)

    def judge(self, seen: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        obj, opened, target = seen[:, 4:7], seen[:, 3], self.target
        to_target = length(obj - target)
        in_place = tolerance(to_target, _RADIUS, self.margin)
        cage = self._caging(self.pads, self.tcp, obj)
        single = closes_caged(cage, action)
        reward = rounded(single, lambda c, a, p: both(grasping(c, a), p), cage, closing(action), in_place)
        # Under the shelf's board: the nearer the goal from below, the less it is in place; behind the goal, not at all.
        below = (obj[:, 2] > 0.0) & (obj[:, 2] < 0.24) & (np.abs(obj[:, 0] - target[:, 0]) < 0.15)
        depth = (obj[:, 1] - (target[:, 1] - 3 * _RADIUS)) / (3 * _RADIUS)
        inside = np.clip(depth, 0.0, 1.0)
        loss = both(inside, np.clip((0.24 - obj[:, 2]) / 0.24, 0.0, 1.0))
        lessened = below & (depth > 0.0) & (depth < 1.0)
        in_place = np.where(lessened, np.clip(in_place - loss, 0.0, 1.0), in_place)
        in_place = np.where(below & (obj[:, 1] > target[:, 1]), 0.0, in_place)
        held = (length(obj - self.tcp) < 0.025) & (opened > 0) & (obj[:, 2] - 0.01 > self.start[:, 2])
        reward = rounded(single & ~lessened, np.add, reward, np.where(held, 1.0 + 5.0 * in_place, 0.0))
        return np.where(to_target < _RADIUS, 10.0, reward), to_target <= 0.07
