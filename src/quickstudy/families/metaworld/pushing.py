"""Tasks with one loose object: reach, push, pick-place, sweep, sweep-into, basketball, shelf-place."""

from typing import ClassVar

import mujoco
import numpy as np

from quickstudy.families.metaworld.port import Goal, Grip, Port, put
from quickstudy.families.metaworld.rewards import (
    both,
    closes_caged,
    closing,
    grasping,
    length,
    long_tail,
    pads_outside,
    rounded,
    secured,
    tolerance,
)

_RADIUS = 0.05


class _LooseObject(Port):
    """A free body 'obj' with the geom 'objGeom'; it starts on the table, the goal is the vector's second half."""

    reads = ("geom_xmat",)

    def find(self) -> None:
        self._obj, self._obj_geom = self.body("obj"), self.geom("objGeom")

    def objects(self) -> np.ndarray:
        return self.xpos[:, self._obj]

    def matrix(self) -> np.ndarray | None:
        return self.readings["geom_xmat"][:, self._obj_geom]


class Reach(_LooseObject):
    scene = "sawyer_reach_v3"
    goal_low, goal_high = (-0.1, 0.8, 0.05), (0.1, 0.9, 0.3)

    def prepare(self) -> None:
        super().prepare()
        self.margin[:] = self.away(self.hand)

    def thing(self, seen: np.ndarray) -> np.ndarray:
        return self.tcp

    def judge(self, seen: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return 10.0 * self.in_place, self.to_target <= _RADIUS


class Push(_LooseObject):
    scene = "sawyer_push_v3"
    goal_low, goal_high = (-0.1, 0.8, 0.01), (0.1, 0.9, 0.02)
    grip = Grip(lift=-np.inf)

    def place(self, world: int, model: mujoco.MjModel, data: mujoco.MjData, vector: np.ndarray) -> None:
        height = data.xpos[self._obj, 2]
        self.start[world], self.target[world] = [*vector[:2], height], [*vector[3:5], height]
        put(model, data, self.start[world], still=6)

    def judge(self, seen: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        def formula(cage: np.ndarray, closed: np.ndarray, near: np.ndarray) -> np.ndarray:
            grasped = grasping(cage, closed) + cage
            return np.where(self.held, grasped + (1.0 + grasped + near), grasped)

        single = closes_caged(self.cage, action)
        reward = rounded(single, formula, self.cage, closing(action), 5.0 * self.in_place)
        return np.where(self.to_target < _RADIUS, 10.0, reward), self.to_target <= _RADIUS


class PickPlace(_LooseObject):
    scene = "sawyer_pick_place_v3"
    goal_low, goal_high = (-0.1, 0.8, 0.05), (0.1, 0.9, 0.3)
    grip = Grip(one_sided=True)

    def judge(self, seen: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        def formula(cage: np.ndarray, closed: np.ndarray, in_place: np.ndarray, near: np.ndarray) -> np.ndarray:
            return both((grasping(cage, closed) + cage) / 2.0, in_place) + near

        near = np.where(self.held, 1.0 + 5.0 * self.in_place, 0.0)
        single = closes_caged(self.cage, action)
        reward = rounded(single, formula, self.cage, closing(action), self.in_place, near)
        return np.where(self.to_target < _RADIUS, 10.0, reward), self.to_target <= 0.07


class _Swept(_LooseObject):
    """The reward that both sweeping tasks have: gripping needs no closing, but closer pads."""

    closer: ClassVar[float]

    def _judge(self, seen: np.ndarray, in_place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        radius, reach = self.grip.radius, self.grip.pad_reach
        y = pads_outside(self.pads, self.start, seen[:, 4:7], radius, reach, one_sided=True, closer=self.closer)
        grasped = (self.cage + np.where(self.cage > 0.95, long_tail(np.vecdot(y, y)), 0.0)) / 2.0
        reward = 2.0 * grasped + 6.0 * both(grasped, in_place)
        return np.where(self.to_target < _RADIUS, 10.0, reward), self.to_target <= _RADIUS


class Sweep(_Swept):
    scene = "sawyer_sweep_v3"
    goal_low, goal_high = (0.49, 0.6, 0.0), (0.51, 0.7, 0.02)
    reads = ("xquat",)
    grip, closer = Grip(radius=0.02, one_sided=True), 0.03

    def place(self, world: int, model: mujoco.MjModel, data: mujoco.MjData, vector: np.ndarray) -> None:
        self.start[world], self.target[world] = [*vector[:2], 0.02], [0.5, vector[1], 0.01]
        put(model, data, self.start[world], still=6)

    def objects(self) -> np.ndarray:
        return np.concatenate([self.xpos[:, self._obj], self.readings["xquat"][:, self._obj]], axis=1)

    def matrix(self) -> None:
        return None

    def judge(self, seen: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._judge(seen, self.in_place)


class SweepInto(_Swept):
    scene = "sawyer_table_with_hole"
    goal_low, goal_high = (-0.001, 0.8399, 0.0199), (0.001, 0.8401, 0.0201)
    goal = Goal(weights=(1.0, 1.0, 0.0))  # how deep it fell does not count
    grip, closer = Grip(radius=0.02, xz_reach=0.01, one_sided=True), 0.025

    def place(self, world: int, model: mujoco.MjModel, data: mujoco.MjData, vector: np.ndarray) -> None:
        self.start[world], self.target[world] = [*vector[:2], data.xpos[self._obj, 2]], [0.0, 0.84, 0.02]
        put(model, data, self.start[world], still=6)

    def judge(self, seen: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        above = np.column_stack([self.target[:, :2], seen[:, 6]])
        return self._judge(seen, tolerance(self.to_target, _RADIUS, length(self.start - above)))


class Basketball(Port):
    scene = "sawyer_basketball"
    hand = np.array([0.0, 0.6, 0.2], np.float32)
    goal_low, goal_high = (-0.1, 0.767, 0.2499), (0.1, 0.9 + 1e-7 - 0.083, 0.2501)
    moved = "basket_goal"
    reads = ("xquat",)
    goal = Goal(reach=0.08, weights=(1.0, 1.0, 2.0))
    grip = Grip(radius=0.025, pad_reach=0.06, near=0.035)

    def find(self) -> None:
        self._ball = self.body("bsktball")

    def place(self, world: int, model: mujoco.MjModel, data: mujoco.MjData, vector: np.ndarray) -> None:
        self.start[world] = [*vector[:2], np.float32(0.03)]
        put(model, data, self.start[world], still=6)
        self.target[world] = data.site_xpos[self.site("goal")]

    def prepare(self) -> None:
        super().prepare()
        self.aim[:, 2] = 0.3
        self.margin[:] = self.away(self.start)

    def objects(self) -> np.ndarray:
        return np.concatenate([self.xpos[:, self._ball], self.readings["xquat"][:, self._ball]], axis=1)

    def judge(self, seen: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        grasped = secured(self.held, self.cage, closing(action))
        reward = both(grasped, self.in_place) + np.where(self.held, 1.0 + 5.0 * self.in_place, 0.0)
        return np.where(self.to_target < 0.08, 10.0, reward), self.to_target <= 0.08


class ShelfPlace(_LooseObject):
    scene = "sawyer_shelf_placing"
    hand = np.array([0.0, 0.6, 0.2], np.float32)
    goal_low, goal_high = (-0.1, 0.8, 0.299), (0.1, 0.9, 0.301)
    moved = "shelf"
    grip = Grip(radius=0.02, xz_reach=0.01, near=0.025)

    def body_place(self, vector: np.ndarray) -> np.ndarray:
        return vector[3:] - [0.0, 0.0, 0.3]

    def place(self, world: int, model: mujoco.MjModel, data: mujoco.MjData, vector: np.ndarray) -> None:
        self.start[world] = [*vector[:2], data.xpos[self._obj, 2]]
        mujoco.mj_forward(model, data)
        self.target[world] = model.site_pos[self.site("goal")] + self._body_pos[world]
        put(model, data, self.start[world], still=6)

    def judge(self, seen: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        obj, target, in_place = seen[:, 4:7], self.target, self.in_place
        single = closes_caged(self.cage, action)
        reward = rounded(single, lambda c, a, p: both(grasping(c, a), p), self.cage, closing(action), in_place)
        # Under the shelf's board: the nearer the goal from below, the less it is in place; behind the goal, not at all.
        below = (obj[:, 2] > 0.0) & (obj[:, 2] < 0.24) & (np.abs(obj[:, 0] - target[:, 0]) < 0.15)
        depth = (obj[:, 1] - (target[:, 1] - 3 * _RADIUS)) / (3 * _RADIUS)
        inside = np.clip(depth, 0.0, 1.0)
        loss = both(inside, np.clip((0.24 - obj[:, 2]) / 0.24, 0.0, 1.0))
        lessened = below & (depth > 0.0) & (depth < 1.0)
        in_place = np.where(lessened, np.clip(in_place - loss, 0.0, 1.0), in_place)
        in_place = np.where(below & (obj[:, 1] > target[:, 1]), 0.0, in_place)
        reward = rounded(single & ~lessened, np.add, reward, np.where(self.held, 1.0 + 5.0 * in_place, 0.0))
        return np.where(self.to_target < _RADIUS, 10.0, reward), self.to_target <= 0.07
