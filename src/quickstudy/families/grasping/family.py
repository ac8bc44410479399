"""Grasping: an arm picks up an object that it has never seen, from one demonstration.

A task is one object. The arm sees the pose of a tag that is fixed to the object, but not the object's shape, size or
height, nor where it must be held: that is what the demonstration shows. The object's pose, the hand's start and a
little action noise are drawn anew for every episode, so that a demonstration cannot be replayed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quickstudy.families.base import EPISODE, SimulatedFamily, generators
from quickstudy.families.grasping.arm import Arm
from quickstudy.families.grasping.objects import read_objects
from quickstudy.families.grasping.robot_check import check_robot
from quickstudy.families.grasping.sawyer import SAWYER
from quickstudy.families.grasping.settings import GRASPING
from quickstudy.families.grasping.vector_env import (
    ACTION,
    HIDDEN,
    HORIZON,
    OBSERVATION,
    OBSERVATION_LIMIT,
    GraspingVectorEnv,
    hidden,
)
from quickstudy.settings import Changes
from quickstudy.simulation.vector_env import VectorEnv
from quickstudy.task import Task, check_run

TRAIN_SHAPES = ("box", "cylinder", "sphere", "capsule", "l_shape", "t_shape")
HELD_OUT_SHAPES = ("ellipsoid", "mesh")
WIDTHS: Mapping[str, tuple[tuple[float, float], ...]] = {
    "train": ((0.025, 0.030), (0.034, 0.045), (0.055, 0.062), (0.066, 0.075)),
    "validation": ((0.030, 0.034), (0.062, 0.066)),
    "sizes": ((0.020, 0.025), (0.045, 0.055), (0.075, 0.080)),
    "shapes": ((0.020, 0.080),),
}
"""Grip widths of each split in metres, half-open [low, high): no width of one test of sizes occurs in training."""
OBJECTS = "objects"
"""The split of a user's own objects."""


class Grasping(SimulatedFamily):
    """The family; see the module's text."""

    name: str = "grasping"
    sizes: Mapping[str, int] = {"train": 4000, "validation": 1000, "sizes": 1000, "shapes": 1000}
    protocol: str = (
        "shape, size, height and grasp point are hidden, the object's pose, the hand's start and the action noise are "
        "drawn anew for every episode, success is lifted by 10 cm and still held, unslipped and upright, a second later"
    )
    metric: str = "success"
    rate = 20.0
    arm: Arm = SAWYER
    observation_size = len(OBSERVATION)
    observation_limit = OBSERVATION_LIMIT
    action_size = len(ACTION)
    observation_channels: tuple[str, ...] = OBSERVATION
    action_channels: tuple[str, ...] = ACTION
    rest: tuple[float | None, ...] | None = (0.0, 0.0, 0.0, 0.0, None)
    hidden_size = len(HIDDEN)
    horizon = HORIZON
    disturbance = 0.15
    default_method = "meta-sgd"
    method_settings: Mapping[str, Changes] = GRASPING

    def __init__(
        self,
        threads: int | None = None,
        objects: Path | str | None = None,
        unit: str = "m",
    ) -> None:
        """
        Args:
            threads: that step the worlds; by default one for each core. Results do not depend on it.
            objects: a folder of mesh files, whose objects become the test split 'objects', one task each.
            unit: of length in these files.

        Raises:
            QuickstudyError: the robot's model is not installed, see `check_robot` and `read_objects`.
        """
        self.arm.check()
        check_robot(self.arm)
        self.threads = threads
        self.left_out: Mapping[str, str] = {}
        self._objects: Sequence[Mapping[str, Any]] = ()
        if objects is not None:
            self._objects, self.left_out = read_objects(Path(objects), unit, self.arm, threads)
            self.sizes = {**self.sizes, OBJECTS: len(self._objects)}

    def task(self, split: str, index: int) -> Task:
        """A task; in the split 'objects' the object of that place in the order of the files' names."""
        if split == OBJECTS and index < len(self._objects):
            return Task(self.seed_name or self.name, split, index, self._objects[index])
        return super().task(split, index)

    def sample(self, split: str, rng: np.random.Generator) -> Mapping[str, Any]:
        if split == OBJECTS:
            return self._objects[int(rng.integers(len(self._objects)))]
        shape = str(rng.choice(HELD_OUT_SHAPES if split == "shapes" else TRAIN_SHAPES))
        width = _in_bands(rng, WIDTHS[split])
        size = _dimensions(shape, width, self.arm.widest, rng)
        radius, direction = rng.uniform(0.025, 0.045), rng.uniform(-np.pi, np.pi)
        return {
            "shape": shape,
            "grip_width": width,
            **size,
            "mass": rng.uniform(0.1, 0.4),
            "friction": rng.uniform(0.6, 1.0),
            "grasp_x": float(radius * np.cos(direction)),
            "grasp_y": float(radius * np.sin(direction)),
            "grasp_yaw": rng.uniform(-0.8, 0.8),
            "mesh_seed": int(rng.integers(1 << 31)),
        }

    def hidden(self, task: Task) -> np.ndarray:
        return hidden(task.parameters)

    def vector_env(
        self, tasks: Sequence[Task], episodes_per_task: int, *, demonstrating: bool = False, visual: bool = False
    ) -> VectorEnv:
        check_run(tasks, episodes_per_task)
        return GraspingVectorEnv(
            [self.check(task) for task in tasks], episodes_per_task, self.arm, self.threads, visual
        )

    def caption(self, task: Task) -> str:
        shape, width = task.parameters.get("object", task.parameters["shape"]), task.parameters["grip_width"]
        return f"{shape.replace('_', ' ')}, {100 * width:.1f} cm wide"

    def snapshot(self, task: Task, width: int = 240, height: int = 180) -> np.ndarray:
        """The task's object and the hand from close by, uint8 [height, width, 3], for a contact sheet."""
        with GraspingVectorEnv([self.check(task)], 1, self.arm, visual=True) as env:
            env.reset(generators([task], 1, EPISODE, 0))
            return env.render(0, width, height, camera="close")


def _in_bands(rng: np.random.Generator, bands: Sequence[tuple[float, float]]) -> float:
    """A number from half-open bands, each as likely as it is wide."""
    lengths = np.array([high - low for low, high in bands])
    low, high = bands[int(rng.choice(len(bands), p=lengths / lengths.sum()))]
    return float(rng.uniform(low, high))


def _dimensions(shape: str, width: float, widest: float, rng: np.random.Generator) -> dict[str, float]:
    """Length along the fingers, height, length of the bar across, and height of the right grasp; metres."""
    low, high = (0.03, 0.06) if shape in ("ellipsoid", "mesh", "l_shape", "t_shape") else (0.03, 0.10)
    height = width if shape in ("sphere", "capsule") else rng.uniform(low, high)
    if shape in ("cylinder", "sphere"):
        length = width
    elif shape in ("l_shape", "t_shape"):
        length = rng.uniform(0.07, 0.10)
    else:
        # So long that the open fingers cannot straddle it when they are turned by more than about half a radian.
        shortest = (widest - width * np.cos(0.5)) / np.sin(0.5)
        length = rng.uniform(0.0, 0.02) + np.clip(shortest, 1.3 * width, 0.11 if shape == "mesh" else 0.16)
    if shape in ("sphere", "capsule", "ellipsoid", "mesh"):
        grasp_height = height / 2
    else:
        # Tall objects must be taken high, or the palm hits them before the fingers are there.
        grasp_height = rng.uniform(max(0.45 * height, height - 0.04), 0.75 * height)
    return {
        "length": float(length),
        "height": float(height),
        "across": float(rng.uniform(0.08, 0.12)),
        "grasp_height": max(float(grasp_height), 0.011),
    }
