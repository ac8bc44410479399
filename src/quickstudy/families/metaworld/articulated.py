"""Tasks with something that slides or turns: doors, drawers, a window, a button, a lever."""

import mujoco
import numpy as np

from quickstudy.families.metaworld.port import Goal, Port, put
from quickstudy.families.metaworld.rewards import both, closes, closing, length, rounded, tolerance

_DOOR, _GRIP = np.array([-0.05, 0.0, 0.0]), np.array([0.05, 0.03, -0.01])
_DRAWER_WEIGHTS = np.array([3.0, 3.0, 1.0])
_OPEN_HANDLE, _CLOSED_HANDLE = np.array([0.0, -0.16, 0.0]), np.array([0.0, -0.16, 0.05])
_TOP = np.array([0.0, 0.0, 0.193])
_LEVER_OFFSET, _LEVER_WEIGHTS = np.array([0.0, 0.055, 0.07]), np.array([4.0, 1.0, 4.0])


class _Door(Port):
    scene = "sawyer_door_pull"
    moved = "door"
    reads = ("xmat", "qpos")

    def find(self) -> None:
        self._handle = self.mesh("handle")
        self._hinge = int(self.model.joint("doorjoint").qposadr[0])

    def objects(self) -> np.ndarray:
        return self._handle.position(self.xpos, self.readings["xmat"])

    def matrix(self) -> np.ndarray:
        return self._handle.matrix(self.readings["xmat"])


class DoorOpen(_Door):
    goal_low, goal_high = (-0.3, 0.4, 0.1499), (-0.2, 0.5, 0.1501)

    def place(self, world: int, model: mujoco.MjModel, data: mujoco.MjData, vector: np.ndarray) -> None:
        self.start[world], self.target[world] = vector, vector + [-0.3, -0.45, 0.0]
        put(model, data, [0.0], self._hinge, still=1)

    def judge(self, seen: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        hand, door, angle = seen[:, :3], seen[:, 4:7] + _DOOR, self.readings["qpos"][:, self._hinge]
        # The hand must come from above, in a funnel whose wall leads to the handle.
        aside = length((hand - door)[:, :2])
        floor = np.where(aside > 0.12, 0.04 * np.log(np.maximum(aside - 0.12, 1e-30)) + 0.4, 0.0)
        below = tolerance(floor - hand[:, 2], 0.01, floor / 2.0)
        above_floor = np.where(hand[:, 2] >= floor, 1.0, below)
        near = tolerance(length(hand - door - _GRIP), 0.06, 0.5)
        opened = tolerance(2.0 * np.pi / 3.0 + angle, 0.5, np.pi / 3.0)
        effort = (np.minimum(np.maximum(action[:, 3], -1.0), 1.0) + 1.0) / 2.0
        reward = 2.0 * both(both(above_floor, near), effort) + 8.0 * (0.2 * (angle < -np.pi / 90.0) + 0.8 * opened)
        success = np.abs(seen[:, 4] - self.target[:, 0]) <= 0.08
        return np.where(success, 10.0, reward), success


class DoorClose(_Door):
    hand = np.array([-0.5, 0.6, 0.2], np.float32)
    goal_low, goal_high = (0.2, 0.65, 0.1499), (0.3, 0.75, 0.1501)

    def place(self, world: int, model: mujoco.MjModel, data: mujoco.MjData, vector: np.ndarray) -> None:
        self.start[world], self.target[world] = vector, vector + [0.2, -0.2, 0.0]
        put(model, data, [-1.5708], self._hinge, still=1)

    def judge(self, seen: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        in_place = tolerance(self.to_target, 0.05, self.margin, falls="gaussian")
        margin = length(self.hand - seen[:, 4:7]) + 0.1
        hand_in_place = tolerance(length(self.tcp - self.target), 0.0125, margin, falls="gaussian")
        return np.where(self.to_target < 0.05, 10.0, 3.0 * hand_in_place + 6.0 * in_place), self.to_target <= 0.08


class _Drawer(Port):
    scene = "sawyer_drawer"
    hand = np.array([0.0, 0.6, 0.2], np.float32)
    goal_low, goal_high = Port.hand_low, Port.hand_high
    moved = "drawer"
    reads = ("xquat",)

    def find(self) -> None:
        self._link = self.body("drawer_link")


class DrawerOpen(_Drawer):
    goal = Goal(reach=0.02)

    def place(self, world: int, model: mujoco.MjModel, data: mujoco.MjData, vector: np.ndarray) -> None:
        self.start[world], self.target[world] = vector, vector + [0.0, -0.16 - 0.2, 0.09]

    def prepare(self) -> None:
        super().prepare()
        self.margin[:] = 0.2
        closed = self.target + [0.0, 0.2, 0.0]
        self._near_margin = length((closed - self.tcp_start) * _DRAWER_WEIGHTS)

    def objects(self) -> np.ndarray:
        handle = self.xpos[:, self._link] + _OPEN_HANDLE
        return np.concatenate([handle, self.readings["xquat"][:, self._link]], axis=1)

    def judge(self, seen: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        hand, handle = seen[:, :3], seen[:, 4:7]
        near = tolerance(length((handle - hand) * _DRAWER_WEIGHTS), 0.01, self._near_margin)
        return 5.0 * (near + self.in_place), self.to_target <= 0.03


class DrawerClose(_Drawer):
    def place(self, world: int, model: mujoco.MjModel, data: mujoco.MjData, vector: np.ndarray) -> None:
        self.target[world] = vector + [0.0, -0.16, 0.09]
        put(model, data, [-0.15])
        self.start[world] = data.xpos[self._link] + _CLOSED_HANDLE

    def prepare(self) -> None:
        super().prepare()
        self.margin[:] = np.abs(self.away(self.start) - 0.05)
        self._reach_margin = np.abs(length(self.start - self.tcp_start) - 0.005)

    def objects(self) -> np.ndarray:
        return self.xpos[:, self._link] + _CLOSED_HANDLE

    def judge(self, seen: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        reach = tolerance(length(seen[:, 4:7] - self.tcp), 0.005, self._reach_margin, falls="gaussian")
        success = self.to_target <= 0.065

        def formula(reach: np.ndarray, closed: np.ndarray, in_place: np.ndarray) -> np.ndarray:
            return 10.0 * both(both(reach, closed), in_place)

        reward = rounded(closes(action), formula, reach, closing(action), self.in_place)
        return np.where(success, 10.0, reward), success


class WindowOpen(Port):
    scene = "sawyer_window_horizontal"
    hand = np.array([0.0, 0.4, 0.2], np.float32)
    goal_low, goal_high = Port.hand_low, Port.hand_high
    moved = "window"
    goal = Goal(weights=(1.0, 0.0, 0.0))

    def find(self) -> None:
        self._handle = self.site("handleOpenStart")
        self._handle_start = np.zeros((len(self.data), 3))

    def place(self, world: int, model: mujoco.MjModel, data: mujoco.MjData, vector: np.ndarray) -> None:
        self.start[world], self.target[world] = vector, vector + [0.2, 0.0, 0.0]
        self._handle_start[world] = data.site_xpos[self._handle]
        data.joint("window_slide").qpos = 0.0

    def prepare(self) -> None:
        super().prepare()
        self.margin[:] = np.abs(self.away(self.start) - 0.05)
        self._reach_margin = np.abs(length(self._handle_start - self.tcp_start) - 0.02)

    def objects(self) -> np.ndarray:
        return self.site_xpos[:, self._handle]

    def judge(self, seen: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        reach = tolerance(length(seen[:, 4:7] - self.tcp), 0.02, self._reach_margin)
        return 10.0 * both(reach, self.in_place), self.to_target <= 0.05


class ButtonPressTopdown(Port):
    scene = "sawyer_button_press_topdown"
    hand = np.array([0.0, 0.4, 0.2], np.float32)
    goal_low, goal_high = Port.hand_low, Port.hand_high
    moved = "box"
    reads = ("xquat",)
    goal = Goal(reach=0.005, weights=(0.0, 0.0, 1.0))

    def find(self) -> None:
        self._button, self._unpressed = self.body("button"), np.zeros((len(self.data), 3))

    def place(self, world: int, model: mujoco.MjModel, data: mujoco.MjData, vector: np.ndarray) -> None:
        mujoco.mj_forward(model, data)
        self.start[world], self.target[world] = vector, data.site_xpos[self.site("hole")]
        self._unpressed[world] = data.site_xpos[self.site("buttonStart")]

    def prepare(self) -> None:
        super().prepare()
        self.margin[:] = self.away(self._unpressed)

    def objects(self) -> np.ndarray:
        top = self.xpos[:, self._button] + _TOP
        return np.concatenate([top, self.readings["xquat"][:, self._button]], axis=1)

    def judge(self, seen: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        top = seen[:, 4:7]
        to_top = length(top - self.tcp)
        near = tolerance(to_top, 0.01, length(top - self.tcp_start))
        reward = 5.0 * both(1.0 - seen[:, 3], near)
        return np.where(to_top <= 0.03, reward + 5.0 * self.in_place, reward), self.to_target <= 0.024


class LeverPull(Port):
    scene = "sawyer_lever_pull"
    hand = np.array([0.0, 0.4, 0.2], np.float32)
    hand_low = (-0.5, 0.40, -0.15)
    goal_low, goal_high = hand_low, Port.hand_high
    moved = "lever"
    goal = Goal(reach=0.04)
    reads = ("qpos", "xmat")

    def find(self) -> None:
        self._end, self._lever = self.site("leverStart"), self.mesh("objGeom")
        self._axis = int(self.model.joint("LeverAxis").qposadr[0])
        self._lever_start = np.zeros((len(self.data), 3))

    def place(self, world: int, model: mujoco.MjModel, data: mujoco.MjData, vector: np.ndarray) -> None:
        self.start[world], self.target[world] = vector, vector + [0.12, 0.0, 0.25 + 0.2]
        self._lever_start[world] = vector + [0.12, -0.2, 0.25]

    def prepare(self) -> None:
        super().prepare()
        self.margin[:] = self.away(self._lever_start)
        self._ready_margin = self._apart(self.tcp_start, self._lever_start)

    def _apart(self, hand: np.ndarray, lever: np.ndarray) -> np.ndarray:
        return length((hand + _LEVER_OFFSET - lever) * _LEVER_WEIGHTS)

    def objects(self) -> np.ndarray:
        return self.site_xpos[:, self._end]

    def matrix(self) -> np.ndarray:
        return self._lever.matrix(self.readings["xmat"])

    def judge(self, seen: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ready = tolerance(self._apart(seen[:, :3], seen[:, 4:7]), 0.02, self._ready_margin)
        upright = np.abs(-self.readings["qpos"][:, self._axis] - np.pi / 2.0)
        return 10.0 * both(ready, self.in_place), upright <= np.pi / 24.0
