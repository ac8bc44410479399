"""Tasks that are done with a tool: hammer, stick-push, stick-pull, peg-insert-side, assembly."""

from abc import abstractmethod

import mujoco
import numpy as np

from quickstudy.families.metaworld.port import Goal, Grip, Port, Tool, put
from quickstudy.families.metaworld.rewards import (
    both,
    closes_caged,
    closing,
    grasping,
    in_prism,
    length,
    rounded,
    secured,
    tolerance,
)

_HEAD, _HELD_AT, _TO_THERMOS = np.array([0.16, 0.06, 0.0]), np.array([0.015, 0.0, 0.0]), np.array([0.05, 0.0, 0.0])
_TWICE_IN_HEIGHT = np.array([1.0, 1.0, 2.0])


def _flat_to(thing: np.ndarray, hand: np.ndarray, reach: float) -> np.ndarray:
    """A long handle as a point: where the hand is along x, if that is within `reach` of the thing."""
    x = np.where(np.abs(thing[:, 0] - hand[:, 0]) < reach, hand[:, 0], thing[:, 0])
    return np.column_stack([x, thing[:, 1:]])


class Hammer(Port):
    scene = "sawyer_hammer"
    hand = np.array([0.0, 0.4, 0.2])
    goal_low, goal_high = (0.2399, 0.7399, 0.109), (0.2401, 0.7401, 0.111)
    reads = ("xquat", "qpos")
    tool_length = 0.16
    goal = Goal(reach=0.02)
    grip = Grip(pad_reach=0.02, xz_reach=0.01)

    @classmethod
    def shape(cls, spec: mujoco.MjSpec, tool: Tool) -> None:
        longer = cls.tool_length * (tool.length - 1.0)
        for geom in spec.body("hammer").geoms:
            handle = geom.type == mujoco.mjtGeom.mjGEOM_CAPSULE
            geom.pos[0] += longer / 2.0 if handle else longer
            if handle:
                geom.size[:2] = [geom.size[0] * tool.width, geom.size[1] + longer / 2.0]

    def find(self) -> None:
        self._seen = [self.body("hammer"), self.body("nail_link")]
        self._nail = int(self.model.joint("NailSlideJoint").qposadr[0])

    def place(self, world: int, model: mujoco.MjModel, data: mujoco.MjData, vector: np.ndarray) -> None:
        self.start[world], self.target[world] = vector, data.site_xpos[self.site("goal")]
        put(model, data, vector, still=6)

    def prepare(self) -> None:
        super().prepare()
        self.margin[:] = 0.2

    def thing(self, seen: np.ndarray) -> np.ndarray:
        return seen[:, 4:7] + _HEAD + self.longer

    def gripped(self, seen: np.ndarray) -> np.ndarray:
        return _flat_to(seen[:, 4:7], seen[:, :3], 0.07)

    def objects(self) -> np.ndarray:
        seen = np.concatenate([self.xpos[:, self._seen], self.readings["xquat"][:, self._seen]], axis=2)
        return seen.reshape(-1, 14)

    def judge(self, seen: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        flat = np.maximum(1.0 - length(seen[:, 7:11] - [1.0, 0.0, 0.0, 0.0]) / 0.4, 0.0)
        in_place = 0.1 * (seen[:, 6] > 0.02) + 0.9 * self.in_place

        def formula(cage: np.ndarray, closed: np.ndarray, near: np.ndarray, flat: np.ndarray) -> np.ndarray:
            return (grasping(cage, closed) + cage + near) * flat

        single = closes_caged(self.cage, action)
        reward = rounded(single, formula, self.cage, closing(action), 6.0 * in_place, flat)
        success = self.readings["qpos"][:, self._nail] > 0.09
        return np.where(success & (reward > 5.0), 10.0, reward), success


class _Stick(Port):
    """A stick and a thermos that slides on the table; the goal's height is the task's own."""

    scene = "sawyer_stick_obj"
    reads = ("xmat",)
    tool_length = 0.05
    thermos: tuple[float, float]
    insertion_offset: tuple[float, float, float]

    def find(self) -> None:
        self._stick, self._thermos, self._insertion = self.body("stick"), self.body("object"), self.site("insertion")
        self._end = self.site("stick_end")
        self._thermos_start, self._no_turn = np.zeros((len(self.data), 3)), np.zeros((len(self.data), 4))

    @classmethod
    def shape(cls, spec: mujoco.MjSpec, tool: Tool) -> None:
        spec.geom("objGeom").size = [0.05 * tool.length, 0.02 * tool.width, 0.02]
        spec.site("stick_end").pos = [0.05 * tool.length, 0.0, 0.0]

    def drawn_body(self, model: mujoco.MjModel) -> int:
        return int(model.geom_bodyid[model.geom("objGeom").id])

    @abstractmethod
    def goal_height(self, data: mujoco.MjData) -> float:
        """Where the goal is above the table, metres."""

    def place(self, world: int, model: mujoco.MjModel, data: mujoco.MjData, vector: np.ndarray) -> None:
        self.start[world], self.target[world] = [*vector[:2], 0.02], [*vector[3:5], self.goal_height(data)]
        put(model, data, self.start[world], still=6)
        put(model, data, self.thermos, joint=16, still=2)
        self._thermos_start[world] = data.xpos[self._thermos]

    def objects(self) -> np.ndarray:
        handle = self.site_xpos[:, self._insertion] + self.insertion_offset
        return np.concatenate([self.xpos[:, self._stick], self._no_turn, handle], axis=1)  # the turn is from `matrix`

    def matrix(self) -> np.ndarray:
        return self.readings["xmat"][:, self._stick]


class StickPush(_Stick):
    goal_low, goal_high = (0.399, 0.55, 0.1319), (0.401, 0.6, 0.1321)
    thermos, insertion_offset = (0.0, 0.0), (0.0, 0.09, 0.0)
    goal, grip = Goal(reach=0.12), Grip(radius=0.04, xz_reach=0.01)

    def goal_height(self, data: mujoco.MjData) -> float:
        return float(data.site_xpos[self._insertion, 2])

    def prepare(self) -> None:
        super().prepare()
        self._stick_margin = self.away(self.start) - 0.12
        self.margin[:] = self.away(self._thermos_start) - 0.12

    def thing(self, seen: np.ndarray) -> np.ndarray:
        return seen[:, 11:14]

    def gripped(self, seen: np.ndarray) -> np.ndarray:
        return seen[:, 4:7] + _HELD_AT

    def judge(self, seen: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        stick_in_place = tolerance(self.away(self.gripped(seen)), 0.12, self._stick_margin)
        there = self.to_target <= 0.12
        reward = np.where(
            self.held,
            2.0 + 5.0 * stick_in_place + 3.0 * self.in_place,
            (grasping(self.cage, closing(action)) + self.cage) / 2.0,
        )
        lifted = (seen[:, 3] > 0) & (seen[:, 6] - 0.01 > self.start[:, 2])
        success = there & lifted
        for world in np.flatnonzero(success):
            success[world] = self._touched(int(world))
        return np.where(self.held & there, 10.0, reward), success

    def _touched(self, world: int) -> bool:
        """Whether both pads press on the stick."""
        data, stick = self.data[world], self.geom("objGeom")
        pairs, rows = data.contact.geom, data.contact.efc_address
        with_stick = (pairs == stick).any(1)
        forces = [
            data.efc_force[rows[with_stick & (pairs == self.geom(pad)).any(1)]].sum()
            for pad in ("leftpad_geom", "rightpad_geom")
        ]
        return min(forces) > 0


class StickPull(_Stick):
    hand_low = (-0.5, 0.35, 0.05)
    goal_low, goal_high = (0.35, 0.45, 0.0199), (0.45, 0.55, 0.0201)
    thermos, insertion_offset = (0.0, 0.09), (0.0, 0.0, 0.0)
    grip = Grip(radius=0.014, xz_reach=0.01)

    def goal_height(self, data: mujoco.MjData) -> float:
        return 0.02

    def prepare(self) -> None:
        super().prepare()
        self.grip_start[:] = self._thermos_start  # as in the package: not the stick's start
        self._stick_margin = self.margin.copy()
        self.margin[:] = self.away(self._thermos_start)
        self._near_margin = self._apart(self.start, self._thermos_start + _TO_THERMOS)

    def thing(self, seen: np.ndarray) -> np.ndarray:
        return seen[:, 11:14] + _TO_THERMOS

    def _apart(self, stick: np.ndarray, thermos: np.ndarray) -> np.ndarray:
        return length((stick + self.longer - thermos) * _TWICE_IN_HEIGHT)

    def judge(self, seen: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        stick, handle, held = seen[:, 4:7], seen[:, 11:14], self.held
        near = tolerance(self._apart(stick, self.thing(seen)), 0.05, self._near_margin)
        stick_in_place = tolerance(self.away(stick), 0.05, self._stick_margin)
        reward = both(secured(held, self.cage, closing(action)), near)
        beyond = self.site_xpos[:, self._end] - handle
        inserted = (beyond[:, 0] >= 0) & (np.abs(beyond[:, 1]) <= 0.04) & (np.abs(beyond[:, 2]) <= 0.06)
        there = self.away(handle) <= 0.12
        pulled = np.where(there, 10.0, 6.0 + reward + 2.0 * stick_in_place + self.in_place)
        return np.where(held, np.where(inserted, pulled, 1.0 + reward + 5.0 * near), reward), there & inserted


class PegInsertSide(Port):
    scene = "sawyer_peg_insertion_side"
    goal_low, goal_high = (-0.35 + 0.03, 0.4, -0.001 + 0.13), (-0.25 + 0.03, 0.7, 0.001 + 0.13)
    moved = "box"
    reads = ("site_xmat",)
    tool_length = -0.12
    goal = Goal(reach=0.07, weights=(1.0, 2.0, 2.0))
    grip = Grip(radius=0.0075, pad_reach=0.03, near=0.08)

    @classmethod
    def shape(cls, spec: mujoco.MjSpec, tool: Tool) -> None:
        half = 0.12 * tool.length
        spec.geom("peg").size = [0.015, 0.015 * tool.width, half]
        spec.site("pegHead").pos, spec.site("pegEnd").pos = [0.02 - half, 0.0, 0.0], [half - 0.02, 0.0, 0.0]

    def find(self) -> None:
        self._grasp, self._head = self.site("pegGrasp"), self.site("pegHead")
        self._zeros = [self.site(f"bottom_right_corner_collision_box_{box}") for box in (1, 2)]
        self._ones = [self.site(f"top_left_corner_collision_box_{box}") for box in (1, 2)]
        self._head_start = np.zeros((len(self.data), 3))

    def place(self, world: int, model: mujoco.MjModel, data: mujoco.MjData, vector: np.ndarray) -> None:
        self._head_start[world] = data.site_xpos[self._head]
        self.start[world], self.target[world] = vector[:3], vector[3:] + [0.03, 0.0, 0.13]
        put(model, data, self.start[world], still=6)

    def prepare(self) -> None:
        super().prepare()
        self.margin[:] = self.away(self._head_start)

    def objects(self) -> np.ndarray:
        return self.site_xpos[:, self._grasp]

    def matrix(self) -> np.ndarray:
        return self.readings["site_xmat"][:, self._grasp]

    def thing(self, seen: np.ndarray) -> np.ndarray:
        return self.site_xpos[:, self._head]

    def judge(self, seen: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        head = self.site_xpos[:, self._head, None]
        free = in_prism(head, self.site_xpos[:, self._zeros], self.site_xpos[:, self._ones])
        in_place = both(self.in_place, both(free[:, 1], free[:, 0]))
        reward = both(secured(self.held, self.cage, closing(action)), in_place)
        reward = np.where(self.held, reward + 1.0 + 5.0 * in_place, reward)
        success = self.to_target <= 0.07
        return np.where(success, 10.0, reward), success


class Assembly(Port):
    scene = "sawyer_assembly_peg"
    hand = np.array([0.0, 0.6, 0.2], np.float32)
    goal_low, goal_high = (-0.1, 0.75, 0.1), (0.1, 0.85, 0.1)
    moved = "peg"
    reads = ("xquat",)
    tool_length = -0.13
    grip = Grip(pad_reach=0.02, xz_reach=0.01)

    @classmethod
    def shape(cls, spec: mujoco.MjSpec, tool: Tool) -> None:
        longer = cls.tool_length * (tool.length - 1.0)  # of the wrench, whose handle is along its own -y
        for geom in spec.site("RoundNut-8").parent.geoms:
            if geom.type == mujoco.mjtGeom.mjGEOM_BOX:
                geom.pos[1] += longer
                geom.size[0] *= tool.width
            elif geom.type == mujoco.mjtGeom.mjGEOM_CYLINDER:
                geom.pos[1] += longer / 2.0
                geom.size[1] -= longer / 2.0
        spec.site("RoundNut-8").pos = [0.0, -0.13 + longer, 0.0]

    def drawn_body(self, model: mujoco.MjModel) -> int:
        return int(model.site_bodyid[model.site("RoundNut-8").id])

    def find(self) -> None:
        self._handle, self._ring, self._nut = self.site("RoundNut-8"), self.site("RoundNut"), self.body("RoundNut")

    def body_place(self, vector: np.ndarray) -> np.ndarray:
        return vector[-3:] - [0.0, 0.0, 0.05]

    def prepare(self) -> None:
        super().prepare()
        self._reach_margin = np.abs(length(self.start - self.tcp_start) - 0.01)

    def gripped(self, seen: np.ndarray) -> np.ndarray:
        return _flat_to(seen[:, 4:7], seen[:, :3], 0.01)

    def objects(self) -> np.ndarray:
        return np.concatenate([self.site_xpos[:, self._handle], self.readings["xquat"][:, self._nut]], axis=1)

    def judge(self, seen: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ring = self.site_xpos[:, self._ring]
        flat = np.maximum(1.0 - length(seen[:, 7:11] - [0.707, 0.0, 0.0, 0.707]) / 0.4, 0.0)
        reach = tolerance(length(self.gripped(seen) - self.tcp), 0.01, self._reach_margin)
        error = self.target - ring
        aside = length(error[:, :2])
        success = (aside < 0.02) & (error[:, 2] > 0.0)
        # The ring must come from above, in a funnel that widens once it is over the peg.
        wall = np.where(success, 0.02, 0.01)
        height = np.where(aside > wall, 0.02 * np.log(np.maximum(aside - wall, 1e-30)) + 0.2, 0.0)
        error = np.column_stack([error[:, :2], 3.0 * (height - ring[:, 2])])
        lifted = (ring[:, 2] > 0.02) | (aside < wall)
        in_place = 0.1 * lifted + 0.9 * tolerance(length(error), 0.02, 0.4)

        def formula(
            cage: np.ndarray, closed: np.ndarray, reach: np.ndarray, near: np.ndarray, flat: np.ndarray
        ) -> np.ndarray:
            return (grasping(cage, closed) + reach + near) * flat

        single = closes_caged(self.cage, action)
        reward = rounded(single, formula, self.cage, closing(action), reach, 6.0 * in_place, flat)
        return np.where(success, 10.0, reward), success
