"""Where a task is played: two robots of one task side by side, one that learns and one to compare it with.

A family gets an `Arena` of its own for what differs: what the handle means, where it may go, and what was wrong with a
demonstration. Everything else of the studio is alike for all families.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import mujoco
import numpy as np

from quickstudy.families.base import SimulatedFamily
from quickstudy.families.grasping.arm import TABLE_CENTRE
from quickstudy.families.grasping.family import TRAIN_SHAPES
from quickstudy.families.grasping.scene import rotate
from quickstudy.families.grasping.vector_env import LIFT, OBSERVATION_SCALE, GraspingVectorEnv
from quickstudy.families.navigation import layouts
from quickstudy.families.navigation.layouts import HALF
from quickstudy.families.navigation.planner import plan
from quickstudy.families.navigation.tasks import draw
from quickstudy.families.navigation.vector_env import NavigationVectorEnv, shortest_way
from quickstudy.simulation.vector_env import StepResult
from quickstudy.studio.demonstrating import drive_action, hand_action
from quickstudy.task import Task

Said = tuple[str, Mapping[str, Any]]
"""A sentence by its key in `quickstudy.studio.words`, and the values in it."""

LEARNER, BESIDE = 0, 1
"""The two robots."""


@dataclass
class Handle:
    """What a person moves.

    Attributes:
        place: [3] metres.
        yaw: radians.
        grip: from -1, open, to 1, closed.
    """

    place: np.ndarray
    yaw: float = 0.0
    grip: float = -1.0


class Arena(ABC):
    """Two environments of one task.

    Attributes:
        family, task: which is played.
        env: of the two robots.
        grips: whether an action's last number is a gripper.
        turns: whether the handle's yaw means something.
        speed, show_speed: how many times faster than the clock tries are shown, and a person demonstrates.
        mark: a place that is marked green for people [3], where there is something that they alone know.
        apart: where the second robot is drawn, metres from the first [3].
        shared: bodies that are drawn once for both.
        label_at: where a robot's name is written above it; None where the two are in one place.
        eye, centre: where the camera is first, and what it looks at; `wide_eye` and `wide_centre` with two robots.
    """

    name: ClassVar[str]
    grips: ClassVar[bool]
    turns: ClassVar[bool]
    speed: ClassVar[float]
    show_speed: ClassVar[float]
    apart: ClassVar[tuple[float, float, float]]
    shared: ClassVar[tuple[str, ...]] = ()
    eye: ClassVar[tuple[float, float, float]]
    centre: ClassVar[tuple[float, float, float]]
    wide_eye: ClassVar[tuple[float, float, float]]
    wide_centre: ClassVar[tuple[float, float, float]]
    handle_size: ClassVar[float]
    label_at: ClassVar[tuple[float, float, float] | None] = None
    mark: np.ndarray | None = None
    family: SimulatedFamily
    env: Any

    def __init__(self, family: SimulatedFamily, task: Task) -> None:
        self.family, self.task = family, task
        self.env = family.vector_env([task], 2, visual=True)

    @property
    def model(self) -> mujoco.MjModel:
        model: mujoco.MjModel = self.env.worlds.models[0]
        return model

    def reset(self, seed: Sequence[int], demonstrating: bool = False, disturbance: float = 0.0) -> np.ndarray:
        """Both robots begin alike; observations [2, obs]. Without a disturbance a demonstration has no noise at all."""
        generators = [np.random.default_rng(list(seed)) for _ in range(2)]
        self.env.demonstrating = demonstrating
        observations = self.env.reset(generators, None, disturbance)
        if demonstrating and not disturbance:
            self.env.noise[:] = 0.0
        return np.asarray(observations[0])

    def step(self, actions: np.ndarray, active: np.ndarray) -> StepResult:
        """One step with actions [2, act] of the robots that are active [2]."""
        return self.env.step(actions[None], active[None])

    @property
    def observations(self) -> np.ndarray:
        """[2, obs]."""
        return np.asarray(self.env.observations[0])

    def passed(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The poses on the way of the last step, the last of them where everything is now."""
        return [self.poses()]

    def poses(self) -> tuple[np.ndarray, np.ndarray]:
        """Places [2, body, 3] and quaternions [2, body, 4] of all bodies."""
        data = self.env.worlds.data
        return np.stack([d.xpos for d in data]), np.stack([d.xquat for d in data])

    def success(self, robot: int) -> bool:
        """Whether a robot has done the task."""
        return bool(self.env.success[robot])

    def caption(self, name: Callable[[str], str]) -> str:
        """What the task is called, with its kind translated by `name`."""
        kind, *more = self.family.caption(self.task).split(", ")
        return ", ".join([name(kind.replace(" ", "_")), *more])

    def close(self) -> None:
        self.env.close()

    @abstractmethod
    def handle(self) -> Handle:
        """The handle where the first robot is."""

    @abstractmethod
    def follow(self, handle: Handle) -> np.ndarray:
        """The action [act] by which the first robot follows the handle."""

    @abstractmethod
    def limits(self) -> tuple[tuple[float, float], ...]:
        """Where the handle may go, along x, y and z, metres."""

    @abstractmethod
    def shown_at(self, observations: np.ndarray) -> np.ndarray:
        """Where in the world of the first robot demonstrated observations [step, obs] are now, [step, 3]."""

    @abstractmethod
    def faults(self, success: bool, observations: np.ndarray, actions: np.ndarray) -> list[Said]:
        """What was wrong with a demonstration of the first robot; nothing where it is fine."""

    @staticmethod
    @abstractmethod
    def sliders() -> Mapping[str, tuple[float, float, float, float]]:
        """What of a task a person may choose: lowest, highest, step and first value, by its word's key."""

    @staticmethod
    @abstractmethod
    def kinds() -> tuple[str, ...]:
        """The shapes or styles that a person may choose."""

    @staticmethod
    @abstractmethod
    def made(kind: str, values: Mapping[str, float], rng: np.random.Generator) -> Mapping[str, Any]:
        """The parameters of a task of a person's own choice."""


class GraspingArena(Arena):
    """An object on a table each."""

    name, grips, turns, speed, apart = "grasping", True, True, 1.5, (1.05, 0.0, 0.0)
    show_speed, label_at = 1.0, (0.0, 0.6, 0.62)
    eye, centre, handle_size = (0.40, 1.42, 0.78), (0.0, 0.56, 0.10), 0.16
    wide_eye, wide_centre = (0.55, 2.2, 1.05), (0.52, 0.55, 0.12)
    env: GraspingVectorEnv

    def handle(self) -> Handle:
        return Handle(self.env.target[0].copy(), float(self.env.target_yaw[0]), float(np.sign(self.env.grip[0] + 1e-9)))

    def follow(self, handle: Handle) -> np.ndarray:
        return hand_action(self.env, 0, handle.place, handle.yaw, handle.grip)

    def limits(self) -> tuple[tuple[float, float], ...]:
        x, y, _ = TABLE_CENTRE
        return ((x - 0.18, x + 0.18), (y - 0.18, y + 0.18), (0.01, 0.32))

    def shown_at(self, observations: np.ndarray) -> np.ndarray:
        places = observations[:, :3] * OBSERVATION_SCALE[:3]
        tag, yaw = self.env.read("tag")[0], self.env.tag_yaw()[0]
        return np.column_stack([rotate(places[:, :2], np.full(len(places), yaw)) + tag[:2], places[:, 2] + tag[2]])

    def faults(self, success: bool, observations: np.ndarray, actions: np.ndarray) -> list[Said]:
        raw = observations * OBSERVATION_SCALE
        closed = actions[:, 4] > 0
        found: list[Said] = []
        if not closed.any():
            found.append(("never_closed", {}))
        elif raw[:, 6].max() < 0.1:
            p = self.task.parameters
            first = int(closed.argmax())
            off = np.hypot(raw[first, 0] - p["grasp_x"], raw[first, 1] - p["grasp_y"])
            up = raw[first, 2] - p["grasp_height"]
            found.append(("closed_beside", {"aside": 100 * float(off), "above": 100 * float(max(up, 0.0))}))
        elif self.env.slipped[0]:
            found.append(("slipped", {}))
        elif not success and raw[:, 7].max() < LIFT:
            found.append(("not_lifted", {"height": 100 * float(max(raw[:, 7].max(), 0.0))}))
        elif not success:
            found.append(("not_held", {}))
        if int(np.abs(np.diff(closed.astype(int))).sum()) > 1:
            found.append(("gripper_twice", {"times": int(np.abs(np.diff(closed.astype(int))).sum())}))
        return found

    @staticmethod
    def sliders() -> Mapping[str, tuple[float, float, float, float]]:
        return {
            "width": (0.02, 0.08, 0.001, 0.045),
            "height": (0.03, 0.10, 0.001, 0.05),
            "length": (0.03, 0.16, 0.001, 0.12),
            "mass": (0.05, 0.6, 0.01, 0.25),
            "friction": (0.3, 1.2, 0.01, 0.8),
        }

    @staticmethod
    def kinds() -> tuple[str, ...]:
        return (*TRAIN_SHAPES, "ellipsoid", "mesh")

    @staticmethod
    def made(kind: str, values: Mapping[str, float], rng: np.random.Generator) -> Mapping[str, Any]:
        width, height = values["width"], values["height"]
        height = width if kind in ("sphere", "capsule") else height
        length = width if kind in ("cylinder", "sphere") else max(values["length"], 1.1 * width)
        middle = kind in ("sphere", "capsule", "ellipsoid", "mesh")
        radius, direction = rng.uniform(0.025, 0.045), rng.uniform(-np.pi, np.pi)
        return {
            "shape": kind, "grip_width": width, "length": length, "height": height,
            "across": float(rng.uniform(0.08, 0.12)), "mass": values["mass"], "friction": values["friction"],
            "grasp_height": max(height / 2 if middle else max(0.6 * height, height - 0.04), 0.011),
            "grasp_x": float(radius * np.cos(direction)), "grasp_y": float(radius * np.sin(direction)),
            "grasp_yaw": float(rng.uniform(-0.8, 0.8)), "mesh_seed": int(rng.integers(1 << 31)),
        }  # fmt: skip


class NavigationArena(Arena):
    """A building, in which both robots are."""

    name, grips, turns, speed, apart, shared = "navigation", False, False, 5.0, (0.0, 0.0, 0.0), ("world",)
    show_speed = 2.0
    eye, centre, handle_size = (0.0, -8.5, 15.0), (0.0, -0.6, 0.0), 1.3
    wide_eye, wide_centre = eye, centre
    env: NavigationVectorEnv
    _start: np.ndarray

    def reset(self, seed: Sequence[int], demonstrating: bool = False, disturbance: float = 0.0) -> np.ndarray:
        observations = super().reset(seed, demonstrating, disturbance)
        self._start = self.env.pose()[0].copy()
        return observations

    def handle(self) -> Handle:
        x, y = self.env.believed[0, :2]
        return Handle(np.array([x, y, 0.3]))

    def follow(self, handle: Handle) -> np.ndarray:
        goal = np.array(self.task.parameters["goal"])
        place = handle.place[:2]
        return drive_action(self.env, 0, goal if np.linalg.norm(place - goal) < 0.45 else place)

    def limits(self) -> tuple[tuple[float, float], ...]:
        return ((-HALF, HALF), (-HALF, HALF), (0.3, 0.3))

    def shown_at(self, observations: np.ndarray) -> np.ndarray:
        return np.column_stack([observations[:, :2] * HALF, np.full(len(observations), 0.05)])

    def faults(self, success: bool, observations: np.ndarray, actions: np.ndarray) -> list[Said]:
        found: list[Said] = []
        if not success:
            away = np.linalg.norm(self.env.pose()[0, :2] - self.task.parameters["goal"])
            found.append(("not_there", {"metres": float(away)}))
        if self.env.collisions[0] > 0:
            found.append(("walls", {"times": int(self.env.collisions[0])}))
        detour = float(self.env.path[0] / self._shortest())
        if success and detour > 1.6:
            found.append(("detour", {"factor": detour}))
        return found

    def _shortest(self) -> float:
        """Metres of the shortest way that the robot could have taken."""
        p = self.task.parameters
        return shortest_way(plan(p["walls"], p["goal"]), self._start)

    @staticmethod
    def sliders() -> Mapping[str, tuple[float, float, float, float]]:
        return {"seed": (0, 999, 1, 0)}

    @staticmethod
    def kinds() -> tuple[str, ...]:
        return tuple(layouts.STYLES)

    @staticmethod
    def made(kind: str, values: Mapping[str, float], rng: np.random.Generator) -> Mapping[str, Any]:
        rng = np.random.default_rng([int(values["seed"]), len(kind)])
        while True:
            found = draw(layouts.STYLES[kind](rng), rng)
            if found is not None:
                return {"style": kind, **found}
